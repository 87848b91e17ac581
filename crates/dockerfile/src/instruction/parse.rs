// SPDX-License-Identifier: Apache-2.0
//! From syntax tree to typed instructions and stages.

mod copy;
mod run;

use super::command::{Expose, Onbuild, Volume};
use super::pairs::{Arg, ArgDefinition, Env, Label, Pair};
use super::{Command, Instruction, InstructionKind, NAMES};
use crate::ast::{Arguments, Node};
use crate::flags::{FlagKind, Flags};
use crate::suggest::nearest;
use crate::{Ast, Dockerfile, From, ParseError, ParseErrorKind, Span, Stage};

/// Makes instructions and stages of lines.
pub(crate) fn dockerfile(ast: Ast) -> Result<Dockerfile, ParseError> {
    let mut dockerfile = Dockerfile {
        directives: ast.directives,
        escape: ast.escape,
        global_args: Vec::new(),
        stages: Vec::new(),
    };
    for node in &ast.nodes {
        let request = Request::of(node, node.span)?;
        if request.name == "FROM" {
            dockerfile.stages.push(request.stage(dockerfile.stages.len())?);
            continue;
        }
        let instruction = request.instruction()?;
        match dockerfile.stages.last_mut() {
            Some(stage) => stage.instructions.push(instruction),
            None if request.name == "ARG" => dockerfile.global_args.push(instruction),
            None => {
                let error = request.error(ParseErrorKind::BeforeFrom { instruction: request.name });
                return Err(error.with_hint(Some("begin with FROM".to_owned())));
            }
        }
    }
    if dockerfile.stages.is_empty() {
        let span = ast.nodes.last().map(|node| node.span).unwrap_or_default();
        return Err(ParseError::new(ParseErrorKind::NoStages, span));
    }
    Ok(dockerfile)
}

/// Reads an ONBUILD trigger.
pub(super) fn trigger(text: &str, span: Span) -> Result<Instruction, ParseError> {
    let ast = Ast::parse(text).map_err(|error| ParseError { span, ..error })?;
    let [node] = ast.nodes.as_slice() else {
        return Err(ParseError::new(ParseErrorKind::OnbuildNotSingle, span));
    };
    let request = Request::of(node, span)?;
    if matches!(request.name, "FROM" | "ONBUILD") {
        return Err(request.error(ParseErrorKind::OnbuildTrigger { trigger: request.name.to_owned() }));
    }
    request.instruction()
}

/// A line that is about to become an instruction.
struct Request<'a> {
    node: &'a Node,
    name: &'static str,
    span: Span,
}

impl<'a> Request<'a> {
    fn of(node: &'a Node, span: Span) -> Result<Request<'a>, ParseError> {
        match NAMES.iter().find(|name| node.keyword.eq_ignore_ascii_case(name)) {
            Some(name) => Ok(Request { node, name, span }),
            None => {
                let kind = ParseErrorKind::UnknownInstruction { keyword: node.keyword.clone() };
                let hint = unknown_instruction_hint(&node.keyword);
                Err(ParseError::new(kind, span).with_hint(hint))
            }
        }
    }

    fn error(&self, kind: ParseErrorKind) -> ParseError {
        ParseError::new(kind, self.span)
    }

    fn missing(&self, expected: &'static str) -> ParseError {
        self.error(ParseErrorKind::Arguments { instruction: self.name, expected })
    }

    fn flags(&self, known: &[(&'static str, FlagKind)]) -> Result<Flags, ParseError> {
        Flags::read(self.name, &self.node.flags, known, self.span)
    }

    fn instruction(&self) -> Result<Instruction, ParseError> {
        let kind = match self.name {
            "ADD" => InstructionKind::Add(self.add()?),
            "COPY" => InstructionKind::Copy(self.copy()?),
            "RUN" => InstructionKind::Run(self.run()?),
            "HEALTHCHECK" => InstructionKind::Healthcheck(self.healthcheck()?),
            name => {
                self.flags(&[])?;
                match name {
                    "ARG" => InstructionKind::Arg(self.arg()?),
                    "CMD" => InstructionKind::Cmd(command(&self.node.arguments)),
                    "ENTRYPOINT" => InstructionKind::Entrypoint(command(&self.node.arguments)),
                    "ENV" => InstructionKind::Env(Env { pairs: self.pairs()? }),
                    "EXPOSE" => InstructionKind::Expose(self.expose()?),
                    "LABEL" => InstructionKind::Label(Label { pairs: self.pairs()? }),
                    "MAINTAINER" => InstructionKind::Maintainer(self.text()?),
                    "ONBUILD" => InstructionKind::Onbuild(self.onbuild()?),
                    "SHELL" => InstructionKind::Shell(self.shell()?),
                    "STOPSIGNAL" => InstructionKind::Stopsignal(self.text()?),
                    "USER" => InstructionKind::User(self.text()?),
                    "VOLUME" => InstructionKind::Volume(self.volume()?),
                    "WORKDIR" => InstructionKind::Workdir(self.text()?),
                    // FROM, where no stage may begin.
                    _ => return Err(self.error(ParseErrorKind::OnbuildTrigger { trigger: name.to_owned() })),
                }
            }
        };
        Ok(Instruction {
            kind,
            keyword: self.node.keyword.clone(),
            original: self.node.original.clone(),
            span: self.span,
            comments: self.node.comments.clone(),
        })
    }

    fn stage(&self, index: usize) -> Result<Stage, ParseError> {
        let (image, alias) = match self.words() {
            [image] => (image, None),
            [image, keyword, name] if keyword.eq_ignore_ascii_case("as") => (image, Some((keyword, name))),
            _ => return Err(self.missing("either one or three arguments: FROM image [AS name]")),
        };
        let name = alias.map(|(_, name)| self.stage_name(name)).transpose()?;
        let flags = self.flags(&[("platform", FlagKind::Text)])?;
        Ok(Stage {
            index,
            description: name.as_ref().and_then(|name| description(&self.node.comments, name)),
            name,
            written_name: alias.map(|(_, name)| name.clone()),
            from: From { image: image.clone(), platform: flags.text("platform") },
            instructions: Vec::new(),
            original: self.node.original.clone(),
            keyword: self.node.keyword.clone(),
            as_keyword: alias.map(|(keyword, _)| keyword.clone()),
            comments: self.node.comments.clone(),
            span: self.span,
        })
    }

    fn stage_name(&self, written: &str) -> Result<String, ParseError> {
        let name = written.to_lowercase();
        let is_valid = name.starts_with(|first: char| first.is_ascii_lowercase())
            && name.chars().all(|character| matches!(character, 'a'..='z' | '0'..='9' | '-' | '_' | '.'));
        if is_valid {
            Ok(name)
        } else {
            Err(self.error(ParseErrorKind::StageName { name: written.to_owned() }))
        }
    }

    /// Returns the arguments of instructions that are cut into words, JSON or not.
    fn words(&self) -> &'a [String] {
        match &self.node.arguments {
            Arguments::Words(words) | Arguments::Json(words) => words,
            _ => &[],
        }
    }

    /// Returns the one argument of instructions that are not cut.
    fn text(&self) -> Result<String, ParseError> {
        match &self.node.arguments {
            Arguments::Text(text) => Ok(text.clone()),
            _ => Err(self.missing("exactly one argument")),
        }
    }

    fn pairs(&self) -> Result<Vec<Pair>, ParseError> {
        match &self.node.arguments {
            Arguments::Pairs(pairs) if pairs.iter().any(|pair| pair.name.is_empty()) => {
                Err(self.error(ParseErrorKind::BlankName { instruction: self.name }))
            }
            Arguments::Pairs(pairs) => Ok(pairs.clone()),
            _ => Err(self.missing("at least one argument")),
        }
    }

    fn arg(&self) -> Result<Arg, ParseError> {
        let mut definitions = Vec::new();
        for word in self.words() {
            let (name, default) = match word.split_once('=') {
                Some((name, default)) => (name, Some(default.to_owned())),
                None => (word.as_str(), None),
            };
            if name.is_empty() {
                return Err(self.error(ParseErrorKind::BlankName { instruction: self.name }));
            }
            let description = description(&self.node.comments, name);
            definitions.push(ArgDefinition { name: name.to_owned(), default, description });
        }
        if definitions.is_empty() {
            return Err(self.missing("at least one argument"));
        }
        Ok(Arg { definitions })
    }

    fn expose(&self) -> Result<Expose, ParseError> {
        let mut ports = self.words().to_vec();
        if ports.is_empty() {
            return Err(self.missing("at least one argument"));
        }
        ports.sort();
        Ok(Expose { ports })
    }

    fn volume(&self) -> Result<Volume, ParseError> {
        let paths: Vec<String> = self.words().iter().map(|path| path.trim().to_owned()).collect();
        if paths.is_empty() {
            return Err(self.missing("at least one argument"));
        }
        if paths.iter().any(String::is_empty) {
            return Err(self.missing("paths that are not empty"));
        }
        Ok(Volume { paths })
    }

    fn shell(&self) -> Result<Vec<String>, ParseError> {
        match &self.node.arguments {
            Arguments::Json(words) if !words.is_empty() => Ok(words.clone()),
            Arguments::Text(_) => Err(self.error(ParseErrorKind::JsonRequired { instruction: self.name })),
            _ => Err(self.missing("at least one argument")),
        }
    }

    fn onbuild(&self) -> Result<Onbuild, ParseError> {
        let Arguments::Nested(node) = &self.node.arguments else {
            return Err(self.missing("at least one argument"));
        };
        let node = Node { heredocs: self.node.heredocs.clone(), ..Node::clone(node) };
        let inner = Request::of(&node, self.span)?;
        if matches!(inner.name, "FROM" | "MAINTAINER" | "ONBUILD") {
            return Err(self.error(ParseErrorKind::OnbuildTrigger { trigger: inner.name.to_owned() }));
        }
        inner.instruction()?;
        let mut trigger = node.original;
        for heredoc in &self.node.heredocs {
            trigger.push('\n');
            trigger.push_str(&heredoc.content);
            trigger.push_str(&heredoc.name);
        }
        Ok(Onbuild { trigger })
    }

    fn not_expanded(&self, kind: ParseErrorKind) -> ParseError {
        let hint = "name a stage with FROM image AS name, where variables are expanded, and use its name";
        self.error(kind).with_hint(Some(hint.to_owned()))
    }
}

/// Says what an unknown keyword was probably meant to be.
fn unknown_instruction_hint(keyword: &str) -> Option<String> {
    if let Some((name, _)) = keyword.split_once('[')
        && let Some(name) = NAMES.iter().find(|known| name.eq_ignore_ascii_case(known))
    {
        return Some(format!("a blank must follow {name}"));
    }
    nearest(keyword, NAMES.iter().copied()).map(|name| format!("did you mean {name}?"))
}

/// Reads a command in one of its two forms.
fn command(arguments: &Arguments) -> Command {
    match arguments {
        Arguments::Json(words) => Command::Exec(words.clone()),
        Arguments::Text(text) => Command::Shell(text.clone()),
        _ => Command::Shell(String::new()),
    }
}

/// Finds what a comment says about a name: it begins with the name, and the rest is the description.
fn description(comments: &[String], name: &str) -> Option<String> {
    let described = |comment: &String| Some(comment.strip_prefix(name)?.strip_prefix(' ')?.to_owned());
    comments.iter().find_map(described)
}
