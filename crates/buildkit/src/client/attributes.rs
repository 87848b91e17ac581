// SPDX-License-Identifier: Apache-2.0
//! A build request in the words of BuildKit's Dockerfile frontend and its `oci` exporter.

use std::collections::BTreeMap;

use polyarch_build::named_context::{ContextSource, NamedContext};
use polyarch_build::request::{BuildRequest, Entitlement, NetworkMode, PullPolicy, Ulimit};
use polyarch_oci::Platform;
use polyarch_oci::media_type::Flavour;

/// Returns what the frontend is told; `file_name` is the Dockerfile's in its directory.
pub(super) fn frontend_attributes(
    request: &BuildRequest,
    file_name: &str,
    platforms: &[Platform],
) -> BTreeMap<String, String> {
    let mut attributes = BTreeMap::new();
    let mut set = |key: &str, value: String| attributes.insert(key.to_owned(), value);
    let names: Vec<String> = platforms.iter().map(ToString::to_string).collect();
    set("platform", names.join(","));
    if platforms.len() > 1 {
        set("multi-platform", "true".to_owned());
    }
    set("filename", file_name.to_owned());
    if let Some(target) = &request.target {
        set("target", target.clone());
    }
    for (key, value) in &request.build_args {
        set(&format!("build-arg:{key}"), value.clone());
    }
    if let Some(epoch) = request.source_date_epoch {
        set("build-arg:SOURCE_DATE_EPOCH", epoch.to_string());
    }
    for context in &request.contexts {
        if let Some(value) = context_value(context) {
            set(&format!("context:{}", context_name(context)), value);
        }
    }
    for (key, value) in &request.labels {
        set(&format!("label:{key}"), value.clone());
    }
    if request.no_cache {
        set("no-cache", String::new());
    } else if !request.steps.no_cache_stages.is_empty() {
        set("no-cache", request.steps.no_cache_stages.join(","));
    }
    match request.pull {
        PullPolicy::Always => set("image-resolve-mode", "pull".to_owned()),
        PullPolicy::Never => set("image-resolve-mode", "local".to_owned()),
        PullPolicy::Default => None,
    };
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
    if !request.steps.ulimits.is_empty() {
        let limits: Vec<String> = request.steps.ulimits.iter().map(shown_limit).collect();
        set("ulimit", limits.join(","));
    }
    if let Some(hostname) = &request.steps.hostname {
        set("hostname", hostname.clone());
    }
    if let Some(parent) = &request.steps.cgroup_parent {
        set("cgroup-parent", parent.clone());
    }
    attributes
}

/// Writes a limit as `--ulimit` takes it; -1 is unlimited.
fn shown_limit(limit: &Ulimit) -> String {
    let shown = |value: Option<u64>| value.map_or("-1".to_owned(), |value| value.to_string());
    format!("{}={}:{}", limit.resource.name(), shown(limit.soft), shown(limit.hard))
}

/// Returns the name of a context as the frontend and the session know it.
pub(super) fn context_name(context: &NamedContext) -> String {
    match &context.platform {
        Some(platform) => format!("{}::{platform}", context.name),
        None => context.name.clone(),
    }
}

/// Returns where a node finds a named context; `None` for what only this machine has.
pub(super) fn context_value(context: &NamedContext) -> Option<String> {
    match &context.source {
        ContextSource::Directory(_) | ContextSource::Distant(_) => {
            Some(format!("local:{}", context_name(context)))
        }
        ContextSource::Scratch => Some("docker-image://scratch".to_owned()),
        ContextSource::Image(reference) => Some(format!("docker-image://{reference}")),
        ContextSource::Git(url) | ContextSource::Http(url) => Some(url.clone()),
        ContextSource::OciLayout { .. } | ContextSource::StoredLayout(_) | ContextSource::Built(_) => None,
    }
}

/// Returns the attributes of the exporter that sends an image home.
pub(super) fn exporter_attributes(request: &BuildRequest) -> BTreeMap<String, String> {
    let image = &request.image;
    let mut attributes = BTreeMap::from([
        ("tar".to_owned(), "true".to_owned()),
        ("oci-mediatypes".to_owned(), (image.flavour == Flavour::Oci).to_string()),
        ("compression".to_owned(), image.compression.as_str().to_owned()),
    ]);
    let mut set = |key: &str, value: String| attributes.insert(key.to_owned(), value);
    if let Some(level) = image.compression_level {
        set("compression-level", level.to_string());
    }
    if image.force_compression {
        set("force-compression", "true".to_owned());
    }
    if !image.keeps_layer_times {
        // Here times within layers are clamped, too, when there is a time: the Dockerfile may tell one.
        set("rewrite-timestamp", "true".to_owned());
    }
    for (key, value) in &image.manifest_annotations {
        set(&format!("annotation.{key}"), value.clone());
    }
    attributes
}

/// Returns what the build may be granted by the node.
pub(super) fn entitlements(request: &BuildRequest) -> Vec<String> {
    let mut entitlements: Vec<String> =
        request.steps.entitlements.iter().map(|entitlement| entitlement.as_str().to_owned()).collect();
    let host = Entitlement::NetworkHost;
    if request.network == NetworkMode::Host && !request.steps.entitlements.contains(&host) {
        entitlements.push(host.as_str().to_owned());
    }
    entitlements
}

#[cfg(test)]
mod tests {
    use polyarch_build::request::{Context, DockerfileSource, ImageOptions, StepOptions};
    use polyarch_oci::media_type::Compression;

    use super::*;

    #[test]
    fn requests_are_told_in_buildkits_words() {
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let request = BuildRequest {
            context: Context::Directory("/context".into()),
            contexts: vec![
                NamedContext {
                    name: "files".to_owned(),
                    platform: Some("linux/arm64".parse().unwrap()),
                    source: ContextSource::Directory("/files".into()),
                },
                NamedContext {
                    name: "base".to_owned(),
                    platform: None,
                    source: ContextSource::parse("docker-image://alpine:3").unwrap().unwrap(),
                },
            ],
            dockerfile: DockerfileSource::Default,
            platforms: Vec::new(),
            names: Vec::new(),
            keeps_names: true,
            target: Some("out".to_owned()),
            build_args: vec![pair("VERSION", "1")],
            labels: vec![pair("a", "b")],
            outputs: Vec::new(),
            no_cache: true,
            policies: Default::default(),
            cache: Default::default(),
            pull: PullPolicy::Always,
            source_date_epoch: Some(7),
            network: NetworkMode::Host,
            extra_hosts: vec![pair("db", "10.0.0.1"), pair("db", "10.0.0.2")],
            shm_size_bytes: Some(1024),
            steps: StepOptions::default(),
            image: ImageOptions {
                compression: Compression::Zstd,
                compression_level: Some(3),
                manifest_annotations: vec![pair("x", "y")],
                ..ImageOptions::default()
            },
            attestations: Default::default(),
            verify: true,
            max_parallel: 0,
            threads: 0,
        };
        let platforms = Platform::parse_list("linux/amd64,linux/arm/v7").unwrap();
        let told = frontend_attributes(&request, "Dockerfile", &platforms);
        let expected = [
            ("add-hosts", "db=10.0.0.1,db=10.0.0.2"),
            ("build-arg:SOURCE_DATE_EPOCH", "7"),
            ("build-arg:VERSION", "1"),
            ("context:base", "docker-image://docker.io/library/alpine:3"),
            ("context:files::linux/arm64", "local:files::linux/arm64"),
            ("filename", "Dockerfile"),
            ("force-network-mode", "host"),
            ("image-resolve-mode", "pull"),
            ("label:a", "b"),
            ("multi-platform", "true"),
            ("no-cache", ""),
            ("platform", "linux/amd64,linux/arm/v7"),
            ("shm-size", "1024"),
            ("target", "out"),
        ];
        assert_eq!(told, expected.map(|(key, value)| pair(key, value)).into());
        let expected = [
            ("annotation.x", "y"),
            ("compression", "zstd"),
            ("compression-level", "3"),
            ("oci-mediatypes", "true"),
            ("rewrite-timestamp", "true"),
            ("tar", "true"),
        ];
        assert_eq!(exporter_attributes(&request), expected.map(|(key, value)| pair(key, value)).into());
        assert_eq!(entitlements(&request), ["network.host"]);
    }
}
