// SPDX-License-Identifier: Apache-2.0
//! Files from elsewhere as a vertex: asked for in every build, never recorded by its definition.

use std::sync::{Arc, OnceLock};

use polyarch_solver::{CacheKey, KeyHasher, VertexContext};

use crate::error::BuildError;
use crate::provenance::Material;
use crate::remote::RemoteSource;
use crate::secrets::SecretSource;
use crate::services::Services;
use crate::tree::Output;

/// A file of a web server, or a part of a git repository.
pub(crate) struct RemoteOp {
    pub(crate) services: Arc<Services>,
    pub(crate) source: RemoteSource,
    /// Where credentials of repositories come from.
    pub(crate) secrets: Arc<dyn SecretSource>,
    /// What was found there, when it has been asked for.
    found: OnceLock<Box<Material>>,
}

impl RemoteOp {
    pub(crate) fn new(
        services: &Arc<Services>,
        source: RemoteSource,
        secrets: Arc<dyn SecretSource>,
    ) -> RemoteOp {
        RemoteOp { services: services.clone(), source, secrets, found: OnceLock::new() }
    }

    pub(crate) fn digest(&self) -> CacheKey {
        KeyHasher::new("remote 1").parts(self.source.key_parts()).finish()
    }

    pub(crate) async fn exec(&self, context: &VertexContext) -> Result<Output, BuildError> {
        let (tree, found) = self.source.tree(&self.services, &self.secrets, &context.cancel).await?;
        // A vertex is solved once; asked again it says the same.
        let _ = self.found.set(Box::new(found));
        Ok(Output::Tree(tree))
    }

    /// Returns what was found, by its digest; `None` before it was asked for.
    pub(crate) fn material(&self) -> Option<&Material> {
        self.found.get().map(Box::as_ref)
    }
}
