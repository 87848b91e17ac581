// SPDX-License-Identifier: Apache-2.0
//! `buildx history inspect`: all that is remembered of a build.

use clap::Args;
use polyarch_buildkit::api::control::{BuildHistoryRecord, Descriptor};
use polyarch_buildkit::history::{History, LOCAL_CONTEXT, status_of};
use serde_json::{Map, Value as Json, json};

use super::ls::duration;
use super::{name_of, time_of, with_history};
use crate::CommandError;
use crate::session::Session;
use crate::visible_text::visible_text;

/// Show what is remembered of a build
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// `pretty` or `json`
    #[arg(long, value_name = "FORMAT", default_value = "pretty", value_parser = ["pretty", "json"])]
    format: String,
    /// Build, as `ls` shows it [default: the last one]
    #[arg(value_name = "REF", default_value = "", hide_default_value = true)]
    build: String,
}

/// Runs the command.
pub(super) fn run(args: &InspectArgs, session: &Session) -> Result<(), CommandError> {
    let (record, materials) = with_history(session, |history| {
        let record = history.find(&args.build)?;
        let materials = materials_of(history, &record);
        Ok((record, materials))
    })?;
    let text = match args.format.as_str() {
        "json" => {
            let bytes = polyarch_oci::json::to_indented(&describe(&record, &materials), "  ");
            String::from_utf8_lossy(&bytes).into_owned() + "\n"
        }
        _ => visible_text(&render(&record, &materials)),
    };
    session.printer.data(&text)
}

/// Reads what the build took in out of its provenance: names, and digests.
fn materials_of(history: &History, record: &BuildHistoryRecord) -> Vec<(String, Vec<String>)> {
    let mut materials: Vec<(String, Vec<String>)> = Vec::new();
    for (_, provenance) in attestations(record) {
        let bytes = history.attachment(&record.r#ref, &provenance.digest).ok().flatten();
        let predicate: Json = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        let found = predicate["buildDefinition"]["resolvedDependencies"].as_array();
        for material in found.into_iter().flatten() {
            let name = material["uri"].as_str().unwrap_or_default().to_owned();
            let digests = material["digest"].as_object().into_iter().flatten();
            let digests =
                digests.map(|(algorithm, hex)| format!("{algorithm}:{}", hex.as_str().unwrap_or_default()));
            let material = (name, digests.collect());
            if !materials.contains(&material) {
                materials.push(material);
            }
        }
    }
    materials
}

/// Returns what was said of each platform's image; one platform alone has no name.
fn attestations(record: &BuildHistoryRecord) -> impl Iterator<Item = (&str, &Descriptor)> {
    let one = record.result.iter().map(|result| ("", result));
    let several = record.results.iter().map(|(platform, result)| (platform.as_str(), result));
    one.chain(several).flat_map(|(platform, result)| result.attestations.iter().map(move |it| (platform, it)))
}

/// Returns the attributes that begin with a prefix, without it.
fn with_prefix<'a>(record: &'a BuildHistoryRecord, prefix: &str) -> Vec<(&'a str, &'a str)> {
    let named = record.frontend_attrs.iter();
    named.filter_map(|(key, value)| Some((key.strip_prefix(prefix)?, value.as_str()))).collect()
}

/// Writes a record with the fields of buildx's JSON.
fn describe(record: &BuildHistoryRecord, materials: &[(String, Vec<String>)]) -> Json {
    let attribute = |key: &str| record.frontend_attrs.get(key).cloned().unwrap_or_default();
    let pairs = |prefix: &str| -> Vec<Json> {
        with_prefix(record, prefix)
            .into_iter()
            .map(|(name, value)| json!({ "Name": name, "Value": value }))
            .collect()
    };
    let time = |time: &Option<prost_types::Timestamp>| {
        time_of(time.as_ref()).map(|time| time.to_string()).unwrap_or_default()
    };
    let context = match attribute("context") {
        context if context.is_empty() => attribute(LOCAL_CONTEXT),
        context => context,
    };
    let error = record.error.as_ref().map(|error| json!({ "Code": error.code, "Message": error.message }));
    let nanos = |time: Option<jiff::Timestamp>| time.map_or(0, |time| time.as_nanosecond());
    let (started, ended) = (time_of(record.created_at.as_ref()), time_of(record.completed_at.as_ref()));
    let took = i64::try_from(nanos(ended).saturating_sub(nanos(started))).unwrap_or(0);
    let platforms = attribute("platform");
    let platforms: Vec<&str> = platforms.split(',').filter(|platform| !platform.is_empty()).collect();
    let materials: Vec<Json> =
        materials.iter().map(|(name, digests)| json!({ "URI": name, "Digests": digests })).collect();
    let attached: Vec<Json> = attestations(record)
        .map(|(platform, it)| {
            let kind = it.annotations.get("in-toto.io/predicate-type").unwrap_or(&it.media_type);
            json!({ "Digest": it.digest, "Platform": platform, "Type": kind })
        })
        .collect();
    let fields = [
        ("Name", json!(name_of(record))),
        ("Ref", json!(record.r#ref)),
        ("Context", json!(context)),
        ("Dockerfile", json!(attribute("filename"))),
        ("VCSRepository", json!(attribute("vcs:source"))),
        ("VCSRevision", json!(attribute("vcs:revision"))),
        ("Target", json!(attribute("target"))),
        ("Platform", json!(platforms)),
        ("NamedContexts", json!(pairs("context:"))),
        ("StartedAt", json!(time(&record.created_at))),
        ("CompletedAt", json!(time(&record.completed_at))),
        ("Duration", json!(took)),
        ("Status", json!(status_of(record))),
        ("Error", json!(error)),
        ("NumCompletedSteps", json!(record.num_completed_steps)),
        ("NumTotalSteps", json!(record.num_total_steps)),
        ("NumCachedSteps", json!(record.num_cached_steps)),
        ("BuildArgs", json!(pairs("build-arg:"))),
        ("Labels", json!(pairs("label:"))),
        ("Materials", json!(materials)),
        ("Attachments", json!(attached)),
    ];
    let is_told = |name: &str, value: &Json| match value {
        Json::Null => false,
        Json::String(text) => !text.is_empty() || name == "Ref",
        Json::Array(items) => !items.is_empty(),
        _ => true,
    };
    let told = fields.into_iter().filter(|(name, value)| is_told(name, value));
    Json::Object(told.map(|(name, value)| (name.to_owned(), value)).collect::<Map<_, _>>())
}

/// Writes a record for people.
fn render(record: &BuildHistoryRecord, materials: &[(String, Vec<String>)]) -> String {
    let told = describe(record, materials);
    let mut text = String::new();
    let mut line = |title: &str, value: &str| {
        if !value.is_empty() {
            text.push_str(&format!("{:<16}{value}\n", format!("{title}:")));
        }
    };
    for (title, key) in [
        ("Name", "Name"),
        ("Ref", "Ref"),
        ("Context", "Context"),
        ("Dockerfile", "Dockerfile"),
        ("Repository", "VCSRepository"),
        ("Revision", "VCSRevision"),
        ("Target", "Target"),
        ("Started", "StartedAt"),
    ] {
        line(title, told[key].as_str().unwrap_or_default());
    }
    line("Platforms", record.frontend_attrs.get("platform").map_or("", String::as_str));
    line("Duration", &duration(record));
    line("Status", status_of(record));
    let steps = format!(
        "{}/{} ({} cached)",
        record.num_completed_steps, record.num_total_steps, record.num_cached_steps
    );
    line("Build Steps", &steps);
    if record.num_warnings > 0 {
        line("Warnings", &record.num_warnings.to_string());
    }
    if let Some(digest) = record.exporter_response.get("containerimage.digest") {
        line("Digest", digest);
    }
    for (title, prefix) in
        [("Build arguments", "build-arg:"), ("Labels", "label:"), ("Named contexts", "context:")]
    {
        let pairs = with_prefix(record, prefix);
        if !pairs.is_empty() {
            text.push_str(&format!("\n{title}:\n"));
            pairs.iter().for_each(|(name, value)| text.push_str(&format!("  {name}={value}\n")));
        }
    }
    if !materials.is_empty() {
        text.push_str("\nMaterials:\n");
        for (name, digests) in materials {
            text.push_str(&format!("  {name}\n"));
            digests.iter().for_each(|digest| text.push_str(&format!("    {digest}\n")));
        }
    }
    if let Some(error) = &record.error {
        text.push_str(&format!("\nError:\n  {}\n", error.message.replace('\n', "\n  ")));
    }
    text
}

#[cfg(test)]
mod tests {
    use polyarch_buildkit::api::rpc;

    use super::*;

    #[test]
    fn a_failed_build_tells_what_was_asked_and_why_it_failed() {
        let at = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
        let attributes = [("filename", "Dockerfile"), ("build-arg:A", "1"), ("platform", "linux/amd64")];
        let attributes = attributes.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let record = BuildHistoryRecord {
            r#ref: "abc".to_owned(),
            frontend_attrs: attributes.into(),
            created_at: at(0),
            completed_at: at(2),
            num_total_steps: 3,
            num_completed_steps: 2,
            error: Some(rpc::Status { code: 2, message: "it broke\nhere".to_owned(), details: Vec::new() }),
            ..BuildHistoryRecord::default()
        };
        let materials = [("pkg:docker/a@1".to_owned(), vec!["sha256:00".to_owned()])];
        insta::assert_snapshot!(render(&record, &materials), @r"
        Ref:            abc
        Dockerfile:     Dockerfile
        Started:        1970-01-01T00:00:00Z
        Platforms:      linux/amd64
        Duration:       2.0s
        Status:         error
        Build Steps:    2/3 (0 cached)

        Build arguments:
          A=1

        Materials:
          pkg:docker/a@1
            sha256:00

        Error:
          it broke
          here
        ");
        let told = describe(&record, &materials);
        assert_eq!(told["Duration"], 2_000_000_000_i64);
        assert_eq!(told["Error"]["Message"], "it broke\nhere");
        assert_eq!(told.get("Labels"), None);
    }
}
