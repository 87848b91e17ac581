// SPDX-License-Identifier: Apache-2.0
//! The words of a template as a tree (Go's text/template/parse, `parse.go`).

use std::collections::BTreeMap;

use super::lex::{Token, Word, words};
use super::{Place, TemplateError};

mod asks;
mod pipeline;

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
}

/// What an action is.
enum Step {
    Node(Node),
    Nothing,
    Closing(Closing),
}
