// SPDX-License-Identifier: Apache-2.0
//! Progress as lines, in the form that BuildKit made familiar (`--progress=plain`).
//!
//! Every line begins with the number of its step. A step that gives way to another is left with
//! `#n ...` and gets its header again later. Steps that have ended go first; among those that run, the
//! one on show stays until it has had its share of time, measured by how much the others have to say.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::time::{Duration, SystemTime};

use polyarch_solver::progress::{Event, VertexLog};

use super::Renderer;
use super::format::{amount, between, log_time};
use super::trace::{State, Trace};
use crate::visible_text::{visible_line, visible_text};

/// A step keeps the output for at least about this long while others are waiting.
const SLICE: Duration = Duration::from_secs(5);
/// A step that has had something to say for this long is shown next.
const PATIENCE: Duration = Duration::from_secs(10);
/// Progress of a part is repeated after this long, or after this share of its whole.
const STATUS_INTERVAL: Duration = Duration::from_secs(5);
const STATUS_SHARE: f64 = 0.05;

/// Renders events as lines.
#[derive(Debug, Default)]
pub struct Plain {
    description: String,
    is_debug: bool,
    trace: Trace,
    /// What was printed of each step of the trace, and what waits.
    steps: Vec<StepText>,
    updated: BTreeSet<usize>,
    current: Option<usize>,
    last_number: usize,
    has_begun: bool,
    /// The last line printed has no end yet.
    is_line_open: bool,
}

#[derive(Debug, Default)]
struct StepText {
    number: usize,
    chunks: Vec<Chunk>,
    /// The newest chunk has no line end.
    is_partial: bool,
    last_line_time: Duration,
    /// How much it had to say since it was last on show, and since when.
    activity: u64,
    active_since: Option<SystemTime>,
    changed_statuses: BTreeSet<usize>,
    printed_statuses: BTreeMap<usize, (u64, SystemTime)>,
    warnings: Vec<String>,
    is_ended: bool,
}

/// A piece of a line of a step's output.
#[derive(Debug)]
struct Chunk {
    time: Duration,
    text: Vec<u8>,
    starts_line: bool,
    ends_line: bool,
}

impl Plain {
    /// Makes a renderer; a description that is not empty becomes line `#0`. With `is_debug` warnings are told in full.
    pub fn new(description: String, is_debug: bool) -> Plain {
        Plain { description, is_debug, ..Plain::default() }
    }

    fn touch(&mut self, index: usize, activity: u64, now: SystemTime) {
        self.updated.insert(index);
        let step = &mut self.steps[index];
        if step.activity == 0 {
            step.active_since = Some(now);
        }
        step.activity += activity;
    }

    fn log(&mut self, log: &VertexLog) -> Option<usize> {
        let index = self.trace.index(&log.vertex)?;
        let started = self.trace.steps[index].vertex.started.unwrap_or(log.timestamp);
        let time = between(started, log.timestamp);
        let step = &mut self.steps[index];
        for piece in log.data.split_inclusive(|byte| *byte == b'\n') {
            let text = piece.strip_suffix(b"\n").unwrap_or(piece);
            let ends_line = text.len() < piece.len();
            let starts_line = !step.is_partial;
            step.chunks.push(Chunk { time, text: text.to_vec(), starts_line, ends_line });
            step.is_partial = !ends_line;
        }
        Some(index)
    }

    fn print_step(&mut self, out: &mut dyn Write, index: usize) -> std::io::Result<()> {
        self.updated.remove(&index);
        self.print_header(out, index)?;
        let has_open_status = self.print_statuses(out, index)?;
        let number = self.steps[index].number;
        for warning in std::mem::take(&mut self.steps[index].warnings) {
            self.line(out, &format!("#{number} WARN: {warning}"))?;
        }
        self.print_chunks(out, index)?;
        self.current = Some(index);
        if self.trace.steps[index].is_completed() && !has_open_status {
            self.print_end(out, index)?;
        }
        Ok(())
    }

    fn print_header(&mut self, out: &mut dyn Write, index: usize) -> std::io::Result<()> {
        if self.steps[index].number == 0 {
            self.last_number += 1;
            self.steps[index].number = self.last_number;
        }
        if self.current == Some(index) {
            return Ok(());
        }
        if let Some(old) = self.current {
            self.steps[old].activity = 0;
            let number = self.steps[old].number;
            self.line(out, &format!("#{number} ..."))?;
        }
        // A blank line between blocks; before the first only the description, when there is one.
        if std::mem::replace(&mut self.has_begun, true) {
            writeln!(out)?;
        } else if !self.description.is_empty() {
            writeln!(out, "#0 {}\n", self.description)?;
        }
        let name = self.trace.steps[index].name();
        self.line(out, &format!("#{} {name}", self.steps[index].number))
    }

    /// Prints the parts that changed enough; tells whether one is still open.
    fn print_statuses(&mut self, out: &mut dyn Write, index: usize) -> std::io::Result<bool> {
        let mut has_open = false;
        for at in std::mem::take(&mut self.steps[index].changed_statuses) {
            let (status, updated) = &self.trace.steps[index].statuses[at];
            let is_completed = status.completed.is_some();
            has_open |= !is_completed;
            let step = &mut self.steps[index];
            if let Some((printed, when)) = step.printed_statuses.get(&at)
                && !is_completed
            {
                let advance = status.current.saturating_sub(*printed) as f64;
                let is_little = status.total == 0 || advance / (status.total as f64) < STATUS_SHARE;
                if is_little && between(*when, *updated) < STATUS_INTERVAL {
                    continue;
                }
            }
            step.printed_statuses.insert(at, (status.current, *updated));
            let mut text = format!(
                "#{} {}{}",
                step.number,
                visible_line(status.id.as_bytes()),
                amount(status.current, status.total)
            );
            let duration = status.started.map(|at| between(at, status.completed.unwrap_or(*updated)));
            if let Some(duration) = duration.filter(|duration| duration.as_millis() > 10) {
                text.push_str(&format!(" {:.1}s", duration.as_secs_f64()));
            }
            if is_completed {
                text.push_str(" done");
            }
            self.line(out, &text)?;
        }
        Ok(has_open)
    }

    fn print_chunks(&mut self, out: &mut dyn Write, index: usize) -> std::io::Result<()> {
        for chunk in std::mem::take(&mut self.steps[index].chunks) {
            let step = &mut self.steps[index];
            if chunk.starts_line {
                step.last_line_time = chunk.time;
            }
            // A line that was broken off by another step's lines begins anew.
            if chunk.starts_line || !self.is_line_open {
                let (number, time) = (step.number, log_time(step.last_line_time));
                self.end_line(out)?;
                write!(out, "#{number} {time} ")?;
            }
            out.write_all(&chunk.text)?;
            if chunk.ends_line {
                writeln!(out)?;
            }
            self.is_line_open = !chunk.ends_line;
        }
        Ok(())
    }

    fn print_end(&mut self, out: &mut dyn Write, index: usize) -> std::io::Result<()> {
        let step = &self.trace.steps[index];
        let number = self.steps[index].number;
        let end = match step.state() {
            State::Canceled => "CANCELED".to_owned(),
            State::Failed => format!("ERROR: {}", visible_text(&step.vertex.error)),
            State::Cached => "CACHED".to_owned(),
            _ if step.vertex.started.is_none() => "DONE".to_owned(),
            _ => format!("DONE {:.1}s", step.duration(SystemTime::UNIX_EPOCH).as_secs_f64()),
        };
        self.line(out, &format!("#{number} {end}"))?;
        self.current = None;
        self.steps[index].activity = 0;
        self.steps[index].is_ended = true;
        Ok(())
    }

    fn line(&mut self, out: &mut dyn Write, text: &str) -> std::io::Result<()> {
        self.end_line(out)?;
        writeln!(out, "{text}")
    }

    fn end_line(&mut self, out: &mut dyn Write) -> std::io::Result<()> {
        if std::mem::take(&mut self.is_line_open) {
            writeln!(out)?;
        }
        Ok(())
    }

    /// Prints every step that has ended, the one on show first, the others by when they ended.
    fn print_completed(&mut self, out: &mut dyn Write) -> std::io::Result<()> {
        let steps = &self.trace.steps;
        let mut completed: Vec<usize> =
            self.updated.iter().copied().filter(|index| steps[*index].is_completed()).collect();
        completed.sort_by_key(|index| (self.current != Some(*index), steps[*index].vertex.completed));
        for index in completed {
            self.print_step(out, index)?;
        }
        Ok(())
    }

    /// Chooses which of the running steps to show now.
    fn choose_running(&self, waiting: &BTreeSet<usize>, now: SystemTime) -> Option<usize> {
        let active_for =
            |index: usize| self.steps[index].active_since.map_or(Duration::ZERO, |since| between(since, now));
        let speed =
            |index: usize| self.steps[index].activity as f64 / active_for(index).as_secs_f64().max(0.001);
        let Some(current) = self.current else {
            return waiting.iter().copied().reduce(|a, b| if speed(b) > speed(a) { b } else { a });
        };
        let others = || waiting.iter().copied().filter(move |index| *index != current);
        if let Some(hidden) = others().find(|index| active_for(*index) > PATIENCE) {
            return Some(hidden);
        }
        let liveliest = others().reduce(|a, b| if speed(b) > speed(a) { b } else { a })?;
        let others_speed: f64 = others().map(speed).sum();
        let share = speed(current) / (speed(current) + others_speed).max(f64::MIN_POSITIVE);
        // The more of the output is its own, the longer the step on show may keep it.
        let slice = SLICE.as_secs_f64() / (1.0 - share).max(0.01);
        (active_for(current).as_secs_f64() > slice).then_some(liveliest)
    }
}

impl Renderer for Plain {
    fn update(&mut self, event: Event, now: SystemTime) {
        match event {
            Event::Vertex(vertex) => {
                let is_shown = vertex.started.is_some() || vertex.completed.is_some();
                let is_running = vertex.completed.is_none();
                let index = self.trace.vertex(vertex);
                self.steps.resize_with(self.trace.steps.len(), StepText::default);
                if is_running {
                    self.steps[index].is_ended = false;
                }
                if is_shown && !self.steps[index].is_ended {
                    self.touch(index, 1, now);
                }
            }
            Event::Status(status) => {
                if let Some((index, at)) = self.trace.status(status, now) {
                    self.steps[index].changed_statuses.insert(at);
                    self.touch(index, 1, now);
                }
            }
            Event::Log(log) => {
                if let Some(index) = self.log(&log) {
                    self.touch(index, 1, now);
                }
            }
            Event::Warning(warning) => {
                let message = visible_line(warning.message.as_bytes());
                if let Some(index) = self.trace.warning(warning) {
                    self.steps[index].warnings.push(message);
                    self.touch(index, 1, now);
                }
            }
        }
    }

    fn refresh(&mut self, out: &mut dyn Write, now: SystemTime) -> std::io::Result<()> {
        self.print_completed(out)?;
        let steps = &self.trace.steps;
        let waiting: BTreeSet<usize> =
            self.updated.iter().copied().filter(|index| !steps[*index].is_completed()).collect();
        if waiting.is_empty() {
            let is_open =
                |index: usize| steps[index].state() == State::Running && !self.steps[index].is_ended;
            if self.current.is_none()
                && let Some(open) = (0..steps.len()).find(|index| is_open(*index))
            {
                // After a step has ended, show what still runs, so that its silence has a name.
                self.print_step(out, open)?;
            }
            return out.flush();
        }
        if let Some(current) = self.current.filter(|current| waiting.contains(current)) {
            self.print_step(out, current)?;
        }
        if let Some(next) = self.choose_running(&waiting, now) {
            self.print_step(out, next)?;
        }
        out.flush()
    }

    fn finish(&mut self, out: &mut dyn Write, now: SystemTime) -> std::io::Result<()> {
        self.refresh(out, now)?;
        // What waited for its turn, and steps whose parts never ended.
        let mut rest = self.updated.clone();
        rest.extend(
            (0..self.steps.len())
                .filter(|index| self.trace.steps[*index].is_completed() && !self.steps[*index].is_ended),
        );
        for index in rest {
            self.print_step(out, index)?;
            if self.trace.steps[index].is_completed() && !self.steps[index].is_ended {
                self.print_end(out, index)?;
            }
        }
        self.end_line(out)?;
        out.write_all(self.trace.warning_summary(self.is_debug).as_bytes())
    }
}
