// SPDX-License-Identifier: Apache-2.0
//! Clips the output of steps: at most 2 MiB per step, at most 200 KiB per second of its age.
//!
//! What is clipped is not lost entirely: the last 256 KiB are kept and passed on when the step ends,
//! since the end of the output usually tells what went wrong. The limits are BuildKit's, and so are the
//! variables that change them.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::SystemTime;

use polyarch_solver::progress::{Event, VertexLog};

use super::format::{between, binary_size};
use crate::Environment;

/// How much of clipped output is kept for the end.
const TAIL_BYTES: usize = 256 << 10;

/// How much output of a step is passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogLimits {
    /// In all; `None` is without limit.
    pub size_bytes: Option<u64>,
    /// Per second of the step's age; `None` is without limit.
    pub bytes_per_second: Option<u64>,
}

impl Default for LogLimits {
    fn default() -> LogLimits {
        LogLimits { size_bytes: Some(2 << 20), bytes_per_second: Some(200 << 10) }
    }
}

impl LogLimits {
    /// Reads `BUILDKIT_STEP_LOG_MAX_SIZE` and `BUILDKIT_STEP_LOG_MAX_SPEED`; -1 is without limit.
    pub fn from_environment(environment: &Environment) -> LogLimits {
        let read = |name: &str, default: Option<u64>| match environment.text(name) {
            Some("-1") => None,
            Some(text) => text.parse().map_or(default, Some),
            None => default,
        };
        let default = LogLimits::default();
        LogLimits {
            size_bytes: read("BUILDKIT_STEP_LOG_MAX_SIZE", default.size_bytes),
            bytes_per_second: read("BUILDKIT_STEP_LOG_MAX_SPEED", default.bytes_per_second),
        }
    }
}

/// Passes events on, and of logs only so much.
#[derive(Debug)]
pub struct Clipper {
    limits: LogLimits,
    steps: HashMap<Arc<str>, StepOutput>,
}

#[derive(Debug)]
struct StepOutput {
    started: SystemTime,
    passed_bytes: u64,
    is_clipping: bool,
    tail: VecDeque<u8>,
    is_tail_cut: bool,
    last: Option<VertexLog>,
}

impl Clipper {
    /// Makes a clipper that has seen nothing.
    pub fn new(limits: LogLimits) -> Clipper {
        Clipper { limits, steps: HashMap::new() }
    }

    /// Gives an event, what remains of it, or more than it to `emit`.
    pub fn pass(&mut self, event: Event, mut emit: impl FnMut(Event)) {
        match event {
            Event::Log(log) => self.pass_log(log, emit),
            Event::Vertex(vertex) => {
                if vertex.completed.is_some()
                    && let Some(step) = self.steps.remove(&vertex.digest)
                    && let Some(log) = step.into_tail()
                {
                    emit(Event::Log(log));
                }
                emit(Event::Vertex(vertex));
            }
            other => emit(other),
        }
    }

    fn pass_log(&mut self, log: VertexLog, mut emit: impl FnMut(Event)) {
        let limits = self.limits;
        let step = self.steps.entry(log.vertex.clone()).or_insert_with(|| StepOutput {
            started: log.timestamp,
            passed_bytes: 0,
            is_clipping: false,
            tail: VecDeque::new(),
            is_tail_cut: false,
            last: None,
        });
        let Some(reason) = step.limit_reached(limits, &log) else {
            // Output may flow again after a burst; what was clipped meanwhile stays out.
            step.is_clipping = false;
            step.tail.clear();
            step.is_tail_cut = false;
            step.passed_bytes += log.data.len() as u64;
            emit(Event::Log(log));
            return;
        };
        if !step.is_clipping {
            step.is_clipping = true;
            let note = format!("\n[output clipped, log limit {reason} reached]\n");
            emit(Event::Log(VertexLog { data: note.into_bytes(), ..log.clone() }));
        }
        step.tail.extend(&log.data);
        if step.tail.len() > TAIL_BYTES {
            step.tail.drain(..step.tail.len() - TAIL_BYTES);
            step.is_tail_cut = true;
        }
        step.last = Some(VertexLog { data: Vec::new(), ..log });
    }
}

impl StepOutput {
    /// Names the limit that this piece would exceed.
    fn limit_reached(&self, limits: LogLimits, log: &VertexLog) -> Option<String> {
        let wanted = self.passed_bytes.saturating_add(log.data.len() as u64);
        if let Some(size) = limits.size_bytes
            && wanted > size
        {
            return Some(binary_size(size));
        }
        let seconds = between(self.started, log.timestamp).as_secs() + 1;
        let speed = limits.bytes_per_second?;
        (wanted > speed.saturating_mul(seconds)).then(|| format!("{}/s", binary_size(speed)))
    }

    /// Returns what was kept of clipped output, from a line's beginning.
    fn into_tail(mut self) -> Option<VertexLog> {
        let log = self.last.filter(|_| !self.tail.is_empty())?;
        let data = self.tail.make_contiguous();
        let start = match data.iter().position(|byte| *byte == b'\n') {
            Some(at) if self.is_tail_cut => at + 1,
            _ => 0,
        };
        Some(VertexLog { data: data[start..].to_vec(), ..log })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use polyarch_solver::progress::Vertex;
    use std::time::Duration;

    fn log(at_seconds: u64, data: Vec<u8>) -> Event {
        let timestamp = SystemTime::UNIX_EPOCH + Duration::from_secs(at_seconds);
        Event::Log(VertexLog { vertex: "v".into(), stream: 1, data, timestamp })
    }

    fn end() -> Event {
        Event::Vertex(Vertex {
            digest: "v".into(),
            inputs: Vec::new(),
            name: "v".into(),
            started: None,
            completed: Some(SystemTime::UNIX_EPOCH),
            cached: false,
            error: String::new(),
        })
    }

    fn run(limits: LogLimits, events: Vec<Event>) -> Vec<String> {
        let mut clipper = Clipper::new(limits);
        let mut out = Vec::new();
        for event in events {
            clipper.pass(event, |event| {
                if let Event::Log(log) = event {
                    out.push(String::from_utf8(log.data).unwrap());
                }
            });
        }
        out
    }

    #[test]
    fn output_within_the_limits_passes_unchanged() {
        let out = run(LogLimits::default(), vec![log(0, b"a\n".to_vec()), log(1, b"b\n".to_vec()), end()]);
        assert_eq!(out, ["a\n", "b\n"]);
    }

    #[test]
    fn a_burst_is_clipped_and_output_flows_again_later() {
        let limits = LogLimits { size_bytes: None, bytes_per_second: Some(4) };
        let out = run(
            limits,
            vec![log(0, b"1234".to_vec()), log(0, b"567\n".to_vec()), log(9, b"9\n".to_vec()), end()],
        );
        assert_eq!(out, ["1234", "\n[output clipped, log limit 4B/s reached]\n", "9\n"]);
    }

    #[test]
    fn of_too_much_output_the_end_is_kept() {
        let limits = LogLimits { size_bytes: Some(10), bytes_per_second: None };
        let long = "x".repeat(TAIL_BYTES);
        let out = run(
            limits,
            vec![
                log(0, b"begin\n".to_vec()),
                log(0, b"middle\n".to_vec()),
                log(0, long.clone().into_bytes()),
                log(0, b"\nthe end\n".to_vec()),
                end(),
            ],
        );
        assert_eq!(out, ["begin\n", "\n[output clipped, log limit 10B reached]\n", "the end\n"]);
    }

    #[test]
    fn minus_one_is_without_limit() {
        let environment = Environment {
            variables: [
                ("BUILDKIT_STEP_LOG_MAX_SIZE".to_owned(), "-1".into()),
                ("BUILDKIT_STEP_LOG_MAX_SPEED".to_owned(), "7".into()),
            ]
            .into(),
            ..Environment::default()
        };
        let limits = LogLimits::from_environment(&environment);
        assert_eq!(limits, LogLimits { size_bytes: None, bytes_per_second: Some(7) });
    }
}
