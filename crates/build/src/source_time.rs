// SPDX-License-Identifier: Apache-2.0
//! When what a build reads changed, as its origin tells: a commit, a web server, or the files of an archive.
//!
//! Directories tell nothing: the times of their files are those of their last copy.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

use polyarch_snapshot::{ApplyLimits, Body, TarReader, decompressor, detect};

/// The most of an archive that is read for its times, in bytes after decompression.
const MAX_ARCHIVE_BYTES: u64 = 256 << 30;

/// The time of a context.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum SourceTime {
    /// Nobody tells.
    #[default]
    Unknown,
    /// In seconds since 1970.
    At(i64),
    /// That of the newest file of an archive.
    Archive(PathBuf),
}

impl SourceTime {
    /// Returns the time, in seconds since 1970; of an archive all of it is read.
    ///
    /// What is no archive, or a damaged one, tells nothing.
    pub fn seconds(&self) -> Option<i64> {
        match self {
            SourceTime::Unknown => None,
            SourceTime::At(seconds) => Some(*seconds),
            SourceTime::Archive(path) => newest(File::open(path).ok()?),
        }
    }
}

/// Returns the time of the newest file of a tar archive, which may be compressed.
pub(crate) fn newest(mut archive: impl Read + Send) -> Option<i64> {
    let mut head = Vec::new();
    archive.by_ref().take(512).read_to_end(&mut head).ok()?;
    let codec = detect(&head);
    let whole = std::io::Cursor::new(head).chain(archive);
    let content = decompressor(whole, codec).ok()?.take(MAX_ARCHIVE_BYTES);
    let mut entries = TarReader::new(content, &ApplyLimits::default());
    let mut newest = None;
    while let Some(entry) = entries.next_entry().ok()? {
        if matches!(entry.body, Body::File { .. }) {
            newest = newest.max(Some(entry.modified_seconds()));
        }
    }
    newest
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn archive(times: &[(&str, &str)], arguments: &[&str]) -> Vec<u8> {
        let directory = tempfile::tempdir().unwrap();
        for (name, time) in times {
            let path = directory.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, "x").unwrap();
            assert!(Command::new("touch").args(["-d", time]).arg(&path).status().unwrap().success());
        }
        let made = Command::new("tar").args(arguments).arg("-C").arg(directory.path()).arg(".").output();
        made.unwrap().stdout
    }

    #[test]
    fn an_archive_is_as_old_as_its_newest_file() {
        let times = [("a", "@1000"), ("b/c", "@3000"), ("b/d", "@2000")];
        for arguments in [["-cf", "-"], ["-czf", "-"]] {
            // Directories are of today, and do not count.
            assert_eq!(newest(&archive(&times, &arguments)[..]), Some(3000), "{arguments:?}");
        }
        assert_eq!(newest(&b"FROM scratch\n"[..]), None);
        assert_eq!(newest(&b""[..]), None);
        let whole = archive(&times, &["-cf", "-"]);
        assert_eq!(newest(&whole[..700]), None, "a damaged archive tells nothing");
    }
}
