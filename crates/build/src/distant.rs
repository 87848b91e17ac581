// SPDX-License-Identifier: Apache-2.0
//! Contexts whose files are with somebody else, and come when it is known which of them steps read.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::BoxFuture;
use polyarch_snapshot::TreeRoot;
use polyarch_solver::progress::Progress;
use tokio::sync::OnceCell;

use crate::error::{BuildError, ErrorKind};
use crate::fetch::Shown;
use crate::frontend::absolute;

/// A directory of somebody else's.
pub trait DistantDirectory: Send + Sync + Debug {
    /// Returns the `.dockerignore` at its root; `None` also where the directory itself is not to be had, which is
    /// an error only for who reads its files.
    fn ignore_file<'a>(
        &'a self,
        progress: &'a Progress,
    ) -> BoxFuture<'a, Result<Option<Vec<u8>>, BuildError>>;

    /// Brings files to a directory of this machine, which stays as it is for as long as this value lives.
    /// Bringing is shown as a part of the step that `shown` names.
    fn bring<'a>(&'a self, wanted: Wanted, shown: &'a Shown) -> BoxFuture<'a, Result<PathBuf, BuildError>>;
}

/// The directories of somebody else's, by their names.
pub trait DistantDirectories: Send + Sync + Debug {
    /// Returns the directory of a name; whether it is there turns out when it is read. `label` is what people read
    /// in front of what is loaded.
    fn directory(&self, name: &str, label: &str) -> Distant;
}

/// Which files of a directory are brought.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wanted {
    /// Paths and patterns relative to the root, with what symlinks on the way lead to; `None` is everything.
    pub paths: Option<Vec<String>>,
    /// Not what these patterns of an ignore file match.
    pub exclude: Vec<String>,
}

/// A directory of somebody else's, shared. Two are equal when they are the same.
#[derive(Debug, Clone)]
pub struct Distant(Arc<dyn DistantDirectory>);

impl Distant {
    /// Makes one of a directory.
    pub fn new(directory: impl DistantDirectory + 'static) -> Distant {
        Distant(Arc::new(directory))
    }
}

impl Deref for Distant {
    type Target = dyn DistantDirectory;

    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}

impl PartialEq for Distant {
    fn eq(&self, other: &Distant) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// The files of one as a build reads them: brought once, when all that reads them is known.
#[derive(Debug)]
pub(crate) struct DistantFiles {
    directory: Distant,
    exclude: Vec<String>,
    /// What steps read; `None` is everything.
    read: Mutex<Option<BTreeSet<String>>>,
    brought: OnceCell<Result<TreeRoot, BuildError>>,
}

impl DistantFiles {
    pub(crate) fn new(directory: Distant, exclude: Vec<String>) -> DistantFiles {
        DistantFiles { directory, exclude, read: Mutex::new(Some(BTreeSet::new())), brought: OnceCell::new() }
    }

    /// Adds what a step reads; `None` is everything.
    pub(crate) fn want(&self, paths: Option<Vec<String>>) {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        match (read.as_mut(), paths) {
            (Some(read), Some(paths)) => read.extend(paths),
            (Some(_), None) => *read = None,
            (None, _) => {}
        }
    }

    /// Brings the files; whoever comes later waits for the first.
    pub(crate) async fn bring(&self, shown: &Shown) -> Result<(), BuildError> {
        let brought = self.brought.get_or_init(|| async {
            let paths = self.read.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let paths = paths.map(|paths| paths.into_iter().collect());
            let wanted = Wanted { paths, exclude: self.exclude.clone() };
            let path = self.directory.bring(wanted, shown).await?;
            TreeRoot::open(&path).map_err(|error| {
                BuildError::from_source(ErrorKind::Storage, "can't open the context", &error)
            })
        });
        brought.await.clone().map(drop)
    }

    /// Returns the files, which have been brought.
    pub(crate) fn tree(&self) -> Result<TreeRoot, BuildError> {
        let unread = || BuildError::new(ErrorKind::Storage, "the context has not been brought here");
        self.brought.get().ok_or_else(unread)?.clone()
    }
}

/// Returns the path by which a source asks for files; `None` where that is everything.
pub(crate) fn followed(path: &str) -> Option<String> {
    let path = absolute("/", path);
    let path = path.trim_start_matches('/');
    // `**` crosses directories, which patterns of a transfer do not.
    (!path.is_empty() && !path.contains("**")).then(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Notes what is asked for.
    #[derive(Debug, Clone, Default)]
    struct Asked(Arc<Mutex<Vec<Wanted>>>);

    impl DistantDirectory for Asked {
        fn ignore_file<'a>(&'a self, _: &'a Progress) -> BoxFuture<'a, Result<Option<Vec<u8>>, BuildError>> {
            Box::pin(std::future::ready(Ok(None)))
        }

        fn bring<'a>(&'a self, wanted: Wanted, _: &'a Shown) -> BoxFuture<'a, Result<PathBuf, BuildError>> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push(wanted);
            Box::pin(std::future::ready(Err(BuildError::new(ErrorKind::Usage, "not today"))))
        }
    }

    #[tokio::test]
    async fn what_steps_read_is_brought_once_and_nothing_else() {
        let shown = Shown { progress: Progress::none(), vertex: "".into() };
        let asked = Asked::default();
        let files = DistantFiles::new(Distant::new(asked.clone()), vec!["out".to_owned()]);
        files.want(Some(vec!["b".to_owned(), "a".to_owned()]));
        files.want(Some(vec!["b".to_owned()]));
        for _ in 0..2 {
            assert_eq!(files.bring(&shown).await.unwrap_err().message, "not today");
        }
        assert_eq!(files.tree().unwrap_err().message, "not today");
        let everything = DistantFiles::new(Distant::new(asked.clone()), Vec::new());
        everything.want(None);
        everything.want(Some(vec!["a".to_owned()]));
        let _ = everything.bring(&shown).await;
        let asked = asked.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let paths = Some(vec!["a".to_owned(), "b".to_owned()]);
        let first = Wanted { paths, exclude: vec!["out".to_owned()] };
        assert_eq!(asked, [first, Wanted::default()]);
    }

    #[test]
    fn sources_are_paths_of_a_transfer() {
        for (source, expected) in [
            ("/a/../b/*.txt", Some("b/*.txt")),
            ("dir/", Some("dir")),
            (".", None),
            ("/", None),
            ("a/**/b", None),
        ] {
            assert_eq!(followed(source).as_deref(), expected, "{source}");
        }
    }
}
