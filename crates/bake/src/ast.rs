// SPDX-License-Identifier: Apache-2.0
//! The syntax tree of bake files, whichever notation they were written in.

use hcl_edit::expr::{BinaryOperator, UnaryOperator};

use super::source::Span;
use super::value::Value;

/// The contents of a file or of a block.
#[derive(Debug, Clone, Default)]
pub struct Body {
    /// `name = value`, in order.
    pub attributes: Vec<Attribute>,
    /// `kind "label" { … }`, in order.
    pub blocks: Vec<Block>,
}

/// `name = value`.
#[derive(Debug, Clone)]
pub struct Attribute {
    /// The name.
    pub name: String,
    /// Where the name stands.
    pub name_span: Span,
    /// The value.
    pub value: Expression,
}

/// `kind "label" { … }`.
#[derive(Debug, Clone)]
pub struct Block {
    /// The first word.
    pub kind: String,
    /// The labels and where they stand.
    pub labels: Vec<(String, Span)>,
    /// What is in it.
    pub body: Body,
    /// Where its head stands.
    pub span: Span,
}

/// An expression and where it stands.
#[derive(Debug, Clone)]
pub struct Expression {
    /// What it is.
    pub kind: Kind,
    /// Where it stands.
    pub span: Span,
}

/// Kinds of expressions.
#[derive(Debug, Clone)]
pub enum Kind {
    /// A value that is written out.
    Literal(Value),
    /// A text with parts to fill in.
    Template(Vec<Part>),
    /// A text of a JSON file, and the template in it: some places read the text as an expression.
    JsonText(String, Box<Expression>),
    /// `[a, b]`.
    Tuple(Vec<Expression>),
    /// `{a = b}`.
    Object(Vec<(Expression, Expression)>),
    /// `name`.
    Variable(String),
    /// `(a)`.
    Parenthesis(Box<Expression>),
    /// `a.b[c]`.
    Access(Box<Expression>, Vec<(Step, Span)>),
    /// `f(a, b...)`.
    Call {
        /// Name of the function.
        name: String,
        /// Where the name stands.
        name_span: Span,
        /// The arguments.
        arguments: Vec<Expression>,
        /// The last argument is a list of arguments.
        expands_last: bool,
    },
    /// `a ? b : c`.
    Conditional(Box<[Expression; 3]>),
    /// `-a`, `!a`.
    Unary(UnaryOperator, Box<Expression>),
    /// `a + b`.
    Binary(BinaryOperator, Box<[Expression; 2]>),
    /// `[for …]`, `{for …}`.
    For(Box<For>),
}

/// One step of an access.
#[derive(Debug, Clone)]
pub enum Step {
    /// `.name`.
    Attribute(String),
    /// `[key]`.
    Index(Expression),
    /// `.*`.
    AttributeSplat,
    /// `[*]`.
    FullSplat,
}

/// `[for key, value in collection : result if condition]`.
#[derive(Debug, Clone)]
pub struct For {
    /// The first name, if there are two.
    pub key: Option<String>,
    /// The second name, or the only one.
    pub value: String,
    /// What is gone through.
    pub collection: Expression,
    /// The name of each result: then it is an object.
    pub result_key: Option<Expression>,
    /// Each result.
    pub result: Expression,
    /// Results of one name become a list.
    pub is_grouping: bool,
    /// Which elements are taken.
    pub condition: Option<Expression>,
}

/// A part of a template.
#[derive(Debug, Clone)]
pub enum Part {
    /// Text.
    Literal(String),
    /// `${…}`.
    Interpolation(Expression),
    /// `%{ if … }`.
    If(Expression, Vec<Part>, Vec<Part>),
    /// `%{ for … }`.
    For(Option<String>, String, Expression, Vec<Part>),
}

impl Expression {
    /// The text of a keyword: a lone name, in JSON in quotes.
    pub fn keyword(&self) -> Option<String> {
        match &self.kind {
            Kind::Variable(name) => Some(name.clone()),
            Kind::JsonText(text, _) => {
                let is_name = !text.is_empty()
                    && text.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-'))
                    && !text.starts_with(|c: char| c.is_numeric() || c == '-');
                is_name.then(|| text.clone())
            }
            _ => None,
        }
    }

    /// Calls `visit` for each expression within, from the outside in.
    pub fn walk<'a>(&'a self, visit: &mut dyn FnMut(&'a Expression)) {
        visit(self);
        match &self.kind {
            Kind::Literal(_) | Kind::Variable(_) => {}
            Kind::Template(parts) => walk_parts(parts, visit),
            Kind::JsonText(_, inner) | Kind::Parenthesis(inner) | Kind::Unary(_, inner) => inner.walk(visit),
            Kind::Tuple(elements) => elements.iter().for_each(|element| element.walk(visit)),
            Kind::Object(items) => items.iter().for_each(|(key, value)| {
                key.walk(visit);
                value.walk(visit);
            }),
            Kind::Access(base, steps) => {
                base.walk(visit);
                for (step, _) in steps {
                    if let Step::Index(index) = step {
                        index.walk(visit);
                    }
                }
            }
            Kind::Call { arguments, .. } => arguments.iter().for_each(|argument| argument.walk(visit)),
            Kind::Conditional(parts) => parts.iter().for_each(|part| part.walk(visit)),
            Kind::Binary(_, parts) => parts.iter().for_each(|part| part.walk(visit)),
            Kind::For(each) => {
                each.collection.walk(visit);
                [&each.result_key, &each.condition].into_iter().flatten().for_each(|part| part.walk(visit));
                each.result.walk(visit);
            }
        }
    }
}

fn walk_parts<'a>(parts: &'a [Part], visit: &mut dyn FnMut(&'a Expression)) {
    for part in parts {
        match part {
            Part::Literal(_) => {}
            Part::Interpolation(expression) => expression.walk(visit),
            Part::If(condition, yes, no) => {
                condition.walk(visit);
                walk_parts(yes, visit);
                walk_parts(no, visit);
            }
            Part::For(_, _, collection, body) => {
                collection.walk(visit);
                walk_parts(body, visit);
            }
        }
    }
}
