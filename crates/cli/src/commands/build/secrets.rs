// SPDX-License-Identifier: Apache-2.0
//! `--secret` and `--ssh`: where secrets and agents come from. What a secret holds is read when a step asks.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use futures_util::future::BoxFuture;
use polyarch_build::fetch::blocking;
use polyarch_build::secrets::{MAX_SECRET_BYTES, SecretSource};
use polyarch_build::{BuildError, ErrorKind};
use tokio::sync::OnceCell;

use super::super::flag_values::{split_csv, unknown};
use super::key_agent::KeyAgent;
use crate::Environment;

/// The name of an agent that has none.
const DEFAULT_AGENT: &str = "default";

/// The secrets and agents of one command.
#[derive(Debug, Default)]
pub struct CommandSecrets {
    secrets: BTreeMap<String, Origin>,
    agents: BTreeMap<String, Agent>,
}

/// Where a secret is.
#[derive(Clone, PartialEq)]
enum Origin {
    File(PathBuf),
    /// The value of a variable, taken when the flag was read.
    Variable(Option<Vec<u8>>),
}

impl std::fmt::Debug for Origin {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Origin::File(path) => write!(formatter, "{}", path.display()),
            Origin::Variable(_) => formatter.write_str("a variable"),
        }
    }
}

/// Where an agent is.
#[derive(Debug)]
enum Agent {
    /// It runs already.
    Socket(PathBuf),
    /// It is started with these keys when the first step asks.
    Keys { files: Vec<PathBuf>, agent: OnceCell<KeyAgent>, path_directories: Vec<PathBuf> },
}

impl CommandSecrets {
    /// Reads the flags.
    ///
    /// # Errors
    /// One sentence about the first that makes no sense, or names a file that is not there.
    pub fn new(
        secrets: &[String],
        agents: &[String],
        environment: &Environment,
    ) -> Result<CommandSecrets, String> {
        let mut found = CommandSecrets::default();
        for text in secrets.iter().filter(|text| !text.is_empty()) {
            let (id, origin) =
                secret(text, environment).map_err(|problem| format!("--secret {text}: {problem}"))?;
            found.secrets.insert(id, origin);
        }
        for text in agents.iter().filter(|text| !text.is_empty()) {
            let (id, agent) =
                agent(text, environment).map_err(|problem| format!("--ssh {text}: {problem}"))?;
            if found.agents.insert(id, agent).is_some() {
                return Err(format!("--ssh {text}: this agent is given twice"));
            }
        }
        Ok(found)
    }
}

/// Reads `id=…[,src=…|,env=…][,type=file|env]`.
fn secret(text: &str, environment: &Environment) -> Result<(String, Origin), String> {
    let (mut id, mut kind, mut file, mut variable) = (None, None, None, None);
    for field in split_csv(text)? {
        let (key, value) = field.split_once('=').ok_or_else(|| format!("{field:?} is no KEY=VALUE"))?;
        match key.to_ascii_lowercase().as_str() {
            "type" if value == "file" || value == "env" => kind = Some(value.to_owned()),
            "type" => return Err(unknown("type", value, &["file", "env"])),
            "id" => id = Some(value.to_owned()).filter(|id| !id.is_empty()),
            "source" | "src" => file = Some(value.to_owned()),
            "env" => variable = Some(value.to_owned()),
            key => return Err(unknown("key", key, &["id", "src", "env", "type"])),
        }
    }
    let id = id.ok_or("it has no id; write id=NAME,src=FILE")?;
    if file.is_some() && variable.is_some() {
        return Err("it has both src and env; a secret comes from one of them".to_owned());
    }
    if kind.as_deref() == Some("env") && variable.is_none() {
        // With this type the source is a variable's name.
        variable = Some(file.take().unwrap_or_else(|| id.clone()));
    }
    if variable.is_none() && file.is_none() && kind.is_none() && environment.exact(&id).is_some() {
        variable = Some(id.clone());
    }
    if let Some(name) = variable {
        let value = environment.exact(&name).map(|value| value.as_bytes().to_vec());
        return Ok((id, Origin::Variable(value)));
    }
    let path = environment.resolve(Path::new(file.as_deref().unwrap_or(&id)));
    let metadata =
        std::fs::metadata(&path).map_err(|error| format!("can't read {}: {error}", path.display()))?;
    if metadata.is_dir() {
        return Err(format!("{} is a directory", path.display()));
    }
    if metadata.len() > MAX_SECRET_BYTES as u64 {
        return Err(format!("{} is larger than {MAX_SECRET_BYTES} bytes", path.display()));
    }
    Ok((id, Origin::File(path)))
}

/// Reads `default|id[=socket|key[,key…]]`.
fn agent(text: &str, environment: &Environment) -> Result<(String, Agent), String> {
    let (id, paths) = text.split_once('=').unwrap_or((text, ""));
    let id = if id.is_empty() { DEFAULT_AGENT } else { id }.to_owned();
    let mut paths: Vec<PathBuf> = paths
        .split(',')
        .filter(|path| !path.is_empty())
        .map(|path| environment.resolve(Path::new(path)))
        .collect();
    if paths.is_empty() {
        let socket = environment.path("SSH_AUTH_SOCK").filter(|path| !path.as_os_str().is_empty());
        paths.push(socket.ok_or(
            "no agent runs: SSH_AUTH_SOCK is not set; start one (eval \"$(ssh-agent)\"; ssh-add), or name a key: \
             default=FILE",
        )?);
    }
    let mut sockets = 0;
    for path in &paths {
        let metadata =
            std::fs::metadata(path).map_err(|error| format!("can't read {}: {error}", path.display()))?;
        sockets += usize::from(std::os::unix::fs::FileTypeExt::is_socket(&metadata.file_type()));
        if metadata.is_dir() {
            return Err(format!("{} is a directory", path.display()));
        }
    }
    let agent = match (sockets, paths.as_slice()) {
        (1, [socket]) => Agent::Socket(socket.clone()),
        (0, _) => {
            let path_directories = environment.path_directories();
            Agent::Keys { files: paths, agent: OnceCell::new(), path_directories }
        }
        _ => return Err("name one socket of an agent, or files of keys".to_owned()),
    };
    Ok((id, agent))
}

impl SecretSource for CommandSecrets {
    fn secret<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Option<Vec<u8>>, BuildError>> {
        let origin = self.secrets.get(id).cloned();
        Box::pin(async move {
            match origin {
                None => Ok(None),
                Some(Origin::Variable(value)) => Ok(value),
                Some(Origin::File(path)) => blocking(move || read(&path)).await.map(Some),
            }
        })
    }

    fn agent<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Option<PathBuf>, BuildError>> {
        let id = if id.is_empty() { DEFAULT_AGENT } else { id };
        Box::pin(async move {
            match self.agents.get(id) {
                None => Ok(None),
                Some(Agent::Socket(path)) => Ok(Some(path.clone())),
                Some(Agent::Keys { files, agent, path_directories }) => {
                    let start = || {
                        let (files, directories) = (files.clone(), path_directories.clone());
                        blocking(move || KeyAgent::start(&files, &directories))
                    };
                    agent.get_or_try_init(start).await.map(|agent| Some(agent.socket()))
                }
            }
        })
    }
}

/// Reads a secret's file, which may be a pipe, up to the limit.
fn read(path: &Path) -> Result<Vec<u8>, BuildError> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_SECRET_BYTES as u64 + 1).read_to_end(&mut bytes))
        .map_err(|error| BuildError::io("can't read the secret in", path, &error))?;
    if bytes.len() > MAX_SECRET_BYTES {
        let message = format!("the secret in {} is larger than {MAX_SECRET_BYTES} bytes", path.display());
        return Err(BuildError::new(ErrorKind::Usage, message));
    }
    Ok(bytes)
}
