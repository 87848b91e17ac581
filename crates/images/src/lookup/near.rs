// SPDX-License-Identifier: Apache-2.0
//! Images that are not there: the error, with the names that may have been meant.

use polyarch_build::{BuildError, ErrorKind};
use polyarch_oci::Reference;
use polyarch_oci::platform::edit_distance;
use polyarch_store::Store;

use super::MAX_NAMES;
use super::search::{Id, Names};

/// Adds the names of the store that may have been meant by a name that is not to be had.
pub fn with_near_names(store: &Store, error: BuildError, text: &str) -> BuildError {
    let Ok(names) = Names::read(store) else { return error };
    let near = near_names(&names, text, text.parse().ok().as_ref());
    if near.is_empty() { error } else { error.with_hint(format!("did you mean {}?", near.join(", "))) }
}

/// Makes the error of an image that isn't there.
pub(crate) fn no_such_image(store: &Store, text: &str) -> BuildError {
    let shown: String = text.chars().take(300).collect();
    let error = BuildError::new(ErrorKind::Usage, format!("no such image: {shown}"));
    let error = with_near_names(store, error, text);
    if !error.hints.is_empty() {
        return error;
    }
    match text.parse::<Reference>() {
        Ok(reference) if Id::parse(text).is_none() && !is_digest(text) => {
            error.with_hint(format!("polyarch pull {}", reference.familiar()))
        }
        _ => error.with_hint("polyarch images lists those that there are"),
    }
}

/// Tells whether a text was meant as a digest, right or wrong.
fn is_digest(text: &str) -> bool {
    text.starts_with("sha256:") || text.starts_with("sha512:")
}

/// Returns names that look like a text: other tags of its repository, then those that are a few letters off.
fn near_names(names: &Names, text: &str, reference: Option<&Reference>) -> Vec<String> {
    let is_same =
        |name: &Reference| reference.is_some_and(|reference| reference.repository() == name.repository());
    let itself = reference.map(|reference| reference.clone().with_default_tag());
    let text = text.to_ascii_lowercase();
    let limit = (text.len() / 5).clamp(1, 4);
    let bare = |name: &str| match name.rfind(':') {
        Some(at) if !name[at..].contains('/') => name[..at].to_owned(),
        _ => name.to_owned(),
    };
    let mut ranked: Vec<(usize, String)> = names
        .0
        .iter()
        .filter(|(name, _)| itself.as_ref() != Some(name))
        .filter_map(|(name, _)| {
            let familiar = name.familiar();
            if is_same(name) {
                return Some((0, familiar));
            }
            let last = name.repository().rsplit('/').next().unwrap_or_default();
            let distance = [familiar.as_str(), &bare(&familiar), last]
                .iter()
                .map(|known| edit_distance(&text, known).min(edit_distance(&bare(&text), known)))
                .min()?;
            (distance <= limit && distance < text.len()).then_some((1 + distance, familiar))
        })
        .collect();
    ranked.sort();
    ranked.truncate(MAX_NAMES);
    ranked.into_iter().map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use crate::lookup::fixture::{Fixture, two_platforms};

    #[test]
    fn what_is_missing_is_told_with_what_is_near() {
        let fixture = Fixture::new();
        two_platforms(&fixture);
        fixture.name("docker.io/library/alpine:3.20", &fixture.image("linux/amd64", "alpine"));
        for (text, hint) in [
            ("user/ap:v1", "did you mean user/app:v1?"),
            ("user/app", "did you mean user/app:v1?"),
            ("app", "did you mean user/app:v1?"),
            ("alpin", "did you mean alpine:3.20?"),
            ("quay.io/user/app:v2", "did you mean user/app:v1?"),
            ("something/else:entirely", "polyarch pull something/else:entirely"),
            ("abcdef", "polyarch images lists those that there are"),
            ("Not A Name", "polyarch images lists those that there are"),
        ] {
            let error = fixture.error(text);
            assert_eq!(error.message, format!("no such image: {text}"));
            assert_eq!(error.hints, [hint], "{text}");
        }
    }
}
