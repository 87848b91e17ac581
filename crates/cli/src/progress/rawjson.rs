// SPDX-License-Identifier: Apache-2.0
//! One JSON object per event, in the form of BuildKit's status messages (client/graph.go).

use std::io::Write;
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use polyarch_solver::progress::{Event, Vertex, VertexLog, VertexStatus, VertexWarning};
use serde_json::{Map, Value, json};

use super::Renderer;

/// More lines than this no warning is about; a node may claim any.
const MAX_LINES: usize = 10_000;

/// Renders events as JSON lines.
#[derive(Debug, Default)]
pub struct RawJson {
    pending: Vec<u8>,
}

impl Renderer for RawJson {
    fn update(&mut self, event: Event, now: SystemTime) {
        let message = match event {
            Event::Vertex(vertex) => json!({ "vertexes": [vertex_json(&vertex)] }),
            Event::Status(status) => json!({ "statuses": [status_json(&status, now)] }),
            Event::Log(log) => json!({ "logs": [log_json(&log)] }),
            Event::Warning(warning) => json!({ "warnings": [warning_json(&warning)] }),
        };
        self.pending.extend_from_slice(message.to_string().as_bytes());
        self.pending.push(b'\n');
    }

    fn refresh(&mut self, out: &mut dyn Write, _now: SystemTime) -> std::io::Result<()> {
        out.write_all(&self.pending)?;
        self.pending.clear();
        out.flush()
    }

    fn finish(&mut self, out: &mut dyn Write, now: SystemTime) -> std::io::Result<()> {
        self.refresh(out, now)
    }
}

fn vertex_json(vertex: &Vertex) -> Value {
    let mut map = Map::new();
    map.insert("digest".into(), json!(&*vertex.digest));
    if !vertex.inputs.is_empty() {
        let inputs: Vec<&str> = vertex.inputs.iter().map(|input| &**input).collect();
        map.insert("inputs".into(), json!(inputs));
    }
    map.insert("name".into(), json!(&*vertex.name));
    insert_times(&mut map, vertex.started, vertex.completed);
    if vertex.cached {
        map.insert("cached".into(), json!(true));
    }
    if !vertex.error.is_empty() {
        map.insert("error".into(), json!(vertex.error));
    }
    Value::Object(map)
}

fn status_json(status: &VertexStatus, now: SystemTime) -> Value {
    let mut map = Map::new();
    map.insert("id".into(), json!(status.id));
    map.insert("vertex".into(), json!(&*status.vertex));
    if status.total != 0 {
        map.insert("total".into(), json!(status.total));
    }
    map.insert("current".into(), json!(status.current));
    map.insert("timestamp".into(), json!(time(now)));
    insert_times(&mut map, status.started, status.completed);
    Value::Object(map)
}

fn log_json(log: &VertexLog) -> Value {
    json!({
        "vertex": &*log.vertex,
        "stream": log.stream,
        "data": STANDARD.encode(&log.data),
        "timestamp": time(log.timestamp),
    })
}

fn warning_json(warning: &VertexWarning) -> Value {
    let mut map = Map::new();
    if !warning.vertex.is_empty() {
        map.insert("vertex".into(), json!(&*warning.vertex));
    }
    map.insert("level".into(), json!(warning.level));
    map.insert("short".into(), json!(STANDARD.encode(&warning.message)));
    if !warning.detail.is_empty() {
        let detail: Vec<String> = warning.detail.iter().map(|line| STANDARD.encode(line)).collect();
        map.insert("detail".into(), json!(detail));
    }
    if !warning.url.is_empty() {
        map.insert("url".into(), json!(warning.url));
    }
    if let Some(source) = &warning.source {
        let source = json!({
            "filename": source.file,
            "data": STANDARD.encode(&*source.text),
            "language": "Dockerfile",
        });
        map.insert("sourceInfo".into(), source);
    }
    // As BuildKit: each line by itself.
    let lines = warning.lines.iter().flat_map(|lines| lines.clone().take(MAX_LINES));
    let ranges: Vec<Value> =
        lines.map(|line| json!({ "start": { "line": line }, "end": { "line": line } })).collect();
    if !ranges.is_empty() {
        map.insert("range".into(), json!(ranges));
    }
    Value::Object(map)
}

fn insert_times(map: &mut Map<String, Value>, started: Option<SystemTime>, completed: Option<SystemTime>) {
    if let Some(started) = started {
        map.insert("started".into(), json!(time(started)));
    }
    if let Some(completed) = completed {
        map.insert("completed".into(), json!(time(completed)));
    }
}

/// Writes a time as RFC 3339 with nanoseconds; times that have no such form as the earliest there is.
fn time(time: SystemTime) -> String {
    jiff::Timestamp::try_from(time).unwrap_or(jiff::Timestamp::MIN).to_string()
}
