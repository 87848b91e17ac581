// SPDX-License-Identifier: Apache-2.0
//! `polyarch resolve`: says which image and which platform a name or a digest is.

mod json;

use std::fmt::Write as _;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use polyarch_build::fetch::Shown;
use polyarch_build::{BuildError, ErrorKind, Services};
use polyarch_images::lookup::{self, MIN_ID_CHARACTERS};
use polyarch_images::resolve::{self, Meaning, Place, Role};
use polyarch_oci::{Digest, Platform, Reference};
use polyarch_solver::progress::Progress;

use super::build::table::render_table;
use crate::CommandError;
use crate::session::Session;
use crate::visible_text::visible_text;

/// Say which image and which platform a name or digest is
///
/// A digest, or its beginning, is looked for among the indexes, manifests, configs and layers of the store.
/// Of a name it is told what it means in the store and at its registry; of NAME@DIGEST, which tag and platform
/// of NAME the digest belongs to.
#[derive(Debug, Args)]
pub struct ResolveArgs {
    /// How to print it
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Ask no registry
    #[arg(long)]
    local: bool,
    /// Digest, beginning of one, or name of an image
    #[arg(value_name = "DIGEST|NAME[@DIGEST]")]
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
    matches: Vec<Match>,
    name: Option<Reference>,
    store: Option<Meaning>,
    registry: Option<Meaning>,
    /// What is known less well than was hoped.
    warnings: Vec<String>,
}

/// A place of a digest, and where it was seen.
#[derive(Debug)]
struct Match {
    place: Place,
    in_store: bool,
    /// `None` when no registry was asked.
    in_registry: Option<bool>,
}

/// Runs the command.
pub fn run(args: &ResolveArgs, session: &Session) -> Result<(), CommandError> {
    let settings = session.settings()?;
    let engine = session.open_for_documents(&settings)?;
    let answer = engine.perform(|services| async move { find_out(&services, args).await })?;
    for warning in &answer.warnings {
        session.printer.warning(warning);
    }
    session.printer.data(&match args.format {
        Format::Text => visible_text(&render(&answer)),
        Format::Json => json::json(&answer),
    })
}

async fn find_out(services: &Arc<Services>, args: &ResolveArgs) -> Result<Answer, BuildError> {
    let store = services.store();
    let name = args.text.parse::<Reference>();
    let hex = hex_of(&args.text);
    if let Some(hex) = &hex {
        let places = resolve::places(store, hex)?;
        if !places.is_empty() {
            let matches = places.into_iter().map(|place| Match { place, in_store: true, in_registry: None });
            return Ok(Answer { matches: matches.collect(), ..Answer::default() });
        }
    } else if let Ok(name) = &name
        && let Some(digest) = name.digest()
    {
        return of_name_and_digest(services, args, name, digest).await;
    }
    let found = lookup::find(store, &args.text);
    // A name is a name even where the store lacks it; hexadecimal digits are asked of no registry.
    let Ok(name) = name else { return Err(unknown(store, args, hex, found)?) };
    if hex.is_some() && found.is_err() {
        return Err(unknown(store, args, hex, found)?);
    }
    let mut answer = Answer { name: Some(name.clone().with_default_tag()), ..Answer::default() };
    let missing = match found {
        Ok(found) => {
            answer.store = Some(resolve::in_store(store, &found.root)?);
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
    match (resolve::in_registry(services, &name, &silent()).await, missing) {
        (Ok(meaning), _) => answer.registry = Some(meaning),
        (Err(error), None) => answer.warnings.push(error.message),
        (Err(mut error), Some(missing)) => {
            // What is near in the store may be what was meant.
            if !error.hints.iter().any(|hint| hint.starts_with("the store has")) {
                error.hints.extend(missing.hints.into_iter().filter(|hint| hint.starts_with("did you mean")));
            }
            return Err(error);
        }
    }
    Ok(answer)
}

/// Finds a digest below the names of its repository, in the store and at the registry.
async fn of_name_and_digest(
    services: &Arc<Services>,
    args: &ResolveArgs,
    name: &Reference,
    digest: &Digest,
) -> Result<Answer, BuildError> {
    let store = services.store();
    let is_of_name = |place: &Place| {
        place.name.name() == name.name() && name.tag().is_none_or(|tag| place.name.tag() == Some(tag))
    };
    let places = resolve::places(store, digest.hex())?.into_iter().filter(is_of_name);
    let in_registry = (!args.local).then_some(false);
    let matches = places.map(|place| Match { place, in_store: true, in_registry });
    let mut answer = Answer { matches: matches.collect(), ..Answer::default() };
    if args.local {
        return match answer.matches.is_empty() {
            true => Err(resolve::unknown_digest(store, &args.text, digest.hex())?),
            false => Ok(answer),
        };
    }
    let asked = resolve::places_in_registry(services, name, digest, &silent()).await;
    let (near, error) = match asked {
        Ok(found) => {
            let (seen, all) = found.tags;
            if seen < all && found.places.is_empty() {
                answer.warnings.push(format!("{} has {all} tags, only {seen} were looked at", name.name()));
            }
            for place in found.places {
                match answer.matches.iter_mut().find(|it| it.place == place) {
                    Some(known) => known.in_registry = Some(true),
                    None => {
                        answer.matches.push(Match { place, in_store: false, in_registry: Some(true) });
                    }
                }
            }
            (found.near, None)
        }
        Err(error) => (Vec::new(), Some(error)),
    };
    if !answer.matches.is_empty() {
        if let Some(error) = error {
            for known in &mut answer.matches {
                known.in_registry = None;
            }
            answer.warnings.push(error.message);
        }
        return Ok(answer);
    }
    // What no tag leads to may still be there by its digest.
    let bare = name.with_digest(digest.clone());
    if (error.is_none() || name.tag().is_none())
        && let Ok(meaning) = resolve::in_registry(services, &bare, &silent()).await
    {
        return Ok(Answer { name: Some(bare), registry: Some(meaning), ..answer });
    }
    Err(match error {
        Some(error) => error,
        None => {
            let place = name.tag().map_or_else(|| name.name(), |tag| format!("{}:{tag}", name.name()));
            let message = format!("neither the store nor the registry has {digest} in {place}");
            let error = BuildError::new(ErrorKind::Usage, message);
            match resolve::alike(&near, digest.hex()) {
                Some(hint) => error.with_hint(hint),
                None => error.with_hint(format!("polyarch resolve {place} lists what it has")),
            }
        }
    })
}

/// Nothing is shown of the few small documents that are fetched.
fn silent() -> Shown {
    Shown { progress: Progress::none(), vertex: "".into() }
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
    for found in &answer.matches {
        let place = match (found.in_store, found.in_registry) {
            (_, None) => "",
            (true, Some(true)) => "; in the store and at the registry",
            (true, Some(false)) => "; in the store, not at the registry",
            (false, Some(_)) => "; at the registry, not in the store",
        };
        // Writing to a String can't fail, here and below.
        let _ = writeln!(out, "{}{place}", sentence(&found.place));
    }
    let Some(name) = &answer.name else { return out };
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
