// SPDX-License-Identifier: Apache-2.0
//! Our server on a disk that is full: refused cleanly, nothing lost, nothing half there.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use polyarch_oci::Digest;
use polyarch_oci::media_type::OCI_INDEX;
use polyarch_testkit::{Need, requires};

use crate::fake::noise;
use crate::serving::{Plan, Serving};

/// Names the small disk to the test that runs on it.
const DISK: &str = "POLYARCH_TEST_SMALL_DISK";

#[test]
fn a_full_disk_is_told_and_harms_nothing() {
    if requires(&[Need::UserNamespaces, Need::Command("unshare")]).is_some() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let mount = "mount -t tmpfs -o size=4m none \"$1\" || exit 77; shift; exec \"$@\"";
    let outcome = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", mount, "sh"])
        .arg(directory.path())
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "server_full::on_a_small_disk", "--nocapture"])
        .env(DISK, directory.path())
        .output();
    let output = outcome.unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && text.contains("1 passed"), "{text}\n{errors}");
}

/// Runs when the test above has mounted a disk for it, in a process of its own.
#[tokio::test]
async fn on_a_small_disk() {
    let Some(disk) = std::env::var_os(DISK).map(PathBuf::from) else { return };
    let serving = Serving::over(tempfile::tempdir_in(&disk).unwrap(), Plan::default()).await;
    let small = serving.push_blob("app", b"small").await;
    let large = noise(6_000_000);
    let path = format!("/v2/app/blobs/uploads/?digest={}", Digest::of(&large));
    let answer = serving.send("POST", &path, &[], &large).await;
    assert_eq!((answer.status, answer.code()), (507, "DENIED".to_owned()));
    assert!(serving.log.lock().unwrap().iter().any(|record| record.cause.is_some()), "the log says why");

    let location = serving.begin("app").await;
    assert_eq!(serving.send("PATCH", &location, &[], b"begin").await.status, 202);
    assert_eq!(serving.send("PATCH", &location, &[], &large).await.status, 507);
    assert_eq!(serving.send("GET", &location, &[], b"").await.header("range"), "0-4");
    let digest = Digest::of("begin, end");
    let answer = serving.send("PUT", &format!("{location}?digest={digest}"), &[], b", end").await;
    assert_eq!(answer.status, 201, "{answer:?}");

    let put = async |tag: &str| {
        let path = format!("/v2/app/manifests/{tag}");
        let text = format!(r#"{{"schemaVersion":2,"manifests":[],"tag":"{tag}"}}"#);
        serving.send("PUT", &path, &[("Content-Type", OCI_INDEX)], text.as_bytes()).await.status
    };
    assert_eq!(put("before").await, 201);
    let filler = fill(&disk);
    assert_eq!(put("full").await, 507);
    assert_eq!(serving.send("GET", "/v2/app/manifests/before", &[], b"").await.status, 200);
    assert_eq!(serving.send("GET", "/v2/app/manifests/full", &[], b"").await.status, 404);
    assert_eq!(serving.send("GET", &format!("/v2/app/blobs/{small}"), &[], b"").await.body, b"small");
    std::fs::remove_file(filler).unwrap();
    assert_eq!(put("after").await, 201);
    let left = |name: &str| std::fs::read_dir(serving.directory.path().join(name)).unwrap().count();
    assert_eq!((left("incoming"), left("uploads")), (0, 0));
}

/// Writes until nothing more fits.
fn fill(disk: &Path) -> PathBuf {
    let path = disk.join("filler");
    let mut file = std::fs::File::create(&path).unwrap();
    for size in [1 << 20, 4 << 10, 1] {
        while file.write_all(&vec![0; size]).is_ok() {}
    }
    path
}
