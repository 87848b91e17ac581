// SPDX-License-Identifier: Apache-2.0
//! `SOURCE_DATE_EPOCH` as a number, as `context`, and as the name of a context or a stage.

use std::fs;
use std::process::Command;

use polyarch_testkit::{Need, Output, TestEnvironment, requires};
use serde_json::Value;

use crate::build_remote::git;
use crate::web_server::WebServer;

const NEEDS: &[Need] = &[Need::Root, Need::UserNamespaces, Need::File("/usr/bin/git")];

/// When files of the web server changed.
const OF_SERVER: &str = "2015-10-21T07:28:00Z";

/// Returns the document of a digest in the layout `layout`.
fn document(environment: &TestEnvironment, descriptor: &Value) -> Value {
    let digest = descriptor["digest"].as_str().expect("descriptors have digests").replace(':', "/");
    let path = environment.work().join("layout/blobs").join(digest);
    serde_json::from_slice(&fs::read(path).expect("the layout is whole")).expect("documents are JSON")
}

/// Returns the time of the image in `layout`, and that to which its layer was clamped.
fn times(environment: &TestEnvironment) -> (String, Option<String>) {
    let index = fs::read(environment.work().join("layout/index.json")).expect("there is a layout");
    let index: Value = serde_json::from_slice(&index).expect("an index is JSON");
    let manifest = document(environment, &index["manifests"][0]);
    let config = document(environment, &manifest["config"]);
    let clamped = manifest["layers"][0]["annotations"]["buildkit/rewritten-timestamp"].as_str();
    (config["created"].as_str().expect("images have a time").to_owned(), clamped.map(str::to_owned))
}

fn build(environment: &TestEnvironment, arguments: &[&str]) -> Output {
    let _ = fs::remove_dir_all(environment.work().join("layout"));
    let fixed = ["build", "--progress", "plain", "-o", "type=oci,tar=false,dest=layout"];
    environment.run(fixed.iter().chain(arguments))
}

/// Makes an archive of a Dockerfile and a file of the second 1400000000.
fn archive(environment: &TestEnvironment, name: &str) {
    let files = environment.work().join("files");
    fs::create_dir_all(&files).expect("directories can be made");
    fs::write(files.join("Dockerfile"), "FROM scratch\nCOPY old /\n").expect("files can be written");
    fs::write(files.join("old"), "old").expect("files can be written");
    let touched = Command::new("touch").args(["-d", "@1300000000"]).arg(files.join("Dockerfile")).status();
    assert!(touched.expect("touch starts").success());
    let touched = Command::new("touch").args(["-d", "@1400000000"]).arg(files.join("old")).status();
    assert!(touched.expect("touch starts").success());
    let path = environment.work().join(name);
    fs::create_dir_all(path.parent().expect("there is a parent")).expect("directories can be made");
    let made = Command::new("tar").arg("-czf").arg(path).arg("-C").arg(&files).arg(".").status();
    assert!(made.expect("tar starts").success());
}

#[test]
fn the_time_is_a_number_or_what_a_name_stands_for_needs_root() {
    if requires(NEEDS).is_some() {
        return;
    }
    let environment = TestEnvironment::new(env!("CARGO_BIN_EXE_polyarch"));
    archive(&environment, "served/dated.tar.gz");
    archive(&environment, "served/undated/some.tar.gz");
    let served = environment.work().join("served");
    let work = served.join("work");
    fs::create_dir(&work).unwrap();
    fs::write(work.join("Dockerfile"), "FROM scratch\nCOPY . /\n").unwrap();
    git(&work, &["init", "-q"]);
    git(&work, &["add", "."]);
    // The time of who commits counts, not that of who wrote.
    git(&work, &["commit", "-qm", "one", "--date=@1200000000 +0000"]);
    git(&served, &["clone", "-q", "--bare", "work", "repository.git"]);
    git(&served.join("repository.git"), &["update-server-info"]);
    let committed = git(&work, &["log", "-1", "--format=%ct"]);
    let server = WebServer::start(&served);
    let url = |path: &str| format!("{}/{path}", server.url);
    let of_archive = "2014-05-13T16:53:20Z";
    let copy = "FROM scratch\nCOPY file /\n";
    let stage = |name: &str| format!("FROM scratch AS source\nADD {} /\n{copy}", url(name));
    environment.write("file", "of today");
    let (dated, undated) = (url("dated.tar.gz"), url("undated/some.tar.gz"));
    let named = format!("source={undated}");
    let with_named = format!("ARG SOURCE_DATE_EPOCH=source\n{copy}");
    let in_stage = format!("ARG SOURCE_DATE_EPOCH=Source\n{}", stage("dated.tar.gz"));
    let cases: [(&str, &[&str], &str); 9] = [
        (&format!("ARG SOURCE_DATE_EPOCH=1500000000\n{copy}"), &["."], "2017-07-14T02:40:00Z"),
        (
            &format!("ARG SOURCE_DATE_EPOCH=1500000000\n{copy}"),
            &["--build-arg=SOURCE_DATE_EPOCH=0", "."],
            "1970-01-01T00:00:00Z",
        ),
        ("", &["--build-arg=SOURCE_DATE_EPOCH=context", &dated], OF_SERVER),
        ("", &["--build-arg=SOURCE_DATE_EPOCH=context", &undated], of_archive),
        ("", &["--build-arg=SOURCE_DATE_EPOCH=context", &url("repository.git")], ""),
        (&with_named, &["--build-context", &named, "."], of_archive),
        (&in_stage, &["."], OF_SERVER),
        (&stage("undated/some.tar.gz"), &["--build-arg=SOURCE_DATE_EPOCH=source", "."], of_archive),
        (&stage("repository.git"), &["--build-arg=SOURCE_DATE_EPOCH=source", "."], ""),
    ];
    for (text, arguments, expected) in cases {
        environment.write("Dockerfile", text);
        build(&environment, arguments).assert_success();
        let (created, clamped) = times(&environment);
        let time: jiff::Timestamp = created.parse().unwrap();
        let wanted = if expected.is_empty() { committed.clone() } else { time.as_second().to_string() };
        assert_eq!(clamped.as_deref(), Some(wanted.as_str()), "{text} {arguments:?}");
        assert_eq!(time.as_second().to_string(), wanted, "{text} {arguments:?}");
        assert!(expected.is_empty() || created == expected, "{text} {arguments:?}: {created}");
    }
}

#[test]
fn a_directory_tells_no_time_and_layers_may_keep_theirs_needs_root() {
    if requires(NEEDS).is_some() {
        return;
    }
    let environment = TestEnvironment::new(env!("CARGO_BIN_EXE_polyarch"));
    environment.write("file", "of today");
    let text = "ARG SOURCE_DATE_EPOCH=context\nFROM scratch\nARG SOURCE_DATE_EPOCH=none\nCOPY file /at-$SOURCE_DATE_EPOCH\n";
    environment.write("Dockerfile", text);
    build(&environment, &["."]).assert_success();
    assert_eq!(times(&environment).1, None);
    let fixed = ["build", "-o", "type=oci,tar=false,dest=layout,rewrite-timestamp=false"];
    let _ = fs::remove_dir_all(environment.work().join("layout"));
    environment.run(fixed.iter().chain(&["--build-arg=SOURCE_DATE_EPOCH=7", "."])).assert_success();
    assert_eq!(times(&environment), ("1970-01-01T00:00:07Z".to_owned(), None));
}

#[test]
fn a_name_that_tells_no_time_is_refused_at_its_line_needs_root() {
    if requires(NEEDS).is_some() {
        return;
    }
    let environment = TestEnvironment::new(env!("CARGO_BIN_EXE_polyarch"));
    for (text, arguments, expected) in [
        (
            "ARG SOURCE_DATE_EPOCH=soon\nFROM scratch\nCOPY Dockerfile /\n",
            [".", "."],
            "invalid SOURCE_DATE_EPOCH: soon",
        ),
        (
            "FROM scratch\nCOPY Dockerfile /\n",
            ["--build-arg=SOURCE_DATE_EPOCH=soon", "."],
            "invalid SOURCE_DATE_EPOCH: soon",
        ),
        (
            "ARG SOURCE_DATE_EPOCH=a\nFROM scratch AS a\nCOPY Dockerfile /\n",
            [".", "."],
            "SOURCE_DATE_EPOCH stage does not meet source-only requirements: unsupported COPY instruction",
        ),
        (
            "ARG SOURCE_DATE_EPOCH=a\nFROM busybox AS a\nADD http://127.0.0.1/a /\n",
            [".", "."],
            "SOURCE_DATE_EPOCH stage must use FROM scratch",
        ),
        (
            "ARG SOURCE_DATE_EPOCH=a\nFROM scratch AS a\nADD http://127.0.0.1/a /\nADD http://127.0.0.1/b /\n",
            [".", "."],
            "SOURCE_DATE_EPOCH stage must contain exactly one remote ADD",
        ),
        (
            "ARG SOURCE_DATE_EPOCH=a\nFROM scratch AS a\nADD Dockerfile /\n",
            [".", "."],
            "SOURCE_DATE_EPOCH stage source must be a single HTTP(S) or Git ADD",
        ),
    ] {
        environment.write("Dockerfile", text);
        let arguments = if arguments[0] == "." { &arguments[1..] } else { &arguments[..] };
        let refused = build(&environment, arguments);
        assert_ne!(refused.code, 0, "{text}");
        assert!(refused.stderr.contains(expected), "{text}: {}", refused.stderr);
        let has_line = refused.stderr.contains("Dockerfile:");
        assert_eq!(has_line, arguments.len() == 1, "{text}: {}", refused.stderr);
    }
}
