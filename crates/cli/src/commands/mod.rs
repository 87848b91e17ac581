// SPDX-License-Identifier: Apache-2.0
//! The subcommands, one file each, and the way from arguments to one of them.

mod bake;
mod binfmt;
pub mod build;
pub mod buildctl;
pub mod buildkitd;
mod buildx_builder;
mod buildx_history;
mod cache_filters;
mod cache_rows;
mod cp;
mod df;
mod diff;
mod doctor;
mod du;
pub(crate) mod flag_values;
mod history;
mod image;
mod images;
mod imagetools;
mod import;
mod inspect;
mod install_plugin;
mod load;
mod login;
mod logout;
mod manifest;
mod node;
mod plugin_face;
mod prune;
mod ps;
mod pull;
mod push;
mod registry;
mod resolve;
mod rm;
mod rmi;
mod run;
mod run_mounts;
mod run_prepare;
mod save;
mod system;
mod tag;
mod verify;
mod version;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::ErrorKind as ClapErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::session::Session;
use crate::{CommandError, Environment, ExitCode};

/// Builds one container image for many CPU architectures, without a daemon and without root.
#[derive(Debug, Parser)]
#[command(name = "polyarch", version, subcommand_required = true, arg_required_else_help = true)]
#[command(disable_help_subcommand = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    global: GlobalArgs,
}

/// Flags of every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Options of every command")]
pub struct GlobalArgs {
    /// Directory of the store [default: /var/lib/polyarch for root, else ~/.local/share/polyarch]
    /// [env: POLYARCH_ROOT]
    #[arg(long, global = true, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Name of a builder, as `buildx ls` lists them [default: the current one] [env: BUILDX_BUILDER]
    #[arg(long, global = true, value_name = "NAME", hide_short_help = true)]
    builder: Option<String>,
    /// Say on standard error what happens inside [env: POLYARCH_LOG, with filters such as
    /// `polyarch_registry=trace`]
    #[arg(short = 'D', long, global = true)]
    debug: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(visible_alias = "b")]
    Build(Box<build::BuildArgs>),
    Bake(Box<bake::BakeArgs>),
    Run(Box<run::RunArgs>),
    Pull(pull::PullArgs),
    Push(push::PushArgs),
    Tag(tag::TagArgs),
    Images(images::ImagesArgs),
    Inspect(inspect::InspectArgs),
    History(history::HistoryArgs),
    Resolve(resolve::ResolveArgs),
    Rmi(rmi::RmiArgs),
    Save(save::SaveArgs),
    Load(load::LoadArgs),
    Import(import::ImportArgs),
    Cp(cp::CpArgs),
    Diff(diff::DiffArgs),
    Verify(verify::VerifyArgs),
    Image(image::ImageArgs),
    Manifest(manifest::ManifestArgs),
    Imagetools(imagetools::ImagetoolsArgs),
    Login(login::LoginArgs),
    Logout(logout::LogoutArgs),
    Binfmt(binfmt::BinfmtArgs),
    Doctor(doctor::DoctorArgs),
    Df(df::DfArgs),
    Prune(prune::PruneArgs),
    System(system::SystemArgs),
    Node(node::NodeArgs),
    Registry(registry::RegistryArgs),
    Ps(ps::PsArgs),
    #[command(hide = true)]
    Rm(rm::RmArgs),
    /// The same commands under the names that docker buildx gives them.
    Buildx(BuildxArgs),
    InstallPlugin(install_plugin::InstallPluginArgs),
    Version(version::VersionArgs),
    /// What docker asks its plugins.
    #[command(name = "docker-cli-plugin-metadata", hide = true)]
    PluginMetadata,
}

#[derive(Debug, Args)]
#[command(subcommand_required = true, arg_required_else_help = true, disable_help_subcommand = true)]
struct BuildxArgs {
    #[command(subcommand)]
    command: BuildxCommand,
}

#[derive(Debug, Subcommand)]
enum BuildxCommand {
    #[command(visible_alias = "b")]
    Build(Box<build::BuildArgs>),
    #[command(visible_alias = "f")]
    Bake(Box<bake::BakeArgs>),
    Create(buildx_builder::create::CreateArgs),
    Use(buildx_builder::use_builder::UseArgs),
    Ls(buildx_builder::ls::LsArgs),
    Inspect(buildx_builder::inspect::InspectArgs),
    Stop(buildx_builder::stop::StopArgs),
    Rm(buildx_builder::rm::RmArgs),
    Import(buildx_builder::import::ImportArgs),
    Imagetools(imagetools::ImagetoolsArgs),
    Du(du::DuArgs),
    Prune(prune::PruneArgs),
    History(buildx_history::HistoryArgs),
    Version(version::BuildxVersionArgs),
}

/// Returns the definition of the whole command line.
pub fn definition() -> clap::Command {
    Cli::command()
}

/// What the arguments ask for.
#[derive(Debug)]
pub enum Parsed {
    /// A command to run.
    Command(Box<Cli>),
    /// A text to print, help or version, and the end.
    Text(String),
}

/// Parses arguments, the program's name first.
///
/// # Errors
/// When they make no sense; the text has a suggestion where there is one.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Parsed, CommandError> {
    let arguments = plugin_face::own_arguments(arguments.into_iter().collect());
    match Cli::try_parse_from(&arguments) {
        Ok(cli) => Ok(Parsed::Command(Box::new(cli))),
        Err(error) => match error.kind() {
            ClapErrorKind::DisplayHelp | ClapErrorKind::DisplayVersion => {
                Ok(Parsed::Text(error.render().to_string()))
            }
            _ => Err(usage_error(&error, &arguments)),
        },
    }
}

/// Puts clap's message into our form.
fn usage_error(error: &clap::Error, arguments: &[OsString]) -> CommandError {
    let text = error.render().to_string();
    let (message, usage) = match text.strip_prefix("error: ") {
        Some(rest) => rest.split_once("\n\n").unwrap_or((rest, "")),
        None => ("a subcommand is needed", &*text),
    };
    let result = CommandError::usage(message.trim_end()).with_usage(usage);
    // `run` keeps the small codes for the program that it runs.
    let is_run = arguments.iter().skip(1).find(|argument| !argument.to_string_lossy().starts_with('-'));
    if is_run.is_some_and(|word| word == "run") { result.of_run() } else { result }
}

impl Cli {
    /// Tells whether polyarch's own messages are wanted.
    pub fn is_debug(&self) -> bool {
        self.global.debug
    }

    /// Runs the command; returns the exit code.
    ///
    /// # Errors
    /// Why it could not be done.
    pub fn run(self, environment: Environment) -> Result<u8, CommandError> {
        let session = Session {
            environment,
            printer: crate::printer::Printer,
            is_debug: self.global.debug,
            root: self.global.root.clone(),
        };
        let done = |result: Result<(), CommandError>| result.map(|()| ExitCode::Done.number());
        let builder = self.global.builder.as_deref();
        match self.command {
            Command::Build(args) | Command::Buildx(BuildxArgs { command: BuildxCommand::Build(args) }) => {
                build::run(&args, &self.global, &session)
            }
            Command::Bake(args) | Command::Buildx(BuildxArgs { command: BuildxCommand::Bake(args) }) => {
                bake::run(&args, &self.global, &session)
            }
            Command::Run(args) => run::run(*args, &session).map_err(CommandError::of_run),
            Command::Pull(args) => done(pull::run(&args, &session)),
            Command::Push(args) => done(push::run(&args, &session)),
            Command::Tag(args) => done(tag::run(&args, &session)),
            Command::Images(args) => done(images::run(&args, &session)),
            Command::Inspect(args) => done(inspect::run(&args, &session)),
            Command::History(args) => done(history::run(&args, &session)),
            Command::Resolve(args) => done(resolve::run(&args, &session)),
            Command::Rmi(args) => done(rmi::run(&args, &session)),
            Command::Save(args) => done(save::run(&args, &session)),
            Command::Load(args) => done(load::run(&args, &session)),
            Command::Import(args) => done(import::run(&args, &session)),
            Command::Cp(args) => done(cp::run(&args, &session)),
            Command::Diff(args) => diff::run(&args, &session),
            Command::Verify(args) => verify::run(&args, &session),
            Command::Image(args) => done(args.run(&session)),
            Command::Manifest(args) => done(args.run(&session)),
            Command::Imagetools(args)
            | Command::Buildx(BuildxArgs { command: BuildxCommand::Imagetools(args) }) => {
                done(args.run(&session))
            }
            Command::Login(args) => done(login::run(&args, &session)),
            Command::Logout(args) => done(logout::run(&args, &session)),
            Command::Binfmt(args) => done(binfmt::run(&args, &session)),
            Command::Doctor(args) => doctor::run(&args, &session),
            Command::Df(args) => done(df::run(&args, &session)),
            Command::Buildx(BuildxArgs { command: BuildxCommand::Du(args) }) => {
                done(du::run(&args, builder, &session))
            }
            Command::System(args) => done(args.run(&session)),
            Command::Node(args) => done(args.run(builder, &session)),
            Command::Registry(args) => args.run(&session),
            Command::Ps(args) => done(ps::run(&args, &session)),
            Command::Rm(args) => done(rm::run(&args, &session)),
            Command::Prune(args) => done(prune::run(&args, &session)),
            Command::Buildx(BuildxArgs { command: BuildxCommand::Prune(args) }) => {
                done(prune::run_buildx(&args, builder, &session))
            }
            Command::Buildx(BuildxArgs { command: BuildxCommand::History(args) }) => {
                done(buildx_history::run(&args, &session))
            }
            Command::Buildx(BuildxArgs { command: BuildxCommand::Create(args) }) => {
                done(buildx_builder::create::run(&args, &session))
            }
            Command::Buildx(BuildxArgs { command: BuildxCommand::Use(args) }) => {
                done(buildx_builder::use_builder::run(&args, builder, &session))
            }
            Command::Buildx(BuildxArgs { command: BuildxCommand::Ls(args) }) => {
                done(buildx_builder::ls::run(&args, &session))
            }
            Command::Buildx(BuildxArgs { command: BuildxCommand::Inspect(args) }) => {
                done(buildx_builder::inspect::run(&args, builder, &session))
            }
            Command::Buildx(BuildxArgs { command: BuildxCommand::Stop(args) }) => {
                done(buildx_builder::stop::run(&args, builder, &session))
            }
            Command::Buildx(BuildxArgs { command: BuildxCommand::Rm(args) }) => {
                done(buildx_builder::rm::run(&args, builder, &session))
            }
            Command::Buildx(BuildxArgs { command: BuildxCommand::Import(args) }) => {
                done(buildx_builder::import::run(&args, &session))
            }
            Command::InstallPlugin(args) => done(install_plugin::run(&args, &session)),
            Command::Version(args) => done(version::run(&args, &session)),
            Command::Buildx(BuildxArgs { command: BuildxCommand::Version(args) }) => {
                done(version::run_buildx(&args, builder, &session))
            }
            Command::PluginMetadata => done(version::plugin_metadata(&session)),
        }
    }

    /// Returns the arguments of a build, when it is one; for tests.
    pub fn build_args(&self) -> Option<(&build::BuildArgs, &GlobalArgs)> {
        match &self.command {
            Command::Build(args) | Command::Buildx(BuildxArgs { command: BuildxCommand::Build(args) }) => {
                Some((args, &self.global))
            }
            _ => None,
        }
    }
}
