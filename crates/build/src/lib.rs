// SPDX-License-Identifier: Apache-2.0
//! What an image build is: every other room meets here.

pub mod error;
pub mod request;
pub mod result;

pub use error::{BuildError, ErrorKind};
pub use request::BuildRequest;
pub use result::{BuildResult, PlatformResult};
