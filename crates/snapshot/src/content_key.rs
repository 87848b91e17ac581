// SPDX-License-Identifier: Apache-2.0
//! The digest of exactly what a COPY would bring.
//!
//! Covered are relative paths, types, modes, kept owners, xattrs, link targets, devices, which names
//! are one file, and contents; not times. Fields have a length in front, so that no two trees have the
//! same text. Contents are hashed by several threads; the order of the text is the order of the visit.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use polyarch_oci::{Digest, Hasher};
use rustix::fs::OFlags;

use crate::attributes::{Xattrs, kept_xattrs, kept_xattrs_at};
use crate::copy::{CopySpec, open_archive};
use crate::error::{At, SnapshotError};
pub use crate::hash_memory::HashMemory;
use crate::meta::{Kind, Meta, Time, read_link};
use crate::resolve::open_without_symlinks;
use crate::select::{Selected, Visited, Visitor, open_parent, select, visit};

/// Changes whenever the text below does, so that old keys match nothing.
const FORMAT: &[u8] = b"polyarch copy content 1";
const READ_BUFFER_BYTES: usize = 256 << 10;
/// The magic number by which `statfs` names overlayfs.
const OVERLAYFS_MAGIC: u64 = 0x794c_7630;
/// Fewer files than this are not worth a thread each.
const FILES_PER_THREAD: usize = 16;

/// Computes the digest over what [`copy`](crate::copy::copy) would bring.
///
/// `threads` hash files at the same time; the result does not depend on their number. `memory` spares
/// reading files that have not changed; it is not used for mounted overlays, whose device numbers mean
/// nothing later.
pub fn content_key(
    spec: &CopySpec<'_>,
    memory: Option<&HashMemory>,
    threads: usize,
) -> Result<Digest, SnapshotError> {
    let started = Time::from(SystemTime::now());
    let file_system = rustix::fs::fstatfs(spec.source).at("look at the file system of", "/")?;
    let memory = memory.filter(|_| file_system.f_type as u64 != OVERLAYFS_MAGIC);
    let mut text = Text { spec, bytes: Vec::new(), files: Vec::new(), links: HashMap::new(), source: 0 };
    text.field(FORMAT);
    for source in select(spec)? {
        text.source += 1;
        if source.meta.is_directory() {
            if spec.keeps_directories && !source.name.is_empty() {
                text.named_directory(&source)?;
                continue;
            }
            text.field(b"contents");
            visit(spec, &source, &mut text)?;
            continue;
        }
        text.field(if open_archive(spec, &source)?.is_some() { b"archive" } else { b"file" });
        let (parent, name) = open_parent(spec, &source)?;
        text.node(Visited {
            directory: parent.as_fd(),
            name: &name,
            path: &source.path,
            relative: Path::new(&source.name),
            meta: &source.meta,
        })?;
    }
    let hashes = hash_files(spec, &text.files, memory, started, threads)?;
    let mut hasher = Hasher::sha256();
    let mut written = 0;
    for (file, hash) in text.files.iter().zip(&hashes) {
        hasher.update(&text.bytes[written..file.offset]);
        hasher.update(hash);
        written = file.offset;
    }
    hasher.update(&text.bytes[written..]);
    Ok(hasher.finish())
}

/// The text that is hashed, but for the hashes of contents, which are put in at the offsets of `files`.
struct Text<'a> {
    spec: &'a CopySpec<'a>,
    bytes: Vec<u8>,
    files: Vec<ContentAt>,
    /// Where the first name of a file with several is, by inode.
    links: HashMap<((u32, u32), u64), (u64, PathBuf)>,
    /// Which of the sources is being visited.
    source: u64,
}

struct ContentAt {
    offset: usize,
    path: PathBuf,
    meta: Meta,
}

impl Text<'_> {
    fn field(&mut self, value: &[u8]) {
        self.number(value.len() as u64);
        self.bytes.extend_from_slice(value);
    }

    fn number(&mut self, number: u64) {
        self.bytes.extend_from_slice(&number.to_le_bytes());
    }

    fn attributes(&mut self, kind: u8, node: Visited<'_>, owner: (u32, u32), xattrs: &Xattrs) {
        self.field(node.relative.as_os_str().as_bytes());
        self.bytes.push(kind);
        let attributes = self.spec.attributes(owner, node.meta, xattrs);
        // A mode or an owner that the instruction sets is the same whatever the source has.
        let mode = if node.meta.kind == Kind::Symlink { 0 } else { attributes.mode };
        self.number(u64::from(mode));
        let (uid, gid) = if self.spec.owner.is_some() { (0, 0) } else { attributes.owner };
        self.number(u64::from(uid));
        self.number(u64::from(gid));
        self.number(xattrs.len() as u64);
        for (name, value) in xattrs {
            self.field(name);
            self.field(value);
        }
    }
}

impl Text<'_> {
    /// Adds a directory that brings itself, by its name.
    fn named_directory(&mut self, source: &Selected) -> Result<(), SnapshotError> {
        self.field(b"directory");
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let opened = open_without_symlinks(self.spec.source.as_fd(), &source.path, flags);
        let opened = opened.at("open", &source.path)?;
        self.enter(Visited {
            directory: opened.as_fd(),
            name: &source.name,
            path: &source.path,
            relative: Path::new(&source.name),
            meta: &source.meta,
        })?;
        let spec = self.spec;
        visit(spec, source, self)
    }
}

impl Visitor for Text<'_> {
    fn enter(&mut self, directory: Visited<'_>) -> Result<(), SnapshotError> {
        let xattrs = kept_xattrs(directory.directory).at("read xattrs of", directory.path)?;
        let effective = self.spec.source.effective(directory.path, directory.meta, xattrs)?;
        self.attributes(b'd', directory, effective.owner, &effective.xattrs);
        Ok(())
    }

    fn leave(&mut self) -> Result<(), SnapshotError> {
        Ok(())
    }

    fn node(&mut self, node: Visited<'_>) -> Result<(), SnapshotError> {
        let key = (node.meta.dev, node.meta.ino);
        if node.meta.links > 1 {
            if let Some((source, first)) = self.links.get(&key) {
                let (source, first) = (*source, first.clone());
                self.field(node.relative.as_os_str().as_bytes());
                self.bytes.push(b'h');
                self.number(source);
                self.field(first.as_os_str().as_bytes());
                return Ok(());
            }
            self.links.insert(key, (self.source, node.relative.to_owned()));
        }
        let xattrs =
            kept_xattrs_at(node.directory, node.name, node.meta.kind).at("read xattrs of", node.path)?;
        let effective = self.spec.source.effective(node.path, node.meta, xattrs)?;
        let kind = match effective.kind {
            // A socket is copied as an empty file.
            Kind::File | Kind::Socket => b'f',
            Kind::Symlink => b'l',
            Kind::CharDevice => b'c',
            Kind::BlockDevice => b'b',
            Kind::Fifo => b'p',
            Kind::Directory => return Ok(()),
        };
        self.attributes(kind, node, effective.owner, &effective.xattrs);
        match effective.kind {
            Kind::File => {
                self.files.push(ContentAt {
                    offset: self.bytes.len(),
                    path: node.path.to_owned(),
                    meta: node.meta.clone(),
                });
            }
            Kind::Symlink => {
                let target = read_link(node.directory, node.name).at("read link", node.path)?;
                self.field(target.as_bytes());
            }
            Kind::Socket => {}
            _ => {
                self.number(u64::from(effective.device.0));
                self.number(u64::from(effective.device.1));
            }
        }
        Ok(())
    }
}

/// Hashes the contents of files, in their order.
fn hash_files(
    spec: &CopySpec<'_>,
    files: &[ContentAt],
    memory: Option<&HashMemory>,
    started: Time,
    threads: usize,
) -> Result<Vec<[u8; 32]>, SnapshotError> {
    let mut hashes = vec![[0; 32]; files.len()];
    let mut unknown = Vec::new();
    for (index, file) in files.iter().enumerate() {
        match memory.and_then(|memory| memory.recall(&file.meta)) {
            Some(hash) => hashes[index] = hash,
            None => unknown.push(index),
        }
    }
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::with_capacity(unknown.len()));
    let work = || -> Result<(), SnapshotError> {
        let mut buffer = vec![0; READ_BUFFER_BYTES];
        while let Some(&index) = unknown.get(next.fetch_add(1, Ordering::Relaxed)) {
            let hash = hash_file(spec, &files[index], memory, started, &mut buffer)?;
            results.lock().unwrap_or_else(PoisonError::into_inner).push((index, hash));
        }
        Ok(())
    };
    let large = files.iter().map(|file| file.meta.size).sum::<u64>() > 16 << 20;
    let useful = if large { unknown.len() } else { unknown.len() / FILES_PER_THREAD };
    let helpers = threads.min(useful).saturating_sub(1);
    std::thread::scope(|scope| {
        let helpers: Vec<_> = (0..helpers).map(|_| scope.spawn(work)).collect();
        let mut result = work();
        for helper in helpers {
            // A panic of a helper leaves hashes out, which is noticed below.
            result = result.and(helper.join().unwrap_or(Ok(())));
        }
        result
    })?;
    let results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    if results.len() != unknown.len() {
        return Err(std::io::Error::other("a hashing thread panicked")).at("hash files of", "/");
    }
    for (index, hash) in results {
        hashes[index] = hash;
    }
    Ok(hashes)
}

fn hash_file(
    spec: &CopySpec<'_>,
    file: &ContentAt,
    memory: Option<&HashMemory>,
    started: Time,
    buffer: &mut [u8],
) -> Result<[u8; 32], SnapshotError> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let opened = open_without_symlinks(spec.source.as_fd(), &file.path, flags).at("open", &file.path)?;
    let mut opened = File::from(opened);
    let mut hasher = blake3::Hasher::new();
    loop {
        match opened.read(buffer) {
            Ok(0) => break,
            Ok(count) => {
                hasher.update(&buffer[..count]);
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error).at("read", &file.path),
        }
    }
    let hash = *hasher.finalize().as_bytes();
    if let Some(memory) = memory {
        let after = Meta::of(&opened).at("look at", &file.path)?;
        if (after.ino, after.size, after.mtime, after.ctime)
            == (file.meta.ino, file.meta.size, file.meta.mtime, file.meta.ctime)
        {
            memory.remember(&after, hash, started);
        }
    }
    Ok(hash)
}
