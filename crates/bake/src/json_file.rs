// SPDX-License-Identifier: Apache-2.0
//! HCL's JSON notation becomes our syntax tree: texts are templates, and the objects of known keys are
//! blocks.

use super::ast::{Attribute, Block, Body, Expression, Kind};
use super::hcl_file;
use super::number::Number;
use super::source::{Fault, Span};
use super::value::{Type, Value};

/// How deep values may be nested.
const MAX_DEPTH: usize = 64;

/// Keys of a file whose values are blocks with one label.
const LABELLED: &[&str] = &["target", "group", "variable", "function"];

/// Reads a file.
///
/// # Errors
/// Where it is not JSON, or not an object.
pub fn read(text: &str, file: usize) -> Result<Body, Fault> {
    let mut reader = Reader { bytes: text.as_bytes(), text, at: 0, file };
    reader.skip_space();
    let root = reader.value(0)?;
    reader.skip_space();
    if reader.at < text.len() {
        return Err(
            reader.fault("Extraneous data after value", "extra characters appear after the JSON value")
        );
    }
    let bodies: Vec<&Node> = match &root.kind {
        NodeKind::Array(elements) => elements.iter().collect(),
        _ => vec![&root],
    };
    let mut body = Body::default();
    for node in bodies {
        top_level(node, file, &mut body)?;
    }
    Ok(body)
}

struct Node {
    kind: NodeKind,
    span: Span,
}

enum NodeKind {
    Literal(Value),
    Text(String),
    Array(Vec<Node>),
    Object(Vec<(String, Span, Node)>),
}

fn top_level(node: &Node, file: usize, body: &mut Body) -> Result<(), Fault> {
    for (key, key_span, value) in members(node)? {
        if key == "//" {
            continue;
        }
        if !LABELLED.contains(&key.as_str()) {
            body.attributes.push(attribute(key, *key_span, value, file)?);
            continue;
        }
        for labelled in each(value) {
            for (label, label_span, content) in members(labelled)? {
                for content in each(content) {
                    body.blocks.push(Block {
                        kind: key.clone(),
                        labels: vec![(label.clone(), *label_span)],
                        body: block_body(content, key, file)?,
                        span: *label_span,
                    });
                }
            }
        }
    }
    Ok(())
}

fn block_body(node: &Node, kind: &str, file: usize) -> Result<Body, Fault> {
    let mut body = Body::default();
    for (key, key_span, value) in members(node)? {
        if key == "//" {
            continue;
        }
        if kind == "variable" && key == "validation" {
            for content in each(value) {
                body.blocks.push(Block {
                    kind: key.clone(),
                    labels: Vec::new(),
                    body: block_body(content, key, file)?,
                    span: *key_span,
                });
            }
            continue;
        }
        body.attributes.push(attribute(key, *key_span, value, file)?);
    }
    Ok(body)
}

fn attribute(name: &str, name_span: Span, value: &Node, file: usize) -> Result<Attribute, Fault> {
    Ok(Attribute { name: name.to_owned(), name_span, value: expression(value, file)? })
}

fn each(node: &Node) -> Vec<&Node> {
    match &node.kind {
        NodeKind::Array(elements) => elements.iter().collect(),
        _ => vec![node],
    }
}

fn members(node: &Node) -> Result<&Vec<(String, Span, Node)>, Fault> {
    match &node.kind {
        NodeKind::Object(members) => Ok(members),
        _ => Err(Fault::at(node.span, "Incorrect JSON value type", "a JSON object is required here")),
    }
}

fn expression(node: &Node, file: usize) -> Result<Expression, Fault> {
    let kind = match &node.kind {
        NodeKind::Literal(value) => Kind::Literal(value.clone()),
        NodeKind::Text(text) => {
            Kind::JsonText(text.clone(), Box::new(hcl_file::read_template(text, file, node.span.start + 1)?))
        }
        NodeKind::Array(elements) => {
            Kind::Tuple(elements.iter().map(|element| expression(element, file)).collect::<Result<_, _>>()?)
        }
        NodeKind::Object(members) => Kind::Object(
            members
                .iter()
                .map(|(key, span, value)| {
                    Ok((hcl_file::read_template(key, file, span.start + 1)?, expression(value, file)?))
                })
                .collect::<Result<_, Fault>>()?,
        ),
    };
    Ok(Expression { kind, span: node.span })
}

/// Reads JSON with positions.
struct Reader<'a> {
    bytes: &'a [u8],
    text: &'a str,
    at: usize,
    file: usize,
}

impl Reader<'_> {
    fn span(&self, start: usize) -> Span {
        Span { file: self.file, start, end: self.at }
    }

    fn fault(&self, summary: &str, detail: &str) -> Fault {
        Fault::at(Span { file: self.file, start: self.at, end: self.at + 1 }, summary, detail)
    }

    fn skip_space(&mut self) {
        while self.bytes.get(self.at).is_some_and(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    fn take(&mut self, byte: u8) -> bool {
        self.skip_space();
        let is_there = self.bytes.get(self.at) == Some(&byte);
        if is_there {
            self.at += 1;
        }
        is_there
    }

    fn value(&mut self, depth: usize) -> Result<Node, Fault> {
        self.skip_space();
        let start = self.at;
        if depth > MAX_DEPTH {
            return Err(self.fault("Invalid JSON", "values are nested too deeply"));
        }
        let kind = match self.bytes.get(self.at) {
            Some(b'{') => self.object(depth)?,
            Some(b'[') => self.array(depth)?,
            Some(b'"') => NodeKind::Text(self.string()?),
            Some(_) => self.word()?,
            None => return Err(self.fault("Missing JSON value", "the file ends where a value is expected")),
        };
        Ok(Node { kind, span: self.span(start) })
    }

    fn object(&mut self, depth: usize) -> Result<NodeKind, Fault> {
        self.at += 1;
        let mut members = Vec::new();
        if self.take(b'}') {
            return Ok(NodeKind::Object(members));
        }
        loop {
            self.skip_space();
            let start = self.at;
            if self.bytes.get(self.at) != Some(&b'"') {
                return Err(self.fault(
                    "Invalid object property name",
                    "a JSON object property name is a text in double quotes",
                ));
            }
            let key = self.string()?;
            let key_span = self.span(start);
            if !self.take(b':') {
                return Err(self.fault(
                    "Missing property value colon",
                    "a colon separates a property's name from its value",
                ));
            }
            let value = self.value(depth + 1)?;
            members.push((key, key_span, value));
            if self.take(b'}') {
                return Ok(NodeKind::Object(members));
            }
            if !self.take(b',') {
                return Err(self.fault(
                    "Missing attribute separator comma",
                    "a comma separates the properties of an object",
                ));
            }
        }
    }

    fn array(&mut self, depth: usize) -> Result<NodeKind, Fault> {
        self.at += 1;
        let mut elements = Vec::new();
        if self.take(b']') {
            return Ok(NodeKind::Array(elements));
        }
        loop {
            elements.push(self.value(depth + 1)?);
            if self.take(b']') {
                return Ok(NodeKind::Array(elements));
            }
            if !self.take(b',') {
                return Err(self
                    .fault("Missing array element separator", "a comma separates the elements of an array"));
            }
        }
    }

    fn string(&mut self) -> Result<String, Fault> {
        let start = self.at;
        self.at += 1;
        while let Some(byte) = self.bytes.get(self.at) {
            match byte {
                b'\\' => self.at += 2,
                b'"' => {
                    self.at += 1;
                    let quoted = self.text.get(start..self.at).unwrap_or("\"\"");
                    return serde_json::from_str(quoted).map_err(|error| {
                        Fault::at(self.span(start), "Invalid JSON string", error.to_string())
                    });
                }
                b'\n' => break,
                _ => self.at += 1,
            }
        }
        self.at = start;
        Err(self.fault("Invalid JSON string", "the text has no closing quote"))
    }

    fn word(&mut self) -> Result<NodeKind, Fault> {
        let start = self.at;
        while self
            .bytes
            .get(self.at)
            .is_some_and(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.' | b'_'))
        {
            self.at += 1;
        }
        let word = self.text.get(start..self.at).unwrap_or("");
        let value = match word {
            "true" => Value::Bool(true),
            "false" => Value::Bool(false),
            "null" => Value::Null(Type::Dynamic),
            word => match Number::parse(word).filter(|_| !word.starts_with(['+', '.'])) {
                Some(number) => Value::Number(number),
                None => {
                    self.at = start;
                    let detail = format!("{word:?} is not a valid JSON value");
                    return Err(self.fault("Invalid JSON keyword", &detail));
                }
            },
        };
        Ok(NodeKind::Literal(value))
    }
}
