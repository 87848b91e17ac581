// SPDX-License-Identifier: Apache-2.0
//! What a Dockerfile build reads of its client: the Dockerfile, the ignore file, contexts.
//!
//! The directories of a client are copied to this machine, each into one of its own. A Dockerfile is read
//! beneath that directory and put into a file of ours, so that a symlink of the client's leads nowhere else.

mod inputs;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use polyarch_build::distant::{Distant, DistantDirectories as _};
use polyarch_build::named_context::{ContextSource, NamedContext};
use polyarch_build::request::{Context, DockerfileSource};
use polyarch_build::source_policy::SourcePolicies;
use polyarch_build::{BuildError, ErrorKind};
use polyarch_oci::{Digest, Platform, Reference};
use polyarch_snapshot::TreeRoot;

use crate::caller::{
    CallerError, ClientSession, KeptDirectories, KeptDirectory, ReceiveRequest, Received, Sessions,
};
use crate::server::attributes::wrong;
use crate::server::builds::Build;
use crate::server::directories::ClientDirectories;
use crate::server::frontend::Inputs;
use crate::server::layouts::{copy_image, without_tag};

/// The name by which clients offer the context.
const CONTEXT: &str = "context";
/// The largest Dockerfile or ignore file, in bytes.
const MAX_TEXT_BYTES: u64 = 16 << 20;
/// The largest archive that a client sends as its context, in bytes.
const MAX_UPLOAD_BYTES: u64 = 64 << 30;
/// How long the session of a directory is waited for.
const SESSION_PATIENCE: Duration = Duration::from_secs(5);

/// What was read; the directories are there as long as this lives.
pub(super) struct Loaded {
    pub(super) context: Context,
    pub(super) dockerfile: DockerfileSource,
    pub(super) contexts: Vec<NamedContext>,
    pub(super) policies: SourcePolicies,
    _directories: Vec<KeptDirectory>,
    _scratch: tempfile::TempDir,
}

/// Reads the client's part of a build.
pub(super) async fn load(
    build: &Build,
    sessions: &Sessions,
    attributes: &BTreeMap<String, String>,
    inputs: &Inputs,
) -> Result<Loaded, BuildError> {
    let reader = Reader { build, sessions, attributes, inputs, scratch: build.services.scratch()? };
    let get = |key: &str| attributes.get(key).map(String::as_str).filter(|value| !value.is_empty());
    let context_key = get("contextkey").unwrap_or("context");
    let file_name = get("filename").unwrap_or("Dockerfile");
    let mut directories = Vec::new();
    let (context, dockerfile) = match get(context_key) {
        None if inputs.get(CONTEXT).is_some() || inputs.get(reader.dockerfile_name()).is_some() => {
            reader.of_inputs(file_name, &mut directories).await?
        }
        None => {
            let (dockerfile, kept) = reader.local_dockerfile(file_name).await?;
            directories.push(kept);
            // What steps read of it comes when they are known.
            (Context::Distant(reader.directory("context", "internal")), DockerfileSource::File(dockerfile))
        }
        Some(url) if url.starts_with("http://buildkit-session/") => {
            let archive = reader.scratch.path().join("context");
            let session = build.session.as_ref().ok_or_else(no_session)?;
            session.upload(url, &archive, MAX_UPLOAD_BYTES).await?;
            reader.archive(archive, file_name, &mut directories).await?
        }
        Some(url) => {
            let context = match is_git(url) {
                true => Context::Git(url.to_owned()),
                false if url.starts_with("http://") || url.starts_with("https://") => {
                    Context::Http(url.to_owned())
                }
                false => return Err(wrong(format!("invalid context {url}: neither a directory nor a URL"))),
            };
            (context, reader.remote_dockerfile(file_name, &mut directories).await?)
        }
    };
    let context = match (get("contextsubdir"), context) {
        // Of a directory the client sends what it means.
        (None, context) | (_, context @ (Context::Directory(_) | Context::Distant(_) | Context::Empty)) => {
            context
        }
        (Some(path), of) => Context::Subdirectory { of: Box::new(of), path: path.to_owned() },
    };
    let contexts = reader.named_contexts().await?;
    let policies = match &build.request.source_policy {
        None => SourcePolicies::default(),
        Some(message) => {
            let directories = Arc::new(reader.directories());
            SourcePolicies::new(&[crate::policy::read(message)?])?.with_directories(directories)
        }
    };
    Ok(Loaded {
        context,
        dockerfile,
        contexts,
        policies,
        _directories: directories,
        _scratch: reader.scratch,
    })
}

struct Reader<'a> {
    build: &'a Build,
    sessions: &'a Sessions,
    attributes: &'a BTreeMap<String, String>,
    inputs: &'a Inputs,
    scratch: tempfile::TempDir,
}

impl Reader<'_> {
    /// Returns the session that has a directory: the build's, unless the attributes name another.
    async fn session_of(&self, name: &str) -> Result<ClientSession, CallerError> {
        match self.attributes.get(&format!("local-sessionid:{name}")) {
            Some(id) => self.sessions.find(id, SESSION_PATIENCE).await,
            None => match &self.build.session {
                Some(session) => Ok(session.clone()),
                None => Err(CallerError::NoSession { id: self.build.request.session.clone() }),
            },
        }
    }

    async fn receive(
        &self,
        name: &str,
        purpose: &str,
        selection: ReceiveRequest,
        progress: impl Fn(Received) + Send + 'static,
    ) -> Result<(KeptDirectory, Received), CallerError> {
        let session = self.session_of(name).await?;
        let kept = KeptDirectories::of_store(self.build.services.root());
        let kept = kept.lease(&session, purpose)?;
        let request = ReceiveRequest { name: name.to_owned(), ..selection };
        let received = session.receive_directory(&request, &kept, progress).await?;
        Ok((kept, received))
    }

    /// Returns the name by which the client offers the Dockerfile.
    fn dockerfile_name(&self) -> &str {
        self.attributes.get("dockerfilekey").map_or("dockerfile", String::as_str)
    }

    /// Reads the Dockerfile of the client's directory for it; returns our copy, beside which the ignore file of
    /// its own stands when there is one.
    async fn local_dockerfile(&self, file_name: &str) -> Result<(PathBuf, KeptDirectory), BuildError> {
        let name = self.dockerfile_name();
        let lower = lower_case_name(file_name);
        let mut follow_paths = vec![file_name.to_owned(), format!("{file_name}.dockerignore")];
        follow_paths.extend(lower.clone());
        let selection = ReceiveRequest { follow_paths, ..ReceiveRequest::default() };
        let (kept, _) =
            self.receive(name, &format!("dockerfile {name} {file_name}"), selection, |_| {}).await?;
        let dockerfile = self.keep_dockerfile(&open(kept.path())?, file_name)?;
        Ok((dockerfile, kept))
    }

    /// Copies the Dockerfile of a tree, and an ignore file of its own, to files of ours; returns the Dockerfile's.
    fn keep_dockerfile(&self, tree: &TreeRoot, file_name: &str) -> Result<PathBuf, BuildError> {
        let lower = lower_case_name(file_name);
        let is_there = |name: &str| tree.metadata(name).is_ok_and(|found| found.is_some());
        let found = match lower {
            Some(lower) if !is_there(file_name) && is_there(&lower) => lower,
            _ => file_name.to_owned(),
        };
        if !is_there(&found) {
            let message = format!("failed to read dockerfile: open {file_name}: no such file or directory");
            return Err(BuildError::new(ErrorKind::Dockerfile, message));
        }
        let bytes = read(tree, &found, "failed to read dockerfile")?;
        let ignore_name = format!("{file_name}.dockerignore");
        let ignored = match is_there(&ignore_name) {
            true => Some(read(tree, &ignore_name, "failed to read dockerignore")?),
            false => None,
        };
        let path = self.scratch.path().join("dockerfile").join(base_name(&found));
        let write = |path: &Path, bytes: &[u8]| {
            let directory = path.parent().unwrap_or(Path::new("/"));
            std::fs::create_dir_all(directory)
                .and_then(|()| std::fs::write(path, bytes))
                .map_err(|error| BuildError::io("can't write", path, &error))
        };
        write(&path, &bytes)?;
        if let Some(ignored) = ignored {
            let mut beside = path.clone().into_os_string();
            beside.push(".dockerignore");
            write(Path::new(&beside), &ignored)?;
        }
        Ok(path)
    }

    /// Returns a directory of the client's, whose files come when it is known which are read.
    fn directory(&self, name: &str, label: &str) -> Distant {
        self.directories().directory(name, label)
    }

    fn directories(&self) -> ClientDirectories {
        let prefix = "local-sessionid:";
        let owners = self.attributes.iter();
        let owners = owners.filter_map(|(key, id)| Some((key.strip_prefix(prefix)?.to_owned(), id.clone())));
        ClientDirectories {
            sessions: self.sessions.clone(),
            session: self.build.session.clone(),
            session_id: self.build.request.session.clone(),
            owners: owners.collect(),
            kept: KeptDirectories::new(&self.build.services.root().join("contexts")),
        }
    }

    /// Takes what a client has sent as its context: an archive, or else a Dockerfile alone.
    async fn archive(
        &self,
        file: PathBuf,
        file_name: &str,
        directories: &mut Vec<KeptDirectory>,
    ) -> Result<(Context, DockerfileSource), BuildError> {
        let failed = |error: std::io::Error| BuildError::io("can't read", &file, &error);
        if !is_archive(&file).map_err(failed)? {
            let bytes = std::fs::read(&file).map_err(failed)?;
            return Ok((Context::Empty, DockerfileSource::Text(bytes)));
        }
        let dockerfile = self.remote_dockerfile(file_name, directories).await?;
        Ok((Context::Archive(file), dockerfile))
    }

    /// Returns where the Dockerfile of a context that is no directory of the client's is: in that context,
    /// unless the client has it.
    async fn remote_dockerfile(
        &self,
        file_name: &str,
        directories: &mut Vec<KeptDirectory>,
    ) -> Result<DockerfileSource, BuildError> {
        if !self.attributes.contains_key("dockerfilekey") {
            return Ok(DockerfileSource::InContext(file_name.to_owned()));
        }
        let (dockerfile, kept) = self.local_dockerfile(file_name).await?;
        directories.push(kept);
        Ok(DockerfileSource::File(dockerfile))
    }

    /// Reads the named contexts, `context:NAME` and `context:NAME::PLATFORM`.
    async fn named_contexts(&self) -> Result<Vec<NamedContext>, BuildError> {
        let mut contexts = Vec::new();
        for (key, value) in self.attributes {
            let Some(name) = key.strip_prefix("context:") else { continue };
            let (name, platform) = match name.split_once("::") {
                Some((name, platform)) => {
                    let platform: Platform =
                        platform.parse().map_err(|error: polyarch_oci::PlatformError| {
                            BuildError::from_source(ErrorKind::Usage, format!("the context {name}"), &error)
                        })?;
                    (name, Some(platform.normalized()))
                }
                None => (name, None),
            };
            let wrong_value = || wrong(format!("invalid context specifier {value} for {name}"));
            let source = match value.split_once(':').ok_or_else(wrong_value)? {
                ("local", directory) => {
                    ContextSource::Distant(self.directory(directory, &format!("context {name}")))
                }
                ("input", input) => {
                    let missing = || wrong(format!("invalid input {input} for {name}"));
                    let tree = self.inputs.get(input).ok_or_else(missing)?;
                    let built = tree.evaluation.evaluated.built_tree(tree.platform);
                    ContextSource::Built(Box::new(built.ok_or_else(missing)?))
                }
                ("oci-layout", rest) => {
                    ContextSource::StoredLayout(self.layout(name, rest.trim_start_matches("//")).await?)
                }
                // The slashes are not always there.
                ("docker-image", image) => {
                    ContextSource::parse(&format!("docker-image://{}", image.trim_start_matches('/')))
                        .map_err(|error| wrong(error.to_string()))?
                        .ok_or_else(wrong_value)?
                }
                _ => ContextSource::parse(value)
                    .map_err(|error| wrong(error.to_string()))?
                    .ok_or_else(wrong_value)?,
            };
            let name = NamedContext::canonical_name(name).map_err(|error| wrong(error.to_string()))?;
            contexts.push(NamedContext { name, platform, source });
        }
        Ok(contexts)
    }

    /// Brings an image of a layout of the client's here; returns a name by which the store has it.
    async fn layout(&self, name: &str, source: &str) -> Result<Reference, BuildError> {
        let wrong_source =
            || wrong(format!("oci-layout reference {source:?} is not of the form STORE@DIGEST"));
        let (store, digest) = source.split_once('@').ok_or_else(wrong_source)?;
        let digest: Digest = digest.parse().map_err(|_| wrong_source())?;
        let named: Reference =
            name.parse().map_err(|_| wrong(format!("{name} is not a name that an image could have")))?;
        let session = self.session_of(name).await?;
        let vertex = self
            .build
            .progress()
            .begin(&format!("layout {name}"), format!("[context {name}] OCI load from client"));
        let store = format!("oci:{}", without_tag(store));
        let copied = copy_image(&session, &store, &digest, &self.build.services).await;
        match copied {
            Ok(_) => {
                vertex.done();
                Ok(named.with_digest(digest))
            }
            Err(error) => {
                vertex.failed(&error);
                Err(error)
            }
        }
    }
}

fn no_session() -> BuildError {
    wrong("the build has no session, and its context would come through it")
}

/// Tells whether a URL is that of a git repository, as BuildKit tells them apart.
fn is_git(url: &str) -> bool {
    let base = url.split(['#', '?']).next().unwrap_or(url);
    let is_web = url.starts_with("http://") || url.starts_with("https://");
    let has_scheme = ["git://", "ssh://", "git@", "github.com/"].iter().any(|start| url.starts_with(start));
    has_scheme || is_web && base.ends_with(".git")
}

fn open(directory: &Path) -> Result<TreeRoot, BuildError> {
    TreeRoot::open(directory).map_err(|error| {
        BuildError::from_source(ErrorKind::Storage, "can't open a client's directory", &error)
    })
}

fn read(tree: &TreeRoot, name: &str, what: &str) -> Result<Vec<u8>, BuildError> {
    tree.read(name, MAX_TEXT_BYTES)
        .map_err(|error| BuildError::from_source(ErrorKind::Dockerfile, what, &error))
}

fn base_name(path: &str) -> &str {
    path.rsplit('/').find(|part| !matches!(*part, "" | "." | "..")).unwrap_or("Dockerfile")
}

/// A file `Dockerfile` may also be called `dockerfile`.
fn lower_case_name(path: &str) -> Option<String> {
    let directory = path.strip_suffix("Dockerfile")?;
    (directory.is_empty() || directory.ends_with('/')).then(|| format!("{directory}dockerfile"))
}

/// Tells whether a file is a tar archive, possibly compressed.
fn is_archive(path: &Path) -> std::io::Result<bool> {
    use std::io::Read as _;
    let mut head = Vec::new();
    std::fs::File::open(path)?.take(512).read_to_end(&mut head)?;
    let compressed: [&[u8]; 4] = [b"\x1f\x8b\x08", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"];
    let is_tar = head.get(257..262) == Some(b"ustar".as_slice());
    Ok(is_tar || compressed.iter().any(|magic| head.starts_with(magic)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_dockerfiles_have_no_directories() {
        assert_eq!(base_name("../../etc/Dockerfile"), "Dockerfile");
        assert_eq!(base_name("a/.."), "a");
        assert_eq!(base_name(".."), "Dockerfile");
        assert_eq!(lower_case_name("sub/Dockerfile").as_deref(), Some("sub/dockerfile"));
        assert_eq!(lower_case_name("My.Dockerfile"), None);
    }
}
