// SPDX-License-Identifier: Apache-2.0
//! The files that tell other programs what was built: `--metadata-file` and `--iidfile`.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;

use polyarch_build::attest::{ProvenanceOptions, SlsaVersion};
use polyarch_build::{BuildError, BuildResult, PlatformResult};
use polyarch_oci::{Descriptor, Digest};
use serde::Serialize;
use serde_json::Value;

use super::super::flag_values::go_bool;
use super::summary::execution;
use crate::{CommandError, Environment};

/// How much of the provenance the metadata tells, by `BUILDX_METADATA_PROVENANCE`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MetadataProvenance {
    /// Nothing.
    Disabled,
    /// What was asked and taken in.
    #[default]
    Min,
    /// The steps and the run, too.
    Max,
}

impl MetadataProvenance {
    /// Reads the variable; what makes no sense is `min`, as in buildx.
    pub fn from_environment(environment: &Environment) -> MetadataProvenance {
        match environment.text("BUILDX_METADATA_PROVENANCE") {
            Some("max") => MetadataProvenance::Max,
            Some("disabled") => MetadataProvenance::Disabled,
            Some(word) if go_bool(word) == Ok(false) => MetadataProvenance::Disabled,
            _ => MetadataProvenance::Min,
        }
    }
}

/// The keys of buildx in their order, then our own.
#[derive(Serialize)]
struct Metadata<'a> {
    #[serde(flatten)]
    provenance: BTreeMap<String, Value>,
    #[serde(rename = "containerimage.config.digest", skip_serializing_if = "Option::is_none")]
    config: Option<&'a Digest>,
    #[serde(rename = "containerimage.descriptor", skip_serializing_if = "Option::is_none")]
    descriptor: Option<&'a Descriptor>,
    #[serde(rename = "containerimage.digest", skip_serializing_if = "Option::is_none")]
    digest: Option<&'a Digest>,
    #[serde(rename = "image.name", skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(rename = "polyarch.platforms")]
    platforms: Vec<Platform<'a>>,
}

#[derive(Serialize)]
struct Platform<'a> {
    platform: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<&'a Digest>,
    size: u64,
    execution: String,
}

/// Writes the content of `--metadata-file`.
pub fn render(result: &BuildResult, mode: MetadataProvenance) -> String {
    let names: Vec<String> = result.names.iter().map(ToString::to_string).collect();
    let metadata = Metadata {
        provenance: provenance(result, mode),
        config: only_platform(result).and_then(|platform| platform.config.as_ref()),
        descriptor: result.root.as_ref(),
        digest: result.root.as_ref().map(|root| &root.digest),
        name: names.join(","),
        platforms: result
            .platforms
            .iter()
            .map(|platform| Platform {
                platform: platform.platform.to_string(),
                digest: platform.manifest.as_ref().map(|manifest| &manifest.digest),
                size: platform.size_bytes,
                execution: execution(&platform.execution),
            })
            .collect(),
    };
    let text = serde_json::to_string_pretty(&metadata).expect("strings, digests and numbers are always JSON");
    text + "\n"
}

/// Returns the keys that tell how each platform was built, in the form that buildx writes.
fn provenance(result: &BuildResult, mode: MetadataProvenance) -> BTreeMap<String, Value> {
    if mode == MetadataProvenance::Disabled || result.provenance.len() != result.platforms.len() {
        return BTreeMap::new();
    }
    let options = ProvenanceOptions { version: SlsaVersion::V02, ..ProvenanceOptions::default() };
    let told = result.platforms.iter().zip(&result.provenance).map(|(platform, provenance)| {
        let mut predicate = provenance.predicate(&options);
        if let (MetadataProvenance::Min, Some(fields)) = (mode, predicate.as_object_mut()) {
            fields.remove("buildConfig");
            fields.remove("metadata");
        }
        let key = match result.platforms.len() {
            1 => "buildx.build.provenance".to_owned(),
            _ => format!("buildx.build.provenance/{}", platform.platform),
        };
        (key, predicate)
    });
    told.collect()
}

/// Returns the content of `--iidfile`: the config's digest of one platform, the index's of several.
pub fn image_id(result: &BuildResult) -> Option<String> {
    let config = only_platform(result).and_then(|platform| platform.config.as_ref());
    config.or(result.root.as_ref().map(|root| &root.digest)).map(ToString::to_string)
}

fn only_platform(result: &BuildResult) -> Option<&PlatformResult> {
    match &result.platforms[..] {
        [only] => Some(only),
        _ => None,
    }
}

/// Writes a file at once and entirely; what is no regular file, such as a pipe, is written into.
pub fn write_file(path: &Path, content: &[u8]) -> Result<(), CommandError> {
    let write = |error: std::io::Error| BuildError::io("can't write", path, &error);
    Ok(polyarch_build::write_file(path, |out| out.write_all(content).map_err(write))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::build::summary::tests::result;

    #[test]
    fn metadata_of_several_platforms_has_no_config() {
        insta::assert_snapshot!(render(&result(), MetadataProvenance::Min), @r#"
        {
          "containerimage.descriptor": {
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "digest": "sha256:1bc04b5291c26a46d918139138b992d2de976d6851d0893b0476b85bfbdfc6e6",
            "size": 700
          },
          "containerimage.digest": "sha256:1bc04b5291c26a46d918139138b992d2de976d6851d0893b0476b85bfbdfc6e6",
          "image.name": "docker.io/user/app:v1,r.example/app:v1",
          "polyarch.platforms": [
            {
              "platform": "linux/amd64",
              "digest": "sha256:baf0239e48ff4c47ebac3ba02b5cf1506b69cd5a0c0d0c825a53ba65976fb942",
              "size": 12345678,
              "execution": "native"
            },
            {
              "platform": "linux/arm64",
              "digest": "sha256:b3e3ab55f887c56c0bd8bec3743b0fb54daaa17861e03db5133ef2835eb0da5a",
              "size": 12345678,
              "execution": "emulated (qemu-aarch64 7.2.22)"
            },
            {
              "platform": "linux/arm/v7",
              "digest": "sha256:35df9beb9b1c4fe630707bc51e4360b94b506b4e6d5372d5d0d52a385350621b",
              "size": 12345678,
              "execution": "cached"
            }
          ]
        }
        "#);
        assert_eq!(image_id(&result()), Some(result().root.unwrap().digest.to_string()));
    }

    #[test]
    fn the_id_of_one_platform_is_its_config() {
        let mut one = result();
        one.platforms.truncate(1);
        assert_eq!(image_id(&one), Some(Digest::of("config").to_string()));
        assert!(render(&one, MetadataProvenance::Min).contains("containerimage.config.digest"));
        one.platforms[0].config = None;
        one.root = None;
        assert_eq!(image_id(&one), None);
    }

    #[test]
    fn files_are_replaced_and_devices_written_into() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, "something longer").unwrap();
        write_file(&path, b"short").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"short");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
        write_file(Path::new("/dev/null"), b"x").unwrap();
        assert!(write_file(&directory.path().join("none/file"), b"x").is_err());
    }
}
