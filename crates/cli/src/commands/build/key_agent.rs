// SPDX-License-Identifier: Apache-2.0
//! An SSH agent of this command's own, for `--ssh id=KEY`: OpenSSH's, with nothing but those keys.
//!
//! It ends with this command, however that ends: its own program reads from a pipe that this process holds, and
//! ends the agent with the pipe.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use polyarch_build::{BuildError, ErrorKind};

/// An agent; it ends when dropped.
#[derive(Debug)]
pub struct KeyAgent {
    directory: tempfile::TempDir,
    process: Child,
}

impl KeyAgent {
    /// Starts an agent and gives it keys. None may have a passphrase: there is nobody to ask.
    ///
    /// # Errors
    /// When OpenSSH's programs are not there, or refuse a key.
    pub fn start(keys: &[PathBuf], path_directories: &[PathBuf]) -> Result<KeyAgent, BuildError> {
        let [agent, add] = ["ssh-agent", "ssh-add"].map(|name| find(name, path_directories));
        let (agent, add) = (agent?, add?);
        let failed = |what: &str, error: &std::io::Error| {
            BuildError::new(ErrorKind::Usage, format!("can't {what} for --ssh: {error}"))
        };
        // Not below the store: the kernel takes no socket's address of more than 107 bytes.
        let directory = tempfile::Builder::new().prefix("polyarch-ssh-").tempdir();
        let directory = directory.map_err(|error| failed("make a directory", &error))?;
        let socket = directory.path().join(NAME);
        let process = Command::new(&agent)
            .arg("-a")
            .arg(&socket)
            .args(["/bin/sh", "-c", "echo ready; cat; kill \"$SSH_AGENT_PID\""])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| failed("start ssh-agent", &error))?;
        let mut started = KeyAgent { directory, process };
        let mut line = String::new();
        if let Some(output) = started.process.stdout.take() {
            let read = BufReader::new(output).read_line(&mut line);
            read.map_err(|error| failed("start ssh-agent", &error))?;
        }
        if line.trim() != "ready" {
            return Err(BuildError::new(
                ErrorKind::Usage,
                "ssh-agent ended before it could be used for --ssh",
            ));
        }
        for key in keys {
            started.add(&add, key)?;
        }
        Ok(started)
    }

    fn add(&self, program: &Path, key: &Path) -> Result<(), BuildError> {
        let output = Command::new(program)
            .arg("-q")
            .arg(key)
            .env("SSH_AUTH_SOCK", self.socket())
            .env("SSH_ASKPASS_REQUIRE", "never")
            .env_remove("DISPLAY")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .output()
            .map_err(|error| BuildError::new(ErrorKind::Usage, format!("can't run ssh-add: {error}")))?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let said: Vec<&str> = said.lines().take(3).map(str::trim).collect();
        let message = format!("ssh-add does not take the key {}: {}", key.display(), said.join("; "));
        Err(BuildError::new(ErrorKind::Usage, message)
            .with_hint("a key with a passphrase belongs to an agent: ssh-add KEY, then --ssh default"))
    }

    /// Returns where the agent answers.
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join(NAME)
    }
}

const NAME: &str = "agent";

impl Drop for KeyAgent {
    fn drop(&mut self) {
        // Its own program ends with the pipe, and the agent with that program.
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

fn find(name: &str, directories: &[PathBuf]) -> Result<PathBuf, BuildError> {
    let found = directories.iter().map(|directory| directory.join(name)).find(|path| path.is_file());
    found.ok_or_else(|| {
        BuildError::new(
            ErrorKind::Usage,
            format!("--ssh with files of keys needs {name}, which is not there"),
        )
        .with_hint("install OpenSSH's client programs, or name the socket of an agent: --ssh id=SOCKET")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_has_the_keys_that_it_was_given_and_ends_with_its_owner() {
        let path: Vec<PathBuf> =
            std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default();
        let Ok(add) = find("ssh-add", &path) else { return };
        let directory = tempfile::tempdir().expect("tempdir");
        let generate = |name: &str, passphrase: &str| {
            let key = directory.path().join(name);
            let mut command = Command::new("ssh-keygen");
            command.args(["-q", "-t", "ed25519", "-C", "a-key-of-a-test", "-N", passphrase, "-f"]).arg(&key);
            assert!(command.status().expect("ssh-keygen").success());
            key
        };
        let agent = KeyAgent::start(&[generate("open", "")], &path).expect("started");
        let list = || Command::new(&add).arg("-l").env("SSH_AUTH_SOCK", agent.socket()).output();
        let listed = String::from_utf8(list().expect("ssh-add").stdout).expect("text");
        assert!(listed.contains("a-key-of-a-test"), "{listed}");
        let socket = agent.socket();
        drop(agent);
        assert!(!socket.exists());
        let refused = KeyAgent::start(&[generate("closed", "passphrase")], &path).expect_err("a passphrase");
        assert!(refused.message.contains("ssh-add does not take the key"), "{refused}");
        let absent = KeyAgent::start(&[], &[]).expect_err("no programs");
        assert!(absent.message.contains("needs ssh-agent"), "{absent}");
    }
}
