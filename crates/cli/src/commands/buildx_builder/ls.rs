// SPDX-License-Identifier: Apache-2.0
//! `buildx ls`: builders and their nodes.

use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use serde_json::{Value as Json, json};

use super::examine::{NodeStatus, examine};
use super::{TIMEOUT, go_duration, open};
use crate::CommandError;
use crate::builders::platforms::{marked, shortened};
use crate::builders::{Builder, BuilderNode, DEFAULT};
use crate::session::Session;
use crate::template::{Listing, Value};
use crate::visible_text::{visible_line, visible_text};

/// The fields of a row with their titles.
const TITLES: [(&str, &str); 7] = [
    ("Name", "NAME/NODE"),
    ("DriverEndpoint", "DRIVER/ENDPOINT"),
    ("LastActivity", "LAST ACTIVITY"),
    ("Status", "STATUS"),
    ("Buildkit", "BUILDKIT"),
    ("Platforms", "PLATFORMS"),
    ("Error", "ERROR"),
];

const DEFAULT_FORMAT: &str =
    r"table {{.Name}}\t{{.DriverEndpoint}}\t{{.Status}}\t{{.Buildkit}}\t{{.Platforms}}";

/// List builders and their nodes
///
/// A `*` marks the current builder, and platforms that were fixed for a node.
#[derive(Debug, Args)]
pub struct LsArgs {
    /// `table`, `table TEMPLATE`, `json` (an object a line), or a Go template over .Name .DriverEndpoint
    /// .LastActivity .Status .Buildkit .Platforms .Error
    #[arg(long, value_name = "FORMAT", default_value = "table", hide_default_value = true)]
    format: String,
    /// Show all platforms
    #[arg(long)]
    no_trunc: bool,
    /// How long to wait for nodes
    #[arg(long, value_name = "DURATION", default_value = TIMEOUT, value_parser = go_duration, hide_short_help = true)]
    timeout: Duration,
}

/// A builder with what is known of it.
pub struct Listed {
    pub builder: Builder,
    pub nodes: Vec<NodeStatus>,
    pub last_activity: Option<Timestamp>,
    pub is_current: bool,
}

/// Runs the command.
pub fn run(args: &LsArgs, session: &Session) -> Result<(), CommandError> {
    let listing = match args.format.as_str() {
        "json" => None,
        "table" | "" => Some(Listing::parse(DEFAULT_FORMAT)?),
        format => Some(Listing::parse(format)?),
    };
    let files = open(session)?;
    let (mut builders, wrong) = files.list()?;
    let current = files.current()?.map_or_else(|| DEFAULT.to_owned(), |builder| builder.name);
    if !builders.iter().any(|builder| builder.name == DEFAULT) {
        builders.push(Builder::default_local());
    }
    let activities: Vec<_> = builders.iter().map(|builder| files.last_activity(&builder.name)).collect();
    // Nodes may take their time, and others want the builders meanwhile.
    drop(files);
    let statuses = examine(session, &session.settings()?, &builders, args.timeout)?;
    let listed: Vec<Listed> = builders
        .into_iter()
        .zip(statuses)
        .zip(activities)
        .map(|((builder, nodes), last_activity)| {
            let is_current = builder.name == current;
            Listed { builder, nodes, last_activity, is_current }
        })
        .collect();
    let text = match &listing {
        None => listed.iter().map(|it| describe(it).to_string() + "\n").collect(),
        Some(listing) => {
            let is_table = args.format.is_empty() || args.format.starts_with("table");
            let rows = rows(&listed, is_table, is_table && !args.no_trunc);
            session.shown_template(listing.render(&TITLES, &rows)?)
        }
    };
    session.printer.data(&text)?;
    session.printer.message(&problems(&listed, &wrong));
    Ok(())
}

/// Returns a row per builder and one per node.
fn rows(listed: &[Listed], is_table: bool, is_short: bool) -> Vec<Value> {
    let mut rows = Vec::new();
    for it in listed {
        let mark = if it.is_current && is_table { "*" } else { "" };
        let activity = it.last_activity.map(activity).unwrap_or_default();
        let name = format!("{}{mark}", it.builder.name);
        rows.push(row([&name, &it.builder.driver, &activity, "", "", "", ""]));
        for (node, status) in it.builder.nodes.iter().zip(&it.nodes) {
            let indent = if is_table { r" \_ " } else { "" };
            let platforms = marked(&node.platforms, &status.platforms);
            let platforms = if is_short { shortened(&platforms) } else { platforms.join(", ") };
            let name = format!("{indent}{}", node.name);
            let endpoint = format!("{indent}{}", visible_line(node.endpoint.as_bytes()));
            let error = status.error.clone().unwrap_or_default();
            rows.push(row([&name, &endpoint, "", status.state, &status.version, &platforms, &error]));
        }
    }
    rows
}

fn row(cells: [&str; 7]) -> Value {
    Value::structure(TITLES.iter().zip(cells).map(|((field, _), cell)| (*field, Value::from(cell))))
}

fn activity(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Writes a builder as buildx's JSON does.
fn describe(it: &Listed) -> Json {
    let nodes: Vec<Json> =
        it.builder.nodes.iter().zip(&it.nodes).map(|(node, status)| describe_node(node, status)).collect();
    json!({
        "Name": it.builder.name,
        "Driver": it.builder.driver,
        "LastActivity": it.last_activity.map_or_else(|| "0001-01-01T00:00:00Z".to_owned(), activity),
        "Dynamic": it.builder.dynamic,
        "Nodes": nodes,
        "Current": it.is_current,
    })
}

fn describe_node(node: &BuilderNode, status: &NodeStatus) -> Json {
    let mut fields = serde_json::Map::new();
    let mut platforms = node.platforms.clone();
    platforms.extend(status.platforms.iter().filter(|platform| !node.platforms.contains(platform)).cloned());
    let gc: Vec<Json> = status
        .gc
        .iter()
        .map(|rule| {
            json!({
                "all": rule.all, "filter": rule.filters, "keepDuration": rule.keep_duration,
                "reservedSpace": rule.reserved_space, "maxUsedSpace": rule.max_used_space,
                "minFreeSpace": rule.min_free_space,
            })
        })
        .collect();
    let entries = [
        ("Name", json!(node.name)),
        ("Endpoint", json!(node.endpoint)),
        ("Flags", json!(node.buildkitd_flags)),
        ("DriverOpts", json!(node.driver_opts)),
        ("Files", json!(node.files)),
        ("Status", json!(status.state)),
        ("Version", json!(status.version)),
        ("Err", json!(status.error.clone().unwrap_or_default())),
        ("IDs", json!(status.ids)),
        ("Platforms", json!(platforms.iter().map(ToString::to_string).collect::<Vec<_>>())),
        ("GCPolicy", json!(gc)),
        ("Labels", json!(status.labels)),
    ];
    for (name, value) in entries {
        let is_empty = match &value {
            Json::String(text) => text.is_empty(),
            Json::Array(items) => items.is_empty(),
            Json::Object(items) => items.is_empty(),
            _ => false,
        };
        if !is_empty || matches!(name, "Name" | "Endpoint") {
            fields.insert(name.to_owned(), value);
        }
    }
    Json::Object(fields)
}

/// Says what went wrong, below the table.
fn problems(listed: &[Listed], wrong: &[CommandError]) -> String {
    let mut lines: Vec<String> =
        wrong.iter().map(|error| format!("Cannot load builder: {}", error.error.message)).collect();
    for it in listed {
        for (node, status) in it.builder.nodes.iter().zip(&it.nodes) {
            if let Some(error) = &status.error {
                lines.push(format!("Failed to get status for {} ({}): {error}", it.builder.name, node.name));
            }
        }
    }
    match lines.is_empty() {
        true => String::new(),
        false => format!("\n{}\n", visible_text(&lines.join("\n"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use polyarch_oci::Platform;

    fn listed() -> Vec<Listed> {
        let node = |name: &str, endpoint: &str, platforms: &str| BuilderNode {
            name: name.to_owned(),
            endpoint: endpoint.to_owned(),
            platforms: match platforms {
                "" => Vec::new(),
                list => Platform::parse_list(list).unwrap(),
            },
            ..BuilderNode::default()
        };
        let status = |state: &'static str, version: &str, platforms: &str, error: Option<&str>| NodeStatus {
            state,
            version: version.to_owned(),
            platforms: match platforms {
                "" => Vec::new(),
                list => Platform::parse_list(list).unwrap(),
            },
            error: error.map(str::to_owned),
            ..NodeStatus::default()
        };
        let multi = Builder {
            name: "multi".to_owned(),
            driver: "remote".to_owned(),
            nodes: vec![
                node("multi0", "tcp://10.0.0.5:1234", "linux/amd64"),
                node("multi1", "ssh://me@pi", "linux/arm64"),
            ],
            dynamic: false,
        };
        vec![
            Listed {
                builder: multi,
                nodes: vec![
                    status("running", "v0.32.2", "linux/amd64,linux/amd64/v2,linux/amd64/v3,linux/386", None),
                    status("inactive", "", "", Some("can't connect to ssh://me@pi")),
                ],
                last_activity: Some(Timestamp::UNIX_EPOCH),
                is_current: true,
            },
            Listed {
                builder: Builder::default_local(),
                nodes: vec![status("running", "polyarch v0.1.0", "linux/amd64,linux/arm64", None)],
                last_activity: None,
                is_current: false,
            },
        ]
    }

    #[test]
    fn the_table_is_that_of_buildx() {
        let listed = listed();
        let table = Listing::parse(DEFAULT_FORMAT).unwrap();
        let text = table.render(&TITLES, &rows(&listed, true, true)).unwrap();
        insta::assert_snapshot!(text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n"), @r"
        NAME/NODE     DRIVER/ENDPOINT           STATUS     BUILDKIT          PLATFORMS
        multi*        remote
         \_ multi0     \_ tcp://10.0.0.5:1234   running    v0.32.2           linux/amd64* (+3), linux/386
         \_ multi1     \_ ssh://me@pi           inactive                     linux/arm64*
        default       local
         \_ default    \_ local                 running    polyarch v0.1.0   linux/amd64, linux/arm64
        ");
        insta::assert_snapshot!(problems(&listed, &[]), @r"
        Failed to get status for multi (multi1): can't connect to ssh://me@pi
        ");
        let names = Listing::parse("{{.Name}} {{.Status}}").unwrap();
        insta::assert_snapshot!(names.render(&TITLES, &rows(&listed, false, false)).unwrap(), @r"
        multi 
        multi0 running
        multi1 inactive
        default 
        default running
        ");
    }

    #[test]
    fn json_has_the_fields_of_buildx() {
        let listed = listed();
        let multi = describe(&listed[0]);
        assert_eq!(multi["Current"], true);
        assert_eq!(multi["LastActivity"], "1970-01-01T00:00:00Z");
        let node = &multi["Nodes"][0];
        assert_eq!(node["Platforms"][0], "linux/amd64");
        assert_eq!(node["Platforms"].as_array().unwrap().len(), 4);
        assert_eq!(node.get("Flags"), None);
        assert_eq!(multi["Nodes"][1]["Err"], "can't connect to ssh://me@pi");
        assert_eq!(describe(&listed[1])["LastActivity"], "0001-01-01T00:00:00Z");
    }
}
