// SPDX-License-Identifier: Apache-2.0
//! The platforms' images below a root, and the choice of one of them.

use std::collections::BTreeSet;

use polyarch_build::image_source::storage_error;
use polyarch_build::{BuildError, ErrorKind};
use polyarch_oci::{
    Descriptor, Digest, Document, ImageConfig, Manifest, ManifestOrIndex, Platform, PlatformMatcher,
};
use polyarch_store::Store;

use super::Found;

/// The deepest nesting of indexes that is looked into.
const MAX_DEPTH: usize = 8;

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

#[cfg(test)]
mod tests {
    use polyarch_oci::media_type;

    use super::*;
    use crate::lookup::find;
    use crate::lookup::fixture::{Fixture, two_platforms};

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
