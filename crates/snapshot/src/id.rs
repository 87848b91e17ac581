// SPDX-License-Identifier: Apache-2.0
//! Names of snapshots.

use std::fmt;
use std::str::FromStr;

use polyarch_oci::{DiffId, Digest};

use crate::error::SnapshotError;

const MAX_LEN: usize = 128;

/// The name of a committed layer directory: safe as a file name, checked when made.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SnapshotId(Box<str>);

impl SnapshotId {
    /// Makes the name of the result of a step from a digest, such as a cache key.
    pub fn of_result(key: &Digest) -> SnapshotId {
        SnapshotId(format!("step-{}-{}", key.algorithm().as_str(), key.hex()).into())
    }

    /// Makes the name of an image layer that stands on its own.
    pub fn of_layer(diff_id: &DiffId) -> SnapshotId {
        SnapshotId(format!("{}-{}", diff_id.0.algorithm().as_str(), diff_id.0.hex()).into())
    }

    /// Makes the name of an image layer whose meaning depends on the layers beneath it.
    pub fn of_chain(parents: &[SnapshotId], diff_id: &DiffId) -> SnapshotId {
        let mut text = String::new();
        for parent in parents {
            text.push_str(parent.as_str());
            text.push('\n');
        }
        text.push_str(&diff_id.to_string());
        SnapshotId(format!("chain-{}", Digest::of(text).hex()).into())
    }

    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SnapshotId {
    type Err = SnapshotError;

    fn from_str(text: &str) -> Result<SnapshotId, SnapshotError> {
        let is_safe = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        if text.is_empty() || text.len() > MAX_LEN || text.starts_with('.') || !text.bytes().all(is_safe) {
            return Err(SnapshotError::BadId { text: text.chars().take(150).collect() });
        }
        Ok(SnapshotId(text.into()))
    }
}

impl fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_no_safe_file_names_are_refused() {
        for text in ["", ".", "..", ".hidden", "a/b", "a:b", "a b", "ä", &"x".repeat(129)] {
            assert!(text.parse::<SnapshotId>().is_err(), "{text:?}");
        }
        assert_eq!("sha256-0a_b.c".parse::<SnapshotId>().unwrap().as_str(), "sha256-0a_b.c");
    }

    #[test]
    fn derived_names_are_valid_and_distinct() {
        let diff_id = DiffId(Digest::of("layer"));
        let alone = SnapshotId::of_layer(&diff_id);
        let chained = SnapshotId::of_chain(std::slice::from_ref(&alone), &diff_id);
        assert_ne!(SnapshotId::of_chain(&[], &diff_id), chained);
        for id in [&alone, &chained, &SnapshotId::of_result(&diff_id.0)] {
            assert_eq!(id.as_str().parse::<SnapshotId>().unwrap(), *id);
        }
    }
}
