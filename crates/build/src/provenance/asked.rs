// SPDX-License-Identifier: Apache-2.0
//! A request as provenance tells it: the frontend, its arguments, where the Dockerfile was found, and the same
//! of the builds whose results it took in.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::materials::Material;
use crate::attest::ToldRequest;
use crate::remote::GitReference;
use crate::remote::redacted;

/// A request, told.
#[derive(Debug, PartialEq)]
pub(super) struct Told {
    frontend: String,
    arguments: BTreeMap<String, String>,
    inputs: Map<String, Value>,
    /// Where the Dockerfile was found: `uri` and `digest`.
    pub(super) source: Map<String, Value>,
    /// The name of the Dockerfile there.
    pub(super) path: Option<String>,
}

impl Told {
    /// Tells a request of its arguments, without those that are not told.
    pub(super) fn new(
        frontend: &str,
        arguments: &BTreeMap<String, String>,
        materials: &[Material],
        inputs: &BTreeMap<String, ToldRequest>,
    ) -> Told {
        let mut arguments = arguments.clone();
        let source = take_source(&mut arguments, materials);
        let path = arguments.remove("filename").filter(|path| !path.is_empty());
        let inputs = inputs.iter().map(|(name, told)| (name.clone(), told.0.clone())).collect();
        Told { frontend: frontend.to_owned(), arguments, inputs, source, path }
    }

    /// Tells whether nothing was asked.
    pub(super) fn is_empty(&self) -> bool {
        self.frontend.is_empty() && self.arguments.is_empty() && self.inputs.is_empty()
    }

    /// Takes out what tells of the version control of the sources.
    pub(super) fn take_vcs(&mut self) -> BTreeMap<String, String> {
        let mut vcs = BTreeMap::new();
        self.arguments.retain(|key, value| {
            let Some(word) = key.strip_prefix("vcs:") else { return true };
            if !value.is_empty() {
                vcs.insert(word.to_owned(), std::mem::take(value));
            }
            false
        });
        vcs
    }

    /// Returns the frontend, its arguments and its inputs.
    pub(super) fn request(&self) -> Map<String, Value> {
        let mut request = Map::new();
        if !self.frontend.is_empty() {
            request.insert("frontend".to_owned(), self.frontend.clone().into());
        }
        if !self.arguments.is_empty() {
            request.insert("args".to_owned(), json!(self.arguments));
        }
        if !self.inputs.is_empty() {
            request.insert("inputs".to_owned(), self.inputs.clone().into());
        }
        request
    }

    /// Returns all of it, as it stands within another request.
    pub(super) fn value(&self) -> Value {
        let mut source = self.source.clone();
        source.extend(self.path.clone().map(|path| ("path".to_owned(), path.into())));
        json!({ "configSource": source, "request": self.request() })
    }
}

/// Takes the context out of the arguments where it is remote: where the Dockerfile was found.
fn take_source(arguments: &mut BTreeMap<String, String>, materials: &[Material]) -> Map<String, Value> {
    let key = match arguments.get("contextkey").filter(|key| !key.is_empty()) {
        Some(key) => key.clone(),
        None if arguments.get("input:context").is_some_and(|it| !it.is_empty()) => "input:context".to_owned(),
        None => "context".to_owned(),
    };
    let mut source = Map::new();
    let Some(context) = arguments.remove(&key).filter(|context| !context.is_empty()) else { return source };
    let found = materials.iter().find_map(|material| material.digest_at(&context));
    let repository = found.as_ref().and_then(|_| GitReference::parse(&context).ok().flatten());
    let uri = repository.map_or(context, |repository| repository.with_fragment(true));
    source.insert("uri".to_owned(), redacted(&uri).into());
    source.extend(found.map(|digest| ("digest".to_owned(), json!(digest))));
    source
}

/// Leaves out of a request, and of those within it, what could be private; tells whether there was nothing.
pub(super) fn scrub(request: &mut Map<String, Value>) -> bool {
    let mut is_whole = true;
    if let Some(Value::Object(arguments)) = request.get_mut("args") {
        let count = arguments.len();
        arguments.retain(|key, _| !key.starts_with("build-arg:") && !key.starts_with("label:"));
        is_whole = arguments.len() == count;
        if arguments.is_empty() {
            request.remove("args");
        }
    }
    request.remove("secrets");
    request.remove("ssh");
    let within = |told: &mut Value| match told.get_mut("request") {
        Some(Value::Object(request)) => scrub(request),
        _ => true,
    };
    if let Some(Value::Object(inputs)) = request.get_mut("inputs") {
        for input in inputs.values_mut() {
            is_whole &= within(input);
        }
    }
    is_whole &= request.get_mut("root").is_none_or(within);
    is_whole
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_repository_tells_where_the_dockerfile_was() {
        let commit = "a".repeat(40);
        let url = "https://xxxxx@e.example/r.git";
        let found = Material::Git { url: format!("{url}#refs/tags/v1"), commit: commit.clone() };
        let asked =
            arguments(&[("context", &format!("{url}?tag=v1&subdir=src")), ("filename", "My.Dockerfile")]);
        let told = Told::new("dockerfile.v0", &asked, &[found], &BTreeMap::new());
        assert_eq!(told.source["digest"]["sha1"], commit);
        assert_eq!(told.source["uri"], format!("{url}#refs/tags/v1:src"));
        assert_eq!(told.path.as_deref(), Some("My.Dockerfile"));
        assert_eq!(told.request().keys().collect::<Vec<_>>(), ["frontend"]);
    }

    #[test]
    fn what_could_be_private_is_left_out_at_every_depth() {
        let asked = arguments(&[("build-arg:A", "1"), ("target", "t")]);
        let inner = ToldRequest(Told::new("dockerfile.v0", &asked, &[], &BTreeMap::new()).value());
        let outer =
            Told::new("dockerfile.v0", &BTreeMap::new(), &[], &BTreeMap::from([("in".into(), inner)]));
        let mut request = outer.request();
        assert!(!scrub(&mut request));
        let args = &request["inputs"]["in"]["request"]["args"];
        assert_eq!(*args, json!({ "target": "t" }));
        assert!(scrub(&mut request));
    }
}
