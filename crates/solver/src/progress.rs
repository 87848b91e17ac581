// SPDX-License-Identifier: Apache-2.0
//! Progress events, shaped like the messages of BuildKit's status stream.
//!
//! One owner renders them; everyone else sends. A vertex is sent when it starts and again when it
//! ends; one that came from the cache is sent once, with both times set.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::SystemTime;

use crate::KeyHasher;

/// A step of the build.
#[derive(Debug, Clone, PartialEq)]
pub struct Vertex {
    /// `sha256:…`-like text, unique per step.
    pub digest: Arc<str>,
    /// The digests of the steps that it waits for.
    pub inputs: Vec<Arc<str>>,
    /// What people read, `[linux/arm64 build 2/4] RUN make`.
    pub name: Arc<str>,
    /// When it started.
    pub started: Option<SystemTime>,
    /// When it ended, whether well or not.
    pub completed: Option<SystemTime>,
    /// Whether its result was there already.
    pub cached: bool,
    /// Why it failed; empty when it did not.
    pub error: String,
}

/// Progress within a step, for example of one blob.
#[derive(Debug, Clone, PartialEq)]
pub struct VertexStatus {
    /// What is progressing, unique in its vertex: `transferring context:`, `sha256:…`.
    pub id: String,
    /// The step.
    pub vertex: Arc<str>,
    /// How much is done.
    pub current: u64,
    /// Of how much; 0 when not known.
    pub total: u64,
    /// When it started.
    pub started: Option<SystemTime>,
    /// When it ended.
    pub completed: Option<SystemTime>,
}

/// Output of a step's process.
#[derive(Debug, Clone, PartialEq)]
pub struct VertexLog {
    /// The step.
    pub vertex: Arc<str>,
    /// 1 for standard output, 2 for standard error.
    pub stream: u8,
    /// The bytes, as they came.
    pub data: Vec<u8>,
    /// When they came.
    pub timestamp: SystemTime,
}

/// Something that deserves attention but stops nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct VertexWarning {
    /// The step; empty when the warning is about the whole build.
    pub vertex: Arc<str>,
    /// How important it is, as BuildKit counts; a finding about the Dockerfile has 1.
    pub level: i32,
    /// The warning in one sentence.
    pub message: String,
    /// Further lines: what the rule is about that was broken.
    pub detail: Vec<String>,
    /// The page that tells more; empty when there is none.
    pub url: String,
    /// The text that it is about.
    pub source: Option<Arc<WarningSource>>,
    /// The lines of that text, counted from 1.
    pub lines: Vec<RangeInclusive<u32>>,
}

impl VertexWarning {
    /// Makes a warning about the whole build.
    pub fn new(message: impl Into<String>) -> VertexWarning {
        VertexWarning {
            vertex: "".into(),
            level: 1,
            message: message.into(),
            detail: Vec::new(),
            url: String::new(),
            source: None,
            lines: Vec::new(),
        }
    }
}

/// A text that warnings are about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WarningSource {
    /// The name that people know it by.
    pub file: String,
    /// The whole text.
    pub text: Arc<str>,
}

/// One message.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A step started or ended.
    Vertex(Vertex),
    /// A step progressed.
    Status(VertexStatus),
    /// A step's process wrote.
    Log(VertexLog),
    /// Something deserves attention.
    Warning(VertexWarning),
}

/// Where events go; cheap to clone. Sending never blocks and never fails.
#[derive(Clone)]
pub struct Progress(Arc<dyn Fn(Event) + Send + Sync>);

impl Progress {
    /// Makes a sender of a function that takes each event; it must not block.
    pub fn new(send: impl Fn(Event) + Send + Sync + 'static) -> Progress {
        Progress(Arc::new(send))
    }

    /// Makes a sender that forgets everything.
    pub fn none() -> Progress {
        Progress::new(drop)
    }

    /// Sends one event.
    pub fn send(&self, event: Event) {
        (self.0)(event);
    }

    /// Sends a warning about the whole build.
    pub fn warn(&self, message: impl Into<String>) {
        self.send(Event::Warning(VertexWarning::new(message)));
    }

    /// Starts a step that is not a vertex of a graph (loading the Dockerfile, exporting); `identity` is
    /// unique to it within the run.
    pub fn begin(&self, identity: &str, name: impl Into<Arc<str>>) -> ActiveVertex {
        let digest = KeyHasher::new("step outside of the graph").part(identity).finish();
        let vertex = Vertex {
            digest: format!("sha256:{}", digest.hex()).into(),
            inputs: Vec::new(),
            name: name.into(),
            started: Some(SystemTime::now()),
            completed: None,
            cached: false,
            error: String::new(),
        };
        self.send(Event::Vertex(vertex.clone()));
        ActiveVertex { progress: self.clone(), vertex, is_ended: false }
    }
}

/// A step that has started; ends as cancelled when dropped.
pub struct ActiveVertex {
    progress: Progress,
    vertex: Vertex,
    is_ended: bool,
}

impl ActiveVertex {
    /// Returns the digest of the step.
    pub fn digest(&self) -> Arc<str> {
        self.vertex.digest.clone()
    }

    /// Ends the step well.
    pub fn done(mut self) {
        self.end(String::new());
    }

    /// Ends the step as found in the cache.
    pub fn cached(mut self) {
        self.vertex.cached = true;
        self.end(String::new());
    }

    /// Ends the step with an error.
    pub fn failed(mut self, error: impl std::fmt::Display) {
        self.end(error.to_string());
    }

    /// Starts a part of the step; `total` is 0 when it is not known.
    pub fn status(&self, id: impl Into<String>, total: u64) -> ActiveStatus {
        ActiveStatus::start(self.progress.clone(), self.vertex.digest.clone(), id.into(), total)
    }

    fn end(&mut self, error: String) {
        self.is_ended = true;
        self.vertex.error = error;
        self.vertex.completed = Some(SystemTime::now());
        self.progress.send(Event::Vertex(self.vertex.clone()));
    }
}

impl Drop for ActiveVertex {
    fn drop(&mut self) {
        if !self.is_ended {
            self.end("canceled".to_owned());
        }
    }
}

/// A part of a step that has started; ends when dropped.
pub struct ActiveStatus {
    progress: Progress,
    status: VertexStatus,
}

impl ActiveStatus {
    /// Starts a part of the step `vertex`.
    pub fn start(progress: Progress, vertex: Arc<str>, id: String, total: u64) -> ActiveStatus {
        let started = Some(SystemTime::now());
        let status = VertexStatus { id, vertex, current: 0, total, started, completed: None };
        progress.send(Event::Status(status.clone()));
        ActiveStatus { progress, status }
    }

    /// Says how much is done.
    pub fn update(&mut self, current: u64) {
        self.status.current = current;
        self.progress.send(Event::Status(self.status.clone()));
    }
}

impl Drop for ActiveStatus {
    fn drop(&mut self) {
        self.status.completed = Some(SystemTime::now());
        self.progress.send(Event::Status(self.status.clone()));
    }
}
