// SPDX-License-Identifier: Apache-2.0
//! Definitions (LLB): those that stand for our own results, and those that clients have written.
//!
//! A client that wants a result as the input of another build, as bake does with linked targets, asks for its
//! definition and sends that back, possibly as a part of a larger one. Ours names the result: one source
//! `polyarch-result://NAME`, whose name nobody can guess. It can be used as long as the build that made it has
//! not ended.
//!
//! Everything else is checked and put into order ([`graph`]), then converted vertex by vertex into the words of
//! the build room, which makes the tree.

mod exec;
mod files;
mod graph;
pub(super) mod sources;
mod told;

use std::collections::BTreeMap;
use std::sync::Arc;

use polyarch_build::BuildError;
use polyarch_build::definition::{Definition as Graph, Vertex, VertexKind};
use polyarch_oci::{Digest, Platform};
use prost::Message as _;
use tonic::Status;

use crate::api::gateway::CacheOptionsEntry;
use crate::api::llb::{Definition, DiffOp, Input, Op, OpKind, OpMetadata, SourceOp};
use crate::server::Server;
use crate::server::attributes::{attestations, granted, request_of, wrong};
use crate::server::builds::Build;
use crate::server::cache::remote_cache;
use crate::server::errors::status_of;
use crate::server::results::{Evaluation, ResultTree, Solved};
use crate::server::secrets::ClientSecrets;

use graph::CheckedVertex;
use sources::Sources;

/// The scheme of sources that are results of builds here.
const SCHEME: &str = "polyarch-result://";

/// Returns the definition that stands for a result.
pub(super) fn definition_of(name: &str) -> Definition {
    let source = SourceOp { identifier: format!("{SCHEME}{name}"), ..SourceOp::default() };
    let head = Op { op: Some(OpKind::Source(source)), ..Op::default() }.encode_to_vec();
    let digest = Digest::of(&head).to_string();
    let last = Op { inputs: vec![Input { digest, index: 0 }], ..Op::default() }.encode_to_vec();
    // Clients take a definition without any metadata for none.
    let metadata = [(Digest::of(&head).to_string(), OpMetadata::default())].into();
    Definition { def: vec![head, last], metadata, ..Definition::default() }
}

/// Returns the name of the result that a definition stands for; `None` when it is a client's own.
fn name_of(definition: &Definition) -> Result<Option<String>, Status> {
    if definition.def.is_empty() {
        return Err(Status::invalid_argument("invalid nil input definition to definition op"));
    }
    let failed = |error| Status::invalid_argument(format!("failed to parse llb proto op: {error}"));
    let [head, last] = definition.def.as_slice() else { return Ok(None) };
    let (head_op, last) =
        (Op::decode(head.as_slice()).map_err(failed)?, Op::decode(last.as_slice()).map_err(failed)?);
    let names_head = last.inputs.first().is_some_and(|input| input.digest == Digest::of(head).to_string());
    Ok(match head_op.op {
        Some(OpKind::Source(source)) if names_head => {
            source.identifier.strip_prefix(SCHEME).map(str::to_owned)
        }
        _ => None,
    })
}

impl Server {
    /// Finds the result that a definition stands for; `None` when it is a client's own, or forgotten.
    pub(super) fn result_of(&self, definition: &Definition) -> Option<ResultTree> {
        self.0.builds.result(&name_of(definition).ok()??).ok()
    }

    /// Makes the tree of a definition, or finds it; `imports` are places of cache beside those of the build.
    pub(super) async fn tree_of(
        &self,
        build: &Arc<Build>,
        definition: &Definition,
        imports: &[CacheOptionsEntry],
    ) -> Result<ResultTree, Status> {
        if let Some(name) = name_of(definition)? {
            return self.0.builds.result(&name);
        }
        let evaluated = tokio::select! {
            evaluated = self.evaluate(build, definition, imports) => evaluated,
            () = build.cancel.cancelled() => Err(BuildError::cancelled()),
        };
        let evaluation = evaluated.map_err(|error| status_of(&error))?;
        Ok(ResultTree { evaluation: Arc::new(evaluation), platform: 0 })
    }

    /// Makes the tree of a definition as the result of a frontend.
    pub(super) async fn solve_definition(
        &self,
        build: &Arc<Build>,
        definition: &Definition,
        imports: &[CacheOptionsEntry],
    ) -> Result<Solved, Status> {
        let tree = self.tree_of(build, definition, imports).await?;
        Ok(Solved { trees: vec![(String::new(), tree)], ..Solved::default() })
    }

    async fn evaluate(
        &self,
        build: &Arc<Build>,
        definition: &Definition,
        imports: &[CacheOptionsEntry],
    ) -> Result<Evaluation, BuildError> {
        let options = &self.0.options;
        let entitlements = granted(&build.request.entitlements, &options.entitlements)?;
        let mut request = request_of(&BTreeMap::new(), entitlements)?;
        (request.max_parallel, request.threads) = (options.max_parallel, options.threads);
        request.attestations = attestations(build)?;
        let checked = graph::check(definition)?;
        let told = told::told(definition, &checked)?;
        let mut sources = Sources::new(self, build)?;
        let mut vertices = Vec::with_capacity(checked.len());
        for vertex in checked {
            vertices.push(convert(vertex, &mut sources).await?);
        }
        let graph = Graph { told, ..result_of(vertices)? };
        request.platforms = vec![graph.vertices[graph.result.vertex].platform.clone()];
        let sockets = build.services.scratch()?;
        if let Some(session) = &build.session {
            let secrets = ClientSecrets::new(session.clone(), sockets.path().to_owned());
            request.steps.secrets = Arc::new(secrets);
        }
        request.cache = remote_cache(build, &BTreeMap::new(), imports)?;
        let (services, progress) = (&build.services, build.progress());
        let evaluated = services.evaluate_definition(&graph, &request, &progress, &build.cancel).await?;
        Ok(Evaluation { request, evaluated })
    }
}

/// Puts vertices into a graph. The last one only names the result.
fn result_of(mut vertices: Vec<Vertex>) -> Result<Graph, BuildError> {
    let last = vertices.pop().filter(|last| matches!(last.kind, VertexKind::Scratch));
    let result = last.and_then(|last| match last.inputs.as_slice() {
        [result] => Some(*result),
        _ => None,
    });
    let result = result.ok_or_else(|| wrong("invalid LLB: the last vertex must have one input and no op"))?;
    Ok(Graph { vertices, result, ..Graph::default() })
}

async fn convert(vertex: CheckedVertex, sources: &mut Sources<'_>) -> Result<Vertex, BuildError> {
    let CheckedVertex { op, inputs, digest, metadata, location } = vertex;
    let platform = match &op.platform {
        Some(platform) if !platform.architecture.is_empty() => {
            let named = Platform::new(&platform.os, &platform.architecture, &platform.variant);
            let (os_version, os_features) = (platform.os_version.clone(), platform.os_features.clone());
            Platform { os_version, os_features, ..named }.normalized()
        }
        Some(_) | None => Platform::host(),
    };
    let count = inputs.len();
    let custom = metadata.description.get("llb.customname").cloned();
    let (kind, name) = match op.op {
        None => (VertexKind::Scratch, String::new()),
        Some(OpKind::Source(source)) => {
            let name = source.identifier.clone();
            let shown = custom.as_deref().unwrap_or(&name);
            (sources.source(&source, &digest, shown).await?, name)
        }
        Some(OpKind::Exec(exec)) => {
            let name = exec.meta.as_ref().map(|meta| meta.args.join(" ")).unwrap_or_default();
            (exec::exec(&exec, count)?, name)
        }
        Some(OpKind::File(file)) => (files::file(&file, count)?, files::name(&file)),
        Some(OpKind::Merge(merge)) => {
            let of_all = (0_i64..).take(count);
            if merge.inputs.iter().map(|it| it.input).ne(of_all) {
                return Err(wrong("invalid LLB: a merge must have each of its inputs once and in order"));
            }
            (VertexKind::Merge, "merge".to_owned())
        }
        Some(OpKind::Diff(diff)) => (difference(&diff, count)?, "diff".to_owned()),
        Some(OpKind::Build(_)) => {
            return Err(wrong("builds within definitions (BuildOp) are not supported by this builder"));
        }
        Some(OpKind::Passthrough(_)) => {
            return Err(wrong("passthrough operations are not supported by this builder"));
        }
    };
    // What the client sends has been shown while it came.
    let name = match &kind {
        VertexKind::Directory { .. } => String::new(),
        _ => custom.unwrap_or(name),
    };
    Ok(Vertex { kind, inputs, platform, name, no_cache: metadata.ignore_cache, location })
}

fn difference(diff: &DiffOp, count: usize) -> Result<VertexKind, BuildError> {
    let (Some(lower), Some(upper)) = (&diff.lower, &diff.upper) else {
        return Err(wrong("invalid diff op with nil lower or upper input"));
    };
    Ok(VertexKind::Diff { lower: optional(lower.input, count)?, upper: optional(upper.input, count)? })
}

/// Reads the number of an input; -1 is none.
fn optional(number: i64, count: usize) -> Result<Option<usize>, BuildError> {
    match usize::try_from(number) {
        Ok(input) if input < count => Ok(Some(input)),
        Err(_) if number == -1 => Ok(None),
        _ => Err(wrong(format!("invalid LLB: an operation reads input {number} of {count}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_definition_of_ours_is_known_again() {
        let definition = definition_of("abc");
        assert_eq!(name_of(&definition).unwrap().as_deref(), Some("abc"));
        let head = Digest::of(&definition.def[0]).to_string();
        assert!(definition.metadata.contains_key(&head), "clients take one without metadata for none");
    }

    #[test]
    fn others_are_told_apart() {
        assert!(name_of(&Definition::default()).is_err());
        let other =
            SourceOp { identifier: "docker-image://docker.io/library/a".into(), ..SourceOp::default() };
        let head = Op { op: Some(OpKind::Source(other)), ..Op::default() }.encode_to_vec();
        let input = |of: &[u8]| Input { digest: Digest::of(of).to_string(), index: 0 };
        let last = Op { inputs: vec![input(&head)], ..Op::default() }.encode_to_vec();
        let definition = Definition { def: vec![head, last], ..Definition::default() };
        assert_eq!(name_of(&definition).unwrap(), None);
        let mut torn = definition_of("abc");
        torn.def[1] = Op { inputs: vec![input(b"other")], ..Op::default() }.encode_to_vec();
        assert_eq!(name_of(&torn).unwrap(), None);
        let garbage = Definition { def: vec![vec![0xff; 9], vec![0xff; 9]], ..Definition::default() };
        assert!(name_of(&garbage).is_err());
    }
}
