// SPDX-License-Identifier: Apache-2.0
//! COPY and ADD, and the keys of what they bring.

use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use polyarch_oci::Digest;
use polyarch_oci::media_type::Compression;
use polyarch_snapshot::{
    CopySource, CopySpec, HashMemory, KeepAll, PathFilter, SnapshotError, TreeRoot, Verdict, compressor,
    content_key, copy,
};

use crate::support::{Entry, Store, Tar, describe, is_root};

/// `*` at the end only; the real matcher lives in another room.
fn star(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => pattern == name,
    }
}

/// A context and a destination side by side.
pub(crate) struct Fixture {
    directory: tempfile::TempDir,
}

impl Fixture {
    pub(crate) fn new() -> Fixture {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("context")).unwrap();
        std::fs::create_dir(directory.path().join("target")).unwrap();
        Fixture { directory }
    }

    pub(crate) fn context(&self) -> PathBuf {
        self.directory.path().join("context")
    }

    pub(crate) fn target(&self) -> PathBuf {
        self.directory.path().join("target")
    }

    pub(crate) fn write(&self, path: &str, content: &str) {
        let path = self.context().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    fn run<T>(
        &self,
        patterns: &[&str],
        destination: &str,
        change: impl FnOnce(&mut CopySpec<'_>),
        act: impl FnOnce(&CopySpec<'_>) -> T,
    ) -> T {
        let source = TreeRoot::open(&self.context()).unwrap();
        let sources: Vec<_> = patterns
            .iter()
            .map(|pattern| CopySource { pattern: (*pattern).to_owned(), allow_wildcard: true })
            .collect();
        let mut spec = CopySpec {
            source: &source,
            sources: &sources,
            filter: &KeepAll,
            matcher: &star,
            destination,
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
        change(&mut spec);
        act(&spec)
    }

    pub(crate) fn copy(&self, patterns: &[&str], destination: &str) -> Result<(), SnapshotError> {
        self.copy_with(patterns, destination, |_| {})
    }

    pub(crate) fn copy_with(
        &self,
        patterns: &[&str],
        destination: &str,
        change: impl FnOnce(&mut CopySpec<'_>),
    ) -> Result<(), SnapshotError> {
        let into = TreeRoot::open(&self.target()).unwrap();
        self.run(patterns, destination, change, |spec| copy(spec, &into))
    }

    pub(crate) fn key(&self, patterns: &[&str]) -> Digest {
        self.key_with(patterns, |_| {})
    }

    pub(crate) fn key_with(&self, patterns: &[&str], change: impl FnOnce(&mut CopySpec<'_>)) -> Digest {
        self.run(patterns, "/", change, |spec| content_key(spec, None, 2).unwrap())
    }

    pub(crate) fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.target().join(path)).unwrap()
    }
}

#[test]
fn where_things_go() {
    let fixture = Fixture::new();
    fixture.write("file", "file");
    fixture.write("dir/inner/leaf", "leaf");
    fixture.write("dir/top", "top");
    fixture.copy(&["file"], "/a/b").unwrap();
    assert_eq!(fixture.read("a/b"), "file");
    fixture.copy(&["file"], "/a/").unwrap();
    assert_eq!(fixture.read("a/file"), "file");
    // An existing directory takes the file, with or without the slash.
    fixture.copy(&["file"], "/a/../a").unwrap();
    fixture.copy(&["dir"], "/from-dir").unwrap();
    assert_eq!(fixture.read("from-dir/inner/leaf"), "leaf");
    assert!(!fixture.target().join("from-dir/dir").exists());
    fixture.copy(&["dir/", "file"], "many/").unwrap();
    assert_eq!(fixture.read("many/top"), "top");
    assert_eq!(fixture.read("many/file"), "file");
    fixture.copy(&["."], "/all/").unwrap();
    assert_eq!(fixture.read("all/dir/top"), "top");
    // A leading slash and a climb mean the context all the same.
    fixture.copy(&["/dir/../../file"], "/climbed").unwrap();
    assert_eq!(fixture.read("climbed"), "file");
    let mode = |path: &str| std::fs::metadata(fixture.target().join(path)).unwrap().mode() & 0o7777;
    assert_eq!(mode("a"), 0o755);
    assert!(matches!(
        fixture.copy(&["file", "dir/top"], "/not-a-directory"),
        Err(SnapshotError::DestinationNotDirectory { sources: 2, .. })
    ));
}

#[test]
fn patterns_match_by_component() {
    let fixture = Fixture::new();
    for name in ["a1", "a2", "b1", "sub/a3", "sub2/a4"] {
        fixture.write(name, name);
    }
    fixture.copy(&["a*"], "/x/").unwrap();
    fixture.copy(&["su*/a*"], "/y/").unwrap();
    let names = |path: &str| {
        let mut names: Vec<_> = std::fs::read_dir(fixture.target().join(path))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    assert_eq!(names("x"), ["a1", "a2"]);
    assert_eq!(names("y"), ["a3", "a4"]);
    // As a plain name it is nothing special.
    fixture.write("s*", "star");
    let sources = [CopySource { pattern: "s*".into(), allow_wildcard: false }];
    let into = TreeRoot::open(&fixture.target()).unwrap();
    let source = TreeRoot::open(&fixture.context()).unwrap();
    fixture.run(
        &[],
        "/star",
        |_| {},
        |spec| {
            copy(&CopySpec { source: &source, sources: &sources, ..*spec }, &into).unwrap();
        },
    );
    assert_eq!(fixture.read("star"), "star");
}

#[test]
fn missing_sources_are_named_with_what_looks_like_them() {
    let fixture = Fixture::new();
    fixture.write("src/main.c", "");
    fixture.write("src/other", "");
    let Err(SnapshotError::MissingSource { pattern, excluded, near }) = fixture.copy(&["src/mian.c"], "/")
    else {
        panic!()
    };
    assert_eq!((pattern.as_str(), excluded, near), ("src/mian.c", false, vec!["src/main.c".to_owned()]));
    struct Hide;
    impl PathFilter for Hide {
        fn verdict(&self, path: &Path, _: bool) -> Verdict {
            if path.starts_with("src") { Verdict::Skip } else { Verdict::Keep }
        }
    }
    let result = fixture.copy_with(&["src/main.c"], "/", |spec| spec.filter = &Hide);
    let error = result.unwrap_err();
    assert!(matches!(error, SnapshotError::MissingSource { excluded: true, .. }), "{error}");
    assert!(error.to_string().contains("ignore file"), "{error}");
}

#[test]
fn what_the_filter_hides_is_not_there() {
    // Everything but what ends in "kept", with directories passed through for it.
    struct OnlyKept;
    impl PathFilter for OnlyKept {
        fn verdict(&self, path: &Path, is_directory: bool) -> Verdict {
            match path.to_str() {
                Some(path) if path.ends_with("kept") => Verdict::Keep,
                _ if is_directory => Verdict::Descend,
                _ => Verdict::Skip,
            }
        }
    }
    let fixture = Fixture::new();
    fixture.write("a/b/kept", "1");
    fixture.write("a/b/gone", "2");
    fixture.write("c/gone", "3");
    symlink("a/b/gone", fixture.context().join("link-kept")).unwrap();
    fixture.copy_with(&["."], "/", |spec| spec.filter = &OnlyKept).unwrap();
    let text = describe(&fixture.target());
    let names: Vec<_> = text.lines().skip(1).map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(names, ["a", "a/b", "a/b/kept", "link-kept"]);
    // A link at the top is no way to what is hidden.
    assert!(fixture.copy_with(&["link-kept"], "/x", |spec| spec.filter = &OnlyKept).is_err());
    // The key sees what the copy sees.
    let key = |fixture: &Fixture| fixture.key_with(&["."], |spec| spec.filter = &OnlyKept);
    let before = key(&fixture);
    fixture.write("c/gone", "changed");
    fixture.write("d/gone-too", "new");
    assert_eq!(key(&fixture), before);
    fixture.write("c/kept", "new");
    assert_ne!(key(&fixture), before);
}

#[test]
fn links_stay_inside_on_both_sides() {
    let fixture = Fixture::new();
    let outside = fixture.directory.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("secret"), "secret").unwrap();
    symlink(&outside, fixture.context().join("out")).unwrap();
    symlink("../outside/secret", fixture.context().join("secret")).unwrap();
    for pattern in ["out", "out/secret", "secret"] {
        assert!(fixture.copy(&[pattern], "/x").is_err(), "{pattern}");
    }
    // Inner links are copied as they are; a link at the top is followed and keeps its name.
    fixture.write("dir/target", "target");
    symlink("target", fixture.context().join("dir/link")).unwrap();
    symlink("dir/target", fixture.context().join("top")).unwrap();
    fixture.copy(&["dir"], "/dir").unwrap();
    fixture.copy(&["top"], "/").unwrap();
    assert_eq!(std::fs::read_link(fixture.target().join("dir/link")).unwrap(), Path::new("target"));
    assert!(std::fs::symlink_metadata(fixture.target().join("top")).unwrap().is_file());
    // In the destination links to directories are followed, within it.
    std::fs::create_dir_all(fixture.target().join("usr/lib")).unwrap();
    symlink("usr/lib", fixture.target().join("lib")).unwrap();
    symlink(&outside, fixture.target().join("evil")).unwrap();
    fixture.write("tree/lib/x", "x");
    fixture.copy(&["tree"], "/").unwrap();
    assert_eq!(fixture.read("usr/lib/x"), "x");
    fixture.copy(&["dir/target"], "/evil/").unwrap();
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 1, "nothing came out");
}

#[test]
fn a_file_never_replaces_a_directory() {
    let fixture = Fixture::new();
    fixture.write("x", "file");
    fixture.write("dir/x/y", "y");
    std::fs::create_dir_all(fixture.target().join("a/x")).unwrap();
    std::fs::write(fixture.target().join("b"), "file").unwrap();
    assert!(matches!(fixture.copy(&["x"], "/a/"), Err(SnapshotError::TypeConflict { .. })));
    assert!(fixture.copy(&["dir"], "/b").is_err());
    fixture.copy(&["x"], "/b").unwrap();
    assert_eq!(fixture.read("b"), "file");
}

#[test]
fn kernel_attributes_are_kept_or_set() {
    if !is_root() {
        return;
    }
    let fixture = Fixture::new();
    fixture.write("d/file", "content");
    std::fs::hard_link(fixture.context().join("d/file"), fixture.context().join("d/same")).unwrap();
    let file = fixture.context().join("d/file");
    std::os::unix::fs::chown(&file, Some(12), Some(34)).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o4750)).unwrap();
    std::fs::set_permissions(fixture.context().join("d"), std::fs::Permissions::from_mode(0o1700)).unwrap();
    rustix::fs::setxattr(&file, "user.note", b"noted", rustix::fs::XattrFlags::empty()).unwrap();
    let times = std::fs::FileTimes::new()
        .set_modified(std::time::SystemTime::UNIX_EPOCH + std::time::Duration::new(1000, 5));
    std::fs::File::open(&file).unwrap().set_times(times).unwrap();
    fixture.copy(&["."], "/kept").unwrap();
    let meta = |path: &str| std::fs::metadata(fixture.target().join(path)).unwrap();
    let kept = meta("kept/d/file");
    assert_eq!((kept.uid(), kept.gid(), kept.mode() & 0o7777), (12, 34, 0o4750));
    assert_eq!((kept.mtime(), kept.mtime_nsec()), (1000, 5));
    assert_eq!(kept.ino(), meta("kept/d/same").ino());
    assert_eq!(meta("kept/d").mode() & 0o7777, 0o1700);
    let mut value = [0; 10];
    let len =
        rustix::fs::getxattr(fixture.target().join("kept/d/file"), "user.note", &mut value[..]).unwrap();
    assert_eq!(&value[..len], b"noted");
    fixture
        .copy_with(&["."], "/set/deep", |spec| {
            spec.owner = Some((7, 8));
            spec.mode = Some(&|_, _| 0o640);
        })
        .unwrap();
    for path in ["set/deep/d", "set/deep/d/file"] {
        let set = meta(path);
        assert_eq!((set.uid(), set.gid(), set.mode() & 0o7777), (7, 8, 0o640), "{path}");
    }
    assert_eq!((meta("set").uid(), meta("set").mode() & 0o7777), (7, 0o755));
}

#[test]
fn kernel_keys_see_content_and_nothing_else() {
    if !is_root() {
        return;
    }
    let fixture = Fixture::new();
    for number in 0..100 {
        fixture.write(&format!("d/{number}"), &number.to_string());
    }
    fixture.write("e/x", "x");
    let base = fixture.key(&["d", "e"]);
    let touch = std::fs::File::open(fixture.context().join("d/5")).unwrap();
    touch.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    assert_eq!(fixture.key(&["d", "e"]), base, "times");
    assert_ne!(fixture.key(&["e", "d"]), base, "order of sources");
    assert_ne!(fixture.key(&["d"]), base);
    let path = fixture.context().join("d/5");
    let changed = |what: &str, change: &dyn Fn(), back: &dyn Fn()| {
        change();
        assert_ne!(fixture.key(&["d", "e"]), base, "{what}");
        back();
        assert_eq!(fixture.key(&["d", "e"]), base, "{what} undone");
    };
    let chmod = |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    changed("content", &|| fixture.write("d/5", "6"), &|| fixture.write("d/5", "5"));
    changed("mode", &|| chmod(0o600), &|| chmod(0o644));
    let renamed = fixture.context().join("d/renamed");
    changed("name", &|| std::fs::rename(&path, &renamed).unwrap(), &|| {
        std::fs::rename(&renamed, &path).unwrap()
    });
    let chown = |uid| std::os::unix::fs::chown(&path, Some(uid), None).unwrap();
    changed("owner", &|| chown(5), &|| chown(0));
    let note = "user.note";
    let set = || rustix::fs::setxattr(&path, note, b"x", rustix::fs::XattrFlags::empty()).unwrap();
    changed("xattr", &set, &|| rustix::fs::removexattr(&path, note).unwrap());
    let empty = fixture.context().join("d/empty");
    changed("empty directory", &|| std::fs::create_dir(&empty).unwrap(), &|| {
        std::fs::remove_dir(&empty).unwrap()
    });
    // An owner that the instruction sets is not looked at.
    let with_owner = || fixture.key_with(&["d"], |spec| spec.owner = Some((1, 1)));
    let before = with_owner();
    chown(5);
    assert_eq!(with_owner(), before);
}

#[test]
fn keys_depend_on_neither_threads_nor_memory_nor_place() {
    let (first, second) = (Fixture::new(), Fixture::new());
    for number in 0..200 {
        first.write(&format!("d/{number}"), &"x".repeat(number * 37));
        let number = 199 - number;
        second.write(&format!("d/{number}"), &"x".repeat(number * 37));
    }
    let memory = HashMemory::default();
    let key = |fixture: &Fixture, memory: Option<&HashMemory>, threads| {
        fixture.run(&["d"], "/", |_| {}, |spec| content_key(spec, memory, threads).unwrap())
    };
    let reference = key(&first, None, 1);
    assert_eq!(key(&first, None, 8), reference);
    assert_eq!(key(&second, None, 3), reference);
    for _ in 0..2 {
        assert_eq!(key(&first, Some(&memory), 2), reference);
    }
    first.write("d/7", "changed");
    assert_ne!(key(&first, Some(&memory), 2), reference);
}

#[test]
fn kernel_archives_are_unpacked_by_add_and_not_by_copy() {
    if !is_root() {
        return;
    }
    let fixture = Fixture::new();
    let tar = Tar::new()
        .add("dir/", Entry { kind: b'5', mode: 0o750, owner: (3, 4), ..Entry::default() }, b"")
        .add("dir/file", Entry { owner: (5, 6), ..Entry::default() }, b"content")
        .file(".wh.plain", "not a whiteout")
        .hard_link("link", "dir/file")
        .end();
    let mut gzip = compressor(Compression::Gzip, None, 1, Vec::new()).unwrap();
    gzip.write_all(&tar).unwrap();
    let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    bzip2.write_all(&tar).unwrap();
    let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 0);
    xz.write_all(&tar).unwrap();
    let archives = [
        ("a.tar", tar.clone()),
        ("a.tgz", gzip.finish().unwrap()),
        ("a.zst", zstd::encode_all(&tar[..], 1).unwrap()),
        ("a.bz2", bzip2.finish().unwrap()),
        ("a.xz", xz.finish().unwrap()),
    ];
    for (name, bytes) in archives {
        std::fs::write(fixture.context().join(name), bytes).unwrap();
        fixture.copy_with(&[name], &format!("/add-{name}"), |spec| spec.unpack = true).unwrap();
        let root = fixture.target().join(format!("add-{name}"));
        let meta = std::fs::metadata(root.join("dir/file")).unwrap();
        assert_eq!((meta.uid(), meta.gid(), meta.nlink()), (5, 6, 2), "{name}");
        assert_eq!(std::fs::metadata(root.join("dir")).unwrap().mode() & 0o7777, 0o750);
        assert_eq!(std::fs::read_to_string(root.join(".wh.plain")).unwrap(), "not a whiteout");
        fixture.copy(&[name], &format!("/copy-{name}")).unwrap();
        assert!(std::fs::metadata(fixture.target().join(format!("copy-{name}"))).unwrap().is_file());
    }
    // Compressed, but no archive inside.
    std::fs::write(fixture.context().join("text.zst"), zstd::encode_all(&b"just text"[..], 1).unwrap())
        .unwrap();
    fixture.copy_with(&["text.zst"], "/text", |spec| spec.unpack = true).unwrap();
    assert!(std::fs::metadata(fixture.target().join("text")).unwrap().is_file());
    fixture
        .copy_with(&["a.tar"], "/owned/", |spec| {
            spec.unpack = true;
            spec.unpack_owner = Some((9, 9));
        })
        .unwrap();
    assert_eq!(std::fs::metadata(fixture.target().join("owned/dir/file")).unwrap().uid(), 9);
    // Unpacking or not is a difference.
    assert_ne!(fixture.key(&["a.tar"]), fixture.key_with(&["a.tar"], |spec| spec.unpack = true));
}

#[test]
fn kernel_copying_from_a_view_into_an_active_tree() {
    for store in [Store::overlay(), Store::copying()] {
        if !is_root() {
            return;
        }
        let tar = Tar::new()
            .add("app/", Entry { kind: b'5', owner: (1, 2), mode: 0o711, ..Entry::default() }, b"")
            .add("app/run", Entry { owner: (1, 2), mode: 0o755, ..Entry::default() }, b"binary")
            .file("app/gone", "gone")
            .end();
        let base = store.apply(&tar, &[]).unwrap();
        let above = store.apply(&Tar::new().directory("app/").file("app/.wh.gone", "").end(), &[]).unwrap();
        let source = store.snapshots.view(&[base, above]).unwrap();
        let active = store.snapshots.prepare(&[]).unwrap();
        let into = active.tree().unwrap();
        let spec = CopySpec {
            source: &source,
            sources: &[CopySource { pattern: "/app".into(), allow_wildcard: false }],
            filter: &KeepAll,
            matcher: &star,
            destination: "/opt/app",
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
        content_key(&spec, Some(&HashMemory::default()), 2).unwrap();
        drop(into);
        let snapshot = active.commit("copied".parse().unwrap()).unwrap();
        assert_eq!(store.names_of(&snapshot.id, &[]), ["opt/", "opt/app/", "opt/app/run"]);
        let meta = std::fs::metadata(store.snapshots.layer_path(&snapshot.id).join("opt/app/run")).unwrap();
        assert_eq!((meta.uid(), meta.gid(), meta.mtime()), (1, 2, 1_000_000));
    }
}
