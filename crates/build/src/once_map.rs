// SPDX-License-Identifier: Apache-2.0
//! Work that must happen once per key, however many ask for it.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OnceCell;

/// Runs work once per key and gives the result to everybody who asked; failures are kept, too.
pub struct OnceMap<V, E> {
    cells: Mutex<HashMap<String, Slot<V, E>>>,
}

/// One key's result, once it is there.
type Slot<V, E> = Arc<OnceCell<Result<V, E>>>;

impl<V, E> Default for OnceMap<V, E> {
    fn default() -> OnceMap<V, E> {
        OnceMap { cells: Mutex::default() }
    }
}

impl<V: Clone, E: Clone> OnceMap<V, E> {
    /// Returns the result of the work of a key, running it when nobody has.
    ///
    /// # Errors
    /// What the work gave.
    pub async fn get<F: Future<Output = Result<V, E>>>(
        &self,
        key: &str,
        work: impl FnOnce() -> F,
    ) -> Result<V, E> {
        let cell = {
            let mut cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
            cells.entry(key.to_owned()).or_default().clone()
        };
        cell.get_or_init(work).await.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[tokio::test]
    async fn work_runs_once_per_key() {
        let (map, runs) = (OnceMap::<usize, ()>::default(), AtomicUsize::new(0));
        let work = || async {
            tokio::task::yield_now().await;
            Ok(runs.fetch_add(1, Ordering::SeqCst))
        };
        let (a, b) = tokio::join!(map.get("k", work), map.get("k", work));
        assert_eq!((a, b, runs.load(Ordering::SeqCst)), (Ok(0), Ok(0), 1));
        assert_eq!(map.get("other", work).await, Ok(1));
    }
}
