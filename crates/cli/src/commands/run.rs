// SPDX-License-Identifier: Apache-2.0
//! `polyarch run`: runs a program of an image, natively or emulated.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::Args;
use polyarch_build::RunRequest;
use polyarch_build::request::{NetworkMode, PullPolicy};
use polyarch_images::lookup;
use polyarch_images::running::is_name;
use polyarch_oci::{Digest, Reference};

use super::build::platforms::parse_platforms;
use super::build::request::extra_hosts;
use super::flag_values::unknown;
use super::pull::parse_name;
use super::run_mounts;
use super::run_prepare::prepare;
use crate::engine::Engine;
use crate::progress::ProgressMode;
use crate::session::Session;
use crate::{CommandError, Environment};

/// The largest file of variables, in bytes.
const MAX_ENV_FILE_BYTES: u64 = 1 << 20;

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
    /// Set variables from a file, a line each
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Give the program a directory or a file of this machine; a target alone is an empty directory
    #[arg(short, long, value_name = "SOURCE:TARGET[:ro]")]
    volume: Vec<String>,
    #[arg(
        long,
        value_name = "MOUNT",
        help = "The same in words: type=bind,source=PATH,target=PATH[,readonly] or type=tmpfs,target=PATH"
    )]
    mount: Vec<String>,
    /// Empty directory in memory
    #[arg(long, value_name = "TARGET[:size=SIZE]")]
    tmpfs: Vec<String>,
    /// Let the program change nothing but what is mounted
    #[arg(long)]
    read_only: bool,
    /// Name of the run, for `polyarch ps`
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Host name that the program sees
    #[arg(long, value_name = "NAME")]
    hostname: Option<String>,
    /// Line for /etc/hosts
    #[arg(long, value_name = "HOST:ADDRESS")]
    add_host: Vec<String>,
    /// Accepted for compatibility: ended processes are always reaped
    #[arg(long, hide_short_help = true)]
    init: bool,
    /// Accepted for compatibility: programs listen on this machine's own ports
    #[arg(short, long, value_name = "PORT", hide_short_help = true)]
    publish: Vec<String>,
    /// Not available: there is no daemon that would keep the program
    #[arg(short, long, hide_short_help = true)]
    detach: bool,
    /// Say nothing of a pull
    #[arg(short, long)]
    quiet: bool,
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
    let (is_interactive, is_tty) = (args.interactive || args.tty, args.tty);
    let (is_quiet, name) = (args.quiet, args.name.clone());
    for port in &args.publish {
        let inner = port.rsplit(':').next().unwrap_or(port);
        session.printer.warning(&format!(
            "--publish {port} changes nothing: the program uses this machine's network, and listens on {inner} itself"
        ));
    }
    let image = args.image.clone();
    let mut request = args.request(&session.environment)?;
    let settings = session.settings()?;
    let engine = session.open_for_program(&settings, is_tty)?;
    request.reference = by_id(&engine, &image, request.reference)?;
    let prepared = prepare(&engine, &mut request, name, is_quiet, session)?;
    // Standard error belongs to the program from here on.
    let (progress, display) = super::build::show_progress(session, ProgressMode::Quiet, "");
    let result = engine.run_image(request, is_interactive, &progress);
    display.finish();
    drop(prepared);
    // The kernel gives eight bits to an exit code.
    Ok((result? & 0xff) as u8)
}

/// Returns the name and digest of the image whose id was given; any other name as it is.
fn by_id(engine: &Engine, text: &str, reference: Reference) -> Result<Reference, CommandError> {
    let found = engine.perform(|services| async move {
        match lookup::find(services.store(), text) {
            Ok(found) if !found.is_by_name => Ok(Some(found)),
            Ok(_) => Ok(None),
            // No registry knows what a digest alone means.
            Err(error) if text.parse::<Digest>().is_ok() => Err(error),
            Err(_) => Ok(None),
        }
    })?;
    let meant =
        found.and_then(|found| Some(found.name.as_ref()?.with_digest(found.descriptor().digest.clone())));
    Ok(meant.unwrap_or(reference))
}

impl RunArgs {
    /// Makes a request of the arguments.
    fn request(self, environment: &Environment) -> Result<RunRequest, CommandError> {
        let platforms = parse_platforms(self.platform.as_slice(), environment)?;
        if platforms.len() > 1 {
            return Err(CommandError::usage("--platform: a program runs on one platform at a time"));
        }
        if self.tty && !environment.stdin_is_terminal {
            return Err(CommandError::usage("the input device is not a TTY")
                .with_hint("leave out -t: standard input is not a terminal"));
        }
        if self.detach {
            return Err(CommandError::usage("--detach: there is no daemon that would keep the program")
                .with_hint("let the shell run it beside you: polyarch run … &"));
        }
        if let Some(name) = self.name.as_ref().filter(|name| !is_name(name)) {
            return Err(CommandError::usage(format!(
                "--name {name:?}: write at least two letters, digits, _ . or -, the first a letter or digit"
            )));
        }
        let mut env = Vec::new();
        for path in &self.env_file {
            add_env_file(path, environment, &mut env)?;
        }
        for text in &self.env {
            match text.split_once('=') {
                Some(("", _)) => {
                    return Err(CommandError::usage(format!("--env {text:?}: the name is empty")));
                }
                Some(_) => env.push(text.clone()),
                None => env.extend(environment.exact(text).map(|value| format!("{text}={value}"))),
            }
        }
        let mut mounts = Vec::new();
        for text in &self.volume {
            mounts.push(run_mounts::volume(text, environment)?);
        }
        for text in &self.mount {
            mounts.push(run_mounts::mount(text, environment)?);
        }
        for text in &self.tmpfs {
            mounts.push(run_mounts::tmpfs(text)?);
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
            hostname: self.hostname,
            extra_hosts: extra_hosts(&self.add_host)?,
            mounts,
            read_only: self.read_only,
        })
    }
}

/// Adds the variables of a file, as docker reads it: `NAME=VALUE` lines, names alone from the environment.
fn add_env_file(path: &Path, environment: &Environment, env: &mut Vec<String>) -> Result<(), CommandError> {
    let path = environment.resolve(path);
    let failed = |error: &std::io::Error| CommandError::io("--env-file: can't read", &path, error);
    let mut text = String::new();
    let file = std::fs::File::open(&path).map_err(|error| failed(&error))?;
    file.take(MAX_ENV_FILE_BYTES + 1).read_to_string(&mut text).map_err(|error| failed(&error))?;
    if text.len() as u64 > MAX_ENV_FILE_BYTES {
        let message = format!("--env-file: {} is larger than 1 MiB", path.display());
        return Err(CommandError::usage(message));
    }
    for (number, line) in text.lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let name = line.split('=').next().unwrap_or_default();
        if name.is_empty() || name.contains(char::is_whitespace) {
            let message =
                format!("{}, line {}: {name:?} is no name of a variable", path.display(), number + 1);
            return Err(CommandError::usage(message));
        }
        match line.contains('=') {
            true => env.push(line.to_owned()),
            false => env.extend(environment.exact(line).map(|value| format!("{line}={value}"))),
        }
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_variables_is_read_whole_or_refused() {
        let directory = tempfile::tempdir().unwrap();
        let environment =
            Environment { current_directory: directory.path().into(), ..Environment::default() };
        let read = |text: String| {
            std::fs::write(directory.path().join("env"), text).unwrap();
            let mut env = Vec::new();
            add_env_file(Path::new("env"), &environment, &mut env).map(|()| env)
        };
        assert_eq!(read("# a comment\nA=1\n\n  B=x y\nNOT_SET\n".to_owned()).unwrap(), ["A=1", "B=x y"]);
        let large = read(format!("A=1\nB={}", "x".repeat(1 << 20))).unwrap_err();
        assert!(large.render().contains("is larger than 1 MiB"), "{}", large.render());
        assert!(read("A B=1".to_owned()).is_err());
    }
}
