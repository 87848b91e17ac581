// SPDX-License-Identifier: Apache-2.0
//! What a client says is a graph, checked: names are digests of what they name, and nothing reads itself.

use std::collections::HashMap;

use polyarch_build::BuildError;
use polyarch_build::definition::Edge;
use polyarch_build::error::SourceLocation;
use polyarch_oci::Digest;
use prost::Message as _;

use crate::api::llb::{Definition, Op, OpMetadata, Source};
use crate::server::attributes::wrong;

/// The most vertices of a definition.
const MAX_VERTICES: usize = 10_000;
/// The most inputs of all vertices.
const MAX_EDGES: usize = 100_000;
/// The longest way from a vertex to one that reads nothing.
const MAX_DEPTH: usize = 4_000;
/// The most bytes of all vertices.
const MAX_BYTES: usize = 64 << 20;
/// The largest source file that errors show, in bytes.
const MAX_SOURCE_BYTES: usize = 1 << 20;

/// A vertex that reads only vertices before it.
#[derive(Debug)]
pub(super) struct CheckedVertex {
    pub(super) op: Op,
    pub(super) inputs: Vec<Edge>,
    pub(super) digest: String,
    pub(super) metadata: OpMetadata,
    pub(super) location: Option<SourceLocation>,
}

/// Puts the vertices that the last one needs into order, inputs before their readers.
pub(super) fn check(definition: &Definition) -> Result<Vec<CheckedVertex>, BuildError> {
    if definition.def.len() > MAX_VERTICES {
        return Err(wrong(format!("a definition has at most {MAX_VERTICES} vertices")));
    }
    if definition.def.iter().map(Vec::len).sum::<usize>() > MAX_BYTES {
        return Err(wrong(format!("a definition has at most {MAX_BYTES} bytes")));
    }
    let mut ops: HashMap<String, Op> = HashMap::new();
    let mut head = String::new();
    let mut edges = 0;
    for bytes in &definition.def {
        let op = Op::decode(bytes.as_slice())
            .map_err(|error| wrong(format!("failed to parse llb proto op: {error}")))?;
        edges += op.inputs.len();
        head = Digest::of(bytes).to_string();
        ops.insert(head.clone(), op);
    }
    if edges > MAX_EDGES {
        return Err(wrong(format!("the vertices of a definition have at most {MAX_EDGES} inputs")));
    }
    if ops.len() < 2 {
        return Err(wrong(format!("invalid LLB with {} vertexes", ops.len())));
    }
    let places = Places::new(definition.source.as_ref());
    let mut checked = Vec::new();
    for digest in order(&ops, &head)? {
        // Every digest of the order is one of the vertices, each once.
        let Some(op) = ops.get(&digest).cloned() else { continue };
        checked.push((digest, op));
    }
    let numbers: HashMap<String, usize> =
        checked.iter().enumerate().map(|(number, (digest, _))| (digest.clone(), number)).collect();
    let vertices = checked.into_iter().map(|(digest, op)| {
        let inputs = op.inputs.iter().map(|input| {
            let output = usize::try_from(input.index);
            let output = output.map_err(|_| wrong(format!("invalid output index {}", input.index)))?;
            let vertex = numbers.get(&input.digest).copied().ok_or_else(|| missing(&input.digest))?;
            Ok(Edge { vertex, output })
        });
        let inputs = inputs.collect::<Result<_, BuildError>>()?;
        let metadata = definition.metadata.get(&digest).cloned().unwrap_or_default();
        let location = places.of(&digest);
        Ok(CheckedVertex { op, inputs, digest, metadata, location })
    });
    vertices.collect()
}

/// Returns what a vertex needs and itself, inputs before their readers.
fn order(ops: &HashMap<String, Op>, head: &str) -> Result<Vec<String>, BuildError> {
    let mut ordered = Vec::new();
    // Whether all inputs of a vertex that was come to are in the order.
    let mut is_done: HashMap<&str, bool> = HashMap::new();
    let mut way: Vec<(&str, usize)> = vec![(head, 0)];
    is_done.insert(head, false);
    while let Some((digest, next)) = way.pop() {
        let op = ops.get(digest).ok_or_else(|| missing(digest))?;
        let Some(input) = op.inputs.get(next) else {
            is_done.insert(digest, true);
            ordered.push(digest.to_owned());
            continue;
        };
        way.push((digest, next + 1));
        match is_done.get(input.digest.as_str()) {
            Some(true) => {}
            // No bytes have a digest that they contain, so this is never seen; it would go round for ever.
            Some(false) => return Err(wrong("invalid LLB: a vertex needs itself")),
            None => {
                if way.len() >= MAX_DEPTH {
                    return Err(wrong(format!("a definition is at most {MAX_DEPTH} vertices deep")));
                }
                is_done.insert(&input.digest, false);
                way.push((&input.digest, 0));
            }
        }
    }
    Ok(ordered)
}

fn missing(digest: &str) -> BuildError {
    wrong(format!("invalid missing input digest {digest}"))
}

/// Where vertices stand in source files.
struct Places<'a> {
    source: Option<&'a Source>,
    texts: Vec<std::sync::Arc<str>>,
}

impl<'a> Places<'a> {
    fn new(source: Option<&'a Source>) -> Places<'a> {
        let infos = source.map(|source| source.infos.as_slice()).unwrap_or_default();
        let texts = infos.iter().map(|info| match info.data.len() <= MAX_SOURCE_BYTES {
            true => String::from_utf8_lossy(&info.data).into(),
            false => "".into(),
        });
        Places { source, texts: texts.collect() }
    }

    fn of(&self, digest: &str) -> Option<SourceLocation> {
        let source = self.source?;
        let location = source.locations.get(digest)?.locations.first()?;
        let index = usize::try_from(location.source_index).ok()?;
        let info = source.infos.get(index)?;
        let line = |position: Option<&crate::api::llb::Position>| u32::try_from(position?.line).ok();
        let starts = location.ranges.iter().filter_map(|range| line(range.start.as_ref()));
        let ends = location.ranges.iter().filter_map(|range| line(range.end.as_ref()));
        Some(SourceLocation {
            file: info.filename.clone(),
            text: self.texts.get(index)?.clone(),
            lines: starts.min()?..=ends.max()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::llb::{Input, OpKind, SourceOp};

    fn source(name: &str) -> Vec<u8> {
        let source = SourceOp { identifier: name.to_owned(), ..SourceOp::default() };
        Op { op: Some(OpKind::Source(source)), ..Op::default() }.encode_to_vec()
    }

    fn reader(of: &[&[u8]]) -> Vec<u8> {
        let inputs = of.iter().map(|bytes| Input { digest: Digest::of(bytes).to_string(), index: 0 });
        Op { inputs: inputs.collect(), ..Op::default() }.encode_to_vec()
    }

    fn checked(def: Vec<Vec<u8>>) -> Result<Vec<CheckedVertex>, BuildError> {
        check(&Definition { def, ..Definition::default() })
    }

    #[test]
    fn vertices_come_after_their_inputs_whatever_their_order() {
        let (a, b) = (source("a"), source("b"));
        let both = reader(&[&a, &b, &a]);
        let last = reader(&[&both]);
        let vertices = checked(vec![both, b, a, last]).unwrap();
        assert_eq!(vertices.len(), 4);
        for (number, vertex) in vertices.iter().enumerate() {
            assert!(vertex.inputs.iter().all(|input| input.vertex < number));
        }
        assert_eq!(vertices[2].inputs.len(), 3);
    }

    #[test]
    fn what_nobody_reads_is_left_out() {
        let a = source("a");
        let last = reader(&[&a]);
        assert_eq!(checked(vec![source("unused"), a, last]).unwrap().len(), 2);
    }

    #[test]
    fn hostile_graphs_are_refused() {
        let a = source("a");
        let last = reader(&[&a]);
        let message = |def| checked(def).unwrap_err().message;
        assert!(message(vec![last.clone()]).contains("1 vertexes"));
        assert!(message(vec![source("b"), last.clone()]).contains("missing input digest sha256:"));
        assert!(message(vec![vec![0xff; 9], last]).contains("failed to parse"));
        assert!(message(vec![Vec::new(); MAX_VERTICES + 1]).contains("at most 10000 vertices"));
        let many: Vec<&[u8]> = vec![&a; MAX_EDGES + 1];
        assert!(message(vec![a.clone(), reader(&many)]).contains("100000 inputs"));
        let mut deep = vec![source("deep")];
        for _ in 0..MAX_DEPTH {
            deep.push(reader(&[deep.last().expect("one was put there")]));
        }
        assert!(message(deep).contains("4000 vertices deep"));
        let mut op = Op::decode(reader(&[&a]).as_slice()).unwrap();
        op.inputs[0].index = -1;
        assert!(message(vec![a, op.encode_to_vec()]).contains("invalid output index -1"));
    }
}
