// SPDX-License-Identifier: Apache-2.0
//! The image config (image-spec, config.md) with Docker's additions.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{DiffId, Platform};

/// The largest image config that is read, in bytes.
pub const MAX_CONFIG_BYTES: u64 = 8 << 20;

/// What an image is and how it runs.
///
/// Written with keys in alphabetical order, as BuildKit does; unknown fields are kept.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ImageConfig {
    /// The CPU architecture, Go's name.
    #[serde(default)]
    pub architecture: String,
    /// Who made the image.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub author: String,
    /// How the image runs.
    #[serde(default)]
    pub config: ContainerConfig,
    /// When the image was made, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// How each layer came to be, lowest first, with entries that made no layer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<History>,
    /// The operating system, Go's name.
    #[serde(default)]
    pub os: String,
    /// Features of the operating system that the image needs.
    #[serde(rename = "os.features", default, skip_serializing_if = "Vec::is_empty")]
    pub os_features: Vec<String>,
    /// The version of the operating system that the image needs.
    #[serde(rename = "os.version", default, skip_serializing_if = "String::is_empty")]
    pub os_version: String,
    /// The layers.
    #[serde(default)]
    pub rootfs: RootFs,
    /// The variant of the architecture.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub variant: String,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub rest: BTreeMap<String, serde_json::Value>,
}

impl ImageConfig {
    /// Returns the platform that the config declares, normalized.
    pub fn platform(&self) -> Platform {
        Platform {
            os: self.os.clone(),
            architecture: self.architecture.clone(),
            variant: self.variant.clone(),
            os_version: self.os_version.clone(),
            os_features: self.os_features.clone(),
        }
        .normalized()
    }

    /// Declares the config to be of a platform; version and features of its system stay when the platform
    /// has none.
    pub fn set_platform(&mut self, platform: &Platform) {
        let is_same = self.os == platform.os && self.architecture == platform.architecture;
        if !is_same || !platform.os_version.is_empty() {
            self.os_version = platform.os_version.clone();
        }
        if !is_same || !platform.os_features.is_empty() {
            self.os_features = platform.os_features.clone();
        }
        self.os = platform.os.clone();
        self.architecture = platform.architecture.clone();
        self.variant = platform.variant.clone();
    }
}

/// The layers of an image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The diff ids, lowest first.
    #[serde(default, deserialize_with = "null_as_default")]
    pub diff_ids: Vec<DiffId>,
}

impl Default for RootFs {
    fn default() -> RootFs {
        RootFs { kind: "layers".to_owned(), diff_ids: Vec::new() }
    }
}

/// How one layer, or one change of the config, came to be.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct History {
    /// When, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// By which instruction.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub created_by: String,
    /// By whom.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub author: String,
    /// A remark; builders put their name here.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
    /// True when the entry made no layer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub rest: BTreeMap<String, serde_json::Value>,
}

/// The execution parameters (image-spec, config.md, `config`), fields in alphabetical order.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ContainerConfig {
    /// Docker on Windows: the command line is already escaped.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub args_escaped: bool,
    /// Default arguments.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Vec<String>>,
    /// The program, before the arguments.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// The environment, `NAME=value`, in order.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    pub env: Vec<String>,
    /// Ports, `80/tcp`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_as_default")]
    pub exposed_ports: BTreeMap<String, Empty>,
    /// How to find out whether the container is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// Labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_as_default")]
    pub labels: BTreeMap<String, String>,
    /// Instructions for images built on this one.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    pub on_build: Vec<String>,
    /// The shell of shell-form instructions.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    pub shell: Vec<String>,
    /// The signal that asks the container to stop.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
    /// The user, `name|uid[:group|gid]`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// Paths whose content lives outside the image.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_as_default")]
    pub volumes: BTreeMap<String, Empty>,
    /// The working directory.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub rest: BTreeMap<String, serde_json::Value>,
}

/// The empty object that Docker uses as the value of sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Empty {}

/// How to find out whether a container is well; durations are nanoseconds, 0 means inherited.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Healthcheck {
    /// `["NONE"]`, `["CMD", …]` or `["CMD-SHELL", command]`.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    pub test: Vec<String>,
    /// Time between two checks.
    #[serde(skip_serializing_if = "is_zero")]
    pub interval: i64,
    /// Time after which a check has failed.
    #[serde(skip_serializing_if = "is_zero")]
    pub timeout: i64,
    /// Time in which failures do not count.
    #[serde(skip_serializing_if = "is_zero")]
    pub start_period: i64,
    /// Time between two checks while starting.
    #[serde(skip_serializing_if = "is_zero")]
    pub start_interval: i64,
    /// Failures in a row that make the container unhealthy.
    #[serde(skip_serializing_if = "is_zero")]
    pub retries: i64,
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}

/// Reads Go's `null` for an empty slice or map.
fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Document;

    #[test]
    fn dockers_fields_and_unknown_ones_survive() {
        let text = r#"{"architecture":"arm64","config":{"Env":["A=b"],"Healthcheck":{"Test":["NONE"]},"OnBuild":["RUN x"],"Strange":1},"os":"linux","rootfs":{"type":"layers","diff_ids":[]},"x-y":2}"#;
        let config: ImageConfig = serde_json::from_str(text).unwrap();
        assert_eq!(config.platform().to_string(), "linux/arm64");
        assert_eq!(String::from_utf8(Document::compact(config).bytes).unwrap(), text);
    }

    #[test]
    fn the_version_of_the_base_stays_unless_another_is_asked_for() {
        let mut config = ImageConfig::default();
        config.set_platform(&"windows(10.0.1+win32k)/amd64".parse().unwrap());
        config.set_platform(&"windows/amd64".parse().unwrap());
        assert_eq!(config.platform().to_string(), "windows(10.0.1+win32k)/amd64");
        config.set_platform(&"windows(10.0.2)/amd64".parse().unwrap());
        assert_eq!(config.platform().to_string(), "windows(10.0.2+win32k)/amd64");
        config.set_platform(&"linux/amd64".parse().unwrap());
        assert_eq!(config.platform().to_string(), "linux/amd64");
    }

    #[test]
    fn go_nulls_are_empty_collections() {
        let text = r#"{"config":{"Env":null,"Labels":null,"Volumes":null,"Cmd":null}}"#;
        let config: ImageConfig = serde_json::from_str(text).unwrap();
        assert!(config.config.env.is_empty() && config.config.cmd.is_none());
    }
}
