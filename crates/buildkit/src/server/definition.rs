// SPDX-License-Identifier: Apache-2.0
//! Builds that come as definitions (LLB) instead of Dockerfiles.

use std::sync::Arc;

use tonic::Status;

use crate::api::llb::Definition;
use crate::server::Server;
use crate::server::builds::Build;
use crate::server::results::Solved;

impl Server {
    /// Makes the tree of a definition.
    pub(super) async fn solve_definition(
        &self,
        _build: &Arc<Build>,
        _definition: Option<&Definition>,
    ) -> Result<Solved, Status> {
        Err(Status::unimplemented("this builder builds Dockerfiles; definitions (LLB) are not supported"))
    }
}
