// SPDX-License-Identifier: Apache-2.0
//! Layers that come in, and go out again with the same bytes.

use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::process::{Command, Stdio};

use polyarch_oci::media_type::Compression;
use polyarch_oci::{DiffId, Digest};
use polyarch_snapshot::{ApplyLimits, LayerTimes, SnapshotError, SnapshotId, compressor};
use proptest::prelude::*;

use crate::support::{Entry, Store, Tar, describe, is_root, names_in, path_of};

fn of_kind(kind: u8) -> Entry {
    Entry { kind, ..Entry::default() }
}

/// One entry of everything, in the order in which layers are written.
pub fn everything() -> Vec<u8> {
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0].to_vec();
    Tar::new()
        .add("bin/", Entry { mode: 0o1777, ..of_kind(b'5') }, b"")
        .add("bin/first", Entry { mode: 0o4755, owner: (1000, 33), ..Entry::default() }, b"content")
        .add(
            "bin/second",
            Entry { link: "bin/first".into(), mode: 0o4755, owner: (1000, 33), ..of_kind(b'1') },
            b"",
        )
        .file(".wh.deleted", "")
        .add("dev/", of_kind(b'5'), b"")
        .add("dev/block", Entry { device: (8, 1), ..of_kind(b'4') }, b"")
        .add("dev/null", Entry { device: (1, 3), mode: 0o666, ..of_kind(b'3') }, b"")
        .add("dev/pipe", of_kind(b'6'), b"")
        .add("dev/zero-zero", Entry { device: (0, 0), ..of_kind(b'3') }, b"")
        .symlink("link", "/usr/../bin/first")
        .add(
            "ping",
            Entry {
                pax: vec![
                    ("SCHILY.xattr.security.capability".into(), capability),
                    ("SCHILY.xattr.user.note".into(), b"a=b\n\0c".to_vec()),
                ],
                ..Entry::default()
            },
            b"x",
        )
        .directory("sub/")
        .file("sub/.wh.too", "")
        .end()
}

/// What the writer does with marks, whose attributes mean nothing.
fn with_plain_marks(tar: &[u8]) -> Vec<u8> {
    let mut bytes = tar.to_vec();
    for at in (0..bytes.len()).step_by(512) {
        let name_end = bytes[at..at + 100].iter().position(|byte| *byte == 0).unwrap_or(100);
        let name = String::from_utf8_lossy(&bytes[at..at + name_end]).into_owned();
        if name.rsplit('/').next().is_some_and(|name| name.starts_with(".wh.")) {
            let mut header = tar::Header::from_byte_slice(&bytes[at..at + 512]).clone();
            header.set_mode(0);
            header.set_mtime(0);
            header.set_cksum();
            bytes[at..at + 512].copy_from_slice(header.as_bytes());
        }
    }
    bytes
}

#[test]
fn kernel_everything_comes_in_and_goes_out_again() {
    let store = Store::overlay();
    if !is_root() {
        return;
    }
    let tar = everything();
    let layer = store.apply(&tar, &[]).unwrap();
    let path = store.snapshots.layer_path(&layer);
    let meta = |name: &str| std::fs::symlink_metadata(path.join(name)).unwrap();
    assert_eq!((meta("bin").mode() & 0o7777, meta("bin").mtime()), (0o1777, 1_000_000));
    assert_eq!(
        (meta("bin/first").mode() & 0o7777, meta("bin/first").uid(), meta("bin/first").gid()),
        (0o4755, 1000, 33)
    );
    assert_eq!(meta("bin/first").ino(), meta("bin/second").ino());
    assert_eq!(std::fs::read_link(path.join("link")).unwrap().to_str(), Some("/usr/../bin/first"));
    assert!(meta("deleted").file_type().is_char_device() && meta("deleted").rdev() == 0);
    assert!(meta("dev/null").file_type().is_char_device());
    assert!(meta("dev/zero-zero").file_type().is_file(), "a device 0:0 would be a whiteout on disk");
    let written = store.tar_of(&layer, &[]);
    // Byte by byte, as far as marks mean anything; PAX headers have names of their own.
    let expected = with_plain_marks(&tar);
    assert_eq!(names_in(&written), names_in(&expected));
    let without_pax_names = |bytes: &[u8]| {
        let mut bytes = bytes.to_vec();
        for at in (0..bytes.len()).step_by(512) {
            if bytes[at + 156] == b'x' && bytes[at + 257..].starts_with(b"ustar") {
                bytes[at..at + 512].fill(0);
            }
        }
        bytes
    };
    // The checksum's last two bytes are written in two ways.
    let comparable = |bytes: &[u8]| {
        let mut bytes = without_pax_names(bytes);
        for header in bytes.chunks_mut(512).filter(|block| &block[257..262] == b"ustar") {
            header[148..156].fill(0);
        }
        bytes
    };
    let (written, expected) = (comparable(&written), comparable(&expected));
    for (written, expected) in written.chunks(512).zip(expected.chunks(512)) {
        assert_eq!(String::from_utf8_lossy(written), String::from_utf8_lossy(expected));
    }
}

#[test]
fn compressed_layers_are_verified() {
    let store = Store::copying();
    let tar = Tar::new().file("a", &"content ".repeat(100_000)).end();
    let diff_id = DiffId(Digest::of(&tar));
    let limits = ApplyLimits::default();
    for compression in [Compression::Gzip, Compression::Zstd] {
        let mut writer = compressor(compression, None, 2, Vec::new()).unwrap();
        writer.write_all(&tar).unwrap();
        let blob = writer.finish().unwrap();
        let layer = store.snapshots.apply(&diff_id, &blob[..], compression, &[], &limits).unwrap();
        assert_eq!(layer, SnapshotId::of_layer(&diff_id));
        store.snapshots.remove(&layer).unwrap();

        let other = DiffId(Digest::of("something else"));
        let error = store.snapshots.apply(&other, &blob[..], compression, &[], &limits).unwrap_err();
        assert!(matches!(error, SnapshotError::DiffIdMismatch { .. }), "{error}");
        let cut = &blob[..blob.len() / 2];
        let error = store.snapshots.apply(&diff_id, cut, compression, &[], &limits).unwrap_err();
        assert!(matches!(error, SnapshotError::Stream { .. }), "{error}");
    }
    assert!(store.snapshots.list().unwrap().is_empty());
    assert_eq!(store.leftovers(), 0);
}

#[test]
fn what_follows_the_end_of_the_archive_is_part_of_the_digest() {
    let store = Store::copying();
    let mut tar = Tar::new().file("a", "a").end();
    tar.resize(tar.len() + 100_000, 0);
    let layer = store.apply(&tar, &[]).unwrap();
    assert_eq!(layer, SnapshotId::of_layer(&DiffId(Digest::of(&tar))));
}

#[test]
fn a_layer_that_is_there_is_not_read_again() {
    struct Untouchable;
    impl Read for Untouchable {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            panic!("the stream must not be read");
        }
    }
    let store = Store::copying();
    let tar = Tar::new().file("a", "a").end();
    let layer = store.apply(&tar, &[]).unwrap();
    let diff_id = DiffId(Digest::of(&tar));
    let again = store
        .snapshots
        .apply(&diff_id, Untouchable, Compression::Gzip, &[], &ApplyLimits::default())
        .unwrap();
    assert_eq!(layer, again);
}

#[test]
fn the_same_layer_may_be_applied_by_many_at_once() {
    let store = Store::copying();
    let tar = (0..200).fold(Tar::new(), |tar, number| tar.file(&format!("f{number}"), "x")).end();
    std::thread::scope(|scope| {
        let applied: Vec<_> = (0..6).map(|_| scope.spawn(|| store.apply(&tar, &[]).unwrap())).collect();
        let ids: std::collections::HashSet<_> =
            applied.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert_eq!(ids.len(), 1);
    });
    assert_eq!(store.snapshots.list().unwrap().len(), 1);
    assert_eq!(store.leftovers(), 0);
}

#[test]
fn kernel_missing_parents_take_their_attributes_from_below() {
    for store in [Store::overlay(), Store::copying()] {
        if !is_root() {
            return;
        }
        let below = Tar::new()
            .add("usr/", Entry { mode: 0o2711, owner: (5, 6), ..of_kind(b'5') }, b"")
            .directory("usr/bin/")
            .file("usr/bin/old", "old")
            .end();
        let base = store.apply(&below, &[]).unwrap();
        let tar = Tar::new().file("usr/bin/new", "new").file("opt/x", "x").end();
        let diff_id = DiffId(Digest::of(&tar));
        let unpacked = store
            .snapshots
            .unpack(&diff_id, &tar[..], Compression::Uncompressed, &ApplyLimits::default())
            .unwrap();
        assert!(unpacked.needs_parents());
        let layer = unpacked.finish(std::slice::from_ref(&base)).unwrap();
        assert_eq!(layer, SnapshotId::of_chain(std::slice::from_ref(&base), &diff_id));
        assert_eq!(store.snapshots.find_layer(&diff_id, std::slice::from_ref(&base)), Some(layer.clone()));
        assert_eq!(store.snapshots.find_layer(&diff_id, &[]), None);
        let view = store.snapshots.view(&[base.clone(), layer]).unwrap();
        let usr = view.metadata("usr").unwrap().unwrap();
        assert_eq!((usr.mode, usr.uid, usr.gid), (0o2711, 5, 6));
        assert_eq!(view.metadata("opt").unwrap().unwrap().mode, 0o755);
        assert!(view.exists("usr/bin/old") && view.exists("usr/bin/new"));
        drop(view);
        // On top of nothing it is another snapshot.
        let alone = store.apply(&tar, &[]).unwrap();
        assert_eq!(alone, SnapshotId::of_chain(&[], &diff_id));
    }
}

#[test]
fn kernel_hard_links_into_lower_layers_become_copies() {
    let store = Store::overlay();
    if !is_root() {
        return;
    }
    let below = Tar::new().add("a", Entry { mode: 0o4711, owner: (7, 8), ..Entry::default() }, b"text").end();
    let base = store.apply(&below, &[]).unwrap();
    let tar = Tar::new().hard_link("b", "a").hard_link("c", "b").end();
    let layer = store.apply(&tar, std::slice::from_ref(&base)).unwrap();
    let view = store.snapshots.view(&[base.clone(), layer]).unwrap();
    for name in ["b", "c"] {
        let meta = view.metadata(name).unwrap().unwrap();
        assert_eq!((meta.mode, meta.uid, meta.gid), (0o4711, 7, 8));
        assert_eq!(view.read(name, 10).unwrap(), b"text");
    }
    // Deleted by the same layer, hidden by it, or never there.
    for tar in
        [Tar::new().file(".wh.a", "").hard_link("b", "a").end(), Tar::new().hard_link("b", "none").end()]
    {
        assert!(matches!(store.apply(&tar, std::slice::from_ref(&base)), Err(SnapshotError::Entry { .. })));
    }
}

#[test]
fn kernel_whiteouts_and_opaque_directories_hide_what_is_below() {
    for store in [Store::overlay(), Store::copying()] {
        if !is_root() {
            return;
        }
        let below = Tar::new()
            .file("file", "below")
            .directory("d/")
            .file("d/below", "below")
            .directory("e/")
            .file("e/below", "below")
            .directory("f/")
            .file("f/below", "below")
            .directory("g/")
            .file("g/below", "below")
            .end();
        let base = store.apply(&below, &[]).unwrap();
        let tar = Tar::new()
            .file(".wh.file", "")
            .directory("d/")
            .file("d/above", "above")
            // After its siblings: the order means nothing.
            .file("d/.wh..wh..opq", "")
            // Deleted and made anew, in both orders, and as an implied directory.
            .file(".wh.e", "")
            .directory("e/")
            .file("e/above", "above")
            .directory("f/")
            .file("f/above", "above")
            .file(".wh.f", "")
            .file(".wh.g", "")
            .file("g/above", "above")
            .file(".wh..wh.plnk", "")
            .end();
        let layer = store.apply(&tar, std::slice::from_ref(&base)).unwrap();
        let view = store.snapshots.view(&[base.clone(), layer.clone()]).unwrap();
        assert!(!view.exists("file") && !view.exists(".wh..wh.plnk"));
        for name in ["d", "e", "f", "g"] {
            assert!(view.exists(format!("{name}/above")), "{name}");
            assert!(!view.exists(format!("{name}/below")), "{name}");
        }
        drop(view);
        let names = store.names_of(&layer, std::slice::from_ref(&base));
        assert!(names.contains(&"d/.wh..wh..opq".to_owned()) && names.contains(&".wh.file".to_owned()));
        // Above nothing, an opaque directory hides nothing.
        assert!(!store.names_of(&layer, &[]).contains(&"d/.wh..wh..opq".to_owned()));
    }
}

#[test]
fn sparse_files_of_gnu_tar_are_read_in_all_forms() {
    let base = tempfile::tempdir().unwrap();
    let file = std::fs::File::create(base.path().join("sparse")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"begin", 0).unwrap();
    for part in 1..40 {
        std::os::unix::fs::FileExt::write_all_at(&file, b"part", part * (1 << 17)).unwrap();
    }
    file.set_len(8 << 20).unwrap();
    let content = std::fs::read(base.path().join("sparse")).unwrap();
    let forms: [&[&str]; 4] = [
        &["--format=gnu"],
        &["--format=posix", "--sparse-version=0.0"],
        &["--format=posix", "--sparse-version=0.1"],
        &["--format=posix", "--sparse-version=1.0"],
    ];
    let store = Store::copying();
    for form in forms {
        let output = Command::new("tar")
            .args(form)
            .args(["-S", "-cf", "-", "sparse"])
            .current_dir(base.path())
            .output()
            .unwrap();
        assert!(output.status.success());
        assert!(output.stdout.len() < 1 << 20, "tar has not made it sparse");
        let layer = store.apply(&output.stdout, &[]).unwrap();
        let path = store.snapshots.layer_path(&layer).join("sparse");
        assert!(std::fs::read(&path).unwrap() == content, "{form:?}");
        assert!(path.metadata().unwrap().blocks() * 512 < 2 << 20);
        store.snapshots.remove(&layer).unwrap();
    }
}

#[test]
fn kernel_gnu_tar_reads_what_is_written() {
    let store = Store::overlay();
    if !is_root() {
        return;
    }
    let long = "d".repeat(90);
    let tree = store.snapshots.prepare(&[]).unwrap();
    let root = tree.tree().unwrap();
    root.write_file(format!("{long}/{long}/{long}/{}", "f".repeat(200)), b"deep", 0o640, (70_000, 3_000_000))
        .unwrap();
    root.write_file("ünïcode/名前", b"x", 0o644, (0, 0)).unwrap();
    root.write_file("large", &vec![7; 300_001], 0o600, (1, 2)).unwrap();
    root.symlink("t".repeat(150), "long-link", (3, 4)).unwrap();
    drop(root);
    let layer = tree.commit("written".parse().unwrap()).unwrap().id;
    let times = LayerTimes { clamp: Some(0), unknown: None };
    let mut bytes = Vec::new();
    store.snapshots.write_layer(&layer, &[], &times, &mut bytes).unwrap();

    let target = tempfile::tempdir().unwrap();
    let mut tar = Command::new("tar")
        .args(["-xpf", "-", "--numeric-owner", "-C"])
        .arg(target.path())
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    tar.stdin.take().unwrap().write_all(&bytes).unwrap();
    assert!(tar.wait().unwrap().success());
    let ours = tempfile::tempdir().unwrap();
    let other = Store { snapshots: store.snapshots.clone(), directory: ours };
    let applied = other.apply(&bytes, &[]).unwrap();
    let without_root = |text: String| text.split_once('\n').unwrap().1.to_owned();
    assert_eq!(
        without_root(describe(target.path())),
        without_root(describe(&store.snapshots.layer_path(&applied)))
    );
    assert!(store.tar_of(&applied, &[]) == bytes);
}

/// A node of a made-up tree.
#[derive(Debug, Clone)]
enum Node {
    File(Vec<u8>, u32, Option<Vec<u8>>),
    Directory(std::collections::BTreeMap<String, Node>, u32),
    Symlink(String),
    Whiteout,
    Opaque(std::collections::BTreeMap<String, Node>),
}

fn node() -> impl Strategy<Value = Node> {
    // The crate that names are read with splits records at newlines, wherever they are.
    let byte = any::<u8>().prop_filter("a newline", |byte| *byte != b'\n');
    let leaf = prop_oneof![
        (
            proptest::collection::vec(any::<u8>(), 0..1500),
            0u32..0o10000,
            proptest::option::of(proptest::collection::vec(byte, 0..40))
        )
            .prop_map(|(content, mode, xattr)| Node::File(content, mode, xattr)),
        "[a-z./]{1,120}".prop_map(Node::Symlink),
        Just(Node::Whiteout),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        let children = proptest::collection::btree_map("[a-zA-Z0-9 ä-]{1,60}", inner, 0..6);
        prop_oneof![
            (children.clone(), 0u32..0o10000).prop_map(|(children, mode)| Node::Directory(children, mode)),
            children.prop_map(Node::Opaque),
        ]
    })
}

/// Writes made-up nodes as the crate under comparison writes them, in the order of our writer.
fn add(builder: &mut tar::Builder<Vec<u8>>, path: &str, node: &Node) {
    let header = |kind: tar::EntryType, mode: u32, size: u64| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(size);
        header.set_uid(11);
        header.set_gid(12);
        header.set_mtime(1234);
        header
    };
    match node {
        Node::File(content, mode, xattr) => {
            if let Some(value) = xattr {
                builder.append_pax_extensions([("SCHILY.xattr.user.made", value.as_slice())]).unwrap();
            }
            let mut header = header(tar::EntryType::Regular, *mode, content.len() as u64);
            builder.append_data(&mut header, path, &content[..]).unwrap();
        }
        Node::Symlink(target) => {
            let mut header = header(tar::EntryType::Symlink, 0o777, 0);
            header.set_cksum();
            builder.append_link(&mut header, path, target).unwrap();
        }
        Node::Whiteout => {
            let (parent, name) = path.rsplit_once('/').map_or(("", path), |(parent, name)| (parent, name));
            let mark = format!("{parent}/.wh.{name}");
            let mut header = header(tar::EntryType::Regular, 0, 0);
            builder.append_data(&mut header, mark.trim_start_matches('/'), &b""[..]).unwrap();
        }
        Node::Directory(children, _) | Node::Opaque(children) => {
            let mode = if let Node::Directory(_, mode) = node { *mode } else { 0o755 };
            let mut dir = header(tar::EntryType::Directory, mode, 0);
            builder.append_data(&mut dir, format!("{path}/"), &b""[..]).unwrap();
            if matches!(node, Node::Opaque(_)) {
                let mut mark = header(tar::EntryType::Regular, 0, 0);
                builder.append_data(&mut mark, format!("{path}/.wh..wh..opq"), &b""[..]).unwrap();
            }
            for (name, child) in children {
                add(builder, &format!("{path}/{name}"), child);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn kernel_applying_what_was_written_gives_the_tree_and_the_bytes_back(
        nodes in proptest::collection::btree_map("[a-zA-Z0-9]{1,12}", node(), 1..6)
    ) {
        if !is_root() {
            return Ok(());
        }
        let store = Store::copying();
        let mut builder = tar::Builder::new(Vec::new());
        for (name, node) in &nodes {
            add(&mut builder, name, node);
        }
        let foreign = builder.into_inner().unwrap();
        let first = store.apply(&foreign, &[]).unwrap();
        // The opaque marks only appear above something, so there is something of the same shape below.
        let below = vec![first.clone()];
        let written = store.tar_of(&first, &below);
        let marks: Vec<_> = names_in(&foreign)
            .into_iter()
            .filter_map(|name| name.strip_suffix(".wh..wh..opq").map(str::to_owned))
            .collect();
        // Beneath an opaque directory nothing shows from below, so a second mark says nothing.
        let is_needless = |name: &String| {
            name.strip_suffix(".wh..wh..opq").is_some_and(|directory| {
                marks.iter().any(|mark| mark != directory && directory.starts_with(mark.as_str()))
            })
        };
        let mut expected = names_in(&foreign);
        expected.retain(|name| !is_needless(name));
        let mut actual = names_in(&written);
        expected.sort();
        actual.sort();
        prop_assert_eq!(actual, expected);
        let second = store.apply(&written, &[]).unwrap();
        prop_assert_eq!(
            describe(&store.snapshots.layer_path(&first)),
            describe(&store.snapshots.layer_path(&second))
        );
        prop_assert!(store.tar_of(&second, &below) == written);
    }
}

#[test]
fn kernel_views_of_described_trees_agree() {
    if !is_root() {
        return;
    }
    let texts = [Store::overlay(), Store::copying()].map(|store| {
        let base = store.apply(&everything(), &[]).unwrap();
        let above = store.apply(&Tar::new().directory("bin/").file("bin/.wh.first", "").end(), &[]).unwrap();
        let view = store.snapshots.view(&[base, above]).unwrap();
        describe(&path_of(&view)).replace("links 2", "links 1")
    });
    assert_eq!(texts[0], texts[1]);
}
