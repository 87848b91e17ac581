// SPDX-License-Identifier: Apache-2.0
//! What `--cache-from` and `--cache-to` say, and clients of BuildKit's API: a kind and attributes.

use std::collections::BTreeMap;

use polyarch_oci::Reference;
use polyarch_oci::media_type::{Compression, Flavour};

use crate::csv::split_csv;
use crate::error::{BuildError, ErrorKind};
use crate::remote_cache::{CacheExport, CacheMode, CacheSource, CacheTarget};

/// Where records come from or go to, as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CacheEntry {
    /// `registry`, `local`, `inline`…
    pub kind: String,
    /// What else is said about it.
    pub attributes: BTreeMap<String, String>,
}

/// What BuildKit knows besides; each needs a service of its own.
const ELSEWHERE: [&str; 3] = ["gha", "s3", "azblob"];

impl CacheEntry {
    /// Reads a value of `--cache-from` or `--cache-to`: `type=KIND[,KEY=VALUE…]`, or a name of an image for
    /// `type=registry,ref=NAME`.
    ///
    /// # Errors
    /// One sentence about what is wrong.
    pub fn parse(text: &str) -> Result<CacheEntry, String> {
        let fields = split_csv(text)?;
        if let [name] = fields.as_slice()
            && !name.contains('=')
        {
            // What Docker's documents write without a type.
            if name == "inline" {
                return Ok(CacheEntry { kind: name.clone(), attributes: BTreeMap::new() });
            }
            return Ok(CacheEntry::of_image(name));
        }
        let mut attributes = BTreeMap::new();
        for field in &fields {
            let (key, value) = field.split_once('=').ok_or_else(|| format!("invalid value {field}"))?;
            attributes.insert(key.trim().to_ascii_lowercase(), value.to_owned());
        }
        let kind = attributes.remove("type").ok_or_else(|| format!("type required form> {text:?}"))?;
        Ok(CacheEntry { kind, attributes })
    }

    /// Returns the entry of a name in a registry.
    pub fn of_image(name: &str) -> CacheEntry {
        let attributes = BTreeMap::from([("ref".to_owned(), name.to_owned())]);
        CacheEntry { kind: "registry".to_owned(), attributes }
    }

    /// Refuses attributes that say nothing here, misspelt ones for instance.
    ///
    /// # Errors
    /// The first of them, with those that the kind has.
    pub fn check_keys(&self, option: &str) -> Result<(), BuildError> {
        let is_export = option == "--cache-to";
        let known: &[&str] = match (self.kind.as_str(), is_export) {
            ("registry", false) => &["ref"],
            ("local", false) => &["src", "tag", "digest"],
            ("registry", true) => &[
                "ref",
                "mode",
                "ignore-error",
                "image-manifest",
                "oci-mediatypes",
                "compression",
                "compression-level",
            ],
            ("local", true) => &[
                "dest",
                "tag",
                "mode",
                "ignore-error",
                "image-manifest",
                "oci-mediatypes",
                "compression",
                "compression-level",
            ],
            ("inline", true) => &["mode", "ignore-error"],
            _ => return Ok(()),
        };
        match self.attributes.keys().find(|key| !known.contains(&key.as_str())) {
            None => Ok(()),
            Some(key) => {
                let hint = format!("type={} has {}", self.kind, known.join(", "));
                Err(self.wrong(option, &format!("{key} is unknown")).with_hint(hint))
            }
        }
    }

    /// Returns where records come from.
    ///
    /// # Errors
    /// What makes no sense.
    pub fn source(&self) -> Result<CacheSource, BuildError> {
        const OPTION: &str = "--cache-from";
        match self.kind.as_str() {
            "registry" => Ok(CacheSource::Registry(self.reference(OPTION)?)),
            "local" => {
                let digest = match self.attributes.get("digest").filter(|text| !text.is_empty()) {
                    Some(text) => Some(text.parse().map_err(|error: polyarch_oci::DigestError| {
                        self.wrong(OPTION, &error.to_string())
                    })?),
                    None => None,
                };
                let tag = self.attributes.get("tag").filter(|tag| !tag.is_empty()).cloned();
                Ok(CacheSource::Directory { path: self.needed(OPTION, "src")?.into(), tag, digest })
            }
            "inline" => Err(self
                .wrong(OPTION, "an image's own cache is read by the image's name")
                .with_hint("write --cache-from NAME, or type=registry,ref=NAME")),
            _ => Err(self.unavailable(OPTION)),
        }
    }

    /// Returns where records go, and which.
    ///
    /// # Errors
    /// What makes no sense.
    pub fn export(&self) -> Result<CacheExport, BuildError> {
        const OPTION: &str = "--cache-to";
        let target = match self.kind.as_str() {
            "registry" => CacheTarget::Registry(self.reference(OPTION)?),
            "local" => {
                let tag = self.attributes.get("tag").filter(|tag| !tag.is_empty());
                let tag = tag.map_or("latest", String::as_str).to_owned();
                CacheTarget::Directory { path: self.needed(OPTION, "dest")?.into(), tag }
            }
            "inline" => CacheTarget::Inline,
            _ => return Err(self.unavailable(OPTION)),
        };
        let wrong = |problem: String| self.wrong(OPTION, &problem);
        let mode = match self.attributes.get("mode").map(String::as_str) {
            None | Some("min" | "") => CacheMode::Min,
            Some("max") if target == CacheTarget::Inline => {
                return Err(wrong(
                    "mode=max is not available: an image holds the records of its own layers".into(),
                )
                .with_hint("write mode=min, or send all to a registry: type=registry,ref=NAME,mode=max"));
            }
            Some("max") => CacheMode::Max,
            Some(other) => return Err(wrong(format!("mode={other} is neither min nor max"))),
        };
        let flavour = match self.flag("oci-mediatypes")?.unwrap_or(true) {
            true => Flavour::Oci,
            false => Flavour::Docker,
        };
        if self.flag("image-manifest")? == Some(false) {
            let problem =
                "image-manifest=false is not available: registries take a cache as an image".to_owned();
            return Err(wrong(problem).with_hint("leave image-manifest out"));
        }
        let compression = match self.attributes.get("compression").filter(|word| !word.is_empty()) {
            None => None,
            Some(word) => Some(
                Compression::parse(word)
                    .ok_or_else(|| wrong(format!("unsupported compression type {word}")))?,
            ),
        };
        let compression_level = match self.attributes.get("compression-level").filter(|it| !it.is_empty()) {
            None => None,
            Some(text) => {
                let problem = || wrong(format!("compression-level={text} is not a number"));
                Some(text.parse().map_err(|_| problem())?)
            }
        };
        let ignores_errors = self.flag("ignore-error")?.unwrap_or(false);
        Ok(CacheExport { target, mode, ignores_errors, compression, compression_level, flavour })
    }

    fn flag(&self, key: &str) -> Result<Option<bool>, BuildError> {
        match self.attributes.get(key).map(String::as_str) {
            None => Ok(None),
            Some("true" | "1" | "True" | "TRUE" | "t" | "T") => Ok(Some(true)),
            Some("false" | "0" | "False" | "FALSE" | "f" | "F") => Ok(Some(false)),
            Some(other) => Err(self.wrong("--cache-to", &format!("{key}={other} is neither true nor false"))),
        }
    }

    fn reference(&self, option: &str) -> Result<Reference, BuildError> {
        let name = self.needed(option, "ref")?;
        let reference: Reference = name
            .parse()
            .map_err(|error: polyarch_oci::ReferenceError| self.wrong(option, &error.to_string()))?;
        Ok(reference.with_default_tag())
    }

    fn needed(&self, option: &str, key: &str) -> Result<&str, BuildError> {
        let value = self.attributes.get(key).filter(|value| !value.is_empty());
        value.map(String::as_str).ok_or_else(|| self.wrong(option, &format!("{key}= is missing")))
    }

    fn unavailable(&self, option: &str) -> BuildError {
        let problem = match ELSEWHERE.contains(&self.kind.as_str()) {
            true => "caches are not kept with this service in this version",
            false => "there is no such kind of cache",
        };
        let hint = match option {
            "--cache-to" => "there are type=registry,ref=NAME, type=local,dest=DIR and type=inline",
            _ => "there are type=registry,ref=NAME and type=local,src=DIR",
        };
        self.wrong(option, problem).with_hint(hint)
    }

    fn wrong(&self, option: &str, problem: &str) -> BuildError {
        BuildError::new(ErrorKind::Usage, format!("{option} type={}: {problem}", self.kind))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_names_or_lists() {
        let name = CacheEntry::parse("example.com/app:cache").unwrap();
        let reference: Reference = "example.com/app:cache".parse().unwrap();
        assert_eq!(name.source().unwrap(), CacheSource::Registry(reference.clone()));
        let text = "type=registry,ref=example.com/app:cache,mode=max,ignore-error=true,compression=zstd";
        let export = CacheEntry::parse(text).unwrap().export().unwrap();
        assert_eq!(export.target, CacheTarget::Registry(reference));
        assert_eq!((export.mode, export.ignores_errors), (CacheMode::Max, true));
        assert_eq!((export.compression, export.flavour), (Some(Compression::Zstd), Flavour::Oci));
        let directory = CacheEntry::parse("type=local,src=a/b,tag=x").unwrap().source().unwrap();
        let tag = Some("x".to_owned());
        assert_eq!(directory, CacheSource::Directory { path: "a/b".into(), tag, digest: None });
        let inline = CacheEntry::parse("type=inline").unwrap();
        assert_eq!(inline.export().unwrap().target, CacheTarget::Inline);
        assert_eq!(CacheEntry::parse("inline").unwrap(), inline);
        assert!(CacheEntry::parse("ref=example.com/app").is_err());
    }

    #[test]
    fn what_can_not_be_is_told() {
        for (text, problem) in [
            ("type=registry", "ref= is missing"),
            ("type=registry,ref=UPPER/case:x:y", "--cache-to type=registry"),
            ("type=local,dest=", "dest= is missing"),
            ("type=local,dest=a,mode=some", "mode=some is neither min nor max"),
            ("type=local,dest=a,image-manifest=false", "image-manifest=false is not available"),
            ("type=local,dest=a,compression=lzma", "unsupported compression type lzma"),
            ("type=local,dest=a,ignore-error=perhaps", "ignore-error=perhaps is neither true nor false"),
            ("type=inline,mode=max", "mode=max is not available"),
            ("type=gha", "not kept with this service"),
            ("type=tape", "there is no such kind of cache"),
        ] {
            let error = CacheEntry::parse(text).unwrap().export().unwrap_err().to_string();
            assert!(error.contains(problem), "{text}: {error}");
        }
        let s3 = CacheEntry::parse("type=s3,bucket=a").unwrap().source().unwrap_err();
        assert!(s3.hints[0].contains("type=registry,ref=NAME"), "{s3:?}");
        let misspelt = CacheEntry::parse("type=local,dest=a,compresion=x").unwrap();
        assert!(misspelt.check_keys("--cache-to").is_err());
        assert!(misspelt.export().is_ok(), "clients may say what is unknown here");
    }
}
