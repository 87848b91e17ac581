// SPDX-License-Identifier: Apache-2.0
//! Single changes of files, as definitions of clients have them.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use polyarch_dockerfile::Pattern;
use polyarch_snapshot::{Kind, SnapshotError, TreeRoot};

use super::copy::{CopyAction, CopyForm, CopyPath, owner_in};
use crate::error::{BuildError, ErrorKind};
use crate::services::Services;

/// One change of a tree. Paths are absolute; an owner is `user[:group]`, each a name of the tree or a number,
/// and root when absent; times are in nanoseconds since 1970, and now when absent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileChange {
    /// A directory; one that is there stays as it is.
    Mkdir {
        /// Its path.
        path: String,
        /// Its permissions.
        mode: u32,
        /// Whether those above it are made, too.
        parents: bool,
        /// Its owner.
        owner: Option<String>,
        /// Its time.
        time: Option<i64>,
    },
    /// A file, written anew.
    Mkfile {
        /// Its path; its directory must be there.
        path: String,
        /// Its permissions.
        mode: u32,
        /// Its content.
        data: Arc<[u8]>,
        /// Its owner.
        owner: Option<String>,
        /// Its time.
        time: Option<i64>,
    },
    /// A symlink where nothing is yet.
    Symlink {
        /// What it leads to.
        target: String,
        /// Its path.
        path: String,
        /// Its owner.
        owner: Option<String>,
        /// Its time.
        time: Option<i64>,
    },
    /// Removes what stands at a path, a directory with all in it.
    Remove {
        /// The path.
        path: String,
        /// Whether it must be there.
        must_exist: bool,
        /// Whether `*`, `?`, `[` and `\` have a meaning.
        has_wildcards: bool,
    },
    /// Copies from another tree.
    Copy(Box<CopyChange>),
}

/// A copy from another tree.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CopyChange {
    /// The path or pattern in the other tree.
    pub source: String,
    /// Where it goes; with a trailing slash into that directory.
    pub destination: String,
    /// The owner of what is copied; its own when absent.
    pub owner: Option<String>,
    /// The mode of what is copied, in numbers or symbols; its own when absent.
    pub mode: Option<String>,
    /// Whether a symlink at the source brings what it leads to.
    pub follows_links: bool,
    /// Whether of a directory only what is in it is copied.
    pub only_contents: bool,
    /// Whether an archive is unpacked.
    pub unpack: bool,
    /// Whether the directory of the destination is made.
    pub makes_destination: bool,
    /// Whether the source is a pattern.
    pub has_wildcards: bool,
    /// Whether the pattern may match nothing.
    pub may_match_nothing: bool,
    /// The time of what is copied, in nanoseconds since 1970; its own when absent.
    pub time: Option<i64>,
    /// What of a directory is copied; all of it when there are no patterns.
    pub include: Vec<String>,
    /// What of a directory is not copied.
    pub exclude: Vec<String>,
    /// Paths that must be there.
    pub required: Vec<String>,
}

impl CopyChange {
    /// Returns what a file operation does for it; `from_context` tells that owners of the source mean nothing.
    pub(crate) fn action(&self, input: usize, from_context: bool) -> CopyAction {
        let source = self.source.trim_matches('/');
        CopyAction {
            input,
            sources: vec![CopyPath {
                pattern: if source.is_empty() { "." } else { source }.to_owned(),
                include: None,
                is_literal: !self.has_wildcards,
            }],
            destination: self.destination.clone(),
            owner: self.owner.clone(),
            mode: self.mode.clone(),
            exclude: self.exclude.clone(),
            unpack: self.unpack,
            from_context,
            form: CopyForm {
                keeps_directories: !self.only_contents,
                keeps_links: !self.follows_links,
                needs_parent: !self.makes_destination,
                needs_match: self.has_wildcards && !self.may_match_nothing,
                modified: self.time.map(|time| time.div_euclid(1_000_000_000)),
                include: self.include.clone(),
                required: self.required.clone(),
            },
            ..CopyAction::default()
        }
    }
}

impl FileChange {
    /// Returns what decides about the result.
    pub(crate) fn key(&self) -> String {
        match self {
            FileChange::Mkfile { path, mode, data, owner, time } => {
                let digest = polyarch_oci::Digest::of(data);
                format!("Mkfile {path:?} {mode} {digest} {owner:?} {time:?}")
            }
            change => format!("{change:?}"),
        }
    }

    /// Changes a tree. Copies are made by the operation that has their sources.
    pub(crate) fn apply(&self, services: &Services, tree: &TreeRoot) -> Result<(), BuildError> {
        let failed = |error: SnapshotError| BuildError {
            kind: ErrorKind::Dockerfile,
            ..services.snapshot_error("can't change files", &error)
        };
        let refused = |message: String| Err(BuildError::new(ErrorKind::Dockerfile, message));
        let owner = |owner: &Option<String>| match owner {
            Some(owner) => owner_in(tree, owner),
            None => Ok((0, 0)),
        };
        let (path, time) = match self {
            FileChange::Mkdir { path, mode, parents, owner: wanted, time } => {
                if tree.metadata(path).map_err(failed)?.is_some_and(|it| it.kind == Kind::Directory) {
                    return Ok(());
                }
                if !parents && !tree.exists(parent_of(path)) {
                    return refused(format!("mkdir {path}: no such file or directory"));
                }
                let owner = owner(wanted)?;
                return make_directories(tree, path, *mode & 0o777, owner, *time).map_err(failed);
            }
            FileChange::Mkfile { path, mode, data, owner: wanted, time } => {
                if !tree.exists(parent_of(path)) {
                    return refused(format!("open {path}: no such file or directory"));
                }
                // What a link leads to is written, and not the link.
                let real = tree.real_path(path).map_err(failed)?;
                let place = real.unwrap_or_else(|| path.into());
                tree.write_file(&place, data, *mode & 0o777, owner(wanted)?).map_err(failed)?;
                (path, time)
            }
            FileChange::Symlink { target, path, owner: wanted, time } => {
                if tree.symlink_metadata(path).map_err(failed)?.is_some() {
                    return refused(format!("symlink {target} {path}: file exists"));
                }
                if !tree.exists(parent_of(path)) {
                    return refused(format!("symlink {target} {path}: no such file or directory"));
                }
                tree.symlink(target, path, owner(wanted)?).map_err(failed)?;
                (path, time)
            }
            FileChange::Remove { path, must_exist, has_wildcards } => {
                let paths = match has_wildcards {
                    true => matches(tree, path).map_err(failed)?,
                    false => vec![path.clone()],
                };
                for path in paths {
                    if *must_exist && tree.symlink_metadata(&path).map_err(failed)?.is_none() {
                        return refused(format!("stat {path}: no such file or directory"));
                    }
                    tree.remove(&path).map_err(failed)?;
                }
                return Ok(());
            }
            FileChange::Copy(_) => return Ok(()),
        };
        match time.and_then(system_time) {
            Some(time) => tree.set_modified(path, time).map_err(failed),
            None => Ok(()),
        }
    }
}

/// Makes a directory and those above it that are not there; all of them get the time, in nanoseconds since 1970.
pub(super) fn make_directories(
    tree: &TreeRoot,
    path: &str,
    mode: u32,
    owner: (u32, u32),
    time: Option<i64>,
) -> Result<(), SnapshotError> {
    let mut missing = Vec::new();
    let mut at = path;
    while at != "/" && tree.metadata(at)?.is_none() {
        missing.push(at);
        at = parent_of(at);
    }
    tree.mkdir_all(path, mode, owner)?;
    match time.and_then(system_time) {
        // What is made in a directory changes its time, so this comes last.
        Some(time) => missing.into_iter().try_for_each(|path| tree.set_modified(path, time)),
        None => Ok(()),
    }
}

fn parent_of(path: &str) -> &str {
    match path.trim_end_matches('/').rsplit_once('/') {
        Some(("", _)) | None => "/",
        Some((parent, _)) => parent,
    }
}

fn system_time(nanoseconds: i64) -> Option<SystemTime> {
    let distance = Duration::from_nanos(nanoseconds.unsigned_abs());
    match nanoseconds < 0 {
        true => UNIX_EPOCH.checked_sub(distance),
        false => UNIX_EPOCH.checked_add(distance),
    }
}

/// Finds the paths that match a pattern, component by component.
fn matches(tree: &TreeRoot, pattern: &str) -> Result<Vec<String>, SnapshotError> {
    let mut found = vec![String::new()];
    for part in pattern.split('/').filter(|part| !part.is_empty()) {
        let mut next = Vec::new();
        for directory in found {
            let is_directory = tree.metadata(if directory.is_empty() { "/" } else { &directory })?;
            if is_directory.is_none_or(|it| it.kind != Kind::Directory) {
                continue;
            }
            let pattern = Pattern::new(part).ok();
            let names = tree.read_dir(if directory.is_empty() { "/" } else { &directory })?;
            for (name, _) in names {
                // A name that is no text matches no pattern that is one.
                if let Some(name) = name.to_str()
                    && pattern.as_ref().is_some_and(|pattern| pattern.matches(name))
                {
                    next.push(format!("{directory}/{name}"));
                }
            }
        }
        found = next;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_directories_that_are_made_get_the_time() {
        let base = tempfile::tempdir().unwrap();
        std::fs::create_dir(base.path().join("there")).unwrap();
        let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        let tree = TreeRoot::open(base.path()).unwrap();
        make_directories(&tree, "/there/a/b", 0o755, (uid, gid), Some(7_000_000_000)).unwrap();
        let time = |path: &str| {
            let modified = std::fs::metadata(base.path().join(path)).unwrap().modified().unwrap();
            modified.duration_since(UNIX_EPOCH).unwrap().as_secs()
        };
        assert_eq!((time("there/a"), time("there/a/b")), (7, 7));
        assert!(time("there") > 7);
        // One that is there stays as it is.
        make_directories(&tree, "/there/a/b", 0o700, (uid, gid), Some(9_000_000_000)).unwrap();
        assert_eq!(time("there/a/b"), 7);
    }
}
