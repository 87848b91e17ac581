// SPDX-License-Identifier: Apache-2.0
//! What of its sources a COPY or ADD chooses, and what modes it gives.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use polyarch_snapshot::{Verdict, Within};

use crate::copying::Fixture;

/// Chooses by names: what is listed stays, other files go, and directories are passed through.
struct Only(&'static [&'static str]);

impl Within for Only {
    fn verdict(&self, _source: usize, path: &Path, is_directory: bool) -> Verdict {
        let path = path.to_str().unwrap();
        let is_chosen = self.0.iter().any(|it| path == *it || path.starts_with(&format!("{it}/")));
        match (is_chosen, is_directory) {
            (true, _) => Verdict::Keep,
            (false, true) => Verdict::Descend,
            (false, false) => Verdict::Skip,
        }
    }

    fn required(&self, _source: usize) -> Option<&str> {
        self.0.first().copied().filter(|it| it.starts_with("required"))
    }
}

#[test]
fn what_is_chosen_within_a_directory_brings_the_directories_above() {
    let fixture = Fixture::new();
    for path in ["a/b/c/file", "a/b/other", "a/kept/x", "z"] {
        fixture.write(path, path);
    }
    std::fs::set_permissions(fixture.context().join("a/b"), std::fs::Permissions::from_mode(0o700)).unwrap();
    static ONLY: Only = Only(&["a/b/c/file", "a/kept"]);
    static MISSING: Only = Only(&["required/path"]);
    fixture.copy_with(&["."], "/to", |spec| spec.within = Some(&ONLY)).unwrap();
    assert_eq!(fixture.read("to/a/b/c/file"), "a/b/c/file");
    assert_eq!(fixture.read("to/a/kept/x"), "a/kept/x");
    assert!(!fixture.target().join("to/a/b/other").exists() && !fixture.target().join("to/z").exists());
    assert_eq!(std::fs::metadata(fixture.target().join("to/a/b")).unwrap().mode() & 0o7777, 0o700);
    // A file that is named itself is not judged.
    fixture.copy_with(&["z"], "/to/", |spec| spec.within = Some(&ONLY)).unwrap();
    assert_eq!(fixture.read("to/z"), "z");
    // The key covers what is chosen, and nothing else.
    let before = fixture.key_with(&["."], |spec| spec.within = Some(&ONLY));
    fixture.write("a/b/other", "changed");
    assert_eq!(fixture.key_with(&["."], |spec| spec.within = Some(&ONLY)), before);
    fixture.write("a/kept/x", "changed");
    assert_ne!(fixture.key_with(&["."], |spec| spec.within = Some(&ONLY)), before);
    let error = fixture.copy_with(&["."], "/", |spec| spec.within = Some(&MISSING)).unwrap_err();
    assert_eq!(error.to_string(), "\"/required/path\": not found");
}

#[test]
fn modes_change_by_what_the_source_has_and_created_directories_get_their_own() {
    let fixture = Fixture::new();
    fixture.write("d/file", "");
    let mode = |path: &str| std::fs::metadata(fixture.target().join(path)).unwrap().mode() & 0o7777;
    std::fs::set_permissions(fixture.context().join("d/file"), std::fs::Permissions::from_mode(0o664))
        .unwrap();
    fn change(mode: u32, is_directory: bool) -> u32 {
        if is_directory { 0o711 } else { mode & !0o022 }
    }
    fixture
        .copy_with(&["."], "/made/here/", |spec| {
            spec.mode = Some(&change);
            spec.created_mode = 0o750;
        })
        .unwrap();
    assert_eq!(
        (mode("made"), mode("made/here"), mode("made/here/d"), mode("made/here/d/file")),
        (0o750, 0o750, 0o711, 0o644)
    );
}

#[test]
fn patterns_without_a_match_bring_nothing_and_directories_fill_one_destination() {
    let fixture = Fixture::new();
    fixture.write("d1/a", "a");
    fixture.write("d2/b", "b");
    fixture.copy(&["none*"], "/nothing/").unwrap();
    assert!(!fixture.target().join("nothing").exists());
    fixture.copy(&["d*"], "/both").unwrap();
    assert_eq!((fixture.read("both/a"), fixture.read("both/b")), ("a".to_owned(), "b".to_owned()));
    let error = fixture.copy(&["none"], "/nothing/").unwrap_err();
    assert_eq!(error.to_string(), "\"/none\": not found");
}

#[test]
fn a_socket_is_copied_as_an_empty_file() {
    let fixture = Fixture::new();
    let _listener = std::os::unix::net::UnixListener::bind(fixture.context().join("socket")).unwrap();
    let without = fixture.key(&["none*"]);
    assert_ne!(fixture.key(&["."]), without);
    fixture.copy(&["."], "/").unwrap();
    assert!(std::fs::symlink_metadata(fixture.target().join("socket")).unwrap().is_file());
    assert_eq!(fixture.read("socket"), "");
}
