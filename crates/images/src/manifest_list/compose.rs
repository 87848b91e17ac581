// SPDX-License-Identifier: Apache-2.0
//! The index that a list is: byte for byte docker's where docker can make it.
//!
//! docker writes manifest lists with three blanks of indent, sizes before digests, and the entries in the
//! order of the file names under which it keeps them. Its media type is OCI's when the first entry's is.

use std::collections::BTreeMap;

use polyarch_build::image_source::storage_error;
use polyarch_build::{BuildError, ErrorKind};
use polyarch_oci::media_type::{self, Flavour};
use polyarch_oci::{Descriptor, Digest, ManifestOrIndex, Platform, Reference, json};
use polyarch_store::{ListEntry, Store, WorkingList};
use serde::Serialize;

use super::docker_types::to_docker;

/// A list as it would be pushed.
#[derive(Debug, Clone)]
pub struct Composed {
    /// The index, exactly.
    pub bytes: Vec<u8>,
    /// Its descriptor.
    pub descriptor: Descriptor,
    /// Its entries, in order.
    pub entries: Vec<ComposedEntry>,
    /// What the list says and the index can't.
    pub warnings: Vec<String>,
}

/// An entry of the index.
#[derive(Debug, Clone)]
pub struct ComposedEntry {
    /// What it was added as.
    pub source: String,
    /// The entry.
    pub descriptor: Descriptor,
    /// The manifest, exactly.
    pub manifest: Vec<u8>,
    /// The repository that has its blobs; `None` when the store has them.
    pub from: Option<Reference>,
    /// Whether the manifest was written anew, with Docker's media types.
    pub is_converted: bool,
}

/// An index as docker writes it; what docker does not know stands after what it does.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DockerIndex<'a> {
    schema_version: u32,
    media_type: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    artifact_type: Option<&'a str>,
    manifests: Vec<DockerEntry<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<&'a Descriptor>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: &'a BTreeMap<String, String>,
    #[serde(flatten)]
    rest: &'a BTreeMap<String, serde_json::Value>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DockerEntry<'a> {
    media_type: &'a str,
    size: u64,
    digest: &'a Digest,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    urls: &'a [String],
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: &'a BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    platform: Option<&'a Platform>,
    #[serde(skip_serializing_if = "Option::is_none")]
    artifact_type: Option<&'a str>,
    #[serde(flatten)]
    rest: &'a BTreeMap<String, serde_json::Value>,
}

impl<'a> DockerIndex<'a> {
    /// Shows an index in docker's order of fields, with nothing left out.
    pub(super) fn new(index: &'a polyarch_oci::ImageIndex, media_type: &'a str) -> DockerIndex<'a> {
        DockerIndex {
            schema_version: 2,
            media_type,
            artifact_type: index.artifact_type.as_deref(),
            manifests: index.manifests.iter().map(DockerEntry::new).collect(),
            subject: index.subject.as_ref(),
            annotations: &index.annotations,
            rest: &index.rest,
        }
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        json::to_indented(self, "   ")
    }
}

impl<'a> DockerEntry<'a> {
    fn new(descriptor: &'a Descriptor) -> DockerEntry<'a> {
        DockerEntry {
            media_type: &descriptor.media_type,
            size: descriptor.size,
            digest: &descriptor.digest,
            urls: &descriptor.urls,
            annotations: &descriptor.annotations,
            data: descriptor.data.as_deref(),
            platform: descriptor.platform.as_ref(),
            artifact_type: descriptor.artifact_type.as_deref(),
            rest: &descriptor.rest,
        }
    }
}

/// Makes the index of a list; `flavour` wins over what the list says.
///
/// Of entries that are equal in digest and platform, one is left. A Docker list that was asked for has
/// Docker manifests only: others are converted, which gives them other digests; what it can't say
/// (annotations, attestations) is left out and told.
///
/// # Errors
/// When the store has lost a manifest, or one can't be converted.
pub fn compose(store: &Store, list: &WorkingList, flavour: Option<Flavour>) -> Result<Composed, BuildError> {
    let asked = flavour.or(list.flavour);
    let mut sorted: Vec<&ListEntry> = list.entries.iter().collect();
    sorted.sort_by_key(|entry| (entry.descriptor.is_attestation(), docker_file_name(&entry.source)));
    let mut warnings = Vec::new();
    if asked == Some(Flavour::Docker) {
        warnings = unsayable(list);
        sorted.retain(|entry| !entry.descriptor.is_attestation());
    }
    let mut entries: Vec<ComposedEntry> = Vec::new();
    for entry in sorted {
        let entry = composed(store, entry, asked)?;
        let is_known = |known: &ComposedEntry| {
            known.descriptor.digest == entry.descriptor.digest
                && known.descriptor.platform == entry.descriptor.platform
        };
        if !entries.iter().any(is_known) {
            entries.push(entry);
        }
    }
    let flavour = asked.unwrap_or_else(|| natural(list, &entries));
    let mut index = polyarch_oci::ImageIndex::new(
        flavour,
        entries.iter().map(|entry| entry.descriptor.clone()).collect(),
    );
    if flavour == Flavour::Oci {
        index.annotations = list.annotations.clone();
    }
    let bytes = DockerIndex::new(&index, flavour.index()).to_bytes();
    let descriptor = Descriptor::new(flavour.index(), Digest::of(&bytes), bytes.len() as u64);
    Ok(Composed { bytes, descriptor, entries, warnings })
}

/// Returns the name of the file under which docker keeps an image of a list; its order is the list's.
fn docker_file_name(source: &str) -> String {
    source.replace(':', "-").replace('/', "_")
}

/// Chooses the media type as docker does, except for what only an OCI index can say.
fn natural(list: &WorkingList, entries: &[ComposedEntry]) -> Flavour {
    let has_annotations =
        !list.annotations.is_empty() || entries.iter().any(|entry| !entry.descriptor.annotations.is_empty());
    let is_first_oci =
        entries.first().is_some_and(|entry| entry.descriptor.media_type == media_type::OCI_MANIFEST);
    if has_annotations || is_first_oci { Flavour::Oci } else { Flavour::Docker }
}

fn unsayable(list: &WorkingList) -> Vec<String> {
    let attestations = list.entries.iter().filter(|entry| entry.descriptor.is_attestation()).count();
    let annotated = list
        .entries
        .iter()
        .filter(|entry| !entry.descriptor.is_attestation() && !entry.descriptor.annotations.is_empty());
    let mut warnings = Vec::new();
    if attestations > 0 {
        warnings.push(format!("a Docker manifest list can't hold attestations: {attestations} left out"));
    }
    if annotated.count() > 0 || !list.annotations.is_empty() {
        warnings.push("a Docker manifest list can't hold annotations: they are left out".to_owned());
    }
    warnings
}

fn composed(store: &Store, entry: &ListEntry, asked: Option<Flavour>) -> Result<ComposedEntry, BuildError> {
    let document = store.image(&entry.descriptor).map_err(|error| {
        storage_error(&error).with_hint("add the image again: polyarch manifest create --amend")
    })?;
    let ManifestOrIndex::Manifest(manifest) = document else {
        let message = format!("{} is an index, which a list can't hold", entry.source);
        return Err(BuildError::new(ErrorKind::Storage, message));
    };
    let mut descriptor = entry.descriptor.clone();
    let mut is_converted = false;
    let mut bytes = manifest.bytes;
    if asked == Some(Flavour::Docker) {
        descriptor.annotations = BTreeMap::new();
        descriptor.artifact_type = None;
        if !media_type::is_docker(&descriptor.media_type) {
            bytes = to_docker(&entry.source, &manifest.value)?;
            is_converted = true;
            let platform = descriptor.platform.take();
            descriptor = Descriptor::new(media_type::DOCKER_MANIFEST, Digest::of(&bytes), bytes.len() as u64);
            descriptor.platform = platform;
        }
    }
    Ok(ComposedEntry {
        source: entry.source.clone(),
        descriptor,
        manifest: bytes,
        from: entry.from.clone(),
        is_converted,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(architecture: &str, variant: &str) -> Platform {
        Platform {
            os: "linux".to_owned(),
            architecture: architecture.to_owned(),
            variant: variant.to_owned(),
            ..Platform::default()
        }
    }

    /// Keeps an image in a store and returns its entry.
    fn entry(store: &Store, source: &str, flavour: Flavour, platform: Platform) -> ListEntry {
        let config = store.put(format!("{{\"os\":\"linux\",\"x\":\"{source}\"}}").as_bytes()).unwrap();
        let layer = store.put(source.as_bytes()).unwrap();
        let media_type = media_type::Compression::Gzip.layer_media_type(flavour);
        let manifest = polyarch_oci::Document::indented(polyarch_oci::Manifest::new(
            flavour,
            Descriptor::new(flavour.config(), config, 1),
            vec![Descriptor::new(media_type, layer, source.len() as u64)],
        ));
        store.put(&manifest.bytes).unwrap();
        let descriptor = Descriptor::new(flavour.manifest(), manifest.digest.clone(), manifest.size());
        ListEntry { source: source.to_owned(), descriptor: descriptor.with_platform(platform), from: None }
    }

    fn list(entries: Vec<ListEntry>) -> WorkingList {
        WorkingList { entries, ..WorkingList::default() }
    }

    #[test]
    fn a_list_is_written_as_docker_does() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let arm64 = entry(&store, "h/app:arm64", Flavour::Docker, platform("arm64", "v8"));
        let amd64 = entry(&store, "h/app:amd64", Flavour::Docker, platform("amd64", ""));
        let expected = format!(
            r#"{{
   "schemaVersion": 2,
   "mediaType": "application/vnd.docker.distribution.manifest.list.v2+json",
   "manifests": [
      {{
         "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
         "size": {},
         "digest": "{}",
         "platform": {{
            "architecture": "amd64",
            "os": "linux"
         }}
      }},
      {{
         "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
         "size": {},
         "digest": "{}",
         "platform": {{
            "architecture": "arm64",
            "os": "linux",
            "variant": "v8"
         }}
      }}
   ]
}}"#,
            amd64.descriptor.size, amd64.descriptor.digest, arm64.descriptor.size, arm64.descriptor.digest
        );
        // The same image under another name is the same entry.
        let twin = ListEntry { source: "h/app:zzz".to_owned(), ..amd64.clone() };
        let composed = compose(&store, &list(vec![twin, arm64, amd64]), None).unwrap();
        assert_eq!(String::from_utf8(composed.bytes).unwrap(), expected);
    }

    #[test]
    fn the_first_entry_or_an_annotation_decides_about_the_media_type() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let docker = entry(&store, "h/app:b", Flavour::Docker, platform("amd64", ""));
        let oci = entry(&store, "h/app:a", Flavour::Oci, platform("arm64", ""));
        let late = ListEntry { source: "h/app:c".to_owned(), ..oci.clone() };
        let of = |list: &WorkingList, flavour| compose(&store, list, flavour).unwrap().descriptor.media_type;
        assert_eq!(of(&list(vec![docker.clone(), oci.clone()]), None), media_type::OCI_INDEX);
        assert_eq!(of(&list(vec![docker.clone(), late.clone()]), None), media_type::DOCKER_INDEX);
        let mut annotated = list(vec![docker, late]);
        annotated.annotations.insert("a".to_owned(), "b".to_owned());
        assert_eq!(of(&annotated, None), media_type::OCI_INDEX);
        let docker = compose(&store, &annotated, Some(Flavour::Docker)).unwrap();
        assert_eq!(docker.warnings.len(), 1);
        assert_eq!(docker.entries.iter().filter(|entry| entry.is_converted).count(), 1);
        assert!(!String::from_utf8(docker.bytes).unwrap().contains("oci"));
    }
}
