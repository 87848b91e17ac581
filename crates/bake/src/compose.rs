// SPDX-License-Identifier: Apache-2.0
//! Compose files: each service with a `build` is a target, and all of them are the group `default`.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json};

use super::compose_text;
use super::config::Config;
use super::credentials::{Secret, Ssh};
use super::entries::{Attest, Cache, Export, go_bool};
use super::target::{Group, Target, Texts};

/// How deep `extends` may lead.
const MAX_EXTENDS: usize = 32;

/// Reads a file: its services and secrets, with variables filled in.
///
/// # Errors
/// It is no Compose file.
pub fn read(text: &str, variables: &BTreeMap<String, String>) -> Result<Json, String> {
    let mut document: Json = serde_saphyr::from_str(text)
        .map_err(|error| format!("parsing yaml: {}", error.to_string().lines().next().unwrap_or_default()))?;
    compose_text::fill(&mut document, variables)?;
    let Json::Object(members) = &mut document else {
        return Err("top-level object must be a mapping".to_owned());
    };
    if members.contains_key("include") {
        return Err("include is not available in this version; name the files with --file".to_owned());
    }
    members.retain(|name, value| matches!(name.as_str(), "services" | "secrets") && !value.is_null());
    if members.is_empty() {
        return Err("empty compose file".to_owned());
    }
    for (name, value) in members.iter_mut() {
        let Json::Object(entries) = value else { return Err(format!("{name} must be a mapping")) };
        for (entry, value) in entries.iter_mut() {
            if value.is_null() {
                *value = Json::Object(Map::new());
            }
            if !value.is_object() {
                return Err(format!("{name}.{entry} must be a mapping"));
            }
            if name == "services" {
                normalize(value);
            }
        }
    }
    if let Some(Json::Object(services)) = members.get_mut("services") {
        let all = services.clone();
        for (name, service) in services.iter_mut() {
            *service = extended(name, &all, 0)?;
        }
    }
    Ok(document)
}

/// Brings the short forms of a service into the long ones, so that services can be merged.
fn normalize(service: &mut Json) {
    if let Some(environment) = service.get_mut("environment") {
        *environment = mapping(environment, "=");
    }
    let Some(build) = service.get_mut("build") else { return };
    if let Json::String(context) = build {
        *build = serde_json::json!({ "context": context });
    }
    for name in ["args", "labels", "additional_contexts"] {
        if let Some(value) = build.get_mut(name) {
            *value = mapping(value, "=");
        }
    }
    if let Some(value) = build.get_mut("extra_hosts") {
        *value = hosts(value);
    }
}

/// A list of `name=value` as a mapping; names without a value are null.
fn mapping(value: &Json, separator: &str) -> Json {
    let Json::Array(elements) = value else { return value.clone() };
    let pair = |element: &Json| {
        let text = scalar(element).unwrap_or_default();
        match text.split_once(separator) {
            Some((name, value)) => (name.to_owned(), Json::from(value)),
            None => (text, Json::Null),
        }
    };
    Json::Object(elements.iter().map(pair).collect())
}

fn hosts(value: &Json) -> Json {
    let Json::Array(elements) = value else { return value.clone() };
    let mut all: Map<String, Json> = Map::new();
    for element in elements {
        let text = scalar(element).unwrap_or_default();
        let (host, address) = text.split_once('=').or_else(|| text.split_once(':')).unwrap_or((&text, ""));
        let entry = all.entry(host).or_insert_with(|| Json::Array(Vec::new()));
        if let Json::Array(addresses) = entry {
            addresses.push(address.into());
        }
    }
    Json::Object(all)
}

/// A value without parts as text.
fn scalar(value: &Json) -> Option<String> {
    match value {
        Json::String(text) => Some(text.clone()),
        Json::Number(number) => Some(number.to_string()),
        Json::Bool(flag) => Some(flag.to_string()),
        _ => None,
    }
}

/// Merges a later document into an earlier one: mappings by name, lists one behind the other.
pub fn merge(document: &mut Json, later: Json) {
    match (document, later) {
        (Json::Object(members), Json::Object(later)) => {
            for (name, value) in later {
                match members.get_mut(&name) {
                    Some(member) => merge(member, value),
                    None => {
                        members.insert(name, value);
                    }
                }
            }
        }
        (Json::Array(elements), Json::Array(later)) => {
            for element in later {
                if !elements.contains(&element) {
                    elements.push(element);
                }
            }
        }
        (document, later) => *document = later,
    }
}

/// Adds the services of a document to what is defined.
///
/// # Errors
/// What a service says that makes no sense, by its name.
pub fn add(document: &Json, variables: &BTreeMap<String, String>, config: &mut Config) -> Result<(), String> {
    let none = Map::new();
    let services = document.get("services").and_then(Json::as_object).unwrap_or(&none);
    if services.is_empty() {
        return Ok(());
    }
    let mut group = Group { name: "default".to_owned(), ..Group::default() };
    for (name, service) in services {
        let Some(build) = service.get("build").filter(|build| !build.is_null()) else { continue };
        let target_name = name.replace('.', "_");
        if !target_name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-')) {
            return Err(format!("invalid service name {target_name:?}: only \"[a-zA-Z0-9_-]+\" are allowed"));
        }
        let context = Service { service, document, variables };
        let target = context
            .target(&target_name, build)
            .map_err(|problem| format!("services.{name}.build: {problem}"))?;
        group.targets.push(target_name);
        config.add_target(target);
    }
    config.groups.push(group);
    Ok(())
}

/// A service with what it extends.
fn extended(name: &str, services: &Map<String, Json>, depth: usize) -> Result<Json, String> {
    let service = services.get(name).ok_or_else(|| format!("cannot extend service {name:?}: not found"))?;
    let Some(extends) = service.get("extends") else { return Ok(service.clone()) };
    if depth > MAX_EXTENDS {
        return Err(format!("service {name}: circular reference in extends"));
    }
    let parent = match extends {
        Json::String(parent) => parent.as_str(),
        Json::Object(members) if members.contains_key("file") => {
            return Err(format!("service {name}: extends of another file is not available in this version"));
        }
        other => other.get("service").and_then(Json::as_str).unwrap_or(""),
    };
    let mut merged = extended(parent, services, depth + 1)?;
    merge(&mut merged, service.clone());
    if let Json::Object(members) = &mut merged {
        members.remove("extends");
    }
    Ok(merged)
}

struct Service<'a> {
    service: &'a Json,
    document: &'a Json,
    variables: &'a BTreeMap<String, String>,
}

impl Service<'_> {
    fn target(&self, name: &str, build: &Json) -> Result<Target, String> {
        let text = |key: &str| build.get(key).and_then(scalar).filter(|text| !text.is_empty());
        let on = |key: &str| build.get(key).and_then(scalar).and_then(|text| go_bool(&text)).filter(|on| *on);
        let mut target = Target {
            name: name.to_owned(),
            context: text("context"),
            dockerfile: text("dockerfile"),
            dockerfile_inline: text("dockerfile_inline"),
            target: text("target"),
            network: text("network"),
            tags: texts(build.get("tags"))?,
            platforms: texts(build.get("platforms"))?,
            no_cache: on("no_cache"),
            pull: on("pull"),
            args: self.args(build.get("args")),
            labels: text_map(build.get("labels")),
            contexts: contexts(build.get("additional_contexts")),
            cache_from: caches(build.get("cache_from"))?,
            cache_to: caches(build.get("cache_to"))?,
            extra_hosts: text_map(build.get("extra_hosts")),
            ssh: ssh(build.get("ssh"))?,
            secrets: self.secrets(build.get("secrets"))?,
            ulimits: ulimits(build.get("ulimits"))?,
            shm_size: text("shm_size").map(|text| size(&text)).transpose()?,
            ..Target::default()
        };
        for kind in ["sbom", "provenance"] {
            if let Some(value) = text(kind) {
                let attributes = match go_bool(&value) {
                    Some(is_on) => format!("disabled={}", !is_on),
                    None => value,
                };
                let attest = Attest::parse(&format!("type={kind},{attributes}"))?;
                target.attest.get_or_insert_default().push(attest);
            }
        }
        if let Some(extension) = build.get("x-bake").filter(|extension| !extension.is_null()) {
            extend(&mut target, extension).map_err(|problem| format!("x-bake: {problem}"))?;
        }
        let image = self.service.get("image").and_then(scalar).filter(|image| !image.is_empty());
        if target.tags.as_ref().is_none_or(Vec::is_empty)
            && let Some(image) = image
        {
            target.tags = Some(vec![image]);
        }
        Ok(target)
    }

    /// Arguments; those without a value have the one of the service's environment, or of ours.
    fn args(&self, args: Option<&Json>) -> Texts {
        let environment = self.service.get("environment");
        let lookup = |name: &str| {
            let own = environment.and_then(|environment| environment.get(name)).and_then(scalar);
            own.or_else(|| self.variables.get(name).cloned())
        };
        let args = text_map(args).into_iter();
        args.map(|(name, value)| {
            let value = value.or_else(|| lookup(&name));
            (name, value)
        })
        .filter(|(_, value)| value.is_some())
        .collect()
    }

    fn secrets(&self, secrets: Option<&Json>) -> Result<Option<Vec<Secret>>, String> {
        let Some(Json::Array(secrets)) = secrets else { return Ok(None) };
        let mut all = Vec::new();
        for secret in secrets {
            let source = scalar(secret).or_else(|| secret.get("source").and_then(scalar)).unwrap_or_default();
            let defined = self.document.get("secrets").and_then(|secrets| secrets.get(&source));
            let defined = defined.ok_or_else(|| format!("refers to undefined secret {source}"))?;
            if defined.get("external").and_then(Json::as_bool) == Some(true) {
                return Err(format!("unsupported external secret {source}"));
            }
            let text = |key: &str| defined.get(key).and_then(scalar).unwrap_or_default();
            let file = text("file");
            all.push(Secret {
                id: source,
                file: if file.is_empty() { file } else { super::paths::clean(&file) },
                variable: text("environment"),
            });
        }
        Ok(Some(all))
    }
}

fn texts(value: Option<&Json>) -> Result<Option<Vec<String>>, String> {
    match value {
        None | Some(Json::Null) => Ok(None),
        Some(Json::Array(elements)) => Ok(Some(elements.iter().filter_map(scalar).collect())),
        Some(_) => Err("a list is required".to_owned()),
    }
}

fn text_map(value: Option<&Json>) -> Texts {
    let text = |value: &Json| match value {
        Json::Array(elements) => Some(elements.iter().filter_map(scalar).collect::<Vec<_>>().join(",")),
        value => scalar(value),
    };
    let members = value.and_then(Json::as_object).into_iter().flatten();
    members.map(|(name, value)| (name.clone(), text(value))).collect()
}

/// Contexts by name; one that is a service is the target of that name.
fn contexts(value: Option<&Json>) -> BTreeMap<String, String> {
    let contexts = text_map(value).into_iter().filter_map(|(name, context)| Some((name, context?)));
    let linked = |context: String| {
        let service = context.strip_prefix("service:").or_else(|| context.strip_prefix("target:"));
        match service {
            Some(service) => format!("target:{}", service.replace('.', "_")),
            None => super::paths::rebase(".", &context),
        }
    };
    contexts.map(|(name, context)| (name, linked(context))).collect()
}

fn caches(value: Option<&Json>) -> Result<Option<Vec<Cache>>, String> {
    let Some(values) = texts(value)? else { return Ok(None) };
    let mut all = Vec::new();
    for text in values.iter().filter(|text| !text.is_empty()) {
        all.extend(Cache::parse(text)?);
    }
    Ok(Some(all))
}

fn ssh(value: Option<&Json>) -> Result<Option<Vec<Ssh>>, String> {
    let mut all: Vec<Ssh> = match value {
        None | Some(Json::Null) => return Ok(None),
        Some(Json::Object(members)) => members
            .iter()
            .map(|(id, path)| Ssh { id: id.clone(), paths: scalar(path).into_iter().collect() })
            .collect(),
        Some(other) => texts(Some(other))?.iter().flatten().map(|text| Ssh::parse(text)).collect(),
    };
    all.sort();
    Ok(Some(all))
}

fn ulimits(value: Option<&Json>) -> Result<Option<Vec<String>>, String> {
    let Some(Json::Object(members)) = value else { return Ok(None) };
    let mut all = Vec::new();
    for (name, limit) in members {
        let (soft, hard) = match limit {
            Json::Object(both) => (both.get("soft").and_then(scalar), both.get("hard").and_then(scalar)),
            single => (scalar(single), scalar(single)),
        };
        let (Some(soft), Some(hard)) = (soft, hard) else {
            return Err(format!("ulimits.{name} needs soft and hard"));
        };
        all.push(format!("{name}={soft}:{hard}"));
    }
    Ok(Some(all))
}

/// A size as buildx prints it: `128m` becomes `128MiB`.
fn size(text: &str) -> Result<String, String> {
    let wrong = || format!("invalid size {text:?}");
    let lower = text.trim().to_lowercase();
    let digits = lower.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(lower.len());
    let number: f64 = lower[..digits].parse().map_err(|_| wrong())?;
    let factor = match lower[digits..].trim() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        "t" | "tb" | "tib" => 4,
        _ => return Err(wrong()),
    };
    let mut bytes = (number * 1024f64.powi(factor)).trunc();
    let mut unit = 0;
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    while bytes >= 1024.0 && unit + 1 < UNITS.len() {
        bytes /= 1024.0;
        unit += 1;
    }
    // Four digits that count.
    let whole = bytes.trunc().to_string().len();
    let rounded = format!("{bytes:.*}", 4usize.saturating_sub(whole));
    let shown =
        if rounded.contains('.') { rounded.trim_end_matches('0').trim_end_matches('.') } else { &rounded };
    Ok(format!("{shown}{}", UNITS[unit]))
}

/// `x-bake`: attributes of targets that Compose doesn't have.
fn extend(target: &mut Target, extension: &Json) -> Result<(), String> {
    let list = |key: &str| -> Result<Vec<String>, String> {
        match extension.get(key) {
            Some(Json::Array(elements)) => Ok(elements.iter().filter_map(scalar).collect()),
            Some(Json::String(text)) => Ok(text.split_whitespace().map(str::to_owned).collect()),
            None | Some(Json::Null) => Ok(Vec::new()),
            Some(_) => Err(format!("{key} must be a list or a text")),
        }
    };
    let add = |all: &mut Option<Vec<String>>, more: Vec<String>| {
        if !more.is_empty() {
            let all = all.get_or_insert_default();
            for text in more {
                if !all.contains(&text) {
                    all.push(text);
                }
            }
        }
    };
    add(&mut target.tags, list("tags")?);
    add(&mut target.platforms, list("platforms")?);
    add(&mut target.no_cache_filter, list("no-cache-filter")?);
    for text in list("cache-from")? {
        target.cache_from.get_or_insert_default().extend(Cache::parse(&text)?);
    }
    for text in list("cache-to")? {
        target.cache_to.get_or_insert_default().extend(Cache::parse(&text)?);
    }
    for text in list("secret")? {
        target.secrets.get_or_insert_default().push(Secret::parse(&text)?);
    }
    for text in list("ssh")? {
        target.ssh.get_or_insert_default().push(Ssh::parse(&text));
    }
    if let Some(ssh) = &mut target.ssh {
        ssh.sort();
    }
    for text in list("output")? {
        target.outputs.get_or_insert_default().push(Export::parse(&text)?);
    }
    target.pull = extension.get("pull").and_then(Json::as_bool).or(target.pull);
    target.no_cache = extension.get("no-cache").and_then(Json::as_bool).or(target.no_cache);
    for (name, context) in contexts(extension.get("contexts")) {
        target.contexts.entry(name).or_insert(context);
    }
    Ok(())
}
