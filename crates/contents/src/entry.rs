// SPDX-License-Identifier: Apache-2.0
//! One file of an image.

use serde::{Deserialize, Serialize};

use crate::elf::{ElfFacts, Program};

/// A file with its attributes. Its times are left out: nothing here depends on them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// What it is.
    #[serde(rename = "k")]
    pub kind: EntryKind,
    /// Octal 0 to 7777.
    #[serde(rename = "m")]
    pub mode: u32,
    /// User and group.
    #[serde(rename = "o")]
    pub owner: (u32, u32),
}

/// What a file is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum EntryKind {
    /// A regular file.
    #[serde(rename = "f")]
    File(FileFacts),
    /// A directory.
    #[serde(rename = "d")]
    Directory,
    /// A symbolic link and its target, as written.
    #[serde(rename = "l")]
    Symlink(String),
    /// A character device, major and minor number.
    #[serde(rename = "c")]
    CharDevice(u32, u32),
    /// A block device, major and minor number.
    #[serde(rename = "b")]
    BlockDevice(u32, u32),
    /// A named pipe.
    #[serde(rename = "p")]
    Fifo,
}

/// The content of a regular file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileFacts {
    /// The size in bytes.
    #[serde(rename = "s")]
    pub size_bytes: u64,
    /// The SHA-256 of the content, in hexadecimal; empty for a file of huge holes, which is not hashed.
    #[serde(rename = "h")]
    pub sha256: String,
    /// What kind of program it is, when it is one.
    #[serde(rename = "p", default, skip_serializing_if = "Option::is_none")]
    pub program: Option<Program>,
}

impl Entry {
    /// Returns the facts of a regular file.
    pub fn file(&self) -> Option<&FileFacts> {
        match &self.kind {
            EntryKind::File(facts) => Some(facts),
            _ => None,
        }
    }

    /// Returns the ELF facts of a file that a loader would map.
    pub fn elf(&self) -> Option<&ElfFacts> {
        match self.file()?.program.as_ref()? {
            Program::Elf(facts) if facts.is_program() => Some(facts),
            _ => None,
        }
    }

    /// Returns how many bytes its texts have, which are an archive's.
    pub(crate) fn text_bytes(&self) -> usize {
        match &self.kind {
            EntryKind::Symlink(target) => target.len(),
            EntryKind::File(facts) => {
                let program = match &facts.program {
                    Some(Program::Elf(elf)) => elf.interpreter.as_ref().map_or(0, String::len),
                    Some(Program::Script { interpreter, argument }) => interpreter.len() + argument.len(),
                    None => 0,
                };
                facts.sha256.len() + program
            }
            _ => 0,
        }
    }

    /// Tells whether it is a directory.
    pub fn is_directory(&self) -> bool {
        self.kind == EntryKind::Directory
    }

    /// Tells whether somebody may execute it.
    pub fn is_executable(&self) -> bool {
        self.mode & 0o111 != 0
    }
}

impl EntryKind {
    /// Returns the word for it.
    pub fn word(&self) -> &'static str {
        match self {
            EntryKind::File(_) => "file",
            EntryKind::Directory => "directory",
            EntryKind::Symlink(_) => "symlink",
            EntryKind::CharDevice(..) => "character device",
            EntryKind::BlockDevice(..) => "block device",
            EntryKind::Fifo => "named pipe",
        }
    }
}
