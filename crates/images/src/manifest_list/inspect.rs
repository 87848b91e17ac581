// SPDX-License-Identifier: Apache-2.0
//! Manifests and lists as `docker manifest inspect` prints them.
//!
//! A name is looked up among the lists here, then in its registry, then in the store. A manifest is
//! indented with tabs, a list with three blanks; `verbose` gives each manifest with its name, descriptor
//! and raw bytes. The order of the fields is docker's; unlike docker, nothing is left out of an index.

use std::sync::Arc;

use polyarch_build::fetch::Shown;
use polyarch_build::{BuildError, Services};
use polyarch_oci::{Descriptor, ManifestOrIndex, Platform, Reference, json, media_type};

use super::compose::DockerIndex;
use super::create::declared;
use super::{compose, find_entry, find_list, find_source};
use crate::below::Bounds;
use crate::{FoundImage, ImageSource, Lookup};

/// What to look at.
#[derive(Debug, Clone)]
pub struct Inspect {
    /// The list that has the image, when it is one of a list here.
    pub list: Option<Reference>,
    /// The image or list.
    pub source: String,
    /// Names, descriptors and raw bytes as well.
    pub verbose: bool,
}

/// Returns the text to print, without a final line break.
///
/// # Errors
/// When there is no such list or image, when its registry refuses, and when it is damaged.
pub async fn inspect(
    services: &Arc<Services>,
    request: &Inspect,
    shown: &Shown,
) -> Result<Vec<u8>, BuildError> {
    let store = services.store();
    if let Some(name) = &request.list {
        let list = find_list(store, name)?;
        let source = list.entries[find_entry(&list, name, &request.source)?].source.clone();
        let composed = compose(store, &list, None)?;
        // Of twins one is left, under another name; then its bytes are those of the other.
        let entry = composed.entries.iter().find(|entry| entry.source == source);
        let entry = match entry {
            Some(entry) => entry,
            None => return Err(left_out(&source)),
        };
        return Ok(match request.verbose {
            true => json::reindented(&verbose(&entry.source, &entry.descriptor, &entry.manifest), "\t"),
            // docker keeps the images of its lists without white space, escaped.
            false => json::reindented(&json::escaped(entry.manifest.trim_ascii()), "\t"),
        });
    }
    let source = ImageSource::parse(&request.source)?;
    if let ImageSource::Reference(name) = &source
        && let Some(list) =
            store.list(name).map_err(|error| polyarch_build::image_source::storage_error(&error))?
    {
        let composed = compose(store, &list, None)?;
        if !request.verbose {
            return Ok(composed.bytes);
        }
        let texts = composed.entries.iter();
        return Ok(array(texts.map(|entry| verbose(&entry.source, &entry.descriptor, &entry.manifest))));
    }
    let found = find_source(services, &source, Lookup::RegistryThenStore, shown).await?;
    match &found.document {
        ManifestOrIndex::Manifest(manifest) if request.verbose => {
            let mut descriptor = found.descriptor.clone();
            descriptor.platform = Some(platform_of(&found, &manifest.value).await?);
            Ok(json::reindented(&verbose(&name_of(&source), &descriptor, &manifest.bytes), "\t"))
        }
        ManifestOrIndex::Manifest(manifest) => Ok(json::reindented(&manifest.bytes, "\t")),
        ManifestOrIndex::Index(index) if request.verbose => {
            let (mut texts, mut bounds) = (Vec::new(), Bounds::default());
            for entry in &index.value.manifests {
                let document = found.read_document(entry).await?;
                bounds.count(&found, &document)?;
                let name = name_within(&source, entry);
                let mut entry = entry.clone();
                entry.platform.get_or_insert_default();
                texts.push(verbose(&name, &entry, document.bytes()));
            }
            Ok(array(texts.into_iter()))
        }
        ManifestOrIndex::Index(index) => {
            Ok(DockerIndex::new(&index.value, found.document.media_type()).to_bytes())
        }
    }
}

fn left_out(source: &str) -> BuildError {
    let message = format!("{source} stands in the list, but is left out of its index");
    BuildError::new(polyarch_build::ErrorKind::Usage, message)
        .with_hint("the same image is there under another name, or a Docker list can't hold it")
}

/// Returns the platform that an image's config declares; an empty one for what is no image.
async fn platform_of(found: &FoundImage, manifest: &polyarch_oci::Manifest) -> Result<Platform, BuildError> {
    match manifest.config.media_type.as_str() {
        media_type::OCI_CONFIG | media_type::DOCKER_CONFIG => {
            Ok(declared(&found.config(manifest).await?.value))
        }
        _ => Ok(Platform::default()),
    }
}

fn name_of(source: &ImageSource) -> String {
    match source {
        ImageSource::Reference(reference) => reference.to_string(),
        other => other.to_string(),
    }
}

/// Names an entry of an index: docker keeps the tag and adds the digest.
fn name_within(source: &ImageSource, entry: &Descriptor) -> String {
    match source {
        ImageSource::Reference(reference) if reference.digest().is_some() => {
            reference.with_digest(entry.digest.clone()).to_string()
        }
        other => format!("{}@{}", name_of(other), entry.digest),
    }
}

/// Writes what docker keeps of a manifest; the manifest itself stands in it as it is.
fn verbose(name: &str, descriptor: &Descriptor, manifest: &[u8]) -> Vec<u8> {
    let kind = match descriptor.media_type.as_str() {
        kind if media_type::is_docker(kind) => "SchemaV2Manifest",
        _ => "OCIManifest",
    };
    let mut text = b"{\"Ref\":".to_vec();
    text.extend(json::to_compact(&name));
    text.extend_from_slice(b",\"Descriptor\":");
    text.extend(json::to_compact(descriptor));
    text.extend_from_slice(b",\"Raw\":");
    text.extend(json::to_compact(&base64(manifest)));
    text.extend_from_slice(format!(",\"{kind}\":").as_bytes());
    text.extend(json::escaped(manifest.trim_ascii()));
    text.push(b'}');
    text
}

fn array(texts: impl Iterator<Item = Vec<u8>>) -> Vec<u8> {
    let texts: Vec<Vec<u8>> = texts.collect();
    let mut text = b"[".to_vec();
    text.extend(texts.join(&b','));
    text.push(b']');
    json::reindented(&text, "\t")
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use polyarch_oci::Digest;

    use super::*;

    #[test]
    fn a_manifest_is_shown_as_docker_keeps_it() {
        let manifest = b"{\n  \"annotations\": {\"a\": \"x<y>\"}, \"layers\": []\n}\n";
        let descriptor = Descriptor::new(media_type::OCI_MANIFEST, Digest::of(manifest), 50)
            .with_platform(Platform { os: "linux".to_owned(), ..Platform::default() });
        let text = array([verbose("h/app:v1", &descriptor, manifest)].into_iter());
        let digest = &descriptor.digest;
        let expected = format!(
            "[\n\t{{\n\t\t\"Ref\": \"h/app:v1\",\n\t\t\"Descriptor\": {{\n\t\t\t\"mediaType\": \
             \"application/vnd.oci.image.manifest.v1+json\",\n\t\t\t\"digest\": \"{digest}\",\n\t\t\t\"size\": 50,\
             \n\t\t\t\"platform\": {{\n\t\t\t\t\"architecture\": \"\",\n\t\t\t\t\"os\": \"linux\"\n\t\t\t}}\n\t\t}},\
             \n\t\t\"Raw\": \"ewogICJhbm5vdGF0aW9ucyI6IHsiYSI6ICJ4PHk+In0sICJsYXllcnMiOiBbXQp9Cg==\",\
             \n\t\t\"OCIManifest\": {{\n\t\t\t\"annotations\": {{\n\t\t\t\t\"a\": \"x\\u003cy\\u003e\"\n\t\t\t}},\
             \n\t\t\t\"layers\": []\n\t\t}}\n\t}}\n]"
        );
        assert_eq!(String::from_utf8(text).unwrap(), expected);
    }
}
