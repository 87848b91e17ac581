// SPDX-License-Identifier: Apache-2.0
//! Images by name: which document a name means, and which image of it a platform gets.

use std::sync::Arc;

use polyarch_oci::{
    Descriptor, Digest, Document, ImageConfig, ImageIndex, Manifest, ManifestOrIndex, Platform,
    PlatformMatcher, Reference, config, media_type,
};
use polyarch_registry::RegistryError;
use polyarch_solver::progress::Progress;
use polyarch_store::StoreError;

use crate::error::{BuildError, ErrorKind, chain_of};
use crate::fetch::{Shown, registry_error};
use crate::request::PullPolicy;
use crate::services::Services;
use crate::tree::ImageLayer;

/// One platform's image of a name.
#[derive(Debug, Clone)]
pub struct ResolvedImage {
    /// The name it was asked by.
    pub reference: Reference,
    /// The document that the name means: an index, or the manifest itself.
    pub root: Descriptor,
    /// The manifest.
    pub manifest: Document<Manifest>,
    /// The config.
    pub config: Document<ImageConfig>,
    /// The platform that the image declares.
    pub platform: Platform,
    /// The layers, lowest first.
    pub layers: Vec<ImageLayer>,
}

impl ResolvedImage {
    /// Returns the platform whose programs it has: the one it was asked for, unless it says another.
    pub(crate) fn platform_of_programs(&self, wanted: &Platform) -> Platform {
        let fits = PlatformMatcher::strict(wanted).rank(&self.platform).is_some();
        if fits || self.platform.architecture.is_empty() { wanted.clone() } else { self.platform.clone() }
    }
}

/// What a name means, before a platform is chosen.
#[derive(Debug, Clone)]
pub struct RootDocument {
    /// Its descriptor.
    pub descriptor: Descriptor,
    /// The document.
    pub document: ManifestOrIndex,
    /// The repository that has what the document names; `None` when the store has all of it.
    pub from: Option<Reference>,
}

impl Services {
    /// Finds the image of a platform under a name.
    ///
    /// A name in the store wins, unless `pull` says to ask; otherwise the registry is asked, and what
    /// it said last time serves when it can't be reached. For the build of a client the registry is always
    /// asked, with the client's credentials, save for what the client itself has sent.
    ///
    /// # Errors
    /// When no registry has it, or it lacks the platform.
    pub async fn resolve_image(
        self: &Arc<Self>,
        reference: &Reference,
        platform: &Platform,
        pull: PullPolicy,
        shown: &Shown,
    ) -> Result<ResolvedImage, BuildError> {
        let root = self.resolve_root(reference, Some(platform), pull, &shown.progress).await?;
        self.select_image(reference, &root, platform, shown).await
    }

    /// Finds the document that a name means.
    ///
    /// # Errors
    /// When neither the store nor the registry has it.
    pub async fn resolve_root(
        self: &Arc<Self>,
        reference: &Reference,
        platform: Option<&Platform>,
        pull: PullPolicy,
        progress: &Progress,
    ) -> Result<RootDocument, BuildError> {
        let reference = reference.clone().with_default_tag();
        if pull != PullPolicy::Always
            && let Some(root) = self.own_root(&reference)?
            && platform.is_none_or(|platform| self.may_serve(&root, platform))
        {
            return Ok(root);
        }
        if pull == PullPolicy::Never {
            if let (Some(platform), Some((_, held))) = (platform, self.held_image(&reference)?) {
                return Err(crate::held::not_held(&reference.familiar(), platform, &held));
            }
            return Err(BuildError::new(
                ErrorKind::Usage,
                format!("the store has no image {reference}, and pulling is switched off"),
            )
            .with_hint(format!("polyarch pull {}", reference.familiar())));
        }
        // Every platform of a build sees the same answer, also when the name moves meanwhile.
        let key = format!("{pull:?} {reference}");
        self.roots.get(&key, || self.ask_for_root(&reference, pull, progress)).await
    }

    /// Asks the registry what a name means; by default, what it said last time serves when it can't be reached.
    async fn ask_for_root(
        self: &Arc<Self>,
        reference: &Reference,
        pull: PullPolicy,
        progress: &Progress,
    ) -> Result<RootDocument, BuildError> {
        let error = match self.remote_root(reference).await {
            Ok(root) => return Ok(root),
            Err(Unresolved::Document(error)) => {
                let message = format!("{} is not an image", reference.familiar());
                return Err(BuildError::from_source(ErrorKind::Registry, message, &error));
            }
            Err(Unresolved::Registry(error)) => error,
        };
        let failure = registry_error(format!("can't resolve {}", reference.familiar()), &error);
        if pull != PullPolicy::Default || !is_unreachable(&error) || self.is_for_client() {
            return Err(failure);
        }
        let root = self.remembered_root(reference)?.ok_or(failure)?;
        progress.warn(format!(
            "{}; using {} as {} pointed at it last time",
            chain_of(&error),
            root.descriptor.digest,
            reference.familiar()
        ));
        Ok(root)
    }

    /// Imports an image of an OCI layout directory: by digest, by the layout's own name, or the only one.
    ///
    /// # Errors
    /// When the directory is no layout, or lacks that image.
    pub(crate) fn layout_root(
        &self,
        directory: &std::path::Path,
        tag: Option<&str>,
        digest: Option<&Digest>,
    ) -> Result<RootDocument, BuildError> {
        let failed = |error: StoreError| {
            let context = format!("can't read the OCI layout {}", directory.display());
            BuildError::from_source(ErrorKind::Usage, context, &error)
        };
        let images = self.store.layout_images(directory).map_err(failed)?;
        let wanted = tag.unwrap_or("latest");
        let descriptor = match digest {
            Some(digest) => Some(Descriptor::new("", digest.clone(), 0)),
            None => images
                .iter()
                .find(|image| image.ref_name.as_deref() == Some(wanted))
                .or_else(|| images.first().filter(|_| tag.is_none() && images.len() == 1))
                .map(|image| image.descriptor.clone()),
        };
        let Some(descriptor) = descriptor else {
            let names: Vec<&str> = images.iter().filter_map(|image| image.ref_name.as_deref()).collect();
            let message = format!("the OCI layout {} has no image {wanted}", directory.display());
            return Err(BuildError::new(ErrorKind::Usage, message).with_hint(match names.as_slice() {
                [] => "its images have no names; write @DIGEST behind the path".to_owned(),
                names => format!("it has: {}", names.join(", ")),
            }));
        };
        let descriptor = self.store.import_layout_image(directory, &descriptor).map_err(failed)?;
        let document = self.store.image(&descriptor).map_err(failed)?;
        Ok(RootDocument { descriptor, document, from: None })
    }

    /// Looks a name up among what this build may use without asking a registry.
    fn own_root(&self, reference: &Reference) -> Result<Option<RootDocument>, BuildError> {
        match !self.is_for_client() || reference.digest().is_some_and(|digest| self.has_sent(digest)) {
            true => self.local_root(reference),
            false => Ok(None),
        }
    }

    /// Looks a name up in the store: as a name, or as a digest whose document is here.
    pub(crate) fn local_root(&self, reference: &Reference) -> Result<Option<RootDocument>, BuildError> {
        let entry = self.store.get_ref(reference).map_err(|error| storage_error(&error))?;
        if let Some(entry) = entry {
            return self.stored_document(&entry.descriptor, None);
        }
        let Some(digest) = reference.digest() else { return Ok(None) };
        let Some(size) = self.store.size(digest) else { return Ok(None) };
        // A blob that is no document is a layer or a config, which this name does not mean.
        let Ok(document) = self.store.image(&Descriptor::new("", digest.clone(), size)) else {
            return Ok(None);
        };
        let descriptor = Descriptor::new(document.media_type(), digest.clone(), size);
        Ok(Some(RootDocument { descriptor, document, from: None }))
    }

    /// Reads what a registry said about a name last time.
    fn remembered_root(&self, reference: &Reference) -> Result<Option<RootDocument>, BuildError> {
        let record = self.store.get_record(RESOLUTIONS, &resolution_key(reference));
        let Ok(Some(bytes)) = record else { return Ok(None) };
        let Ok(descriptor) = serde_json::from_slice::<Descriptor>(&bytes) else { return Ok(None) };
        self.stored_document(&descriptor, Some(reference.clone()))
    }

    fn stored_document(
        &self,
        descriptor: &Descriptor,
        from: Option<Reference>,
    ) -> Result<Option<RootDocument>, BuildError> {
        if !self.store.contains(&descriptor.digest) {
            return Ok(None);
        }
        let document = self.store.image(descriptor).map_err(|error| storage_error(&error))?;
        Ok(Some(RootDocument { descriptor: descriptor.clone(), document, from }))
    }

    /// Tells whether a stored document has an image for a platform; a single manifest always may.
    fn may_serve(&self, root: &RootDocument, platform: &Platform) -> bool {
        match &root.document {
            ManifestOrIndex::Index(index) => {
                let selected = PlatformMatcher::strict(platform).select(&index.value);
                // A sparse index in the store, as after pulling one platform, does not have the others.
                selected.is_some_and(|entry| self.store.contains(&entry.digest))
            }
            ManifestOrIndex::Manifest(_) => true,
        }
    }

    async fn remote_root(self: &Arc<Self>, reference: &Reference) -> Result<RootDocument, Unresolved> {
        let is_worth_asking = match reference.digest() {
            Some(digest) => self.is_for_client() && self.has_document(digest, Some(reference)),
            None => self
                .store
                .get_record(RESOLUTIONS, resolution_key(reference).as_str())
                .is_ok_and(|it| it.is_some()),
        };
        let digest = match reference.digest() {
            // A small question first: when the document is here, its bytes need not come again.
            _ if is_worth_asking => {
                Some(self.registry.head_manifest(reference).await.map_err(Unresolved::Registry)?.digest)
            }
            Some(digest) => Some(digest.clone()).filter(|_| !self.is_for_client()),
            None => None,
        };
        if let Some(digest) = &digest
            && reference.digest().is_none_or(|wanted| wanted == digest)
            && self.has_document(digest, Some(reference))
            && let Some(size) = self.store.size(digest)
            && let Ok(Some(root)) =
                self.stored_document(&Descriptor::new("", digest.clone(), size), Some(reference.clone()))
        {
            let descriptor = Descriptor::new(root.document.media_type(), digest.clone(), size);
            self.remember_root(reference, &descriptor);
            return Ok(RootDocument { descriptor, ..root });
        }
        let fetched = self.registry.get_manifest(reference).await.map_err(Unresolved::Registry)?;
        let descriptor = fetched.descriptor();
        let document = ManifestOrIndex::parse(fetched.bytes.to_vec(), &fetched.media_type)
            .map_err(Unresolved::Document)?;
        // Keeping it is only a saving for next time.
        if self.store.put_as(&descriptor.digest, document.bytes()).is_ok() {
            self.note_served(&descriptor.digest, reference);
            self.remember_root(reference, &descriptor);
        }
        Ok(RootDocument { descriptor, document, from: Some(reference.clone()) })
    }

    fn remember_root(&self, reference: &Reference, descriptor: &Descriptor) {
        if let Ok(record) = serde_json::to_vec(descriptor) {
            let _ = self.store.put_record(RESOLUTIONS, &resolution_key(reference), &record);
        }
    }

    /// Chooses a platform's image of a document and reads its manifest and config.
    ///
    /// # Errors
    /// When the document lacks the platform or is damaged.
    pub async fn select_image(
        self: &Arc<Self>,
        reference: &Reference,
        root: &RootDocument,
        platform: &Platform,
        shown: &Shown,
    ) -> Result<ResolvedImage, BuildError> {
        let image = self.select_any(reference, root, platform, shown).await?;
        let declared = &image.platform;
        let is_taken_as_it_is =
            self.options.takes_lone_images && matches!(root.document, ManifestOrIndex::Manifest(_));
        if declared.architecture.is_empty()
            || is_taken_as_it_is
            || PlatformMatcher::strict(platform).rank(declared).is_some()
        {
            return Ok(image);
        }
        Err(lacks_platform(reference, platform, std::slice::from_ref(declared)))
    }

    /// Chooses a platform's image of an index, or takes the one that a manifest is, whatever it says of itself.
    pub(crate) async fn select_any(
        self: &Arc<Self>,
        reference: &Reference,
        root: &RootDocument,
        platform: &Platform,
        shown: &Shown,
    ) -> Result<ResolvedImage, BuildError> {
        // A document alone may have stayed from a build that went no further: by digest, its repository is known.
        let origin = root.from.as_ref().or_else(|| reference.digest().map(|_| reference));
        let manifest = match &root.document {
            ManifestOrIndex::Manifest(manifest) => manifest.clone(),
            ManifestOrIndex::Index(index) => {
                let entry = PlatformMatcher::strict(platform)
                    .select(&index.value)
                    .ok_or_else(|| lacks_platform(reference, platform, &platforms_of(&index.value)))?;
                self.manifest(reference, entry, origin).await?
            }
        };
        let config = self.config(&manifest.value, origin, shown).await?;
        let declared = config.value.platform();
        let diff_ids = &config.value.rootfs.diff_ids;
        if diff_ids.len() != manifest.value.layers.len() {
            return Err(BuildError::new(
                ErrorKind::Registry,
                format!(
                    "{reference} is damaged: its config {} has {} diff ids, its manifest {} layers",
                    config.digest,
                    diff_ids.len(),
                    manifest.value.layers.len()
                ),
            ));
        }
        let layers = diff_ids
            .iter()
            .zip(&manifest.value.layers)
            .map(|(diff_id, descriptor)| ImageLayer {
                diff_id: diff_id.clone(),
                descriptor: descriptor.clone(),
                from: root
                    .from
                    .clone()
                    .or_else(|| self.blob_origin(&descriptor.digest))
                    .or_else(|| origin.filter(|_| !self.store.contains(&descriptor.digest)).cloned()),
            })
            .collect();
        Ok(ResolvedImage {
            reference: reference.clone(),
            root: root.descriptor.clone(),
            manifest,
            config,
            platform: declared,
            layers,
        })
    }

    /// Reads the manifest of an index entry, from the store or the registry.
    ///
    /// # Errors
    /// When neither has it, or it is no manifest.
    pub async fn manifest(
        &self,
        reference: &Reference,
        entry: &Descriptor,
        from: Option<&Reference>,
    ) -> Result<Document<Manifest>, BuildError> {
        match self.document(reference, entry, from).await? {
            ManifestOrIndex::Manifest(manifest) => Ok(manifest),
            ManifestOrIndex::Index(_) => Err(BuildError::new(
                ErrorKind::Registry,
                format!("{reference}: {} is an index within an index", entry.digest),
            )),
        }
    }

    /// Reads what an index entry names, from the store or the registry.
    ///
    /// # Errors
    /// When neither has it, or it is no document of an image.
    pub async fn document(
        &self,
        reference: &Reference,
        entry: &Descriptor,
        from: Option<&Reference>,
    ) -> Result<ManifestOrIndex, BuildError> {
        let damaged = |what: String| BuildError::new(ErrorKind::Registry, format!("{reference}: {what}"));
        let bytes = if self.has_document(&entry.digest, from) {
            self.store
                .read(entry, polyarch_oci::manifest::MAX_MANIFEST_BYTES)
                .map_err(|error| storage_error(&error))?
        } else {
            let from =
                from.ok_or_else(|| damaged(format!("the store has lost its manifest {}", entry.digest)))?;
            let fetched =
                self.registry.get_manifest(&from.with_digest(entry.digest.clone())).await.map_err(
                    |error| registry_error(format!("can't fetch a manifest of {reference}"), &error),
                )?;
            // Else a name would be set for what nobody could read again.
            let size = fetched.bytes.len() as u64;
            if size != entry.size {
                let (digest, said) = (&entry.digest, entry.size);
                return Err(damaged(format!("{digest} has {size} bytes, its index says {said}")));
            }
            self.store.put_as(&entry.digest, &fetched.bytes).map_err(|error| storage_error(&error))?;
            self.note_served(&entry.digest, from);
            fetched.bytes.to_vec()
        };
        ManifestOrIndex::parse(bytes, &entry.media_type).map_err(|error| damaged(chain_of(&error)))
    }

    async fn config(
        &self,
        manifest: &Manifest,
        from: Option<&Reference>,
        shown: &Shown,
    ) -> Result<Document<ImageConfig>, BuildError> {
        if manifest.config.size > config::MAX_CONFIG_BYTES {
            return Err(BuildError::new(
                ErrorKind::Registry,
                format!(
                    "image config {} is larger than {} bytes",
                    manifest.config.digest,
                    config::MAX_CONFIG_BYTES
                ),
            ));
        }
        self.ensure_document(&manifest.config, from, shown).await?;
        self.store.config(manifest).map_err(|error| storage_error(&error))
    }
}

/// Why a registry's name has no document.
enum Unresolved {
    Registry(RegistryError),
    Document(polyarch_oci::DocumentError),
}

/// The namespace of records that tell what a registry's name pointed at.
pub(crate) const RESOLUTIONS: &str = "resolutions";

fn resolution_key(reference: &Reference) -> String {
    Digest::of(reference.to_string()).hex().to_owned()
}

/// Returns the platforms of an index's images.
pub fn platforms_of(index: &ImageIndex) -> Vec<Platform> {
    index.images().filter_map(|entry| entry.platform.clone()).collect()
}

fn lacks_platform(reference: &Reference, platform: &Platform, available: &[Platform]) -> BuildError {
    let mut names: Vec<String> = available
        .iter()
        .filter(|it| it.os != "unknown")
        .map(|it| it.clone().normalized().to_string())
        .collect();
    names.dedup();
    let list = if names.is_empty() { "no platform".to_owned() } else { names.join(", ") };
    let error = BuildError::new(
        ErrorKind::Platform,
        format!("{} has no image for {platform}; it has {list}", reference.familiar()),
    );
    if names.is_empty() {
        return error;
    }
    error.with_hint(format!(
        "choose another image, or only platforms that it has: --platform {}",
        names.join(",")
    ))
}

/// Tells whether an error says that the registry could not be asked at all.
fn is_unreachable(error: &RegistryError) -> bool {
    error.is_transient() || matches!(error, RegistryError::Connect { .. } | RegistryError::Timeout { .. })
}

/// Makes the error of the store.
pub fn storage_error(error: &StoreError) -> BuildError {
    let mut failure = BuildError::new(ErrorKind::Storage, chain_of(error));
    failure.is_obstacle = matches!(
        error,
        StoreError::Io { .. }
            | StoreError::Busy { .. }
            | StoreError::InUse { .. }
            | StoreError::Stream { .. }
    );
    failure
}

/// Tells whether a descriptor names an index; used where only its media type is known.
pub fn is_index(descriptor: &Descriptor) -> bool {
    media_type::is_index(&descriptor.media_type)
}
