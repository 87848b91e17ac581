// SPDX-License-Identifier: Apache-2.0
//! Runs `git` with nothing of the user's: no configuration, no hooks, no helpers, and only over a network.

use std::ffi::OsString;
use std::path::Path;
use std::process::Stdio;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::io::AsyncReadExt;
use url::Url;

use super::git_reference::GitReference;
use crate::error::{BuildError, ErrorKind};
use crate::secrets::SecretSource;
use crate::services::Services;

/// The most that is read of what `git` writes, in bytes.
const MAX_OUTPUT_BYTES: u64 = 8 << 20;

/// The last lines of its messages that an error shows.
const SHOWN_LINES: usize = 6;

/// Settings of every call: what a repository brings is data, never a program.
const SETTINGS: &[&str] = &[
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "credential.helper=",
    "gc.auto=0",
    "init.defaultBranch=master",
    "protocol.ext.allow=never",
    "protocol.file.allow=user",
    "advice.detachedHead=false",
    "safe.directory=*",
];

/// The program, ready for one repository.
pub(super) struct GitProgram {
    environment: Vec<(String, OsString)>,
    /// What stands for the repository's URL in messages.
    remote: (String, String),
}

impl GitProgram {
    /// Prepares calls about a repository, with the credentials that the build has for it.
    pub(super) async fn new(
        services: &Services,
        secrets: &dyn SecretSource,
        reference: &GitReference,
    ) -> Result<GitProgram, BuildError> {
        let options = &services.options;
        let path = std::env::join_paths(&options.path_dirs).map_err(|error| {
            BuildError::new(ErrorKind::Usage, format!("the search path can't be passed on: {error}"))
        })?;
        let known_hosts = options.root.join("git-known-hosts");
        let ssh = format!(
            "ssh -F /dev/null -o BatchMode=yes -o StrictHostKeyChecking=accept-new -o UserKnownHostsFile='{}'",
            known_hosts.display()
        );
        let mut environment: Vec<(String, OsString)> = vec![("PATH".to_owned(), path)];
        let mut set = |name: &str, value: &str| environment.push((name.to_owned(), value.into()));
        set("HOME", "/dev/null");
        set("LC_ALL", "C");
        set("GIT_TERMINAL_PROMPT", "0");
        set("GIT_CONFIG_NOSYSTEM", "1");
        set("GIT_CONFIG_GLOBAL", "/dev/null");
        set("GIT_ALLOW_PROTOCOL", "http:https:git:ssh");
        set("GIT_SSH_COMMAND", &ssh);
        let proxy = &options.registry.proxy;
        for (name, value) in
            [("http_proxy", &proxy.http), ("https_proxy", &proxy.https), ("no_proxy", &proxy.no_proxy)]
        {
            if let Some(value) = value {
                set(name, value);
            }
        }
        if let Some(header) = authorization(secrets, &reference.remote).await? {
            // In the environment, where other users of the machine don't see it.
            set("GIT_CONFIG_COUNT", "1");
            set("GIT_CONFIG_KEY_0", &format!("http.{}.extraheader", token_scope(&reference.remote)));
            set("GIT_CONFIG_VALUE_0", &format!("Authorization: {header}"));
        }
        if is_ssh(&reference.remote)
            && let Some(socket) = secrets.agent("default").await?
        {
            environment.push(("SSH_AUTH_SOCK".to_owned(), socket.into()));
        }
        Ok(GitProgram { environment, remote: (reference.remote.clone(), reference.shown()) })
    }

    /// Runs a command and returns what it wrote.
    pub(super) async fn run(
        &self,
        directory: Option<&Path>,
        arguments: &[&str],
    ) -> Result<String, BuildError> {
        self.call(directory, arguments).await.map_err(|messages| self.failure(arguments, &messages))
    }

    fn failure(&self, arguments: &[&str], messages: &str) -> BuildError {
        let command = arguments.first().copied().unwrap_or_default();
        let lines: Vec<&str> = messages.lines().filter(|line| !line.trim().is_empty()).collect();
        let last = &lines[lines.len().saturating_sub(SHOWN_LINES)..];
        let text = last.join("; ").replace(&self.remote.0, &self.remote.1);
        let message = format!("git {command} of {} failed: {text}", self.remote.1);
        BuildError::new(ErrorKind::Registry, message)
    }

    /// Fetches into a repository, and without `--depth` where the server can't do that.
    pub(super) async fn fetch(&self, directory: &Path, arguments: &[&str]) -> Result<String, BuildError> {
        let all = [&["fetch", "--quiet", "--no-recurse-submodules"], arguments].concat();
        self.shallow(directory, &all).await
    }

    /// Checks out the submodules of a work tree, and theirs.
    pub(super) async fn update_submodules(&self, directory: &Path) -> Result<(), BuildError> {
        let arguments = ["submodule", "--quiet", "update", "--init", "--recursive", "--depth=1"];
        self.shallow(directory, &arguments).await.map(drop)
    }

    /// Runs a command, and again without `--depth` where the server can't do that.
    async fn shallow(&self, directory: &Path, arguments: &[&str]) -> Result<String, BuildError> {
        if let Err(messages) = self.call(Some(directory), arguments).await {
            if !messages.contains("--depth") && !messages.contains("shallow") {
                return Err(self.failure(arguments, &messages));
            }
            let all: Vec<&str> =
                arguments.iter().copied().filter(|argument| !argument.starts_with("--depth")).collect();
            return self.run(Some(directory), &all).await;
        }
        Ok(String::new())
    }

    /// Runs a command; the error is what it said.
    async fn call(&self, directory: Option<&Path>, arguments: &[&str]) -> Result<String, String> {
        // The shell only sets the mask, so that files get the modes that git gives them everywhere.
        let mut command = tokio::process::Command::new("/bin/sh");
        command.args(["-c", "umask 022 && exec git \"$@\"", "git"]);
        for setting in SETTINGS {
            command.args(["-c", setting]);
        }
        command
            .args(arguments)
            .env_clear()
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(directory.unwrap_or(Path::new("/")))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        let mut child = command.spawn().map_err(|error| format!("git can't be started: {error}"))?;
        let (out, messages) = tokio::join!(read(child.stdout.take()), read(child.stderr.take()));
        let (out, messages) = (out?, messages?);
        let status = child.wait().await.map_err(|error| format!("git got lost: {error}"))?;
        match status.code() {
            Some(0) => Ok(out),
            Some(127) => Err("there is no program git; install it".to_owned()),
            _ if messages.trim().is_empty() => Err(status.to_string()),
            _ => Err(messages),
        }
    }
}

async fn read(stream: Option<impl tokio::io::AsyncRead + Unpin>) -> Result<String, String> {
    let mut bytes = Vec::new();
    if let Some(stream) = stream {
        let read = stream.take(MAX_OUTPUT_BYTES + 1).read_to_end(&mut bytes).await;
        read.map_err(|error| format!("what git says can't be read: {error}"))?;
    }
    if bytes.len() as u64 > MAX_OUTPUT_BYTES {
        return Err(format!("git says more than {} MiB", MAX_OUTPUT_BYTES >> 20));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Returns the header that a build's secrets have for a repository: `GIT_AUTH_HEADER` or `GIT_AUTH_TOKEN`, for
/// its host (`GIT_AUTH_TOKEN.example.com`) or for all.
async fn authorization(secrets: &dyn SecretSource, remote: &str) -> Result<Option<String>, BuildError> {
    let Ok(url) = Url::parse(remote) else { return Ok(None) };
    if !matches!(url.scheme(), "http" | "https") {
        return Ok(None);
    }
    let host = url.host_str().unwrap_or_default();
    let host = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    for suffix in [format!(".{host}"), String::new()] {
        for (name, is_token) in [("GIT_AUTH_HEADER", false), ("GIT_AUTH_TOKEN", true)] {
            let Some(secret) = secrets.secret(&format!("{name}{suffix}")).await? else { continue };
            let secret = String::from_utf8_lossy(&secret).trim().to_owned();
            if secret.is_empty() || secret.chars().any(char::is_control) {
                continue;
            }
            let header = match is_token {
                true => format!("basic {}", STANDARD.encode(format!("x-access-token:{secret}"))),
                false => secret,
            };
            return Ok(Some(header));
        }
    }
    Ok(None)
}

/// Returns where a token is sent: to the repository, and with GitHub's to all of GitHub's, for submodules.
fn token_scope(remote: &str) -> &str {
    let github = ["https://github.com/", "https://www.github.com/"];
    github.into_iter().find(|scope| remote.starts_with(scope)).unwrap_or(remote)
}

fn is_ssh(remote: &str) -> bool {
    remote.starts_with("ssh://") || !remote.contains("://")
}
