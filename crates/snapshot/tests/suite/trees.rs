// SPDX-License-Identifier: Apache-2.0
//! Trees that are changed and committed, by overlay and by copying.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use polyarch_snapshot::{LayerTimes, RootMount, SnapshotId, TreeRoot};

use crate::support::{Entry, Store, Tar, describe, has_overlay, is_root, path_of};

fn id(name: &str) -> SnapshotId {
    name.parse().unwrap()
}

fn base_tar() -> Vec<u8> {
    Tar::new()
        .directory("etc/")
        .file("etc/passwd", "root:x:0:0")
        .file("etc/hosts", "localhost")
        .directory("opt/")
        .directory("opt/app/")
        .file("opt/app/old", "old")
        .file("opt/app/kept", "kept")
        .directory("var/")
        .directory("var/cache/")
        .file("var/cache/a", "a")
        .hard_link("var/cache/b", "var/cache/a")
        .symlink("lib", "usr/lib")
        .directory("usr/")
        .directory("usr/lib/")
        .file("usr/lib/x.so", "elf")
        .end()
}

/// Changes of every sort; times are set so that both ways of making trees can be compared.
fn edit(root: &Path) {
    std::fs::write(root.join("etc/hosts"), "changed").unwrap();
    std::fs::remove_file(root.join("etc/passwd")).unwrap();
    std::fs::write(root.join("etc/new"), "new").unwrap();
    std::fs::set_permissions(root.join("usr/lib/x.so"), std::fs::Permissions::from_mode(0o4755)).unwrap();
    std::fs::remove_dir_all(root.join("opt/app")).unwrap();
    std::fs::create_dir(root.join("opt/app")).unwrap();
    std::fs::write(root.join("opt/app/fresh"), "fresh").unwrap();
    std::fs::create_dir_all(root.join("srv/deep/tree")).unwrap();
    std::fs::write(root.join("srv/deep/tree/leaf"), "leaf").unwrap();
    std::fs::hard_link(root.join("srv/deep/tree/leaf"), root.join("srv/again")).unwrap();
    std::fs::hard_link(root.join("var/cache/a"), root.join("var/cache/c")).unwrap();
    std::fs::remove_file(root.join("lib")).unwrap();
    std::fs::create_dir(root.join("lib")).unwrap();
    symlink("lib/none", root.join("link")).unwrap();
}

fn edited(store: &Store) -> (SnapshotId, SnapshotId) {
    let base = store.apply(&base_tar(), &[]).unwrap();
    let active = store.snapshots.prepare(std::slice::from_ref(&base)).unwrap();
    let tree = active.tree().unwrap();
    edit(&path_of(&tree));
    drop(tree);
    let snapshot = active.commit(id("edited")).unwrap();
    assert!(!snapshot.is_empty);
    (base, snapshot.id)
}

#[test]
fn kernel_overlay_and_copy_give_the_same_bytes() {
    let (overlay, copying) = (Store::overlay(), Store::copying());
    if !is_root() || !has_overlay(&overlay) {
        return;
    }
    let times = LayerTimes { clamp: Some(0), unknown: None };
    let mut archives = Vec::new();
    for store in [&overlay, &copying] {
        let (base, changed) = edited(store);
        let mut bytes = Vec::new();
        store.snapshots.write_layer(&changed, std::slice::from_ref(&base), &times, &mut bytes).unwrap();
        // The tree seen from above is the same, too.
        let view = store.snapshots.view(&[base, changed]).unwrap();
        assert_eq!(view.read("opt/app/fresh", 10).unwrap(), b"fresh");
        assert!(!view.exists("opt/app/old") && !view.exists("etc/passwd"));
        assert_eq!(view.metadata("usr/lib/x.so").unwrap().unwrap().mode, 0o4755);
        archives.push(bytes);
        drop(view);
        assert_eq!(store.leftovers(), 0);
    }
    let names = crate::support::names_in(&archives[0]);
    assert_eq!(names, crate::support::names_in(&archives[1]));
    assert!(archives[0] == archives[1]);
    let expected = [
        "etc/",
        "etc/hosts",
        "etc/new",
        "etc/.wh.passwd",
        "lib/",
        "link",
        "opt/",
        "opt/app/",
        "opt/app/.wh..wh..opq",
        "opt/app/fresh",
        "srv/",
        "srv/again",
        "srv/deep/",
        "srv/deep/tree/",
        "srv/deep/tree/leaf",
        "usr/",
        "usr/lib/",
        "usr/lib/x.so",
        "var/",
        "var/cache/",
    ];
    assert_eq!(names[..expected.len()], expected);
}

#[test]
fn kernel_an_exported_step_applies_to_the_same_tree() {
    let store = Store::overlay();
    if !is_root() || !has_overlay(&store) {
        return;
    }
    let (base, changed) = edited(&store);
    let tar = store.tar_of(&changed, std::slice::from_ref(&base));
    let again = store.apply(&tar, std::slice::from_ref(&base)).unwrap();
    assert_eq!(again, SnapshotId::of_layer(&polyarch_oci::DiffId(polyarch_oci::Digest::of(&tar))));
    let views = [changed, again].map(|top| {
        let view = store.snapshots.view(&[base.clone(), top]).unwrap();
        // A layer does not describe its root.
        describe(&path_of(&view)).split_once('\n').unwrap().1.to_owned()
    });
    assert_eq!(views[0], views[1]);
}

#[test]
fn kernel_three_hundred_layers_stack() {
    for store in [Store::overlay(), Store::copying()] {
        if !is_root() {
            return;
        }
        let layers: Vec<_> = (0..300)
            .map(|number| {
                let tar = Tar::new()
                    .directory("d/")
                    .file(&format!("d/{number}"), &number.to_string())
                    .file("d/last", &number.to_string())
                    .end();
                store.apply(&tar, &[]).unwrap()
            })
            .collect();
        let active = store.snapshots.prepare(&layers).unwrap();
        let tree = active.tree().unwrap();
        assert_eq!(tree.read_dir("d").unwrap().len(), 301);
        assert_eq!(tree.read("d/last", 10).unwrap(), b"299");
        tree.write_file("d/mine", b"x", 0o600, (0, 0)).unwrap();
        drop(tree);
        let snapshot = active.commit(id("top")).unwrap();
        assert_eq!(store.names_of(&snapshot.id, &layers), ["d/", "d/mine"]);
    }
}

#[test]
fn kernel_a_view_of_one_layer_hides_its_whiteouts() {
    for store in [Store::overlay(), Store::copying()] {
        if !is_root() {
            return;
        }
        let tar = Tar::new().file("a", "a").file(".wh.gone", "").directory("d/").file("d/x", "x").end();
        let layer = store.apply(&tar, &[]).unwrap();
        let view = store.snapshots.view(&[layer]).unwrap();
        let names: Vec<_> = view.read_dir("/").unwrap().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["a", "d"]);
        assert!(view.write_file("b", b"", 0o644, (0, 0)).is_err() || store.leftovers() > 0);
    }
}

#[test]
fn kernel_an_unchanged_tree_is_empty_and_a_dropped_one_leaves_nothing() {
    for store in [Store::overlay(), Store::copying()] {
        if !is_root() {
            return;
        }
        let base = store.apply(&base_tar(), &[]).unwrap();
        let active = store.snapshots.prepare(std::slice::from_ref(&base)).unwrap();
        assert_eq!(active.tree().unwrap().read("etc/hosts", 100).unwrap(), b"localhost");
        assert!(active.commit(id("same")).unwrap().is_empty);
        assert!(store.names_of(&id("same"), std::slice::from_ref(&base)).is_empty());

        let active = store.snapshots.prepare(&[base]).unwrap();
        let tree = active.tree().unwrap();
        tree.mkdir_all("closed/inner", 0o000, (0, 0)).unwrap();
        drop(tree);
        drop(active);
        assert_eq!(store.leftovers(), 0);
        assert_eq!(store.snapshots.sweep().unwrap(), 0);
    }
}

#[test]
fn kernel_commit_of_a_taken_name_keeps_the_first() {
    let store = Store::copying();
    for content in ["first", "second"] {
        let active = store.snapshots.prepare(&[]).unwrap();
        active.tree().unwrap().write_file("f", content.as_bytes(), 0o644, (0, 0)).unwrap();
        active.commit(id("same")).unwrap();
    }
    assert_eq!(store.snapshots.view(&[id("same")]).unwrap().read("f", 10).unwrap(), b"first");
    assert_eq!(store.leftovers(), 0);
}

#[test]
fn kernel_the_root_mount_works_for_a_sandbox() {
    let store = Store::overlay();
    if !is_root() || !has_overlay(&store) {
        return;
    }
    let base = store.apply(&base_tar(), &[]).unwrap();
    let active = store.snapshots.prepare(&[base]).unwrap();
    // One mount after the other, each with a work directory of its own.
    drop(active.tree().unwrap());
    for _ in 0..2 {
        let RootMount::Overlay { lower, upper, work } = active.root_mount().unwrap() else { panic!() };
        let place = tempfile::tempdir().unwrap();
        let options = format!(
            "userxattr,volatile,index=off,lowerdir={},upperdir={},workdir={}",
            lower[0].display(),
            upper.display(),
            work.display()
        );
        let options = std::ffi::CString::new(options).unwrap();
        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount("overlay", place.path(), "overlay", flags, &*options).unwrap();
        std::fs::write(place.path().join("made"), "in the sandbox").unwrap();
        rustix::mount::unmount(place.path(), rustix::mount::UnmountFlags::empty()).unwrap();
    }
    active.commit(id("run")).unwrap();
    assert_eq!(
        std::fs::read(store.snapshots.layer_path(&id("run")).join("made")).unwrap(),
        b"in the sandbox"
    );
}

#[test]
fn listing_counts_and_removing_removes() {
    let store = Store::copying();
    let tar = Tar::new().file("big", &"x".repeat(100_000)).end();
    let layer = store.apply(&tar, &[]).unwrap();
    let usages = store.snapshots.list().unwrap();
    assert_eq!(usages.len(), 1);
    assert_eq!(usages[0].id, layer);
    assert!((100_000..400_000).contains(&usages[0].size_bytes), "{}", usages[0].size_bytes);
    store.snapshots.sync().unwrap();
    store.snapshots.remove(&layer).unwrap();
    store.snapshots.remove(&layer).unwrap();
    assert!(!store.snapshots.contains(&layer));
    assert_eq!(store.leftovers(), 0);
    assert!(store.snapshots.prepare(&[layer]).is_err());
}

#[test]
fn kernel_the_roots_attributes_come_from_the_layers() {
    for store in [Store::overlay(), Store::copying()] {
        if !is_root() {
            return;
        }
        let tar = Tar::new().add("./", Entry { kind: b'5', mode: 0o711, ..Entry::default() }, b"").end();
        let base = store.apply(&tar, &[]).unwrap();
        let active = store.snapshots.prepare(&[base]).unwrap();
        let tree: TreeRoot = active.tree().unwrap();
        let meta = std::fs::metadata(path_of(&tree)).unwrap();
        assert_eq!((meta.mode() & 0o7777, meta.mtime()), (0o711, 1_000_000));
        assert_eq!(
            tree.metadata("/").unwrap().unwrap().modified,
            SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000)
        );
    }
}
