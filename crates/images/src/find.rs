// SPDX-License-Identifier: Apache-2.0
//! Finding an image: in the local store, in a registry, in a layout or an archive.

use std::path::Path;
use std::sync::Arc;

use polyarch_build::fetch::{Shown, blocking, registry_error};
use polyarch_build::image_source::storage_error;
use polyarch_build::{BuildError, ErrorKind, Services};
use polyarch_oci::manifest::MAX_MANIFEST_BYTES;
use polyarch_oci::{Descriptor, Digest, ManifestOrIndex, Reference};
use polyarch_registry::RegistryError;
use polyarch_store::{Missing, NamedImage};

use crate::found::{FoundImage, Origin, text_of};
use crate::layout_files::LayoutFiles;
use crate::lookup::with_near_names;
use crate::source::{ImageSource, LayoutLocation};
use crate::words::first_of;

/// Where names are looked up, and in which order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Lookup {
    /// The store's own name wins; else the registry is asked.
    #[default]
    StoreThenRegistry,
    /// The registry is asked; what it does not have, refuses to show or is not there to give, the store may.
    RegistryThenStore,
    /// The registry alone.
    RegistryOnly,
    /// The store alone; nothing is asked of any registry.
    StoreOnly,
}

/// How to find images.
#[derive(Debug, Clone, Default)]
pub struct FindOptions {
    /// Where names are looked up.
    pub lookup: Lookup,
    /// The repository of digests and descriptors that come without a name.
    pub repository: Option<Reference>,
}

impl FindOptions {
    /// Makes options that look names up in this order.
    pub fn new(lookup: Lookup) -> FindOptions {
        FindOptions { lookup, repository: None }
    }
}

/// Finds an image and reads its document.
///
/// An archive is read into the store as a whole, of a layout only what is asked for. No name is set.
///
/// # Errors
/// When there is no such image (with names of the store that are near), when the registry refuses, and
/// when what is found is damaged.
pub async fn find(
    services: &Arc<Services>,
    source: &ImageSource,
    options: &FindOptions,
    shown: &Shown,
) -> Result<FoundImage, BuildError> {
    let finder = Finder { services, shown, options, name: source.to_string() };
    match source {
        ImageSource::Reference(reference) => finder.reference(reference).await,
        ImageSource::Digest(digest) => finder.digest(digest, None).await,
        ImageSource::Descriptor(descriptor) => finder.digest(&descriptor.digest, Some(descriptor)).await,
        ImageSource::Layout(location) => finder.layout(location).await,
        ImageSource::Archive { path, name } => finder.archive(path, name.as_deref()).await,
    }
}

struct Finder<'a> {
    services: &'a Arc<Services>,
    shown: &'a Shown,
    options: &'a FindOptions,
    name: String,
}

impl Finder<'_> {
    async fn reference(&self, reference: &Reference) -> Result<FoundImage, BuildError> {
        let error = match self.options.lookup {
            Lookup::StoreOnly => {
                return self.stored(reference)?.ok_or_else(|| {
                    let error = BuildError::new(
                        ErrorKind::Usage,
                        format!("the store has no image {}", reference.familiar()),
                    );
                    with_near_names(self.services.store(), error, &self.name)
                        .with_hint(format!("polyarch pull {}", reference.familiar()))
                });
            }
            Lookup::StoreThenRegistry => {
                if let Some(found) = self.stored(reference)? {
                    return Ok(found);
                }
                match self.remote(reference).await? {
                    Ok(found) => return Ok(found),
                    Err(error) => error,
                }
            }
            Lookup::RegistryOnly => match self.remote(reference).await? {
                Ok(found) => return Ok(found),
                Err(error) => error,
            },
            Lookup::RegistryThenStore => match self.remote(reference).await? {
                Ok(found) => return Ok(found),
                // An overloaded registry may have another image under the name: that is no answer.
                Err(error) if has_no_answer(&error) => match self.stored(reference)? {
                    Some(found) => {
                        self.shown.progress.warn(format!(
                            "{} is taken from the local store ({}), because the registry does not give it: {}",
                            reference.familiar(),
                            found.descriptor.digest,
                            text_of(&error)
                        ));
                        return Ok(found);
                    }
                    None => error,
                },
                Err(error) => error,
            },
        };
        let context = format!("can't find {}", reference.familiar());
        Err(with_near_names(self.services.store(), registry_error(context, &error), &self.name))
    }

    /// Looks a name up in the store; a name with a digest also as that document.
    fn stored(&self, reference: &Reference) -> Result<Option<FoundImage>, BuildError> {
        let store = self.services.store();
        let entry = store.get_ref(reference).map_err(|error| storage_error(&error))?;
        let descriptor = match (entry, reference.digest()) {
            (Some(entry), None) => entry.descriptor,
            (Some(entry), Some(digest)) if entry.descriptor.digest == *digest => entry.descriptor,
            (_, Some(digest)) => match store.size(digest) {
                Some(size) => Descriptor::new("", digest.clone(), size),
                None => return Ok(None),
            },
            (None, None) => return Ok(None),
        };
        if !store.contains(&descriptor.digest) {
            return Ok(None);
        }
        self.stored_document(descriptor, Origin::Store(Some(reference.clone()))).map(Some)
    }

    fn stored_document(&self, descriptor: Descriptor, origin: Origin) -> Result<FoundImage, BuildError> {
        let document = self.services.store().image(&descriptor).map_err(|error| {
            let mut error = storage_error(&error);
            error.message = format!("{}: {}", self.name, error.message);
            error
        })?;
        Ok(self.found(descriptor, document, origin))
    }

    /// Asks the registry; what it answers is kept in the store, without a name.
    async fn remote(&self, reference: &Reference) -> Result<Result<FoundImage, RegistryError>, BuildError> {
        let fetched = match self.services.registry().get_manifest(reference).await {
            Ok(fetched) => fetched,
            Err(error) => return Ok(Err(error)),
        };
        let descriptor = fetched.descriptor();
        let document =
            ManifestOrIndex::parse(fetched.bytes.to_vec(), &fetched.media_type).map_err(|error| {
                let message = format!("{} is not an image", reference.familiar());
                BuildError::from_source(ErrorKind::Registry, message, &error)
            })?;
        self.services
            .store()
            .put_as(&descriptor.digest, document.bytes())
            .map_err(|error| storage_error(&error))?;
        Ok(Ok(self.found(descriptor, document, Origin::Registry(reference.clone()))))
    }

    /// Finds a document by its digest; `known` is what a descriptor says about it.
    async fn digest(&self, digest: &Digest, known: Option<&Descriptor>) -> Result<FoundImage, BuildError> {
        let from = self.options.repository.as_ref().map(|repository| repository.with_digest(digest.clone()));
        let mut found = match (&from, self.services.store().size(digest)) {
            (Some(from), _) if self.options.lookup != Lookup::StoreOnly => self.reference(from).await?,
            (_, Some(size)) => {
                self.stored_document(Descriptor::new("", digest.clone(), size), Origin::Store(from))?
            }
            _ => {
                let message = format!("the store has no document {digest}, and no repository is named");
                return Err(BuildError::new(ErrorKind::Usage, message)
                    .with_hint(format!("write the repository too: NAME@{digest}")));
            }
        };
        let Some(known) = known else { return Ok(found) };
        if known.size != 0 && known.size != found.descriptor.size {
            let (own, size) = (known.size, found.descriptor.size);
            return Err(BuildError::new(
                ErrorKind::Usage,
                format!("the descriptor of {digest} says {own} bytes, the document has {size}"),
            ));
        }
        // What the user says about a document wins; what is not said is read from the document.
        let mut descriptor = known.clone();
        descriptor.size = found.descriptor.size;
        if descriptor.media_type.is_empty() {
            descriptor.media_type = found.descriptor.media_type.clone();
        }
        found.descriptor = descriptor;
        Ok(found)
    }

    async fn layout(&self, location: &LayoutLocation) -> Result<FoundImage, BuildError> {
        let files = LayoutFiles::new(&location.path);
        let descriptor = match (&location.digest, &location.tag) {
            (Some(digest), _) => files.descriptor(digest)?,
            (None, tag) => files.entry(tag.as_deref())?,
        };
        if descriptor.size > MAX_MANIFEST_BYTES {
            let message = format!("{location}: {} is too large for an image's document", descriptor.digest);
            return Err(BuildError::new(ErrorKind::Usage, message).with_hint(format!(
                "it says {} bytes, at most {MAX_MANIFEST_BYTES} are read",
                descriptor.size
            )));
        }
        if !self.services.store().contains(&descriptor.digest) {
            files.import(self.services.store(), &descriptor).map_err(|mut error| {
                error.message = format!("{location}: {}", error.message);
                error
            })?;
        }
        self.stored_document(descriptor, Origin::Layout(location.path.clone()))
    }

    async fn archive(&self, path: &Path, name: Option<&str>) -> Result<FoundImage, BuildError> {
        let file = std::fs::File::open(path).map_err(|error| BuildError::io("can't read", path, &error))?;
        let store = self.services.store().clone();
        let images = blocking(move || store.import_archive(file, Missing::Skip)).await.map_err(|error| {
            let message = format!("can't read the image of {}", path.display());
            BuildError::from_source(ErrorKind::Usage, message, &error)
        })?;
        let image = choose(path, name, &images)?;
        self.stored_document(image.descriptor.clone(), Origin::Archive(path.to_owned()))
    }

    fn found(&self, mut descriptor: Descriptor, document: ManifestOrIndex, origin: Origin) -> FoundImage {
        if descriptor.media_type.is_empty() {
            descriptor.media_type = document.media_type().to_owned();
        }
        FoundImage {
            services: self.services.clone(),
            shown: self.shown.clone(),
            name: self.name.clone(),
            descriptor,
            document,
            origin,
        }
    }
}

/// Tells whether a registry has nothing to say about a name: it lacks it, hides it, or is not there.
fn has_no_answer(error: &RegistryError) -> bool {
    error.is_not_found()
        || matches!(
            error,
            RegistryError::Unauthorized { .. } | RegistryError::Denied { .. } | RegistryError::Connect { .. }
        )
}

/// Chooses an image of an archive.
fn choose<'a>(
    path: &Path,
    name: Option<&str>,
    images: &'a [NamedImage],
) -> Result<&'a NamedImage, BuildError> {
    let names = || -> Vec<String> {
        images.iter().filter_map(|image| image.name.as_ref()).map(Reference::familiar).collect()
    };
    let found = match name {
        Some(name) => {
            let wanted: Option<Reference> = name.parse().ok().map(Reference::with_default_tag);
            images.iter().find(|image| {
                image.ref_name.as_deref() == Some(name) || (image.name.is_some() && image.name == wanted)
            })
        }
        None => images
            .first()
            .filter(|first| images.iter().all(|image| image.descriptor.digest == first.descriptor.digest)),
    };
    found.ok_or_else(|| {
        let what = name.map_or_else(|| "more than one image".to_owned(), |name| format!("no image {name}"));
        let error = BuildError::new(ErrorKind::Usage, format!("{} has {what}", path.display()));
        let names = names();
        if names.is_empty() { error } else { error.with_hint(format!("it has {}", first_of(&names))) }
    })
}
