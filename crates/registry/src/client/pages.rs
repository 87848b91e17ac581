// SPDX-License-Identifier: Apache-2.0
//! Lists that a registry gives in pages (distribution-spec 1.1, "Listing Tags" and "Listing Referrers"):
//! each page names the next one in its `Link` header (RFC 8288).

use bytes::Bytes;
use http::header::LINK;
use url::Url;

use super::call::{self, Answer, Call};
use super::endpoint::Endpoint;
use super::host::{Attempts, Permission};
use crate::error::RegistryError;

/// The most pages of a list that are asked for.
pub(super) const MAX_PAGES: usize = 100;

/// The pages of a list that were not read yet.
pub(super) struct Pages<'a> {
    origin: &'a Endpoint,
    permission: Permission,
    call: Call,
    next: Option<Url>,
    pages: usize,
    /// How many bytes the pages that are left may have together.
    left_bytes: u64,
    limit_bytes: u64,
}

impl<'a> Pages<'a> {
    /// Begins with the page that a request asks for; all pages together have at most `limit_bytes`.
    pub(super) fn new(
        origin: &'a Endpoint,
        permission: Permission,
        call: Call,
        limit_bytes: u64,
    ) -> Pages<'a> {
        let next = Some(call.url.clone());
        Pages { origin, permission, call, next, pages: 0, left_bytes: limit_bytes, limit_bytes }
    }

    /// Tells whether the registry has named another page.
    pub(super) fn has_more(&self) -> bool {
        self.next.is_some()
    }

    /// Tells whether as many pages were read as ever are.
    pub(super) fn are_exhausted(&self) -> bool {
        self.pages >= MAX_PAGES
    }

    /// Asks for the next page; `None` after the last one.
    pub(super) async fn read(&mut self) -> Result<Option<Bytes>, RegistryError> {
        let Some(url) = self.next.take() else { return Ok(None) };
        self.call.url = url;
        self.pages += 1;
        let answer = self.origin.host.send(&self.call, &self.permission, Attempts::ByPolicy).await?;
        let next = next_page(&answer, &self.call.url);
        if next.as_ref() == Some(&self.call.url) {
            return Err(self.call.protocol_error("a page of the list names itself as the next"));
        }
        let bytes =
            call::read_all(answer, &self.call, &self.call.text, self.left_bytes).await.map_err(|error| {
                match error {
                    RegistryError::TooLarge { what, host, .. } => {
                        RegistryError::TooLarge { what, host, limit_bytes: self.limit_bytes }
                    }
                    other => other,
                }
            })?;
        self.left_bytes -= bytes.len() as u64;
        self.next = next;
        Ok(Some(bytes))
    }
}

/// Reads where the next page is: the path and query that the answer names, on the host that was asked.
///
/// Registries behind a proxy name themselves by the wrong scheme or host; and the list of another host is
/// not what was asked for.
fn next_page(answer: &Answer, asked: &Url) -> Option<Url> {
    let values = answer.response.headers().get_all(LINK);
    let target = values.iter().find_map(|value| next_of(value.to_str().ok()?))?;
    let named = answer.url.join(target).ok()?;
    let mut next = asked.clone();
    next.set_path(named.path());
    next.set_query(named.query());
    Some(next)
}

/// Finds `<TARGET>; rel="next"` among the links of a header.
fn next_of(links: &str) -> Option<&str> {
    let mut rest = links;
    loop {
        let (target, after) = rest.split_once('<')?.1.split_once('>')?;
        let parameters = after.split_once('<').map_or(after, |(parameters, _)| parameters);
        let is_next = parameters.split([';', ',']).any(|parameter| {
            let (name, value) = parameter.trim().split_once('=').unwrap_or_default();
            name.trim().eq_ignore_ascii_case("rel")
                && value.trim().trim_matches('"').eq_ignore_ascii_case("next")
        });
        if is_next {
            return Some(target);
        }
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    use super::next_of;

    #[test]
    fn the_next_page_is_found_among_links() {
        assert_eq!(
            next_of(r#"</v2/a/tags/list?last=b&n=2>; rel="next""#),
            Some("/v2/a/tags/list?last=b&n=2")
        );
        assert_eq!(next_of("</b>;rel=next"), Some("/b"));
        assert_eq!(next_of(r#"</a>; rel="prev", </b>; title="x"; REL="next""#), Some("/b"));
        for other in ["", "/b; rel=next", "</b>", r#"</a>; rel="prev""#, "</b; rel=next"] {
            assert_eq!(next_of(other), None, "{other}");
        }
    }
}
