// SPDX-License-Identifier: Apache-2.0
//! What goes along with an image: attestations of its index, referrers, and what tools attach by a tag of its digest.

use polyarch_oci::Digest;

use super::address::digest_path;
use super::documents::{Entry, ManifestDocument};
use super::listing::Listing;
use super::reader::Reader;
use super::shown::{time, visible};
use super::site::Site;
use super::words::Words;
use crate::server::names::Tag;

/// The most documents that are shown for one image.
const MAX_ATTACHED: usize = 40;
/// The tags by which cosign attaches documents to a digest.
const SUFFIXES: [&str; 4] = ["", ".sig", ".att", ".sbom"];

/// A document that goes along with an image.
pub(super) struct Attached {
    pub(super) kind: String,
    pub(super) link: String,
    pub(super) digest: String,
    pub(super) created: Option<String>,
}

/// Those of one image.
#[derive(Default)]
pub(super) struct AttachedList {
    pub(super) list: Vec<Attached>,
    /// How many are left out.
    pub(super) omitted: usize,
}

/// Tells whether a tag is there only to attach a document to a digest.
pub(super) fn is_attached(tag: &Tag) -> bool {
    let Some(rest) = tag.as_str().strip_prefix("sha256-") else { return false };
    let hex = rest.get(..64).unwrap_or_default();
    hex.len() == 64
        && hex.bytes().all(|byte| byte.is_ascii_hexdigit())
        && SUFFIXES.contains(&rest.get(64..).unwrap_or("?"))
}

/// Finds what goes along with a digest: attestations that an index has for it, and referrers.
pub(super) async fn attached(
    site: &Site,
    reader: &mut Reader,
    digest: &Digest,
    attestations: &[&Entry],
) -> AttachedList {
    let index = reader.index.clone();
    let of_index = attestations.iter().map(|entry| (entry.digest.clone(), Some(*entry)));
    let by_subject = index.referrers(digest).map(|digest| (digest.clone(), None));
    let by_tag = SUFFIXES.iter().filter_map(|suffix| {
        let tag = Tag::new(&format!("{}-{}{suffix}", digest.algorithm().as_str(), digest.hex()))?;
        Some((index.tags.get(&tag)?.clone(), None))
    });
    let mut all: Vec<(Digest, Option<&Entry>)> = Vec::new();
    for one in of_index.chain(by_subject).chain(by_tag) {
        if all.iter().all(|(known, _)| *known != one.0) {
            all.push(one);
        }
        // Far more than are shown; a hostile list isn't gone through for its length.
        if all.len() > MAX_ATTACHED * 4 {
            break;
        }
    }
    let mut found =
        AttachedList { omitted: all.len().saturating_sub(MAX_ATTACHED), ..AttachedList::default() };
    for (digest, entry) in all.into_iter().take(MAX_ATTACHED) {
        found.list.push(describe(site, reader, digest, entry).await);
    }
    found
}

/// Describes the entries of an index that have no platform.
pub(super) async fn others(site: &Site, reader: &mut Reader, listing: &Listing, into: &mut AttachedList) {
    let known: Vec<&Digest> = listing.images.iter().map(|image| &image.digest).collect();
    let orphans = listing.attestations.iter().filter_map(|(subject, entry)| {
        let is_known = subject.as_ref().is_some_and(|subject| known.contains(&subject));
        (!is_known).then_some(entry)
    });
    for entry in orphans.chain(&listing.others) {
        if into.list.len() >= MAX_ATTACHED {
            into.omitted += 1;
            continue;
        }
        into.list.push(describe(site, reader, entry.digest.clone(), Some(entry)).await);
    }
}

async fn describe(site: &Site, reader: &mut Reader, digest: Digest, entry: Option<&Entry>) -> Attached {
    let words = site.language.words();
    let document = reader.manifest(&digest).await.ok();
    let created = document.as_ref().and_then(|document| {
        let created = document.annotations.as_ref()?.get("org.opencontainers.image.created")?;
        time(Some(created))
    });
    let kind = document.as_ref().and_then(|document| kind_of(document, words));
    let kind = kind.unwrap_or_else(|| match entry {
        Some(entry) if entry.is_attestation() => words.attestation.to_owned(),
        Some(Entry { artifact_type: Some(kind), .. }) => visible(kind),
        _ => words.document.to_owned(),
    });
    let link = site.link(&digest_path(&reader.repository.name, &digest), &[]);
    Attached { kind, link, digest: digest.to_string(), created }
}

/// Says what a document is: by the predicates of its statements, or by its type.
fn kind_of(document: &ManifestDocument, words: &Words) -> Option<String> {
    let mut kinds: Vec<String> = Vec::new();
    for blob in document.blobs().iter().take(20) {
        let Some(predicate) = blob.annotation("in-toto.io/predicate-type") else { continue };
        let kind = match predicate {
            _ if predicate.contains("slsa.dev/provenance") => words.provenance.to_owned(),
            _ if predicate.contains("spdx.dev") || predicate.contains("cyclonedx.org") => {
                words.sbom.to_owned()
            }
            _ => visible(predicate),
        };
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    if !kinds.is_empty() {
        return Some(kinds.join(", "));
    }
    let kind = document.kind();
    let first = document.blobs().first().map_or("", |blob| blob.media_type.as_str());
    let is = |words: &[&str]| words.iter().any(|word| kind.contains(word) || first.contains(word));
    if is(&["sigstore", "cosign", "signature"]) {
        return Some(words.signature.to_owned());
    }
    if is(&["spdx", "cyclonedx", "sbom"]) {
        return Some(words.sbom.to_owned());
    }
    if is(&["in-toto", "dsse"]) {
        return Some(words.attestation.to_owned());
    }
    (!document.is_image() && !kind.is_empty()).then(|| visible(kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_of_digests_are_no_versions() {
        let hex = "0123456789abcdef".repeat(4);
        for suffix in SUFFIXES {
            assert!(is_attached(&Tag::new(&format!("sha256-{hex}{suffix}")).unwrap()));
        }
        for tag in ["sha256-1".to_owned(), format!("sha256-{hex}.x"), format!("v-{hex}"), "latest".to_owned()]
        {
            assert!(!is_attached(&Tag::new(&tag).unwrap()), "{tag}");
        }
    }
}
