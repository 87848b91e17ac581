// SPDX-License-Identifier: Apache-2.0
//! Finds an image of the store by what a user types: a name, a digest, or the beginning of an id.
//!
//! A name points at one document, an index or a manifest: the *root*. The digest of the root is the
//! index digest; each platform below it has a manifest digest and a config digest of its own. All three
//! are accepted as ids, in full or as an unambiguous beginning of at least [`MIN_ID_CHARACTERS`].
//!
//! A name wins over an id. What no name points at is found only by its full digest.

use std::collections::{BTreeMap, BTreeSet};

use polyarch_build::image_source::storage_error;
use polyarch_build::{BuildError, ErrorKind};
use polyarch_oci::platform::edit_distance;
use polyarch_oci::{
    Descriptor, Digest, Document, ImageConfig, Manifest, ManifestOrIndex, Platform, PlatformMatcher,
    Reference,
};
use polyarch_store::Store;

/// The shortest beginning of an id.
pub const MIN_ID_CHARACTERS: usize = 3;

/// The deepest nesting of indexes that is looked into.
const MAX_DEPTH: usize = 8;

/// The most names that an error lists.
const MAX_NAMES: usize = 8;

/// An image of the store.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// The name that was asked for, in full; of an image that was asked for by id, its first name.
    pub name: Option<Reference>,
    /// Whether it was found by a name, and not by a digest or an id.
    pub is_by_name: bool,
    /// All names of the root, sorted.
    pub names: Vec<Reference>,
    /// The document that the names point at: an index, or the only manifest.
    pub root: Descriptor,
    /// The one image that was meant, when the digest of a platform's manifest or config was asked for.
    pub image: Option<Descriptor>,
}

/// One platform's image below a root.
#[derive(Debug, Clone, PartialEq)]
pub struct PlatformImage {
    /// The manifest's descriptor.
    pub descriptor: Descriptor,
    /// The platform: the index's word for it, else the config's.
    pub platform: Platform,
    /// The manifest; `None` when the store lacks it.
    pub manifest: Option<Document<Manifest>>,
}

/// One platform's image with its documents.
#[derive(Debug, Clone, PartialEq)]
pub struct SelectedImage {
    /// The manifest's descriptor.
    pub descriptor: Descriptor,
    /// The platform.
    pub platform: Platform,
    /// The manifest.
    pub manifest: Document<Manifest>,
    /// The config.
    pub config: Document<ImageConfig>,
}

/// Finds an image.
///
/// # Errors
/// When there is none (with names that look like it), or when an id has several.
pub fn find(store: &Store, text: &str) -> Result<Found, BuildError> {
    match look_up(store, text)? {
        Some(found) => Ok(found),
        None => Err(no_such_image(store, text)),
    }
}

/// Finds an image; `None` when there is none.
///
/// # Errors
/// When an id has several.
pub fn look_up(store: &Store, text: &str) -> Result<Option<Found>, BuildError> {
    Names::read(store)?.search(store, text, text.parse().ok().as_ref())
}

/// Adds the names of the store that may have been meant by a name that is not to be had.
pub fn with_near_names(store: &Store, error: BuildError, text: &str) -> BuildError {
    let Ok(names) = Names::read(store) else { return error };
    let near = near_names(&names, text, text.parse().ok().as_ref());
    if near.is_empty() { error } else { error.with_hint(format!("did you mean {}?", near.join(", "))) }
}

/// Lists the images below a root, without attestations; indexes within indexes are looked into.
///
/// # Errors
/// When a document that is in the store is damaged.
pub fn images_of(store: &Store, root: &Descriptor) -> Result<Vec<PlatformImage>, BuildError> {
    let mut images = Vec::new();
    let mut seen = BTreeSet::new();
    collect_images(store, root, 0, &mut seen, &mut images)?;
    Ok(images)
}

fn collect_images(
    store: &Store,
    descriptor: &Descriptor,
    depth: usize,
    seen: &mut BTreeSet<Digest>,
    images: &mut Vec<PlatformImage>,
) -> Result<(), BuildError> {
    if depth > MAX_DEPTH || !seen.insert(descriptor.digest.clone()) {
        return Ok(());
    }
    if !store.contains(&descriptor.digest) {
        let platform = descriptor.platform.clone().unwrap_or_default().normalized();
        images.push(PlatformImage { descriptor: descriptor.clone(), platform, manifest: None });
        return Ok(());
    }
    match store.image(descriptor).map_err(|error| storage_error(&error))? {
        ManifestOrIndex::Index(index) => {
            for entry in index.value.images() {
                collect_images(store, entry, depth + 1, seen, images)?;
            }
        }
        ManifestOrIndex::Manifest(manifest) => {
            let platform = match &descriptor.platform {
                Some(platform) => platform.clone().normalized(),
                None => {
                    store.config(&manifest.value).map(|config| config.value.platform()).unwrap_or_default()
                }
            };
            images.push(PlatformImage { descriptor: descriptor.clone(), platform, manifest: Some(manifest) });
        }
    }
    Ok(())
}

impl Found {
    /// Returns what messages call the image: its short name, or its digest.
    pub fn shown(&self) -> String {
        match &self.name {
            Some(name) => name.familiar(),
            None => self.descriptor().digest.to_string(),
        }
    }

    /// Returns the document that was meant: one platform's manifest, or else the root.
    pub fn descriptor(&self) -> &Descriptor {
        self.image.as_ref().unwrap_or(&self.root)
    }

    /// Chooses one platform's image and reads its documents.
    ///
    /// Without a platform it is the one that was meant by its digest, else this machine's, else the only
    /// one, else the first that the store has.
    ///
    /// # Errors
    /// When there is none for the platform, or the store lacks it; both name the platforms that are there.
    pub fn select(&self, store: &Store, platform: Option<&Platform>) -> Result<SelectedImage, BuildError> {
        let mut images = images_of(store, &self.root)?;
        if let Some(meant) = &self.image {
            images.retain(|image| image.descriptor.digest == meant.digest);
        }
        let chosen = match platform {
            Some(platform) => best(&images, &PlatformMatcher::strict(platform))
                .ok_or_else(|| self.lacks_platform(&format!("no image for {platform}"), &images))?,
            None => {
                let here: Vec<PlatformImage> =
                    images.iter().filter(|image| image.manifest.is_some()).cloned().collect();
                best(&here, &PlatformMatcher::strict(&Platform::host()))
                    .or_else(|| here.first().cloned())
                    .ok_or_else(|| self.lacks_platform("no image in the store", &images))?
            }
        };
        let lost = || {
            let what = format!("an image for {}, but the store does not have it", chosen.platform);
            let error = self.lacks_platform(&what, &images);
            match &self.name {
                Some(name) => error.with_hint(format!(
                    "polyarch pull --platform {} {}",
                    chosen.platform,
                    name.familiar()
                )),
                None => error,
            }
        };
        let manifest = chosen.manifest.clone().ok_or_else(lost)?;
        if !store.contains(&manifest.value.config.digest) {
            return Err(lost());
        }
        let config = store.config(&manifest.value).map_err(|error| storage_error(&error))?;
        Ok(SelectedImage { descriptor: chosen.descriptor, platform: chosen.platform, manifest, config })
    }

    fn lacks_platform(&self, what: &str, images: &[PlatformImage]) -> BuildError {
        let names = |is_wanted: fn(&PlatformImage) -> bool| {
            let mut names: Vec<String> = Vec::new();
            for image in images.iter().filter(|image| is_wanted(image)) {
                let name = image.platform.to_string();
                if !names.contains(&name) {
                    names.push(name);
                }
            }
            if names.is_empty() { "none".to_owned() } else { names.join(", ") }
        };
        let here = names(|image| image.manifest.is_some());
        let elsewhere = images.iter().any(|image| image.manifest.is_none());
        let mut message = format!("{} has {what}; platforms in the store: {here}", self.shown());
        if elsewhere {
            message.push_str("; named by its index but not in the store: ");
            message.push_str(&names(|image| image.manifest.is_none()));
        }
        BuildError::new(ErrorKind::Platform, message)
    }
}

fn best(images: &[PlatformImage], matcher: &PlatformMatcher) -> Option<PlatformImage> {
    let ranked = images.iter().filter_map(|image| Some((matcher.rank(&image.platform)?, image)));
    // What the store has wins over what it lacks among equals, as with an index that has one twice.
    ranked.min_by_key(|(rank, image)| (*rank, image.manifest.is_none())).map(|(_, image)| image.clone())
}

/// The names of the store and what they point at.
struct Names(Vec<(Reference, Descriptor)>);

impl Names {
    fn read(store: &Store) -> Result<Names, BuildError> {
        let refs = store.refs().map_err(|error| storage_error(&error))?;
        Ok(Names(refs.into_iter().map(|(name, entry)| (name, entry.descriptor)).collect()))
    }

    /// Finds what a text means, as a name first and then as an id.
    fn search(
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
        let Some(id) = Id::parse(text) else { return Ok(None) };
        if let Some(found) = self.by_id(store, text, &id)? {
            return Ok(Some(found));
        }
        Ok(id.full.as_ref().and_then(|digest| nameless(store, digest)))
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
struct Id {
    hex: String,
    full: Option<Digest>,
}

impl Id {
    fn full(digest: &Digest) -> Id {
        Id { hex: digest.hex().to_owned(), full: Some(digest.clone()) }
    }

    fn parse(text: &str) -> Option<Id> {
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

/// Makes the error of an image that isn't there.
fn no_such_image(store: &Store, text: &str) -> BuildError {
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
    use super::*;
    use polyarch_oci::media_type::{self, Flavour};
    use polyarch_oci::{ImageIndex, Manifest};

    struct Fixture {
        _dir: tempfile::TempDir,
        store: Store,
    }

    impl Fixture {
        fn new() -> Fixture {
            let dir = tempfile::tempdir().unwrap();
            let store = Store::open(dir.path()).unwrap();
            Fixture { _dir: dir, store }
        }

        fn image(&self, platform: &str, comment: &str) -> Descriptor {
            let mut config = ImageConfig { author: comment.to_owned(), ..ImageConfig::default() };
            config.set_platform(&platform.parse().unwrap());
            let config = Document::compact(config);
            self.store.put(&config.bytes).unwrap();
            let config = Descriptor::new(media_type::OCI_CONFIG, config.digest.clone(), config.size());
            let manifest = Document::indented(Manifest::new(Flavour::Oci, config, Vec::new()));
            self.store.put(&manifest.bytes).unwrap();
            Descriptor::new(media_type::OCI_MANIFEST, manifest.digest.clone(), manifest.size())
        }

        fn index(&self, name: &str, entries: Vec<Descriptor>) -> Descriptor {
            let index = Document::indented(ImageIndex::new(Flavour::Oci, entries));
            self.store.put(&index.bytes).unwrap();
            let root = Descriptor::new(media_type::OCI_INDEX, index.digest.clone(), index.size());
            self.name(name, &root);
            root
        }

        fn name(&self, name: &str, root: &Descriptor) {
            self.store.set_ref(&name.parse().unwrap(), root).unwrap();
        }

        fn error(&self, text: &str) -> BuildError {
            find(&self.store, text).unwrap_err()
        }
    }

    fn two_platforms(fixture: &Fixture) -> (Descriptor, Descriptor, Descriptor) {
        let of = |platform: &str| fixture.image(platform, "").with_platform(platform.parse().unwrap());
        let (amd64, arm64) = (of("linux/amd64"), of("linux/arm64"));
        let root = fixture.index("user/app:v1", vec![amd64.clone(), arm64.clone()]);
        (root, amd64, arm64)
    }

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

    #[test]
    fn platforms_are_chosen_and_those_that_lack_are_told() {
        let fixture = Fixture::new();
        let (_, _, arm64) = two_platforms(&fixture);
        let elsewhere = Descriptor::new(media_type::OCI_MANIFEST, Digest::of("elsewhere"), 9)
            .with_platform("linux/s390x".parse().unwrap());
        fixture.index("sparse", vec![arm64.clone(), elsewhere]);
        let select = |name: &str, platform: Option<&str>| {
            let platform: Option<Platform> = platform.map(|platform| platform.parse().unwrap());
            find(&fixture.store, name).unwrap().select(&fixture.store, platform.as_ref())
        };
        assert_eq!(select("user/app:v1", Some("arm64")).unwrap().descriptor.digest, arm64.digest);
        assert_eq!(select("user/app:v1", None).unwrap().platform, Platform::host());
        assert_eq!(select("sparse", None).unwrap().platform.to_string(), "linux/arm64");
        let error = select("user/app:v1", Some("linux/riscv64")).unwrap_err();
        assert_eq!(
            error.message,
            "user/app:v1 has no image for linux/riscv64; platforms in the store: linux/amd64, linux/arm64"
        );
        let error = select("sparse", Some("linux/s390x")).unwrap_err();
        assert!(error.message.contains("the store does not have it"), "{}", error.message);
        assert!(error.message.ends_with("not in the store: linux/s390x"), "{}", error.message);
        assert_eq!(error.hints, ["polyarch pull --platform linux/s390x sparse:latest"]);
    }
}
