// SPDX-License-Identifier: Apache-2.0
//! What one layer says: read from its tar stream, without the layers beneath and without unpacking.
//!
//! The rules are those of unpacking (`polyarch-snapshot`): names are cleaned by their text, parent
//! directories are resolved through the symlinks of this layer, the last name is never followed, a later
//! entry replaces an earlier one.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::ops::Bound;
use std::os::unix::ffi::OsStrExt as _;

use polyarch_oci::media_type::Compression;
use polyarch_oci::{Algorithm, DiffId};
use polyarch_snapshot::{ApplyLimits, Body, SnapshotError, TarEntry, TarReader, read_layer};
use serde::{Deserialize, Serialize};

use crate::content::Content;
use crate::entry::{Entry, EntryKind, FileFacts};
use crate::path::ImagePath;
use crate::resolve::{MAX_SYMLINKS, target_parts};

/// Most entries of a layer: a million files take some hundred megabytes of memory.
const MAX_ENTRIES: u64 = 1_000_000;
/// Most bytes of memory for what is told of a layer, roughly: one entry can need hundreds of directories
/// that nothing describes, with long names.
pub(crate) const MAX_KEPT_BYTES: u64 = 512 << 20;
/// What an entry takes besides its texts, roughly.
pub(crate) const ENTRY_BYTES: u64 = 128;
/// Most bytes of holes that are hashed as the zeros that they are.
const MAX_HOLES_BYTES: u64 = 1 << 30;

const WHITEOUT_PREFIX: &[u8] = b".wh.";
const WHITEOUT_META_PREFIX: &[u8] = b".wh..wh.";
const OPAQUE_MARK: &[u8] = b".wh..wh..opq";

/// The files of one layer, and what it hides of those beneath.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LayerContents {
    /// What stands under each path; directories come before what is in them.
    pub entries: BTreeMap<ImagePath, Entry>,
    /// Names that it deletes.
    pub whiteouts: BTreeSet<ImagePath>,
    /// Directories that hide those of the same name beneath.
    pub opaque: BTreeSet<ImagePath>,
    /// Directories that it needs and does not describe: they take their attributes from beneath.
    pub implied: BTreeSet<ImagePath>,
    /// Hard links to files of the layers beneath: path and target.
    pub links_below: BTreeMap<ImagePath, ImagePath>,
}

impl LayerContents {
    /// Reads a layer's blob to the end of its tar; returns the diff id of what came as well.
    ///
    /// # Errors
    /// When the stream is damaged, or asks for what unpacking would refuse.
    pub fn read(
        stream: impl Read + Send,
        compression: Compression,
        algorithm: Algorithm,
    ) -> Result<(LayerContents, DiffId), SnapshotError> {
        let limits = limits();
        read_layer(stream, compression, algorithm, &limits, |reader| {
            read_entries(reader, &limits, MAX_KEPT_BYTES)
        })
    }

    /// Reads a layer's uncompressed tar, up to the end of its last entry.
    ///
    /// # Errors
    /// As [`LayerContents::read`].
    pub fn read_tar(stream: impl Read) -> Result<LayerContents, SnapshotError> {
        let limits = limits();
        read_entries(&mut TarReader::new(stream, &limits), &limits, MAX_KEPT_BYTES)
    }
}

fn limits() -> ApplyLimits {
    ApplyLimits { max_entries: MAX_ENTRIES, ..ApplyLimits::default() }
}

fn read_entries<R: Read>(
    reader: &mut TarReader<R>,
    limits: &ApplyLimits,
    max_kept: u64,
) -> Result<LayerContents, SnapshotError> {
    let mut builder = Builder {
        contents: LayerContents::default(),
        limits: limits.clone(),
        holes: 0,
        bytes: 0,
        kept: 0,
        max_kept,
    };
    builder.contents.entries.insert(ImagePath::root(), directory());
    builder.contents.implied.insert(ImagePath::root());
    while let Some(entry) = reader.next_entry()? {
        builder.entry(&entry, reader)?;
    }
    Ok(builder.contents)
}

/// A directory that nothing describes.
pub(crate) fn directory() -> Entry {
    Entry { kind: EntryKind::Directory, mode: 0o755, owner: (0, 0) }
}

struct Builder {
    contents: LayerContents,
    limits: ApplyLimits,
    holes: u64,
    bytes: u64,
    /// What the contents take of memory so far, and may take.
    kept: u64,
    max_kept: u64,
}

impl Builder {
    fn entry<R: Read>(&mut self, entry: &TarEntry, reader: &mut TarReader<R>) -> Result<(), SnapshotError> {
        let path = ImagePath::of(&entry.path);
        if path.parts().count() as u64 > u64::from(self.limits.max_depth) {
            let limit = u64::from(self.limits.max_depth);
            return Err(SnapshotError::Limit { what: "depth of a path", limit, path: entry.path.clone() });
        }
        let Some((parent, name)) = path.split() else {
            if entry.body != Body::Directory {
                return Err(refuse(entry, "would replace the root directory"));
            }
            self.contents.implied.remove(&path);
            return self.put(path, EntryKind::Directory, entry);
        };
        if name.starts_with(WHITEOUT_PREFIX) {
            return self.mark(entry, &parent, name);
        }
        let real = self.go_to(&parent, entry)?.join(name);
        let kind = match &entry.body {
            Body::HardLink(target) => return self.hard_link(real, &ImagePath::of(target), entry),
            Body::File { size, parts } => {
                self.bytes = self.bytes.saturating_add(*size);
                if self.bytes > self.limits.max_bytes {
                    let limit = self.limits.max_bytes;
                    return Err(SnapshotError::Limit {
                        what: "unpacked size",
                        limit,
                        path: entry.path.clone(),
                    });
                }
                EntryKind::File(self.content(reader, *size, parts.as_deref())?)
            }
            Body::Directory => EntryKind::Directory,
            Body::Symlink(target) => EntryKind::Symlink(crate::path::escape(target.as_os_str().as_bytes())),
            Body::CharDevice(major, minor) => EntryKind::CharDevice(*major, *minor),
            Body::BlockDevice(major, minor) => EntryKind::BlockDevice(*major, *minor),
            Body::Fifo => EntryKind::Fifo,
        };
        let is_over_whiteout = self.make_room(&real, kind == EntryKind::Directory);
        if kind == EntryKind::Directory {
            self.contents.implied.remove(&real);
            if is_over_whiteout {
                self.contents.opaque.insert(real.clone());
            }
        }
        self.put(real, kind, entry)
    }

    fn put(&mut self, path: ImagePath, kind: EntryKind, entry: &TarEntry) -> Result<(), SnapshotError> {
        let entry = Entry { kind, mode: entry.mode, owner: entry.owner };
        self.charge(&path, entry.text_bytes())?;
        self.contents.entries.insert(path, entry);
        Ok(())
    }

    /// Counts what is kept of a path, with so many bytes of other texts.
    fn charge(&mut self, path: &ImagePath, more: usize) -> Result<(), SnapshotError> {
        let texts = path.as_bytes().len().saturating_add(more) as u64;
        self.kept = self.kept.saturating_add(texts).saturating_add(ENTRY_BYTES);
        if self.kept <= self.max_kept {
            return Ok(());
        }
        let path = std::path::PathBuf::from(path.to_string());
        Err(SnapshotError::Limit { what: "memory for the names of a layer", limit: self.max_kept, path })
    }

    fn hard_link(
        &mut self,
        real: ImagePath,
        target: &ImagePath,
        entry: &TarEntry,
    ) -> Result<(), SnapshotError> {
        let Some((parent, name)) = target.split() else {
            return Err(refuse(entry, "is a hard link to a directory"));
        };
        let place = self.find_directory(&parent)?;
        let target_path = place.map(|place| place.join(name));
        if target_path.as_ref() == Some(&real) {
            return Ok(());
        }
        let mut below = None;
        let mut here = None;
        match target_path {
            None => below = Some(target.clone()),
            Some(path) => match (self.contents.links_below.get(&path), self.contents.entries.get(&path)) {
                (Some(further), _) => below = Some(further.clone()),
                (None, Some(found)) if found.is_directory() => {
                    return Err(refuse(entry, "is a hard link to a directory"));
                }
                (None, Some(found)) => here = Some(found.clone()),
                (None, None) if self.contents.whiteouts.contains(&path) => {
                    return Err(refuse(entry, "is a hard link to a deleted name"));
                }
                (None, None) => below = Some(target.clone()),
            },
        }
        self.make_room(&real, false);
        if let Some(found) = here {
            self.charge(&real, found.text_bytes())?;
            self.contents.entries.insert(real, found);
        } else if let Some(target) = below {
            self.charge(&real, target.as_bytes().len())?;
            self.contents.links_below.insert(real, target);
        }
        Ok(())
    }

    /// Handles a name that begins with `.wh.` (image-spec, layer.md, "Whiteouts").
    fn mark(&mut self, entry: &TarEntry, parent: &ImagePath, name: &[u8]) -> Result<(), SnapshotError> {
        if name == OPAQUE_MARK {
            let place = self.go_to(parent, entry)?;
            self.contents.opaque.insert(place);
            return Ok(());
        }
        if name.starts_with(WHITEOUT_META_PREFIX) {
            return Ok(());
        }
        let hidden = &name[WHITEOUT_PREFIX.len()..];
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(refuse(entry, "is a whiteout of no name"));
        }
        let path = self.go_to(parent, entry)?.join(hidden);
        match self.contents.entries.get(&path) {
            // A whiteout concerns lower layers only; what this layer has stays and hides them.
            Some(found) if found.is_directory() => {
                self.contents.implied.remove(&path);
                self.contents.opaque.insert(path);
            }
            Some(_) => {}
            None => {
                self.charge(&path, 0)?;
                self.contents.whiteouts.insert(path);
            }
        }
        Ok(())
    }

    /// Removes what stands where an entry goes, unless both are directories; tells whether it was a
    /// whiteout.
    fn make_room(&mut self, path: &ImagePath, is_directory: bool) -> bool {
        self.contents.links_below.remove(path);
        if self.contents.whiteouts.remove(path) {
            return true;
        }
        let Some(found) = self.contents.entries.get(path) else { return false };
        if found.is_directory() {
            if is_directory {
                return false;
            }
            let contents = &mut self.contents;
            remove_beneath(&mut contents.entries, path);
            remove_beneath(&mut contents.links_below, path);
            for names in [&mut contents.whiteouts, &mut contents.opaque, &mut contents.implied] {
                names.remove(path);
                remove_names_beneath(names, path);
            }
        }
        self.contents.entries.remove(path);
        false
    }

    /// Goes to the directory that an entry belongs into, making what is missing of it.
    fn go_to(&mut self, parent: &ImagePath, entry: &TarEntry) -> Result<ImagePath, SnapshotError> {
        match self.walk(parent, true)? {
            Walked::At(path) => Ok(path),
            Walked::Missing | Walked::NotDirectory => {
                Err(refuse(entry, "lies beneath something that is not a directory"))
            }
        }
    }

    /// Finds a directory of this layer.
    fn find_directory(&mut self, path: &ImagePath) -> Result<Option<ImagePath>, SnapshotError> {
        match self.walk(path, false)? {
            Walked::At(path) => Ok(Some(path)),
            Walked::Missing | Walked::NotDirectory => Ok(None),
        }
    }

    fn walk(&mut self, path: &ImagePath, makes: bool) -> Result<Walked, SnapshotError> {
        // Nearly always the directory is there and no part of its path is a symlink.
        if self.contents.entries.get(path).is_some_and(Entry::is_directory) {
            return Ok(Walked::At(path.clone()));
        }
        let mut pending: Vec<Vec<u8>> = path.parts().rev().map(<[u8]>::to_vec).collect();
        let mut place = ImagePath::root();
        let mut symlinks = 0;
        while let Some(part) = pending.pop() {
            if part == b".." {
                place = place.split().map_or_else(ImagePath::root, |(parent, _)| parent);
                continue;
            }
            let next = place.join(&part);
            match self.contents.entries.get(&next).map(|entry| &entry.kind) {
                Some(EntryKind::Directory) => place = next,
                Some(EntryKind::Symlink(target)) => {
                    symlinks += 1;
                    if symlinks > MAX_SYMLINKS {
                        let path = std::path::PathBuf::from(path.to_string());
                        return Err(SnapshotError::Entry {
                            path,
                            problem: "lies behind too many symlinks".into(),
                        });
                    }
                    let (is_absolute, parts) = target_parts(target);
                    if is_absolute {
                        place = ImagePath::root();
                    }
                    pending.extend(parts.into_iter().rev());
                }
                Some(_) => return Ok(Walked::NotDirectory),
                None if !makes => return Ok(Walked::Missing),
                None => {
                    self.charge(&next, 0)?;
                    if self.contents.whiteouts.remove(&next) {
                        self.contents.opaque.insert(next.clone());
                    } else {
                        self.contents.implied.insert(next.clone());
                    }
                    self.contents.entries.insert(next.clone(), directory());
                    place = next;
                }
            }
        }
        Ok(Walked::At(place))
    }

    /// Hashes the content of an entry, and looks at its beginning.
    fn content<R: Read>(
        &mut self,
        reader: &mut TarReader<R>,
        size: u64,
        parts: Option<&[(u64, u64)]>,
    ) -> Result<FileFacts, SnapshotError> {
        let whole = [(0, size)];
        let parts = parts.unwrap_or(&whole);
        let stored: u64 = parts.iter().map(|(_, length)| *length).sum();
        // Files without holes cost what the archive has of them.
        let holes = size.saturating_sub(stored);
        let is_hashed = holes <= MAX_HOLES_BYTES.saturating_sub(self.holes);
        if is_hashed {
            self.holes += holes;
        }
        let mut content = Content::new(is_hashed);
        let mut position = 0;
        let mut buffer = vec![0; (64 << 10).min(usize::try_from(size).unwrap_or(usize::MAX))];
        for &(offset, length) in parts {
            content.zeros(offset - position);
            let mut left = length;
            while left > 0 {
                let len = (buffer.len() as u64).min(left) as usize;
                let count = reader
                    .read(&mut buffer[..len])
                    .map_err(|source| SnapshotError::Stream { action: "read the tar archive", source })?;
                content.update(&buffer[..count]);
                left -= count as u64;
            }
            position = offset + length;
        }
        content.zeros(size - position);
        let (sha256, program) = content.finish();
        Ok(FileFacts { size_bytes: size, sha256, program })
    }
}

enum Walked {
    At(ImagePath),
    Missing,
    NotDirectory,
}

fn refuse(entry: &TarEntry, problem: &str) -> SnapshotError {
    SnapshotError::Entry { path: entry.path.clone(), problem: problem.to_owned() }
}

/// Removes all that is beneath a directory, which is not the root; returns what is gone.
pub(crate) fn remove_beneath<V>(
    entries: &mut BTreeMap<ImagePath, V>,
    path: &ImagePath,
) -> Vec<(ImagePath, V)> {
    let (start, end) = path.range_beneath();
    let gone: Vec<ImagePath> =
        entries.range((Bound::Excluded(start), Bound::Excluded(end))).map(|(path, _)| path.clone()).collect();
    gone.iter().filter_map(|path| entries.remove_entry(path)).collect()
}

/// The same for names alone.
fn remove_names_beneath(names: &mut BTreeSet<ImagePath>, path: &ImagePath) {
    let (start, end) = path.range_beneath();
    let gone: Vec<ImagePath> = names.range((Bound::Excluded(start), Bound::Excluded(end))).cloned().collect();
    for path in gone {
        names.remove(&path);
    }
}

#[cfg(test)]
mod tests {
    use polyarch_testkit::TarBuilder;

    use super::*;

    fn read(tar: TarBuilder, max_kept: u64) -> Result<LayerContents, SnapshotError> {
        let tar = tar.finish();
        read_entries(&mut TarReader::new(tar.as_slice(), &limits()), &limits(), max_kept)
    }

    #[test]
    fn huge_holes_hide_no_program() {
        let directory = tempfile::tempdir().unwrap();
        let hello = polyarch_testkit::hello_program("amd64", "x", 0).unwrap();
        for name in ["a-huge", "b-plain"] {
            std::fs::write(directory.path().join(name), &hello).unwrap();
        }
        let huge = std::fs::File::options().append(true).open(directory.path().join("a-huge")).unwrap();
        huge.set_len(MAX_HOLES_BYTES * 4).unwrap();
        let tar = std::process::Command::new("tar")
            .args(["-S", "-cf", "-", "a-huge", "b-plain"])
            .current_dir(directory.path())
            .output()
            .unwrap();
        assert!(tar.stdout.len() < 1 << 20, "tar has not made it sparse");
        let contents = LayerContents::read_tar(tar.stdout.as_slice()).unwrap();
        let facts = |name: &str| contents.entries[&ImagePath::clean(name)].file().unwrap().clone();
        let (huge, plain) = (facts("a-huge"), facts("b-plain"));
        assert_eq!((huge.size_bytes, huge.sha256.as_str()), (MAX_HOLES_BYTES * 4, ""));
        assert!(huge.program.is_some() && huge.program == plain.program, "{huge:?}");
        assert!(!plain.sha256.is_empty());
    }

    #[test]
    fn few_entries_that_need_many_directories_are_refused() {
        let deep = |count: u32| {
            (0..count).fold(TarBuilder::new(), |tar, at| {
                tar.file(&format!("{at:04}/{}x", "a/".repeat(40)), 0o644, "")
            })
        };
        assert_eq!(read(deep(2), 1 << 16).unwrap().implied.len(), 1 + 2 * 41);
        let error = read(deep(100), 1 << 16).unwrap_err();
        assert!(matches!(error, SnapshotError::Limit { what: "memory for the names of a layer", .. }));
        // Also directories that only a symlink's target names.
        let behind_links = (0..100).fold(TarBuilder::new(), |tar, at| {
            let link = format!("{at:04}");
            tar.symlink(&link, &format!("real/{at}/{}", "a/".repeat(40))).file(
                &format!("{link}/x"),
                0o644,
                "",
            )
        });
        assert!(read(behind_links, 1 << 16).is_err());
    }

    #[test]
    fn directories_that_become_files_take_all_beneath_them_along() {
        let tar = TarBuilder::new()
            .file("a/.wh.gone", 0o644, "")
            .file("a/b/.wh..wh..opq", 0o644, "")
            .hard_link("a/link", "elsewhere/file")
            .file("a.txt", 0o644, "")
            .file("a0/c/.wh.kept", 0o644, "")
            .file("a", 0o644, "now a file");
        let contents = read(tar, MAX_KEPT_BYTES).unwrap();
        let paths = |names: &BTreeSet<ImagePath>| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(paths(&contents.whiteouts), ["/a0/c/kept"]);
        assert_eq!(paths(&contents.opaque), Vec::<String>::new());
        assert_eq!(paths(&contents.implied), ["/", "/a0", "/a0/c"]);
        assert!(contents.links_below.is_empty());
        assert!(contents.entries[&ImagePath::clean("a")].file().is_some());
        assert_eq!(contents.entries.len(), 5);
    }
}
