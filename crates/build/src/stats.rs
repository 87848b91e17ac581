// SPDX-License-Identifier: Apache-2.0
//! Which steps really executed, how and how long; the table at the end of a build.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use crate::result::Execution;

/// What is known of executed steps, by the digest of their vertex.
#[derive(Default)]
pub struct Stats(Mutex<HashMap<Arc<str>, Executed>>);

struct Executed {
    execution: Execution,
    started: SystemTime,
    completed: SystemTime,
}

impl Stats {
    /// Records that a step executed, up to now.
    pub(crate) fn executed(&self, vertex: Arc<str>, execution: Execution, started: SystemTime) {
        let mut steps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        steps.insert(vertex, Executed { execution, started, completed: SystemTime::now() });
    }

    /// Sums up some steps: emulated wins over native, and the time is that from the first to the last.
    pub(crate) fn summary<'a>(&self, vertices: impl Iterator<Item = &'a Arc<str>>) -> (Execution, Duration) {
        let steps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let executed: Vec<&Executed> = vertices.filter_map(|vertex| steps.get(vertex)).collect();
        let emulated = executed.iter().find(|step| matches!(step.execution, Execution::Emulated(_)));
        let execution = emulated.or(executed.first()).map_or(Execution::None, |step| step.execution.clone());
        let first = executed.iter().map(|step| step.started).min();
        let last = executed.iter().map(|step| step.completed).max();
        let duration = match (first, last) {
            (Some(first), Some(last)) => last.duration_since(first).unwrap_or_default(),
            _ => Duration::ZERO,
        };
        (execution, duration)
    }
}
