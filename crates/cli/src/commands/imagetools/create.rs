// SPDX-License-Identifier: Apache-2.0
//! `polyarch imagetools create`: composes an image of other images, byte for byte as buildx does.

use std::path::PathBuf;

use clap::Args;
use polyarch_build::fetch::Shown;
use polyarch_build::write_file;
use polyarch_images::create::{CreateRequest, Target, prepare};
use polyarch_images::{Annotation, ComposeOptions, Composed, ImageSource};
use polyarch_oci::{Descriptor, Digest, Platform, json};
use polyarch_solver::progress::{Event, Progress};
use serde::Serialize;

use super::super::build::show_progress;
use super::super::flag_values::{go_bool, unknown};
use super::super::pull::{count, kind_lines};
use super::{allow_insecure, parse_source};
use crate::CommandError;
use crate::progress::ProgressMode;
use crate::session::Session;

/// Create a new image based on source images
///
/// Sources are names, digests, descriptors as JSON, oci-layout://DIR:TAG, docker-archive:FILE and
/// oci-archive:FILE. The entries of indexes are flattened. The digest is the one that buildx gives.
#[derive(Debug, Args)]
pub struct CreateArgs {
    #[arg(
        long,
        value_name = "ANNOTATION",
        help = "Add annotation to the image: index:KEY=VALUE or manifest-descriptor[PLATFORM]:KEY=VALUE"
    )]
    annotation: Vec<String>,
    /// Append to existing manifest
    #[arg(long)]
    append: bool,
    /// Show final image instead of pushing
    #[arg(long)]
    dry_run: bool,
    /// Read source descriptor from file
    #[arg(short, long, value_name = "FILE")]
    file: Vec<PathBuf>,
    /// Allow plain HTTP and certificates that can't be verified for the registries named
    #[arg(long)]
    insecure: bool,
    /// Write create result metadata to a file
    #[arg(long, value_name = "FILE")]
    metadata_file: Option<PathBuf>,
    /// Filter specified platforms of target image
    #[arg(short, long, value_name = "PLATFORM")]
    platform: Vec<String>,
    /// When only a single source is specified, prefer outputting an image index or manifest list instead
    /// of performing a carbon copy
    #[arg(long, value_name = "BOOL", value_parser = go_bool, default_value = "true", num_args = 0..=1,
          require_equals = true, default_missing_value = "true")]
    prefer_index: bool,
    /// Set type of progress output: auto, none, plain, rawjson or tty
    #[arg(long, value_name = "TYPE", default_value = "auto")]
    progress: String,
    /// Set reference for new image
    #[arg(short, long, value_name = "NAME")]
    tag: Vec<String>,
    /// Images to compose: names, digests of the target's repository, descriptors as JSON, oci-layout://DIR:TAG,
    /// docker-archive:FILE or oci-archive:FILE
    #[arg(value_name = "SOURCE")]
    sources: Vec<String>,
}

/// Runs the command.
pub fn run(args: &CreateArgs, session: &Session) -> Result<(), CommandError> {
    let mode = ProgressMode::parse(&args.progress).ok_or_else(|| {
        let known = ["auto", "none", "plain", "rawjson", "tty"];
        CommandError::usage(unknown("--progress", &args.progress, &known))
    })?;
    let request = request(args, session)?;
    let mut settings = session.settings()?;
    if args.insecure {
        let targets = request.targets.iter().filter_map(|target| match target {
            Target::Reference(name) => Some(name),
            Target::Layout(_) => None,
        });
        let sources = request.sources.iter().filter_map(super::registry_name);
        allow_insecure(&mut settings, sources.chain(targets));
    }
    if let Some(path) = &args.metadata_file {
        polyarch_build::require_directory(&session.environment.resolve(path))?;
    }
    let engine = session.open_for_documents(&settings)?;
    let (progress, display) = show_progress(session, mode, "");
    let outcome = engine.perform(|services| {
        let (request, progress) = (&request, progress.clone());
        async move {
            let creation = prepare(&services, request, &warnings_of(&progress)).await?;
            if !args.dry_run {
                creation.publish(&services, &request.targets, &progress).await?;
            }
            Ok(creation.composed)
        }
    });
    display.finish();
    let composed = outcome?;
    if args.dry_run {
        // Documents are JSON, which is text; what is not would have been refused when it was read.
        let text = format!("{}\n", String::from_utf8_lossy(&composed.bytes));
        return session.printer.data(&session.shown_template(text));
    }
    if let Some(path) = &args.metadata_file {
        let names: std::collections::BTreeSet<String> = request.targets.iter().map(Target::place).collect();
        let names: Vec<String> = names.into_iter().collect();
        write_metadata(&session.environment.resolve(path), &composed.descriptor, &names.join(","))?;
    }
    if !matches!(mode, ProgressMode::Quiet | ProgressMode::RawJson) {
        session.printer.message(&digests(&composed));
    }
    Ok(())
}

/// Says which digest the index has, and which each platform.
fn digests(composed: &Composed) -> String {
    let root = &composed.descriptor;
    let entries = composed.entries.iter().filter(|(entry, _)| !entry.is_attestation());
    let platforms: Vec<(Platform, &Digest)> = entries
        .filter_map(|(entry, _)| Some((entry.platform.clone()?.normalized(), &entry.digest)))
        .collect();
    let platforms: Vec<(&Platform, &Digest)> =
        platforms.iter().map(|(platform, digest)| (platform, *digest)).collect();
    format!("Digest: {}\n{}", root.digest, kind_lines(&root.digest, &count(platforms.len()), &platforms))
}

/// Shows only warnings: finding sources fetches a few small documents, as buildx does without a word.
fn warnings_of(progress: &Progress) -> Shown {
    let progress = progress.clone();
    let send = move |event: Event| {
        if matches!(event, Event::Warning(_)) {
            progress.send(event);
        }
    };
    Shown { progress: Progress::new(send), vertex: "".into() }
}

/// Checks the flags and makes of them what is asked for.
fn request(args: &CreateArgs, session: &Session) -> Result<CreateRequest, CommandError> {
    if args.sources.is_empty() && args.file.is_empty() {
        return Err(CommandError::usage("no sources specified")
            .with_hint("polyarch imagetools create -t NAME SOURCE [SOURCE…]"));
    }
    if !args.dry_run && args.tag.is_empty() {
        return Err(CommandError::usage("can't push with no tags specified")
            .with_hint("set --tag NAME, or --dry-run to see the image"));
    }
    let mut sources = Vec::new();
    for file in &args.file {
        sources.push(ImageSource::from_file(&session.environment.resolve(file))?);
    }
    for source in &args.sources {
        sources.push(parse_source(source)?);
    }
    let mut targets = Vec::new();
    for tag in &args.tag {
        targets.push(Target::parse(tag)?);
    }
    let mut annotations = Vec::new();
    for annotation in &args.annotation {
        annotations.extend(Annotation::parse(annotation)?);
    }
    let mut platforms = Vec::new();
    for list in &args.platform {
        let list = Platform::parse_list(list)
            .map_err(|error| CommandError::usage(polyarch_build::error::chain_of(&error)))?;
        platforms.extend(list);
    }
    let options = ComposeOptions { annotations, prefer_index: args.prefer_index, platforms };
    let append = args.append && !targets.is_empty();
    Ok(CreateRequest { sources, targets, append, options })
}

/// Writes the metadata file, in buildx's form.
fn write_metadata(path: &std::path::Path, descriptor: &Descriptor, names: &str) -> Result<(), CommandError> {
    #[derive(Serialize)]
    struct Metadata<'a> {
        #[serde(rename = "containerimage.descriptor")]
        descriptor: &'a Descriptor,
        #[serde(rename = "image.name")]
        names: &'a str,
    }
    let bytes = json::to_indented(&Metadata { descriptor, names }, "  ");
    write_file(path, |out| {
        use std::io::Write as _;
        out.write_all(&bytes).map_err(|error| polyarch_build::BuildError::io("can't write", path, &error))
    })?;
    Ok(())
}
