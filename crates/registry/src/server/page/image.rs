// SPDX-License-Identifier: Apache-2.0
//! One platform's image, looked at: what it holds, and whether all of it is here and is what it claims to be.

use polyarch_oci::{Digest, Platform};

use super::documents::{ConfigDocument, Entry, ManifestDocument};
use super::listing::Listed;
use super::reader::{Reader, Unread};

/// What the server knows of an image by looking: it reads manifests and configs and compares their digests, and looks
/// whether the layers are there in the right size.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Verdict {
    /// Everything is here, and the config says the platform that the index says.
    Whole,
    /// The manifest is not here.
    Absent,
    /// As many blobs of it are not here.
    Missing(usize),
    /// The config says another platform than the index.
    Mismatch(String),
    /// The manifest or the config is damaged.
    Damaged,
    /// It was not looked at, because the page would have read too much.
    Unseen,
}

/// An image that was looked at.
#[derive(Debug)]
pub(super) struct Image {
    pub(super) listed: Listed,
    pub(super) verdict: Verdict,
    pub(super) document: Option<ManifestDocument>,
    pub(super) config: Option<ConfigDocument>,
    /// Digests of layers and config that are not here.
    pub(super) absent: Vec<Digest>,
}

impl Image {
    /// Reads the manifest and the config of an image, and looks for its layers.
    pub(super) async fn look(reader: &mut Reader, listed: &Listed) -> Image {
        let mut image = Image {
            listed: listed.clone(),
            verdict: Verdict::Whole,
            document: None,
            config: None,
            absent: Vec::new(),
        };
        if let Err(verdict) = image.fill(reader).await {
            image.verdict = verdict;
        }
        image
    }

    async fn fill(&mut self, reader: &mut Reader) -> Result<(), Verdict> {
        let document = reader.manifest(&self.listed.digest).await.map_err(|unread| match unread {
            Unread::Absent => Verdict::Absent,
            Unread::Unreadable => Verdict::Damaged,
            Unread::Enough => Verdict::Unseen,
        })?;
        let document = self.document.insert(document);
        let blobs: Vec<&Entry> =
            document.config.iter().chain(document.blobs()).filter(|blob| !blob.is_foreign()).collect();
        let sizes = reader.blob_sizes(blobs.iter().map(|blob| blob.digest.clone()).collect()).await;
        let (wanted, seen) = (blobs.len(), sizes.len());
        // A blob of another size is as good as none.
        let is_here = |(blob, size): &(&&Entry, &Option<u64>)| **size == Some(blob.size);
        let absent = blobs.iter().zip(&sizes).filter(|pair| !is_here(pair));
        self.absent = absent.map(|(blob, _)| blob.digest.clone()).collect();
        let config = match &document.config {
            Some(config) if document.is_image() => Some(reader.config(config).await),
            _ => None,
        };
        let says = match config {
            Some(Ok(config)) => self.config.insert(config).platform(),
            Some(Err(Unread::Unreadable)) => return Err(Verdict::Damaged),
            _ => None,
        };
        if !self.absent.is_empty() {
            return Err(Verdict::Missing(self.absent.len()));
        }
        if seen < wanted {
            return Err(Verdict::Unseen);
        }
        match says {
            Some(says) if self.listed.is_declared && !agrees(&self.listed.platform, &says) => {
                Err(Verdict::Mismatch(says.to_string()))
            }
            None if document.is_image() && self.config.is_none() => Err(Verdict::Unseen),
            _ => Ok(()),
        }
    }

    /// Returns the layers.
    pub(super) fn layers(&self) -> &[Entry] {
        self.document.as_ref().map_or(&[], ManifestDocument::blobs)
    }

    /// Returns what a client downloads, in bytes: the manifest, the config and the layers.
    pub(super) fn size(&self) -> u64 {
        let config = self.document.as_ref().and_then(|document| document.config.as_ref());
        let blobs = config.into_iter().chain(self.layers());
        blobs.fold(self.listed.size, |sum, blob| sum.saturating_add(blob.size))
    }
}

/// Tells whether a config's platform is the one of the index. Versions and features of the system may stand in one of
/// the two alone, and so may the variant.
fn agrees(declared: &Platform, says: &Platform) -> bool {
    let is_variant =
        declared.variant == says.variant || declared.variant.is_empty() || says.variant.is_empty();
    declared.os == says.os && declared.architecture == says.architecture && is_variant
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variant_may_be_left_out_and_an_architecture_not() {
        let platform = |text: &str| text.parse::<Platform>().unwrap();
        assert!(agrees(&platform("linux/arm64"), &platform("linux/arm64/v8")));
        assert!(agrees(&platform("linux/amd64/v3"), &platform("linux/amd64")));
        assert!(!agrees(&platform("linux/arm/v6"), &platform("linux/arm/v7")));
        assert!(!agrees(&platform("linux/arm64"), &platform("linux/amd64")));
        assert!(!agrees(&platform("windows/amd64"), &platform("linux/amd64")));
    }
}
