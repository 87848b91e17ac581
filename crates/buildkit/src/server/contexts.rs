// SPDX-License-Identifier: Apache-2.0
//! What a Dockerfile build reads of its client: the Dockerfile, the ignore file, contexts.
//!
//! The directories of a client are copied to this machine, each into one of its own. A Dockerfile is read
//! beneath that directory and put into a file of ours, so that a symlink of the client's leads nowhere else.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use polyarch_build::named_context::{ContextSource, NamedContext};
use polyarch_build::request::{Context, DockerfileSource};
use polyarch_build::{BuildError, ErrorKind};
use polyarch_dockerfile::{Dockerfile, IgnoreRules, InstructionKind};
use polyarch_oci::{Digest, Platform, Reference};
use polyarch_snapshot::TreeRoot;
use polyarch_solver::progress::ActiveVertex;

use crate::caller::{
    CallerError, ClientSession, KeptDirectories, KeptDirectory, ReceiveRequest, Received, Sessions,
};
use crate::server::attributes::wrong;
use crate::server::builds::Build;
use crate::server::frontend::Inputs;
use crate::server::layouts::copy_image;

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
        None => {
            let (dockerfile, kept) = reader.local_dockerfile(file_name).await?;
            directories.push(kept);
            let context = match reader.local_context(&dockerfile).await {
                Ok(kept) => {
                    let context = Context::Directory(kept.path().to_owned());
                    directories.push(kept);
                    context
                }
                // A client need not offer what the Dockerfile doesn't read.
                Err(CallerError::Refused { .. } | CallerError::NotOffered { .. })
                    if !dockerfile.reads_context =>
                {
                    Context::Empty
                }
                Err(error) => return Err(error.into()),
            };
            (context, DockerfileSource::File(dockerfile.path))
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
        (None, context) | (_, context @ (Context::Directory(_) | Context::Empty)) => context,
        (Some(path), of) => Context::Subdirectory { of: Box::new(of), path: path.to_owned() },
    };
    let contexts = reader.named_contexts(&mut directories).await?;
    Ok(Loaded { context, dockerfile, contexts, _directories: directories, _scratch: reader.scratch })
}

struct Reader<'a> {
    build: &'a Build,
    sessions: &'a Sessions,
    attributes: &'a BTreeMap<String, String>,
    inputs: &'a Inputs,
    scratch: tempfile::TempDir,
}

/// A Dockerfile that was read.
struct ReadDockerfile {
    /// Our copy.
    path: PathBuf,
    /// Whether an ignore file of its own stands beside it.
    has_ignore_file: bool,
    /// Whether it may read the context; bases may, with their triggers, but those are not known yet.
    reads_context: bool,
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
        let kept = KeptDirectories::new(&self.build.services.root().join("contexts"));
        let kept = kept.lease(&session, purpose)?;
        let request = ReceiveRequest { name: name.to_owned(), ..selection };
        let received = session.receive_directory(&request, &kept, progress).await?;
        Ok((kept, received))
    }

    /// Reads the Dockerfile of the client's directory for it.
    async fn local_dockerfile(&self, file_name: &str) -> Result<(ReadDockerfile, KeptDirectory), BuildError> {
        let name = self.attributes.get("dockerfilekey").map_or("dockerfile", String::as_str);
        let lower = lower_case_name(file_name);
        let mut follow_paths = vec![file_name.to_owned(), format!("{file_name}.dockerignore")];
        follow_paths.extend(lower.clone());
        let selection = ReceiveRequest { follow_paths, ..ReceiveRequest::default() };
        let (kept, _) =
            self.receive(name, &format!("dockerfile {name} {file_name}"), selection, |_| {}).await?;
        let tree = open(kept.path())?;
        let is_there = |name: &str| tree.metadata(name).is_ok_and(|found| found.is_some());
        let found = match lower {
            Some(lower) if !is_there(file_name) && is_there(&lower) => lower,
            _ => file_name.to_owned(),
        };
        if !is_there(&found) {
            let message = format!("failed to read dockerfile: open {file_name}: no such file or directory");
            return Err(BuildError::new(ErrorKind::Dockerfile, message));
        }
        let bytes = read(&tree, &found, "failed to read dockerfile")?;
        let ignore_name = format!("{file_name}.dockerignore");
        let ignored = match is_there(&ignore_name) {
            true => Some(read(&tree, &ignore_name, "failed to read dockerignore")?),
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
        let has_ignore_file = ignored.is_some();
        if let Some(ignored) = ignored {
            let mut beside = path.clone().into_os_string();
            beside.push(".dockerignore");
            write(Path::new(&beside), &ignored)?;
        }
        Ok((ReadDockerfile { path, has_ignore_file, reads_context: reads_context(&bytes) }, kept))
    }

    /// Brings the client's context here, without what its ignore file leaves out.
    async fn local_context(&self, dockerfile: &ReadDockerfile) -> Result<KeptDirectory, CallerError> {
        let name = "context";
        let progress = self.build.progress();
        let ignored = match dockerfile.has_ignore_file {
            true => {
                let mut beside = dockerfile.path.clone().into_os_string();
                beside.push(".dockerignore");
                std::fs::read(&beside).ok()
            }
            false => {
                let vertex = progress.begin("load dockerignore", "[internal] load .dockerignore");
                let ignored = self.ignore_file(name).await;
                end(vertex, &ignored);
                ignored?
            }
        };
        // Rules that make no sense are told by the build, which reads them again.
        let exclude = ignored.and_then(|bytes| IgnoreRules::patterns(&bytes).ok()).unwrap_or_default();
        let vertex = progress.begin("load build context", "[internal] load build context");
        let (sender, mut received) = tokio::sync::mpsc::unbounded_channel();
        let selection = ReceiveRequest { exclude, ..ReceiveRequest::default() };
        let told = move |received| {
            // Nobody asks any more when the transfer has ended.
            let _ = sender.send(received);
        };
        let receiving = self.receive(name, "context", selection, told);
        let mut status = vertex.status("transferring context:", 0);
        tokio::pin!(receiving);
        let result = loop {
            tokio::select! {
                result = &mut receiving => break result,
                Some(so_far) = received.recv() => status.update(so_far.bytes),
            }
        };
        if let Ok((_, all)) = &result {
            status.update(all.bytes);
        }
        drop(status);
        end(vertex, &result);
        result.map(|(kept, _)| kept)
    }

    async fn ignore_file(&self, name: &str) -> Result<Option<Vec<u8>>, CallerError> {
        let selection =
            ReceiveRequest { follow_paths: vec![".dockerignore".to_owned()], ..ReceiveRequest::default() };
        let (kept, _) = self.receive(name, &format!("dockerignore {name}"), selection, |_| {}).await?;
        let tree = TreeRoot::open(kept.path()).map_err(|error| CallerError::Write {
            path: kept.path().to_owned(),
            source: std::io::Error::other(error),
        })?;
        Ok(tree.read(".dockerignore", MAX_TEXT_BYTES).ok())
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
        Ok(DockerfileSource::File(dockerfile.path))
    }

    /// Reads the named contexts, `context:NAME` and `context:NAME::PLATFORM`.
    async fn named_contexts(
        &self,
        directories: &mut Vec<KeptDirectory>,
    ) -> Result<Vec<NamedContext>, BuildError> {
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
                    let kept = self.named_directory(name, directory).await?;
                    let path = kept.path().to_owned();
                    directories.push(kept);
                    ContextSource::Directory(path)
                }
                ("input", input) => {
                    let built = self.inputs.get(input);
                    let missing = || wrong(format!("invalid input {input} for {name}"));
                    ContextSource::Built(Box::new(built.ok_or_else(missing)?.clone()))
                }
                ("oci-layout", rest) => {
                    ContextSource::Image(self.layout(name, rest.trim_start_matches("//")).await?)
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
        let copied = copy_image(&session, store, &digest, self.build.services.store()).await;
        match copied {
            Ok(()) => {
                vertex.done();
                Ok(named.with_digest(digest))
            }
            Err(error) => {
                vertex.failed(&error);
                Err(error)
            }
        }
    }

    /// Brings the directory of a named context here, without what its ignore file leaves out.
    async fn named_directory(&self, name: &str, directory: &str) -> Result<KeptDirectory, CallerError> {
        let vertex = self
            .build
            .progress()
            .begin(&format!("context {name}"), format!("[context {name}] load from client"));
        let ignored = self.ignore_file(directory).await;
        let received = match ignored {
            Ok(ignored) => {
                let exclude =
                    ignored.and_then(|bytes| IgnoreRules::patterns(&bytes).ok()).unwrap_or_default();
                let selection = ReceiveRequest { exclude, ..ReceiveRequest::default() };
                self.receive(directory, &format!("context {directory}"), selection, |_| {}).await
            }
            Err(error) => Err(error),
        };
        end(vertex, &received);
        received.map(|(kept, _)| kept)
    }
}

fn no_session() -> BuildError {
    wrong("the build has no session, and its context would come through it")
}

fn end<T>(vertex: ActiveVertex, result: &Result<T, CallerError>) {
    match result {
        Ok(_) => vertex.done(),
        Err(error) => vertex.failed(error),
    }
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

/// Tells whether a Dockerfile names the context; one that can't be parsed will be told so anyway.
fn reads_context(bytes: &[u8]) -> bool {
    let Ok(dockerfile) = Dockerfile::parse_bytes(bytes) else { return false };
    dockerfile.stages.iter().flat_map(|stage| &stage.instructions).any(|instruction| {
        match &instruction.kind {
            InstructionKind::Copy(copy) => copy.from.is_none(),
            InstructionKind::Add(_) => true,
            InstructionKind::Run(run) => run.mounts.iter().any(|mount| mount.from().is_none()),
            _ => false,
        }
    })
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
    fn who_reads_the_context_is_known() {
        for (text, expected) in [
            ("FROM scratch\nCOPY a /\n", true),
            ("FROM scratch\nADD a /\n", true),
            ("FROM a AS a\nFROM scratch\nCOPY --from=a / /\n", false),
            ("FROM a\nRUN true\n", false),
            ("FROM a\nRUN --mount=target=/src true\n", true),
            ("FROM a\nRUN --mount=from=b,target=/src true\n", false),
            ("NONSENSE", false),
        ] {
            assert_eq!(reads_context(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn names_of_dockerfiles_have_no_directories() {
        assert_eq!(base_name("../../etc/Dockerfile"), "Dockerfile");
        assert_eq!(base_name("a/.."), "a");
        assert_eq!(base_name(".."), "Dockerfile");
        assert_eq!(lower_case_name("sub/Dockerfile").as_deref(), Some("sub/dockerfile"));
        assert_eq!(lower_case_name("My.Dockerfile"), None);
    }
}
