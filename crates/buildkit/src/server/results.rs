// SPDX-License-Identifier: Apache-2.0
//! What a frontend has made and returned, within one build.
//!
//! A frontend in the client (buildx runs one) gets opaque names of trees, reads files of them, and at
//! last returns some of them as the result. Names are random and told to that client alone. Its calls find the
//! trees of their own build only; to hand a tree on to another build of its own, as bake does with linked
//! targets, a client sends the definition that names it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use polyarch_build::{AskedImage, BuildError, BuildRequest, Evaluated};
use polyarch_oci::{ImageConfig, Platform};
use tokio::sync::Notify;
use tonic::Status;

use crate::server::attributes::request_of;
use crate::server::builds::Build;
use crate::session::random_id;

/// The most trees that a frontend may have at a time.
const MAX_TREES: usize = 4096;
/// The most images that a frontend has asked about and that are remembered.
const MAX_IMAGES: usize = 1024;

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

impl ResultTree {
    /// Makes the tree that has nothing, for this machine's platform.
    pub(super) fn empty() -> Result<ResultTree, BuildError> {
        let platform = Platform::host();
        let evaluated = Evaluated::empty(platform.clone());
        let request = BuildRequest { platforms: vec![platform], ..request_of(&BTreeMap::new(), Vec::new())? };
        Ok(ResultTree { evaluation: Arc::new(Evaluation { request, evaluated }), platform: 0 })
    }

    /// Returns the tree as an image of another config, for the platform that it has.
    pub(super) fn with_config(&self, config: ImageConfig) -> ResultTree {
        let platform = self.evaluation.evaluated.platforms().nth(self.platform).cloned();
        platform.map_or_else(|| self.clone(), |platform| self.as_image(platform, config))
    }

    /// Returns the tree with what its client's frontend took in besides.
    pub(super) fn taking_in(&self, others: &[ResultTree], images: &[AskedImage]) -> ResultTree {
        let Evaluation { request, evaluated } = &*self.evaluation;
        let others = others.iter().map(|tree| (&tree.evaluation.evaluated, tree.platform));
        let Some(evaluated) = evaluated.taking_in(self.platform, others, images) else {
            return self.clone();
        };
        ResultTree::now(request, evaluated)
    }

    /// Returns the tree with the bill of materials that is in a directory of another.
    pub(super) async fn with_bill(
        &self,
        bill: &ResultTree,
        directory: &str,
        build: &Build,
    ) -> Result<ResultTree, BuildError> {
        let Evaluation { request, evaluated } = &*self.evaluation;
        let of = (evaluated, self.platform);
        let from = (&bill.evaluation.evaluated, bill.platform);
        let evaluated = build.services.with_bill(of, from, directory, &build.progress()).await?;
        Ok(ResultTree::now(request, evaluated))
    }

    /// Returns what has become of the tree, which is the only one now.
    fn now(request: &BuildRequest, evaluated: Evaluated) -> ResultTree {
        let platforms = evaluated.platforms().cloned().collect();
        let request = BuildRequest { platforms, ..request.clone() };
        ResultTree { evaluation: Arc::new(Evaluation { request, evaluated }), platform: 0 }
    }

    /// Returns the tree as an image of another platform and config.
    pub(super) fn as_image(&self, platform: Platform, config: ImageConfig) -> ResultTree {
        let Evaluation { request, evaluated } = &*self.evaluation;
        let Some(evaluated) = evaluated.with_config(self.platform, platform.clone(), config) else {
            return self.clone();
        };
        let request = BuildRequest { platforms: vec![platform], ..request.clone() };
        ResultTree { evaluation: Arc::new(Evaluation { request, evaluated }), platform: 0 }
    }
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
    /// The trees, and why some have none: whoever asks for one learns it.
    trees: Mutex<HashMap<String, Result<ResultTree, Status>>>,
    images: Mutex<Vec<AskedImage>>,
    returned: Mutex<Option<Result<Solved, Status>>>,
    came: Notify,
}

impl Results {
    /// Gives a tree a name.
    pub(crate) fn add(&self, tree: ResultTree) -> Result<String, Status> {
        self.add_outcome(Ok(tree))
    }

    /// Gives a tree a name that could not be made: frontends may never look at what they have asked for.
    pub(crate) fn add_failed(&self, failure: Status) -> Result<String, Status> {
        self.add_outcome(Err(failure))
    }

    fn add_outcome(&self, tree: Result<ResultTree, Status>) -> Result<String, Status> {
        let name = random_id().map_err(|error| Status::internal(format!("no random bytes: {error}")))?;
        let mut trees = self.trees.lock().unwrap_or_else(PoisonError::into_inner);
        if trees.len() >= MAX_TREES {
            return Err(Status::resource_exhausted(format!("a build has at most {MAX_TREES} results")));
        }
        trees.insert(name.clone(), tree);
        Ok(name)
    }

    /// Returns the tree of a name, or why it could not be made.
    ///
    /// # Errors
    /// When it is the name of no tree of this build.
    pub(crate) fn outcome(&self, name: &str) -> Result<Result<ResultTree, Status>, Status> {
        let trees = self.trees.lock().unwrap_or_else(PoisonError::into_inner);
        trees.get(name).cloned().ok_or_else(|| Status::not_found(format!("no such ref {name}")))
    }

    /// Returns the tree of a name.
    ///
    /// # Errors
    /// When there is none, or it could not be made.
    pub(crate) fn get(&self, name: &str) -> Result<ResultTree, Status> {
        self.outcome(name)?
    }

    /// Returns the trees of all names but some.
    pub(super) fn others(&self, names: &BTreeSet<&str>) -> Vec<ResultTree> {
        let trees = self.trees.lock().unwrap_or_else(PoisonError::into_inner);
        let others = trees.iter().filter(|(name, _)| !names.contains(name.as_str()));
        others.filter_map(|(_, tree)| tree.as_ref().ok().cloned()).collect()
    }

    /// Remembers an image that the frontend has asked about.
    pub(super) fn note_image(&self, image: AskedImage) {
        let mut images = self.images.lock().unwrap_or_else(PoisonError::into_inner);
        if images.len() < MAX_IMAGES && !images.contains(&image) {
            images.push(image);
        }
    }

    /// Returns the images that the frontend has asked about.
    pub(super) fn images(&self) -> Vec<AskedImage> {
        self.images.lock().unwrap_or_else(PoisonError::into_inner).clone()
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
