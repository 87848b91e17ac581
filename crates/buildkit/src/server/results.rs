// SPDX-License-Identifier: Apache-2.0
//! What a frontend has made and returned, within one build.
//!
//! A frontend in the client (buildx runs one) gets opaque names of trees, reads files of them, and at
//! last returns some of them as the result. Names are random and told to that client alone. Its calls find the
//! trees of their own build only; to hand a tree on to another build of its own, as bake does with linked
//! targets, a client sends the definition that names it.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use polyarch_build::{BuildRequest, Evaluated};
use tokio::sync::Notify;
use tonic::Status;

use crate::session::random_id;

/// The most trees that a frontend may have at a time.
const MAX_TREES: usize = 4096;

/// What was built of a request: the trees of its platforms.
pub(crate) struct Evaluation {
    /// What was built.
    pub(crate) request: BuildRequest,
    /// The trees.
    pub(crate) evaluated: Evaluated,
}

/// One platform's tree.
#[derive(Clone)]
pub(crate) struct ResultTree {
    /// Where it is from.
    pub(crate) evaluation: Arc<Evaluation>,
    /// Which of its platforms.
    pub(crate) platform: usize,
}

/// The result of a frontend.
#[derive(Clone, Default)]
pub(crate) struct Solved {
    /// Whether it is a map by platform, which becomes an index whatever the number of its entries.
    pub(crate) is_map: bool,
    /// The trees by platform, in order; one with an empty name when it is no map.
    pub(crate) trees: Vec<(String, ResultTree)>,
    /// What the frontend says of it: configs, answers to questions.
    pub(crate) metadata: BTreeMap<String, Vec<u8>>,
}

/// The trees and the result of one build.
#[derive(Default)]
pub(crate) struct Results {
    trees: Mutex<HashMap<String, ResultTree>>,
    returned: Mutex<Option<Result<Solved, Status>>>,
    came: Notify,
}

impl Results {
    /// Gives a tree a name.
    pub(crate) fn add(&self, tree: ResultTree) -> Result<String, Status> {
        let name = random_id().map_err(|error| Status::internal(format!("no random bytes: {error}")))?;
        let mut trees = self.trees.lock().unwrap_or_else(PoisonError::into_inner);
        if trees.len() >= MAX_TREES {
            return Err(Status::resource_exhausted(format!("a build has at most {MAX_TREES} results")));
        }
        trees.insert(name.clone(), tree);
        Ok(name)
    }

    /// Returns the tree of a name.
    pub(crate) fn get(&self, name: &str) -> Result<ResultTree, Status> {
        let trees = self.trees.lock().unwrap_or_else(PoisonError::into_inner);
        trees.get(name).cloned().ok_or_else(|| Status::not_found(format!("no such ref {name}")))
    }

    /// Ends the frontend, once.
    pub(crate) fn give_back(&self, result: Result<Solved, Status>) -> Result<(), Status> {
        let mut returned = self.returned.lock().unwrap_or_else(PoisonError::into_inner);
        if returned.is_some() {
            return Err(Status::failed_precondition("the result has been returned already"));
        }
        *returned = Some(result);
        drop(returned);
        self.came.notify_waiters();
        Ok(())
    }

    /// Waits until the frontend has ended.
    pub(crate) async fn returned(&self) -> Result<Solved, Status> {
        loop {
            let came = self.came.notified();
            tokio::pin!(came);
            came.as_mut().enable();
            if let Some(result) = self.returned.lock().unwrap_or_else(PoisonError::into_inner).clone() {
                return result;
            }
            came.await;
        }
    }
}
