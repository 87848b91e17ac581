// SPDX-License-Identifier: Apache-2.0
//! Warnings as the protocol has them and as our progress has them.

use std::ops::RangeInclusive;
use std::sync::Arc;

use polyarch_solver::progress::{VertexWarning, WarningSource};

use crate::api::{control, llb};

/// The most lines of detail that are taken.
const MAX_DETAILS: usize = 100;
/// The longest of its texts, in bytes.
const MAX_TEXT_BYTES: usize = 16 << 10;
/// The longest text that a warning is about, in bytes.
const MAX_SOURCE_BYTES: usize = 1 << 20;
/// The most lines that a warning is told to be about.
const MAX_LINES: usize = 1000;

/// The parts of a warning, as both of the protocol's messages have them.
pub(crate) struct Parts<'a> {
    pub(crate) level: i64,
    pub(crate) short: &'a [u8],
    pub(crate) detail: &'a [Vec<u8>],
    pub(crate) url: &'a str,
    pub(crate) info: Option<&'a llb::SourceInfo>,
    pub(crate) ranges: &'a [llb::Range],
}

/// Reads a warning of a peer.
pub(crate) fn read(vertex: Arc<str>, parts: &Parts<'_>) -> VertexWarning {
    let clipped =
        |bytes: &[u8], max: usize| String::from_utf8_lossy(&bytes[..bytes.len().min(max)]).into_owned();
    let text = |bytes: &[u8]| clipped(bytes, MAX_TEXT_BYTES);
    let source = parts.info.map(|info| {
        let file = text(info.filename.as_bytes());
        Arc::new(WarningSource { file, text: clipped(&info.data, MAX_SOURCE_BYTES).into() })
    });
    VertexWarning {
        vertex,
        level: i32::try_from(parts.level).unwrap_or(1),
        message: text(parts.short),
        detail: parts.detail.iter().take(MAX_DETAILS).map(|line| text(line)).collect(),
        url: text(parts.url.as_bytes()),
        source,
        lines: parts.ranges.iter().take(MAX_LINES).map(lines_of).collect(),
    }
}

fn lines_of(range: &llb::Range) -> RangeInclusive<u32> {
    let line = |position: Option<&llb::Position>| {
        u32::try_from(position.map_or(0, |position| position.line)).unwrap_or_default()
    };
    let first = line(range.start.as_ref());
    first..=line(range.end.as_ref()).max(first)
}

/// Writes a warning of ours.
pub(crate) fn message(warning: &VertexWarning) -> control::VertexWarning {
    // As BuildKit: each line by itself.
    let lines = warning.lines.iter().flat_map(|lines| lines.clone().take(MAX_LINES)).take(MAX_LINES);
    let position = |line: u32| llb::Position { line: i32::try_from(line).unwrap_or(i32::MAX), character: 0 };
    let range = |line| llb::Range { start: Some(position(line)), end: Some(position(line)) };
    control::VertexWarning {
        vertex: warning.vertex.to_string(),
        level: i64::from(warning.level),
        short: warning.message.clone().into_bytes(),
        detail: warning.detail.iter().map(|line| line.clone().into_bytes()).collect(),
        url: warning.url.clone(),
        info: warning.source.as_ref().map(|source| llb::SourceInfo {
            filename: source.file.clone(),
            data: source.text.as_bytes().to_vec(),
            definition: None,
            language: "Dockerfile".to_owned(),
        }),
        ranges: lines.map(range).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_survives_the_way_to_a_client() {
        let warning = VertexWarning {
            detail: vec!["the rule".to_owned()],
            url: "https://e.example/rule".to_owned(),
            source: Some(Arc::new(WarningSource { file: "Dockerfile".to_owned(), text: "FROM a\n".into() })),
            lines: vec![2..=3],
            ..VertexWarning::new("Rule: it is so (line 2)")
        };
        let sent = message(&warning);
        assert_eq!((sent.level, sent.short.as_slice()), (1, &b"Rule: it is so (line 2)"[..]));
        let parts = Parts {
            level: sent.level,
            short: &sent.short,
            detail: &sent.detail,
            url: &sent.url,
            info: sent.info.as_ref(),
            ranges: &sent.ranges,
        };
        // Each line came by itself.
        assert_eq!(read("".into(), &parts), VertexWarning { lines: vec![2..=2, 3..=3], ..warning });
    }
}
