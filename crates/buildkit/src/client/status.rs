// SPDX-License-Identifier: Apache-2.0
//! A node's status stream as our progress events.
//!
//! Several nodes build at once and name equal steps equally; so every node has a label, which goes into
//! the digests and names of its steps. Times are the node's clock's, set right by what the node says it is
//! now when the stream begins.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use futures_util::StreamExt as _;
use jiff::{SignedDuration, Timestamp};
use polyarch_solver::KeyHasher;
use polyarch_solver::progress::{Event, Progress, Vertex, VertexLog, VertexStatus, VertexWarning};
use tonic::transport::Channel;
use tonic::{Request, Status};

use crate::api::control::{self, StatusRequest, StatusResponse};
use crate::api::methods::daemon;
use crate::client::intake::Intake;
use crate::warning;

/// How many steps at a time are told as canceled when a node is lost in the middle of them, and how many are remembered to
/// have been there.
const MAX_OPEN_STEPS: usize = 4096;

/// Follows a build until the node ends the stream.
///
/// # Errors
/// The status of the call.
pub(super) async fn follow(
    channel: &Channel,
    build: &str,
    label: Option<&str>,
    steps: &OpenSteps,
    mut active: impl FnMut(),
) -> Result<(), Status> {
    let request = Request::new(StatusRequest { r#ref: build.to_owned() });
    let answer = daemon::STATUS.call_for_stream(channel, request).await?;
    let now = answer.metadata().get("buildkit-current-timestamp");
    let now = now.and_then(|text| text.to_str().ok()?.parse::<Timestamp>().ok());
    let translation = Translation { label: label.map(str::to_owned), skew: skew(now, Timestamp::now()) };
    let mut messages = answer.into_inner();
    let mut intake = Intake::default();
    while let Some(message) = messages.next().await {
        active();
        for event in translation.events(message?) {
            intake.take(event, |event| steps.send(event));
        }
    }
    Ok(())
}

/// Reads a message that was kept, as it was told.
pub(crate) fn events_of(message: StatusResponse) -> Vec<Event> {
    Translation { label: None, skew: SignedDuration::ZERO }.events(message)
}

/// The way of a node's events to the progress, which knows the steps that have begun and not ended.
pub(super) struct OpenSteps {
    progress: Progress,
    /// `None` after the end.
    steps: Mutex<Option<Steps>>,
}

#[derive(Default)]
struct Steps {
    open: BTreeMap<Arc<str>, Vertex>,
    /// Those whose result was there. A node that then fetches it tells the same step again, as one that runs.
    cached: BTreeSet<Arc<str>>,
}

impl OpenSteps {
    pub(super) fn new(progress: Progress) -> OpenSteps {
        OpenSteps { progress, steps: Mutex::new(Some(Steps::default())) }
    }

    fn send(&self, mut event: Event) {
        let mut steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        // Whatever comes after the end would open a step again.
        let Some(Steps { open, cached }) = steps.as_mut() else { return };
        if let Event::Vertex(vertex) = &mut event {
            let is_open = vertex.started.is_some() && vertex.completed.is_none();
            if !is_open {
                open.remove(&vertex.digest);
            } else if open.len() < MAX_OPEN_STEPS {
                open.insert(vertex.digest.clone(), vertex.clone());
            }
            if vertex.cached && cached.len() < MAX_OPEN_STEPS {
                cached.insert(vertex.digest.clone());
            }
            vertex.cached |=
                vertex.completed.is_some() && vertex.error.is_empty() && cached.contains(&vertex.digest);
        }
        self.progress.send(event);
    }

    /// Tells the steps that are still open as canceled: the build is over, whatever the node last said.
    pub(super) fn end(&self) {
        let steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner).take();
        for vertex in steps.into_iter().flat_map(|steps| steps.open.into_values()) {
            let error = "canceled".to_owned();
            self.progress.send(Event::Vertex(Vertex { completed: Some(SystemTime::now()), error, ..vertex }));
        }
    }
}

/// Returns how far the node's clock is behind ours.
fn skew(theirs: Option<Timestamp>, ours: Timestamp) -> SignedDuration {
    theirs.map_or(SignedDuration::ZERO, |theirs| ours.duration_since(theirs))
}

struct Translation {
    label: Option<String>,
    skew: SignedDuration,
}

impl Translation {
    /// Steps come before what is said of them.
    fn events(&self, message: StatusResponse) -> Vec<Event> {
        let mut events = Vec::new();
        events.extend(message.vertexes.into_iter().map(|vertex| Event::Vertex(self.vertex(vertex))));
        events.extend(message.statuses.into_iter().map(|status| Event::Status(self.status(status))));
        events.extend(message.logs.into_iter().map(|log| Event::Log(self.log(log))));
        events.extend(message.warnings.iter().map(|warning| Event::Warning(self.warning(warning))));
        events
    }

    fn vertex(&self, vertex: control::Vertex) -> Vertex {
        Vertex {
            digest: self.digest(&vertex.digest),
            inputs: vertex.inputs.iter().map(|input| self.digest(input)).collect(),
            name: self.name(&vertex.name).into(),
            started: self.time(vertex.started),
            completed: self.time(vertex.completed),
            cached: vertex.cached,
            error: vertex.error,
        }
    }

    fn status(&self, status: control::VertexStatus) -> VertexStatus {
        let count = |count: i64| u64::try_from(count).unwrap_or_default();
        VertexStatus {
            id: status.id,
            vertex: self.digest(&status.vertex),
            current: count(status.current),
            total: count(status.total),
            started: self.time(status.started),
            completed: self.time(status.completed),
        }
    }

    fn log(&self, log: control::VertexLog) -> VertexLog {
        VertexLog {
            vertex: self.digest(&log.vertex),
            stream: if log.stream == 2 { 2 } else { 1 },
            data: log.msg,
            timestamp: self.time(log.timestamp).unwrap_or_else(SystemTime::now),
        }
    }

    fn warning(&self, warning: &control::VertexWarning) -> VertexWarning {
        let parts = warning::Parts {
            level: warning.level,
            short: &warning.short,
            detail: &warning.detail,
            url: &warning.url,
            info: warning.info.as_ref(),
            ranges: &warning.ranges,
        };
        warning::read(self.digest(&warning.vertex), &parts)
    }

    fn digest(&self, digest: &str) -> Arc<str> {
        match &self.label {
            Some(label) if !digest.is_empty() => {
                let digest = KeyHasher::new("step of a node").part(label).part(digest).finish();
                format!("sha256:{}", digest.hex()).into()
            }
            _ => digest.into(),
        }
    }

    /// `[internal] load …` of node `arm` becomes `[arm internal] load …`.
    fn name(&self, name: &str) -> String {
        match (&self.label, name.strip_prefix('[')) {
            (None, _) => name.to_owned(),
            (Some(label), Some(rest)) => format!("[{label} {rest}"),
            (Some(label), None) => format!("[{label}] {name}"),
        }
    }

    fn time(&self, time: Option<prost_types::Timestamp>) -> Option<SystemTime> {
        let time = time?;
        let time = Timestamp::new(time.seconds, time.nanos).ok()?;
        Some(time.checked_add(self.skew).ok()?.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message() -> StatusResponse {
        let started = Some(prost_types::Timestamp { seconds: 1_000, nanos: 5 });
        StatusResponse {
            vertexes: vec![control::Vertex {
                digest: "sha256:aa".into(),
                inputs: vec!["sha256:bb".into()],
                name: "[internal] load build context".into(),
                started,
                ..control::Vertex::default()
            }],
            logs: vec![control::VertexLog {
                vertex: "sha256:aa".into(),
                stream: 2,
                msg: b"text\n".to_vec(),
                timestamp: started,
            }],
            ..StatusResponse::default()
        }
    }

    #[test]
    fn steps_of_a_lost_node_are_closed() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let noted = told.clone();
        let steps = OpenSteps::new(Progress::new(move |event| noted.lock().unwrap().push(event)));
        let translation = Translation { label: None, skew: SignedDuration::ZERO };
        let mut ended = message();
        ended.vertexes[0].digest = "sha256:cc".into();
        let mut end = ended.clone();
        end.vertexes[0].completed = end.vertexes[0].started;
        for message in [message(), ended, end] {
            translation.events(message).into_iter().for_each(|event| steps.send(event));
        }
        told.lock().unwrap().clear();
        steps.end();
        steps.end();
        translation.events(message()).into_iter().for_each(|event| steps.send(event));
        let told = told.lock().unwrap();
        let [Event::Vertex(vertex)] = told.as_slice() else { panic!("{told:?}") };
        assert_eq!((&*vertex.digest, vertex.error.as_str()), ("sha256:aa", "canceled"));
        assert!(vertex.completed.is_some());
    }

    #[test]
    fn a_step_that_was_there_stays_so_while_its_layers_come() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let noted = told.clone();
        let steps = OpenSteps::new(Progress::new(move |event| noted.lock().unwrap().push(event)));
        let translation = Translation { label: None, skew: SignedDuration::ZERO };
        let mut fetched = StatusResponse { vertexes: message().vertexes, ..StatusResponse::default() };
        fetched.vertexes[0].completed = fetched.vertexes[0].started;
        let mut found = fetched.clone();
        found.vertexes[0].cached = true;
        let mut failed = fetched.clone();
        failed.vertexes[0].error = "lost".to_owned();
        let mut other = fetched.clone();
        other.vertexes[0].digest = "sha256:cc".into();
        for message in [found, fetched, failed, other] {
            translation.events(message).into_iter().for_each(|event| steps.send(event));
        }
        let told = told.lock().unwrap();
        let cached = |event: &Event| matches!(event, Event::Vertex(vertex) if vertex.cached);
        assert_eq!(told.iter().map(cached).collect::<Vec<_>>(), [true, true, false, false]);
    }

    #[test]
    fn one_node_keeps_names_and_digests() {
        let translation = Translation { label: None, skew: SignedDuration::ZERO };
        let events = translation.events(message());
        let (Event::Vertex(vertex), Event::Log(log)) = (&events[0], &events[1]) else { panic!("{events:?}") };
        assert_eq!((&*vertex.digest, &*vertex.inputs[0]), ("sha256:aa", "sha256:bb"));
        assert_eq!(&*vertex.name, "[internal] load build context");
        assert_eq!((log.stream, log.data.as_slice()), (2, &b"text\n"[..]));
    }

    #[test]
    fn nodes_of_one_build_are_told_apart() {
        let of = |label: &str| {
            let translation = Translation { label: Some(label.to_owned()), skew: SignedDuration::ZERO };
            match translation.events(message()).swap_remove(0) {
                Event::Vertex(vertex) => vertex,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(&*of("arm").name, "[arm internal] load build context");
        assert_ne!(of("arm").digest, of("amd").digest);
        assert_eq!(of("arm"), of("arm"));
    }

    #[test]
    fn a_wrong_clock_is_set_right() {
        let ours = Timestamp::from_second(1_060).unwrap();
        let skew = skew(Some(Timestamp::from_second(1_000).unwrap()), ours);
        let translation = Translation { label: None, skew };
        let Event::Vertex(vertex) = translation.events(message()).swap_remove(0) else { panic!() };
        let expected: SystemTime = Timestamp::new(1_060, 5).unwrap().into();
        assert_eq!(vertex.started, Some(expected));
    }
}
