// SPDX-License-Identifier: Apache-2.0
//! What is not wrong in a Dockerfile, but probably not meant: rules as data, and what they found.
//!
//! The rules, their names and sentences are those of BuildKit's frontend 1.26, because scripts and editors
//! match on them; to these come a few of our own, for images of many platforms, in a namespace of their own.
//! `# check=` at the top of the file and the build argument [`CHECK_ARG`] choose among them, a `# check=`
//! comment above an instruction leaves some out for it.
//!
//! What the lines alone show is found here, what depends on variables and bases by [`mod@crate::survey`].

mod platforms;
mod rules;
mod settings;
mod syntax;

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

pub use rules::{RULES, Rule};
pub use settings::{Settings, SettingsError};

pub(crate) use platforms::{Surroundings, check_base, check_stage};
pub(crate) use syntax::{check_lines, check_names};
pub(crate) mod rule {
    pub(crate) use super::rules::*;
}

use crate::{Directive, DirectiveName, Span};

/// The build argument whose value stands for the directive `# check=`.
pub const CHECK_ARG: &str = "BUILDKIT_DOCKERFILE_CHECK";

/// The most findings that are kept: a file that breaks rules everywhere needs no complete list.
const MAX_FINDINGS: usize = 1000;

/// Something that a rule found.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// The rule.
    pub rule: &'static Rule,
    /// What is so in this place, one sentence.
    pub detail: String,
    /// The lines, counted from 1.
    pub lines: RangeInclusive<u32>,
    /// The lines as they could be instead.
    pub mended: Option<String>,
}

impl Finding {
    /// Returns rule, sentence and line in one line, as builds show it.
    pub fn short(&self) -> String {
        format!("{}: {} (line {})", self.rule.name, self.detail, self.lines.start())
    }
}

/// Collects findings by the settings of a file.
#[derive(Debug, Default)]
pub(crate) struct Linter {
    settings: Settings,
    with_own_rules: bool,
    findings: Vec<Finding>,
}

impl Linter {
    /// Makes a collector; what the build argument says stands for what the file says.
    pub(crate) fn new(
        directives: &[Directive],
        argument: Option<&str>,
        with_own_rules: bool,
    ) -> Result<Linter, SettingsError> {
        let directive = directives.iter().find(|directive| directive.name == DirectiveName::Check);
        let text = argument.or(directive.map(|directive| directive.value.as_str()));
        let settings = Settings::parse(text.unwrap_or_default())?;
        Ok(Linter { settings, with_own_rules, findings: Vec::new() })
    }

    /// Takes a finding, unless its rule is left out: for the file, or by a comment above the instruction.
    pub(crate) fn report(&mut self, rule: &'static Rule, comments: &[String], span: Span, detail: String) {
        self.report_mended(rule, comments, span, detail, None);
    }

    pub(crate) fn report_mended(
        &mut self,
        rule: &'static Rule,
        comments: &[String],
        span: Span,
        detail: String,
        mended: Option<String>,
    ) {
        let applies = self.settings.narrowed(comments).applies(rule) && (self.with_own_rules || !rule.is_own);
        if applies && self.findings.len() < MAX_FINDINGS {
            self.findings.push(Finding { rule, detail, lines: span.lines(), mended });
        }
    }

    /// Returns what was found, and the sentence that fails the build when findings shall.
    pub(crate) fn finish(self) -> (Vec<Finding>, Option<String>) {
        let broken: BTreeSet<&str> = self.findings.iter().map(|finding| finding.rule.name).collect();
        let violation = (self.settings.is_error && !broken.is_empty()).then(|| {
            let names: Vec<&str> = broken.into_iter().collect();
            format!("lint violation found for rules: {}", names.join(", "))
        });
        (self.findings, violation)
    }
}
