// SPDX-License-Identifier: Apache-2.0
//! Definitions (LLB): those that stand for our own results, and those of clients.
//!
//! A client that wants a result as the input of another build, as bake does with linked targets, asks for its
//! definition and sends that back. Ours names the result: one source `polyarch-result://NAME`, whose name
//! nobody can guess. It can be used as long as the build that made it has not ended.

use std::sync::Arc;

use polyarch_oci::Digest;
use prost::Message as _;
use tonic::Status;

use crate::api::llb::{Definition, Input, Op, OpKind, OpMetadata, SourceOp};
use crate::server::Server;
use crate::server::builds::Build;
use crate::server::results::{ResultTree, Solved};

/// The scheme of sources that are results of builds here.
const SCHEME: &str = "polyarch-result://";
/// The most vertices of a definition.
const MAX_VERTICES: usize = 10_000;

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
    if definition.def.len() > MAX_VERTICES {
        return Err(Status::invalid_argument(format!("a definition has at most {MAX_VERTICES} vertices")));
    }
    let wrong = |error| Status::invalid_argument(format!("failed to parse llb proto op: {error}"));
    let [head, last] = definition.def.as_slice() else { return Ok(None) };
    let (head_op, last) =
        (Op::decode(head.as_slice()).map_err(wrong)?, Op::decode(last.as_slice()).map_err(wrong)?);
    let names_head = last.inputs.first().is_some_and(|input| input.digest == Digest::of(head).to_string());
    Ok(match head_op.op {
        Some(OpKind::Source(source)) if names_head => {
            source.identifier.strip_prefix(SCHEME).map(str::to_owned)
        }
        _ => None,
    })
}

impl Server {
    /// Finds the result that a definition stands for.
    pub(super) fn result_of(&self, definition: &Definition) -> Result<ResultTree, Status> {
        match name_of(definition)? {
            Some(name) => self.0.builds.result(&name),
            None => Err(Status::unimplemented(
                "this builder builds Dockerfiles; definitions of clients (LLB) are not supported",
            )),
        }
    }

    /// Makes the tree of a definition.
    pub(super) async fn solve_definition(
        &self,
        _build: &Arc<Build>,
        definition: &Definition,
    ) -> Result<Solved, Status> {
        let tree = self.result_of(definition)?;
        Ok(Solved { trees: vec![(String::new(), tree)], ..Solved::default() })
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
