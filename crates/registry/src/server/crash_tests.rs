// SPDX-License-Identifier: Apache-2.0
//! What is left when the power goes, or the process, before each single operation.
//!
//! The disk of the worst case: bytes that were not synced are torn in half; a rename or a link whose directory was not
//! synced either happened or did not.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use polyarch_oci::media_type::OCI_MANIFEST;
use polyarch_oci::{Algorithm, Digest};

use super::disk::names_in;
use super::gc::CollectOptions;
use super::index::ManifestEntry;
use super::names::{RepositoryName, Tag};
use super::power::Step;
use super::repository::{Change, Needed, Outcome};
use super::scrub::ScrubOptions;
use super::storage::{Directory, StorageError};
use super::upload::{Receive as _, UploadError, Uploads};

/// Pushes a blob as one request does.
pub(super) fn put_blob(storage: &Directory, repository: &str, bytes: &[u8]) -> Result<Digest, StorageError> {
    let repository = storage.repository(&RepositoryName::new(repository).unwrap());
    let mut incoming = storage.incoming()?;
    incoming.file.write_all(bytes).unwrap();
    let digest = Digest::of(bytes);
    storage.place_blob(&repository, &incoming.path, &incoming.file, &digest)?;
    Ok(digest)
}

/// Enters a manifest as one request does.
pub(super) fn put_manifest(
    storage: &Directory,
    repository: &str,
    tag: Option<&str>,
    bytes: &[u8],
    subject: Option<Digest>,
) -> Result<Digest, StorageError> {
    let digest = put_blob(storage, repository, bytes)?;
    let repository = storage.repository(&RepositoryName::new(repository).unwrap());
    let entry = ManifestEntry {
        media_type: OCI_MANIFEST.to_owned(),
        size: bytes.len() as u64,
        subject,
        is_sparse: false,
    };
    let tags = tag.map(|tag| Tag::new(tag).unwrap()).into_iter().collect();
    let needed = Needed { blobs: Vec::new(), may_lack: false };
    let change = Change::Put { digest: digest.clone(), entry, tags, needed };
    match repository.change(change) {
        Ok(outcome) => assert_eq!(outcome, Outcome::Done),
        // The only owner: this change was alone.
        Err(error) => return Err(std::sync::Arc::into_inner(error).unwrap()),
    }
    Ok(digest)
}

/// Pushes an image of one layer; its config is the layer, too.
pub(super) fn image(
    storage: &Directory,
    repository: &str,
    tag: &str,
    layer: &[u8],
) -> Result<Digest, StorageError> {
    let config = put_blob(storage, repository, b"{}")?;
    let layer = put_blob(storage, repository, layer)?;
    let text = format!(
        r#"{{"schemaVersion":2,"config":{{"digest":"{config}","size":2}},"layers":[{{"digest":"{layer}","size":5}}]}}"#
    );
    put_manifest(storage, repository, Some(tag), text.as_bytes(), None)
}

/// What the registry said it had done before the crash.
#[derive(Default)]
struct Acknowledged {
    blobs: Vec<(&'static str, Digest)>,
    tags: HashMap<(&'static str, &'static str), Digest>,
}

/// Makes a directory in memory where there is such a place: the syncs do not have to be real here.
fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// Pushes in all ways: whole, in pieces, mounted; a tag is set twice, and one removed.
fn work(storage: &Directory, done: &mut Acknowledged) -> Result<(), StorageError> {
    for layer in [&b"first layer"[..], b"second layer"] {
        let manifest = image(storage, "a", "v1", layer)?;
        done.blobs.extend([("a", Digest::of(layer)), ("a", manifest.clone())]);
        done.tags.insert(("a", "v1"), manifest);
    }
    let uploads = std::sync::Arc::new(Uploads::new(storage.clone(), 10));
    let name = RepositoryName::new("a").unwrap();
    let in_pieces = (|| {
        let id = uploads.start(&name, Algorithm::Sha256)?;
        for piece in ["in ", "pieces"] {
            let mut upload = uploads.open(&name, &id)?;
            upload.append(&[bytes::Bytes::from_static(piece.as_bytes())])?;
        }
        uploads.open(&name, &id)?.finish(&storage.repository(&name), &Digest::of("in pieces"))
    })();
    match in_pieces {
        Ok(_) => done.blobs.push(("a", Digest::of("in pieces"))),
        Err(UploadError::Storage(error)) => return Err(error),
        Err(other) => panic!("{other}"),
    }
    let other = storage.repository(&RepositoryName::new("b/c").unwrap());
    assert!(storage.mount(&other, Some(&storage.repository(&name)), &Digest::of("first layer"))?);
    done.blobs.push(("b/c", Digest::of("first layer")));
    let manifest = image(storage, "b/c", "gone", b"first layer")?;
    done.tags.insert(("b/c", "gone"), manifest);
    done.tags.remove(&("b/c", "gone"));
    let removed = other.change(Change::RemoveTag(Tag::new("gone").unwrap()));
    removed.map_err(|error| std::sync::Arc::into_inner(error).unwrap())?;
    Ok(())
}

fn files_beneath(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for name in names_in(dir).unwrap() {
        let path = dir.join(name);
        if path.is_dir() { found.extend(files_beneath(&path)) } else { found.push(path) }
    }
    found
}

/// Tears what was not synced; with `lose_entries` also takes back what a directory's sync would have kept.
///
/// Syncs are told by path and files have several names, so they are followed by the name under which each was written.
fn lose_power(root: &Path, steps: &[Step], lose_entries: bool) {
    let mut synced: HashSet<PathBuf> = HashSet::new();
    let mut origin: HashMap<PathBuf, PathBuf> = HashMap::new();
    let mut unsynced: Vec<PathBuf> = Vec::new();
    let mut durable: HashSet<PathBuf> = HashSet::new();
    let first_name = |origin: &HashMap<PathBuf, PathBuf>, path: &PathBuf| {
        origin.get(path).cloned().unwrap_or_else(|| path.clone())
    };
    for step in steps {
        match step {
            Step::SyncFile(path) => {
                synced.insert(first_name(&origin, path));
            }
            Step::SyncDir(dir) => {
                let (kept, left) = unsynced.drain(..).partition(|path| path.parent() == Some(dir));
                durable.extend::<Vec<_>>(kept);
                unsynced = left;
            }
            Step::Link(from, to) | Step::Rename(from, to) => {
                let first = first_name(&origin, from);
                if from.is_dir() || to.is_dir() {
                    // A repository that is made whole: what was synced in it is so under its new name.
                    let moved: Vec<PathBuf> = synced
                        .iter()
                        .filter_map(|path| Some(to.join(path.strip_prefix(from).ok()?)))
                        .collect();
                    durable.extend(moved.clone());
                    synced.extend(moved);
                }
                origin.insert(to.clone(), first);
                // One that replaced a file would leave the old file; the other variant covers that.
                if !durable.contains(to) {
                    unsynced.push(to.clone());
                }
            }
            Step::Remove(path) => {
                origin.remove(path);
                unsynced.retain(|known| known != path);
                durable.remove(path);
            }
        }
    }
    if lose_entries {
        for path in &unsynced {
            let _ = fs::remove_file(path).or_else(|_| fs::remove_dir_all(path));
        }
    }
    let mut torn = HashSet::new();
    for path in files_beneath(root) {
        let own = path.file_name().unwrap();
        if own == "format" || synced.contains(&first_name(&origin, &path)) {
            continue;
        }
        let metadata = fs::metadata(&path).unwrap();
        if torn.insert(metadata.ino()) {
            let mut mode = metadata.permissions();
            std::os::unix::fs::PermissionsExt::set_mode(&mut mode, 0o644);
            fs::set_permissions(&path, mode).unwrap();
            let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
            file.set_len(metadata.len() / 2).unwrap();
        }
    }
}

/// Checks what must hold at any time.
fn check(root: &Path, done: &Acknowledged, steps: usize) {
    let storage = Directory::open(root).unwrap();
    let scrubbed = storage.scrub(&ScrubOptions::default(), |_| {}).unwrap();
    // What only the pool has is nothing that anybody sees; a push of it compares the size.
    let seen: Vec<_> = scrubbed.damage.iter().filter(|damage| damage.repository.is_some()).collect();
    assert!(seen.is_empty(), "after {steps} operations: {seen:?}");
    for (repository, digest) in &done.blobs {
        let repository = storage.repository(&RepositoryName::new(repository).unwrap());
        assert!(
            repository.open_blob(digest).unwrap().is_some(),
            "acknowledged blob lost after {steps} operations"
        );
    }
    for ((repository, tag), digest) in &done.tags {
        let repository = storage.repository(&RepositoryName::new(repository).unwrap());
        let index = repository.index().unwrap().expect("an acknowledged repository stays");
        let tagged = index.tags.get(&Tag::new(tag).unwrap());
        assert!(
            index.find(digest).is_some() && tagged.is_some(),
            "acknowledged tag lost after {steps} operations"
        );
    }
}

fn check_all_crashes(mut after: impl FnMut(&Path, &[Step])) {
    let mut steps = 0;
    loop {
        let dir = scratch();
        let storage = Directory::open(dir.path()).unwrap();
        let before = storage.disk().power.done().len();
        storage.disk().power.cut_after(steps);
        let mut done = Acknowledged::default();
        let is_complete = work(&storage, &mut done).is_ok();
        let log = storage.disk().power.done().split_off(before);
        drop(storage);
        after(dir.path(), &log);
        check(dir.path(), &done, steps);
        // Whatever happened, the same work succeeds afterwards, and nothing needs a hand.
        let storage = Directory::open(dir.path()).unwrap();
        storage.disk().power.cut_after(usize::MAX);
        let mut again = Acknowledged::default();
        work(&storage, &mut again).unwrap();
        check(dir.path(), &again, steps);
        if is_complete {
            break;
        }
        steps += 1;
    }
    assert!(steps > 60, "only {steps} operations were interrupted");
}

#[test]
fn a_killed_process_loses_nothing_that_was_acknowledged() {
    check_all_crashes(|_, _| {});
}

#[test]
fn power_loss_tears_nothing_that_is_seen() {
    check_all_crashes(|root, log| lose_power(root, log, false));
}

#[test]
fn power_loss_takes_back_only_what_was_not_acknowledged() {
    check_all_crashes(|root, log| lose_power(root, log, true));
}

#[test]
fn a_collection_that_was_interrupted_damages_nothing() {
    let options = CollectOptions {
        grace: Duration::ZERO,
        uploads: Duration::ZERO,
        deletes_untagged: true,
        ..CollectOptions::default()
    };
    let mut steps = 0;
    loop {
        let dir = scratch();
        let storage = Directory::open(dir.path()).unwrap();
        for layer in [&b"first layer"[..], b"second layer"] {
            image(&storage, "a", "v1", layer).unwrap();
        }
        storage.disk().power.cut_after(steps);
        let collected = storage.collect(&options).unwrap_or_default();
        let is_complete = collected.manifests == 1 && collected.left_alone.is_empty();
        drop(storage);
        let storage = Directory::open(dir.path()).unwrap();
        let scrubbed = storage.scrub(&ScrubOptions::default(), |_| {}).unwrap();
        assert!(scrubbed.damage.is_empty(), "after {steps} operations: {:?}", scrubbed.damage);
        let again = storage.collect(&options).unwrap();
        assert!(again.left_alone.is_empty(), "after {steps} operations: {:?}", again.left_alone);
        if is_complete {
            break;
        }
        steps += 1;
    }
    assert!(steps > 4, "only {steps} operations were interrupted");
}

#[test]
fn what_another_process_has_made_is_made_sure_of() {
    let dir = scratch();
    let root = dir.path().join("below/root");
    let storage = Directory::open(&root).unwrap();
    let made = storage.disk().power.done();
    for parent in [dir.path(), &dir.path().join("below")] {
        assert!(made.contains(&Step::SyncDir(parent.to_owned())), "{made:?}");
    }
    // The other one has come no further than the rename.
    let repositories = root.join("repositories");
    let renamed = (1..50).find(|steps| {
        storage.disk().power.cut_after(*steps);
        put_blob(&storage, "a", b"x").is_err() && repositories.join("a").exists()
    });
    assert!(renamed.is_some());
    let second = Directory::open(&root).unwrap();
    put_blob(&second, "a", b"y").unwrap();
    assert!(second.disk().power.done().contains(&Step::SyncDir(repositories)));
}

#[test]
fn left_overs_are_collected() {
    let dir = scratch();
    let storage = Directory::open(dir.path()).unwrap();
    storage.disk().power.cut_after(20);
    assert!(work(&storage, &mut Acknowledged::default()).is_err());
    drop(storage);
    let storage = Directory::open(dir.path()).unwrap();
    let options =
        CollectOptions { grace: Duration::ZERO, uploads: Duration::ZERO, ..CollectOptions::default() };
    storage.collect(&options).unwrap();
    assert_eq!(files_beneath(&storage.root().join("incoming")), Vec::<PathBuf>::new());
    assert_eq!(files_beneath(&storage.root().join("uploads")), Vec::<PathBuf>::new());
}
