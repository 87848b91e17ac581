// SPDX-License-Identifier: Apache-2.0
//! From the flags of `polyarch build` to the request.

use std::ffi::OsString;
use std::path::PathBuf;

use polyarch_build::attest::ProvenanceMode;
use polyarch_build::request::{Context, Destination, DockerfileSource, NetworkMode, Output, PullPolicy};
use polyarch_cli::commands::build::request::BuildPlan;
use polyarch_cli::commands::{self, Parsed};
use polyarch_cli::progress::ProgressMode;
use polyarch_cli::{CommandError, Environment};
use polyarch_oci::Platform;
use polyarch_oci::media_type::{Compression, Flavour};

/// What surrounds an invocation in these tests.
struct Case {
    environment: Environment,
    stdin: Vec<u8>,
    directory: tempfile::TempDir,
}

impl Case {
    fn new() -> Case {
        let directory = tempfile::tempdir().unwrap();
        let environment = Environment {
            current_directory: directory.path().to_owned(),
            variables: [("TMPDIR".to_owned(), directory.path().into())].into(),
            ..Environment::default()
        };
        Case { environment, stdin: Vec::new(), directory }
    }

    fn with(mut self, name: &str, value: &str) -> Case {
        self.environment.variables.insert(name.to_owned(), value.into());
        self
    }

    fn with_stdin(mut self, bytes: &[u8]) -> Case {
        self.stdin = bytes.to_vec();
        self
    }

    fn plan(&self, words: &[&str]) -> Result<BuildPlan, CommandError> {
        let all = ["polyarch", "build"].iter().chain(words).map(OsString::from);
        let Parsed::Command(cli) = commands::parse(all)? else { panic!("help was asked for") };
        let (args, _) = cli.build_args().unwrap();
        BuildPlan::new(args, &self.environment, &mut &*self.stdin)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

fn plan(words: &[&str]) -> BuildPlan {
    Case::new().plan(words).unwrap_or_else(|error| panic!("{words:?}: {}", error.render()))
}

fn refusal(words: &[&str]) -> String {
    match Case::new().plan(words) {
        Ok(plan) => panic!("{words:?} was taken: {plan:?}"),
        Err(error) => {
            assert_eq!(error.exit_code.number(), 2, "{words:?}");
            error.error.message
        }
    }
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn without_flags_the_directory_is_built_for_this_machine() {
    let case = Case::new();
    let plan = case.plan(&["."]).unwrap();
    let request = &plan.request;
    assert!(matches!(&request.context, Context::Directory(path) if path == case.directory.path()));
    assert!(matches!(request.dockerfile, DockerfileSource::Default));
    assert_eq!(request.platforms, Vec::<Platform>::new());
    assert_eq!(request.outputs, []);
    assert_eq!((request.pull, request.network), (PullPolicy::Default, NetworkMode::Default));
    assert_eq!((plan.progress, plan.is_quiet), (ProgressMode::Auto, false));
}

#[test]
fn platforms_are_lists_in_order_and_each_once() {
    let names = |words: &[&str]| -> Vec<String> {
        plan(words).request.platforms.iter().map(Platform::to_string).collect()
    };
    assert_eq!(
        names(&["--platform", "linux/arm64,linux/amd64", "--platform=aarch64, armv7", "."]),
        ["linux/arm64", "linux/amd64", "linux/arm/v7"]
    );
    assert_eq!(names(&["--platform", "local", "."]), [Platform::host().to_string()]);
    let from_environment = Case::new().with("DOCKER_DEFAULT_PLATFORM", "linux/riscv64");
    let platforms = |words: &[&str]| from_environment.plan(words).unwrap().request.platforms;
    assert_eq!(platforms(&["."]), ["linux/riscv64".parse().unwrap()]);
    assert_eq!(platforms(&["--platform=s390x", "."]), ["linux/s390x".parse().unwrap()]);
    assert!(refusal(&["--platform", "linux/arm64,amd46", "."]).contains("did you mean amd64?"));
}

#[test]
fn outputs_have_the_forms_of_buildx() {
    let case = Case::new();
    let path = |name: &str| Destination::Path(case.path(name));
    let image = |push, by_digest| Output::Image { push, by_digest };
    let oci = |destination, tar| Output::Oci { destination, tar };
    let table: Vec<(&[&str], Vec<Output>)> = vec![
        (&["--push", "-t", "a"], vec![image(true, false)]),
        (&["--push=false", "-t", "a"], vec![]),
        (&["--load"], vec![Output::Docker { destination: None }]),
        (&["--load", "--push", "-t", "a"], vec![image(true, false), Output::Docker { destination: None }]),
        (&["-o", "type=image", "--push", "-t", "a"], vec![image(true, false)]),
        (&["-o", "type=registry", "-t", "a"], vec![image(true, false)]),
        (&["-o", "type=image,push=true,push-by-digest=true,name=r.io/a"], vec![image(true, true)]),
        (&["-o", "type=oci,dest=a.tar"], vec![oci(path("a.tar"), true)]),
        (&["-o", "type=oci,dest=a,tar=false"], vec![oci(path("a"), false)]),
        (&["-o", "type=oci"], vec![oci(Destination::Stdout, true)]),
        (&["-o", "type=docker"], vec![Output::Docker { destination: None }]),
        (&["-o", "type=docker", "--load"], vec![Output::Docker { destination: None }]),
        (&["-o", "type=docker,dest=-"], vec![Output::Docker { destination: Some(Destination::Stdout) }]),
        (&["-o", "out"], vec![Output::Local { destination: case.path("out"), platform_split: None }]),
        (&["-o", "-"], vec![Output::Tar { destination: Destination::Stdout, platform_split: None }]),
        (
            &["-o", "type=local,dest=./out,platform-split=false"],
            vec![Output::Local { destination: case.path("out"), platform_split: Some(false) }],
        ),
        (&["-o", "type=cacheonly"], vec![Output::CacheOnly]),
        (
            &["-o", "type=oci,dest=a.tar", "--output=type=cacheonly"],
            vec![oci(path("a.tar"), true), Output::CacheOnly],
        ),
    ];
    for (words, expected) in table {
        let words = [words, &["."]].concat();
        let plan = case.plan(&words).unwrap_or_else(|error| panic!("{words:?}: {}", error.render()));
        assert_eq!(plan.request.outputs, expected, "{words:?}");
    }
}

#[test]
fn outputs_say_how_blobs_are_made_and_named() {
    let plan = plan(&[
        "-t",
        "user/app",
        "-o",
        "type=image,\"name=r.example/a,user/app\",oci-mediatypes=false,compression=zstd,compression-level=7,\
         force-compression=true,annotation.a=1,annotation-index.b=2",
        ".",
    ]);
    let names: Vec<String> = plan.request.names.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["docker.io/user/app:latest", "r.example/a:latest"]);
    let image = &plan.request.image;
    assert_eq!((image.flavour, image.compression), (Flavour::Docker, Compression::Zstd));
    assert_eq!((image.compression_level, image.force_compression), (Some(7), true));
    assert_eq!(image.manifest_annotations, pairs(&[("a", "1")]));
    assert_eq!(image.index_annotations, pairs(&[("b", "2")]));
}

#[test]
fn outputs_that_make_no_sense_are_refused() {
    let table: [(&[&str], &str); 17] = [
        (&["--push"], "a name is needed to push"),
        (&["-o", "type=imgae"], "did you mean image?"),
        (&["-o", "type=oci,dst=x"], "did you mean dest?"),
        (&["-o", "type=local"], "dest=DIR is needed"),
        (&["-o", "type=local,dest=-"], "dest=DIR is needed"),
        (&["-o", "dest=x,type"], "is not key=value"),
        (&["-o", "push=true,name=a"], "type is missing"),
        (&["-o", "type=image,compression=lzma"], "compression \"lzma\" is not known"),
        (&["-o", "type=image,push=perhaps"], "write true or false"),
        (&["-o", "type=image,registry.insecure=true"], "configuration file"),
        (&["-o", "type=oci,tar=false"], "a directory needs dest=DIR"),
        (&["-o", "type=oci", "-o", "type=tar"], "only one output"),
        (&["-o", "type=oci", "-q"], "--quiet"),
        (&["-o", "out", "--iidfile", "i"], "--iidfile"),
        (&["-o", "type=docker,dest=x", "--platform", "amd64,arm64"], "one platform only"),
        (
            &["-o", "type=oci,dest=a,compression=zstd", "-o", "type=oci,dest=b,compression=gzip"],
            "the same for all outputs",
        ),
        (&["-o", "type=image,annotation-manifest-descriptor.a=b"], "annotations are available"),
    ];
    for (words, expected) in table {
        let message = refusal(&[words, &["."]].concat());
        assert!(message.contains(expected), "{words:?}: {message}");
    }
    let mut case = Case::new();
    case.environment.stdout_is_terminal = true;
    let message = case.plan(&["-o", "-", "."]).unwrap_err().error.message;
    assert!(message.contains("terminal"), "{message}");
}

#[test]
fn build_args_may_take_their_value_from_the_environment() {
    let case = Case::new().with("FROM_ENV", "there").with("EMPTY", "");
    let args = |words: &[&str]| case.plan(words).unwrap().request.build_args;
    assert_eq!(
        args(&[
            "--build-arg=A=1=2",
            "--build-arg",
            "FROM_ENV",
            "--build-arg=UNSET",
            "--build-arg=EMPTY",
            "."
        ]),
        pairs(&[("A", "1=2"), ("FROM_ENV", "there"), ("EMPTY", "")])
    );
    assert_eq!(args(&["--build-arg=A=1", "--build-arg=A=2", "."]), pairs(&[("A", "2")]));
    assert!(refusal(&["--build-arg", "=x", "."]).contains("the name is empty"));
}

#[test]
fn the_epoch_comes_from_the_environment_or_an_argument() {
    let case = Case::new().with("SOURCE_DATE_EPOCH", "1700000000");
    let request = case.plan(&["."]).unwrap().request;
    assert_eq!(request.source_date_epoch, Some(1_700_000_000));
    assert_eq!(request.build_args, pairs(&[("SOURCE_DATE_EPOCH", "1700000000")]));
    let request = case.plan(&["--build-arg=SOURCE_DATE_EPOCH=0", "."]).unwrap().request;
    assert_eq!(request.source_date_epoch, Some(0));
    assert_eq!(plan(&["."]).request.source_date_epoch, None);
    // What a name means is known when the Dockerfile has been read.
    let request = plan(&["--build-arg=SOURCE_DATE_EPOCH=context", "."]).request;
    assert_eq!(request.source_date_epoch, None);
    assert_eq!(request.build_args, pairs(&[("SOURCE_DATE_EPOCH", "context")]));
}

#[test]
fn other_flags_become_fields_of_the_request() {
    let plan = plan(&[
        "--target=build",
        "--label=a=1",
        "--label",
        "b",
        "--no-cache",
        "--pull=true",
        "--network=none",
        "--add-host=a:10.0.0.1",
        "--add-host=b=[::1]",
        "--add-host=c:fe80::1",
        "--shm-size=128m",
        "--annotation=index:k=v:w",
        "--annotation=manifest,index:x=y",
        "--annotation=org.example.url=http://h/p",
        ".",
    ]);
    let request = plan.request;
    assert_eq!(request.target.as_deref(), Some("build"));
    assert_eq!(request.labels, pairs(&[("a", "1"), ("b", "")]));
    assert!(request.no_cache);
    assert_eq!((request.pull, request.network), (PullPolicy::Always, NetworkMode::None));
    assert_eq!(request.extra_hosts, pairs(&[("a", "10.0.0.1"), ("b", "::1"), ("c", "fe80::1")]));
    assert_eq!(request.shm_size_bytes, Some(128 << 20));
    assert_eq!(request.image.index_annotations, pairs(&[("k", "v:w"), ("x", "y")]));
    assert_eq!(request.image.manifest_annotations, pairs(&[("x", "y"), ("org.example.url", "http://h/p")]));
}

#[test]
fn flags_with_values_that_make_no_sense_are_refused() {
    let table: [(&[&str], &str); 11] = [
        (&["-t", "Upper/Case", "."], "must be lowercase"),
        (&["-t", "a@sha256:0", "."], "--tag"),
        (&["--network=bridge", "."], "--network \"bridge\" is not known"),
        (&["--add-host=a", "."], "write HOST:ADDRESS"),
        (&["--add-host=a:host-gateway", "."], "host-gateway is not available"),
        (&["--add-host=a b:1.1.1.1", "."], "not a host name"),
        (&["--shm-size=lots", "."], "is not a size"),
        (&["--progress=fancy", "."], "--progress \"fancy\" is not known"),
        (&["--annotation=k", "."], "write KEY=VALUE"),
        (&["--annotation=index-descriptor:k=v", "."], "descriptors are not available"),
        (&["--annotation=manifest[linux/amd64]:k=v", "."], "single platforms"),
    ];
    for (words, expected) in table {
        let message = refusal(words);
        assert!(message.contains(expected), "{words:?}: {message}");
    }
}

#[test]
fn flags_of_later_versions_are_refused_by_name() {
    for flag in ["--policy=a", "--invoke=a"] {
        let name = flag.split('=').next().unwrap();
        let message = refusal(&[flag, "."]);
        assert!(message.starts_with(&format!("{name} is not supported: ")), "{message}");
    }
}

#[test]
fn attestations_are_asked_for_by_three_flags() {
    let asked = |words: &[&str]| plan(words).request.attestations;
    assert!(asked(&["."]).is_empty());
    assert!(asked(&["--provenance=", "--sbom=false", "."]).is_empty());
    let modes = |words: &[&str]| asked(words).provenance.map(|it| it.mode);
    assert_eq!(modes(&["--provenance", "."]), Some(ProvenanceMode::Max));
    assert_eq!(modes(&["--provenance=mode=min", "."]), Some(ProvenanceMode::Min));
    assert_eq!(
        modes(&["--attest=type=provenance,mode=min", "--provenance=mode=max", "."]),
        Some(ProvenanceMode::Max)
    );
    assert_eq!(modes(&["--attest", "type=provenance,disabled=true", "."]), None);
    let sbom = asked(&["--sbom=generator=r.example/scanner:1", "."]).sbom.unwrap();
    assert_eq!(sbom.generator.unwrap().to_string(), "r.example/scanner:1");
    let table = [
        ("--attest=mode=min", "--attest mode=min: attestation type not specified"),
        ("--attest=type=sbon", "--attest: unknown attestation type \"sbon\" (did you mean"),
        ("--provenance=mode=all", "--provenance: attestation provenance=mode=all: invalid mode \"all\""),
    ];
    for (flag, expected) in table {
        let message = refusal(&[flag, "."]);
        assert!(message.starts_with(expected), "{message}");
    }
}

#[test]
fn what_can_be_ignored_is_ignored_and_limits_with_a_word() {
    let quiet = plan(&["--provenance=false", "--sbom=false", "--rm", "--force-rm=false", "--compress", "."]);
    assert_eq!(quiet.warnings, Vec::<String>::new());
    let warned = plan(&["-m", "1g", "--cpu-quota=5", "--squash", "--security-opt=x", "."]);
    assert_eq!(warned.warnings.len(), 4, "{:?}", warned.warnings);
    assert_eq!(plan(&["--policy=", "--cache-from=", "."]).warnings, Vec::<String>::new());
}

#[test]
fn progress_comes_from_the_flag_or_the_environment() {
    let case = Case::new().with("BUILDKIT_PROGRESS", "plain");
    let progress = |words: &[&str]| case.plan(words).unwrap().progress;
    assert_eq!(progress(&["."]), ProgressMode::Plain);
    assert_eq!(progress(&["--progress=rawjson", "."]), ProgressMode::RawJson);
    assert_eq!(progress(&["-q", "."]), ProgressMode::Quiet);
    assert_eq!(ProgressMode::Auto.resolve(false), ProgressMode::Plain);
    assert_eq!(ProgressMode::Tty.resolve(false), ProgressMode::Plain);
    assert_eq!(ProgressMode::Auto.resolve(true), ProgressMode::Tty);
    assert_eq!(ProgressMode::RawJson.resolve(true), ProgressMode::RawJson);
}

#[test]
fn the_dockerfile_may_be_elsewhere_or_on_standard_input() {
    let case = Case::new().with_stdin(b"FROM scratch\n");
    let plan = case.plan(&["-f", "sub/Other", "."]).unwrap();
    assert!(
        matches!(plan.request.dockerfile, DockerfileSource::File(path) if path == case.path("sub/Other"))
    );
    let plan = case.plan(&["-f-", "."]).unwrap();
    assert!(matches!(&plan.request.dockerfile, DockerfileSource::Text(text) if text == b"FROM scratch\n"));
    assert!(matches!(plan.request.context, Context::Directory(_)));
    let plan = case.plan(&["-"]).unwrap();
    assert!(matches!(&plan.request.dockerfile, DockerfileSource::Text(text) if text == b"FROM scratch\n"));
    assert!(matches!(plan.request.context, Context::Empty));
}

#[test]
fn an_archive_on_standard_input_is_a_context_for_as_long_as_the_plan_lives() {
    let case = Case::new().with_stdin(b"\x1f\x8bcompressed");
    let plan = case.plan(&["-f", "sub/Dockerfile", "-"]).unwrap();
    let Context::Archive(path) = &plan.request.context else { panic!("{:?}", plan.request.context) };
    let path = path.clone();
    assert_eq!(std::fs::read(&path).unwrap(), b"\x1f\x8bcompressed");
    assert!(
        matches!(&plan.request.dockerfile, DockerfileSource::InContext(name) if name == "sub/Dockerfile")
    );
    drop(plan);
    assert!(!path.exists());
}

#[test]
fn contexts_that_cannot_be_had_are_refused() {
    let table: [(&[&str], &str); 8] = [
        (&[], "requires 1 argument"),
        (&[".", "."], "requires 1 argument"),
        (&["nowhere"], "the context \"nowhere\" does not exist"),
        (&["https://example.com/a.git?what=x"], "unexpected query \"what\""),
        (&["git@example.com:a/b#--x"], "invalid git ref"),
        (&["-f", "-", "-"], "both the context and the Dockerfile"),
        (&["-"], "standard input is empty"),
        (&["/etc/passwd"], "is a file, not a directory"),
    ];
    for (words, expected) in table {
        let message = refusal(words);
        assert!(message.contains(expected), "{words:?}: {message}");
    }
    let case = Case::new().with_stdin(b"FROM scratch");
    assert!(case.plan(&["-f", "x", "-"]).unwrap_err().error.message.contains("not an archive"));
}

#[test]
fn buildx_spellings_are_the_same_command() {
    for words in [
        &["polyarch", "buildx", "build", "."][..],
        &["docker-buildx", "buildx", "b", "."],
        &["polyarch", "b", "."],
    ] {
        let parsed = commands::parse(words.iter().map(OsString::from)).unwrap();
        assert!(matches!(&parsed, Parsed::Command(cli) if cli.build_args().is_some()), "{words:?}");
    }
}
