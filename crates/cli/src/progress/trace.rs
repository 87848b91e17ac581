// SPDX-License-Identifier: Apache-2.0
//! What is known of the steps of a build, from their events, in the order in which they began.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use polyarch_solver::progress::{Vertex, VertexStatus, VertexWarning};

use super::format::between;
use crate::visible_text::{visible_line, visible_text};

/// How a step stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It has not begun.
    Waiting,
    /// It runs.
    Running,
    /// It ended well.
    Done,
    /// It was in the cache.
    Cached,
    /// It was stopped because something else failed.
    Canceled,
    /// It failed.
    Failed,
}

/// A step and its parts.
#[derive(Debug, Clone)]
pub struct Step {
    /// The newest event of the step.
    pub vertex: Vertex,
    /// Its parts, in the order in which they began, each with the time of its newest event.
    pub statuses: Vec<(VertexStatus, SystemTime)>,
}

impl Step {
    /// Tells how the step stands.
    pub fn state(&self) -> State {
        let vertex = &self.vertex;
        match vertex.completed {
            Some(_) if vertex.error.trim_end().ends_with("canceled") => State::Canceled,
            Some(_) if !vertex.error.is_empty() => State::Failed,
            Some(_) if vertex.cached => State::Cached,
            Some(_) => State::Done,
            None if vertex.started.is_some() => State::Running,
            None => State::Waiting,
        }
    }

    /// Tells whether the step has ended.
    pub fn is_completed(&self) -> bool {
        self.vertex.completed.is_some()
    }

    /// Returns how long the step has run, or ran.
    pub fn duration(&self, now: SystemTime) -> Duration {
        match self.vertex.started {
            Some(started) => between(started, self.vertex.completed.unwrap_or(now)),
            None => Duration::ZERO,
        }
    }

    /// Returns the name on one line.
    pub fn name(&self) -> String {
        visible_line(self.vertex.name.replace(['\n', '\r'], " ").as_bytes())
    }
}

/// All steps of a build.
#[derive(Debug, Default)]
pub struct Trace {
    /// The steps; an index into this list stays valid.
    pub steps: Vec<Step>,
    /// The warnings, in order, each once.
    pub warnings: Vec<VertexWarning>,
    by_digest: HashMap<Arc<str>, usize>,
}

impl Trace {
    /// Finds a step by its digest.
    pub fn index(&self, digest: &str) -> Option<usize> {
        self.by_digest.get(digest).copied()
    }

    /// Takes the event of a step; returns its index.
    pub fn vertex(&mut self, vertex: Vertex) -> usize {
        if let Some(index) = self.index(&vertex.digest) {
            self.steps[index].vertex = vertex;
            return index;
        }
        self.by_digest.insert(vertex.digest.clone(), self.steps.len());
        self.steps.push(Step { vertex, statuses: Vec::new() });
        self.steps.len() - 1
    }

    /// Takes the event of a part; returns the index of its step and its own, when the step is known.
    pub fn status(&mut self, status: VertexStatus, now: SystemTime) -> Option<(usize, usize)> {
        let index = self.index(&status.vertex)?;
        let statuses = &mut self.steps[index].statuses;
        if let Some(at) = statuses.iter().position(|(known, _)| known.id == status.id) {
            statuses[at] = (status, now);
            return Some((index, at));
        }
        statuses.push((status, now));
        Some((index, statuses.len() - 1))
    }

    /// Takes a warning; returns the index of its step when it is new and has one.
    pub fn warning(&mut self, warning: VertexWarning) -> Option<usize> {
        if self.warnings.contains(&warning) {
            return None;
        }
        let index = self.index(&warning.vertex);
        self.warnings.push(warning);
        index
    }

    /// Writes the list of warnings that stands at the end of a build, in buildx's form; nothing when there are
    /// none. With `is_debug` each has its rule's description and page, and the lines that it is about.
    pub fn warning_summary(&self, is_debug: bool) -> String {
        let count = self.warnings.len();
        if count == 0 {
            return String::new();
        }
        let has_more = self.warnings.iter().any(|warning| warning.source.is_some());
        let hint = if has_more && !is_debug { " (use --debug to expand)" } else { "" };
        let mut text = format!("\n {count} warning{} found{hint}:\n", if count == 1 { "" } else { "s" });
        for warning in &self.warnings {
            text.push_str(&format!(" - {}\n", visible_line(warning.message.as_bytes())));
            if warning.source.is_none() || is_debug {
                let indent = if warning.source.is_none() { "   " } else { "" };
                for line in &warning.detail {
                    text.push_str(&format!("{indent}{}\n", visible_line(line.as_bytes())));
                }
            }
            if is_debug {
                text.push_str(&expanded(warning));
            }
        }
        text
    }
}

/// Returns what more there is to tell about a warning.
fn expanded(warning: &VertexWarning) -> String {
    let mut text = String::new();
    if !warning.url.is_empty() {
        text.push_str(&format!("More info: {}\n", visible_line(warning.url.as_bytes())));
    }
    if let (Some(source), Some(lines)) = (&warning.source, warning.lines.first()) {
        let last = warning.lines.iter().map(|lines| *lines.end()).max().unwrap_or(*lines.end());
        let excerpt = polyarch_dockerfile::render_excerpt(&source.file, &source.text, *lines.start()..=last);
        text.push_str(&visible_text(&excerpt));
        text.push('\n');
    }
    text
}
