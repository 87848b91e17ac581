// SPDX-License-Identifier: Apache-2.0
//! The same image with Docker's media types, for registries and tools that know no others.

use polyarch_build::{BuildError, ErrorKind};
use polyarch_oci::media_type::{self, Compression, Flavour};
use polyarch_oci::{Descriptor, Manifest, json};

/// Writes a manifest anew with Docker's media types; config and layers stay, byte for byte.
///
/// # Errors
/// When it has something that Docker has no name for.
pub(super) fn to_docker(source: &str, manifest: &Manifest) -> Result<Vec<u8>, BuildError> {
    let nameless = |what: &str, media_type: &str| {
        let message = format!("{source} has a {what} of type {media_type:?}, for which Docker has no name");
        BuildError::new(ErrorKind::Usage, message)
            .with_hint("leave the image out, or let the list be an OCI index: --format oci")
    };
    let described = |descriptor: &Descriptor, media_type: &str| {
        Descriptor::new(media_type, descriptor.digest.clone(), descriptor.size)
    };
    let config = &manifest.config;
    if !matches!(config.media_type.as_str(), media_type::OCI_CONFIG | media_type::DOCKER_CONFIG) {
        return Err(nameless("config", &config.media_type));
    }
    let layers = manifest.layers.iter().map(|layer| {
        let compression = Compression::of_layer(&layer.media_type)
            .filter(|_| layer.urls.is_empty())
            .ok_or_else(|| nameless("layer", &layer.media_type))?;
        Ok(described(layer, compression.layer_media_type(Flavour::Docker)))
    });
    let layers = layers.collect::<Result<Vec<_>, BuildError>>()?;
    let config = described(config, Flavour::Docker.config());
    Ok(json::to_indented(&Manifest::new(Flavour::Docker, config, layers), "   "))
}

#[cfg(test)]
mod tests {
    use polyarch_oci::Digest;

    use super::*;

    #[test]
    fn what_docker_has_no_name_for_is_refused() {
        let digest = Digest::of("x");
        let manifest = |config: &str, layer: &str| {
            let layer = Descriptor::new(layer, digest.clone(), 1);
            Manifest::new(Flavour::Oci, Descriptor::new(config, digest.clone(), 1), vec![layer])
        };
        let text = to_docker("a", &manifest(media_type::OCI_CONFIG, media_type::OCI_LAYER_GZIP)).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(text.contains(media_type::DOCKER_LAYER_GZIP) && !text.contains("oci"), "{text}");
        let error = to_docker("a", &manifest(media_type::OCI_CONFIG, "application/wasm")).unwrap_err();
        assert!(error.message.contains("application/wasm"), "{error}");
        assert!(to_docker("a", &manifest(media_type::OCI_EMPTY, media_type::OCI_LAYER)).is_err());
    }
}
