// SPDX-License-Identifier: Apache-2.0
//! The documents of a node: its Deployment or StatefulSet, and the files given to it as ConfigMaps.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::{Map, Value, json};

use crate::error::ClusterError;
use crate::options::{ANNOTATION_PLATFORM, LABEL_APP, PodOptions, Toleration};

/// The container that the daemon runs in.
const CONTAINER: &str = "buildkitd";
/// Where the daemon keeps its cache.
const STATE_DIRECTORY: &str = "/var/lib/buildkit";
/// Where it does without privileges.
const ROOTLESS_STATE_DIRECTORY: &str = "/home/user/.local/share/buildkit";
/// Where its files are.
const CONFIG_DIRECTORY: &str = "/etc/buildkit";
/// The volume of the cache.
const STATE_VOLUME: &str = "buildkitd";

/// What runs the pods.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Workload {
    /// Pods whose caches go with them.
    Deployment(Box<Deployment>),
    /// Pods whose caches outlive them.
    StatefulSet(Box<StatefulSet>),
}

/// Writes the document that runs the pods.
pub(crate) fn workload(pods: &PodOptions) -> Result<Workload, ClusterError> {
    let mut document = json!({
        "metadata": metadata(pods, &pods.name),
        "spec": {
            "replicas": pods.replicas,
            "selector": { "matchLabels": labels(pods) },
            "template": {
                "metadata": { "labels": labels(pods), "annotations": pod_annotations(pods) },
                "spec": pod(pods),
            },
        },
    });
    Ok(match &pods.volume_size {
        None => Workload::Deployment(serde_json::from_value(document).map_err(ClusterError::Manifest)?),
        Some(size) => {
            let spec = &mut document["spec"];
            spec["serviceName"] = json!(CONTAINER);
            spec["podManagementPolicy"] = json!("Parallel");
            spec["volumeClaimTemplates"] = json!([{
                "metadata": { "name": STATE_VOLUME },
                "spec": { "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": size } } },
            }]);
            Workload::StatefulSet(serde_json::from_value(document).map_err(ClusterError::Manifest)?)
        }
    })
}

/// Writes the documents with the daemon's files, one per directory.
pub(crate) fn config_maps(pods: &PodOptions) -> Result<Vec<ConfigMap>, ClusterError> {
    let directories = directories(pods);
    let documents = directories.values().map(|directory| {
        let name = format!("{}-{}", pods.name, directory.volume);
        json!({ "metadata": metadata(pods, &name), "data": directory.files })
    });
    documents.map(|document| serde_json::from_value(document).map_err(ClusterError::Manifest)).collect()
}

/// Files of one directory below `/etc/buildkit`.
struct Directory<'a> {
    volume: String,
    files: BTreeMap<&'a str, &'a str>,
}

fn directories(pods: &PodOptions) -> BTreeMap<&str, Directory<'_>> {
    let mut directories: BTreeMap<&str, Directory<'_>> = BTreeMap::new();
    for (path, text) in &pods.files {
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
        let count = directories.len();
        let new = || Directory { volume: volume_name(directory, count), files: BTreeMap::new() };
        directories.entry(directory).or_insert_with(new).files.insert(name, text);
    }
    directories
}

/// The daemon's own file is in the volume `config`, those beside it in `config-1`, `config-2`…
fn volume_name(directory: &str, count: usize) -> String {
    if directory.is_empty() { "config".to_owned() } else { format!("config-{}", count.max(1)) }
}

fn labels(pods: &PodOptions) -> BTreeMap<&str, &str> {
    let own = pods.labels.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    own.chain([(LABEL_APP, pods.name.as_str())]).collect()
}

fn annotations(pods: &PodOptions) -> BTreeMap<&str, &str> {
    let own = pods.annotations.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    let platforms = (!pods.platforms.is_empty()).then_some((ANNOTATION_PLATFORM, pods.platforms.as_str()));
    own.chain(platforms).collect()
}

fn pod_annotations(pods: &PodOptions) -> BTreeMap<&str, &str> {
    let mut annotations = annotations(pods);
    if pods.is_rootless {
        annotations.insert("container.apparmor.security.beta.kubernetes.io/buildkitd", "unconfined");
    }
    annotations
}

fn metadata(pods: &PodOptions, name: &str) -> Value {
    let mut metadata = json!({ "name": name, "labels": labels(pods), "annotations": annotations(pods) });
    if let Some(namespace) = &pods.namespace {
        metadata["namespace"] = json!(namespace);
    }
    metadata
}

fn pod(pods: &PodOptions) -> Value {
    let mut pod = Map::from_iter([("containers".to_owned(), json!([container(pods)]))]);
    let mut add = |key: &str, value: Value| drop(pod.insert(key.to_owned(), value));
    let volumes = volumes(pods);
    if !volumes.is_empty() {
        add("volumes", json!(volumes));
    }
    if let Some(image) = &pods.qemu_image {
        let security = json!({ "privileged": true });
        let qemu = json!({ "name": "qemu", "image": image, "args": ["--install", "all"], "securityContext": security });
        add("initContainers", json!([qemu]));
    }
    if !pods.node_selector.is_empty() {
        add("nodeSelector", json!(pods.node_selector));
    }
    if !pods.tolerations.is_empty() {
        add("tolerations", pods.tolerations.iter().map(tolerated).collect());
    }
    if let Some(account) = &pods.service_account {
        add("serviceAccountName", json!(account));
    }
    if let Some(scheduler) = &pods.scheduler {
        add("schedulerName", json!(scheduler));
    }
    Value::Object(pod)
}

fn container(pods: &PodOptions) -> Value {
    let mut flags = pods.flags.clone();
    if pods.is_rootless {
        flags.push("--oci-worker-no-process-sandbox".to_owned());
    }
    let security = match pods.is_rootless {
        true => json!({ "seccompProfile": { "type": "Unconfined" } }),
        false => json!({ "privileged": true }),
    };
    let probe = json!({
        "exec": { "command": ["buildctl", "debug", "workers"] },
        "initialDelaySeconds": 5,
        "periodSeconds": 30,
        "timeoutSeconds": 60,
        "successThreshold": 1,
        "failureThreshold": 3,
    });
    let env: Vec<Value> =
        pods.env.iter().map(|(name, value)| json!({ "name": name, "value": value })).collect();
    json!({
        "name": CONTAINER,
        "image": pods.image,
        "args": flags,
        "env": env,
        "securityContext": security,
        "readinessProbe": probe,
        "livenessProbe": probe,
        "resources": { "requests": pods.requests, "limits": pods.limits },
        "volumeMounts": volume_mounts(pods),
    })
}

/// Where the cache is when it is on a volume of its own.
fn state_directory(pods: &PodOptions) -> Option<&'static str> {
    match pods.is_rootless {
        // The image's own volume may be mounted without set-user-id programs, which rootless daemons need.
        true => Some(ROOTLESS_STATE_DIRECTORY),
        false => (pods.volume_size.is_some() || pods.memory_size.is_some()).then_some(STATE_DIRECTORY),
    }
}

fn volume_mounts(pods: &PodOptions) -> Vec<Value> {
    let state = state_directory(pods).map(|path| json!({ "name": STATE_VOLUME, "mountPath": path }));
    let files = directories(pods).into_iter().map(|(directory, files)| {
        let path = format!("{CONFIG_DIRECTORY}/{directory}");
        json!({ "name": files.volume, "mountPath": path.trim_end_matches('/') })
    });
    state.into_iter().chain(files.collect::<Vec<_>>()).collect()
}

fn volumes(pods: &PodOptions) -> Vec<Value> {
    let state = (state_directory(pods).is_some() && pods.volume_size.is_none()).then(|| {
        let kind = match &pods.memory_size {
            Some(size) => json!({ "medium": "Memory", "sizeLimit": size }),
            None => json!({}),
        };
        json!({ "name": STATE_VOLUME, "emptyDir": kind })
    });
    let files = directories(pods).into_values().map(|files| {
        let name = format!("{}-{}", pods.name, files.volume);
        json!({ "name": files.volume, "configMap": { "name": name } })
    });
    state.into_iter().chain(files.collect::<Vec<_>>()).collect()
}

fn tolerated(toleration: &Toleration) -> Value {
    let texts = [
        ("key", &toleration.key),
        ("operator", &toleration.operator),
        ("value", &toleration.value),
        ("effect", &toleration.effect),
    ];
    let given = texts.into_iter().filter(|(_, text)| !text.is_empty());
    let mut map: Map<String, Value> = given.map(|(key, text)| (key.to_owned(), json!(text))).collect();
    if let Some(seconds) = toleration.seconds {
        map.insert("tolerationSeconds".to_owned(), json!(seconds));
    }
    Value::Object(map)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(options: &[(&str, &str)]) -> PodOptions {
        let options = options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        PodOptions::parse("fleet0", &options).unwrap()
    }

    fn written(pods: &PodOptions) -> Value {
        match workload(pods).unwrap() {
            Workload::Deployment(document) => serde_json::to_value(document).unwrap(),
            Workload::StatefulSet(document) => serde_json::to_value(document).unwrap(),
        }
    }

    #[test]
    fn a_deployment_of_privileged_pods() {
        let mut pods = options(&[("replicas", "2"), ("limits.cpu", "4"), ("labels", "team=ci")]);
        pods.platforms = "linux/arm64".to_owned();
        pods.flags = vec!["--debug".to_owned()];
        let document = written(&pods);
        assert_eq!(document["kind"], "Deployment");
        assert_eq!(document["spec"]["replicas"], 2);
        let labels = json!({ "app": "fleet0", "team": "ci" });
        assert_eq!(document["spec"]["selector"]["matchLabels"], labels);
        let template = &document["spec"]["template"];
        assert_eq!(template["metadata"]["labels"], labels);
        assert_eq!(
            template["metadata"]["annotations"],
            json!({ "buildx.docker.com/platform": "linux/arm64" })
        );
        let container = &template["spec"]["containers"][0];
        assert_eq!(container["args"], json!(["--debug"]));
        assert_eq!(container["securityContext"], json!({ "privileged": true }));
        assert_eq!(container["resources"]["limits"], json!({ "cpu": "4" }));
        assert_eq!(container["readinessProbe"]["exec"]["command"], json!(["buildctl", "debug", "workers"]));
        assert_eq!(template["spec"].get("volumes"), None);
    }

    #[test]
    fn without_privileges_the_cache_has_a_volume() {
        let document = written(&options(&[("rootless", "true"), ("buildkit-root-volume-memory", "2Gi")]));
        let template = &document["spec"]["template"];
        let container = &template["spec"]["containers"][0];
        assert_eq!(container["args"], json!(["--oci-worker-no-process-sandbox"]));
        assert_eq!(container["securityContext"], json!({ "seccompProfile": { "type": "Unconfined" } }));
        assert_eq!(
            container["volumeMounts"],
            json!([{ "name": "buildkitd", "mountPath": "/home/user/.local/share/buildkit" }])
        );
        assert_eq!(
            template["spec"]["volumes"],
            json!([{ "name": "buildkitd", "emptyDir": { "medium": "Memory", "sizeLimit": "2Gi" } }])
        );
    }

    #[test]
    fn a_cache_that_stays_makes_a_stateful_set() {
        let document = written(&options(&[
            ("persistent-volume-claim.requests.storage", "50Gi"),
            ("qemu.install", "true"),
            ("tolerations", "key=a,effect=NoSchedule"),
            ("serviceaccount", "builder"),
        ]));
        assert_eq!(document["kind"], "StatefulSet");
        assert_eq!(document["spec"]["podManagementPolicy"], "Parallel");
        let claim = &document["spec"]["volumeClaimTemplates"][0];
        assert_eq!(claim["spec"]["resources"]["requests"]["storage"], "50Gi");
        let pod = &document["spec"]["template"]["spec"];
        assert_eq!(pod["containers"][0]["volumeMounts"][0]["mountPath"], "/var/lib/buildkit");
        assert_eq!(pod["initContainers"][0]["args"], json!(["--install", "all"]));
        assert_eq!(pod["tolerations"], json!([{ "key": "a", "effect": "NoSchedule" }]));
        assert_eq!(pod["serviceAccountName"], "builder");
    }

    #[test]
    fn files_of_the_daemon_come_as_config_maps() {
        let mut pods = options(&[]);
        let file = |path: &str, text: &str| (path.to_owned(), text.to_owned());
        pods.files = BTreeMap::from([file("buildkitd.toml", "debug = true"), file("certs/reg/ca.pem", "x")]);
        let maps = config_maps(&pods).unwrap();
        let names: Vec<_> = maps.iter().map(|map| map.metadata.name.as_deref().unwrap()).collect();
        assert_eq!(names, ["fleet0-config", "fleet0-config-1"]);
        assert_eq!(maps[0].data.as_ref().unwrap()["buildkitd.toml"], "debug = true");
        let document = written(&pods);
        let mounts = &document["spec"]["template"]["spec"]["containers"][0]["volumeMounts"];
        assert_eq!(
            mounts,
            &json!([
                { "name": "config", "mountPath": "/etc/buildkit" },
                { "name": "config-1", "mountPath": "/etc/buildkit/certs/reg" },
            ])
        );
    }
}
