// SPDX-License-Identifier: Apache-2.0
//! Names of the store: what one means, another name for the same, and names taken away.
//!
//! Only names change here. Blobs that no name reaches any more go at the next prune, which keeps every
//! running build out of harm's way.

use polyarch_build::held::{HeldPlatform, held_platforms};
use polyarch_build::{BuildError, ErrorKind, Services, image_source::storage_error};
use polyarch_oci::{Descriptor, Digest, ManifestOrIndex, Reference, platform::did_you_mean};

/// The fewest digits of an id that are looked up.
const MIN_ID_DIGITS: usize = 4;

/// What a text means in the store.
#[derive(Debug, Clone, PartialEq)]
pub struct Named {
    /// The index or manifest.
    pub root: Descriptor,
    /// Its platforms.
    pub held: Vec<HeldPlatform>,
    /// The name, when the text was one that is set.
    pub name: Option<Reference>,
    /// What stands before the platform in an index of this name, when the text was the digest or id of
    /// one platform's image.
    pub part_of: Option<Reference>,
}

/// Finds an image of the store by name, by name and digest, by digest, or by the first digits of the
/// digest of an index, a manifest or a config.
///
/// # Errors
/// When there is none, with names that are like it, or several.
pub fn find(services: &Services, text: &str) -> Result<Named, BuildError> {
    match look_up(services, text)? {
        Some(found) => Ok(found),
        None => Err(no_such_image(services, text)?),
    }
}

fn look_up(services: &Services, text: &str) -> Result<Option<Named>, BuildError> {
    if let Ok(reference) = text.parse::<Reference>() {
        let reference = reference.with_default_tag();
        if let Some((root, held)) = services.held_image(&reference)? {
            let is_set =
                services.store().get_ref(&reference).map_err(|error| storage_error(&error))?.is_some();
            return Ok(Some(Named { root, held, name: is_set.then_some(reference), part_of: None }));
        }
    }
    if let Ok(digest) = text.parse::<Digest>()
        && let Some(size) = services.store().size(&digest)
        && let Ok(document) = services.store().image(&Descriptor::new("", digest.clone(), size))
    {
        // Also one that no name reaches, such as an image that was loaded without a name.
        let root = Descriptor::new(document.media_type(), digest, size);
        let part_of = find_id(services, root.digest.hex())?.and_then(|found| found.part_of);
        return Ok(Some(Named { held: held_platforms(services.store(), &root)?, root, name: None, part_of }));
    }
    let digits = text.strip_prefix("sha256:").unwrap_or(text);
    let is_id = (MIN_ID_DIGITS..=64).contains(&digits.len())
        && digits.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    if is_id { find_id(services, digits) } else { Ok(None) }
}

/// Makes the error of a name that the store does not have.
fn no_such_image(services: &Services, text: &str) -> Result<BuildError, BuildError> {
    let refs = services.store().refs().map_err(|error| storage_error(&error))?;
    let names: Vec<String> = refs.iter().map(|(name, _)| name.familiar()).collect();
    let known: Vec<&str> = names.iter().map(String::as_str).collect();
    Ok(match text.parse::<Reference>() {
        Ok(reference) => {
            let name = reference.with_default_tag().familiar();
            let like = did_you_mean(&name, &known);
            BuildError::new(ErrorKind::Usage, format!("no such image in the store: {name}{like}"))
                .with_hint(format!("polyarch images lists the names; polyarch pull {name} fetches it"))
        }
        Err(error) => BuildError::from_source(ErrorKind::Usage, "no such image", &error),
    })
}

/// Finds an image by the first digits of one of its digests.
fn find_id(services: &Services, digits: &str) -> Result<Option<Named>, BuildError> {
    let store = services.store();
    let mut found: Vec<Named> = Vec::new();
    let mut add = |candidate: Named| {
        if !found.iter().any(|it| it.root.digest == candidate.root.digest) {
            found.push(candidate);
        }
    };
    for (name, entry) in store.refs().map_err(|error| storage_error(&error))? {
        // A name whose document is damaged has nothing to be found by.
        let Ok(held) = held_platforms(store, &entry.descriptor) else { continue };
        let root = entry.descriptor;
        for platform in &held {
            let manifest = &platform.manifest;
            let config = match store.image(manifest) {
                Ok(ManifestOrIndex::Manifest(manifest)) => Some(manifest.value.config.digest),
                _ => None,
            };
            let is_it = manifest.digest.hex().starts_with(digits)
                || config.is_some_and(|config| config.hex().starts_with(digits));
            if is_it && manifest.digest != root.digest {
                let root = Descriptor::new(&manifest.media_type, manifest.digest.clone(), manifest.size);
                let part_of = Some(name.clone());
                add(Named { root, held: vec![platform.clone()], name: None, part_of });
            } else if is_it {
                add(Named { root: root.clone(), held: held.clone(), name: None, part_of: None });
            }
        }
        if root.digest.hex().starts_with(digits) {
            add(Named { root, held, name: None, part_of: None });
        }
    }
    if found.len() > 1 {
        let digests: Vec<String> = found.iter().map(|it| it.root.digest.to_string()).collect();
        let message = format!("{digits} is the beginning of several digests: {}", digests.join(", "));
        return Err(BuildError::new(ErrorKind::Usage, message).with_hint("write more digits"));
    }
    Ok(found.pop())
}

/// Gives an image of the store another name, for all its platforms.
///
/// # Errors
/// When there is no such image, and what keeps the store from writing.
pub fn tag(services: &Services, source: &str, target: &Reference) -> Result<(), BuildError> {
    if target.digest().is_some() {
        let message = format!("{target}: a new name has a tag and no digest, which the image has by itself");
        return Err(BuildError::new(ErrorKind::Usage, message));
    }
    let found = find(services, source)?;
    services.store().set_ref(target, &found.root).map_err(|error| storage_error(&error))
}

/// Takes names away; returns those that are gone, none when `force` meets an image that is not there.
///
/// A name goes alone. A digest or an id takes all names of its image, when it has one, or `force` says so.
///
/// # Errors
/// When there is no such image, and when several names would go that nobody named.
pub fn remove(services: &Services, text: &str, force: bool) -> Result<Vec<Reference>, BuildError> {
    let store = services.store();
    let found = match look_up(services, text)? {
        Some(found) => found,
        None if force => return Ok(Vec::new()),
        None => return Err(no_such_image(services, text)?),
    };
    if let Some(name) = &found.part_of {
        let platform = found.held.first().map(|it| it.platform.to_string()).unwrap_or_default();
        let message =
            format!("{text} is {platform} of {}, and only whole names can be removed", name.familiar());
        return Err(
            BuildError::new(ErrorKind::Usage, message).with_hint(format!("polyarch rmi {}", name.familiar()))
        );
    }
    let names = match found.name {
        Some(name) => vec![name],
        None => {
            let refs = store.refs().map_err(|error| storage_error(&error))?;
            let of_it = refs.into_iter().filter(|(_, entry)| entry.descriptor.digest == found.root.digest);
            // With a repository before the digest, only its names are meant.
            let repository = text.parse::<Reference>().ok().filter(|it| it.digest().is_some());
            of_it
                .map(|(name, _)| name)
                .filter(|name| repository.as_ref().is_none_or(|it| it.name() == name.name()))
                .collect()
        }
    };
    if names.is_empty() {
        let message = format!("{text} has no name any more; polyarch prune removes it");
        return Err(BuildError::new(ErrorKind::Usage, message));
    }
    if names.len() > 1 && !force {
        let list: Vec<String> = names.iter().map(Reference::familiar).collect();
        let message = format!("{text} has several names: {}", list.join(", "));
        return Err(BuildError::new(ErrorKind::Usage, message)
            .with_hint("name the one to remove, or remove all of them with --force"));
    }
    for name in &names {
        store.remove_ref(name).map_err(|error| storage_error(&error))?;
    }
    Ok(names)
}
