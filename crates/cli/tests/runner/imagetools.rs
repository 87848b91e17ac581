// SPDX-License-Identifier: Apache-2.0
//! `imagetools create` and `inspect` against what buildx makes of the same sources and says about them.
//!
//! The digests and texts in `testfiles/imagetools` are buildx's. With the path of a buildx in
//! `POLYARCH_TEST_BUILDX` the tests run it beside polyarch and compare with what it does now; with
//! `POLYARCH_TEST_RECORD` as well, they write the files.

use std::path::{Path, PathBuf};

use polyarch_oci::Digest;
use polyarch_testkit::{DockerRegistry, Need, Output, TestEnvironment, environment::finish, requires};
use serde_json::{Value, json};

use crate::imagetools_sources::Sources;

const NEEDS: &[Need] = &[Need::Command("docker-registry")];

/// A set of sources: its name, the target's repository, and the arguments. `R` stands for the registry.
type Case = (&'static str, &'static str, &'static [&'static str]);

const CASES: &[Case] = &[
    ("one docker manifest", "out/a", &["R/s/docker-amd64:1"]),
    ("one OCI manifest", "out/a", &["R/s/oci-amd64:1"]),
    ("docker manifests, arm64/v8", "out/a", &["R/s/docker-amd64:1", "R/s/docker-arm64:1"]),
    (
        "OCI manifests, variants of arm",
        "out/a",
        &["R/s/oci-amd64:1", "R/s/oci-arm64:1", "R/s/oci-arm:1", "R/s/oci-armv6:1", "R/s/oci-upper:1"],
    ),
    ("docker and OCI manifests", "out/a", &["R/s/docker-amd64:1", "R/s/oci-arm64:1"]),
    ("an index and a manifest", "out/a", &["R/s/index:1", "R/s/oci-armv6:1"]),
    ("indexes that overlap", "out/a", &["R/s/index:1", "R/s/overlapping:1"]),
    ("indexes that overlap, the other way", "out/a", &["R/s/overlapping:1", "R/s/index:1"]),
    ("a docker list and an OCI index", "out/a", &["R/s/list:1", "R/s/index:1"]),
    ("a docker list as it is", "out/a", &["R/s/list:1"]),
    ("an index with attestations as it is", "out/a", &["R/s/attested:1"]),
    ("attestations of one platform", "out/a", &["--platform", "linux/arm64", "R/s/attested:1"]),
    (
        "attestations and another manifest, two platforms",
        "out/a",
        &["-p", "linux/amd64,linux/arm/v6", "R/s/attested:1", "R/s/oci-armv6:1"],
    ),
    ("attestation beside the image", "out/a", &["R/s/referred:1"]),
    ("attestation beside one of two images", "out/a", &["R/s/referred:1", "R/s/index:1"]),
    (
        "annotations",
        "out/a",
        &[
            "--annotation=index:org.example.a=<1>",
            "--annotation=manifest-descriptor:org.example.b=2 & 3",
            "--annotation=manifest-descriptor[linux/arm64]:org.example.c=4",
            "--annotation=index,manifest-descriptor[linux/amd64]:org.example.d=\u{2028}é\"",
            "R/s/index:1",
            "R/s/oci-arm:1",
        ],
    ),
    ("annotation of one index", "out/a", &["--annotation=index:a=b", "R/s/attested:1"]),
    ("annotation of a docker list", "out/a", &["--annotation=index:a=b", "R/s/list:1"]),
    ("appended", "out/appended", &["--append", "R/s/oci-armv6:1"]),
    ("equal digests", "out/a", &["R/s/oci-arm64:1", "R/s/overlapping:1", "R/s/oci-arm64:1"]),
    ("one manifest copied", "out/a", &["--prefer-index=false", "R/s/oci-arm64:1"]),
    ("one docker manifest copied", "out/a", &["--prefer-index=false", "R/s/docker-arm64:1"]),
    ("one index, no index preferred", "out/a", &["--prefer-index=false", "R/s/overlapping:1"]),
    ("two manifests, no index preferred", "out/a", &["--prefer-index=false", "R/s/oci-arm:1", "R/s/index:1"]),
    ("windows, by version", "out/a", &["-p", "windows/amd64", "R/s/windows:1"]),
    ("windows and linux", "out/a", &["-p", "linux/amd64", "R/s/windows:1"]),
    ("windows manifest", "out/a", &["R/s/oci-windows:1", "R/s/oci-amd64:1"]),
    ("descriptors of files", "s/index", &["-f", "arm64.json", "-f", "amd64.json"]),
    ("a digest of the only repository", "s/oci-amd64", &["D/oci-amd64"]),
    ("a name by digest", "out/a", &["R/s/oci-amd64@D/oci-amd64", "R/s/list@D/list"]),
];

/// What is inspected: a name for the file, the source, further arguments.
const INSPECTED: &[(&str, &str, &[&str])] = &[
    ("text-attested", "R/s/attested:1", &[]),
    ("text-windows", "R/s/windows:1", &[]),
    ("text-overlapping", "R/s/overlapping:1", &[]),
    ("text-manifest", "R/s/oci-amd64:1", &[]),
    ("text-digest", "R/s/index@D/index", &["--format", "{{ .Manifest }}"]),
    ("raw-overlapping", "R/s/overlapping:1", &["--raw"]),
    ("manifest-json", "R/s/attested:1", &["--format", "{{json .Manifest}}"]),
    ("manifest-json-single", "R/s/docker-arm64:1", &["--format", "{{json .Manifest}}"]),
    ("image-json", "R/s/attested:1", &["--format", "{{json .Image}}"]),
    ("image-json-single", "R/s/oci-arm:1", &["--format", "{{json .Image}}"]),
    ("all-json-single", "R/s/oci-arm:1", &["--format", "{{json .}}"]),
    ("sbom-json", "R/s/attested:1", &["--format", "{{json .SBOM}}"]),
    ("provenance-json", "R/s/attested:1", &["--format", "{{json .Provenance}}"]),
    ("provenance-json-none", "R/s/oci-arm:1", &["--format", "{{json .Provenance}} {{json .SBOM}}"]),
    (
        "fields",
        "R/s/attested:1",
        &[
            "--format",
            "{{.Name}} {{.Manifest.Digest}} {{.Manifest.MediaType}} {{.Manifest.Size}}\n\
             {{range .Manifest.Manifests}}{{.Digest}} {{.Platform.OS}}/{{.Platform.Architecture}} {{.Size}}\n{{end}}\
             {{range $p, $image := .Image}}{{$p}} {{$image.Config.Cmd}} {{$image.RootFS.DiffIDs}}\n{{end}}",
        ],
    ),
    (
        "fields-single",
        "R/s/oci-arm:1",
        &["--format", "{{.Image.OS}}/{{.Image.Architecture}} {{.Image.Config.Env}} {{len .Image.History}}"],
    ),
    (
        "provenance-field",
        "R/s/attested:1",
        &["--format", "{{(index .Provenance \"linux/arm64\").SLSA.buildType}}"],
    ),
];

struct Bench {
    environment: TestEnvironment,
    registry: DockerRegistry,
    sources: Sources,
    /// A buildx to compare with.
    buildx: Option<PathBuf>,
}

impl Bench {
    fn start() -> Bench {
        let environment = TestEnvironment::new(env!("CARGO_BIN_EXE_polyarch"));
        let registry = DockerRegistry::start();
        let sources = Sources::push(&registry);
        let index: Value = serde_json::from_slice(&registry.manifest("s/index", "1").body).unwrap();
        let entries = &index["manifests"];
        environment.write("amd64.json", entries[0].to_string());
        let mut arm64 = entries[1].clone();
        arm64["annotations"] = json!({"org.example.by": "hand"});
        arm64["platform"] = json!({"architecture": "arm64", "os": "linux", "variant": "v9"});
        environment.write("arm64.json", arm64.to_string());
        let buildx = std::env::var_os("POLYARCH_TEST_BUILDX").map(PathBuf::from);
        Bench { environment, registry, sources, buildx }
    }

    /// Puts the registry and digests where the arguments have `R` and `D/NAME`.
    fn fill(&self, argument: &str) -> String {
        let text = match argument.strip_prefix("R/") {
            Some(rest) => self.registry.name(rest),
            None => argument.to_owned(),
        };
        match text.split_once("D/") {
            Some((before, name)) => format!("{before}{}", self.sources.documents[name].digest),
            None => text,
        }
    }

    /// Runs `imagetools` of polyarch, or of buildx.
    fn run(&self, buildx: Option<&Path>, arguments: &[String]) -> Output {
        let mut command = match buildx {
            Some(program) => self.environment.program(program),
            None => self.environment.command::<&str>([]),
        };
        command.arg("imagetools").args(arguments);
        finish(command, Vec::new())
    }

    /// Creates an image; returns its digest and media type, and checks that a dry run gives the same.
    fn create(&self, buildx: Option<&Path>, case: &Case) -> String {
        let (name, repository, arguments) = case;
        if *repository == "out/appended" {
            let index = self.registry.manifest("s/index", "1").body;
            self.run(None, &self.words("create", &["-t", "R/out/appended:new", "R/s/index:1"]))
                .assert_success();
            let pushed = self.registry.manifest("out/appended", "new").body;
            assert_eq!(pushed, index, "{name}");
        }
        let target = ["-t".to_owned(), self.registry.name(&format!("{repository}:new"))];
        let mut words = self.words("create", &["--progress=plain"]);
        words.extend(target);
        words.extend(arguments.iter().map(|argument| self.fill(argument)));
        words.push("--dry-run".to_owned());
        let dry = self.run(buildx, &words);
        dry.assert_success();
        words.pop();
        self.run(buildx, &words).assert_success();
        let answer = self.registry.manifest(repository, "new");
        let document = String::from_utf8(answer.body.clone()).unwrap();
        assert_eq!(dry.stdout, format!("{document}\n"), "{name}");
        let media_type = answer.header("content-type").unwrap_or_default().to_owned();
        format!("{} {media_type}", Digest::of(&answer.body))
    }

    fn words(&self, command: &str, arguments: &[&str]) -> Vec<String> {
        std::iter::once(command.to_owned()).chain(arguments.iter().map(|word| self.fill(word))).collect()
    }
}

fn testfile(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/testfiles/imagetools").join(name)
}

fn is_recording() -> bool {
    std::env::var_os("POLYARCH_TEST_RECORD").is_some()
}

#[test]
fn created_images_have_the_digests_that_buildx_gives_them() {
    if requires(NEEDS).is_some() {
        return;
    }
    let bench = Bench::start();
    if let Some(buildx) = &bench.buildx {
        let mut list = String::new();
        for case in CASES {
            list.push_str(&format!("{} {}\n", bench.create(Some(buildx), case), case.0));
        }
        if is_recording() {
            std::fs::write(testfile("digests.txt"), &list).unwrap();
        }
        assert_eq!(list, std::fs::read_to_string(testfile("digests.txt")).unwrap());
    }
    let recorded = std::fs::read_to_string(testfile("digests.txt")).unwrap();
    assert_eq!(recorded.lines().count(), CASES.len());
    let mut ours = String::new();
    for case in CASES {
        ours.push_str(&format!("{} {}\n", bench.create(None, case), case.0));
    }
    assert_eq!(ours, recorded);
}

#[test]
fn inspected_images_read_as_buildx_writes_them() {
    if requires(NEEDS).is_some() {
        return;
    }
    let bench = Bench::start();
    for (name, source, arguments) in INSPECTED {
        let mut words = bench.words("inspect", &[source]);
        words.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        let host = bench.registry.host();
        let shown = |output: &Output| {
            output.assert_success();
            sorted_annotations(&output.stdout.replace(&host, "REGISTRY"))
        };
        let file = testfile(&format!("{name}.txt"));
        if let Some(buildx) = &bench.buildx {
            let theirs = shown(&bench.run(Some(buildx), &words));
            if is_recording() {
                std::fs::write(&file, &theirs).unwrap();
            }
            assert_eq!(theirs, std::fs::read_to_string(&file).unwrap(), "{name}: buildx has changed");
        }
        let ours = shown(&bench.run(None, &words));
        assert_eq!(ours, std::fs::read_to_string(&file).unwrap(), "{name}");
    }
}

/// Sorts lines of annotations, which buildx prints in any order.
fn sorted_annotations(text: &str) -> String {
    let mut lines: Vec<&str> = text.split('\n').collect();
    let is_annotation = |line: &str| line.starts_with("    ") && line.contains(": ") && !line.contains('"');
    let mut at = 0;
    while at < lines.len() {
        let end = (at..lines.len()).find(|&end| !is_annotation(lines[end])).unwrap_or(lines.len());
        lines[at..end].sort_unstable();
        at = end + 1;
    }
    lines.join("\n")
}
