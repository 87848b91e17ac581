// SPDX-License-Identifier: Apache-2.0
//! Scrubbing a bucket: every content that a repository leads to is read and compared.

use std::collections::HashMap;
use std::path::PathBuf;

use polyarch_oci::{Digest, Hasher};

use super::super::api_error::chain_of;
use super::super::document::inspect;
use super::super::repository::Outcome;
use super::super::scrub::{Damage, DamageKind, ScrubOptions, Scrubbed};
use super::super::storage::StorageError;
use super::repository::{Contents, Held};
use super::{Bucket, Repository, contents_key};

/// The largest manifest that is read.
const MAX_MANIFEST_BYTES: u64 = polyarch_oci::manifest::MAX_MANIFEST_BYTES;

/// What is known of contents: nothing wrong, or what, and where it was put.
type Verdicts = HashMap<String, Option<(DamageKind, String, Option<PathBuf>)>>;

impl Bucket {
    /// Reads everything and compares.
    pub(in crate::server) fn scrub(
        &self,
        options: &ScrubOptions,
        mut progress: impl FnMut(&Scrubbed),
    ) -> Result<Scrubbed, StorageError> {
        let mut scrubbed = Scrubbed::default();
        let mut verdicts = Verdicts::new();
        for name in self.repository_names()? {
            let repository = self.repository(&name);
            scrubbed.repositories += 1;
            let contents = match repository.read(self) {
                Ok(Some((_, contents))) => contents,
                Ok(None) => continue,
                Err(error) => {
                    let kind = DamageKind::Document;
                    scrubbed.damage.push(damage(&repository, kind, None, repository.key(), chain_of(&error)));
                    continue;
                }
            };
            for (digest, held) in &contents.blobs {
                self.check(&repository, digest, held, options, &mut verdicts, &mut scrubbed)?;
                progress(&scrubbed);
            }
            self.check_documents(&repository, &contents, &mut scrubbed);
        }
        Ok(scrubbed)
    }

    /// Compares one blob of a repository; its bytes are read once, however many repositories have it.
    fn check(
        &self,
        repository: &Repository,
        digest: &Digest,
        held: &Held,
        options: &ScrubOptions,
        verdicts: &mut Verdicts,
        scrubbed: &mut Scrubbed,
    ) -> Result<(), StorageError> {
        let key = format!("{}/{}", contents_key(digest), held.content);
        if !verdicts.contains_key(&key) {
            scrubbed.blobs += 1;
            scrubbed.bytes += held.size;
            let verdict = match self.verify(digest, held) {
                None => None,
                Some((kind, message)) => {
                    let place = match options.quarantines {
                        true => self.put_aside(&key)?,
                        false => None,
                    };
                    Some((kind, message, place))
                }
            };
            verdicts.insert(key.clone(), verdict);
        }
        let Some(Some((kind, message, place))) = verdicts.get(&key) else { return Ok(()) };
        if options.quarantines {
            // So that a push puts it back; one that came meanwhile stays.
            let outcome = repository.update(self, |contents| match contents.blobs.get(digest) {
                Some(found) if found.content == held.content => {
                    contents.blobs.remove(digest);
                    (Outcome::Done, true)
                }
                _ => (Outcome::NotFound, false),
            })?;
            if outcome != Outcome::Done {
                return Ok(());
            }
        }
        let mut found = damage(repository, *kind, Some(digest), key, message.clone());
        found.quarantined.clone_from(place);
        scrubbed.damage.push(found);
        Ok(())
    }

    fn verify(&self, digest: &Digest, held: &Held) -> Option<(DamageKind, String)> {
        let mut hasher = Hasher::new(digest.algorithm());
        let read = self
            .content(digest, held)
            .and_then(|content| content.read_pieces(u64::MAX, |piece| hasher.update(&piece)));
        if let Err(error) = read {
            return Some((DamageKind::Unreadable, chain_of(&error)));
        }
        let found = hasher.finish();
        (found != *digest).then(|| (DamageKind::Content, format!("its content has digest {found}")))
    }

    /// Puts content where nobody finds it; `None` when it is not there.
    fn put_aside(&self, key: &str) -> Result<Option<PathBuf>, StorageError> {
        let target = format!("quarantine/{}", key.strip_prefix("blobs/").unwrap_or(key));
        if self
            .objects()
            .list(key.rsplit_once('/').map_or(key, |(folder, _)| folder))?
            .iter()
            .any(|object| key.ends_with(&object.name))
        {
            self.lists().remove(key);
            self.objects().rename(key, &target)?;
            return Ok(Some(target.into()));
        }
        Ok(None)
    }

    /// Compares the index with what is there, and each manifest with its blobs.
    fn check_documents(&self, repository: &Repository, contents: &Contents, scrubbed: &mut Scrubbed) {
        for (digest, entry) in &contents.index.manifests {
            let key = contents_key(digest);
            let Some(held) = contents.blobs.get(digest) else {
                let message = "a manifest of the index is not there".to_owned();
                scrubbed.damage.push(damage(repository, DamageKind::Missing, Some(digest), key, message));
                continue;
            };
            // What can't be read was told already.
            let read = self.content(digest, held).and_then(|content| content.read(MAX_MANIFEST_BYTES));
            let Ok(bytes) = read else { continue };
            match inspect(&bytes, Some(&entry.media_type)) {
                // One that was entered without its blobs may lack them.
                Ok(_) if entry.is_sparse => {}
                Ok(inspected) => {
                    let missing = inspected.blobs.iter().filter(|blob| !contents.blobs.contains_key(*blob));
                    for blob in missing {
                        let message = format!("a blob of the manifest {digest} is not there");
                        let key = contents_key(blob);
                        scrubbed.damage.push(damage(
                            repository,
                            DamageKind::Missing,
                            Some(blob),
                            key,
                            message,
                        ));
                    }
                }
                Err(sentence) => {
                    scrubbed.damage.push(damage(
                        repository,
                        DamageKind::Document,
                        Some(digest),
                        key,
                        sentence,
                    ));
                }
            }
        }
    }
}

fn damage(
    repository: &Repository,
    kind: DamageKind,
    digest: Option<&Digest>,
    key: String,
    message: String,
) -> Damage {
    Damage {
        repository: Some(repository.name().to_string()),
        kind,
        digest: digest.map(Digest::to_string),
        path: key.into(),
        message,
        quarantined: None,
    }
}
