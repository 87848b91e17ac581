// SPDX-License-Identifier: Apache-2.0
//! The store itself: its root, its format and the paths beneath.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use polyarch_oci::Digest;

use crate::disk::{Disk, names_in};
use crate::{StoreError, lock};

/// What the format file says.
const FORMAT: &str = "polyarch-store 1\n";

/// When bytes become durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// Every blob and record is durable when the call that wrote it returns.
    Each,
    /// Blobs and records are usable at once by all processes, and become durable together by
    /// [`Store::sync`], which setting a name calls first. What was not synced is gone after a power
    /// loss, and stays after a killed process.
    #[default]
    Batched,
}

/// An open store.
///
/// A clone is another handle of the same open store. The store cannot be collected while a handle, or
/// a [`crate::BlobWriter`] made by one, is alive in any process.
#[derive(Clone)]
pub struct Store {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) root: PathBuf,
    /// Held for `syncfs`, which reports write errors since the descriptor was opened.
    pub(crate) root_dir: File,
    pub(crate) lock: File,
    pub(crate) durability: Durability,
    /// `staged/BOOT`, when the boot id is known.
    pub(crate) staged: Option<PathBuf>,
    pub(crate) disk: Disk,
    token: String,
    sequence: AtomicU64,
}

impl Store {
    /// Opens the store at `root` with batched durability, making it when there is none.
    ///
    /// Waits while another process collects garbage. Costs a few system calls.
    ///
    /// # Errors
    /// When the root cannot be used, or holds a store of another version.
    pub fn open(root: &Path) -> Result<Store, StoreError> {
        Store::open_with(root, Durability::default())
    }

    /// Opens the store at `root` as [`Store::open`] does, with the durability of choice.
    pub fn open_with(root: &Path, durability: Durability) -> Result<Store, StoreError> {
        Store::open_at_boot(root, durability, boot_id())
    }

    pub(crate) fn open_at_boot(
        root: &Path,
        durability: Durability,
        boot: Option<String>,
    ) -> Result<Store, StoreError> {
        let root = std::path::absolute(root).map_err(StoreError::io("find", root))?;
        let disk = Disk::default();
        let mut random = [0; 8];
        getrandom::fill(&mut random)
            .map_err(|error| StoreError::io("get random bytes for", &root)(io::Error::other(error)))?;
        let token = hex::encode(random);
        let is_made = is_current(&root)?;
        let lock = open_lock(&root, is_made)?;
        if !is_made {
            // Alone, because whoever opens a made store takes files in `ingest` for left-overs.
            lock::exclusive(&lock, &root)?;
            if !is_current(&root)? {
                make(&root, &disk, &token)?;
            }
        }
        lock::shared(&lock, &root)?;
        let inner = Inner {
            root_dir: File::open(&root).map_err(StoreError::io("open", &root))?,
            durability: if boot.is_some() { durability } else { Durability::Each },
            staged: boot.map(|boot| root.join("staged").join(boot)),
            sequence: AtomicU64::new(0),
            disk,
            token,
            lock,
            root,
        };
        let store = Store { inner: Arc::new(inner) };
        store.sweep_leftovers()?;
        Ok(store)
    }

    /// Returns the root as an absolute path.
    pub fn root(&self) -> &Path {
        &self.inner.root
    }

    /// Returns when bytes become durable: [`Durability::Each`] also where batching is impossible.
    pub fn durability(&self) -> Durability {
        self.inner.durability
    }

    /// Removes what killed processes left in `ingest`, if nobody else has the store open.
    fn sweep_leftovers(&self) -> Result<(), StoreError> {
        if names_in(&self.inner.ingest())?.is_empty()
            || !lock::try_exclusive(&self.inner.lock, &self.inner.root)?
        {
            return Ok(());
        }
        let swept = self.inner.remove_leftovers();
        lock::shared(&self.inner.lock, &self.inner.root)?;
        swept.map(|_| ())
    }
}

impl Inner {
    pub(crate) fn ingest(&self) -> PathBuf {
        self.root.join("ingest")
    }

    pub(crate) fn blobs(&self) -> PathBuf {
        self.root.join("blobs")
    }

    pub(crate) fn blob(&self, digest: &Digest) -> PathBuf {
        blob_beneath(&self.root, digest)
    }

    pub(crate) fn staged_blob(&self, digest: &Digest) -> Option<PathBuf> {
        self.staged.as_ref().map(|staged| blob_beneath(staged, digest))
    }

    /// Makes a file in `ingest`; the caller removes or renames it.
    pub(crate) fn create_ingest(&self, mode: u32) -> Result<(PathBuf, File), StoreError> {
        let number = self.sequence.fetch_add(1, Ordering::Relaxed);
        let path = self.ingest().join(format!("{}-{number}-{}", std::process::id(), self.token));
        let file = create_new(&path, mode)?;
        Ok((path, file))
    }

    /// Replaces a small file by one rename; durably when asked.
    pub(crate) fn replace(&self, target: &Path, bytes: &[u8], durable: bool) -> Result<(), StoreError> {
        let (temp, mut file) = self.create_ingest(0o644)?;
        let placed = (|| {
            file.write_all(bytes).map_err(StoreError::io("write", &temp))?;
            if durable {
                self.disk.sync_file(&file, &temp)?;
            }
            self.rename_making_dirs(|| self.disk.rename(&temp, target), target)
        })();
        if let Err(error) = placed {
            // Removing is only tidy: a later open finds left-overs too.
            let _ = self.disk.remove(&temp);
            return Err(error);
        }
        match target.parent() {
            Some(dir) if durable => self.disk.sync_dir(dir),
            _ => Ok(()),
        }
    }

    /// Renames, making the target's directory when it is missing.
    pub(crate) fn rename_making_dirs(
        &self,
        rename: impl Fn() -> io::Result<()>,
        target: &Path,
    ) -> Result<(), StoreError> {
        let mut result = rename();
        if let (Err(error), Some(dir)) = (&result, target.parent())
            && error.kind() == io::ErrorKind::NotFound
        {
            self.disk.ensure_dir(dir)?;
            result = rename();
        }
        result.map_err(StoreError::io("rename a new file to", target))
    }
}

fn blob_beneath(dir: &Path, digest: &Digest) -> PathBuf {
    dir.join("blobs").join(digest.algorithm().as_str()).join(digest.hex())
}

/// Tells whether there is a store of our version; fails when there is one of another.
fn is_current(root: &Path) -> Result<bool, StoreError> {
    let path = root.join("format");
    let file = match File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        other => other.map_err(StoreError::io("open", &path))?,
    };
    let mut found = Vec::new();
    file.take(100).read_to_end(&mut found).map_err(StoreError::io("read", &path))?;
    if found == FORMAT.as_bytes() {
        return Ok(true);
    }
    Err(StoreError::Format { path, found: String::from_utf8_lossy(&found).into_owned() })
}

/// Opens the lock file; makes it, and the root, where there is no store yet.
fn open_lock(root: &Path, is_made: bool) -> Result<File, StoreError> {
    let path = root.join("lock");
    let mut options = OpenOptions::new();
    if is_made {
        options.read(true);
    } else {
        DirBuilder::new().recursive(true).mode(0o700).create(root).map_err(StoreError::io("create", root))?;
        options.create(true).append(true).mode(0o644);
    }
    options.open(&path).map_err(StoreError::io("open", &path))
}

/// Makes a store; the format file comes last. The caller holds the exclusive lock.
fn make(root: &Path, disk: &Disk, token: &str) -> Result<(), StoreError> {
    for dir in ["ingest", "blobs/sha256", "blobs/sha512", "refs", "records"] {
        disk.ensure_dir(&root.join(dir))?;
    }
    let temp = root.join("ingest").join(format!("format-{token}"));
    let target = root.join("format");
    let mut file = create_new(&temp, 0o644)?;
    file.write_all(FORMAT.as_bytes()).map_err(StoreError::io("write", &temp))?;
    disk.sync_file(&file, &temp)?;
    disk.rename(&temp, &target).map_err(StoreError::io("create", &target))?;
    disk.sync_dir(root)
}

fn create_new(path: &Path, mode: u32) -> Result<File, StoreError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true).mode(mode);
    options.open(path).map_err(StoreError::io("create", path))
}

/// Reads the kernel's boot id; `None` where there is none, as without `/proc`.
fn boot_id() -> Option<String> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let id = text.trim_end();
    let is_id =
        (8..=64).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    is_id.then(|| id.to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn opening_makes_a_private_store_once() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("a/b");
        drop(Store::open(&root).unwrap());
        assert_eq!(fs::metadata(&root).unwrap().permissions().mode() & 0o777, 0o700);
        let made = fs::metadata(root.join("format")).unwrap().modified().unwrap();
        let store = Store::open(&root).unwrap();
        assert_eq!(fs::metadata(root.join("format")).unwrap().modified().unwrap(), made);
        assert_eq!(names_in(&store.inner.ingest()).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn a_store_of_another_version_is_refused_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("format"), "polyarch-store 2\n").unwrap();
        let error = Store::open(dir.path()).err().unwrap();
        assert!(matches!(error, StoreError::Format { .. }), "{error}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn leftovers_go_when_nobody_else_has_the_store() {
        let dir = tempfile::tempdir().unwrap();
        let first = Store::open(dir.path()).unwrap();
        let leftover = dir.path().join("ingest/1-2-3");
        fs::write(&leftover, "torn").unwrap();
        let second = Store::open(dir.path()).unwrap();
        assert!(leftover.exists(), "the first handle might be writing it");
        drop((first, second));
        let _third = Store::open(dir.path()).unwrap();
        assert!(!leftover.exists());
    }
}
