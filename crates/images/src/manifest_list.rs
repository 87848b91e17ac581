// SPDX-License-Identifier: Apache-2.0
//! Manifest lists that are put together here before anything is pushed: `polyarch manifest`.
//!
//! A list is a [`WorkingList`] of the store. Its images may come from the store, from any registry, from
//! OCI layouts and from archives; images that are lists themselves are flattened, and what is said about
//! an image (attestations) comes with it. Nothing here writes to a registry but [`push()`].

mod annotate;
mod compose;
mod create;
mod docker_types;
mod inspect;
mod parts;
mod push;

pub use annotate::{Annotate, annotate};
pub use compose::{Composed, ComposedEntry, compose};
pub use create::{Added, Create, Created, create};
pub use inspect::{Inspect, inspect};
pub use push::{Push, Pushed, push};

use std::sync::Arc;

use polyarch_build::fetch::Shown;
use polyarch_build::image_source::storage_error;
use polyarch_build::{BuildError, ErrorKind, Services};
use polyarch_oci::platform::did_you_mean;
use polyarch_oci::{Platform, Reference};
use polyarch_store::{ListEntry, Store, StoreError, WorkingList};

use crate::words::first_of;
use crate::{FindOptions, FoundImage, ImageSource, Lookup};

/// Returns a list.
///
/// # Errors
/// When there is none of that name, with names that are near.
pub fn find_list(store: &Store, name: &Reference) -> Result<WorkingList, BuildError> {
    match store.list(name).map_err(|error| storage_error(&error))? {
        Some(list) => Ok(list),
        None => Err(no_such_list(store, name)),
    }
}

/// Returns all lists, by name.
///
/// # Errors
/// When the store can't be read.
pub fn lists(store: &Store) -> Result<Vec<(Reference, WorkingList)>, BuildError> {
    store.lists().map_err(|error| storage_error(&error))
}

/// Removes a list; images and registries are left alone.
///
/// # Errors
/// When there is none of that name.
pub fn remove(store: &Store, name: &Reference) -> Result<(), BuildError> {
    let removed = store.change_list(name, |list| Ok::<_, StoreError>(list.take().is_some()));
    if removed.map_err(|error| storage_error(&error))? { Ok(()) } else { Err(no_such_list(store, name)) }
}

fn no_such_list(store: &Store, name: &Reference) -> BuildError {
    let error = BuildError::new(ErrorKind::Usage, format!("No such manifest: {name}"));
    let names: Vec<String> = match store.lists() {
        Ok(lists) => lists.into_iter().map(|(name, _)| name.familiar()).collect(),
        Err(_) => Vec::new(),
    };
    if names.is_empty() {
        return error.with_hint("there are no lists here; one starts with: polyarch manifest create");
    }
    let near = did_you_mean(&name.familiar(), &names.iter().map(String::as_str).collect::<Vec<_>>());
    if near.is_empty() {
        error.with_hint(format!("the lists here are {}", first_of(&names)))
    } else {
        error.with_hint(format!("of the lists here{near}"))
    }
}

/// Finds an entry by what it was added as, by its digest, or by the name of the list that it came from
/// when that had only one image.
fn find_entry(list: &WorkingList, name: &Reference, source: &str) -> Result<usize, BuildError> {
    let full = full_source(source);
    let is_digest = |entry: &ListEntry| entry.descriptor.digest.to_string() == source;
    let exact = list.entries.iter().position(|entry| entry.source == full || is_digest(entry));
    if let Some(at) = exact {
        return Ok(at);
    }
    let images = list.entries.iter().enumerate().filter(|(_, entry)| !entry.descriptor.is_attestation());
    let parts: Vec<(usize, &ListEntry)> =
        images.filter(|(_, entry)| came_from(&entry.source, &full)).collect();
    match parts.as_slice() {
        [(at, _)] => Ok(*at),
        [] => {
            let message = format!("manifest for image {source} does not exist in {}", name.familiar());
            // The images of a list are named by it and their digests.
            let own_name = |entry: &ListEntry| {
                let name = entry.source.split_once("@sha").map_or(entry.source.as_str(), |(name, _)| name);
                name.to_owned()
            };
            let mut sources: Vec<String> = list.entries.iter().map(own_name).collect();
            sources.dedup();
            let near = did_you_mean(&full, &sources.iter().map(String::as_str).collect::<Vec<_>>());
            let known = if near.is_empty() {
                format!("it has {}", first_of(&sources))
            } else {
                near.trim_matches([' ', '(', ')']).to_owned()
            };
            Err(BuildError::new(ErrorKind::Usage, message).with_hint(known))
        }
        several => {
            let names: Vec<String> = several.iter().map(|(_, entry)| words_of(entry)).collect();
            let message = format!("{source} is a list of several images: {}", names.join(", "));
            Err(BuildError::new(ErrorKind::Usage, message).with_hint("name one of them by its digest"))
        }
    }
}

/// Returns the full text of a source: names are normalized, everything else is as it was written.
fn full_source(source: &str) -> String {
    let is_other = ["oci-layout://", "docker-archive:", "oci-archive:", "sha256:", "sha512:"];
    if is_other.iter().any(|prefix| source.starts_with(prefix)) {
        return source.to_owned();
    }
    match source.parse::<Reference>() {
        Ok(reference) => reference.with_default_tag().to_string(),
        Err(_) => source.to_owned(),
    }
}

/// Tells whether an entry is an image of the list that a source names.
fn came_from(entry_source: &str, full_source: &str) -> bool {
    entry_source.strip_prefix(full_source).is_some_and(|rest| rest.starts_with('@'))
}

/// Finds a source; of one that its registry does not have, docker's words say so.
async fn find_source(
    services: &Arc<Services>,
    source: &ImageSource,
    lookup: Lookup,
    shown: &Shown,
) -> Result<FoundImage, BuildError> {
    let mut error = match crate::find(services, source, &FindOptions::new(lookup), shown).await {
        Ok(found) => return Ok(found),
        Err(error) => error,
    };
    if let ImageSource::Reference(reference) = source
        && let Err(answer) = services.registry().head_manifest(reference).await
        && answer.is_not_found()
    {
        error.message = format!("no such manifest: {reference}");
    }
    Err(error)
}

/// Names an entry for messages: its source, and its platform.
fn words_of(entry: &ListEntry) -> String {
    match &entry.descriptor.platform {
        Some(platform) => format!("{} ({platform})", entry.source),
        None => entry.source.clone(),
    }
}

/// Where a platform that somebody names contradicts the one of the image's own config.
///
/// Only what both say counts: a config without a variant contradicts none.
fn contradictions(said: &Platform, config: &Platform) -> Vec<(&'static str, String, String)> {
    let (said, config) = (unvaried(said), unvaried(config));
    let fields = [
        ("os", said.os, config.os),
        ("architecture", said.architecture, config.architecture),
        ("variant", said.variant, config.variant),
        ("os.version", said.os_version, config.os_version),
    ];
    let contradicts =
        |(_, said, own): &(&'static str, String, String)| !said.is_empty() && !own.is_empty() && said != own;
    fields.into_iter().filter(contradicts).collect()
}

/// Normalizes a platform, but leaves a variant that isn't said unsaid (normal `arm` is `arm/v7`).
fn unvaried(platform: &Platform) -> Platform {
    let normal = platform.clone().normalized();
    let is_unsaid = platform.variant.is_empty() && platform.architecture == "arm";
    if is_unsaid { Platform { variant: String::new(), ..normal } } else { normal }
}

/// Makes the error of a platform that contradicts the image.
fn contradiction_error(
    entry: &str,
    said: &Platform,
    config: &Platform,
    fields: &[(&'static str, String, String)],
) -> BuildError {
    let words: Vec<String> = fields
        .iter()
        .map(|(field, said, own)| format!("{field} {said:?}, but the image's config says {own:?}"))
        .collect();
    let message = format!(
        "{entry}: the platform {said} contradicts the image, which is {config}: {}",
        words.join("; ")
    );
    BuildError::new(ErrorKind::Platform, message)
        .with_hint(format!("build the image for its platform: polyarch build --platform {said}"))
        .with_hint("or label it so all the same: --force")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_both_say_contradicts() {
        let platform = |os: &str, architecture: &str, variant: &str| Platform {
            os: os.to_owned(),
            architecture: architecture.to_owned(),
            variant: variant.to_owned(),
            ..Platform::default()
        };
        let config = platform("linux", "arm", "");
        assert!(contradictions(&platform("linux", "arm", "v6"), &config).is_empty());
        assert!(contradictions(&platform("linux", "armhf", "v7"), &config).is_empty());
        assert_eq!(contradictions(&platform("linux", "arm64", "v8"), &config)[0].0, "architecture");
        let config = platform("linux", "arm", "v7");
        assert_eq!(contradictions(&platform("linux", "arm", "v6"), &config)[0].0, "variant");
        assert!(contradictions(&platform("linux", "arm", ""), &config).is_empty());
        let config = platform("linux", "arm64", "v8");
        assert!(contradictions(&platform("linux", "aarch64", ""), &config).is_empty());
        assert_eq!(contradictions(&platform("windows", "arm64", ""), &config)[0].0, "os");
        assert!(contradictions(&platform("linux", "amd64", ""), &Platform::default()).is_empty());
    }

    #[test]
    fn sources_are_known_by_their_full_names() {
        assert_eq!(full_source("app"), "docker.io/library/app:latest");
        assert_eq!(full_source("oci-layout://dir:v1"), "oci-layout://dir:v1");
        assert!(came_from("docker.io/library/app:latest@sha256:00", "docker.io/library/app:latest"));
        assert!(!came_from("docker.io/library/app:latest2", "docker.io/library/app:latest"));
    }
}
