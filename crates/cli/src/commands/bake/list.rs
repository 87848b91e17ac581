// SPDX-License-Identifier: Apache-2.0
//! `bake --list`: the targets or the variables of the files.

use polyarch_bake::Config;
use serde::Serialize;

use super::super::flag_values::split_csv;
use crate::CommandError;
use crate::visible_text::visible_line;

#[derive(Serialize)]
struct TargetRow<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "String::is_empty")]
    description: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    group: bool,
}

#[derive(Serialize)]
struct VariableRow<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    description: &'a str,
    #[serde(rename = "type", skip_serializing_if = "str::is_empty")]
    ty: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a str>,
}

/// Writes the list that a value of `--list` asks for.
///
/// # Errors
/// The value asks for nothing that is known.
pub fn render(what: &str, config: &Config) -> Result<String, CommandError> {
    let (kind, is_json) = parse(what)?;
    Ok(match (kind.as_str(), is_json) {
        ("targets", true) => json(&targets(config)),
        ("targets", false) => {
            let rows = targets(config).into_iter().map(|row| vec![row.name.to_owned(), row.description]);
            table(&["TARGET", "DESCRIPTION"], rows.collect())
        }
        (_, true) => json(&variables(config)),
        (_, false) => {
            let text = |row: VariableRow<'_>| {
                let value = row.value.unwrap_or("<null>");
                [row.name, row.ty, value, row.description].map(str::to_owned).to_vec()
            };
            table(
                &["VARIABLE", "TYPE", "VALUE", "DESCRIPTION"],
                variables(config).into_iter().map(text).collect(),
            )
        }
    })
}

fn parse(what: &str) -> Result<(String, bool), CommandError> {
    let fields = split_csv(what).map_err(|problem| CommandError::usage(format!("--list: {problem}")))?;
    let (mut kind, mut format) = (String::new(), "table".to_owned());
    match fields.as_slice() {
        [only] if !only.contains('=') => kind.clone_from(only),
        fields => {
            for field in fields {
                match field.split_once('=') {
                    Some(("type", value)) => value.clone_into(&mut kind),
                    Some(("format", value)) => value.clone_into(&mut format),
                    Some((key, _)) => {
                        return Err(CommandError::usage(format!("unexpected key '{key}' in '{field}'")));
                    }
                    None => return Err(CommandError::usage(format!("invalid value {field}"))),
                }
            }
        }
    }
    if !matches!(kind.as_str(), "targets" | "variables") {
        return Err(CommandError::usage(format!("invalid list type {kind:?}"))
            .with_hint("write --list=targets or --list=variables"));
    }
    match format.as_str() {
        "table" => Ok((kind, false)),
        "json" => Ok((kind, true)),
        _ => Err(CommandError::usage(format!("invalid list format {format:?}"))),
    }
}

fn json(rows: &impl Serialize) -> String {
    let bytes = polyarch_oci::json::to_indented(rows, "  ");
    String::from_utf8_lossy(&bytes).into_owned() + "\n"
}

/// Targets and groups by name; those that begin with `_` are private.
fn targets(config: &Config) -> Vec<TargetRow<'_>> {
    let targets = config.targets.iter().map(|target| TargetRow {
        name: &target.name,
        description: target.description.clone(),
        group: false,
    });
    let groups = config.groups.iter().map(|group| {
        let mut names = group.targets.clone();
        names.sort();
        let names = names.join(", ");
        let description = match (group.description.as_str(), names.as_str()) {
            (text, "") => text.to_owned(),
            ("", names) => names.to_owned(),
            (text, names) => format!("{text} ({names})"),
        };
        TargetRow { name: &group.name, description, group: true }
    });
    let mut rows: Vec<TargetRow<'_>> =
        targets.chain(groups).filter(|row| !row.name.starts_with('_')).collect();
    rows.sort_by(|a, b| a.name.cmp(b.name));
    rows
}

fn variables(config: &Config) -> Vec<VariableRow<'_>> {
    let mut rows = Vec::new();
    for variable in &config.variables {
        rows.push(VariableRow {
            name: &variable.name,
            description: &variable.description,
            ty: &variable.ty,
            value: variable.value.as_deref(),
        });
    }
    rows
}

/// Columns with tabs between them, as Go's tabwriter aligns them: each to the next multiple of eight.
fn table(header: &[&str], rows: Vec<Vec<String>>) -> String {
    let header = header.iter().map(|cell| (*cell).to_owned()).collect();
    let rows: Vec<Vec<String>> = std::iter::once(header).chain(rows).collect();
    let rows: Vec<Vec<String>> =
        rows.into_iter().map(|row| row.iter().map(|cell| visible_line(cell.as_bytes())).collect()).collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let longest = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
        (longest.unwrap_or(0) / 8 + 1) * 8
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            text.push_str(cell);
            if column + 1 < row.len() {
                let missing = widths[column].saturating_sub(cell.chars().count());
                text.push_str(&"\t".repeat(missing.div_ceil(8)));
            }
        }
        text.push('\n');
    }
    text
}
