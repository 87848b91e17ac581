// SPDX-License-Identifier: Apache-2.0
//! Dockerfile text becomes stages of instructions.
//!
//! The way of the text: [`Ast::parse`] cuts bytes into logical lines (directives, comments,
//! continuations, heredocs, flags, JSON form), [`Dockerfile::parse`] makes typed [`Instruction`]s of them
//! and gathers these in [`Stage`]s. Words stay as they were written; [`Instruction::expand`] replaces the
//! variables in exactly those fields where the builder does it, with an [`Expander`] over the values that
//! the step sees. Beside that stand the `.dockerignore` rules ([`IgnoreRules`]), the wildcards of COPY
//! sources ([`Pattern`]) and the small values that flags carry ([`value`]).
//!
//! This room is pure: no disk, no network, no clock, no environment. The language is that of BuildKit's
//! Dockerfile frontend 1.26.

pub mod ast;
mod csv;
pub mod directive;
pub mod error;
pub mod excerpt;
pub mod expand;
mod flags;
mod glob;
pub mod heredoc;
pub mod ignore;
pub mod instruction;
mod line;
pub mod lint;
pub mod outline;
mod path;
pub mod pattern;
pub mod span;
pub mod stage;
mod suggest;
pub mod survey;
pub mod value;

pub use ast::{Ast, Node};
pub use csv::CsvError;
pub use directive::{Directive, DirectiveName, Syntax, detect_syntax};
pub use error::{ParseError, ParseErrorKind};
pub use excerpt::render_excerpt;
pub use expand::{Environment, ExpandError, Expander, Lookup};
pub use heredoc::Heredoc;
pub use ignore::{IgnoreError, IgnoreRules, IgnoreState};
pub use instruction::{Instruction, InstructionKind};
pub use lint::{Finding, Rule};
pub use outline::Outline;
pub use pattern::{Pattern, PatternError};
pub use span::Span;
pub use stage::{Dockerfile, From, Stage, StageReference};
pub use suggest::nearest_exact;
pub use survey::{BaseImage, Survey, SurveyRequest, survey};
