// SPDX-License-Identifier: Apache-2.0
//! A tag: its digest and every platform's, one platform in full, and what goes along with them.

use std::collections::HashMap;

use askama::Template;
use polyarch_oci::{Digest, Platform};

use super::address::{digest_path, repository_path, tag_path};
use super::attached::{AttachedList, attached, others};
use super::documents::Entry;
use super::image::Image;
use super::instructions::making;
use super::listing::{Kind, Listed, Listing, list};
use super::reader::{Reader, Unread};
use super::repository::short;
use super::settings::settings;
use super::shown::{Pair, Pairs, size, time, visible};
use super::site::Site;
use super::verdict::{self, Shown};
use super::words::Words;
use crate::server::Shared;
use crate::server::api_error::ApiError;
use crate::server::manifests::find;
use crate::server::names::ManifestName;

#[derive(Template)]
#[template(path = "page/tag.html", whitespace = "minimize")]
struct TagPage<'a> {
    site: &'a Site,
    w: &'static Words,
    title: String,
    repository: &'a str,
    repository_link: String,
    repository_link_plain: String,
    /// The tag with its colon, or the short digest with its `@`.
    suffix: String,
    verdict: Shown,
    copy_of: Option<String>,
    digest_label: &'static str,
    digest: String,
    kind: String,
    size: Option<String>,
    subject: Option<Subject>,
    command: Option<String>,
    platforms: Vec<PlatformRow>,
    omitted: usize,
    panel: Option<Panel>,
    annotations: Pairs,
    attached: AttachedList,
}

struct Subject {
    link: String,
    name: String,
    short: String,
}

struct PlatformRow {
    name: String,
    link: String,
    /// What a comparison calls it.
    reference: String,
    digest: String,
    size: String,
    layers: String,
    class: &'static str,
    word: &'static str,
    detail: String,
    is_selected: bool,
}

struct Panel {
    title: String,
    command: Option<String>,
    problem: String,
    digest: String,
    config_digest: Option<String>,
    size: Option<String>,
    created: Option<String>,
    layers_title: &'static str,
    layer_count: String,
    lines: Vec<Line>,
    omitted_lines: usize,
    settings: Pairs,
    labels: Pairs,
    annotations: Pairs,
    attached: AttachedList,
}

struct Line {
    keyword: String,
    text: String,
    size: Option<String>,
    digest: String,
    /// Its share of the largest layer, in percent.
    share: u64,
    is_absent: bool,
}

/// Shows what a tag or a digest leads to.
pub(super) async fn render(
    shared: &Shared,
    site: &Site,
    reader: &mut Reader,
    name: &ManifestName,
    selected: Option<&str>,
) -> Result<String, ApiError> {
    let words = site.language.words();
    let repository = reader.repository.name.clone();
    let found = find(&shared.state, &reader.repository, name).await?;
    let digest = found.digest;
    let listing = match list(reader, &digest).await {
        Ok(listing) => listing,
        Err(unread) => unreadable(unread),
    };
    let mut images = Vec::new();
    for listed in &listing.images {
        images.push(Image::look(reader, listed).await);
    }
    let copy_of = site.copy_of(shared.mirrors.as_ref(), &repository);
    let is_copy = copy_of.is_some();
    let path = match name {
        ManifestName::Tag(tag) => tag_path(&repository, tag),
        ManifestName::Digest(digest) => digest_path(&repository, digest),
    };
    let chosen = selected
        .and_then(|key| Listed::find(&listing.images, key))
        .or_else(|| first(&images))
        .map(|listed| listed.digest.clone());
    let chosen = chosen.and_then(|digest| images.iter().find(|image| image.listed.digest == digest));
    let row = |image: &Image| {
        let key = image.listed.key(&listing.images);
        let shown = verdict::of_image(image, words, is_copy);
        let is_read = image.document.is_some();
        let or_unknown = |text: String| if is_read { text } else { "–".to_owned() };
        PlatformRow {
            name: platform_name(&image.listed.platform, words),
            link: site.link(&path, &[("platform", &key)]),
            reference: format!("{name}/{key}"),
            digest: image.listed.digest.to_string(),
            size: or_unknown(size(image.size())),
            layers: or_unknown(image.layers().len().to_string()),
            class: shown.class,
            word: shown.word,
            detail: shown.sentence,
            is_selected: chosen.is_some_and(|chosen| chosen.listed.digest == image.listed.digest),
        }
    };
    let platforms = if listing.kind == Kind::Index { images.iter().map(row).collect() } else { Vec::new() };
    let verdict = match listing.images.is_empty()
        && listing.document.manifests.is_none()
        && listing.kind != Kind::Index
    {
        true => Shown { class: "bad", word: words.damaged, sentence: words.damaged_sentence.to_owned() },
        false => verdict::of_tag(reader, &listing, &images, words, is_copy),
    };
    let panel = match chosen {
        Some(image) => Some(panel(site, reader, &listing, image, name, is_copy).await),
        None => None,
    };
    let mut along = match listing.kind {
        // A single image's own panel has them.
        Kind::Image | Kind::Artifact => AttachedList::default(),
        Kind::Index => attached(site, reader, &digest, &[]).await,
    };
    others(site, reader, &listing, &mut along).await;
    let suffix = match name {
        ManifestName::Tag(tag) => format!(":{tag}"),
        ManifestName::Digest(digest) => format!("@{}", short(digest)),
    };
    super::render(&TagPage {
        title: format!("{repository}{suffix}"),
        repository: repository.as_str(),
        repository_link: site.link(&repository_path(&repository), &[]),
        repository_link_plain: repository_path(&repository),
        suffix,
        verdict,
        copy_of,
        digest_label: if listing.kind == Kind::Index { words.index_digest } else { words.manifest_digest },
        digest: digest.to_string(),
        kind: kind(&listing, words),
        size: (listing.kind == Kind::Index).then(|| size(distinct_bytes(&images))),
        subject: listing.document.subject.as_ref().map(|subject| subject_of(site, reader, subject)),
        command: match listing.kind {
            Kind::Artifact => None,
            _ => site.pull_command(&repository, name, None),
        },
        platforms,
        omitted: listing.omitted,
        panel,
        annotations: match listing.kind {
            Kind::Index => Pairs::of(listing.document.annotations.as_ref()),
            _ => Pairs::default(),
        },
        attached: along,
        site,
        w: words,
    })
}

/// What is shown of a document that can't be read: its digest, and that.
fn unreadable(_why: Unread) -> Listing {
    Listing {
        document: super::documents::ManifestDocument::default(),
        kind: Kind::Artifact,
        images: Vec::new(),
        attestations: Vec::new(),
        others: Vec::new(),
        omitted: 0,
    }
}

/// The image that is shown when none was chosen: the first that is here.
fn first(images: &[Image]) -> Option<&Listed> {
    let is_here = |image: &&Image| image.document.is_some();
    images.iter().find(is_here).or(images.first()).map(|image| &image.listed)
}

async fn panel(
    site: &Site,
    reader: &mut Reader,
    listing: &Listing,
    image: &Image,
    name: &ManifestName,
    is_copy: bool,
) -> Panel {
    let words = site.language.words();
    let digest = &image.listed.digest;
    let attestations: Vec<&Entry> = listing
        .attestations
        .iter()
        .filter_map(|(subject, entry)| (subject.as_ref() == Some(digest)).then_some(entry))
        .collect();
    let along = attached(site, reader, digest, &attestations).await;
    let config = image.config.as_ref();
    let document = image.document.as_ref();
    let is_image = listing.kind != Kind::Artifact;
    let layers = image.layers();
    let history = config.and_then(|config| config.history.as_deref()).unwrap_or_default();
    let made = making(history, layers);
    let largest = layers.iter().map(|layer| layer.size).max().unwrap_or_default().max(1);
    let lines = made.lines.into_iter().map(|line| {
        let layer = line.layer.and_then(|number| layers.get(number));
        let text = match layer {
            // A file of an artifact has its name here (image-spec, annotations.md).
            Some(layer) if line.text.is_empty() => {
                visible(layer.annotation("org.opencontainers.image.title").unwrap_or(&layer.media_type))
            }
            _ => line.text,
        };
        Line {
            keyword: line.keyword,
            text,
            size: layer.map(|layer| size(layer.size)),
            digest: layer.map(|layer| layer.digest.to_string()).unwrap_or_default(),
            share: layer.map_or(0, |layer| (u128::from(layer.size) * 100 / u128::from(largest)) as u64),
            is_absent: layer.is_some_and(|layer| image.absent.contains(&layer.digest)),
        }
    });
    let repository = &reader.repository.name;
    let settings = config.map(settings).unwrap_or_default();
    let pair = |(name, value)| Pair { name, value, link: None };
    let labels = config.and_then(|config| config.config.as_ref()?.labels.as_ref());
    Panel {
        title: platform_name(&image.listed.platform, words),
        command: match (listing.kind, name) {
            (Kind::Index, _) => site
                .pull_command(repository, name, Some(&image.listed.platform))
                .or_else(|| site.pull_command(repository, &ManifestName::Digest(digest.clone()), None)),
            // The command above is the same.
            _ => None,
        },
        problem: verdict::of_image(image, words, is_copy).sentence,
        digest: digest.to_string(),
        config_digest: document.and_then(|document| Some(document.config.as_ref()?.digest.to_string())),
        size: document.is_some().then(|| size(image.size())),
        created: config.and_then(|config| time(config.created.as_deref())),
        layers_title: match (is_image, made.is_told) {
            (false, _) => words.files,
            (true, true) => words.making,
            (true, false) => words.layers,
        },
        layer_count: words.layer_count(layers.len()),
        lines: lines.collect(),
        omitted_lines: made.omitted,
        settings: Pairs { list: settings.into_iter().map(pair).collect(), omitted: 0 },
        labels: Pairs::of(labels),
        annotations: Pairs::of(document.and_then(|document| document.annotations.as_ref())),
        attached: along,
    }
}

fn kind(listing: &Listing, words: &Words) -> String {
    match listing.kind {
        Kind::Index => words.index_kind.to_owned(),
        Kind::Image => words.image_kind.to_owned(),
        Kind::Artifact => {
            let kind = listing.document.kind();
            if kind.is_empty() { words.artifact_kind.to_owned() } else { visible(kind) }
        }
    }
}

/// Returns the sizes of all that the images hold, what they share counted once.
fn distinct_bytes(images: &[Image]) -> u64 {
    let mut sizes: HashMap<&Digest, u64> = HashMap::new();
    for image in images {
        sizes.insert(&image.listed.digest, image.listed.size);
        let config = image.document.as_ref().and_then(|document| document.config.as_ref());
        for blob in config.into_iter().chain(image.layers()) {
            sizes.insert(&blob.digest, blob.size);
        }
    }
    sizes.values().fold(0, |sum, size| sum.saturating_add(*size))
}

fn subject_of(site: &Site, reader: &Reader, subject: &Entry) -> Subject {
    Subject {
        link: site.link(&digest_path(&reader.repository.name, &subject.digest), &[]),
        name: subject.digest.to_string(),
        short: short(&subject.digest),
    }
}

/// Returns a platform's name for people.
pub(super) fn platform_name(platform: &Platform, words: &Words) -> String {
    match platform.os.is_empty() && platform.architecture.is_empty() {
        true => words.no_platform.to_owned(),
        false => visible(&platform.to_string()),
    }
}
