// SPDX-License-Identifier: Apache-2.0
//! Takes a stream that the client has, such as a context archive on its standard input (`Upload.Pull`).

use std::path::Path;

use futures_util::StreamExt as _;
use tokio::io::AsyncWriteExt as _;
use tonic::Request;

use crate::api::control::BytesMessage;
use crate::api::methods::client;
use crate::caller::{CallerError, ClientSession};
use crate::session::metadata;

const WHAT: &str = "take the client's upload";

impl ClientSession {
    /// Writes an upload to a file that is not there yet. `url` is what the build was given in place of a
    /// context: `http://buildkit-session/ID`. Returns its size.
    ///
    /// # Errors
    /// When the client has no such upload (each can be taken once), it is over `max_bytes`, or the file can't
    /// be written.
    pub async fn upload(&self, url: &str, into: &Path, max_bytes: u64) -> Result<u64, CallerError> {
        self.need(WHAT, client::UPLOAD.path())?;
        let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let mut request = Request::new(futures_util::stream::pending::<BytesMessage>());
        metadata::insert(request.metadata_mut(), "urlhost", &[host.to_owned()]);
        metadata::insert(request.metadata_mut(), "urlpath", &[format!("/{path}")]);
        let write = |source| CallerError::Write { path: into.to_owned(), source };
        let mut incoming = self.within(WHAT, client::UPLOAD.open(&self.0.channel, request)).await?;
        let mut file = tokio::fs::File::create_new(into).await.map_err(write)?;
        let mut size = 0u64;
        while let Some(message) = self.within(WHAT, async { incoming.next().await.transpose() }).await? {
            size = size.saturating_add(message.data.len() as u64);
            if size > max_bytes {
                return Err(CallerError::Hostile {
                    what: WHAT,
                    problem: format!("an upload of over {max_bytes} bytes"),
                });
            }
            file.write_all(&message.data).await.map_err(write)?;
        }
        file.flush().await.map_err(write)?;
        Ok(size)
    }
}
