// SPDX-License-Identifier: Apache-2.0
//! Source policies: rules that say which images, repositories, URLs and directories a build may read, and what
//! it reads instead.
//!
//! Rules and their order mean what they mean to BuildKit. Of a policy the last ALLOW or DENY that matches
//! counts; a CONVERT that changes something is followed at once, and what it leads to is judged from the
//! beginning.

use std::collections::BTreeMap;
use std::sync::Arc;

use regex::{Regex, RegexBuilder};
use serde::{Deserialize, Deserializer};

use crate::distant::{Distant, DistantDirectories};
use crate::error::{BuildError, ErrorKind};

/// The most rules of all policies of a build.
const MAX_RULES: usize = 4096;
/// The largest expression that a rule may become, in bytes.
const MAX_EXPRESSION_BYTES: usize = 1 << 20;
/// How often one source may be changed.
const MAX_CONVERSIONS: usize = 20;

/// What a build may read.
#[derive(Debug, Clone, Default)]
pub struct SourcePolicies {
    given: Vec<SourcePolicy>,
    policies: Vec<Vec<CompiledRule>>,
    directories: Option<Arc<dyn DistantDirectories>>,
}

/// A list of rules, as files have it in JSON.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct SourcePolicy {
    /// The rules, in order.
    #[serde(default)]
    pub rules: Vec<Rule>,
}

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Rule {
    /// What it does with the sources that it is about.
    #[serde(default)]
    pub action: Action,
    /// Which those are.
    pub selector: Selector,
    /// What becomes of them, where they are changed.
    #[serde(default)]
    pub updates: Option<Update>,
}

/// What a rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Action {
    /// Takes a denial back.
    #[default]
    Allow,
    /// Denies.
    Deny,
    /// Names another source instead.
    Convert,
}

/// Which sources a rule is about.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Selector {
    /// The source, such as `docker-image://docker.io/library/alpine:*`.
    pub identifier: String,
    /// How it is compared.
    #[serde(default, alias = "matchType")]
    pub match_type: MatchType,
    /// What else must hold.
    #[serde(default)]
    pub constraints: Vec<Constraint>,
}

/// How a source is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MatchType {
    /// `*` stands for anything.
    #[default]
    Wildcard,
    /// It is the same.
    Exact,
    /// It is a regular expression, which may match a part.
    Regex,
}

/// A condition on an attribute of a source; one that is not there is empty.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Constraint {
    /// The attribute.
    pub key: String,
    /// What it is compared with.
    #[serde(default)]
    pub value: String,
    /// How.
    #[serde(default)]
    pub condition: Condition,
}

/// How an attribute is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Condition {
    /// It is the same.
    #[default]
    Equal,
    /// It is something else.
    NotEqual,
    /// It is a regular expression.
    Matches,
}

/// What becomes of a source.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Update {
    /// The other source, in which `$1` is what the first `*` stood for; empty keeps it.
    #[serde(default)]
    pub identifier: String,
    /// Attributes that it gets.
    #[serde(default)]
    pub attrs: BTreeMap<String, String>,
}

/// A word of a policy, which files may also write as the number that the protocol has for it.
trait Word: Copy + 'static {
    /// The words, in the order of their numbers.
    const WORDS: &'static [(&'static str, Self)];

    fn of_number(number: i64) -> Option<Self> {
        Some(Self::WORDS.get(usize::try_from(number).ok()?)?.1)
    }

    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(i64),
            Word(String),
        }
        let written = Written::deserialize(deserializer)?;
        let found = match &written {
            Written::Number(number) => Self::of_number(*number),
            Written::Word(word) => Self::WORDS.iter().find(|(known, _)| known == word).map(|(_, it)| *it),
        };
        found.ok_or_else(|| {
            let words: Vec<&str> = Self::WORDS.iter().map(|(word, _)| *word).collect();
            serde::de::Error::custom(format!("expected one of {}", words.join(", ")))
        })
    }
}

impl Word for Action {
    const WORDS: &'static [(&'static str, Action)] =
        &[("ALLOW", Action::Allow), ("DENY", Action::Deny), ("CONVERT", Action::Convert)];
}

impl Word for MatchType {
    const WORDS: &'static [(&'static str, MatchType)] =
        &[("WILDCARD", MatchType::Wildcard), ("EXACT", MatchType::Exact), ("REGEX", MatchType::Regex)];
}

impl Word for Condition {
    const WORDS: &'static [(&'static str, Condition)] =
        &[("EQUAL", Condition::Equal), ("NOTEQUAL", Condition::NotEqual), ("MATCHES", Condition::Matches)];
}

macro_rules! read_as_word {
    ($($name:ty),*) => {$(
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<$name, D::Error> {
                Word::read(deserializer)
            }
        }

        impl $name {
            /// Returns what the protocol means by a number.
            pub fn of_protocol(number: i32) -> Option<$name> {
                Word::of_number(number.into())
            }

            /// Returns the number that the protocol has for it.
            pub fn number(self) -> i32 {
                let at = Self::WORDS.iter().position(|(_, word)| *word == self);
                at.and_then(|at| i32::try_from(at).ok()).unwrap_or_default()
            }
        }
    )*};
}

read_as_word!(Action, MatchType, Condition);

/// A source as rules judge it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicySource {
    /// Its identifier with a scheme.
    pub identifier: String,
    /// Its attributes.
    pub attributes: BTreeMap<String, String>,
}

/// A rule, ready to be asked.
#[derive(Debug, Clone)]
struct CompiledRule {
    action: Action,
    identifier: String,
    /// `None` matches the identifier only.
    expression: Option<Regex>,
    is_wildcard: bool,
    constraints: Vec<(Constraint, Option<Regex>)>,
    updates: Option<Update>,
}

impl SourcePolicies {
    /// Takes policies in the order in which they are asked; the first that changes or denies a source decides.
    ///
    /// # Errors
    /// When a rule makes no sense.
    pub fn new(policies: &[SourcePolicy]) -> Result<SourcePolicies, BuildError> {
        if policies.iter().map(|policy| policy.rules.len()).sum::<usize>() > MAX_RULES {
            return Err(wrong(format!("policies have at most {MAX_RULES} rules")));
        }
        let compile = |policy: &SourcePolicy| policy.rules.iter().map(CompiledRule::new).collect();
        let compiled = policies.iter().map(compile).collect::<Result<_, BuildError>>()?;
        Ok(SourcePolicies { given: policies.to_vec(), policies: compiled, directories: None })
    }

    /// Reads a policy in JSON.
    ///
    /// # Errors
    /// When it is none, or a rule makes no sense.
    pub fn parse(json: &[u8]) -> Result<SourcePolicies, BuildError> {
        let policy: SourcePolicy = serde_json::from_slice(json).map_err(|error| {
            BuildError::from_source(ErrorKind::Usage, "failed to parse source policy", &error).with_hint(
                "it is of the form {\"rules\": [{\"action\": \"DENY\", \"selector\": {\"identifier\": …}}]}",
            )
        })?;
        SourcePolicies::new(&[policy])
    }

    /// Returns the policy as it was given; `None` when there is none.
    pub fn given(&self) -> Option<SourcePolicy> {
        match self.given.as_slice() {
            [] => None,
            policies => {
                let rules = policies.iter().flat_map(|policy| &policy.rules).cloned();
                Some(SourcePolicy { rules: rules.collect() })
            }
        }
    }

    /// Says where directories are that rules name instead of other sources, as `local://NAME`.
    #[must_use]
    pub fn with_directories(mut self, directories: Arc<dyn DistantDirectories>) -> SourcePolicies {
        self.directories = Some(directories);
        self
    }

    /// Returns the directory of a name, which people read of as `label`.
    pub(crate) fn directory(&self, name: &str, label: &str) -> Option<Distant> {
        self.directories.as_ref().map(|directories| directories.directory(name, label))
    }

    /// Tells whether every source may be read as it is.
    pub fn is_empty(&self) -> bool {
        self.policies.iter().all(Vec::is_empty)
    }

    /// Returns what is read in the place of a source; `None` when that is the source itself.
    ///
    /// # Errors
    /// When it is denied, or changed without end.
    pub fn evaluate(&self, source: &PolicySource) -> Result<Option<PolicySource>, BuildError> {
        let mut current = source.clone();
        for _ in 0..=MAX_CONVERSIONS {
            match self.evaluate_once(&current)? {
                Some(next) => current = next,
                None => return Ok((current != *source).then_some(current)),
            }
        }
        let message = format!("too many mutations on a single source: {}", source.identifier);
        Err(BuildError::new(ErrorKind::Usage, message)
            .with_hint("rules of the source policy convert in a circle"))
    }

    fn evaluate_once(&self, source: &PolicySource) -> Result<Option<PolicySource>, BuildError> {
        for policy in &self.policies {
            let mut is_denied = false;
            for rule in policy.iter().filter(|rule| rule.matches(source)) {
                match rule.action {
                    Action::Allow => is_denied = false,
                    Action::Deny => is_denied = true,
                    Action::Convert => {
                        let converted = rule.convert(source);
                        if converted != *source {
                            return Ok(Some(converted));
                        }
                    }
                }
            }
            if is_denied {
                let message =
                    format!("source {:?} denied by policy: source denied by policy", source.identifier);
                return Err(BuildError::new(ErrorKind::Usage, message)
                    .with_hint("a rule of the build's source policy forbids it; name another source"));
            }
        }
        Ok(None)
    }
}

impl CompiledRule {
    fn new(rule: &Rule) -> Result<CompiledRule, BuildError> {
        let Selector { identifier, match_type, constraints } = &rule.selector;
        if rule.action == Action::Convert && rule.updates.is_none() {
            return Err(wrong(format!("missing destination for convert rule of {identifier}")));
        }
        let expression = match match_type {
            MatchType::Exact => None,
            MatchType::Regex => Some(compile(identifier)?),
            MatchType::Wildcard if identifier.contains("**") => {
                return Err(wrong(format!("{identifier}: invalid wildcard: \"**\"")));
            }
            MatchType::Wildcard => {
                let escaped = regex::escape(identifier).replace("\\*", "(.*)");
                Some(compile(&format!("^{escaped}$"))?)
            }
        };
        let constraints = constraints.iter().map(|constraint| {
            let expression = match constraint.condition {
                Condition::Matches => Some(compile(&constraint.value)?),
                Condition::Equal | Condition::NotEqual => None,
            };
            Ok((constraint.clone(), expression))
        });
        Ok(CompiledRule {
            action: rule.action,
            identifier: identifier.clone(),
            expression,
            is_wildcard: *match_type == MatchType::Wildcard,
            constraints: constraints.collect::<Result<_, BuildError>>()?,
            updates: rule.updates.clone(),
        })
    }

    fn matches(&self, source: &PolicySource) -> bool {
        let holds = |(constraint, expression): &(Constraint, Option<Regex>)| {
            let value = source.attributes.get(&constraint.key).map_or("", String::as_str);
            match (constraint.condition, expression) {
                (Condition::Matches, Some(expression)) => expression.is_match(value),
                (Condition::NotEqual, _) => value != constraint.value,
                (Condition::Equal | Condition::Matches, _) => value == constraint.value,
            }
        };
        self.constraints.iter().all(holds)
            && (self.identifier == source.identifier
                || self.expression.as_ref().is_some_and(|it| it.is_match(&source.identifier)))
    }

    fn convert(&self, source: &PolicySource) -> PolicySource {
        let mut converted = source.clone();
        let Some(updates) = &self.updates else { return converted };
        let template = if updates.identifier.is_empty() { &self.identifier } else { &updates.identifier };
        let identifier = match &self.expression {
            None => template.clone(),
            Some(expression) if self.is_wildcard => {
                let mut expanded = String::new();
                match expression.captures(&source.identifier) {
                    Some(captures) => captures.expand(template, &mut expanded),
                    None => expanded.clone_from(&source.identifier),
                }
                expanded
            }
            Some(expression) => expression.replace_all(&source.identifier, template.as_str()).into_owned(),
        };
        if !identifier.is_empty() {
            converted.identifier = identifier;
        }
        converted.attributes.extend(updates.attrs.clone());
        converted
    }
}

fn compile(expression: &str) -> Result<Regex, BuildError> {
    RegexBuilder::new(expression).size_limit(MAX_EXPRESSION_BYTES).build().map_err(|error| {
        BuildError::from_source(
            ErrorKind::Usage,
            format!("source policy: invalid regex {expression:?}"),
            &error,
        )
    })
}

fn wrong(problem: String) -> BuildError {
    BuildError::new(ErrorKind::Usage, format!("source policy: {problem}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(rules: &str, identifier: &str, attributes: &[(&str, &str)]) -> Result<Option<String>, String> {
        let policies = SourcePolicies::parse(format!("{{\"rules\": [{rules}]}}").as_bytes()).unwrap();
        let attributes = attributes.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let source = PolicySource { identifier: identifier.to_owned(), attributes: attributes.collect() };
        let judged = policies.evaluate(&source).map_err(|error| error.message)?;
        Ok(judged.map(|it| {
            let attributes: Vec<String> =
                it.attributes.iter().map(|(key, value)| format!(" {key}={value}")).collect();
            format!("{}{}", it.identifier, attributes.concat())
        }))
    }

    const ALPINE: &str = "docker-image://docker.io/library/alpine:latest";

    #[test]
    fn the_last_rule_that_matches_allows_or_denies() {
        let all = r#"{"action": "DENY", "selector": {"identifier": "docker-image://*"}}"#;
        let one = format!(
            r#"{{"action": "ALLOW", "selector": {{"identifier": "{ALPINE}", "match_type": "EXACT"}}}}"#
        );
        assert!(judge(all, ALPINE, &[]).unwrap_err().contains("denied by policy"));
        assert_eq!(judge(&format!("{all}, {one}"), ALPINE, &[]), Ok(None));
        assert!(judge(&format!("{one}, {all}"), ALPINE, &[]).is_err());
        assert_eq!(judge(all, "https://example.com/a", &[]), Ok(None));
    }

    #[test]
    fn sources_are_changed_and_judged_again() {
        let convert = |from: &str, kind: &str, to: &str| {
            format!(
                r#"{{"action": "CONVERT", "selector": {{"identifier": "{from}", "matchType": "{kind}"}},
                    "updates": {{"identifier": "{to}"}}}}"#
            )
        };
        let library = "docker-image://docker.io/library";
        let mirror =
            convert(&format!("{library}/*:*"), "WILDCARD", "docker-image://mirror.example/$1:${2}-x");
        let expected = "docker-image://mirror.example/alpine:latest-x";
        assert_eq!(judge(&mirror, ALPINE, &[]), Ok(Some(expected.to_owned())));
        let regex = convert("alpine", "REGEX", "busybox");
        assert_eq!(judge(&regex, ALPINE, &[]), Ok(Some(format!("{library}/busybox:latest"))));
        let deny = r#"{"action": 1, "selector": {"identifier": "docker-image://mirror.example/*"}}"#;
        assert!(judge(&format!("{mirror}, {deny}"), ALPINE, &[]).is_err());
        let there = convert("a://1", "EXACT", "a://2");
        let back = convert("a://2", "EXACT", "a://1");
        assert!(judge(&format!("{there}, {back}"), "a://1", &[]).unwrap_err().contains("too many mutations"));
    }

    #[test]
    fn attributes_are_conditions_and_are_set() {
        let rule = |condition: &str, value: &str| {
            format!(
                r#"{{"action": "CONVERT", "selector": {{"identifier": "https://a/b", "constraints":
                    [{{"key": "http.checksum", "value": "{value}", "condition": "{condition}"}}]}},
                    "updates": {{"attrs": {{"http.checksum": "sha256:c"}}}}}}"#
            )
        };
        let (url, changed) = ("https://a/b", Some("https://a/b http.checksum=sha256:c".to_owned()));
        assert_eq!(judge(&rule("EQUAL", ""), url, &[]), Ok(changed.clone()));
        assert_eq!(judge(&rule("EQUAL", "x"), url, &[]), Ok(None));
        assert_eq!(judge(&rule("NOTEQUAL", "x"), url, &[("http.checksum", "x")]), Ok(None));
        assert_eq!(judge(&rule("MATCHES", "^sha512:"), url, &[("http.checksum", "sha512:a")]), Ok(changed));
    }

    #[test]
    fn rules_that_make_no_sense_are_refused() {
        for rule in [
            r#"{"action": "CONVERT", "selector": {"identifier": "a"}}"#,
            r#"{"action": "DENY", "selector": {"identifier": "a**"}}"#,
            r#"{"action": "DENY", "selector": {"identifier": "(", "match_type": "REGEX"}}"#,
            r#"{"action": "BURN", "selector": {"identifier": "a"}}"#,
            r#"{"action": 7, "selector": {"identifier": "a"}}"#,
            r#"{"action": "DENY"}"#,
        ] {
            assert!(SourcePolicies::parse(format!("{{\"rules\": [{rule}]}}").as_bytes()).is_err(), "{rule}");
        }
        assert!(SourcePolicies::parse(b"no").is_err());
        assert!(SourcePolicies::parse(b"{}").unwrap().is_empty());
    }
}
