// SPDX-License-Identifier: Apache-2.0
//! What registries keep beside an image: attestations and signatures (distribution-spec, "Listing Referrers").

use polyarch_build::BuildError;
use polyarch_build::fetch::registry_error;
use polyarch_oci::{Descriptor, Digest};

use crate::found::{FoundImage, Origin};

/// The artifact type of BuildKit's attestations.
pub(crate) const ATTESTATION_MANIFEST: &str = "application/vnd.docker.attestation.manifest.v1+json";

/// What goes along when an image is copied: attestations, cosign's signatures, sigstore's bundles.
pub(crate) const COPIED: [&str; 3] = [
    ATTESTATION_MANIFEST,
    "application/vnd.dev.cosign.artifact.sig.v1+json",
    "application/vnd.dev.sigstore.bundle.v0.3+json",
];

/// Lists what a registry keeps beside a document of an image; nothing for images from elsewhere.
pub(crate) async fn referrers(source: &FoundImage, document: &Digest) -> Result<Vec<Descriptor>, BuildError> {
    let Origin::Registry(repository) = &source.origin else { return Ok(Vec::new()) };
    let subject = repository.with_digest(document.clone());
    source.services.registry().get_referrers(&subject).await.map_err(|error| {
        registry_error(format!("can't list what {} keeps beside {document}", repository.name()), &error)
    })
}
