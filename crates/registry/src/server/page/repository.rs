// SPDX-License-Identifier: Apache-2.0
//! A repository: its tags as a matrix, with a column for each platform.

use askama::Template;
use polyarch_oci::{Digest, Platform};

use super::address::{repository_path, tag_path};
use super::attached::is_attached;
use super::listing::{Listed, list};
use super::order::{MAX_SORTED, newest_first};
use super::reader::Reader;
use super::shown::visible;
use super::site::{Pager, Site};
use super::words::Words;
use crate::server::Shared;
use crate::server::api_error::ApiError;
use crate::server::names::{RepositoryName, Tag};
use crate::server::route::Query;

/// Tags of one page.
const PER_PAGE: usize = 50;
/// The most columns.
const MAX_COLUMNS: usize = 16;
/// From how many tags on there is a filter.
const FILTER_FROM: usize = 8;
/// The longest filter, in characters; as long as a tag.
const MAX_FILTER: usize = 128;
/// How many digits of a digest stand in a cell.
const SHORT: usize = 8;
/// The order of columns; others come behind, by name.
const USUAL: [&str; 10] =
    ["amd64", "arm64", "arm/v7", "arm/v6", "arm/v5", "386", "riscv64", "ppc64le", "s390x", "loong64"];

#[derive(Template)]
#[template(path = "page/repository.html", whitespace = "minimize")]
struct RepositoryPage<'a> {
    site: &'a Site,
    w: &'static Words,
    name: &'a str,
    path: String,
    count: String,
    copy_of: Option<String>,
    has_filter: bool,
    filter: String,
    columns: Vec<Column>,
    has_more: bool,
    rows: Vec<Row>,
    has_away: bool,
    away_note: &'static str,
    is_cut: bool,
    pager: Option<Pager>,
    compared: Vec<String>,
}

struct Column {
    os: String,
    architecture: String,
}

struct Row {
    tag: String,
    link: String,
    digest: String,
    short: String,
    cells: Vec<Option<Cell>>,
    /// Platforms without a column, as a text.
    more: String,
}

struct Cell {
    link: String,
    title: String,
    short: String,
    is_here: bool,
}

/// Shows the tags.
pub(super) async fn render(
    shared: &Shared,
    site: &Site,
    reader: &mut Reader,
    query: &Query,
) -> Result<String, ApiError> {
    let words = site.language.words();
    let (index, name) = (reader.index.clone(), reader.repository.name.clone());
    let filter: String = query.get("q").unwrap_or_default().trim().chars().take(MAX_FILTER).collect();
    let wanted = filter.to_lowercase();
    let is_wanted = |tag: &Tag| !is_attached(tag) && tag.as_str().to_lowercase().contains(&wanted);
    let mut tags: Vec<(&Tag, &Digest)> =
        index.tags.iter().filter(|(tag, _)| is_wanted(tag)).take(MAX_SORTED + 1).collect();
    let is_cut = tags.len() > MAX_SORTED;
    tags.truncate(MAX_SORTED);
    newest_first(&mut tags);
    let number = Pager::number(query);
    let all = tags.len();
    let mut listed: Vec<(&Tag, &Digest, Vec<Listed>)> = Vec::new();
    for (tag, digest) in tags.into_iter().skip((number - 1).saturating_mul(PER_PAGE)).take(PER_PAGE) {
        // What can't be read says so on its own page.
        let images = list(reader, digest).await.map(|listing| listing.images).unwrap_or_default();
        listed.push((tag, digest, images));
    }
    let (columns, has_more) = columns(listed.iter().flat_map(|(_, _, images)| images));
    let rows: Vec<Row> = listed
        .iter()
        .map(|(tag, digest, images)| row(site, reader, &name, &columns, tag, digest, images))
        .collect();
    let has_away = rows.iter().flat_map(|row| row.cells.iter().flatten()).any(|cell| !cell.is_here);
    let copy_of = site.copy_of(shared.mirrors.as_ref(), &name);
    super::render(&RepositoryPage {
        site,
        w: words,
        name: name.as_str(),
        path: repository_path(&name),
        count: words.tag_count(all),
        has_filter: all > FILTER_FROM || !filter.is_empty(),
        filter,
        columns: columns
            .into_iter()
            .map(|(os, architecture)| Column { os: visible(&os), architecture: visible(&architecture) })
            .collect(),
        has_more,
        compared: rows.iter().map(|row| row.tag.clone()).collect(),
        rows,
        has_away,
        away_note: if copy_of.is_some() { words.away_of_copy } else { words.away },
        copy_of,
        is_cut,
        pager: Pager::of(site, number, PER_PAGE, all),
    })
}

/// Collects the platforms of the tags, the usual ones first; tells whether some are left out.
fn columns<'a>(images: impl Iterator<Item = &'a Listed>) -> (Vec<(String, String)>, bool) {
    let mut columns: Vec<(String, String)> = Vec::new();
    let mut has_more = false;
    for image in images.filter(|image| is_platform(&image.platform)) {
        let column = column_of(&image.platform);
        if columns.contains(&column) {
            continue;
        }
        // The usual ones have a place also when others came first.
        let is_usual = column.0 == "linux" && USUAL.contains(&column.1.as_str());
        if columns.len() < MAX_COLUMNS || is_usual {
            columns.push(column);
        } else {
            has_more = true;
        }
    }
    columns.sort_by_cached_key(|(os, architecture)| {
        let rank = USUAL.iter().position(|usual| usual == architecture).unwrap_or(USUAL.len());
        (os != "linux", os.clone(), rank, architecture.clone())
    });
    has_more |= columns.len() > MAX_COLUMNS;
    columns.truncate(MAX_COLUMNS);
    (columns, has_more)
}

fn column_of(platform: &Platform) -> (String, String) {
    (platform.os.clone(), platform.architecture_and_variant())
}

fn is_platform(platform: &Platform) -> bool {
    !platform.os.is_empty() || !platform.architecture.is_empty()
}

fn row(
    site: &Site,
    reader: &Reader,
    name: &RepositoryName,
    columns: &[(String, String)],
    tag: &Tag,
    digest: &Digest,
    images: &[Listed],
) -> Row {
    let path = tag_path(name, tag);
    let cell = |column: &(String, String)| {
        let image = images.iter().find(|image| column_of(&image.platform) == *column)?;
        let platform = image.platform.to_string();
        Some(Cell {
            link: site.link(&path, &[("platform", &image.key(images))]),
            title: format!("{}  {}", visible(&platform), image.digest),
            short: short(&image.digest),
            is_here: reader.has_manifest(&image.digest),
        })
    };
    let without = images
        .iter()
        .filter(|image| is_platform(&image.platform) && !columns.contains(&column_of(&image.platform)));
    let without = without.count();
    Row {
        tag: tag.to_string(),
        link: site.link(&path, &[]),
        digest: digest.to_string(),
        short: short(digest),
        cells: columns.iter().map(cell).collect(),
        more: if without == 0 { String::new() } else { format!("+{without}") },
    }
}

/// Returns the first digits of a digest.
pub(super) fn short(digest: &Digest) -> String {
    digest.hex().chars().take(SHORT).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_few_and_the_usual_ones_come_first() {
        let listed = |os: &str, architecture: &str| Listed {
            platform: Platform::new(os, architecture, ""),
            digest: Digest::of("x"),
            size: 0,
            is_declared: true,
        };
        let strange: Vec<Listed> = (0..40).map(|number| listed("linux", &format!("x{number}"))).collect();
        let images =
            [strange, vec![listed("windows", "amd64"), listed("linux", "arm64"), listed("linux", "amd64")]];
        let (columns, has_more) = columns(images.iter().flatten());
        assert!(has_more && columns.len() == MAX_COLUMNS);
        assert_eq!(columns[0].1, "amd64");
        assert_eq!(columns[1].1, "arm64");
    }
}
