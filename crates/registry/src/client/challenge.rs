// SPDX-License-Identifier: Apache-2.0
//! `WWW-Authenticate` challenges (RFC 9110, section 11) and the scopes of registry tokens.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use url::Url;

/// The most characters of challenges that are looked at.
const MAX_CHALLENGE_CHARS: usize = 8 << 10;

/// How a registry wants to be convinced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    /// User and password with each request.
    Basic,
    /// A token from a token server.
    Bearer {
        /// The token server.
        realm: Url,
        /// What to call the registry there.
        service: Option<String>,
        /// What the token must permit.
        scopes: Scopes,
    },
}

impl Challenge {
    /// Chooses among all challenges of an answer: a token before a password. `None`: none is known.
    pub(super) fn choose<'a>(headers: impl Iterator<Item = &'a str>) -> Option<Challenge> {
        let mut basic = None;
        for raw in headers.flat_map(parse) {
            match raw.scheme.as_str() {
                "bearer" => {
                    if let Some(bearer) = raw.into_bearer() {
                        return Some(bearer);
                    }
                }
                "basic" => basic = Some(Challenge::Basic),
                _ => {}
            }
        }
        basic
    }
}

struct RawChallenge {
    scheme: String,
    parameters: BTreeMap<String, String>,
}

impl RawChallenge {
    fn into_bearer(mut self) -> Option<Challenge> {
        let realm = Url::parse(self.parameters.get("realm")?).ok()?;
        if !matches!(realm.scheme(), "http" | "https") || !realm.has_host() {
            return None;
        }
        let scopes = self.parameters.get("scope").map(|text| Scopes::parse(text)).unwrap_or_default();
        Some(Challenge::Bearer { realm, service: self.parameters.remove("service"), scopes })
    }
}

/// Splits one header into its challenges. What is malformed ends the reading, not the program.
fn parse(header: &str) -> Vec<RawChallenge> {
    let header = &header[..header.floor_char_boundary(MAX_CHALLENGE_CHARS)];
    let mut challenges: Vec<RawChallenge> = Vec::new();
    let mut rest = header;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let word_end = rest.find(|c: char| !is_token_char(c)).unwrap_or(rest.len());
        if word_end == 0 {
            return challenges;
        }
        let word = rest[..word_end].to_ascii_lowercase();
        rest = &rest[word_end..];
        let after_space = rest.trim_start_matches([' ', '\t']);
        match (after_space.strip_prefix('='), challenges.last_mut()) {
            (Some(value), Some(challenge)) => {
                let Some((value, remaining)) = parse_value(value.trim_start_matches([' ', '\t'])) else {
                    return challenges;
                };
                challenge.parameters.entry(word).or_insert(value);
                rest = remaining;
            }
            (Some(_), None) => return challenges,
            (None, _) => challenges.push(RawChallenge { scheme: word, parameters: BTreeMap::new() }),
        }
    }
}

/// Reads a quoted string or a word; returns it with what follows.
fn parse_value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return Some((text[..end].to_owned(), &text[end..]));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(characters.next()?.1),
            other => value.push(other),
        }
    }
    None
}

fn is_token_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
}

/// What a token permits: actions per resource (distribution's token scope grammar).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Scopes {
    actions: BTreeMap<String, BTreeSet<String>>,
}

impl Scopes {
    /// Permits reading a repository.
    pub(super) fn pull(repository: &str) -> Scopes {
        Scopes::default().and(repository, &["pull"])
    }

    /// Permits reading and writing a repository.
    pub(super) fn push(repository: &str) -> Scopes {
        Scopes::default().and(repository, &["pull", "push"])
    }

    /// Adds actions on a repository.
    pub(super) fn and(mut self, repository: &str, actions: &[&str]) -> Scopes {
        let entry = self.actions.entry(format!("repository:{repository}")).or_default();
        entry.extend(actions.iter().map(|&action| action.to_owned()));
        self
    }

    /// Reads scopes separated by spaces; malformed ones are left out.
    fn parse(text: &str) -> Scopes {
        let mut scopes = Scopes::default();
        for scope in text.split_ascii_whitespace().take(20) {
            if let Some((resource, actions)) = scope.rsplit_once(':') {
                let actions = actions.split(',').filter(|action| !action.is_empty()).map(str::to_owned);
                scopes.actions.entry(resource.to_owned()).or_default().extend(actions);
            }
        }
        scopes
    }

    /// Adds all of another set.
    pub(super) fn union(mut self, other: &Scopes) -> Scopes {
        for (resource, actions) in &other.actions {
            self.actions.entry(resource.clone()).or_default().extend(actions.iter().cloned());
        }
        self
    }

    /// Returns each scope in its written form.
    pub(super) fn iter(&self) -> impl Iterator<Item = String> {
        self.actions.iter().map(|(resource, actions)| {
            let actions: Vec<&str> = actions.iter().map(String::as_str).collect();
            format!("{resource}:{}", actions.join(","))
        })
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.iter().collect::<Vec<_>>().join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(header: &str) -> Option<Challenge> {
        Challenge::choose([header].into_iter())
    }

    #[test]
    fn bearer_parameters_are_read_in_any_order_and_case() {
        let header = r#"bearer SERVICE=registry.docker.io , scope="repository:a/b:push,pull repository:c:pull",realm="https://auth.docker.io/token?x=1""#;
        let Some(Challenge::Bearer { realm, service, scopes }) = choose(header) else { panic!() };
        assert_eq!(realm.as_str(), "https://auth.docker.io/token?x=1");
        assert_eq!(service.as_deref(), Some("registry.docker.io"));
        assert_eq!(scopes.to_string(), "repository:a/b:pull,push repository:c:pull");
    }

    #[test]
    fn a_token_is_preferred_among_several_challenges() {
        let header = r#"Negotiate, Basic realm="say \"hi\", friend", Bearer realm="https://t.example/""#;
        assert!(matches!(choose(header), Some(Challenge::Bearer { .. })));
        assert_eq!(choose(r#"Basic realm="x, Bearer realm=y""#), Some(Challenge::Basic));
        let two = ["Basic realm=x", "Bearer realm=\"http://t/\""];
        assert!(matches!(Challenge::choose(two.into_iter()), Some(Challenge::Bearer { .. })));
    }

    #[test]
    fn malformed_challenges_are_no_challenge() {
        let long = "a".repeat(100_000);
        for header in [
            "",
            "Bearer",
            "Bearer realm=",
            "Bearer realm=\"x",
            "=x",
            "Bearer realm=\"file:///x\"",
            &long,
            "é",
        ] {
            assert_eq!(choose(header), None, "{header:.40}");
        }
    }
}
