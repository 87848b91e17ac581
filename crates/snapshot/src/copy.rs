// SPDX-License-Identifier: Apache-2.0
//! COPY and ADD: selected parts of one tree into another.

use std::path::Path;

use crate::error::SnapshotError;
use crate::tree::TreeRoot;

/// What a filter says about a path of the source tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is visible.
    Keep,
    /// It is invisible, and so is all beneath it.
    Skip,
    /// It is invisible itself, but something beneath it may be visible; the directory then appears
    /// as far as it is needed.
    Descend,
}

/// Hides parts of a source tree: the rules of an ignore file.
pub trait PathFilter: Sync {
    /// Judges one path, relative to the root of the source tree.
    fn verdict(&self, path: &Path, is_directory: bool) -> Verdict;
}

/// The filter that hides nothing.
#[derive(Debug, Clone, Copy)]
pub struct KeepAll;

impl PathFilter for KeepAll {
    fn verdict(&self, _path: &Path, _is_directory: bool) -> Verdict {
        Verdict::Keep
    }
}

/// One source of a COPY or ADD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopySource {
    /// The path or pattern as written.
    pub pattern: String,
    /// Whether `*`, `?`, `[` and `\` have a meaning.
    pub allow_wildcard: bool,
}

/// Everything that decides what a COPY or ADD brings.
#[derive(Clone, Copy)]
pub struct CopySpec<'a> {
    /// Where the sources are.
    pub source: &'a TreeRoot,
    /// What is copied, in order.
    pub sources: &'a [CopySource],
    /// What of the source tree is visible.
    pub filter: &'a dyn PathFilter,
    /// Matches a pattern component with a name (Go's `filepath.Match`).
    pub matcher: &'a (dyn Fn(&str, &str) -> bool + Sync),
    /// Absolute path in the destination tree; with a trailing slash it is a directory.
    pub destination: &'a str,
    /// The owner of everything copied; `None` keeps the source's.
    pub owner: Option<(u32, u32)>,
    /// The mode of every file and directory copied (octal 0 to 7777); `None` keeps the source's.
    pub mode: Option<u32>,
    /// Whether local archives are unpacked (ADD).
    pub unpack: bool,
    /// The owner of everything unpacked; `None` keeps what the archive says.
    pub unpack_owner: Option<(u32, u32)>,
}

/// Copies what `spec` selects into a tree.
pub fn copy(spec: &CopySpec<'_>, _into: &TreeRoot) -> Result<(), SnapshotError> {
    Err(SnapshotError::Unfinished { what: spec.destination.to_owned() })
}
