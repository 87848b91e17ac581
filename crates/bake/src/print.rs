// SPDX-License-Identifier: Apache-2.0
//! Targets as JSON, with the fields, the order and the escapes of buildx.

use std::collections::BTreeMap;

use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::Value as Json;

use super::credentials::{RESOURCES, Resources};
use super::policy::Policy;
use super::target::{Group, Target, Texts};

/// JSON whose objects keep their order.
#[derive(Debug, Clone)]
pub enum Node {
    /// A value whose objects are sorted.
    Plain(Json),
    /// An array.
    Array(Vec<Node>),
    /// An object.
    Object(Vec<(String, Node)>),
}

impl Serialize for Node {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Node::Plain(value) => value.serialize(serializer),
            Node::Array(elements) => elements.serialize(serializer),
            Node::Object(members) => {
                let mut map = serializer.serialize_map(Some(members.len()))?;
                for (name, value) in members {
                    map.serialize_entry(name, value)?;
                }
                map.end()
            }
        }
    }
}

/// Writes groups and targets as one document.
pub fn document(groups: &BTreeMap<String, Group>, targets: &BTreeMap<String, Target>) -> Node {
    let mut members = Vec::new();
    if !groups.is_empty() {
        let groups = groups.iter().map(|(name, group)| (name.clone(), self::group(group)));
        members.push(("group".to_owned(), Node::Object(groups.collect())));
    }
    let targets = targets.iter().map(|(name, target)| (name.clone(), self::target(target)));
    members.push(("target".to_owned(), Node::Object(targets.collect())));
    Node::Object(members)
}

/// Writes a document over several lines.
pub fn text(document: &Node) -> String {
    let bytes = polyarch_oci::json::to_indented(document, "  ");
    String::from_utf8_lossy(&bytes).into_owned() + "\n"
}

#[derive(Default)]
struct Members(Vec<(String, Node)>);

impl Members {
    fn plain(&mut self, name: &str, value: impl Into<Json>) {
        self.0.push((name.to_owned(), Node::Plain(value.into())));
    }

    fn text(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            self.plain(name, value);
        }
    }

    fn optional(&mut self, name: &str, value: Option<&String>) {
        if let Some(value) = value {
            self.plain(name, value.as_str());
        }
    }

    fn texts(&mut self, name: &str, value: Option<Vec<String>>) {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            self.plain(name, value);
        }
    }

    fn map(&mut self, name: &str, value: &Texts) {
        if !value.is_empty() {
            let json =
                |text: &Option<String>| text.as_deref().map_or(Json::Null, |text| escaped(text).into());
            let map: serde_json::Map<String, Json> =
                value.iter().map(|(name, text)| (name.clone(), json(text))).collect();
            self.plain(name, map);
        }
    }

    fn list<T>(&mut self, name: &str, value: Option<&Vec<T>>, node: impl Fn(&T) -> Node) {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            self.0.push((name.to_owned(), Node::Array(value.iter().map(node).collect())));
        }
    }

    fn flag(&mut self, name: &str, value: Option<bool>) {
        if let Some(value) = value {
            self.plain(name, value);
        }
    }
}

/// What has been evaluated must not be evaluated again when the document is read as a bake file.
fn escaped(text: &str) -> String {
    text.replace("${", "$${").replace("%{", "%%{")
}

fn group(group: &Group) -> Node {
    let mut members = Members::default();
    members.text("description", &group.description);
    members.plain("targets", group.targets.clone());
    Node::Object(members.0)
}

fn target(target: &Target) -> Node {
    let mut members = Members::default();
    members.text("description", &target.description);
    members.texts("inherits", Some(target.inherits.clone()));
    let annotations = |all: &Vec<String>| all.iter().map(|text| escaped(text)).collect();
    members.texts("annotations", target.annotations.as_ref().map(annotations));
    members.list("attest", target.attest.as_ref(), |entry| Node::Plain(entry.to_json()));
    members.optional("context", target.context.as_ref());
    if !target.contexts.is_empty() {
        let contexts: serde_json::Map<String, Json> =
            target.contexts.iter().map(|(name, context)| (name.clone(), context.as_str().into())).collect();
        members.plain("contexts", contexts);
    }
    members.optional("dockerfile", target.dockerfile.as_ref());
    members
        .optional("dockerfile-inline", target.dockerfile_inline.as_ref().map(|text| escaped(text)).as_ref());
    members.map("args", &target.args);
    members.map("labels", &target.labels);
    members.texts("tags", target.tags.clone());
    members.list("cache-from", target.cache_from.as_ref(), |entry| Node::Plain(entry.to_json()));
    members.list("cache-to", target.cache_to.as_ref(), |entry| Node::Plain(entry.to_json()));
    members.optional("target", target.target.as_ref());
    members.list("secret", target.secrets.as_ref(), |secret| {
        let mut members = Members::default();
        members.text("id", &secret.id);
        members.text("src", &secret.file);
        members.text("env", &secret.variable);
        Node::Object(members.0)
    });
    members.list("ssh", target.ssh.as_ref(), |ssh| {
        let mut members = Members::default();
        members.text("id", &ssh.id);
        members.texts("paths", Some(ssh.paths.clone()));
        Node::Object(members.0)
    });
    members.texts("platforms", target.platforms.clone());
    members.list("output", target.outputs.as_ref(), |entry| Node::Plain(entry.to_json()));
    members.flag("pull", target.pull);
    members.flag("no-cache", target.no_cache);
    members.optional("network", target.network.as_ref());
    members.texts("no-cache-filter", target.no_cache_filter.clone());
    members.optional("shm-size", target.shm_size.as_ref());
    members.texts("ulimits", target.ulimits.clone());
    if let Some(resources) = &target.resources {
        members.0.push(("resources".to_owned(), self::resources(resources)));
    }
    members.optional("call", target.call.as_ref());
    members.texts("entitlements", target.entitlements.clone());
    members.map("extra-hosts", &target.extra_hosts);
    members.list("policy", target.policy.as_ref(), policy);
    Node::Object(members.0)
}

fn resources(resources: &Resources) -> Node {
    let mut members = Members::default();
    for (name, is_number) in RESOURCES {
        match resources.limits.get(*name) {
            Some(text) if *is_number => members.plain(name, text.parse::<i64>().unwrap_or_default()),
            Some(text) => members.plain(name, text.as_str()),
            None => {}
        }
    }
    Node::Object(members.0)
}

fn policy(policy: &Policy) -> Node {
    const LEVELS: [&str; 7] = ["panic", "fatal", "error", "warning", "info", "debug", "trace"];
    let mut members = Members::default();
    if policy.files.is_empty() {
        members.plain("Files", Json::Null);
    } else {
        let file = |name: &String| {
            let mut members = Members::default();
            members.plain("Filename", name.as_str());
            members.plain("Data", Json::Null);
            Node::Object(members.0)
        };
        members.list("Files", Some(&policy.files), file);
    }
    members.plain("Reset", policy.is_reset);
    members.plain("Disabled", policy.is_disabled);
    members.plain("Strict", policy.strict.map_or(Json::Null, Json::from));
    let level = policy.log_level.and_then(|level| LEVELS.get(usize::try_from(level).ok()?));
    members.plain("LogLevel", level.map_or(Json::Null, |level| (*level).into()));
    Node::Object(members.0)
}
