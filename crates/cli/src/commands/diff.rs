// SPDX-License-Identifier: Apache-2.0
//! `polyarch diff`.

use std::fmt::Write as _;

use clap::{Args, ValueEnum};
use polyarch_build::BuildError;
use polyarch_build::fetch::Shown;
use polyarch_images::diff::{
    ImageDiff, LayerIn, LayerPlace, Parts, PlatformDiff, diff_images, diff_platforms,
};
use polyarch_images::diff_config::ConfigChange;
use polyarch_images::diff_files::{Change, FileChange, FileState};
use polyarch_images::{FindOptions, ImageSource, Lookup, find};
use serde_json::Value;

use super::build::platforms::named_platforms;
use crate::progress::format::size;
use crate::session::Session;
use crate::transfer::{Direction, TransferDisplay};
use crate::visible_text::visible_line;
use crate::{CommandError, ExitCode};

/// Compare two images, or two platforms of one
///
/// Tells what differs in configuration, layers and files; times of files don't count. Images stand in the
/// store or a registry, an OCI layout (oci-layout://DIR:TAG) or an archive (docker-archive:FILE,
/// oci-archive:FILE). Ends with 0 when nothing differs and with 1 when something does.
#[derive(Debug, Args)]
pub struct DiffArgs {
    /// Of two images, compare only these platforms [default: all]; of one image, compare these two
    #[arg(long, value_name = "PLATFORM[,PLATFORM]")]
    platform: Vec<String>,
    /// Compare platform, configuration, history and annotations
    #[arg(long)]
    config: bool,
    /// Compare layers
    #[arg(long)]
    layers: bool,
    /// Compare files
    #[arg(long)]
    files: bool,
    /// Say nothing: the exit code tells
    #[arg(short, long)]
    quiet: bool,
    /// Ask the registry what the names mean, also when the store has them
    #[arg(long)]
    pull: bool,
    /// How to print what differs
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// One image or two
    #[arg(value_name = "IMAGE", required = true, num_args = 1..=2)]
    images: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A line for everything that differs
    Text,
    /// One JSON object
    Json,
}

/// Runs the command.
///
/// # Errors
/// When an image can't be found or read, or has none of the platforms.
pub fn run(args: &DiffArgs, session: &Session) -> Result<u8, CommandError> {
    let platforms = named_platforms(&args.platform, &session.environment)?;
    let sources: Vec<ImageSource> =
        args.images.iter().map(|text| ImageSource::parse(text)).collect::<Result<_, BuildError>>()?;
    if sources.len() == 1 && platforms.len() != 2 {
        return Err(CommandError::usage("one image is compared with itself: name two of its platforms")
            .with_hint(format!("polyarch diff {} --platform linux/amd64,linux/arm64", args.images[0]))
            .with_hint("or name a second image"));
    }
    let parts = match (args.config, args.layers, args.files) {
        (false, false, false) => Parts::ALL,
        (config, layers, files) => Parts { config, layers, files },
    };
    let settings = session.settings()?;
    let engine = session.open_for_documents(&settings)?;
    let is_quiet = args.quiet || args.format == Format::Json;
    let (progress, display) = TransferDisplay::start(session, Direction::Pull, is_quiet);
    let result = engine.perform(|services| async move {
        let vertex = progress.begin("diff", format!("comparing {}", args.images.join(" and ")));
        let shown = Shown { progress: progress.clone(), vertex: vertex.digest() };
        let lookup = if args.pull { Lookup::RegistryOnly } else { Lookup::StoreThenRegistry };
        let options = FindOptions::new(lookup);
        let first = find(&services, &sources[0], &options, &shown).await?;
        let found = match (sources.get(1), platforms.as_slice()) {
            (None, [before, after]) => diff_platforms(&first, before, after, parts).await?,
            (None, platforms) => diff_images(&first, &first, platforms, parts).await?,
            (Some(second), platforms) => {
                let second = find(&services, second, &options, &shown).await?;
                diff_images(&first, &second, platforms, parts).await?
            }
        };
        vertex.done();
        Ok(found)
    });
    display.finish();
    let found = result?;
    match args.format {
        _ if args.quiet => {}
        Format::Text => session.printer.data(&render(&found, parts))?,
        Format::Json => {
            let text = serde_json::to_string_pretty(&found)
                .expect("names, digests, numbers and values of JSON are always JSON");
            session.printer.data(&(text + "\n"))?;
        }
    }
    let code = if found.equal { ExitCode::Done } else { ExitCode::Step };
    Ok(code.number())
}

/// Tells a terminal nothing but visible characters: names, values and paths are the images' own.
fn line(text: &mut String, line: &str) {
    text.push_str(&visible_line(line.as_bytes()));
    text.push('\n');
}

fn render(found: &ImageDiff, parts: Parts) -> String {
    let mut text = String::new();
    for (mark, side) in [("---", &found.before), ("+++", &found.after)] {
        let kind = if polyarch_oci::media_type::is_index(&side.media_type) { "index" } else { "manifest" };
        line(&mut text, &format!("{mark} {} {kind} {}", side.name, side.digest));
    }
    if !found.index.is_empty() {
        line(&mut text, "");
        write_config(&mut text, "index", &found.index);
    }
    for platform in &found.platforms {
        line(&mut text, "");
        write_platform(&mut text, platform, parts);
    }
    text
}

fn write_platform(text: &mut String, found: &PlatformDiff, parts: Parts) {
    let (before, after) = match (&found.before, &found.after) {
        (Some(before), Some(after)) => (before, after),
        (Some(only), None) => {
            return line(text, &format!("{} {}: only in the first image", only.platform, only.digest));
        }
        (None, Some(only)) => {
            return line(text, &format!("{} {}: only in the second image", only.platform, only.digest));
        }
        (None, None) => return,
    };
    if before == after {
        return line(text, &format!("{} {}: the same", before.platform, before.digest));
    }
    line(text, &format!("--- {} {}", before.platform, before.digest));
    line(text, &format!("+++ {} {}", after.platform, after.digest));
    if parts.config {
        write_config(text, "config", &found.config);
    }
    if parts.layers {
        write_layers(text, found);
    }
    if parts.files {
        write_files(text, &found.files);
    }
}

fn write_config(text: &mut String, title: &str, changes: &[ConfigChange]) {
    if changes.is_empty() {
        return line(text, &format!("{title}: the same"));
    }
    let count = match changes.len() {
        1 => "1 field differs".to_owned(),
        count => format!("{count} fields differ"),
    };
    line(text, &format!("{title}: {count}"));
    for change in changes {
        let field = &change.field;
        match (&change.before, &change.after) {
            (Some(before), Some(after)) => {
                line(text, &format!("  ~ {field}: {} -> {}", value(before), value(after)));
            }
            (Some(before), None) => line(text, &format!("  - {field}: {}", value(before))),
            (None, Some(after)) => line(text, &format!("  + {field}: {}", value(after))),
            (None, None) => {}
        }
    }
}

/// Writes a text as it is, unless that could be taken for something else.
fn value(value: &Value) -> String {
    match value {
        Value::String(text) if !text.is_empty() && !text.contains(['"', '\n', '\\']) => text.clone(),
        other => other.to_string(),
    }
}

fn write_layers(text: &mut String, found: &PlatformDiff) {
    let of = |place: LayerIn| found.layers.iter().filter(move |layer| layer.place == place);
    let sum = |place: LayerIn| size(of(place).fold(0, |sum: u64, layer| sum.saturating_add(layer.size)));
    let shared = format!("{} shared ({})", of(LayerIn::Both).count(), sum(LayerIn::Both));
    if found.layers_equal {
        return line(text, &format!("layers: the same, {shared}"));
    }
    let (first, second) = (of(LayerIn::Before).count(), of(LayerIn::After).count());
    let mut title = format!(
        "layers: {shared}, {first} only in the first ({}), {second} only in the second ({})",
        sum(LayerIn::Before),
        sum(LayerIn::After)
    );
    if (first, second) == (0, 0) {
        title.push_str(", in another order");
    }
    line(text, &title);
    for layer in &found.layers {
        let LayerPlace { place, digest, size: bytes, same_content_as } = layer;
        let mark = match place {
            LayerIn::Both => "=",
            LayerIn::Before => "-",
            LayerIn::After => "+",
        };
        let mut words = format!("  {mark} {digest} {}", size(*bytes));
        if let Some(twin) = same_content_as {
            // Writing to a String can't fail.
            let _ = write!(words, ", the same tar as {twin}");
        }
        line(text, &words);
    }
}

fn write_files(text: &mut String, files: &[FileChange]) {
    if files.is_empty() {
        return line(text, "files: the same");
    }
    let count = |change: Change| files.iter().filter(|file| file.change == change).count();
    line(
        text,
        &format!(
            "files: {} added, {} removed, {} changed",
            count(Change::Added),
            count(Change::Removed),
            count(Change::Changed)
        ),
    );
    for file in files {
        match (&file.before, &file.after) {
            (Some(before), Some(after)) => {
                let what: Vec<String> =
                    file.differs.iter().map(|aspect| difference(aspect, before, after)).collect();
                line(text, &format!("  ~ {}: {}", file.path, what.join(", ")));
            }
            (Some(only), None) => line(text, &format!("  - {} ({})", file.path, state(only))),
            (None, Some(only)) => line(text, &format!("  + {} ({})", file.path, state(only))),
            (None, None) => {}
        }
    }
}

fn state(state: &FileState) -> String {
    let mut words = format!("{}, {} {}", state.kind, state.mode, state.owner);
    let more = match (state.kind, state.size) {
        (_, Some(bytes)) => Some(size(bytes)),
        ("symlink", None) => state.content.as_ref().map(|target| format!("to {target}")),
        _ => state.content.clone(),
    };
    for word in more.into_iter().chain(state.program.map(|name| format!("program of {name}"))) {
        // Writing to a String can't fail.
        let _ = write!(words, ", {word}");
    }
    words
}

fn difference(aspect: &str, before: &FileState, after: &FileState) -> String {
    let bytes = |state: &FileState| state.size.map(size).unwrap_or_default();
    let text = |state: &FileState| state.content.clone().unwrap_or_default();
    let (was, is) = match aspect {
        "type" => (before.kind.to_owned(), after.kind.to_owned()),
        "mode" => (before.mode.clone(), after.mode.clone()),
        "owner" => (before.owner.clone(), after.owner.clone()),
        "size" => (bytes(before), bytes(after)),
        // Digests say nothing to people.
        _ if before.size.is_some() => {
            return match (before.program, after.program) {
                (Some(was), Some(is)) if was != is => format!("program of {was} -> {is}"),
                _ => "content".to_owned(),
            };
        }
        _ => (text(before), text(after)),
    };
    match aspect {
        // Sizes in the same unit may look alike.
        "size" if was == is => {
            let exact = |state: &FileState| state.size.unwrap_or_default();
            format!("size {} -> {} bytes", exact(before), exact(after))
        }
        "content" => format!("{was} -> {is}"),
        _ => format!("{aspect} {was} -> {is}"),
    }
}
