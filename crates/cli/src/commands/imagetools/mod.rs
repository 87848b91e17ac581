// SPDX-License-Identifier: Apache-2.0
//! `polyarch imagetools`: its subcommands.

mod create;
mod inspect;
mod text;
mod values;

use clap::{Args, Subcommand};
use polyarch_images::ImageSource;
use polyarch_oci::Reference;

use crate::CommandError;
use crate::config::Settings;
use crate::session::Session;

/// Read and compose images in registries
#[derive(Debug, Args)]
#[command(subcommand_required = true, arg_required_else_help = true, disable_help_subcommand = true)]
pub struct ImagetoolsArgs {
    #[command(subcommand)]
    command: ImagetoolsCommand,
    /// Accepted for scripts of buildx; builders are not needed here
    #[arg(long, value_name = "NAME", global = true, hide = true)]
    builder: Option<String>,
}

#[derive(Debug, Subcommand)]
enum ImagetoolsCommand {
    Create(create::CreateArgs),
    Inspect(inspect::InspectArgs),
}

impl ImagetoolsArgs {
    /// Runs the subcommand.
    pub fn run(&self, session: &Session) -> Result<(), CommandError> {
        match &self.command {
            ImagetoolsCommand::Create(args) => create::run(args, session),
            ImagetoolsCommand::Inspect(args) => inspect::run(args, session),
        }
    }
}

fn parse_source(text: &str) -> Result<ImageSource, CommandError> {
    Ok(ImageSource::parse(text)?)
}

/// Returns the name of a source that may be a registry's.
fn registry_name(source: &ImageSource) -> Option<&Reference> {
    match source {
        ImageSource::Reference(name) => Some(name),
        _ => None,
    }
}

/// Allows plain HTTP and certificates that can't be verified for the hosts of these names.
fn allow_insecure<'a>(settings: &mut Settings, names: impl Iterator<Item = &'a Reference>) {
    for name in names {
        settings.hosts.entry(name.host()).insecure = true;
    }
}
