// SPDX-License-Identifier: Apache-2.0
//! The files of an image: its layers one upon another.

use std::collections::BTreeMap;

use crate::entry::{Entry, EntryKind};
use crate::layer::{LayerContents, directory, remove_beneath};
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
}

impl Default for ImageContents {
    fn default() -> ImageContents {
        let root = Placed { entry: directory(), layer: 0 };
        ImageContents {
            entries: BTreeMap::from([(ImagePath::root(), root)]),
            layers: 0,
            broken_links: Vec::new(),
        }
    }
}

impl ImageContents {
    /// Lays layers one upon another, lowest first.
    pub fn of_layers<'a>(layers: impl IntoIterator<Item = &'a LayerContents>) -> ImageContents {
        let mut image = ImageContents::default();
        for layer in layers {
            image.add(layer);
        }
        image
    }

    /// Lays one more layer on top.
    pub fn add(&mut self, layer: &LayerContents) {
        let number = self.layers;
        self.layers += 1;
        for path in &layer.whiteouts {
            self.entries.remove(path);
            remove_beneath(&mut self.entries, path);
        }
        for path in &layer.opaque {
            if path.is_root() {
                self.entries.retain(|path, _| path.is_root());
            } else {
                remove_beneath(&mut self.entries, path);
            }
        }
        for (path, entry) in &layer.entries {
            let is_known = layer.implied.contains(path)
                && self.entries.get(path).is_some_and(|placed| placed.entry.is_directory());
            if !is_known {
                self.place(path.clone(), entry.clone(), number);
            }
        }
        for (path, target) in &layer.links_below {
            let is_taken = layer.entries.contains_key(path) || layer.whiteouts.contains(path);
            let found = self.entries.get(target).filter(|placed| !is_taken && !placed.entry.is_directory());
            match found.map(|placed| placed.entry.clone()) {
                Some(entry) => self.place(path.clone(), entry, number),
                None => self.broken_links.push((path.clone(), target.clone(), number)),
            }
        }
    }

    fn place(&mut self, path: ImagePath, entry: Entry, layer: usize) {
        if !entry.is_directory() {
            remove_beneath(&mut self.entries, &path);
        }
        self.entries.insert(path, Placed { entry, layer });
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
