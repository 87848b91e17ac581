// SPDX-License-Identifier: Apache-2.0
//! Credential helpers: `docker-credential-NAME get|store|erase`, a child process that speaks JSON.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use tokio::sync::OnceCell;

use super::Credential;
use crate::api::one_line;

/// How long a helper may take; some ask the user to unlock a key ring.
const TIME_LIMIT: Duration = Duration::from_secs(60);
/// The most that is read from a helper, in bytes.
const MAX_ANSWER_BYTES: u64 = 256 << 10;
/// The user name by which a helper says that the secret is an identity token.
const TOKEN_USER: &str = "<token>";

/// Says how a helper failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum HelperError {
    /// The name could lead out of the helper directories.
    #[error("the name is not a word")]
    Name,
    /// There is no such program.
    #[error("docker-credential-{helper} is not in PATH; install it or remove it from the file")]
    Missing {
        /// The helper, without `docker-credential-`.
        helper: String,
    },
    /// The program could not be run.
    #[error("{path} could not be run")]
    Run {
        /// The program.
        path: PathBuf,
        /// What failed.
        #[source]
        source: Arc<io::Error>,
    },
    /// The program did not end in time.
    #[error("no answer within {} s", limit.as_secs())]
    Timeout {
        /// The time allowed.
        limit: Duration,
    },
    /// The program reported a failure.
    #[error("it ended with {status}: {message}")]
    Failed {
        /// How it ended.
        status: ExitStatus,
        /// Its words, shortened.
        message: String,
    },
    /// The program's answer is not the expected JSON.
    #[error("its answer is not the expected JSON")]
    Answer,
}

/// Remembers what helpers answered, so that each is run once per server.
#[derive(Default)]
pub(super) struct Answers {
    cells: Mutex<HashMap<(String, String), Cell>>,
}

type Cell = Arc<OnceCell<Option<Credential>>>;

impl Answers {
    /// Returns the helper's credential for a server, `None` when it has none.
    pub(super) async fn get(
        &self,
        directories: &[PathBuf],
        helper: &str,
        server: &str,
    ) -> Result<Option<Credential>, HelperError> {
        let cell = {
            let mut cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
            cells.entry((helper.to_owned(), server.to_owned())).or_default().clone()
        };
        cell.get_or_try_init(|| get(directories, helper, server, TIME_LIMIT)).await.cloned()
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

/// What is given to a helper to keep.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Kept<'a> {
    #[serde(rename = "ServerURL")]
    server_url: &'a str,
    username: &'a str,
    secret: &'a str,
}

/// Gives a credential to a helper to keep under a server's key.
///
/// # Errors
/// When there is no such helper, or it fails.
pub async fn store_with_helper(
    directories: &[PathBuf],
    helper: &str,
    server: &str,
    user: &str,
    credential: &Credential,
) -> Result<(), HelperError> {
    let (username, secret) = match credential {
        Credential::UserPassword { password, .. } => (user, password),
        Credential::IdentityToken { token } | Credential::RegistryToken { token } => (TOKEN_USER, token),
    };
    let kept = Kept { server_url: server, username, secret };
    let input = serde_json::to_string(&kept).map_err(|_| HelperError::Answer)?;
    ask(&find(directories, helper)?, "store", &input, TIME_LIMIT).await.map(|_| ())
}

/// Makes a helper forget what it keeps under a server's key; tells whether there was something.
///
/// # Errors
/// When there is no such helper, or it fails.
pub async fn erase_with_helper(
    directories: &[PathBuf],
    helper: &str,
    server: &str,
) -> Result<bool, HelperError> {
    Ok(ask(&find(directories, helper)?, "erase", &format!("{server}\n"), TIME_LIMIT).await?.is_some())
}

async fn get(
    directories: &[PathBuf],
    helper: &str,
    server: &str,
    limit: Duration,
) -> Result<Option<Credential>, HelperError> {
    let path = find(directories, helper)?;
    let Some(output) = ask(&path, "get", &format!("{server}\n"), limit).await? else { return Ok(None) };
    let answer: Answer = serde_json::from_slice(&output).map_err(|_| HelperError::Answer)?;
    Ok(match (answer.username.as_str(), answer.secret.as_str()) {
        ("", "") => None,
        (TOKEN_USER, token) => Some(Credential::IdentityToken { token: token.to_owned() }),
        (user, password) => {
            Some(Credential::UserPassword { user: user.to_owned(), password: password.to_owned() })
        }
    })
}

fn find(directories: &[PathBuf], helper: &str) -> Result<PathBuf, HelperError> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if helper.is_empty() || !helper.chars().all(is_word) {
        return Err(HelperError::Name);
    }
    let program = format!("docker-credential-{helper}");
    // A relative PATH entry would run a program out of whatever directory the build stands in.
    let mut candidates = directories.iter().filter(|directory| directory.is_absolute());
    candidates
        .find_map(|directory| Some(directory.join(&program)).filter(|path| path.is_file()))
        .ok_or_else(|| HelperError::Missing { helper: helper.to_owned() })
}

/// Runs a helper; `None` when it says that it keeps nothing for the server.
async fn ask(path: &Path, verb: &str, input: &str, limit: Duration) -> Result<Option<Vec<u8>>, HelperError> {
    match tokio::time::timeout(limit, run(path, verb, input)).await {
        Ok(answer) => answer,
        Err(_) => Err(HelperError::Timeout { limit }),
    }
}

async fn run(path: &Path, verb: &str, input: &str) -> Result<Option<Vec<u8>>, HelperError> {
    let failed = |source: io::Error| HelperError::Run { path: path.to_owned(), source: Arc::new(source) };
    let mut child = Command::new(path)
        .arg(verb)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    let stdin = child.stdin.take();
    let write = async {
        if let Some(mut stdin) = stdin {
            // A helper may end without reading its input; its exit status tells what matters.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
    };
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let ((), output, errors) = tokio::join!(write, read_capped(stdout), read_capped(stderr));
    let status = child.wait().await.map_err(failed)?;
    let (output, errors) = (output.map_err(failed)?, errors.map_err(failed)?);
    if status.success() {
        return Ok(Some(output));
    }
    // Helpers report on stdout; some on stderr.
    let text = String::from_utf8_lossy(if output.is_empty() { &errors } else { &output }).into_owned();
    if text.to_lowercase().contains("credentials not found") {
        return Ok(None);
    }
    Err(HelperError::Failed { status, message: one_line(&text, 300) })
}

async fn read_capped(pipe: Option<impl AsyncRead + Unpin>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        pipe.take(MAX_ANSWER_BYTES).read_to_end(&mut bytes).await?;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::{AuthFile, Credentials};

    /// Has another process write the program: were it open for writing here, a child that another test forks at
    /// that moment would hold a copy, and the kernel refuses to execute what is open for writing.
    fn helper_directory(script: &str) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        let written = std::process::Command::new("sh")
            .args(["-c", r#"printf '#!/bin/sh\n%s\n' "$2" > "$1" && chmod 755 "$1""#, "write"])
            .arg(directory.path().join("docker-credential-test"))
            .arg(script)
            .status();
        assert!(written.unwrap().success());
        directory
    }

    async fn answer(script: &str) -> Result<Option<Credential>, HelperError> {
        let directory = helper_directory(script);
        get(&[directory.path().to_owned()], "test", "reg.example", TIME_LIMIT).await
    }

    #[tokio::test]
    async fn helpers_answer_with_users_tokens_or_nothing() {
        let user = answer(
            r#"read server; echo "{\"ServerURL\":\"x\",\"Username\":\"$1-$server\",\"Secret\":\"s\"}""#,
        );
        let expected = Credential::UserPassword { user: "get-reg.example".into(), password: "s".into() };
        assert_eq!(user.await.unwrap(), Some(expected));
        let token = answer(r#"echo '{"Username":"<token>","Secret":"s"}'"#).await.unwrap();
        assert_eq!(token, Some(Credential::IdentityToken { token: "s".into() }));
        let none = answer("echo 'credentials not found in native keychain'; exit 1").await.unwrap();
        assert_eq!(none, None);
    }

    #[tokio::test]
    async fn failures_of_helpers_are_told_apart() {
        let failed = answer("echo 'key ring is locked' >&2; exit 3").await.unwrap_err();
        assert!(
            matches!(&failed, HelperError::Failed { message, .. } if message == "key ring is locked"),
            "{failed}"
        );
        assert!(matches!(answer("echo nonsense").await, Err(HelperError::Answer)));
        assert!(matches!(get(&[], "../x", "h", TIME_LIMIT).await, Err(HelperError::Name)));
        let missing = get(&[PathBuf::from(".")], "none", "h", TIME_LIMIT).await.unwrap_err();
        assert!(matches!(missing, HelperError::Missing { .. }));
        let directory = helper_directory("exec tail -f /dev/null");
        let slow = get(&[directory.path().to_owned()], "test", "h", Duration::from_millis(50)).await;
        assert!(matches!(slow, Err(HelperError::Timeout { .. })));
    }

    #[tokio::test]
    async fn a_helper_is_asked_once_per_server_and_hub_by_its_old_name() {
        let directory = helper_directory(
            r#"read server; echo "$server" >> "$(dirname "$0")/log"; echo "{\"Username\":\"u\",\"Secret\":\"s\"}""#,
        );
        let text = r#"{"credsStore":"test","auths":{"https://index.docker.io/v1/":{}}}"#;
        let file = AuthFile { origin: "config.json".into(), text: text.into() };
        let credentials = Credentials::new(vec![file], vec![directory.path().to_owned()]);
        for repository in ["library/a", "library/b"] {
            let found = credentials.find("docker.io", repository).await.unwrap().unwrap();
            assert_eq!(found.origin, "docker-credential-test");
        }
        let log = std::fs::read_to_string(directory.path().join("log")).unwrap();
        assert_eq!(log, "https://index.docker.io/v1/\n");
    }

    #[tokio::test]
    async fn helpers_keep_and_forget() {
        let directory = helper_directory(
            r#"printf '%s ' "$1" >> "$(dirname "$0")/log"; cat >> "$(dirname "$0")/log"
               [ "$1" = store ] || { echo 'credentials not found in native keychain'; exit 1; }"#,
        );
        let directories = [directory.path().to_owned()];
        let user = Credential::UserPassword { user: "u".into(), password: "p\"".into() };
        store_with_helper(&directories, "test", "h", "u", &user).await.unwrap();
        let token = Credential::IdentityToken { token: "t".into() };
        store_with_helper(&directories, "test", "h", "u", &token).await.unwrap();
        assert!(!erase_with_helper(&directories, "test", "h").await.unwrap());
        let log = std::fs::read_to_string(directory.path().join("log")).unwrap();
        assert_eq!(
            log,
            "store {\"ServerURL\":\"h\",\"Username\":\"u\",\"Secret\":\"p\\\"\"}\
             store {\"ServerURL\":\"h\",\"Username\":\"<token>\",\"Secret\":\"t\"}erase h\n"
        );
    }
}
