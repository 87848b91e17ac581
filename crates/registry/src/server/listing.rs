// SPDX-License-Identifier: Apache-2.0
//! Lists over HTTP: tags, repositories, referrers; in pages (distribution-spec, "Content Discovery").

use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, LINK};
use http::{HeaderValue, Response, StatusCode};
use polyarch_oci::media_type::{Flavour, OCI_INDEX};
use polyarch_oci::{Descriptor, Digest, ImageIndex};

use super::api_error::{ApiError, Code};
use super::backend::Repository;
use super::body::Body;
use super::document::inspect;
use super::manifests::{Found, SMALL_BYTES, read};
use super::names::{RepositoryName, Tag};
use super::route::Query;
use super::state::{State, blocking};
use crate::api::{OCI_FILTERS_APPLIED, one_line};

/// The most names in one page.
const MAX_NAMES: usize = 10_000;
/// A page of referrers ends after as many manifests, or as many bytes of the list, or as many that were read for it.
const MAX_REFERRERS: usize = 1000;
const MAX_REFERRER_BYTES: usize = 3 << 20;
const MAX_READ_BYTES: usize = 32 << 20;

/// Answers `tags/list`.
pub(super) async fn tags(
    state: &State,
    repository: &Arc<Repository>,
    query: &Query,
) -> Result<Response<Body>, ApiError> {
    let index = state.index(repository).await?.ok_or_else(|| ApiError::name_unknown(&repository.name))?;
    let page = Page::of(query)?;
    let after = last_tag(query)?.map_or(Bound::Unbounded, Bound::Excluded);
    let tags = index.tags.range((after, Bound::Unbounded)).map(|(tag, _)| tag.as_str());
    Ok(tag_answer(&repository.name, &page, tags))
}

/// Makes a page of tags that come from elsewhere.
pub(super) fn tag_page(
    repository: &RepositoryName,
    tags: Vec<String>,
    query: &Query,
) -> Result<Response<Body>, ApiError> {
    let page = Page::of(query)?;
    let last = last_tag(query)?;
    let mut tags: Vec<Tag> = tags.iter().filter_map(|tag| Tag::new(tag)).collect();
    tags.sort_unstable();
    let rest = tags.iter().filter(|tag| last.as_ref().is_none_or(|last| *tag > last));
    Ok(tag_answer(repository, &page, rest.map(Tag::as_str)))
}

fn tag_answer<'a>(
    repository: &RepositoryName,
    page: &Page,
    tags: impl Iterator<Item = &'a str>,
) -> Response<Body> {
    let mut tags: Vec<&str> = tags.take(page.count + 1).collect();
    let next = page.cut(&mut tags);
    let body = serde_json::json!({ "name": repository.as_str(), "tags": tags });
    let path = crate::api::tags_path(repository.as_str());
    answer(&body, next.map(|last| link(&path, &[("n", &page.count.to_string()), ("last", last)])))
}

fn last_tag(query: &Query) -> Result<Option<Tag>, ApiError> {
    let Some(last) = query.get("last") else { return Ok(None) };
    Tag::new(last).map(Some).ok_or_else(|| not_a_place(last))
}

/// Answers `_catalog`: the repositories that this client may read.
pub(super) async fn catalog(
    state: &State,
    query: &Query,
    may_read: impl Fn(&RepositoryName) -> bool,
) -> Result<Response<Body>, ApiError> {
    let storage = state.storage.clone();
    let names = blocking(move || storage.repository_names()).await?;
    let page = Page::of(query)?;
    let last = query.get("last").unwrap_or_default();
    let mut names: Vec<&str> = names
        .iter()
        .filter(|name| name.as_str() > last && may_read(name))
        .map(RepositoryName::as_str)
        .take(page.count + 1)
        .collect();
    let next = page.cut(&mut names);
    let body = serde_json::json!({ "repositories": names });
    Ok(answer(
        &body,
        next.map(|last| link("/v2/_catalog", &[("n", &page.count.to_string()), ("last", last)])),
    ))
}

/// Answers `referrers`: those that were found are read, and no others.
pub(super) async fn referrers(
    state: &State,
    repository: &Arc<Repository>,
    subject: &Digest,
    query: &Query,
) -> Result<Response<Body>, ApiError> {
    let wanted = artifact_type(query);
    let wanted = wanted.as_deref();
    let after: Option<Digest> = query.digest("last")?;
    let mut list = ImageIndex::new(Flavour::Oci, Vec::new());
    let (mut bytes, mut read_bytes) = (0, 0);
    let mut next = None;
    if let Some(index) = state.index(repository).await? {
        let rest =
            index.referrers(subject).filter(|digest| after.as_ref().is_none_or(|after| *digest > after));
        for (number, digest) in rest.enumerate() {
            if number == MAX_REFERRERS || bytes > MAX_REFERRER_BYTES || read_bytes > MAX_READ_BYTES {
                break;
            }
            let Some(entry) = index.find(digest) else { continue };
            next = Some(digest.clone());
            let found = Found { digest: digest.clone(), entry: entry.clone() };
            // One that is damaged does not keep the others from being seen.
            let Ok(content) = read(state, repository, &found).await else { continue };
            read_bytes += content.len();
            let media_type = found.entry.media_type.clone();
            let inspected = if content.len() <= SMALL_BYTES {
                inspect(&content, Some(&media_type)).ok()
            } else {
                blocking(move || Ok::<_, ApiError>(inspect(&content, Some(&media_type)).ok())).await?
            };
            let Some(inspected) = inspected else { continue };
            let descriptor = inspected.into_referrer(found.digest, found.entry.size);
            if wanted.is_none_or(|wanted| descriptor.artifact_type.as_deref() == Some(wanted)) {
                bytes += serde_json::to_vec(&descriptor).map_or(0, |text| text.len());
                list.manifests.push(descriptor);
            }
        }
        // The last one that was looked at is where the next page begins, if there is one.
        let is_last = index.referrers(subject).next_back() == next.as_ref();
        next = next.filter(|_| !is_last);
    }
    let path = crate::api::referrers_path(repository.name.as_str(), subject);
    let link = next.map(|last| match wanted {
        Some(wanted) => link(&path, &[("artifactType", wanted), ("last", &last.to_string())]),
        None => link(&path, &[("last", &last.to_string())]),
    });
    Ok(referrer_answer(&list, link, wanted.is_some()))
}

/// Makes a list of referrers that come from elsewhere.
pub(super) fn referrer_list(entries: Vec<Descriptor>, query: &Query) -> Response<Body> {
    let wanted = artifact_type(query);
    let entries = entries
        .into_iter()
        .filter(|entry| wanted.is_none() || entry.artifact_type == wanted)
        .take(MAX_REFERRERS)
        .collect();
    referrer_answer(&ImageIndex::new(Flavour::Oci, entries), None, wanted.is_some())
}

/// Reads the filter; a `+` that was not encoded has become a blank, which no media type has.
fn artifact_type(query: &Query) -> Option<String> {
    query.get("artifactType").map(|wanted| wanted.replace(' ', "+"))
}

fn referrer_answer(list: &ImageIndex, link: Option<String>, is_filtered: bool) -> Response<Body> {
    let mut response = answer(list, link);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(OCI_INDEX));
    if is_filtered {
        headers.insert(OCI_FILTERS_APPLIED, HeaderValue::from_static("artifactType"));
    }
    response
}

/// How many names a client wants.
struct Page {
    count: usize,
}

impl Page {
    fn of(query: &Query) -> Result<Page, ApiError> {
        let Some(text) = query.get("n") else { return Ok(Page { count: MAX_NAMES }) };
        match text.parse::<u64>() {
            // More than any page has.
            Ok(count) => Ok(Page { count: usize::try_from(count).unwrap_or(MAX_NAMES).min(MAX_NAMES) }),
            Err(_) => Err(ApiError::new(
                StatusCode::BAD_REQUEST,
                Code::Unsupported,
                format!("the parameter n is {:?}, and no number", one_line(text, 50)),
            )),
        }
    }

    /// Takes away what goes beyond the page; returns the last name when something does.
    fn cut<'a>(&self, names: &mut Vec<&'a str>) -> Option<&'a str> {
        let has_more = names.len() > self.count;
        names.truncate(self.count);
        if has_more { names.last().copied() } else { None }
    }
}

fn not_a_place(last: &str) -> ApiError {
    ApiError::new(
        StatusCode::BAD_REQUEST,
        Code::Unsupported,
        format!("the parameter last is {:?}, and no tag", one_line(last, 150)),
    )
}

/// Makes the address of the next page (RFC 8288).
fn link(path: &str, parameters: &[(&str, &str)]) -> String {
    let query = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish();
    format!("<{path}?{query}>; rel=\"next\"")
}

fn answer(body: &impl serde::Serialize, link: Option<String>) -> Response<Body> {
    let bytes = serde_json::to_vec(body).expect("texts, numbers and lists can all be written as JSON");
    let mut response = Response::new(Body::full(Bytes::from(bytes)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(link) = link.and_then(|link| HeaderValue::from_str(&link).ok()) {
        headers.insert(LINK, link);
    }
    response
}
