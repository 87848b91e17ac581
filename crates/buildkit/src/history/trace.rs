// SPDX-License-Identifier: Apache-2.0
//! The steps of a build as a trace, for those who look at builds with OpenTelemetry's tools.
//!
//! `application/vnd.buildkit.otlp.json.v0`: one JSON object per span, in the form that the tools of OpenTelemetry for
//! Go write. A span is the build, and beneath it one for each step.

use std::collections::BTreeMap;

use jiff::Timestamp;
use polyarch_oci::Digest;
use serde_json::{Value, json};

use crate::api::control::{BuildHistoryRecord, StatusResponse, Vertex};

/// The media type.
pub(super) const MEDIA_TYPE: &str = "application/vnd.buildkit.otlp.json.v0";

/// No time.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// Writes the trace of a build that has ended.
pub(super) fn encode(record: &BuildHistoryRecord, messages: &[StatusResponse]) -> Vec<u8> {
    let trace = Digest::of(&record.r#ref).hex()[..32].to_owned();
    let root = Digest::of(format!("root {}", record.r#ref)).hex()[..16].to_owned();
    let failure = record.error.as_ref().map_or("", |error| &error.message);
    let mut spans = vec![span(&Span {
        trace: &trace,
        id: &root,
        parent: None,
        name: "build",
        times: [record.created_at.as_ref(), record.completed_at.as_ref()],
        failure,
        attributes: vec![("ref", record.r#ref.clone()), ("frontend", record.frontend.clone())],
    })];
    let mut steps: BTreeMap<&str, &Vertex> = BTreeMap::new();
    for vertex in messages.iter().flat_map(|message| &message.vertexes) {
        // The last that is said of a step is all of it.
        steps.insert(&vertex.digest, vertex);
    }
    for vertex in steps.values().filter(|vertex| vertex.started.is_some() && vertex.completed.is_some()) {
        let id = Digest::of(format!("{} {}", record.r#ref, vertex.digest)).hex()[..16].to_owned();
        spans.push(span(&Span {
            trace: &trace,
            id: &id,
            parent: Some(&root),
            name: &vertex.name,
            times: [vertex.started.as_ref(), vertex.completed.as_ref()],
            failure: &vertex.error,
            attributes: vec![("vertex", vertex.digest.clone()), ("cached", vertex.cached.to_string())],
        }));
    }
    let lines = spans.iter().map(|span| format!("{span}\n"));
    // A trace that has no room is one of the first steps.
    let mut bytes = Vec::new();
    for line in lines {
        if bytes.len() + line.len() <= super::MAX_ATTACHMENT_BYTES {
            bytes.extend_from_slice(line.as_bytes());
        }
    }
    bytes
}

struct Span<'a> {
    trace: &'a str,
    id: &'a str,
    parent: Option<&'a str>,
    name: &'a str,
    times: [Option<&'a prost_types::Timestamp>; 2],
    failure: &'a str,
    attributes: Vec<(&'static str, String)>,
}

fn span(span: &Span<'_>) -> Value {
    let context = |id: &str, trace: &str| json!({ "TraceID": trace, "SpanID": id, "TraceFlags": "01", "TraceState": "", "Remote": false });
    let parent = match span.parent {
        Some(id) => context(id, span.trace),
        None => context("0000000000000000", "00000000000000000000000000000000"),
    };
    let text = |key: &str, value: &str| json!({ "Key": key, "Value": { "Type": "STRING", "Value": value } });
    let attributes: Vec<Value> = span.attributes.iter().map(|(key, value)| text(key, value)).collect();
    json!({
        "Name": span.name,
        "SpanContext": context(span.id, span.trace),
        "Parent": parent,
        // An internal operation.
        "SpanKind": 1,
        "StartTime": time(span.times[0]),
        "EndTime": time(span.times[1]),
        "Attributes": attributes,
        "Events": null,
        "Links": null,
        "Status": { "Code": u8::from(!span.failure.is_empty()), "Description": span.failure },
        "DroppedAttributes": 0,
        "DroppedEvents": 0,
        "DroppedLinks": 0,
        "ChildSpanCount": 0,
        "Resource": [text("service.name", "polyarch")],
        "InstrumentationLibrary": { "Name": "polyarch", "Version": env!("CARGO_PKG_VERSION"), "SchemaURL": "" },
    })
}

fn time(time: Option<&prost_types::Timestamp>) -> String {
    let time = time.and_then(|time| Timestamp::new(time.seconds, time.nanos).ok());
    time.map_or_else(|| NEVER.to_owned(), |time| time.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_has_a_span_and_each_step_one_beneath_it() {
        let at = |seconds| Some(prost_types::Timestamp { seconds, nanos: 5 });
        let step = |digest: &str, completed| Vertex {
            digest: digest.to_owned(),
            name: format!("step {digest}"),
            started: at(1),
            completed,
            ..Vertex::default()
        };
        let message = StatusResponse {
            vertexes: vec![step("a", None), step("a", at(2)), step("b", None)],
            ..StatusResponse::default()
        };
        let record = BuildHistoryRecord { r#ref: "r".to_owned(), created_at: at(0), ..Default::default() };
        let text = String::from_utf8(encode(&record, &[message])).unwrap();
        let spans: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        // What has not ended is no span.
        assert_eq!(spans.len(), 2);
        assert_eq!(
            (&spans[1]["Name"], &spans[1]["EndTime"]),
            (&json!("step a"), &json!("1970-01-01T00:00:02.000000005Z"))
        );
        assert_eq!(spans[1]["Parent"]["SpanID"], spans[0]["SpanContext"]["SpanID"]);
        assert_eq!(spans[0]["EndTime"], NEVER);
    }
}
