// SPDX-License-Identifier: Apache-2.0
//! What a frontend in the client returns: trees of its build, and what it says of them.
//!
//! The configs of images are metadata, `containerimage.config` or for each of several platforms
//! `containerimage.config/ID`; `refs.platforms` tells which platform an ID means and in which order they are.

use std::collections::BTreeMap;

use polyarch_oci::{ImageConfig, Platform};
use serde::Deserialize;
use tonic::Status;

use crate::api::gateway::{Result as GatewayResult, ResultRefs};
use crate::server::builds::Build;
use crate::server::errors::status_of;
use crate::server::results::{ResultTree, Solved};

/// The key of configs.
const CONFIG: &str = "containerimage.config";
/// The key of platforms.
const PLATFORMS: &str = "refs.platforms";
/// The most trees of a result.
const MAX_TREES: usize = 1_000;

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
pub(super) fn solved_of(build: &Build, result: GatewayResult) -> Result<Result<Solved, Status>, Status> {
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
    for (name, id) in refs {
        // No tree is the one that has nothing: what `FROM scratch` alone gives.
        let tree = match id.is_empty() {
            true => ResultTree::empty().map_err(|error| status_of(&error))?,
            false => match build.results.outcome(&id)? {
                Ok(tree) => tree,
                Err(failure) => return Ok(Err(failure)),
            },
        };
        let tree = with_config(tree, &name, &platforms, &solved.metadata)?;
        solved.trees.push((name, tree));
    }
    // A map has no order; the platforms do, those of the list and else those of one build.
    let place = |name: &str| platforms.list.iter().position(|it| it.id == name);
    solved.trees.sort_by_key(|(name, tree)| (place(name).unwrap_or(usize::MAX), tree.platform));
    Ok(Ok(solved))
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
