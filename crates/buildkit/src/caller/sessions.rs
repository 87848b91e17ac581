// SPDX-License-Identifier: Apache-2.0
//! The sessions of a daemon by their ids.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::Stream;
use futures_util::stream::BoxStream;
use tokio::sync::Notify;
use tonic::{Request, Status, Streaming};

use crate::api::control::BytesMessage;
use crate::caller::{CallerError, ClientSession};

/// The most sessions at a time; each may hold some megabytes of a client's data.
const MAX_SESSIONS: usize = 1024;

/// The stream that answers `Control.Session`.
pub type SessionAnswer = BoxStream<'static, Result<BytesMessage, Status>>;

/// The sessions of a daemon. Who knows a session's id may use it, and ids can't be guessed nor taken over.
#[derive(Clone, Default)]
pub struct Sessions(Arc<Table>);

#[derive(Default)]
struct Table {
    by_id: Mutex<HashMap<String, ClientSession>>,
    came: Notify,
}

impl Sessions {
    /// Makes a table without sessions.
    pub fn new() -> Sessions {
        Sessions::default()
    }

    /// Serves `Control.Session`: the session is there until its client ends it or goes away.
    ///
    /// Returns the session, and the stream to answer the call with.
    ///
    /// # Errors
    /// The status to answer instead: a header is missing, there is a session of that id already, or there
    /// are too many.
    pub async fn accept(
        &self,
        request: Request<Streaming<BytesMessage>>,
    ) -> Result<(ClientSession, SessionAnswer), Status> {
        let (headers, _, incoming) = request.into_parts();
        self.accept_stream(&headers, incoming).await
    }

    /// As [`Sessions::accept`], of any stream of messages.
    pub(crate) async fn accept_stream<S>(
        &self,
        headers: &tonic::metadata::MetadataMap,
        incoming: S,
    ) -> Result<(ClientSession, SessionAnswer), Status>
    where
        S: Stream<Item = Result<BytesMessage, Status>> + Send + Unpin + 'static,
    {
        let (session, answer) = ClientSession::connect(headers, incoming).await?;
        self.add(session.clone())?;
        let (table, gone) = (self.clone(), session.clone());
        tokio::spawn(async move {
            gone.ended().await;
            table.lock().remove(gone.id());
        });
        Ok((session, answer))
    }

    fn add(&self, session: ClientSession) -> Result<(), Status> {
        let mut by_id = self.lock();
        let problem = if by_id.contains_key(session.id()) {
            Some(Status::already_exists("there is a session of this id already"))
        } else if by_id.len() >= MAX_SESSIONS {
            Some(Status::resource_exhausted(format!("there are {MAX_SESSIONS} sessions already")))
        } else {
            None
        };
        if let Some(status) = problem {
            // Of the two of one id, the first one stays.
            session.end();
            return Err(status);
        }
        by_id.insert(session.id().to_owned(), session);
        drop(by_id);
        self.0.came.notify_waiters();
        Ok(())
    }

    /// Returns the session of an id; waits for it as long as `patience` when it isn't there yet.
    ///
    /// # Errors
    /// When it does not come.
    pub async fn find(&self, id: &str, patience: Duration) -> Result<ClientSession, CallerError> {
        let search = async {
            loop {
                let came = self.0.came.notified();
                tokio::pin!(came);
                // Before looking, or else one that comes between looking and waiting were missed.
                came.as_mut().enable();
                if let Some(session) = self.lock().get(id) {
                    return session.clone();
                }
                came.await;
            }
        };
        let found = tokio::time::timeout(patience, search).await;
        found.map_err(|_| CallerError::NoSession { id: id.to_owned() })
    }

    /// Ends every session.
    pub fn end_all(&self) {
        let sessions: Vec<ClientSession> = self.lock().values().cloned().collect();
        sessions.iter().for_each(ClientSession::end);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, ClientSession>> {
        self.0.by_id.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
