// SPDX-License-Identifier: Apache-2.0
//! Images of the store as one archive.
//!
//! Three forms: an OCI layout with docker's `manifest.json` beside it (what docker saves since version 25,
//! read by every loader), an OCI layout alone, and docker's old form with uncompressed layers. A layout
//! holds all platforms that the store has; what docker's `manifest.json` lists is one platform per name.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::Write;

use polyarch_build::error::chain_of;
use polyarch_build::held::{HeldPlatform, best_of, not_held, platform_names};
use polyarch_build::image_source::storage_error;
use polyarch_build::{BuildError, ErrorKind, Services};
use polyarch_oci::{Descriptor, Digest, ManifestOrIndex, Platform, Reference};
use polyarch_store::{ImageArchive, Missing, NamedImage, StoreError};

use crate::names::{Named, find};

/// BuildKit's annotation of an attestation: the manifest that it is about.
const ATTESTED: &str = "vnd.docker.reference.digest";

/// The form of an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SaveFormat {
    /// An OCI layout with docker's `manifest.json`.
    #[default]
    Both,
    /// An OCI layout.
    Oci,
    /// Docker's old form.
    Docker,
}

/// What to save.
#[derive(Debug, Clone)]
pub struct SaveRequest {
    /// Names, digests or ids.
    pub images: Vec<String>,
    /// The platforms; all that the store has when empty.
    pub platforms: Vec<Platform>,
    /// The form.
    pub format: SaveFormat,
}

/// An archive that can be written.
#[derive(Debug, Clone)]
pub struct SavePlan {
    archive: ImageArchive,
    format: SaveFormat,
    /// What the user should know: what is not in the archive.
    pub notes: Vec<String>,
    /// The documents of the archive; of docker's old form none, which has no manifests.
    pub saved: Vec<SavedImage>,
}

/// An image of an archive.
#[derive(Debug, Clone, PartialEq)]
pub struct SavedImage {
    /// What it was asked by.
    pub text: String,
    /// The digest of the index or manifest.
    pub root: Digest,
    /// The platforms, each with the digest of its manifest.
    pub platforms: Vec<(Platform, Digest)>,
    /// How many platforms the index has.
    pub known_platforms: usize,
}

/// Finds everything that goes into an archive, before a byte of it is written.
///
/// One platform that is asked for is saved as its manifest alone, which every loader understands; several
/// under their index, byte for byte.
///
/// # Errors
/// When there is no such image, and when the store has not all of what is asked for.
pub fn plan(services: &Services, request: &SaveRequest) -> Result<SavePlan, BuildError> {
    let mut plan = SavePlan {
        archive: ImageArchive::default(),
        format: request.format,
        notes: Vec::new(),
        saved: Vec::new(),
    };
    let mut docker: BTreeMap<Digest, (Descriptor, Vec<Reference>)> = BTreeMap::new();
    let (mut kept_anywhere, mut left_out) = (HashSet::new(), HashSet::new());
    for text in &request.images {
        let found = find(services, text)?;
        let kept = kept_platforms(text, &found, &request.platforms)?;
        let host = best_of(&kept, &Platform::host()).or(kept.first());
        let root = match (kept.as_slice(), request.platforms.len()) {
            ([only], 1) => plain(&only.manifest),
            _ => found.root.clone(),
        };
        if let Some(chosen) = host {
            let manifest = plain(&chosen.manifest);
            let entry = docker.entry(manifest.digest.clone()).or_insert((manifest, Vec::new()));
            entry.1.extend(found.name.clone());
            if request.format == SaveFormat::Docker && kept.len() > 1 {
                plan.notes.push(format!(
                    "{text}: docker's old form holds one platform of a name; {} is saved, --platform names \
                     another, and --format oci keeps all",
                    chosen.platform
                ));
            }
        }
        if request.platforms.is_empty()
            && request.format != SaveFormat::Docker
            && kept.len() < found.held.len()
        {
            let missing = found.held.iter().filter(|it| !it.is_complete).map(|it| &it.platform);
            plan.notes
                .push(format!("{text}: {} is not in the store, nor in the archive", platform_names(missing)));
        }
        let parts = parts_of(services, &root, &kept)?;
        kept_anywhere.extend(parts.0);
        left_out.extend(parts.1);
        if request.format != SaveFormat::Docker {
            plan.saved.push(SavedImage {
                text: text.clone(),
                root: root.digest.clone(),
                platforms: kept.iter().map(|it| (it.platform.clone(), it.manifest.digest.clone())).collect(),
                known_platforms: found.held.len(),
            });
        }
        plan.archive.images.push(NamedImage::new(root, found.name));
    }
    // What one name leaves out, another may bring.
    plan.archive.left_out = left_out.difference(&kept_anywhere).cloned().collect();
    if request.format != SaveFormat::Oci {
        plan.archive.docker = docker.into_values().collect();
    }
    Ok(plan)
}

/// Writes the archive.
///
/// # Errors
/// When a blob has become rotten, and what keeps the output from being written; it is then of no use.
pub fn write(services: &Services, plan: &SavePlan, out: &mut dyn Write) -> Result<(), BuildError> {
    let (store, archive) = (services.store(), &plan.archive);
    let written = match plan.format {
        SaveFormat::Both | SaveFormat::Oci => store.write_image_archive(archive, out).map(drop),
        SaveFormat::Docker => {
            store.write_uncompressed_docker_archive(&archive.docker, archive.epoch, out).map(drop)
        }
    };
    written.map_err(|error| match error {
        StoreError::Stream { .. } => BuildError::of_output(ErrorKind::Storage, chain_of(&error)),
        error => storage_error(&error),
    })
}

/// Returns the platforms of an image that are saved.
fn kept_platforms(text: &str, found: &Named, asked: &[Platform]) -> Result<Vec<HeldPlatform>, BuildError> {
    if asked.is_empty() {
        let kept: Vec<HeldPlatform> = found.held.iter().filter(|it| it.is_complete).cloned().collect();
        if kept.is_empty() && !found.held.is_empty() {
            let message = format!("the store has only the index of {text}, and no platform of it");
            return Err(BuildError::new(ErrorKind::Storage, message)
                .with_hint(format!("polyarch pull --all-platforms {text}")));
        }
        return Ok(kept);
    }
    let mut kept: Vec<HeldPlatform> = Vec::new();
    for platform in asked {
        let best = best_of(&found.held, platform).filter(|best| best.is_complete);
        let best = best.ok_or_else(|| not_held(text, platform, &found.held))?;
        if !kept.contains(best) {
            kept.push(best.clone());
        }
    }
    Ok(kept)
}

/// Divides what an index names: what is saved, with the attestations about it, and what is not.
fn parts_of(
    services: &Services,
    root: &Descriptor,
    kept: &[HeldPlatform],
) -> Result<(Vec<Digest>, Vec<Digest>), BuildError> {
    let document = services.store().image(root).map_err(|error| storage_error(&error))?;
    let ManifestOrIndex::Index(index) = document else { return Ok((Vec::new(), Vec::new())) };
    let kept: HashSet<String> = kept.iter().map(|it| it.manifest.digest.to_string()).collect();
    // An entry may be there any number of times, and all that it names is looked for once.
    let mut known: HashMap<(Digest, u64), bool> = HashMap::new();
    let mut is_here = |entry: &Descriptor| {
        let is_here = || services.store().closure(entry, Missing::Refuse).is_ok();
        *known.entry((entry.digest.clone(), entry.size)).or_insert_with(is_here)
    };
    let entries = index.value.manifests.into_iter();
    let (saved, left_out): (Vec<Descriptor>, Vec<Descriptor>) = entries.partition(|entry| {
        let subject = match entry.is_attestation() {
            true => entry.annotations.get(ATTESTED).cloned().unwrap_or_default(),
            false => entry.digest.to_string(),
        };
        // A nested index or an artifact is no platform: it is saved when all of it is here.
        let is_other = !entry.is_attestation() && entry.platform.is_none();
        (kept.contains(&subject) || is_other) && is_here(entry)
    });
    let digests = |entries: Vec<Descriptor>| entries.into_iter().map(|entry| entry.digest).collect();
    Ok((digests(saved), digests(left_out)))
}

/// Returns the descriptor of a manifest by itself, without what an index says about it.
fn plain(manifest: &Descriptor) -> Descriptor {
    Descriptor::new(&manifest.media_type, manifest.digest.clone(), manifest.size)
}
