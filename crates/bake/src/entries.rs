// SPDX-License-Identifier: Apache-2.0
//! Values with a type and attributes: attestations, caches and outputs.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json};

use super::convert::convert;
use super::csv;
use super::value::{Type, Value};

/// Attributes by name.
pub type Attributes = BTreeMap<String, String>;

/// An attestation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attest {
    /// `sbom`, `provenance`.
    pub kind: String,
    /// Switched off.
    pub is_disabled: bool,
    /// The rest.
    pub attributes: Attributes,
}

/// A cache to read or to write.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cache {
    /// `registry`, `local`, …
    pub kind: String,
    /// The rest.
    pub attributes: Attributes,
}

/// What becomes of a result.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Export {
    /// `image`, `local`, …
    pub kind: String,
    /// Where it goes.
    pub destination: String,
    /// The rest.
    pub attributes: Attributes,
}

/// Joins pairs into one text, quoted where needed.
fn line(pairs: impl IntoIterator<Item = (String, String)>) -> String {
    let fields: Vec<String> = pairs.into_iter().map(|(key, value)| format!("{key}={value}")).collect();
    csv::join(&fields)
}

fn pair(key: &str, value: &str) -> Option<(String, String)> {
    (!value.is_empty()).then(|| (key.to_owned(), value.to_owned()))
}

fn text_map(value: &Value) -> Result<Attributes, String> {
    let converted = convert(value, &Type::map(Type::String))?;
    let Some(elements) = converted.attributes() else { return Ok(Attributes::new()) };
    let mut map = Attributes::new();
    for (name, value) in elements {
        match value {
            Value::String(text) => {
                map.insert(name.clone(), text.clone());
            }
            _ => return Err(format!("attribute {name:?} must not be null")),
        }
    }
    Ok(map)
}

fn map_value(pairs: impl IntoIterator<Item = (String, String)>) -> Value {
    Value::Map(Type::String, pairs.into_iter().map(|(key, value)| (key, Value::String(value))).collect())
}

fn object(attributes: &Attributes, more: &[(&str, Json)]) -> Json {
    let mut map: Map<String, Json> =
        attributes.iter().map(|(key, value)| (key.clone(), value.clone().into())).collect();
    map.extend(more.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
    Json::Object(map)
}

impl Attest {
    /// Reads `type=sbom,…`.
    ///
    /// # Errors
    /// A field that is no pair, or no type.
    pub fn parse(text: &str) -> Result<Attest, String> {
        let mut attest = Attest::default();
        for field in csv::fields(text, ',')? {
            let (key, value) = field.split_once('=').ok_or_else(|| format!("invalid value {field}"))?;
            match key.trim().to_lowercase().as_str() {
                "type" => attest.kind = value.to_owned(),
                "disabled" => {
                    attest.is_disabled = go_bool(value).ok_or_else(|| format!("invalid value {field}"))?;
                }
                _ => {
                    attest.attributes.insert(key.to_owned(), value.to_owned());
                }
            }
        }
        if attest.kind.is_empty() {
            return Err("attestation type not specified".to_owned());
        }
        Ok(attest)
    }

    pub(crate) fn from_value(value: &Value) -> Result<Attest, String> {
        if let Value::String(text) = value {
            return Attest::parse(text);
        }
        let mut attributes = text_map(value)?;
        let disabled = attributes.remove("disabled").unwrap_or_else(|| "false".to_owned());
        let is_disabled =
            go_bool(&disabled).ok_or_else(|| format!("invalid value {disabled:?} for disabled"))?;
        Ok(Attest { kind: attributes.remove("type").unwrap_or_default(), is_disabled, attributes })
    }

    fn pairs(&self) -> impl Iterator<Item = (String, String)> {
        let disabled = self.is_disabled.then(|| ("disabled".to_owned(), "true".to_owned()));
        pair("type", &self.kind).into_iter().chain(disabled).chain(self.attributes.clone())
    }

    pub(crate) fn to_value(&self) -> Value {
        map_value(self.pairs())
    }

    pub(crate) fn to_json(&self) -> Json {
        let mut more = vec![("type", Json::from(self.kind.as_str()))];
        if self.is_disabled {
            more.push(("disabled", true.into()));
        }
        object(&self.attributes, &more)
    }

    /// The attestation as one text, as flags have it.
    pub fn text(&self) -> String {
        line(self.pairs())
    }
}

impl Cache {
    /// Reads `type=registry,ref=…`, or names of images.
    ///
    /// # Errors
    /// A field that is no pair, or no type.
    pub fn parse(text: &str) -> Result<Vec<Cache>, String> {
        let fields = csv::fields(text, ',')?;
        if !text.contains('=') {
            let by_name = |name: String| Cache {
                kind: "registry".to_owned(),
                attributes: Attributes::from([("ref".to_owned(), name)]),
            };
            return Ok(fields.into_iter().map(by_name).collect());
        }
        let mut cache = Cache::default();
        for field in fields {
            let (key, value) = field.split_once('=').ok_or_else(|| format!("invalid value {field}"))?;
            match key.to_lowercase().as_str() {
                "type" => cache.kind = value.to_owned(),
                key => {
                    cache.attributes.insert(key.to_owned(), value.to_owned());
                }
            }
        }
        if cache.kind.is_empty() {
            return Err(format!("type required for {text:?}"));
        }
        Ok(vec![cache])
    }

    pub(crate) fn from_value(value: &Value) -> Result<Vec<Cache>, String> {
        if let Value::String(text) = value {
            return Cache::parse(text);
        }
        let mut attributes = text_map(value)?;
        match attributes.remove("type").filter(|kind| !kind.is_empty()) {
            Some(kind) => Ok(vec![Cache { kind, attributes }]),
            None => Err(format!("type required for {:?}", value.to_string())),
        }
    }

    fn pairs(&self) -> impl Iterator<Item = (String, String)> {
        pair("type", &self.kind).into_iter().chain(self.attributes.clone())
    }

    pub(crate) fn to_value(&self) -> Value {
        map_value(self.pairs())
    }

    pub(crate) fn to_json(&self) -> Json {
        object(&self.attributes, &[("type", self.kind.as_str().into())])
    }

    /// The cache as one text, as flags have it.
    pub fn text(&self) -> String {
        line(self.pairs())
    }
}

impl Export {
    /// Reads `type=local,dest=…`, or a directory.
    ///
    /// # Errors
    /// A field that is no pair, or no type.
    pub fn parse(text: &str) -> Result<Export, String> {
        let fields = csv::fields(text, ',')?;
        if let [only] = fields.as_slice()
            && only == text
            && !text.starts_with("type=")
        {
            let kind = if text == "-" { "tar" } else { "local" };
            return Ok(Export { kind: kind.to_owned(), destination: text.to_owned(), ..Export::default() });
        }
        let mut export = Export::default();
        for field in fields {
            let (key, value) = field.split_once('=').ok_or_else(|| format!("invalid value {field}"))?;
            match key.to_lowercase().trim() {
                "type" => export.kind = value.to_owned(),
                "dest" => export.destination = value.to_owned(),
                key => {
                    export.attributes.insert(key.to_owned(), value.to_owned());
                }
            }
        }
        export.checked()
    }

    fn checked(self) -> Result<Export, String> {
        if self.kind.is_empty() {
            return Err("type is required for output".to_owned());
        }
        Ok(self)
    }

    pub(crate) fn from_value(value: &Value) -> Result<Export, String> {
        if let Value::String(text) = value {
            return Export::parse(text);
        }
        let mut attributes = text_map(value)?;
        let kind = attributes.remove("type").unwrap_or_default();
        let destination = attributes.remove("dest").unwrap_or_default();
        Export { kind, destination, attributes }.checked()
    }

    pub(crate) fn to_value(&self) -> Value {
        let fixed = [("type", &self.kind), ("dest", &self.destination)];
        map_value(
            fixed
                .into_iter()
                .map(|(key, value)| (key.to_owned(), value.clone()))
                .chain(self.attributes.clone()),
        )
    }

    pub(crate) fn to_json(&self) -> Json {
        let mut more = vec![("type", Json::from(self.kind.as_str()))];
        if !self.destination.is_empty() {
            more.push(("dest", self.destination.as_str().into()));
        }
        object(&self.attributes, &more)
    }

    /// The output as one text, as flags have it.
    pub fn text(&self) -> String {
        let pairs = pair("type", &self.kind).into_iter().chain(pair("dest", &self.destination));
        line(pairs.chain(self.attributes.clone()))
    }
}

/// Reads a truth value as Go does.
pub(crate) fn go_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Takes out doubles: the later one stays, and the last entry fills the gap, as buildx has it.
pub(crate) fn without_doubles<T: PartialEq>(entries: &mut Vec<T>) {
    for at in (0..entries.len().saturating_sub(1)).rev() {
        if let Some(double) = (at + 1..entries.len()).find(|other| entries[*other] == entries[at]) {
            entries.swap_remove(double);
        }
    }
}

/// Replaces entries by later ones of the same key.
pub(crate) fn without_replaced<T>(entries: Vec<T>, key: impl Fn(&T) -> &str) -> Vec<T> {
    let mut kept: Vec<T> = Vec::new();
    for entry in entries {
        match kept.iter().position(|other| key(other) == key(&entry)) {
            Some(at) => kept[at] = entry,
            None => kept.push(entry),
        }
    }
    kept
}
