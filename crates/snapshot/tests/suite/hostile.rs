// SPDX-License-Identifier: Apache-2.0
//! Archives that try to get out, to get through, or to get large.

use polyarch_oci::media_type::Compression;
use polyarch_oci::{DiffId, Digest};
use polyarch_snapshot::{ApplyLimits, SnapshotError};

use crate::support::{Entry, Store, Tar};

fn apply(store: &Store, tar: &[u8], limits: &ApplyLimits) -> Result<(), SnapshotError> {
    store.snapshots.apply(&DiffId(Digest::of(tar)), tar, Compression::Uncompressed, &[], limits).map(drop)
}

#[test]
fn nothing_is_written_outside_the_layer() {
    let store = Store::copying();
    let base = store.directory.path().to_owned();
    let up = "../".repeat(20);
    let outside = format!("{up}{}", base.join("escaped").display());
    let absolute = base.join("escaped").display().to_string();
    let victim = base.join("victim");
    std::fs::write(&victim, "untouched").unwrap();
    let victim_path = victim.display().to_string();
    let archives = [
        Tar::new().file(&outside, "x").end(),
        Tar::new().file(&absolute, "x").end(),
        Tar::new().file("a/../../../../../../escaped", "x").end(),
        // Through a symlink to a directory outside, relative or absolute.
        Tar::new().symlink("s", &base.display().to_string()).file("s/escaped", "x").end(),
        Tar::new().symlink("s", &up).file("s/escaped", "x").end(),
        Tar::new().symlink("a", ".").symlink("a/b", "..").file("a/b/../escaped", "x").end(),
        // Through a symlink to a file outside: the name itself is never followed.
        Tar::new().symlink("f", &victim_path).file("f", "overwritten").end(),
        Tar::new().symlink("f", &victim_path).add("f", Entry { mode: 0, ..Entry::default() }, b"").end(),
        // A directory entry over a symlink must not change what the link leads to.
        Tar::new()
            .symlink("d", &base.display().to_string())
            .add("d/", Entry { kind: b'5', mode: 0o777, owner: (9, 9), ..Entry::default() }, b"")
            .end(),
        // Whiteouts of names outside.
        Tar::new().symlink("s", &base.display().to_string()).file("s/.wh.victim", "").end(),
    ];
    let before = std::fs::metadata(&base).unwrap().permissions();
    for (number, tar) in archives.iter().enumerate() {
        // Refused or tamed, both are fine.
        let _ = apply(&store, tar, &ApplyLimits::default());
        assert!(!base.join("escaped").exists(), "archive {number}");
        assert_eq!(std::fs::read_to_string(&victim).unwrap(), "untouched", "archive {number}");
        assert_eq!(std::fs::metadata(&base).unwrap().permissions(), before, "archive {number}");
        assert!(!std::path::Path::new("/escaped").exists(), "archive {number}");
    }
    assert_eq!(store.leftovers(), 0);
}

#[test]
fn hard_links_reach_nothing_outside() {
    let store = Store::copying();
    let secret = store.directory.path().join("secret");
    std::fs::write(&secret, "secret").unwrap();
    let secret = secret.display().to_string();
    let parent = store.directory.path().display().to_string();
    for tar in [
        Tar::new().hard_link("h", &secret).end(),
        Tar::new().hard_link("h", &format!("{}{secret}", "../".repeat(20))).end(),
        Tar::new().symlink("s", &parent).hard_link("h", "s/secret").end(),
        Tar::new().directory("d/").hard_link("h", "d").end(),
        Tar::new().hard_link("h", "/").end(),
        Tar::new().file(".wh.gone", "").hard_link("h", "gone").end(),
    ] {
        assert!(apply(&store, &tar, &ApplyLimits::default()).is_err());
    }
    // A link to a symlink is a link to the symlink itself.
    let tar = Tar::new().symlink("s", &secret).hard_link("h", "s").end();
    let layer = store.apply(&tar, &[]).unwrap();
    let path = store.snapshots.layer_path(&layer);
    assert!(std::fs::symlink_metadata(path.join("h")).unwrap().is_symlink());
    assert_eq!(std::fs::metadata(store.directory.path().join("secret")).unwrap().len(), 6);
    // To itself it is nothing new.
    let tar = Tar::new().file("a", "kept").hard_link("a", "./a").end();
    let layer = store.apply(&tar, &[]).unwrap();
    assert_eq!(std::fs::read(store.snapshots.layer_path(&layer).join("a")).unwrap(), b"kept");
}

#[test]
fn later_entries_replace_earlier_ones_of_other_types() {
    let store = Store::copying();
    let tar = Tar::new()
        .directory("a/")
        .file("a/inner", "x")
        .file("a", "file now")
        .file("b", "x")
        .add("b/", Entry { kind: b'5', mode: 0o700, ..Entry::default() }, b"")
        .file("b/inner", "x")
        .symlink("c", "a")
        .file("c", "file now")
        .file("d", "first")
        .file("d", "second")
        .end();
    let layer = store.apply(&tar, &[]).unwrap();
    let path = store.snapshots.layer_path(&layer);
    assert_eq!(std::fs::read(path.join("a")).unwrap(), b"file now");
    assert_eq!(std::fs::read(path.join("b/inner")).unwrap(), b"x");
    assert_eq!(std::fs::read(path.join("c")).unwrap(), b"file now");
    assert_eq!(std::fs::read(path.join("d")).unwrap(), b"second");
    for tar in
        [Tar::new().file("a", "x").file("a/b", "x").end(), Tar::new().file("./", "x").symlink("/", "x").end()]
    {
        assert!(matches!(apply(&store, &tar, &ApplyLimits::default()), Err(SnapshotError::Entry { .. })));
    }
}

#[test]
fn caps_hold() {
    let store = Store::copying();
    let limits = ApplyLimits {
        max_bytes: 100_000,
        max_entries: 10,
        max_ratio: 100,
        ratio_grace_bytes: 50_000,
        max_path_bytes: 200,
        max_depth: 8,
        ..ApplyLimits::default()
    };
    let is_limit = |result: Result<(), SnapshotError>| {
        let error = result.unwrap_err();
        assert!(matches!(error, SnapshotError::Limit { .. } | SnapshotError::Archive { .. }), "{error}");
    };
    is_limit(apply(&store, &Tar::new().file("f", &"x".repeat(200_000)).end(), &limits));
    let many = (0..11).fold(Tar::new(), |tar, number| tar.file(&number.to_string(), ""));
    is_limit(apply(&store, &many.end(), &limits));
    is_limit(apply(&store, &Tar::new().directory("1/2/3/4/5/6/7/8/9/").end(), &limits));
    let long = Entry { pax: vec![("path".into(), vec![b'x'; 201])], ..Entry::default() };
    is_limit(apply(&store, &Tar::new().add("f", long, b"").end(), &limits));
    // A sparse file costs the archive nothing.
    let pax = |key: &str, value: &str| (key.to_owned(), value.as_bytes().to_vec());
    let sparse = Entry {
        pax: vec![
            pax("GNU.sparse.major", "1"),
            pax("GNU.sparse.minor", "0"),
            pax("GNU.sparse.realsize", "9000000000"),
        ],
        ..Entry::default()
    };
    let mut map = b"0\n".to_vec();
    map.resize(512, 0);
    is_limit(apply(&store, &Tar::new().add("f", sparse, &map).end(), &limits));
    // 90 kB of zeros in a few hundred bytes.
    let tar = Tar::new().file("zeros", &"\0".repeat(90_000)).end();
    let bomb = zstd::encode_all(&tar[..], 19).unwrap();
    let diff_id = DiffId(Digest::of(&tar));
    is_limit(store.snapshots.apply(&diff_id, &bomb[..], Compression::Zstd, &[], &limits).map(drop));
    assert!(store.snapshots.list().unwrap().is_empty());
    assert_eq!(store.leftovers(), 0);
}

#[test]
fn what_is_kept_in_memory_until_the_end_is_capped() {
    let store = Store::copying();
    let limits = ApplyLimits { max_remembered_bytes: 10_000, ..ApplyLimits::default() };
    let with_xattr = |kind, size| Entry {
        kind,
        pax: vec![("SCHILY.xattr.user.a".to_owned(), vec![b'x'; size])],
        ..Entry::default()
    };
    let too_much = |tar: Tar| {
        let error = apply(&store, &tar.end(), &limits).unwrap_err();
        assert!(matches!(error, SnapshotError::Limit { limit: 10_000, .. }), "{error}");
    };
    too_much((0..11).fold(Tar::new(), |tar, at| tar.add(&format!("{at}/"), with_xattr(b'5', 1000), b"")));
    too_much((0..11).fold(Tar::new(), |tar, at| tar.add(&at.to_string(), with_xattr(b'0', 1000), b"")));
    let name = "n".repeat(90);
    too_much((0..120).fold(Tar::new(), |tar, at| tar.directory(&format!("{at}{name}/"))));
    // Directories that the archive doesn't describe.
    too_much((0..120).fold(Tar::new(), |tar, at| tar.file(&format!("{at}{name}/f"), "")));
    too_much((0..120).fold(Tar::new(), |tar, at| tar.hard_link(&at.to_string(), &name)));
    let fits = (0..9).fold(Tar::new(), |tar, at| tar.add(&format!("{at}/"), with_xattr(b'5', 1000), b""));
    apply(&store, &fits.end(), &limits).unwrap();

    // One value can't be larger than the kernel's own limit, whatever the sum may be.
    let tar = Tar::new().add("d/", with_xattr(b'5', (64 << 10) + 1), b"").end();
    let error = apply(&store, &tar, &ApplyLimits::default()).unwrap_err();
    assert!(matches!(error, SnapshotError::Entry { .. }), "{error}");
    assert_eq!(store.leftovers(), 0);
}

#[test]
fn entries_that_mean_nothing_good_are_refused() {
    let store = Store::copying();
    let entry = |kind| Entry { kind, ..Entry::default() };
    for tar in [
        Tar::new().add("x", entry(b'V'), b"").end(),
        Tar::new().add("x", entry(b'2'), b"").end(),
        Tar::new().add("x", entry(b'1'), b"").end(),
        Tar::new().file(".wh.", "").end(),
        Tar::new().file(".wh...", "").end(),
        Tar::new().file("d/.wh..", "").end(),
        Tar::new()
            .add("x", Entry { pax: vec![("uid".into(), b"4294967295".to_vec())], ..entry(b'0') }, b"")
            .end(),
        Tar::new().add("x", Entry { pax: vec![("path".into(), b"a\0b".to_vec())], ..entry(b'0') }, b"").end(),
        Tar::new().file("directory/", "with content").end(),
    ] {
        assert!(apply(&store, &tar, &ApplyLimits::default()).is_err());
    }
}

#[test]
fn overlay_marks_in_xattrs_are_not_taken_over() {
    let store = Store::copying();
    let pax = vec![
        ("SCHILY.xattr.user.overlay.opaque".to_owned(), b"y".to_vec()),
        ("SCHILY.xattr.trusted.overlay.opaque".to_owned(), b"y".to_vec()),
        ("SCHILY.xattr.security.selinux".to_owned(), b"x".to_vec()),
        ("SCHILY.xattr.user.kept".to_owned(), b"y".to_vec()),
    ];
    let tar = Tar::new().add("d/", Entry { kind: b'5', pax, ..Entry::default() }, b"").end();
    let layer = store.apply(&tar, &[]).unwrap();
    let text = String::from_utf8_lossy(&store.tar_of(&layer, &[])).into_owned();
    assert!(text.contains("user.kept") && !text.contains("overlay") && !text.contains("selinux"));
}
