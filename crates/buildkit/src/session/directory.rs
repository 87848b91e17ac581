// SPDX-License-Identifier: Apache-2.0
//! A directory that a daemon may read, walked in the order and with the filters of file transfers.
//!
//! Entries come parents first, names in the order of their bytes. Owners are left out: a context belongs
//! to nobody. A file of several names is told once, and its other names as links to the first. Neither a walk
//! nor an open leaves the directory: symlinks are told, never followed. What its own rules withhold is not
//! told, whatever the daemon asks for.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::{File, FileType};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use polyarch_dockerfile::{IgnoreError, IgnoreRules, IgnoreState};
use polyarch_snapshot::TreeRoot;

use crate::api::fsutil::Stat;
use crate::session::follow::follow_paths;
use crate::session::{attributes, go_mode};

/// The deepest directory that is walked.
const MAX_DEPTH: usize = 256;

/// A directory that a daemon may read.
#[derive(Debug, Clone)]
pub struct SharedDirectory {
    path: PathBuf,
    tree: TreeRoot,
    withheld: Option<Arc<IgnoreRules>>,
}

/// The file of a context that daemons read before they ask for the rest: no rule withholds it.
const IGNORE_FILE: &str = ".dockerignore";

/// What a daemon asks for of a directory.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    included: Option<IgnoreRules>,
    excluded: Option<IgnoreRules>,
}

/// Why a directory could not be walked to its end.
#[derive(Debug, thiserror::Error)]
pub enum WalkError {
    /// Something can't be read.
    #[error("can't read {}: {source}", path.display())]
    Read {
        /// What.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Directories are nested too deeply.
    #[error("{} is nested more than {MAX_DEPTH} directories deep", path.display())]
    TooDeep {
        /// The directory.
        path: PathBuf,
    },
    /// A name is no text, which file transfers need.
    #[error("the name {} is not UTF-8", path.display())]
    Name {
        /// The path.
        path: PathBuf,
    },
    /// Whoever takes the entries wants no more.
    #[error("the transfer was given up")]
    Stopped,
}

impl SharedDirectory {
    /// Shares a directory.
    ///
    /// # Errors
    /// When it can't be opened.
    pub fn open(path: &Path) -> Result<SharedDirectory, polyarch_snapshot::SnapshotError> {
        Ok(SharedDirectory { path: path.to_owned(), tree: TreeRoot::open(path)?, withheld: None })
    }

    /// Keeps back what an ignore file leaves out: a daemon that is asked to leave it out may do as it likes.
    #[must_use]
    pub fn withholding(self, rules: Option<&IgnoreRules>) -> SharedDirectory {
        SharedDirectory { withheld: rules.cloned().map(Arc::new), ..self }
    }

    /// Makes a selection of patterns that must match, patterns that must not, and paths to follow.
    ///
    /// # Errors
    /// The first malformed pattern.
    pub fn select(
        &self,
        include: &[String],
        exclude: &[String],
        follow: &[String],
    ) -> Result<Selection, IgnoreError> {
        let mut include = include.to_vec();
        if !follow.is_empty() {
            // The root among them means that they choose nothing.
            include.extend(follow_paths(&self.path, follow).unwrap_or_default());
        }
        let rules = |patterns: &[String]| {
            let rules = IgnoreRules::from_patterns(patterns)?;
            Ok(Some(rules).filter(|rules| !rules.is_empty()))
        };
        Ok(Selection { included: rules(&include)?, excluded: rules(exclude)? })
    }

    /// Gives each selected entry; a directory that is not selected itself comes when something in it is.
    ///
    /// # Errors
    /// What can't be read, unless it went away meanwhile; [`WalkError::Stopped`] when `take` refuses.
    pub fn walk(
        &self,
        selection: &Selection,
        take: &mut dyn FnMut(Stat) -> Result<(), WalkError>,
    ) -> Result<(), WalkError> {
        let mut walk = Walk {
            root: &self.path,
            withheld: self.withheld.as_deref(),
            selection,
            take,
            pending: Vec::new(),
            first_names: HashMap::new(),
        };
        walk.directory("", &States::default(), 0)
    }

    /// Opens a regular file that a walk has told.
    ///
    /// # Errors
    /// When it can't be opened.
    pub fn open_file(&self, path: &str) -> Result<File, polyarch_snapshot::SnapshotError> {
        self.tree.open_file(path)
    }
}

/// What the rules have said of a directory.
#[derive(Default)]
struct States {
    included: IgnoreState,
    excluded: IgnoreState,
    withheld: IgnoreState,
}

struct Walk<'a> {
    root: &'a Path,
    withheld: Option<&'a IgnoreRules>,
    selection: &'a Selection,
    take: &'a mut dyn FnMut(Stat) -> Result<(), WalkError>,
    /// Directories on the way that were not told yet.
    pending: Vec<Stat>,
    /// The first name of each file that has several, by device and inode.
    first_names: HashMap<(u64, u64), String>,
}

impl Walk<'_> {
    fn directory(&mut self, path: &str, states: &States, depth: usize) -> Result<(), WalkError> {
        let directory = self.root.join(path);
        if depth > MAX_DEPTH {
            return Err(WalkError::TooDeep { path: directory });
        }
        let Some(names) = present(&directory, read_names(&directory))? else { return Ok(()) };
        for name in names {
            let name = name.into_string().map_err(|name| WalkError::Name { path: directory.join(name) })?;
            let path = if path.is_empty() { name } else { format!("{path}/{name}") };
            self.entry(&path, states, depth)?;
        }
        Ok(())
    }

    fn entry(&mut self, path: &str, states: &States, depth: usize) -> Result<(), WalkError> {
        let full = self.root.join(path);
        let included =
            self.selection.included.as_ref().map(|rules| (rules, rules.check(&states.included, path)));
        let excluded =
            self.selection.excluded.as_ref().map(|rules| (rules, rules.check(&states.excluded, path)));
        let withheld = self.withheld.map(|rules| (rules, rules.check(&states.withheld, path)));
        let is_left_out = |by: &Option<(&IgnoreRules, IgnoreState)>| {
            by.as_ref().is_some_and(|(_, state)| state.is_ignored())
        };
        let is_included = included.is_none() || is_left_out(&included);
        let is_withheld = is_left_out(&withheld) && path != IGNORE_FILE;
        let is_skipped = !is_included || is_left_out(&excluded) || is_withheld;
        let Some(metadata) = present(&full, full.symlink_metadata())? else { return Ok(()) };
        if !metadata.is_dir() {
            return match is_skipped || !is_sendable(metadata.file_type()) {
                true => Ok(()),
                false => match stat(path, &full, &metadata)? {
                    Some(stat) => self.tell_file(stat, &metadata),
                    None => Ok(()),
                },
            };
        }
        let has_nothing = |by: &Option<(&IgnoreRules, IgnoreState)>| {
            by.as_ref().is_some_and(|(rules, state)| rules.can_prune(state, path))
        };
        let is_pruned = !is_included
            && included.as_ref().is_some_and(|(rules, _)| !rules.may_match_below(path))
            || has_nothing(&excluded)
            || has_nothing(&withheld);
        if is_pruned {
            return Ok(());
        }
        let Some(stat) = stat(path, &full, &metadata)? else { return Ok(()) };
        let before = self.pending.len();
        match is_skipped {
            true => self.pending.push(stat),
            false => self.tell(stat)?,
        }
        let state = |state: Option<(_, IgnoreState)>| state.map(|(_, state)| state).unwrap_or_default();
        let states =
            States { included: state(included), excluded: state(excluded), withheld: state(withheld) };
        self.directory(path, &states, depth + 1)?;
        // It was told when something below it was.
        self.pending.truncate(before);
        Ok(())
    }

    /// Tells a file; one that was told under another name as a link to that.
    fn tell_file(&mut self, mut stat: Stat, metadata: &std::fs::Metadata) -> Result<(), WalkError> {
        if metadata.is_file() && metadata.nlink() > 1 {
            match self.first_names.entry((metadata.dev(), metadata.ino())) {
                Entry::Occupied(first) => stat.linkname.clone_from(first.get()),
                Entry::Vacant(place) => drop(place.insert(stat.path.clone())),
            }
        }
        self.tell(stat)
    }

    fn tell(&mut self, stat: Stat) -> Result<(), WalkError> {
        for directory in self.pending.drain(..) {
            (self.take)(directory)?;
        }
        (self.take)(stat)
    }
}

fn read_names(directory: &Path) -> io::Result<Vec<std::ffi::OsString>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        names.push(entry?.file_name());
    }
    names.sort();
    Ok(names)
}

/// Turns what went away between being listed and being read into nothing.
fn present<T>(path: &Path, result: io::Result<T>) -> Result<Option<T>, WalkError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(source) => Err(WalkError::Read { path: path.to_owned(), source }),
    }
}

/// Tells whether a receiver can make such a file: of sockets it makes nothing.
fn is_sendable(kind: FileType) -> bool {
    !kind.is_socket()
}

/// Returns what a path is; `None` when it went away meanwhile.
fn stat(path: &str, full: &Path, metadata: &std::fs::Metadata) -> Result<Option<Stat>, WalkError> {
    let kind = metadata.file_type();
    let is_device = kind.is_char_device() || kind.is_block_device();
    let linkname = match kind.is_symlink() {
        true => {
            let read = |source| WalkError::Read { path: full.to_owned(), source };
            let target = full.read_link().map_err(read)?;
            target.into_os_string().into_string().map_err(|_| WalkError::Name { path: full.to_owned() })?
        }
        false => String::new(),
    };
    // Times before 1678 and after 2262 are not written in nanoseconds.
    let mod_time = metadata.mtime().saturating_mul(1_000_000_000).saturating_add(metadata.mtime_nsec());
    let device = metadata.rdev();
    let number = |number: u32| if is_device { i64::from(number) } else { 0 };
    let Some(xattrs) = present(full, attributes::read(full))? else { return Ok(None) };
    Ok(Some(Stat {
        path: path.to_owned(),
        mode: go_mode::of_kernel(metadata.mode()),
        uid: 0,
        gid: 0,
        size: if metadata.is_file() { i64::try_from(metadata.len()).unwrap_or(i64::MAX) } else { 0 },
        mod_time,
        linkname,
        devmajor: number(rustix::fs::major(device)),
        devminor: number(rustix::fs::minor(device)),
        xattrs,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(include: &[&str], exclude: &[&str], follow: &[&str]) -> Vec<String> {
        let root = tempfile::tempdir().unwrap();
        for path in ["a/b/c", "a/x", "a.txt", "node_modules/deep/kept", "node_modules/gone", "z"] {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "1234").unwrap();
        }
        std::os::unix::fs::symlink("a/b", root.path().join("link")).unwrap();
        let directory = SharedDirectory::open(root.path()).unwrap();
        let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let selection = directory.select(&owned(include), &owned(exclude), &owned(follow)).unwrap();
        let mut paths = Vec::new();
        directory
            .walk(&selection, &mut |stat| {
                paths.push(stat.path);
                Ok(())
            })
            .unwrap();
        paths
    }

    #[test]
    fn everything_comes_with_parents_first_and_names_in_order() {
        let all = listed(&[], &[], &[]);
        let expected = [
            "a",
            "a/b",
            "a/b/c",
            "a/x",
            "a.txt",
            "link",
            "node_modules",
            "node_modules/deep",
            "node_modules/deep/kept",
            "node_modules/gone",
            "z",
        ];
        assert_eq!(all, expected);
    }

    #[test]
    fn directories_on_the_way_come_with_what_is_in_them() {
        assert_eq!(listed(&["a/b/c"], &[], &[]), ["a", "a/b", "a/b/c"]);
        assert_eq!(listed(&["*/x"], &[], &[]), ["a", "a/x"]);
        assert_eq!(
            listed(&[], &["node_modules", "!node_modules/deep/kept", "a"], &[]),
            ["a.txt", "link", "node_modules", "node_modules/deep", "node_modules/deep/kept", "z"]
        );
    }

    #[test]
    fn followed_links_come_with_what_they_point_to() {
        assert_eq!(listed(&[], &[], &["link/c"]), ["a", "a/b", "a/b/c", "link"]);
        assert_eq!(listed(&[], &[], &["nothing"]), [""; 0]);
        assert_eq!(listed(&[], &["z"], &["."]).len(), 10);
    }

    #[test]
    fn what_is_withheld_is_not_told_whatever_is_asked_for() {
        let root = tempfile::tempdir().unwrap();
        for path in [".dockerignore", "secrets/key", "secrets/public/a", "src/a", "src/.dockerignore"] {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "1234").unwrap();
        }
        let rules = IgnoreRules::parse(b"**/.dockerignore\nsecrets\n!secrets/public\n").unwrap();
        let directory = SharedDirectory::open(root.path()).unwrap().withholding(Some(&rules));
        let told = |include: &[&str], exclude: &[&str], follow: &[&str]| {
            let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
            let selection = directory.select(&owned(include), &owned(exclude), &owned(follow)).unwrap();
            let mut paths = Vec::new();
            let mut take = |stat: Stat| {
                paths.push(stat.path);
                Ok(())
            };
            directory.walk(&selection, &mut take).unwrap();
            paths
        };
        let all = [".dockerignore", "secrets", "secrets/public", "secrets/public/a", "src", "src/a"];
        assert_eq!(told(&[], &[], &[]), all);
        assert_eq!(told(&["secrets/key"], &[], &[]), [""; 0]);
        assert_eq!(told(&[], &["!secrets/key", "!**"], &[]), all);
        assert_eq!(told(&[], &[], &["secrets/key", ".dockerignore"]), [".dockerignore"]);
        // A daemon's own wish comes on top.
        assert_eq!(told(&[], &[".dockerignore", "secrets"], &[]), ["src", "src/a"]);
    }

    fn stats(root: &Path, exclude: &[&str]) -> Vec<Stat> {
        let directory = SharedDirectory::open(root).unwrap();
        let exclude: Vec<String> = exclude.iter().map(|text| (*text).to_owned()).collect();
        let selection = directory.select(&[], &exclude, &[]).unwrap();
        let mut stats = Vec::new();
        let mut take = |stat| {
            stats.push(stat);
            Ok(())
        };
        directory.walk(&selection, &mut take).unwrap();
        stats
    }

    #[test]
    fn names_of_one_file_are_links_to_the_first_that_is_told() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("b")).unwrap();
        std::fs::write(root.path().join("a"), "1234").unwrap();
        std::fs::hard_link(root.path().join("a"), root.path().join("b/c")).unwrap();
        std::fs::hard_link(root.path().join("a"), root.path().join("d")).unwrap();
        let links = |exclude: &[&str]| -> Vec<String> {
            stats(root.path(), exclude)
                .iter()
                .map(|stat| format!("{}>{}", stat.path, stat.linkname))
                .collect()
        };
        assert_eq!(links(&[]), ["a>", "b>", "b/c>a", "d>a"]);
        // What was not told can't be linked to.
        assert_eq!(links(&["a"]), ["b>", "b/c>", "d>b/c"]);
    }

    #[test]
    fn attributes_of_users_are_told() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("file");
        std::fs::write(&file, "").unwrap();
        let set = rustix::fs::setxattr(&file, "user.note", b"x", rustix::fs::XattrFlags::empty());
        if set == Err(rustix::io::Errno::NOTSUP) {
            // A file system without them, tmpfs of older kernels, has nothing to tell.
            return;
        }
        set.unwrap();
        let attributes = &stats(root.path(), &[])[0].xattrs;
        assert_eq!(attributes.iter().collect::<Vec<_>>(), [(&"user.note".to_owned(), &b"x".to_vec())]);
    }

    #[test]
    fn stats_have_modes_of_go_and_no_owner() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("file"), "1234").unwrap();
        std::os::unix::fs::symlink("/file", root.path().join("link")).unwrap();
        let directory = SharedDirectory::open(root.path()).unwrap();
        let mut stats = Vec::new();
        directory
            .walk(&Selection::default(), &mut |stat| {
                stats.push(stat);
                Ok(())
            })
            .unwrap();
        assert_eq!((stats[0].size, stats[0].mode & go_mode::TYPE, stats[0].uid), (4, 0, 0));
        assert_eq!((stats[1].linkname.as_str(), stats[1].size), ("/file", 0));
        assert_eq!(stats[1].mode & go_mode::TYPE, go_mode::SYMLINK);
        assert!(stats[0].mod_time > 1_600_000_000_000_000_000);
    }
}
