// SPDX-License-Identifier: Apache-2.0
//! Stores in temporary directories, archives made by code, and trees described as text.

use std::fmt::Write as _;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use polyarch_oci::media_type::Compression;
use polyarch_oci::{DiffId, Digest};
use polyarch_snapshot::{
    ApplyLimits, LayerTimes, SnapshotError, SnapshotId, SnapshotOptions, Snapshots, TreeMode,
};

/// A store that goes with its directory.
pub struct Store {
    pub snapshots: Snapshots,
    pub directory: tempfile::TempDir,
}

impl Store {
    pub fn overlay() -> Store {
        Store::with(SnapshotOptions::default())
    }

    pub fn copying() -> Store {
        Store::with(SnapshotOptions { force_copy: true })
    }

    fn with(options: SnapshotOptions) -> Store {
        let directory = tempfile::tempdir().unwrap();
        let snapshots = Snapshots::open(directory.path(), options).unwrap();
        Store { snapshots, directory }
    }

    pub fn apply(&self, tar: &[u8], parents: &[SnapshotId]) -> Result<SnapshotId, SnapshotError> {
        let limits = ApplyLimits::default();
        self.snapshots.apply(&DiffId(Digest::of(tar)), tar, Compression::Uncompressed, parents, &limits)
    }

    pub fn tar_of(&self, id: &SnapshotId, parents: &[SnapshotId]) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.snapshots.write_layer(id, parents, &LayerTimes::default(), &mut bytes).unwrap();
        bytes
    }

    /// The names in the tar of a snapshot, in order.
    pub fn names_of(&self, id: &SnapshotId, parents: &[SnapshotId]) -> Vec<String> {
        names_in(&self.tar_of(id, parents))
    }

    pub fn leftovers(&self) -> usize {
        std::fs::read_dir(self.directory.path().join("active")).unwrap().count()
    }
}

/// Tells whether tests that need root can run, and prints why not.
pub fn is_root() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        eprintln!("skipped: needs root");
    }
    is_root
}

/// Tells whether tests that need overlays can run, and prints why not.
pub fn has_overlay(store: &Store) -> bool {
    match store.snapshots.mode() {
        TreeMode::Overlay => true,
        TreeMode::Copy { reason } => {
            eprintln!("skipped: no overlay: {reason}");
            false
        }
    }
}

pub fn names_in(tar: &[u8]) -> Vec<String> {
    let mut archive = tar::Archive::new(tar);
    let entries = archive.entries().unwrap();
    entries.map(|entry| String::from_utf8(entry.unwrap().path_bytes().into_owned()).unwrap()).collect()
}

/// Makes archives entry by entry, without the checks of a well-behaved builder.
pub struct Tar {
    bytes: Vec<u8>,
}

/// The fields of an entry that tests vary.
#[derive(Clone)]
pub struct Entry {
    pub kind: u8,
    pub link: String,
    pub mode: u32,
    pub owner: (u32, u32),
    pub mtime: u64,
    pub device: (u32, u32),
    pub pax: Vec<(String, Vec<u8>)>,
}

impl Default for Entry {
    fn default() -> Entry {
        Entry {
            kind: b'0',
            link: String::new(),
            mode: 0o644,
            owner: (0, 0),
            mtime: 1_000_000,
            device: (0, 0),
            pax: Vec::new(),
        }
    }
}

impl Tar {
    pub fn new() -> Tar {
        Tar { bytes: Vec::new() }
    }

    pub fn add(mut self, name: &str, entry: Entry, content: &[u8]) -> Tar {
        if !entry.pax.is_empty() {
            let mut records = Vec::new();
            for (key, value) in &entry.pax {
                let body = key.len() + value.len() + 3;
                let len = (1..).map(|digits| body + digits).find(|len| len.to_string().len() + body == *len);
                records.extend_from_slice(format!("{} {key}=", len.unwrap()).as_bytes());
                records.extend_from_slice(value);
                records.push(b'\n');
            }
            self.raw("pax", &Entry { kind: b'x', ..Entry::default() }, &records);
        }
        self.raw(name, &entry, content);
        self
    }

    fn raw(&mut self, name: &str, entry: &Entry, content: &[u8]) {
        let mut header = tar::Header::new_ustar();
        let put = |field: &mut [u8], text: &str| field[..text.len()].copy_from_slice(text.as_bytes());
        put(&mut header.as_old_mut().name, name);
        put(&mut header.as_old_mut().linkname, &entry.link);
        header.set_entry_type(tar::EntryType::new(entry.kind));
        header.set_mode(entry.mode);
        header.set_uid(u64::from(entry.owner.0));
        header.set_gid(u64::from(entry.owner.1));
        header.set_mtime(entry.mtime);
        header.set_size(content.len() as u64);
        header.set_device_major(entry.device.0).unwrap();
        header.set_device_minor(entry.device.1).unwrap();
        header.set_cksum();
        self.bytes.extend_from_slice(header.as_bytes());
        self.bytes.extend_from_slice(content);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
    }

    pub fn file(self, name: &str, content: &str) -> Tar {
        self.add(name, Entry::default(), content.as_bytes())
    }

    pub fn directory(self, name: &str) -> Tar {
        self.add(name, Entry { kind: b'5', mode: 0o755, ..Entry::default() }, b"")
    }

    pub fn symlink(self, name: &str, target: &str) -> Tar {
        self.add(name, Entry { kind: b'2', link: target.into(), mode: 0o777, ..Entry::default() }, b"")
    }

    pub fn hard_link(self, name: &str, target: &str) -> Tar {
        self.add(name, Entry { kind: b'1', link: target.into(), ..Entry::default() }, b"")
    }

    pub fn end(mut self) -> Vec<u8> {
        self.bytes.extend_from_slice(&[0; 1024]);
        self.bytes
    }
}

/// Describes everything beneath a directory, one line per node, without times of directories' making.
pub fn describe(root: &Path) -> String {
    let mut text = String::new();
    let mut pending = vec![PathBuf::new()];
    while let Some(path) = pending.pop() {
        let full = root.join(&path);
        let Ok(meta) = std::fs::symlink_metadata(&full) else { continue };
        let kind = meta.file_type();
        let is_whiteout = kind.is_char_device() && meta.rdev() == 0;
        // When a mark was made means nothing.
        let mtime = if is_whiteout { 0 } else { meta.mtime() };
        let (mode, uid, gid) = (meta.mode() & 0o7777, meta.uid(), meta.gid());
        let what = if kind.is_dir() {
            let mut names: Vec<_> = std::fs::read_dir(&full)
                .unwrap()
                .map(|entry| path.join(entry.unwrap().file_name()))
                .collect();
            names.sort();
            pending.extend(names.into_iter().rev());
            "dir".to_owned()
        } else if kind.is_symlink() {
            format!("-> {}", std::fs::read_link(&full).unwrap().display())
        } else if kind.is_file() {
            let content = std::fs::read(&full).unwrap();
            let shown = if content.len() < 30 {
                String::from_utf8_lossy(&content).into_owned()
            } else {
                Digest::of(&content).short().to_owned()
            };
            format!("file {shown:?} links {}", meta.nlink())
        } else if kind.is_char_device() {
            format!("char {:x}", meta.rdev())
        } else if kind.is_fifo() {
            "fifo".to_owned()
        } else {
            "other".to_owned()
        };
        writeln!(text, "{} {mode:04o} {uid}:{gid} {mtime} {what}", path.display()).unwrap();
    }
    text
}

/// A path through which an open tree can be looked at from outside.
pub fn path_of(tree: &polyarch_snapshot::TreeRoot) -> PathBuf {
    use std::os::fd::{AsFd, AsRawFd};
    PathBuf::from(format!("/proc/self/fd/{}/", tree.as_fd().as_raw_fd()))
}
