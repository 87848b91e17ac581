// SPDX-License-Identifier: Apache-2.0
//! What a frontend in the client returns: trees of its build, and what it says of them.
//!
//! The configs of images are metadata, `containerimage.config` or for each of several platforms
//! `containerimage.config/ID`; `refs.platforms` tells which platform an ID means and in which order they are.

use std::collections::BTreeMap;

use polyarch_build::AskedImage;
use polyarch_oci::{ImageConfig, Platform};
use serde::Deserialize;
use tonic::Status;

use crate::api::gateway::{Attestation, AttestationKind, Result as GatewayResult, ResultRefs};
use crate::server::builds::Build;
use crate::server::errors::status_of;
use crate::server::results::{ResultTree, Solved};

/// The key of configs.
const CONFIG: &str = "containerimage.config";
/// The key of platforms.
const PLATFORMS: &str = "refs.platforms";
/// The most trees of a result.
const MAX_TREES: usize = 1_000;
/// The most attestations of a tree.
const MAX_ATTESTATIONS: usize = 100;
/// The type of bills of materials (spdx.dev).
const SPDX: &str = "https://spdx.dev/Document";

/// The platforms of a result.
#[derive(Default, Deserialize)]
struct Platforms {
    #[serde(rename = "Platforms", default)]
    list: Vec<NamedPlatform>,
}

#[derive(Deserialize)]
struct NamedPlatform {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "Platform")]
    platform: Platform,
}

/// Finds what a frontend returns among the trees of its build; a tree that could not be made says why.
///
/// # Errors
/// When what is returned makes no sense, or is no tree of the build.
pub(super) async fn solved_of(
    build: &Build,
    result: GatewayResult,
) -> Result<Result<Solved, Status>, Status> {
    let mut solved = Solved { metadata: result.metadata, ..Solved::default() };
    let (refs, is_map) = match result.result {
        None => (Vec::new(), false),
        Some(ResultRefs::RefDeprecated(id)) => (vec![(String::new(), id)], false),
        Some(ResultRefs::Ref(reference)) => (vec![(String::new(), reference.id)], false),
        Some(ResultRefs::RefsDeprecated(map)) => (map.refs.into_iter().collect(), true),
        Some(ResultRefs::Refs(map)) => {
            (map.refs.into_iter().map(|(name, reference)| (name, reference.id)).collect(), true)
        }
    };
    if refs.len() > MAX_TREES {
        return Err(Status::invalid_argument(format!("a result has at most {MAX_TREES} refs")));
    }
    solved.is_map = is_map;
    let platforms = platforms(&solved.metadata)?;
    // What else the frontend has made it may have read, such as the Dockerfile.
    let others = build.results.others(&refs.iter().map(|(_, id)| id.as_str()).collect());
    let images = build.results.images();
    for (name, id) in refs {
        // No tree is the one that has nothing: what `FROM scratch` alone gives.
        let tree = match id.is_empty() {
            true => ResultTree::empty().map_err(|error| status_of(&error))?,
            false => match build.results.outcome(&id)? {
                Ok(tree) => tree.taking_in(&others, &images_of(&name, &platforms, &images)),
                Err(failure) => return Ok(Err(failure)),
            },
        };
        let mut tree = with_config(tree, &name, &platforms, &solved.metadata)?;
        let attested = result.attestations.get(&name).or_else(|| match platforms.list.as_slice() {
            // A result alone has no name; what is said about it has that of its platform.
            [one] if !is_map => result.attestations.get(&one.id),
            _ => None,
        });
        for attestation in attested.into_iter().flat_map(|it| &it.attestation).take(MAX_ATTESTATIONS) {
            tree = match attest(build, &tree, attestation).await {
                Ok(tree) => tree,
                Err(failure) => return Ok(Err(failure)),
            };
        }
        solved.trees.push((name, tree));
    }
    // A map has no order; the platforms do, those of the list and else those of one build.
    let place = |name: &str| platforms.list.iter().position(|it| it.id == name);
    solved.trees.sort_by_key(|(name, tree)| (place(name).unwrap_or(usize::MAX), tree.platform));
    Ok(Ok(solved))
}

/// Takes in what a frontend says of a tree: a directory of statements that are bills of materials.
async fn attest(build: &Build, tree: &ResultTree, attestation: &Attestation) -> Result<ResultTree, Status> {
    let is_bill = matches!(attestation.in_toto_predicate_type.as_str(), "" | SPDX);
    if attestation.kind != AttestationKind::Bundle as i32 || !is_bill {
        let kind = &attestation.in_toto_predicate_type;
        return Err(Status::unimplemented(format!(
            "attestations of frontends that are no bundle of SPDX documents are not supported: {kind}"
        )));
    }
    let missing = || Status::invalid_argument("an attestation has no ref");
    let bill = build.results.get(&attestation.r#ref.as_ref().ok_or_else(missing)?.id)?;
    tree.with_bill(&bill, &attestation.path, build).await.map_err(|error| status_of(&error))
}

/// Leaves out images that were asked about for each platform of a result, but for those of one.
fn images_of(name: &str, platforms: &Platforms, images: &[AskedImage]) -> Vec<AskedImage> {
    let is_same = |one: &Platform, other: &Platform| {
        one.os == other.os && one.architecture == other.architecture && one.variant == other.variant
    };
    let Some(own) = platforms.list.iter().find(|it| it.id == name) else { return images.to_vec() };
    let is_for_all = |image: &AskedImage| {
        platforms.list.iter().all(|platform| {
            let platform = platform.platform.clone().normalized();
            let mut same = images.iter().filter(|other| other.reference == image.reference);
            same.any(|other| is_same(&other.platform, &platform))
        })
    };
    let own = own.platform.clone().normalized();
    images.iter().filter(|image| !is_for_all(image) || is_same(&image.platform, &own)).cloned().collect()
}

fn platforms(metadata: &BTreeMap<String, Vec<u8>>) -> Result<Platforms, Status> {
    let Some(bytes) = metadata.get(PLATFORMS) else { return Ok(Platforms::default()) };
    serde_json::from_slice(bytes).map_err(|error| {
        Status::invalid_argument(format!("failed to parse platforms passed to provenance processor: {error}"))
    })
}

/// Makes an image of a tree as the metadata say.
fn with_config(
    tree: ResultTree,
    name: &str,
    platforms: &Platforms,
    metadata: &BTreeMap<String, Vec<u8>>,
) -> Result<ResultTree, Status> {
    let named =
        platforms.list.iter().find(|it| it.id == name || (name.is_empty() && platforms.list.len() == 1));
    let own = metadata.get(&format!("{CONFIG}/{name}")).or_else(|| metadata.get(CONFIG));
    let evaluated = &tree.evaluation.evaluated;
    let made = evaluated.config(tree.platform);
    let Some(bytes) = own.filter(|bytes| !bytes.is_empty()) else {
        // An image of no config is still one of a platform.
        return Ok(match (named, made) {
            (Some(named), Some(made))
                if evaluated.platforms().nth(tree.platform) != Some(&named.platform) =>
            {
                let mut config = made.clone();
                config.set_platform(&named.platform);
                tree.as_image(named.platform.clone(), config)
            }
            _ => tree,
        });
    };
    let failed = |error| Status::invalid_argument(format!("failed to parse image config: {error}"));
    // What our own frontend has made comes back as it went, and knows more than its config tells.
    if made.and_then(|made| serde_json::to_vec(made).ok()).is_some_and(|made| made == *bytes) {
        return Ok(tree);
    }
    let config: ImageConfig = serde_json::from_slice(bytes).map_err(failed)?;
    let platform = match named {
        Some(named) => named.platform.clone().normalized(),
        None if !config.platform().architecture.is_empty() => config.platform().normalized(),
        None => evaluated.platforms().nth(tree.platform).cloned().unwrap_or_else(Platform::host),
    };
    Ok(tree.as_image(platform, config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_are_read() {
        let text = r#"{"Platforms":[{"ID":"linux/arm64","Platform":{"architecture":"arm64","os":"linux"}}]}"#;
        let metadata = BTreeMap::from([(PLATFORMS.to_owned(), text.as_bytes().to_vec())]);
        let read = platforms(&metadata).unwrap();
        assert_eq!(
            (read.list[0].id.as_str(), read.list[0].platform.to_string().as_str()),
            ("linux/arm64", "linux/arm64")
        );
        assert!(platforms(&BTreeMap::new()).unwrap().list.is_empty());
        let broken = BTreeMap::from([(PLATFORMS.to_owned(), b"{".to_vec())]);
        assert!(platforms(&broken).is_err());
    }
}
