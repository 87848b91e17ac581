// SPDX-License-Identifier: Apache-2.0
//! From syntax tree to typed instructions and stages.

use super::command::{Expose, Healthcheck, Onbuild, Volume};
use super::copy::{Add, Copy, Source};
use super::mount::Mount;
use super::pairs::{Arg, ArgDefinition, Env, Label, Pair};
use super::run::{Device, Network, Run, Security};
use super::{Command, Instruction, InstructionKind, NAMES};
use crate::ast::{Arguments, Node};
use crate::flags::{FlagKind, Flags};
use crate::suggest::nearest;
use crate::value::{ValueError, duration, go_bool};
use crate::{
    Ast, Dockerfile, Environment, Expander, From, Heredoc, ParseError, ParseErrorKind, Span, Stage, csv,
    heredoc,
};

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

const COPY_FLAGS: &[(&str, FlagKind)] = &[
    ("from", FlagKind::Text),
    ("chown", FlagKind::Text),
    ("chmod", FlagKind::Text),
    ("link", FlagKind::Boolean),
    ("parents", FlagKind::Boolean),
    ("exclude", FlagKind::Texts),
];

const ADD_FLAGS: &[(&str, FlagKind)] = &[
    ("chown", FlagKind::Text),
    ("chmod", FlagKind::Text),
    ("link", FlagKind::Boolean),
    ("exclude", FlagKind::Texts),
    ("checksum", FlagKind::Text),
    ("keep-git-dir", FlagKind::Boolean),
    ("unpack", FlagKind::Boolean),
];

const RUN_FLAGS: &[(&str, FlagKind)] = &[
    ("mount", FlagKind::Texts),
    ("network", FlagKind::Text),
    ("security", FlagKind::Text),
    ("device", FlagKind::Texts),
];

const HEALTHCHECK_FLAGS: &[(&str, FlagKind)] = &[
    ("interval", FlagKind::Text),
    ("timeout", FlagKind::Text),
    ("start-period", FlagKind::Text),
    ("start-interval", FlagKind::Text),
    ("retries", FlagKind::Text),
];

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

    fn copy(&self) -> Result<Copy, ParseError> {
        let flags = self.flags(COPY_FLAGS)?;
        let (sources, destination) = self.sources_and_destination()?;
        let from = flags.text("from");
        if let Some(from) = &from
            && Expander::new(&Environment::new(), '\\').word(from).ok().as_ref() != Some(from)
        {
            return Err(self.not_expanded("--from"));
        }
        Ok(Copy {
            sources,
            destination,
            from,
            chown: flags.text("chown"),
            chmod: flags.text("chmod"),
            link: flags.boolean("link").unwrap_or(false),
            parents: flags.boolean("parents").unwrap_or(false),
            exclude: flags.texts("exclude"),
        })
    }

    fn add(&self) -> Result<Add, ParseError> {
        let flags = self.flags(ADD_FLAGS)?;
        let (sources, destination) = self.sources_and_destination()?;
        Ok(Add {
            sources,
            destination,
            chown: flags.text("chown"),
            chmod: flags.text("chmod"),
            link: flags.boolean("link").unwrap_or(false),
            exclude: flags.texts("exclude"),
            checksum: flags.text("checksum"),
            keep_git_dir: flags.boolean("keep-git-dir"),
            unpack: flags.boolean("unpack"),
        })
    }

    fn not_expanded(&self, place: &'static str) -> ParseError {
        let hint = "name a stage with FROM image AS name, where variables are expanded, and use its name";
        self.error(ParseErrorKind::VariableNotExpanded { place }).with_hint(Some(hint.to_owned()))
    }

    fn sources_and_destination(&self) -> Result<(Vec<Source>, String), ParseError> {
        let [words @ .., destination] = self.words() else {
            return Err(self.missing("at least two arguments: source… destination"));
        };
        if words.is_empty() {
            return Err(self.missing("at least two arguments, the last of which is the destination"));
        }
        if matches!(self.node.arguments, Arguments::Json(_)) {
            return Ok((words.iter().cloned().map(Source::Path).collect(), destination.clone()));
        }
        if heredoc::is_only_heredoc(destination) {
            return Err(self.error(ParseErrorKind::HeredocDestination { instruction: self.name }));
        }
        let mut heredocs = self.node.heredocs.iter();
        let mut sources = Vec::with_capacity(words.len());
        for word in words {
            sources.push(match heredoc::is_only_heredoc(word) {
                true => Source::Heredoc(self.inline_file(heredocs.next())?),
                false => Source::Path(word.clone()),
            });
        }
        match heredocs.next() {
            Some(_) => Err(self.error(ParseErrorKind::HeredocWord { instruction: self.name })),
            None => Ok((sources, destination.clone())),
        }
    }

    /// Turns a heredoc into a file: what `<<-` drops is dropped now.
    fn inline_file(&self, heredoc: Option<&Heredoc>) -> Result<Heredoc, ParseError> {
        let word = || self.error(ParseErrorKind::HeredocWord { instruction: self.name });
        let heredoc = heredoc.ok_or_else(word)?;
        Ok(Heredoc { content: heredoc.text(), strip_tabs: false, ..heredoc.clone() })
    }

    fn run(&self) -> Result<Run, ParseError> {
        let flags = self.flags(RUN_FLAGS)?;
        let command = command(&self.node.arguments);
        if matches!(&command, Command::Exec(arguments) if arguments.is_empty())
            || matches!(&command, Command::Shell(text) if text.is_empty())
        {
            return Err(self.missing("a command"));
        }
        let value = |flag: &str, value: String, expected| {
            self.error(ParseErrorKind::FlagValue { flag: flag.to_owned(), value, expected })
        };
        let network = match flags.texts("network").pop() {
            None => Network::Default,
            Some(mode) => match mode.as_str() {
                "default" => Network::Default,
                "none" => Network::None,
                "host" => Network::Host,
                _ => return Err(value("network", mode, "default, none or host")),
            },
        };
        let security = match flags.texts("security").pop() {
            None => Security::Sandbox,
            Some(mode) => match mode.as_str() {
                "sandbox" => Security::Sandbox,
                "insecure" => Security::Insecure,
                _ => return Err(value("security", mode, "sandbox or insecure")),
            },
        };
        let mut mounts = Vec::new();
        for text in flags.texts("mount") {
            mounts.push(self.mount(&text)?);
        }
        let mut devices = Vec::new();
        for text in flags.texts("device") {
            let device = device(&text).ok_or_else(|| value("device", text, "name[,required]"))?;
            devices.push(device);
        }
        Ok(Run { command, heredocs: self.node.heredocs.clone(), mounts, network, security, devices })
    }

    fn mount(&self, text: &str) -> Result<Mount, ParseError> {
        let mount = Mount::parse(text).map_err(|error| self.error(ParseErrorKind::Mount(error)))?;
        // A `$` at the very end is no variable.
        let has_variable = |from: &str| from.find('$').is_some_and(|at| at + 1 < from.len());
        if mount.fields.iter().any(|(key, value)| key == "from" && value.as_deref().is_some_and(has_variable))
        {
            return Err(self.not_expanded("from= of --mount"));
        }
        Ok(mount)
    }

    fn healthcheck(&self) -> Result<Healthcheck, ParseError> {
        let flags = self.flags(HEALTHCHECK_FLAGS)?;
        let Arguments::Typed(kind, rest) = &self.node.arguments else {
            return Err(self.missing("at least one argument: NONE or CMD command"));
        };
        match kind.to_ascii_uppercase().as_str() {
            "NONE" if matches!(**rest, Arguments::None) => Ok(Healthcheck::None),
            "NONE" => Err(self.missing("no arguments after NONE")),
            "CMD" => {
                let command = command(rest);
                if matches!(&command, Command::Exec(arguments) if arguments.is_empty())
                    || matches!(**rest, Arguments::None)
                {
                    return Err(self.missing("a command after CMD"));
                }
                Ok(Healthcheck::Command {
                    command,
                    interval_nanoseconds: self.interval(&flags, "interval")?,
                    timeout_nanoseconds: self.interval(&flags, "timeout")?,
                    start_period_nanoseconds: self.interval(&flags, "start-period")?,
                    start_interval_nanoseconds: self.interval(&flags, "start-interval")?,
                    retries: self.retries(&flags)?,
                })
            }
            _ => Err(self.error(ParseErrorKind::HealthcheckType { kind: kind.clone() })),
        }
    }

    /// Reads a duration; 0 and none mean inherited, anything else is at least a millisecond.
    fn interval(&self, flags: &Flags, name: &'static str) -> Result<i64, ParseError> {
        let Some(text) = flags.text(name) else { return Ok(0) };
        let nanoseconds = duration::parse(&text).map_err(|error| self.error(ParseErrorKind::Value(error)))?;
        if nanoseconds != 0 && nanoseconds < 1_000_000 {
            return Err(self.error(ParseErrorKind::Value(ValueError::ShortInterval { name, text })));
        }
        Ok(nanoseconds)
    }

    fn retries(&self, flags: &Flags) -> Result<u32, ParseError> {
        let Some(text) = flags.text("retries") else { return Ok(0) };
        match text.parse::<i32>().ok().and_then(|number| u32::try_from(number).ok()) {
            Some(number) => Ok(number),
            None => Err(self.error(ParseErrorKind::Value(ValueError::Number { text }))),
        }
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

/// Reads `name[,required[=bool]]` or `name=…,required`.
fn device(text: &str) -> Option<Device> {
    let mut device = Device { name: String::new(), required: false };
    for field in csv::fields(text).ok()? {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key.to_lowercase(), Some(value)),
            None => (field.to_lowercase(), None),
        };
        match (key.as_str(), value) {
            ("required", None) => device.required = true,
            ("required", Some(value)) => device.required = go_bool(value)?,
            ("name", Some(name)) if device.name.is_empty() => device.name = name.to_owned(),
            // A device's own name may hold a `=`: vendor/class=name.
            _ if device.name.is_empty() => device.name = field,
            _ => return None,
        }
    }
    Some(device)
}

/// Finds what a comment says about a name: it begins with the name, and the rest is the description.
fn description(comments: &[String], name: &str) -> Option<String> {
    let described = |comment: &String| Some(comment.strip_prefix(name)?.strip_prefix(' ')?.to_owned());
    comments.iter().find_map(described)
}
