// SPDX-License-Identifier: Apache-2.0
//! Stages: which are needed, what triggers of a base bring, what their names and bases decide.

use std::fs;

use polyarch_testkit::{
    DockerRegistry, Image, Need, PlatformImage, TestEnvironment, busybox_rootfs, requires,
};
use serde_json::json;

use super::build_steps::{build, build_config, dockerfile, with_base};

const NEEDS: &[Need] = &[Need::Root, Need::UserNamespaces, Need::File("/bin/busybox")];

/// Builds into a directory and returns the text of a file in it.
fn built(environment: &TestEnvironment, arguments: &[&str], file: &str) -> String {
    build(environment, &[arguments, &["-o", "type=local,dest=out"]].concat()).assert_success();
    fs::read_to_string(environment.work().join("out").join(file)).expect("a file of the result")
}

#[test]
fn triggers_of_a_stage_bring_the_stages_that_they_name_needs_root() {
    if requires(NEEDS).is_some() {
        return;
    }
    let environment = with_base();
    dockerfile(
        &environment,
        "FROM base AS first\nRUN echo 1 > /file\n\
         FROM base AS src\nCOPY --from=first /file /in/file\nRUN echo 2 >> /in/file\n\
         FROM base AS parent\nONBUILD COPY --from=src /in/file /out/copied\n\
         ONBUILD RUN --mount=from=src,source=/in,target=/in cat /in/file > /out/read\n\
         FROM parent AS child\nRUN echo 3 >> /out/copied\n\
         FROM child AS grandchild\nRUN [ -e /out/read ] && rm /out/read\n\
         FROM scratch\nCOPY --from=grandchild /out/ /\n",
    );
    assert_eq!(built(&environment, &[], "copied"), "1\n2\n3\n");
    assert!(!environment.work().join("out/read").exists(), "triggers are for the next stage only");
}

#[test]
fn triggers_of_an_image_bring_stages_and_images_needs_root() {
    if requires(NEEDS).is_some() || requires(&[Need::Command("docker-registry")]).is_some() {
        return;
    }
    let registry = DockerRegistry::start();
    let environment = with_base();
    let platform = "linux/amd64";
    let plain = PlatformImage::new(platform, busybox_rootfs(), &["sh"]);
    registry.push("plain", "1", &Image::new(vec![plain.clone()]));
    let mut with_triggers = plain;
    with_triggers.config.config.on_build = vec![
        format!("COPY --from={} /etc/passwd /of-image", registry.name("plain:1")),
        "COPY --from=tools /made /of-stage".to_owned(),
    ];
    registry.push("triggers", "1", &Image::new(vec![with_triggers]));
    let name = registry.name("triggers:1");
    let text = |order: &[&str]| -> String { order.concat() };
    let (tools, app) = ("FROM base AS tools\nRUN echo made > /made\n", format!("FROM {name} AS app\n"));
    dockerfile(&environment, &text(&[tools, &app, "FROM scratch\nCOPY --from=app /of-image /of-stage /\n"]));
    assert_eq!(built(&environment, &["--platform", platform], "of-stage"), "made\n");
    assert!(environment.work().join("out/of-image").exists());
    dockerfile(&environment, &text(&[&app, tools]));
    build(&environment, &["--platform", platform, "--target", "app"]).assert_code(3).assert_stderr(
        "cannot copy from stage \"tools\", it needs to be defined before current stage \"app\"",
    );
}

#[test]
fn the_stage_that_is_built_is_known_by_name_needs_root() {
    if requires(NEEDS).is_some() {
        return;
    }
    let environment = with_base();
    let common = "FROM base AS made\nARG TARGETSTAGE\nRUN echo $TARGETSTAGE > /stage\n";
    let last = "FROM scratch AS foo\nCOPY --from=made /stage /\nFROM scratch\nCOPY --from=made /stage /\n";
    dockerfile(&environment, &format!("{common}{last}"));
    assert_eq!(built(&environment, &["--target", "foo"], "stage"), "foo\n");
    assert_eq!(built(&environment, &[], "stage"), "default\n");
    dockerfile(&environment, &format!("{common}{last}FROM scratch AS final\nCOPY --from=made /stage /\n"));
    assert_eq!(built(&environment, &[], "stage"), "final\n");
}

#[test]
fn proxies_reach_steps_in_both_casings_and_decide_about_nothing_needs_root() {
    if requires(NEEDS).is_some() {
        return;
    }
    let environment = with_base();
    dockerfile(&environment, "RUN echo $HTTP_PROXY $http_proxy $NO_PROXY > /proxies\n");
    let first = ["--build-arg", "http_proxy=http://a", "--build-arg", "NO_PROXY=b"];
    assert_eq!(built(&environment, &first, "proxies"), "http://a http://a b\n");
    assert_eq!(
        built(&environment, &["--build-arg", "HTTP_PROXY=http://c"], "proxies"),
        "http://a http://a b\n",
        "a proxy is no reason to execute a step again"
    );
}

#[test]
fn windows_has_its_own_shell_and_no_search_path() {
    let environment = TestEnvironment::new(env!("CARGO_BIN_EXE_polyarch"));
    environment.write("Dockerfile", "FROM scratch\nENTRYPOINT foo bar\n");
    let config = build_config(&environment, &["--platform", "windows/amd64"]);
    assert_eq!(config["config"]["Entrypoint"], json!(["cmd", "/S", "/C", "foo bar"]));
    assert_eq!(config["config"]["Env"], json!(null));
    let environment = TestEnvironment::new(env!("CARGO_BIN_EXE_polyarch"));
    environment.write("Dockerfile", "FROM scratch\nSHELL [\"pwsh\"]\nENTRYPOINT foo bar\n");
    let config = build_config(&environment, &["--platform", "windows/amd64"]);
    assert_eq!(config["config"]["Entrypoint"], json!(["pwsh", "foo bar"]));
}

#[test]
fn an_image_that_is_no_index_serves_another_platform_only_unjudged_needs_root() {
    if requires(NEEDS).is_some() || requires(&[Need::Command("docker-registry")]).is_some() {
        return;
    }
    let registry = DockerRegistry::start();
    let environment = TestEnvironment::new(env!("CARGO_BIN_EXE_polyarch"));
    let image = Image::new(vec![PlatformImage::new("linux/amd64", busybox_rootfs(), &["sh"])]);
    registry.push("base", "1", &image);
    let name = registry.name(&format!("base@{}", image.manifests[0].digest));
    environment.write("Dockerfile", format!("FROM {name}\nRUN uname -m > /machine\n"));
    let platform = ["--platform", "linux/arm64", "-o", "type=local,dest=out"];
    build(&environment, &platform)
        .assert_code(4)
        .assert_stderr("has no image for linux/arm64; it has linux/amd64");
    let output = build(&environment, &[&platform[..], &["--no-verify"]].concat());
    output
        .assert_success()
        .assert_stderr("was pulled with platform \"linux/amd64\", expected \"linux/arm64\"");
    let machine = fs::read_to_string(environment.work().join("out/machine")).expect("a file of the result");
    assert_eq!(machine, "x86_64\n", "the programs are those of the base");
}

#[test]
fn another_frontend_is_refused_where_it_is_named() {
    let environment = TestEnvironment::new(env!("CARGO_BIN_EXE_polyarch"));
    environment.write("Dockerfile", "# escape=`\n# syntax=foobar:1 with arguments\nFROM scratch\n");
    let message = "the frontend \"foobar:1\" can't be run: images as frontends are not supported";
    build(&environment, &[]).assert_code(3).assert_stderr(message).assert_stderr("Dockerfile:2");
    environment
        .write("Dockerfile", "# syntax=mirror.example/docker/dockerfile:1.7-labs\nFROM scratch\nENV a=b\n");
    build(&environment, &[]).assert_success();
    build(&environment, &["--build-arg", "BUILDKIT_SYNTAX=foobar:1"]).assert_code(3).assert_stderr(message);
}
