// SPDX-License-Identifier: Apache-2.0
//! What a tag leads to: the images of its index by platform, and what goes along with them.

use polyarch_oci::{Digest, Platform, media_type};

use super::documents::{ConfigDocument, Entry, ManifestDocument};
use super::reader::{Reader, Unread};

/// The most images that are shown of one tag.
pub(super) const MAX_IMAGES: usize = 64;
/// How deep indexes may be nested.
const MAX_DEPTH: usize = 3;
/// The most entries of an index that are looked at.
const MAX_ENTRIES: usize = 2048;

/// What a tag or a digest leads to.
#[derive(Debug)]
pub(super) struct Listing {
    /// The document itself.
    pub(super) document: ManifestDocument,
    /// What the document is.
    pub(super) kind: Kind,
    /// The images, in the order of the index.
    pub(super) images: Vec<Listed>,
    /// Entries that are about one of the images, with its digest where they say so.
    pub(super) attestations: Vec<(Option<Digest>, Entry)>,
    /// Entries without a platform that are no attestations.
    pub(super) others: Vec<Entry>,
    /// How many images are left out.
    pub(super) omitted: usize,
}

/// What a document is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Images for platforms.
    Index,
    /// One image.
    Image,
    /// Something else.
    Artifact,
}

/// One image of an index, or the only one.
#[derive(Debug, Clone)]
pub(super) struct Listed {
    pub(super) platform: Platform,
    pub(super) digest: Digest,
    /// Its size as the index says, in bytes.
    pub(super) size: u64,
    /// The index says the platform, and not the config alone.
    pub(super) is_declared: bool,
}

impl Listed {
    /// Returns the platform's name, and for one that appears twice the digest: what this page calls the image by.
    pub(super) fn key(&self, all: &[Listed]) -> String {
        let name = self.platform.to_string();
        let same = all.iter().filter(|other| other.platform == self.platform).count();
        if same > 1 { self.digest.to_string() } else { name }
    }

    /// Finds the image that is called so.
    pub(super) fn find<'a>(all: &'a [Listed], key: &str) -> Option<&'a Listed> {
        all.iter().find(|image| image.digest.to_string() == key || image.platform.to_string() == key)
    }
}

/// Reads what a digest leads to: the index and those nested in it, and no manifest but a single one.
pub(super) async fn list(reader: &mut Reader, digest: &Digest) -> Result<Listing, Unread> {
    let mut document = reader.manifest(digest).await?;
    let Some(entries) = document.manifests.take() else {
        return Ok(single(reader, digest, document).await);
    };
    let mut listing = Listing {
        document,
        kind: Kind::Index,
        images: Vec::new(),
        attestations: Vec::new(),
        others: Vec::new(),
        omitted: 0,
    };
    // Each with its depth; the next one is the last.
    let mut waiting: Vec<(Entry, usize)> = entries.into_iter().rev().map(|entry| (entry, 1)).collect();
    let mut looked_at = 0;
    while let Some((entry, depth)) = waiting.pop() {
        looked_at += 1;
        if looked_at > MAX_ENTRIES {
            listing.omitted += waiting.len() + 1;
            break;
        }
        if media_type::is_index(&entry.media_type) && depth < MAX_DEPTH {
            // One that isn't here has nothing to show.
            let nested = reader.manifest(&entry.digest).await.ok().and_then(|nested| nested.manifests);
            match nested {
                Some(nested) => waiting.extend(nested.into_iter().rev().map(|entry| (entry, depth + 1))),
                None => listing.others.push(entry),
            }
            continue;
        }
        listing.enter(entry);
    }
    Ok(listing)
}

impl Listing {
    fn enter(&mut self, entry: Entry) {
        if entry.is_attestation() {
            let subject = entry.annotation("vnd.docker.reference.digest").and_then(|text| text.parse().ok());
            self.attestations.push((subject, entry));
            return;
        }
        let is_image = media_type::is_manifest(&entry.media_type) || entry.media_type.is_empty();
        match entry.known_platform().filter(|_| is_image) {
            Some(_) if self.images.len() >= MAX_IMAGES => self.omitted += 1,
            Some(platform) => self.images.push(Listed {
                platform,
                digest: entry.digest,
                size: entry.size,
                is_declared: true,
            }),
            None => self.others.push(entry),
        }
    }
}

/// A tag of one manifest is an image for the platform that its config says.
async fn single(reader: &mut Reader, digest: &Digest, document: ManifestDocument) -> Listing {
    let config = match &document.config {
        Some(config) if document.is_image() => reader.config(config).await.ok(),
        _ => None,
    };
    let kind = if document.is_image() { Kind::Image } else { Kind::Artifact };
    let size = reader.index.find(digest).map_or(0, |entry| entry.size);
    let image = |platform| Listed { platform, digest: digest.clone(), size, is_declared: false };
    let platform = config.as_ref().and_then(ConfigDocument::platform);
    // An image whose config says nothing is one all the same, and an artifact is looked at like one.
    let images = vec![image(platform.unwrap_or_default())];
    Listing { document, kind, images, attestations: Vec::new(), others: Vec::new(), omitted: 0 }
}
