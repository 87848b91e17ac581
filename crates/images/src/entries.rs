// SPDX-License-Identifier: Apache-2.0
//! The images of an index, also those of indexes within.

use std::collections::BTreeSet;

use polyarch_build::{BuildError, ErrorKind};
use polyarch_oci::{Descriptor, ManifestOrIndex, Platform, PlatformMatcher, media_type};

use crate::found::FoundImage;

/// The deepest nesting of indexes that is looked into.
const MAX_DEPTH: usize = 8;
/// The most entries of an index, with those of indexes within, that are looked at; indexes that name one
/// another many times over would else keep us for years.
const MAX_ENTRIES: usize = 2_000;

/// Lists the images of an index, in its order; the image itself when it is none. Says also what could not be
/// looked into. Attestations, which no runtime would take for images, are left out.
///
/// # Errors
/// When something was in the way.
pub(crate) async fn images_of(image: &FoundImage) -> Result<(Vec<Descriptor>, Vec<String>), BuildError> {
    let (mut entries, mut problems) = (Vec::new(), Vec::new());
    let mut pending = vec![(image.descriptor.clone(), 0)];
    let (mut seen, mut indexes) = (0, BTreeSet::new());
    while let Some((descriptor, depth)) = pending.pop() {
        seen += 1;
        if seen > MAX_ENTRIES {
            problems.push(format!("the index has more than {MAX_ENTRIES} entries; the others were left out"));
            break;
        }
        let is_root = descriptor.digest == image.descriptor.digest;
        if !is_root && !media_type::is_index(&descriptor.media_type) {
            entries.push(descriptor);
            continue;
        }
        match image.read_document(&descriptor).await {
            Ok(ManifestOrIndex::Manifest(_)) => entries.push(descriptor),
            // What stands in several places is looked into at the first.
            Ok(ManifestOrIndex::Index(_)) if !indexes.insert(descriptor.digest.clone()) => {}
            Ok(ManifestOrIndex::Index(index)) if depth < MAX_DEPTH => {
                let images = index.value.manifests.into_iter().rev().filter(|entry| !is_about_images(entry));
                pending.extend(images.map(|entry| (entry, depth + 1)));
            }
            Ok(ManifestOrIndex::Index(_)) => {
                problems.push(format!("{} is nested too deeply", descriptor.digest));
            }
            Err(error) => problems.push(verdict(error)?),
        }
    }
    Ok((entries, problems))
}

/// Returns what an error says about an image.
///
/// # Errors
/// The error itself, when it says nothing about the image because something was in the way.
pub(crate) fn verdict(error: BuildError) -> Result<String, BuildError> {
    if error.is_obstacle { Err(error) } else { Ok(error.message) }
}

fn is_about_images(entry: &Descriptor) -> bool {
    let is_named = |platform: &Platform| platform.os != "unknown" || platform.architecture != "unknown";
    entry.is_attestation() && !entry.platform.as_ref().is_some_and(is_named)
}

/// Tells whether a platform serves a wanted one: it has the same name, or is an older variant of it.
pub(crate) fn is_wanted(wanted: &Platform, platform: &Platform) -> bool {
    PlatformMatcher::strict(wanted).rank(platform).is_some()
}

/// Makes the error of an image without a platform.
pub(crate) fn lacks(image: &FoundImage, platform: &Platform, known: &[Platform]) -> BuildError {
    let names: Vec<String> = known.iter().map(|it| it.clone().normalized().to_string()).collect();
    let list = if names.is_empty() { "no platform".to_owned() } else { names.join(", ") };
    BuildError::new(ErrorKind::Platform, format!("{} has no image for {platform}; it has {list}", image.name))
}
