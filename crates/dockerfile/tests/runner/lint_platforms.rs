// SPDX-License-Identifier: Apache-2.0
//! Our own rules: what they find in Dockerfiles for several platforms, and the lines that they suggest.

use std::collections::{BTreeMap, BTreeSet};

use polyarch_dockerfile::{BaseImage, Environment, Finding, SurveyRequest, survey};
use polyarch_oci::Platform;

/// Looks at a Dockerfile for platforms, on amd64.
fn findings(source: &str, platforms: &str, bases: &BTreeMap<usize, BaseImage>) -> Vec<Finding> {
    let platforms = Platform::parse_list(platforms).expect("they are platforms");
    let request = SurveyRequest {
        target: None,
        all_stages: true,
        build_args: &[],
        platform_args: Environment::from_iter([
            ("BUILDPLATFORM", "linux/amd64"),
            ("TARGETPLATFORM", "linux/amd64"),
        ]),
        build_platform: &Platform::new("linux", "amd64", ""),
        platforms: &platforms,
        bases,
        replaced: &BTreeSet::new(),
        ignored: None,
        with_own_rules: true,
    };
    let survey = survey(source, &request).expect("the settings make sense");
    survey.findings.into_iter().filter(|finding| finding.rule.is_own).collect()
}

fn names(source: &str, platforms: &str) -> Vec<&'static str> {
    findings(source, platforms, &BTreeMap::new()).iter().map(|finding| finding.rule.name).collect()
}

fn mended(source: &str) -> String {
    let found = findings(source, "linux/amd64,linux/arm64", &BTreeMap::new());
    let [finding] = found.as_slice() else { panic!("{found:?}") };
    finding.mended.clone().unwrap_or_default()
}

const BOTH: &str = "linux/amd64,linux/arm64";

#[test]
fn a_compiler_that_runs_emulated() {
    let source = "FROM golang:1 AS build\nRUN go build -o /app .\nFROM scratch\nCOPY --from=build /app /\n";
    assert_eq!(names(source, BOTH), ["polyarch/EmulatedCompiler"]);
    // One that runs natively, or on the building machine's platform, is as it should be.
    assert!(names(source, "linux/amd64,linux/386").is_empty());
    assert!(names(&source.replace("FROM golang", "FROM --platform=$BUILDPLATFORM golang"), BOTH).is_empty());
    assert_eq!(
        names(&source.replace("FROM golang", "FROM --platform=$TARGETPLATFORM golang"), BOTH),
        ["polyarch/EmulatedCompiler"]
    );
    assert!(names(&format!("# check=skip=polyarch/EmulatedCompiler\n{source}"), BOTH).is_empty());
    // What only looks like one.
    let installs = "FROM debian\nRUN apt-get install -y gcc make && echo 'go build'\n";
    assert!(names(installs, BOTH).is_empty(), "{:?}", findings(installs, BOTH, &BTreeMap::new()));
}

#[test]
fn the_lines_that_compile_for_another_platform() {
    let end = "FROM scratch\nCOPY --from=build /app /\n";
    let go =
        mended(&format!("FROM golang:1 AS build\nRUN go mod download && \\\n  go build -o /app .\n{end}"));
    assert_eq!(
        go,
        "FROM --platform=$BUILDPLATFORM golang:1 AS build\nARG TARGETOS TARGETARCH\nRUN go mod download && \\\n  \
         CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH go build -o /app ."
    );
    let set =
        format!("FROM golang:1 AS build\nARG TARGETARCH\nENV CGO_ENABLED=0\nRUN go build -o /app .\n{end}");
    assert_eq!(
        mended(&set),
        "FROM --platform=$BUILDPLATFORM golang:1 AS build\nARG TARGETOS\nRUN GOOS=$TARGETOS GOARCH=$TARGETARCH go \
         build -o /app ."
    );
    let node = mended(&format!("FROM node:22 AS build\nRUN npm ci && npm run build\n{end}"));
    assert_eq!(node, "FROM --platform=$BUILDPLATFORM node:22 AS build");
    let java = mended(&format!("FROM maven AS build\nRUN ./mvnw -q package\n{end}"));
    assert_eq!(java, "FROM --platform=$BUILDPLATFORM maven AS build");
    let rust = mended(&format!("FROM rust:1 AS build\nRUN cargo build --release\n{end}"));
    assert!(rust.contains("rustup target add $(cat /rust-target)"), "{rust}");
    assert!(rust.contains("cargo build --target \"$(cat /rust-target)\" --release &&"), "{rust}");
    let c = mended(&format!("FROM debian AS build\nRUN gcc -static -o /app app.c\n{end}"));
    assert!(c.contains("crossbuild-essential-$TARGETARCH"), "{c}");
    assert!(c.contains("DEB_HOST_GNU_TYPE)-gcc -static -o /app app.c"), "{c}");
    // A stage that is the image itself can't be moved, only divided.
    assert_eq!(mended("FROM golang:1\nRUN go build -o /app .\n"), "");
}

#[test]
fn a_url_of_one_architecture() {
    let get = |url: &str| format!("FROM b\nRUN curl -fsSLO {url}\n");
    let one = get("https://e.example/tool_1.2_linux_amd64.tar.gz");
    assert_eq!(names(&one, BOTH), ["polyarch/OnePlatformUrl"]);
    assert_eq!(
        mended(&one),
        "ARG TARGETARCH\nRUN curl -fsSLO https://e.example/tool_1.2_linux_${TARGETARCH}.tar.gz"
    );
    assert_eq!(
        mended(&get("https://e.example/x86_64/tool")),
        "RUN curl -fsSLO https://e.example/$(uname -m)/tool"
    );
    assert!(names(&one, "linux/amd64").is_empty());
    assert!(names(&get("https://e.example/tool_${TARGETARCH}"), BOTH).is_empty());
    assert!(names(&get("https://e.example/shamd64s/tool"), BOTH).is_empty());
    assert!(names("FROM b\nADD https://e.example/arm64/tool /\n", BOTH).contains(&"polyarch/OnePlatformUrl"));
    assert!(names("FROM --platform=$BUILDPLATFORM b\nRUN curl https://e.example/amd64\n", BOTH).is_empty());
}

#[test]
fn bases_that_are_not_for_all_platforms() {
    let pinned = "FROM a/b@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\n";
    let base = BaseImage { is_one_manifest: true, ..BaseImage::default() };
    let found = findings(pinned, BOTH, &BTreeMap::from([(0, base.clone())]));
    assert_eq!(found[0].rule.name, "polyarch/PinnedPlatformDigest");
    assert!(findings(pinned, "linux/amd64", &BTreeMap::from([(0, base)])).is_empty());
    let platforms = Some(vec![Platform::new("linux", "amd64", ""), Platform::new("linux", "s390x", "")]);
    let base = BaseImage { platforms, ..BaseImage::default() };
    let found = findings("FROM a/b\n", BOTH, &BTreeMap::from([(0, base)]));
    assert_eq!(found[0].rule.name, "polyarch/MissingBasePlatform");
    assert_eq!(found[0].detail, "a/b has no image for linux/arm64; it has linux/amd64, linux/s390x");
}
