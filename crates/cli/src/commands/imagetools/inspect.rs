// SPDX-License-Identifier: Apache-2.0
//! `polyarch imagetools inspect`: shows an image of a registry, in buildx's forms.

use clap::Args;
use polyarch_build::fetch::Shown;
use polyarch_images::{FindOptions, FoundImage, ImageSource, Lookup, Statement, details, find};
use polyarch_solver::progress::{Event, Progress};

use super::values::{Inspected, render_value};
use super::{allow_insecure, parse_source, registry_name, text};
use crate::CommandError;
use crate::session::Session;
use crate::template::{Functions, Template};

/// Show details of an image in the registry
///
/// A name that the registry does not have is looked for in the local store. NAME may also be
/// oci-layout://DIR:TAG, docker-archive:FILE or oci-archive:FILE.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// Format the output using the given Go template: fields .Name .Manifest .Image .Provenance .SBOM,
    /// function json
    #[arg(long, value_name = "TEMPLATE", conflicts_with = "raw")]
    format: Option<String>,
    /// Show original, unformatted JSON manifest
    #[arg(long)]
    raw: bool,
    /// Allow plain HTTP and certificates that can't be verified
    #[arg(long)]
    insecure: bool,
    /// Image, or one of the other forms above
    #[arg(value_name = "NAME")]
    name: String,
}

/// Runs the command.
pub fn run(args: &InspectArgs, session: &Session) -> Result<(), CommandError> {
    let source = parse_source(&args.name)?;
    let format = args.format.as_deref().filter(|format| !format.is_empty());
    let template = match format {
        Some("json") => Some(Template::parse("{{json .}}\n")?),
        Some(format) => Some(Template::parse(format)?),
        None => None,
    };
    let is_text = format.is_none_or(is_whole_manifest);
    let mut settings = session.settings()?;
    if args.insecure {
        allow_insecure(&mut settings, registry_name(&source).into_iter());
    }
    let printer = session.printer;
    let progress = Progress::new(move |event| {
        if let Event::Warning(warning) = event {
            printer.warning(&warning.message);
        }
    });
    let engine = session.open_for_documents(&settings)?;
    let (found, inspected) = engine.perform(|services| {
        let (source, template) = (&source, template.as_ref().filter(|_| !is_text));
        async move {
            let shown = Shown { progress, vertex: "".into() };
            let found = find(&services, source, &FindOptions::new(Lookup::RegistryThenStore), &shown).await?;
            let inspected = match template {
                Some(template) => Some(look_inside(&found, template).await?),
                None => None,
            };
            Ok((found, inspected))
        }
    })?;
    if args.raw {
        // Documents are JSON, which is text; no line break is added, so that the digest stays.
        let text = String::from_utf8_lossy(found.document.bytes()).into_owned();
        return printer.data(&session.shown_template(text));
    }
    match (&template, inspected) {
        (Some(template), Some(inspected)) => {
            let value = render_value(&args.name, &found, &inspected)?;
            let out = template.render(&value, Functions::buildx())?;
            printer.data(&session.shown_template(out))
        }
        _ => printer.data(&text::render(&full_name(&source), &found)),
    }
}

/// Reads what the template asks for: attestations are read only then.
async fn look_inside(
    found: &FoundImage,
    template: &Template,
) -> Result<Vec<Inspected>, polyarch_build::BuildError> {
    let mut inspected = Vec::new();
    for platform in details(found).await? {
        let mut predicates = [Vec::new(), Vec::new()];
        for (place, (field, statement)) in
            [("SBOM", Statement::Sbom), ("Provenance", Statement::Provenance)].into_iter().enumerate()
        {
            if template.asks_for(field) {
                predicates[place] = platform.predicates(found, statement).await?;
            }
        }
        let [sbom, provenance] = predicates;
        inspected.push(Inspected { platform: platform.platform, config: platform.config, sbom, provenance });
    }
    Ok(inspected)
}

/// Tells whether a template asks for the manifest as a whole, which is the text form.
fn is_whole_manifest(format: &str) -> bool {
    let inner = format.trim().strip_prefix("{{").and_then(|rest| rest.strip_suffix("}}"));
    inner.is_some_and(|inner| inner.trim() == ".Manifest")
}

fn full_name(source: &ImageSource) -> String {
    match source {
        ImageSource::Reference(name) => name.to_string(),
        other => other.to_string(),
    }
}
