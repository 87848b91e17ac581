// SPDX-License-Identifier: Apache-2.0
//! What a graph alone tells of the keys of its vertices.

use crate::Graph;
use crate::job::Op;

/// What the graph alone tells of a vertex's keys.
#[derive(Clone, Copy, Default)]
pub(crate) struct Traits {
    /// It is volatile or stands above such a vertex, so there is no fast key.
    pub(crate) is_above_volatile: bool,
    /// Its slow key needs the result of a vertex that is not volatile, where definitions tell as much.
    pub(crate) has_chain: bool,
    /// It, or a vertex that its definition rests on, is to be executed whatever is recorded.
    pub(crate) is_definition_stale: bool,
    /// The same, for what its slow key has by definition.
    pub(crate) is_slow_stale: bool,
}

impl Traits {
    /// Returns those of every vertex; inputs stand before their readers.
    pub(crate) fn of_all<O: Op>(graph: &Graph<O>) -> Vec<Traits> {
        let mut all: Vec<Traits> = Vec::with_capacity(graph.len());
        for node in &graph.nodes {
            let op = &node.op;
            let mut own = Traits {
                is_above_volatile: op.is_volatile(),
                has_chain: false,
                is_definition_stale: op.ignores_records(),
                is_slow_stale: op.ignores_records(),
            };
            for (at, input) in node.inputs.iter().enumerate() {
                let (below, by_content) = (all[input.0], op.is_keyed_by_content(at));
                let is_volatile = graph.nodes[input.0].op.is_volatile();
                own.is_above_volatile |= below.is_above_volatile;
                own.has_chain |= below.has_chain || (by_content && !is_volatile);
                own.is_definition_stale |= below.is_definition_stale;
                own.is_slow_stale |= !by_content && below.is_slow_stale;
            }
            own.has_chain &= own.is_above_volatile && !op.is_volatile();
            all.push(own);
        }
        all
    }
}
