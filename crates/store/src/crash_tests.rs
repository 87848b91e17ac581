// SPDX-License-Identifier: Apache-2.0
//! What is left when the power goes, or the process, before each single operation.
//!
//! The disk of the worst case: bytes that were not synced are torn in half; a rename whose directory was
//! not synced either happened or did not.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

use polyarch_oci::{Descriptor, Digest, Reference};

use crate::disk::names_in;
use crate::disk::power::Step;
use crate::documents::tests::{put_image, put_index};
use crate::{Durability, Missing, Store, StoreError};

const NAMESPACE: &str = "steps";

/// What the store said it had done before the crash.
#[derive(Default)]
struct Acknowledged {
    blobs: Vec<Digest>,
    /// Blobs and records of this number and below were synced.
    synced_blobs: usize,
    records: Vec<String>,
    synced_records: usize,
    names: Vec<(Reference, Digest)>,
}

/// Makes a directory in memory where there is such a place: the syncs do not have to be real here, and
/// thousands of real ones would take minutes.
fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// A small build: layers, records that name them, one name set twice.
fn work(store: &Store, done: &mut Acknowledged) -> Result<(), StoreError> {
    let name: Reference = "app".parse().unwrap();
    for round in ["one", "two"] {
        for number in 0..2 {
            let content = format!("{round} {number}").repeat(100);
            let digest = store.put(content.as_bytes())?;
            done.blobs.push(digest.clone());
            store.put_record(NAMESPACE, digest.hex(), digest.to_string().as_bytes())?;
            done.records.push(digest.hex().to_owned());
        }
        let index = try_image(store, round)?;
        done.blobs.push(index.digest.clone());
        store.set_ref(&name, &index)?;
        done.names = vec![(name.clone(), index.digest)];
        (done.synced_blobs, done.synced_records) = (done.blobs.len(), done.records.len());
    }
    store.remove_record(NAMESPACE, &done.records[0].clone())?;
    done.records.remove(0);
    done.synced_records -= 1;
    store.put(b"last")?;
    done.blobs.push(Digest::of("last"));
    store.sync()?;
    done.synced_blobs = done.blobs.len();
    Ok(())
}

/// Makes an index of two images, blob by blob.
fn try_image(store: &Store, round: &str) -> Result<Descriptor, StoreError> {
    static IMAGES: LazyLock<[Image; 2]> = LazyLock::new(|| ["one", "two"].map(make_image));
    let (index, blobs) = &IMAGES[usize::from(round == "two")];
    for (digest, bytes) in blobs {
        store.ingest(&bytes[..], Some((digest, bytes.len() as u64)))?;
    }
    Ok(index.clone())
}

/// An index and all blobs of its images.
type Image = (Descriptor, Vec<(Digest, Vec<u8>)>);

fn make_image(round: &str) -> Image {
    let dir = scratch();
    let store = open(dir.path(), Durability::Batched, "other");
    let images =
        ["linux/amd64", "linux/arm64"].map(|p| put_image(&store, p, &[round.as_bytes(), p.as_bytes()]));
    let index = put_index(&store, images.to_vec());
    let blobs = store.closure(&index, Missing::Refuse).unwrap().into_iter();
    let blobs = blobs.map(|blob| (blob.digest.clone(), store.read(&blob, 1 << 20).unwrap())).collect();
    (index, blobs)
}

fn open(root: &Path, durability: Durability, boot: &str) -> Store {
    let store = Store::open_at_boot(root, durability, Some(boot.to_owned())).unwrap();
    store.inner.disk.power.cut_after(usize::MAX);
    store
}

/// Runs the work with the power cut after `steps` operations; `None` when it came to its end.
fn crash(root: &Path, durability: Durability, steps: usize) -> (Acknowledged, Vec<Step>, bool) {
    let store = open(root, durability, "boot-1");
    let before = store.inner.disk.power.done().len();
    store.inner.disk.power.cut_after(steps);
    let mut done = Acknowledged::default();
    let is_complete = work(&store, &mut done).is_ok();
    (done, store.inner.disk.power.done().split_off(before), is_complete)
}

/// Tears what was not synced; with `lose_renames` also takes back what a directory's sync would have kept.
fn lose_power(root: &Path, steps: &[Step], lose_renames: bool) {
    let mut synced: HashMap<PathBuf, bool> = HashMap::new();
    let mut unsynced_entries: Vec<PathBuf> = Vec::new();
    let mut seen = HashSet::new();
    for step in steps {
        match step {
            Step::SyncFile(path) => {
                synced.insert(path.clone(), true);
            }
            Step::SyncFileSystem => {
                synced.values_mut().for_each(|is_synced| *is_synced = true);
                unsynced_entries.clear();
            }
            Step::SyncDir(dir) => unsynced_entries.retain(|path| path.parent() != Some(dir)),
            Step::Rename(from, to) => {
                let is_synced = synced.remove(from).unwrap_or(false);
                synced.insert(to.clone(), is_synced);
                // One that replaced a file would leave the old file; the other variant covers that.
                if seen.insert(to.clone()) {
                    unsynced_entries.push(to.clone());
                }
            }
            Step::Remove(path) => {
                synced.remove(path);
            }
        }
    }
    for path in files_beneath(root) {
        let own = path.file_name().unwrap();
        if own != "lock" && own != "format" && synced.get(&path) != Some(&true) {
            let length = fs::metadata(&path).unwrap().len();
            let torn = fs::read(&path).unwrap()[..usize::try_from(length / 2).unwrap()].to_vec();
            fs::remove_file(&path).unwrap();
            fs::write(&path, torn).unwrap();
        }
    }
    if lose_renames {
        for path in unsynced_entries {
            let _ = fs::remove_file(path);
        }
    }
}

fn files_beneath(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for name in names_in(dir).unwrap() {
        let path = dir.join(name);
        if path.is_dir() { found.extend(files_beneath(&path)) } else { found.push(path) }
    }
    found
}

/// Checks what must hold at any time: what is visible is whole, and leads to nothing that is missing.
fn check_visible(store: &Store) {
    for dir in [Some(store.root().to_owned()), store.inner.staged.clone()].into_iter().flatten() {
        for path in files_beneath(&dir.join("blobs")) {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            assert_eq!(Digest::of(fs::read(&path).unwrap()).hex(), name, "a torn blob is visible");
        }
    }
    for record in store.records(NAMESPACE).unwrap() {
        let digest: Digest = String::from_utf8(record.unwrap().1).unwrap().parse().unwrap();
        assert!(store.contains(&digest), "a record names a blob that is not there");
    }
    for (_, entry) in store.refs().unwrap() {
        assert_eq!(store.closure(&entry.descriptor, Missing::Refuse).unwrap().len(), 8);
    }
}

fn check_all_crashes(durability: Durability, mut after: impl FnMut(&Path, &Acknowledged, &[Step], usize)) {
    let mut steps = 0;
    loop {
        let dir = scratch();
        let (done, log, is_complete) = crash(dir.path(), durability, steps);
        after(dir.path(), &done, &log, steps);
        // Whatever happened, the same work succeeds afterwards, and nothing needs a hand.
        let store = open(dir.path(), durability, "boot-2");
        work(&store, &mut Acknowledged::default()).unwrap();
        check_visible(&store);
        let mut store = store.lock_exclusive(Duration::from_secs(10)).unwrap();
        store.gc([]).unwrap();
        let left: Vec<_> = ["ingest", "staged"]
            .iter()
            .flat_map(|name| files_beneath(&dir.path().join(name)))
            .filter(|path| !path.starts_with(store.inner.staged.as_ref().unwrap()))
            .collect();
        assert_eq!(left, Vec::<PathBuf>::new());
        if is_complete {
            break;
        }
        steps += 1;
    }
    assert!(steps > 30, "only {steps} operations were interrupted");
}

fn check_power_loss(durability: Durability, lose_renames: bool) {
    check_all_crashes(durability, |root, done, log, steps| {
        lose_power(root, log, lose_renames);
        let store = open(root, durability, "boot-2");
        check_visible(&store);
        let (blobs, records) = match durability {
            Durability::Each => (done.blobs.len(), done.records.len()),
            Durability::Batched => (done.synced_blobs, done.synced_records),
        };
        for digest in &done.blobs[..blobs] {
            assert!(store.contains(digest), "acknowledged blob lost after {steps} operations");
        }
        for key in &done.records[..records] {
            let record = store.get_record(NAMESPACE, key).unwrap();
            assert!(record.is_some(), "acknowledged record lost after {steps} operations");
        }
        for (name, digest) in &done.names {
            let entry = store.get_ref(name).unwrap().expect("an acknowledged name stays");
            // The second setting may have reached the disk without having been acknowledged.
            assert!(entry.descriptor.digest == *digest || done.synced_blobs < 6);
        }
    });
}

#[test]
fn power_lost_with_each_file_synced() {
    check_power_loss(Durability::Each, false);
}

#[test]
fn power_and_unsynced_renames_lost_with_each_file_synced() {
    check_power_loss(Durability::Each, true);
}

#[test]
fn power_lost_with_batched_syncs() {
    check_power_loss(Durability::Batched, false);
}

#[test]
fn power_and_unsynced_renames_lost_with_batched_syncs() {
    check_power_loss(Durability::Batched, true);
}

#[test]
fn a_killed_process_loses_nothing_that_was_acknowledged() {
    for durability in [Durability::Each, Durability::Batched] {
        check_all_crashes(durability, |root, done, _, steps| {
            let store = open(root, durability, "boot-1");
            check_visible(&store);
            for digest in &done.blobs {
                assert!(store.contains(digest), "blob lost after {steps} operations");
            }
            for key in &done.records {
                assert!(store.get_record(NAMESPACE, key).unwrap().is_some(), "record lost after {steps}");
            }
        });
    }
}

#[test]
fn a_store_whose_making_was_interrupted_is_made_again() {
    for made in [&["ingest"][..], &["ingest", "blobs", "blobs/sha256", "refs"]] {
        let dir = tempfile::tempdir().unwrap();
        made.iter().for_each(|name| fs::create_dir(dir.path().join(name)).unwrap());
        fs::write(dir.path().join("ingest/format-1234"), "polyarch").unwrap();
        let store = Store::open(dir.path()).unwrap();
        let digest = store.put(b"x").unwrap();
        store.sync().unwrap();
        assert!(store.inner.blob(&digest).exists());
        assert_eq!(files_beneath(&dir.path().join("ingest")), Vec::<PathBuf>::new());
    }
}

#[test]
fn many_writers_of_one_blob_and_a_syncer_agree() {
    let dir = tempfile::tempdir().unwrap();
    let content = b"the same bytes".repeat(20_000);
    let digest = Digest::of(&content);
    std::thread::scope(|scope| {
        for writer in 0..6 {
            let (root, content, digest) = (dir.path(), &content, &digest);
            scope.spawn(move || {
                let durability = if writer % 3 == 0 { Durability::Each } else { Durability::Batched };
                let store = Store::open_with(root, durability).unwrap();
                for _ in 0..5 {
                    store.ingest(&content[..], Some((digest, content.len() as u64))).unwrap();
                    assert!(store.contains(digest), "a committed blob is visible, also while it moves");
                    store.sync().unwrap();
                }
            });
        }
    });
    let store = Store::open(dir.path()).unwrap();
    check_visible(&store);
    assert!(store.inner.blob(&digest).exists());
    assert_eq!(files_beneath(&dir.path().join("ingest")), Vec::<PathBuf>::new());
}
