// SPDX-License-Identifier: Apache-2.0
//! `polyarch manifest push`.

use std::fmt::Write as _;

use clap::Args;
use polyarch_build::fetch::Shown;
use polyarch_images::manifest_list::{self, Push};
use polyarch_oci::media_type::Flavour;

use crate::CommandError;
use crate::commands::pull::{count, kind_lines, parse_name};
use crate::progress::ProgressMode;
use crate::session::Session;

/// Push a list, and the images that its registry lacks
///
/// Images of another repository of the same registry are mounted, those of other registries and of the
/// local store are copied.
#[derive(Debug, Args)]
pub struct PushArgs {
    /// Remove the list after the push
    #[arg(short, long)]
    purge: bool,
    /// Accept registries without TLS, or with any certificate
    #[arg(long)]
    insecure: bool,
    /// Kind of index, oci or docker; docker converts the images too, which gives them other digests
    #[arg(long, value_name = "oci|docker", value_parser = super::parse_flavour)]
    format: Option<Flavour>,
    /// Push a list that has a platform twice
    #[arg(long)]
    force: bool,
    /// Print only the digest
    #[arg(short, long)]
    quiet: bool,
    /// Name of the list
    #[arg(value_name = "MANIFEST_LIST")]
    list: String,
}

/// Runs the command.
pub fn run(args: &PushArgs, session: &Session) -> Result<(), CommandError> {
    let name = parse_name(&args.list)?;
    let mut settings = session.settings()?;
    if args.insecure {
        settings.hosts.entry(name.host()).insecure = true;
        // The images' own registries are known to the list.
        for host in source_hosts(session, &settings, &name)? {
            settings.hosts.entry(&host).insecure = true;
        }
    }
    let engine = session.open_for_documents(&settings)?;
    let mode = if args.quiet { ProgressMode::Quiet } else { ProgressMode::Auto };
    let (progress, display) = crate::commands::build::show_progress(session, mode, "");
    let vertex = progress.begin("manifest push", format!("pushing manifest list {name}"));
    let shown = Shown { progress, vertex: vertex.digest() };
    let request = Push { name, flavour: args.format, purge: args.purge, force: args.force };
    let result =
        engine.perform(|services| async move { manifest_list::push(&services, &request, &shown).await });
    match &result {
        Ok(_) => vertex.done(),
        Err(error) => vertex.failed(error),
    }
    display.finish();
    let pushed = result?;
    for warning in &pushed.warnings {
        session.printer.warning(warning);
    }
    let mut text = String::new();
    for image in pushed.images.iter().filter(|_| !args.quiet) {
        if let Some(digest) = image.digest() {
            // Writing to a String can't fail.
            let _ = writeln!(text, "Pushed ref {image} with digest: {digest}");
        }
    }
    if !args.quiet {
        let platforms = pushed.platforms.iter().map(|(platform, it)| (platform, it)).collect::<Vec<_>>();
        let kind = kind_lines(&pushed.digest, &count(platforms.len()), &platforms);
        session.printer.message(&format!("Digest: {}\n{kind}", pushed.digest));
    }
    session.printer.data(&format!("{text}{}\n", pushed.digest))
}

/// Returns the registries that the images of a list come from.
fn source_hosts(
    session: &Session,
    settings: &crate::config::Settings,
    name: &polyarch_oci::Reference,
) -> Result<Vec<String>, CommandError> {
    let engine = session.open_for_documents(settings)?;
    let name = name.clone();
    let list = engine.perform(|services| async move { manifest_list::find_list(services.store(), &name) })?;
    let from = list.entries.iter().filter_map(|entry| entry.from.as_ref());
    Ok(from.map(|from| from.host().to_owned()).collect())
}
