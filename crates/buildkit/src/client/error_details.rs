// SPDX-License-Identifier: Apache-2.0
//! What a node says of a failure besides its text.
//!
//! The details of a status are `Any`s whose bytes are JSON and whose type ends in `+json`:
//! `errdefs.Source` has the Dockerfile with the lines, `errdefs.Vertex` the digest of the step.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use polyarch_build::error::SourceLocation;
use prost::Message as _;
use serde::Deserialize;
use tonic::Status;

use crate::api::rpc;

/// The largest Dockerfile that is taken from an error, in bytes.
const MAX_SOURCE_BYTES: usize = 1 << 20;

#[derive(Deserialize)]
struct Source {
    info: SourceInfo,
    #[serde(default)]
    ranges: Vec<Range>,
}

#[derive(Deserialize)]
struct SourceInfo {
    #[serde(default)]
    filename: String,
    #[serde(default)]
    data: String,
}

#[derive(Deserialize)]
struct Range {
    #[serde(default)]
    start: Position,
    #[serde(default)]
    end: Position,
}

#[derive(Default, Deserialize)]
struct Position {
    #[serde(default)]
    line: u32,
}

#[derive(Deserialize)]
struct Vertex {
    #[serde(default)]
    digest: String,
}

/// Returns the place in the Dockerfile, the innermost one.
pub(super) fn location_of(status: &Status) -> Option<SourceLocation> {
    let source: Source = details_of(status, "errdefs.Source+json").pop()?;
    if source.info.data.len() > MAX_SOURCE_BYTES {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(&source.info.data).ok()?).ok()?;
    let range = source.ranges.first()?;
    let lines = u32::try_from(text.lines().count()).unwrap_or(u32::MAX);
    let (start, end) = (range.start.line.max(1), range.end.line.max(range.start.line).max(1));
    let is_inside = start <= lines && end <= lines;
    is_inside.then(|| SourceLocation { file: source.info.filename, text: text.into(), lines: start..=end })
}

/// Returns the digest of the step that failed.
pub(super) fn vertex_of(status: &Status) -> Option<String> {
    let vertex: Vertex = details_of(status, "errdefs.Vertex+json").pop()?;
    Some(vertex.digest).filter(|digest| !digest.is_empty())
}

fn details_of<T: for<'de> Deserialize<'de>>(status: &Status, kind: &str) -> Vec<T> {
    let Ok(status) = rpc::Status::decode(status.details()) else { return Vec::new() };
    let details = status.details.iter().filter(|detail| detail.type_url.ends_with(kind));
    details.filter_map(|detail| serde_json::from_slice(&detail.value).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(details: &[(&str, &str)]) -> Status {
        let details = details.iter().map(|(kind, value)| prost_types::Any {
            type_url: format!("github.com/moby/buildkit/{kind}"),
            value: value.as_bytes().to_vec(),
        });
        let message = rpc::Status { code: 2, message: "text".to_owned(), details: details.collect() };
        Status::with_details(tonic::Code::Unknown, "text", message.encode_to_vec().into())
    }

    #[test]
    fn place_and_step_are_found() {
        let data = STANDARD.encode("FROM scratch\nRUN false\n");
        let source = format!(
            r#"{{"info":{{"filename":"Dockerfile","data":"{data}","language":"Dockerfile"}},"ranges":[{{"start":{{"line":2}},"end":{{"line":2}}}}]}}"#
        );
        let status =
            status(&[("errdefs.Vertex+json", r#"{"digest":"sha256:aa"}"#), ("errdefs.Source+json", &source)]);
        let location = location_of(&status).unwrap();
        assert_eq!((location.file.as_str(), location.lines), ("Dockerfile", 2..=2));
        assert_eq!(&*location.text, "FROM scratch\nRUN false\n");
        assert_eq!(vertex_of(&status).as_deref(), Some("sha256:aa"));
    }

    #[test]
    fn details_that_make_no_sense_are_left_out() {
        let outside =
            r#"{"info":{"filename":"D","data":"QQ=="},"ranges":[{"start":{"line":7},"end":{"line":7}}]}"#;
        for source in ["", "[]", "{}", r#"{"info":{"data":"***"},"ranges":[{}]}"#, outside] {
            assert!(location_of(&status(&[("errdefs.Source+json", source)])).is_none(), "{source}");
        }
        assert!(vertex_of(&Status::unknown("x")).is_none());
    }
}
