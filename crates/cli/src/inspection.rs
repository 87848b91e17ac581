// SPDX-License-Identifier: Apache-2.0
//! What `inspect` tells about an image: docker's fields with docker's meanings, and which digest is which.
//!
//! `Id` is the digest of what was asked for: the index, or with a platform that platform's manifest; docker
//! with its containerd store says the same. `docs/digests.md` has the whole story.

use polyarch_build::BuildError;
use polyarch_build::image_source::storage_error;
use polyarch_images::lookup::{Found, PlatformImage, SelectedImage, images_of};
use polyarch_oci::config::ContainerConfig;
use polyarch_oci::{Descriptor, Manifest, ManifestOrIndex, Platform, Reference};
use polyarch_store::Store;

use crate::template::Value;

/// Describes an image, and of its platforms one in full.
///
/// # Errors
/// When the platform isn't there, or a document is damaged.
pub fn inspection(store: &Store, found: &Found, platform: Option<&Platform>) -> Result<Value, BuildError> {
    let selected = found.select(store, platform)?;
    let images = images_of(store, &found.root)?;
    let root = store.image(&found.root).map_err(|error| storage_error(&error))?;
    let is_index = matches!(root, ManifestOrIndex::Index(_));
    let asked_for =
        if platform.is_some() || found.image.is_some() { &selected.descriptor } else { &found.root };
    let config = &selected.config.value;
    let last_comment = config.history.last().map(|entry| entry.comment.clone()).unwrap_or_default();
    let comment = match config.rest.get("comment").and_then(|comment| comment.as_str()) {
        Some(comment) if !comment.is_empty() => comment.to_owned(),
        _ => last_comment,
    };
    let mut fields: Vec<(&str, Value)> = vec![
        ("Id", asked_for.digest.to_string().into()),
        ("RepoTags", list(found.names.iter().filter(|name| name.tag().is_some()).map(Reference::familiar))),
        ("RepoDigests", list(repository_digests(found))),
        ("Comment", comment.into()),
        ("Created", config.created.clone().unwrap_or_default().into()),
        ("Author", config.author.clone().into()),
        ("Config", container_config(&config.config)),
        ("Architecture", config.architecture.clone().into()),
        ("Variant", config.variant.clone().into()),
        ("Os", config.os.clone().into()),
        ("OsVersion", config.os_version.clone().into()),
        ("Size", content_size(&selected.descriptor, &selected.manifest.value).into()),
        ("RootFS", root_fs(&selected)),
        ("Metadata", Value::structure([("LastTagTime", last_tag_time(store, found)?)])),
        ("Descriptor", descriptor(asked_for)),
        ("IndexDigest", if is_index { found.root.digest.to_string() } else { String::new() }.into()),
        ("ManifestDigest", selected.descriptor.digest.to_string().into()),
        ("ConfigDigest", selected.config.digest.to_string().into()),
        ("Platforms", platforms(&images)),
        ("Manifests", Value::List(entries(&root, &found.root).iter().map(|it| summary(store, it)).collect())),
    ];
    // These docker leaves out where they are empty; templates may ask for them all the same.
    let may_be_absent = ["Comment", "Created", "Author", "Variant", "OsVersion", "IndexDigest"];
    let (absent, present): (Vec<_>, Vec<_>) =
        fields.drain(..).partition(|(name, value)| may_be_absent.contains(name) && !value.is_true());
    let old = ["Parent", "DockerVersion", "Container"].map(|name| (name, Value::from("")));
    Ok(Value::structure(present).with_absent(absent).with_absent(old))
}

fn list<T: Into<Value>>(values: impl IntoIterator<Item = T>) -> Value {
    Value::List(values.into_iter().map(Into::into).collect())
}

/// Returns `name@digest` for each repository, by which a registry knows the image once it was pushed.
fn repository_digests(found: &Found) -> Vec<String> {
    let mut digests = Vec::new();
    for name in &found.names {
        let digest = name.with_digest(found.root.digest.clone()).familiar();
        if !digests.contains(&digest) {
            digests.push(digest);
        }
    }
    digests
}

fn last_tag_time(store: &Store, found: &Found) -> Result<Value, BuildError> {
    let entry = match &found.name {
        Some(name) => store.get_ref(name).map_err(|error| storage_error(&error))?,
        None => None,
    };
    // Go's zero of a time, for what has no name.
    let time = entry.map_or_else(|| "0001-01-01T00:00:00Z".to_owned(), |entry| entry.updated.to_string());
    Ok(time.into())
}

/// Writes what the image says about running it, in docker's order.
fn container_config(config: &ContainerConfig) -> Value {
    const ORDER: [&str; 13] = [
        "User",
        "ExposedPorts",
        "Env",
        "Entrypoint",
        "Cmd",
        "Volumes",
        "WorkingDir",
        "Labels",
        "StopSignal",
        "ArgsEscaped",
        "Healthcheck",
        "OnBuild",
        "Shell",
    ];
    let zero = |name: &str| match name {
        "User" | "WorkingDir" | "StopSignal" => Value::from(""),
        "ArgsEscaped" => Value::Bool(false),
        "ExposedPorts" | "Volumes" | "Labels" => Value::map::<String>([]),
        "Healthcheck" => Value::Null,
        _ => Value::List(Vec::new()),
    };
    // A config is JSON already.
    let Ok(Value::Object(written)) = Value::of(config) else { return Value::structure::<&str>([]) };
    let known = ORDER.iter().filter_map(|name| Some((*name, written.get(name)?.clone())));
    let others = written.names().filter(|name| !ORDER.contains(name));
    let others = others.filter_map(|name| Some((name, written.get(name)?.clone())));
    Value::structure(known.chain(others)).with_absent(ORDER.map(|name| (name, zero(name))))
}

fn root_fs(selected: &SelectedImage) -> Value {
    let root_fs = &selected.config.value.rootfs;
    let layers = root_fs.diff_ids.iter().map(ToString::to_string);
    Value::structure([("Type", Value::from(root_fs.kind.clone())), ("Layers", list(layers))])
}

/// Returns the platforms whose images the store has.
fn platforms(images: &[PlatformImage]) -> Value {
    list(images.iter().filter(|image| image.manifest.is_some()).map(|image| image.platform.to_string()))
}

/// Writes a descriptor with docker's field names, which are the document's.
pub fn descriptor(descriptor: &Descriptor) -> Value {
    let absent = [
        ("platform", Value::Null),
        ("annotations", Value::map::<String>([])),
        ("artifactType", "".into()),
        ("urls", Value::List(Vec::new())),
    ];
    Value::of(descriptor).unwrap_or_default().with_absent(absent)
}

/// Returns the entries of an index, attestations included; a manifest is its own only one.
fn entries(root: &ManifestOrIndex, own: &Descriptor) -> Vec<Descriptor> {
    match root {
        ManifestOrIndex::Index(index) => index.value.manifests.clone(),
        ManifestOrIndex::Manifest(_) => vec![own.clone()],
    }
}

fn content_size(descriptor: &Descriptor, manifest: &Manifest) -> u64 {
    let blobs = manifest.layers.iter().chain([&manifest.config, descriptor]);
    blobs.fold(0_u64, |sum, blob| sum.saturating_add(blob.size))
}

/// Summarizes one entry of the index, as docker does since it keeps whole indexes.
fn summary(store: &Store, entry: &Descriptor) -> Value {
    let manifest = match store.image(entry) {
        Ok(ManifestOrIndex::Manifest(manifest)) => Some(manifest.value),
        _ => None,
    };
    let is_available = manifest.as_ref().is_some_and(|manifest| {
        manifest.layers.iter().chain([&manifest.config]).all(|blob| store.contains(&blob.digest))
    });
    // What is not here has no size here.
    let size: u64 = match &manifest {
        Some(manifest) => {
            let here = manifest.layers.iter().chain([&manifest.config, entry]);
            let here = here.filter(|blob| store.contains(&blob.digest));
            here.fold(0_u64, |sum, blob| sum.saturating_add(blob.size))
        }
        None => 0,
    };
    let config = manifest.as_ref().map(|manifest| manifest.config.digest.to_string()).unwrap_or_default();
    let mut fields: Vec<(&str, Value)> = vec![
        ("ID", entry.digest.to_string().into()),
        ("Descriptor", descriptor(entry)),
        ("Available", is_available.into()),
        ("Size", Value::structure([("Content", Value::from(size)), ("Total", size.into())])),
    ];
    let for_image = entry.annotations.get("vnd.docker.reference.digest");
    if entry.is_attestation() {
        let of = for_image.cloned().unwrap_or_default();
        fields.push(("Kind", "attestation".into()));
        fields.push(("AttestationData", Value::structure([("For", Value::from(of))])));
    } else {
        let declared = || {
            let config = store.config(manifest.as_ref()?).ok()?;
            Some(config.value.platform())
        };
        let platform = entry.platform.clone().or_else(declared);
        fields.push(("Kind", if platform.is_some() { "image" } else { "unknown" }.into()));
        if let Some(platform) = platform {
            let platform =
                Value::of(&platform).unwrap_or_default().with_absent([("variant", Value::from(""))]);
            fields.push(("ImageData", Value::structure([("Platform", platform)])));
        }
        fields.push(("ConfigDigest", config.into()));
    }
    let absent = ["ImageData", "AttestationData", "ConfigDigest"].map(|name| (name, Value::Null));
    Value::structure(fields).with_absent(absent)
}
