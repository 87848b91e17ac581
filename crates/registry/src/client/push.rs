// SPDX-License-Identifier: Apache-2.0
//! Blobs on their way out: looked for, mounted, or uploaded; each at most once at a time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use http::{Method, StatusCode};
use polyarch_oci::{Descriptor, Digest, Reference};

use super::call::{Call, Subject};
use super::challenge::Scopes;
use super::endpoint::Endpoint;
use super::host::{Attempts, Permission};
use super::upload::{Upload, UploadSession};
use super::{BlobSource, Client, MountOutcome, Progress, PushOutcome};
use crate::api;
use crate::error::RegistryError;

/// Repositories that are asked for a blob before it is uploaded.
const MAX_MOUNT_CANDIDATES: usize = 3;

/// The blobs that are being pushed: repository (with host) and digest.
#[derive(Default)]
pub(super) struct Running {
    locks: Mutex<HashMap<(String, Digest), PushLock>>,
}

type PushLock = Arc<tokio::sync::Mutex<bool>>;

impl Running {
    /// Returns the lock of one blob; its value tells whether a push of it has just succeeded.
    fn lock_of(&self, key: &(String, Digest)) -> PushLock {
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        // Locks that only the map holds are done with. A registry may delete a blob later, so that it
        // has once been pushed is not remembered for longer.
        locks.retain(|_, lock| Arc::strong_count(lock) > 1);
        locks.entry(key.clone()).or_default().clone()
    }
}

impl Client {
    /// Tells whether a repository has a blob. Asks the origin, not the mirrors.
    ///
    /// # Errors
    /// Whatever keeps the registry from answering.
    pub async fn blob_exists(
        &self,
        repository: &Reference,
        blob: &Descriptor,
    ) -> Result<bool, RegistryError> {
        let origin = self.origin(repository);
        let permission = permission(&origin, Scopes::pull(&origin.repository));
        exists(&origin, repository, blob, &permission).await
    }

    /// Asks a registry to take a blob from another of its repositories.
    ///
    /// # Errors
    /// Whatever keeps the registry from answering. That it does not mount is no error.
    pub async fn mount_blob(
        &self,
        target: &Reference,
        blob: &Descriptor,
        from: &Reference,
    ) -> Result<MountOutcome, RegistryError> {
        let origin = self.origin(target);
        match mount(&origin, target, blob, from).await? {
            Some(outcome) => Ok(outcome),
            None => UploadSession::start(&origin, target).await.map(MountOutcome::Upload),
        }
    }

    /// Brings a blob into a repository: looks whether it is there, mounts it from one of the
    /// repositories in `mount_from` that are on the same host, else uploads it.
    ///
    /// The same blob pushed into the same repository by several callers at once is uploaded once.
    ///
    /// # Errors
    /// [`RegistryError::Source`] when the source cannot be read; the registry's refusals; what
    /// remains of connection errors after retries.
    pub async fn push_blob<S: BlobSource + ?Sized>(
        &self,
        repository: &Reference,
        blob: &Descriptor,
        source: &S,
        mount_from: &[Reference],
        progress: &Progress,
    ) -> Result<PushOutcome, RegistryError> {
        let lock = self.running().lock_of(&(repository.name(), blob.digest.clone()));
        let mut is_done = lock.lock().await;
        if *is_done {
            return Ok(PushOutcome::Existed);
        }
        let outcome = self.push_alone(repository, blob, source, mount_from, progress).await?;
        *is_done = true;
        Ok(outcome)
    }

    async fn push_alone<S: BlobSource + ?Sized>(
        &self,
        repository: &Reference,
        blob: &Descriptor,
        source: &S,
        mount_from: &[Reference],
        progress: &Progress,
    ) -> Result<PushOutcome, RegistryError> {
        let origin = self.origin(repository);
        let _permit = origin.host.uploads.acquire().await;
        let push = permission(&origin, Scopes::push(&origin.repository));
        if exists(&origin, repository, blob, &push).await? {
            return Ok(PushOutcome::Existed);
        }
        let is_candidate = |from: &&Reference| {
            from.host() == repository.host() && from.repository() != repository.repository()
        };
        let mut session: Option<UploadSession> = None;
        for from in mount_from.iter().filter(is_candidate).take(MAX_MOUNT_CANDIDATES) {
            match mount(&origin, repository, blob, from).await? {
                Some(MountOutcome::Mounted) => {
                    if let Some(unused) = session {
                        unused.cancel().await;
                    }
                    return Ok(PushOutcome::Mounted { from: from.clone() });
                }
                Some(MountOutcome::Upload(opened)) => {
                    if let Some(unused) = session.replace(opened) {
                        unused.cancel().await;
                    }
                }
                None => {}
            }
        }
        let session = match session {
            Some(session) => session,
            None => UploadSession::start(&origin, repository).await?,
        };
        Upload::new(&origin, repository, blob, source, progress).run(session).await?;
        Ok(PushOutcome::Uploaded)
    }

    /// Sends a blob into an upload that [`Client::mount_blob`] has opened.
    ///
    /// # Errors
    /// As [`Client::push_blob`].
    pub async fn upload_blob<S: BlobSource + ?Sized>(
        &self,
        repository: &Reference,
        blob: &Descriptor,
        session: UploadSession,
        source: &S,
        progress: &Progress,
    ) -> Result<(), RegistryError> {
        let origin = self.origin(repository);
        let _permit = origin.host.uploads.acquire().await;
        Upload::new(&origin, repository, blob, source, progress).run(session).await
    }
}

pub(super) fn permission(endpoint: &Endpoint, scopes: Scopes) -> Permission {
    Permission { repository: endpoint.repository.clone(), scopes }
}

/// Asks whether a blob is there, with the permission that what follows will need as well.
pub(super) async fn exists(
    origin: &Endpoint,
    repository: &Reference,
    blob: &Descriptor,
    permission: &Permission,
) -> Result<bool, RegistryError> {
    let path = api::blob_path(&origin.repository, &blob.digest);
    let text = format!("look for blob {} in {}", blob.digest, repository.name());
    let subject = Subject::Blob(repository.name(), blob.digest.clone());
    let call: Call = origin.host.call(Method::HEAD, &path, text, subject).await?;
    match origin.host.send(&call, permission, Attempts::ByPolicy).await {
        Ok(_) => Ok(true),
        Err(error) if error.is_not_found() => Ok(false),
        Err(error) => Err(error),
    }
}

/// Tries to mount a blob; `None` when the registry answers neither with the blob nor with an upload.
async fn mount(
    origin: &Endpoint,
    target: &Reference,
    blob: &Descriptor,
    from: &Reference,
) -> Result<Option<MountOutcome>, RegistryError> {
    let path = api::uploads_path(&origin.repository);
    let text = format!("mount blob {} of {} into {}", blob.digest, from.name(), target.name());
    let mut call = origin
        .host
        .call(Method::POST, &path, text, Subject::Upload(target.name()))
        .await?
        .header("content-length", "0");
    call.url
        .query_pairs_mut()
        .append_pair("mount", &blob.digest.to_string())
        .append_pair("from", from.repository());
    let scopes = Scopes::push(&origin.repository).and(from.repository(), &["pull"]);
    let answer = match origin.host.send(&call, &permission(origin, scopes), Attempts::ByPolicy).await {
        Ok(answer) => answer,
        // The source may be gone or closed to us; an upload needs nothing of it.
        Err(error) if matches!(error.status(), Some(400..=405)) => {
            tracing::debug!(%error, "not mounted");
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    match answer.status() {
        StatusCode::CREATED => Ok(Some(MountOutcome::Mounted)),
        StatusCode::ACCEPTED => {
            UploadSession::opened(origin, target, &answer, &call).map(MountOutcome::Upload).map(Some)
        }
        other => Err(call.protocol_error(format!("status {} to a mount", other.as_u16()))),
    }
}
