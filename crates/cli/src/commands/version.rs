// SPDX-License-Identifier: Apache-2.0
//! `polyarch version`, and what docker asks its plugins.

use clap::Args;

use crate::CommandError;
use crate::session::Session;

/// Print the version
#[derive(Debug, Args)]
pub struct VersionArgs {}

/// Prints one line in the form of `buildx version`, which CI tools read: a name, then the version.
pub fn run(_args: &VersionArgs, session: &Session) -> Result<(), CommandError> {
    session.printer.data(concat!("polyarch v", env!("CARGO_PKG_VERSION"), "\n"))
}

/// Answers docker's question to its plugins (docker/cli, cli-plugins/manager).
pub fn plugin_metadata(session: &Session) -> Result<(), CommandError> {
    let answer = serde_json::json!({
        "SchemaVersion": "0.1.0",
        "Vendor": "Polyarch",
        "Version": concat!("v", env!("CARGO_PKG_VERSION")),
        "ShortDescription": "Builds images for many CPU architectures (polyarch)",
    });
    session.printer.data(&format!("{answer}\n"))
}
