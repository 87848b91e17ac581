// SPDX-License-Identifier: Apache-2.0
//! The graph: operations and the operations whose results they read.

use std::collections::HashMap;
use std::sync::Arc;

use crate::{CacheKey, KeyHasher, Op};

/// A vertex of one [`Graph`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VertexId(pub(crate) usize);

pub(crate) struct Node<O> {
    pub(crate) op: Arc<O>,
    pub(crate) inputs: Vec<VertexId>,
    /// Identity of the vertex in progress events.
    pub(crate) identity: CacheKey,
}

/// An acyclic graph; acyclic because inputs must be there before their reader is added.
pub struct Graph<O> {
    pub(crate) nodes: Vec<Node<O>>,
    by_identity: HashMap<CacheKey, VertexId>,
}

impl<O: Op> Default for Graph<O> {
    fn default() -> Graph<O> {
        Graph { nodes: Vec::new(), by_identity: HashMap::new() }
    }
}

impl<O: Op> Graph<O> {
    /// Makes an empty graph.
    pub fn new() -> Graph<O> {
        Graph::default()
    }

    /// Adds an operation on inputs, or returns the vertex that is the same already.
    pub fn add(&mut self, op: O, inputs: Vec<VertexId>) -> VertexId {
        let mut hasher = KeyHasher::new("vertex");
        hasher.part(op.digest().as_bytes());
        hasher.parts(inputs.iter().map(|input| *self.nodes[input.0].identity.as_bytes()));
        let identity = hasher.finish();
        if let Some(existing) = self.by_identity.get(&identity) {
            return *existing;
        }
        let id = VertexId(self.nodes.len());
        self.nodes.push(Node { op: Arc::new(op), inputs, identity });
        self.by_identity.insert(identity, id);
        id
    }

    /// Returns the operation of a vertex.
    pub fn op(&self, id: VertexId) -> &O {
        &self.nodes[id.0].op
    }

    /// Returns the vertices whose results a vertex reads.
    pub fn inputs(&self, id: VertexId) -> &[VertexId] {
        &self.nodes[id.0].inputs
    }

    /// Returns the identity of a vertex as progress events name it.
    pub fn progress_digest(&self, id: VertexId) -> Arc<str> {
        format!("sha256:{}", self.nodes[id.0].identity.hex()).into()
    }

    /// Returns how many vertices there are.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Tells whether there is no vertex.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Returns all that `targets` need, inputs before their readers, each once.
    pub fn reachable(&self, targets: &[VertexId]) -> Vec<VertexId> {
        let mut needed = vec![false; self.nodes.len()];
        targets.iter().for_each(|target| needed[target.0] = true);
        for at in (0..self.nodes.len()).rev() {
            if needed[at] {
                self.nodes[at].inputs.iter().for_each(|input| needed[input.0] = true);
            }
        }
        (0..self.nodes.len()).filter(|at| needed[*at]).map(VertexId).collect()
    }
}
