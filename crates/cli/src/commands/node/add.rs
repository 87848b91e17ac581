// SPDX-License-Identifier: Apache-2.0
//! `polyarch node add`: looks at a machine through ssh, and makes it a node of a builder.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use polyarch_build::BuildError;
use polyarch_buildkit::client::Endpoint;

use super::remote_machine::{Machine, Ssh};
use crate::CommandError;
use crate::commands::buildx_builder::examine::program_in_path;
use crate::commands::buildx_builder::{create, name_for_nodes};
use crate::progress::format::binary_size;
use crate::session::Session;
use crate::visible_text::visible_line;

/// How long connecting may take.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Our own program.
const OWN_PROGRAM: &str = "/proc/self/exe";

/// Make a machine that ssh reaches a node of a builder
///
/// The machine is asked what it is; it needs polyarch (or buildkitd with buildctl) and nothing that listens. The builder is
/// the one of --builder, else the current one if it is of nodes elsewhere, else a new one, `fleet`.
#[derive(Debug, Args)]
pub struct AddArgs {
    /// Put polyarch on the machine, as ~/.local/bin/polyarch
    #[arg(long)]
    copy_binary: bool,
    /// The program to put there, for a machine of another architecture than this one
    #[arg(long, value_name = "FILE", requires = "copy_binary")]
    binary: Option<PathBuf>,
    /// Name of the node; one is made up when absent
    #[arg(long, value_name = "NODE")]
    node: Option<String>,
    /// Only look, and change nothing
    #[arg(long, conflicts_with = "copy_binary")]
    dry_run: bool,
    /// How to print what the machine is
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// The machine, as ssh knows it
    #[arg(value_name = "[USER@]HOST[:PORT]")]
    machine: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A line for each fact
    Text,
    /// One JSON object
    Json,
}

/// Runs the command.
pub fn run(args: &AddArgs, builder: Option<&str>, session: &Session) -> Result<(), CommandError> {
    let text = match args.machine.starts_with("ssh://") {
        true => args.machine.clone(),
        false => format!("ssh://{}", args.machine),
    };
    let endpoint: Endpoint = text.parse().map_err(BuildError::from)?;
    let program = program_in_path(&session.environment, "ssh");
    let Some(ssh) = Ssh::to(&endpoint, program, TIMEOUT) else {
        return Err(CommandError::usage(format!("{text} is not reached by ssh")));
    };
    let mut machine = ssh.ask()?;
    if args.copy_binary {
        let program = match &args.binary {
            Some(file) => session.environment.resolve(file),
            None => PathBuf::from(OWN_PROGRAM),
        };
        check_program(&machine, &program, args)?;
        machine.polyarch = ssh.install(&program)?;
        session.printer.message(&format!("{} is there now\n", visible_line(machine.polyarch.as_bytes())));
    }
    session.printer.data(&match args.format {
        Format::Text => render(&text, &machine),
        Format::Json => serde_json::to_string(&machine).expect("texts and numbers are always JSON") + "\n",
    })?;
    if args.dry_run {
        return Ok(());
    }
    if machine.polyarch.is_empty() && machine.buildctl.is_empty() {
        return Err(CommandError::usage(format!("{} has neither polyarch nor buildctl", args.machine))
            .with_hint(format!("put polyarch there: polyarch node add --copy-binary {}", args.machine)));
    }
    let (name, is_append) = name_for_nodes(builder, session)?;
    create::add_node(&name, args.node.clone(), &text, is_append, session)
}

/// Says so when a program does not fit, before anything is sent.
fn check_program(machine: &Machine, program: &Path, args: &AddArgs) -> Result<(), CommandError> {
    if machine.fits(program)? {
        return Ok(());
    }
    let its = if machine.platform.is_empty() { &machine.machine } else { &machine.platform };
    let message = match &args.binary {
        Some(file) => format!("{} is no program for {} ({its})", file.display(), args.machine),
        None => format!("{} is {its}, and this program is not one for it", args.machine),
    };
    Err(CommandError::usage(message).with_hint(format!(
        "give the one for {its}: polyarch node add --copy-binary --binary FILE {}",
        args.machine
    )))
}

fn render(endpoint: &str, machine: &Machine) -> String {
    let known = |text: &str| match text {
        "" => "unknown".to_owned(),
        text => visible_line(text.as_bytes()),
    };
    let program = match (machine.polyarch.as_str(), machine.buildctl.as_str()) {
        ("", "") => "none".to_owned(),
        ("", buildctl) => format!("{} (BuildKit)", known(buildctl)),
        (polyarch, _) => format!("{} {}", known(polyarch), known(&machine.polyarch_version)),
    };
    let emulators = match machine.emulators.as_slice() {
        [] => "none of the whole machine".to_owned(),
        names => visible_line(names.join(", ").as_bytes()),
    };
    let platform = if machine.platform.is_empty() { &machine.machine } else { &machine.platform };
    let lines = [
        ("Endpoint", endpoint.to_owned()),
        ("Platform", known(platform)),
        ("Kernel", known(&machine.kernel)),
        ("CPUs", machine.cpus.to_string()),
        ("Memory", binary_size(machine.memory_bytes)),
        ("Disk free", binary_size(machine.disk_free_bytes)),
        ("Latency", format!("{} ms", machine.latency_milliseconds)),
        ("Emulators", emulators),
        ("Program", program),
    ];
    lines.iter().map(|(key, value)| format!("{:<11}{value}\n", format!("{key}:"))).collect()
}
