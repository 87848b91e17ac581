// SPDX-License-Identifier: Apache-2.0
//! The files of credentials: which are read, in which order, and the one that a login changes.

use std::fs::{DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use polyarch_registry::{AuthFile, CredentialFile, Credentials};

use crate::config::{read_text, read_text_if_there};
use crate::{CommandError, Environment};

/// Reads credentials: `DOCKER_AUTH_CONFIG`, then `REGISTRY_AUTH_FILE` or podman's file, then docker's.
///
/// What can't be read, and what is wrong in a file, is told when credentials are needed: most of what people
/// do needs none.
pub(crate) fn read(environment: &Environment) -> Credentials {
    let (sources, unreadable) = sources(environment);
    Credentials::with_unreadable(sources, unreadable, environment.path_directories())
}

/// Reads the sources that are asked before docker's file, and so hide what a login puts there.
pub(crate) fn before_dockers(environment: &Environment) -> Vec<AuthFile> {
    let docker = docker_file(environment).ok().map(|path| path.display().to_string());
    let (mut sources, _) = sources(environment);
    sources.retain(|source| Some(&source.origin) != docker.as_ref());
    sources
}

/// Returns the sources, and what is wrong with those that can't be read.
fn sources(environment: &Environment) -> (Vec<AuthFile>, Vec<String>) {
    let (mut sources, mut unreadable) = (Vec::new(), Vec::new());
    if let Some(text) = environment.text("DOCKER_AUTH_CONFIG") {
        sources.push(AuthFile { origin: "DOCKER_AUTH_CONFIG".to_owned(), text: text.to_owned() });
    }
    let mut add = |path: &Path, text: Result<Option<String>, CommandError>| match text {
        Ok(Some(text)) => sources.push(AuthFile { origin: path.display().to_string(), text }),
        Ok(None) => {}
        Err(error) => unreadable.push(error.error.message),
    };
    if let Some(path) = environment.path("REGISTRY_AUTH_FILE") {
        add(&path, read_text(&path).map(Some));
    } else if let Some(runtime) = environment.path("XDG_RUNTIME_DIR") {
        let path = runtime.join("containers/auth.json");
        add(&path, read_text_if_there(&path));
    }
    if let Ok(path) = docker_file(environment) {
        add(&path, read_text_if_there(&path));
    }
    (sources, unreadable)
}

/// Returns where docker keeps credentials.
///
/// # Errors
/// When neither `DOCKER_CONFIG` nor `HOME` is set.
pub(crate) fn docker_file(environment: &Environment) -> Result<PathBuf, CommandError> {
    environment
        .path("DOCKER_CONFIG")
        .or_else(|| Some(environment.path("HOME")?.join(".docker")))
        .map(|directory| directory.join("config.json"))
        .ok_or_else(|| {
            CommandError::usage("can't tell where credentials are kept: HOME is not set")
                .with_hint("name the directory of config.json with DOCKER_CONFIG")
        })
}

/// Docker's file, held for a change: other logins of ours wait until this value is gone.
pub(crate) struct HeldFile {
    path: PathBuf,
    content: CredentialFile,
    original: String,
    _lock: File,
}

impl HeldFile {
    /// Reads the file; its directory is made when there is none.
    ///
    /// # Errors
    /// When it can't be read, or is not what it should be: then with line and column.
    pub(crate) fn open(path: &Path) -> Result<HeldFile, CommandError> {
        let directory = path.parent().unwrap_or(Path::new("/"));
        let failed = |error: io::Error| CommandError::io("can't use", directory, &error);
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
        let lock = File::open(directory).map_err(failed)?;
        lock.lock().map_err(failed)?;
        let original = match std::fs::symlink_metadata(path) {
            Ok(_) if path.exists() => read_text(path)?,
            _ => String::new(),
        };
        let content = CredentialFile::parse(&path.display().to_string(), &original).map_err(|error| {
            CommandError::usage(error.to_string())
                .with_hint("mend the file, or move it away; nothing was changed")
        })?;
        Ok(HeldFile { path: path.to_owned(), content, original, _lock: lock })
    }

    /// Returns what the file holds, to be changed.
    pub(crate) fn content(&mut self) -> &mut CredentialFile {
        &mut self.content
    }

    /// Writes the file, whole or not at all, readable by its owner alone; tells whether anything changed.
    ///
    /// # Errors
    /// When it can't be written; then it is as it was.
    pub(crate) fn save(self) -> Result<bool, CommandError> {
        let text = self.content.text();
        if text == self.original {
            return Ok(false);
        }
        let failed = |error: &io::Error| CommandError::io("can't write", &self.path, error);
        // A link, as those who keep their settings under version control have, stays one.
        let target = link_target(&self.path);
        let directory = target.parent().unwrap_or(Path::new("/"));
        let mut file = tempfile::Builder::new()
            .prefix(".config.json-")
            .permissions(std::fs::Permissions::from_mode(0o600))
            .tempfile_in(directory)
            .map_err(|error| failed(&error))?;
        file.write_all(text.as_bytes())
            .and_then(|()| file.as_file().sync_all())
            .map_err(|error| failed(&error))?;
        // The point of no return.
        file.persist(&target).map_err(|error| failed(&error.error))?;
        Ok(true)
    }
}

/// Returns where a link leads, also when nothing is there yet.
fn link_target(path: &Path) -> PathBuf {
    std::fs::canonicalize(path).unwrap_or_else(|_| match (std::fs::read_link(path), path.parent()) {
        (Ok(target), Some(parent)) => parent.join(target),
        _ => path.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use polyarch_registry::Credential;

    use super::*;

    fn login(path: &Path, host: &str) -> Result<bool, CommandError> {
        let mut file = HeldFile::open(path)?;
        let password = Credential::UserPassword { user: "u".into(), password: "p".into() };
        file.content().set(host, "u", Some(&password)).unwrap();
        file.save()
    }

    #[test]
    fn the_file_is_private_links_stay_links_and_nothing_is_left_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/config.json");
        assert!(login(&path, "a.example").unwrap());
        assert!(!login(&path, "a.example").unwrap(), "nothing changed");
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        let link = dir.path().join("config.json");
        std::os::unix::fs::symlink("new/config.json", &link).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(login(&link, "b.example").unwrap());
        assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains("a.example") && text.contains("b.example"), "{text}");
        assert_eq!(mode(&path), 0o600);
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn logins_at_once_lose_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        std::thread::scope(|scope| {
            for at in 0..16 {
                let path = &path;
                scope.spawn(move || login(path, &format!("h{at}.example")).unwrap());
            }
        });
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.matches("auth\":").count(), 16, "{text}");
    }

    #[test]
    fn a_broken_file_is_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        std::fs::write(&path, "{\n  \"auths\": {,\n").unwrap();
        let error = login(&path, "a.example").unwrap_err();
        assert!(error.error.message.contains("line 2 column"), "{}", error.error.message);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\n  \"auths\": {,\n");
    }
}
