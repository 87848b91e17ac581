// SPDX-License-Identifier: Apache-2.0
//! Publishing: blobs first, then configs and manifests, then the index, the names last.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::{join_all, try_join_all};
use polyarch_oci::{Descriptor, Digest, ManifestOrIndex, Reference};
use polyarch_registry::{BlobReader, BlobSource, Progress as TransferProgress};
use polyarch_solver::progress::{ActiveStatus, Progress};
use polyarch_store::Store;
use tokio::io::AsyncSeekExt;

use crate::error::{BuildError, ErrorKind};
use crate::fetch::{Shown, registry_error};
use crate::image_source::{is_index, storage_error};
use crate::services::Services;

/// What is pushed: a document of the store and the names it gets.
pub struct PushPlan {
    /// The index or manifest.
    pub root: Descriptor,
    /// The names; all get the same document.
    pub names: Vec<Reference>,
    /// Push the document by digest only, and leave tags alone.
    pub by_digest: bool,
}

impl Services {
    /// Pushes a document of the store with everything it names. Nothing has a tag until everything is there.
    ///
    /// # Errors
    /// When the store lacks parts that no registry gives, and the registry's refusals.
    pub async fn push_plan(self: &Arc<Self>, plan: &PushPlan, shown: &Shown) -> Result<(), BuildError> {
        let manifests = self.manifests_below(&plan.root)?;
        // Names in one repository share its blobs.
        let repositories: BTreeSet<Reference> =
            plan.names.iter().map(|name| name.with_digest(plan.root.digest.clone())).collect();
        try_join_all(
            repositories.iter().map(|repository| self.push_repository(repository, &manifests, plan, shown)),
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

    /// Returns the manifests that a document consists of, itself when it is one.
    fn manifests_below(&self, root: &Descriptor) -> Result<Vec<(Descriptor, ManifestOrIndex)>, BuildError> {
        let document = self.store.image(root).map_err(|error| storage_error(&error))?;
        let entries = match &document {
            ManifestOrIndex::Manifest(_) => return Ok(vec![(root.clone(), document)]),
            ManifestOrIndex::Index(index) => index.value.manifests.clone(),
        };
        entries
            .into_iter()
            .map(|entry| {
                if is_index(&entry) {
                    let message =
                        format!("{} is an index within an index, which can't be pushed yet", entry.digest);
                    return Err(BuildError::new(ErrorKind::Usage, message));
                }
                if !self.store.contains(&entry.digest) {
                    let platform =
                        entry.platform.map_or_else(String::new, |platform| format!(" of {platform}"));
                    let message = format!("the store does not have the manifest {}{platform}", entry.digest);
                    return Err(BuildError::new(ErrorKind::Storage, message)
                        .with_hint("pull the whole image first: polyarch pull --all-platforms"));
                }
                let document = self.store.image(&entry).map_err(|error| storage_error(&error))?;
                Ok((entry, document))
            })
            .collect()
    }

    async fn push_repository(
        self: &Arc<Self>,
        repository: &Reference,
        manifests: &[(Descriptor, ManifestOrIndex)],
        plan: &PushPlan,
        shown: &Shown,
    ) -> Result<(), BuildError> {
        let mut seen = BTreeSet::new();
        let mut blobs = Vec::new();
        for (_, document) in manifests {
            let ManifestOrIndex::Manifest(manifest) = document else { continue };
            for blob in manifest.value.layers.iter().chain([&manifest.value.config]) {
                if seen.insert(blob.digest.clone()) {
                    blobs.push(blob.clone());
                }
            }
        }
        // All are awaited, so that no transfer goes on behind the back of an error.
        let pushed = join_all(blobs.iter().map(|blob| self.push_blob(repository, blob, shown))).await;
        pushed.into_iter().collect::<Result<Vec<()>, _>>()?;
        for (entry, _) in manifests {
            self.put_document(entry, &repository.with_digest(entry.digest.clone())).await?;
        }
        if is_index(&plan.root) {
            self.put_document(&plan.root, repository).await?;
        }
        Ok(())
    }

    async fn push_blob(
        self: &Arc<Self>,
        repository: &Reference,
        blob: &Descriptor,
        shown: &Shown,
    ) -> Result<(), BuildError> {
        let origin = self.blob_origin(&blob.digest);
        let failed =
            |error| registry_error(format!("can't push {} to {}", blob.digest, repository.name()), &error);
        if !self.store.contains(&blob.digest) {
            // A layer of a base image that was never needed here: the registry may have it already.
            if self.registry.blob_exists(repository, blob).await.map_err(failed)? {
                return Ok(());
            }
            if let Some(from) = origin.as_ref().filter(|from| from.host() == repository.host())
                && let Ok(polyarch_registry::MountOutcome::Mounted) =
                    self.registry.mount_blob(repository, blob, from).await
            {
                return Ok(());
            }
            self.ensure_blob(blob, origin.as_ref(), shown).await?;
        }
        let source = StoreBlob { store: self.store.clone(), digest: blob.digest.clone() };
        let report = transfer_progress(shown, format!("pushing {}", blob.digest), blob.size);
        let hints: Vec<Reference> = origin.into_iter().collect();
        self.registry.push_blob(repository, blob, &source, &hints, &report).await.map_err(failed)?;
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
