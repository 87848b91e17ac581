// SPDX-License-Identifier: Apache-2.0
//! Bills of materials: our own of package databases, and those of a scanner that runs by BuildKit's protocol.

use std::fs;

use polyarch_testkit::{Need, TestEnvironment, requires};
use serde_json::Value;

use crate::build_attestations::{Layout, read};
use crate::build_steps::{build, dockerfile, with_base};

const NEEDS: &[Need] = &[Need::Root, Need::UserNamespaces];
const SCANNER_NEEDS: &[Need] = &[Need::Root, Need::UserNamespaces, Need::File("/bin/busybox")];

const SPDX: &str = "https://spdx.dev/Document";

#[test]
fn without_a_scanner_the_package_databases_are_told_needs_root() {
    if requires(NEEDS).is_some() {
        return;
    }
    let mut environment = TestEnvironment::new(env!("CARGO_BIN_EXE_polyarch"));
    environment.set("SOURCE_DATE_EPOCH", "1000000000");
    environment
        .write("status", "Package: libx\nStatus: install ok installed\nVersion: 1-2\nArchitecture: all\n");
    environment.write("Dockerfile", "FROM scratch\nCOPY status /var/lib/dpkg/status\n");
    let layout = Layout::build(&environment, &["--sbom=true", "--provenance", "-t", "r.example/a:1"]);
    let statement = layout.statement(1);
    assert_eq!(statement["predicateType"], SPDX);
    assert_eq!(statement["subject"][0]["name"], "pkg:docker/r.example/a@1?platform=linux%2Famd64");
    let document = &statement["predicate"];
    assert_eq!(
        (&document["spdxVersion"], &document["name"]),
        (&Value::from("SPDX-2.3"), &Value::from("r.example/a:1"))
    );
    assert_eq!(document["creationInfo"]["created"], "2001-09-09T01:46:40Z");
    let locator = &document["packages"][1]["externalRefs"][0]["referenceLocator"];
    assert_eq!(locator, "pkg:deb/debian/libx@1-2?arch=all");
    assert_eq!(layout.manifest(1)["layers"].as_array().map(Vec::len), Some(2), "provenance is there too");
    let again = Layout::build(&environment, &["--sbom=true", "-t", "r.example/a:1"]).statement(1);
    assert_eq!(again, statement);

    build(&environment, &["--sbom=true", "-o", "type=local,dest=out"]).assert_success();
    let beside = read(environment.work().join("out/sbom.spdx.json"));
    assert_eq!(beside["subject"][0]["name"], "var/lib/dpkg/status");
}

#[test]
fn a_scanner_sees_the_result_and_what_args_ask_for_needs_root() {
    if requires(SCANNER_NEEDS).is_some() {
        return;
    }
    let environment = with_base();
    let scan = "set -e\n\
                for src in $BUILDKIT_SCAN_SOURCE $BUILDKIT_SCAN_SOURCE_EXTRAS/*; do\n\
                [ -d $src ] || continue\n\
                echo '{\"_type\":\"https://in-toto.io/Statement/v1\",\"predicateType\":\"https://spdx.dev/Document\",\
                \"predicate\":{\"name\":\"'$(basename $src)'\",\"files\":\"'$(ls $src)'\",\"by\":\"'$BUILDKIT_SCAN_BY'\"}}' \
                > $BUILDKIT_SCAN_DESTINATION/$(basename $src).spdx.json\n\
                done\n";
    environment.write("scan.sh", scan);
    dockerfile(
        &environment,
        "COPY scan.sh /scan.sh\nUSER 1000\nENTRYPOINT [\"/bin/sh\"]\nCMD [\"/scan.sh\"]\n",
    );
    build(&environment, &["-t", "r.example/scanner:1"]).assert_success();
    environment.write("file", "x");
    environment.write(
        "Dockerfile",
        "FROM scratch AS more\nARG BUILDKIT_SBOM_SCAN_STAGE=true\nCOPY file /extra\n\
         FROM scratch AS other\nCOPY file /other\n\
         FROM scratch\nARG BUILDKIT_SBOM_SCAN_STAGE=true\nCOPY --from=more extra /main\nCOPY --from=other other /\n",
    );
    let scanner = "--sbom=generator=r.example/scanner:1,BY=us";
    let layout = Layout::build(&environment, &[scanner]);
    let manifest = layout.manifest(1);
    let layers = manifest["layers"].as_array().expect("manifests have layers");
    let told: Vec<Value> = layers.iter().map(|layer| layout.blob(layer)["predicate"].clone()).collect();
    let names: Vec<&Value> = told.iter().map(|it| &it["name"]).collect();
    assert_eq!(names, ["sbom", "sbom-more"], "the result comes first");
    assert_eq!((&told[0]["files"], &told[0]["by"]), (&Value::from("main other"), &Value::from("us")));
    assert_eq!(told[1]["files"], "extra");
    assert_eq!(layers[0]["annotations"]["in-toto.io/predicate-type"], SPDX);
    // The image is the same with and without.
    let plain = Layout::build(&environment, &[]).root();
    assert_eq!(Layout::build(&environment, &[scanner]).manifest(0), plain);

    fs::write(environment.work().join("scan.sh"), "echo '{}' > $BUILDKIT_SCAN_DESTINATION/x.json\n")
        .expect("files can be written");
    let text = fs::read_to_string(environment.work().join("Dockerfile")).expect("it was written");
    dockerfile(&environment, "COPY scan.sh /scan.sh\nENTRYPOINT [\"/bin/sh\", \"/scan.sh\"]\n");
    build(&environment, &["-t", "r.example/scanner:1"]).assert_success();
    environment.write("Dockerfile", text);
    let refused = build(&environment, &[scanner]);
    refused.assert_code(1);
    refused.assert_stderr("what the scanner wrote is no bill of materials");
}
