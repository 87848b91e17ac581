// SPDX-License-Identifier: Apache-2.0
//! An image made of images: the sources' entries as one index, byte for byte as buildx makes it.
//!
//! Pure: documents in, bytes out. `combine` reads what this needs (platforms out of configs, attestations
//! that a registry keeps beside an image). The rules are those of `docker buildx imagetools create`:
//! entries of indexes are flattened, equal digests become one entry, an index that is the only source
//! stays as it is, and the result is a docker list when every entry is of a docker type.

use std::collections::{BTreeMap, BTreeSet};

use polyarch_build::{BuildError, ErrorKind};
use polyarch_oci::media_type::{Flavour, is_docker};
use polyarch_oci::{Descriptor, Digest, Document, ImageIndex, ManifestOrIndex, Platform};

use crate::annotation::Annotation;

mod annotate;
mod kept;

use annotate::{annotate, check_annotations};
use kept::{as_attestation, attestations_of, is_wanted, no_match};

/// The annotation of an attestation's entry that names its image.
pub(crate) const REFERENCE_DIGEST: &str = "vnd.docker.reference.digest";
/// The annotation that says that an entry is an attestation.
pub(crate) const REFERENCE_TYPE: &str = "vnd.docker.reference.type";
/// The value of [`REFERENCE_TYPE`].
pub(crate) const ATTESTATION: &str = "attestation-manifest";

/// A source: what is said about a document, and the document.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    /// Its descriptor; of a manifest with the platform.
    pub descriptor: Descriptor,
    /// Its document.
    pub document: ManifestOrIndex,
}

/// How sources become one image.
#[derive(Debug, Clone)]
pub struct ComposeOptions {
    /// Annotations of the index and of its entries.
    pub annotations: Vec<Annotation>,
    /// Makes an index of a single manifest as well, instead of copying it.
    pub prefer_index: bool,
    /// Keeps only images of these platforms, with what attests them; all when empty.
    pub platforms: Vec<Platform>,
}

impl Default for ComposeOptions {
    fn default() -> ComposeOptions {
        ComposeOptions { annotations: Vec::new(), prefer_index: true, platforms: Vec::new() }
    }
}

/// An image made of parts.
#[derive(Debug, Clone, PartialEq)]
pub struct Composed {
    /// Its document's bytes.
    pub bytes: Vec<u8>,
    /// Its document's descriptor.
    pub descriptor: Descriptor,
    /// What must be where it goes to, and which part has it; an index's entries, or the manifest itself.
    pub entries: Vec<(Descriptor, usize)>,
}

/// The parts, combined but not yet filtered.
#[derive(Debug, Clone)]
pub struct Combined {
    bytes: Vec<u8>,
    descriptor: Descriptor,
    /// The index; `None` when a manifest is copied as it is.
    index: Option<ImageIndex>,
    /// Which part an entry comes from; those not in it come from the first.
    origins: BTreeMap<Digest, usize>,
}

/// Combines parts.
///
/// # Errors
/// When there are none, and for annotations that can't be set here.
pub fn combine_parts(parts: &[Part], options: &ComposeOptions) -> Result<Combined, BuildError> {
    let [first, rest @ ..] = parts else {
        return Err(BuildError::new(ErrorKind::Usage, "no sources specified"));
    };
    check_annotations(&options.annotations)?;
    if rest.is_empty() && options.annotations.is_empty() {
        let copied = |index: Option<ImageIndex>| Combined {
            bytes: first.document.bytes().to_vec(),
            descriptor: first.descriptor.clone(),
            index,
            origins: BTreeMap::new(),
        };
        match &first.document {
            ManifestOrIndex::Index(index) => return Ok(copied(Some(index.value.clone()))),
            ManifestOrIndex::Manifest(_) if !options.prefer_index => return Ok(copied(None)),
            ManifestOrIndex::Manifest(_) => {}
        }
    }
    let mut entries = Entries::default();
    for (at, part) in parts.iter().enumerate() {
        match &part.document {
            ManifestOrIndex::Index(index) => {
                for entry in &index.value.manifests {
                    entries.add(entry.clone(), at);
                }
            }
            ManifestOrIndex::Manifest(_) => entries.add(part.descriptor.clone(), at),
        }
    }
    let Entries { mut list, origins, .. } = entries;
    let flavour =
        if list.iter().all(|entry| is_docker(&entry.media_type)) { Flavour::Docker } else { Flavour::Oci };
    let mut index_annotations = BTreeMap::new();
    if flavour == Flavour::Oci {
        annotate(&options.annotations, &mut index_annotations, &mut list);
    }
    let mut index = ImageIndex::new(flavour, list);
    index.annotations = index_annotations;
    let document = Document::indented(index);
    let descriptor = Descriptor::new(flavour.index(), document.digest.clone(), document.size());
    Ok(Combined { bytes: document.bytes, descriptor, index: Some(document.value), origins })
}

impl Combined {
    /// Tells whether annotations were left out, because a docker list has no place for them.
    pub fn drops_annotations(&self, options: &ComposeOptions) -> bool {
        !options.annotations.is_empty() && is_docker(&self.descriptor.media_type)
    }

    /// Returns the images that will be kept and that nothing in the index attests, with their parts: a
    /// registry may keep an attestation beside them.
    pub fn unattested(&self, platforms: &[Platform]) -> Vec<(Digest, usize)> {
        let Some(index) = &self.index else { return Vec::new() };
        let attestations = attestations_of(index, platforms);
        let attested: BTreeSet<&Digest> = attestations.values().collect();
        let mut seen = BTreeSet::new();
        let images = index.manifests.iter().filter(|entry| {
            is_wanted(entry, platforms)
                && !attestations.contains_key(&entry.digest)
                && !attested.contains(&entry.digest)
                && seen.insert(entry.digest.clone())
        });
        images.map(|entry| (entry.digest.clone(), self.origin(&entry.digest))).collect()
    }

    /// Keeps the platforms that are wanted; `attestations` holds what registries keep beside images.
    ///
    /// # Errors
    /// When no image is left, with the platforms that there are.
    pub fn finish(
        self,
        platforms: &[Platform],
        attestations: &BTreeMap<Digest, Descriptor>,
    ) -> Result<Composed, BuildError> {
        let Some(index) = &self.index else { return self.finish_manifest(platforms) };
        let inline = attestations_of(index, platforms);
        let mut kept: Vec<(Descriptor, usize)> = index
            .manifests
            .iter()
            .filter(|entry| inline.contains_key(&entry.digest) || is_wanted(entry, platforms))
            .map(|entry| (entry.clone(), self.origin(&entry.digest)))
            .collect();
        if kept.is_empty() && !index.manifests.is_empty() {
            return Err(no_match(&polyarch_build::image_source::platforms_of(index)));
        }
        let is_whole = kept.len() == index.manifests.len();
        let mut is_added = false;
        for (image, origin) in self.unattested(platforms) {
            let Some(found) = attestations.get(&image).filter(|it| !inline.contains_key(&it.digest)) else {
                continue;
            };
            kept.push((as_attestation(found.clone(), &image), origin));
            is_added = true;
        }
        if is_whole && !is_added {
            return Ok(Composed { bytes: self.bytes, descriptor: self.descriptor, entries: kept });
        }
        let mut index = index.clone();
        index.rest.clear();
        index.manifests = kept.iter().map(|(entry, _)| plain(entry.clone())).collect();
        let document = Document::indented(index);
        let mut descriptor =
            Descriptor::new(self.descriptor.media_type, document.digest.clone(), document.size());
        descriptor.annotations = self.descriptor.annotations;
        Ok(Composed { bytes: document.bytes, descriptor, entries: kept })
    }

    fn finish_manifest(self, platforms: &[Platform]) -> Result<Composed, BuildError> {
        let own = self.descriptor.platform.clone().unwrap_or_default();
        if !is_wanted(&self.descriptor, platforms) {
            return Err(no_match(&[own]));
        }
        let entries = vec![(self.descriptor.clone(), 0)];
        Ok(Composed { bytes: self.bytes, descriptor: self.descriptor, entries })
    }

    fn origin(&self, digest: &Digest) -> usize {
        self.origins.get(digest).copied().unwrap_or_default()
    }
}

/// Entries in the order in which their digests came first.
#[derive(Default)]
struct Entries {
    list: Vec<Descriptor>,
    places: BTreeMap<Digest, usize>,
    origins: BTreeMap<Digest, usize>,
}

impl Entries {
    fn add(&mut self, entry: Descriptor, part: usize) {
        self.origins.insert(entry.digest.clone(), part);
        let Some(&place) = self.places.get(&entry.digest) else {
            self.places.insert(entry.digest.clone(), self.list.len());
            self.list.push(plain(entry));
            return;
        };
        let old = &mut self.list[place];
        if old.media_type.is_empty() {
            old.media_type = entry.media_type;
        }
        if entry.platform.is_some() {
            old.platform = entry.platform;
        }
        old.annotations.extend(entry.annotations);
    }
}

/// Leaves out fields that image-spec does not know: buildx does not write them either.
fn plain(mut entry: Descriptor) -> Descriptor {
    entry.rest.clear();
    entry
}

#[cfg(test)]
mod tests {
    use polyarch_oci::media_type::{DOCKER_MANIFEST, OCI_CONFIG, OCI_INDEX, OCI_MANIFEST};
    use polyarch_oci::{Manifest, media_type};

    use super::*;

    fn manifest(name: &str, flavour: Flavour) -> Part {
        let config = Descriptor::new(OCI_CONFIG, Digest::of(name), 1);
        let document = Document::indented(Manifest::new(flavour, config, Vec::new()));
        let descriptor = Descriptor::new(flavour.manifest(), document.digest.clone(), document.size());
        let descriptor = descriptor.with_platform(name.parse().unwrap());
        Part { descriptor, document: ManifestOrIndex::Manifest(document) }
    }

    fn index(entries: Vec<Descriptor>) -> Part {
        let document = Document::indented(ImageIndex::new(Flavour::Oci, entries));
        let descriptor = Descriptor::new(OCI_INDEX, document.digest.clone(), document.size());
        Part { descriptor, document: ManifestOrIndex::Index(document) }
    }

    fn attestation_of(image: &Descriptor) -> Descriptor {
        as_attestation(Descriptor::new(OCI_MANIFEST, Digest::of("attestation"), 1), &image.digest)
    }

    fn compose(parts: &[Part], platforms: &[&str]) -> Result<(ImageIndex, Composed), BuildError> {
        let platforms: Vec<Platform> = platforms.iter().map(|name| name.parse().unwrap()).collect();
        let combined = combine_parts(parts, &ComposeOptions::default())?;
        let composed = combined.finish(&platforms, &BTreeMap::new())?;
        Ok((serde_json::from_slice(&composed.bytes).unwrap(), composed))
    }

    #[test]
    fn equal_digests_become_one_entry_in_the_first_place() {
        let (amd64, arm64) = (manifest("linux/amd64", Flavour::Oci), manifest("linux/arm64", Flavour::Oci));
        let mut again = amd64.descriptor.clone();
        again.platform = Some("linux/amd64/v2".parse().unwrap());
        again.annotations.insert("b".to_owned(), "2".to_owned());
        let mut first = amd64.clone();
        first.descriptor.annotations.insert("a".to_owned(), "1".to_owned());
        let (result, composed) = compose(&[first, arm64.clone(), index(vec![again])], &[]).unwrap();
        let platforms: Vec<String> =
            polyarch_build::image_source::platforms_of(&result).iter().map(Platform::to_string).collect();
        assert_eq!(platforms, ["linux/amd64/v2", "linux/arm64"]);
        assert_eq!(result.manifests[0].annotations.len(), 2);
        let origins: Vec<usize> = composed.entries.iter().map(|(_, at)| *at).collect();
        assert_eq!(origins, [2, 1], "the later source has it as well");
    }

    #[test]
    fn a_docker_list_holds_docker_types_only() {
        let (amd64, arm64) =
            (manifest("linux/amd64", Flavour::Docker), manifest("linux/arm64", Flavour::Docker));
        let (result, _) = compose(&[amd64.clone(), arm64], &[]).unwrap();
        assert_eq!(result.media_type, media_type::DOCKER_INDEX);
        let (result, _) = compose(&[amd64, manifest("linux/arm64", Flavour::Oci)], &[]).unwrap();
        assert_eq!(result.media_type, OCI_INDEX);
        assert_eq!(result.manifests[0].media_type, DOCKER_MANIFEST);
    }

    #[test]
    fn a_filter_keeps_what_attests_the_images_it_keeps() {
        let (amd64, arm64) = (manifest("linux/amd64", Flavour::Oci), manifest("linux/arm64", Flavour::Oci));
        let source = index(vec![
            amd64.descriptor.clone(),
            arm64.descriptor.clone(),
            attestation_of(&arm64.descriptor),
        ]);
        let (whole, composed) = compose(std::slice::from_ref(&source), &[]).unwrap();
        assert_eq!((whole.manifests.len(), composed.descriptor), (3, source.descriptor.clone()));
        let (one, _) = compose(std::slice::from_ref(&source), &["linux/arm64"]).unwrap();
        assert_eq!(one.manifests.len(), 2);
        let (one, _) = compose(std::slice::from_ref(&source), &["linux/amd64"]).unwrap();
        assert_eq!(one.manifests, [amd64.descriptor]);
        let error = compose(&[source], &["linux/s390x"]).unwrap_err();
        assert_eq!(error.hints, ["the sources have linux/amd64, linux/arm64"]);
    }

    #[test]
    fn attestations_beside_an_image_are_asked_for_once_and_added() {
        let (amd64, arm64) = (manifest("linux/amd64", Flavour::Oci), manifest("linux/arm64", Flavour::Oci));
        let attested = index(vec![arm64.descriptor.clone(), attestation_of(&arm64.descriptor)]);
        let combined = combine_parts(&[amd64.clone(), attested], &ComposeOptions::default()).unwrap();
        assert_eq!(combined.unattested(&[]), [(amd64.descriptor.digest.clone(), 0)]);
        let mut beside = Descriptor::new(OCI_MANIFEST, Digest::of("beside"), 7);
        beside.artifact_type = Some("application/x".to_owned());
        let found = BTreeMap::from([(amd64.descriptor.digest.clone(), beside)]);
        let composed = combined.finish(&[], &found).unwrap();
        let added = &composed.entries.last().unwrap().0;
        assert!(added.is_attestation() && added.artifact_type.is_none());
        assert_eq!(added.annotations[REFERENCE_DIGEST], amd64.descriptor.digest.to_string());
    }

    #[test]
    fn annotations_of_manifests_are_refused_for_every_type_of_source() {
        for flavour in [Flavour::Oci, Flavour::Docker] {
            let annotations = Annotation::parse("a=b").unwrap();
            let options = ComposeOptions { annotations, ..ComposeOptions::default() };
            let error = combine_parts(&[manifest("linux/amd64", flavour)], &options).unwrap_err();
            assert!(error.hints[0].contains("index:a="), "{error:?}");
        }
    }
}
