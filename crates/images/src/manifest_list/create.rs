// SPDX-License-Identifier: Apache-2.0
//! Starting a list, and adding images to it.

use std::sync::Arc;

use polyarch_build::fetch::Shown;
use polyarch_build::image_source::storage_error;
use polyarch_build::{BuildError, ErrorKind, Services};
use polyarch_oci::media_type::{self, Flavour};
use polyarch_oci::{Descriptor, ImageConfig, Manifest, ManifestOrIndex, Platform, Reference};
use polyarch_store::{ListEntry, WorkingList};

use super::parts::{find_whole, flatten, is_in_reach};
use super::{came_from, contradiction_error, contradictions, full_source, words_of};
use crate::{FoundImage, ImageSource, Origin};

/// The largest number of images that a list gets.
pub(super) const MAX_ENTRIES: usize = 1000;

/// What to create.
#[derive(Debug, Clone)]
pub struct Create {
    /// The name of the list.
    pub name: Reference,
    /// The images, as they were written.
    pub sources: Vec<String>,
    /// Add to a list that is there.
    pub amend: bool,
    /// The media types of the index, when they were asked for.
    pub flavour: Option<Flavour>,
    /// Believe platforms that contradict the image.
    pub force: bool,
}

/// What became of it.
#[derive(Debug, Clone)]
pub struct Created {
    /// What was added, in order.
    pub added: Vec<Added>,
    /// What should be looked at.
    pub warnings: Vec<String>,
}

/// An image that was added.
#[derive(Debug, Clone)]
pub struct Added {
    /// What it is in the list.
    pub entry: ListEntry,
    /// Where it was found.
    pub origin: Origin,
}

/// Adds images to a list, which is made when there is none.
///
/// All images are found before anything changes, so a failure leaves the list as it was.
///
/// # Errors
/// When the list is there and `amend` isn't asked for; when an image can't be found, or is labelled with
/// a platform that its config contradicts.
pub async fn create(
    services: &Arc<Services>,
    request: &Create,
    shown: &Shown,
) -> Result<Created, BuildError> {
    if request.name.digest().is_some() {
        let message = format!("a list is named by a tag, not by a digest as in {}", request.name);
        return Err(BuildError::new(ErrorKind::Usage, message));
    }
    let before = services.store().list(&request.name).map_err(|error| storage_error(&error))?;
    may_change(before.as_ref(), request)?;
    let (mut groups, mut warnings) = (Vec::new(), Vec::new());
    for source in &request.sources {
        let (images, warning) = images_of(services, source, request, shown).await?;
        groups.push((full_source(source), images));
        warnings.extend(warning);
    }
    let mut after = WorkingList::default();
    let change = |list: &mut Option<WorkingList>| -> Result<(), Failure> {
        may_change(list.as_ref(), request)?;
        let list = list.get_or_insert_default();
        if request.flavour.is_some() {
            list.flavour = request.flavour;
        }
        for (source, images) in &groups {
            put(list, source, images);
        }
        if list.entries.len() > MAX_ENTRIES {
            let message = format!("{} would have more than {MAX_ENTRIES} images", request.name);
            return Err(BuildError::new(ErrorKind::Usage, message).into());
        }
        after = list.clone();
        Ok(())
    };
    services.store().change_list(&request.name, change).map_err(|Failure(error)| error)?;
    let added = groups.into_iter().flat_map(|(_, images)| images).collect();
    warnings.extend(repeated_platforms(&after));
    Ok(Created { added, warnings })
}

/// Lets errors of both rooms out of a change.
pub(super) struct Failure(pub(super) BuildError);

impl From<BuildError> for Failure {
    fn from(error: BuildError) -> Failure {
        Failure(error)
    }
}

impl From<polyarch_store::StoreError> for Failure {
    fn from(error: polyarch_store::StoreError) -> Failure {
        Failure(storage_error(&error))
    }
}

fn may_change(list: Option<&WorkingList>, request: &Create) -> Result<(), BuildError> {
    if list.is_none() || request.amend {
        return Ok(());
    }
    let message = "refusing to amend an existing manifest list with no --amend flag";
    let name = request.name.familiar();
    Err(BuildError::new(ErrorKind::Usage, message)
        .with_hint(format!("add to {name} with --amend, or start again: polyarch manifest rm {name}")))
}

/// Puts the images of a source into a list, in the place of what the source was before.
fn put(list: &mut WorkingList, source: &str, images: &[Added]) {
    let is_old = |entry: &ListEntry| entry.source == source || came_from(&entry.source, source);
    let at = list.entries.iter().position(is_old).unwrap_or(list.entries.len());
    let (old, mut kept): (Vec<ListEntry>, Vec<ListEntry>) = list.entries.drain(..).partition(is_old);
    let new = images.iter().map(|added| {
        // What was annotated stays with the same image.
        let same = old.iter().find(|entry| entry.descriptor.digest == added.entry.descriptor.digest);
        same.unwrap_or(&added.entry).clone()
    });
    kept.splice(at..at, new.collect::<Vec<_>>());
    list.entries = kept;
}

/// Finds a source and all images that it stands for; a warning when it has more that can't be had.
async fn images_of(
    services: &Arc<Services>,
    source: &str,
    request: &Create,
    shown: &Shown,
) -> Result<(Vec<Added>, Option<String>), BuildError> {
    let parsed = ImageSource::parse(source)?;
    let found = find_whole(services, &parsed, shown).await?;
    if let ManifestOrIndex::Manifest(manifest) = &found.document {
        let mut descriptor = bare(&found.descriptor, found.document.media_type());
        let config = config_of(&found, &manifest.value).await?;
        descriptor.platform = Some(config.as_ref().map(declared).unwrap_or_default());
        let image = added(services, &found, full_source(source), descriptor, &manifest.value).await?;
        return Ok((vec![image], None));
    }
    let flat = flatten(services, &found).await?;
    let mut images = Vec::new();
    for (entry, manifest) in &flat.manifests {
        let name = source_within(&parsed, source, entry);
        let mut descriptor = bare(entry, &entry.media_type);
        descriptor.annotations = entry.annotations.clone();
        descriptor.artifact_type = entry.artifact_type.clone();
        descriptor.platform = entry.platform.clone();
        if !entry.is_attestation()
            && let Some(config) = config_of(&found, &manifest.value).await?
        {
            let own = declared(&config);
            let said = descriptor.platform.get_or_insert_with(|| own.clone());
            let fields = contradictions(said, &own);
            if !fields.is_empty() && !request.force {
                return Err(contradiction_error(&name, said, &own, &fields));
            }
        }
        images.push(added(services, &found, name, descriptor, &manifest.value).await?);
    }
    Ok((images, flat.warning(source)))
}

/// Makes an entry, whose blobs are in the store or known to be in a repository.
async fn added(
    services: &Services,
    found: &FoundImage,
    source: String,
    descriptor: Descriptor,
    manifest: &Manifest,
) -> Result<Added, BuildError> {
    let mut from = found.repository().cloned();
    // A name of the store need not be known to its registry: where the blobs came from, they can be had.
    if matches!(found.origin, Origin::Store(Some(_))) && is_in_reach(services, manifest) {
        from = None;
    } else if from.is_none() {
        for blob in manifest.layers.iter().chain([&manifest.config]) {
            found.ensure_blob(blob).await?;
        }
    }
    Ok(Added { entry: ListEntry { source, descriptor, from }, origin: found.origin.clone() })
}

/// Reads the config of an image; `None` for what is no image and so has no platform.
async fn config_of(found: &FoundImage, manifest: &Manifest) -> Result<Option<ImageConfig>, BuildError> {
    match manifest.config.media_type.as_str() {
        media_type::OCI_CONFIG | media_type::DOCKER_CONFIG => {
            found.config(manifest).await.map(|config| Some(config.value))
        }
        _ => Ok(None),
    }
}

/// Returns the platform that a config declares, as it is written there: docker puts that into its lists.
pub(super) fn declared(config: &ImageConfig) -> Platform {
    Platform {
        architecture: config.architecture.clone(),
        os: config.os.clone(),
        os_version: config.os_version.clone(),
        os_features: config.os_features.clone(),
        variant: config.variant.clone(),
    }
}

fn bare(descriptor: &Descriptor, media_type: &str) -> Descriptor {
    let media_type = if media_type.is_empty() { media_type::OCI_MANIFEST } else { media_type };
    Descriptor::new(media_type, descriptor.digest.clone(), descriptor.size)
}

/// Names an image of a list: `NAME:TAG@DIGEST`, as docker does.
fn source_within(parsed: &ImageSource, source: &str, entry: &Descriptor) -> String {
    match parsed {
        ImageSource::Reference(reference) if reference.digest().is_some() => {
            reference.with_digest(entry.digest.clone()).to_string()
        }
        _ => format!("{}@{}", full_source(source), entry.digest),
    }
}

/// Tells which images of a list have the same platform.
pub(super) fn repeated_platforms(list: &WorkingList) -> Vec<String> {
    let mut warnings = Vec::new();
    for (at, entry) in list.entries.iter().enumerate() {
        let Some(platform) = entry.descriptor.platform.clone().filter(|it| !it.os.is_empty()) else {
            continue;
        };
        if entry.descriptor.is_attestation() || platform.os == "unknown" {
            continue;
        }
        let normal = platform.normalized();
        let twin = list.entries[..at].iter().find(|other| {
            other.descriptor.digest != entry.descriptor.digest
                && other.descriptor.platform.clone().map(Platform::normalized).as_ref() == Some(&normal)
        });
        if let Some(twin) = twin {
            warnings.push(format!(
                "{} and {} have the same platform {normal}: only the first would ever be used",
                words_of(twin),
                words_of(entry)
            ));
        }
    }
    warnings
}
