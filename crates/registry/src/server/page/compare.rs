// SPDX-License-Identifier: Apache-2.0
//! Two images side by side: what their configs say differently, and which layers they share.

use std::collections::{BTreeMap, BTreeSet};

use askama::Template;
use polyarch_oci::Digest;

use super::address::{digest_path, repository_path, tag_path};
use super::documents::ConfigDocument;
use super::image::Image;
use super::instructions::making;
use super::listing::{Listed, Listing, list};
use super::reader::{Reader, Unread};
use super::settings::settings;
use super::shown::{size, visible};
use super::site::Site;
use super::tag::platform_name;
use super::words::Words;
use crate::server::api_error::{ApiError, Code};
use crate::server::names::{ManifestName, Tag};

/// The most lines of a list.
const MAX_LINES: usize = 200;

#[derive(Template)]
#[template(path = "page/compare.html", whitespace = "minimize")]
struct ComparePage<'a> {
    site: &'a Site,
    w: &'static Words,
    repository: &'a str,
    repository_link: String,
    left: SideRow,
    right: SideRow,
    is_same: bool,
    platforms: Vec<PlatformRow>,
    problem: Option<&'static str>,
    is_looked_at: bool,
    differences: Vec<Difference>,
    omitted_differences: usize,
    layers: Vec<LayerRow>,
    omitted_layers: usize,
    layers_sentence: String,
}

struct SideRow {
    name: String,
    link: String,
    platform: String,
    digest: String,
    size: String,
}

struct PlatformRow {
    name: String,
    link: Option<String>,
    class: &'static str,
    word: &'static str,
    is_selected: bool,
}

struct Difference {
    name: String,
    left: Option<String>,
    right: Option<String>,
}

struct LayerRow {
    digest: String,
    size: String,
    class: &'static str,
    word: &'static str,
    text: String,
}

/// One of the two, as the address calls it: `TAG`, `TAG/os/architecture`, or with a digest in place of either.
struct Side {
    name: ManifestName,
    /// The platform that was asked for.
    key: Option<String>,
    digest: Digest,
    listing: Listing,
}

impl Side {
    async fn find(reader: &mut Reader, text: &str) -> Result<Side, ApiError> {
        let (name, key) = match text.split_once('/') {
            Some((name, key)) => (name, Some(key.chars().take(300).collect())),
            None => (text, None),
        };
        let not_found = || ApiError::new(http::StatusCode::NOT_FOUND, Code::ManifestUnknown, "no such image");
        let (name, digest) = if name.contains(':') {
            let digest: Digest = name.parse().map_err(|_| not_found())?;
            (ManifestName::Digest(digest.clone()), digest)
        } else {
            let tag = Tag::new(name).ok_or_else(not_found)?;
            let digest = reader.index.tags.get(&tag).cloned().ok_or_else(not_found)?;
            (ManifestName::Tag(tag), digest)
        };
        let listing = list(reader, &digest).await.map_err(|unread| match unread {
            Unread::Absent => not_found(),
            Unread::Unreadable | Unread::Enough => ApiError::internal(format!("{digest} can't be shown")),
        })?;
        Ok(Side { name, key, digest, listing })
    }

    /// Returns the image that was asked for by its platform; `None` for none, or one that isn't there.
    fn asked(&self) -> Option<&Listed> {
        Listed::find(&self.listing.images, self.key.as_deref()?)
    }

    fn of_platform(&self, name: &str) -> Option<&Listed> {
        self.listing.images.iter().find(|image| image.platform.to_string() == name)
    }

    fn row(&self, site: &Site, reader: &Reader, image: Option<&Image>, listed: Option<&Listed>) -> SideRow {
        let repository = &reader.repository.name;
        let path = match &self.name {
            ManifestName::Tag(tag) => tag_path(repository, tag),
            ManifestName::Digest(digest) => digest_path(repository, digest),
        };
        let key = listed.map(|listed| listed.key(&self.listing.images));
        let parameters: Vec<(&str, &str)> = key.iter().map(|key| ("platform", key.as_str())).collect();
        let words = site.language.words();
        SideRow {
            name: match &self.name {
                ManifestName::Tag(tag) => tag.to_string(),
                ManifestName::Digest(digest) => format!("{:.8}", digest.hex()),
            },
            link: site.link(&path, &parameters),
            platform: listed.map_or_else(|| "–".to_owned(), |listed| platform_name(&listed.platform, words)),
            digest: listed.map_or(&self.digest, |listed| &listed.digest).to_string(),
            size: image
                .filter(|image| image.document.is_some())
                .map_or("–".to_owned(), |image| size(image.size())),
        }
    }
}

/// Shows two images of a repository side by side.
pub(super) async fn render(site: &Site, reader: &mut Reader, a: &str, b: &str) -> Result<String, ApiError> {
    let words = site.language.words();
    let left = Side::find(reader, a).await?;
    let right = Side::find(reader, b).await?;
    let (listed_left, listed_right) = choose(&left, &right);
    let look = async |reader: &mut Reader, listed: Option<&Listed>| match listed {
        Some(listed) => Some(Image::look(reader, listed).await),
        None => None,
    };
    let image_left = look(reader, listed_left).await;
    let image_right = look(reader, listed_right).await;
    let looked_at = image_left.as_ref().zip(image_right.as_ref());
    let looked_at = looked_at.filter(|(a, b)| a.document.is_some() && b.document.is_some());
    let (mut differences, layers, layers_sentence) = match looked_at {
        Some((a, b)) => {
            let (rows, sentence) = compare_layers(a, b, words);
            (compare_configs(a.config.as_ref(), b.config.as_ref()), rows, sentence)
        }
        None => (Vec::new(), Vec::new(), String::new()),
    };
    let (all_differences, all_layers) = (differences.len(), layers.len());
    differences.truncate(MAX_LINES);
    let layers: Vec<LayerRow> = layers.into_iter().take(MAX_LINES).collect();
    let repository = reader.repository.name.clone();
    let platforms = match left.digest == right.digest {
        true => Vec::new(),
        false => platform_rows(site, &repository_path(&repository), &left, &right, listed_left),
    };
    let digest = |listed: Option<&Listed>| listed.map(|listed| listed.digest.clone());
    let mut row_left = left.row(site, reader, image_left.as_ref(), listed_left);
    let mut row_right = right.row(site, reader, image_right.as_ref(), listed_right);
    if row_left.name == row_right.name {
        for row in [&mut row_left, &mut row_right] {
            row.name = format!("{} · {}", row.name, row.platform);
        }
    }
    super::render(&ComparePage {
        repository: repository.as_str(),
        repository_link: site.link(&repository_path(&repository), &[]),
        is_same: listed_left.is_some() && digest(listed_left) == digest(listed_right),
        left: row_left,
        right: row_right,
        platforms,
        problem: looked_at.is_none().then_some(words.nothing_to_compare),
        is_looked_at: looked_at.is_some(),
        omitted_differences: all_differences - differences.len(),
        differences,
        omitted_layers: all_layers - layers.len(),
        layers,
        layers_sentence,
        site,
        w: words,
    })
}

/// Chooses the images: those asked for, else of a platform that both have, rather one in which they differ.
fn choose<'a>(left: &'a Side, right: &'a Side) -> (Option<&'a Listed>, Option<&'a Listed>) {
    let same_platform = |side: &'a Side, listed: &Listed| side.of_platform(&listed.platform.to_string());
    match (left.asked(), right.asked()) {
        (Some(a), Some(b)) => (Some(a), Some(b)),
        (Some(a), None) => (Some(a), same_platform(right, a)),
        (None, Some(b)) => (same_platform(left, b), Some(b)),
        (None, None) => {
            let pairs = || {
                let images = left.listing.images.iter();
                images.filter_map(|listed| Some((listed, same_platform(right, listed)?)))
            };
            let differing = pairs().find(|(a, b)| a.digest != b.digest);
            match differing.or_else(|| pairs().next()) {
                Some((a, b)) => (Some(a), Some(b)),
                // Two images of one platform each need not have the same.
                None if left.listing.images.len() == 1 && right.listing.images.len() == 1 => {
                    (left.listing.images.first(), right.listing.images.first())
                }
                None => (None, None),
            }
        }
    }
}

fn platform_rows(
    site: &Site,
    path: &str,
    left: &Side,
    right: &Side,
    selected: Option<&Listed>,
) -> Vec<PlatformRow> {
    let words = site.language.words();
    let all = left.listing.images.iter().chain(&right.listing.images);
    let mut names: Vec<String> = Vec::new();
    for listed in all {
        let name = listed.platform.to_string();
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let row = |name: String| {
        let (a, b) = (left.of_platform(&name), right.of_platform(&name));
        let (class, word) = match (a, b) {
            (Some(a), Some(b)) if a.digest == b.digest => ("good", words.identical),
            (Some(_), Some(_)) => ("warn", words.changed),
            (Some(_), None) => ("gone", words.only_left),
            _ => ("new", words.only_right),
        };
        let reference = |side: &Side| format!("{}/{name}", side.name);
        let link = || site.link(path, &[("a", reference(left).as_str()), ("b", reference(right).as_str())]);
        PlatformRow {
            link: (a.is_some() && b.is_some()).then(link),
            class,
            word,
            is_selected: selected.is_some_and(|selected| selected.platform.to_string() == name),
            name: visible(&name),
        }
    };
    names.into_iter().map(row).collect()
}

/// Returns the fields in which two configs differ.
fn compare_configs(left: Option<&ConfigDocument>, right: Option<&ConfigDocument>) -> Vec<Difference> {
    let (left, right) = (fields(left), fields(right));
    let names: BTreeSet<&String> = left.keys().chain(right.keys()).collect();
    let differing = names.into_iter().filter(|name| left.get(*name) != right.get(*name));
    differing
        .map(|name| Difference {
            name: name.clone(),
            left: left.get(name).cloned(),
            right: right.get(name).cloned(),
        })
        .collect()
}

fn fields(config: Option<&ConfigDocument>) -> BTreeMap<String, String> {
    let Some(config) = config else { return BTreeMap::new() };
    let mut fields: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in settings(config) {
        // Triggers are several of one name.
        fields.entry(name).and_modify(|all| *all = format!("{all}\n{value}")).or_insert(value);
    }
    let features = config.os_features.clone().unwrap_or_default().join(" ");
    let plain = [
        ("os", config.os.as_str()),
        ("architecture", &config.architecture),
        ("variant", &config.variant),
        ("os.version", &config.os_version),
        ("os.features", &features),
        ("author", &config.author),
        ("created", config.created.as_deref().unwrap_or_default()),
    ];
    for (name, value) in plain.into_iter().filter(|(_, value)| !value.is_empty()) {
        fields.insert(name.to_owned(), visible(value));
    }
    let labels = config.config.as_ref().and_then(|settings| settings.labels.as_ref());
    for (name, value) in labels.into_iter().flatten() {
        fields.insert(format!("LABEL {}", visible(name)), visible(value));
    }
    fields
}

/// Returns the layers of both, the first's in order and then those that only the second has, and a sentence about them.
fn compare_layers(left: &Image, right: &Image, words: &Words) -> (Vec<LayerRow>, String) {
    let digests =
        |image: &Image| image.layers().iter().map(|layer| layer.digest.clone()).collect::<BTreeSet<_>>();
    let (of_left, of_right) = (digests(left), digests(right));
    let mut counts = [(0_usize, 0_u64); 3];
    let mut rows = Vec::new();
    for (image, is_left) in [(left, true), (right, false)] {
        let instructions = instructions(image);
        for (number, layer) in image.layers().iter().enumerate() {
            let is_shared = of_left.contains(&layer.digest) && of_right.contains(&layer.digest);
            if is_shared && !is_left {
                continue;
            }
            let (kind, class, word) = match (is_shared, is_left) {
                (true, _) => (0, "good", words.shared),
                (false, true) => (1, "gone", words.only_left),
                (false, false) => (2, "new", words.only_right),
            };
            counts[kind].0 += 1;
            counts[kind].1 = counts[kind].1.saturating_add(layer.size);
            rows.push(LayerRow {
                digest: layer.digest.to_string(),
                size: size(layer.size),
                class,
                word,
                text: instructions.get(&number).cloned().unwrap_or_default(),
            });
        }
    }
    let [shared, first, second] = counts.map(|(count, bytes)| (count, size(bytes)));
    let sentence = words.layers_sentence((shared.0, &shared.1), (first.0, &first.1), (second.0, &second.1));
    (rows, sentence)
}

/// Returns the instruction of each layer.
fn instructions(image: &Image) -> BTreeMap<usize, String> {
    let history = image.config.as_ref().and_then(|config| config.history.as_deref()).unwrap_or_default();
    let lines = making(history, image.layers()).lines;
    lines
        .into_iter()
        .filter_map(|line| Some((line.layer?, format!("{} {}", line.keyword, line.text).trim().to_owned())))
        .collect()
}
