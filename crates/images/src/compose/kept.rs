// SPDX-License-Identifier: Apache-2.0
//! Which entries of an index are kept: those of the platforms that are wanted, and what attests them.

use std::collections::BTreeMap;

use polyarch_build::{BuildError, ErrorKind};
use polyarch_oci::{Descriptor, Digest, ImageIndex, Platform};

use super::{ATTESTATION, REFERENCE_DIGEST, REFERENCE_TYPE};

/// Returns the attestations of an index whose images are wanted: their digests, and their images'.
pub(super) fn attestations_of(index: &ImageIndex, platforms: &[Platform]) -> BTreeMap<Digest, Digest> {
    // Of equal digests the last counts, as in buildx.
    let by_digest: BTreeMap<String, &Descriptor> =
        index.manifests.iter().map(|entry| (entry.digest.to_string(), entry)).collect();
    let attestations = index.manifests.iter().filter(|entry| entry.is_attestation());
    attestations
        .filter_map(|entry| {
            let image = by_digest.get(entry.annotations.get(REFERENCE_DIGEST)?)?;
            is_wanted(image, platforms).then(|| (entry.digest.clone(), image.digest.clone()))
        })
        .collect()
}

/// Makes the entry of an attestation that a registry keeps beside an image.
pub(super) fn as_attestation(mut found: Descriptor, image: &Digest) -> Descriptor {
    found.platform =
        Some(Platform { os: "unknown".into(), architecture: "unknown".into(), ..Platform::default() });
    found.annotations.insert(REFERENCE_TYPE.to_owned(), ATTESTATION.to_owned());
    found.annotations.insert(REFERENCE_DIGEST.to_owned(), image.to_string());
    found.artifact_type = None;
    found
}

pub(super) fn is_wanted(entry: &Descriptor, platforms: &[Platform]) -> bool {
    let Some(own) = entry.platform.as_ref().filter(|_| !platforms.is_empty()) else { return true };
    let own = own.clone().normalized();
    platforms.iter().any(|wanted| {
        let wanted = wanted.clone().normalized();
        wanted.os == own.os
            && wanted.architecture == own.architecture
            && wanted.variant == own.variant
            && (wanted.os_version.is_empty() || own.os_version.starts_with(&wanted.os_version))
            && (own.os == "windows" || own.os_features.iter().all(|it| wanted.os_features.contains(it)))
    })
}

pub(super) fn no_match(available: &[Platform]) -> BuildError {
    let mut names: Vec<String> = Vec::new();
    for platform in available.iter().filter(|platform| platform.os != "unknown") {
        let name = platform.clone().normalized().to_string();
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let list = if names.is_empty() { "no platforms".to_owned() } else { names.join(", ") };
    BuildError::new(ErrorKind::Platform, "none of the manifests match the provided platforms")
        .with_hint(format!("the sources have {list}"))
}
