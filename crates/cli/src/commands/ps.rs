// SPDX-License-Identifier: Apache-2.0
//! `polyarch ps`: the programs that run now.

use std::time::Duration;

use clap::Args;
use polyarch_images::running::{Running, list};
use serde::Serialize;

use super::build::table::render_table;
use crate::CommandError;
use crate::session::Session;
use crate::template::{Listing, Value};
use crate::visible_text::{visible_line, visible_name};

/// How many digits of an id are shown.
const SHORT_ID: usize = 12;

/// How much of a command is shown.
const SHORT_COMMAND: usize = 20;

/// The fields of a row, by docker's names, with their titles.
const TITLES: [(&str, &str); 11] = [
    ("ID", "CONTAINER ID"),
    ("Image", "IMAGE"),
    ("Command", "COMMAND"),
    ("CreatedAt", "CREATED AT"),
    ("RunningFor", "CREATED"),
    ("Status", "STATUS"),
    ("State", "STATE"),
    ("Ports", "PORTS"),
    ("Names", "NAMES"),
    ("Platform", "PLATFORM"),
    ("Digest", "DIGEST"),
];

/// List the programs that `polyarch run` runs now
///
/// Nothing is left of a program that has ended.
#[derive(Debug, Args)]
pub struct PsArgs {
    /// Print only ids
    #[arg(short, long)]
    quiet: bool,
    /// Print whole ids and commands
    #[arg(long)]
    no_trunc: bool,
    /// Accepted for compatibility: programs that ended leave nothing to list
    #[arg(short, long, hide_short_help = true)]
    all: bool,
    /// Form of the list: `table`, `json` (an object a line), or a Go template
    #[arg(long, value_name = "FORMAT", default_value = "table", hide_default_value = true)]
    format: String,
}

/// Runs the command.
pub fn run(args: &PsArgs, session: &Session) -> Result<(), CommandError> {
    let settings = session.settings()?;
    // The list needs nothing of the store: it is read also while a prune has it.
    let running = list(&settings.root)?;
    let now = jiff::Timestamp::now();
    let rows: Vec<Row> = running.iter().map(|it| Row::new(it, now, args.no_trunc)).collect();
    let text = if args.quiet {
        rows.iter().map(|row| format!("{}\n", row.id)).collect()
    } else {
        render(&rows, &args.format)?
    };
    session.printer.data(&text)
}

/// A program as docker's columns tell it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Row {
    command: String,
    created_at: String,
    digest: String,
    #[serde(rename = "ID")]
    id: String,
    image: String,
    names: String,
    platform: String,
    ports: String,
    running_for: String,
    state: &'static str,
    status: String,
}

impl Row {
    fn new(running: &Running, now: jiff::Timestamp, is_whole: bool) -> Row {
        let seconds = now.as_second().saturating_sub(running.created.as_second());
        let age = age(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)));
        let mut command = visible_line(running.command.join(" ").as_bytes());
        if !is_whole && command.chars().count() > SHORT_COMMAND {
            command = command.chars().take(SHORT_COMMAND - 1).collect::<String>() + "…";
        }
        let id = if is_whole { &running.id[..] } else { running.id.get(..SHORT_ID).unwrap_or(&running.id) };
        Row {
            command: format!("\"{command}\""),
            created_at: running.created.to_string(),
            digest: running.digest.to_string(),
            id: id.to_owned(),
            image: running.image.clone(),
            names: running.name.clone(),
            platform: visible_name(&running.platform),
            ports: String::new(),
            running_for: format!("{age} ago"),
            state: "running",
            status: format!("Up {age}"),
        }
    }
}

fn render(rows: &[Row], format: &str) -> Result<String, CommandError> {
    let failed = |error: &dyn std::fmt::Display| CommandError::usage(format!("--format: {error}"));
    match format {
        "json" => rows
            .iter()
            .map(|row| serde_json::to_string(row).map(|line| line + "\n").map_err(|error| failed(&error)))
            .collect(),
        "table" | "" => {
            let title =
                ["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES", "PLATFORM"];
            let mut table = vec![title.map(str::to_owned).to_vec()];
            table.extend(rows.iter().map(|row| {
                let cells = [
                    &row.id,
                    &row.image,
                    &row.command,
                    &row.running_for,
                    &row.status,
                    &row.ports,
                    &row.names,
                    &row.platform,
                ];
                cells.map(String::clone).to_vec()
            }));
            Ok(render_table(&table))
        }
        template => {
            let listing = Listing::parse(template).map_err(|error| failed(&error))?;
            // A field that no row has is a mistake in the template.
            let structure = |row| Ok(Value::of(row)?.with_absent::<&str>([]));
            let rows: Result<Vec<Value>, serde_json::Error> = rows.iter().map(structure).collect();
            let rows = rows.map_err(|error| failed(&error))?;
            listing.render(&TITLES, &rows).map_err(|error| failed(&error))
        }
    }
}

/// Writes a time as docker does: `3 minutes`, `About an hour`.
fn age(time: Duration) -> String {
    let seconds = time.as_secs();
    match (seconds, seconds / 60, seconds / 3600) {
        (0, ..) => "Less than a second".to_owned(),
        (1, ..) => "1 second".to_owned(),
        (2..=59, ..) => format!("{seconds} seconds"),
        (_, 1, _) => "About a minute".to_owned(),
        (_, minutes @ 2..=59, _) => format!("{minutes} minutes"),
        (_, _, 1) => "About an hour".to_owned(),
        (_, _, hours @ 2..=47) => format!("{hours} hours"),
        (_, _, hours) => format!("{} days", hours / 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<Row> {
        let running = Running {
            id: "0123456789abcdef".repeat(4),
            name: "web".to_owned(),
            image: "user/app:1".to_owned(),
            digest: polyarch_oci::Digest::of("manifest"),
            platform: "linux/arm/v7".parse().unwrap(),
            command: vec!["sh".to_owned(), "-c".to_owned(), "while true; do :; done\u{1b}".to_owned()],
            created: jiff::Timestamp::UNIX_EPOCH,
            pid: 7,
        };
        vec![Row::new(&running, jiff::Timestamp::from_second(200).unwrap(), false)]
    }

    #[test]
    fn the_columns_are_dockers() {
        insta::assert_snapshot!(render(&rows(), "table").unwrap(), @r#"
        CONTAINER ID   IMAGE        COMMAND                  CREATED         STATUS         PORTS   NAMES   PLATFORM
        0123456789ab   user/app:1   "sh -c while true; d…"   3 minutes ago   Up 3 minutes           web     linux/arm/v7
        "#);
        let text = render(&rows(), "table {{.Names}}\t{{.Status}}").unwrap();
        assert_eq!(text, "NAMES     STATUS\nweb       Up 3 minutes\n");
        assert_eq!(render(&rows(), "{{.ID}} {{.Platform}}").unwrap(), "0123456789ab linux/arm/v7\n");
        let line = render(&rows(), "json").unwrap();
        let row: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!((&row["Image"], &row["State"]), (&"user/app:1".into(), &"running".into()));
        assert!(render(&rows(), "{{.Nothing}}").is_err());
    }

    #[test]
    fn times_are_written_as_docker_does() {
        let table = [
            (0, "Less than a second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (3599, "59 minutes"),
            (3600, "About an hour"),
            (7200, "2 hours"),
            (200_000, "2 days"),
        ];
        for (seconds, text) in table {
            assert_eq!(age(Duration::from_secs(seconds)), text);
        }
    }
}
