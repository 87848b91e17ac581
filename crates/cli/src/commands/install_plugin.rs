// SPDX-License-Identifier: Apache-2.0
//! `polyarch install-plugin`: lets `docker buildx` run polyarch.

use std::path::{Path, PathBuf};

use clap::Args;

use super::plugin_face::PLUGIN;
use crate::CommandError;
use crate::session::Session;

/// Let `docker buildx` run polyarch
///
/// Links this program to cli-plugins/docker-buildx in docker's directory ($DOCKER_CONFIG, else ~/.docker).
#[derive(Debug, Args)]
pub struct InstallPluginArgs {
    /// Take away the link instead
    #[arg(long)]
    uninstall: bool,
    /// Replace or take away a file that is not ours
    #[arg(long)]
    force: bool,
}

/// What stands where the link goes.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Found {
    Nothing,
    /// A link to this program.
    Ours,
    /// A link to a program of our name, elsewhere.
    Older(PathBuf),
    /// Anything else.
    Foreign(String),
}

/// Runs the command.
///
/// # Errors
/// When another program is there, or the link can't be made.
pub fn run(args: &InstallPluginArgs, session: &Session) -> Result<(), CommandError> {
    let environment = &session.environment;
    let docker = environment
        .path("DOCKER_CONFIG")
        .or_else(|| Some(environment.path("HOME")?.join(".docker")))
        .ok_or_else(|| {
            CommandError::usage("can't tell where docker's plugins are: HOME is not set")
                .with_hint("name docker's directory with DOCKER_CONFIG")
        })?;
    let program = std::env::current_exe()
        .map_err(|error| CommandError::io("can't tell where this program is", "/proc/self/exe", &error))?;
    let link = docker.join("cli-plugins").join(PLUGIN);
    let found = look(&link, &program)?;
    if let Found::Foreign(what) = &found
        && !args.force
    {
        return Err(CommandError::usage(format!("{} is {what}", link.display()))
            .with_hint("--force replaces it; docker's own plugin can be installed again later"));
    }
    if args.uninstall {
        if found == Found::Nothing {
            session.printer.message(&format!("{} is not there\n", link.display()));
            return Ok(());
        }
        std::fs::remove_file(&link).map_err(|error| CommandError::io("can't remove", &link, &error))?;
        session.printer.message(&format!("removed {}\n", link.display()));
        return Ok(());
    }
    if found == Found::Ours {
        session.printer.message(&format!("{} is there already\n", link.display()));
        return Ok(());
    }
    make(&link, &program)?;
    session.printer.message(&format!(
        "linked {} to {}\ndocker buildx now runs polyarch; take it back with polyarch install-plugin --uninstall\n",
        link.display(),
        program.display()
    ));
    Ok(())
}

fn look(link: &Path, program: &Path) -> Result<Found, CommandError> {
    let metadata = match link.symlink_metadata() {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(error) => return Err(CommandError::io("can't look at", link, &error)),
    };
    if metadata.is_dir() {
        return Err(CommandError::usage(format!("{} is a directory", link.display())));
    }
    if !metadata.is_symlink() {
        return Ok(Found::Foreign("another program".to_owned()));
    }
    let target = std::fs::read_link(link).map_err(|error| CommandError::io("can't read", link, &error))?;
    let is_same =
        |a: &Path, b: &Path| a.canonicalize().ok().is_some_and(|a| b.canonicalize().is_ok_and(|b| a == b));
    if target == program || is_same(link, program) {
        return Ok(Found::Ours);
    }
    Ok(match target.file_name() {
        Some(name) if name == "polyarch" => Found::Older(target),
        _ => Found::Foreign(format!("a link to {}", target.display())),
    })
}

/// Makes the link in one step, whatever is there.
fn make(link: &Path, program: &Path) -> Result<(), CommandError> {
    let directory = link.parent().unwrap_or(Path::new("/"));
    std::fs::create_dir_all(directory)
        .map_err(|error| CommandError::io("can't make the directory", directory, &error))?;
    let temporary = directory.join(format!(".{PLUGIN}.{}", std::process::id()));
    let made =
        std::os::unix::fs::symlink(program, &temporary).and_then(|()| std::fs::rename(&temporary, link));
    made.map_err(|error| {
        // Nothing is left behind; that it can't be removed says no more than the error itself.
        let _ = std::fs::remove_file(&temporary);
        CommandError::io("can't link", link, &error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_files_are_told_from_ours() {
        let directory = tempfile::tempdir().unwrap();
        let (link, program) = (directory.path().join(PLUGIN), directory.path().join("polyarch"));
        std::fs::write(&program, "").unwrap();
        assert_eq!(look(&link, &program).unwrap(), Found::Nothing);
        make(&link, &program).unwrap();
        assert_eq!(look(&link, &program).unwrap(), Found::Ours);
        let other = PathBuf::from("/nonexistent/polyarch");
        make(&link, &other).unwrap();
        assert_eq!(look(&link, &program).unwrap(), Found::Older(other));
        make(&link, Path::new("/usr/lib/docker-buildx")).unwrap();
        assert!(matches!(look(&link, &program).unwrap(), Found::Foreign(_)));
        std::fs::remove_file(&link).unwrap();
        std::fs::write(&link, "").unwrap();
        assert!(matches!(look(&link, &program).unwrap(), Found::Foreign(_)));
    }
}
