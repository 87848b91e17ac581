// SPDX-License-Identifier: Apache-2.0
//! `--set PATTERN.KEY=VALUE`: what a command line changes about targets.

use std::collections::BTreeMap;

use super::config::Granted;
use super::credentials::{Secret, Ssh};
use super::entries::{Attest, Cache, Export, go_bool, without_doubles};
use super::error::BakeError;
use super::paths;
use super::policy::Policy;
use super::target::Target;

/// What is set, by target and key.
pub type Overrides = BTreeMap<String, BTreeMap<String, Override>>;

/// What one key is set to.
#[derive(Debug, Clone, Default)]
pub struct Override {
    value: String,
    values: Vec<String>,
    appends: bool,
}

/// Keys that may be set several times.
const LISTS: &[&str] = &[
    "output",
    "cache-to",
    "cache-from",
    "tags",
    "platform",
    "secrets",
    "ssh",
    "attest",
    "entitlements",
    "network",
    "annotations",
    "policy",
];

/// Reads the values of `--set`.
///
/// # Errors
/// A key that is none, or a pattern that no target matches.
pub fn read(
    values: &[String],
    targets: &[Target],
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Overrides, BakeError> {
    let mut overrides = Overrides::new();
    for text in values {
        let (full_key, value) = match text.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (text.as_str(), None),
        };
        let appends = full_key.ends_with('+');
        let key = full_key.strip_suffix('+').unwrap_or(full_key);
        let parts: Vec<&str> = key.splitn(3, '.').collect();
        let [pattern, first, rest @ ..] = parts.as_slice() else {
            return Err(BakeError::request(format!("invalid override key {key}, expected target.name")));
        };
        if value.is_none() && *first != "args" {
            return Err(BakeError::request(format!("invalid override {text}, expected target.name=value")));
        }
        if matches!(*first, "resources" | "secret" | "args" | "contexts") && rest.is_empty() {
            return Err(BakeError::request(format!("invalid key {full_key}, {first} requires name")));
        }
        if matches!(*first, "resources" | "secret") && appends {
            return Err(BakeError::request(format!(
                "invalid key {full_key}, {first} does not support append"
            )));
        }
        let name = key.split_once('.').map_or("", |(_, name)| name).to_owned();
        for target in expand(pattern, targets)? {
            let entry = overrides.entry(target).or_default().entry(name.clone()).or_default();
            match value {
                Some(value) if LISTS.contains(first) => {
                    entry.appends = appends;
                    entry.values.push(value.to_owned());
                    // `network` is read as one value.
                    entry.value = value.to_owned();
                }
                Some(value) => {
                    entry.value = value.to_owned();
                    entry.appends = appends;
                    entry.values.push(value.to_owned());
                }
                None => match environment(rest.first().copied().unwrap_or("")) {
                    Some(value) => entry.value = value,
                    None => {
                        overrides.entry(pattern.to_string()).or_default().remove(&name);
                    }
                },
            }
        }
    }
    Ok(overrides)
}

fn expand(pattern: &str, targets: &[Target]) -> Result<Vec<String>, BakeError> {
    if targets.iter().any(|target| target.name == pattern) {
        return Ok(vec![pattern.to_owned()]);
    }
    let mut names = Vec::new();
    for target in targets {
        let is_match = paths::matches(pattern, &target.name).ok_or_else(|| {
            BakeError::request(format!("could not match targets with '{pattern}': syntax error in pattern"))
        })?;
        if is_match {
            names.push(target.name.clone());
        }
    }
    if names.is_empty() {
        return Err(BakeError::request(format!("could not find any target matching '{pattern}'")));
    }
    Ok(names)
}

fn list<T>(
    old: Option<Vec<T>>,
    change: &Override,
    read: impl Fn(&str) -> Result<Vec<T>, String>,
) -> Result<Vec<T>, String> {
    let mut all = if change.appends { old.unwrap_or_default() } else { Vec::new() };
    for text in change.values.iter().filter(|text| !text.is_empty()) {
        all.extend(read(text)?);
    }
    Ok(all)
}

/// Sets what is to be set about a target.
///
/// # Errors
/// A key that is not known, or a value that is none.
pub fn apply(
    target: &mut Target,
    changes: &BTreeMap<String, Override>,
    granted: &mut Granted,
) -> Result<(), BakeError> {
    // `push` and `load` look at the outputs, whichever order they were given in.
    let is_late = |key: &str| matches!(key, "push" | "load") || key.starts_with("secret.");
    let (late, early): (Vec<_>, Vec<_>) = changes.iter().partition(|(key, _)| is_late(key));
    for (key, change) in early.into_iter().chain(late) {
        let (first, name) = key.split_once('.').unwrap_or((key, ""));
        set(target, first, name, change, granted).map_err(BakeError::Request)?;
    }
    Ok(())
}

fn set(
    target: &mut Target,
    key: &str,
    name: &str,
    change: &Override,
    granted: &mut Granted,
) -> Result<(), String> {
    let value = change.value.clone();
    let named = |shape: &str| {
        if name.is_empty() {
            Err(format!("invalid format for {key}, expecting {key}.{shape}"))
        } else {
            Ok(name.to_owned())
        }
    };
    let flag = || go_bool(&value).ok_or_else(|| format!("invalid value {value} for boolean key {key}"));
    let text = |text: &str| Ok(vec![text.to_owned()]);
    match key {
        "context" => target.context = Some(value),
        "dockerfile" => target.dockerfile = Some(value),
        "target" => target.target = Some(value),
        "call" => target.call = Some(value),
        "shm-size" => target.shm_size = Some(value),
        "network" => target.network = Some(value),
        "args" => {
            target.args.insert(named("<name>=<value>")?, Some(value));
        }
        "contexts" => {
            target.contexts.insert(named("<name>=<value>")?, value);
        }
        "labels" => {
            target.labels.insert(named("<name>=<value>")?, Some(value));
        }
        "extra-hosts" => {
            target.extra_hosts.insert(named("<hostname>=<ip>")?, Some(value));
        }
        "resources" => target.resources.get_or_insert_default().set(&named("<name>=<value>")?, &value)?,
        "tags" => target.tags = Some(list(target.tags.take(), change, text)?),
        "platform" => target.platforms = Some(list(target.platforms.take(), change, text)?),
        "no-cache-filter" => {
            target.no_cache_filter = Some(list(target.no_cache_filter.take(), change, text)?)
        }
        "ulimits" => target.ulimits = Some(list(target.ulimits.take(), change, text)?),
        "annotations" => target.annotations.get_or_insert_default().extend(change.values.iter().cloned()),
        "entitlements" => {
            granted.network_host |= change.values.iter().any(|value| value == "network.host");
            granted.security_insecure |= change.values.iter().any(|value| value == "security.insecure");
            target.entitlements.get_or_insert_default().extend(change.values.iter().cloned());
        }
        "attest" => {
            for text in change.values.iter().filter(|text| !text.is_empty()) {
                let attest =
                    Attest::parse(text).map_err(|problem| format!("invalid value for attest: {problem}"))?;
                let all = target.attest.get_or_insert_default();
                all.retain(|other| other.kind != attest.kind);
                all.push(attest);
            }
        }
        "policy" => {
            let one = |text: &str| Policy::parse(text).map(|policy| vec![policy]);
            target.policy = Some(list(target.policy.take(), change, one)?);
        }
        "cache-from" => {
            let mut caches = list(target.cache_from.take(), change, Cache::parse)?;
            without_doubles(&mut caches);
            granted.read.extend(local(&caches, "src"));
            target.cache_from = Some(caches);
        }
        "cache-to" => {
            let mut caches = list(target.cache_to.take(), change, Cache::parse)?;
            without_doubles(&mut caches);
            granted.write.extend(local(&caches, "dest"));
            target.cache_to = Some(caches);
        }
        "output" => {
            let one = |text: &str| Export::parse(text).map(|export| vec![export]);
            let outputs = list(target.outputs.take(), change, one)
                .map_err(|problem| format!("invalid value for outputs: {problem}"))?;
            let places = outputs.iter().map(|output| &output.destination);
            granted.write.extend(places.filter(|place| !place.is_empty()).cloned());
            target.outputs = Some(outputs);
        }
        "secrets" => {
            let one = |text: &str| Secret::parse(text).map(|secret| vec![secret]);
            let secrets = list(target.secrets.take(), change, one)?;
            granted
                .read
                .extend(secrets.iter().map(|secret| secret.file.clone()).filter(|file| !file.is_empty()));
            target.secrets = Some(secrets);
        }
        "secret" => update_secret(target, &named("<id>=<value>")?, &value, granted)?,
        "ssh" => {
            let ssh = list(target.ssh.take(), change, |text| Ok(vec![Ssh::parse(text)]))?;
            granted.read.extend(ssh.iter().flat_map(|ssh| ssh.paths.iter().cloned()));
            target.ssh = Some(ssh);
        }
        "no-cache" => target.no_cache = Some(flag()?),
        "pull" => target.pull = Some(flag()?),
        "push" => push(target, flag()?),
        "load" if flag()? => load(target),
        "load" => {}
        key => return Err(format!("unknown key: {key}")),
    }
    Ok(())
}

fn local(caches: &[Cache], key: &str) -> Vec<String> {
    caches
        .iter()
        .filter(|cache| cache.kind == "local")
        .filter_map(|cache| cache.attributes.get(key).cloned())
        .collect()
}

fn update_secret(target: &mut Target, id: &str, value: &str, granted: &mut Granted) -> Result<(), String> {
    let secret = target.secrets.iter_mut().flatten().find(|secret| secret.id == id);
    let secret =
        secret.ok_or_else(|| format!("secret {id:?} must be declared before it can be overridden"))?;
    let new = Secret::parse(value)?;
    if !new.id.is_empty() && new.id != id {
        return Err(format!("secret override id {:?} does not match declared secret {id:?}", new.id));
    }
    if !new.file.is_empty() {
        granted.read.push(new.file.clone());
    }
    secret.file = new.file;
    secret.variable = new.variable;
    Ok(())
}

fn push(target: &mut Target, is_on: bool) {
    let outputs = target.outputs.get_or_insert_default();
    let set = |output: &mut Export, value: &str| {
        output.attributes.insert("push".to_owned(), value.to_owned());
    };
    if !is_on {
        outputs.retain(|output| output.kind != "registry");
        outputs.iter_mut().filter(|output| output.kind == "image").for_each(|output| set(output, "false"));
        return;
    }
    let is_new = outputs.iter().all(|output| output.kind == "docker");
    outputs.iter_mut().filter(|output| output.kind == "image").for_each(|output| set(output, "true"));
    if is_new {
        let mut output = Export { kind: "image".to_owned(), ..Export::default() };
        set(&mut output, "true");
        outputs.push(output);
    }
}

fn load(target: &mut Target) {
    let outputs = target.outputs.get_or_insert_default();
    let is_there = |output: &Export| output.kind == "docker" && output.destination.is_empty();
    let is_image = |output: &Export| matches!(output.kind.as_str(), "docker" | "image" | "registry" | "oci");
    if outputs.iter().any(|output| is_there(output) || !is_image(output)) {
        return;
    }
    outputs.push(Export { kind: "docker".to_owned(), ..Export::default() });
}
