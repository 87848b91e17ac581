// SPDX-License-Identifier: Apache-2.0
//! `polyarch manifest annotate`.

use clap::Args;
use polyarch_images::manifest_list::{self, Annotate};

use super::Quiet;
use crate::CommandError;
use crate::commands::flag_values::parse_pair;
use crate::commands::pull::parse_name;
use crate::session::Session;

/// Say more about an image of a list
///
/// What contradicts the image's own config is refused; --force says it all the same.
#[derive(Debug, Args)]
pub struct AnnotateArgs {
    /// Set the operating system
    #[arg(long, value_name = "OS")]
    os: Option<String>,
    /// Set the architecture; x86_64, aarch64 and other names of the field are understood
    #[arg(long, value_name = "ARCH")]
    arch: Option<String>,
    /// Set the variant of the architecture
    #[arg(long, value_name = "VARIANT")]
    variant: Option<String>,
    /// Set the version of the operating system
    #[arg(long, value_name = "VERSION")]
    os_version: Option<String>,
    /// Add features of the operating system
    #[arg(long, value_name = "FEATURE", value_delimiter = ',')]
    os_features: Vec<String>,
    /// Annotate the image's entry, or with `index:` before the key the list
    #[arg(long, value_name = "[index:]KEY=VALUE")]
    annotation: Vec<String>,
    /// Annotate the list, with every --annotation
    #[arg(long)]
    index: bool,
    /// Say also what contradicts the image
    #[arg(long)]
    force: bool,
    /// Accept registries without TLS, or with any certificate
    #[arg(long, hide_short_help = true)]
    insecure: bool,
    /// Name of the list
    #[arg(value_name = "MANIFEST_LIST")]
    list: String,
    /// The image, by the name or the digest that it has in the list
    #[arg(value_name = "MANIFEST")]
    manifest: Option<String>,
}

/// Runs the command.
pub fn run(args: &AnnotateArgs, session: &Session) -> Result<(), CommandError> {
    let name = parse_name(&args.list)?;
    let request = request(args)?;
    let images = args.manifest.iter().chain([&args.list]).map(String::as_str);
    let settings = super::settings(session, args.insecure, images)?;
    let engine = session.open_for_documents(&settings)?;
    let quiet = Quiet::default();
    let shown = quiet.shown();
    let result = engine
        .perform(|services| async move { manifest_list::annotate(&services, &name, &request, &shown).await });
    quiet.finish(session, result)
}

fn request(args: &AnnotateArgs) -> Result<Annotate, CommandError> {
    let set = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let mut request = Annotate {
        source: args.manifest.clone(),
        os: set(&args.os),
        architecture: set(&args.arch),
        variant: set(&args.variant),
        os_version: set(&args.os_version),
        os_features: args.os_features.iter().filter(|feature| !feature.is_empty()).cloned().collect(),
        force: args.force,
        ..Annotate::default()
    };
    for text in &args.annotation {
        let (is_of_index, text) = match text.strip_prefix("index:") {
            Some(rest) => (true, rest),
            None => (args.index, text.strip_prefix("manifest-descriptor:").unwrap_or(text)),
        };
        if !text.contains('=') {
            return Err(CommandError::usage(format!("--annotation {text:?}: write KEY=VALUE")));
        }
        let (key, value) = parse_pair("--annotation", text).map_err(CommandError::usage)?;
        let annotations = if is_of_index { &mut request.index_annotations } else { &mut request.annotations };
        annotations.insert(key, value);
    }
    if request.source.is_none() {
        let is_of_index = !request.index_annotations.is_empty() && request.annotations.is_empty();
        let says_platform = request.os.is_some()
            || request.architecture.is_some()
            || request.variant.is_some()
            || request.os_version.is_some()
            || !request.os_features.is_empty();
        if !is_of_index || says_platform {
            return Err(CommandError::usage("the image to annotate is missing")
                .with_hint("polyarch manifest annotate LIST IMAGE --arch arm64")
                .with_hint("or annotate the list itself: --annotation index:KEY=VALUE"));
        }
    }
    Ok(request)
}
