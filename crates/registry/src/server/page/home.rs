// SPDX-License-Identifier: Apache-2.0
//! The first page: the repositories, or those and the tags that a search finds.

use askama::Template;

use super::address::{repository_path, tag_path};
use super::order::newest_first;
use super::site::{Pager, Site};
use super::words::Words;
use crate::server::Shared;
use crate::server::access::Who;
use crate::server::api_error::ApiError;
use crate::server::index::RepositoryIndex;
use crate::server::names::{RepositoryName, Tag};
use crate::server::route::Query;
use crate::server::state::blocking;

/// Repositories of one page.
const PER_PAGE: usize = 100;
/// The most tags that a search shows.
const MAX_FOUND: usize = 100;
/// The most repositories in whose tags a search looks.
const MAX_SEARCHED: usize = 1000;
/// The most words of a search, and the longest text, in characters.
const MAX_WORDS: usize = 8;
const MAX_SEARCH: usize = 200;
/// How many tags stand beside a repository's name.
const SOME_TAGS: usize = 4;
/// Among how many these are chosen: a page has many repositories.
const MAX_CONSIDERED: usize = 1000;

#[derive(Template)]
#[template(path = "page/home.html", whitespace = "minimize")]
struct HomePage<'a> {
    site: &'a Site,
    w: &'static Words,
    count: String,
    rows: Vec<Row>,
    tags: Vec<FoundTag>,
    note: Option<&'static str>,
    push_command: String,
    pager: Option<Pager>,
}

struct Row {
    link: String,
    /// What comes before the last part of the name, with its slash.
    space: String,
    name: String,
    copy_of: Option<String>,
    some: Vec<SomeTag>,
    tags: String,
}

struct SomeTag {
    link: String,
    name: String,
}

struct FoundTag {
    link: String,
    repository: String,
    name: String,
}

/// Shows the repositories that the reader may see.
pub(super) async fn render(
    shared: &Shared,
    site: &mut Site,
    who: &Who,
    query: &Query,
) -> Result<String, ApiError> {
    let storage = shared.state.storage.clone();
    let mut names = blocking(move || storage.repository_names()).await?;
    names.retain(|name| shared.access.may_read(who, name));
    let search: String = query.get("q").unwrap_or_default().trim().chars().take(MAX_SEARCH).collect();
    let words = site.language.words();
    let (mut tags, mut note) = (Vec::new(), None);
    if !search.is_empty() {
        let wanted = Search::parse(&search);
        let (found, others): (Vec<_>, Vec<_>) =
            names.into_iter().partition(|name| wanted.is_repository(name));
        let is_all = others.len() <= MAX_SEARCHED;
        let is_more = search_tags(shared, site, &wanted, &others, &mut tags).await?;
        note = (!is_all || is_more).then_some(words.search_cut);
        names = found;
    }
    let number = Pager::number(query);
    let all = names.len();
    let mut rows = Vec::new();
    for name in names.iter().skip((number - 1).saturating_mul(PER_PAGE)).take(PER_PAGE) {
        rows.push(row(shared, site, name).await);
    }
    site.search = search;
    let count = match site.search.is_empty() {
        true => words.repository_count(all),
        false => words.result_count(all + tags.len()),
    };
    super::render(&HomePage {
        site,
        w: words,
        count,
        rows,
        tags,
        note,
        push_command: format!("polyarch build --push -t {}/app .", site.host()),
        pager: Pager::of(site, number, PER_PAGE, all),
    })
}

async fn row(shared: &Shared, site: &Site, name: &RepositoryName) -> Row {
    // One that is damaged has no tags; the others are to be seen all the same.
    let index = shared.state.index(&shared.state.storage.repository(name)).await.ok().flatten();
    let (space, last) = name.as_str().rsplit_once('/').unwrap_or(("", name.as_str()));
    Row {
        link: site.link(&repository_path(name), &[]),
        space: if space.is_empty() { String::new() } else { format!("{space}/") },
        name: last.to_owned(),
        copy_of: site.copy_of(shared.mirrors.as_ref(), name),
        some: index.as_deref().map(|index| some_tags(site, name, index)).unwrap_or_default(),
        tags: site.language.words().tag_count(index.map_or(0, |index| index.tags.len())),
    }
}

fn some_tags(site: &Site, name: &RepositoryName, index: &RepositoryIndex) -> Vec<SomeTag> {
    let mut tags: Vec<(&Tag, ())> = index
        .tags
        .keys()
        .filter(|tag| !super::attached::is_attached(tag))
        .take(MAX_CONSIDERED)
        .map(|tag| (tag, ()))
        .collect();
    newest_first(&mut tags);
    let link = |tag: &Tag| site.link(&tag_path(name, tag), &[]);
    let some = tags.iter().take(SOME_TAGS);
    some.map(|(tag, ())| SomeTag { link: link(tag), name: tag.to_string() }).collect()
}

/// Looks for tags; tells whether there are more than are shown.
async fn search_tags(
    shared: &Shared,
    site: &Site,
    wanted: &Search,
    names: &[RepositoryName],
    found: &mut Vec<FoundTag>,
) -> Result<bool, ApiError> {
    for name in names.iter().take(MAX_SEARCHED) {
        let Ok(Some(index)) = shared.state.index(&shared.state.storage.repository(name)).await else {
            continue;
        };
        let rest = wanted.rest(name);
        for tag in index.tags.keys().filter(|tag| rest.is_tag(tag)) {
            if found.len() >= MAX_FOUND {
                return Ok(true);
            }
            found.push(FoundTag {
                link: site.link(&tag_path(name, tag), &[]),
                repository: name.to_string(),
                name: tag.to_string(),
            });
        }
    }
    Ok(false)
}

/// What is looked for: every word has to be found, in the repository's name or in the tag; `a:b` means both.
struct Search {
    words: Vec<(String, Option<String>)>,
}

/// What a tag still has to have, once the repository is known.
struct TagSearch<'a>(Option<Vec<&'a str>>);

impl Search {
    fn parse(text: &str) -> Search {
        let word = |word: &str| match word.split_once(':') {
            Some((name, tag)) => (name.to_lowercase(), Some(tag.to_lowercase())),
            None => (word.to_lowercase(), None),
        };
        Search { words: text.split_whitespace().take(MAX_WORDS).map(word).collect() }
    }

    fn is_repository(&self, name: &RepositoryName) -> bool {
        self.words.iter().all(|(word, tag)| tag.is_none() && name.as_str().contains(word.as_str()))
    }

    fn rest(&self, name: &RepositoryName) -> TagSearch<'_> {
        let mut rest = Vec::new();
        for (word, tag) in &self.words {
            match (name.as_str().contains(word.as_str()), tag) {
                (true, None) => {}
                (true, Some(tag)) => rest.push(tag.as_str()),
                (false, None) => rest.push(word.as_str()),
                (false, Some(_)) => return TagSearch(None),
            }
        }
        TagSearch(Some(rest))
    }
}

impl TagSearch<'_> {
    fn is_tag(&self, tag: &Tag) -> bool {
        let Some(words) = &self.0 else { return false };
        let tag = tag.as_str().to_lowercase();
        words.iter().all(|word| tag.contains(word))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_found_in_names_and_tags() {
        let name = |text: &str| RepositoryName::new(text).unwrap();
        let has = |search: &str, repository: &str, tag: &str| {
            Search::parse(search).rest(&name(repository)).is_tag(&Tag::new(tag).unwrap())
        };
        assert!(Search::parse("Alp lib").is_repository(&name("library/alpine")));
        assert!(!Search::parse("alpine:3").is_repository(&name("library/alpine")));
        assert!(has("alpine:3.2", "library/alpine", "3.20"));
        assert!(has("alpine 3.2", "library/alpine", "3.20"));
        assert!(has("RC1", "a", "v1-Rc1"));
        assert!(!has("alpine:3.2", "debian", "3.20"));
        assert!(!has("alpine 4", "library/alpine", "3.20"));
    }
}
