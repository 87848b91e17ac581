// SPDX-License-Identifier: Apache-2.0
//! The files of an image: its layers one upon another.

use std::collections::BTreeMap;

use polyarch_snapshot::SnapshotError;

use crate::entry::{Entry, EntryKind};
use crate::layer::{ENTRY_BYTES, LayerContents, MAX_KEPT_BYTES, directory, remove_beneath};
use crate::path::ImagePath;
use crate::resolve::{MAX_SYMLINKS, target_parts};

/// A file of an image, and the layer that it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// The file.
    pub entry: Entry,
    /// The layer that last wrote it, counted from the lowest, which is 0.
    pub layer: usize,
}

/// The files of an image, by path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageContents {
    entries: BTreeMap<ImagePath, Placed>,
    layers: usize,
    /// Hard links whose target no layer has: path, target, layer.
    broken_links: Vec<(ImagePath, ImagePath, usize)>,
    /// What all of it takes of memory, roughly, and may take.
    kept_bytes: u64,
    max_kept_bytes: u64,
}

impl Default for ImageContents {
    fn default() -> ImageContents {
        let root = Placed { entry: directory(), layer: 0 };
        ImageContents {
            entries: BTreeMap::from([(ImagePath::root(), root)]),
            layers: 0,
            broken_links: Vec::new(),
            kept_bytes: ENTRY_BYTES,
            max_kept_bytes: MAX_KEPT_BYTES,
        }
    }
}

impl ImageContents {
    /// Lays layers one upon another, lowest first.
    ///
    /// # Errors
    /// As [`ImageContents::add`].
    pub fn of_layers<'a>(
        layers: impl IntoIterator<Item = &'a LayerContents>,
    ) -> Result<ImageContents, SnapshotError> {
        let mut image = ImageContents::default();
        for layer in layers {
            image.add(layer)?;
        }
        Ok(image)
    }

    /// Lays one more layer on top.
    ///
    /// # Errors
    /// When the files of all layers together take more memory than those of one layer may. The layer
    /// counts then, and part of it is there.
    pub fn add(&mut self, layer: &LayerContents) -> Result<(), SnapshotError> {
        let number = self.layers;
        self.layers += 1;
        for path in &layer.whiteouts {
            self.remove(path);
            self.remove_beneath(path);
        }
        for path in &layer.opaque {
            if path.is_root() {
                self.entries.retain(|path, _| path.is_root());
                self.kept_bytes = self.entries.iter().map(|(path, placed)| taken(path, &placed.entry)).sum();
            } else {
                self.remove_beneath(path);
            }
        }
        for (path, entry) in &layer.entries {
            let is_known = layer.implied.contains(path)
                && self.entries.get(path).is_some_and(|placed| placed.entry.is_directory());
            if !is_known {
                self.place(path, entry, number)?;
            }
        }
        for (path, target) in &layer.links_below {
            let is_taken = layer.entries.contains_key(path) || layer.whiteouts.contains(path);
            let found = self.entries.get(target).filter(|placed| !is_taken && !placed.entry.is_directory());
            match found.map(|placed| placed.entry.clone()) {
                Some(entry) => self.place(path, &entry, number)?,
                None => {
                    self.charge(path, (path.as_bytes().len() + target.as_bytes().len()) as u64)?;
                    self.broken_links.push((path.clone(), target.clone(), number));
                }
            }
        }
        Ok(())
    }

    /// Leaves out a layer that can't be read: those above it keep their numbers.
    pub fn skip_layer(&mut self) {
        self.layers += 1;
    }

    fn place(&mut self, path: &ImagePath, entry: &Entry, layer: usize) -> Result<(), SnapshotError> {
        if !entry.is_directory() {
            self.remove_beneath(path);
        }
        self.remove(path);
        self.charge(path, taken(path, entry))?;
        self.entries.insert(path.clone(), Placed { entry: entry.clone(), layer });
        Ok(())
    }

    /// Counts what is kept.
    fn charge(&mut self, path: &ImagePath, bytes: u64) -> Result<(), SnapshotError> {
        self.kept_bytes = self.kept_bytes.saturating_add(bytes);
        if self.kept_bytes <= self.max_kept_bytes {
            return Ok(());
        }
        let (limit, path) = (self.max_kept_bytes, std::path::PathBuf::from(path.to_string()));
        Err(SnapshotError::Limit { what: "memory for the names of all layers", limit, path })
    }

    fn remove(&mut self, path: &ImagePath) {
        if let Some(placed) = self.entries.remove(path) {
            self.kept_bytes = self.kept_bytes.saturating_sub(taken(path, &placed.entry));
        }
    }

    fn remove_beneath(&mut self, path: &ImagePath) {
        for (path, placed) in remove_beneath(&mut self.entries, path) {
            self.kept_bytes = self.kept_bytes.saturating_sub(taken(&path, &placed.entry));
        }
    }

    /// Returns every file, sorted by path; the root comes first.
    pub fn entries(&self) -> impl Iterator<Item = (&ImagePath, &Placed)> {
        self.entries.iter()
    }

    /// Returns what stands under a path, no symlink followed.
    pub fn get(&self, path: &ImagePath) -> Option<&Placed> {
        self.entries.get(path)
    }

    /// Returns hard links to files that no layer has: path, target, layer.
    pub fn broken_links(&self) -> &[(ImagePath, ImagePath, usize)] {
        &self.broken_links
    }

    /// Finds a file, all symlinks followed within the root; its real path and what stands there.
    pub fn resolve(&self, path: &str) -> Option<(ImagePath, &Placed)> {
        let mut pending: Vec<Vec<u8>> =
            path.split('/').rev().filter(|part| !matches!(*part, "" | ".")).map(|part| part.into()).collect();
        let mut place = ImagePath::root();
        let mut symlinks = 0;
        while let Some(part) = pending.pop() {
            // Only a directory has names in it, `..` among them.
            if !self.entries.get(&place)?.entry.is_directory() {
                return None;
            }
            if part == b".." {
                place = place.split().map_or_else(ImagePath::root, |(parent, _)| parent);
                continue;
            }
            let next = place.join(&part);
            if let EntryKind::Symlink(target) = &self.entries.get(&next)?.entry.kind {
                symlinks += 1;
                if symlinks > MAX_SYMLINKS {
                    return None;
                }
                let (is_absolute, parts) = target_parts(target);
                if is_absolute {
                    place = ImagePath::root();
                }
                pending.extend(parts.into_iter().rev());
            } else {
                place = next;
            }
        }
        let placed = self.entries.get(&place)?;
        Some((place, placed))
    }

    /// Finds a program as a shell would: a name with a slash from the working directory, any other in the
    /// directories of a search path.
    pub fn find_program(
        &self,
        name: &str,
        search_path: &str,
        working_dir: &str,
    ) -> Option<(ImagePath, &Placed)> {
        if name.contains('/') {
            let path = if name.starts_with('/') { name.to_owned() } else { format!("{working_dir}/{name}") };
            return self.resolve(&path);
        }
        search_path.split(':').filter(|directory| !directory.is_empty()).find_map(|directory| {
            self.resolve(&format!("{directory}/{name}"))
                .filter(|(_, placed)| placed.entry.file().is_some() && placed.entry.is_executable())
        })
    }
}

/// Returns what a file takes of memory, roughly.
fn taken(path: &ImagePath, entry: &Entry) -> u64 {
    (path.as_bytes().len() as u64).saturating_add(entry.text_bytes() as u64).saturating_add(ENTRY_BYTES)
}

#[cfg(test)]
mod tests {
    use polyarch_testkit::TarBuilder;

    use super::*;

    fn layer(tar: TarBuilder) -> LayerContents {
        LayerContents::read_tar(tar.finish().as_slice()).unwrap()
    }

    #[test]
    fn layers_share_one_account_and_what_is_hidden_leaves_it() {
        let files = |from: u32, to: u32| {
            layer((from..to).fold(TarBuilder::new(), |tar, at| tar.file(&format!("d/{at:04}"), 0o644, "")))
        };
        let mut image = ImageContents { max_kept_bytes: 30_000, ..ImageContents::default() };
        image.add(&files(0, 100)).unwrap();
        let one = image.kept_bytes;
        image.add(&files(0, 100)).unwrap();
        assert_eq!(image.kept_bytes, one, "the same files, written again");
        image.add(&layer(TarBuilder::new().file(".wh.d", 0o644, ""))).unwrap();
        assert_eq!(image.kept_bytes, ImageContents::default().kept_bytes);
        image.add(&files(0, 100)).unwrap();
        image.add(&layer(TarBuilder::new().file(".wh..wh..opq", 0o644, ""))).unwrap();
        assert_eq!(image.entries.len(), 1);
        image.add(&files(0, 100)).unwrap();
        let error = image.add(&files(100, 200)).unwrap_err();
        assert!(matches!(error, SnapshotError::Limit { what: "memory for the names of all layers", .. }));
    }
}
