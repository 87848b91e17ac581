// SPDX-License-Identifier: Apache-2.0
//! Files from elsewhere as a vertex: asked for in every build, never recorded by its definition.

use std::sync::Arc;

use polyarch_solver::{CacheKey, KeyHasher, VertexContext};

use crate::error::BuildError;
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
}

impl RemoteOp {
    pub(crate) fn digest(&self) -> CacheKey {
        KeyHasher::new("remote 1").parts(self.source.key_parts()).finish()
    }

    pub(crate) async fn exec(&self, context: &VertexContext) -> Result<Output, BuildError> {
        let tree = self.source.tree(&self.services, &self.secrets, &super::shown(context)).await?;
        Ok(Output::Tree(tree))
    }
}
