// SPDX-License-Identifier: Apache-2.0
//! What was asked of a build, in the words of BuildKit's Dockerfile frontend.

use std::collections::{BTreeMap, BTreeSet};

use crate::remote::redacted;
use crate::request::{BuildRequest, Context, DockerfileSource, NetworkMode};

/// Attributes that tell of the machine or the client, not of what was asked.
const UNTOLD: [&str; 4] = ["cgroup-parent", "image-resolve-mode", "platform", "cache-imports"];

/// Letters of the identities of runs.
const LETTERS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

/// Returns the names of what is read from somebody's disk, not counting named contexts.
pub(super) fn locals(request: &BuildRequest) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    match request.context.whole() {
        Context::Directory(_) | Context::Distant(_) | Context::Archive(_) => {
            names.insert("context".to_owned());
            names.insert("dockerfile".to_owned());
        }
        Context::Empty => {
            names.insert("dockerfile".to_owned());
        }
        Context::Git(_) | Context::Http(_) | Context::Subdirectory { .. } => {}
    }
    if matches!(request.dockerfile, DockerfileSource::File(_) | DockerfileSource::Text(_)) {
        names.insert("dockerfile".to_owned());
    }
    names
}

/// Returns the attributes of the frontend that are told: the client's own, or else those of the request.
pub(super) fn arguments(request: &BuildRequest, file_name: &str) -> BTreeMap<String, String> {
    match &request.attestations.frontend_attributes {
        Some(attributes) => filtered(attributes),
        None => filtered(&attributes_of(request, file_name)),
    }
}

/// Leaves out of attributes what is not told, and hides names and passwords in URLs.
pub(super) fn filtered(attributes: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let context_key = attributes.get("contextkey").filter(|key| !key.is_empty());
    let context_key = context_key.cloned().unwrap_or_else(|| "context".to_owned());
    let is_url = |key: &str| key == context_key || key == "vcs:source" || key.starts_with("context:");
    let told = attributes.iter().filter(|(key, _)| !UNTOLD.contains(&&***key) && !key.starts_with("attest:"));
    told.map(|(key, value)| {
        let value = if is_url(key) { redacted(value) } else { value.clone() };
        (key.clone(), value)
    })
    .collect()
}

fn attributes_of(request: &BuildRequest, file_name: &str) -> BTreeMap<String, String> {
    let mut attributes = BTreeMap::new();
    let mut set = |key: &str, value: String| attributes.insert(key.to_owned(), value);
    set("filename", file_name.to_owned());
    match request.context.whole() {
        Context::Git(url) | Context::Http(url) => set("context", url.clone()),
        Context::Directory(_)
        | Context::Distant(_)
        | Context::Archive(_)
        | Context::Empty
        | Context::Subdirectory { .. } => None,
    };
    if let Some(target) = &request.target {
        set("target", target.clone());
    }
    for (key, value) in &request.build_args {
        set(&format!("build-arg:{key}"), value.clone());
    }
    for (key, value) in &request.labels {
        set(&format!("label:{key}"), value.clone());
    }
    if request.no_cache {
        set("no-cache", String::new());
    }
    match request.network {
        NetworkMode::None => set("force-network-mode", "none".to_owned()),
        NetworkMode::Host => set("force-network-mode", "host".to_owned()),
        NetworkMode::Default => None,
    };
    if !request.extra_hosts.is_empty() {
        let hosts: Vec<String> =
            request.extra_hosts.iter().map(|(name, address)| format!("{name}={address}")).collect();
        set("add-hosts", hosts.join(","));
    }
    if let Some(size) = request.shm_size_bytes {
        set("shm-size", size.to_string());
    }
    attributes
}

/// Makes the identity of a run: 25 letters and digits.
pub(super) fn run_id() -> String {
    let mut bytes = [0; 25];
    // Without randomness the identity says less, and nothing else depends on it.
    let _ = getrandom::fill(&mut bytes);
    bytes.iter().map(|byte| char::from(LETTERS[usize::from(*byte) % LETTERS.len()])).collect()
}
