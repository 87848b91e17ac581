// SPDX-License-Identifier: Apache-2.0
//! An image written as an OCI layout directory.

use std::sync::Arc;

use polyarch_build::error::chain_of;
use polyarch_build::fetch::blocking;
use polyarch_build::image_source::storage_error;
use polyarch_build::{BuildError, ErrorKind, Services};
use polyarch_store::{LayoutOptions, NamedImage};

use crate::compose::Composed;
use crate::found::FoundImage;
use crate::source::LayoutLocation;

/// Writes a composed image into a layout, under the location's name; what is there already stays.
///
/// Everything passes through the store. The layout's `index.json` is replaced last, by a rename.
///
/// # Errors
/// When a source lacks a part, when the location names another digest, and when the disk refuses.
pub async fn write_layout(
    services: &Arc<Services>,
    sources: &[FoundImage],
    composed: &Composed,
    location: &LayoutLocation,
) -> Result<(), BuildError> {
    if let Some(digest) = location.digest.as_ref().filter(|digest| **digest != composed.descriptor.digest) {
        let message = format!("{location} asks for {digest}, the image is {}", composed.descriptor.digest);
        return Err(BuildError::new(ErrorKind::Usage, message).with_hint("leave the digest out"));
    }
    for (entry, at) in &composed.entries {
        if let Some(source) = sources.get(*at) {
            source.ensure_all(entry).await?;
        }
    }
    services.store().put(&composed.bytes).map_err(|error| storage_error(&error))?;
    let mut descriptor = composed.descriptor.clone();
    descriptor.platform = None;
    let image = NamedImage { descriptor, name: None, ref_name: location.tag.clone() };
    let (store, path) = (services.store().clone(), location.path.clone());
    blocking(move || store.write_layout(&[image], LayoutOptions::default(), &path)).await.map_err(|error| {
        BuildError::new(ErrorKind::Storage, format!("can't write {location}: {}", chain_of(&error)))
    })
}
