// SPDX-License-Identifier: Apache-2.0
//! Why a text is not a Dockerfile: what is wrong, on which lines, and what was probably meant.

use crate::Span;
use crate::expand::ExpandError;
use crate::instruction::mount::MountError;
use crate::value::ValueError;

/// A Dockerfile that can't be read.
///
/// [`crate::render_excerpt`] shows the lines of [`ParseError::span`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("dockerfile parse error on line {}: {kind}{}", span.first_line, hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default())]
pub struct ParseError {
    /// What is wrong; part of the error's own text.
    pub kind: Box<ParseErrorKind>,
    /// Where.
    pub span: Span,
    /// What to do, for example `did you mean RUN?`.
    pub hint: Option<String>,
}

impl ParseError {
    pub(crate) fn new(kind: ParseErrorKind, span: Span) -> ParseError {
        ParseError { kind: Box::new(kind), span, hint: None }
    }

    pub(crate) fn with_hint(mut self, hint: Option<String>) -> ParseError {
        self.hint = hint;
        self
    }
}

/// What is wrong with a Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseErrorKind {
    /// The file has no instruction.
    #[error("file with no instructions")]
    Empty,
    /// The file has instructions but no FROM.
    #[error("dockerfile contains no stages to build: it has no FROM")]
    NoStages,
    /// The file is larger than is read.
    #[error("file of {size_bytes} bytes is larger than the {limit_bytes} bytes allowed")]
    TooLarge {
        /// The file's size.
        size_bytes: usize,
        /// The limit.
        limit_bytes: usize,
    },
    /// An instruction has bytes that are not UTF-8.
    #[error("text is not UTF-8")]
    NotUtf8,
    /// A directive stands twice.
    #[error("only one {name} parser directive can be used")]
    DirectiveRepeated {
        /// The directive.
        name: &'static str,
    },
    /// The escape directive has another value than `\` or a backtick.
    #[error("invalid escape token {value:?}, must be ` or \\")]
    EscapeToken {
        /// The rejected value.
        value: String,
    },
    /// No instruction has this name.
    #[error("unknown instruction: {keyword}")]
    UnknownInstruction {
        /// The word as written.
        keyword: String,
    },
    /// An instruction before the first FROM that is not ARG.
    #[error("{instruction} stands before the first FROM, where only ARG may")]
    BeforeFrom {
        /// The instruction.
        instruction: &'static str,
    },
    /// The instruction has no such flag.
    #[error("{instruction}: unknown flag: --{flag}")]
    UnknownFlag {
        /// The instruction.
        instruction: &'static str,
        /// The flag's name.
        flag: String,
    },
    /// A flag that may stand once stands twice.
    #[error("duplicate flag --{flag}")]
    DuplicateFlag {
        /// The flag's name.
        flag: String,
    },
    /// A flag needs a value and has none.
    #[error("missing value of flag --{flag}")]
    MissingFlagValue {
        /// The flag's name.
        flag: String,
    },
    /// A flag's value is not one of those allowed.
    #[error("invalid value {value:?} of flag --{flag}, must be {expected}")]
    FlagValue {
        /// The flag's name.
        flag: String,
        /// The rejected value.
        value: String,
        /// What may stand there.
        expected: &'static str,
    },
    /// `--from` of COPY holds a variable, but is not expanded.
    #[error(
        "variable expansion is not supported for --from, define a new stage with FROM using ARG from global scope as a \
         workaround"
    )]
    VariableInFrom,
    /// A key of a mount holds a variable, but is not expanded.
    #[error("{place} doesn't support variable expansion, define alias stage instead")]
    VariableNotExpanded {
        /// The key.
        place: &'static str,
    },
    /// Arguments are missing or too many.
    #[error("{instruction} requires {expected}")]
    Arguments {
        /// The instruction.
        instruction: &'static str,
        /// How many, or which, arguments it takes.
        expected: &'static str,
    },
    /// A word among `name=value` pairs has no `=`.
    #[error("{instruction}: can't find = in {word:?}, must be of the form name=value")]
    NotNameValue {
        /// The instruction.
        instruction: &'static str,
        /// The word.
        word: String,
    },
    /// A pair has an empty name.
    #[error("{instruction} names can not be blank")]
    BlankName {
        /// The instruction.
        instruction: &'static str,
    },
    /// A JSON array holds something else than strings.
    #[error("a JSON array of arguments may hold strings only")]
    JsonNotStrings,
    /// The instruction takes a JSON array only.
    #[error(
        "{instruction} requires its arguments in JSON form, for example {instruction} [\"/bin/sh\", \"-c\"]"
    )]
    JsonRequired {
        /// The instruction.
        instruction: &'static str,
    },
    /// The file ends within a heredoc.
    #[error("unterminated heredoc, no line is {name:?}")]
    UnterminatedHeredoc {
        /// The word that should end it.
        name: String,
    },
    /// A heredoc stands where a destination must.
    #[error("{instruction} cannot accept a heredoc as a destination")]
    HeredocDestination {
        /// The instruction.
        instruction: &'static str,
    },
    /// A heredoc's word is broken over several words.
    #[error("{instruction}: the word of a heredoc must follow << without blanks")]
    HeredocWord {
        /// The instruction.
        instruction: &'static str,
    },
    /// A heredoc's word has unbalanced quotes.
    #[error("word of a heredoc: {reason}")]
    HeredocQuotes {
        /// What is wrong with the word.
        reason: ExpandError,
    },
    /// A stage's name is malformed.
    #[error(
        "invalid stage name {name:?}, must begin with a letter and hold letters, digits, -, _ and . only"
    )]
    StageName {
        /// The rejected name.
        name: String,
    },
    /// ONBUILD holds an instruction that it may not hold.
    #[error("{trigger} isn't allowed as an ONBUILD trigger")]
    OnbuildTrigger {
        /// The instruction.
        trigger: String,
    },
    /// A trigger is not exactly one instruction.
    #[error("an ONBUILD trigger must be a single instruction")]
    OnbuildNotSingle,
    /// HEALTHCHECK is neither NONE nor CMD.
    #[error("unknown type {kind:?} of HEALTHCHECK, must be CMD or NONE")]
    HealthcheckType {
        /// The word as written.
        kind: String,
    },
    /// A mount is malformed.
    #[error("{0}")]
    Mount(MountError),
    /// A value is malformed.
    #[error("{0}")]
    Value(ValueError),
}
