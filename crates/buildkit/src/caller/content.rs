// SPDX-License-Identifier: Apache-2.0
//! Blobs that a client holds, such as those of an OCI layout that it named as a context.

use std::future::ready;
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::{StreamExt as _, TryStreamExt as _};
use polyarch_oci::{Digest, Hasher};
use tokio::io::AsyncReadExt as _;
use tonic::{Code, Request};

use crate::api::content::{
    InfoRequest, ReadContentRequest, WriteAction, WriteContentRequest, WriteContentResponse,
};
use crate::api::methods::client;
use crate::caller::{CallerError, ClientSession};
use crate::session::{metadata, random_id};

const WHAT: &str = "read a blob of the client";
const WHAT_WRITE: &str = "give the client a blob";

/// The size of the pieces of a blob; some clients take only 4 MiB at a time.
const PIECE_BYTES: u64 = 1 << 20;

/// One of the client's stores.
#[derive(Debug, Clone)]
pub struct ClientContent {
    session: ClientSession,
    store: String,
}

impl ClientSession {
    /// Returns the client's store of a name.
    ///
    /// # Errors
    /// When the client offers none.
    pub fn content(&self, store: &str) -> Result<ClientContent, CallerError> {
        self.need(WHAT, client::CONTENT_READ.path())?;
        Ok(ClientContent { session: self.clone(), store: store.to_owned() })
    }
}

impl ClientContent {
    /// Returns the size of a blob, as the client says it.
    ///
    /// # Errors
    /// When the client has no such blob.
    pub async fn size(&self, digest: &Digest) -> Result<u64, CallerError> {
        let request = self.request(InfoRequest { digest: digest.to_string() });
        let answer = self.session.ask_with(WHAT, &client::CONTENT_INFO, request).await?;
        let size = answer.info.and_then(|info| u64::try_from(info.size).ok());
        size.ok_or_else(|| hostile(format!("no size of {digest}")))
    }

    /// Reads a small blob, such as a manifest, and checks that it is what its digest says.
    ///
    /// # Errors
    /// When the client has no such blob, it is over `max_bytes`, or has another digest.
    pub async fn read(&self, digest: &Digest, max_bytes: u64) -> Result<Vec<u8>, CallerError> {
        let mut bytes = Vec::new();
        self.copy(digest, max_bytes, &mut bytes).await?;
        Ok(bytes)
    }

    /// Writes a blob to a writer, and checks at the end that it is what its digest says: until then what
    /// was written must not be used. Returns its size.
    ///
    /// # Errors
    /// When the client has no such blob, it is over `max_bytes`, or has another digest; or it can't be
    /// written.
    pub async fn copy(
        &self,
        digest: &Digest,
        max_bytes: u64,
        into: &mut (dyn Write + Send),
    ) -> Result<u64, CallerError> {
        let request = ReadContentRequest { digest: digest.to_string(), offset: 0, size: 0 };
        let read = client::CONTENT_READ.call_for_stream(&self.session.0.channel, self.request(request));
        let mut pieces = self.session.within(WHAT, read).await?.into_inner();
        let mut hasher = Hasher::new(digest.algorithm());
        let mut size = 0u64;
        loop {
            let piece = self.session.within(WHAT, async { pieces.next().await.transpose() }).await?;
            let Some(piece) = piece else { break };
            if u64::try_from(piece.offset) != Ok(size) {
                return Err(hostile(format!("the pieces of {digest} out of order")));
            }
            size = size.saturating_add(piece.data.len() as u64);
            if size > max_bytes {
                return Err(hostile(format!("over {max_bytes} bytes for {digest}")));
            }
            hasher.update(&piece.data);
            let write = |source| CallerError::Write { path: digest.to_string().into(), source };
            into.write_all(&piece.data).map_err(write)?;
        }
        match hasher.finish() == *digest {
            true => Ok(size),
            false => Err(hostile(format!("something else as {digest}"))),
        }
    }

    /// Gives the client a blob, unless it has it.
    ///
    /// # Errors
    /// When the blob can't be read or the client fails to write it.
    pub async fn write(&self, digest: &Digest, size: u64, from: std::fs::File) -> Result<(), CallerError> {
        self.session.need(WHAT_WRITE, client::CONTENT_WRITE.path())?;
        if self.size(digest).await.is_ok() {
            return Ok(());
        }
        let total = i64::try_from(size).unwrap_or(i64::MAX);
        let random = random_id().map_err(|error| CallerError::Write {
            path: digest.to_string().into(),
            source: std::io::Error::other(error.to_string()),
        })?;
        let base = WriteContentRequest {
            action: WriteAction::Write.into(),
            // Another build may be writing the same blob.
            r#ref: format!("{digest}-{random}"),
            total,
            expected: digest.to_string(),
            ..WriteContentRequest::default()
        };
        let failed = Arc::new(Mutex::new(None));
        let noted = failed.clone();
        let state = Some((tokio::fs::File::from_std(from), 0u64));
        let pieces = futures_util::stream::unfold(state, move |state| {
            let (base, noted) = (base.clone(), noted.clone());
            async move {
                let (mut file, offset) = state?;
                let mut data = Vec::new();
                let read = (&mut file).take(PIECE_BYTES).read_to_end(&mut data).await;
                // A blob that can't be read to its end is never committed.
                if let Err(error) = read {
                    *noted.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                    return None;
                }
                let next = offset + data.len() as u64;
                let offset = i64::try_from(offset).unwrap_or(i64::MAX);
                match data.is_empty() {
                    true => {
                        let commit = WriteAction::Commit.into();
                        Some((WriteContentRequest { action: commit, offset, ..base }, None))
                    }
                    false => Some((WriteContentRequest { offset, data, ..base }, Some((file, next)))),
                }
            }
        });
        let write = async {
            let request = self.request(pieces);
            let answers = client::CONTENT_WRITE.open(&self.session.0.channel, request).await?;
            let is_commit = |answer: &WriteContentResponse| answer.action == i32::from(WriteAction::Commit);
            answers.try_fold(false, |is_there, answer| ready(Ok(is_there || is_commit(&answer)))).await
        };
        let write = async {
            match write.await {
                Err(status) if status.code() == Code::AlreadyExists => Ok(true),
                other => other,
            }
        };
        let is_there = self.session.within(WHAT_WRITE, write).await;
        if let Some(source) = failed.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(CallerError::Write { path: digest.to_string().into(), source });
        }
        match is_there? {
            true => Ok(()),
            false => Err(CallerError::Hostile {
                what: WHAT_WRITE,
                problem: format!("an end before {digest} was there"),
            }),
        }
    }

    fn request<Q>(&self, message: Q) -> Request<Q> {
        let mut request = Request::new(message);
        metadata::insert(
            request.metadata_mut(),
            "buildkit-attachable-store-id",
            std::slice::from_ref(&self.store),
        );
        metadata::insert(request.metadata_mut(), "containerd-namespace", &["buildkit".to_owned()]);
        request
    }
}

fn hostile(problem: String) -> CallerError {
    CallerError::Hostile { what: WHAT, problem }
}
