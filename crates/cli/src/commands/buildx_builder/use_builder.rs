// SPDX-License-Identifier: Apache-2.0
//! `buildx use`: chooses the builder of later commands.

use clap::Args;

use super::{named, no_builder, open};
use crate::CommandError;
use crate::builders::DEFAULT;
use crate::builders::files::Use;
use crate::session::Session;

/// Make a builder the one that later commands use
#[derive(Debug, Args)]
pub struct UseArgs {
    /// Keep it also after another docker endpoint was used in between
    #[arg(long, conflicts_with = "global")]
    default: bool,
    /// Use it for every docker endpoint
    #[arg(long)]
    global: bool,
    /// The builder; `default` is this program itself
    #[arg(value_name = "NAME")]
    name: Option<String>,
}

/// Runs the command.
pub fn run(args: &UseArgs, flag: Option<&str>, session: &Session) -> Result<(), CommandError> {
    let Some(name) = named(args.name.as_deref(), flag, &session.environment) else {
        return Err(
            CommandError::usage("name the builder to use").with_hint("see them with `polyarch buildx ls`")
        );
    };
    let files = open(session)?;
    let how = match (args.default, args.global) {
        (true, _) => Use::Default,
        (_, true) => Use::Global,
        _ => Use::Now,
    };
    match files.get(name)? {
        Some(builder) => files.set_current(&builder.name, how),
        None if name == DEFAULT => files.set_current("", Use::Now),
        None => Err(no_builder(&files, name)),
    }
}
