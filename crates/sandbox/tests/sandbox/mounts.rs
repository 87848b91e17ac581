// SPDX-License-Identifier: Apache-2.0
//! Roots and mounts: layers, parts of trees, files in memory, directories of the host.

use std::os::unix::fs::symlink;
use std::path::PathBuf;

use polyarch_sandbox::{MemoryFile, Mount, RootFs};

use crate::support::{World, shell, tree};

#[test]
fn kernel_a_read_only_root_takes_no_changes() {
    let Some(world) = World::new() else { return };
    let (mut root, upper) = world.overlay();
    root.read_only = true;
    let mut spec = shell("touch /x 2>/dev/null || echo refused; touch /tmp/x /dev/shm/x && echo written");
    spec.mounts = vec![Mount::Tmpfs { target: "/tmp".into(), size_bytes: 0 }];
    assert_eq!(world.run(&root, &spec).output(), "refused\nwritten\n");
    assert!(tree(&upper).is_empty());
}

#[test]
fn kernel_parts_of_trees_are_mounted_and_no_link_leads_out_of_them() {
    let Some(world) = World::new() else { return };
    let lower = world.make("lower");
    std::fs::create_dir_all(lower.join("src/app")).expect("mkdir");
    std::fs::write(lower.join("src/app/main"), "below\n").expect("write");
    symlink("/src/app", lower.join("link")).expect("symlink");
    symlink("/etc", lower.join("out")).expect("symlink");
    std::fs::write(lower.join("file"), "a file\n").expect("write");
    world.give(&lower);
    let (tree, tree_upper) = world.overlay_of(vec![lower.clone()]);
    let (other, _) = world.overlay_of(vec![lower]);
    let mount = |tree: &RootFs, path: &str, target: &str, read_only| Mount::Tree {
        tree: tree.kind.clone(),
        path: path.into(),
        target: target.into(),
        read_only,
    };
    let script =
        "cat /rw/main; echo new > /rw/new; cat /one; touch /ro/src/x 2>/dev/null || echo refused; ls /ro";
    let mut spec = shell(script);
    spec.mounts = vec![
        mount(&other, "/", "/ro", true),
        mount(&tree, "link", "/rw", false),
        mount(&world.overlay().0, "", "/image", true),
        mount(&RootFs::dir(world.path("lower")), "file", "/one", true),
    ];
    let (root, upper) = world.overlay();
    assert_eq!(world.run(&root, &spec).output(), "below\na file\nrefused\nfile\nlink\nout\nsrc\n");
    assert!(tree_upper.join("src/app/new").exists(), "changes are in the tree's own upper directory");
    assert!(self::tree(&upper).is_empty());
    spec.mounts = vec![mount(&RootFs::dir(world.path("lower")), "out", "/x", true)];
    let outcome = world.run(&world.overlay().0, &spec);
    assert!(outcome.error().contains("open the source of a mount, out"), "{}", outcome.error());
}

#[test]
fn kernel_files_in_memory_have_a_mode_and_an_owner_and_leave_nothing() {
    let Some(world) = World::new() else { return };
    let file = MemoryFile { content: b"hush".to_vec(), mode: 0o741, uid: 0, gid: 0 };
    assert_eq!(format!("{file:?}"), "MemoryFile(4 bytes, mode 741, owner 0:0)");
    let quiet = MemoryFile { content: b"more".to_vec(), mode: 0o400, ..file.clone() };
    let script = "stat -c '%u %g %f' /mine; cat /mine /run/secrets/deep/two; echo; \
                  (echo x > /mine) 2>/dev/null || echo refused";
    let mut spec = shell(script);
    spec.mounts = vec![
        Mount::File { file, target: "/mine".into() },
        Mount::File { file: quiet, target: "/run/secrets/deep/two".into() },
    ];
    let (root, upper) = world.overlay();
    assert_eq!(world.run(&root, &spec).output(), "0 0 81e1\nhushmore\nrefused\n");
    assert!(tree(&upper).is_empty());
}

#[test]
fn kernel_binds_are_read_only_when_asked_and_files_are_bound_too() {
    let Some(world) = World::new() else { return };
    let source = world.make("source");
    std::fs::write(source.join("secret"), "hidden\n").expect("write");
    world.give(&source);
    let (root, upper) = world.overlay();
    let mut spec = shell("cat /run/secrets/one; touch /ro/x 2>/dev/null || echo refused; ls /ro");
    spec.mounts = vec![
        Mount::Bind { source: source.join("secret"), target: "/run/secrets/one".into(), read_only: true },
        Mount::Bind { source: source.clone(), target: "/ro".into(), read_only: true },
    ];
    assert_eq!(world.run(&root, &spec).output(), "hidden\nrefused\nsecret\n");
    assert!(tree(&upper).is_empty());
    spec.mounts = vec![Mount::Bind { source: world.path("absent"), target: "/x".into(), read_only: true }];
    let outcome = world.run(&world.overlay().0, &spec);
    assert!(outcome.error().contains("open the source of a mount,") && outcome.error().contains("absent"));
    spec.mounts = vec![Mount::Bind { source, target: "/bin/busybox".into(), read_only: true }];
    let outcome = world.run(&world.overlay().0, &spec);
    assert!(
        outcome.error().contains("cannot mount on /bin/busybox in the image: it is a file"),
        "{}",
        outcome.error()
    );
}

#[test]
fn kernel_three_hundred_layers_with_long_paths_are_mounted() {
    let Some(world) = World::new() else { return };
    let deep = "long".repeat(50);
    let mut lower: Vec<PathBuf> = (0..300)
        .map(|layer| {
            let path = world.path("layers").join(&deep).join(format!("{layer}:,\\"));
            std::fs::create_dir_all(&path).expect("mkdir");
            std::fs::write(path.join(format!("file{layer}")), "").expect("write");
            path
        })
        .collect();
    world.give(&world.path("layers"));
    lower.push(world.path("image"));
    let outcome = world.run(&world.overlay_of(lower).0, &shell("ls /file* | wc -l"));
    assert_eq!(outcome.output().trim(), "300");
}
