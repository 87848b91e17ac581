// SPDX-License-Identifier: Apache-2.0
//! Runs `git` with nothing of the user's: no configuration, no hooks, no helpers, and only over a network.

use std::ffi::OsString;
use std::path::Path;

use polyarch_solver::CancelFlag;

use super::git_credentials::GitAccess;
use super::git_process::{DiskLimits, GitFailure, GitRun};
use super::git_reference::GitReference;
use super::redaction::redacted_text;
use crate::error::{BuildError, ErrorKind};
use crate::secrets::SecretSource;
use crate::services::ServiceOptions;

/// The last lines of its messages that an error shows.
const SHOWN_LINES: usize = 6;

/// Settings of every call: what a repository brings is data, never a program, and who says nothing for two
/// minutes is not waited for.
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
    "http.lowSpeedLimit=1",
    "http.lowSpeedTime=120",
];

/// The program, ready for one repository.
pub(super) struct GitProgram {
    environment: Vec<(String, OsString)>,
    /// The repository's URL for `git`, without credentials.
    remote: String,
    /// The repository's URL for messages.
    shown: String,
    has_header: bool,
    cancel: CancelFlag,
}

impl GitProgram {
    /// Prepares calls about a repository, with the credentials that the build has for it; the flag stops them.
    pub(super) async fn new(
        options: &ServiceOptions,
        secrets: &dyn SecretSource,
        reference: &GitReference,
        cancel: &CancelFlag,
    ) -> Result<GitProgram, BuildError> {
        let path = std::env::join_paths(&options.path_dirs).map_err(|error| {
            BuildError::new(ErrorKind::Usage, format!("the search path can't be passed on: {error}"))
        })?;
        let access = GitAccess::of(secrets, reference).await?;
        let agent = match is_ssh(&access.remote) {
            true => secrets.agent("default").await?,
            false => None,
        };
        let ssh = ssh_command(&options.root.join("git-known-hosts"), agent.is_some());
        let mut environment: Vec<(String, OsString)> = vec![("PATH".to_owned(), path)];
        let mut set = |name: &str, value: &str| environment.push((name.to_owned(), value.into()));
        set("HOME", "/dev/null");
        set("LC_ALL", "C");
        set("GIT_TERMINAL_PROMPT", "0");
        set("GIT_CONFIG_NOSYSTEM", "1");
        set("GIT_CONFIG_GLOBAL", "/dev/null");
        set("GIT_NO_REPLACE_OBJECTS", "1");
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
        // In the environment, where other users of the machine don't see it.
        let settings = access.settings();
        set("GIT_CONFIG_COUNT", &settings.len().to_string());
        for (number, (name, value)) in settings.iter().enumerate() {
            set(&format!("GIT_CONFIG_KEY_{number}"), name);
            set(&format!("GIT_CONFIG_VALUE_{number}"), value);
        }
        if let Some(socket) = agent {
            environment.push(("SSH_AUTH_SOCK".to_owned(), socket.into()));
        }
        let (shown, cancel) = (reference.shown(), cancel.clone());
        let has_header = access.header.is_some();
        Ok(GitProgram { environment, remote: access.remote, shown, has_header, cancel })
    }

    /// Returns the repository's URL without what gives access to it: all of `.git` may have it.
    pub(super) fn remote(&self) -> &str {
        &self.remote
    }

    /// Runs a command and returns what it wrote.
    pub(super) async fn run(
        &self,
        directory: Option<&Path>,
        arguments: &[&str],
    ) -> Result<String, BuildError> {
        self.call(directory, arguments).await.map_err(|failure| self.failure(arguments, &failure))
    }

    fn failure(&self, arguments: &[&str], failure: &GitFailure) -> BuildError {
        let GitFailure::Said(messages) = failure else { return BuildError::cancelled() };
        let command = arguments.first().copied().unwrap_or_default();
        let lines: Vec<&str> = messages.lines().filter(|line| !line.trim().is_empty()).collect();
        let last = &lines[lines.len().saturating_sub(SHOWN_LINES)..];
        let text = redacted_text(&last.join("; "));
        let is_redirected = self.has_header && text.contains("returned error: 30");
        let message = format!("git {command} of {} failed: {text}", self.shown);
        let failure = BuildError::new(ErrorKind::Registry, message);
        match is_redirected {
            true => failure.with_hint("name the URL that it leads to: credentials follow no redirects"),
            false => failure,
        }
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
        match self.call(Some(directory), arguments).await {
            Ok(_) => Ok(String::new()),
            Err(GitFailure::Said(messages))
                if messages.contains("--depth") || messages.contains("shallow") =>
            {
                let all: Vec<&str> =
                    arguments.iter().copied().filter(|argument| !argument.starts_with("--depth")).collect();
                self.run(Some(directory), &all).await
            }
            Err(failure) => Err(self.failure(arguments, &failure)),
        }
    }

    async fn call(&self, directory: Option<&Path>, arguments: &[&str]) -> Result<String, GitFailure> {
        let run = GitRun {
            environment: &self.environment,
            settings: SETTINGS,
            arguments,
            directory,
            cancel: &self.cancel,
            limits: DiskLimits::default(),
        };
        run.call().await
    }
}

/// Returns the command that connects by ssh: it knows the keys of the build's agent and no others, of nobody.
fn ssh_command(known_hosts: &Path, has_agent: bool) -> String {
    let known_hosts = known_hosts.display().to_string().replace('\'', r"'\''");
    let mut command = format!(
        "ssh -F /dev/null -o BatchMode=yes -o StrictHostKeyChecking=accept-new -o GlobalKnownHostsFile=/dev/null \
         -o UserKnownHostsFile='\"{known_hosts}\"' -o IdentityFile=none -o ConnectTimeout=60 \
         -o ServerAliveInterval=30"
    );
    if !has_agent {
        command.push_str(" -o IdentityAgent=none");
    }
    command
}

fn is_ssh(remote: &str) -> bool {
    remote.starts_with("ssh://") || !remote.contains("://")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secrets::FixedSecrets;

    /// Returns the arguments and the agent that `ssh` gets when a repository is asked for.
    async fn ssh_of(secrets: FixedSecrets) -> Vec<String> {
        let directory = tempfile::tempdir().expect("a directory");
        let script = "#!/bin/sh\nprintf '%s\\n' \"$@\" \"agent=$SSH_AUTH_SOCK\" >\"$0.said\"\n";
        // Another process writes it: nobody here has it open when it is executed.
        let made = std::process::Command::new("/bin/sh")
            .args(["-c", "printf %s \"$1\" >ssh && chmod 755 ssh", "sh", script])
            .current_dir(directory.path())
            .status()
            .expect("a shell");
        assert!(made.success());
        let options = ServiceOptions {
            root: "/it's here".into(),
            launcher_program: "/bin/false".into(),
            registry: polyarch_registry::ClientOptions::default(),
            emulator_directories: Vec::new(),
            path_dirs: vec![directory.path().to_owned(), "/usr/bin".into(), "/bin".into()],
            mapping: polyarch_sandbox::IdMapping::Host { reason: String::new() },
            resolv_conf: Vec::new(),
            force_copy: true,
            takes_lone_images: false,
        };
        let remote = "git@example.invalid:a/b".to_owned();
        let reference = GitReference { remote, ..GitReference::default() };
        let cancel = CancelFlag::default();
        let git = GitProgram::new(&options, &secrets, &reference, &cancel).await.expect("a program");
        let failure = git.run(None, &["ls-remote", "--", git.remote()]).await.expect_err("nobody answers");
        let said = std::fs::read_to_string(directory.path().join("ssh.said"));
        said.unwrap_or_else(|error| panic!("{error}: {failure}")).lines().map(str::to_owned).collect()
    }

    #[tokio::test]
    async fn ssh_offers_no_keys_but_those_of_the_builds_agent() {
        let without = ssh_of(FixedSecrets::default()).await;
        let has = |said: &[String], text: &str| said.iter().any(|argument| argument == text);
        for argument in [
            "/dev/null",
            "IdentityFile=none",
            "IdentityAgent=none",
            "GlobalKnownHostsFile=/dev/null",
            "UserKnownHostsFile=\"/it's here/git-known-hosts\"",
            "agent=",
        ] {
            assert!(has(&without, argument), "{argument}: {without:?}");
        }
        let agents = [("default".to_owned(), "/agent".into())].into();
        let with = ssh_of(FixedSecrets { agents, ..FixedSecrets::default() }).await;
        assert!(has(&with, "IdentityFile=none") && has(&with, "agent=/agent"), "{with:?}");
        assert!(!has(&with, "IdentityAgent=none"), "{with:?}");
    }
}
