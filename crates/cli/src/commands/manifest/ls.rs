// SPDX-License-Identifier: Apache-2.0
//! `polyarch manifest ls`.

use clap::Args;
use polyarch_images::manifest_list::{self, Composed};
use polyarch_oci::{Reference, media_type};
use polyarch_store::WorkingList;
use serde_json::json;

use crate::CommandError;
use crate::commands::build::table::render_table;
use crate::session::Session;
use crate::template::{Listing, Value};
use crate::visible_text::visible_line;

/// Show the lists that were created here
#[derive(Debug, Args)]
pub struct LsArgs {
    /// Print only the names
    #[arg(short, long)]
    quiet: bool,
    /// Print a table, JSON, or each list by a Go template
    #[arg(long, value_name = "table|json|TEMPLATE", default_value = "table")]
    format: String,
}

/// A list, and what it would be in a registry.
struct Row {
    name: Reference,
    list: WorkingList,
    /// `None` when the store has lost one of its images.
    composed: Option<Composed>,
}

/// Runs the command.
pub fn run(args: &LsArgs, session: &Session) -> Result<(), CommandError> {
    let listing = match args.format.as_str() {
        "table" | "json" => None,
        template => Some(Listing::parse(template).map_err(CommandError::from)?),
    };
    let engine = session.open_for_documents(&session.settings()?)?;
    let rows = engine.perform(|services| async move {
        let store = services.store();
        let row = |(name, list): (Reference, WorkingList)| {
            let composed = manifest_list::compose(store, &list, None).ok();
            Row { name, list, composed }
        };
        Ok(manifest_list::lists(store)?.into_iter().map(row).collect::<Vec<_>>())
    })?;
    let text = match listing {
        _ if args.quiet => rows.iter().map(|row| format!("{}\n", row.name)).collect(),
        Some(listing) => {
            let titles = [
                ("Name", "NAME"),
                ("Platforms", "PLATFORMS"),
                ("Format", "FORMAT"),
                ("Digest", "DIGEST"),
                ("Updated", "UPDATED"),
            ];
            let values: Vec<Value> = rows
                .iter()
                .map(|row| {
                    let text = |text: String| Value::from(text.as_str());
                    Value::structure([
                        ("Name", text(row.name.familiar())),
                        ("Platforms", text(row.platforms())),
                        ("Format", text(row.format().to_owned())),
                        ("Digest", text(row.digest())),
                        ("Updated", text(row.list.updated.to_string())),
                    ])
                })
                .collect();
            session.shown_template(listing.render(&titles, &values).map_err(CommandError::from)?)
        }
        None if args.format == "json" => {
            let rows: Vec<_> = rows.iter().map(Row::to_json).collect();
            format!("{:#}\n", serde_json::Value::from(rows))
        }
        None => table(&rows),
    };
    session.printer.data(&text)
}

fn table(rows: &[Row]) -> String {
    let mut cells = vec![["NAME", "PLATFORMS", "FORMAT", "DIGEST"].map(str::to_owned).to_vec()];
    for row in rows {
        let digest: String = row.digest().chars().take("sha256:".len() + 12).collect();
        cells.push(vec![
            row.name.familiar(),
            visible_line(row.platforms().as_bytes()),
            row.format().to_owned(),
            digest,
        ]);
    }
    render_table(&cells)
}

impl Row {
    fn platforms(&self) -> String {
        let images = self.list.entries.iter().filter(|entry| !entry.descriptor.is_attestation());
        let names = images.map(|entry| match &entry.descriptor.platform {
            Some(platform) if !platform.os.is_empty() => platform.to_string(),
            _ => "?".to_owned(),
        });
        names.collect::<Vec<_>>().join(", ")
    }

    fn format(&self) -> &'static str {
        match &self.composed {
            Some(composed) if media_type::is_docker(&composed.descriptor.media_type) => "docker",
            Some(_) => "oci",
            None => "damaged",
        }
    }

    /// Returns the digest that the list would have in a registry.
    fn digest(&self) -> String {
        self.composed.as_ref().map_or_else(String::new, |composed| composed.descriptor.digest.to_string())
    }

    fn to_json(&self) -> serde_json::Value {
        let images: Vec<_> = self
            .list
            .entries
            .iter()
            .map(|entry| {
                json!({
                    "source": entry.source,
                    "digest": entry.descriptor.digest,
                    "mediaType": entry.descriptor.media_type,
                    "platform": entry.descriptor.platform,
                    "annotations": entry.descriptor.annotations,
                })
            })
            .collect();
        json!({
            "name": self.name,
            "format": self.format(),
            "indexDigest": self.digest(),
            "annotations": self.list.annotations,
            "updated": self.list.updated.to_string(),
            "images": images,
        })
    }
}
