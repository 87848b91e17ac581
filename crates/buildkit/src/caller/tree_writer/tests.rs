// SPDX-License-Identifier: Apache-2.0
//! What a hostile listing can't do, and what stays between transfers.

use super::*;

const FILE: u32 = 0o644;
const DIRECTORY: u32 = go_mode::DIRECTORY | 0o755;
const LINK: u32 = go_mode::SYMLINK | 0o777;

fn stat(path: &str, mode: u32, linkname: &str) -> Stat {
    Stat { path: path.to_owned(), mode, linkname: linkname.to_owned(), mod_time: 1, ..Stat::default() }
}

/// Writes a tree whose files hold their own paths.
fn write(root: &Path, stats: &[Stat]) -> Result<usize, CallerError> {
    let mut tree = TreeWriter::open(root)?;
    let mut files = Vec::new();
    for stat in stats {
        files.extend(tree.entry(stat)?);
    }
    tree.end_listing()?;
    let count = files.len();
    for wanted in files {
        let bytes = wanted.path.clone();
        let mut open = tree.begin(wanted)?;
        open.write(bytes.as_bytes())?;
        tree.end(open)?;
    }
    tree.finish()?;
    Ok(count)
}

#[test]
fn nothing_is_written_through_a_symlink() {
    let (root, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::write(outside.path().join("file"), "outside").unwrap();
    let target = outside.path().to_str().unwrap();
    let through = [stat("a", LINK, target), stat("a/file", FILE, "")];
    assert!(matches!(write(root.path(), &through), Err(CallerError::Hostile { .. })));
    // What an earlier build has left as a link, this one has as a directory, a file, or not at all.
    for name in ["a", "b", "c"] {
        let path = root.path().join(name);
        let _ = std::fs::remove_file(&path);
        std::os::unix::fs::symlink(outside.path(), path).unwrap();
    }
    std::os::unix::fs::symlink(outside.path().join("file"), root.path().join("d")).unwrap();
    let now = [stat("a", DIRECTORY, ""), stat("a/file", FILE, ""), stat("b", FILE, ""), stat("d", FILE, "")];
    assert_eq!(write(root.path(), &now).unwrap(), 3);
    assert_eq!(std::fs::read_to_string(root.path().join("a/file")).unwrap(), "a/file");
    assert_eq!(std::fs::read_to_string(root.path().join("d")).unwrap(), "d");
    assert!(!root.path().join("c").exists());
    assert_eq!(std::fs::read_to_string(outside.path().join("file")).unwrap(), "outside");
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1);
}

#[test]
fn hard_links_lead_to_files_that_were_listed() {
    use std::os::unix::fs::MetadataExt as _;
    let root = tempfile::tempdir().unwrap();
    let stats = [stat("a", FILE, ""), stat("b", DIRECTORY, ""), stat("b/c", FILE, "a")];
    for _ in 0..2 {
        write(root.path(), &stats).unwrap();
        let inode = |path: &str| root.path().join(path).metadata().unwrap().ino();
        assert_eq!(inode("a"), inode("b/c"));
    }
    for (linkname, others) in [
        ("../outside", stat("a", FILE, "")),
        ("/etc/passwd", stat("a", FILE, "")),
        ("z", stat("a", FILE, "")),
        ("a", stat("a", LINK, "/etc/passwd")),
        ("a", stat("a", DIRECTORY, "")),
        ("Z", stat("a", FILE, "")),
    ] {
        let written = write(root.path(), &[others, stat("b", FILE, linkname)]);
        assert!(matches!(written, Err(CallerError::Hostile { .. })), "{linkname}: {written:?}");
    }
}

#[test]
fn a_file_that_is_the_same_is_kept_and_one_that_was_not_finished_is_not() {
    let root = tempfile::tempdir().unwrap();
    let file = Stat { size: 1, ..stat("a", FILE, "") };
    assert_eq!(write(root.path(), std::slice::from_ref(&file)).unwrap(), 1);
    assert_eq!(write(root.path(), std::slice::from_ref(&file)).unwrap(), 0);
    for other in [
        Stat { mod_time: 2, ..file.clone() },
        Stat { mode: 0o600, ..file.clone() },
        Stat { mode: go_mode::SETUID | FILE, ..file.clone() },
    ] {
        assert_eq!(write(root.path(), std::slice::from_ref(&other)).unwrap(), 1, "{other:?}");
        assert_eq!(write(root.path(), std::slice::from_ref(&file)).unwrap(), 1);
    }
    assert_eq!(write(root.path(), &[Stat { size: 2, ..file.clone() }]).unwrap(), 1);
    let mut tree = TreeWriter::open(root.path()).unwrap();
    let wanted = tree.entry(&Stat { mod_time: 2, ..file.clone() }).unwrap().unwrap();
    tree.begin(wanted).unwrap().write(b"a").unwrap();
    drop(tree);
    assert_eq!(write(root.path(), &[file]).unwrap(), 1);
}

#[test]
fn kinds_that_do_not_exist_are_refused_and_sockets_left_out() {
    let root = tempfile::tempdir().unwrap();
    let written = write(root.path(), &[stat("a", go_mode::IRREGULAR, "")]);
    assert!(matches!(written, Err(CallerError::Hostile { .. })), "{written:?}");
    write(root.path(), &[stat("p", go_mode::PIPE | 0o600, ""), stat("s", go_mode::SOCKET, "")]).unwrap();
    assert!(root.path().join("p").exists() && !root.path().join("s").exists());
}

#[test]
fn capabilities_of_a_program_are_kept_or_the_transfer_says_that_they_can_not_be() {
    let root = tempfile::tempdir().unwrap();
    // Version 2 of the format, effective, with CAP_NET_BIND_SERVICE permitted (linux/capability.h).
    let mut capability = [0; 20];
    (capability[0], capability[3], capability[5]) = (1, 2, 4);
    let xattrs = [(CAPABILITY.to_owned(), capability.to_vec()), ("user.a".to_owned(), b"b".to_vec())];
    let file = Stat { size: 7, xattrs: xattrs.into(), ..stat("program", 0o755, "") };
    let written = write(root.path(), std::slice::from_ref(&file));
    if !rustix::process::geteuid().is_root() {
        let error = written.unwrap_err();
        assert!(matches!(&error, CallerError::Capability { path, .. } if path == "program"), "{error:?}");
        return;
    }
    assert_eq!(written.unwrap(), 1);
    let mut found = [0; 64];
    let length = rustix::fs::getxattr(root.path().join("program"), CAPABILITY, &mut found[..]).unwrap();
    assert_eq!(found[..length], capability);
    assert_eq!(write(root.path(), std::slice::from_ref(&file)).unwrap(), 0, "it is the same");
    // What is no capability at all is refused, not left out.
    let file = Stat { xattrs: [(CAPABILITY.to_owned(), vec![7; 3])].into(), ..file };
    assert!(matches!(write(root.path(), &[file]), Err(CallerError::Capability { .. })));
}

#[test]
fn names_and_attributes_have_a_limit_together() {
    let xattrs = || BTreeMap::from([("user.a".to_owned(), vec![b'x'; 400])]);
    let entries = [
        Stat { xattrs: xattrs(), ..stat("a", FILE, "") },
        Stat { xattrs: xattrs(), ..stat("b", DIRECTORY, "") },
        stat("c", FILE, "a"),
    ];
    let taken = |limit: usize| {
        let root = tempfile::tempdir().unwrap();
        let mut tree = TreeWriter::open(root.path()).unwrap();
        tree.left_bytes = limit;
        entries.iter().take_while(|entry| tree.entry(entry).is_ok()).count()
    };
    assert_eq!([taken(100), taken(600), taken(1090), taken(2000)], [0, 1, 2, 3]);
}
