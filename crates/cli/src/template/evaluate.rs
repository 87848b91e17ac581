// SPDX-License-Identifier: Apache-2.0
//! Renders a template's tree with a value (Go's text/template, `exec.go`).

use std::borrow::Cow;

use super::functions::{Functions, Shared};
use super::parse::{Node, Pipeline, Tree};
use super::{Place, TemplateError, Value};

mod pipeline;

/// The most nodes and commands that are looked at.
const MAX_STEPS: usize = 2_000_000;

/// The most bytes that are written, and that functions make on the way.
const MAX_BYTES: usize = 64 << 20;

/// The deepest nesting of blocks, parentheses and templates.
const MAX_DEPTH: usize = 150;

/// Renders a tree.
pub(super) fn render(
    tree: &Tree,
    source: &str,
    value: &Value,
    functions: Functions,
) -> Result<String, TemplateError> {
    let root = Cow::Borrowed(value);
    let mut renderer = Renderer {
        tree,
        source,
        functions,
        variables: vec![("$", root.clone())],
        out: String::new(),
        steps: 0,
        bytes: 0,
        depth: 0,
    };
    renderer.walk(&root, &tree.nodes)?;
    Ok(renderer.out)
}

struct Renderer<'v> {
    tree: &'v Tree,
    source: &'v str,
    functions: Functions,
    variables: Vec<(&'v str, Shared<'v>)>,
    out: String,
    steps: usize,
    bytes: usize,
    depth: usize,
}

/// What comes after a node.
#[derive(PartialEq)]
enum Flow {
    Next,
    Break,
    Continue,
}

impl<'v> Renderer<'v> {
    fn error(&self, message: impl Into<String>, place: &Place) -> TemplateError {
        TemplateError::new(message, self.source, place.clone())
    }

    fn step(&mut self) -> Result<(), TemplateError> {
        self.steps += 1;
        if self.steps > MAX_STEPS {
            return Err(self.error("the template does not come to an end", &(0..0)));
        }
        Ok(())
    }

    /// Counts bytes that are made.
    fn count(&mut self, bytes: usize) -> Result<(), TemplateError> {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > MAX_BYTES {
            return Err(self.error(format!("the template writes more than {MAX_BYTES} bytes"), &(0..0)));
        }
        Ok(())
    }

    fn write(&mut self, text: &str) -> Result<(), TemplateError> {
        self.count(text.len())?;
        self.out.push_str(text);
        Ok(())
    }

    fn deeper<T>(
        &mut self,
        inner: impl FnOnce(&mut Self) -> Result<T, TemplateError>,
    ) -> Result<T, TemplateError> {
        self.step()?;
        if self.depth >= MAX_DEPTH {
            return Err(self.error("templates and blocks are nested too deeply", &(0..0)));
        }
        self.depth += 1;
        let result = inner(self);
        self.depth -= 1;
        result
    }

    /// Renders nodes; variables that they make end with them.
    fn walk(&mut self, dot: &Shared<'v>, nodes: &'v [Node]) -> Result<Flow, TemplateError> {
        self.deeper(|renderer| {
            let scope = renderer.variables.len();
            let mut flow = Flow::Next;
            for node in nodes {
                flow = renderer.node(dot, node)?;
                if flow != Flow::Next {
                    break;
                }
            }
            renderer.variables.truncate(scope);
            Ok(flow)
        })
    }

    fn node(&mut self, dot: &Shared<'v>, node: &'v Node) -> Result<Flow, TemplateError> {
        self.step()?;
        let scope = self.variables.len();
        let flow = match node {
            Node::Text(text) => {
                self.write(text)?;
                Flow::Next
            }
            Node::Break => Flow::Break,
            Node::Continue => Flow::Continue,
            Node::Action(pipeline) => {
                let value = self.pipeline(dot, pipeline)?;
                if pipeline.variables.is_empty() {
                    match &*value {
                        Value::String(text) => self.write(text)?,
                        other => self.write(&other.print())?,
                    }
                }
                // Its variables live on to the end of the list.
                return Ok(Flow::Next);
            }
            Node::If(pipeline, body, otherwise) => {
                let value = self.pipeline(dot, pipeline)?;
                self.walk(dot, if value.is_true() { body } else { otherwise })?
            }
            Node::With(pipeline, body, otherwise) => {
                let value = self.pipeline(dot, pipeline)?;
                if value.is_true() { self.walk(&value, body)? } else { self.walk(dot, otherwise)? }
            }
            Node::Range(pipeline, body, otherwise) => self.range(dot, pipeline, body, otherwise)?,
            Node::Template { name, argument, place } => {
                let Some(nodes) = self.tree.defined.get(name) else {
                    return Err(self.error(format!("there is no template {name:?}"), place));
                };
                let argument = match argument {
                    Some(pipeline) => self.pipeline(dot, pipeline)?,
                    None => Cow::Owned(Value::Null),
                };
                let variables = std::mem::replace(&mut self.variables, vec![("$", argument.clone())]);
                self.walk(&argument, nodes)?;
                self.variables = variables;
                Flow::Next
            }
        };
        self.variables.truncate(scope);
        Ok(flow)
    }

    fn range(
        &mut self,
        dot: &Shared<'v>,
        pipeline: &'v Pipeline,
        body: &'v [Node],
        otherwise: &'v [Node],
    ) -> Result<Flow, TemplateError> {
        let value = self.commands(dot, pipeline)?;
        let elements: Box<dyn Iterator<Item = (Value, Shared<'v>)> + 'v> = match value {
            Cow::Borrowed(Value::List(list)) => Box::new(
                list.iter().enumerate().map(|(at, value)| (Value::from(at as u64), Cow::Borrowed(value))),
            ),
            Cow::Owned(Value::List(list)) => Box::new(
                list.into_iter().enumerate().map(|(at, value)| (Value::from(at as u64), Cow::Owned(value))),
            ),
            Cow::Borrowed(Value::Object(object)) if !object.is_structure() => Box::new(
                object.sorted().into_iter().map(|(name, value)| (Value::from(name), Cow::Borrowed(value))),
            ),
            Cow::Owned(Value::Object(object)) if !object.is_structure() => {
                let sorted = object.sorted().into_iter();
                let entries: Vec<(Value, Shared<'v>)> =
                    sorted.map(|(name, value)| (Value::from(name), Cow::Owned(value.clone()))).collect();
                Box::new(entries.into_iter())
            }
            value => match &*value {
                Value::Null => Box::new(std::iter::empty()),
                Value::Number(number) if number.is_i64() || number.is_u64() => {
                    let count = number.as_i64().unwrap_or(i64::MAX);
                    Box::new((0..count).map(|at| (Value::from(at), Cow::Owned(Value::from(at)))))
                }
                other => {
                    let message =
                        format!("range goes over lists, maps and numbers, not over {}", other.kind());
                    return Err(self.error(message, &pipeline.place));
                }
            },
        };
        let scope = self.variables.len();
        let mut is_empty = true;
        for (key, element) in elements {
            is_empty = false;
            self.step()?;
            match &pipeline.variables[..] {
                [] => {}
                [value] => self.set(value, element.clone(), pipeline.is_declaration),
                [index, value, ..] => {
                    self.set(index, Cow::Owned(key), pipeline.is_declaration);
                    self.set(value, element.clone(), pipeline.is_declaration);
                }
            }
            let flow = self.walk(&element, body)?;
            self.variables.truncate(scope);
            if flow == Flow::Break {
                break;
            }
        }
        if is_empty { self.walk(dot, otherwise) } else { Ok(Flow::Next) }
    }

    fn set(&mut self, name: &'v str, value: Shared<'v>, is_declaration: bool) {
        let known = self.variables.iter_mut().rev().find(|(known, _)| *known == name);
        match known {
            Some((_, place)) if !is_declaration => *place = value,
            _ => self.variables.push((name, value)),
        }
    }
}
