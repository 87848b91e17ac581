// SPDX-License-Identifier: Apache-2.0
//! `polyarch binfmt`: shows how each platform runs here; registers emulators for the whole machine when asked to.

mod images;
mod install;
pub mod status;

use std::path::PathBuf;

use clap::Args;
use polyarch_sandbox::emulation::{Architecture, BinfmtDirectory, Emulator, HostBinfmt};

pub use images::as_image_of_emulators;

use super::flag_values::unknown;
use crate::session::Session;
use crate::visible_text::visible_line;
use crate::{CommandError, ExitCode};

/// Where a machine's binfmt_misc is.
pub const HOST_BINFMT: &str = "/proc/sys/fs/binfmt_misc";
/// Where a machine keeps what is registered at boot.
pub const BINFMT_DIRECTORY: &str = "/etc/binfmt.d";

/// Show how each platform runs here, or register emulators for the whole machine
///
/// Builds and `polyarch run` need none of this: they register QEMU for themselves. --install is for the other
/// programs of this machine, such as docker. It needs root, and lasts until --uninstall.
///
/// Without --format, the status goes to standard output in the form of tonistiigi/binfmt, and a table with the
/// details to standard error.
#[derive(Debug, Clone, Default, Args)]
pub struct BinfmtArgs {
    /// Register emulators: `all`, or architectures or platforms, separated by commas
    #[arg(long, value_name = "ARCH", value_delimiter = ',')]
    install: Vec<String>,
    /// Remove emulators: `all` (those that polyarch keeps for the next boot), entries (`qemu-*` for all that
    /// match), architectures or platforms, separated by commas
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    uninstall: Vec<String>,
    /// With --install: forget it at the next boot
    #[arg(long)]
    no_persist: bool,
    /// Form of the status: `json` (with all details) or `table`
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Print the versions of polyarch and of QEMU
    #[arg(long)]
    version: bool,
    /// The binfmt_misc file system [default: /proc/sys/fs/binfmt_misc]
    #[arg(long, value_name = "DIR")]
    mount: Option<PathBuf>,
    /// Where emulators are written for the next boot [default: /etc/binfmt.d, or nowhere with --mount]
    #[arg(long, value_name = "DIR", hide_short_help = true)]
    persist_to: Option<PathBuf>,
}

/// How the status is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    /// The JSON of tonistiigi/binfmt, and the table on standard error.
    Compatible,
    Json,
    Table,
}

/// Runs the command.
///
/// # Errors
/// When something that was asked for could not be done; everything else has been done then.
pub fn run(args: &BinfmtArgs, session: &Session) -> Result<(), CommandError> {
    let format = match args.format.as_deref() {
        None => Format::Compatible,
        Some("json") => Format::Json,
        Some("table") => Format::Table,
        Some(word) => return Err(CommandError::usage(unknown("--format", word, &["json", "table"]))),
    };
    let settings = session.settings()?;
    let path_directories = session.environment.path_directories();
    let find = |architecture| Emulator::find(architecture, &settings.emulator_directories, &path_directories);
    if args.version {
        return session.printer.data(&versions(find));
    }
    let absolute = |path: &PathBuf| session.environment.resolve(path);
    let host = HostBinfmt::at(args.mount.as_ref().map_or(HOST_BINFMT.into(), absolute));
    let directory = args.persist_to.as_ref().map_or(BINFMT_DIRECTORY.into(), absolute);
    let directory = BinfmtDirectory::at(directory);
    let request = install::Request {
        install: install::architectures(&args.install)?,
        uninstall: &args.uninstall,
        words: args.words(),
        // An instance at another place is not the one that the next boot makes.
        is_persistent: !args.no_persist && (args.mount.is_none() || args.persist_to.is_some()),
        host: &host,
        directory: &directory,
    };
    let changed = install::change(&request, &find, session)?;
    let status = status::collect(&settings, &session.environment, &host, &directory);
    let data = match format {
        Format::Compatible => status.compatible_json(),
        Format::Json => status.json(),
        Format::Table => status.table(),
    };
    session.printer.data(&data)?;
    if format == Format::Compatible {
        session.printer.message(&status.table());
    }
    changed
}

impl BinfmtArgs {
    /// Writes the flags that change something as a shell reads them.
    fn words(&self) -> String {
        let mut words = String::new();
        for (flag, values) in [("--uninstall", &self.uninstall), ("--install", &self.install)] {
            if !values.is_empty() {
                let values = values.join(",");
                let is_plain = values.chars().all(|c| c.is_ascii_alphanumeric() || "-_./,".contains(c));
                let quote = if is_plain { "" } else { "'" };
                words.push_str(&format!(" {flag} {quote}{}{quote}", values.replace('\'', "'\\''")));
            }
        }
        if self.no_persist { words + " --no-persist" } else { words }
    }
}

/// Does what running an image of emulators would do, and says so; returns the exit code.
///
/// # Errors
/// Those of [`run`].
pub fn run_for_image(image: &str, request: &BinfmtArgs, session: &Session) -> Result<u8, CommandError> {
    session.printer.message(&format!(
        "polyarch does what {} would do, without pulling it; its own builds and runs need no installed emulators\n",
        visible_line(image.as_bytes())
    ));
    run(request, session).map(|()| ExitCode::Done.number())
}

/// Writes `binfmt/VERSION qemu/VERSION`, with every version of QEMU that is here.
fn versions(find: impl Fn(Architecture) -> Option<Emulator>) -> String {
    let mut versions: Vec<String> = Vec::new();
    for emulator in Architecture::ALL.into_iter().filter_map(find) {
        let version = emulator.version().unwrap_or_else(|| "unknown".to_owned());
        if !versions.contains(&version) {
            versions.push(version);
        }
    }
    if versions.is_empty() {
        versions.push("none".to_owned());
    }
    format!("binfmt/{} qemu/{}\n", env!("CARGO_PKG_VERSION"), versions.join(",qemu/"))
}
