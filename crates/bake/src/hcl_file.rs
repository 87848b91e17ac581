// SPDX-License-Identifier: Apache-2.0
//! HCL's own notation becomes our syntax tree.

use std::ops::Range;

use hcl_edit::expr::{self, ObjectKey, TraversalOperator};
use hcl_edit::structure::{self, BlockLabel};
use hcl_edit::template::{Directive, Element, Strip, Template};
use hcl_edit::{Span as _, parser};

use super::ast::{Attribute, Block, Body, Expression, For, Kind, Part, Step};
use super::number::Number;
use super::source::{Fault, Span};
use super::value::{Type, Value};

/// Reads a file.
///
/// # Errors
/// Where it is not HCL.
pub fn read(text: &str, file: usize) -> Result<Body, Fault> {
    let body = parser::parse_body(text).map_err(|error| fault(&error, file, 0))?;
    Ok(Reader { text, file, base: 0, is_heredoc: false }.body(&body))
}

/// Reads a template that stands at an offset of a file.
///
/// # Errors
/// Where it is not one.
pub fn read_template(text: &str, file: usize, base: usize) -> Result<Expression, Fault> {
    let template = parser::parse_template(text).map_err(|error| fault(&error, file, base))?;
    let reader = Reader { text, file, base, is_heredoc: false };
    Ok(Expression {
        kind: reader.template(&template),
        span: Span { file, start: base, end: base + text.len() },
    })
}

/// Reads an expression that stands at an offset of a file.
///
/// # Errors
/// Where it is not one.
pub fn read_expression(text: &str, file: usize, base: usize) -> Result<Expression, Fault> {
    let expression = parser::parse_expr(text).map_err(|error| fault(&error, file, base))?;
    Ok(Reader { text, file, base, is_heredoc: false }.expression(&expression))
}

fn fault(error: &parser::Error, file: usize, base: usize) -> Fault {
    let start = base + error.location().offset();
    Fault::at(Span { file, start, end: start + 1 }, "Invalid expression or block", error.message())
}

struct Reader<'a> {
    text: &'a str,
    file: usize,
    base: usize,
    is_heredoc: bool,
}

impl Reader<'_> {
    fn span(&self, range: Option<Range<usize>>) -> Span {
        let range = range.unwrap_or(0..0);
        Span { file: self.file, start: self.base + range.start, end: self.base + range.end }
    }

    fn body(&self, body: &structure::Body) -> Body {
        let mut result = Body::default();
        for attribute in body.attributes() {
            result.attributes.push(Attribute {
                name: attribute.key.as_str().to_owned(),
                name_span: self.span(attribute.key.span()),
                value: self.expression(&attribute.value),
            });
        }
        for block in body.blocks() {
            let label = |label: &BlockLabel| (label.as_str().to_owned(), self.span(label.span()));
            result.blocks.push(Block {
                kind: block.ident.as_str().to_owned(),
                labels: block.labels.iter().map(label).collect(),
                body: self.body(&block.body),
                span: self.span(block.ident.span()),
            });
        }
        result
    }

    fn expression(&self, expression: &expr::Expression) -> Expression {
        let span = self.span(expression.span());
        Expression { kind: self.kind(expression, span), span }
    }

    fn kind(&self, expression: &expr::Expression, span: Span) -> Kind {
        match expression {
            expr::Expression::Null(_) => Kind::Literal(Value::Null(Type::Dynamic)),
            expr::Expression::Bool(value) => Kind::Literal(Value::Bool(*value.value())),
            expr::Expression::Number(number) => {
                let range = number.span().unwrap_or(0..0);
                // The text has every digit; the parsed number is a double.
                let parsed = self.text.get(range).and_then(|text| Number::parse(text.trim()));
                let parsed = parsed.or_else(|| number.value().as_f64().and_then(Number::from_f64));
                Kind::Literal(Value::Number(parsed.unwrap_or_else(|| Number::from(0i64))))
            }
            expr::Expression::String(text) => Kind::Literal(Value::string(text.as_str())),
            expr::Expression::Array(array) => {
                Kind::Tuple(array.iter().map(|element| self.expression(element)).collect())
            }
            expr::Expression::Object(object) => Kind::Object(
                object.iter().map(|(key, value)| (self.key(key), self.expression(value.expr()))).collect(),
            ),
            expr::Expression::StringTemplate(template) => self.template(template),
            expr::Expression::HeredocTemplate(heredoc) => {
                Reader { is_heredoc: true, ..*self }.template(&heredoc.template)
            }
            expr::Expression::Parenthesis(inner) => {
                Kind::Parenthesis(Box::new(self.expression(inner.inner())))
            }
            expr::Expression::Variable(name) => Kind::Variable(name.as_str().to_owned()),
            expr::Expression::Conditional(conditional) => Kind::Conditional(Box::new([
                self.expression(&conditional.cond_expr),
                self.expression(&conditional.true_expr),
                self.expression(&conditional.false_expr),
            ])),
            expr::Expression::FuncCall(call) => {
                let mut name = String::new();
                for part in &call.name.namespace {
                    name.push_str(part.as_str());
                    name.push_str("::");
                }
                name.push_str(call.name.name.as_str());
                Kind::Call {
                    name,
                    name_span: self.span(call.name.name.span()),
                    arguments: call.args.iter().map(|argument| self.expression(argument)).collect(),
                    expands_last: call.args.expand_final(),
                }
            }
            expr::Expression::Traversal(traversal) => {
                let steps = traversal
                    .operators
                    .iter()
                    .map(|operator| (self.step(operator.value(), span), self.span(operator.span())))
                    .collect();
                Kind::Access(Box::new(self.expression(&traversal.expr)), steps)
            }
            expr::Expression::UnaryOp(operation) => {
                Kind::Unary(*operation.operator.value(), Box::new(self.expression(&operation.expr)))
            }
            expr::Expression::BinaryOp(operation) => Kind::Binary(
                *operation.operator.value(),
                Box::new([self.expression(&operation.lhs_expr), self.expression(&operation.rhs_expr)]),
            ),
            expr::Expression::ForExpr(each) => Kind::For(Box::new(For {
                key: each.intro.key_var.as_ref().map(|name| name.as_str().to_owned()),
                value: each.intro.value_var.as_str().to_owned(),
                collection: self.expression(&each.intro.collection_expr),
                result_key: each.key_expr.as_ref().map(|key| self.expression(key)),
                result: self.expression(&each.value_expr),
                is_grouping: each.grouping,
                condition: each.cond.as_ref().map(|condition| self.expression(&condition.expr)),
            })),
        }
    }

    fn key(&self, key: &ObjectKey) -> Expression {
        match key {
            ObjectKey::Ident(name) => {
                Expression { kind: Kind::Literal(Value::string(name.as_str())), span: self.span(name.span()) }
            }
            // A lone name is the key itself; in parentheses it is a variable.
            ObjectKey::Expression(expr::Expression::Variable(name)) => {
                Expression { kind: Kind::Literal(Value::string(name.as_str())), span: self.span(name.span()) }
            }
            ObjectKey::Expression(expression) => self.expression(expression),
        }
    }

    fn step(&self, operator: &TraversalOperator, span: Span) -> Step {
        match operator {
            TraversalOperator::AttrSplat(_) => Step::AttributeSplat,
            TraversalOperator::FullSplat(_) => Step::FullSplat,
            TraversalOperator::GetAttr(name) => Step::Attribute(name.as_str().to_owned()),
            TraversalOperator::Index(index) => Step::Index(self.expression(index)),
            TraversalOperator::LegacyIndex(index) => {
                let number = Number::parse(&index.value().to_string()).unwrap_or_else(|| Number::from(0i64));
                Step::Index(Expression { kind: Kind::Literal(Value::Number(number)), span })
            }
        }
    }

    fn template(&self, template: &Template) -> Kind {
        let mut parts = self.parts(template, false, false);
        if parts.is_empty() {
            parts.push(Part::Literal(String::new()));
        }
        Kind::Template(parts)
    }

    /// Converts the elements; `~` on either side takes away the white space next to it.
    fn parts(&self, template: &Template, strips_start: bool, strips_end: bool) -> Vec<Part> {
        let elements: Vec<&Element> = template.iter().collect();
        let mut parts = Vec::with_capacity(elements.len());
        for (at, element) in elements.iter().enumerate() {
            match element {
                Element::Literal(text) => {
                    let (mut head, mut text, mut tail) = ("", text.as_str(), "");
                    let after_strip = match at.checked_sub(1).map(|before| elements[before]) {
                        Some(before) => outer_strip(before).1,
                        None => strips_start,
                    };
                    let before_strip = match elements.get(at + 1) {
                        Some(after) => outer_strip(after).0,
                        None => strips_end,
                    };
                    // The lines of a heredoc are tokens of their own; only the one next to the mark is stripped.
                    if after_strip {
                        let line =
                            text.find('\n').filter(|_| self.is_heredoc).map_or(text.len(), |at| at + 1);
                        (head, text) = text.split_at(line);
                        head = head.trim_start();
                    }
                    if before_strip {
                        let body = text.strip_suffix('\n').unwrap_or(text);
                        let line = body.rfind('\n').filter(|_| self.is_heredoc).map_or(0, |at| at + 1);
                        (text, tail) = text.split_at(line);
                        tail = tail.trim_end();
                    }
                    if before_strip && text.is_empty() && tail.is_empty() {
                        head = head.trim_end();
                    }
                    parts.push(Part::Literal(format!("{head}{text}{tail}")));
                }
                Element::Interpolation(interpolation) => {
                    parts.push(Part::Interpolation(self.expression(&interpolation.expr)));
                }
                Element::Directive(directive) => parts.push(self.directive(directive)),
            }
        }
        parts
    }

    fn directive(&self, directive: &Directive) -> Part {
        match directive {
            Directive::If(directive) => {
                let end = directive.endif_expr.strip;
                let otherwise = directive.else_expr.as_ref();
                let yes_end = otherwise.map_or(end, |otherwise| otherwise.strip);
                let yes = self.parts(
                    &directive.if_expr.template,
                    at_end(directive.if_expr.strip),
                    at_start(yes_end),
                );
                let no = otherwise.map_or_else(Vec::new, |otherwise| {
                    self.parts(&otherwise.template, at_end(otherwise.strip), at_start(end))
                });
                Part::If(self.expression(&directive.if_expr.cond_expr), yes, no)
            }
            Directive::For(directive) => {
                let each = &directive.for_expr;
                let body =
                    self.parts(&each.template, at_end(each.strip), at_start(directive.endfor_expr.strip));
                Part::For(
                    each.key_var.as_ref().map(|name| name.as_str().to_owned()),
                    each.value_var.as_str().to_owned(),
                    self.expression(&each.collection_expr),
                    body,
                )
            }
        }
    }
}

/// Whether an element strips the text before it, and the text behind it.
fn outer_strip(element: &Element) -> (bool, bool) {
    match element {
        Element::Literal(_) => (false, false),
        Element::Interpolation(interpolation) => (at_start(interpolation.strip), at_end(interpolation.strip)),
        Element::Directive(directive) => match &**directive {
            Directive::If(directive) => {
                (at_start(directive.if_expr.strip), at_end(directive.endif_expr.strip))
            }
            Directive::For(directive) => {
                (at_start(directive.for_expr.strip), at_end(directive.endfor_expr.strip))
            }
        },
    }
}

fn at_start(strip: Strip) -> bool {
    matches!(strip, Strip::Start | Strip::Both)
}

fn at_end(strip: Strip) -> bool {
    matches!(strip, Strip::End | Strip::Both)
}
