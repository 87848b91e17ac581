// SPDX-License-Identifier: Apache-2.0
//! What a repository has: its `index.json`, read and written (`docs/registry.md`).

use std::collections::{BTreeMap, BTreeSet, HashMap};

use polyarch_oci::media_type::OCI_INDEX;
use polyarch_oci::{Algorithm, Digest};
use serde::{Deserialize, Serialize};

use super::names::Tag;

/// The largest `index.json`, in bytes: about a million tags; less for tests.
pub(super) const MAX_INDEX_BYTES: u64 = if cfg!(test) { 64 << 10 } else { 512 << 20 };

/// What is known of a manifest without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ManifestEntry {
    /// What it was pushed as.
    pub(super) media_type: String,
    /// Its size, in bytes.
    pub(super) size: u64,
    /// The manifest that it is about.
    pub(super) subject: Option<Digest>,
    /// Blobs were lacking when it was entered, as is usual with copies.
    pub(super) is_sparse: bool,
}

/// The manifests and tags of a repository.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct RepositoryIndex {
    /// Every manifest.
    pub(super) manifests: BTreeMap<Digest, ManifestEntry>,
    /// Every tag; each leads to one of the manifests.
    pub(super) tags: BTreeMap<Tag, Digest>,
    /// Subjects, which need not be there, and the manifests about them.
    referrers: HashMap<Digest, BTreeSet<Digest>>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireIndex {
    schema_version: u32,
    media_type: String,
    manifests: Vec<WireEntry>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireEntry {
    media_type: String,
    digest: Digest,
    size: u64,
    #[serde(default, skip_serializing_if = "WireAnnotations::is_empty")]
    annotations: WireAnnotations,
}

#[derive(Default, Serialize, Deserialize)]
struct WireAnnotations {
    #[serde(rename = "dev.polyarch.registry.sparse", default, skip_serializing_if = "Option::is_none")]
    sparse: Option<String>,
    #[serde(rename = "dev.polyarch.registry.subject", default, skip_serializing_if = "Option::is_none")]
    subject: Option<Digest>,
    #[serde(rename = "org.opencontainers.image.ref.name", default, skip_serializing_if = "Option::is_none")]
    tag: Option<String>,
}

impl WireAnnotations {
    fn is_empty(&self) -> bool {
        self.sparse.is_none() && self.subject.is_none() && self.tag.is_none()
    }
}

impl RepositoryIndex {
    /// Reads the file; entries that appear twice count once, and names that are no tags are left out.
    pub(super) fn parse(bytes: &[u8]) -> Result<RepositoryIndex, serde_json::Error> {
        let wire: WireIndex = serde_json::from_slice(bytes)?;
        let mut index = RepositoryIndex::default();
        for entry in wire.manifests {
            let tag = entry.annotations.tag.as_deref().and_then(Tag::new);
            let manifest = ManifestEntry {
                media_type: entry.media_type,
                size: entry.size,
                subject: entry.annotations.subject,
                is_sparse: entry.annotations.sparse.as_deref() == Some("true"),
            };
            index.put(entry.digest, manifest, tag);
        }
        Ok(index)
    }

    /// Writes the file.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut tags: HashMap<&Digest, Vec<&Tag>> = HashMap::new();
        for (tag, digest) in &self.tags {
            tags.entry(digest).or_default().push(tag);
        }
        let mut manifests = Vec::with_capacity(self.manifests.len());
        for (digest, manifest) in &self.manifests {
            let entry = |tag: Option<&Tag>| WireEntry {
                media_type: manifest.media_type.clone(),
                digest: digest.clone(),
                size: manifest.size,
                annotations: WireAnnotations {
                    sparse: manifest.is_sparse.then(|| "true".to_owned()),
                    subject: manifest.subject.clone(),
                    tag: tag.map(|tag| tag.as_str().to_owned()),
                },
            };
            match tags.get(digest) {
                Some(tags) => manifests.extend(tags.iter().map(|tag| entry(Some(tag)))),
                None => manifests.push(entry(None)),
            }
        }
        let wire = WireIndex { schema_version: 2, media_type: OCI_INDEX.to_owned(), manifests };
        serde_json::to_vec(&wire).expect("texts, numbers and lists can all be written as JSON")
    }

    /// Enters a manifest, with tags that are taken from other manifests where they were there.
    pub(super) fn put(
        &mut self,
        digest: Digest,
        manifest: ManifestEntry,
        tags: impl IntoIterator<Item = Tag>,
    ) {
        for tag in tags {
            self.tags.insert(tag, digest.clone());
        }
        self.forget_referrer(&digest);
        if let Some(subject) = &manifest.subject {
            self.referrers.entry(subject.clone()).or_default().insert(digest.clone());
        }
        self.manifests.insert(digest, manifest);
    }

    /// Returns a copy that lacks some manifests and their tags.
    pub(super) fn without(&self, digests: &[Digest]) -> RepositoryIndex {
        let mut left = self.clone();
        for digest in digests {
            left.remove(digest);
        }
        left
    }

    /// Removes a manifest and all its tags; tells whether it was there.
    pub(super) fn remove(&mut self, digest: &Digest) -> bool {
        self.forget_referrer(digest);
        if self.manifests.remove(digest).is_none() {
            return false;
        }
        self.tags.retain(|_, tagged| tagged != digest);
        true
    }

    /// Returns the manifests that are about a digest, in the order of their digests.
    pub(super) fn referrers(&self, subject: &Digest) -> impl DoubleEndedIterator<Item = &Digest> {
        self.referrers.get(subject).into_iter().flatten()
    }

    /// Returns what is known of a manifest.
    pub(super) fn find(&self, digest: &Digest) -> Option<&ManifestEntry> {
        self.manifests.get(digest)
    }

    fn forget_referrer(&mut self, digest: &Digest) {
        let Some(subject) = self.manifests.get(digest).and_then(|entry| entry.subject.clone()) else {
            return;
        };
        if let Some(referrers) = self.referrers.get_mut(&subject) {
            referrers.remove(digest);
            if referrers.is_empty() {
                self.referrers.remove(&subject);
            }
        }
    }
}

/// Names a file below a directory of blobs.
pub(super) fn blob_path_in(directory: &std::path::Path, digest: &Digest) -> std::path::PathBuf {
    directory.join("blobs").join(digest.algorithm().as_str()).join(digest.hex())
}

/// Both algorithms, for those who make or list their directories.
pub(super) const ALGORITHMS: [Algorithm; 2] = [Algorithm::Sha256, Algorithm::Sha512];

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(subject: Option<&str>) -> ManifestEntry {
        ManifestEntry {
            media_type: "m".to_owned(),
            size: 3,
            subject: subject.map(Digest::of),
            is_sparse: subject.is_some(),
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let mut index = RepositoryIndex::default();
        index.put(Digest::of("a"), entry(None), ["x", "y"].map(|tag| Tag::new(tag).unwrap()));
        index.put(Digest::of("b"), entry(Some("a")), None);
        let again = RepositoryIndex::parse(&index.to_bytes()).unwrap();
        assert_eq!(again, index);
        assert_eq!(again.referrers(&Digest::of("a")).collect::<Vec<_>>(), [&Digest::of("b")]);
    }

    #[test]
    fn a_removed_manifest_takes_its_tags_and_its_reference_along() {
        let mut index = RepositoryIndex::default();
        index.put(Digest::of("a"), entry(Some("s")), Tag::new("x"));
        index.put(Digest::of("b"), entry(None), Tag::new("y"));
        assert!(index.remove(&Digest::of("a")) && !index.remove(&Digest::of("a")));
        assert_eq!(index.tags.len(), 1);
        assert_eq!(index.referrers(&Digest::of("s")).count(), 0);
    }

    #[test]
    fn a_tag_moves() {
        let mut index = RepositoryIndex::default();
        index.put(Digest::of("a"), entry(None), Tag::new("x"));
        index.put(Digest::of("b"), entry(None), Tag::new("x"));
        assert_eq!(index.tags[&Tag::new("x").unwrap()], Digest::of("b"));
        assert!(index.find(&Digest::of("a")).is_some(), "without its tag it stays");
        assert_eq!(RepositoryIndex::parse(&index.to_bytes()).unwrap(), index);
    }
}
