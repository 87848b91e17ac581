// SPDX-License-Identifier: Apache-2.0
//! Directories that stay from build to build: `RUN --mount=type=cache`.
//!
//! A cache is a directory `cache-mounts/<name>-<n>` of the store. `n` is 0 unless steps that run at the same
//! time must not share, or a step finds the cache locked by another and need not wait. In it:
//!
//! - `files`, what steps see. It is made beside its place and renamed into it, so that it is whole or absent.
//! - `lock`, held (flock) by every step that uses the cache: shared by those that share, else exclusively. Its
//!   time of change is when the cache was last used.
//! - `about`, the text that people read.
//!
//! Nothing in it is remembered by records: a step may find its cache empty at any time. Caches are removed by
//! those who have the store alone, so no running step loses its own.

use std::fs::{File, FileTimes, OpenOptions};
use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use polyarch_oci::Platform;
use polyarch_sandbox::CancelFlag;
use polyarch_sandbox::user_namespace::IdMapping;
use polyarch_solver::KeyHasher;
use rustix::fs::{CWD, FlockOperation, RenameFlags};
use rustix::io::Errno;

use crate::error::{BuildError, ErrorKind};
use crate::services::ServiceOptions;

pub(crate) use polyarch_dockerfile::instruction::{MountOwner, Sharing};

/// How often a locked cache is tried again.
const RETRY: Duration = Duration::from_millis(50);

/// No more steps that must not share a cache run at the same time.
const MAX_COPIES: u32 = 1000;

/// Mode of a new cache, as in BuildKit.
const DEFAULT_MODE: u32 = 0o755;

/// Which cache is meant: two steps with the same one have the same directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CacheMountId {
    /// The namespace that the build gave, or nothing.
    pub(crate) namespace: String,
    /// The name that the Dockerfile gave, or the target.
    pub(crate) id: String,
    /// Whose programs it is for; `None` when the Dockerfile named the cache, and so asked for one for all.
    pub(crate) platform: Option<Platform>,
    /// What it began with, when that was not nothing.
    pub(crate) seed: Option<String>,
    /// Mode and owner that it was made with.
    pub(crate) owner: MountOwner,
}

impl CacheMountId {
    fn directory_name(&self) -> String {
        let MountOwner { mode, uid, gid } = self.owner;
        let mut hasher = KeyHasher::new("cache mount 1");
        hasher
            .part(&self.namespace)
            .part(&self.id)
            .part(self.platform.as_ref().map(ToString::to_string).unwrap_or_default())
            .part(self.seed.as_deref().unwrap_or_default())
            .part(format!("{mode:?} {uid:?} {gid:?}"));
        hasher.finish().hex().chars().take(32).collect()
    }

    /// Tells whether it begins with anything but an empty directory of root's.
    pub(crate) fn has_beginning(&self) -> bool {
        self.seed.is_some() || self.owner != MountOwner::default()
    }

    fn about(&self) -> String {
        let name =
            if self.namespace.is_empty() { &self.id } else { &format!("{}/{}", self.namespace, self.id) };
        match &self.platform {
            Some(platform) => format!("cache mount {name} for {platform}"),
            None => format!("cache mount {name}"),
        }
    }
}

/// A cache in use; it is free again when dropped.
#[derive(Debug)]
pub(crate) struct CacheMount {
    /// The directory that steps see.
    pub(crate) files: PathBuf,
    lock: File,
}

impl Drop for CacheMount {
    fn drop(&mut self) {
        // When it was used last decides what is pruned first; nothing depends on it.
        let _ = self.lock.set_times(FileTimes::new().set_modified(SystemTime::now()));
    }
}

/// Returns the directory of caches. Who has one user can't have the files of others.
pub(crate) fn directory(options: &ServiceOptions) -> PathBuf {
    options.root.join(match &options.mapping {
        IdMapping::Single { .. } => "cache-mounts-single-user",
        IdMapping::Host { .. } | IdMapping::Identity | IdMapping::Subordinate { .. } => "cache-mounts",
    })
}

/// Takes a cache, made by `fill` where it isn't there; waits for it where it is to be locked.
///
/// # Errors
/// When the disk refuses, `fill` fails, or the build is interrupted while it waits.
pub(crate) fn acquire(
    parent: &Path,
    id: &CacheMountId,
    sharing: Sharing,
    cancel: &CancelFlag,
    fill: impl Fn(&Path) -> Result<(), BuildError>,
) -> Result<CacheMount, BuildError> {
    let name = id.directory_name();
    std::fs::create_dir_all(parent).map_err(|error| storage("make", parent, &error))?;
    loop {
        let mut is_busy = false;
        for copy in 0..MAX_COPIES {
            let directory = parent.join(format!("{name}-{copy}"));
            // Who waits for the others makes no further copy.
            if sharing == Sharing::Locked && is_busy && !directory.exists() {
                break;
            }
            if let Some(lock) = lock(&directory, sharing)? {
                let files = ensure(&directory, id, &fill)?;
                return Ok(CacheMount { files, lock });
            }
            is_busy = true;
        }
        if cancel.is_cancelled() {
            return Err(BuildError::cancelled());
        }
        if sharing != Sharing::Locked {
            let message = format!("{} has {MAX_COPIES} copies in use", id.about());
            return Err(BuildError::new(ErrorKind::Storage, message));
        }
        std::thread::sleep(RETRY);
    }
}

/// Empties a cache, to be made again by the next step that takes it; one that a step is using stays as it is.
///
/// # Errors
/// When the disk refuses.
pub(crate) fn renew(parent: &Path, id: &CacheMountId) -> Result<(), BuildError> {
    std::fs::create_dir_all(parent).map_err(|error| storage("make", parent, &error))?;
    let directory = parent.join(format!("{}-0", id.directory_name()));
    let Some(_lock) = lock(&directory, Sharing::Locked)? else { return Ok(()) };
    let files = directory.join("files");
    match std::fs::remove_dir_all(&files) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(storage("remove", &files, &error)),
        _ => Ok(()),
    }
}

/// Locks a cache's directory; `None` when others hold it in a way that doesn't go together.
fn lock(directory: &Path, sharing: Sharing) -> Result<Option<File>, BuildError> {
    std::fs::create_dir_all(directory).map_err(|error| storage("make", directory, &error))?;
    let path = directory.join("lock");
    let lock = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let lock = lock.map_err(|error| storage("open", &path, &error))?;
    let operation = match sharing {
        Sharing::Shared => FlockOperation::NonBlockingLockShared,
        Sharing::Private | Sharing::Locked => FlockOperation::NonBlockingLockExclusive,
    };
    match rustix::fs::flock(&lock, operation) {
        Ok(()) => Ok(Some(lock)),
        Err(Errno::WOULDBLOCK) => Ok(None),
        Err(errno) => Err(storage("lock", &path, &errno.into())),
    }
}

/// Returns the files of a locked cache, made where they are not there.
fn ensure(
    directory: &Path,
    id: &CacheMountId,
    fill: &impl Fn(&Path) -> Result<(), BuildError>,
) -> Result<PathBuf, BuildError> {
    let files = directory.join("files");
    if files.is_dir() {
        return Ok(files);
    }
    let about = directory.join("about");
    std::fs::write(&about, id.about()).map_err(|error| storage("write", &about, &error))?;
    let young = tempfile::TempDir::with_prefix_in("young-", directory)
        .map_err(|error| storage("make a directory in", directory, &error))?;
    let MountOwner { mode, uid, gid } = id.owner;
    let set_mode = |mode| {
        std::fs::set_permissions(young.path(), PermissionsExt::from_mode(mode))
            .map_err(|error| storage("set the mode of", young.path(), &error))
    };
    set_mode(DEFAULT_MODE)?;
    fill(young.path())?;
    if uid.is_some() || gid.is_some() {
        chown(young.path(), Some(uid.unwrap_or(0)), Some(gid.unwrap_or(0))).map_err(|error| {
            let owner = format!("{}:{}", uid.unwrap_or(0), gid.unwrap_or(0));
            let message = format!("can't give a cache mount to {owner}: {error}");
            BuildError::new(ErrorKind::Sandbox, message)
        })?;
    }
    if let Some(mode) = mode {
        set_mode(mode & 0o7777)?;
    }
    // Those who share the lock may be here at the same time; the first one's is everybody's.
    match rustix::fs::renameat_with(CWD, young.path(), CWD, &files, RenameFlags::NOREPLACE) {
        Ok(()) => {
            let _ = young.keep();
            Ok(files)
        }
        Err(Errno::EXIST) => Ok(files),
        Err(errno) => Err(storage("put in place", &files, &errno.into())),
    }
}

/// A cache as it lies on the disk.
#[derive(Debug)]
pub(crate) struct StoredCache {
    pub(crate) path: PathBuf,
    pub(crate) about: String,
    pub(crate) created: SystemTime,
    pub(crate) used: SystemTime,
}

/// Lists the caches of every place that this process can look after.
pub(crate) fn list(options: &ServiceOptions) -> Vec<StoredCache> {
    let mut caches = Vec::new();
    let own = directory(options);
    let single = options.root.join("cache-mounts-single-user");
    let parents = if own == single { vec![own] } else { vec![own, single] };
    for parent in parents {
        let Ok(entries) = std::fs::read_dir(&parent) else { continue };
        for entry in entries.flatten() {
            let path = entry.path();
            let modified =
                |path: &Path| std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
            let about = path.join("about");
            let (used, created) = (modified(&path.join("lock")), modified(&about));
            let created = created.or(used).unwrap_or(SystemTime::UNIX_EPOCH);
            caches.push(StoredCache {
                about: std::fs::read_to_string(&about).unwrap_or_default(),
                created,
                used: used.unwrap_or(created),
                path,
            });
        }
    }
    caches
}

fn storage(action: &str, path: &Path, error: &io::Error) -> BuildError {
    BuildError::new(ErrorKind::Storage, format!("can't {action} {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(id: &str) -> CacheMountId {
        CacheMountId {
            namespace: String::new(),
            id: id.to_owned(),
            platform: None,
            seed: None,
            owner: MountOwner::default(),
        }
    }

    fn nothing(_: &Path) -> Result<(), BuildError> {
        Ok(())
    }

    fn take(parent: &Path, sharing: Sharing) -> CacheMount {
        let cancel = CancelFlag::new().expect("a flag");
        acquire(parent, &id("a"), sharing, &cancel, nothing).expect("a cache")
    }

    #[test]
    fn those_who_share_have_one_directory_and_the_others_one_each() {
        let base = tempfile::tempdir().expect("tempdir");
        let (one, two) = (take(base.path(), Sharing::Shared), take(base.path(), Sharing::Shared));
        assert_eq!(one.files, two.files);
        let (three, four) = (take(base.path(), Sharing::Private), take(base.path(), Sharing::Private));
        assert!(three.files != one.files && four.files != one.files && three.files != four.files);
        let files = one.files.clone();
        drop((one, two));
        // The first one that is free is taken again.
        assert_eq!(take(base.path(), Sharing::Private).files, files);
    }

    #[test]
    fn a_locked_cache_is_waited_for_until_the_build_is_interrupted() {
        let base = tempfile::tempdir().expect("tempdir");
        let cancel = CancelFlag::new().expect("a flag");
        let held = take(base.path(), Sharing::Locked);
        cancel.cancel();
        let error = acquire(base.path(), &id("a"), Sharing::Locked, &cancel, nothing).expect_err("busy");
        assert_eq!(error.kind, ErrorKind::Cancelled);
        let other = acquire(base.path(), &id("b"), Sharing::Locked, &cancel, nothing).expect("another cache");
        assert_ne!(other.files, held.files);
        let waiting = std::thread::scope(|scope| {
            let waiting = scope.spawn(|| take(base.path(), Sharing::Locked).files.clone());
            let files = held.files.clone();
            drop(held);
            (waiting.join().expect("no panic"), files)
        });
        assert_eq!(waiting.0, waiting.1);
    }

    #[test]
    fn what_fills_a_cache_is_there_once_and_whole_or_not_at_all() {
        let base = tempfile::tempdir().expect("tempdir");
        let cancel = CancelFlag::new().expect("a flag");
        let refuse = |_: &Path| Err(BuildError::new(ErrorKind::Storage, "no"));
        acquire(base.path(), &id("a"), Sharing::Shared, &cancel, refuse).expect_err("refused");
        let fill =
            |path: &Path| std::fs::write(path.join("seed"), "x").map_err(|error| storage("", path, &error));
        let owner = MountOwner { mode: Some(0o2750), uid: None, gid: None };
        let id = CacheMountId { owner, ..id("a") };
        let cache = acquire(base.path(), &id, Sharing::Shared, &cancel, fill).expect("filled");
        std::fs::remove_file(cache.files.join("seed")).expect("seeded");
        let mode = std::fs::metadata(&cache.files).expect("stat").permissions().mode();
        assert_eq!(mode & 0o7777, 0o2750);
        let again = acquire(base.path(), &id, Sharing::Shared, &cancel, fill).expect("there");
        assert!(!again.files.join("seed").exists(), "a cache is filled only when it is made");
        let left = std::fs::read_dir(cache.files.parent().expect("a parent")).expect("list").count();
        assert_eq!(left, 3, "files, lock and about, and nothing of those that failed");
    }

    #[test]
    fn a_cache_begins_anew_unless_it_is_in_use() {
        let base = tempfile::tempdir().expect("tempdir");
        renew(base.path(), &id("a")).expect("nothing to renew");
        let held = take(base.path(), Sharing::Shared);
        std::fs::write(held.files.join("file"), "x").expect("write");
        renew(base.path(), &id("a")).expect("left alone");
        assert!(held.files.join("file").exists());
        drop(held);
        renew(base.path(), &id("a")).expect("renewed");
        assert!(!take(base.path(), Sharing::Shared).files.join("file").exists());
        let owner = MountOwner { mode: Some(0o773), ..MountOwner::default() };
        assert!(CacheMountId { owner, ..id("a") }.has_beginning() && !id("a").has_beginning());
    }

    #[test]
    fn a_cache_is_known_by_all_that_makes_it() {
        let one = id("a");
        let platform = Some("linux/arm64".parse().expect("a platform"));
        for other in [
            id("b"),
            CacheMountId { namespace: "ns".to_owned(), ..id("a") },
            CacheMountId { platform, ..id("a") },
            CacheMountId { seed: Some("s".to_owned()), ..id("a") },
            CacheMountId { owner: MountOwner { uid: Some(1), ..MountOwner::default() }, ..id("a") },
        ] {
            assert_ne!(one.directory_name(), other.directory_name(), "{other:?}");
        }
    }
}
