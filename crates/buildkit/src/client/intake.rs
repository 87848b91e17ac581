// SPDX-License-Identifier: Apache-2.0
//! How much of what a node tells of a build is taken: whoever shows it keeps it in memory until the end.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use polyarch_solver::progress::{Event, VertexWarning};

/// The most steps, parts of steps and warnings.
const MAX_ENTRIES: usize = 100_000;
/// The most bytes of all of them.
const MAX_TOLD_BYTES: usize = 64 << 20;
/// The most bytes of output of all steps.
const MAX_LOG_BYTES: usize = 256 << 20;
/// The longest name of a step, in bytes.
const MAX_NAME_BYTES: usize = 4 << 10;
/// The longest error of a step, in bytes.
const MAX_ERROR_BYTES: usize = 64 << 10;
/// The longest name of a part of a step, in bytes.
const MAX_ID_BYTES: usize = 1 << 10;
/// What an entry takes besides its texts, in bytes.
const ENTRY_BYTES: usize = 128;

/// Takes events as long as there is room.
#[derive(Default)]
pub(super) struct Intake {
    /// How much was taken of each step and, with a name, of each part of one.
    taken: HashMap<(Arc<str>, Option<String>), usize>,
    warnings: usize,
    told_bytes: usize,
    log_bytes: usize,
    is_full: bool,
}

impl Intake {
    /// Gives what is taken of an event to `emit`; once, that there is too much.
    pub(super) fn take(&mut self, event: Event, mut emit: impl FnMut(Event)) {
        let event = clipped(event);
        if let Event::Log(log) = &event
            && !self.taken.contains_key(&(log.vertex.clone(), None))
        {
            // Nobody would show it.
            return;
        }
        if self.has_room(&event) {
            emit(event);
        } else if !self.is_full {
            self.is_full = true;
            let message = "a node tells more of its build than is shown; some of it is left out";
            emit(Event::Warning(VertexWarning::new(message)));
        }
    }

    fn has_room(&mut self, event: &Event) -> bool {
        match event {
            Event::Vertex(vertex) => {
                let inputs: usize = vertex.inputs.iter().map(|input| input.len() + ENTRY_BYTES).sum();
                let bytes = vertex.digest.len() + vertex.name.len() + vertex.error.len() + inputs;
                self.enter((vertex.digest.clone(), None), bytes)
            }
            Event::Status(status) => {
                let bytes = status.vertex.len() + status.id.len();
                self.enter((status.vertex.clone(), Some(status.id.clone())), bytes)
            }
            Event::Log(log) => {
                self.log_bytes = self.log_bytes.saturating_add(log.data.len());
                self.log_bytes <= MAX_LOG_BYTES
            }
            Event::Warning(warning) => {
                let source =
                    warning.source.as_ref().map_or(0, |source| source.file.len() + source.text.len());
                let detail: usize = warning.detail.iter().map(String::len).sum();
                let bytes =
                    warning.vertex.len() + warning.message.len() + warning.url.len() + detail + source;
                let bytes = self.told_bytes.saturating_add(bytes + ENTRY_BYTES);
                let has_room = self.taken.len() + self.warnings < MAX_ENTRIES && bytes <= MAX_TOLD_BYTES;
                if has_room {
                    self.warnings += 1;
                    self.told_bytes = bytes;
                }
                has_room
            }
        }
    }

    /// Notes how much is known of a step or a part, instead of what was known before.
    fn enter(&mut self, key: (Arc<str>, Option<String>), bytes: usize) -> bool {
        let (count, bytes) = (self.taken.len() + self.warnings, bytes + ENTRY_BYTES);
        let others = |before: usize| self.told_bytes - before;
        match self.taken.entry(key) {
            Entry::Occupied(mut entry) if others(*entry.get()).saturating_add(bytes) <= MAX_TOLD_BYTES => {
                self.told_bytes = others(*entry.get()) + bytes;
                entry.insert(bytes);
                true
            }
            Entry::Vacant(entry) if count < MAX_ENTRIES && others(0) + bytes <= MAX_TOLD_BYTES => {
                self.told_bytes += bytes;
                entry.insert(bytes);
                true
            }
            Entry::Occupied(_) | Entry::Vacant(_) => false,
        }
    }
}

/// Shortens the texts of an event.
fn clipped(mut event: Event) -> Event {
    match &mut event {
        Event::Vertex(vertex) => {
            if vertex.name.len() > MAX_NAME_BYTES {
                let mut name = vertex.name.to_string();
                clip(&mut name, MAX_NAME_BYTES);
                vertex.name = name.into();
            }
            clip(&mut vertex.error, MAX_ERROR_BYTES);
        }
        Event::Status(status) => clip(&mut status.id, MAX_ID_BYTES),
        // Warnings have limits of their own, and output is limited as a whole.
        Event::Log(_) | Event::Warning(_) => {}
    }
    event
}

fn clip(text: &mut String, max: usize) {
    if text.len() > max {
        text.truncate(text.floor_char_boundary(max));
        text.push('…');
        text.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use polyarch_solver::progress::{Vertex, VertexLog, VertexStatus};

    use super::*;

    fn vertex(digest: usize, name: &str) -> Event {
        Event::Vertex(Vertex {
            digest: digest.to_string().into(),
            inputs: Vec::new(),
            name: name.into(),
            started: None,
            completed: None,
            cached: false,
            error: String::new(),
        })
    }

    fn taken(intake: &mut Intake, event: Event) -> Vec<Event> {
        let mut events = Vec::new();
        intake.take(event, |event| events.push(event));
        events
    }

    #[test]
    fn texts_are_shortened() {
        let events = taken(&mut Intake::default(), vertex(1, &"ä".repeat(MAX_NAME_BYTES)));
        let [Event::Vertex(vertex)] = events.as_slice() else { panic!("{events:?}") };
        assert_eq!(vertex.name.len(), MAX_NAME_BYTES + '…'.len_utf8());
    }

    #[test]
    fn steps_without_end_are_not_taken_and_that_is_told_once() {
        let mut intake = Intake::default();
        let name = "x".repeat(MAX_NAME_BYTES);
        let (mut events, mut warnings) = (0, 0);
        for digest in 0..MAX_ENTRIES {
            for event in taken(&mut intake, vertex(digest, &name)) {
                match event {
                    Event::Warning(_) => warnings += 1,
                    _ => events += 1,
                }
            }
        }
        assert!(events <= MAX_TOLD_BYTES / MAX_NAME_BYTES && events > 10_000, "{events}");
        assert_eq!(warnings, 1);
        // What is known may still change.
        assert_eq!(taken(&mut intake, vertex(0, "shorter")).len(), 1);
        assert_eq!(taken(&mut intake, vertex(0, &name)).len(), 1);
    }

    #[test]
    fn parts_and_warnings_have_an_end_as_well() {
        let mut intake = Intake::default();
        let status = |id: usize| {
            Event::Status(VertexStatus {
                id: id.to_string(),
                vertex: "1".into(),
                current: 0,
                total: 0,
                started: None,
                completed: None,
            })
        };
        for id in 0..MAX_ENTRIES {
            assert_eq!(taken(&mut intake, status(id)), [status(id)]);
        }
        assert!(matches!(taken(&mut intake, status(MAX_ENTRIES)).as_slice(), [Event::Warning(_)]));
        assert_eq!(taken(&mut intake, Event::Warning(VertexWarning::new("one more"))), []);
        assert_eq!(taken(&mut intake, status(7)), [status(7)]);
    }

    #[test]
    fn output_is_of_known_steps_and_has_an_end() {
        let log = |vertex: &str, bytes: usize| {
            let (data, timestamp) = (vec![b'x'; bytes], SystemTime::UNIX_EPOCH);
            Event::Log(VertexLog { vertex: vertex.into(), stream: 1, data, timestamp })
        };
        let mut intake = Intake::default();
        taken(&mut intake, vertex(1, "a step"));
        assert_eq!(taken(&mut intake, log("1", 5)), [log("1", 5)]);
        assert_eq!(taken(&mut intake, log("2", 5)), []);
        assert!(matches!(taken(&mut intake, log("1", MAX_LOG_BYTES)).as_slice(), [Event::Warning(_)]));
        assert_eq!(taken(&mut intake, log("1", 5)), []);
    }
}
