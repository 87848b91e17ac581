// SPDX-License-Identifier: Apache-2.0
//! A place where the command runs and finds nothing of the machine's but programs.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// A command that takes longer has hung.
const TIME_LIMIT: Duration = Duration::from_secs(300);

/// A temporary home, store and working directory, and variables that point to them and nowhere else.
#[derive(Debug)]
pub struct TestEnvironment {
    root: TempDir,
    binary: PathBuf,
    variables: BTreeMap<String, String>,
}

/// How a command ended.
#[derive(Debug, Clone)]
pub struct Output {
    /// The arguments, for messages.
    pub command: String,
    /// The exit code; 128 plus the signal when one ended it.
    pub code: i32,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
}

impl TestEnvironment {
    /// Makes an environment for a binary, in a test of the command `env!("CARGO_BIN_EXE_polyarch")`.
    pub fn new(binary: impl Into<PathBuf>) -> TestEnvironment {
        let root =
            tempfile::Builder::new().prefix("polyarch-test-").tempdir().expect("a directory can be made");
        for name in ["home", "work", "tmp", "runtime"] {
            std::fs::create_dir(root.path().join(name)).expect("a directory can be made");
        }
        let mut environment = TestEnvironment { root, binary: binary.into(), variables: BTreeMap::new() };
        let path = std::env::var("PATH").unwrap_or_default();
        let at = |name: &str| environment.root.path().join(name).display().to_string();
        let variables = [
            ("PATH", format!("{path}:/usr/sbin:/sbin")),
            ("HOME", at("home")),
            ("TMPDIR", at("tmp")),
            ("XDG_RUNTIME_DIR", at("runtime")),
            ("XDG_CONFIG_HOME", at("home/.config")),
            ("XDG_DATA_HOME", at("home/.local/share")),
            ("POLYARCH_ROOT", at("store")),
            ("LANG", "C.UTF-8".to_owned()),
        ];
        environment.variables = variables.map(|(name, value)| (name.to_owned(), value)).into();
        environment
    }

    /// Returns the home directory.
    pub fn home(&self) -> PathBuf {
        self.root.path().join("home")
    }

    /// Returns the store's directory; it comes to be with the first command.
    pub fn store(&self) -> PathBuf {
        self.root.path().join("store")
    }

    /// Returns the directory in which commands run.
    pub fn work(&self) -> PathBuf {
        self.root.path().join("work")
    }

    /// Sets a variable for later commands.
    pub fn set(&mut self, name: &str, value: impl Into<String>) -> &mut TestEnvironment {
        self.variables.insert(name.to_owned(), value.into());
        self
    }

    /// Removes a variable for later commands.
    pub fn unset(&mut self, name: &str) -> &mut TestEnvironment {
        self.variables.remove(name);
        self
    }

    /// Writes a file below the working directory, with the directories above it; returns its path.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.work().join(name);
        let parent = path.parent().expect("a file below a directory has a parent");
        std::fs::create_dir_all(parent).expect("directories can be made");
        std::fs::write(&path, content)
            .unwrap_or_else(|error| panic!("can't write {}: {error}", path.display()));
        path
    }

    /// Writes polyarch's configuration file.
    pub fn write_config(&self, toml: &str) {
        let directory = self.home().join(".config/polyarch");
        std::fs::create_dir_all(&directory).expect("directories can be made");
        std::fs::write(directory.join("config.toml"), toml).expect("a file can be written");
    }

    /// Returns the command with arguments, to be changed and started.
    pub fn command<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Command {
        let mut command = self.program(&self.binary);
        command.args(arguments);
        command
    }

    /// Returns another program in this environment, such as `skopeo`.
    pub fn program(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env_clear().envs(&self.variables).current_dir(self.work()).stdin(Stdio::null());
        command
    }

    /// Runs the command with empty standard input and waits for its end.
    pub fn run<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Output {
        finish(self.command(arguments), Vec::new())
    }

    /// Runs the command with these bytes as standard input and waits for its end.
    pub fn run_with_stdin<A: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = A>,
        stdin: impl Into<Vec<u8>>,
    ) -> Output {
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped());
        finish(command, stdin.into())
    }
}

/// Runs any command to its end; panics when it hangs.
pub fn finish(mut command: Command, stdin: Vec<u8>) -> Output {
    let shown = format!("{command:?}").split_once("polyarch-test").map_or_else(
        || format!("{command:?}"),
        |_| {
            let arguments: Vec<_> =
                command.get_args().map(|part| part.to_string_lossy().into_owned()).collect();
            let program = Path::new(command.get_program()).file_name().unwrap_or_default();
            format!("{} {}", program.to_string_lossy(), arguments.join(" "))
        },
    );
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("can't start {shown}: {error}"));
    if let Some(mut input) = child.stdin.take() {
        // A program that doesn't read its input to the end closes it, which is its right.
        std::thread::spawn(move || drop(input.write_all(&stdin)));
    }
    let deadline = Instant::now() + TIME_LIMIT;
    let stdout = collect(child.stdout.take());
    let stderr = collect(child.stderr.take());
    let stdout = receive(&stdout, deadline, &mut child, &shown);
    let stderr = receive(&stderr, deadline, &mut child, &shown);
    let status = child.wait().expect("a child can be waited for");
    let signal = std::os::unix::process::ExitStatusExt::signal(&status);
    Output {
        command: shown,
        code: status.code().unwrap_or_else(|| 128 + signal.unwrap_or(0)),
        stdout: String::from_utf8_lossy(&stdout).into_owned(),
        stderr: String::from_utf8_lossy(&stderr).into_owned(),
    }
}

fn collect(pipe: Option<impl Read + Send + 'static>) -> Receiver<Vec<u8>> {
    let (sender, receiver) = channel();
    let mut pipe = pipe.expect("the stream is a pipe");
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // What was read before a failure is still worth showing.
        let _ = pipe.read_to_end(&mut bytes);
        let _ = sender.send(bytes);
    });
    receiver
}

fn receive(receiver: &Receiver<Vec<u8>>, deadline: Instant, child: &mut Child, shown: &str) -> Vec<u8> {
    match receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        Ok(bytes) => bytes,
        Err(RecvTimeoutError::Disconnected) => Vec::new(),
        Err(RecvTimeoutError::Timeout) => {
            let _ = child.kill();
            panic!("{shown}: has not ended after {} seconds", TIME_LIMIT.as_secs());
        }
    }
}

impl Output {
    /// Panics, with all output, unless the command succeeded.
    #[track_caller]
    pub fn assert_success(&self) -> &Output {
        self.assert_code(0)
    }

    /// Panics, with all output, unless the command ended with this exit code.
    #[track_caller]
    pub fn assert_code(&self, code: i32) -> &Output {
        assert!(self.code == code, "expected exit code {code}\n{self}");
        self
    }

    /// Panics, with all output, unless standard error has this text.
    #[track_caller]
    pub fn assert_stderr(&self, text: &str) -> &Output {
        assert!(self.stderr.contains(text), "expected {text:?} on standard error\n{self}");
        self
    }

    /// Panics, with all output, when standard error has this text.
    #[track_caller]
    pub fn assert_no_stderr(&self, text: &str) -> &Output {
        assert!(!self.stderr.contains(text), "did not expect {text:?} on standard error\n{self}");
        self
    }

    /// Panics, with all output, unless standard output is exactly this text.
    #[track_caller]
    pub fn assert_stdout(&self, text: &str) -> &Output {
        assert!(self.stdout == text, "expected {text:?} on standard output\n{self}");
        self
    }
}

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "$ {}\nexit code {}", self.command, self.code)?;
        write!(f, "--- stdout\n{}\n--- stderr\n{}\n---", self.stdout, self.stderr)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_see_only_what_the_environment_has() {
        let mut environment = TestEnvironment::new("/usr/bin/env");
        environment.set("GREETING", "hello").unset("LANG");
        let output = environment.run(["sh", "-c", "env | sort | cut -d= -f1; pwd; cat; exit 7"]);
        output.assert_code(7);
        let lines: Vec<&str> = output.stdout.lines().collect();
        let names = lines[..lines.len() - 1]
            .iter()
            .filter(|name| !matches!(**name, "PWD" | "SHLVL" | "_" | "OLDPWD"));
        assert_eq!(
            names.copied().collect::<Vec<_>>(),
            [
                "GREETING",
                "HOME",
                "PATH",
                "POLYARCH_ROOT",
                "TMPDIR",
                "XDG_CONFIG_HOME",
                "XDG_DATA_HOME",
                "XDG_RUNTIME_DIR"
            ]
        );
        assert_eq!(Path::new(lines[lines.len() - 1]), environment.work().canonicalize().unwrap());
        environment.run_with_stdin(["cat"], "input").assert_success().assert_stdout("input");
        environment.run(["sh", "-c", "kill -9 $$"]).assert_code(137);
    }
}
