// SPDX-License-Identifier: Apache-2.0
//! What a text says of a git repository: where it is, and which part of it is meant.
//!
//! Forms are `https://HOST/PATH.git`, `git://…`, `ssh://…`, `USER@HOST:PATH`, and for contexts also
//! `github.com/PATH`; behind them `#REF:DIRECTORY`, or a query with `ref`, `tag`, `branch`, `subdir`,
//! `checksum` (or `commit`), `keep-git-dir`, `submodules`, `mtime` and `fetch-by-commit`.

use url::Url;

use super::redaction::redacted;

/// The longest text that is read as a reference, in bytes.
const MAX_REFERENCE_BYTES: usize = 8192;

/// A part of a git repository.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GitReference {
    /// The repository's URL as `git` takes it.
    pub remote: String,
    /// A branch, a tag, a full name of a reference or a commit; the default branch when absent.
    pub reference: Option<String>,
    /// A directory of the repository, without slashes at its ends; all of it when absent.
    pub subdirectory: Option<String>,
    /// What the commit's name begins with, when it is told.
    pub checksum: Option<String>,
    /// Whether `.git` is kept, when it is told.
    pub keep_git_dir: Option<bool>,
    /// Whether submodules are fetched; they are when it is not told.
    pub submodules: Option<bool>,
    /// Whether files get the commit's time instead of that of the checkout.
    pub has_commit_times: bool,
    /// Whether the checksum is fetched without asking where the reference stands.
    pub fetch_by_commit: bool,
    /// Whether it looks like a path (`github.com/…`); only contexts take that for a repository.
    pub is_like_a_path: bool,
}

/// Says why a reference to a repository makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GitReferenceError {
    /// It is longer than any.
    #[error("the git reference is longer than {MAX_REFERENCE_BYTES} bytes")]
    TooLong,
    /// A URL is malformed.
    #[error("invalid git URL: {reason}")]
    Url {
        /// What is wrong.
        reason: String,
    },
    /// A key of the query is not known.
    #[error("unexpected query {key:?}")]
    UnexpectedQuery {
        /// The key.
        key: String,
    },
    /// A key of the query needs a value.
    #[error("query {key:?} has no value")]
    NoValue {
        /// The key.
        key: String,
    },
    /// A key of the query stands there more than once.
    #[error("query {key:?} has multiple values")]
    MultipleValues {
        /// The key.
        key: String,
    },
    /// A value of the query makes no sense.
    #[error("invalid {key} value: {value:?}")]
    InvalidValue {
        /// The key.
        key: String,
        /// The value.
        value: String,
    },
    /// Two places say different things.
    #[error("{what} conflicts: {first:?} vs {second:?}")]
    Conflict {
        /// What they say it of.
        what: &'static str,
        /// What the first says.
        first: String,
        /// What the second says.
        second: String,
    },
    /// A tag and a branch are told.
    #[error("branch conflicts with tag")]
    BranchAndTag,
    /// A name would be an option of `git`, or has characters that no name has.
    #[error("invalid git {what} {text:?}")]
    Invalid {
        /// What it is.
        what: &'static str,
        /// The text.
        text: String,
    },
}

impl GitReference {
    /// Reads a text; `None` when it is no git repository.
    ///
    /// # Errors
    /// When it is one, but what follows makes no sense.
    pub fn parse(text: &str) -> Result<Option<GitReference>, GitReferenceError> {
        if text.starts_with("./") || text.starts_with("../") {
            return Ok(None);
        }
        if text.len() > MAX_REFERENCE_BYTES {
            return if text.contains("://") { Err(GitReferenceError::TooLong) } else { Ok(None) };
        }
        if text.starts_with("github.com/") {
            let parsed = parse_url(&format!("https://{text}"))?;
            return Ok(parsed.map(|reference| GitReference { is_like_a_path: true, ..reference }));
        }
        match text.split_once("://") {
            Some((scheme, rest)) if scheme.bytes().all(|byte| byte.is_ascii_alphanumeric()) => {
                match scheme.to_ascii_lowercase().as_str() {
                    "git" | "ssh" => parse_url(text),
                    "http" | "https" => {
                        let path = rest.split(['?', '#']).next().unwrap_or_default();
                        if path.contains('/') && path.ends_with(".git") { parse_url(text) } else { Ok(None) }
                    }
                    _ => Ok(None),
                }
            }
            _ => parse_scp(text),
        }
    }

    /// Returns the repository's URL without a name and a password, as it may be shown.
    pub fn shown(&self) -> String {
        redacted(&self.remote)
    }

    /// Returns the repository's URL with `#REFERENCE` behind it where one is named, and `:DIRECTORY` where that is
    /// asked for; whatever the form it was read in, the same is the same.
    pub(crate) fn with_fragment(&self, with_directory: bool) -> String {
        let reference = self.reference.as_deref().unwrap_or_default();
        match self.subdirectory.as_deref().filter(|_| with_directory) {
            Some(directory) => format!("{}#{reference}:{directory}", self.remote),
            None if reference.is_empty() => self.remote.clone(),
            None => format!("{}#{reference}", self.remote),
        }
    }

    fn finish(
        mut self,
        query: impl Iterator<Item = (String, String)>,
        fragment: &str,
    ) -> Result<Option<GitReference>, GitReferenceError> {
        let (reference, subdirectory) = fragment.split_once(':').unwrap_or((fragment, ""));
        self.reference = Some(reference.to_owned()).filter(|it| !it.is_empty());
        self.set_subdirectory(subdirectory)?;
        self.read_query(query)?;
        if let Some(reference) = self.reference.as_deref().filter(|it| !is_reference(it)) {
            return Err(GitReferenceError::Invalid { what: "ref", text: reference.to_owned() });
        }
        if self.remote.starts_with('-') || self.remote.chars().any(char::is_control) {
            return Err(GitReferenceError::Invalid { what: "remote", text: redacted(&self.remote) });
        }
        Ok(Some(self))
    }

    fn set_subdirectory(&mut self, text: &str) -> Result<(), GitReferenceError> {
        let cleaned = crate::frontend::absolute("/", text);
        let cleaned = cleaned.trim_start_matches('/');
        if cleaned.is_empty() {
            return Ok(());
        }
        if let Some(first) = self.subdirectory.as_ref().filter(|it| *it != cleaned) {
            return Err(conflict("subdir", first, cleaned));
        }
        self.subdirectory = Some(cleaned.to_owned());
        Ok(())
    }

    fn set_reference(&mut self, text: String) -> Result<(), GitReferenceError> {
        if let Some(first) = self.reference.as_ref().filter(|it| **it != text) {
            return Err(conflict("ref", first, &text));
        }
        self.reference = Some(text);
        Ok(())
    }

    fn read_query(&mut self, query: impl Iterator<Item = (String, String)>) -> Result<(), GitReferenceError> {
        let mut seen: Vec<String> = Vec::new();
        let (mut tag, mut branch) = (None, None);
        for (key, value) in query {
            if seen.contains(&key) {
                return Err(GitReferenceError::MultipleValues { key });
            }
            seen.push(key.clone());
            let is_flag = matches!(key.as_str(), "submodules" | "keep-git-dir" | "fetch-by-commit");
            if value.is_empty() && !is_flag {
                return Err(GitReferenceError::NoValue { key });
            }
            let flag = || match value.as_str() {
                "" | "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
                "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
                _ => Err(GitReferenceError::InvalidValue { key: key.clone(), value: value.clone() }),
            };
            match key.as_str() {
                "ref" => self.set_reference(value)?,
                "tag" => tag = Some(value),
                "branch" => branch = Some(value),
                "subdir" => self.set_subdirectory(&value)?,
                "checksum" | "commit" => self.checksum = Some(value),
                "keep-git-dir" => self.keep_git_dir = Some(flag()?),
                "submodules" => self.submodules = Some(flag()?),
                "fetch-by-commit" => self.fetch_by_commit = flag()?,
                "mtime" => match value.as_str() {
                    "checkout" => self.has_commit_times = false,
                    "commit" => self.has_commit_times = true,
                    _ => return Err(GitReferenceError::InvalidValue { key, value }),
                },
                _ => return Err(GitReferenceError::UnexpectedQuery { key }),
            }
        }
        if tag.is_some() && branch.is_some() {
            return Err(GitReferenceError::BranchAndTag);
        }
        for (prefix, name) in [("refs/tags/", tag), ("refs/heads/", branch)] {
            if let Some(name) = name {
                let name = if name.starts_with(prefix) { name } else { format!("{prefix}{name}") };
                self.set_reference(name)?;
            }
        }
        Ok(())
    }
}

fn conflict(what: &'static str, first: &str, second: &str) -> GitReferenceError {
    GitReferenceError::Conflict { what, first: first.to_owned(), second: second.to_owned() }
}

/// Tells whether a name can be given to `git` where it expects a reference.
fn is_reference(name: &str) -> bool {
    let is_bad = |c: char| c.is_control() || matches!(c, ' ' | '~' | '^' | ':' | '?' | '*' | '[' | '\\');
    !name.starts_with('-') && !name.contains("..") && !name.contains("@{") && !name.contains(is_bad)
}

fn parse_url(text: &str) -> Result<Option<GitReference>, GitReferenceError> {
    let mut url = Url::parse(text).map_err(|error| GitReferenceError::Url { reason: error.to_string() })?;
    let query: Vec<(String, String)> =
        url.query_pairs().map(|(key, value)| (key.into_owned(), value.into_owned())).collect();
    let fragment = url.fragment().unwrap_or_default().to_owned();
    url.set_query(None);
    url.set_fragment(None);
    GitReference { remote: url.into(), ..GitReference::default() }.finish(query.into_iter(), &fragment)
}

/// Reads `USER@HOST:PATH[?QUERY][#FRAGMENT]`, as scp has it.
fn parse_scp(text: &str) -> Result<Option<GitReference>, GitReferenceError> {
    let (before, fragment) = text.split_once('#').unwrap_or((text, ""));
    let (remote, query) = before.split_once('?').unwrap_or((before, ""));
    let is_name = |text: &str, more: &[char]| {
        !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(&c))
    };
    let Some((user, rest)) = remote.split_once('@') else { return Ok(None) };
    let Some((host, path)) = rest.split_once(':') else { return Ok(None) };
    if !is_name(user, &['-', '_']) || !is_name(host, &['-', '.']) || host.starts_with('-') || path.is_empty()
    {
        return Ok(None);
    }
    let query: Vec<(String, String)> = url::form_urlencoded::parse(query.as_bytes())
        .map(|(key, value)| (key.into_owned(), value.into_owned()))
        .collect();
    GitReference { remote: remote.to_owned(), ..GitReference::default() }.finish(query.into_iter(), fragment)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> GitReference {
        GitReference::parse(text).unwrap().unwrap_or_else(|| panic!("{text} was taken for a path"))
    }

    #[test]
    fn repositories_have_many_forms() {
        for (text, remote, reference, subdirectory) in [
            ("https://example.com/a/b.git", "https://example.com/a/b.git", None, None),
            ("https://example.com/b.git#v1", "https://example.com/b.git", Some("v1"), None),
            ("https://example.com/b.git#v1:x/../y/", "https://example.com/b.git", Some("v1"), Some("y")),
            ("https://example.com/b.git#:sub", "https://example.com/b.git", None, Some("sub")),
            ("https://example.com/b.git?tag=v1", "https://example.com/b.git", Some("refs/tags/v1"), None),
            (
                "https://example.com/b.git?branch=m&subdir=s",
                "https://example.com/b.git",
                Some("refs/heads/m"),
                Some("s"),
            ),
            ("git@example.com:a/b.git#main:sub", "git@example.com:a/b.git", Some("main"), Some("sub")),
            ("ssh://git@example.com:22/a", "ssh://git@example.com:22/a", None, None),
            ("github.com/a/b#main", "https://github.com/a/b", Some("main"), None),
        ] {
            let found = parse(text);
            assert_eq!(found.remote, remote, "{text}");
            assert_eq!(found.reference.as_deref(), reference, "{text}");
            assert_eq!(found.subdirectory.as_deref(), subdirectory, "{text}");
        }
        let found = parse("https://example.com/b.git?keep-git-dir&submodules=false&commit=abc&mtime=commit");
        assert_eq!((found.keep_git_dir, found.submodules), (Some(true), Some(false)));
        assert_eq!((found.checksum.as_deref(), found.has_commit_times), (Some("abc"), true));
        for text in ["a/b", "file", "user@host", "https://example.com/a", "./git@h:p", "ftp://h/a.git"] {
            assert_eq!(GitReference::parse(text), Ok(None), "{text}");
        }
    }

    #[test]
    fn queries_that_make_no_sense_are_refused() {
        for (query, problem) in [
            ("?x=1", "unexpected query \"x\""),
            ("?ref", "query \"ref\" has no value"),
            ("?ref=a&ref=b", "query \"ref\" has multiple values"),
            ("?ref=a#b", "ref conflicts: \"b\" vs \"a\""),
            ("?subdir=a#m:b", "subdir conflicts: \"b\" vs \"a\""),
            ("?tag=a&branch=b", "branch conflicts with tag"),
            ("?submodules=maybe", "invalid submodules value: \"maybe\""),
            ("?mtime=now", "invalid mtime value: \"now\""),
            ("#--upload-pack=x", "invalid git ref \"--upload-pack=x\""),
            ("#a..b", "invalid git ref \"a..b\""),
        ] {
            let error = GitReference::parse(&format!("https://example.com/b.git{query}")).unwrap_err();
            assert_eq!(error.to_string(), problem, "{query}");
        }
    }

    #[test]
    fn passwords_are_not_shown() {
        let shown = parse("https://a:secret@example.com/b.git").shown();
        assert_eq!(shown, "https://xxxxx:xxxxx@example.com/b.git");
        assert_eq!(parse("https://TOKEN@example.com/b.git").shown(), "https://xxxxx@example.com/b.git");
    }
}
