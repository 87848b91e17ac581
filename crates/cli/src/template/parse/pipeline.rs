// SPDX-License-Identifier: Apache-2.0
//! Pipelines: commands behind one another, each of operands.

use super::{Operand, OperandKind, Parser, Pipeline};
use crate::template::functions::Functions;
use crate::template::lex::Token;
use crate::template::{TemplateError, Value};

impl Parser<'_> {
    /// Reads a pipeline, up to what cannot belong to it.
    pub(super) fn pipeline(&mut self, context: &str) -> Result<Pipeline, TemplateError> {
        let start = self.place().start;
        let (variables, is_declaration) = self.declarations(context)?;
        let mut commands = Vec::new();
        loop {
            let place = self.place();
            let operands = self.command()?;
            if operands.is_empty() {
                let message = if commands.is_empty() {
                    format!("a value is missing for {context}")
                } else {
                    "a command is missing after |".to_owned()
                };
                return Err(self.error(message, place));
            }
            let is_constant =
                matches!(operands[0].kind, OperandKind::Constant(_) | OperandKind::Nil | OperandKind::Dot)
                    && operands[0].fields.is_empty();
            if is_constant && !commands.is_empty() {
                return Err(self.error("this is not a function that could take what comes before |", place));
            }
            commands.push(operands);
            match self.peek() {
                Some(Token::Pipe) => self.next += 1,
                _ => break,
            }
        }
        if is_declaration {
            self.variables.extend(variables.iter().cloned());
        }
        let end = self.place_before().end;
        Ok(Pipeline { variables, is_declaration, commands, place: start..end })
    }

    /// Reads `$a :=`, `$a =` or, in a range, `$a, $b :=`.
    fn declarations(&mut self, context: &str) -> Result<(Vec<String>, bool), TemplateError> {
        let name_at = |parser: &Self, at: usize| match parser.words.get(at).map(|word| &word.token) {
            Some(Token::Variable(name)) => Some(name.clone()),
            _ => None,
        };
        let Some(first) = name_at(self, self.next) else { return Ok((Vec::new(), false)) };
        let (names, operator) = match self.words.get(self.next + 1).map(|word| &word.token) {
            Some(Token::Comma) => match name_at(self, self.next + 2) {
                Some(second) if context == "range" => (vec![first, second], self.next + 3),
                _ => return Err(self.error("only a range gives two values", self.place())),
            },
            _ => (vec![first], self.next + 1),
        };
        let is_declaration = match self.words.get(operator).map(|word| &word.token) {
            Some(Token::Declare) => true,
            Some(Token::Assign) => false,
            _ => return Ok((Vec::new(), false)),
        };
        if !is_declaration && let Some(unknown) = names.iter().find(|name| !self.variables.contains(name)) {
            return Err(self.error(format!("there is no variable {unknown} (:= makes one)"), self.place()));
        }
        self.next = operator + 1;
        Ok((names, is_declaration))
    }

    fn command(&mut self) -> Result<Vec<Operand>, TemplateError> {
        let mut operands: Vec<Operand> = Vec::new();
        loop {
            let place = self.place();
            let kind = match self.peek().cloned() {
                Some(Token::Dot) => OperandKind::Dot,
                Some(Token::Field(name)) => {
                    self.next += 1;
                    // A field right after something belongs to it.
                    let before = operands.last_mut().filter(|before| before.place.end == place.start);
                    match before {
                        Some(before) if !before.takes_fields() => {
                            let message = "this has no fields";
                            return Err(TemplateError::new(message, self.source, before.place.clone()));
                        }
                        Some(before) => {
                            before.place.end = place.end;
                            before.fields.push((name, place));
                        }
                        None => operands.push(Operand {
                            kind: OperandKind::Dot,
                            fields: vec![(name, place.clone())],
                            place,
                        }),
                    }
                    continue;
                }
                Some(Token::Variable(name)) if self.variables.contains(&name) => OperandKind::Variable(name),
                Some(Token::Variable(name)) => {
                    return Err(self.error(format!("there is no variable {name}"), place));
                }
                Some(Token::Number(number)) => OperandKind::Constant(Value::Number(number)),
                Some(Token::String(text)) => OperandKind::Constant(Value::String(text)),
                Some(Token::Identifier(word)) => match word.as_str() {
                    "true" | "false" => OperandKind::Constant(Value::Bool(word == "true")),
                    "nil" => OperandKind::Nil,
                    _ if Functions::exists(&word) => OperandKind::Function(word),
                    _ => return Err(self.error(Functions::unknown(&word), place)),
                },
                Some(Token::OpenParenthesis) => {
                    self.next += 1;
                    let pipeline = self.deeper(|parser| parser.pipeline("a parenthesis"))?;
                    if self.peek() != Some(&Token::CloseParenthesis) {
                        return Err(self.error("this has no place in a parenthesis", self.place()));
                    }
                    let end = self.place().end;
                    self.next += 1;
                    let kind = OperandKind::Pipeline(pipeline);
                    operands.push(Operand { kind, fields: Vec::new(), place: place.start..end });
                    continue;
                }
                _ => return Ok(operands),
            };
            self.next += 1;
            operands.push(Operand { kind, fields: Vec::new(), place });
        }
    }
}

impl Operand {
    fn takes_fields(&self) -> bool {
        matches!(self.kind, OperandKind::Variable(_) | OperandKind::Pipeline(_))
            || (matches!(self.kind, OperandKind::Dot) && !self.fields.is_empty())
    }
}
