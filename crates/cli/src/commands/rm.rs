// SPDX-License-Identifier: Apache-2.0
//! `polyarch rm`: there is nothing to remove, which is said with what was probably meant.

use clap::Args;
use polyarch_images::running::list;

use crate::CommandError;
use crate::session::Session;

/// Programs leave nothing to remove; says so
#[derive(Debug, Args)]
pub struct RmArgs {
    /// Accepted for compatibility
    #[arg(short, long)]
    force: bool,
    /// Accepted for compatibility
    #[arg(short, long)]
    volumes: bool,
    /// Names or ids of programs
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
}

/// Runs the command.
pub fn run(args: &RmArgs, session: &Session) -> Result<(), CommandError> {
    let settings = session.settings()?;
    let running = list(&settings.root)?;
    for text in &args.names {
        if let Some(it) =
            running.iter().find(|it| it.name == *text || (text.len() > 3 && it.id.starts_with(text)))
        {
            let message = format!("{text} is running; it leaves nothing behind when it ends");
            return Err(CommandError::usage(message).with_hint(format!("end it: kill {}", it.pid)));
        }
        let engine = session.open_for_documents(&settings)?;
        if engine.perform(|services| async move { polyarch_images::names::find(&services, text) }).is_ok() {
            let message = format!("{text} is an image, and no program of that name runs");
            return Err(
                CommandError::usage(message).with_hint(format!("remove its name: polyarch rmi {text}"))
            );
        }
        if args.force {
            session.printer.warning(&format!("no such program: {text}"));
            continue;
        }
        let message = format!("no such program: {text}; programs that have ended leave nothing to remove");
        return Err(CommandError::usage(message)
            .with_hint("polyarch ps lists what runs, polyarch images what rmi can remove"));
    }
    Ok(())
}
