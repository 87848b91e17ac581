// SPDX-License-Identifier: Apache-2.0
//! The user's context, read where it lies, and the Dockerfile.

use std::io::Read;
use std::path::{Path, PathBuf};

use polyarch_dockerfile::{IgnoreRules, IgnoreState};
use polyarch_snapshot::{CopySource, CopySpec, KeepAll, Kind, PathFilter, TreeRoot, Verdict, copy};
use polyarch_solver::progress::Progress;

use crate::distant::{Distant, DistantFiles};
use crate::error::{BuildError, ErrorKind};
use crate::fetch::Shown;
use crate::provenance::Material;
use crate::request::{Context, DockerfileSource};
use crate::services::Services;
use crate::source_time::SourceTime;

/// The largest Dockerfile or ignore file that is read, in bytes.
pub(crate) const MAX_TEXT_BYTES: u64 = 16 << 20;

/// A context, opened.
#[derive(Debug)]
pub struct LocalContext {
    files: Files,
    ignored: Option<IgnoreRules>,
    /// The ignore file that the rules were read from.
    ignore_file: Option<Vec<u8>>,
    time: SourceTime,
    /// Keeps an unpacked archive, what was fetched, or the empty directory, until the build ends.
    _scratch: Vec<tempfile::TempDir>,
    /// What was fetched for it, the Dockerfile among that.
    materials: Vec<Material>,
}

/// Where a context's files are.
#[derive(Debug)]
enum Files {
    Here { root: PathBuf, tree: TreeRoot },
    Distant(DistantFiles),
}

/// The text to build from.
#[derive(Debug, Clone)]
pub struct DockerfileText {
    /// The name that people know it by.
    pub name: String,
    /// The bytes.
    pub bytes: Vec<u8>,
}

impl LocalContext {
    /// Opens a context and reads its Dockerfile and ignore rules. Both are on this machine.
    ///
    /// # Errors
    /// When a directory or file is not there or can't be read, or the ignore rules are malformed.
    pub fn open(
        services: &Services,
        context: &Context,
        dockerfile: &DockerfileSource,
    ) -> Result<(LocalContext, DockerfileText), BuildError> {
        let mut scratch = None;
        let mut time = SourceTime::Unknown;
        let whole = match context.whole() {
            Context::Directory(path) => {
                let metadata = std::fs::metadata(path).map_err(|error| unreadable_context(path, &error))?;
                if !metadata.is_dir() {
                    return Err(BuildError::new(
                        ErrorKind::Usage,
                        format!("the build context {} is not a directory", path.display()),
                    )
                    .with_hint(
                        "name the directory that holds the Dockerfile, or `-` to read from standard input",
                    ));
                }
                path.clone()
            }
            Context::Archive(path) => {
                let directory = services.scratch()?;
                unpack_archive(services, path, directory.path())?;
                time = SourceTime::Archive(path.clone());
                scratch.insert(directory).path().to_owned()
            }
            Context::Git(url) | Context::Http(url) => return Err(not_local("context", url)),
            Context::Distant(_) => return Err(not_local("context", "of a client")),
            Context::Empty => scratch.insert(services.scratch()?).path().to_owned(),
            Context::Subdirectory { .. } => return Err(not_local("context", "of a context")),
        };
        let open = |path: &Path| {
            TreeRoot::open(path).map_err(|error| services.snapshot_error("can't open the context", &error))
        };
        let tree = open(&whole)?;
        let text = read_dockerfile(&whole, &tree, dockerfile)?;
        let found = read_ignore_file(&tree, dockerfile)?;
        let ignore_file = found.as_ref().map(|(_, bytes)| bytes.clone());
        let ignored = parse_rules(found)?;
        let (root, tree) = match context {
            Context::Subdirectory { path, .. } => {
                let root = whole.join(below(&tree, path)?);
                let tree = open(&root)?;
                (root, tree)
            }
            _ => (whole, tree),
        };
        let files = Files::Here { root, tree };
        let _scratch = scratch.into_iter().collect();
        Ok((LocalContext { files, ignored, ignore_file, time, _scratch, materials: Vec::new() }, text))
    }

    /// Says when the context changed, where its origin told that.
    #[must_use]
    pub fn of_time(mut self, time: SourceTime) -> LocalContext {
        if time != SourceTime::Unknown {
            self.time = time;
        }
        self
    }

    /// Returns when the context changed.
    pub fn time(&self) -> &SourceTime {
        &self.time
    }

    /// Opens a context of somebody else's and reads the Dockerfile, which is on this machine, and the ignore
    /// rules. No other file of the context is read.
    pub(crate) async fn open_distant(
        distant: &Distant,
        dockerfile: &DockerfileSource,
        progress: &Progress,
    ) -> Result<(LocalContext, DockerfileText), BuildError> {
        let text = match read_given_dockerfile(dockerfile)? {
            Some(text) => text,
            None => return Err(not_local("Dockerfile", "of the context")),
        };
        let found = match rules_beside(dockerfile)? {
            Some(found) => Some(found),
            None => distant.ignore_file(progress).await?.map(|bytes| (".dockerignore".to_owned(), bytes)),
        };
        LocalContext::of_distant(distant, found).map(|context| (context, text))
    }

    /// Opens a directory of somebody else's that is a named context, with its `.dockerignore`.
    pub(crate) async fn open_distant_named(
        distant: &Distant,
        progress: &Progress,
    ) -> Result<LocalContext, BuildError> {
        let found = distant.ignore_file(progress).await?;
        LocalContext::of_distant(distant, found.map(|bytes| (".dockerignore".to_owned(), bytes)))
    }

    fn of_distant(distant: &Distant, found: Option<(String, Vec<u8>)>) -> Result<LocalContext, BuildError> {
        // What the parser of rules accepts it can also list.
        let patterns = found.as_ref().and_then(|(_, bytes)| IgnoreRules::patterns(bytes).ok());
        let ignored = parse_rules(found)?;
        let files = Files::Distant(DistantFiles::new(distant.clone(), patterns.unwrap_or_default()));
        let time = SourceTime::Unknown;
        let (ignore_file, _scratch, materials) = (None, Vec::new(), Vec::new());
        Ok(LocalContext { files, ignored, ignore_file, time, _scratch, materials })
    }

    /// Adds what a step reads of the files; `None` is everything.
    pub(crate) fn want(&self, paths: Option<Vec<String>>) {
        match &self.files {
            Files::Distant(files) => files.want(paths),
            Files::Here { .. } => {}
        }
    }

    /// Makes sure that the files are on this machine.
    pub(crate) async fn bring(&self, shown: &Shown) -> Result<(), BuildError> {
        match &self.files {
            Files::Distant(files) => files.bring(shown).await,
            Files::Here { .. } => Ok(()),
        }
    }

    /// Keeps a directory for as long as the context is there.
    #[must_use]
    pub fn keeping(mut self, scratch: Option<tempfile::TempDir>) -> LocalContext {
        self._scratch.extend(scratch);
        self
    }

    /// Says what was fetched for it.
    #[must_use]
    pub(crate) fn with_materials(mut self, materials: Vec<Material>) -> LocalContext {
        self.materials = materials;
        self
    }

    /// Returns what was fetched for it from elsewhere.
    pub(crate) fn materials(&self) -> &[Material] {
        &self.materials
    }

    /// Opens a directory that is a named context, with its `.dockerignore`.
    ///
    /// # Errors
    /// When it is no directory or can't be read, or the ignore rules are malformed.
    pub fn open_named(services: &Services, path: &Path) -> Result<LocalContext, BuildError> {
        let metadata = std::fs::metadata(path).map_err(|error| unreadable_context(path, &error))?;
        if !metadata.is_dir() {
            let message = format!("the context {} is not a directory", path.display());
            return Err(BuildError::new(ErrorKind::Usage, message)
                .with_hint("name a directory, or docker-image://NAME, oci-layout://PATH or a URL"));
        }
        let tree = TreeRoot::open(path)
            .map_err(|error| services.snapshot_error("can't open the context", &error))?;
        let ignored = parse_rules(read_if_there(&tree, ".dockerignore")?)?;
        let files = Files::Here { root: path.to_owned(), tree };
        let time = SourceTime::Unknown;
        let (ignore_file, _scratch, materials) = (None, Vec::new(), Vec::new());
        Ok(LocalContext { files, ignored, ignore_file, time, _scratch, materials })
    }

    /// Opens a directory that a client has sent; what it was to leave out it has left out already.
    ///
    /// # Errors
    /// When it can't be opened.
    pub(crate) fn open_received(services: &Services, path: &Path) -> Result<LocalContext, BuildError> {
        let tree = TreeRoot::open(path)
            .map_err(|error| services.snapshot_error("can't open a client's directory", &error))?;
        let files = Files::Here { root: path.to_owned(), tree };
        let time = SourceTime::Unknown;
        let (ignore_file, _scratch, materials) = (None, Vec::new(), Vec::new());
        Ok(LocalContext { files, ignored: None, ignore_file, time, _scratch, materials })
    }

    /// Returns the files, which have been brought.
    pub(crate) fn tree(&self) -> Result<TreeRoot, BuildError> {
        match &self.files {
            Files::Here { tree, .. } => Ok(tree.clone()),
            Files::Distant(files) => files.tree(),
        }
    }

    /// Returns the rules of the ignore file, when there are any.
    pub fn ignored(&self) -> Option<&IgnoreRules> {
        self.ignored.as_ref()
    }

    /// Returns the ignore file of a context that was opened with its Dockerfile, wherever it stands.
    pub fn ignore_file(&self) -> Option<&[u8]> {
        self.ignore_file.as_deref()
    }

    /// Returns the directory of this machine.
    ///
    /// # Errors
    /// When the context is a directory of somebody else's.
    pub fn root(&self) -> Result<&Path, BuildError> {
        match &self.files {
            Files::Here { root, .. } => Ok(root),
            Files::Distant(_) => Err(not_local("context", "of a client")),
        }
    }
}

/// What is remote is brought here before it is opened, see [`Services::localize`].
fn not_local(what: &str, url: &str) -> BuildError {
    BuildError::new(ErrorKind::Usage, format!("the {what} {url} is remote and has not been fetched"))
}

/// Finds a directory of the context, beneath it wherever links lead.
fn below(tree: &TreeRoot, path: &str) -> Result<PathBuf, BuildError> {
    let wrong = |problem: &str| {
        BuildError::new(ErrorKind::Usage, format!("the directory {path} of the context {problem}"))
    };
    let found = tree.metadata(path).map_err(|error| wrong(&format!("can't be read: {error}")))?;
    match found.map(|found| found.kind) {
        None => return Err(wrong("is not there")),
        Some(Kind::Directory) => {}
        Some(_) => return Err(wrong("is not a directory")),
    }
    let real = tree.real_path(path).map_err(|error| wrong(&format!("can't be read: {error}")))?;
    let real = real.ok_or_else(|| wrong("is not there"))?;
    Ok(real.strip_prefix("/").map(Path::to_owned).unwrap_or(real))
}

fn unreadable_context(path: &Path, error: &std::io::Error) -> BuildError {
    BuildError::io("can't read the build context", path, error)
        .with_hint("name the directory that holds the Dockerfile, or `-` to read from standard input")
}

/// Unpacks an archive into a directory; what is no archive is copied there.
pub(crate) fn unpack_archive(services: &Services, archive: &Path, into: &Path) -> Result<(), BuildError> {
    let failed = |error| services.snapshot_error("can't unpack the context archive", &error);
    let (Some(directory), Some(name)) = (archive.parent(), archive.file_name()) else {
        return Err(BuildError::new(ErrorKind::Usage, format!("{} is not an archive", archive.display())));
    };
    let sources = [CopySource { pattern: name.to_string_lossy().into_owned(), allow_wildcard: false }];
    let spec = CopySpec {
        source: &TreeRoot::open(directory).map_err(failed)?,
        sources: &sources,
        filter: &KeepAll,
        matcher: &|pattern, name| pattern == name,
        destination: "/",
        owner: None,
        mode: None,
        unpack: true,
        unpack_owner: None,
        modified: None,
        within: None,
        created_mode: 0o755,
        keeps_directories: false,
        follows_links: true,
        needs_match: false,
    };
    copy(&spec, &TreeRoot::open(into).map_err(failed)?).map_err(failed)
}

fn read_dockerfile(
    root: &Path,
    tree: &TreeRoot,
    source: &DockerfileSource,
) -> Result<DockerfileText, BuildError> {
    if let Some(text) = read_given_dockerfile(source)? {
        return Ok(text);
    }
    match source {
        DockerfileSource::Text(_) | DockerfileSource::File(_) | DockerfileSource::Default => {
            for name in ["Dockerfile", "dockerfile"] {
                if tree.exists(name) {
                    return in_context(tree, name);
                }
            }
            Err(BuildError::new(
                ErrorKind::Dockerfile,
                format!("there is no Dockerfile in the build context {}", root.display()),
            )
            .with_hint("create one there, or name it with -f FILE"))
        }
        DockerfileSource::Url(url) => Err(not_local("Dockerfile", url)),
        DockerfileSource::InContext(name) => in_context(tree, name),
    }
}

/// Reads a Dockerfile that does not come with the context.
fn read_given_dockerfile(source: &DockerfileSource) -> Result<Option<DockerfileText>, BuildError> {
    match source {
        DockerfileSource::Text(bytes) => {
            Ok(Some(DockerfileText { name: "Dockerfile".to_owned(), bytes: bytes.clone() }))
        }
        DockerfileSource::File(path) => {
            let name = path.file_name().map_or_else(|| "Dockerfile".into(), |name| name.to_string_lossy());
            let bytes = read_capped(path).map_err(|error| {
                BuildError::io("can't read the Dockerfile", path, &error)
                    .with_hint("name another with -f FILE")
            })?;
            Ok(Some(DockerfileText { name: name.into_owned(), bytes }))
        }
        DockerfileSource::Url(_) | DockerfileSource::Default | DockerfileSource::InContext(_) => Ok(None),
    }
}

fn in_context(tree: &TreeRoot, name: &str) -> Result<DockerfileText, BuildError> {
    let bytes = tree.read(name, MAX_TEXT_BYTES).map_err(|error| {
        BuildError::from_source(ErrorKind::Dockerfile, format!("can't read the Dockerfile {name}"), &error)
    })?;
    let name = name.rsplit('/').next().unwrap_or(name).to_owned();
    Ok(DockerfileText { name, bytes })
}

/// Reads `<Dockerfile>.dockerignore` beside the Dockerfile, else `.dockerignore` in the context.
fn read_ignore_file(
    tree: &TreeRoot,
    dockerfile: &DockerfileSource,
) -> Result<Option<(String, Vec<u8>)>, BuildError> {
    let beside = match dockerfile {
        DockerfileSource::File(_) => rules_beside(dockerfile)?,
        DockerfileSource::Default => read_if_there(tree, "Dockerfile.dockerignore")?,
        DockerfileSource::InContext(name) => read_if_there(tree, &format!("{name}.dockerignore"))?,
        DockerfileSource::Text(_) | DockerfileSource::Url(_) => None,
    };
    match beside {
        Some(found) => Ok(Some(found)),
        None => read_if_there(tree, ".dockerignore"),
    }
}

/// Reads the ignore file of a Dockerfile that is a file of the caller's.
fn rules_beside(dockerfile: &DockerfileSource) -> Result<Option<(String, Vec<u8>)>, BuildError> {
    let DockerfileSource::File(path) = dockerfile else { return Ok(None) };
    let mut name = path.clone().into_os_string();
    name.push(".dockerignore");
    let name = PathBuf::from(name);
    match read_capped(&name) {
        Ok(bytes) => Ok(Some((name.display().to_string(), bytes))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(BuildError::io("can't read the ignore file", name, &error)),
    }
}

fn parse_rules(found: Option<(String, Vec<u8>)>) -> Result<Option<IgnoreRules>, BuildError> {
    let Some((name, bytes)) = found else { return Ok(None) };
    let rules = IgnoreRules::parse(&bytes)
        .map_err(|error| BuildError::from_source(ErrorKind::Dockerfile, format!("in {name}"), &error))?;
    Ok(Some(rules).filter(|rules| !rules.is_empty()))
}

/// Reads a file of the context. Only its absence is no error: rules that can't be read must not let
/// everything through.
fn read_if_there(tree: &TreeRoot, name: &str) -> Result<Option<(String, Vec<u8>)>, BuildError> {
    let failed = |error: &polyarch_snapshot::SnapshotError| {
        BuildError::from_source(ErrorKind::Dockerfile, format!("can't read {name} of the context"), error)
    };
    if tree.symlink_metadata(name).map_err(|error| failed(&error))?.is_none() {
        return Ok(None);
    }
    let bytes = tree.read(name, MAX_TEXT_BYTES).map_err(|error| failed(&error))?;
    Ok(Some((name.to_owned(), bytes)))
}

/// Reads a file of the caller's, of a size that a text may have.
fn read_capped(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(MAX_TEXT_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_TEXT_BYTES {
        return Err(std::io::Error::other(format!("larger than {MAX_TEXT_BYTES} bytes")));
    }
    Ok(bytes)
}

/// Hides what the ignore rules of a context leave out.
pub(crate) struct IgnoreFilter<'a> {
    pub(crate) rules: Option<&'a IgnoreRules>,
}

impl PathFilter for IgnoreFilter<'_> {
    fn verdict(&self, path: &Path, is_directory: bool) -> Verdict {
        // Rules are text; a name that is none is judged by what is left of it.
        let path = path.to_string_lossy();
        if path.is_empty() || path == "." {
            return Verdict::Keep;
        }
        self.rules.map_or(Verdict::Keep, |rules| verdict(rules, &path, is_directory))
    }
}

/// Tells what ignore rules make of a path.
pub(crate) fn verdict(rules: &IgnoreRules, path: &str, is_directory: bool) -> Verdict {
    // Rules decide about a path by what they decided about the directories above it.
    let mut state = IgnoreState::default();
    for (at, _) in path.match_indices('/') {
        state = rules.check(&state, &path[..at]);
    }
    state = rules.check(&state, path);
    if !state.is_ignored() {
        Verdict::Keep
    } else if is_directory && !rules.can_prune(&state, path) {
        Verdict::Descend
    } else {
        Verdict::Skip
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_of_a_context_is_beneath_it() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("context");
        std::fs::create_dir_all(root.join("sub/dir")).unwrap();
        std::fs::create_dir(directory.path().join("outside")).unwrap();
        std::fs::write(root.join("file"), "").unwrap();
        std::os::unix::fs::symlink("sub", root.join("link")).unwrap();
        std::os::unix::fs::symlink("/outside", root.join("escape")).unwrap();
        let tree = TreeRoot::open(&root).unwrap();
        for (path, expected) in [("sub/dir", "sub/dir"), ("/sub/dir/", "sub/dir"), ("link/dir", "sub/dir")] {
            assert_eq!(below(&tree, path).unwrap(), Path::new(expected), "{path}");
        }
        assert_eq!(below(&tree, "../../sub").unwrap(), Path::new("sub"), "nothing is above the root");
        for path in ["file", "nothing", "escape", "../outside"] {
            assert!(below(&tree, path).is_err(), "{path}");
        }
    }
}
