// SPDX-License-Identifier: Apache-2.0
//! Attributes of blocks become fields of targets and groups, and targets become values that other blocks
//! refer to.

use std::collections::BTreeMap;

use super::convert::convert;
use super::credentials::{Resources, Secret, Ssh};
use super::entries::{Attest, Cache, Export};
use super::policy::Policy;
use super::target::{Group, Target, Texts};
use super::value::{Type, Value};

/// The attributes of a target.
pub const TARGET: &[&str] = &[
    "description",
    "inherits",
    "annotations",
    "attest",
    "context",
    "contexts",
    "dockerfile",
    "dockerfile-inline",
    "args",
    "labels",
    "tags",
    "cache-from",
    "cache-to",
    "target",
    "secret",
    "ssh",
    "platforms",
    "output",
    "pull",
    "no-cache",
    "network",
    "no-cache-filter",
    "shm-size",
    "ulimits",
    "resources",
    "call",
    "entitlements",
    "extra-hosts",
    "policy",
];

/// The attributes of a group.
pub const GROUP: &[&str] = &["description", "targets"];

fn text(value: &Value) -> Result<Option<String>, String> {
    match convert(value, &Type::String)? {
        Value::String(text) => Ok(Some(text)),
        _ => Ok(None),
    }
}

fn flag(value: &Value) -> Result<Option<bool>, String> {
    match convert(value, &Type::Bool)? {
        Value::Bool(flag) => Ok(Some(flag)),
        _ => Ok(None),
    }
}

fn texts(value: &Value) -> Result<Option<Vec<String>>, String> {
    let converted = convert(value, &Type::list(Type::String))?;
    let Some(elements) = converted.elements() else { return Ok(None) };
    let each = |(at, value): (usize, &Value)| match value {
        Value::String(text) => Ok(text.clone()),
        _ => Err(format!("element {at}: must not be null")),
    };
    elements.iter().enumerate().map(each).collect::<Result<_, _>>().map(Some)
}

fn text_map(value: &Value) -> Result<Texts, String> {
    let converted = convert(value, &Type::map(Type::String))?;
    let each = |(name, value): (&String, &Value)| {
        (name.clone(), if let Value::String(text) = value { Some(text.clone()) } else { None })
    };
    Ok(converted.attributes().map(|map| map.iter().map(each).collect()).unwrap_or_default())
}

/// A list whose elements are read one by one; empty texts are left out.
fn entries<T>(
    value: &Value,
    read: impl Fn(&Value) -> Result<Vec<T>, String>,
) -> Result<Option<Vec<T>>, String> {
    if value.is_null() {
        return Ok(None);
    }
    let (Value::List(_, elements) | Value::Tuple(elements)) = value else {
        return Err(format!("list of map of string required, but have {}", value.ty().friendly_name()));
    };
    let mut all = Vec::new();
    for (at, element) in elements.iter().enumerate() {
        match element {
            Value::String(text) if text.is_empty() => {}
            Value::Null(_) => return Err(format!("element {at}: must not be null")),
            element => all.extend(read(element)?),
        }
    }
    Ok(Some(all))
}

fn one<T>(result: Result<T, String>) -> Result<Vec<T>, String> {
    result.map(|value| vec![value])
}

/// Sets the field of an attribute.
///
/// # Errors
/// The value has not its type.
pub fn set_target(target: &mut Target, name: &str, value: &Value) -> Result<(), String> {
    match name {
        "description" => target.description = text(value)?.ok_or_else(|| "must not be null".to_owned())?,
        "inherits" => target.inherits = texts(value)?.unwrap_or_default(),
        "annotations" => target.annotations = texts(value)?,
        "attest" => target.attest = entries(value, |value| one(Attest::from_value(value)))?,
        "context" => target.context = text(value)?,
        "contexts" => {
            target.contexts = BTreeMap::new();
            for (name, context) in text_map(value)? {
                let context = context.ok_or_else(|| format!("element {name:?}: must not be null"))?;
                target.contexts.insert(name, context);
            }
        }
        "dockerfile" => target.dockerfile = text(value)?,
        "dockerfile-inline" => target.dockerfile_inline = text(value)?,
        "args" => target.args = text_map(value)?,
        "labels" => target.labels = text_map(value)?,
        "tags" => target.tags = texts(value)?,
        "cache-from" => target.cache_from = entries(value, Cache::from_value)?,
        "cache-to" => target.cache_to = entries(value, Cache::from_value)?,
        "target" => target.target = text(value)?,
        "secret" => target.secrets = entries(value, |value| one(Secret::from_value(value)))?,
        "ssh" => target.ssh = entries(value, |value| one(Ssh::from_value(value)))?,
        "platforms" => target.platforms = texts(value)?,
        "output" => target.outputs = entries(value, |value| one(Export::from_value(value)))?,
        "pull" => target.pull = flag(value)?,
        "no-cache" => target.no_cache = flag(value)?,
        "network" => target.network = text(value)?,
        "no-cache-filter" => target.no_cache_filter = texts(value)?,
        "shm-size" => target.shm_size = text(value)?,
        "ulimits" => target.ulimits = texts(value)?,
        "resources" if value.is_null() => target.resources = None,
        "resources" => target.resources = Some(Resources::from_value(value)?),
        "call" => target.call = text(value)?,
        "entitlements" => target.entitlements = texts(value)?,
        "extra-hosts" => target.extra_hosts = text_map(value)?,
        "policy" => target.policy = entries(value, |value| one(Policy::from_value(value)))?,
        _ => {}
    }
    Ok(())
}

/// Sets the field of an attribute.
///
/// # Errors
/// The value has not its type.
pub fn set_group(group: &mut Group, name: &str, value: &Value) -> Result<(), String> {
    match name {
        "description" => group.description = text(value)?.ok_or_else(|| "must not be null".to_owned())?,
        "targets" => group.targets = texts(value)?.unwrap_or_default(),
        _ => {}
    }
    Ok(())
}

fn of_text(text: Option<&String>) -> Value {
    text.map_or(Value::Null(Type::String), Value::string)
}

fn of_texts(texts: Option<&Vec<String>>) -> Value {
    texts.map_or(Value::Null(Type::list(Type::String)), |texts| Value::strings(texts.iter().cloned()))
}

fn of_map(texts: &Texts) -> Value {
    if texts.is_empty() {
        return Value::Null(Type::map(Type::String));
    }
    let value = |(name, text): (&String, &Option<String>)| (name.clone(), of_text(text.as_ref()));
    Value::Map(Type::String, texts.iter().map(value).collect())
}

fn of_flag(flag: Option<bool>) -> Value {
    flag.map_or(Value::Null(Type::Bool), Value::Bool)
}

fn of_entries<T>(entries: Option<&Vec<T>>, element: Type, value: impl Fn(&T) -> Value) -> Value {
    Value::List(element, entries.into_iter().flatten().map(value).collect())
}

/// The target as a value, for expressions like `target.app.tags`.
pub fn target_value(target: &Target) -> Value {
    let map = Type::map(Type::String);
    let secret = Type::optional_object(&[("id", Type::String), ("src", Type::String), ("env", Type::String)]);
    let ssh = Type::optional_object(&[("id", Type::String), ("paths", Type::list(Type::String))]);
    let contexts: Texts =
        target.contexts.iter().map(|(name, context)| (name.clone(), Some(context.clone()))).collect();
    let fields = [
        ("name", Value::string(&target.name)),
        ("description", Value::string(&target.description)),
        ("inherits", of_texts(Some(&target.inherits))),
        ("annotations", of_texts(target.annotations.as_ref())),
        ("attest", of_entries(target.attest.as_ref(), map.clone(), Attest::to_value)),
        ("context", of_text(target.context.as_ref())),
        ("contexts", of_map(&contexts)),
        ("dockerfile", of_text(target.dockerfile.as_ref())),
        ("dockerfile-inline", of_text(target.dockerfile_inline.as_ref())),
        ("args", of_map(&target.args)),
        ("labels", of_map(&target.labels)),
        ("tags", of_texts(target.tags.as_ref())),
        ("cache-from", of_entries(target.cache_from.as_ref(), map.clone(), Cache::to_value)),
        ("cache-to", of_entries(target.cache_to.as_ref(), map.clone(), Cache::to_value)),
        ("target", of_text(target.target.as_ref())),
        ("secret", of_entries(target.secrets.as_ref(), secret, Secret::to_value)),
        ("ssh", of_entries(target.ssh.as_ref(), ssh, Ssh::to_value)),
        ("platforms", of_texts(target.platforms.as_ref())),
        ("output", of_entries(target.outputs.as_ref(), map.clone(), Export::to_value)),
        ("pull", of_flag(target.pull)),
        ("no-cache", of_flag(target.no_cache)),
        ("network", of_text(target.network.as_ref())),
        ("no-cache-filter", of_texts(target.no_cache_filter.as_ref())),
        ("shm-size", of_text(target.shm_size.as_ref())),
        ("ulimits", of_texts(target.ulimits.as_ref())),
        ("resources", target.resources.as_ref().map_or(Value::Null(Type::Dynamic), Resources::to_value)),
        ("call", of_text(target.call.as_ref())),
        ("entitlements", of_texts(target.entitlements.as_ref())),
        ("extra-hosts", of_map(&target.extra_hosts)),
        ("policy", of_entries(target.policy.as_ref(), map, Policy::to_value)),
    ];
    Value::Object(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

/// The group as a value, for expressions like `group.all.targets`.
pub fn group_value(group: &Group) -> Value {
    Value::Object(BTreeMap::from([
        ("name".to_owned(), Value::string(&group.name)),
        ("description".to_owned(), Value::string(&group.description)),
        ("targets".to_owned(), of_texts(Some(&group.targets))),
    ]))
}
