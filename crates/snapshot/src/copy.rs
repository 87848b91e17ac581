// SPDX-License-Identifier: Apache-2.0
//! COPY and ADD: selected parts of one tree into another.
//!
//! A directory as a source brings what is in it, anything else itself. What exists at the destination
//! stays where both sides have a directory and is replaced otherwise, save that a file never replaces a
//! directory and a directory never a file. Symlinks in the destination that lead to directories are
//! followed within it; symlinks in the source are copied as they are, except at the top.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags};

use crate::attributes::{Attributes, Xattrs, kept_xattrs, kept_xattrs_at};
use crate::compress::{Codec, decompressor, detect};
use crate::error::{At, SnapshotError};
use crate::layer_stream::{ApplyLimits, Expansion};
use crate::meta::{Kind, Meta, Time, open_directory, open_for_reading, unlink};
use crate::nodes::copy_node;
use crate::resolve::{Place, clean, find_place, open_without_symlinks, split};
use crate::select::{Selected, Visited, Visitor, open_parent, select, visit};
use crate::tar_read::TarReader;
use crate::tree::{TreeRoot, create_file};
use crate::unpack::{Meaning, Unpacker};

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

impl Verdict {
    /// Joins what two filters say: what one hides is hidden.
    #[must_use]
    pub fn and(self, other: Verdict) -> Verdict {
        match (self, other) {
            (Verdict::Skip, _) | (_, Verdict::Skip) => Verdict::Skip,
            (Verdict::Descend, _) | (_, Verdict::Descend) => Verdict::Descend,
            (Verdict::Keep, Verdict::Keep) => Verdict::Keep,
        }
    }
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

/// Chooses among what is beneath the sources of one COPY or ADD.
pub trait Within: Sync {
    /// Judges a path relative to the directory that the source with this number names; a source that is no
    /// directory itself is not judged.
    fn verdict(&self, source: usize, path: &Path, is_directory: bool) -> Verdict;

    /// Returns a path, relative to the root of the source tree, without which the source is missing.
    fn required(&self, source: usize) -> Option<&str>;
}

/// Changes the mode of a node that is copied; the flag tells directories.
pub type ModeChange<'a> = &'a (dyn Fn(u32, bool) -> u32 + Sync);

/// One source of a COPY or ADD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopySource {
    /// The path or pattern as written.
    pub pattern: String,
    /// Whether `*`, `?`, `[` and `\` have a meaning; a pattern that matches nothing then brings nothing.
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
    /// The mode (octal 0 to 7777) of every file and directory copied; `None` keeps the source's.
    pub mode: Option<ModeChange<'a>>,
    /// Whether local archives are unpacked (ADD).
    pub unpack: bool,
    /// The owner of everything unpacked; `None` keeps what the archive says.
    pub unpack_owner: Option<(u32, u32)>,
    /// The time of everything copied, in seconds since 1970; `None` keeps the source's. What is unpacked
    /// keeps the archive's in either case.
    pub modified: Option<i64>,
    /// What is chosen of the directories that the sources name; `None` chooses all.
    pub within: Option<&'a dyn Within>,
    /// The mode of directories that the destination needs and that are not copied.
    pub created_mode: u32,
    /// Whether a directory brings itself and not only what is in it: into the destination when that is a
    /// directory, else as the destination. The root of the source tree has no name and brings its contents.
    pub keeps_directories: bool,
    /// Whether a symlink that a source names brings what it leads to, and not itself.
    pub follows_links: bool,
    /// Whether a pattern must match something.
    pub needs_match: bool,
}

impl CopySpec<'_> {
    /// Returns the owner and mode that a copied node gets.
    pub(crate) fn attributes<'x>(
        &self,
        source_owner: (u32, u32),
        meta: &Meta,
        xattrs: &'x Xattrs,
    ) -> Attributes<'x> {
        Attributes {
            owner: self.owner.unwrap_or(source_owner),
            mode: self.mode.map_or(meta.mode, |change| change(meta.mode, meta.is_directory()) & 0o7777),
            mtime: Some(self.modified.map_or(meta.mtime, |sec| Time { sec, nsec: 0 })),
            xattrs,
        }
    }
}

/// Copies what `spec` selects into a tree.
///
/// Content is shared with the source where the file system can (reflinks), else copied by the kernel.
/// Directories made on the way to the destination get the mode for created ones and the given owner or
/// 0:0. After an error the tree is half changed and of no use.
pub fn copy(spec: &CopySpec<'_>, into: &TreeRoot) -> Result<(), SnapshotError> {
    let selected = select(spec)?;
    let mut is_written = false;
    let owner = spec.owner.unwrap_or((0, 0));
    let destination = clean(Path::new(spec.destination));
    // A link at the destination is followed, so that what it leads to is replaced and not the link.
    let destination = into.real_path(&destination)?.unwrap_or(destination);
    let mut copier = Copier { spec, into, places: Vec::new(), created: Vec::new(), links: HashMap::new() };
    for source in &selected {
        if source.meta.is_directory() {
            if spec.keeps_directories && !source.name.is_empty() {
                copier.copy_directory(source, &destination)?;
                continue;
            }
            let place = into.make_place(&destination, spec.created_mode, owner)?;
            copier.places = vec![place];
            visit(spec, source, &mut copier)?;
            continue;
        }
        if let Some((archive, codec)) = open_archive(spec, source)? {
            let place = into.make_place(&destination, spec.created_mode, owner)?;
            unpack(spec, archive, codec, &place, into)?;
            continue;
        }
        let is_directory = is_directory_destination(spec, into)?;
        let (directory, name) = match split(&destination) {
            // A second one would only replace the first.
            Some(_) if !is_directory && is_written => {
                return Err(SnapshotError::DestinationNotDirectory {
                    destination: spec.destination.to_owned(),
                    sources: selected.len(),
                });
            }
            Some((parent, name)) if !is_directory => (parent, name.to_owned()),
            _ => (destination.as_path(), source.name.clone()),
        };
        is_written = true;
        copier.places = vec![into.make_place(directory, spec.created_mode, owner)?];
        let (parent, source_name) = open_parent(spec, source)?;
        copier.copy_to(
            &name,
            Visited {
                directory: parent.as_fd(),
                name: &source_name,
                path: &source.path,
                relative: Path::new(&name),
                meta: &source.meta,
            },
        )?;
    }
    Ok(())
}

/// Tells whether the destination takes sources into it rather than becoming one.
fn is_directory_destination(spec: &CopySpec<'_>, into: &TreeRoot) -> Result<bool, SnapshotError> {
    if spec.destination.ends_with('/') || spec.destination.ends_with("/.") {
        return Ok(true);
    }
    let there = into.metadata(spec.destination)?;
    Ok(there.is_some_and(|there| there.kind == Kind::Directory))
}

struct Copier<'a> {
    spec: &'a CopySpec<'a>,
    into: &'a TreeRoot,
    /// The directories in the destination down to the current one.
    places: Vec<Place>,
    /// For each place but the first, what to set when it is left; `None` for one that was there.
    created: Vec<Option<Created>>,
    /// Where the first name of a file with several went, by inode.
    links: HashMap<((u32, u32), u64), PathBuf>,
}

struct Created {
    owner: (u32, u32),
    meta: Meta,
    xattrs: Xattrs,
}

impl Copier<'_> {
    /// The directory of the destination that is being filled.
    fn place(&self) -> &Place {
        self.places.last().expect("a place is pushed before the first visit, and only later ones popped")
    }

    /// Copies a directory with its name into the destination, or as the destination when there is none.
    fn copy_directory(&mut self, source: &Selected, destination: &Path) -> Result<(), SnapshotError> {
        let is_directory = is_directory_destination(self.spec, self.into)?;
        let (above, name) = match split(destination) {
            Some((parent, name)) if !is_directory => (parent, name.to_owned()),
            _ => (destination, source.name.clone()),
        };
        let owner = self.spec.owner.unwrap_or((0, 0));
        self.places = vec![self.into.make_place(above, self.spec.created_mode, owner)?];
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let opened = open_without_symlinks(self.spec.source.as_fd(), &source.path, flags);
        let opened = opened.at("open", &source.path)?;
        self.enter(Visited {
            directory: opened.as_fd(),
            name: &name,
            path: &source.path,
            relative: Path::new(""),
            meta: &source.meta,
        })?;
        visit(self.spec, source, self)?;
        self.leave()
    }

    fn copy_to(&mut self, name: &OsStr, source: Visited<'_>) -> Result<(), SnapshotError> {
        let place = self.place();
        let path = place.path.join(name);
        if Meta::find(place, name).at("look at", &path)?.is_some_and(|there| there.is_directory()) {
            return Err(SnapshotError::TypeConflict { from: source.path.to_owned(), to: path });
        }
        unlink(place.as_fd(), name).at("replace", &path)?;
        self.into.forget(&path);
        let key = (source.meta.dev, source.meta.ino);
        if source.meta.links > 1
            && let Some(first) = self.links.get(&key)
            && rustix::fs::linkat(self.into, first, place, name, AtFlags::empty()).is_ok()
        {
            return Ok(());
        }
        let xattrs = kept_xattrs_at(source.directory, source.name, source.meta.kind)
            .at("read xattrs of", source.path)?;
        let effective = self.spec.source.effective(source.path, source.meta, xattrs)?;
        let attributes = self.spec.attributes(effective.owner, source.meta, &effective.xattrs);
        let from = (source.directory, source.name);
        let record = if effective.kind == Kind::Socket {
            // Nobody listens at a copy: it becomes an empty file, as in BuildKit.
            create_file(place.as_fd(), name).and_then(|file| attributes.set_on(&file))
        } else {
            copy_node(from, source.meta, &effective, (place.as_fd(), name), &attributes)
        };
        let record = record.at("copy", source.path)?;
        self.into.note(&path, record);
        if source.meta.links > 1 {
            self.links.insert(key, path);
        }
        Ok(())
    }
}

impl Visitor for Copier<'_> {
    fn enter(&mut self, directory: Visited<'_>) -> Result<(), SnapshotError> {
        let above = self.place();
        let path = above.path.join(directory.name);
        let there = Meta::find(above, directory.name).at("look at", &path)?;
        let conflict = || SnapshotError::TypeConflict { from: directory.path.to_owned(), to: path.clone() };
        match there.map(|there| there.kind) {
            None => {}
            Some(Kind::Directory | Kind::Symlink) => {
                let place = find_place(self.into.as_fd(), &path).map_err(|_| conflict())?;
                self.places.push(place.ok_or_else(conflict)?);
                self.created.push(None);
                return Ok(());
            }
            Some(_) => return Err(conflict()),
        }
        rustix::fs::mkdirat(above, directory.name, Mode::RWXU).at("create directory", &path)?;
        let made = open_directory(above, directory.name).at("open", &path)?;
        let xattrs = kept_xattrs(directory.directory).at("read xattrs of", directory.path)?;
        let effective = self.spec.source.effective(directory.path, directory.meta, xattrs)?;
        self.created.push(Some(Created {
            owner: effective.owner,
            meta: directory.meta.clone(),
            xattrs: effective.xattrs,
        }));
        self.places.push(Place { directory: made, path });
        Ok(())
    }

    fn leave(&mut self) -> Result<(), SnapshotError> {
        let (Some(place), Some(created)) = (self.places.pop(), self.created.pop()) else { return Ok(()) };
        let Some(Created { owner, meta, xattrs }) = created else { return Ok(()) };
        let attributes = self.spec.attributes(owner, &meta, &xattrs);
        let record = attributes.set_on(&place.directory).at("set attributes of", &place.path)?;
        self.into.note(&place.path, record);
        Ok(())
    }

    fn node(&mut self, node: Visited<'_>) -> Result<(), SnapshotError> {
        self.copy_to(node.name, node)
    }
}

/// Opens a source that is an archive to be unpacked, compressed or not; `None` for any other.
pub(crate) fn open_archive(
    spec: &CopySpec<'_>,
    source: &Selected,
) -> Result<Option<(File, Option<Codec>)>, SnapshotError> {
    if !spec.unpack || source.meta.kind != Kind::File {
        return Ok(None);
    }
    let (parent, name): (OwnedFd, OsString) = open_parent(spec, source)?;
    let mut file = File::from(open_for_reading(parent, &name).at("open", &source.path)?);
    let mut head = Vec::new();
    (&file).take(6).read_to_end(&mut head).at("read", &source.path)?;
    let codec = detect(&head);
    file.rewind().at("read", &source.path)?;
    // What only looks compressed, or is not a tar inside, is copied as it is.
    let mut block = Vec::new();
    let read = decompressor(&file, codec).and_then(|input| input.take(512).read_to_end(&mut block));
    file.rewind().at("read", &source.path)?;
    let is_archive = read.is_ok() && is_tar_header(&block);
    Ok(is_archive.then_some((file, codec)))
}

fn is_tar_header(block: &[u8]) -> bool {
    let Ok(block) = <&[u8; 512]>::try_from(block) else { return false };
    let is_empty = block.iter().all(|byte| *byte == 0);
    !is_empty && tar_core::Header::from_bytes(block).verify_checksum().is_ok()
}

/// Unpacks an archive into a directory of the destination.
fn unpack(
    spec: &CopySpec<'_>,
    archive: File,
    codec: Option<Codec>,
    place: &Place,
    into: &TreeRoot,
) -> Result<(), SnapshotError> {
    let failed = |source: io::Error| SnapshotError::Stream { action: "decompress the archive", source };
    let limits = ApplyLimits::default();
    let expansion = Expansion::new(&limits, "the archive");
    let input = decompressor(expansion.counted(archive), codec).map_err(failed)?;
    let mut reader = TarReader::new(Expanding { input, total: 0, expansion: &expansion }, &limits);
    let root = open_directory(place, ".").at("open", &place.path)?;
    let mut unpacker = Unpacker::new(root, Meaning::Plain { owner: spec.unpack_owner }, &limits);
    unpacker.unpack(&mut reader)?;
    unpacker.settle()?;
    for (path, record) in unpacker.records.into_iter() {
        into.note(&place.path.join(path), record);
    }
    Ok(())
}

/// What comes out of an archive's decompression, as long as it is in proportion to what went in.
struct Expanding<'a, R> {
    input: R,
    total: u64,
    expansion: &'a Expansion<'a>,
}

impl<R: Read> Read for Expanding<'_, R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(bytes)?;
        self.total = self.total.saturating_add(count as u64);
        self.expansion.check(self.total).map_err(io::Error::other)?;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_that_expands_beyond_measure_ends_in_an_error() {
        let limits = ApplyLimits { max_ratio: 100, ratio_grace_bytes: 50_000, ..ApplyLimits::default() };
        let read = |content: &[u8]| {
            let compressed = zstd::encode_all(content, 3).expect("memory takes everything");
            let expansion = Expansion::new(&limits, "the archive");
            let input = decompressor(expansion.counted(&compressed[..]), Some(Codec::Zstd));
            let input = input.expect("a decompressor needs nothing");
            let mut expanding = Expanding { input, total: 0, expansion: &expansion };
            io::copy(&mut expanding, &mut io::sink())
        };
        assert_eq!(read(&[0; 50_000]).expect("within the grace"), 50_000);
        let error = read(&[0; 1_000_000]).expect_err("out of proportion");
        assert_eq!(error.to_string(), "compression ratio exceeds the limit of 100 at \"the archive\"");
    }
}
