// SPDX-License-Identifier: Apache-2.0
//! Which fields a template asks for, so that only what is printed is read.

use super::{Node, OperandKind, Pipeline, Tree};

impl Tree {
    /// Tells whether anything asks the dot or `$` for a field, or takes them whole.
    pub(in crate::template) fn asks_for(&self, field: &str) -> bool {
        nodes_ask(&self.nodes, field) || self.defined.values().any(|nodes| nodes_ask(nodes, field))
    }
}

fn nodes_ask(nodes: &[Node], field: &str) -> bool {
    nodes.iter().any(|node| match node {
        Node::Text(_) | Node::Break | Node::Continue => false,
        Node::Action(pipeline) => pipeline_asks(pipeline, field),
        Node::If(pipeline, body, otherwise)
        | Node::With(pipeline, body, otherwise)
        | Node::Range(pipeline, body, otherwise) => {
            pipeline_asks(pipeline, field) || nodes_ask(body, field) || nodes_ask(otherwise, field)
        }
        Node::Template { argument, .. } => {
            argument.as_ref().is_some_and(|pipeline| pipeline_asks(pipeline, field))
        }
    })
}

fn pipeline_asks(pipeline: &Pipeline, field: &str) -> bool {
    pipeline.commands.iter().flatten().any(|operand| match &operand.kind {
        OperandKind::Dot | OperandKind::Variable(_) => {
            // A dot inside of a range is another one; asked too often costs only time.
            operand.fields.first().is_none_or(|(name, _)| name == field)
        }
        OperandKind::Pipeline(pipeline) => pipeline_asks(pipeline, field),
        _ => false,
    })
}
