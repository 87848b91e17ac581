// SPDX-License-Identifier: Apache-2.0
//! The progress of a build as its clients see it: everything from the beginning, to each who asks.
//!
//! Events are kept as long as the build is known, because a client may ask late. What steps write is
//! clipped, so a build can't fill the memory.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use futures_util::Stream;
use jiff::Timestamp;
use polyarch_solver::progress::{Event, Progress};
use tokio::sync::watch;
use tonic::Status;

use crate::api::control::{self, StatusResponse};
use crate::warning;

/// How much of the output of one step is kept, in bytes; BuildKit's own limit.
const MAX_STEP_LOG_BYTES: usize = 2 << 20;
/// How much is kept of one build, in bytes: of events and of what steps wrote.
const MAX_BYTES: usize = 128 << 20;
/// How many events go into one message.
const BATCH: usize = 256;
/// About how large a message becomes, in bytes.
const BATCH_BYTES: usize = 1 << 20;
/// What an event takes beside its texts, in bytes.
const EVENT_BYTES: usize = 128;
/// What one of several texts takes beside its bytes.
const TEXT_BYTES: usize = 24;

/// All the progress of a build so far.
pub(crate) struct StatusLog {
    kept: Mutex<Kept>,
    /// How many events there are, and whether there will be more.
    news: watch::Sender<(usize, bool)>,
}

#[derive(Default)]
struct Kept {
    events: Vec<Event>,
    bytes: usize,
    logged: HashMap<Arc<str>, usize>,
}

impl StatusLog {
    pub(crate) fn new() -> Arc<StatusLog> {
        Arc::new(StatusLog { kept: Mutex::default(), news: watch::Sender::new((0, false)) })
    }

    /// Returns where a build sends its events.
    pub(crate) fn progress(self: &Arc<Self>) -> Progress {
        let log = self.clone();
        Progress::new(move |event| log.add(event))
    }

    fn add(&self, event: Event) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(event) = kept.admit(event) else { return };
        kept.events.push(event);
        let count = kept.events.len();
        drop(kept);
        self.news.send_if_modified(|(known, is_ended)| {
            *known = count.max(*known);
            !*is_ended
        });
    }

    /// Says that the build has ended; what comes later is for nobody.
    pub(crate) fn end(&self) {
        self.news.send_modify(|(_, is_ended)| *is_ended = true);
    }

    /// Tells everything from the beginning, until the build ends.
    pub(crate) fn follow(self: Arc<Self>) -> impl Stream<Item = Result<StatusResponse, Status>> + Send {
        let news = self.news.subscribe();
        futures_util::stream::unfold((self, news, 0), |(log, mut news, next)| async move {
            let waited = news.wait_for(|(count, is_ended)| *count > next || *is_ended).await;
            // The sender lives in the log that is held here.
            waited.ok()?;
            let (message, next) = log.message(next)?;
            Some((Ok(message), (log, news, next)))
        })
    }

    /// Returns all that was said so far.
    pub(crate) fn messages(&self) -> Vec<StatusResponse> {
        let mut messages = Vec::new();
        let mut next = 0;
        while let Some((message, after)) = self.message(next) {
            messages.push(message);
            next = after;
        }
        messages
    }

    /// Puts the events from a place on into one message; `None` when there are none.
    fn message(&self, from: usize) -> Option<(StatusResponse, usize)> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let mut message = StatusResponse::default();
        let mut bytes = 0;
        let mut next = from;
        for event in kept.events.get(from..)?.iter().take(BATCH) {
            // A step must be known before it ends: the same one comes twice in one message only in order.
            bytes += size_of(event);
            if bytes > BATCH_BYTES && next > from {
                break;
            }
            next += 1;
            match event {
                Event::Vertex(vertex) => message.vertexes.push(vertex_message(vertex)),
                Event::Status(status) => message.statuses.push(control::VertexStatus {
                    id: status.id.clone(),
                    vertex: status.vertex.to_string(),
                    name: action_of(&status.id).to_owned(),
                    current: i64::try_from(status.current).unwrap_or(i64::MAX),
                    total: i64::try_from(status.total).unwrap_or(i64::MAX),
                    timestamp: timestamp(Some(SystemTime::now())),
                    started: timestamp(status.started),
                    completed: timestamp(status.completed),
                }),
                Event::Log(log) => message.logs.push(control::VertexLog {
                    vertex: log.vertex.to_string(),
                    timestamp: timestamp(Some(log.timestamp)),
                    stream: i64::from(log.stream),
                    msg: log.data.clone(),
                }),
                Event::Warning(warning) => message.warnings.push(warning::message(warning)),
            }
        }
        (next > from).then_some((message, next))
    }
}

impl Kept {
    /// Takes an event as far as there is room for it.
    fn admit(&mut self, event: Event) -> Option<Event> {
        let event = match event {
            Event::Log(mut log) => {
                let logged = self.logged.entry(log.vertex.clone()).or_default();
                if *logged > MAX_STEP_LOG_BYTES {
                    return None;
                }
                *logged += log.data.len();
                if *logged > MAX_STEP_LOG_BYTES {
                    log.data.truncate(log.data.len() - (*logged - MAX_STEP_LOG_BYTES));
                    log.data.extend_from_slice(b"\n[output clipped, log limit 2MiB reached]\n");
                    *logged = MAX_STEP_LOG_BYTES + 1;
                }
                Event::Log(log)
            }
            event => event,
        };
        // The ends of steps are always told, or else they would seem to run for ever.
        let is_end = matches!(&event, Event::Vertex(vertex) if vertex.completed.is_some());
        let size = size_of(&event);
        if self.bytes + size > MAX_BYTES && !is_end {
            return None;
        }
        self.bytes += size;
        Some(event)
    }
}

/// Returns what is done of `transferring context:` and the like, as clients have it beside the whole.
fn action_of(id: &str) -> &str {
    id.strip_suffix(':').and_then(|id| id.split_once(' ')).map_or("", |(action, _)| action)
}

fn size_of(event: &Event) -> usize {
    EVENT_BYTES
        + match event {
            Event::Vertex(vertex) => {
                let inputs: usize = vertex.inputs.iter().map(|input| TEXT_BYTES + input.len()).sum();
                vertex.digest.len() + vertex.name.len() + vertex.error.len() + inputs
            }
            Event::Status(status) => status.vertex.len() + status.id.len(),
            Event::Log(log) => log.vertex.len() + log.data.len(),
            Event::Warning(warning) => {
                // The text is one for all of them here, but each message has it whole.
                let source = warning.source.as_ref().map_or(0, |it| it.file.len() + it.text.len());
                let detail: usize = warning.detail.iter().map(|line| TEXT_BYTES + line.len()).sum();
                let lines = warning.lines.len() * TEXT_BYTES;
                warning.vertex.len() + warning.message.len() + warning.url.len() + source + detail + lines
            }
        }
}

fn vertex_message(vertex: &polyarch_solver::progress::Vertex) -> control::Vertex {
    control::Vertex {
        digest: vertex.digest.to_string(),
        inputs: vertex.inputs.iter().map(ToString::to_string).collect(),
        name: vertex.name.to_string(),
        cached: vertex.cached,
        started: timestamp(vertex.started),
        completed: timestamp(vertex.completed),
        error: vertex.error.clone(),
        progress_group: None,
    }
}

/// Returns a time as the protocol has it.
pub(crate) fn timestamp(time: Option<SystemTime>) -> Option<prost_types::Timestamp> {
    let time = Timestamp::try_from(time?).ok()?;
    Some(prost_types::Timestamp { seconds: time.as_second(), nanos: time.subsec_nanosecond() })
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;
    use polyarch_solver::progress::{VertexLog, VertexWarning};

    use super::*;

    async fn all(log: &Arc<StatusLog>) -> Vec<StatusResponse> {
        log.clone().follow().map(|message| message.expect("the log has no errors")).collect().await
    }

    #[tokio::test]
    async fn who_asks_late_is_told_everything() {
        let log = StatusLog::new();
        let progress = log.progress();
        let vertex = progress.begin("a step", "[1/1] RUN true");
        vertex.status("downloading", 7).update(3);
        vertex.done();
        progress.warn("look here");
        log.end();
        for _ in 0..2 {
            let messages = all(&log).await;
            let [message] = messages.as_slice() else { panic!("{messages:?}") };
            assert_eq!(message.vertexes.len(), 2);
            assert!(message.vertexes[0].completed.is_none() && message.vertexes[1].completed.is_some());
            assert_eq!(message.statuses.len(), 3);
            assert_eq!(message.warnings[0].short, b"look here");
        }
    }

    #[tokio::test]
    async fn what_a_step_writes_is_clipped_and_said_to_be() {
        let log = StatusLog::new();
        let progress = log.progress();
        for _ in 0..5 {
            progress.send(Event::Log(VertexLog {
                vertex: "sha256:aa".into(),
                stream: 1,
                data: vec![b'x'; 1 << 20],
                timestamp: SystemTime::UNIX_EPOCH,
            }));
        }
        log.end();
        let written: Vec<u8> =
            all(&log).await.into_iter().flat_map(|it| it.logs).flat_map(|it| it.msg).collect();
        let text = String::from_utf8(written).unwrap();
        assert_eq!(text.matches('x').count(), MAX_STEP_LOG_BYTES);
        assert!(text.ends_with("[output clipped, log limit 2MiB reached]\n"), "{}", text.len());
    }

    #[tokio::test]
    async fn all_that_a_warning_has_counts() {
        let log = StatusLog::new();
        let long = "x".repeat(1 << 20);
        let source = polyarch_solver::progress::WarningSource { file: long.clone(), text: "".into() };
        let plain = || VertexWarning::new("short");
        let larger = [
            VertexWarning { vertex: long.as_str().into(), ..plain() },
            VertexWarning { message: long.clone(), ..plain() },
            VertexWarning { url: long.clone(), ..plain() },
            VertexWarning { source: Some(Arc::new(source)), ..plain() },
            VertexWarning { detail: vec![String::new(); 50_000], ..plain() },
            VertexWarning { lines: vec![1..=1; 50_000], ..plain() },
        ];
        for warning in larger {
            for _ in 0..MAX_BYTES >> 20 {
                log.progress().send(Event::Warning(warning.clone()));
            }
            assert!(log.kept.lock().unwrap().bytes > MAX_BYTES / 2);
            *log.kept.lock().unwrap() = Kept::default();
        }
    }

    #[tokio::test]
    async fn messages_stay_small() {
        let log = StatusLog::new();
        let progress = log.progress();
        for step in 0..5u8 {
            progress.send(Event::Log(VertexLog {
                vertex: format!("sha256:{step}").into(),
                stream: 2,
                data: vec![step; 900 << 10],
                timestamp: SystemTime::UNIX_EPOCH,
            }));
        }
        log.end();
        assert_eq!(all(&log).await.len(), 5);
    }
}
