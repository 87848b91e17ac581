// SPDX-License-Identifier: Apache-2.0
//! Where builders are kept: buildx's files, in `$BUILDX_CONFIG` or below the store's directory.
//!
//! ```text
//! instances/NAME   a builder, JSON
//! current          {"Key","Name","Global"}: the builder in use, for one docker endpoint or for all
//! defaults/HASH    the name of the builder in use by default; HASH is made of the endpoint
//! activity/NAME    when the builder was last used, RFC 3339
//! .lock            held (flock) by whoever reads and writes
//! ```
//! A file is replaced as a whole. What is no builder is told and left alone.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::builders::{Builder, name};
use crate::{CommandError, Environment};

/// The largest file that is read, in bytes; configuration files of daemons stand within builders.
const MAX_BYTES: u64 = 8 << 20;

/// The most builders that are listed.
const MAX_BUILDERS: usize = 1_000;

/// The builders, locked.
pub struct BuilderFiles {
    directory: PathBuf,
    /// Whose current builder is meant: docker's endpoint, as buildx has it.
    key: String,
    _lock: File,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Current {
    #[serde(default)]
    key: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    global: bool,
}

/// How long a builder stays the current one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// For this docker endpoint, until another is chosen.
    Now,
    /// For this docker endpoint, also after another endpoint was used in between.
    Default,
    /// For all docker endpoints.
    Global,
}

impl BuilderFiles {
    /// Opens the directory and waits until nobody else has it; `root` is the store's directory.
    ///
    /// # Errors
    /// When it can't be made or locked.
    pub fn open(environment: &Environment, root: &Path) -> Result<BuilderFiles, CommandError> {
        let directory = environment.path("BUILDX_CONFIG").unwrap_or_else(|| root.join("builders"));
        let key = environment.text("DOCKER_HOST").unwrap_or(super::driver::DOCKER_SOCKET);
        BuilderFiles::open_at(directory, key.to_owned())
    }

    /// Tells whether anybody has made a builder here.
    pub fn exist(environment: &Environment, root: &Path) -> bool {
        environment.path("BUILDX_CONFIG").unwrap_or_else(|| root.join("builders")).join("instances").is_dir()
    }

    fn open_at(directory: PathBuf, key: String) -> Result<BuilderFiles, CommandError> {
        for part in ["instances", "defaults", "activity"] {
            let path = directory.join(part);
            fs::create_dir_all(&path).map_err(|error| CommandError::io("can't make", &path, &error))?;
        }
        let path = directory.join(".lock");
        let locked = File::options().create(true).append(true).open(&path).and_then(|file| {
            flock(&file, FlockOperation::LockExclusive)?;
            Ok(file)
        });
        let lock = locked.map_err(|error| CommandError::io("can't lock", &path, &error))?;
        Ok(BuilderFiles { directory, key, _lock: lock })
    }

    /// Returns all builders by name, and what is wrong with files that are none.
    ///
    /// # Errors
    /// When the directory can't be read.
    pub fn list(&self) -> Result<(Vec<Builder>, Vec<CommandError>), CommandError> {
        read_builders(&self.directory)
    }

    /// Returns a builder.
    ///
    /// # Errors
    /// When the name is none, or its file is no builder.
    pub fn get(&self, name: &str) -> Result<Option<Builder>, CommandError> {
        read_builder(&self.directory, name)
    }

    /// Keeps a builder under its name.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn save(&self, builder: &Builder) -> Result<(), CommandError> {
        let name = name::validate(&builder.name)?;
        self.touch(&name)?;
        self.write(&format!("instances/{name}"), &json(builder)?)
    }

    /// Removes a builder; tells whether it was there.
    ///
    /// # Errors
    /// When it can't be removed.
    pub fn remove(&self, name: &str) -> Result<bool, CommandError> {
        let name = name::validate(name)?;
        let remove = |path: PathBuf| match fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(CommandError::io("can't remove", &path, &error)),
        };
        remove(self.directory.join("activity").join(&name))?;
        remove(self.directory.join("instances").join(&name))
    }

    /// Remembers that a builder is used now.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn touch(&self, name: &str) -> Result<(), CommandError> {
        let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        self.write(&format!("activity/{name}"), now.as_bytes())
    }

    /// Returns when a builder was last used.
    pub fn last_activity(&self, name: &str) -> Option<Timestamp> {
        let bytes = read(&self.directory.join("activity").join(name)).ok()??;
        String::from_utf8(bytes).ok()?.trim().parse().ok()
    }

    /// Makes a builder the current one; the empty name stands for the builder that is always there.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn set_current(&self, name: &str, how: Use) -> Result<(), CommandError> {
        let current = Current { key: self.key.clone(), name: name.to_owned(), global: how == Use::Global };
        self.write("current", &json(&current)?)?;
        let default = format!("defaults/{}", hash_of(&self.key));
        if how == Use::Default {
            return self.write(&default, name.as_bytes());
        }
        match fs::remove_file(self.directory.join(&default)) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(CommandError::io("can't remove", self.directory.join(default), &error))
            }
            _ => Ok(()),
        }
    }

    /// Returns the current builder; `None` stands for the one that is always there. A builder that was
    /// removed is current no more.
    ///
    /// # Errors
    /// When a file can't be read or makes no sense.
    pub fn current(&self) -> Result<Option<Builder>, CommandError> {
        let path = self.directory.join("current");
        let current: Current = match read(&path)? {
            None => Current::default(),
            Some(bytes) => serde_json::from_slice(&bytes)
                .map_err(|error| CommandError::usage(format!("{}: {error}", path.display())))?,
        };
        if !current.name.is_empty()
            && current.global
            && let Some(builder) = self.get(&current.name)?
        {
            return Ok(Some(builder));
        }
        if !current.name.is_empty() && current.key == self.key {
            return self.get(&current.name);
        }
        match read(&self.directory.join("defaults").join(hash_of(&self.key)))? {
            Some(name) => self.get(String::from_utf8_lossy(&name).trim()),
            None => Ok(None),
        }
    }

    /// Replaces a file.
    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), CommandError> {
        let path = self.directory.join(name);
        let directory = path.parent().unwrap_or(&self.directory);
        let written = tempfile::Builder::new().prefix(".tmp-").tempfile_in(directory).and_then(|mut file| {
            file.write_all(bytes)?;
            file.as_file().sync_all()?;
            file.persist(&path)?;
            Ok(())
        });
        written.map_err(|error| CommandError::io("can't write", &path, &error))
    }
}

/// Reads all builders of a directory, by name, and what is wrong with files that are none. Nothing is locked: each file
/// is one state.
///
/// # Errors
/// When the directory can't be read.
pub fn read_builders(directory: &Path) -> Result<(Vec<Builder>, Vec<CommandError>), CommandError> {
    let path = directory.join("instances");
    let failed = |error: io::Error| CommandError::io("can't read", &path, &error);
    let mut names = Vec::new();
    for entry in fs::read_dir(&path).map_err(failed)?.take(MAX_BUILDERS) {
        names.push(entry.map_err(failed)?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    let (mut builders, mut wrong) = (Vec::new(), Vec::new());
    // Files that are being written begin with a dot.
    for name in names.iter().filter(|name| !name.starts_with('.')) {
        match read_builder(directory, name) {
            Ok(Some(builder)) => builders.push(builder),
            Ok(None) => {}
            Err(error) => wrong.push(error),
        }
    }
    Ok((builders, wrong))
}

fn read_builder(directory: &Path, name: &str) -> Result<Option<Builder>, CommandError> {
    let name = name::validate(name)?;
    let path = directory.join("instances").join(&name);
    let Some(bytes) = read(&path)? else { return Ok(None) };
    let malformed = |problem: String| {
        CommandError::usage(format!("{} is not a builder: {problem}", path.display()))
            .with_hint(format!("remove it: polyarch buildx rm {name}"))
    };
    let builder: Builder = serde_json::from_slice(&bytes).map_err(|error| malformed(error.to_string()))?;
    match builder.nodes.is_empty() {
        true => Err(malformed("it has no nodes".to_owned())),
        false => Ok(Some(Builder { name, ..builder })),
    }
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, CommandError> {
    let mut bytes = Vec::new();
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(CommandError::io("can't read", path, &error)),
    };
    file.take(MAX_BYTES)
        .read_to_end(&mut bytes)
        .map_err(|error| CommandError::io("can't read", path, &error))?;
    Ok(Some(bytes))
}

fn json(value: &impl Serialize) -> Result<Vec<u8>, CommandError> {
    serde_json::to_vec(value).map_err(|error| CommandError::usage(error.to_string()))
}

/// Returns the name of an endpoint's file among the defaults: the first 20 digits of its hash.
fn hash_of(key: &str) -> String {
    let digest = polyarch_oci::Digest::of(key);
    digest.hex().chars().take(20).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builders::BuilderNode;

    fn builder(name: &str) -> Builder {
        let node =
            BuilderNode { name: format!("{name}0"), endpoint: "tcp://a:1".into(), ..BuilderNode::default() };
        Builder { name: name.into(), driver: "remote".into(), nodes: vec![node], dynamic: false }
    }

    fn open(directory: &Path, key: &str) -> BuilderFiles {
        BuilderFiles::open_at(directory.to_owned(), key.to_owned()).unwrap()
    }

    #[test]
    fn builders_are_kept_and_removed() {
        let directory = tempfile::tempdir().unwrap();
        let files = open(directory.path(), "unix:///x");
        files.save(&builder("one")).unwrap();
        files.save(&builder("two")).unwrap();
        assert_eq!(files.get("ONE").unwrap(), Some(builder("one")));
        assert_eq!(files.list().unwrap().0, [builder("one"), builder("two")]);
        assert!(files.last_activity("one").is_some());
        assert!(files.remove("one").unwrap());
        assert!(!files.remove("one").unwrap());
        assert_eq!(files.get("one").unwrap(), None);
        assert!(files.get("../current").is_err());
    }

    #[test]
    fn the_current_builder_follows_the_endpoint() {
        let directory = tempfile::tempdir().unwrap();
        let files = open(directory.path(), "unix:///x");
        for name in ["now", "standing", "global"] {
            files.save(&builder(name)).unwrap();
        }
        let current = |files: &BuilderFiles| files.current().unwrap().map(|builder| builder.name);
        assert_eq!(current(&files), None);
        files.set_current("standing", Use::Default).unwrap();
        assert_eq!(current(&files).as_deref(), Some("standing"));
        drop(files);
        let elsewhere = open(directory.path(), "tcp://other:2375");
        assert_eq!(current(&elsewhere), None);
        elsewhere.set_current("now", Use::Now).unwrap();
        drop(elsewhere);
        let files = open(directory.path(), "unix:///x");
        assert_eq!(current(&files).as_deref(), Some("standing"));
        files.set_current("global", Use::Global).unwrap();
        drop(files);
        let elsewhere = open(directory.path(), "tcp://other:2375");
        assert_eq!(current(&elsewhere).as_deref(), Some("global"));
        elsewhere.remove("global").unwrap();
        assert_eq!(current(&elsewhere), None);
        elsewhere.set_current("", Use::Now).unwrap();
        assert_eq!(current(&elsewhere), None);
    }

    #[test]
    fn files_of_buildx_are_read() {
        let directory = tempfile::tempdir().unwrap();
        let files = open(directory.path(), "unix:///x");
        let text = r#"{"Name":"multi","Driver":"docker-container","Nodes":[{"Name":"multi0","Endpoint":"unix:///var/run/docker.sock","Platforms":[{"architecture":"arm","os":"linux","variant":"v7"}],"DriverOpts":null,"Flags":["--debug"],"Files":{"buildkitd.toml":"Iw=="}}],"Dynamic":false}"#;
        fs::write(directory.path().join("instances/multi"), text).unwrap();
        let builder = files.get("multi").unwrap().unwrap();
        assert_eq!(builder.nodes[0].platforms[0].to_string(), "linux/arm/v7");
        assert_eq!(builder.nodes[0].buildkitd_flags, ["--debug"]);
        let written: serde_json::Value = serde_json::to_value(&builder).unwrap();
        assert_eq!(written["Nodes"][0]["Flags"][0], "--debug");
        fs::write(directory.path().join("instances/broken"), "{").unwrap();
        let (builders, wrong) = files.list().unwrap();
        assert_eq!((builders.len(), wrong.len()), (1, 1));
        assert!(wrong[0].error.message.contains("instances/broken is not a builder"));
    }
}
