// SPDX-License-Identifier: Apache-2.0
//! `polyarch registry … --root s3://…`: two servers over one bucket, looking after it, and what is told when it can't be used.

use polyarch_testkit::TestEnvironment;

fn environment() -> TestEnvironment {
    let mut environment = TestEnvironment::new(env!("CARGO_BIN_EXE_polyarch"));
    environment.set("AWS_ACCESS_KEY_ID", "ann").set("AWS_SECRET_ACCESS_KEY", "secret");
    environment
}

#[cfg(not(feature = "s3"))]
#[test]
fn a_binary_without_buckets_says_which_has_them() {
    let output = environment().run(["registry", "gc", "--root", "s3://images/team"]);
    output.assert_code(2).assert_stderr("not built into this binary").assert_stderr("--features s3");
}

#[test]
fn flags_of_buckets_need_one() {
    let output = environment().run(["registry", "gc", "--root", "here", "--s3-region", "eu-central-1"]);
    output.assert_code(2).assert_stderr("--root s3://BUCKET/PREFIX");
}

#[cfg(feature = "s3")]
mod with_buckets {
    use polyarch_testkit::{Need, S3Server, requires};

    use super::environment;
    use crate::registry::{Registry, layout, run};

    #[test]
    fn two_servers_share_a_bucket_that_is_looked_after() {
        if requires(&[Need::Command("moto_server"), Need::Command("skopeo")]).is_some() {
            return;
        }
        let store = S3Server::start("images");
        let environment = environment();
        let (layout, image) = layout(&environment);
        let endpoint = store.endpoint();
        let place = ["--root", "s3://images/team", "--s3-endpoint", &endpoint];
        let (one, two) = (Registry::start(&environment, &place), Registry::start(&environment, &place));
        let (source, target) =
            (format!("oci:{}:v1", layout.display()), format!("docker://{}", one.name("app:v1")));
        let copy = [
            "--insecure-policy",
            "copy",
            "--all",
            "--dest-tls-verify=false",
            "--preserve-digests",
            &source,
            &target,
        ];
        run(&environment, "skopeo", &copy).assert_success();
        let there = format!("docker://{}", two.name("app:v1"));
        let raw = run(&environment, "skopeo", &["inspect", "--raw", "--tls-verify=false", &there]);
        assert_eq!(raw.assert_success().stdout.as_bytes(), image.index.bytes, "byte for byte");
        for (command, said) in [("scrub", "nothing is damaged"), ("gc", "removed 0 blobs, 0 manifests")] {
            let output = environment.run(["registry", command].iter().chain(&place));
            assert!(output.assert_success().stdout.contains(said), "{output}");
        }
        assert!(store.keys("images", "").iter().all(|key| key.starts_with("team/")));
    }

    #[test]
    fn what_can_not_be_used_is_told_with_the_next_step() {
        let environment = environment();
        let gc = |root: &str, endpoint: &str| {
            environment.run(["registry", "gc", "--root", root, "--s3-endpoint", endpoint])
        };
        gc("s3://x", "http://127.0.0.1:1").assert_code(2).assert_stderr("is no name of a bucket");
        let unreachable = gc("s3://images", "http://127.0.0.1:1");
        unreachable.assert_code(2).assert_stderr("can't be reached").assert_stderr("--s3-endpoint");
        if requires(&[Need::Command("moto_server")]).is_some() {
            return;
        }
        let store = S3Server::start("others");
        let missing = gc("s3://images", &store.endpoint());
        missing.assert_code(2).assert_stderr("there is no bucket images").assert_stderr("hint");
        let empty = gc("s3://others/team", &store.endpoint());
        empty.assert_code(2).assert_stderr("there is no registry in s3://others/team");
    }
}
