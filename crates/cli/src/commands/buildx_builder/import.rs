// SPDX-License-Identifier: Apache-2.0
//! `buildx import`: takes over the builders that docker buildx has stored.

use std::path::PathBuf;

use clap::Args;

use super::open;
use crate::CommandError;
use crate::builders::driver::{self, NodeKind, node_kind};
use crate::builders::files::read_builders;
use crate::builders::{Builder, DEFAULT};
use crate::session::Session;

/// Take over the builders of docker buildx
///
/// Their nodes elsewhere are nodes here too; those in containers of this machine are this machine. A builder whose name is
/// taken is left out, and so is one whose nodes can't be reached from here.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// Where docker buildx keeps its builders [default: $DOCKER_CONFIG/buildx, else ~/.docker/buildx]
    #[arg(value_name = "DIR")]
    directory: Option<PathBuf>,
}

/// Runs the command.
pub fn run(args: &ImportArgs, session: &Session) -> Result<(), CommandError> {
    let environment = &session.environment;
    let home = || environment.path("HOME").map(|home| home.join(".docker"));
    let usual = || environment.path("DOCKER_CONFIG").or_else(home).map(|directory| directory.join("buildx"));
    let directory = match &args.directory {
        Some(directory) => environment.resolve(directory),
        None => usual().ok_or_else(|| CommandError::usage("name the directory: HOME is not set"))?,
    };
    if !directory.join("instances").is_dir() {
        return Err(CommandError::usage(format!("{} has no builders of docker buildx", directory.display()))
            .with_hint("name the directory that has `instances` in it: polyarch buildx import DIR"));
    }
    let (builders, wrong) = read_builders(&directory)?;
    for error in wrong {
        session.printer.warning(&error.error.message);
    }
    let files = open(session)?;
    let (mut taken, mut left_out) = (String::new(), 0);
    for builder in builders {
        let obstacle = match files.get(&builder.name)? {
            Some(known) if known == builder => continue,
            Some(_) => Some("there is another builder of this name here".to_owned()),
            None => obstacle(&builder),
        };
        match obstacle {
            Some(obstacle) => {
                left_out += 1;
                session.printer.warning(&format!("{} is left out: {obstacle}", builder.name));
            }
            None => {
                files.save(&builder)?;
                taken.push_str(&format!("{}\n", builder.name));
            }
        }
    }
    if taken.is_empty() && left_out == 0 {
        session.printer.message("there is nothing that is not here already\n");
    }
    session.printer.data(&taken)
}

/// Returns why a builder can't be used from here.
fn obstacle(builder: &Builder) -> Option<String> {
    if builder.name == DEFAULT {
        return Some("that name is this program's own".to_owned());
    }
    if let Err(error) = driver::validate(&builder.driver) {
        return Some(error.error.message);
    }
    for node in &builder.nodes {
        match node_kind(&builder.driver, &node.endpoint) {
            Ok(NodeKind::Local | NodeKind::Remote(_)) => {}
            Err(error) => return Some(format!("{}: {}", node.name, error.error.message)),
        }
    }
    None
}
