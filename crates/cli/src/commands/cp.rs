// SPDX-License-Identifier: Apache-2.0
//! `polyarch cp`: files out of an image.

use std::path::Path;

use clap::Args;
use polyarch_build::fetch::Shown;
use polyarch_images::copy_out::{CopyDestination, CopyRequest, copy_out};

use super::build::platforms::parse_platforms;
use crate::CommandError;
use crate::progress::ProgressMode;
use crate::session::Session;

/// Copy files out of an image
///
/// A directory is copied into one that exists, under its own name; DIRECTORY/. stands for what is in it. As
/// destination, - is a tar archive on standard output.
#[derive(Debug, Args)]
pub struct CpArgs {
    /// Keep owners and groups
    #[arg(short, long)]
    archive: bool,
    /// Copy what a symbolic link leads to
    #[arg(short = 'L', long)]
    follow_link: bool,
    /// Say nothing of what was copied
    #[arg(short, long)]
    quiet: bool,
    /// Platform whose files are meant [default: this machine's, else the only one] [env:
    /// DOCKER_DEFAULT_PLATFORM]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
    /// Image and path in it
    #[arg(value_name = "IMAGE:PATH")]
    source: String,
    /// File or directory, or - for a tar archive
    #[arg(value_name = "DESTINATION|-")]
    destination: String,
}

/// Runs the command.
pub fn run(args: &CpArgs, session: &Session) -> Result<(), CommandError> {
    let environment = &session.environment;
    let (image, path) = split_source(&args.source, &args.destination)?;
    let platforms = parse_platforms(args.platform.as_slice(), environment)?;
    if platforms.len() > 1 {
        return Err(CommandError::usage("--platform: files are copied of one platform at a time"));
    }
    let destination = match args.destination.as_str() {
        "-" if environment.stdout_is_terminal => {
            return Err(CommandError::usage("refusing to write an archive to a terminal")
                .with_hint("redirect the output, or name a directory"));
        }
        "-" => CopyDestination::Archive,
        "" => return Err(CommandError::usage("the destination is empty")),
        text => CopyDestination::Path {
            path: environment.resolve(Path::new(text)),
            is_directory: text.ends_with('/') || text.ends_with("/.") || text == "." || text == "..",
        },
    };
    let request = CopyRequest {
        image: image.to_owned(),
        platform: platforms.into_iter().next(),
        path: path.to_owned(),
        follow_link: args.follow_link,
        keep_owner: args.archive,
        destination,
    };
    let settings = session.settings()?;
    let engine = session.open(&settings)?;
    let (progress, display) = super::build::show_progress(session, ProgressMode::Quiet, "");
    let vertex = progress.begin("cp", format!("copying {}", args.source));
    let shown = Shown { progress, vertex: vertex.digest() };
    let result = engine
        .perform(|services| async move { copy_out(&services, &request, std::io::stdout(), &shown).await });
    match &result {
        Ok(_) => vertex.done(),
        Err(error) => vertex.failed(error),
    }
    display.finish();
    let platform = result?;
    if !args.quiet && args.destination != "-" {
        let message = format!("Copied {path} of {image} ({platform}) to {}\n", args.destination);
        session.printer.message(&message);
    }
    Ok(())
}

/// Splits `IMAGE:PATH` at the colon before the first path from the root: the image may have colons itself.
fn split_source<'a>(source: &'a str, destination: &str) -> Result<(&'a str, &'a str), CommandError> {
    match source.split_once(":/") {
        Some((image, _)) if !image.is_empty() => Ok((image, &source[image.len() + 1..])),
        _ if destination.contains(":/") => {
            Err(CommandError::usage("files can't be copied into an image: an image does not change")
                .with_hint("make one that has them: COPY in a Dockerfile, and polyarch build"))
        }
        _ => Err(CommandError::usage(format!("{source:?} is no IMAGE:PATH")).with_hint(
            "write the path from the root of the image: polyarch cp app:latest:/etc/os-release .",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_colon_before_the_path_is_found() {
        let split = |source| split_source(source, ".").ok();
        assert_eq!(split("app:/etc/os-release"), Some(("app", "/etc/os-release")));
        assert_eq!(split("localhost:5000/user/app:1.2:/"), Some(("localhost:5000/user/app:1.2", "/")));
        assert_eq!(split("app@sha256:00:/a:/b"), Some(("app@sha256:00", "/a:/b")));
        for wrong in ["app", "app:1", "./file", ":/etc", "app:etc/passwd"] {
            assert_eq!(split(wrong), None, "{wrong}");
        }
        let error = split_source("./file", "app:/etc/").unwrap_err();
        assert!(error.error.message.contains("into an image"));
    }
}
