// SPDX-License-Identifier: Apache-2.0
//! The words of container images: digests, descriptors, platforms, manifests, configs and references.
//!
//! This room is pure: no disk, no network, no clock. Its types follow the OCI image-spec and
//! distribution-spec, and keep what they do not know, so that a document read and written again
//! loses nothing.

pub mod config;
pub mod descriptor;
pub mod digest;
pub mod document;
pub mod json;
pub mod manifest;
pub mod media_type;
pub mod platform;
pub mod platform_match;
pub mod reference;

pub use config::{ContainerConfig, Healthcheck, History, ImageConfig, RootFs};
pub use descriptor::Descriptor;
pub use digest::{Algorithm, DiffId, Digest, DigestError, Hasher};
pub use document::{Document, DocumentError};
pub use manifest::{ImageIndex, Manifest, ManifestOrIndex};
pub use platform::{Platform, PlatformError};
pub use platform_match::PlatformMatcher;
pub use reference::{Reference, ReferenceError};
