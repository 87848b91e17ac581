// SPDX-License-Identifier: Apache-2.0
//! `polyarch load`: images of an archive into the store.

use std::fs::File;
use std::path::PathBuf;

use clap::Args;
use polyarch_images::load::{LoadedImage, STANDARD_INPUT, load};

use super::build::platforms::named_platforms;
use super::pull::{count, kind_lines};
use crate::CommandError;
use crate::session::Session;

/// Load images from an archive: of docker, or an OCI layout, also compressed
///
/// The archive may be compressed with gzip, zstd, bzip2 or xz. Every name then means the archive's document, with all platforms that the archive has.
#[derive(Debug, Args)]
pub struct LoadArgs {
    /// File to read [default: standard input]
    #[arg(short, long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Platforms that must be in the archive
    #[arg(long, value_name = "PLATFORM[,PLATFORM]")]
    platform: Vec<String>,
    /// Print only names
    #[arg(short, long)]
    quiet: bool,
}

/// Runs the command.
pub fn run(args: &LoadArgs, session: &Session) -> Result<(), CommandError> {
    let environment = &session.environment;
    let platforms = named_platforms(&args.platform, environment)?;
    let input = args.input.as_ref().filter(|path| path.as_os_str() != "-");
    if input.is_none() && environment.stdin_is_terminal {
        return Err(CommandError::usage("requested load from stdin, but stdin is a terminal")
            .with_hint("name a file with -i, or redirect the input"));
    }
    let (source, file) = match input {
        Some(given) => {
            let path = environment.resolve(given);
            let file = File::open(&path).map_err(|error| CommandError::io("can't open", &path, &error))?;
            if path.is_dir() {
                let shown = given.display();
                return Err(CommandError::usage(format!("can't load {shown}: it is a directory")).with_hint(
                    format!("an OCI layout is loaded as an archive: tar -cC {shown} . | polyarch load"),
                ));
            }
            (given.display().to_string(), Some(file))
        }
        None => (STANDARD_INPUT.to_owned(), None),
    };
    let settings = session.settings()?;
    let engine = session.open_for_documents(&settings)?;
    let loaded = engine.perform(|services| {
        polyarch_build::fetch::blocking(move || match file {
            Some(file) => load(&services, &source, file, &platforms),
            None => load(&services, &source, std::io::stdin(), &platforms),
        })
    })?;
    for image in &loaded {
        tell(image, args.quiet, session)?;
    }
    Ok(())
}

fn tell(image: &LoadedImage, is_quiet: bool, session: &Session) -> Result<(), CommandError> {
    for note in &image.notes {
        session.printer.warning(note);
    }
    let line = match &image.name {
        Some(name) => format!("Loaded image: {}\n", name.familiar()),
        None => format!("Loaded image ID: {}\n", image.root.digest),
    };
    if let (Some(name), Some(replaced)) = (&image.name, &image.replaced) {
        session.printer.warning(&replaced.notice(name, &image.root));
    }
    if !is_quiet {
        let complete = image.held.iter().filter(|it| it.is_complete);
        let platforms = complete.map(|it| (&it.platform, &it.manifest.digest)).collect::<Vec<_>>();
        let of_it = format!("{}; loaded of it", count(image.held.len()));
        let lines = kind_lines(&image.root.digest, &of_it, &platforms);
        session.printer.message(&format!("Digest: {}\n{lines}", image.root.digest));
        if image.name.is_none() {
            session.printer.message(&format!(
                "The archive has no name for it: polyarch tag {} NAME keeps it at the next prune\n",
                image.root.digest
            ));
        }
    }
    session.printer.data(&line)
}
