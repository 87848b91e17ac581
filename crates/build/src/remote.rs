// SPDX-License-Identifier: Apache-2.0
//! Files from elsewhere: git repositories and URLs, as trees that steps copy from.

mod git;
mod git_credentials;
mod git_process;
mod git_program;
pub mod git_reference;
mod localize;
mod redaction;
mod tree;
mod web;

pub(crate) use git::GitSource;
pub use git_reference::{GitReference, GitReferenceError};
pub use localize::Localized;
pub use redaction::redacted;
pub(crate) use redaction::redacted_text;
pub(crate) use tree::RemoteSource;
pub(crate) use web::WebSource;

/// Tells whether a source is what a web server has: a URL that is no git repository.
pub fn is_http(text: &str) -> bool {
    let has = |scheme: &str| text.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme));
    (has("http://") || has("https://")) && !is_git(text)
}

/// Tells whether a source of ADD is a git repository, also one whose query makes no sense.
pub fn is_git(text: &str) -> bool {
    match GitReference::parse(text) {
        Ok(Some(reference)) => !reference.is_like_a_path,
        Ok(None) => false,
        Err(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_told_apart() {
        for (text, git, http) in [
            ("https://example.com/a.tar.gz", false, true),
            ("HTTP://example.com", false, true),
            ("https://example.com/a.git", true, false),
            ("https://example.com/a.git#v1:dir", true, false),
            ("https://example.com/a.git?nonsense=1", true, false),
            ("git@example.com:a/b", true, false),
            ("ssh://git@example.com/a", true, false),
            ("git://example.com/a", true, false),
            ("github.com/a/b", false, false),
            ("ftp://example.com/a", false, false),
            ("./git@example.com:a", false, false),
            ("directory/file", false, false),
        ] {
            assert_eq!((is_git(text), is_http(text)), (git, http), "{text}");
        }
    }
}
