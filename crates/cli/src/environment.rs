// SPDX-License-Identifier: Apache-2.0
//! What a command finds around it: variables, directory, user, terminals.
//!
//! It is read once, at the start, so that tests can give another one and nothing below reads it again.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

/// The surroundings of one invocation.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// The environment variables whose names are text.
    pub variables: BTreeMap<String, OsString>,
    /// The directory that relative paths start from.
    pub current_directory: PathBuf,
    /// The real user, before any user namespace was entered.
    pub user_id: u32,
    /// Whether standard input is a terminal.
    pub stdin_is_terminal: bool,
    /// Whether standard output is a terminal.
    pub stdout_is_terminal: bool,
    /// Whether standard error is a terminal.
    pub stderr_is_terminal: bool,
}

impl Environment {
    /// Reads the surroundings of this process.
    pub fn from_process() -> Environment {
        let variables = std::env::vars_os()
            .filter_map(|(name, value)| name.into_string().ok().map(|name| (name, value)))
            .collect();
        Environment {
            variables,
            // A deleted directory only matters to relative paths, which then fail with their own error.
            current_directory: std::env::current_dir().unwrap_or_else(|_| PathBuf::from(".")),
            user_id: rustix::process::getuid().as_raw(),
            stdin_is_terminal: std::io::stdin().is_terminal(),
            stdout_is_terminal: std::io::stdout().is_terminal(),
            stderr_is_terminal: std::io::stderr().is_terminal(),
        }
    }

    /// Returns a variable that is set, not empty, and text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.variables.get(name)?.to_str().filter(|value| !value.is_empty())
    }

    /// Returns a variable that is set, even to nothing, when it is text.
    pub fn exact(&self, name: &str) -> Option<&str> {
        self.variables.get(name)?.to_str()
    }

    /// Returns a variable that holds a path, made absolute.
    pub fn path(&self, name: &str) -> Option<PathBuf> {
        let value = self.variables.get(name).filter(|value| !value.is_empty())?;
        Some(self.resolve(Path::new(value)))
    }

    /// Makes a path absolute by the current directory, without `.` in it.
    pub fn resolve(&self, path: &Path) -> PathBuf {
        self.current_directory.join(path).components().collect()
    }

    /// Returns the directories of `PATH`.
    pub fn path_directories(&self) -> Vec<PathBuf> {
        let Some(path) = self.variables.get("PATH") else { return Vec::new() };
        std::env::split_paths(path).filter(|directory| directory.is_absolute()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_variables_count_as_absent_and_paths_become_absolute() {
        let environment = Environment {
            variables: [("A", ""), ("B", "./dir/./."), ("PATH", "/bin:relative:/usr/bin")]
                .map(|(name, value)| (name.to_owned(), value.into()))
                .into(),
            current_directory: "/here".into(),
            ..Environment::default()
        };
        assert_eq!(environment.text("A"), None);
        assert_eq!(environment.exact("A"), Some(""));
        assert_eq!(environment.path("B"), Some("/here/dir".into()));
        assert_eq!(environment.path_directories(), [PathBuf::from("/bin"), "/usr/bin".into()]);
    }
}
