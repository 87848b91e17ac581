// SPDX-License-Identifier: Apache-2.0
//! Pushing a list: the images that the repository lacks first, the list last.
//!
//! Images of another repository of the same registry are mounted there; those of other registries and of
//! the store are copied. Nothing has the list's name until everything is there.

use std::collections::BTreeMap;
use std::sync::Arc;

use polyarch_build::fetch::Shown;
use polyarch_build::image_source::storage_error;
use polyarch_build::push::PushPlan;
use polyarch_build::{BuildError, ErrorKind, Services};
use polyarch_oci::media_type::Flavour;
use polyarch_oci::{Digest, ManifestOrIndex, Platform, Reference};
use polyarch_store::{StoreError, WorkingList};

use super::compose::{ComposedEntry, compose};
use super::create::repeated_platforms;
use super::find_list;
use crate::ImageSource;

/// What to push.
#[derive(Debug, Clone)]
pub struct Push {
    /// The list, and the name that it gets.
    pub name: Reference,
    /// The media types of the index; the list's own when absent.
    pub flavour: Option<Flavour>,
    /// Remove the list afterwards.
    pub purge: bool,
    /// Push a list that has a platform twice.
    pub force: bool,
}

/// What was pushed.
#[derive(Debug, Clone)]
pub struct Pushed {
    /// The images that were brought to the repository, in order.
    pub images: Vec<Reference>,
    /// The digest of the list.
    pub digest: Digest,
    /// The platforms of the list, each with the digest of its manifest.
    pub platforms: Vec<(Platform, Digest)>,
    /// What the list says and what was pushed can't.
    pub warnings: Vec<String>,
}

/// Pushes a list to the repository of its name.
///
/// # Errors
/// When there is no such list, or it can't be used as it is; what the registries refuse.
pub async fn push(services: &Arc<Services>, request: &Push, shown: &Shown) -> Result<Pushed, BuildError> {
    let store = services.store();
    let list = find_list(store, &request.name)?;
    check(&list, request)?;
    let composed = compose(store, &list, request.flavour)?;
    let images = absent(services, &request.name, &composed.entries).await;
    let mut mount_from = BTreeMap::new();
    for entry in &composed.entries {
        store.put(&entry.manifest).map_err(|error| storage_error(&error))?;
        note_repositories(services, entry, &mut mount_from);
    }
    store.put(&composed.bytes).map_err(|error| storage_error(&error))?;
    let root = composed.descriptor;
    let plan =
        PushPlan { root: root.clone(), names: vec![request.name.clone()], by_digest: false, mount_from };
    services.push_plan(&plan, shown).await?;
    if request.purge {
        let removed = store.change_list(&request.name, |list| Ok::<_, StoreError>(list.take()));
        removed.map_err(|error| storage_error(&error))?;
    }
    let platforms = composed.entries.iter().filter_map(|entry| {
        Some((entry.descriptor.platform.clone()?.normalized(), entry.descriptor.digest.clone()))
    });
    Ok(Pushed { images, digest: root.digest, platforms: platforms.collect(), warnings: composed.warnings })
}

/// Refuses what no machine could use.
fn check(list: &WorkingList, request: &Push) -> Result<(), BuildError> {
    let name = request.name.familiar();
    for entry in list.entries.iter().filter(|entry| !entry.descriptor.is_attestation()) {
        let platform = entry.descriptor.platform.as_ref();
        if platform.is_none_or(|platform| platform.os.is_empty() || platform.architecture.is_empty()) {
            let source = &entry.source;
            let message =
                format!("manifest {source} must have an OS and Architecture to be pushed to a registry");
            return Err(BuildError::new(ErrorKind::Usage, message).with_hint(format!(
                "say them: polyarch manifest annotate {name} {source} --os linux --arch ARCHITECTURE"
            )));
        }
    }
    match repeated_platforms(list).into_iter().next() {
        Some(warning) if !request.force => Err(BuildError::new(ErrorKind::Usage, warning)
            .with_hint(format!("correct one of them: polyarch manifest annotate {name} IMAGE --arch …"))
            .with_hint("or push both all the same: --force")),
        _ => Ok(()),
    }
}

/// Returns the names that images will have which the repository of the list does not have, or which are
/// of another: docker says of those that it pushed them.
async fn absent(services: &Arc<Services>, name: &Reference, entries: &[ComposedEntry]) -> Vec<Reference> {
    let mut images = Vec::new();
    for entry in entries {
        let target = name.with_digest(entry.descriptor.digest.clone());
        let source = named_repository(entry);
        let is_of_here = source.iter().chain(&entry.from).any(|from| from.name() == name.name());
        // Whatever keeps the registry from telling will be said by the push.
        let is_there = is_of_here && services.registry().head_manifest(&target).await.is_ok();
        if !is_there {
            images.push(target);
        }
    }
    images
}

/// Notes which repositories have the blobs of an entry: for sure, where it came from; perhaps, the one
/// whose name it had in the store.
fn note_repositories(services: &Services, entry: &ComposedEntry, may_have: &mut BTreeMap<Digest, Reference>) {
    let document = ManifestOrIndex::parse(entry.manifest.clone(), &entry.descriptor.media_type);
    let Ok(ManifestOrIndex::Manifest(manifest)) = document else { return };
    let named = named_repository(entry);
    for blob in manifest.value.layers.iter().chain([&manifest.value.config]) {
        if let Some(from) = &entry.from {
            services.remember_blob_origin(&blob.digest, from);
        }
        if let Some(repository) = entry.from.as_ref().or(named.as_ref()) {
            may_have.insert(blob.digest.clone(), repository.clone());
        }
    }
}

/// Returns the repository that an entry's source names, when it is no layout or archive.
fn named_repository(entry: &ComposedEntry) -> Option<Reference> {
    match ImageSource::parse(&entry.source) {
        Ok(ImageSource::Reference(reference)) => Some(reference),
        _ => None,
    }
}
