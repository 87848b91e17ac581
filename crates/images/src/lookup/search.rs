// SPDX-License-Identifier: Apache-2.0
//! What a text means among the names of the store: a name first, and then an id.

use std::collections::BTreeMap;

use polyarch_build::image_source::storage_error;
use polyarch_build::{BuildError, ErrorKind};
use polyarch_oci::{Descriptor, Digest, Reference};
use polyarch_store::Store;

use super::select::images_of;
use super::{Found, MAX_NAMES, MIN_ID_CHARACTERS};

/// The names of the store and what they point at.
pub(super) struct Names(pub(super) Vec<(Reference, Descriptor)>);

impl Names {
    pub(super) fn read(store: &Store) -> Result<Names, BuildError> {
        let refs = store.refs().map_err(|error| storage_error(&error))?;
        Ok(Names(refs.into_iter().map(|(name, entry)| (name, entry.descriptor)).collect()))
    }

    /// Finds what a text means, as a name first and then as an id.
    pub(super) fn search(
        &self,
        store: &Store,
        text: &str,
        reference: Option<&Reference>,
    ) -> Result<Option<Found>, BuildError> {
        if let Some(reference) = reference
            && let Some(found) = self.by_name(store, reference)?
        {
            return Ok(Some(found));
        }
        let id = Id::parse(text);
        if let Some(id) = &id
            && let Some(found) = self.by_id(store, text, id)?
        {
            return Ok(Some(found));
        }
        // The name before a digest may be the one that the document has lost; a document that is some
        // other name's is not meant.
        let full = id.as_ref().and_then(|id| id.full.as_ref());
        let digest = full.or_else(|| reference?.digest());
        Ok(digest.filter(|digest| self.of_root(digest).is_empty()).and_then(|digest| nameless(store, digest)))
    }

    fn of_root(&self, digest: &Digest) -> Vec<Reference> {
        self.0.iter().filter(|(_, root)| root.digest == *digest).map(|(name, _)| name.clone()).collect()
    }

    fn found(&self, root: &Descriptor, name: Option<Reference>, image: Option<Descriptor>) -> Found {
        let names = self.of_root(&root.digest);
        let is_by_name = name.is_some();
        let name = name.or_else(|| names.first().cloned());
        Found { name, is_by_name, names, root: root.clone(), image }
    }

    /// Finds `NAME`, `NAME:TAG` or `NAME[:TAG]@DIGEST`, the last also where the name has the digest below it.
    fn by_name(&self, store: &Store, reference: &Reference) -> Result<Option<Found>, BuildError> {
        let reference = reference.clone().with_default_tag();
        if let Some((name, root)) = self.0.iter().find(|(name, _)| *name == reference) {
            return Ok(Some(self.found(root, Some(name.clone()), None)));
        }
        let Some(digest) = reference.digest() else { return Ok(None) };
        let named = self.0.iter().filter(|(name, _)| {
            name.name() == reference.name() && reference.tag().is_none_or(|tag| name.tag() == Some(tag))
        });
        for (name, root) in named {
            if root.digest == *digest {
                return Ok(Some(self.found(root, Some(name.clone()), None)));
            }
            let images = images_of(store, root)?;
            if let Some(image) = images.into_iter().find(|image| image.descriptor.digest == *digest) {
                return Ok(Some(self.found(root, Some(name.clone()), Some(image.descriptor))));
            }
        }
        Ok(None)
    }

    /// Finds what an id means: a root, a manifest or a config.
    fn by_id(&self, store: &Store, text: &str, id: &Id) -> Result<Option<Found>, BuildError> {
        // By digest; a root is meant before an image below another root.
        let mut matches: BTreeMap<Digest, (bool, Found)> = BTreeMap::new();
        let mut add = |digest: &Digest, is_root: bool, found: Found| match matches.get(digest) {
            Some((true, _)) => {}
            Some(_) if !is_root => {}
            _ => {
                matches.insert(digest.clone(), (is_root, found));
            }
        };
        for (_, root) in &self.0 {
            if id.matches(&root.digest) {
                add(&root.digest, true, self.found(root, None, None));
            }
            // A damaged image elsewhere must not hide this one.
            for image in images_of(store, root).unwrap_or_default() {
                let below = (image.descriptor.digest != root.digest).then(|| image.descriptor.clone());
                if id.matches(&image.descriptor.digest) && below.is_some() {
                    add(&image.descriptor.digest, false, self.found(root, None, below.clone()));
                }
                let config = image.manifest.as_ref().map(|manifest| &manifest.value.config.digest);
                if let Some(config) = config.filter(|config| id.matches(config)) {
                    add(config, false, self.found(root, None, below));
                }
            }
        }
        if matches.len() > 1 {
            let listed: Vec<String> = matches
                .iter()
                .take(MAX_NAMES)
                .map(|(digest, (_, found))| format!("{digest} ({})", found.shown()))
                .collect();
            let message = format!("the id {text} is ambiguous, it begins {} digests", matches.len());
            let error = BuildError::new(ErrorKind::Usage, format!("{message}: {}", listed.join(", ")));
            return Err(error.with_hint("give more characters of the digest, or a name"));
        }
        Ok(matches.into_values().next().map(|(_, found)| found))
    }
}

/// Finds a document that no name points at.
fn nameless(store: &Store, digest: &Digest) -> Option<Found> {
    let root = Descriptor::new("", digest.clone(), store.size(digest)?);
    let media_type = store.image(&root).ok()?.media_type().to_owned();
    let root = Descriptor { media_type, ..root };
    Some(Found { name: None, is_by_name: false, names: Vec::new(), root, image: None })
}

/// A digest or its beginning.
pub(super) struct Id {
    hex: String,
    full: Option<Digest>,
}

impl Id {
    fn full(digest: &Digest) -> Id {
        Id { hex: digest.hex().to_owned(), full: Some(digest.clone()) }
    }

    pub(super) fn parse(text: &str) -> Option<Id> {
        let hex = text.strip_prefix("sha256:").unwrap_or(text);
        if let Ok(digest) = text.parse::<Digest>() {
            return Some(Id::full(&digest));
        }
        let is_hex = hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if !is_hex || !(MIN_ID_CHARACTERS..=64).contains(&hex.len()) {
            return None;
        }
        Some(Id { hex: hex.to_owned(), full: format!("sha256:{hex}").parse().ok() })
    }

    fn matches(&self, digest: &Digest) -> bool {
        digest.hex().starts_with(&self.hex)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lookup::find;
    use crate::lookup::fixture::{Fixture, two_platforms};

    #[test]
    fn names_digests_and_beginnings_of_ids_are_found() {
        let fixture = Fixture::new();
        let (root, _, arm64) = two_platforms(&fixture);
        fixture.name("localhost:5000/copy", &root);
        let store = &fixture.store;
        let found = find(store, "docker.io/user/app:v1").unwrap();
        assert!(found.is_by_name && found.root == root && found.image.is_none() && found.names.len() == 2);
        assert_eq!(find(store, "localhost:5000/copy:latest").unwrap().root, root);
        for text in
            [root.digest.to_string(), root.digest.short().to_owned(), root.digest.hex()[..5].to_owned()]
        {
            let found = find(store, &text).unwrap();
            assert!(!found.is_by_name && found.image.is_none() && found.root == root, "{text}");
            assert_eq!(found.shown(), "user/app:v1");
        }
        let config = find(store, "user/app:v1").unwrap();
        let config = config.select(store, Some(&"linux/arm64".parse().unwrap())).unwrap().config.digest;
        let by_digest = format!("user/app@{}", arm64.digest);
        for text in [arm64.digest.to_string(), config.to_string(), config.short().to_owned(), by_digest] {
            let found = find(store, &text).unwrap();
            assert_eq!(
                (found.root, found.image.unwrap().digest),
                (root.clone(), arm64.digest.clone()),
                "{text}"
            );
        }
        assert_eq!(find(store, &format!("user/app:v1@{}", root.digest)).unwrap().root, root);
        assert!(find(store, &format!("user/other@{}", root.digest)).is_err());
    }

    #[test]
    fn a_document_without_a_name_is_found_by_its_whole_digest_only() {
        let fixture = Fixture::new();
        let image = fixture.image("linux/amd64", "nameless");
        let found = find(&fixture.store, &image.digest.to_string()).unwrap();
        assert_eq!((found.root.digest.clone(), found.name.clone()), (image.digest.clone(), None));
        assert!(find(&fixture.store, image.digest.short()).is_err());
        // As after a pull that moved the name.
        let lost = find(&fixture.store, &format!("user/app@{}", image.digest)).unwrap();
        assert_eq!((lost.root.digest, lost.name, lost.is_by_name), (image.digest.clone(), None, false));
        fixture.name("other", &image);
        assert!(find(&fixture.store, &format!("user/app@{}", image.digest)).is_err());
        fixture.store.remove_ref(&"other".parse::<Reference>().unwrap().with_default_tag()).unwrap();
        let layer = fixture.store.put(b"no document").unwrap();
        assert!(fixture.error(&layer.to_string()).message.starts_with("no such image"));
    }

    #[test]
    fn an_id_of_several_images_is_refused_with_all_of_them() {
        let fixture = Fixture::new();
        // Among so many, some share their first three characters.
        let mut images: Vec<Descriptor> =
            (0..200).map(|at| fixture.image("linux/amd64", &at.to_string())).collect();
        images.sort_by(|a, b| a.digest.cmp(&b.digest));
        let pair = images.windows(2).find(|pair| pair[0].digest.hex()[..3] == pair[1].digest.hex()[..3]);
        let pair = pair.expect("two of two hundred digests begin alike");
        fixture.name("app:1", &pair[0]);
        fixture.name("app:2", &pair[1]);
        let pair = [&pair[0].digest, &pair[1].digest];
        let error = fixture.error(&pair[0].hex()[..3]);
        assert!(error.message.contains("is ambiguous") && error.message.contains(&pair[1].to_string()));
        assert!(find(&fixture.store, &pair[0].hex()[..20]).is_ok());
    }
}
