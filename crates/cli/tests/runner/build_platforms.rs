// SPDX-License-Identifier: Apache-2.0
//! Several platforms, one image: emulated steps, the registry, and what can't run.

use std::fs;

use polyarch_testkit::{
    DockerRegistry, Image, Need, PlatformImage, TarBuilder, TestEnvironment, hello_program, hello_rootfs,
    requires,
};

const NEEDS: &[Need] = &[
    Need::Root,
    Need::UserNamespaces,
    Need::PrivateBinfmt,
    Need::Qemu("aarch64"),
    Need::Qemu("arm"),
    Need::Qemu("riscv64"),
    Need::Qemu("s390x"),
    Need::Command("docker-registry"),
];

const PLATFORMS: [(&str, &str); 5] = [
    ("linux/amd64", "amd64"),
    ("linux/arm64", "arm64"),
    ("linux/arm/v7", "arm"),
    ("linux/riscv64", "riscv64"),
    ("linux/s390x", "s390x"),
];

/// Pushes a base whose program says its platform.
fn push_base(registry: &DockerRegistry, platforms: &[(&str, &str)]) {
    let image = |(platform, architecture): &(&str, &str)| {
        let text = format!("hello from {platform}\n");
        PlatformImage::new(platform, hello_rootfs(architecture, &text), &["/bin/hello"])
    };
    registry.push("base", "1", &Image::new(platforms.iter().map(image).collect()));
}

fn list() -> String {
    PLATFORMS.map(|(platform, _)| platform).join(",")
}

#[test]
fn one_dockerfile_runs_on_every_platform_and_is_pushed_as_one_index_needs_qemu() {
    if requires(NEEDS).is_some() {
        return;
    }
    let (registry, environment) =
        (DockerRegistry::start(), TestEnvironment::new(env!("CARGO_BIN_EXE_polyarch")));
    push_base(&registry, &PLATFORMS);
    let before = fs::read_dir("/proc/sys/fs/binfmt_misc").map(Iterator::count).unwrap_or(0);
    environment.write(
        "Dockerfile",
        format!(
            "FROM {}\nRUN [\"/bin/hello\"]\nARG TARGETARCH\nCOPY marker /marker-$TARGETARCH\n",
            registry.name("base:1")
        ),
    );
    environment.write("marker", "x");
    let (name, platforms) = (registry.name("app:1"), list());
    let arguments = ["build", "--progress", "plain", "--platform", &platforms, "-t", &name, "--push", "."];
    let output = environment.run(arguments);
    output.assert_success();
    for (platform, _) in PLATFORMS {
        output.assert_stderr(&format!("hello from {platform}"));
    }
    output.assert_stderr("emulated (qemu-aarch64");
    let index: serde_json::Value = serde_json::from_slice(&registry.manifest("app", "1").body).unwrap();
    let entries = index["manifests"].as_array().unwrap();
    assert_eq!(entries.len(), PLATFORMS.len(), "{index}");
    assert!(entries.iter().all(|entry| entry["platform"]["architecture"] != "unknown"));
    assert_eq!(fs::read_dir("/proc/sys/fs/binfmt_misc").map(Iterator::count).unwrap_or(0), before);

    // Nothing runs the second time, and the image is the same.
    let digest = |output: &polyarch_testkit::Output| {
        output.stderr.lines().find_map(|line| line.strip_prefix("index ")).unwrap().to_owned()
    };
    let again = environment.run(arguments);
    again.assert_success().assert_no_stderr("hello from");
    assert_eq!(digest(&again), digest(&output));

    // Somebody else pulls each platform and runs it.
    let elsewhere = TestEnvironment::new(env!("CARGO_BIN_EXE_polyarch"));
    for (platform, _) in PLATFORMS {
        elsewhere.run(["pull", "--platform", platform, &name]).assert_success();
        let run = elsewhere.run(["run", "--rm", "--platform", platform, &name]);
        assert_eq!(run.assert_success().stdout, format!("hello from {platform}\n"));
    }
}

#[test]
fn a_stage_of_the_build_platform_runs_once_for_all_needs_qemu() {
    if requires(NEEDS).is_some() {
        return;
    }
    let (registry, environment) =
        (DockerRegistry::start(), TestEnvironment::new(env!("CARGO_BIN_EXE_polyarch")));
    push_base(&registry, &PLATFORMS);
    let base = registry.name("base:1");
    environment.write(
        "Dockerfile",
        format!(
            "FROM --platform=$BUILDPLATFORM {base} AS shared\nRUN [\"/bin/hello\"]\nCOPY Dockerfile /shared\n\
             FROM {base}\nCOPY --from=shared /shared /\n"
        ),
    );
    let output = environment.run(["build", "--progress", "plain", "--platform", &list(), "."]);
    output.assert_success();
    assert_eq!(output.stderr.matches(" hello from ").count(), 1, "{}", output.stderr);
}

#[test]
fn a_base_without_the_platform_is_named_with_those_it_has_needs_registry() {
    if requires(&[Need::Root, Need::UserNamespaces, Need::Command("docker-registry")]).is_some() {
        return;
    }
    let (registry, environment) =
        (DockerRegistry::start(), TestEnvironment::new(env!("CARGO_BIN_EXE_polyarch")));
    push_base(&registry, &PLATFORMS[..2]);
    environment.write("Dockerfile", format!("FROM {}\nCOPY Dockerfile /\n", registry.name("base:1")));
    let output = environment.run(["build", "--platform", "linux/ppc64le", "."]);
    output.assert_code(4).assert_stderr("has no image for linux/ppc64le; it has linux/amd64, linux/arm64");
    output.assert_stderr(">>> FROM");
}

#[test]
fn a_missing_emulator_fails_before_the_first_step_needs_root() {
    if requires(&[Need::Root, Need::UserNamespaces]).is_some() {
        return;
    }
    let mut environment = TestEnvironment::new(env!("CARGO_BIN_EXE_polyarch"));
    environment.set("PATH", "/nonexistent");
    // The base is nowhere: had the build gone on, it would have failed for that.
    environment.write("Dockerfile", "FROM 127.0.0.1:1/none\nRUN true\n");
    let output = environment.run(["build", "--platform", "linux/s390x,linux/arm64", "."]);
    output.assert_code(4).assert_stderr("linux/s390x").assert_stderr("linux/arm64");
    output.assert_stderr("apt-get install qemu-user-static").assert_no_stderr("127.0.0.1:1");
}

#[test]
fn a_platform_that_runs_nothing_needs_no_emulator_needs_root() {
    if requires(&[Need::Root, Need::UserNamespaces]).is_some() {
        return;
    }
    let mut environment = TestEnvironment::new(env!("CARGO_BIN_EXE_polyarch"));
    environment.set("PATH", "/nonexistent");
    environment.write("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
    environment
        .run(["build", "--platform", "linux/s390x,linux/loong64", "-t", "local/x", "."])
        .assert_success();
    let images = environment.run(["images", "--format", "json"]);
    assert!(images.assert_success().stdout.contains("linux/loong64"), "{images}");
}

#[test]
fn the_image_is_of_the_platform_asked_for_needs_root() {
    if requires(&[Need::Root, Need::UserNamespaces]).is_some() {
        return;
    }
    let environment = TestEnvironment::new(env!("CARGO_BIN_EXE_polyarch"));
    environment.write("Dockerfile", "FROM --platform=$BUILDPLATFORM scratch\nCOPY Dockerfile /\n");
    let platforms = "linux/amd64,linux/arm64";
    environment.run(["build", "--platform", platforms, "-t", "local/x", "."]).assert_success();
    let images = environment.run(["images", "--format", "json"]);
    assert!(images.stdout.contains("linux/amd64") && images.stdout.contains("linux/arm64"), "{images}");
}

#[test]
fn nothing_is_published_unless_every_platform_succeeds_needs_qemu() {
    if requires(NEEDS).is_some() {
        return;
    }
    let environment = TestEnvironment::new(env!("CARGO_BIN_EXE_polyarch"));
    let registry = DockerRegistry::start();
    let image = |platform: &str, architecture: &str, exit_code: u8| {
        let program = hello_program(architecture, "hello\n", exit_code).unwrap();
        let layer = TarBuilder::new().directory("bin", 0o755).file("bin/hello", 0o755, program).finish();
        PlatformImage::new(platform, layer, &["/bin/hello"])
    };
    let images = vec![image("linux/amd64", "amd64", 0), image("linux/arm64", "arm64", 9)];
    registry.push("base", "1", &Image::new(images));
    environment.write("Dockerfile", format!("FROM {}\nRUN [\"/bin/hello\"]\n", registry.name("base:1")));
    let name = registry.name("app:1");
    let output =
        environment.run(["build", "--platform", "linux/amd64,linux/arm64", "-t", &name, "--push", "."]);
    output.assert_code(1).assert_stderr("exit code: 9").assert_stderr("linux/arm64");
    assert_eq!(registry.request("GET", "/v2/app/tags/list", &[], b"").status, 404);
    assert!(!environment.run(["images"]).assert_success().stdout.contains("app"));
}

#[test]
fn the_version_of_an_operating_system_is_asked_for_and_inherited_needs_root() {
    if requires(&[Need::Root, Need::UserNamespaces]).is_some() {
        return;
    }
    let environment = TestEnvironment::new(env!("CARGO_BIN_EXE_polyarch"));
    let document = |directory: &str, descriptor: &serde_json::Value| -> serde_json::Value {
        let digest = descriptor["digest"].as_str().unwrap().replace(':', "/");
        let path = environment.work().join(directory).join("blobs").join(digest);
        serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
    };
    let index = |directory: &str| -> serde_json::Value {
        let path = environment.work().join(directory).join("index.json");
        serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
    };
    environment.write(
        "Dockerfile",
        "FROM scratch\nARG TARGETPLATFORM\nARG TARGETOSVERSION\nCOPY <<a /\n$TARGETPLATFORM $TARGETOSVERSION\na\n",
    );
    let platforms = "windows(10.0.1.7)/amd64,windows(10.0.2)/amd64";
    let build = |arguments: &[&str]| {
        environment.run(["build"].iter().chain(arguments).chain(&["."])).assert_success();
    };
    build(&["--platform", platforms, "-o", "type=oci,tar=false,dest=base", "-o", "type=local,dest=out"]);
    let read = |path: &str| fs::read_to_string(environment.work().join("out").join(path)).unwrap();
    assert_eq!(read("windows(10.0.1.7)_amd64/a"), "windows(10.0.1.7)/amd64 10.0.1.7\n");
    assert_eq!(read("windows(10.0.2)_amd64/a"), "windows(10.0.2)/amd64 10.0.2\n");
    let inner = document("base", &index("base")["manifests"][0]);
    let versions: Vec<&str> = inner["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|entry| entry["platform"]["os.version"].as_str())
        .collect();
    assert_eq!(versions, ["10.0.1.7", "10.0.2"]);

    // A base of the version that was asked for, or else of the first; its version is the image's.
    environment.write("Dockerfile", "FROM base\nCOPY <<b /\ntext\nb\n");
    let digest = index("base")["manifests"][0]["digest"].as_str().unwrap().to_owned();
    let base = format!("base=oci-layout://base@{digest}");
    for (platform, expected) in [("windows(10.0.2)/amd64", "10.0.2"), ("windows/amd64", "10.0.1.7")] {
        let _ = fs::remove_dir_all(environment.work().join("layout"));
        let output = "type=oci,tar=false,dest=layout";
        build(&["--platform", platform, "--build-context", &base, "-o", output]);
        let manifest = document("layout", &index("layout")["manifests"][0]);
        assert_eq!(document("layout", &manifest["config"])["os.version"], expected, "{platform}");
    }
}
