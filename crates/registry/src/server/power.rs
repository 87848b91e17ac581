// SPDX-License-Identifier: Apache-2.0
//! A power switch for tests: from a chosen operation on, nothing happens any more.

use std::io;
use std::path::PathBuf;
use std::sync::Mutex;

/// One operation, in the order in which they happened.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Step {
    SyncFile(PathBuf),
    SyncDir(PathBuf),
    Rename(PathBuf, PathBuf),
    Link(PathBuf, PathBuf),
    Remove(PathBuf),
}

#[derive(Debug, Default)]
pub(super) struct Power {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    done: Vec<Step>,
    left: Option<usize>,
    fails_once: bool,
}

impl Power {
    /// Lets `steps` more operations happen, syncs only in the log, and then none.
    pub(super) fn cut_after(&self, steps: usize) {
        self.state.lock().unwrap().left = Some(steps);
    }

    /// Lets the next operation fail, and then goes on.
    pub(super) fn fail_once(&self) {
        self.state.lock().unwrap().fails_once = true;
    }

    /// Returns the operations so far.
    pub(super) fn done(&self) -> Vec<Step> {
        self.state.lock().unwrap().done.clone()
    }

    /// Writes an operation down; `Ok(true)` when a sync shall stay in the log.
    pub(super) fn step(&self, step: Step) -> io::Result<bool> {
        let mut state = self.state.lock().unwrap();
        if std::mem::take(&mut state.fails_once) {
            return Err(io::Error::other("the test let the disk fail"));
        }
        match &mut state.left {
            Some(0) => return Err(io::Error::other("the test cut the power")),
            Some(left) => *left -= 1,
            None => {}
        }
        state.done.push(step);
        Ok(state.left.is_some())
    }

    /// Takes the last operation back: it failed, so it changed nothing.
    pub(super) fn forget_last(&self) {
        self.state.lock().unwrap().done.pop();
    }
}
