// SPDX-License-Identifier: Apache-2.0
//! Where something stands in the Dockerfile.

/// A range of the source: bytes, and the lines they stand on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Span {
    /// Offset of the first byte, counted in the decoded text with its byte order mark.
    pub start: usize,
    /// Offset after the last byte.
    pub end: usize,
    /// The first line, counted from 1.
    pub first_line: u32,
    /// The last line, counted from 1, at least `first_line`.
    pub last_line: u32,
}

impl Span {
    /// Returns the lines, first and last included.
    pub fn lines(&self) -> std::ops::RangeInclusive<u32> {
        self.first_line..=self.last_line
    }

    /// Returns the part of the source that the span covers, or nothing if it is not of this source.
    pub fn text<'a>(&self, source: &'a str) -> &'a str {
        source.get(self.start..self.end).unwrap_or_default()
    }
}
