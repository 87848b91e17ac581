// SPDX-License-Identifier: Apache-2.0
//! Changes that wait for each other are made together: one write for all of them.

use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};

/// Changes of one thing, and who waits for them.
pub(super) struct Batches<C, R> {
    waiting: Mutex<Vec<(C, SyncSender<R>)>>,
    writing: Mutex<()>,
}

impl<C, R> std::fmt::Debug for Batches<C, R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Batches").finish_non_exhaustive()
    }
}

impl<C, R> Default for Batches<C, R> {
    fn default() -> Batches<C, R> {
        Batches { waiting: Mutex::default(), writing: Mutex::default() }
    }
}

impl<C, R> Batches<C, R> {
    /// Makes a change, by itself or together with others, by whoever comes first; `apply` returns what became of each.
    /// `None` when it returned too little.
    pub(super) fn submit(&self, change: C, apply: impl FnOnce(Vec<C>) -> Vec<R>) -> Option<R> {
        let (sender, receiver) = sync_channel(1);
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push((change, sender));
        let writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Ok(result) = receiver.try_recv() {
            return Some(result);
        }
        let batch = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        let (changes, senders): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
        for (sender, result) in senders.iter().zip(apply(changes)) {
            // Each receiver waits for the lock that this thread holds; a channel of one never blocks.
            let _ = sender.try_send(result);
        }
        drop(writing);
        receiver.try_recv().ok()
    }
}
