// SPDX-License-Identifier: Apache-2.0
//! The programs that run now: one small file each, locked by the process that runs it.
//!
//! A file is `ROOT/run/NAME`, JSON, held under an exclusive `flock` for as long as the program runs. The
//! lock ends with its process, however that happens, so a file that can be locked is a left-over; whoever
//! lists the programs removes it.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use polyarch_build::{BuildError, ErrorKind};
use polyarch_oci::{Digest, Platform};
use serde::{Deserialize, Serialize};

/// The longest name of a program.
const MAX_NAME_BYTES: usize = 100;

/// The largest file that is read, in bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// How often a lock is tried that someone who lists the programs may hold for a moment.
const ATTEMPTS: u32 = 5;

/// A program that runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Running {
    /// 64 hexadecimal digits, random.
    pub id: String,
    /// The name, unique among those that run.
    pub name: String,
    /// The image as it was asked for.
    pub image: String,
    /// The manifest that runs.
    pub digest: Digest,
    /// The platform that it runs as.
    pub platform: Platform,
    /// The program and its arguments, as far as they were given.
    pub command: Vec<String>,
    /// When it was started.
    pub created: Timestamp,
    /// The process of polyarch that runs it.
    pub pid: u32,
}

/// The entry of a running program; it is gone when this is dropped.
#[derive(Debug)]
pub struct Entry {
    path: PathBuf,
    _lock: File,
}

impl Drop for Entry {
    fn drop(&mut self) {
        // A left-over is removed by the next who lists the programs.
        let _ = fs::remove_file(&self.path);
    }
}

/// Tells whether a text can name a program, by docker's rule.
pub fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|byte| byte.is_ascii_alphanumeric())
        && (2..=MAX_NAME_BYTES).contains(&text.len())
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
}

/// Enters a program among those that run.
///
/// # Errors
/// When another one has the name, or the disk refuses.
pub fn enter(root: &Path, running: &Running) -> Result<Entry, BuildError> {
    if !is_name(&running.name) {
        let message = format!(
            "{:?} is no name of a program: letters, digits and _ . - from the second on, at most {MAX_NAME_BYTES}",
            running.name
        );
        return Err(BuildError::new(ErrorKind::Usage, message));
    }
    let directory = root.join("run");
    let path = directory.join(&running.name);
    let failed = |error: &io::Error| BuildError::io("can't write", &path, error);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory).map_err(|error| failed(&error))?;
    for _ in 0..ATTEMPTS {
        let file = File::options().read(true).write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(|error| failed(&error))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                std::thread::sleep(Duration::from_millis(2));
                continue;
            }
            Err(TryLockError::Error(error)) => return Err(failed(&error)),
        }
        // Someone may have removed the file after it was opened: the lock is then on a file without a name.
        if !is_at(&file, &path) {
            continue;
        }
        let text = serde_json::to_vec(running).map_err(|error| failed(&error.into()))?;
        file.set_len(0).and_then(|()| (&file).write_all(&text)).map_err(|error| failed(&error))?;
        return Ok(Entry { path, _lock: file });
    }
    let message = format!("a program with the name {:?} is running already", running.name);
    Err(BuildError::new(ErrorKind::Usage, message).with_hint("choose another --name; polyarch ps lists them"))
}

/// Tells whether a path still names the file that was opened by it.
fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(opened), Ok(named)) => (opened.dev(), opened.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}

/// Lists the programs that run, the newest first; left-overs are removed.
///
/// # Errors
/// When the directory can't be read.
pub fn list(root: &Path) -> Result<Vec<Running>, BuildError> {
    let directory = root.join("run");
    let failed = |error: &io::Error| BuildError::io("can't read", &directory, error);
    let entries = match fs::read_dir(&directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(|error| failed(&error))?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| failed(&error))?.path();
        // One that has ended meanwhile, or has not written its file yet, is not listed.
        let Ok(file) = File::open(&path) else { continue };
        match file.try_lock() {
            // Another who lists may have removed the left-over, and a new program may have the name now.
            Ok(()) if !is_at(&file, &path) => {}
            Ok(()) => drop(fs::remove_file(&path)),
            Err(TryLockError::WouldBlock) => {
                let mut text = Vec::new();
                if file.take(MAX_FILE_BYTES).read_to_end(&mut text).is_ok() {
                    found.extend(serde_json::from_slice::<Running>(&text));
                }
            }
            Err(TryLockError::Error(error)) => return Err(failed(&error)),
        }
    }
    found.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| a.name.cmp(&b.name)));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn running(name: &str, second: i64) -> Running {
        Running {
            id: "ab".repeat(32),
            name: name.to_owned(),
            image: "app:1".to_owned(),
            digest: Digest::of("manifest"),
            platform: Platform::new("linux", "arm64", ""),
            command: vec!["sh".to_owned()],
            created: Timestamp::from_second(second).unwrap(),
            pid: 7,
        }
    }

    #[test]
    fn programs_are_listed_while_their_entries_live_and_names_are_unique() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(list(root.path()).unwrap(), []);
        let (old, new) = (running("old", 1), running("new", 2));
        let entries = [&old, &new].map(|it| enter(root.path(), it).unwrap());
        assert_eq!(list(root.path()).unwrap(), [new, old.clone()]);
        let conflict = enter(root.path(), &old).unwrap_err();
        assert!(conflict.message.contains("\"old\" is running already"), "{conflict}");
        drop(entries);
        assert_eq!(list(root.path()).unwrap(), []);
        assert!(enter(root.path(), &old).is_ok());
    }

    #[test]
    fn what_killed_processes_left_is_removed() {
        let root = tempfile::tempdir().unwrap();
        drop(enter(root.path(), &running("first", 1)).unwrap());
        let left = root.path().join("run/left");
        fs::write(&left, "torn").unwrap();
        assert_eq!(list(root.path()).unwrap(), []);
        assert!(!left.exists());
    }

    #[test]
    fn names_can_not_lead_elsewhere() {
        let root = tempfile::tempdir().unwrap();
        for name in ["", "a", "../x", "a/b", ".hidden", "-flag", "a\nb", &"x".repeat(101)] {
            assert!(enter(root.path(), &running(name, 1)).is_err(), "{name:?}");
        }
        assert!(is_name("web-1.a_b"));
    }

    #[test]
    fn a_left_over_that_another_removed_is_not_the_file_of_that_name() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("web");
        fs::write(&path, "left over").unwrap();
        let left_over = File::open(&path).unwrap();
        assert!(is_at(&left_over, &path));
        fs::remove_file(&path).unwrap();
        assert!(!is_at(&left_over, &path));
        fs::write(&path, "a new program").unwrap();
        assert!(!is_at(&left_over, &path));
    }
}
