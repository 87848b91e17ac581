// SPDX-License-Identifier: Apache-2.0
//! Images brought into the store: a name then means the registry's document, byte for byte.
//!
//! Pulling another platform of the same index adds it beside those that are here. When the registry's
//! name has moved to another document, the name here moves as well, and the result tells which platforms
//! are no longer under it: they stay in the store under their digest until a prune.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::future::join_all;
use polyarch_oci::{
    Descriptor, Digest, Manifest, ManifestOrIndex, Platform, PlatformMatcher, Reference, media_type,
};
use polyarch_solver::progress::{ActiveStatus, Progress};

use crate::error::{BuildError, ErrorKind};
use crate::fetch::Shown;
use crate::held::{held_platforms, platform_names};
use crate::image_source::{RootDocument, is_index, platforms_of, storage_error};
use crate::request::PullPolicy;
use crate::services::Services;

/// The deepest nesting of indexes that is followed.
pub(crate) const MAX_DEPTH: usize = 8;

/// What to pull.
#[derive(Debug, Clone)]
pub struct PullRequest {
    /// The name.
    pub reference: Reference,
    /// The platforms; when empty the machine's own, or the only one that the image has.
    pub platforms: Vec<Platform>,
    /// Everything that the document names, attestations too, whatever `platforms` says.
    pub all_platforms: bool,
}

/// What was pulled.
#[derive(Debug, Clone)]
pub struct PullResult {
    /// The document that the name means.
    pub root: Descriptor,
    /// The platforms that were asked for, each with its manifest.
    pub platforms: Vec<(Platform, Descriptor)>,
    /// How many platforms the document has.
    pub known_platforms: usize,
    /// Whether the name meant the same before, and everything was here.
    pub was_current: bool,
    /// What the name meant before, when that was another document.
    pub replaced: Option<Replaced>,
}

/// A document that lost its name.
#[derive(Debug, Clone, PartialEq)]
pub struct Replaced {
    /// The document.
    pub root: Descriptor,
    /// The platforms that are here of it and not of the new one.
    pub platforms: Vec<Platform>,
}

impl Replaced {
    /// Says in one sentence what became of it, with the command that brings its platforms under the name.
    pub fn notice(&self, name: &Reference, root: &Descriptor) -> String {
        let old = name.with_digest(self.root.digest.clone()).familiar();
        let moved = format!(
            "{} now means the {} {}; before, it meant the {} {old}",
            name.familiar(),
            kind(root),
            root.digest,
            kind(&self.root)
        );
        if self.platforms.is_empty() {
            return format!("{moved}, which stays until the next prune");
        }
        let list = platform_names(&self.platforms);
        let flag = list.replace(", ", ",");
        format!(
            "{moved}. Here only of that one, until the next prune: {list}. Keep it with polyarch tag {old} NAME, or \
             fetch the new one's with polyarch pull --platform {flag} {}",
            name.familiar()
        )
    }
}

fn kind(root: &Descriptor) -> &'static str {
    if media_type::is_index(&root.media_type) { "index" } else { "manifest" }
}

impl Services {
    /// Pulls an image.
    ///
    /// # Errors
    /// The registry's refusals, a platform that the image lacks, and what keeps the store from writing.
    /// The name then means what it meant before.
    pub async fn pull(
        self: &Arc<Self>,
        request: &PullRequest,
        progress: &Progress,
    ) -> Result<PullResult, BuildError> {
        let reference = request.reference.clone().with_default_tag();
        let vertex = progress.begin("pull", format!("pulling {reference}"));
        let shown = Shown { progress: progress.clone(), vertex: vertex.digest() };
        match self.pull_shown(request, &reference, &shown).await {
            Ok(result) => {
                vertex.done();
                Ok(result)
            }
            Err(error) => {
                vertex.failed(&error);
                Err(error)
            }
        }
    }

    async fn pull_shown(
        self: &Arc<Self>,
        request: &PullRequest,
        reference: &Reference,
        shown: &Shown,
    ) -> Result<PullResult, BuildError> {
        let root = self.resolve_root(reference, None, PullPolicy::Always, &shown.progress).await?;
        let mut blobs: Vec<Descriptor> = Vec::new();
        let mut platforms = Vec::new();
        let mut had_all = true;
        match &root.document {
            ManifestOrIndex::Index(_) if request.all_platforms => {
                self.collect_all(reference, &root, &mut platforms, &mut blobs, &mut had_all).await?;
            }
            document => {
                for platform in self.wanted(request, reference, &root, document, shown).await? {
                    let image = self.select_image(reference, &root, &platform, shown).await?;
                    let manifest = &image.manifest;
                    let descriptor =
                        Descriptor::new(&manifest.value.media_type, manifest.digest.clone(), manifest.size());
                    platforms.push((image.platform, descriptor));
                    blobs.extend(image.layers.into_iter().map(|layer| layer.descriptor));
                }
            }
        }
        had_all &= self.fetch_blobs(&blobs, root.from.as_ref(), shown).await?;
        let before = self.store.get_ref(reference).map_err(|error| storage_error(&error))?;
        let same = before.is_some_and(|entry| entry.descriptor.digest == root.descriptor.digest);
        let replaced = self.replaced_by(reference, &root.descriptor)?;
        self.store.set_ref(reference, &root.descriptor).map_err(|error| storage_error(&error))?;
        let known_platforms = match &root.document {
            ManifestOrIndex::Index(index) => index.value.images().count(),
            ManifestOrIndex::Manifest(_) => 1,
        };
        let was_current = same && had_all;
        Ok(PullResult { root: root.descriptor, platforms, known_platforms, was_current, replaced })
    }

    /// Returns the platforms that are asked for.
    async fn wanted(
        self: &Arc<Self>,
        request: &PullRequest,
        reference: &Reference,
        root: &RootDocument,
        document: &ManifestOrIndex,
        shown: &Shown,
    ) -> Result<Vec<Platform>, BuildError> {
        match document {
            // One image is what it is, also when this machine is something else.
            ManifestOrIndex::Manifest(manifest) if request.all_platforms || request.platforms.is_empty() => {
                Ok(vec![self.declared_platform(&manifest.value, root, shown).await?])
            }
            ManifestOrIndex::Index(index) if request.platforms.is_empty() => {
                let host = Platform::host();
                let mut known = platforms_of(&index.value);
                if PlatformMatcher::strict(&host).select(&index.value).is_none() && known.len() == 1 {
                    let only = known.remove(0).normalized();
                    shown.progress.warn(format!(
                        "{} has no image for {host}; pulling {only}, the only one that it has",
                        reference.familiar()
                    ));
                    return Ok(vec![only]);
                }
                Ok(vec![host])
            }
            _ => Ok(request.platforms.clone()),
        }
    }

    /// Reads every manifest below an index and gathers what they name.
    async fn collect_all(
        self: &Arc<Self>,
        reference: &Reference,
        root: &RootDocument,
        platforms: &mut Vec<(Platform, Descriptor)>,
        blobs: &mut Vec<Descriptor>,
        had_all: &mut bool,
    ) -> Result<(), BuildError> {
        let ManifestOrIndex::Index(index) = &root.document else { return Ok(()) };
        let mut open: Vec<(Descriptor, usize)> =
            index.value.manifests.iter().rev().map(|entry| (entry.clone(), 1)).collect();
        let mut seen = BTreeSet::new();
        while let Some((entry, depth)) = open.pop() {
            if !seen.insert(entry.digest.clone()) {
                continue;
            }
            *had_all &= self.store.contains(&entry.digest);
            if is_index(&entry) {
                if depth >= MAX_DEPTH {
                    let message = format!("{reference}: indexes are nested deeper than {MAX_DEPTH} levels");
                    return Err(BuildError::new(ErrorKind::Registry, message));
                }
                let document = self.document(reference, &entry, root.from.as_ref()).await?;
                if let ManifestOrIndex::Index(index) = document {
                    open.extend(index.value.manifests.into_iter().rev().map(|entry| (entry, depth + 1)));
                }
                continue;
            }
            let manifest = self.manifest(reference, &entry, root.from.as_ref()).await?;
            blobs.extend(manifest.value.layers.iter().chain([&manifest.value.config]).cloned());
            if !entry.is_attestation()
                && let Some(platform) = &entry.platform
            {
                platforms.push((platform.clone().normalized(), entry.clone()));
            }
        }
        Ok(())
    }

    /// Fetches blobs at once; tells whether all were here before.
    async fn fetch_blobs(
        &self,
        blobs: &[Descriptor],
        from: Option<&Reference>,
        shown: &Shown,
    ) -> Result<bool, BuildError> {
        let mut seen: BTreeSet<&Digest> = BTreeSet::new();
        let (mut missing, mut origins) = (Vec::new(), Vec::new());
        for blob in blobs.iter().filter(|blob| seen.insert(&blob.digest)) {
            if self.store.contains(&blob.digest) {
                let status = format!("already exists {}", blob.digest);
                drop(ActiveStatus::start(shown.progress.clone(), shown.vertex.clone(), status, 0));
            } else {
                origins.push(from.cloned().or_else(|| self.blob_origin(&blob.digest)));
                missing.push(blob);
            }
        }
        // All are awaited, so that no transfer goes on behind the back of an error.
        let fetched = join_all(
            missing.iter().zip(&origins).map(|(blob, from)| self.ensure_blob(blob, from.as_ref(), shown)),
        )
        .await;
        fetched.into_iter().collect::<Result<Vec<()>, _>>()?;
        Ok(missing.is_empty())
    }

    async fn declared_platform(
        self: &Arc<Self>,
        manifest: &Manifest,
        root: &RootDocument,
        shown: &Shown,
    ) -> Result<Platform, BuildError> {
        self.ensure_blob(&manifest.config, root.from.as_ref(), shown).await?;
        Ok(self.store.config(manifest).map_err(|error| storage_error(&error))?.value.platform())
    }

    /// Finds out what a name means now and will no longer, when it is given to another document.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn replaced_by(&self, name: &Reference, new: &Descriptor) -> Result<Option<Replaced>, BuildError> {
        let entry = self.store.get_ref(name).map_err(|error| storage_error(&error))?;
        let Some(old) = entry.map(|entry| entry.descriptor).filter(|old| old.digest != new.digest) else {
            return Ok(None);
        };
        let complete = |root: &Descriptor| -> Vec<Platform> {
            // A document that can't be read has nothing to lose.
            let held = held_platforms(&self.store, root).unwrap_or_default();
            held.into_iter().filter(|it| it.is_complete).map(|it| it.platform).collect()
        };
        let here = complete(new);
        let platforms = complete(&old).into_iter().filter(|platform| !here.contains(platform)).collect();
        Ok(Some(Replaced { root: old, platforms }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_notice_names_the_old_document_and_the_command() {
        let descriptor = |text: &str| Descriptor::new("", Digest::of(text), 1);
        let name: Reference = "user/app:1".parse().unwrap();
        let mut replaced = Replaced { root: descriptor("old"), platforms: Vec::new() };
        let text = replaced.notice(&name, &descriptor("new"));
        assert!(text.ends_with("which stays until the next prune"), "{text}");
        replaced.platforms = vec!["linux/amd64".parse().unwrap(), "linux/arm/v7".parse().unwrap()];
        let text = replaced.notice(&name, &descriptor("new"));
        assert!(text.contains(&format!("user/app@{}", Digest::of("old"))), "{text}");
        assert!(text.ends_with("polyarch pull --platform linux/amd64,linux/arm/v7 user/app:1"), "{text}");
    }
}
