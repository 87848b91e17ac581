// SPDX-License-Identifier: Apache-2.0
//! Pull, push and tag from outside: what a name means, and which platforms are under it.

use polyarch_testkit::{
    DockerRegistry, Image, Need, PlatformImage, TestEnvironment, hello_program, hello_rootfs, requires,
};

const FOUR: [&str; 4] = ["linux/amd64", "linux/arm64", "linux/arm/v7", "linux/riscv64"];

fn environment() -> TestEnvironment {
    TestEnvironment::new(env!("CARGO_BIN_EXE_polyarch"))
}

fn architecture(platform: &str) -> &str {
    platform.split('/').nth(1).expect("a platform has an architecture")
}

/// Makes an image whose command writes a text and the platform.
pub fn hello_image(platforms: &[&str], text: &str) -> Image {
    let images = platforms.iter().map(|platform| {
        assert!(hello_program(architecture(platform), "", 0).is_some(), "{platform}");
        let rootfs = hello_rootfs(architecture(platform), &format!("{text} {platform}\n"));
        PlatformImage::new(platform, rootfs, &["/bin/hello"])
    });
    Image::new(images.collect())
}

/// Returns the platforms that the store has all of, `linux/amd64 linux/arm64`.
pub fn complete_platforms(environment: &TestEnvironment, name: &str) -> Vec<String> {
    let output = environment.run(["images", "--format=json"]);
    let images: serde_json::Value = serde_json::from_str(&output.assert_success().stdout).unwrap();
    let image = images.as_array().unwrap().iter().find(|image| image["name"] == name);
    let image = image.unwrap_or_else(|| panic!("no {name} in {images}"));
    let platforms = image["platforms"].as_array().unwrap().iter();
    let complete = platforms.filter(|platform| platform["complete"] == true);
    complete.map(|platform| platform["platform"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn pulling_another_platform_keeps_the_first_under_the_name() {
    if requires(&[Need::Command("docker-registry")]).is_some() {
        return;
    }
    let (environment, registry) = (environment(), DockerRegistry::start());
    let image = hello_image(&FOUR, "hello");
    let digest = registry.push("user/aa", "0.2", &image);
    let name = format!("{}:0.2", registry.name("user/aa"));

    let output = environment.run(["pull", "--platform", "linux/amd64", &name]);
    output.assert_success().assert_stderr("0.2: Pulling from user/aa\n").assert_stderr(": Pull complete\n");
    let amd64 = &image.manifests[0].digest;
    output.assert_stdout(&format!(
        "Digest: {digest}\nIt is an index of 4 platforms; pulled of it:\n  linux/amd64  {amd64}\n\
         Status: Downloaded newer image for {name}\n{name}\n"
    ));
    let output = environment.run(["pull", "--platform=linux/arm64,linux/riscv64", &name]);
    assert!(output.assert_success().stdout.contains("Status: Downloaded newer image"), "{output}");
    assert_eq!(complete_platforms(&environment, &name), ["linux/amd64", "linux/arm64", "linux/riscv64"]);
    let output = environment.run(["pull", "--platform", "linux/arm64", &name]);
    assert!(output.assert_success().stdout.contains("Status: Image is up to date"), "{output}");
    output.assert_stderr(": Already exists\n");
    environment.run(["pull", "-q", &name]).assert_success().assert_stdout(&format!("{name}\n"));

    let output = environment.run(["pull", "--platform", "linux/s390x", &name]);
    output.assert_code(4).assert_stderr("no image for linux/s390x; it has linux/amd64, linux/arm64");
    assert_eq!(complete_platforms(&environment, &name).len(), 3, "a pull that fails changes nothing");
}

#[test]
fn a_name_that_moved_tells_what_is_no_longer_under_it() {
    if requires(&[Need::Command("docker-registry")]).is_some() {
        return;
    }
    let (environment, registry) = (environment(), DockerRegistry::start());
    let old = registry.push("user/aa", "0.2", &hello_image(&FOUR, "old"));
    let name = format!("{}:0.2", registry.name("user/aa"));
    environment.run(["pull", "--platform", "linux/arm64", &name]).assert_success();
    let new = registry.push("user/aa", "0.2", &hello_image(&FOUR, "new"));
    let output = environment.run(["pull", "--platform", "linux/amd64", &name]);
    output.assert_success().assert_stderr(&format!("{name} now means the index {new}"));
    output.assert_stderr(&format!("polyarch pull --platform linux/arm64 {name}"));
    assert_eq!(complete_platforms(&environment, &name), ["linux/amd64"]);

    // The old one is there until a prune, by its digest.
    let by_digest = format!("{}@{old}", registry.name("user/aa"));
    let other = format!("{}:old", registry.name("user/aa"));
    environment
        .run(["push", "--platform=linux/amd64", &by_digest])
        .assert_code(4)
        .assert_stderr("linux/arm64");
    environment.run(["tag", &by_digest, &other]).assert_success().assert_stdout("");
    assert_eq!(complete_platforms(&environment, &other), ["linux/arm64"]);
}

#[test]
fn an_image_of_one_platform_is_pulled_as_what_it_is() {
    if requires(&[Need::Command("docker-registry")]).is_some() {
        return;
    }
    let (environment, registry) = (environment(), DockerRegistry::start());
    registry.push("user/aa", "one", &hello_image(&["linux/s390x"], "hello"));
    let name = format!("{}:one", registry.name("user/aa"));
    let output = environment.run(["pull", &name]);
    output.assert_success().assert_stderr("pulling linux/s390x, the only one");
    assert_eq!(complete_platforms(&environment, &name), ["linux/s390x"]);
}

#[test]
fn what_is_pulled_whole_is_pushed_with_the_same_digest() {
    if requires(&[Need::Command("docker-registry")]).is_some() {
        return;
    }
    let environment = environment();
    let (from, to) = (DockerRegistry::start(), DockerRegistry::start());
    let image = hello_image(&FOUR, "hello");
    let digest = from.push("user/aa", "0.2", &image);
    let source = format!("{}:0.2", from.name("user/aa"));
    let target = format!("{}:0.2", to.name("other/bb"));

    environment.run(["pull", "--platform", "linux/arm64", &source]).assert_success();
    environment.run(["tag", &source, &target]).assert_success();
    let output = environment.run(["push", &target]);
    output.assert_code(6).assert_stderr("linux/amd64, linux/arm/v7, linux/riscv64 missing");
    output.assert_stderr("pull --all-platforms").assert_stderr("push --platform linux/arm64");
    // Where the registry has the rest, a part is enough: another tag in the same repository.
    let same = format!("{}:latest", from.name("user/aa"));
    environment.run(["tag", &source, &same]).assert_success();
    environment.run(["push", "-q", &same]).assert_success().assert_stdout(&format!("{same}\n"));
    assert_eq!(
        from.manifest("user/aa", "latest").header("docker-content-digest").unwrap(),
        digest.to_string()
    );

    environment.run(["pull", "--all-platforms", &source]).assert_success();
    let output = environment.run(["push", &target]);
    output.assert_success().assert_stderr(": Pushed\n").assert_stderr("The push refers to repository [");
    let last = output.stdout.lines().last().unwrap();
    assert_eq!(last, format!("0.2: digest: {digest} size: {}", image.index.size()));
    assert_eq!(to.manifest("other/bb", "0.2").header("docker-content-digest").unwrap(), digest.to_string());

    let one = format!("{}:arm64", to.name("other/bb"));
    environment.run(["tag", &source, &one]).assert_success();
    let output = environment.run(["push", "--platform=linux/arm64", &one]);
    output.assert_success().assert_stderr("Layer already exists");
    let answer = to.manifest("other/bb", "arm64");
    assert_eq!(answer.header("docker-content-digest").unwrap(), image.manifests[1].digest.to_string());
}

/// One platform that was pulled is pushed whole to a repository that has nothing of it yet, in the same
/// registry and in another; what the store has of the index otherwise plays no part.
#[test]
fn a_platform_of_a_sparse_index_is_pushed_with_all_its_blobs() {
    if requires(&[Need::Command("docker-registry")]).is_some() {
        return;
    }
    let (environment, from, to) = (environment(), DockerRegistry::start(), DockerRegistry::start());
    let image = hello_image(&FOUR, "hello");
    from.push("user/multi", "1", &image);
    let source = format!("{}:1", from.name("user/multi"));
    for (at, platform) in FOUR.iter().enumerate().skip(1) {
        environment.run(["pull", "-q", "--platform", platform, &source]).assert_success();
        for (registry, repository) in [(&from, "other/one"), (&to, "user/multi")] {
            let tag = architecture(platform);
            let target = format!("{}:{tag}", registry.name(repository));
            environment.run(["tag", &source, &target]).assert_success();
            environment.run(["push", "-q", "--platform", platform, &target]).assert_success();
            let answer = registry.manifest(repository, tag);
            let digest = answer.header("docker-content-digest").unwrap().to_owned();
            assert_eq!(digest, image.manifests[at].digest.to_string(), "{target}");
            // Another store gets all of it from there.
            let other = self::environment();
            other.run(["pull", "-q", &target]).assert_success();
            assert_eq!(complete_platforms(&other, &target), [*platform]);
        }
    }
    let target = format!("{}:amd64", from.name("other/one"));
    environment.run(["tag", &source, &target]).assert_success();
    let output = environment.run(["push", "-q", "--platform=linux/amd64", &target]);
    output.assert_code(4).assert_stdout("").assert_stderr("not all of").assert_stderr("linux/arm64");
}
