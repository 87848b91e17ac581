// SPDX-License-Identifier: Apache-2.0
//! What the server knows of a tag, in words.

use super::image::{Image, Verdict};
use super::listing::{Kind, Listing};
use super::reader::Reader;
use super::words::Words;

/// A word for a state, with how it looks and what it means.
pub(super) struct Shown {
    /// The class of its colours.
    pub(super) class: &'static str,
    pub(super) word: &'static str,
    pub(super) sentence: String,
}

/// Says how one platform's image is. Copies are fetched when they are asked for: one that isn't here is no fault.
pub(super) fn of_image(image: &Image, words: &Words, is_copy: bool) -> Shown {
    let shown = |class, word, sentence| Shown { class, word, sentence };
    let absence = if is_copy { "calm" } else { "warn" };
    match &image.verdict {
        Verdict::Whole => shown("good", words.whole, String::new()),
        Verdict::Absent => shown(absence, words.not_here, words.absent_sentence.to_owned()),
        Verdict::Missing(_) if is_copy => shown("calm", words.partial, String::new()),
        Verdict::Missing(count) => shown("bad", words.incomplete, words.missing_sentence(*count)),
        Verdict::Mismatch(says) => {
            let declared = image.listed.platform.to_string();
            shown(
                "bad",
                words.mismatch,
                words.mismatch_sentence(&super::shown::visible(&declared), &super::shown::visible(says)),
            )
        }
        Verdict::Damaged => shown("bad", words.damaged, words.damaged_sentence.to_owned()),
        Verdict::Unseen => shown("calm", words.unseen, words.unseen_sentence.to_owned()),
    }
}

/// Says how all of a tag is: as the worst of its images.
pub(super) fn of_tag(
    reader: &Reader,
    listing: &Listing,
    images: &[Image],
    words: &Words,
    is_copy: bool,
) -> Shown {
    let rank = |image: &&Image| match image.verdict {
        Verdict::Damaged => 5,
        Verdict::Mismatch(_) => 4,
        Verdict::Missing(_) if !is_copy => 3,
        Verdict::Absent | Verdict::Missing(_) => 2,
        Verdict::Unseen => 1,
        Verdict::Whole => 0,
    };
    let worst = images.iter().max_by_key(rank);
    let whole = || {
        let sentence = match listing.kind {
            Kind::Index => words.whole_sentence,
            Kind::Image | Kind::Artifact => words.whole_blobs_sentence,
        };
        Shown { class: "good", word: words.whole, sentence: sentence.to_owned() }
    };
    match worst {
        Some(image) if rank(&image) == 2 => {
            let here = images.iter().filter(|image| rank(image) != 2).count();
            let sentence = match is_copy {
                true => words.partial_copy_sentence(here, images.len()),
                false => words.partial_sentence(here, images.len()),
            };
            Shown { class: if is_copy { "calm" } else { "warn" }, word: words.partial, sentence }
        }
        Some(image) if rank(&image) > 0 => of_image(image, words, is_copy),
        _ if listing.omitted > 0 => {
            Shown { class: "calm", word: words.unseen, sentence: words.unseen_sentence.to_owned() }
        }
        _ => {
            let entries = listing.attestations.iter().map(|(_, entry)| entry).chain(&listing.others);
            let away = entries.filter(|entry| !reader.has_manifest(&entry.digest)).count();
            match away {
                0 => whole(),
                _ => Shown {
                    class: if is_copy { "calm" } else { "warn" },
                    word: words.partial,
                    sentence: words.others_away(away),
                },
            }
        }
    }
}
