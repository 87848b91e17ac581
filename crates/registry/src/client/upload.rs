// SPDX-License-Identifier: Apache-2.0
//! One blob's upload (distribution-spec, "Pushing a blob").
//!
//! The whole blob goes in a single PUT, which every registry takes. Where that breaks, the registry is
//! asked how much it has, and the rest follows in PATCH pieces; where it does not know the session any
//! more, a new one begins, in pieces from the start. (The reference registry, up to version 2.8 at least,
//! is of this kind: it refuses to speak of a session whose last request broke off midway.) A registry, or
//! a proxy before it, that finds the body too large gets pieces, too.

use std::io;
use std::sync::Arc;

use http::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, LOCATION, RANGE};
use http::{Method, StatusCode};
use polyarch_oci::{Descriptor, Reference};
use url::Url;

use super::call::{Answer, Call, Subject};
use super::challenge::Scopes;
use super::endpoint::Endpoint;
use super::host::{Attempts, Host, Permission};
use super::push::{exists, permission};
use super::retry::Backoff;
use super::sending::{CLOSING_FACTOR, Outgoing, send_stream};
use super::{BlobSource, Progress};
use crate::api::{self, OCI_CHUNK_MIN_LENGTH};
use crate::error::RegistryError;

/// The largest piece that a registry may ask for, in bytes.
const MAX_PIECE_BYTES: u64 = 1 << 30;

/// An upload that a registry has opened; dropping it leaves its end to the registry.
pub struct UploadSession {
    host: Arc<Host>,
    permission: Permission,
    name: String,
    location: Url,
    min_piece_bytes: u64,
}

impl std::fmt::Debug for UploadSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The location's query can hold a signed state.
        write!(f, "UploadSession({} at {})", self.name, self.host.name)
    }
}

impl UploadSession {
    /// Opens an upload.
    pub(super) async fn start(
        origin: &Endpoint,
        repository: &Reference,
    ) -> Result<UploadSession, RegistryError> {
        let text = format!("start an upload to {}", repository.name());
        let subject = Subject::Upload(repository.name());
        let path = api::uploads_path(&origin.repository);
        let call = origin.host.call(Method::POST, &path, text, subject).await?.header(CONTENT_LENGTH, "0");
        let push = permission(origin, Scopes::push(&origin.repository));
        let answer = origin.host.send(&call, &push, Attempts::ByPolicy).await?;
        UploadSession::opened(origin, repository, &answer, &call)
    }

    /// Takes the upload that an answer tells of.
    pub(super) fn opened(
        origin: &Endpoint,
        repository: &Reference,
        answer: &Answer,
        call: &Call,
    ) -> Result<UploadSession, RegistryError> {
        let mut session = UploadSession {
            host: origin.host.clone(),
            permission: permission(origin, Scopes::push(&origin.repository)),
            name: repository.name(),
            location: answer.url.clone(),
            min_piece_bytes: 0,
        };
        if answer.header(LOCATION).is_none() {
            return Err(call.protocol_error("it opened an upload without saying where"));
        }
        session.moved(answer, call)?;
        let asked = answer.header(OCI_CHUNK_MIN_LENGTH).and_then(|text| text.parse::<u64>().ok());
        session.min_piece_bytes = asked.unwrap_or(0).min(MAX_PIECE_BYTES);
        Ok(session)
    }

    /// Takes note of where the upload goes on.
    fn moved(&mut self, answer: &Answer, call: &Call) -> Result<(), RegistryError> {
        let Some(location) = answer.header(LOCATION) else { return Ok(()) };
        let mut url = answer
            .url
            .join(location)
            .map_err(|_| call.protocol_error("the upload's location is not a URL"))?;
        // Registries behind a TLS proxy often believe that they are on plain HTTP.
        let is_believed_plain = answer.url.scheme() == "https" && url.scheme() == "http";
        if is_believed_plain {
            let is_same_host = url.host_str() == answer.url.host_str() && url.port() == answer.url.port();
            if !is_same_host || url.set_scheme("https").is_err() {
                return Err(call.protocol_error("the upload's location is on plain http"));
            }
        }
        if !matches!(url.scheme(), "http" | "https") {
            return Err(call.protocol_error("the upload's location is not on http"));
        }
        url.set_fragment(None);
        self.location = url;
        Ok(())
    }

    fn call(&self, method: Method, text: String) -> Call {
        self.host.call_url(method, self.location.clone(), text, Subject::Upload(self.name.clone()))
    }

    /// Asks how many bytes have arrived; `None` when the session cannot go on.
    async fn status(&mut self) -> Option<u64> {
        let call = self.call(Method::GET, format!("ask for the state of an upload to {}", self.name));
        let answer = self.host.send(&call, &self.permission, Attempts::Once).await.ok()?;
        let received = received_bytes(&answer)?;
        self.moved(&answer, &call).ok()?;
        Some(received)
    }

    /// Ends the upload, as a courtesy: registries also forget uploads by themselves.
    pub async fn cancel(self) {
        let call = self.call(Method::DELETE, format!("cancel an upload to {}", self.name));
        if let Err(error) = self.host.send(&call, &self.permission, Attempts::Once).await {
            tracing::debug!(%error, "upload not cancelled");
        }
    }
}

/// Reads `Range: 0-LAST` (also with `bytes=`): how many bytes have arrived.
///
/// `0-0` means one byte by the specification and none by the reference registry; none is the safe reading,
/// because then nothing is left out.
fn received_bytes(answer: &Answer) -> Option<u64> {
    let text = answer.header(RANGE)?;
    let last: u64 = text.trim_start_matches("bytes=").strip_prefix("0-")?.trim().parse().ok()?;
    Some(if last == 0 { 0 } else { last.checked_add(1)? })
}

/// A blob on its way into one repository.
pub(super) struct Upload<'a, S: ?Sized> {
    origin: &'a Endpoint,
    repository: &'a Reference,
    blob: &'a Descriptor,
    source: &'a S,
    progress: &'a Progress,
}

impl<'a, S: BlobSource + ?Sized> Upload<'a, S> {
    pub(super) fn new(
        origin: &'a Endpoint,
        repository: &'a Reference,
        blob: &'a Descriptor,
        source: &'a S,
        progress: &'a Progress,
    ) -> Upload<'a, S> {
        Upload { origin, repository, blob, source, progress }
    }

    pub(super) async fn run(&self, mut session: UploadSession) -> Result<(), RegistryError> {
        let options = &self.origin.host.transport.options;
        let mut backoff = Backoff::new(&options.retry);
        let mut offset = 0;
        let mut furthest = 0;
        let mut in_pieces = false;
        loop {
            let result = if in_pieces {
                self.send_pieces(&mut session, &mut offset).await
            } else {
                self.send_whole(&session).await
            };
            let Err(error) = result else { return Ok(()) };
            if error.status() == Some(413) && !in_pieces && self.blob.size > options.piece_bytes {
                tracing::debug!(%error, "sending the blob in pieces");
                in_pieces = true;
                session = UploadSession::start(self.origin, self.repository).await?;
                continue;
            }
            let is_session_lost = matches!(error.status(), Some(404 | 416)) || says_invalid_upload(&error);
            if !is_session_lost {
                if offset > furthest {
                    backoff.progressed();
                }
                backoff.wait(error).await?;
            } else {
                self.wait_for_new_session(&mut backoff, error).await?;
            }
            // The blob may have arrived while its answer got lost.
            let push = permission(self.origin, Scopes::push(&self.origin.repository));
            if exists(self.origin, self.repository, self.blob, &push).await? {
                return Ok(());
            }
            furthest = furthest.max(offset);
            in_pieces = true;
            offset = match session.status().await {
                Some(received) if received > 0 && received <= self.blob.size && !is_session_lost => received,
                _ => {
                    session = UploadSession::start(self.origin, self.repository).await?;
                    0
                }
            };
        }
    }

    /// Counts a lost session as a failure that may pass: a new session is another chance.
    async fn wait_for_new_session(
        &self,
        backoff: &mut Backoff<'_>,
        error: RegistryError,
    ) -> Result<(), RegistryError> {
        let as_broken = RegistryError::Broken {
            host: self.origin.host.name.clone(),
            request: self.text(),
            reason: "the registry lost the upload".to_owned(),
        };
        backoff.wait(as_broken).await.map_err(|_| error)
    }

    fn text(&self) -> String {
        format!("push blob {} to {}", self.blob.digest, self.repository.name())
    }

    /// Sends everything in one request.
    async fn send_whole(&self, session: &UploadSession) -> Result<(), RegistryError> {
        let call = self.closing(session);
        let answer = self.stream(&call, session, 0, self.blob.size).await?;
        self.expect(&answer, &call, StatusCode::CREATED)
    }

    /// Sends the rest in pieces. `offset` is what has arrived, also after an error.
    async fn send_pieces(&self, session: &mut UploadSession, offset: &mut u64) -> Result<(), RegistryError> {
        let piece = self.origin.host.transport.options.piece_bytes.max(session.min_piece_bytes).max(1);
        while *offset < self.blob.size {
            let length = piece.min(self.blob.size - *offset);
            let range = format!("{}-{}", *offset, *offset + length - 1);
            let call = session
                .call(Method::PATCH, self.text())
                .header(CONTENT_TYPE, "application/octet-stream")
                .header(CONTENT_RANGE, &range);
            let answer = self.stream(&call, session, *offset, length).await?;
            self.expect(&answer, &call, StatusCode::ACCEPTED)?;
            session.moved(&answer, &call)?;
            // A registry may have taken less than was sent, and then says so.
            let received = received_bytes(&answer).unwrap_or(*offset + length);
            if received <= *offset || received > *offset + length {
                return Err(call.protocol_error(format!(
                    "it says that {received} bytes have arrived after bytes {range} were sent"
                )));
            }
            *offset = received;
        }
        let mut call = self.closing(session).header(CONTENT_LENGTH, "0");
        call.limit = self.origin.host.transport.options.stall_timeout * CLOSING_FACTOR;
        let answer = session.host.send(&call, &session.permission, Attempts::Once).await?;
        self.expect(&answer, &call, StatusCode::CREATED)
    }

    fn closing(&self, session: &UploadSession) -> Call {
        let mut call =
            session.call(Method::PUT, self.text()).header(CONTENT_TYPE, "application/octet-stream");
        call.url.query_pairs_mut().append_pair("digest", &self.blob.digest.to_string());
        call
    }

    /// Sends `length` bytes from `offset`; after a 401 once more.
    async fn stream(
        &self,
        call: &Call,
        session: &UploadSession,
        offset: u64,
        length: u64,
    ) -> Result<Answer, RegistryError> {
        let source_error =
            |source: io::Error| RegistryError::Source { digest: Box::new(self.blob.digest.clone()), source };
        let mut is_first = true;
        loop {
            let reader = self.source.open(offset).await.map_err(source_error)?;
            let outgoing = Outgoing { reader, offset, length, progress: self.progress.clone() };
            match send_stream(session, call, outgoing).await {
                Ok(answer) if answer.status() == StatusCode::UNAUTHORIZED && is_first => {
                    is_first = false;
                    if !session.host.challenged(&answer, &session.permission.scopes) {
                        return session.checked(answer, call).await;
                    }
                }
                Ok(answer) => return session.checked(answer, call).await,
                Err(super::sending::SendError::Source(source)) => return Err(source_error(source)),
                Err(super::sending::SendError::Registry(error)) => return Err(error),
            }
        }
    }

    fn expect(&self, answer: &Answer, call: &Call, expected: StatusCode) -> Result<(), RegistryError> {
        let status = answer.status();
        // Some registries answer 204 instead of 202, and 202 instead of 201 for what they store later.
        if status == expected || matches!(status.as_u16(), 200..=204) {
            return Ok(());
        }
        Err(call.protocol_error(format!("status {}, expected {}", status.as_u16(), expected.as_u16())))
    }
}

fn says_invalid_upload(error: &RegistryError) -> bool {
    error.refusal().is_some_and(|refusal| {
        refusal.body.has_code("BLOB_UPLOAD_UNKNOWN")
            || (refusal.body.has_code("BLOB_UPLOAD_INVALID") && !refusal.body.has_code("DIGEST_INVALID"))
    })
}

impl UploadSession {
    /// Returns what to send with a request of this upload.
    pub(super) async fn authorization(
        &self,
        call: &Call,
    ) -> Result<super::auth::Authorization, RegistryError> {
        self.host.authorize(call, &self.permission, &self.permission.scopes).await
    }

    /// Returns the host's connections.
    pub(super) fn transport(&self) -> &super::transport::Transport {
        &self.host.transport
    }

    async fn checked(&self, answer: Answer, call: &Call) -> Result<Answer, RegistryError> {
        let credentials = self.authorization(call).await?.credentials;
        super::call::check(answer, call, &self.permission.scopes.to_string(), credentials).await
    }
}
