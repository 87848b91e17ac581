// SPDX-License-Identifier: Apache-2.0
//! The user's context as a vertex: always there, never recorded.

use std::sync::Arc;

use polyarch_solver::{CacheKey, KeyHasher, VertexContext};

use crate::context::LocalContext;
use crate::error::BuildError;
use crate::tree::Output;

/// The context of this build.
pub(crate) struct ContextOp {
    /// The name of a named context; empty for the main one.
    pub(crate) identity: String,
    pub(crate) context: Arc<LocalContext>,
}

impl ContextOp {
    pub(crate) fn digest(&self) -> CacheKey {
        KeyHasher::new("context").part(&self.identity).finish()
    }

    pub(crate) async fn exec(&self, context: &VertexContext) -> Result<Output, BuildError> {
        self.context.bring(&super::shown(context)).await?;
        Ok(Output::Context(self.context.clone()))
    }
}
