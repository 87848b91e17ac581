// SPDX-License-Identifier: Apache-2.0
//! What can be wrong with bake files and with what is asked of them.

use std::fmt;

/// A place in a bake file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Name of the file, as it was given.
    pub file: String,
    /// First line, from 1.
    pub line: u32,
    /// First column, from 1, in characters.
    pub column: u32,
    /// Last line, from 1.
    pub last_line: u32,
    /// The whole text of the file.
    pub text: String,
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{},{}", self.file, self.line, self.column)
    }
}

/// Why bake files don't become targets.
#[derive(Debug, thiserror::Error)]
pub enum BakeError {
    /// Something in a file is wrong, at a known place.
    #[error("{place}: {summary}; {detail}")]
    Definition {
        /// Where.
        place: Box<Place>,
        /// What, in a few words.
        summary: String,
        /// Why.
        detail: String,
    },
    /// A file can't be read as what it is.
    #[error("failed to parse {file}: {problem}")]
    File {
        /// Name of the file.
        file: String,
        /// What its reader says.
        problem: String,
    },
    /// The definition as a whole, or what was asked of it, makes no sense.
    #[error("{0}")]
    Request(String),
}

impl BakeError {
    pub(crate) fn request(message: impl Into<String>) -> BakeError {
        BakeError::Request(message.into())
    }

    /// Tells where it is wrong, if that is known.
    pub fn place(&self) -> Option<&Place> {
        match self {
            BakeError::Definition { place, .. } => Some(place),
            _ => None,
        }
    }
}
