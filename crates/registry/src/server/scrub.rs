// SPDX-License-Identifier: Apache-2.0
//! Scrubbing: every byte is read and every digest compared; what is damaged is told, and put aside when that is wanted.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use polyarch_oci::{Digest, Hasher};
use serde::Serialize;

use super::api_error::chain_of;
use super::disk::DiskError;
use super::document::inspect;
use super::names::RepositoryName;
use super::repository::Layout;
use super::storage::{Directory, StorageError};

/// Bytes that are read at a time.
const READ_BYTES: usize = 1 << 20;

/// What a scrub does.
#[derive(Debug, Clone, Default)]
pub struct ScrubOptions {
    /// Whether damaged files are moved to `quarantine/`, so that a push puts them back.
    pub quarantines: bool,
}

/// What a scrub found.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Scrubbed {
    /// Repositories that were looked through.
    pub repositories: u64,
    /// Files that were read.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What is damaged.
    pub damage: Vec<Damage>,
}

/// Something that is damaged.
#[derive(Debug, Clone, Serialize)]
pub struct Damage {
    /// The repository; `None` for what only the pool has.
    pub repository: Option<String>,
    /// What is wrong.
    pub kind: DamageKind,
    /// The digest that is meant, when one is.
    pub digest: Option<String>,
    /// The file.
    pub path: PathBuf,
    /// What was found, for people.
    pub message: String,
    /// Where the file was put, when it was.
    pub quarantined: Option<PathBuf>,
}

/// What can be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DamageKind {
    /// The bytes do not have the digest.
    Content,
    /// The disk does not give the bytes.
    Unreadable,
    /// A manifest of the index, or a blob of a manifest, is not there.
    Missing,
    /// An `index.json` or a manifest makes no sense.
    Document,
}

/// What is known of a file that several names may have: nothing wrong, or what.
type Verdicts = HashMap<(u64, u64), Option<(DamageKind, String)>>;

impl Directory {
    /// Reads everything and compares. Other processes may go on using the directory.
    ///
    /// # Errors
    /// When the directory cannot be read, or something cannot be put aside.
    pub fn scrub(
        &self,
        options: &ScrubOptions,
        mut progress: impl FnMut(&Scrubbed),
    ) -> Result<Scrubbed, StorageError> {
        let mut scrubbed = Scrubbed::default();
        let mut verdicts = Verdicts::new();
        for name in self.repository_names()? {
            let repository = self.repository(&name);
            for digest in self.digests_in(&repository.dir)? {
                let path = repository.blob_path(&digest);
                self.check(Some(&name), &path, &digest, options, &mut verdicts, &mut scrubbed)?;
                progress(&scrubbed);
            }
            check_documents(&repository, &mut scrubbed);
            scrubbed.repositories += 1;
        }
        for digest in self.digests_in(self.root())? {
            let path = self.pool_path(&digest);
            self.check(None, &path, &digest, options, &mut verdicts, &mut scrubbed)?;
            progress(&scrubbed);
        }
        Ok(scrubbed)
    }

    /// Compares one name of a file; its bytes are read once, however many names it has.
    fn check(
        &self,
        repository: Option<&RepositoryName>,
        path: &Path,
        digest: &Digest,
        options: &ScrubOptions,
        verdicts: &mut Verdicts,
        scrubbed: &mut Scrubbed,
    ) -> Result<(), StorageError> {
        // Gone in the meantime, when there is none.
        let Ok(metadata) = fs::metadata(path) else { return Ok(()) };
        let verdict = verdicts.entry((metadata.dev(), metadata.ino())).or_insert_with(|| {
            scrubbed.blobs += 1;
            scrubbed.bytes += metadata.len();
            verify(path, digest)
        });
        let Some((kind, message)) = verdict.clone() else { return Ok(()) };
        // What was pushed anew while the bytes were read is not damaged.
        if fs::metadata(path).ok().map(|now| (now.dev(), now.ino())) != Some((metadata.dev(), metadata.ino()))
        {
            return Ok(());
        }
        let quarantined = match options.quarantines {
            true => Some(self.put_aside(repository, path, digest)?),
            false => None,
        };
        scrubbed.damage.push(Damage {
            repository: repository.map(RepositoryName::to_string),
            kind,
            digest: Some(digest.to_string()),
            path: path.to_owned(),
            message,
            quarantined,
        });
        Ok(())
    }

    fn put_aside(
        &self,
        repository: Option<&RepositoryName>,
        path: &Path,
        digest: &Digest,
    ) -> Result<PathBuf, StorageError> {
        // No repository's directory begins with a point.
        let folder = repository.map_or_else(|| ".pool".to_owned(), RepositoryName::directory);
        let dir = self.root().join("quarantine").join(folder);
        self.disk().ensure_dir(&dir)?;
        let target = dir.join(format!("{}-{}", digest.algorithm().as_str(), digest.hex()));
        self.disk().rename(path, &target)?;
        for dir in [path.parent(), target.parent()].into_iter().flatten() {
            self.disk().sync_dir(dir)?;
        }
        Ok(target)
    }
}

fn verify(path: &Path, digest: &Digest) -> Option<(DamageKind, String)> {
    let mut hasher = Hasher::new(digest.algorithm());
    let mut buffer = vec![0; READ_BYTES];
    let read = File::open(path).and_then(|mut file| {
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(()),
                got => hasher.update(&buffer[..got]),
            }
        }
    });
    if let Err(error) = read {
        if error.kind() == std::io::ErrorKind::NotFound {
            // Deleted in the meantime.
            return None;
        }
        let error = DiskError::new("read", path)(error);
        return Some((DamageKind::Unreadable, chain_of(&error)));
    }
    let found = hasher.finish();
    (found != *digest).then(|| (DamageKind::Content, format!("its content has digest {found}")))
}

/// Compares the index with what is there, and each manifest with its blobs.
fn check_documents(repository: &Layout, scrubbed: &mut Scrubbed) {
    let mut tell = |kind, digest: Option<&Digest>, path: PathBuf, message: String| {
        scrubbed.damage.push(Damage {
            repository: Some(repository.name.to_string()),
            kind,
            digest: digest.map(Digest::to_string),
            path,
            message,
            quarantined: None,
        });
    };
    let index = match repository.index() {
        Ok(Some(index)) => index,
        Ok(None) => {
            let message = "the repository has no index.json".to_owned();
            tell(DamageKind::Missing, None, repository.dir.clone(), message);
            return;
        }
        Err(error) => {
            tell(DamageKind::Document, None, repository.dir.join("index.json"), chain_of(&error));
            return;
        }
    };
    for (digest, entry) in &index.manifests {
        let path = repository.blob_path(digest);
        let Ok(bytes) = fs::read(&path) else {
            tell(DamageKind::Missing, Some(digest), path, "a manifest of index.json is not there".to_owned());
            continue;
        };
        match inspect(&bytes, Some(&entry.media_type)) {
            // One that was entered without its blobs may lack them.
            Ok(_) if entry.is_sparse => {}
            Ok(inspected) => {
                for blob in inspected.blobs.iter().filter(|blob| !repository.blob_path(blob).exists()) {
                    let message = format!("a blob of the manifest {digest} is not there");
                    tell(DamageKind::Missing, Some(blob), repository.blob_path(blob), message);
                }
            }
            Err(sentence) => tell(DamageKind::Document, Some(digest), path, sentence),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::crash_tests::{image, put_blob};

    #[test]
    fn damage_is_found_put_aside_and_mended_by_a_push() {
        let dir = tempfile::tempdir().unwrap();
        let storage = Directory::open(dir.path()).unwrap();
        image(&storage, "a/b", "v1", b"layer").unwrap();
        let digest = put_blob(&storage, "c", b"layer").unwrap();
        let clean = storage.scrub(&ScrubOptions::default(), |_| {}).unwrap();
        assert_eq!((clean.repositories, clean.blobs), (2, 3), "shared files are read once");
        assert!(clean.damage.is_empty(), "{:?}", clean.damage);

        let repository = storage.repository(&RepositoryName::new("a/b").unwrap());
        let path = repository.blob_path(&digest);
        let mut mode = fs::metadata(&path).unwrap().permissions();
        std::os::unix::fs::PermissionsExt::set_mode(&mut mode, 0o644);
        fs::set_permissions(&path, mode).unwrap();
        fs::write(&path, b"lAyer").unwrap();
        let found = storage.scrub(&ScrubOptions { quarantines: true }, |_| {}).unwrap();
        let kinds: Vec<_> =
            found.damage.iter().map(|damage| (damage.repository.as_deref(), damage.kind)).collect();
        assert_eq!(
            kinds,
            [
                (Some("a/b"), DamageKind::Content),
                (Some("a/b"), DamageKind::Missing),
                (Some("c"), DamageKind::Content),
                (None, DamageKind::Content),
            ]
        );
        assert!(found.damage[0].quarantined.as_ref().unwrap().exists() && !path.exists());
        for repository in ["a/b", "c"] {
            put_blob(&storage, repository, b"layer").unwrap();
        }
        let mended = storage.scrub(&ScrubOptions::default(), |_| {}).unwrap();
        assert!(mended.damage.is_empty(), "{:?}", mended.damage);
    }
}
