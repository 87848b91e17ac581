// SPDX-License-Identifier: Apache-2.0
//! `polyarch inspect` and `polyarch image inspect`.

use clap::{Args, ValueEnum};
use polyarch_build::BuildError;
use polyarch_images::lookup;
use polyarch_oci::Platform;

use crate::CommandError;
use crate::inspection::inspection;
use crate::session::Session;
use crate::template::{Functions, Template, Value};

/// Print what an image of the store is, as JSON
///
/// The fields are docker's; IndexDigest, ManifestDigest, ConfigDigest and Platforms say which digest is which.
/// Of an image for several platforms, what is told of one platform is told of this machine's, or of the only
/// one that is here.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// Print with a Go template, '{{.Os}}/{{.Architecture}}', or "json" on one line
    #[arg(short, long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// Tell about this platform's image
    #[arg(long, value_name = "PLATFORM", value_parser = Platform::parse_known)]
    platform: Option<Platform>,
    /// Kind of what is named; there are only images
    #[arg(long = "type", value_enum, value_name = "KIND", default_value_t = Kind::Image, hide_short_help = true)]
    kind: Kind,
    /// Sizes are always told
    #[arg(short, long, hide = true)]
    size: bool,
    /// Images by name, by digest, or by the beginning of an id
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// An image
    Image,
}

/// Runs the command.
pub fn run(args: &InspectArgs, session: &Session) -> Result<(), CommandError> {
    let template = match args.format.as_deref() {
        None | Some("" | "json") => None,
        Some(format) => Some(Template::parse(format)?),
    };
    let settings = session.settings()?;
    let engine = session.open_for_documents(&settings)?;
    let results: Vec<Result<Value, BuildError>> = engine.perform(|services| async move {
        let store = services.store();
        let inspect = |name: &String| {
            let found = lookup::find(store, name)?;
            inspection(store, &found, args.platform.as_ref())
        };
        Ok(args.images.iter().map(inspect).collect())
    })?;
    let mut values = Vec::new();
    let mut failures = Vec::new();
    for result in results {
        match result {
            Ok(value) => values.push(value),
            Err(error) => failures.push(error),
        }
    }
    // What was found is printed, also when something else was not.
    let text = match &template {
        Some(template) => {
            let mut text = String::new();
            for value in &values {
                text.push_str(&template.render(value, Functions::docker())?);
                text.push('\n');
            }
            session.shown_template(text)
        }
        None => session.shown_template(json(&Value::List(values), args.format.as_deref() == Some("json"))),
    };
    session.printer.data(&text)?;
    match all_of(failures) {
        None => Ok(()),
        Some(error) => Err(error.into()),
    }
}

/// Writes JSON as docker does: four blanks deep, or on one line.
fn json(value: &Value, is_compact: bool) -> String {
    use serde::Serialize as _;
    let mut bytes = Vec::new();
    let result = if is_compact {
        serde_json::to_writer(&mut bytes, value)
    } else {
        let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
        value.serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, formatter))
    };
    result.expect("a value has texts for keys, and writing to memory does not fail");
    bytes.push(b'\n');
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Makes one error of several.
fn all_of(failures: Vec<BuildError>) -> Option<BuildError> {
    let mut failures = failures.into_iter();
    let mut first = failures.next()?;
    for failure in failures {
        first.message.push_str("; ");
        first.message.push_str(&failure.message);
        let hints = failure.hints.into_iter().filter(|hint| !first.hints.contains(hint));
        first.hints.extend(hints.collect::<Vec<_>>());
    }
    Some(first)
}
