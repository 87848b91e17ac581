// SPDX-License-Identifier: Apache-2.0
//! What an expression names: variables, blocks and functions that must be there before it is evaluated.

use super::ast::{Expression, Kind, Part, Step};

/// A name and the steps behind it that are written out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// The name.
    pub root: String,
    /// The names behind it; `None` for an index.
    pub steps: Vec<Option<String>>,
}

/// The functions that an expression calls.
pub fn calls(expression: &Expression) -> Vec<String> {
    let mut names = Vec::new();
    expression.walk(&mut |inner| {
        if let Kind::Call { name, .. } = &inner.kind
            && !names.contains(name)
        {
            names.push(name.clone());
        }
    });
    names
}

/// The names that an expression refers to, without those that it binds itself.
pub fn references(expression: &Expression) -> Vec<Reference> {
    let mut found = Vec::new();
    visit(expression, &mut Vec::new(), &mut found);
    found
}

fn add(root: &str, steps: Vec<Option<String>>, bound: &[String], found: &mut Vec<Reference>) {
    if bound.iter().any(|name| name == root) {
        return;
    }
    let reference = Reference { root: root.to_owned(), steps };
    if !found.contains(&reference) {
        found.push(reference);
    }
}

fn visit(expression: &Expression, bound: &mut Vec<String>, found: &mut Vec<Reference>) {
    match &expression.kind {
        Kind::Literal(_) => {}
        Kind::Variable(name) => add(name, Vec::new(), bound, found),
        Kind::Template(parts) => visit_parts(parts, bound, found),
        Kind::JsonText(_, inner) | Kind::Parenthesis(inner) | Kind::Unary(_, inner) => {
            visit(inner, bound, found);
        }
        Kind::Tuple(elements) => elements.iter().for_each(|element| visit(element, bound, found)),
        Kind::Object(items) => items.iter().for_each(|(key, value)| {
            visit(key, bound, found);
            visit(value, bound, found);
        }),
        Kind::Access(base, steps) => {
            match &base.kind {
                Kind::Variable(root) => {
                    let names = steps.iter().map_while(|(step, _)| match step {
                        Step::Attribute(name) => Some(Some(name.clone())),
                        Step::Index(Expression { kind: Kind::Literal(_), .. }) => Some(None),
                        _ => None,
                    });
                    add(root, names.collect(), bound, found);
                }
                _ => visit(base, bound, found),
            }
            for (step, _) in steps {
                if let Step::Index(index) = step {
                    visit(index, bound, found);
                }
            }
        }
        // The type that `convert` takes is no reference.
        Kind::Call { name, arguments, .. } if name == "convert" => {
            arguments.iter().take(1).for_each(|argument| visit(argument, bound, found));
        }
        Kind::Call { arguments, .. } => arguments.iter().for_each(|argument| visit(argument, bound, found)),
        Kind::Conditional(parts) => parts.iter().for_each(|part| visit(part, bound, found)),
        Kind::Binary(_, parts) => parts.iter().for_each(|part| visit(part, bound, found)),
        Kind::For(each) => {
            visit(&each.collection, bound, found);
            let outer = bound.len();
            bound.push(each.value.clone());
            bound.extend(each.key.clone());
            for part in [&each.result_key, &each.condition].into_iter().flatten() {
                visit(part, bound, found);
            }
            visit(&each.result, bound, found);
            bound.truncate(outer);
        }
    }
}

fn visit_parts(parts: &[Part], bound: &mut Vec<String>, found: &mut Vec<Reference>) {
    for part in parts {
        match part {
            Part::Literal(_) => {}
            Part::Interpolation(expression) => visit(expression, bound, found),
            Part::If(condition, yes, no) => {
                visit(condition, bound, found);
                visit_parts(yes, bound, found);
                visit_parts(no, bound, found);
            }
            Part::For(key, value, collection, body) => {
                visit(collection, bound, found);
                let outer = bound.len();
                bound.push(value.clone());
                bound.extend(key.clone());
                visit_parts(body, bound, found);
                bound.truncate(outer);
            }
        }
    }
}
