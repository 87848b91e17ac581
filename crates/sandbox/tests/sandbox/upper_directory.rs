// SPDX-License-Identifier: Apache-2.0
//! What stays behind in the upper directory: the changes of the step and nothing else.

use std::os::unix::fs::symlink;
use std::path::Path;

use polyarch_sandbox::{Mount, RootFs};
use serde_json::json;

use crate::support::{World, shell, tree};

#[test]
fn kernel_nothing_but_the_steps_own_changes_is_in_the_upper_directory() {
    let Some(world) = World::new() else { return };
    let cache = world.make("cache");
    let (root, upper) = world.overlay();
    let mut spec =
        shell("cat /etc/resolv.conf /etc/hosts; echo kept > /var/cache/tool/x; touch /tmp/t; mkdir /made");
    spec.mounts = vec![
        Mount::Bind { source: cache.clone(), target: "/var/cache/tool".into(), read_only: false },
        Mount::Tmpfs { target: "/tmp".into(), size_bytes: 1 << 20 },
    ];
    let outcome = world.run(&root, &spec);
    assert_eq!(outcome.output(), "nameserver 192.0.2.1\n127.0.0.1 localhost\n");
    assert_eq!(tree(&upper), ["made"]);
    assert_eq!(std::fs::read_to_string(cache.join("x")).expect("kept"), "kept\n");
    // The same skeleton serves the next run.
    let count = || std::fs::read_dir(world.path("scratch")).expect("read").count();
    let before = count();
    spec.args[2] = "true".to_owned();
    assert_eq!(world.run(&world.overlay().0, &spec).0["code"], 0);
    assert_eq!(count(), before);
}

#[test]
fn kernel_mount_points_behind_links_leave_nothing_either() {
    let Some(world) = World::new() else { return };
    let image = world.path("image");
    std::fs::create_dir_all(image.join("etc")).expect("mkdir");
    std::fs::create_dir_all(image.join("var")).expect("mkdir");
    symlink("../run/systemd/resolve/stub-resolv.conf", image.join("etc/resolv.conf")).expect("symlink");
    symlink("/run", image.join("var/run")).expect("symlink");
    // A link that would lead out of a root that is not one.
    symlink("../../../../../../../../../../../../escape", image.join("data")).expect("symlink");
    world.give(&image);
    let (root, upper) = world.overlay();
    let mut spec =
        shell("cat /etc/resolv.conf; ls -d /run/lock/a /escape; [ -L /etc/resolv.conf ] && echo link");
    let tmpfs = |target: &str| Mount::Tmpfs { target: target.into(), size_bytes: 0 };
    spec.mounts = vec![tmpfs("/var/run/lock/a"), tmpfs("/data")];
    let outcome = world.run(&root, &spec);
    assert_eq!(outcome.output(), "nameserver 192.0.2.1\n/escape\n/run/lock/a\nlink\n");
    assert!(tree(&upper).is_empty(), "{:?}", tree(&upper));
    assert!(!Path::new("/escape").exists());
}

#[test]
fn kernel_a_mount_point_hidden_by_an_opaque_directory_is_removed_again() {
    let Some(world) = World::new() else { return };
    let layer = world.make("layer/opaque");
    rustix::fs::setxattr(&layer, "user.overlay.opaque", b"y", rustix::fs::XattrFlags::empty())
        .expect("setxattr");
    let modified = std::fs::metadata(&layer).expect("stat").modified().expect("mtime");
    let (root, upper) = world.overlay_of(vec![world.path("layer"), world.path("image")]);
    let mut spec = shell("ls -d /opaque/below/deep");
    spec.mounts = vec![Mount::Tmpfs { target: "/opaque/below/deep".into(), size_bytes: 0 }];
    assert_eq!(world.run(&root, &spec).output(), "/opaque/below/deep\n");
    // The directory above was copied up, unchanged; the mount points are gone.
    assert_eq!(tree(&upper), ["opaque"]);
    assert_eq!(std::fs::metadata(upper.join("opaque")).expect("stat").modified().expect("mtime"), modified);
}

#[test]
fn kernel_a_directory_is_left_as_it_was() {
    let Some(world) = World::new() else { return };
    let image = world.path("image");
    let before = (tree(&image), std::fs::metadata(&image).expect("stat").modified().expect("mtime"));
    let mut spec = shell("ls -d /proc/self /dev/null /etc/hosts /deep/er");
    spec.mounts = vec![Mount::Tmpfs { target: "/deep/er".into(), size_bytes: 0 }];
    let root = RootFs::dir(image.clone());
    assert_eq!(world.run(&root, &spec).output(), "/deep/er\n/dev/null\n/etc/hosts\n/proc/self\n");
    assert_eq!((tree(&image), std::fs::metadata(&image).expect("stat").modified().expect("mtime")), before);
    let answer = world.ask(
        vec![json!({ "root": root, "spec": shell("echo x > /new; echo begun; sleep 1000"), "cancel_on_output": true })],
        false,
    );
    assert_eq!(answer["results"][0]["error"], "cancelled");
    std::fs::remove_file(image.join("new")).expect("the change stayed");
    assert_eq!(tree(&image), before.0);
}
