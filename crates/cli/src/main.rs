// SPDX-License-Identifier: Apache-2.0
//! The entry: becomes the launcher, or parses arguments and runs a command.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode as ProcessExitCode;

use polyarch_cli::commands::{self, Parsed};
use polyarch_cli::printer::Printer;
use polyarch_cli::{CommandError, Environment, ExitCode};

fn main() -> ProcessExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    // The launcher is this program again; it must stay small and single-threaded, so it comes first.
    if arguments.get(1).is_some_and(|argument| argument == polyarch_sandbox::launcher::ARGUMENT) {
        return polyarch_sandbox::launcher::main();
    }
    std::panic::set_hook(Box::new(polyarch_cli::panics::report));
    match run(arguments) {
        Ok(code) => ProcessExitCode::from(code),
        Err(error) => {
            Printer.message(&error.render());
            ProcessExitCode::from(error.exit_code.number())
        }
    }
}

fn run(arguments: Vec<OsString>) -> Result<u8, CommandError> {
    let environment = Environment::from_process();
    let done = |result: Result<(), CommandError>| result.map(|()| ExitCode::Done.number());
    // Under the names of BuildKit's programs we are what they are.
    match arguments.first().and_then(|name| Path::new(name).file_name()?.to_str()) {
        Some("buildkitd") => {
            start_tracing(commands::buildkitd::is_debug(&arguments[1..]), &environment);
            return done(commands::buildkitd::run(&arguments[1..], environment));
        }
        Some("buildctl") => return done(commands::buildctl::run(&arguments[1..], environment)),
        _ => {}
    }
    match commands::parse(arguments)? {
        Parsed::Text(text) => Printer.data(&text).map(|()| ExitCode::Done.number()),
        Parsed::Command(cli) => {
            start_tracing(cli.is_debug(), &environment);
            cli.run(environment)
        }
    }
}

/// Writes our own messages to standard error when asked to.
fn start_tracing(is_debug: bool, environment: &Environment) {
    let filter = match environment.text("POLYARCH_LOG") {
        Some(filter) => filter.to_owned(),
        None if is_debug => "warn,polyarch=debug".to_owned(),
        None => return,
    };
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new(filter))
        .with_writer(std::io::stderr)
        .with_ansi(environment.stderr_is_terminal && environment.text("NO_COLOR").is_none())
        .init();
}
