// SPDX-License-Identifier: Apache-2.0
//! `buildx inspect`: a builder and what its nodes say of themselves.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use polyarch_build::{BuildError, ErrorKind};

use super::examine::{NodeStatus, examine};
use super::{TIMEOUT, find, go_duration, named, open};
use crate::CommandError;
use crate::builders::platforms::marked;
use crate::builders::{Builder, BuilderNode, pods};
use crate::progress::format::binary_size;
use crate::session::Session;
use crate::visible_text::visible_text;

/// Show a builder and its nodes
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// Fail unless every node answers
    #[arg(long)]
    bootstrap: bool,
    /// How long to wait for nodes
    #[arg(long, value_name = "DURATION", default_value = TIMEOUT, value_parser = go_duration, hide_short_help = true)]
    timeout: Duration,
    /// The builder; the current one when absent
    #[arg(value_name = "NAME")]
    name: Option<String>,
}

/// Runs the command.
pub fn run(args: &InspectArgs, flag: Option<&str>, session: &Session) -> Result<(), CommandError> {
    let files = open(session)?;
    let builder = find(&files, named(args.name.as_deref(), flag, &session.environment))?;
    let activity = files.last_activity(&builder.name);
    drop(files);
    if args.bootstrap {
        pods::boot_builder(&builder, session)?;
    }
    let builders = [builder];
    let mut statuses = examine(session, &session.settings()?, &builders, args.timeout)?;
    let ([builder], nodes) = (builders, statuses.pop().unwrap_or_default());
    let failed =
        builder.nodes.iter().zip(&nodes).find_map(|(node, status)| Some((node, status.error.as_ref()?)));
    if let (true, Some((node, error))) = (args.bootstrap, failed) {
        let message = format!("failed to initialize builder {} ({}): {error}", builder.name, node.name);
        return Err(BuildError::new(ErrorKind::Registry, message)
            .with_hint("check that the node runs and that the address is right")
            .into());
    }
    let activity = activity.map(|time| time.strftime("%Y-%m-%d %H:%M:%S +0000 UTC").to_string());
    let text = render(&builder, &nodes, activity.as_deref());
    session.printer.data(&session.shown_template(text))
}

/// Writes lines in blocks; the values of a block stand in one column.
#[derive(Default)]
struct Blocks {
    text: String,
    pending: Vec<(String, String)>,
    indent: &'static str,
}

impl Blocks {
    fn value(&mut self, indent: &'static str, key: &str, value: &str) {
        if self.indent != indent {
            self.flush();
            self.indent = indent;
        }
        self.pending.push((format!("{key}:"), value.to_owned()));
    }

    fn line(&mut self, line: &str) {
        self.flush();
        self.text.push_str(line);
        self.text.push('\n');
    }

    fn flush(&mut self) {
        let width = self.pending.iter().map(|(key, _)| key.chars().count()).max().unwrap_or(0) + 1;
        for (key, value) in self.pending.drain(..) {
            let blanks = " ".repeat(width - key.chars().count());
            self.text.push_str(&format!("{}{key}{blanks}{value}\n", self.indent));
        }
    }
}

fn render(builder: &Builder, nodes: &[NodeStatus], activity: Option<&str>) -> String {
    let mut out = Blocks::default();
    out.value("", "Name", &builder.name);
    out.value("", "Driver", &builder.driver);
    if let Some(activity) = activity {
        out.value("", "Last Activity", activity);
    }
    out.line("");
    out.line("Nodes:");
    for (number, (node, status)) in builder.nodes.iter().zip(nodes).enumerate() {
        if number > 0 {
            out.line("");
        }
        describe(&mut out, node, status);
    }
    out.flush();
    visible_text(&out.text)
}

fn describe(out: &mut Blocks, node: &BuilderNode, status: &NodeStatus) {
    out.value("", "Name", &node.name);
    out.value("", "Endpoint", &node.endpoint);
    if !node.driver_opts.is_empty() {
        let options: Vec<String> =
            node.driver_opts.iter().map(|(key, value)| format!("{key}={value:?}")).collect();
        out.value("", "Driver Options", &options.join(" "));
    }
    match &status.error {
        Some(error) if status.state == "error" => return out.value("", "Error", error),
        _ => out.value("", "Status", status.state),
    }
    if let Some(error) = &status.error {
        out.value("", "Reason", error);
    }
    if !node.buildkitd_flags.is_empty() {
        out.value("", "BuildKit daemon flags", &node.buildkitd_flags.join(" "));
    }
    if !status.version.is_empty() {
        out.value("", "BuildKit version", &status.version);
    }
    let platforms = marked(&node.platforms, &status.platforms);
    if !platforms.is_empty() {
        out.value("", "Platforms", &platforms.join(", "));
    }
    if !status.labels.is_empty() {
        out.line("Labels:");
        for (key, value) in &status.labels {
            out.value(" ", key, value);
        }
    }
    for (number, rule) in status.gc.iter().enumerate() {
        out.line(&format!("GC Policy rule#{number}:"));
        out.value(" ", "All", if rule.all { "true" } else { "false" });
        if !rule.filters.is_empty() {
            out.value(" ", "Filters", &rule.filters.join(" "));
        }
        if rule.keep_duration > 0 {
            out.value(" ", "Keep Duration", &go_duration_text(rule.keep_duration));
        }
        let sizes = [
            ("Reserved Space", rule.reserved_space),
            ("Max Used Space", rule.max_used_space),
            ("Min Free Space", rule.min_free_space),
        ];
        for (key, bytes) in sizes.iter().filter_map(|(key, bytes)| Some((key, u64::try_from(*bytes).ok()?))) {
            if bytes > 0 {
                out.value(" ", key, &binary_size(bytes));
            }
        }
    }
    for (name, content) in &node.files {
        out.line(&format!("File#{name}:"));
        let content = STANDARD.decode(content).unwrap_or_default();
        for line in String::from_utf8_lossy(&content).lines() {
            out.line(&format!(" > {line}"));
        }
    }
}

/// Writes nanoseconds as Go does, `48h0m0s`.
fn go_duration_text(nanoseconds: i64) -> String {
    let seconds = nanoseconds / 1_000_000_000;
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}m{seconds}s"),
        _ => format!("{hours}h{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use polyarch_buildkit::api::worker::GCPolicy;
    use polyarch_oci::Platform;

    use super::*;

    #[test]
    fn lines_are_those_of_buildx() {
        let node = BuilderNode {
            name: "multi0".to_owned(),
            endpoint: "tcp://10.0.0.5:1234".to_owned(),
            platforms: Platform::parse_list("linux/amd64").unwrap(),
            driver_opts: BTreeMap::from([("cacert".to_owned(), "/abs/ca.pem".to_owned())]),
            buildkitd_flags: vec!["--debug".to_owned()],
            files: BTreeMap::from([("buildkitd.toml".to_owned(), STANDARD.encode("debug = true\n"))]),
        };
        let builder = Builder {
            name: "multi".to_owned(),
            driver: "remote".to_owned(),
            nodes: vec![node],
            dynamic: false,
        };
        let status = NodeStatus {
            state: "running",
            version: "v0.32.2".to_owned(),
            platforms: Platform::parse_list("linux/amd64,linux/amd64/v2,linux/386").unwrap(),
            labels: BTreeMap::from([
                ("org.mobyproject.buildkit.worker.executor".to_owned(), "oci".to_owned()),
                ("org.mobyproject.buildkit.worker.snapshotter".to_owned(), "overlayfs".to_owned()),
            ]),
            gc: vec![GCPolicy {
                all: false,
                keep_duration: 172_800_000_000_000,
                filters: vec!["type==source.local".to_owned()],
                max_used_space: 536_870_912,
                ..GCPolicy::default()
            }],
            ..NodeStatus::default()
        };
        let text = render(&builder, &[status], Some("2026-11-21 23:00:00 +0000 UTC"));
        insta::assert_snapshot!(text, @r#"
        Name:          multi
        Driver:        remote
        Last Activity: 2026-11-21 23:00:00 +0000 UTC

        Nodes:
        Name:                  multi0
        Endpoint:              tcp://10.0.0.5:1234
        Driver Options:        cacert="/abs/ca.pem"
        Status:                running
        BuildKit daemon flags: --debug
        BuildKit version:      v0.32.2
        Platforms:             linux/amd64*, linux/amd64/v2, linux/386
        Labels:
         org.mobyproject.buildkit.worker.executor:    oci
         org.mobyproject.buildkit.worker.snapshotter: overlayfs
        GC Policy rule#0:
         All:            false
         Filters:        type==source.local
         Keep Duration:  48h0m0s
         Max Used Space: 512MiB
        File#buildkitd.toml:
         > debug = true
        "#);
    }
}
