// SPDX-License-Identifier: Apache-2.0
//! What a build knows to get into a repository: secrets of the build, or what stands in the URL.
//!
//! `git` gets both as a header in its environment and a URL that has neither: so nothing of it reaches `.git`, a
//! submodule's relative URL, or a message.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use url::Url;

use super::git_reference::GitReference;
use crate::error::BuildError;
use crate::secrets::SecretSource;

/// How one repository is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct GitAccess {
    /// The URL without name and password; those of `ssh` keep the name, which is no secret.
    pub(super) remote: String,
    /// What `Authorization` says, and the beginning of the URLs that get it.
    pub(super) header: Option<(String, String)>,
}

impl GitAccess {
    /// Finds out how a repository is reached.
    ///
    /// # Errors
    /// When the build's secrets can't be asked.
    pub(super) async fn of(
        secrets: &dyn SecretSource,
        reference: &GitReference,
    ) -> Result<GitAccess, BuildError> {
        let own = GitAccess::of_url(&reference.remote);
        match authorization(secrets, &own.remote).await? {
            Some(header) => {
                let scope = token_scope(&own.remote).to_owned();
                Ok(GitAccess { header: Some((scope, header)), ..own })
            }
            None => Ok(own),
        }
    }

    /// Takes a URL apart.
    fn of_url(remote: &str) -> GitAccess {
        let bare = || GitAccess { remote: remote.to_owned(), header: None };
        let Ok(mut url) = Url::parse(remote) else { return bare() };
        if url.username().is_empty() && url.password().is_none() {
            return bare();
        }
        let is_web = matches!(url.scheme(), "http" | "https");
        let name = decoded(url.username());
        let password = decoded(url.password().unwrap_or_default());
        // Only URLs without a host refuse these, and they have neither.
        let _ = url.set_password(None);
        if !is_web {
            return GitAccess { remote: url.into(), header: None };
        }
        let _ = url.set_username("");
        let header = format!("basic {}", STANDARD.encode(format!("{name}:{password}")));
        // Submodules with relative URLs have what their repository has, as with git.
        let mut scope = url.clone();
        scope.set_path("/");
        GitAccess { remote: url.into(), header: Some((scope.into(), header)) }
    }

    /// Returns settings of `git` that send the header where it belongs, and nowhere else.
    pub(super) fn settings(&self) -> Vec<(String, String)> {
        let Some((scope, header)) = &self.header else { return Vec::new() };
        vec![
            (format!("http.{scope}.extraheader"), format!("Authorization: {header}")),
            // The header would go along to wherever the server points.
            (format!("http.{scope}.followRedirects"), "false".to_owned()),
        ]
    }
}

fn decoded(text: &str) -> String {
    let value = format!("k={}", text.replace('+', "%2B").replace('&', "%26"));
    url::form_urlencoded::parse(value.as_bytes())
        .next()
        .map(|(_, value)| value.into_owned())
        .unwrap_or_default()
}

/// Returns the header that a build's secrets have for a repository: `GIT_AUTH_HEADER` or `GIT_AUTH_TOKEN`, for
/// its host (`GIT_AUTH_TOKEN.example.com`) or for all.
async fn authorization(secrets: &dyn SecretSource, remote: &str) -> Result<Option<String>, BuildError> {
    let Ok(url) = Url::parse(remote) else { return Ok(None) };
    if !matches!(url.scheme(), "http" | "https") {
        return Ok(None);
    }
    let host = url.host_str().unwrap_or_default();
    let host = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    for suffix in [format!(".{host}"), String::new()] {
        for (name, is_token) in [("GIT_AUTH_HEADER", false), ("GIT_AUTH_TOKEN", true)] {
            let Some(secret) = secrets.secret(&format!("{name}{suffix}")).await? else { continue };
            let secret = String::from_utf8_lossy(&secret).trim().to_owned();
            if secret.is_empty() || secret.chars().any(char::is_control) {
                continue;
            }
            let header = match is_token {
                true => format!("basic {}", STANDARD.encode(format!("x-access-token:{secret}"))),
                false => secret,
            };
            return Ok(Some(header));
        }
    }
    Ok(None)
}

/// Returns where a token is sent: to the repository, and with GitHub's to all of GitHub's, for submodules.
fn token_scope(remote: &str) -> &str {
    let github = ["https://github.com/", "https://www.github.com/"];
    github.into_iter().find(|scope| remote.starts_with(scope)).unwrap_or(remote)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_for_git_have_no_credentials() {
        let basic = |text: &str| format!("basic {}", STANDARD.encode(text));
        for (remote, bare, header) in [
            ("https://h/a.git", "https://h/a.git", None),
            ("https://TOKEN@h/a.git", "https://h/a.git", Some(("https://h/", basic("TOKEN:")))),
            ("http://u:p%40w@h:81/a/b.git", "http://h:81/a/b.git", Some(("http://h:81/", basic("u:p@w")))),
            ("ssh://git:pw@h/a", "ssh://git@h/a", None),
            ("git@h:a/b", "git@h:a/b", None),
        ] {
            let access = GitAccess::of_url(remote);
            let header = header.map(|(scope, header)| (scope.to_owned(), header));
            assert_eq!(access, GitAccess { remote: bare.to_owned(), header }, "{remote}");
        }
    }

    #[tokio::test]
    async fn a_header_follows_no_redirect() {
        let secrets = crate::secrets::FixedSecrets {
            secrets: [("GIT_AUTH_TOKEN.h:81".to_owned(), b"T".to_vec())].into(),
            ..Default::default()
        };
        let at = |remote: &str| GitReference { remote: remote.to_owned(), ..GitReference::default() };
        let access = GitAccess::of(&secrets, &at("http://h:81/a.git")).await.unwrap();
        let expected = format!("Authorization: basic {}", STANDARD.encode("x-access-token:T"));
        assert_eq!(
            access.settings(),
            [
                ("http.http://h:81/a.git.extraheader".to_owned(), expected),
                ("http.http://h:81/a.git.followRedirects".to_owned(), "false".to_owned()),
            ]
        );
        assert_eq!(GitAccess::of(&secrets, &at("http://h/a.git")).await.unwrap().settings(), []);
    }
}
