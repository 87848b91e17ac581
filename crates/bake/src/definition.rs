// SPDX-License-Identifier: Apache-2.0
//! The blocks of all files together: variables, functions, groups, targets, and attributes beside them.

use super::ast::{Block, Body, Expression, Kind};
use super::source::{Fault, Span};
use super::value::Value;

/// What the files define.
#[derive(Debug, Default)]
pub struct Definition {
    /// `variable` blocks.
    pub variables: Vec<Variable>,
    /// `function` blocks.
    pub functions: Vec<FunctionBlock>,
    /// `group` and `target` blocks, in order.
    pub blocks: Vec<Resource>,
    /// Attributes outside of blocks; the last one of a name counts.
    pub attributes: Vec<(String, Span, Expression)>,
}

/// A `variable` block.
#[derive(Debug)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// Where its head stands.
    pub span: Span,
    /// Its type.
    pub ty: Option<Expression>,
    /// Its value unless it is given another one.
    pub default: Option<Expression>,
    /// What it is for.
    pub description: String,
    /// Conditions on its value, and what is said when they aren't met.
    pub validations: Vec<(Expression, Expression)>,
}

/// A `function` block.
#[derive(Debug)]
pub struct FunctionBlock {
    /// Its name.
    pub name: String,
    /// Where its head stands.
    pub span: Span,
    /// Names of its parameters.
    pub parameters: Vec<String>,
    /// Name of the list of further arguments.
    pub variadic: Option<String>,
    /// Its result.
    pub result: Option<Expression>,
}

/// Kinds of blocks that expressions can refer to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ResourceKind {
    /// `group`.
    Group,
    /// `target`.
    Target,
}

/// A `group` or `target` block.
#[derive(Debug)]
pub struct Resource {
    /// Which of them.
    pub kind: ResourceKind,
    /// Its label.
    pub label: String,
    /// Where the label stands.
    pub label_span: Span,
    /// Where its head stands.
    pub span: Span,
    /// Its attributes.
    pub attributes: Vec<(String, Span, Expression)>,
}

impl ResourceKind {
    /// The word that begins the block.
    pub fn word(self) -> &'static str {
        match self {
            ResourceKind::Group => "group",
            ResourceKind::Target => "target",
        }
    }

    /// The kind that a word begins.
    pub fn of_word(word: &str) -> Option<ResourceKind> {
        match word {
            "group" => Some(ResourceKind::Group),
            "target" => Some(ResourceKind::Target),
            _ => None,
        }
    }
}

impl Resource {
    /// The value of an attribute.
    pub fn attribute(&self, name: &str) -> Option<&Expression> {
        self.attributes.iter().find(|(other, ..)| other == name).map(|(.., value)| value)
    }
}

impl Definition {
    /// Adds what a file defines. Blocks of kinds that aren't known are left out, as other tools may know
    /// them.
    ///
    /// # Errors
    /// A block without a name, or without what it must have.
    pub fn add(&mut self, body: Body) -> Result<(), Fault> {
        check_repeats(&body)?;
        for attribute in body.attributes {
            self.attributes.retain(|(name, ..)| *name != attribute.name);
            self.attributes.push((attribute.name, attribute.name_span, attribute.value));
        }
        for block in body.blocks {
            let kind = ResourceKind::of_word(&block.kind);
            if kind.is_none() && !matches!(block.kind.as_str(), "variable" | "function") {
                continue;
            }
            check_repeats(&block.body)?;
            let [(label, label_span)] = block.labels.as_slice() else {
                let detail = format!("All {} blocks must have 1 labels (name).", block.kind);
                return Err(Fault::at(block.span, &format!("Missing name for {}", block.kind), detail));
            };
            let (label, label_span) = (label.clone(), *label_span);
            match kind {
                Some(kind) => self.blocks.push(Resource {
                    kind,
                    label,
                    label_span,
                    span: block.span,
                    attributes: block
                        .body
                        .attributes
                        .into_iter()
                        .map(|attribute| (attribute.name, attribute.name_span, attribute.value))
                        .collect(),
                }),
                None if block.kind == "variable" => {
                    let variable = variable(label, block)?;
                    self.variables.retain(|other| other.name != variable.name);
                    self.variables.push(variable);
                }
                None => {
                    let function = function(label, block)?;
                    self.functions.retain(|other| other.name != function.name);
                    self.functions.push(function);
                }
            }
        }
        Ok(())
    }
}

fn check_repeats(body: &Body) -> Result<(), Fault> {
    for (at, attribute) in body.attributes.iter().enumerate() {
        if body.attributes[..at].iter().any(|other| other.name == attribute.name) {
            let detail = format!(
                "The argument {:?} was already set. Each argument may be set only once.",
                attribute.name
            );
            return Err(Fault::at(attribute.name_span, "Attribute redefined", detail));
        }
    }
    Ok(())
}

fn take(body: &mut Body, name: &str) -> Option<Expression> {
    let at = body.attributes.iter().position(|attribute| attribute.name == name)?;
    Some(body.attributes.remove(at).value)
}

fn missing(span: Span, name: &str) -> Fault {
    let detail = format!("The argument {name:?} is required, but no definition was found.");
    Fault::at(span, "Missing required argument", detail)
}

/// A text that is written out.
fn plain_text(expression: &Expression) -> Option<String> {
    match &expression.kind {
        Kind::Literal(Value::String(text)) => Some(text.clone()),
        Kind::Literal(Value::Null(_)) => Some(String::new()),
        Kind::JsonText(text, _) => Some(text.clone()),
        Kind::Template(parts) => {
            let literal = |part: &super::ast::Part| match part {
                super::ast::Part::Literal(text) => Some(text.clone()),
                _ => None,
            };
            parts.iter().map(literal).collect()
        }
        _ => None,
    }
}

fn variable(name: String, block: Block) -> Result<Variable, Fault> {
    let span = block.span;
    let mut body = block.body;
    let description = match take(&mut body, "description") {
        Some(expression) => plain_text(&expression).ok_or_else(|| {
            Fault::at(expression.span, "Variables not allowed", "Variables may not be used here.")
        })?,
        None => String::new(),
    };
    let mut validations = Vec::new();
    for validation in std::mem::take(&mut body.blocks) {
        if validation.kind == "validation" {
            let mut inner = validation.body;
            let condition =
                take(&mut inner, "condition").ok_or_else(|| missing(validation.span, "condition"))?;
            let message =
                take(&mut inner, "error_message").ok_or_else(|| missing(validation.span, "error_message"))?;
            validations.push((condition, message));
        }
    }
    let ty = take(&mut body, "type").filter(|ty| !matches!(ty.kind, Kind::Literal(Value::Null(_))));
    Ok(Variable { name, span, ty, default: take(&mut body, "default"), description, validations })
}

fn function(name: String, block: Block) -> Result<FunctionBlock, Fault> {
    let mut body = block.body;
    let parameters = take(&mut body, "params").ok_or_else(|| missing(block.span, "params"))?;
    let Kind::Tuple(elements) = &parameters.kind else {
        return Err(Fault::at(
            parameters.span,
            "Invalid expression",
            "A static list expression is required.",
        ));
    };
    let keyword = |expression: &Expression| {
        expression.keyword().ok_or_else(|| {
            Fault::at(expression.span, "Invalid param element", "Each parameter name must be an identifier.")
        })
    };
    let parameters = elements.iter().map(keyword).collect::<Result<Vec<_>, _>>()?;
    let variadic = take(&mut body, "variadic_params").map(|name| keyword(&name)).transpose()?;
    let result = take(&mut body, "result");
    Ok(FunctionBlock { name, span: block.span, parameters, variadic, result })
}
