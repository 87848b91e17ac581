// SPDX-License-Identifier: Apache-2.0
//! The main context and the Dockerfile from elsewhere, brought to where local ones are read.

use std::io::Read;
use std::path::{Path, PathBuf};

use polyarch_solver::CancelFlag;

use super::git::GitSource;
use super::git_reference::GitReference;
use super::redaction::redacted;
use super::web::WebSource;
use crate::context::{MAX_TEXT_BYTES, unpack_archive};
use crate::error::{BuildError, ErrorKind};
use crate::frontend::SOURCE_DATE_EPOCH;
use crate::provenance::Material;
use crate::request::{BuildRequest, Context, DockerfileSource};
use crate::services::Services;
use crate::source_time::SourceTime;

/// The name of what a URL leads to, as in BuildKit.
const FILE_NAME: &str = "context";

/// A context and a Dockerfile of this machine.
#[derive(Debug)]
pub struct Localized {
    /// The context: never a remote one.
    pub context: Context,
    /// The Dockerfile: never a remote one.
    pub dockerfile: DockerfileSource,
    /// When the context changed, where that was told on the way.
    pub time: SourceTime,
    /// Holds what was fetched; to be kept for as long as the context is read.
    pub scratch: Option<tempfile::TempDir>,
    /// What was fetched.
    pub(crate) materials: Vec<Material>,
}

impl Services {
    /// Fetches the context and the Dockerfile of a request, where they are remote.
    ///
    /// # Errors
    /// When they can't be fetched, or are not what they should be, or the flag stops it.
    pub async fn localize(
        &self,
        request: &BuildRequest,
        cancel: &CancelFlag,
    ) -> Result<Localized, BuildError> {
        let mut materials = Vec::new();
        let dockerfile = match &request.dockerfile {
            DockerfileSource::Url(url) => {
                let scratch = self.scratch()?;
                let (path, _) = self.download(url, scratch.path(), &mut materials, cancel).await?;
                DockerfileSource::Text(read_text(&path, url)?)
            }
            other => other.clone(),
        };
        let url = match request.context.whole() {
            Context::Git(url) | Context::Http(url) => url,
            Context::Directory(_)
            | Context::Distant(_)
            | Context::Archive(_)
            | Context::Empty
            | Context::Subdirectory { .. } => {
                let (context, time) = (request.context.clone(), SourceTime::Unknown);
                return Ok(Localized { context, dockerfile, time, scratch: None, materials });
            }
        };
        let fetched = |directory| match &request.context {
            Context::Subdirectory { path, .. } => {
                Context::Subdirectory { of: Box::new(Context::Directory(directory)), path: path.clone() }
            }
            _ => Context::Directory(directory),
        };
        let scratch = self.scratch()?;
        if matches!(request.context.whole(), Context::Git(_)) {
            let parsed = GitReference::parse(url).map_err(|error| {
                BuildError::from_source(ErrorKind::Usage, format!("the context {}", redacted(url)), &error)
            })?;
            let mut reference = parsed.ok_or_else(|| {
                let url = redacted(url);
                BuildError::new(ErrorKind::Usage, format!("the context {url} is no git repository"))
            })?;
            let keep_git_dir = reference.keep_git_dir.unwrap_or(false)
                || request.build_args.iter().any(|(name, value)| {
                    name == "BUILDKIT_CONTEXT_KEEP_GIT_DIR" && matches!(value.as_str(), "1" | "true")
                });
            // Files of a repository have no times of their own; a build that fixes its time takes the commit's.
            let fixes_time =
                |(name, value): &(String, String)| name == SOURCE_DATE_EPOCH && !value.is_empty();
            reference.has_commit_times |= request.build_args.iter().any(fixes_time);
            let source = GitSource { reference, keep_git_dir };
            let secrets = request.steps.secrets.as_ref();
            let (directory, time, material) = source.directory(self, secrets, scratch.path(), cancel).await?;
            materials.push(material);
            let (context, time) = (fetched(directory), time.map_or(SourceTime::Unknown, SourceTime::At));
            return Ok(Localized { context, dockerfile, time, scratch: Some(scratch), materials });
        }
        let (path, time) = self.download(url, scratch.path(), &mut materials, cancel).await?;
        let time = time.map_or_else(|| SourceTime::Archive(path.clone()), SourceTime::At);
        let unpacked = scratch.path().join("unpacked");
        std::fs::create_dir(&unpacked).map_err(|error| BuildError::io("can't make", &unpacked, &error))?;
        unpack_archive(self, &path, &unpacked)?;
        let dockerfile = match dockerfile {
            // What is no archive is the Dockerfile itself.
            DockerfileSource::Default | DockerfileSource::InContext(_)
                if is_same(&path, &unpacked.join(FILE_NAME)) =>
            {
                DockerfileSource::Text(read_text(&path, url)?)
            }
            other => other,
        };
        Ok(Localized { context: fetched(unpacked), dockerfile, time, scratch: Some(scratch), materials })
    }

    /// Fetches a file into a directory, and adds it to what was fetched; returns also when it changed, if the
    /// server told.
    async fn download(
        &self,
        url: &str,
        directory: &Path,
        materials: &mut Vec<Material>,
        cancel: &CancelFlag,
    ) -> Result<(PathBuf, Option<i64>), BuildError> {
        let source = WebSource { url: url.to_owned(), file_name: FILE_NAME.to_owned(), checksum: None };
        let path = directory.join(FILE_NAME);
        let (material, time) = tokio::select! {
            downloaded = source.download(self, &path) => downloaded?,
            () = cancel.cancelled() => return Err(BuildError::cancelled()),
        };
        materials.push(material);
        Ok((path, time))
    }
}

/// Tells whether one file is a copy of another; what was unpacked of an archive never is one of the archive.
fn is_same(file: &Path, copy: &Path) -> bool {
    let size =
        |path: &Path| std::fs::symlink_metadata(path).ok().filter(|it| it.is_file()).map(|it| it.len());
    size(file).is_some_and(|size_bytes| size(copy) == Some(size_bytes))
}

fn read_text(path: &Path, url: &str) -> Result<Vec<u8>, BuildError> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_TEXT_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|error| BuildError::io("can't read", path, &error))?;
    if bytes.len() as u64 > MAX_TEXT_BYTES {
        let url = redacted(url);
        let message = format!("the Dockerfile {url} is larger than {} MiB", MAX_TEXT_BYTES >> 20);
        return Err(BuildError::new(ErrorKind::Dockerfile, message));
    }
    Ok(bytes)
}
