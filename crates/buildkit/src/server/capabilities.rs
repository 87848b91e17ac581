// SPDX-License-Identifier: Apache-2.0
//! What we tell clients that we can do. They refuse on their own what is not listed.

use tonic::Status;

use crate::api::caps::APICap;
use crate::api::gateway::PongResponse;
use crate::server::Server;

/// What frontends that run in clients may use.
const FRONTEND: [&str; 17] = [
    "solve.base",
    "solve.inlinereturn",
    "resolveimage",
    "resolveimage.resolvemode",
    "readfile",
    "return",
    "returnmap",
    "readdir",
    "statfile",
    "proto.refarray",
    "reference.output",
    "frontend.inputs",
    "gateway.solve.metadata",
    "frontend.caps",
    "gateway.solve.evaluate",
    "gateway.evaluate",
    "gateway.warnings",
];

/// What definitions, exporters and caches may use.
const BUILDS: [&str; 11] = [
    "source.image",
    "source.image.resolvemode",
    "source.local",
    "source.local.followpaths",
    "source.local.excludepatterns",
    "file.base",
    "exporter.image.annotations",
    "exporter.image.attestations",
    "exporter.sourcedateepoch",
    "exporter.multiple",
    "gc.freespacefilter",
];

impl Server {
    /// Answers `LLBBridge.Ping`.
    pub(super) async fn ping(&self, build: String) -> Result<PongResponse, Status> {
        // Waits for the build as every call of a frontend does: clients ask this first.
        self.0.builds.find(&build).await?;
        let caps = |names: &[&str]| {
            let cap = |name: &&str| APICap { id: (*name).to_owned(), enabled: true, ..APICap::default() };
            names.iter().map(cap).collect()
        };
        Ok(PongResponse {
            frontend_api_caps: caps(&FRONTEND),
            llb_caps: caps(&BUILDS),
            workers: vec![self.worker().await?],
        })
    }
}
