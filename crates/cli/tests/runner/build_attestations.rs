// SPDX-License-Identifier: Apache-2.0
//! What is said about images beside them: provenance in an index, beside files and in the metadata file.

use std::fs;
use std::path::{Path, PathBuf};

use polyarch_testkit::{Need, TestEnvironment, requires};
use serde_json::{Value, json};

use crate::build_remote::{git, repository};
use crate::build_steps::build;
use crate::web_server::WebServer;

const NEEDS: &[Need] = &[Need::Root, Need::UserNamespaces];

const DOCKERFILE: &str = "FROM scratch AS base\nCOPY a /a\nFROM base\nARG SECRET\nCOPY b /b\n";

fn environment() -> TestEnvironment {
    let environment = TestEnvironment::new(env!("CARGO_BIN_EXE_polyarch"));
    environment.write("Dockerfile", DOCKERFILE);
    environment.write("a", "a");
    environment.write("b", "b");
    environment
}

pub(crate) fn read(path: impl AsRef<Path>) -> Value {
    let path = path.as_ref();
    let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// An image that was built into a layout.
pub(crate) struct Layout(PathBuf);

impl Layout {
    pub(crate) fn build(environment: &TestEnvironment, arguments: &[&str]) -> Layout {
        // A layout that is there gets one more image.
        let _ = fs::remove_dir_all(environment.work().join("layout"));
        let output = ["-o", "type=oci,tar=false,dest=layout"];
        build(environment, &[&output, arguments].concat()).assert_success();
        Layout(environment.work().join("layout"))
    }

    pub(crate) fn blob(&self, descriptor: &Value) -> Value {
        let digest = descriptor["digest"].as_str().expect("descriptors have digests").replace(':', "/");
        read(self.0.join("blobs").join(digest))
    }

    /// The document that the layout is of.
    pub(crate) fn root(&self) -> Value {
        self.blob(&read(self.0.join("index.json"))["manifests"][0])
    }

    /// The attestation manifest of an entry of the root.
    pub(crate) fn manifest(&self, entry: usize) -> Value {
        self.blob(&self.root()["manifests"][entry])
    }

    /// The first statement of an entry of the root.
    pub(crate) fn statement(&self, entry: usize) -> Value {
        self.blob(&self.manifest(entry)["layers"][0])
    }
}

#[test]
fn provenance_stands_beside_each_platforms_image_needs_root() {
    if requires(NEEDS).is_some() {
        return;
    }
    let environment = environment();
    let platforms = ["--platform", "linux/amd64,linux/arm64"];
    let arguments = ["-t", "r.example/a/b:1", "--provenance", "--build-arg", "SECRET=told", "--label", "l=v"];
    let layout = Layout::build(&environment, &[&platforms[..], &arguments].concat());
    let entries = layout.root()["manifests"].clone();
    assert_eq!(entries.as_array().map(Vec::len), Some(4));
    for (image, platform) in [(0, "linux%2Famd64"), (1, "linux%2Farm64")] {
        let entry = &entries[image + 2];
        assert_eq!(entry["platform"], json!({ "architecture": "unknown", "os": "unknown" }));
        let annotations = json!({
            "vnd.docker.reference.digest": entries[image]["digest"],
            "vnd.docker.reference.type": "attestation-manifest",
        });
        assert_eq!(entry["annotations"], annotations);
        let manifest = layout.manifest(image + 2);
        assert_eq!(manifest["artifactType"], "application/vnd.docker.attestation.manifest.v1+json");
        assert_eq!(manifest["subject"]["digest"], entries[image]["digest"]);
        let layer = &manifest["layers"][0];
        assert_eq!(layer["mediaType"], "application/vnd.in-toto+json");
        assert_eq!(layer["annotations"]["in-toto.io/predicate-type"], "https://slsa.dev/provenance/v1");
        let statement = layout.statement(image + 2);
        assert_eq!(statement["_type"], "https://in-toto.io/Statement/v1");
        let digest = entries[image]["digest"].as_str().expect("entries have digests");
        let subject = json!([{
            "name": format!("pkg:docker/r.example/a/b@1?platform={platform}"),
            "digest": { "sha256": digest.trim_start_matches("sha256:") },
        }]);
        assert_eq!(statement["subject"], subject);
    }
    let predicate = &layout.statement(2)["predicate"];
    let request = &predicate["buildDefinition"]["externalParameters"]["request"];
    assert_eq!(request["args"], json!({ "build-arg:SECRET": "told", "label:l": "v" }));
    assert_eq!(request["locals"], json!([{ "name": "context" }, { "name": "dockerfile" }]));
    let metadata = &predicate["runDetails"]["metadata"];
    assert_eq!(metadata["buildkit_completeness"], json!({ "request": true, "resolvedDependencies": false }));
    assert!(metadata["startedOn"].as_str() < metadata["finishedOn"].as_str());
    let layers = &metadata["buildkit_metadata"]["layers"];
    assert_eq!(layers["step1:0"][0].as_array().map(Vec::len), Some(1), "{layers}");
    assert_eq!(layers["step2:0"][0].as_array().map(Vec::len), Some(2), "{layers}");
    let lines = &metadata["buildkit_metadata"]["source"]["locations"]["step2"]["locations"][0]["ranges"][0];
    assert_eq!(lines["start"]["line"], 5);

    let arguments = ["--provenance=mode=min,version=v0.2", "--build-arg", "SECRET=told"];
    let statement = Layout::build(&environment, &arguments).statement(1);
    assert_eq!(statement["predicateType"], "https://slsa.dev/provenance/v0.2");
    assert_eq!(statement["predicate"]["metadata"]["completeness"]["parameters"], false);
    assert_eq!(statement["predicate"]["invocation"]["configSource"], json!({ "entryPoint": "Dockerfile" }));
    assert!(!statement.to_string().contains("told"), "{statement}");
}

#[test]
fn every_step_but_the_context_has_its_lines_needs_root() {
    if requires(NEEDS).is_some() {
        return;
    }
    let environment = environment();
    environment.write("Dockerfile", "FROM scratch AS base\nWORKDIR /w\nFROM base\nCOPY --link a /a\n");
    let statement = Layout::build(&environment, &["--provenance"]).statement(1);
    let predicate = &statement["predicate"];
    let steps = &predicate["buildDefinition"]["internalParameters"]["buildConfig"]["llbDefinition"];
    let locations = &predicate["runDetails"]["metadata"]["buildkit_metadata"]["source"]["locations"];
    let named = locations.as_object().expect("an object");
    assert!(named.len() >= 4, "{locations}");
    for (id, location) in named {
        let step = steps.as_array().into_iter().flatten().find(|step| step["id"] == **id).expect("a step");
        let is_context = step["op"]["Op"]["source"]["identifier"] == "local://context";
        assert_eq!(location["locations"].is_null(), is_context, "{id}: {step} {location}");
    }
}

#[test]
fn a_base_image_is_a_material_and_nothing_is_attested_unasked_needs_root() {
    if requires(NEEDS).is_some() {
        return;
    }
    let environment = environment();
    build(&environment, &["-t", "example.com/base:1"]).assert_success();
    environment.write("Dockerfile", "FROM example.com/base:1 AS one\nFROM scratch\nCOPY --from=one a /\n");
    let plain = Layout::build(&environment, &[]).root();
    assert!(plain["layers"].is_array(), "{plain}");
    let layout = Layout::build(&environment, &["--provenance=mode=max", "--platform=linux/amd64"]);
    let root = layout.root();
    assert_eq!(layout.blob(&root["manifests"][0]), plain, "the image itself is the same");
    let statement = layout.statement(1);
    let materials = &statement["predicate"]["buildDefinition"]["resolvedDependencies"];
    assert_eq!(materials[0]["uri"], "pkg:docker/example.com/base@1?platform=linux%2Famd64");
    assert_eq!(materials[0]["digest"]["sha256"].as_str().map(str::len), Some(64));
    assert_eq!(materials.as_array().map(Vec::len), Some(1));

    let old = Layout::build(&environment, &["--provenance", "-o", "type=image,oci-artifact=false"]);
    let manifest = old.manifest(1);
    assert_eq!((&manifest["artifactType"], &manifest["subject"]), (&Value::Null, &Value::Null));
    let config = old.blob(&manifest["config"]);
    assert_eq!(
        (&config["os"], &config["rootfs"]["diff_ids"][0]),
        (&json!("unknown"), &manifest["layers"][0]["digest"])
    );
}

#[test]
fn repositories_and_urls_are_materials_and_then_all_are_known_needs_root() {
    if requires(&[NEEDS, &[Need::File("/usr/bin/git")]].concat()).is_some() {
        return;
    }
    let environment = environment();
    let served = environment.work().join("served");
    fs::create_dir(&served).expect("directories can be made");
    let work = repository(&served);
    environment.write("served/extra", "extra");
    let server = WebServer::start(&served);
    let dockerfile = format!("FROM scratch\nCOPY file /\nADD {}/extra /\n", server.url);
    fs::write(work.join("Dockerfile"), dockerfile).expect("files can be written");
    git(&work, &["commit", "-qam", "three"]);
    git(&work, &["tag", "v3"]);
    crate::build_remote::publish(&served);
    let url = server.url.replace("http://", "http://user:secret@");
    let context = format!("{url}/repository.git?tag=v3");
    // The second time the server only says that nothing has changed.
    for _ in 0..2 {
        let _ = fs::remove_dir_all(environment.work().join("layout"));
        let built = environment.run([
            "build",
            "--provenance=complete-materials=true",
            "-o",
            "type=oci,tar=false,dest=layout",
            &context,
        ]);
        built.assert_success();
        let statement = Layout(environment.work().join("layout")).statement(1);
        let definition = &statement["predicate"]["buildDefinition"];
        let repository = format!("{}/repository.git#refs/tags/v3", url.replace("user:secret", "xxxxx:xxxxx"));
        let commit = json!({ "sha1": git(&work, &["rev-parse", "v3"]) });
        let extra = json!({ "sha256": polyarch_oci::Digest::of("extra").hex() });
        let materials = json!([
            { "uri": repository, "digest": commit },
            { "uri": format!("{}/extra", server.url), "digest": extra },
        ]);
        assert_eq!(definition["resolvedDependencies"], materials);
        let source = json!({ "uri": repository, "digest": commit, "path": "Dockerfile" });
        assert_eq!(definition["externalParameters"]["configSource"], source);
        assert!(!statement.to_string().contains("secret"), "{statement}");
    }
}

#[test]
fn with_an_epoch_two_builds_attest_the_same_needs_root() {
    if requires(NEEDS).is_some() {
        return;
    }
    let roots = [environment(), environment()].map(|mut environment| {
        environment.set("SOURCE_DATE_EPOCH", "1000000000");
        let layout = Layout::build(&environment, &["--provenance"]);
        assert_eq!(layout.statement(1)["predicate"]["runDetails"]["metadata"]["startedOn"], Value::Null);
        layout.root()
    });
    assert_eq!(roots[0], roots[1]);
}

#[test]
fn files_have_their_provenance_beside_them_needs_root() {
    if requires(NEEDS).is_some() {
        return;
    }
    let environment = environment();
    let out = environment.work().join("out");
    let run = |arguments: &[&str]| {
        let _ = fs::remove_dir_all(&out);
        build(&environment, arguments)
    };
    run(&["--provenance", "-o", "type=local,dest=out"]).assert_success();
    let statement = read(out.join("provenance.json"));
    let names: Vec<&Value> =
        statement["subject"].as_array().into_iter().flatten().map(|subject| &subject["name"]).collect();
    assert_eq!(names, ["a", "b"]);
    let of_a = "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb";
    assert_eq!(statement["subject"][0]["digest"]["sha256"], of_a);
    // Two platforms have the same files.
    let both = [
        "--provenance",
        "--platform=linux/amd64,linux/arm64",
        "-o",
        "type=local,dest=out,platform-split=false",
    ];
    let refused = run(&both);
    refused.assert_code(2);
    refused
        .assert_stderr("cannot overwrite a from linux/amd64 with linux/arm64 when split option is disabled");
    environment.write("Dockerfile", "FROM scratch\nARG TARGETARCH\nCOPY a /$TARGETARCH\n");
    run(&both).assert_success();
    assert!(out.join("amd64").exists() && out.join("arm64").exists());
    let statement = read(out.join("provenance.linux_arm64.json"));
    assert_eq!(statement["subject"][0]["name"], "arm64");
    run(&["-o", "type=local,dest=out,attestation-prefix=x-", "--provenance=filename=p.json"])
        .assert_success();
    assert!(out.join("x-p.json").exists());
    // Provenance that is meant for registries is none of a directory or an archive of one platform.
    run(&["-o", "type=local,dest=out", "--provenance=mode=min,inline-only=true"]).assert_success();
    assert!(!out.join("provenance.json").exists());
    let layout = Layout::build(&environment, &["--provenance=mode=min,inline-only=true"]);
    assert!(layout.root()["layers"].is_array());
}

#[test]
fn the_metadata_file_tells_how_each_platform_was_built_needs_root() {
    if requires(NEEDS).is_some() {
        return;
    }
    let mut environment = environment();
    let metadata = |environment: &TestEnvironment, arguments: &[&str]| {
        build(environment, &[&["--metadata-file", "metadata.json"], arguments].concat()).assert_success();
        read(environment.work().join("metadata.json"))
    };
    let told = metadata(&environment, &["--build-arg=SECRET=1"]);
    let provenance = &told["buildx.build.provenance"];
    assert_eq!(provenance["invocation"]["parameters"]["args"], json!({ "build-arg:SECRET": "1" }));
    assert_eq!((&provenance["metadata"], &provenance["buildConfig"]), (&Value::Null, &Value::Null));
    environment.set("BUILDX_METADATA_PROVENANCE", "max");
    let told = metadata(&environment, &["--platform=linux/amd64,linux/arm64"]);
    assert!(told["buildx.build.provenance/linux/arm64"]["buildConfig"].is_object());
    environment.set("BUILDX_METADATA_PROVENANCE", "disabled");
    assert!(!metadata(&environment, &[]).to_string().contains("provenance"));
}

#[test]
fn what_can_not_be_attested_is_refused_needs_root() {
    if requires(NEEDS).is_some() {
        return;
    }
    let environment = environment();
    let table: [(&[&str], &str); 2] = [
        (
            &["--provenance", "-o", "type=image,oci-mediatypes=false"],
            "cannot export attestations with \"oci-mediatypes=false\"",
        ),
        (&["--provenance=complete-materials=true"], "provenance materials are incomplete"),
    ];
    for (arguments, expected) in table {
        let refused = build(&environment, arguments);
        refused.assert_code(2);
        refused.assert_stderr(expected);
    }
}
