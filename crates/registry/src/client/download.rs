// SPDX-License-Identifier: Apache-2.0
//! Blobs on their way in: verified, and continued where a connection broke.

use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, CONTENT_RANGE, RANGE};
use http::{Method, StatusCode};
use polyarch_oci::{Descriptor, Digest, Hasher, Reference};
use url::Url;

use super::call::{self, Answer, Call, Subject};
use super::challenge::Scopes;
use super::endpoint::Endpoint;
use super::host::{Attempts, Permission};
use super::retry::Backoff;
use super::{BlobSink, Client, Progress};
use crate::api;
use crate::error::RegistryError;

/// Foreign URLs that are tried before giving up.
const MAX_FOREIGN_URLS: usize = 5;

impl Client {
    /// Fetches a blob of a repository into a sink; size and digest are verified.
    ///
    /// A broken transfer goes on from where it broke. Sources are the descriptor's own data, mirrors,
    /// the origin, then the descriptor's `urls`. Returns the host that served (the end of) it.
    /// The sink has seen unverified bytes until this returns: commit only afterwards.
    ///
    /// # Errors
    /// [`RegistryError::BlobUnknown`] when there is none, [`RegistryError::DigestMismatch`],
    /// [`RegistryError::SizeMismatch`], [`RegistryError::Sink`]; whatever keeps the registry from answering.
    pub async fn get_blob<S: BlobSink>(
        &self,
        repository: &Reference,
        blob: &Descriptor,
        into: &mut S,
        progress: &Progress,
    ) -> Result<String, RegistryError> {
        let mut transfer = Transfer::new(blob, into, progress);
        if let Some(bytes) = embedded(blob) {
            transfer.take(bytes, "descriptor").await?;
            return Ok("descriptor".to_owned());
        }
        let mut failure = None;
        for endpoint in self.pull_endpoints(repository) {
            let _permit = endpoint.host.downloads.acquire().await;
            match from_endpoint(&endpoint, repository, &mut transfer).await {
                Ok(()) => return Ok(endpoint.host.name.clone()),
                Err(error) => failure = Some(transfer.turn_away(endpoint.give_up(error)).await?),
            }
        }
        let foreign = blob.urls.iter().filter_map(|text| Url::parse(text).ok());
        for url in foreign.filter(|url| matches!(url.scheme(), "http" | "https")).take(MAX_FOREIGN_URLS) {
            match from_url(self, &url, repository, &mut transfer).await {
                Ok(()) => return Ok(super::transport::authority(&url)),
                // What the registry said is worth more than what became of the substitute.
                Err(error) => {
                    let error = transfer.turn_away(error).await?;
                    failure.get_or_insert(error);
                }
            }
        }
        Err(failure.unwrap_or_else(|| unknown_origin(repository)))
    }
}

/// Cannot happen while the origin is always among the endpoints; said as an error all the same.
fn unknown_origin(repository: &Reference) -> RegistryError {
    RegistryError::Settings { host: repository.host().to_owned(), problem: "no endpoint".to_owned() }
}

/// Returns a descriptor's own data where it is what the descriptor says.
fn embedded(blob: &Descriptor) -> Option<Bytes> {
    let bytes = STANDARD.decode(blob.data.as_deref()?).ok()?;
    let mut hasher = Hasher::new(blob.digest.algorithm());
    hasher.update(&bytes);
    (bytes.len() as u64 == blob.size && hasher.finish() == blob.digest).then(|| bytes.into())
}

async fn from_endpoint<S: BlobSink>(
    endpoint: &Endpoint,
    repository: &Reference,
    transfer: &mut Transfer<'_, S>,
) -> Result<(), RegistryError> {
    let digest = &transfer.blob.digest;
    let path = api::blob_path(&endpoint.repository, digest);
    let text = format!("pull blob {digest} of {}", repository.name());
    let subject = Subject::Blob(repository.name(), digest.clone());
    let call = endpoint.call(Method::GET, &path, text, subject).await?;
    let permission =
        Permission { repository: endpoint.repository.clone(), scopes: Scopes::pull(&endpoint.repository) };
    let options = &endpoint.host.transport.options;
    let mut backoff = Backoff::new(&options.retry);
    // The beginning may come from an earlier source, whose bytes nobody has verified yet.
    let mut is_mixed = transfer.done > 0;
    loop {
        let before = transfer.done;
        let call = transfer.continued(call.clone());
        let result = match endpoint.host.send(&call, &permission, Attempts::Once).await {
            Ok(answer) => transfer.take_answer(answer, &call, options.stall_timeout).await,
            Err(error) => Err(error),
        };
        let Err(error) = result else { return Ok(()) };
        if is_mixed && error.is_about_content() {
            transfer.turn_away(error).await?;
            is_mixed = false;
            continue;
        }
        if transfer.done > before {
            backoff.progressed();
        } else if endpoint.is_mirror {
            return Err(error);
        }
        backoff.wait(error).await?;
    }
}

/// Fetches from where a descriptor says that the bytes are, too; never with credentials.
async fn from_url<S: BlobSink>(
    client: &Client,
    url: &Url,
    repository: &Reference,
    transfer: &mut Transfer<'_, S>,
) -> Result<(), RegistryError> {
    let digest = &transfer.blob.digest;
    let call = Call {
        host: super::transport::authority(url),
        text: format!("pull blob {digest} of {}", repository.name()),
        subject: Subject::Blob(repository.name(), digest.clone()),
        method: Method::GET,
        url: url.clone(),
        headers: http::HeaderMap::new(),
        body: None,
        limit: client.transport().options.answer_timeout,
    };
    let options = &client.transport().options;
    let mut backoff = Backoff::new(&options.retry);
    loop {
        let before = transfer.done;
        let call = transfer.continued(call.clone());
        let attempt = async {
            let answer = call::send(client.transport(), &call, None).await?;
            let answer = call::check(answer, &call, "", crate::error::CredentialUse::None).await?;
            transfer.take_answer(answer, &call, options.stall_timeout).await
        };
        let Err(error) = attempt.await else { return Ok(()) };
        if transfer.done > before {
            backoff.progressed();
        }
        backoff.wait(error).await?;
    }
}

/// A blob on its way in. `done` bytes are in the sink and in the hasher.
struct Transfer<'a, S> {
    blob: &'a Descriptor,
    sink: &'a mut S,
    progress: &'a Progress,
    hasher: Hasher,
    done: u64,
}

impl<'a, S: BlobSink> Transfer<'a, S> {
    fn new(blob: &'a Descriptor, sink: &'a mut S, progress: &'a Progress) -> Transfer<'a, S> {
        Transfer { blob, sink, progress, hasher: Hasher::new(blob.digest.algorithm()), done: 0 }
    }

    /// Makes a request ask only for what is missing.
    fn continued(&self, call: Call) -> Call {
        // Anything but the stored bytes would have another digest.
        let call = call.header(ACCEPT_ENCODING, "identity");
        if self.done == 0 { call } else { call.header(RANGE, &format!("bytes={}-", self.done)) }
    }

    async fn take_answer(
        &mut self,
        mut answer: Answer,
        call: &Call,
        stall: std::time::Duration,
    ) -> Result<(), RegistryError> {
        let host = call.host.clone();
        let start = match answer.status() {
            StatusCode::PARTIAL_CONTENT => range_start(&answer)
                .filter(|&start| start == self.done)
                .ok_or_else(|| call.protocol_error("the range is not the one asked for"))?,
            StatusCode::RANGE_NOT_SATISFIABLE => {
                return Err(self.size_mismatch(&host, self.done));
            }
            _ => 0,
        };
        if let Some(length) = answer.response.content_length()
            && start + length != self.blob.size
        {
            return Err(self.size_mismatch(&host, start + length));
        }
        // A host without ranges sends everything again; what we have is skipped.
        let mut skip = self.done - start;
        while let Some(mut chunk) = call::next_chunk(&mut answer, call, stall).await? {
            let skipped = skip.min(chunk.len() as u64);
            skip -= skipped;
            // Not more than the chunk's own length, so it fits.
            let _ = chunk.split_to(skipped as usize);
            if self.done + chunk.len() as u64 > self.blob.size {
                return Err(self.size_mismatch(&host, self.done + chunk.len() as u64));
            }
            self.write(chunk).await?;
        }
        if self.done < self.blob.size {
            return Err(RegistryError::Broken {
                host,
                request: call.text.clone(),
                reason: format!("it ended after {} of {} bytes", self.done, self.blob.size),
            });
        }
        self.verify(&host)
    }

    async fn take(&mut self, bytes: Bytes, host: &str) -> Result<(), RegistryError> {
        self.write(bytes).await?;
        self.verify(host)
    }

    async fn write(&mut self, chunk: Bytes) -> Result<(), RegistryError> {
        if chunk.is_empty() {
            return Ok(());
        }
        self.hasher.update(&chunk);
        self.done += chunk.len() as u64;
        self.sink.write(chunk).await.map_err(|source| self.sink_error(source))?;
        self.progress.report(self.done);
        Ok(())
    }

    fn verify(&self, host: &str) -> Result<(), RegistryError> {
        let actual: Digest = self.hasher.clone().finish();
        if actual == self.blob.digest {
            return Ok(());
        }
        Err(RegistryError::DigestMismatch {
            what: "blob".to_owned(),
            host: host.to_owned(),
            expected: Box::new(self.blob.digest.clone()),
            actual: Box::new(actual),
        })
    }

    /// Prepares for another source after a failure, which is returned as `Ok`.
    ///
    /// # Errors
    /// The failure, when no other source can help: the sink failed, or it cannot forget wrong bytes.
    async fn turn_away(&mut self, error: RegistryError) -> Result<RegistryError, RegistryError> {
        if matches!(error, RegistryError::Sink { .. }) {
            return Err(error);
        }
        // Bytes of a source that lied are not to be trusted, nor continued.
        if error.is_about_content() && self.done > 0 {
            if self.sink.restart().await.is_err() {
                return Err(error);
            }
            self.hasher = Hasher::new(self.blob.digest.algorithm());
            self.done = 0;
            self.progress.report(0);
        }
        Ok(error)
    }

    fn sink_error(&self, source: io::Error) -> RegistryError {
        RegistryError::Sink { digest: Box::new(self.blob.digest.clone()), source }
    }

    fn size_mismatch(&self, host: &str, actual: u64) -> RegistryError {
        RegistryError::SizeMismatch {
            what: format!("blob {}", self.blob.digest),
            host: host.to_owned(),
            expected: self.blob.size,
            actual,
        }
    }
}

/// Reads the start out of `Content-Range: bytes START-END/SIZE` (RFC 9110, section 14.4).
fn range_start(answer: &Answer) -> Option<u64> {
    answer.header(CONTENT_RANGE)?.strip_prefix("bytes ")?.split('-').next()?.trim().parse().ok()
}
