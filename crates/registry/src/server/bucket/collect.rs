// SPDX-License-Identifier: Apache-2.0
//! Collection in a bucket: what nothing leads to goes, without locks (`docs/registry.md`, "In a bucket").
//!
//! What a repository has changes in one step, so nothing that is pushed meanwhile is lost there. Content goes in two: it is
//! marked first, so that nobody finds it any more, and removed when it was marked for the whole grace period and still
//! nothing leads to it. Names are never used again, so that a removal that comes late hits nothing new.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, SystemTime};

use polyarch_oci::Digest;

use super::super::api_error::chain_of;
use super::super::document::inspect;
use super::super::gc::{CollectOptions, Collected, Leads, unwanted};
use super::super::storage::StorageError;
use super::content::LIST_SUFFIX;
use super::repository::Contents;
use super::{Bucket, Repository, age, seconds_of};

/// The end of the names of marks on contents that are to go.
pub(super) const GOING_SUFFIX: &str = ".going";
/// The largest manifest that is read.
const MAX_MANIFEST_BYTES: u64 = polyarch_oci::manifest::MAX_MANIFEST_BYTES;
/// The shortest time for which contents and pieces that nothing leads to stay, whatever is asked for: those of a push that
/// is under way are such.
const MIN_GRACE: Duration = Duration::from_secs(60 * 60);
/// How often a repository is looked through again because manifests came meanwhile.
const MAX_TRIES: usize = 10;

/// Pieces whose names begin with the same name.
#[derive(Default)]
struct Group {
    keys: Vec<String>,
    bytes: u64,
    newest: u64,
}

/// Content of a digest.
#[derive(Default)]
struct Stored {
    size: u64,
    /// When it was written; `None` when there is only a mark.
    written: Option<u64>,
    marked: Option<u64>,
}

impl Bucket {
    /// Removes what nothing leads to, as of a time.
    pub(in crate::server) fn collect(
        &self,
        options: &CollectOptions,
        now: SystemTime,
    ) -> Result<Collected, StorageError> {
        let now = seconds_of(now);
        let mut collected = Collected::default();
        // In this order: whatever becomes a blob meanwhile is seen in one of the lists that are read later.
        let groups = self.piece_groups()?;
        let uploads = self.expire_uploads(options, now, &mut collected)?;
        let stored = self.stored()?;
        let Some(live) = self.collect_repositories(options, now, &mut collected)? else {
            // Nobody knows what a repository leads to that can't be read.
            return Ok(collected);
        };
        let gone = self.collect_contents(options, now, &stored, &live, &mut collected)?;
        self.collect_pieces(options, now, groups, &uploads, &stored, &gone, &mut collected)?;
        Ok(collected)
    }

    fn piece_groups(&self) -> Result<BTreeMap<String, Group>, StorageError> {
        let mut groups: BTreeMap<String, Group> = BTreeMap::new();
        for piece in self.objects().list("pieces")? {
            let owner = piece.name.split('/').next().unwrap_or_default().to_owned();
            let group = groups.entry(owner).or_default();
            group.keys.push(format!("pieces/{}", piece.name));
            group.bytes += piece.size;
            group.newest = group.newest.max(piece.written);
        }
        Ok(groups)
    }

    /// Ends uploads that nobody goes on with; returns the others.
    fn expire_uploads(
        &self,
        options: &CollectOptions,
        now: u64,
        collected: &mut Collected,
    ) -> Result<HashSet<String>, StorageError> {
        let mut live = HashSet::new();
        for upload in self.objects().list("uploads")? {
            if age(now, upload.written) < options.uploads {
                live.insert(upload.name);
                continue;
            }
            if options.is_dry_run || self.expire_upload(&upload.name)? {
                collected.unfinished += 1;
            } else {
                live.insert(upload.name);
            }
        }
        Ok(live)
    }

    /// Lists all contents, by where they are.
    fn stored(&self) -> Result<BTreeMap<String, Stored>, StorageError> {
        let mut stored: BTreeMap<String, Stored> = BTreeMap::new();
        for object in self.objects().list("blobs")? {
            match object.name.strip_suffix(GOING_SUFFIX) {
                Some(name) => stored.entry(name.to_owned()).or_default().marked = Some(object.written),
                None => {
                    let content = stored.entry(object.name).or_default();
                    content.written = Some(object.written);
                    content.size = object.size;
                }
            }
        }
        Ok(stored)
    }

    /// Removes from each repository what it does not need; returns the contents that are needed then, or `None` when
    /// a repository could not be read.
    fn collect_repositories(
        &self,
        options: &CollectOptions,
        now: u64,
        collected: &mut Collected,
    ) -> Result<Option<HashSet<String>>, StorageError> {
        let mut live = HashSet::new();
        let mut is_whole = true;
        for name in self.repository_names()? {
            let repository = self.repository(&name);
            if let Err(reason) = self.collect_repository(&repository, options, now, collected) {
                collected.left_alone.push((name.to_string(), reason));
            }
            match repository.read(self) {
                Ok(found) => {
                    let blobs = found.iter().flat_map(|(_, contents)| &contents.blobs);
                    live.extend(blobs.map(|(digest, held)| stored_name(digest, &held.content)));
                }
                Err(_) => is_whole = false,
            }
        }
        Ok(is_whole.then_some(live))
    }

    /// Removes from a repository what it does not need; the error is a sentence.
    fn collect_repository(
        &self,
        repository: &Repository,
        options: &CollectOptions,
        now: u64,
        collected: &mut Collected,
    ) -> Result<(), String> {
        let told = |error: StorageError| chain_of(&error);
        let mut leads = Leads::new();
        for _ in 0..MAX_TRIES {
            let Some((_, contents)) = repository.read(self).map_err(told)? else { return Ok(()) };
            self.read_leads(repository, &contents, &mut leads)?;
            let swept = repository.update(self, |contents| {
                // Manifests that came meanwhile have to be read first.
                if !contents.index.manifests.keys().all(|digest| leads.contains_key(digest)) {
                    return (None, false);
                }
                let removed = sweep(contents, &leads, options, now);
                let is_changed = removed.blobs + removed.manifests > 0 && !options.is_dry_run;
                (Some(removed), is_changed)
            });
            if let Some(removed) = swept.map_err(told)? {
                collected.manifests += removed.manifests;
                collected.blobs += removed.blobs;
                return Ok(());
            }
        }
        Err("it changed all the time".to_owned())
    }

    /// Reads what manifests lead to, and that was not read yet; the error is a sentence.
    fn read_leads(
        &self,
        repository: &Repository,
        contents: &Contents,
        leads: &mut Leads,
    ) -> Result<(), String> {
        for (digest, entry) in &contents.index.manifests {
            if leads.contains_key(digest) {
                continue;
            }
            let read = || {
                let held = contents.blobs.get(digest);
                let held = held.ok_or_else(|| {
                    self.objects().damaged(&repository.key(), format_args!("{digest} is not there"))
                })?;
                self.content(digest, held)?.read(MAX_MANIFEST_BYTES)
            };
            let bytes = read().map_err(|error| chain_of(&error))?;
            let inspected = inspect(&bytes, Some(&entry.media_type))
                .map_err(|sentence| format!("{digest} is damaged: {sentence}"))?;
            leads.insert(digest.clone(), inspected.blobs.into_iter().chain(inspected.manifests).collect());
        }
        Ok(())
    }

    /// Marks contents that nothing leads to, and removes those that were marked long enough; returns what went.
    fn collect_contents(
        &self,
        options: &CollectOptions,
        now: u64,
        stored: &BTreeMap<String, Stored>,
        live: &HashSet<String>,
        collected: &mut Collected,
    ) -> Result<HashSet<String>, StorageError> {
        let mut gone = HashSet::new();
        let grace = options.grace.max(MIN_GRACE);
        for (name, content) in stored {
            let key = format!("blobs/{name}");
            let mark = format!("{key}{GOING_SUFFIX}");
            let Some(written) = content.written else {
                // What it marked has gone.
                if !options.is_dry_run {
                    self.objects().delete([mark])?;
                }
                continue;
            };
            if live.contains(name) {
                if content.marked.is_some() && !options.is_dry_run {
                    self.objects().delete([mark])?;
                }
                continue;
            }
            if age(now, written) < grace {
                continue;
            }
            let is_due = content.marked.is_some_and(|marked| age(now, marked) >= grace);
            if !is_due {
                if content.marked.is_none() && !options.is_dry_run {
                    self.objects().put(&mark, [])?;
                }
                continue;
            }
            if !name.ends_with(LIST_SUFFIX) {
                collected.bytes += content.size;
            }
            gone.insert(name.clone());
            if !options.is_dry_run {
                self.lists().remove(&key);
                self.objects().delete([key])?;
                self.objects().delete([mark])?;
            }
        }
        Ok(gone)
    }

    /// Removes pieces that no upload and no content leads to.
    #[expect(clippy::too_many_arguments, reason = "each is what one of the steps before has found")]
    fn collect_pieces(
        &self,
        options: &CollectOptions,
        now: u64,
        groups: BTreeMap<String, Group>,
        uploads: &HashSet<String>,
        stored: &BTreeMap<String, Stored>,
        gone: &HashSet<String>,
        collected: &mut Collected,
    ) -> Result<(), StorageError> {
        let lists =
            stored.iter().filter(|(name, content)| content.written.is_some() && !gone.contains(*name));
        let owners: HashSet<&str> =
            lists.filter_map(|(name, _)| name.rsplit('/').next()?.strip_suffix(LIST_SUFFIX)).collect();
        for (owner, group) in groups {
            let is_young = age(now, group.newest) < options.uploads.max(MIN_GRACE);
            if is_young || uploads.contains(&owner) || owners.contains(&*owner) {
                continue;
            }
            collected.bytes += group.bytes;
            if !options.is_dry_run {
                self.objects().delete(group.keys)?;
            }
        }
        Ok(())
    }
}

/// Removes from what a repository has what nothing leads to; tells how much that is.
fn sweep(contents: &mut Contents, leads: &Leads, options: &CollectOptions, now: u64) -> Collected {
    let young: HashMap<&Digest, bool> =
        contents.blobs.iter().map(|(digest, held)| (digest, age(now, held.since) < options.grace)).collect();
    let is_young = |digest: &Digest| young.get(digest).copied().unwrap_or(false);
    let untagged = match options.deletes_untagged {
        true => unwanted(&contents.index, leads, is_young),
        false => Vec::new(),
    };
    let kept = contents.index.without(&untagged);
    let live: HashSet<&Digest> =
        kept.manifests.keys().flat_map(|digest| leads[digest].iter().chain([digest])).collect();
    let going: Vec<Digest> =
        contents.blobs.keys().filter(|digest| !live.contains(digest) && !is_young(digest)).cloned().collect();
    for digest in &going {
        contents.blobs.remove(digest);
    }
    if !untagged.is_empty() {
        *contents.index_mut() = kept;
    }
    Collected { manifests: untagged.len() as u64, blobs: going.len() as u64, ..Collected::default() }
}

/// Names content among all.
fn stored_name(digest: &Digest, content: &str) -> String {
    format!("{}/{}/{content}", digest.algorithm().as_str(), digest.hex())
}
