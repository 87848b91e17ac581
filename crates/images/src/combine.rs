// SPDX-License-Identifier: Apache-2.0
//! Images that were found, composed into one: reads what composing needs to know of them.

use std::collections::BTreeMap;

use futures_util::future::try_join_all;
use polyarch_build::BuildError;
use polyarch_oci::{Descriptor, ManifestOrIndex, Platform};

use crate::compose::{ComposeOptions, Composed, Part, combine_parts};
use crate::found::{FoundImage, Origin};
use crate::referrers::{ATTESTATION_MANIFEST, referrers};

/// Composes images; the result's entries say which of them has what.
///
/// # Errors
/// When a source can't be read, and as [`combine_parts`] and [`crate::compose::Combined::finish`].
pub async fn combine(sources: &[FoundImage], options: &ComposeOptions) -> Result<Composed, BuildError> {
    let parts = try_join_all(sources.iter().map(part)).await?;
    let combined = combine_parts(&parts, options)?;
    if combined.drops_annotations(options)
        && let Some(source) = sources.first()
    {
        source
            .shown
            .progress
            .warn("annotations are left out: every source is of a docker type, and a docker list has none");
    }
    let mut attestations = BTreeMap::new();
    for (image, at) in combined.unattested(&options.platforms) {
        let Some(source) = sources.get(at).filter(|source| matches!(source.origin, Origin::Registry(_)))
        else {
            continue;
        };
        let beside = referrers(source, &image).await?;
        let attests = |it: &Descriptor| it.artifact_type.as_deref() == Some(ATTESTATION_MANIFEST);
        if let Some(attestation) = beside.into_iter().find(attests) {
            attestations.insert(image, attestation);
        }
    }
    combined.finish(&options.platforms, &attestations)
}

/// Completes what is known of a source: a manifest's platform is in its config.
async fn part(source: &FoundImage) -> Result<Part, BuildError> {
    let mut descriptor = source.descriptor.clone();
    if let ManifestOrIndex::Manifest(manifest) = &source.document {
        let mut platform = descriptor.platform.take().unwrap_or_default();
        if platform.os.is_empty() || platform.architecture.is_empty() {
            let config = source.config(&manifest.value).await?.value;
            let declared = Platform::new(&config.os, &config.architecture, &config.variant);
            if platform.architecture.is_empty() {
                platform.architecture = declared.architecture;
                if platform.variant.is_empty() {
                    platform.variant = declared.variant;
                }
            }
            if platform.os.is_empty() {
                platform.os = if declared.os.is_empty() { "linux".to_owned() } else { declared.os };
            }
        }
        descriptor.platform = Some(platform);
    }
    Ok(Part { descriptor, document: source.document.clone() })
}
