// SPDX-License-Identifier: Apache-2.0
//! `polyarch run`: runs a program of an image, natively or emulated.

use std::path::PathBuf;

use clap::Args;
use polyarch_build::RunRequest;
use polyarch_build::request::{NetworkMode, PullPolicy};

use super::build::platforms::parse_platforms;
use super::flag_values::unknown;
use super::pull::parse_name;
use crate::progress::ProgressMode;
use crate::session::Session;
use crate::{CommandError, Environment};

/// Run a program of an image, of any platform
///
/// The image is taken from the store, or pulled. Nothing that the program writes to its file tree is
/// kept. The exit code is the program's own; 125 when it was not started, 126 when it can't be executed,
/// 127 when there is no such program.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Accepted for compatibility: nothing is ever kept
    #[arg(long)]
    rm: bool,
    /// Let the program read standard input
    #[arg(short, long)]
    interactive: bool,
    /// Give the program this terminal
    #[arg(short, long)]
    tty: bool,
    /// Set a variable; without a value it is taken from the environment
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Working directory
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// User, by name or number
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Program to execute instead of the image's entry point; empty for none
    #[arg(long, value_name = "PROGRAM")]
    entrypoint: Option<String>,
    /// Platform to run [default: this machine's] [env: DOCKER_DEFAULT_PLATFORM]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
    /// Network: default, none or host
    #[arg(long, alias = "net", value_name = "MODE", default_value = "default")]
    network: String,
    /// When to ask the registry: missing, always or never
    #[arg(long, value_name = "POLICY", default_value = "missing")]
    pull: String,
    /// For images that install emulators: polyarch does it itself, for the whole machine
    #[arg(long)]
    privileged: bool,
    /// Name of the image
    #[arg(value_name = "IMAGE")]
    image: String,
    /// Command and arguments, instead of the image's
    #[arg(value_name = "COMMAND", trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

/// Runs the command; returns the program's exit code.
pub fn run(args: RunArgs, session: &Session) -> Result<u8, CommandError> {
    if args.privileged {
        if let Some(request) = super::binfmt::as_image_of_emulators(&args.image, &args.command)? {
            return super::binfmt::run_for_image(&args.image, &request, session);
        }
        session.printer.warning("--privileged gives no more rights here: programs have those of your user");
    }
    let is_interactive = args.interactive || args.tty;
    let has_terminal = args.tty;
    let request = args.request(&session.environment)?;
    let settings = session.settings()?;
    let engine = if has_terminal { session.open_for_program(&settings)? } else { session.open(&settings)? };
    // Standard error belongs to the program; a pull that fails tells about itself in its error.
    let (progress, display) = super::build::show_progress(session, ProgressMode::Quiet, "");
    let result = engine.run_image(request, is_interactive, &progress);
    display.finish();
    // The kernel gives eight bits to an exit code.
    Ok((result? & 0xff) as u8)
}

impl RunArgs {
    /// Makes a request of the arguments.
    fn request(self, environment: &Environment) -> Result<RunRequest, CommandError> {
        let platforms = parse_platforms(self.platform.as_slice(), environment)?;
        if platforms.len() > 1 {
            return Err(CommandError::usage("--platform: a program runs on one platform at a time"));
        }
        if self.tty && !environment.stdin_is_terminal {
            return Err(CommandError::usage("--tty: standard input is not a terminal"));
        }
        let mut env = Vec::new();
        for text in &self.env {
            match text.split_once('=') {
                Some(("", _)) => {
                    return Err(CommandError::usage(format!("--env {text:?}: the name is empty")));
                }
                Some(_) => env.push(text.clone()),
                None => env.extend(environment.exact(text).map(|value| format!("{text}={value}"))),
            }
        }
        if self.workdir.as_ref().is_some_and(|directory| !PathBuf::from(directory).is_absolute()) {
            return Err(CommandError::usage("--workdir: the directory must be absolute"));
        }
        Ok(RunRequest {
            reference: parse_name(&self.image)?,
            platform: platforms.into_iter().next(),
            command: self.command,
            entrypoint: self.entrypoint,
            env,
            working_dir: self.workdir,
            user: self.user,
            network: parse_network(&self.network)?,
            pull: parse_pull(&self.pull)?,
            is_tty: self.tty,
        })
    }
}

/// Reads the value of `--network`.
pub fn parse_network(word: &str) -> Result<NetworkMode, CommandError> {
    match word {
        "default" | "" => Ok(NetworkMode::Default),
        "none" => Ok(NetworkMode::None),
        "host" => Ok(NetworkMode::Host),
        _ => Err(CommandError::usage(unknown("--network", word, &["default", "none", "host"]))),
    }
}

fn parse_pull(word: &str) -> Result<PullPolicy, CommandError> {
    match word {
        "missing" => Ok(PullPolicy::Default),
        "always" => Ok(PullPolicy::Always),
        "never" => Ok(PullPolicy::Never),
        _ => Err(CommandError::usage(unknown("--pull", word, &["missing", "always", "never"]))),
    }
}
