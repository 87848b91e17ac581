// SPDX-License-Identifier: Apache-2.0
//! Builders: named groups of nodes, and how they change.
//!
//! The rules are those of `docker buildx create`, as functions from one state to the next
//! ([`change`]); [`files`] keeps the states in buildx's own form, so that what one of the two programs
//! wrote the other can read. Nothing here connects to a node.

pub mod change;
pub mod driver;
pub mod files;
pub mod name;
pub mod platforms;
pub mod pods;

use std::collections::BTreeMap;

use polyarch_oci::Platform;
use serde::{Deserialize, Deserializer, Serialize};

/// A builder as it is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Builder {
    /// Its name, in lower case.
    pub name: String,
    /// What its nodes are: `local`, `docker-container`, `remote`, `kubernetes`.
    pub driver: String,
    /// Its nodes, never none.
    #[serde(default, deserialize_with = "null_as_default")]
    pub nodes: Vec<BuilderNode>,
    /// Whether the nodes come and go by themselves (pods).
    #[serde(default)]
    pub dynamic: bool,
}

/// A node of a builder.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct BuilderNode {
    /// Its name within the builder.
    pub name: String,
    /// Where it is.
    #[serde(default)]
    pub endpoint: String,
    /// The platforms that were fixed for it; what it says it can do comes after them.
    #[serde(default, deserialize_with = "null_as_default")]
    pub platforms: Vec<Platform>,
    /// Options of the driver.
    #[serde(default, deserialize_with = "null_as_default")]
    pub driver_opts: BTreeMap<String, String>,
    /// Flags for a daemon that the driver starts.
    #[serde(rename = "Flags", default, deserialize_with = "null_as_default")]
    pub buildkitd_flags: Vec<String>,
    /// Files for a daemon that the driver starts, by name, in base64.
    #[serde(default, deserialize_with = "null_as_default")]
    pub files: BTreeMap<String, String>,
}

/// The name of the builder that is always there: this program itself.
pub const DEFAULT: &str = "default";

impl Builder {
    /// Returns the builder that is always there.
    pub fn default_local() -> Builder {
        Builder {
            name: DEFAULT.to_owned(),
            driver: driver::LOCAL.to_owned(),
            nodes: vec![BuilderNode {
                name: DEFAULT.to_owned(),
                endpoint: driver::LOCAL.to_owned(),
                ..BuilderNode::default()
            }],
            dynamic: false,
        }
    }

    /// Returns the place of a node.
    pub fn find_node(&self, name: &str) -> Option<usize> {
        self.nodes.iter().position(|node| node.name == name)
    }
}

/// Go writes absent lists and maps as `null`.
fn null_as_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
