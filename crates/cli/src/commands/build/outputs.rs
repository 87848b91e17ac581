// SPDX-License-Identifier: Apache-2.0
//! The values of `--output`: what becomes of a build's result.
//!
//! The form is buildx's: `type=TYPE,key=value,…` as CSV, a bare path for the file tree, `-` for the file
//! tree as tar on standard output.

use std::path::{Path, PathBuf};

use polyarch_build::request::{Destination, ImageOptions, Output};
use polyarch_oci::Reference;
use polyarch_oci::media_type::{Compression, Flavour};

use super::super::flag_values::{go_bool, split_csv, unknown};
use crate::{CommandError, Environment};

const TYPES: [&str; 7] = ["image", "registry", "oci", "docker", "local", "tar", "cacheonly"];
const IMAGE_KEYS: [&str; 14] = [
    "name",
    "push",
    "push-by-digest",
    "name-canonical",
    "unpack",
    "store",
    "oci-mediatypes",
    "compression",
    "compression-level",
    "force-compression",
    "rewrite-timestamp",
    "oci-artifact",
    "annotation.KEY",
    "annotation-index.KEY",
];

/// One parsed value of `--output`.
#[derive(Debug, Clone, PartialEq)]
pub struct OutputSpec {
    /// The output.
    pub output: Output,
    /// Names that the value gives to the image.
    pub names: Vec<Reference>,
    /// What it says of image blobs.
    pub image: ImageEdits,
}

/// Changes to [`ImageOptions`]; `None` where nothing was said.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ImageEdits {
    flavour: Option<Flavour>,
    compression: Option<Compression>,
    compression_level: Option<i32>,
    force_compression: Option<bool>,
    keeps_layer_times: Option<bool>,
    attestations_as_artifacts: Option<bool>,
    attestation_prefix: Option<String>,
    manifest_annotations: Vec<(String, String)>,
    index_annotations: Vec<(String, String)>,
}

/// Parses one value of `--output`.
///
/// # Errors
/// When it makes no sense, in one sentence with the value.
pub fn parse_output(text: &str, environment: &Environment) -> Result<OutputSpec, CommandError> {
    parse(text, environment).map_err(|problem| CommandError::usage(format!("--output {text:?}: {problem}")))
}

fn parse(text: &str, environment: &Environment) -> Result<OutputSpec, String> {
    let fields = split_csv(text)?;
    if let [only] = &fields[..]
        && !["type=", "dest="].iter().any(|key| only.starts_with(key))
    {
        let output = match only.as_str() {
            "" => return Err("the value is empty".to_owned()),
            "-" => Output::Tar { destination: stdout(environment)?, platform_split: None },
            path => Output::Local { destination: environment.resolve(Path::new(path)), platform_split: None },
        };
        return Ok(OutputSpec { output, names: Vec::new(), image: ImageEdits::default() });
    }
    let mut pairs = Vec::new();
    for field in &fields {
        let Some((key, value)) = field.split_once('=') else {
            return Err(format!("{field:?} is not key=value"));
        };
        pairs.push((key.trim().to_ascii_lowercase(), value));
    }
    let kind = pairs.iter().find(|(key, _)| key == "type").map(|(_, value)| *value);
    let kind = kind.ok_or("type is missing")?;
    Builder::new(kind, environment).build(&pairs)
}

/// Collects the keys of a value.
struct Builder<'a> {
    kind: &'a str,
    environment: &'a Environment,
    destination: Option<&'a str>,
    push: Option<bool>,
    by_digest: bool,
    is_tar: Option<bool>,
    platform_split: Option<bool>,
    names: Vec<Reference>,
    image: ImageEdits,
}

impl<'a> Builder<'a> {
    fn new(kind: &'a str, environment: &'a Environment) -> Builder<'a> {
        Builder {
            kind,
            environment,
            destination: None,
            push: None,
            by_digest: false,
            is_tar: None,
            platform_split: None,
            names: Vec::new(),
            image: ImageEdits::default(),
        }
    }

    fn build(mut self, pairs: &[(String, &'a str)]) -> Result<OutputSpec, String> {
        if !TYPES.contains(&self.kind) {
            return Err(unknown("type", self.kind, &TYPES));
        }
        let is_image = matches!(self.kind, "image" | "registry" | "oci" | "docker");
        for (key, value) in pairs {
            let is_taken = match &**key {
                "type" => true,
                "dest" if !matches!(self.kind, "image" | "registry" | "cacheonly") => {
                    self.destination = Some(*value);
                    true
                }
                "tar" if matches!(self.kind, "oci" | "docker") => {
                    self.is_tar = Some(bool_value(key, value)?);
                    true
                }
                "platform-split" if matches!(self.kind, "local" | "tar") => {
                    self.platform_split = Some(bool_value(key, value)?);
                    true
                }
                "attestation-prefix" if matches!(self.kind, "local" | "tar") => {
                    self.image.attestation_prefix = Some((*value).to_owned());
                    true
                }
                "mode" if self.kind == "local" => {
                    if *value != "copy" {
                        return Err("only mode=copy is available in this version".to_owned());
                    }
                    true
                }
                key => is_image && self.image_key(key, value)?,
            };
            if !is_taken {
                return Err(unknown("key", key, &self.known_keys()));
            }
        }
        let output = self.output()?;
        Ok(OutputSpec { output, names: self.names, image: self.image })
    }

    /// Takes a key of the image types; returns whether there is such a key.
    fn image_key(&mut self, key: &str, value: &str) -> Result<bool, String> {
        let is_store = matches!(self.kind, "image" | "registry");
        match key {
            "name" => {
                for name in value.split(',').map(str::trim).filter(|name| !name.is_empty()) {
                    self.names.push(parse_tag(name)?);
                }
            }
            "push" if is_store => self.push = Some(bool_value(key, value)?),
            "push-by-digest" if is_store => self.by_digest = bool_value(key, value)?,
            // What these ask for is so in any case, or has no meaning without a daemon.
            "unpack" | "store" | "name-canonical" if is_store => drop(bool_value(key, value)?),
            "buildinfo" => drop(bool_value(key, value)?),
            "rewrite-timestamp" => self.image.keeps_layer_times = Some(!bool_value(key, value)?),
            "oci-mediatypes" => {
                let is_oci = bool_value(key, value)?;
                self.image.flavour = Some(if is_oci { Flavour::Oci } else { Flavour::Docker });
            }
            "compression" => {
                let known = ["uncompressed", "gzip", "zstd"];
                let compression = Compression::parse(value).ok_or_else(|| unknown(key, value, &known))?;
                self.image.compression = Some(compression);
            }
            "compression-level" => {
                let level = value.parse().map_err(|_| format!("{key}={value} is not a number"))?;
                self.image.compression_level = Some(level);
            }
            "oci-artifact" => self.image.attestations_as_artifacts = Some(bool_value(key, value)?),
            "force-compression" => self.image.force_compression = Some(bool_value(key, value)?),
            "registry.insecure" => {
                return Err("say it in the configuration file: [registry.\"HOST\"] with insecure = true \
                            or http = true"
                    .to_owned());
            }
            _ => return self.annotation(key, value),
        }
        Ok(true)
    }

    fn annotation(&mut self, key: &str, value: &str) -> Result<bool, String> {
        let Some((kind, name)) = key.split_once('.') else { return Ok(false) };
        let list = match kind {
            "annotation" | "annotation-manifest" => &mut self.image.manifest_annotations,
            "annotation-index" => &mut self.image.index_annotations,
            _ if kind.starts_with("annotation") => {
                return Err(format!(
                    "{kind}: annotations are available for manifests of all platforms and for the index"
                ));
            }
            _ => return Ok(false),
        };
        list.push((name.to_owned(), value.to_owned()));
        Ok(true)
    }

    fn output(&self) -> Result<Output, String> {
        Ok(match self.kind {
            "image" | "registry" => Output::Image {
                push: self.push.unwrap_or(self.kind == "registry"),
                by_digest: self.by_digest,
            },
            "oci" => {
                let tar = self.is_tar.unwrap_or(true);
                if !tar && self.path().is_none() {
                    return Err("a directory needs dest=DIR".to_owned());
                }
                Output::Oci { destination: self.destination()?, tar }
            }
            "docker" => {
                if self.is_tar == Some(false) {
                    return Err(
                        "only an archive is available; type=oci,tar=false writes a directory".to_owned()
                    );
                }
                let destination = self.destination.map(|_| self.destination()).transpose()?;
                Output::Docker { destination }
            }
            "local" => match self.path() {
                Some(destination) => Output::Local { destination, platform_split: self.platform_split },
                None => return Err("dest=DIR is needed".to_owned()),
            },
            "tar" => Output::Tar { destination: self.destination()?, platform_split: self.platform_split },
            _ => Output::CacheOnly,
        })
    }

    fn path(&self) -> Option<PathBuf> {
        let path = self.destination.filter(|path| !matches!(*path, "" | "-"))?;
        Some(self.environment.resolve(Path::new(path)))
    }

    fn destination(&self) -> Result<Destination, String> {
        match self.path() {
            Some(path) => Ok(Destination::Path(path)),
            None => stdout(self.environment),
        }
    }

    fn known_keys(&self) -> Vec<&'static str> {
        match self.kind {
            "local" | "tar" => vec!["type", "dest", "platform-split", "attestation-prefix"],
            "cacheonly" => vec!["type"],
            "oci" | "docker" => [&["type", "dest", "tar"], &IMAGE_KEYS[..]].concat(),
            _ => [&["type"], &IMAGE_KEYS[..]].concat(),
        }
    }
}

/// Standard output, unless a person looks at it.
fn stdout(environment: &Environment) -> Result<Destination, String> {
    if environment.stdout_is_terminal {
        return Err("standard output is a terminal; redirect it, or give dest=FILE".to_owned());
    }
    Ok(Destination::Stdout)
}

fn bool_value(key: &str, value: &str) -> Result<bool, String> {
    go_bool(value).map_err(|problem| format!("{key}={value}: {problem}"))
}

/// Reads a name for an image; without a tag it is `latest`.
pub fn parse_tag(text: &str) -> Result<Reference, String> {
    let name: Reference = text.parse().map_err(|error| polyarch_build::error::chain_of(&error))?;
    if name.digest().is_some() {
        return Err(format!("{text:?} has a digest; a name for a result can't have one"));
    }
    Ok(name.with_default_tag())
}

impl ImageEdits {
    /// Applies the changes of one output; `None` where another output has said something else.
    pub fn apply(self, others: &mut ImageEdits, options: &mut ImageOptions) -> Result<(), CommandError> {
        fn set<T: PartialEq + Copy>(
            name: &str,
            known: &mut Option<T>,
            wanted: Option<T>,
            option: &mut T,
        ) -> Result<(), CommandError> {
            let Some(wanted) = wanted else { return Ok(()) };
            if known.is_some_and(|known| known != wanted) {
                return Err(CommandError::usage(format!(
                    "--output: {name} must be the same for all outputs of one build"
                )));
            }
            *known = Some(wanted);
            *option = wanted;
            Ok(())
        }
        set("oci-mediatypes", &mut others.flavour, self.flavour, &mut options.flavour)?;
        set("compression", &mut others.compression, self.compression, &mut options.compression)?;
        set(
            "force-compression",
            &mut others.force_compression,
            self.force_compression,
            &mut options.force_compression,
        )?;
        set(
            "rewrite-timestamp",
            &mut others.keeps_layer_times,
            self.keeps_layer_times,
            &mut options.keeps_layer_times,
        )?;
        set(
            "oci-artifact",
            &mut others.attestations_as_artifacts,
            self.attestations_as_artifacts,
            &mut options.attestations_as_artifacts,
        )?;
        if let Some(prefix) = self.attestation_prefix {
            if others.attestation_prefix.as_ref().is_some_and(|known| *known != prefix) {
                return Err(CommandError::usage(
                    "--output: attestation-prefix must be the same for all outputs of one build",
                ));
            }
            options.attestation_prefix.clone_from(&prefix);
            others.attestation_prefix = Some(prefix);
        }
        let mut level = options.compression_level.unwrap_or_default();
        set("compression-level", &mut others.compression_level, self.compression_level, &mut level)?;
        options.compression_level = others.compression_level;
        options.manifest_annotations.extend(self.manifest_annotations);
        options.index_annotations.extend(self.index_annotations);
        Ok(())
    }
}
