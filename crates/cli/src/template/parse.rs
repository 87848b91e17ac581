// SPDX-License-Identifier: Apache-2.0
//! The words of a template as a tree (Go's text/template/parse, `parse.go`).

use std::collections::BTreeMap;

use super::functions::Functions;
use super::lex::{Token, Word, words};
use super::{Place, TemplateError};

/// The deepest nesting of blocks and parentheses.
const MAX_DEPTH: usize = 64;

/// A part of a template.
#[derive(Debug, Clone)]
pub(super) enum Node {
    Text(String),
    Action(Pipeline),
    If(Pipeline, Vec<Node>, Vec<Node>),
    With(Pipeline, Vec<Node>, Vec<Node>),
    Range(Pipeline, Vec<Node>, Vec<Node>),
    Template { name: String, argument: Option<Pipeline>, place: Place },
    Break,
    Continue,
}

/// Commands that hand their results on, and the variables that get the last one.
#[derive(Debug, Clone)]
pub(super) struct Pipeline {
    pub(super) variables: Vec<String>,
    /// Whether the variables are new ones.
    pub(super) is_declaration: bool,
    pub(super) commands: Vec<Vec<Operand>>,
    pub(super) place: Place,
}

/// One word of a command, or what stands in parentheses.
#[derive(Debug, Clone)]
pub(super) struct Operand {
    pub(super) kind: OperandKind,
    /// Fields after a parenthesis, a variable or the dot: names and places.
    pub(super) fields: Vec<(String, Place)>,
    pub(super) place: Place,
}

#[derive(Debug, Clone)]
pub(super) enum OperandKind {
    Dot,
    Nil,
    Constant(super::Value),
    Variable(String),
    Function(String),
    Pipeline(Pipeline),
}

/// A whole template and those that it defines.
#[derive(Debug, Clone)]
pub(super) struct Tree {
    pub(super) nodes: Vec<Node>,
    pub(super) defined: BTreeMap<String, Vec<Node>>,
}

/// What ends a list of nodes.
enum Closing {
    Text,
    End,
    /// `else`, and the keyword that follows it.
    Else(Option<String>),
}

/// Reads a template.
pub(super) fn parse(source: &str) -> Result<Tree, TemplateError> {
    let words = words(source)?;
    let mut parser = Parser {
        source,
        words,
        next: 0,
        depth: 0,
        loops: 0,
        variables: vec!["$".to_owned()],
        defined: BTreeMap::new(),
    };
    let (nodes, end) = parser.nodes()?;
    if !matches!(end, Closing::Text) {
        let place = parser.place_before();
        return Err(parser.error("there is nothing that this ends", place));
    }
    Ok(Tree { nodes, defined: parser.defined })
}

struct Parser<'a> {
    source: &'a str,
    words: Vec<Word>,
    next: usize,
    depth: usize,
    /// How many loops are around this place.
    loops: usize,
    variables: Vec<String>,
    defined: BTreeMap<String, Vec<Node>>,
}

impl Parser<'_> {
    fn error(&self, message: impl Into<String>, place: Place) -> TemplateError {
        TemplateError::new(message, self.source, place)
    }

    fn peek(&self) -> Option<&Token> {
        self.words.get(self.next).map(|word| &word.token)
    }

    fn place(&self) -> Place {
        self.words.get(self.next).map_or(self.source.len()..self.source.len(), |word| word.place.clone())
    }

    fn place_before(&self) -> Place {
        self.next.checked_sub(1).and_then(|at| self.words.get(at)).map_or(0..0, |word| word.place.clone())
    }

    fn take(&mut self) -> Option<Token> {
        let token = self.peek().cloned();
        self.next += 1;
        token
    }

    fn deeper<T>(
        &mut self,
        inner: impl FnOnce(&mut Self) -> Result<T, TemplateError>,
    ) -> Result<T, TemplateError> {
        if self.depth >= MAX_DEPTH {
            return Err(self.error(format!("blocks are nested deeper than {MAX_DEPTH}"), self.place()));
        }
        self.depth += 1;
        let result = inner(self);
        self.depth -= 1;
        result
    }

    /// Reads nodes up to `end`, `else` or the end of the text.
    fn nodes(&mut self) -> Result<(Vec<Node>, Closing), TemplateError> {
        let mut nodes = Vec::new();
        loop {
            match self.take() {
                None => return Ok((nodes, Closing::Text)),
                Some(Token::Text(text)) => nodes.push(Node::Text(text)),
                // Nothing else stands outside of actions.
                Some(_) => {
                    let keyword = match self.peek() {
                        Some(Token::Identifier(word)) => word.clone(),
                        _ => String::new(),
                    };
                    match self.keyword(&keyword)? {
                        Step::Node(node) => nodes.push(node),
                        Step::Nothing => {}
                        Step::Closing(end) => return Ok((nodes, end)),
                    }
                }
            }
        }
    }

    /// Reads one action after its `{{`.
    fn keyword(&mut self, keyword: &str) -> Result<Step, TemplateError> {
        let place = self.place();
        match keyword {
            "end" => {
                self.next += 1;
                self.close("end")?;
                Ok(Step::Closing(Closing::End))
            }
            "else" => {
                self.next += 1;
                let next = match self.peek() {
                    Some(Token::Identifier(word)) if word == "if" || word == "with" => Some(word.clone()),
                    _ => None,
                };
                match next {
                    Some(_) => self.next += 1,
                    None => self.close("else")?,
                }
                Ok(Step::Closing(Closing::Else(next)))
            }
            "if" | "with" | "range" => {
                self.next += 1;
                self.deeper(|parser| parser.block(keyword, place)).map(Step::Node)
            }
            "break" | "continue" => {
                self.next += 1;
                self.close(keyword)?;
                if self.loops == 0 {
                    return Err(self.error(format!("{keyword} stands outside of a range"), place));
                }
                Ok(Step::Node(if keyword == "break" { Node::Break } else { Node::Continue }))
            }
            "define" | "block" => {
                self.next += 1;
                self.deeper(|parser| parser.definition(keyword, place))
            }
            "template" => {
                self.next += 1;
                let name = self.name_of_template(keyword)?;
                let argument = match self.peek() {
                    Some(Token::Close) => None,
                    _ => Some(self.pipeline(keyword)?),
                };
                self.close(keyword)?;
                Ok(Step::Node(Node::Template { name, argument, place }))
            }
            _ => {
                let pipeline = self.pipeline("an action")?;
                self.close("an action")?;
                Ok(Step::Node(Node::Action(pipeline)))
            }
        }
    }

    fn close(&mut self, what: &str) -> Result<(), TemplateError> {
        match self.peek() {
            Some(Token::Close) => {
                self.next += 1;
                Ok(())
            }
            _ => Err(self.error(format!("this has no place in {what}"), self.place())),
        }
    }

    /// Reads `if`, `with` or `range` after the keyword, up to its end.
    fn block(&mut self, keyword: &str, place: Place) -> Result<Node, TemplateError> {
        let scope = self.variables.len();
        let pipeline = self.pipeline(keyword)?;
        self.close(keyword)?;
        self.loops += usize::from(keyword == "range");
        let body = self.nodes();
        self.loops -= usize::from(keyword == "range");
        let (body, end) = body?;
        let unfinished = |parser: &Self| parser.error(format!("this {keyword} has no {{{{end}}}}"), place);
        let otherwise = match end {
            Closing::End => Vec::new(),
            Closing::Text => return Err(unfinished(self)),
            Closing::Else(Some(next)) => {
                let place = self.place_before();
                // The inner block's end is this one's too.
                vec![self.deeper(|parser| parser.block(&next, place))?]
            }
            Closing::Else(None) => match self.nodes()? {
                (nodes, Closing::End) => nodes,
                (_, Closing::Text) => return Err(unfinished(self)),
                (_, Closing::Else(_)) => {
                    return Err(self.error("there was an else already", self.place_before()));
                }
            },
        };
        self.variables.truncate(scope);
        Ok(match keyword {
            "if" => Node::If(pipeline, body, otherwise),
            "with" => Node::With(pipeline, body, otherwise),
            _ => Node::Range(pipeline, body, otherwise),
        })
    }

    fn name_of_template(&mut self, keyword: &str) -> Result<String, TemplateError> {
        match self.take() {
            Some(Token::String(name)) => Ok(name),
            _ => {
                let place = self.place_before();
                Err(self.error(format!("{keyword} needs a name between quotes"), place))
            }
        }
    }

    /// Reads `define` or `block` after the keyword.
    fn definition(&mut self, keyword: &str, place: Place) -> Result<Step, TemplateError> {
        if keyword == "define" && self.depth > 1 {
            return Err(self.error("define stands outside of other blocks", place));
        }
        let name = self.name_of_template(keyword)?;
        let argument = if keyword == "block" { Some(self.pipeline(keyword)?) } else { None };
        self.close(keyword)?;
        // A template sees its own variables only.
        let variables = std::mem::replace(&mut self.variables, vec!["$".to_owned()]);
        let loops = std::mem::take(&mut self.loops);
        let result = self.nodes();
        (self.variables, self.loops) = (variables, loops);
        match result? {
            (nodes, Closing::End) => {
                self.defined.insert(name.clone(), nodes);
            }
            _ => return Err(self.error(format!("this {keyword} has no {{{{end}}}}"), place)),
        }
        Ok(match argument {
            Some(argument) => Step::Node(Node::Template { name, argument: Some(argument), place }),
            None => Step::Nothing,
        })
    }

    /// Reads a pipeline, up to what cannot belong to it.
    fn pipeline(&mut self, context: &str) -> Result<Pipeline, TemplateError> {
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
                Some(Token::Number(number)) => OperandKind::Constant(super::Value::Number(number)),
                Some(Token::String(text)) => OperandKind::Constant(super::Value::String(text)),
                Some(Token::Identifier(word)) => match word.as_str() {
                    "true" | "false" => OperandKind::Constant(super::Value::Bool(word == "true")),
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

/// What an action is.
enum Step {
    Node(Node),
    Nothing,
    Closing(Closing),
}

impl Operand {
    fn takes_fields(&self) -> bool {
        matches!(self.kind, OperandKind::Variable(_) | OperandKind::Pipeline(_))
            || (matches!(self.kind, OperandKind::Dot) && !self.fields.is_empty())
    }
}

impl Tree {
    /// Tells whether anything asks the dot or `$` for a field, or takes them whole.
    pub(super) fn asks_for(&self, field: &str) -> bool {
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
