// SPDX-License-Identifier: Apache-2.0
//! The same bytes from root and from a user without subordinate ids.
//!
//! The scenario runs twice: here, and in this binary started anew inside a user namespace that maps
//! one id, where owners and device nodes cannot be expressed on disk.

use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use polyarch_oci::Digest;
use polyarch_snapshot::{CopySource, CopySpec, KeepAll, LayerTimes, SnapshotId, TreeMode, content_key, copy};

use crate::apply::everything;
use crate::support::{Entry, Store, Tar, is_root, names_in, path_of};

const RESULT_VARIABLE: &str = "POLYARCH_TEST_SCENARIO_RESULT";

/// Applies, changes, copies and exports, and describes everything that came out.
fn scenario(store: &Store) -> String {
    let times = LayerTimes { clamp: Some(0), unknown: None };
    let mut text = String::new();
    let mut export = |id: &SnapshotId, parents: &[SnapshotId]| {
        let mut bytes = Vec::new();
        store.snapshots.write_layer(id, parents, &times, &mut bytes).unwrap();
        writeln!(text, "{id} {} {:?}", Digest::of(&bytes), names_in(&bytes)).unwrap();
    };
    let base = store.apply(&everything(), &[]).unwrap();
    export(&base, &[]);
    let owned = Entry { owner: (5, 6), kind: b'5', mode: 0o2755, ..Entry::default() };
    let below = store.apply(&Tar::new().add("usr/", owned, b"").end(), &[]).unwrap();
    let chained = store
        .apply(
            &Tar::new().file("usr/x", "x").hard_link("copy", "bin/first").end(),
            &[base.clone(), below.clone()],
        )
        .unwrap();
    export(&chained, &[base.clone(), below.clone()]);
    let parents = [base, below, chained];

    let active = store.snapshots.prepare(&parents).unwrap();
    let tree = active.tree().unwrap();
    // Copied up by a change of mode: who owns it stays.
    let touched = path_of(&tree).join("bin/first");
    std::fs::set_permissions(touched, std::fs::Permissions::from_mode(0o711)).unwrap();
    tree.write_file("srv/data/file", b"data", 0o640, (33, 33)).unwrap();
    tree.symlink("file", "srv/data/link", (44, 44)).unwrap();
    tree.mkdir_all("home/user", 0o700, (1000, 1000)).unwrap();
    assert_eq!(tree.metadata("srv/data/link").unwrap().unwrap().uid, 33);
    assert_eq!(tree.metadata("usr").unwrap().unwrap().gid, 6);
    drop(tree);
    let changed = active.commit("changed".parse().unwrap()).unwrap().id;
    export(&changed, &parents);

    // What is copied from one tree to the other keeps its recorded owners and devices.
    let mut layers = parents.to_vec();
    layers.push(changed);
    let source = store.snapshots.view(&layers).unwrap();
    let active = store.snapshots.prepare(&[]).unwrap();
    let into = active.tree().unwrap();
    let spec = CopySpec {
        source: &source,
        sources: &[CopySource { pattern: "/".into(), allow_wildcard: false }],
        filter: &KeepAll,
        matcher: &|pattern, name| pattern == name,
        destination: "/all",
        owner: None,
        mode: None,
        unpack: false,
        unpack_owner: None,
        modified: None,
        within: None,
        created_mode: 0o755,
        keeps_directories: false,
        follows_links: true,
        needs_match: false,
    };
    copy(&spec, &into).unwrap();
    let key = content_key(&spec, None, 2).unwrap();
    drop(into);
    let copied = active.commit("copied".parse().unwrap()).unwrap().id;
    export(&copied, &[]);
    writeln!(text, "key {key}").unwrap();
    text
}

fn both_modes() -> String {
    let overlay = Store::overlay();
    assert_eq!(overlay.snapshots.mode(), &TreeMode::Overlay);
    let (overlay, copying) = (scenario(&overlay), scenario(&Store::copying()));
    assert_eq!(overlay, copying);
    overlay
}

/// Runs only when it is started by the test below.
#[test]
fn scenario_inside_the_namespace() {
    if let Some(result) = std::env::var_os(RESULT_VARIABLE) {
        std::fs::write(result, both_modes()).unwrap();
    }
}

#[test]
fn kernel_a_single_id_namespace_gives_the_same_bytes() {
    if !is_root() {
        return;
    }
    let probe = Command::new("unshare").args(["-Urm", "true"]).status();
    if !probe.is_ok_and(|status| status.success()) {
        eprintln!("skipped: no user namespaces here");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let result = directory.path().join("result");
    let output = Command::new("unshare")
        .arg("-Urm")
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "single_id::scenario_inside_the_namespace", "--nocapture"])
        .env(RESULT_VARIABLE, &result)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    let inside = std::fs::read_to_string(result).unwrap();
    let outside = both_modes();
    for (inside, outside) in inside.lines().zip(outside.lines()) {
        assert_eq!(inside, outside);
    }
    assert_eq!(inside, outside);
    assert!(outside.contains("dev/null") && outside.contains("srv/data/link"), "{outside}");
}
