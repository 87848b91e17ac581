// SPDX-License-Identifier: Apache-2.0
//! The files of two images compared: type, mode, owner, size and content.

use polyarch_contents::{Entry, EntryKind, ImageContents, ImagePath, Program, architecture_of};
use serde::Serialize;

/// A file that differs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FileChange {
    /// Its path, without a slash at the beginning; bytes that are no UTF-8 as `%` and two digits.
    pub path: ImagePath,
    /// What happened to it.
    pub change: Change,
    /// What of it differs, in the order of [`FileState`]; empty for a file that only one image has.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub differs: Vec<&'static str>,
    /// What it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<FileState>,
    /// What it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<FileState>,
}

/// What happened to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// Only the second image has it.
    Added,
    /// Only the first image has it.
    Removed,
    /// Both have it, and it differs.
    Changed,
}

/// What is compared of a file.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FileState {
    /// `file`, `directory`, `symlink`, …
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Octal.
    pub mode: String,
    /// User and group.
    pub owner: String,
    /// The size of a regular file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// The content: `sha256:…` of a regular file, the target of a symlink, the numbers of a device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// The architecture of a program.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub program: Option<&'static str>,
}

impl FileState {
    fn of(entry: &Entry) -> FileState {
        let device = |major: &u32, minor: &u32| Some(format!("{major}, {minor}"));
        let (size, content, program) = match &entry.kind {
            EntryKind::File(facts) => {
                let program = match &facts.program {
                    Some(Program::Elf(elf)) => architecture_of(elf),
                    _ => None,
                };
                // A file of huge holes is not hashed; its size then tells.
                let content = Some(format!("sha256:{}", facts.sha256)).filter(|_| !facts.sha256.is_empty());
                (Some(facts.size_bytes), content, program)
            }
            EntryKind::Symlink(target) => (None, Some(target.clone()), None),
            EntryKind::CharDevice(major, minor) | EntryKind::BlockDevice(major, minor) => {
                (None, device(major, minor), None)
            }
            EntryKind::Directory | EntryKind::Fifo => (None, None, None),
        };
        FileState {
            kind: entry.kind.word(),
            mode: format!("{:04o}", entry.mode),
            owner: format!("{}:{}", entry.owner.0, entry.owner.1),
            size,
            content,
            program,
        }
    }

    fn differences(&self, other: &FileState) -> Vec<&'static str> {
        if self.kind != other.kind {
            return vec!["type"];
        }
        let differs = [
            ("mode", self.mode != other.mode),
            ("owner", self.owner != other.owner),
            ("size", self.size != other.size),
            ("content", self.content != other.content),
        ];
        differs.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
    }
}

/// Compares the files of two images; those that differ, by path.
pub(crate) fn file_changes(before: &ImageContents, after: &ImageContents) -> Vec<FileChange> {
    let mut found = Vec::new();
    for (path, placed) in before.entries() {
        let was = FileState::of(&placed.entry);
        let Some(other) = after.get(path) else {
            found.push(FileChange {
                path: path.clone(),
                change: Change::Removed,
                differs: Vec::new(),
                before: Some(was),
                after: None,
            });
            continue;
        };
        if other.entry == placed.entry {
            continue;
        }
        let is = FileState::of(&other.entry);
        let differs = was.differences(&is);
        if !differs.is_empty() {
            found.push(FileChange {
                path: path.clone(),
                change: Change::Changed,
                differs,
                before: Some(was),
                after: Some(is),
            });
        }
    }
    for (path, placed) in after.entries().filter(|(path, _)| before.get(path).is_none()) {
        found.push(FileChange {
            path: path.clone(),
            change: Change::Added,
            differs: Vec::new(),
            before: None,
            after: Some(FileState::of(&placed.entry)),
        });
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

#[cfg(test)]
mod tests {
    use polyarch_contents::LayerContents;
    use polyarch_testkit::{TarBuilder, hello_program};

    use super::*;

    fn contents(tar: TarBuilder) -> ImageContents {
        ImageContents::of_layers([&LayerContents::read_tar(tar.finish().as_slice()).unwrap()]).unwrap()
    }

    #[test]
    fn files_are_compared_by_what_they_are() {
        let hello = |architecture: &str| hello_program(architecture, "x", 0).unwrap();
        let before = TarBuilder::new()
            .file("bin/tool", 0o755, hello("amd64"))
            .file("etc/same", 0o644, "same")
            .file("etc/mode", 0o644, "x")
            .file("etc/gone", 0o644, "x")
            .file("etc/kind", 0o644, "x")
            .file("etc/text", 0o644, "one")
            .symlink("etc/link", "a");
        let after = TarBuilder::new()
            .file("bin/tool", 0o755, hello("arm64"))
            .file("etc/same", 0o644, "same")
            .file("etc/mode", 0o600, "x")
            .file("etc/new", 0o644, "x")
            .directory("etc/kind", 0o755)
            .file("etc/text", 0o644, "two")
            .symlink("etc/link", "b");
        let found = file_changes(&contents(before.clone()), &contents(after));
        let lines: Vec<String> = found
            .iter()
            .map(|file| format!("{:?} {} {}", file.change, file.path, file.differs.join(" ")))
            .collect();
        assert_eq!(
            lines,
            [
                "Changed /bin/tool size content",
                "Removed /etc/gone ",
                "Changed /etc/kind type",
                "Changed /etc/link content",
                "Changed /etc/mode mode",
                "Added /etc/new ",
                "Changed /etc/text content",
            ]
        );
        let programs = [&found[0].before, &found[0].after].map(|state| state.as_ref().unwrap().program);
        assert_eq!(programs, [Some("amd64"), Some("arm64")]);
        assert_eq!(file_changes(&contents(before.clone()), &contents(before)), []);
    }
}
