// SPDX-License-Identifier: Apache-2.0
//! `polyarch manifest create`.

use clap::Args;
use polyarch_images::Origin;
use polyarch_images::manifest_list::{self, Added, Create};
use polyarch_oci::media_type::Flavour;

use super::Quiet;
use crate::CommandError;
use crate::commands::pull::parse_name;
use crate::session::Session;
use crate::visible_text::visible_text;

/// Start a list of images, before anything is pushed
///
/// Images come from the local store first, then from their registries, whichever these are; also from OCI
/// layouts (oci-layout://DIR:TAG) and archives (oci-archive:FILE, docker-archive:FILE). A source that is
/// a list itself adds all its images. Nothing is pushed before `polyarch manifest push`.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// Add to a list that is there
    #[arg(short, long)]
    amend: bool,
    /// Accept registries without TLS, or with any certificate
    #[arg(long)]
    insecure: bool,
    /// Kind of index, oci or docker; by default that of the first image
    #[arg(long, value_name = "oci|docker", value_parser = super::parse_flavour)]
    format: Option<Flavour>,
    /// Believe platforms of a list that its own images contradict
    #[arg(long)]
    force: bool,
    /// Name of the list
    #[arg(value_name = "MANIFEST_LIST")]
    list: String,
    /// Images
    #[arg(value_name = "MANIFEST", required = true)]
    manifests: Vec<String>,
}

/// Runs the command.
pub fn run(args: &CreateArgs, session: &Session) -> Result<(), CommandError> {
    let request = Create {
        name: parse_name(&args.list)?,
        sources: args.manifests.clone(),
        amend: args.amend,
        flavour: args.format,
        force: args.force,
    };
    let images = args.manifests.iter().chain([&args.list]).map(String::as_str);
    let settings = super::settings(session, args.insecure, images)?;
    let engine = session.open_for_documents(&settings)?;
    let (quiet, name) = (Quiet::default(), request.name.clone());
    let shown = quiet.shown();
    let result =
        engine.perform(|services| async move { manifest_list::create(&services, &request, &shown).await });
    let created = quiet.finish(session, result)?;
    for added in &created.added {
        session.printer.message(&format!("{}\n", visible_text(&told(added))));
    }
    for warning in &created.warnings {
        session.printer.warning(warning);
    }
    session.printer.data(&format!("Created manifest list {name}\n"))
}

/// Says what was added, and from where: a local image may differ from that of the registry.
fn told(added: &Added) -> String {
    let entry = &added.entry;
    let place = match &added.origin {
        Origin::Store(_) => "local store",
        Origin::Registry(_) => "registry",
        Origin::Layout(_) => "layout",
        Origin::Archive(_) => "archive",
    };
    let kind = match &entry.descriptor.platform {
        _ if entry.descriptor.is_attestation() => "attestation".to_owned(),
        Some(platform) if !platform.os.is_empty() => platform.to_string(),
        _ => "no platform".to_owned(),
    };
    // The sources of a list's images end in their digests.
    let name = entry.source.split('@').next().unwrap_or(&entry.source);
    format!("{name}: {kind} {} ({place})", entry.descriptor.digest)
}
