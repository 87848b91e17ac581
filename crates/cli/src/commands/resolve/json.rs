// SPDX-License-Identifier: Apache-2.0
//! The answer as JSON: every digest with its kind, its image and where it was found.

use polyarch_images::resolve::{ImageDigests, Meaning, Place, Role};
use polyarch_oci::{Digest, Platform, Reference};
use serde::Serialize;

use super::Answer;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct JsonAnswer<'a> {
    matches: Vec<JsonPlace<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    store: Option<JsonMeaning<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    registry: Option<JsonMeaning<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct JsonPlace<'a> {
    found_in: Vec<&'static str>,
    digest: &'a Digest,
    kind: &'static str,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    index_digest: Option<&'a Digest>,
    #[serde(skip_serializing_if = "Option::is_none")]
    manifest_digest: Option<&'a Digest>,
    platforms: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    layer: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    layers: Option<usize>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct JsonMeaning<'a> {
    digest: &'a Digest,
    #[serde(skip_serializing_if = "Option::is_none")]
    index_digest: Option<&'a Digest>,
    platforms: Vec<JsonImage<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct JsonImage<'a> {
    platform: String,
    manifest_digest: &'a Digest,
    #[serde(skip_serializing_if = "Option::is_none")]
    config_digest: Option<&'a Digest>,
}

/// Writes one JSON object.
pub(super) fn json(answer: &Answer) -> String {
    let place = |place: &'_ Place| -> (&'static str, Option<(usize, usize)>) {
        match place.role {
            Role::Index => ("index", None),
            Role::Manifest => ("manifest", None),
            Role::Config => ("config", None),
            Role::Layer(number, count) => ("layer", Some((number, count))),
            Role::DiffId(number, count) => ("diffId", Some((number, count))),
            Role::Attestation => ("attestation", None),
            Role::PartOfAttestation => ("attestationPart", None),
        }
    };
    let matches = answer.matches.iter().map(|found| {
        let it = &found.place;
        let (kind, layer) = place(it);
        let in_registry = found.in_registry == Some(true);
        let found_in = found.in_store.then_some("store").into_iter().chain(in_registry.then_some("registry"));
        JsonPlace {
            found_in: found_in.collect(),
            digest: &it.digest,
            kind,
            name: it.name.to_string(),
            index_digest: it.index.as_ref(),
            manifest_digest: it.manifest.as_ref(),
            platforms: it.platforms.iter().map(Platform::to_string).collect(),
            layer: layer.map(|(number, _)| number),
            layers: layer.map(|(_, count)| count),
        }
    });
    let json = JsonAnswer {
        matches: matches.collect(),
        name: answer.name.as_ref().map(Reference::to_string),
        store: answer.store.as_ref().map(json_meaning),
        registry: answer.registry.as_ref().map(json_meaning),
    };
    serde_json::to_string_pretty(&json).expect("names, digests and numbers are always JSON") + "\n"
}

fn json_meaning(meaning: &Meaning) -> JsonMeaning<'_> {
    let image = |image: &'_ ImageDigests| image.platform.to_string();
    JsonMeaning {
        digest: &meaning.root,
        index_digest: meaning.is_index.then_some(&meaning.root),
        platforms: meaning
            .images
            .iter()
            .map(|it| JsonImage {
                platform: image(it),
                manifest_digest: &it.manifest,
                config_digest: it.config.as_ref(),
            })
            .collect(),
    }
}
