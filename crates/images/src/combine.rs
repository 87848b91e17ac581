// SPDX-License-Identifier: Apache-2.0
//! Images that were found, composed into one: reads what composing needs to know of them.

use std::collections::BTreeMap;

use futures_util::future::try_join_all;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use polyarch_build::{BuildError, ErrorKind};
use polyarch_oci::{Descriptor, Digest, ManifestOrIndex, Platform};

use crate::compose::{ComposeOptions, Composed, Part, combine_parts};
use crate::found::{FoundImage, Origin};
use crate::referrers::{ATTESTATION_MANIFEST, referrers};

/// The most images whose registries are asked for an attestation.
const MAX_ASKED: usize = 1000;

/// How many of them at once.
const ASKED_AT_ONCE: usize = 8;

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
    let attestations = attestations_beside(sources, combined.unattested(&options.platforms)).await?;
    combined.finish(&options.platforms, &attestations)
}

/// Asks registries for the attestations that they keep beside images, several at once.
async fn attestations_beside(
    sources: &[FoundImage],
    images: Vec<(Digest, usize)>,
) -> Result<BTreeMap<Digest, Descriptor>, BuildError> {
    let wanted: Vec<(Digest, &FoundImage)> = images
        .into_iter()
        .filter_map(|(image, at)| Some((image, sources.get(at)?)))
        .filter(|(_, source)| matches!(source.origin, Origin::Registry(_)))
        .collect();
    if wanted.len() > MAX_ASKED {
        let message = format!(
            "the sources name {} images that nothing in them attests, and registries are asked for at most \
             {MAX_ASKED} attestations",
            wanted.len()
        );
        return Err(BuildError::new(ErrorKind::Usage, message)
            .with_hint("take some of them only: --platform os/arch[/variant]"));
    }
    let answers = wanted.into_iter().map(async |(image, source)| {
        let beside = referrers(source, &image).await?;
        let attests = |it: &Descriptor| it.artifact_type.as_deref() == Some(ATTESTATION_MANIFEST);
        Ok::<_, BuildError>(beside.into_iter().find(attests).map(|attestation| (image, attestation)))
    });
    let found: Vec<Option<(Digest, Descriptor)>> =
        stream::iter(answers).buffered(ASKED_AT_ONCE).try_collect().await?;
    Ok(found.into_iter().flatten().collect())
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
