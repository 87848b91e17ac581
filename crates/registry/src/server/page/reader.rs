// SPDX-License-Identifier: Apache-2.0
//! Reading of a repository for one page: documents only, verified, and no more of them than a page may cost.

use std::sync::Arc;

use bytes::Bytes;
use polyarch_oci::{Digest, Hasher};

use super::documents::{ConfigDocument, Entry, ManifestDocument};
use crate::server::api_error::ApiError;
use crate::server::backend::Repository;
use crate::server::index::RepositoryIndex;
use crate::server::manifests::{Found, read};
use crate::server::state::{State, blocking};

/// The largest config that is shown, in bytes.
const MAX_CONFIG_BYTES: u64 = 4 << 20;
/// What one page may read in all, in bytes.
const MAX_PAGE_BYTES: u64 = 24 << 20;
/// How many blobs one page may look for.
const MAX_PAGE_BLOBS: usize = 4096;

/// Why a document isn't shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unread {
    /// The repository doesn't have it.
    Absent,
    /// Its bytes are damaged, or not what they should be.
    Unreadable,
    /// The page has read enough.
    Enough,
}

/// A repository that is read for a page.
pub(super) struct Reader {
    state: Arc<State>,
    pub(super) repository: Arc<Repository>,
    pub(super) index: Arc<RepositoryIndex>,
    bytes_left: u64,
    blobs_left: usize,
}

impl Reader {
    /// Opens a repository.
    ///
    /// # Errors
    /// When there is none of that name, or it can't be read.
    pub(super) async fn open(state: &Arc<State>, repository: Arc<Repository>) -> Result<Reader, ApiError> {
        let index =
            state.index(&repository).await?.ok_or_else(|| ApiError::name_unknown(&repository.name))?;
        let state = state.clone();
        Ok(Reader { state, repository, index, bytes_left: MAX_PAGE_BYTES, blobs_left: MAX_PAGE_BLOBS })
    }

    /// Tells whether the repository has a manifest.
    pub(super) fn has_manifest(&self, digest: &Digest) -> bool {
        self.index.find(digest).is_some()
    }

    /// Reads a manifest or an index.
    pub(super) async fn manifest(&mut self, digest: &Digest) -> Result<ManifestDocument, Unread> {
        let entry = self.index.find(digest).cloned().ok_or(Unread::Absent)?;
        self.pay(entry.size)?;
        let found = Found { digest: digest.clone(), entry };
        let bytes = read(&self.state, &self.repository, &found).await.map_err(|_| Unread::Unreadable)?;
        serde_json::from_slice(&bytes).map_err(|_| Unread::Unreadable)
    }

    /// Reads an image's config.
    pub(super) async fn config(&mut self, entry: &Entry) -> Result<ConfigDocument, Unread> {
        let (repository, digest) = (self.repository.clone(), entry.digest.clone());
        if entry.size > MAX_CONFIG_BYTES {
            return Err(Unread::Enough);
        }
        self.pay(entry.size)?;
        let read = blocking(move || read_config(&repository, &digest));
        let bytes = read.await.map_err(|_| Unread::Unreadable)??;
        serde_json::from_slice(&bytes).map_err(|_| Unread::Unreadable)
    }

    /// Returns the sizes of blobs as they are stored, `None` for those that aren't there. Fewer than asked for when the
    /// page has looked for enough.
    pub(super) async fn blob_sizes(&mut self, mut digests: Vec<Digest>) -> Vec<Option<u64>> {
        digests.truncate(self.blobs_left);
        self.blobs_left -= digests.len();
        let repository = self.repository.clone();
        let look = move || {
            let size = |digest: &Digest| Some(repository.open_blob(digest).ok()??.size);
            Ok::<_, ApiError>(digests.iter().map(size).collect())
        };
        blocking(look).await.unwrap_or_default()
    }

    fn pay(&mut self, bytes: u64) -> Result<(), Unread> {
        self.bytes_left = self.bytes_left.checked_sub(bytes).ok_or(Unread::Enough)?;
        Ok(())
    }
}

/// Reads a config; the outer error is the disk's.
fn read_config(repository: &Repository, digest: &Digest) -> Result<Result<Bytes, Unread>, ApiError> {
    let Some(content) = repository.open_blob(digest)? else { return Ok(Err(Unread::Absent)) };
    if content.size > MAX_CONFIG_BYTES {
        return Ok(Err(Unread::Enough));
    }
    let bytes = content.read(MAX_CONFIG_BYTES)?;
    let mut hasher = Hasher::new(digest.algorithm());
    hasher.update(&bytes);
    Ok(if hasher.finish() == *digest { Ok(bytes) } else { Err(Unread::Unreadable) })
}
