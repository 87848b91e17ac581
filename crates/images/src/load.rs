// SPDX-License-Identifier: Apache-2.0
//! Archives of others into the store: OCI layouts and docker's form, compressed or not.

use std::io::{self, Read};

use polyarch_build::held::{HeldPlatform, best_of, held_platforms, platform_names};
use polyarch_build::image_source::storage_error;
use polyarch_build::{BuildError, ErrorKind, Replaced, Services, error::chain_of};
use polyarch_oci::manifest::MAX_MANIFEST_BYTES;
use polyarch_oci::{Descriptor, ManifestOrIndex, Platform, Reference};
use polyarch_snapshot::compress::{Codec, decompressor, detect};
use polyarch_store::{Missing, StoreError};

/// How many bytes tell what an archive is compressed with.
const HEAD_BYTES: u64 = 6;

/// What standard input is called.
pub const STANDARD_INPUT: &str = "standard input";

/// An image that was loaded.
#[derive(Debug, Clone)]
pub struct LoadedImage {
    /// The index or manifest.
    pub root: Descriptor,
    /// Its name, when the archive tells one.
    pub name: Option<Reference>,
    /// Its platforms.
    pub held: Vec<HeldPlatform>,
    /// What the name meant before, when that was another document.
    pub replaced: Option<Replaced>,
    /// What the archive has not all of.
    pub notes: Vec<String>,
}

/// Loads every image of an archive; names are set when all of it is known to be sound.
///
/// An index may be sparse: what it names and the archive lacks is elsewhere. `platforms` are those that
/// must be there.
///
/// # Errors
/// When the archive, called `source`, is damaged, lies, or lacks a platform; no name has changed then.
pub fn load(
    services: &Services,
    source: &str,
    mut archive: impl Read + Send,
    platforms: &[Platform],
) -> Result<Vec<LoadedImage>, BuildError> {
    let store = services.store();
    let unreadable = |error: io::Error| {
        BuildError::new(ErrorKind::Usage, format!("can't load {source}: {}", chain_of(&error)))
    };
    let mut head = Vec::new();
    (&mut archive).take(HEAD_BYTES).read_to_end(&mut head).map_err(&unreadable)?;
    if head.is_empty() {
        let message = format!("can't load {source}: it is empty");
        return Err(BuildError::new(ErrorKind::Usage, message)
            .with_hint("an archive of images is made with: polyarch save, docker save"));
    }
    // The store itself knows what layers are compressed with.
    let codec = detect(&head).filter(|codec| matches!(codec, Codec::Bzip2 | Codec::Xz));
    let archive = decompressor(head.as_slice().chain(archive), codec).map_err(unreadable)?;
    let found = store.import_archive(archive, Missing::Skip).map_err(|error| refused(source, &error))?;
    let mut loaded = Vec::new();
    for image in found {
        let (digest, size) = (&image.descriptor.digest, image.descriptor.size);
        if size > MAX_MANIFEST_BYTES {
            let message = format!(
                "can't load {source}: it says that the document {digest} has {size} bytes, and at most \
                 {MAX_MANIFEST_BYTES} are read"
            );
            return Err(BuildError::new(ErrorKind::Usage, message));
        }
        if !store.contains(digest) {
            let name = image.ref_name.as_deref().map(|name| format!("{name:?}: ")).unwrap_or_default();
            let message = format!("can't load {source}: {name}the document {digest} is missing");
            return Err(BuildError::new(ErrorKind::Usage, message)
                .with_hint("the archive may be truncated: make it again, or copy it again"));
        }
        let held = held_platforms(store, &image.descriptor)?;
        let shown = match (&image.name, &image.ref_name) {
            (Some(name), _) => name.familiar(),
            (None, Some(name)) => format!("{name:?} ({})", image.descriptor.digest),
            (None, None) => image.descriptor.digest.to_string(),
        };
        let notes = check(services, source, &shown, &image.descriptor, &held, platforms)?;
        let root = Descriptor::new(
            &image.descriptor.media_type,
            image.descriptor.digest.clone(),
            image.descriptor.size,
        );
        // A name with a digest would be false for any other document.
        let name = image.name.map(|name| match name.digest() {
            Some(_) => name.with_digest(root.digest.clone()),
            None => name.with_default_tag(),
        });
        loaded.push(LoadedImage { root, name, held, replaced: None, notes });
    }
    for image in &mut loaded {
        if let Some(name) = &image.name {
            image.replaced = services.replaced_by(name, &image.root)?;
            store.set_ref(name, &image.root).map_err(|error| storage_error(&error))?;
        }
    }
    Ok(loaded)
}

/// Checks that enough of an image came, and tells what did not.
fn check(
    services: &Services,
    source: &str,
    shown: &str,
    root: &Descriptor,
    held: &[HeldPlatform],
    platforms: &[Platform],
) -> Result<Vec<String>, BuildError> {
    let damaged = |what: String| {
        BuildError::new(ErrorKind::Usage, format!("can't load {shown} of {source}: {what}"))
            .with_hint("the archive may be truncated: make it again, or copy it again")
    };
    for platform in platforms {
        let Some(best) = best_of(held, platform) else {
            let list = platform_names(held.iter().map(|it| &it.platform));
            let message = format!("{shown} of {source} has no image for {platform}; it has {list}");
            return Err(BuildError::new(ErrorKind::Platform, message));
        };
        if let Some(missing) = missing_of(services, &best.manifest) {
            return Err(damaged(format!("{missing} of {platform} is missing")));
        }
    }
    if !held.is_empty() && !held.iter().any(|it| it.is_complete) {
        let missing = held.iter().find_map(|it| missing_of(services, &it.manifest));
        return Err(damaged(format!("{} is missing", missing.unwrap_or_else(|| root.digest.to_string()))));
    }
    let mut notes = Vec::new();
    for it in held.iter().filter(|it| !it.is_complete && services.store().contains(&it.manifest.digest)) {
        if let Some(missing) = missing_of(services, &it.manifest) {
            notes.push(format!("{shown}: {source} has not all of {}: {missing} is missing", it.platform));
        }
    }
    Ok(notes)
}

/// Names the first thing that an image lacks.
fn missing_of(services: &Services, manifest: &Descriptor) -> Option<String> {
    let store = services.store();
    if !store.contains(&manifest.digest) {
        return Some(format!("manifest {}", manifest.digest));
    }
    let Ok(ManifestOrIndex::Manifest(document)) = store.image(manifest) else {
        return Some(format!("a manifest under {}", manifest.digest));
    };
    let document = document.value;
    if !store.contains(&document.config.digest) {
        return Some(format!("config {}", document.config.digest));
    }
    let layer = document.layers.iter().find(|layer| !store.contains(&layer.digest))?;
    Some(format!("layer {} ({} bytes)", layer.digest, layer.size))
}

/// Tells what is wrong with an archive; a store that fails is another matter.
fn refused(source: &str, error: &StoreError) -> BuildError {
    let is_ours =
        matches!(error, StoreError::Io { .. } | StoreError::Format { .. } | StoreError::Busy { .. });
    if is_ours {
        return storage_error(error);
    }
    let problem = match error {
        // What the parser saw in a header is of no use to people.
        StoreError::Tar { .. } => "it is no tar archive, or a damaged one".to_owned(),
        other => chain_of(other),
    };
    let failure = BuildError::new(ErrorKind::Usage, format!("can't load {source}: {problem}"));
    match error {
        StoreError::NoImage => {
            let file = if source == STANDARD_INPUT { "-" } else { source };
            failure
                .with_hint(format!("a root file system becomes an image with: polyarch import {file} NAME"))
        }
        StoreError::Entry { problem, .. } if !problem.contains("cut short") => failure,
        StoreError::Tar { .. }
        | StoreError::Stream { .. }
        | StoreError::Size { .. }
        | StoreError::Entry { .. } => {
            failure.with_hint("the archive may be truncated: make it again, or copy it again")
        }
        _ => failure,
    }
}
