// SPDX-License-Identifier: Apache-2.0
//! Several processes in one store. The children are this test binary, told by an environment variable
//! to do another thing.

use std::io::{BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use polyarch_oci::Digest;
use polyarch_store::{Store, StoreError};

const ROOT: &str = "POLYARCH_TEST_STORE_ROOT";

/// Starts this binary with only the given test, which finds the store's root in its environment.
fn child(test: &str, root: &Path) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(ROOT, root);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
}

/// Waits for a line of a child that starts with a word, and returns the rest.
fn next_line(output: &mut impl std::io::BufRead, word: &str) -> Option<String> {
    let mut line = String::new();
    while output.read_line(&mut line).unwrap() > 0 {
        if let Some((_, rest)) = line.split_once(word) {
            return Some(rest.trim().to_owned());
        }
        line.clear();
    }
    None
}

/// In a child: writes blobs until it is killed, telling each.
#[test]
fn child_that_writes_blobs() {
    let Some(root) = std::env::var_os(ROOT) else { return };
    let store = Store::open(Path::new(&root)).unwrap();
    let pid = std::process::id();
    for number in 0.. {
        let content = format!("{pid} {number}").repeat(5_000);
        let digest = store.put(content.as_bytes()).unwrap();
        store.put_record("numbers", digest.hex(), digest.to_string().as_bytes()).unwrap();
        println!("wrote {digest}");
    }
}

#[test]
fn a_killed_process_leaves_whole_blobs_and_nothing_to_clean() {
    let dir = tempfile::tempdir().unwrap();
    let mut told = Vec::new();
    for round in 0..4 {
        let mut writer = child("processes::child_that_writes_blobs", dir.path());
        let mut output = BufReader::new(writer.stdout.take().unwrap());
        for _ in 0..10 + round {
            told.push(next_line(&mut output, "wrote ").unwrap().parse::<Digest>().unwrap());
        }
        writer.kill().unwrap();
        writer.wait().unwrap();
    }
    let store = Store::open(dir.path()).unwrap();
    for digest in &told {
        let mut bytes = Vec::new();
        store.open_blob(digest).unwrap().read_to_end(&mut bytes).unwrap();
        assert_eq!(Digest::of(&bytes), *digest);
        assert_eq!(
            store.get_record("numbers", digest.hex()).unwrap().unwrap(),
            digest.to_string().as_bytes()
        );
    }
    assert_eq!(store.usage().unwrap().ingest.files, 0, "opening removed the left-overs");
    let kept = told[0].clone();
    let mut store = store.lock_exclusive(Duration::ZERO).unwrap();
    let collected = store.gc([kept.clone()]).unwrap();
    assert!(collected.blobs.files >= told.len() as u64 - 1);
    assert!(store.contains(&kept) && store.usage().unwrap().blobs.files == 1);
}

/// In a child: holds the store until its input ends.
#[test]
fn child_that_holds_the_store() {
    let Some(root) = std::env::var_os(ROOT) else { return };
    let _store = Store::open(Path::new(&root)).unwrap();
    println!("holds {}", std::process::id());
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

#[test]
fn a_collector_names_the_process_that_holds_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let mut holder = child("processes::child_that_holds_the_store", dir.path());
    let mut output = BufReader::new(holder.stdout.take().unwrap());
    let pid = next_line(&mut output, "holds ").unwrap();
    let store = Store::open(dir.path()).unwrap();
    let error = store.lock_exclusive(Duration::ZERO).err().unwrap();
    assert!(matches!(&error, StoreError::Busy { .. }), "{error}");
    // The kernel tells who holds a lock where /proc/locks exists.
    if Path::new("/proc/locks").exists() {
        assert!(error.to_string().contains(&format!("(pid {pid})")), "{error}");
    }
    // The child ends by itself, and a waiting collector gets the store then.
    drop(holder.stdin.take());
    let store = Store::open(dir.path()).unwrap();
    store.lock_exclusive(Duration::from_secs(60)).unwrap();
    holder.wait().unwrap();
}

/// In a child: writes the same blob many times and syncs.
#[test]
fn child_that_writes_one_blob() {
    let Some(root) = std::env::var_os(ROOT) else { return };
    let content = b"one".repeat(50_000);
    for _ in 0..20 {
        let store = Store::open(Path::new(&root)).unwrap();
        let digest = store.ingest(&content[..], None).unwrap().0;
        store.sync().unwrap();
        assert!(store.contains(&digest));
    }
}

#[test]
fn processes_that_write_the_same_blob_agree() {
    let dir = tempfile::tempdir().unwrap();
    let children: Vec<Child> =
        (0..4).map(|_| child("processes::child_that_writes_one_blob", dir.path())).collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.usage().unwrap().blobs.files, 1);
    assert_eq!(store.size(&Digest::of(b"one".repeat(50_000))), Some(150_000));
}
