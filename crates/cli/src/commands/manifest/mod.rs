// SPDX-License-Identifier: Apache-2.0
//! `polyarch manifest`: its subcommands.

mod annotate;
mod create;
mod inspect;
mod ls;
mod push;
mod rm;

use std::sync::{Arc, Mutex, PoisonError};

use clap::{Args, Subcommand};
use polyarch_build::BuildError;
use polyarch_build::fetch::Shown;
use polyarch_images::ImageSource;
use polyarch_oci::media_type::Flavour;
use polyarch_solver::progress::{Event, Progress};

use crate::CommandError;
use crate::config::Settings;
use crate::session::Session;

/// Join images of several platforms under one name
#[derive(Debug, Args)]
#[command(subcommand_required = true, arg_required_else_help = true, disable_help_subcommand = true)]
pub struct ManifestArgs {
    #[command(subcommand)]
    command: ManifestCommand,
}

#[derive(Debug, Subcommand)]
enum ManifestCommand {
    Create(create::CreateArgs),
    Annotate(annotate::AnnotateArgs),
    Inspect(inspect::InspectArgs),
    Push(push::PushArgs),
    Rm(rm::RmArgs),
    Ls(ls::LsArgs),
}

impl ManifestArgs {
    /// Runs the subcommand.
    pub fn run(&self, session: &Session) -> Result<(), CommandError> {
        match &self.command {
            ManifestCommand::Create(args) => create::run(args, session),
            ManifestCommand::Annotate(args) => annotate::run(args, session),
            ManifestCommand::Inspect(args) => inspect::run(args, session),
            ManifestCommand::Push(args) => push::run(args, session),
            ManifestCommand::Rm(args) => rm::run(args, session),
            ManifestCommand::Ls(args) => ls::run(args, session),
        }
    }
}

/// Reads `--format oci|docker`.
fn parse_flavour(text: &str) -> Result<Flavour, String> {
    match text {
        "oci" => Ok(Flavour::Oci),
        "docker" | "v2s2" => Ok(Flavour::Docker),
        other => Err(crate::commands::flag_values::unknown("format", other, &["oci", "docker"])),
    }
}

/// Reads the settings; with `--insecure`, the registries of these images need not prove who they are.
fn settings<'a>(
    session: &Session,
    is_insecure: bool,
    images: impl IntoIterator<Item = &'a str>,
) -> Result<Settings, CommandError> {
    let mut settings = session.settings()?;
    for image in images.into_iter().filter(|_| is_insecure) {
        if let Ok(ImageSource::Reference(reference)) = ImageSource::parse(image) {
            settings.hosts.entry(reference.host()).insecure = true;
        }
    }
    Ok(settings)
}

/// Collects the warnings of work whose progress is not shown.
#[derive(Clone, Default)]
struct Quiet {
    warnings: Arc<Mutex<Vec<String>>>,
}

impl Quiet {
    /// Returns where the work reports to.
    fn shown(&self) -> Shown {
        let warnings = self.warnings.clone();
        let progress = Progress::new(move |event| {
            if let Event::Warning(warning) = event {
                warnings.lock().unwrap_or_else(PoisonError::into_inner).push(warning.message);
            }
        });
        Shown { progress, vertex: "".into() }
    }

    /// Prints the warnings, then gives the result.
    fn finish<T>(self, session: &Session, result: Result<T, BuildError>) -> Result<T, CommandError> {
        for warning in self.warnings.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            session.printer.warning(&warning);
        }
        result.map_err(CommandError::from)
    }
}
