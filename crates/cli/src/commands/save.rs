// SPDX-License-Identifier: Apache-2.0
//! `polyarch save`: images of the store as one archive.

use std::io::Write as _;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use polyarch_build::write_file;
use polyarch_images::save::{SaveFormat, SaveRequest, SavedImage, plan, write};

use super::build::platforms::named_platforms;
use super::pull::{count, kind_lines};
use crate::CommandError;
use crate::session::Session;
use crate::visible_text::visible_line;

/// Write images of the store to an archive, with all platforms that are there
///
/// The archive is an OCI layout that docker and podman load as well: of a name with several platforms they
/// take one, this machine's where there is one.
#[derive(Debug, Args)]
pub struct SaveArgs {
    /// File to write [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Platforms to save; one alone is saved without the index [default: all that are there]
    #[arg(long, value_name = "PLATFORM[,PLATFORM]")]
    platform: Vec<String>,
    /// Form of the archive [default: an OCI layout with docker's manifest.json]
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Names, digests or ids of images
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// An OCI layout alone
    #[value(alias = "oci-archive")]
    Oci,
    /// Docker's old form: one platform of a name, layers uncompressed
    #[value(alias = "docker-archive")]
    Docker,
}

/// Runs the command.
pub fn run(args: &SaveArgs, session: &Session) -> Result<(), CommandError> {
    let output = args.output.as_ref().filter(|path| path.as_os_str() != "-");
    if output.is_none() && session.environment.stdout_is_terminal {
        return Err(CommandError::usage("cowardly refusing to save to a terminal")
            .with_hint("name a file with -o, or redirect the output"));
    }
    let platforms = named_platforms(&args.platform, &session.environment)?;
    let format = match args.format {
        None => SaveFormat::Both,
        Some(Format::Oci) => SaveFormat::Oci,
        Some(Format::Docker) => SaveFormat::Docker,
    };
    let request = SaveRequest { images: args.images.clone(), platforms, format };
    let settings = session.settings()?;
    let engine = session.open_for_documents(&settings)?;
    let printer = session.printer;
    let path = output.map(|path| session.environment.resolve(path));
    let saved = engine.perform(|services| {
        polyarch_build::fetch::blocking(move || {
            let plan = plan(&services, &request)?;
            for note in &plan.notes {
                printer.warning(note);
            }
            match path {
                Some(path) => write_file(&path, |out| write(&services, &plan, out))?,
                None => {
                    let mut out = std::io::BufWriter::with_capacity(1 << 20, std::io::stdout().lock());
                    write(&services, &plan, &mut out)?;
                    out.flush().map_err(|error| {
                        polyarch_build::BuildError::io("can't write to", "standard output", &error)
                    })?;
                }
            }
            Ok(plan.saved)
        })
    })?;
    for image in &saved {
        printer.message(&told(image));
    }
    Ok(())
}

/// Says which digests the archive has.
fn told(image: &SavedImage) -> String {
    let platforms: Vec<_> = image.platforms.iter().map(|(platform, it)| (platform, it)).collect();
    let of_it = format!("{}; saved of it", count(image.known_platforms));
    let kind = kind_lines(&image.root, &of_it, &platforms);
    format!("Saved image: {}\nDigest: {}\n{kind}", visible_line(image.text.as_bytes()), image.root)
}
