// SPDX-License-Identifier: Apache-2.0
//! Names of the store: what one means, another name for the same, and names taken away.
//!
//! Only names change here. Blobs that no name reaches any more go at the next prune, which keeps every
//! running build out of harm's way.

use polyarch_build::held::{HeldPlatform, held_platforms};
use polyarch_build::{BuildError, ErrorKind, Services, image_source::storage_error};
use polyarch_oci::{Descriptor, Reference};

use crate::lookup;

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

/// Finds an image of the store by name, by name and digest, by digest, or by the beginning of an id.
///
/// # Errors
/// When there is none, with names that are like it, or several.
pub fn find(services: &Services, text: &str) -> Result<Named, BuildError> {
    match look_up(services, text)? {
        Some(found) => Ok(found),
        None => Err(lookup::no_such_image(services.store(), text)),
    }
}

fn look_up(services: &Services, text: &str) -> Result<Option<Named>, BuildError> {
    let store = services.store();
    let Some(found) = lookup::look_up(store, text)? else { return Ok(None) };
    let meant = found.descriptor();
    let root = Descriptor::new(&meant.media_type, meant.digest.clone(), meant.size);
    let mut held = held_platforms(store, &found.root)?;
    if found.image.is_some() {
        held.retain(|it| it.manifest.digest == root.digest);
    }
    if held.is_empty() {
        held = held_platforms(store, meant)?;
    }
    let part_of = found.image.is_some().then(|| found.name.clone()).flatten();
    // With a digest behind it a name tells where to look, and is not the one that is set.
    let reference = text.parse::<Reference>().ok().map(Reference::with_default_tag);
    let name = found.name.filter(|name| found.is_by_name && reference.as_ref() == Some(name));
    Ok(Some(Named { root, held, name, part_of }))
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
    if ["sha256", "sha512"].contains(&target.familiar().split(':').next().unwrap_or_default()) {
        let message = format!("{}: a name must not look like a digest", target.familiar());
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
        None => {
            let mut error = lookup::no_such_image(services.store(), text);
            // What is to go is not fetched first.
            error.hints.retain(|hint| !hint.starts_with("polyarch pull"));
            if error.hints.is_empty() {
                error.hints.push("polyarch images lists those that there are".to_owned());
            }
            return Err(error);
        }
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
