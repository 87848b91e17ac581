// SPDX-License-Identifier: Apache-2.0
//! `check=skip=…;error=…;experimental=…`: which rules apply.

use std::collections::BTreeSet;

use super::Rule;

/// Which rules apply, and whether findings fail a build.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings {
    /// Rules left out.
    pub skipped: Choice,
    /// Experimental rules that apply.
    pub experimental: Choice,
    /// Whether findings fail a build.
    pub is_error: bool,
}

/// Some rules, or all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Choice {
    is_all: bool,
    names: BTreeSet<String>,
}

/// Says why a text is no setting of checks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// A part that is no `name=value`, or has another name.
    #[error("invalid check option {option:?}")]
    Option {
        /// The part.
        option: String,
    },
    /// A part whose value is neither true nor false.
    #[error("failed to parse check option {option:?}: must be true or false")]
    Boolean {
        /// The part.
        option: String,
    },
}

impl Choice {
    fn parse(text: &str) -> Choice {
        match text.trim() {
            "all" => Choice { is_all: true, names: BTreeSet::new() },
            text => {
                Choice { is_all: false, names: text.split(',').map(|name| name.trim().to_owned()).collect() }
            }
        }
    }

    fn has(&self, rule: &Rule) -> bool {
        self.is_all || self.names.contains(rule.name)
    }

    fn extend(&mut self, other: Choice) {
        self.is_all |= other.is_all;
        self.names.extend(other.names);
    }
}

impl Settings {
    /// Reads the value of a check directive; nothing gives the usual settings.
    ///
    /// # Errors
    /// An option that does not exist, or a value that it does not take.
    pub fn parse(text: &str) -> Result<Settings, SettingsError> {
        let mut settings = Settings::default();
        let text = text.trim();
        if text.is_empty() {
            return Ok(settings);
        }
        // As BuildKit: three parts, and what follows belongs to the third.
        for part in text.splitn(3, ';') {
            let invalid = |option: &str| SettingsError::Option { option: option.to_owned() };
            let (name, value) = part.split_once('=').ok_or_else(|| invalid(part))?;
            match name.trim() {
                "skip" => settings.skipped = Choice::parse(value),
                "experimental" => settings.experimental = Choice::parse(value),
                "error" => {
                    settings.is_error = crate::value::go_bool(value.trim())
                        .ok_or_else(|| SettingsError::Boolean { option: part.to_owned() })?;
                }
                other => return Err(invalid(other)),
            }
        }
        Ok(settings)
    }

    /// Tells whether a rule applies.
    pub fn applies(&self, rule: &Rule) -> bool {
        if rule.is_experimental { self.experimental.has(rule) } else { !self.skipped.has(rule) }
    }

    /// Returns the settings for one instruction: the first `check=` among the comments above it adds to them.
    /// What follows a blank explains, and a text that is no setting is an ordinary comment.
    pub(super) fn narrowed(&self, comments: &[String]) -> Settings {
        let value = |comment: &String| {
            let (name, value) = comment.split_once('=')?;
            let value = value.trim();
            (name.trim().eq_ignore_ascii_case("check") && !value.is_empty())
                .then(|| value.split(' ').next().unwrap_or_default().to_owned())
        };
        let mut settings = self.clone();
        if let Some(value) = comments.iter().find_map(value)
            && let Ok(own) = Settings::parse(&value)
        {
            settings.skipped.extend(own.skipped);
            settings.experimental.extend(own.experimental);
        }
        settings
    }
}

#[cfg(test)]
mod tests {
    use super::super::rule;
    use super::*;

    #[test]
    fn values() {
        let settings =
            Settings::parse(" skip=UndefinedVar, FromAsCasing ;error=true; experimental=all").unwrap();
        assert!(settings.is_error);
        assert!(!settings.applies(&rule::UNDEFINED_VAR));
        assert!(!settings.applies(&rule::FROM_AS_CASING));
        assert!(settings.applies(&rule::STAGE_NAME_CASING));
        assert!(settings.applies(&rule::INVALID_DEFINITION_DESCRIPTION));
        let all = Settings::parse("skip=all").unwrap();
        assert!(!all.applies(&rule::STAGE_NAME_CASING));
        assert_eq!(Settings::parse("").unwrap(), Settings::default());
        for text in ["skip", "warn=1", "error=perhaps"] {
            assert!(Settings::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_comment_adds_to_the_settings_of_the_file() {
        let settings = Settings::parse("skip=UndefinedVar").unwrap();
        let narrowed = |comment: &str| settings.narrowed(&["about".to_owned(), comment.to_owned()]);
        let both = narrowed("check=skip=FromAsCasing // the reason");
        assert!(!both.applies(&rule::UNDEFINED_VAR) && !both.applies(&rule::FROM_AS_CASING));
        assert!(both.applies(&rule::STAGE_NAME_CASING));
        assert!(!narrowed("Check = skip=all").applies(&rule::STAGE_NAME_CASING));
        assert_eq!(narrowed("check=nonsense"), settings);
        assert!(!narrowed("check=error=true").is_error);
    }
}
