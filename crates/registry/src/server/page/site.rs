// SPDX-License-Identifier: Apache-2.0
//! What all pages have in common: the reader's language and colours, and links that keep both.
//!
//! Nothing is kept in cookies: what the reader chose stands in the address, and every link carries it on.

use http::header::{ACCEPT_LANGUAGE, HOST};
use http::{HeaderMap, Request};
use hyper::body::Incoming;
use polyarch_oci::Platform;

use super::assets::ASSETS;
use super::language::Language;
use super::shown::platform_argument;
use crate::server::mirror::Mirrors;
use crate::server::names::{ManifestName, RepositoryName};
use crate::server::route::Query;

/// The parameters that every link carries on.
const LANGUAGE: &str = "lang";
const THEME: &str = "theme";
/// The longest host that is shown in commands, in bytes.
const MAX_HOST_BYTES: usize = 255;
/// The most pages of a list.
const MAX_PAGES: usize = 1_000_000;

/// Light or dark, when the reader said so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Theme {
    Light,
    Dark,
}

impl Theme {
    fn parse(text: &str) -> Option<Theme> {
        match text {
            "light" => Some(Theme::Light),
            "dark" => Some(Theme::Dark),
            _ => None,
        }
    }

    pub(super) fn code(self) -> &'static str {
        match self {
            Theme::Light => "light",
            Theme::Dark => "dark",
        }
    }
}

/// The page around the content.
#[derive(Debug)]
pub(super) struct Site {
    pub(super) language: Language,
    /// Who reads, when it is known.
    pub(super) user: Option<String>,
    /// The reader could say who it is, and has not.
    pub(super) may_sign_in: bool,
    /// What stands in the field for searching.
    pub(super) search: String,
    pub(super) theme: Option<Theme>,
    chosen_language: Option<Language>,
    path: String,
    parameters: Vec<(String, String)>,
    host: Option<String>,
}

impl Site {
    /// Reads from a request how its page is to be.
    pub(super) fn of(request: &Request<Incoming>) -> Site {
        let parameters: Vec<(String, String)> =
            url::form_urlencoded::parse(request.uri().query().unwrap_or_default().as_bytes())
                .into_owned()
                .take(20)
                .collect();
        let find =
            |name: &str| parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        let chosen_language = find(LANGUAGE).and_then(Language::parse);
        let accepted = request.headers().get(ACCEPT_LANGUAGE).and_then(|header| header.to_str().ok());
        Site {
            language: chosen_language.unwrap_or_else(|| Language::accepted(accepted.unwrap_or_default())),
            user: None,
            may_sign_in: false,
            search: String::new(),
            theme: find(THEME).and_then(Theme::parse),
            chosen_language,
            path: request.uri().path().to_owned(),
            parameters,
            host: host(request.headers()),
        }
    }

    /// Makes the address of another page.
    pub(super) fn link(&self, path: &str, parameters: &[(&str, &str)]) -> String {
        let kept = self.kept();
        if parameters.is_empty() && kept.is_empty() {
            return path.to_owned();
        }
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(parameters).extend_pairs(kept);
        format!("{path}?{}", query.finish())
    }

    /// Returns what forms carry on.
    pub(super) fn kept(&self) -> Vec<(&'static str, &'static str)> {
        let language = self.chosen_language.map(|language| (LANGUAGE, language.code()));
        let theme = self.theme.map(|theme| (THEME, theme.code()));
        language.into_iter().chain(theme).collect()
    }

    /// Makes the address of the same page with one parameter set.
    pub(super) fn with(&self, name: &str, value: &str) -> String {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(self.parameters.iter().filter(|(key, _)| key != name));
        query.append_pair(name, value);
        // The path came from outside; a second slash, or what browsers take for one, would make it another host's.
        let is_other = self.path.starts_with("//") || self.path.contains('\\');
        let path = if is_other { "/" } else { &self.path };
        format!("{path}?{}", query.finish())
    }

    pub(super) fn home(&self) -> String {
        self.link("/", &[])
    }

    pub(super) fn sign_in(&self) -> String {
        self.link("/", &[("sign-in", "1")])
    }

    pub(super) fn in_other_language(&self) -> String {
        self.with(LANGUAGE, self.language.other().code())
    }

    pub(super) fn in_theme(&self, theme: &str) -> String {
        self.with(THEME, theme)
    }

    pub(super) fn style(&self) -> &'static str {
        &ASSETS.style.path
    }

    pub(super) fn script(&self) -> &'static str {
        &ASSETS.script.path
    }

    pub(super) fn icon(&self) -> &'static str {
        &ASSETS.icon.path
    }

    /// Returns the host as the browser knows it, for names of images.
    pub(super) fn host(&self) -> &str {
        self.host.as_deref().unwrap_or("HOST")
    }

    /// Writes the command that fetches an image; `None` for a platform that can't be written.
    pub(super) fn pull_command(
        &self,
        repository: &RepositoryName,
        name: &ManifestName,
        platform: Option<&Platform>,
    ) -> Option<String> {
        let separator = match name {
            ManifestName::Tag(_) => ':',
            ManifestName::Digest(_) => '@',
        };
        let platform = match platform {
            Some(platform) => format!("--platform {} ", platform_argument(platform)?),
            None => String::new(),
        };
        Some(format!("polyarch pull {platform}{}/{repository}{separator}{name}", self.host()))
    }

    /// Says of which registry's repository this one is a copy.
    pub(super) fn copy_of(&self, mirrors: Option<&Mirrors>, name: &RepositoryName) -> Option<String> {
        let origin = mirrors?.origin(name)?;
        let words = self.language.words();
        let upstreams: Vec<String> = origin
            .upstreams
            .into_iter()
            .map(|(host, is_up)| if is_up { host } else { words.resting(&host) })
            .collect();
        Some(words.copy_of(&origin.name, &upstreams.join(", ")))
    }
}

/// Reads the host that the browser sent; `None` for one that is none.
fn host(headers: &HeaderMap) -> Option<String> {
    let host = headers.get(HOST)?.to_str().ok()?;
    let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '[' | ']');
    let is_host = !host.is_empty()
        && host.len() <= MAX_HOST_BYTES
        && !host.starts_with('-')
        && host.chars().all(is_word)
        && host.parse::<http::uri::Authority>().is_ok();
    is_host.then(|| host.to_owned())
}

/// A list in pages.
pub(super) struct Pager {
    pub(super) previous: Option<String>,
    pub(super) next: Option<String>,
    pub(super) text: String,
}

impl Pager {
    /// Reads which page is wanted, from 1.
    pub(super) fn number(query: &Query) -> usize {
        let number = query.get("page").and_then(|page| page.parse().ok()).unwrap_or(1);
        // No list is longer than that.
        number.clamp(1, MAX_PAGES)
    }

    /// Makes the links of a page of a list of `all` items; `None` when there is one page only.
    pub(super) fn of(site: &Site, number: usize, per_page: usize, all: usize) -> Option<Pager> {
        if all <= per_page && number == 1 {
            return None;
        }
        let link = |number: usize| site.with("page", &number.to_string());
        let first = (number - 1).saturating_mul(per_page);
        let last = first.saturating_add(per_page).min(all);
        Some(Pager {
            previous: (number > 1).then(|| link(number - 1)),
            next: (last < all).then(|| link(number + 1)),
            text: site.language.words().range((first + 1).min(all), last, all),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_one_or_nothing() {
        let read = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, text.parse().unwrap());
            host(&headers)
        };
        for good in ["localhost:5000", "registry.example", "[::1]:5000", "10.0.0.1"] {
            assert_eq!(read(good).as_deref(), Some(good));
        }
        for bad in ["", "a b", "a;id", "$(id)", "a/b", "<b>", "-x", "user@host", &"a".repeat(300)] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
