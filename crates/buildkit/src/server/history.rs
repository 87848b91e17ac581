// SPDX-License-Identifier: Apache-2.0
//! The history for clients: `ListenBuildHistory`, `UpdateBuildHistory`, and the content of what records refer to.
//!
//! As with BuildKit the history is one for all clients of a server. What can be read as content is what a record
//! refers to: attachments, and the documents of its image, but no layers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::{Stream, StreamExt as _};
use jiff::Timestamp;
use polyarch_build::BuildError;
use polyarch_build::attest::{Attestations, ProvenanceOptions};
use polyarch_oci::{Descriptor, Digest, ManifestOrIndex};
use polyarch_store::Store;
use serde_json::Value;
use tokio::sync::broadcast;
use tonic::metadata::AsciiMetadataValue;
use tonic::{Response, Status};

use crate::api::content::{Info, InfoRequest, InfoResponse, ReadContentRequest, ReadContentResponse};
use crate::api::control::{
    BuildHistoryEvent, BuildHistoryEventType, BuildHistoryRecord, BuildHistoryRequest, SolveResponse,
    UpdateBuildHistoryRequest, UpdateBuildHistoryResponse,
};
use crate::history::{Filter, History, Outcome, Recorder};
use crate::server::Server;
use crate::server::builds::Build;
use crate::server::errors::{message_of_status, status_of};
use crate::server::results::Solved;

/// How many events wait for a client that is slow.
const BACKLOG: usize = 256;
/// How large the pieces of content are, in bytes.
const PIECE_BYTES: usize = 1 << 20;
/// The media type of what is said about images.
const STATEMENT: &str = "application/vnd.in-toto+json";

/// The builds that are running, and who wants to know of changes.
pub(super) struct Journal {
    running: Mutex<BTreeMap<String, BuildHistoryRecord>>,
    events: broadcast::Sender<BuildHistoryEvent>,
}

impl Default for Journal {
    fn default() -> Journal {
        Journal { running: Mutex::default(), events: broadcast::Sender::new(BACKLOG) }
    }
}

impl Journal {
    /// Says that a build has begun; it is told as running until the value goes.
    pub(super) fn begin(self: &Arc<Self>, record: &BuildHistoryRecord) -> Running {
        self.lock().insert(record.r#ref.clone(), record.clone());
        self.tell(BuildHistoryEventType::Started, record.clone());
        Running { journal: self.clone(), name: record.r#ref.clone() }
    }

    /// Says what became of a record; nobody need be there to hear it.
    pub(super) fn tell(&self, kind: BuildHistoryEventType, record: BuildHistoryRecord) {
        let _ = self.events.send(BuildHistoryEvent { r#type: kind.into(), record: Some(record) });
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, BuildHistoryRecord>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns how each platform of a build was made.
pub(super) fn provenance_of(build: &Build, solved: &Solved) -> Vec<(String, Value)> {
    let attributes = build.request.frontend_attrs.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    // What was asked for wrongly has been refused before.
    let asked = Attestations::from_attributes(attributes).ok().and_then(|asked| asked.provenance);
    let builder_id = asked.map(|asked| asked.builder_id).unwrap_or_default();
    let options = ProvenanceOptions { builder_id, ..ProvenanceOptions::default() };
    let known = solved.trees.iter().filter_map(|(name, tree)| {
        let provenance = tree.evaluation.evaluated.provenance(tree.platform)?;
        Some((name.clone(), provenance.predicate(&options)))
    });
    known.collect()
}

/// A build that will be remembered.
pub(super) struct Remembered {
    recorder: Recorder,
    _running: Running,
}

impl Server {
    /// Begins the record of a build; those that clients make for themselves get none.
    pub(super) fn begin_record(&self, build: &Build) -> Option<Remembered> {
        let request = &build.request;
        if request.internal {
            return None;
        }
        let recorder = Recorder::of_log(
            build.status.clone(),
            History::new(build.services.store()),
            &request.r#ref,
            &request.frontend,
            &request.frontend_attrs,
            request.exporters.clone(),
        );
        let _running = self.0.journal.begin(recorder.record());
        Some(Remembered { recorder, _running })
    }

    /// Keeps the record of a build that has ended. A build does not fail because it can't be remembered.
    pub(super) async fn keep_record(
        &self,
        remembered: Remembered,
        mut outcome: Outcome,
        ended: &Result<SolveResponse, Status>,
    ) {
        match ended {
            Ok(response) => {
                outcome.response.clone_from(&response.exporter_response);
                let root = response.exporter_response.get("containerimage.descriptor");
                let root = root.and_then(|text| STANDARD.decode(text).ok());
                outcome.root = root.and_then(|bytes| serde_json::from_slice(&bytes).ok());
            }
            Err(status) => outcome.error = Some(message_of_status(status)),
        }
        let Remembered { recorder, _running } = remembered;
        match tokio::task::spawn_blocking(move || recorder.finish(outcome)).await {
            Ok(Ok(record)) => {
                drop(_running);
                self.0.journal.tell(BuildHistoryEventType::Complete, record);
            }
            Ok(Err(error)) => tracing::warn!("the build is not remembered: {error}"),
            Err(panic) => tracing::warn!("the build is not remembered: {panic}"),
        }
    }
}

/// A build that is running, for those who look.
pub(super) struct Running {
    journal: Arc<Journal>,
    name: String,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.journal.lock().remove(&self.name);
    }
}

impl Server {
    /// Opens the store and works with it where blocking is allowed.
    async fn with_store<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T, Status> + Send + 'static,
    ) -> Result<T, Status> {
        let root = self.0.options.services.root.clone();
        let open_and_work = move || {
            let opened = Store::open(&root).map_err(|error| {
                status_of(&BuildError::from_source(polyarch_build::ErrorKind::Storage, "the store", &error))
            });
            work(&opened?)
        };
        tokio::task::spawn_blocking(open_and_work)
            .await
            .unwrap_or_else(|panic| Err(Status::internal(panic.to_string())))
    }

    /// Answers `Control.ListenBuildHistory`.
    pub(super) async fn listen_history(
        self,
        request: BuildHistoryRequest,
    ) -> Result<Response<impl Stream<Item = Result<BuildHistoryEvent, Status>> + Send + 'static>, Status>
    {
        let filter = Filter::parse(&request.filter, SystemTime::now())
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let Ok(limit) = usize::try_from(request.limit) else {
            return Err(Status::invalid_argument(format!("invalid limit {}", request.limit)));
        };
        let limit = if limit == 0 { usize::MAX } else { limit };
        // Before looking, or else a change between looking and listening were missed.
        let changes = self.0.journal.events.subscribe();
        let is_asked = {
            let name = request.r#ref.clone();
            move |record: &BuildHistoryRecord| name.is_empty() || record.r#ref == name
        };
        let event = |kind: BuildHistoryEventType, record: BuildHistoryRecord| BuildHistoryEvent {
            r#type: kind.into(),
            record: Some(record),
        };
        let running: Vec<BuildHistoryRecord> =
            self.0.journal.lock().values().filter(|record| is_asked(record)).cloned().collect();
        let mut events: Vec<BuildHistoryEvent> =
            running.into_iter().map(|record| event(BuildHistoryEventType::Started, record)).collect();
        if !request.active_only {
            let name = request.r#ref.clone();
            let records = self.with_store(move |store| {
                let history = History::new(store);
                let found = match name.as_str() {
                    "" => history.list(),
                    name => history.get(name).map(|record| record.into_iter().collect()),
                };
                found.map_err(|error| status_of(&error))
            });
            let records = records.await?.into_iter().filter(|record| filter.matches(record)).take(limit);
            events.extend(records.map(|record| event(BuildHistoryEventType::Complete, record)));
        }
        let changes = futures_util::stream::unfold(changes, move |mut changes| {
            let is_asked = is_asked.clone();
            async move {
                loop {
                    match changes.recv().await {
                        Ok(event) if event.record.as_ref().is_some_and(&is_asked) => {
                            return Some((Ok(event), changes));
                        }
                        // Who is too slow misses some, as any who comes later.
                        Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                        Err(broadcast::error::RecvError::Closed) => return None,
                    }
                }
            }
        });
        let told = futures_util::stream::iter(events.into_iter().map(Ok));
        let stream = match request.early_exit {
            true => told.boxed(),
            false => told.chain(changes).boxed(),
        };
        let mut response = Response::new(stream);
        if let Ok(now) = AsciiMetadataValue::try_from(Timestamp::now().to_string()) {
            response.metadata_mut().insert("buildkit-current-timestamp", now);
        }
        Ok(response)
    }

    /// Answers `Control.UpdateBuildHistory`. Nothing has to be done to finish a record: it is whole when the
    /// build has ended.
    pub(super) async fn update_history(
        &self,
        request: UpdateBuildHistoryRequest,
    ) -> Result<UpdateBuildHistoryResponse, Status> {
        let missing = format!("failed to retrieve ref {}", request.r#ref);
        let (name, pinned) = (request.r#ref.clone(), request.pinned);
        let failed = |error: BuildError| status_of(&error);
        if request.delete {
            self.with_store(move |store| History::new(store).remove(&name).map_err(failed)).await?;
            let record = BuildHistoryRecord { r#ref: request.r#ref, ..BuildHistoryRecord::default() };
            self.0.journal.tell(BuildHistoryEventType::Deleted, record);
            return Ok(UpdateBuildHistoryResponse {});
        }
        let is_finalized = request.finalize;
        let record = self.with_store(move |store| {
            let history = History::new(store);
            let record = match is_finalized {
                true => history.get(&name),
                false => history.pin(&name, pinned),
            };
            record.map_err(failed)
        });
        let record = record.await?.ok_or_else(|| Status::not_found(missing))?;
        if !is_finalized {
            self.0.journal.tell(BuildHistoryEventType::Complete, record);
        }
        Ok(UpdateBuildHistoryResponse {})
    }

    /// Returns the kept progress of a build that has ended.
    pub(super) async fn remembered_status(
        &self,
        name: String,
    ) -> Result<Option<Vec<crate::api::control::StatusResponse>>, Status> {
        self.with_store(move |store| {
            let history = History::new(store);
            let read = || {
                let Some(logs) = history.get(&name)?.and_then(|record| record.logs) else { return Ok(None) };
                let bytes = history.attachment(&name, &logs.digest)?;
                Ok::<_, BuildError>(bytes.map(|bytes| crate::history::messages_of(&bytes)))
            };
            read().map_err(|error| status_of(&error))
        })
        .await
    }

    /// Answers `Content.Info`.
    pub(super) async fn content_info(&self, request: InfoRequest) -> Result<InfoResponse, Status> {
        let bytes = self.content(request.digest.clone()).await?;
        let size = i64::try_from(bytes.len()).unwrap_or(i64::MAX);
        Ok(InfoResponse { info: Some(Info { digest: request.digest, size, ..Info::default() }) })
    }

    /// Answers `Content.Read`.
    pub(super) async fn content_read(
        self,
        request: ReadContentRequest,
    ) -> Result<Response<impl Stream<Item = Result<ReadContentResponse, Status>> + Send + 'static>, Status>
    {
        let bytes = self.content(request.digest).await?;
        let wrong = |_| Status::out_of_range("the part is not within the content");
        let from = usize::try_from(request.offset).map_err(wrong)?;
        let size = usize::try_from(request.size).map_err(wrong)?;
        let rest =
            bytes.get(from..).ok_or_else(|| Status::out_of_range("the part begins behind the content"))?;
        let part = if size == 0 { rest } else { &rest[..size.min(rest.len())] };
        let mut at = from;
        let mut pieces = Vec::new();
        for piece in part.chunks(PIECE_BYTES) {
            let offset = i64::try_from(at).unwrap_or(i64::MAX);
            pieces.push(Ok(ReadContentResponse { offset, data: piece.to_vec() }));
            at += piece.len();
        }
        Ok(Response::new(futures_util::stream::iter(pieces)))
    }

    async fn content(&self, digest: String) -> Result<Vec<u8>, Status> {
        self.with_store(move |store| {
            let missing = || Status::not_found(format!("content {digest}: not found"));
            let wanted: Digest = digest.parse().map_err(|_| Status::invalid_argument("not a digest"))?;
            let history = History::new(store);
            if let Some(bytes) = history.find_attachment(&digest).map_err(|error| status_of(&error))? {
                return Ok(bytes);
            }
            let records = history.list().map_err(|error| status_of(&error))?;
            let results =
                records.iter().flat_map(|record| record.result.iter().chain(record.results.values()));
            let roots = results.flat_map(|result| result.results.values());
            for root in roots {
                let Ok(digest) = root.digest.parse::<Digest>() else { continue };
                let size = u64::try_from(root.size).unwrap_or(0);
                let root = Descriptor::new(root.media_type.as_str(), digest, size);
                if let Some(bytes) = document(store, &root, &wanted) {
                    return Ok(bytes);
                }
            }
            Err(missing())
        })
        .await
    }
}

/// Reads a document of an image by its digest: the index, a manifest, a config, or what is said about one.
fn document(store: &Store, root: &Descriptor, wanted: &Digest) -> Option<Vec<u8>> {
    let mut waiting = vec![(root.clone(), 0)];
    while let Some((descriptor, depth)) = waiting.pop() {
        if descriptor.digest == *wanted {
            return store.read(&descriptor, polyarch_oci::manifest::MAX_MANIFEST_BYTES).ok();
        }
        // An index names manifests, and these what they consist of.
        if depth > 1 || !store.contains(&descriptor.digest) {
            continue;
        }
        match store.image(&descriptor).ok()? {
            ManifestOrIndex::Index(index) => {
                waiting.extend(index.value.manifests.iter().map(|entry| (entry.clone(), depth + 1)));
            }
            ManifestOrIndex::Manifest(manifest) => {
                let said = manifest.value.layers.iter().filter(|layer| layer.media_type == STATEMENT);
                let parts = std::iter::once(&manifest.value.config).chain(said);
                waiting.extend(parts.map(|part| (part.clone(), 2)));
            }
        }
    }
    None
}
