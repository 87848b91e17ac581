// SPDX-License-Identifier: Apache-2.0
//! What can go wrong with file trees.

use std::io;
use std::path::{Path, PathBuf};

use polyarch_oci::DiffId;

use crate::id::SnapshotId;

/// Says what could not be done with a file tree, where, and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// The kernel refused an operation on a path.
    #[error("cannot {action} {path:?}: {source}")]
    Io {
        /// The verb that failed.
        action: &'static str,
        /// The path, as far as it is known.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A text is not a snapshot id.
    #[error(
        "snapshot id {text:?} must be 1 to 128 letters, digits, dots, dashes or underscores and not begin with a dot"
    )]
    BadId {
        /// The rejected text.
        text: String,
    },
    /// A snapshot is not there.
    #[error("snapshot {id} is not in the store")]
    NotFound {
        /// The missing snapshot.
        id: SnapshotId,
    },
    /// The bytes of a layer are not those that the image's config promises.
    #[error(
        "layer has diff id {actual} where the image config says {expected}; the blob is damaged or was tampered with"
    )]
    DiffIdMismatch {
        /// What the config promises.
        expected: DiffId,
        /// What came.
        actual: DiffId,
    },
    /// A stream could not be read, decompressed or written.
    #[error("cannot {action}: {source}")]
    Stream {
        /// The verb that failed.
        action: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// A tar archive is malformed.
    #[error("malformed tar archive at entry {entry}: {source}")]
    Archive {
        /// How many entries came before.
        entry: u64,
        /// The parser's reason.
        source: tar_core::parse::ParseError,
    },
    /// An entry of a tar archive asks for something that is not done.
    #[error("tar entry {path:?} {problem}")]
    Entry {
        /// The entry's path as it stands in the archive.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A cap was exceeded.
    #[error("{what} exceeds the limit of {limit} at {path:?}")]
    Limit {
        /// What is capped.
        what: &'static str,
        /// The cap.
        limit: u64,
        /// Where it was exceeded.
        path: PathBuf,
    },
    /// The kernel would not mount an overlay that the probe had found possible.
    #[error("cannot mount an overlay of {layers} layers: {source}{}", kernel_says(.log))]
    Overlay {
        /// How many layers were to be stacked.
        layers: usize,
        /// The kernel's answer.
        source: io::Error,
        /// The kernel's own words, when it gave any.
        log: String,
    },
    /// A COPY or ADD source matches nothing.
    #[error("\"/{}\": not found{}", .pattern.trim_start_matches('/'), missing_hint(*.excluded, .near))]
    MissingSource {
        /// The source as written.
        pattern: String,
        /// Whether it exists but the ignore rules hide it.
        excluded: bool,
        /// Existing names that look alike, nearest first.
        near: Vec<String>,
    },
    /// Several sources, or a destination with a trailing slash, need a directory.
    #[error(
        "{sources} sources cannot be copied to {destination:?}, which is not a directory; end the destination with a slash"
    )]
    DestinationNotDirectory {
        /// The destination as written.
        destination: String,
        /// How many sources there are.
        sources: usize,
    },
    /// A file or link would have to replace a directory, or a directory a file.
    #[error("cannot copy {from:?} over {to:?}: one is a directory and the other is not")]
    TypeConflict {
        /// The source path, relative to its tree.
        from: PathBuf,
        /// The destination path, relative to its tree.
        to: PathBuf,
    },
    /// A side file that records owners cannot be read.
    #[error("owner records {path:?} are damaged ({problem}); remove the snapshot and build it again")]
    Records {
        /// The side file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

fn kernel_says(log: &str) -> String {
    if log.is_empty() { String::new() } else { format!(" (the kernel says: {log})") }
}

fn missing_hint(excluded: bool, near: &[String]) -> String {
    if excluded {
        return "; it exists, but the ignore file excludes it".to_owned();
    }
    if near.is_empty() {
        return String::new();
    }
    format!("; did you mean {}?", near.join(", "))
}

/// Names the path and the verb of a failed system call.
pub(crate) trait At<T> {
    /// Turns the error into [`SnapshotError::Io`].
    fn at(self, action: &'static str, path: impl AsRef<Path>) -> Result<T, SnapshotError>;
}

impl<T, E: Into<io::Error>> At<T> for Result<T, E> {
    fn at(self, action: &'static str, path: impl AsRef<Path>) -> Result<T, SnapshotError> {
        self.map_err(|source| SnapshotError::Io {
            action,
            path: path.as_ref().to_owned(),
            source: source.into(),
        })
    }
}
