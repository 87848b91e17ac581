// SPDX-License-Identifier: Apache-2.0
//! What tests share: hermetic directories, images made by code, registries, checks for what the machine can do.
//!
//! Everything here is for tests: what goes wrong panics with a sentence, since that is how a test fails.

pub mod buildkitd;
pub mod environment;
pub mod image;
pub mod needs;
pub mod program;
pub mod registry;
pub mod s3;
pub mod tar;

pub use buildkitd::{Buildkitd, program_of};
pub use environment::{Output, TestEnvironment};
pub use image::{Image, PlatformImage, busybox_rootfs, hello_rootfs};
pub use needs::{Need, requires};
pub use program::hello_program;
pub use registry::DockerRegistry;
pub use s3::S3Server;
pub use tar::TarBuilder;
