// SPDX-License-Identifier: Apache-2.0
//! `polyarch resolve`: says which image and which platform a name or a digest is.

use std::fmt::Write as _;

use clap::{Args, ValueEnum};
use polyarch_build::BuildError;
use polyarch_build::fetch::Shown;
use polyarch_images::lookup::{self, MIN_ID_CHARACTERS};
use polyarch_images::resolve::{self, ImageDigests, Meaning, Place, Role};
use polyarch_oci::{Digest, Platform, Reference};
use polyarch_solver::progress::Progress;
use serde::Serialize;

use super::build::table::render_table;
use crate::CommandError;
use crate::session::Session;
use crate::visible_text::visible_text;

/// Say which image and which platform a name or digest is
///
/// A digest, or its beginning, is looked for among the indexes, manifests, configs and layers of the store.
/// Of a name it is told what it means in the store and at its registry.
#[derive(Debug, Args)]
pub struct ResolveArgs {
    /// How to print it
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Ask no registry
    #[arg(long)]
    local: bool,
    /// Digest, beginning of one, or name of an image
    #[arg(value_name = "DIGEST|NAME")]
    text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Sentences
    Text,
    /// One JSON object
    Json,
}

/// What was found out.
#[derive(Debug, Default)]
struct Answer {
    places: Vec<Place>,
    name: Option<Reference>,
    store: Option<Meaning>,
    registry: Option<Meaning>,
    /// The entry of the index that was meant, when a name came with a platform's digest.
    meant: Option<Digest>,
    /// Why the registry said nothing.
    warning: Option<String>,
}

/// Runs the command.
pub fn run(args: &ResolveArgs, session: &Session) -> Result<(), CommandError> {
    let settings = session.settings()?;
    let engine = session.open_for_documents(&settings)?;
    let answer = engine.perform(|services| async move { find_out(&services, args).await })?;
    if let Some(warning) = &answer.warning {
        session.printer.warning(warning);
    }
    session.printer.data(&match args.format {
        Format::Text => visible_text(&render(&answer)),
        Format::Json => json(&answer),
    })
}

async fn find_out(
    services: &std::sync::Arc<polyarch_build::Services>,
    args: &ResolveArgs,
) -> Result<Answer, BuildError> {
    let store = services.store();
    let hex = hex_of(&args.text);
    if let Some(hex) = &hex {
        let places = resolve::places(store, hex)?;
        if !places.is_empty() {
            return Ok(Answer { places, ..Answer::default() });
        }
    }
    let found = lookup::find(store, &args.text);
    // A name is a name even where the store lacks it; hexadecimal digits are asked of no registry.
    let Ok(name) = args.text.parse::<Reference>() else { return Err(unknown(store, args, hex, found)?) };
    if hex.is_some() && found.is_err() {
        return Err(unknown(store, args, hex, found)?);
    }
    let mut answer = Answer { name: Some(name.clone().with_default_tag()), ..Answer::default() };
    let missing = match found {
        Ok(found) => {
            answer.store = Some(resolve::in_store(store, &found.root)?);
            answer.meant = found.image.map(|image| image.digest);
            None
        }
        Err(error) => Some(error),
    };
    if args.local {
        return match missing {
            Some(error) => Err(error),
            None => Ok(answer),
        };
    }
    let shown = Shown { progress: Progress::none(), vertex: "".into() };
    match (resolve::in_registry(services, &name, &shown).await, missing) {
        (Ok(meaning), _) => answer.registry = Some(meaning),
        (Err(error), None) => answer.warning = Some(error.message),
        (Err(mut error), Some(missing)) => {
            // What is near in the store may be what was meant.
            error.hints.extend(missing.hints.into_iter().filter(|hint| hint.starts_with("did you mean")));
            return Err(error);
        }
    }
    // With a tag before the digest, the tag's index says which platform the digest is.
    if name.digest().is_some()
        && let Some(tag) = name.tag()
        && let Ok(tagged) = format!("{}:{tag}", name.name()).parse::<Reference>()
        && let Ok(meaning) = resolve::in_registry(services, &tagged, &shown).await
        && meaning.images.iter().any(|image| Some(&image.manifest) == name.digest())
    {
        answer.meant = name.digest().cloned();
        answer.registry = Some(meaning);
    }
    Ok(answer)
}

fn unknown(
    store: &polyarch_store::Store,
    args: &ResolveArgs,
    hex: Option<String>,
    found: Result<lookup::Found, BuildError>,
) -> Result<BuildError, BuildError> {
    match (hex, found) {
        (Some(hex), _) => resolve::unknown_digest(store, &args.text, &hex),
        (None, Err(error)) => Ok(error),
        // A text that is no reference can't have been found by a name.
        (None, Ok(_)) => resolve::unknown_digest(store, &args.text, &args.text),
    }
}

/// Returns the hexadecimal digits of a digest or its beginning.
fn hex_of(text: &str) -> Option<String> {
    let hex = text.strip_prefix("sha256:").or(text.strip_prefix("sha512:")).unwrap_or(text);
    let is_hex = hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    ((MIN_ID_CHARACTERS..=128).contains(&hex.len()) && is_hex).then(|| hex.to_owned())
}

fn render(answer: &Answer) -> String {
    let mut out = String::new();
    for place in &answer.places {
        // Writing to a String can't fail, here and below.
        let _ = writeln!(out, "{}", sentence(place));
    }
    let Some(name) = &answer.name else { return out };
    let meant = answer.meant.as_ref().and_then(|meant| {
        let mut meanings = answer.store.iter().chain(&answer.registry);
        meanings.find_map(|meaning| Some((meaning, meaning.images.iter().find(|it| it.manifest == *meant)?)))
    });
    if let Some((meaning, image)) = meant {
        let _ = writeln!(
            out,
            "{} is the image of {} in {name} (index {})\n",
            image.manifest, image.platform, meaning.root
        );
    }
    let _ = writeln!(out, "Name:       {name}");
    match (&answer.store, &answer.registry) {
        (Some(store), Some(registry)) if store.root == registry.root => {
            let _ = writeln!(out, "Store:      {}", root(store));
            let _ = writeln!(out, "Registry:   the same");
            out.push_str(&images(registry));
        }
        (store, registry) => {
            match store {
                Some(store) => {
                    let _ = writeln!(out, "Store:      {}", root(store));
                    out.push_str(&images(store));
                }
                None => out.push_str("Store:      not there\n"),
            }
            if let Some(registry) = registry {
                let _ = writeln!(out, "Registry:   {}", root(registry));
                out.push_str(&images(registry));
            }
        }
    }
    out
}

fn root(meaning: &Meaning) -> String {
    let kind = if meaning.is_index { "index" } else { "manifest, without an index," };
    format!("{kind} {}", meaning.root)
}

fn images(meaning: &Meaning) -> String {
    let rows: Vec<Vec<String>> = meaning
        .images
        .iter()
        .map(|image| {
            let config = match &image.config {
                Some(config) => format!("config {config}"),
                None => "not in the store".to_owned(),
            };
            vec![format!("  {}", image.platform), format!("manifest {}", image.manifest), config]
        })
        .collect();
    render_table(&rows)
}

fn sentence(place: &Place) -> String {
    let platforms: Vec<String> = place.platforms.iter().map(Platform::to_string).collect();
    let platforms =
        if platforms.is_empty() { "an unknown platform".to_owned() } else { platforms.join(", ") };
    let what = match &place.role {
        Role::Index if place.index.as_ref() == Some(&place.digest) => {
            return format!("{} is the index of {} ({platforms})", place.digest, place.name);
        }
        Role::Index => format!("an index ({platforms})"),
        Role::Manifest => format!("the image of {platforms}"),
        Role::Config => format!("the config (docker's image id) of {platforms}"),
        Role::Layer(number, count) => format!("layer {number} of {count} of {platforms}"),
        Role::DiffId(number, count) => {
            format!("the diff id (uncompressed) of layer {number} of {count} of {platforms}")
        }
        Role::Attestation => format!("the attestation about {platforms}"),
        Role::PartOfAttestation => format!("a part of the attestation about {platforms}"),
    };
    let index = match &place.index {
        Some(index) => format!("index {index}"),
        None => "no index".to_owned(),
    };
    let manifest = match &place.manifest {
        Some(manifest) if *manifest != place.digest => format!(", manifest {manifest}"),
        _ => String::new(),
    };
    format!("{} is {what} in {} ({index}{manifest})", place.digest, place.name)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct JsonAnswer<'a> {
    matches: Vec<JsonPlace<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    store: Option<JsonMeaning<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    registry: Option<JsonMeaning<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct JsonPlace<'a> {
    digest: &'a Digest,
    kind: &'static str,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    index_digest: Option<&'a Digest>,
    #[serde(skip_serializing_if = "Option::is_none")]
    manifest_digest: Option<&'a Digest>,
    platforms: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    layer: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    layers: Option<usize>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct JsonMeaning<'a> {
    digest: &'a Digest,
    #[serde(skip_serializing_if = "Option::is_none")]
    index_digest: Option<&'a Digest>,
    platforms: Vec<JsonImage<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct JsonImage<'a> {
    platform: String,
    manifest_digest: &'a Digest,
    #[serde(skip_serializing_if = "Option::is_none")]
    config_digest: Option<&'a Digest>,
}

fn json(answer: &Answer) -> String {
    let place = |place: &'_ Place| -> (&'static str, Option<(usize, usize)>) {
        match place.role {
            Role::Index => ("index", None),
            Role::Manifest => ("manifest", None),
            Role::Config => ("config", None),
            Role::Layer(number, count) => ("layer", Some((number, count))),
            Role::DiffId(number, count) => ("diffId", Some((number, count))),
            Role::Attestation => ("attestation", None),
            Role::PartOfAttestation => ("attestationPart", None),
        }
    };
    let matches = answer.places.iter().map(|it| {
        let (kind, layer) = place(it);
        JsonPlace {
            digest: &it.digest,
            kind,
            name: it.name.to_string(),
            index_digest: it.index.as_ref(),
            manifest_digest: it.manifest.as_ref(),
            platforms: it.platforms.iter().map(Platform::to_string).collect(),
            layer: layer.map(|(number, _)| number),
            layers: layer.map(|(_, count)| count),
        }
    });
    let json = JsonAnswer {
        matches: matches.collect(),
        name: answer.name.as_ref().map(Reference::to_string),
        store: answer.store.as_ref().map(json_meaning),
        registry: answer.registry.as_ref().map(json_meaning),
    };
    serde_json::to_string_pretty(&json).expect("names, digests and numbers are always JSON") + "\n"
}

fn json_meaning(meaning: &Meaning) -> JsonMeaning<'_> {
    let image = |image: &'_ ImageDigests| image.platform.to_string();
    JsonMeaning {
        digest: &meaning.root,
        index_digest: meaning.is_index.then_some(&meaning.root),
        platforms: meaning
            .images
            .iter()
            .map(|it| JsonImage {
                platform: image(it),
                manifest_digest: &it.manifest,
                config_digest: it.config.as_ref(),
            })
            .collect(),
    }
}
