// SPDX-License-Identifier: Apache-2.0
//! What all requests share.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use http::header::CONTENT_LENGTH;
use http::{HeaderMap, HeaderValue};

use super::api_error::ApiError;
use super::backend::{Repository, Storage};
use super::cache::ManifestCache;
use super::index::RepositoryIndex;
use super::receive::BodyLimits;
use super::storage::StorageError;

/// Memory for manifests, in bytes.
const CACHE_BYTES: usize = 32 << 20;

/// What all requests share.
#[derive(Debug)]
pub(super) struct State {
    pub(super) storage: Storage,
    pub(super) manifests: ManifestCache,
    /// Images may lack blobs when they are pushed.
    pub(super) allows_missing_blobs: bool,
    /// The largest blob, in bytes.
    pub(super) max_blob_bytes: u64,
    /// The longest wait for a client.
    pub(super) stall: Duration,
}

impl State {
    pub(super) fn new(storage: Storage, options: &super::Limits, allows_missing_blobs: bool) -> State {
        State {
            manifests: ManifestCache::new(CACHE_BYTES),
            allows_missing_blobs,
            max_blob_bytes: options.max_blob_bytes,
            stall: options.stall,
            storage: storage.with_max_uploads(options.max_uploads),
        }
    }

    /// Returns the index of a repository as it is now; `None` when there is no such repository.
    pub(super) async fn index(
        &self,
        repository: &Arc<Repository>,
    ) -> Result<Option<Arc<RepositoryIndex>>, ApiError> {
        if let Some(index) = repository.known_index() {
            return Ok(Some(index));
        }
        let repository = repository.clone();
        blocking(move || Ok::<_, ApiError>(repository.index()?)).await
    }

    /// Returns what the body of a request may be.
    pub(super) fn body_limits(&self, headers: &HeaderMap, max_bytes: u64) -> BodyLimits {
        let expected = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        BodyLimits { max_bytes, stall: self.stall, expected }
    }
}

/// Does work that waits for the disk on a thread of its own.
pub(super) async fn blocking<T: Send + 'static, E: Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, ApiError>
where
    ApiError: From<E>,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => Ok(result?),
        Err(error) => Err(ApiError::internal(error)),
    }
}

/// Asks a repository something small: at once when it answers faster than a thread is found, else on one.
pub(super) async fn ask<T: Send + 'static>(
    repository: &Arc<Repository>,
    question: impl FnOnce(&Repository) -> Result<T, StorageError> + Send + 'static,
) -> Result<T, ApiError> {
    if repository.is_near() {
        return Ok(question(repository)?);
    }
    let repository = repository.clone();
    blocking(move || question(&repository)).await
}

/// Makes the value of a header from a name that was checked: digests, tags and paths of them.
pub(super) fn value(text: &(impl Display + ?Sized)) -> HeaderValue {
    // What was checked has only visible characters; an empty value would be a mistake here, not of the client.
    HeaderValue::from_str(&text.to_string()).unwrap_or_else(|_| HeaderValue::from_static(""))
}
