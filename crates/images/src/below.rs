// SPDX-License-Identifier: Apache-2.0
//! The manifests below a document, read with bounds.
//!
//! An index of a few bytes may name another one thousands of times, that one a third, and so on; and a
//! registry may make up ever more of them. Each index is looked into once, and all of them together have
//! a depth, a number and a size that no honest image comes near.

use std::collections::BTreeSet;

use polyarch_build::BuildError;
use polyarch_oci::{Descriptor, Document, Manifest, ManifestOrIndex};

use crate::found::FoundImage;

/// The deepest nesting of indexes.
const MAX_DEPTH: usize = 8;
/// The most documents of one image.
const MAX_DOCUMENTS: usize = 10_000;
/// The most bytes that they have together.
const MAX_BYTES: u64 = 64 << 20;

/// What was read of an image so far.
#[derive(Default)]
pub(crate) struct Bounds {
    documents: usize,
    bytes: u64,
}

impl Bounds {
    /// Counts a document; tells whether the image has no more than can be meant.
    pub(crate) fn admit(&mut self, document: &ManifestOrIndex) -> bool {
        self.documents += 1;
        self.bytes = self.bytes.saturating_add(document.bytes().len() as u64);
        !self.are_passed()
    }

    /// Tells whether the image had more than can be meant.
    pub(crate) fn are_passed(&self) -> bool {
        self.documents > MAX_DOCUMENTS || self.bytes > MAX_BYTES
    }

    /// Counts a document.
    ///
    /// # Errors
    /// When the image has more than can be meant.
    pub(crate) fn count(&mut self, image: &FoundImage, document: &ManifestOrIndex) -> Result<(), BuildError> {
        if self.admit(document) {
            return Ok(());
        }
        let mib = MAX_BYTES >> 20;
        Err(image
            .damaged(format!("it has more than {MAX_DOCUMENTS} manifests, or more than {mib} MiB of them")))
    }
}

/// What is below a document.
pub(crate) struct Below {
    /// The manifests, in order, each with the entry that names it.
    pub(crate) manifests: Vec<(Descriptor, Document<Manifest>)>,
    /// The entries that were not to be read.
    pub(crate) left_out: Vec<Descriptor>,
}

impl FoundImage {
    /// Reads the manifests below a document; a manifest is below itself.
    ///
    /// # Errors
    /// As [`FoundImage::read_document`]; also when indexes are nested too deeply or are too many.
    pub(crate) async fn manifests_below(
        &self,
        root: &Descriptor,
    ) -> Result<Vec<(Descriptor, Document<Manifest>)>, BuildError> {
        Ok(self.below(root, |_| false).await?.manifests)
    }

    /// Reads what is below a document, without some entries and what is below them. An index that stands in
    /// several places is looked into at the first.
    ///
    /// # Errors
    /// As [`FoundImage::manifests_below`].
    pub(crate) async fn below(
        &self,
        root: &Descriptor,
        is_left_out: impl Fn(&Descriptor) -> bool,
    ) -> Result<Below, BuildError> {
        let mut waiting = vec![(root.clone(), 0)];
        let (mut bounds, mut indexes) = (Bounds::default(), BTreeSet::new());
        let (mut manifests, mut left_out) = (Vec::new(), Vec::new());
        while let Some((descriptor, depth)) = waiting.pop() {
            if indexes.contains(&descriptor.digest) {
                continue;
            }
            if depth > MAX_DEPTH {
                let what = format!("{} is an index within more than {MAX_DEPTH} others", descriptor.digest);
                return Err(self.damaged(what));
            }
            if is_left_out(&descriptor) {
                left_out.push(descriptor);
                continue;
            }
            let document = self.read_document(&descriptor).await?;
            bounds.count(self, &document)?;
            match document {
                ManifestOrIndex::Manifest(manifest) => manifests.push((descriptor, manifest)),
                ManifestOrIndex::Index(index) => {
                    indexes.insert(descriptor.digest);
                    waiting.extend(index.value.manifests.into_iter().rev().map(|entry| (entry, depth + 1)));
                }
            }
        }
        Ok(Below { manifests, left_out })
    }
}
