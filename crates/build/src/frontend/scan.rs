// SPDX-License-Identifier: Apache-2.0
//! Scanners: a program of the user's choice finds what is in a result, by BuildKit's protocol
//! (docs/attestations/sbom-protocol.md there).
//!
//! The scanner is an image for this machine. It runs like any other step, with the result mounted under
//! `/run/src/core/sbom`, more trees under `/run/src/extras`, and leaves statements in `/run/out`.

use std::sync::Arc;

use polyarch_dockerfile::Lookup as _;
use polyarch_oci::{Platform, Reference};
use polyarch_solver::VertexId;

use super::stage::hidden;
use super::{LoweredStage, Lowering};
use crate::error::{BuildError, ErrorKind};
use crate::ops::exec::ExecOp;
use crate::ops::exec_mounts::{ExecMount, MountSource};
use crate::ops::file::FileAction;
use crate::ops::image::ImageOp;
use crate::ops::{BuildOp, OpKind};
use crate::request::NetworkMode;
use crate::sbom::OUTPUT;

/// Where the result is for the scanner.
const CORE: &str = "/run/src/core/sbom";

/// Where more trees are, each under `sbom-NAME`.
const EXTRAS: &str = "/run/src/extras";

/// ARGs that ask for scans of more than the result.
const SCAN_CONTEXT: &str = "BUILDKIT_SBOM_SCAN_CONTEXT";
const SCAN_STAGE: &str = "BUILDKIT_SBOM_SCAN_STAGE";

impl Lowering<'_, '_> {
    /// Adds the scan of a target stage by an image; the vertex gives the scanner's tree, with what it found.
    pub(super) async fn scan(
        &mut self,
        generator: &Reference,
        parameters: &[(String, String)],
        target: usize,
        stage: &LoweredStage,
        platform: &Platform,
    ) -> Result<VertexId, BuildError> {
        let frontend = self.frontend;
        let span = frontend.dockerfile.stages[target].span;
        let host = frontend.host.clone();
        let label = "[internal] load metadata for";
        let image = frontend.resolve_reference(generator, label, &host, span).await.map_err(|error| {
            // It is no line of the Dockerfile that names it.
            let error = BuildError { location: None, ..error };
            error.with_hint("name another image that scans, or none: --sbom=true needs no image")
        })?;
        let config = &image.config.value.config;
        let entrypoint = config.entrypoint.iter().flatten();
        let args: Vec<String> = entrypoint.chain(config.cmd.iter().flatten()).cloned().collect();
        if args.is_empty() {
            let message = format!("scanner {generator} does not have cmd");
            return Err(BuildError::new(ErrorKind::Usage, message)
                .with_hint("a scanner is an image with an ENTRYPOINT or a CMD that writes statements"));
        }
        let tree = self.graph.add(
            hidden(OpKind::Image(ImageOp { layers: image.layers.clone(), identifier: None })),
            Vec::new(),
        );
        let place = FileAction::Mkdir { path: OUTPUT.to_owned(), user: String::new(), time: None };
        let place = hidden(OpKind::File(self.file_op(place)));
        let base = self.graph.add(place, vec![tree]);
        let extras = self.extras(target, stage);
        let mut env = config.env.clone();
        env.push(format!("BUILDKIT_SCAN_DESTINATION={OUTPUT}/"));
        env.push(format!("BUILDKIT_SCAN_SOURCE={CORE}"));
        if !extras.is_empty() {
            env.push(format!("BUILDKIT_SCAN_SOURCE_EXTRAS={EXTRAS}"));
        }
        env.extend(parameters.iter().map(|(key, value)| format!("BUILDKIT_SCAN_{key}={value}")));
        let mut inputs = vec![base];
        let mut mounts = vec![ExecMount::Tmpfs { target: "/tmp".to_owned(), size_bytes: 0 }];
        let named = extras.into_iter().map(|(name, vertex)| (format!("{EXTRAS}/sbom-{name}"), vertex));
        for (target, vertex) in std::iter::once((CORE.to_owned(), stage.vertex)).chain(named) {
            let from = MountSource {
                input: inputs.len(),
                path: "/".to_owned(),
                has_unknown_times: false,
                looked_up: Arc::default(),
            };
            mounts.push(ExecMount::Bind { from, target, read_only: true });
            inputs.push(vertex);
        }
        let cwd = if config.working_dir.is_empty() { "/".to_owned() } else { config.working_dir.clone() };
        // Whoever the image's user is, BuildKit's scanners run as root, and write where only root may.
        let user = String::new();
        let op = ExecOp {
            services: frontend.services.clone(),
            stats: frontend.stats.clone(),
            platform: host,
            shown_command: args.join(" "),
            args,
            script: None,
            env,
            unkeyed_env: frontend.proxy_env(),
            cwd,
            user,
            network: NetworkMode::Default,
            extra_hosts: Vec::new(),
            shm_size_bytes: None,
            ulimits: Vec::new(),
            hostname: None,
            is_insecure: false,
            mounts,
            secrets: Arc::new(crate::secrets::NoSecrets),
            valid_exit_codes: Vec::new(),
            discards_root: false,
        };
        let op = BuildOp {
            kind: OpKind::Exec(Box::new(op)),
            name: format!("[{platform}] generating sbom using {generator}").into(),
            location: None,
            no_cache: frontend.request.no_cache,
        };
        Ok(self.graph.add(op, inputs))
    }

    /// Returns the trees besides the result that ARGs ask to be scanned, by name.
    fn extras(&mut self, target: usize, stage: &LoweredStage) -> Vec<(String, VertexId)> {
        let stages = &self.frontend.dockerfile.stages;
        let is_asked = |arg: &str, index: usize, arguments: &[(String, String)]| {
            let own = arguments.iter().rev().find(|(name, _)| name == arg).map(|(_, value)| value.as_str());
            let value = own.or_else(|| self.global.get(arg));
            value.is_some_and(|value| is_enabled(value, stages[index].name.as_deref()))
        };
        let has_context = is_asked(SCAN_CONTEXT, target, &stage.arguments);
        let mut extras: Vec<(String, VertexId)> = self
            .stages
            .iter()
            .filter(|(index, other)| **index != target && is_asked(SCAN_STAGE, **index, &other.arguments))
            .map(|(index, other)| {
                let name = stages[*index].name.clone();
                (name.unwrap_or_else(|| format!("stage-{index}")), other.vertex)
            })
            .collect();
        extras.sort_by(|left, right| left.0.cmp(&right.0));
        if has_context {
            extras.push(("context".to_owned(), self.context_vertex()));
        }
        extras
    }
}

/// Tells whether a value asks for a stage: a boolean, or a list of names.
fn is_enabled(value: &str, stage: Option<&str>) -> bool {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => true,
        "0" | "f" | "F" | "false" | "FALSE" | "False" => false,
        names => stage.is_some_and(|stage| names.split(',').any(|name| name == stage)),
    }
}
