// SPDX-License-Identifier: Apache-2.0
//! Mistakes of ours: one line about each, and the end of what it happened in.
//!
//! A command ends with its first panic: unwinding could leave other threads waiting, and the store is whole at
//! any moment. A node has the builds of several clients, which have nothing to do with one another; there the
//! panic ends the task that it happened in, and the client of that task is told.

use std::panic::PanicHookInfo;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::ExitCode;
use crate::printer::Printer;

static IS_SERVING: AtomicBool = AtomicBool::new(false);

/// Lets the process outlive panics of its tasks from now on; one of its main thread still ends it.
pub fn keep_serving() {
    IS_SERVING.store(true, Ordering::Relaxed);
}

/// Reports a panic, on whichever thread it happened; ends the process unless it serves.
#[expect(clippy::exit, reason = "see above: what a command has begun can't be brought to a good end")]
pub fn report(info: &PanicHookInfo<'_>) {
    let place =
        info.location().map_or(String::new(), |place| format!(" at {}:{}", place.file(), place.line()));
    let message = info.payload_as_str().unwrap_or("no message");
    Printer.message(&format!("internal error: {message}{place} (please report)\n"));
    if must_end(IS_SERVING.load(Ordering::Relaxed), std::thread::current().name()) {
        std::process::exit(i32::from(ExitCode::Internal.number()));
    }
}

fn must_end(is_serving: bool, thread: Option<&str>) -> bool {
    // The main thread accepts the clients; nobody else would.
    !is_serving || thread == Some("main")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tasks_of_a_node_panic_alone() {
        assert!(must_end(false, Some("worker")) && must_end(false, None));
        assert!(must_end(true, Some("main")));
        assert!(!must_end(true, Some("worker")) && !must_end(true, None));
    }
}
