// SPDX-License-Identifier: Apache-2.0
//! `polyarch binfmt`: shows how each platform runs here; registers emulators for the whole machine when asked to.

mod images;

use std::path::PathBuf;

use clap::Args;

pub use images::as_image_of_emulators;

use crate::session::Session;
use crate::visible_text::visible_line;
use crate::{CommandError, ExitCode};

/// Show how each platform runs here, or register emulators for the whole machine
///
/// Builds and `polyarch run` need none of this: they register QEMU for themselves. --install is for the other
/// programs of this machine, such as docker. It needs root, and lasts until --uninstall.
///
/// Without flags, the status goes to standard output in the form of tonistiigi/binfmt, and a table with the
/// details to standard error.
#[derive(Debug, Clone, Default, Args)]
pub struct BinfmtArgs {
    /// Register emulators: `all`, or architectures or platforms, separated by commas
    #[arg(long, value_name = "ARCH", value_delimiter = ',')]
    install: Vec<String>,
    /// Remove emulators: `all` (those that polyarch installed), entries (`qemu-*` for all that match),
    /// architectures or platforms, separated by commas
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

/// Runs the command.
pub fn run(args: &BinfmtArgs, _session: &Session) -> Result<(), CommandError> {
    let BinfmtArgs { install, uninstall, no_persist, format, version, mount, persist_to } = args;
    let words =
        format!("{install:?} {uninstall:?} {no_persist} {format:?} {version} {mount:?} {persist_to:?}");
    Err(CommandError::usage(format!("this command is not there yet: {words}")))
}

/// Does what running an image of emulators would do, and says so; returns the exit code.
pub fn run_for_image(image: &str, request: &BinfmtArgs, session: &Session) -> Result<u8, CommandError> {
    session.printer.message(&format!(
        "polyarch does what {} would do, without pulling it; its own builds and runs need no installed emulators\n",
        visible_line(image.as_bytes())
    ));
    run(request, session).map(|()| ExitCode::Done.number())
}
