// SPDX-License-Identifier: Apache-2.0
//! Publishing: blobs first, then configs and manifests, then the index, the names last.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::{join_all, try_join_all};
use polyarch_oci::{Descriptor, Digest, ManifestOrIndex, Platform, Reference};
use polyarch_registry::{BlobReader, BlobSource, Progress as TransferProgress, PushOutcome};
use polyarch_solver::progress::{ActiveStatus, Progress};
use polyarch_store::Store;
use tokio::io::AsyncSeekExt;

use crate::error::{BuildError, ErrorKind};
use crate::fetch::{Shown, registry_error};
use crate::held::{best_of, not_held};
use crate::image_source::storage_error;
use crate::pull::MAX_DEPTH;
use crate::services::Services;

/// How many manifests a registry is asked for at a time; an index may name thousands.
const QUESTIONS_AT_ONCE: usize = 16;

/// What is pushed: a document of the store and the names it gets.
pub struct PushPlan {
    /// The index or manifest.
    pub root: Descriptor,
    /// The names; all get the same document.
    pub names: Vec<Reference>,
    /// Push the document by digest only, and leave tags alone.
    pub by_digest: bool,
    /// Repositories that may have blobs: one on the same host is asked to give them before they are sent.
    pub mount_from: BTreeMap<Digest, Reference>,
}

/// A name of the store to push.
#[derive(Debug, Clone)]
pub struct PushRequest {
    /// The name.
    pub name: Reference,
    /// The one platform whose manifest is pushed alone, without the index.
    pub platform: Option<Platform>,
}

/// What was pushed.
#[derive(Debug, Clone)]
pub struct PushResult {
    /// The document that the name means in the registry now.
    pub root: Descriptor,
    /// Its platforms, each with its manifest.
    pub platforms: Vec<(Platform, Descriptor)>,
}

impl Services {
    /// Pushes a name of the store: its document byte for byte, with everything that it names.
    ///
    /// # Errors
    /// When the store has no such name, or not all of it, and the registry's refusals.
    pub async fn push(
        self: &Arc<Self>,
        request: &PushRequest,
        progress: &Progress,
    ) -> Result<PushResult, BuildError> {
        let name = request.name.clone().with_default_tag();
        let (mut root, mut held) = self.held_image(&name)?.ok_or_else(|| {
            BuildError::new(ErrorKind::Usage, format!("the store has no image {}", name.familiar()))
                .with_hint("list the names that it has: polyarch images")
        })?;
        if let Some(platform) = &request.platform {
            let best = best_of(&held, platform).filter(|best| best.is_complete);
            let best = best.ok_or_else(|| not_held(&name.familiar(), platform, &held))?.clone();
            let manifest = &best.manifest;
            root = Descriptor::new(&manifest.media_type, manifest.digest.clone(), manifest.size);
            held = vec![best];
        }
        let vertex = progress.begin("push", format!("pushing {name}"));
        let shown = Shown { progress: progress.clone(), vertex: vertex.digest() };
        let by_digest = name.tag().is_none();
        let plan = PushPlan { root: root.clone(), names: vec![name], by_digest, mount_from: BTreeMap::new() };
        match self.push_plan(&plan, &shown).await {
            Ok(()) => {
                vertex.done();
                let platforms = held.into_iter().map(|it| (it.platform, it.manifest)).collect();
                Ok(PushResult { root, platforms })
            }
            Err(error) => {
                vertex.failed(&error);
                Err(error)
            }
        }
    }

    /// Pushes a document of the store with everything it names. Nothing has a tag until everything is there.
    ///
    /// # Errors
    /// When the store lacks parts that no registry gives, and the registry's refusals.
    pub async fn push_plan(self: &Arc<Self>, plan: &PushPlan, shown: &Shown) -> Result<(), BuildError> {
        let parts = self.parts_of(&plan.root)?;
        // Names in one repository share its blobs.
        let repositories: BTreeSet<Reference> =
            plan.names.iter().map(|name| name.with_digest(plan.root.digest.clone())).collect();
        try_join_all(
            repositories.iter().map(|repository| self.push_repository(repository, &parts, plan, shown)),
        )
        .await?;
        if plan.by_digest {
            return Ok(());
        }
        for name in &plan.names {
            let status = format!("pushing manifest for {name}@{}", plan.root.digest);
            let _status = ActiveStatus::start(shown.progress.clone(), shown.vertex.clone(), status, 0);
            self.put_document(&plan.root, &name.clone().with_default_tag()).await?;
        }
        Ok(())
    }

    /// Returns the documents that a document consists of, children before parents, itself last.
    fn parts_of(&self, root: &Descriptor) -> Result<Parts, BuildError> {
        let mut parts = Parts::default();
        self.add_parts(root, 0, &mut parts)?;
        Ok(parts)
    }

    fn add_parts(&self, entry: &Descriptor, depth: usize, parts: &mut Parts) -> Result<(), BuildError> {
        if !parts.seen.insert(entry.digest.clone()) {
            return Ok(());
        }
        if depth > MAX_DEPTH {
            let message = format!("indexes are nested deeper than {MAX_DEPTH} levels in {}", entry.digest);
            return Err(BuildError::new(ErrorKind::Usage, message));
        }
        if depth > 0 && !self.store.contains(&entry.digest) {
            parts.missing.push(entry.clone());
            return Ok(());
        }
        let document = self.store.image(entry).map_err(|error| storage_error(&error))?;
        if let ManifestOrIndex::Index(index) = &document {
            for child in &index.value.manifests {
                self.add_parts(child, depth + 1, parts)?;
            }
        }
        parts.documents.push((entry.clone(), document));
        Ok(())
    }

    /// Checks that the registry has the manifests that the store lacks.
    async fn check_missing(&self, repository: &Reference, parts: &Parts) -> Result<(), BuildError> {
        let asked = parts
            .missing
            .iter()
            .map(|entry| repository.with_digest(entry.digest.clone()))
            .collect::<Vec<_>>();
        let mut found = Vec::with_capacity(asked.len());
        for some in asked.chunks(QUESTIONS_AT_ONCE) {
            found.extend(join_all(some.iter().map(|name| self.registry.head_manifest(name))).await);
        }
        let mut lacking = Vec::new();
        for (entry, answer) in parts.missing.iter().zip(found) {
            match answer {
                Ok(_) => {}
                Err(error) if error.is_not_found() => lacking.push(entry),
                Err(error) => {
                    let context = format!("can't ask {} for {}", repository.name(), entry.digest);
                    return Err(registry_error(context, &error));
                }
            }
        }
        if lacking.is_empty() {
            return Ok(());
        }
        let platforms: Vec<String> = lacking
            .iter()
            .map(|entry| match &entry.platform {
                Some(platform) if !entry.is_attestation() => platform.clone().normalized().to_string(),
                _ if entry.is_attestation() => format!("attestation {}", entry.digest.short()),
                _ => entry.digest.to_string(),
            })
            .collect();
        let here = parts.documents.iter().filter(|(entry, _)| !entry.is_attestation());
        let here: Vec<Platform> = here.filter_map(|(entry, _)| entry.platform.clone()).collect();
        let message = format!(
            "neither the store nor {} has all that the index names: {} missing",
            repository.name(),
            platforms.join(", ")
        );
        let mut error = BuildError::new(ErrorKind::Storage, message)
            .with_hint("fetch everything first, from where the image is: polyarch pull --all-platforms NAME");
        if let Some(platform) = here.first() {
            let platform = platform.clone().normalized();
            error = error.with_hint(format!(
                "or push one platform without the index: polyarch push --platform {platform} NAME"
            ));
        }
        Err(error)
    }

    async fn push_repository(
        self: &Arc<Self>,
        repository: &Reference,
        parts: &Parts,
        plan: &PushPlan,
        shown: &Shown,
    ) -> Result<(), BuildError> {
        self.check_missing(repository, parts).await?;
        let mut seen = BTreeSet::new();
        let mut blobs = Vec::new();
        for (_, document) in &parts.documents {
            let ManifestOrIndex::Manifest(manifest) = document else { continue };
            for blob in manifest.value.layers.iter().chain([&manifest.value.config]) {
                if !blob.is_foreign() && seen.insert(blob.digest.clone()) {
                    blobs.push(blob.clone());
                }
            }
        }
        // All are awaited, so that no transfer goes on behind the back of an error.
        let pushed = join_all(blobs.iter().map(|blob| self.push_blob(repository, blob, plan, shown))).await;
        pushed.into_iter().collect::<Result<Vec<()>, _>>()?;
        for (entry, document) in &parts.documents {
            // A single manifest comes with its tag; an index is there by its digest before it gets one.
            let is_index = matches!(document, ManifestOrIndex::Index(_));
            if entry.digest != plan.root.digest || is_index || plan.by_digest {
                self.put_document(entry, &repository.with_digest(entry.digest.clone())).await?;
            }
        }
        Ok(())
    }

    async fn push_blob(
        self: &Arc<Self>,
        repository: &Reference,
        blob: &Descriptor,
        plan: &PushPlan,
        shown: &Shown,
    ) -> Result<(), BuildError> {
        let origin = self.blob_origin(&blob.digest);
        let hints: Vec<Reference> = origin.iter().chain(plan.mount_from.get(&blob.digest)).cloned().collect();
        let failed =
            |error| registry_error(format!("can't push {} to {}", blob.digest, repository.name()), &error);
        if !self.store.contains(&blob.digest) {
            // A layer of a base image that was never needed here: the registry may have it already.
            if self.registry.blob_exists(repository, blob).await.map_err(failed)? {
                show_once(shown, format!("already exists {}", blob.digest));
                return Ok(());
            }
            for from in hints.iter().filter(|from| from.host() == repository.host()) {
                if let Ok(polyarch_registry::MountOutcome::Mounted) =
                    self.registry.mount_blob(repository, blob, from).await
                {
                    show_once(shown, format!("mounted {}", blob.digest));
                    return Ok(());
                }
            }
            self.ensure_blob(blob, origin.as_ref(), shown).await?;
        }
        let source = StoreBlob { store: self.store.clone(), digest: blob.digest.clone() };
        let report = transfer_progress(shown, format!("pushing {}", blob.digest), blob.size);
        match self.registry.push_blob(repository, blob, &source, &hints, &report).await.map_err(failed)? {
            PushOutcome::Existed => show_once(shown, format!("already exists {}", blob.digest)),
            PushOutcome::Mounted { .. } => show_once(shown, format!("mounted {}", blob.digest)),
            PushOutcome::Uploaded => {}
        }
        Ok(())
    }

    async fn put_document(&self, document: &Descriptor, name: &Reference) -> Result<(), BuildError> {
        let bytes = self
            .store
            .read(document, polyarch_oci::manifest::MAX_MANIFEST_BYTES)
            .map_err(|error| storage_error(&error))?;
        self.registry
            .put_manifest(name, Bytes::from(bytes), &document.media_type)
            .await
            .map_err(|error| registry_error(format!("can't push the manifest of {name}"), &error))?;
        Ok(())
    }
}

/// What a document consists of.
#[derive(Default)]
struct Parts {
    /// Those that the store has, children before parents.
    documents: Vec<(Descriptor, ManifestOrIndex)>,
    /// Those that it lacks.
    missing: Vec<Descriptor>,
    seen: BTreeSet<Digest>,
}

/// Shows something that has been done.
fn show_once(shown: &Shown, id: String) {
    drop(ActiveStatus::start(shown.progress.clone(), shown.vertex.clone(), id, 0));
}

/// Shows a transfer as a status that starts with its first bytes.
pub fn transfer_progress(shown: &Shown, id: String, total: u64) -> TransferProgress {
    let (progress, vertex): (Progress, _) = (shown.progress.clone(), shown.vertex.clone());
    let status = std::sync::Mutex::new(None);
    TransferProgress::new(move |bytes| {
        if let Ok(mut status) = status.lock() {
            status
                .get_or_insert_with(|| {
                    ActiveStatus::start(progress.clone(), vertex.clone(), id.clone(), total)
                })
                .update(bytes);
        }
    })
}

/// A blob of the store as the source of an upload.
struct StoreBlob {
    store: Store,
    digest: Digest,
}

impl BlobSource for StoreBlob {
    async fn open(&self, offset: u64) -> io::Result<BlobReader> {
        let file = self.store.open_blob(&self.digest).map_err(io::Error::other)?;
        let mut file = tokio::fs::File::from_std(file);
        file.seek(io::SeekFrom::Start(offset)).await?;
        Ok(Box::pin(file))
    }
}
