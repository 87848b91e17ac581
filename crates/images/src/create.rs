// SPDX-License-Identifier: Apache-2.0
//! A new image of images: found, composed, copied to its repositories, and named.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::future::{join_all, try_join_all};
use polyarch_build::fetch::Shown;
use polyarch_build::{BuildError, ErrorKind, Services};
use polyarch_oci::Reference;
use polyarch_solver::progress::Progress;

use crate::combine::combine;
use crate::compose::{ComposeOptions, Composed};
use crate::copy::Copier;
use crate::find::{FindOptions, Lookup, find};
use crate::found::FoundImage;
use crate::layout_target::write_layout;
use crate::source::{ImageSource, LayoutLocation};

/// Where an image goes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A name in a registry.
    Reference(Reference),
    /// A name in an OCI layout directory.
    Layout(LayoutLocation),
}

/// What to make of what.
#[derive(Debug, Clone)]
pub struct CreateRequest {
    /// The sources, in order.
    pub sources: Vec<ImageSource>,
    /// The names that the new image gets.
    pub targets: Vec<Target>,
    /// Adds to the image that the first target is now.
    pub append: bool,
    /// How they are composed.
    pub options: ComposeOptions,
}

/// Images that were found, and what they make together.
pub struct Creation {
    sources: Vec<FoundImage>,
    /// The new image.
    pub composed: Composed,
}

impl Target {
    /// Reads a target.
    ///
    /// # Errors
    /// When the text is neither a name nor a place in an OCI layout.
    pub fn parse(text: &str) -> Result<Target, BuildError> {
        match ImageSource::parse(text)? {
            ImageSource::Reference(reference) => Ok(Target::Reference(reference)),
            ImageSource::Layout(location) => Ok(Target::Layout(location)),
            _ => Err(BuildError::new(ErrorKind::Usage, format!("an image can't be written to {text:?}"))
                .with_hint("write NAME:TAG or oci-layout://DIR:TAG")),
        }
    }

    /// Returns the repository, or the layout's directory.
    pub fn place(&self) -> String {
        match self {
            Target::Reference(reference) => reference.name(),
            Target::Layout(location) => location.path.display().to_string(),
        }
    }

    fn to_source(&self) -> ImageSource {
        match self {
            Target::Reference(reference) => ImageSource::Reference(reference.clone()),
            Target::Layout(location) => ImageSource::Layout(location.clone()),
        }
    }
}

/// Finds the sources and composes them. Nothing is written to a target.
///
/// A digest or descriptor without a name is of the one repository that is named elsewhere, or of the store.
///
/// # Errors
/// When a source can't be found or the sources can't be composed.
pub async fn prepare(
    services: &Arc<Services>,
    request: &CreateRequest,
    shown: &Shown,
) -> Result<Creation, BuildError> {
    let repository = only_place(request);
    let place = |source: &ImageSource| match (source, &repository) {
        (ImageSource::Digest(digest), Some(ImageSource::Layout(location))) => {
            ImageSource::Layout(location.with_digest(digest.clone()))
        }
        _ => source.clone(),
    };
    let mut wanted: Vec<(ImageSource, Lookup)> =
        request.sources.iter().map(|source| (place(source), Lookup::RegistryThenStore)).collect();
    if let Some(first) = request.targets.first().filter(|_| request.append) {
        // What the store has under the name is not what is added to.
        wanted.insert(0, (first.to_source(), Lookup::RegistryOnly));
    }
    let reference = match &repository {
        Some(ImageSource::Reference(reference)) => Some(reference.clone()),
        _ => None,
    };
    let found = wanted.iter().enumerate().map(|(at, (source, lookup))| {
        let options = FindOptions { lookup: *lookup, repository: reference.clone() };
        let is_appended_to = request.append && at == 0;
        async move {
            let found = find(services, source, &options, shown).await;
            found.map_err(|error| {
                if is_appended_to {
                    return error
                        .with_hint("--append adds to an image that is there; leave it out to make one");
                }
                error
            })
        }
    });
    let sources = try_join_all(found).await?;
    let composed = combine(&sources, &request.options).await?;
    Ok(Creation { sources, composed })
}

/// Returns the place that everything is in, when there is one: of a source rather than of a target.
fn only_place(request: &CreateRequest) -> Option<ImageSource> {
    let named = request
        .sources
        .iter()
        .filter(|source| matches!(source, ImageSource::Reference(_) | ImageSource::Layout(_)));
    let places: Vec<ImageSource> =
        named.cloned().chain(request.targets.iter().map(Target::to_source)).collect();
    let name = |source: &ImageSource| match source {
        ImageSource::Reference(reference) => reference.name(),
        ImageSource::Layout(location) => location.path.display().to_string(),
        other => other.to_string(),
    };
    let names: BTreeSet<String> = places.iter().map(name).collect();
    if names.len() == 1 { places.into_iter().next() } else { None }
}

impl Creation {
    /// Copies the image to all targets, and names it when it is everywhere.
    ///
    /// # Errors
    /// When a source lacks a part, and what the registries refuse; then no name was set, unless one of
    /// several was refused.
    pub async fn publish(
        &self,
        services: &Arc<Services>,
        targets: &[Target],
        progress: &Progress,
    ) -> Result<(), BuildError> {
        let mut repositories: BTreeMap<String, Vec<&Reference>> = BTreeMap::new();
        let mut layouts = Vec::new();
        for target in targets {
            match target {
                Target::Reference(name) => {
                    self.check_digest(name)?;
                    repositories.entry(name.name()).or_default().push(name);
                }
                Target::Layout(location) => layouts.push(location),
            }
        }
        let copied =
            join_all(repositories.iter().map(|(place, names)| self.copy(services, place, names, progress)))
                .await;
        let copiers = copied.into_iter().collect::<Result<Vec<Copier>, BuildError>>()?;
        for location in layouts {
            let text = location.to_string();
            let vertex = progress.begin(&text, format!("writing {text}"));
            match write_layout(services, &self.sources, &self.composed, location).await {
                Ok(()) => vertex.done(),
                Err(error) => {
                    vertex.failed(&error);
                    return Err(error);
                }
            }
        }
        for (copier, names) in copiers.iter().zip(repositories.values()) {
            for name in names {
                copier.publish(name, &self.composed.bytes, &self.composed.descriptor).await?;
            }
        }
        Ok(())
    }

    async fn copy(
        &self,
        services: &Arc<Services>,
        place: &str,
        names: &[&Reference],
        progress: &Progress,
    ) -> Result<Copier, BuildError> {
        let vertex = progress.begin(place, format!("pushing {place}"));
        let shown = Shown { progress: progress.clone(), vertex: vertex.digest() };
        let target = names.first().expect("a repository is in the map with its first name");
        let copier = Copier::new(services, target, &shown);
        let all = async {
            for (entry, at) in &self.composed.entries {
                if let Some(source) = self.sources.get(*at) {
                    let text = format!("copying {} from {} to {place}", entry.digest, source.name);
                    let _status = vertex.status(text, 0);
                    copier.copy(source, entry).await?;
                }
            }
            Ok(())
        };
        match all.await {
            Ok(()) => {
                vertex.done();
                Ok(copier)
            }
            Err(error) => {
                let error: BuildError = error;
                vertex.failed(&error);
                Err(error)
            }
        }
    }

    fn check_digest(&self, name: &Reference) -> Result<(), BuildError> {
        let digest = &self.composed.descriptor.digest;
        match name.digest().filter(|wanted| *wanted != digest) {
            None => Ok(()),
            Some(wanted) => {
                let message = format!("{} asks for {wanted}, the image is {digest}", name.name());
                Err(BuildError::new(ErrorKind::Usage, message).with_hint("leave the digest out"))
            }
        }
    }
}
