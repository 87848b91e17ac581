// SPDX-License-Identifier: Apache-2.0
//! `polyarch import`: a root file system becomes an image.

use std::fs::File;

use clap::Args;
use polyarch_images::import::{ImportRequest, import};
use polyarch_oci::Platform;

use super::build::platforms::parse_platforms;
use super::pull::parse_name;
use crate::session::Session;
use crate::{CommandError, Environment};

/// Make an image of a root file system in a tar archive
///
/// The archive may be compressed with gzip, zstd, bzip2 or xz. The image has one layer and one platform.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// Instruction of a Dockerfile that changes the config, such as 'CMD ["/bin/sh"]'
    #[arg(short, long, value_name = "INSTRUCTION")]
    change: Vec<String>,
    /// What the history says [default: where it was imported from]
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,
    /// Platform that the programs are of [default: this machine's] [env: DOCKER_DEFAULT_PLATFORM]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
    /// Archive to read; - is standard input
    #[arg(value_name = "FILE|-")]
    file: String,
    /// Name of the image
    #[arg(value_name = "NAME[:TAG]")]
    name: Option<String>,
}

/// Runs the command.
pub fn run(args: &ImportArgs, session: &Session) -> Result<(), CommandError> {
    let environment = &session.environment;
    let name = args.name.as_deref().map(parse_name).transpose()?;
    if name.as_ref().is_some_and(|name| name.digest().is_some()) {
        return Err(CommandError::usage("a new image is named by a tag, not by a digest"));
    }
    let platforms = parse_platforms(args.platform.as_slice(), environment)?;
    if platforms.len() > 1 {
        return Err(CommandError::usage("--platform: an archive has the files of one platform")
            .with_hint("import each under a name of its own, and join them: polyarch manifest create"));
    }
    let platform = platforms.into_iter().next().unwrap_or_else(Platform::host);
    if args.file.starts_with("http://") || args.file.starts_with("https://") {
        let name = args.name.as_deref().unwrap_or("NAME");
        return Err(CommandError::usage(format!("{}: addresses are not fetched in this version", args.file))
            .with_hint(format!("curl -fL {} | polyarch import - {name}", args.file)));
    }
    let (source, file) = match args.file.as_str() {
        "-" if environment.stdin_is_terminal => {
            return Err(CommandError::usage("requested import from stdin, but stdin is a terminal")
                .with_hint("name a file, or redirect the input"));
        }
        "-" => ("standard input".to_owned(), None),
        path => {
            let path = environment.resolve(path.as_ref());
            let file = File::open(&path).map_err(|error| CommandError::io("can't open", &path, &error))?;
            if path.is_dir() {
                let message = format!("{} is a directory", path.display());
                return Err(CommandError::usage(message).with_hint(format!(
                    "tar -C {} -c . | polyarch import - {}",
                    args.file,
                    args.name.as_deref().unwrap_or("NAME")
                )));
            }
            (path.file_name().unwrap_or_default().to_string_lossy().into_owned(), Some(file))
        }
    };
    let message = args.message.clone().unwrap_or_else(|| format!("Imported from {}", args.file));
    let created = created(environment)?;
    let request = ImportRequest { name, platform, changes: args.change.clone(), message, created };
    let settings = session.settings()?;
    let engine = session.open_for_documents(&settings)?;
    let name = request.name.clone();
    let shown = request.platform.clone();
    let imported = engine.perform(|services| {
        polyarch_build::fetch::blocking(move || match file {
            Some(file) => import(&services, &source, file, &request),
            None => import(&services, &source, std::io::stdin(), &request),
        })
    })?;
    for note in &imported.notes {
        session.printer.warning(note);
    }
    match &name {
        Some(name) => {
            if let Some(replaced) = &imported.replaced {
                session.printer.warning(&replaced.notice(name, &imported.root));
            }
            session.printer.message(&format!("Imported {} for {shown}; its manifest:\n", name.familiar()));
        }
        None => session.printer.message(&format!(
            "It has no name: polyarch tag {} NAME keeps it at the next prune\n",
            imported.root.digest
        )),
    }
    session.printer.data(&format!("{}\n", imported.root.digest))
}

/// Returns the time that the image tells, which `SOURCE_DATE_EPOCH` fixes.
fn created(environment: &Environment) -> Result<jiff::Timestamp, CommandError> {
    let Some(text) = environment.text("SOURCE_DATE_EPOCH") else { return Ok(jiff::Timestamp::now()) };
    let seconds = text.parse().ok().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    seconds.ok_or_else(|| {
        CommandError::usage(format!("SOURCE_DATE_EPOCH={text:?} is not a number of seconds since 1970"))
    })
}
