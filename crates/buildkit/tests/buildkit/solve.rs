// SPDX-License-Identifier: Apache-2.0
//! Builds on an unmodified daemon: contexts go there, results come home.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;
use std::sync::{Arc, Mutex};

use polyarch_build::request::{
    BuildRequest, Context, DockerfileSource, ImageOptions, NetworkMode, PullPolicy, StepOptions,
};
use polyarch_build::secrets::FixedSecrets;
use polyarch_build::{ServiceOptions, Services};
use polyarch_buildkit::client::{Exporter, NodeBuildOptions, SolveRequest};
use polyarch_buildkit::session::{ArchiveTarget, Attachments, Session, SharedDirectory};
use polyarch_oci::{ManifestOrIndex, Platform};
use polyarch_registry::ClientOptions;
use polyarch_sandbox::IdMapping;
use polyarch_solver::progress::{Event, Progress};
use polyarch_store::{Missing, NamedImage, Store};
use polyarch_testkit::{Buildkitd, busybox_rootfs};

use crate::foreign::{connect, recorder};

const BASE: &str = "FROM scratch AS base\nADD rootfs.tar /\n";

fn context(dockerfile: &str, files: &[(&str, &str)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("rootfs.tar"), busybox_rootfs()).unwrap();
    std::fs::write(directory.path().join("Dockerfile"), format!("{BASE}{dockerfile}")).unwrap();
    for (path, text) in files {
        let path = directory.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    directory
}

fn attachments(context: &Path) -> Attachments {
    let directory = SharedDirectory::open(context).unwrap();
    let directories = [("context", directory.clone()), ("dockerfile", directory)];
    Attachments {
        directories: directories.map(|(name, directory)| (name.to_owned(), directory)).into(),
        ..Attachments::default()
    }
}

fn request() -> SolveRequest {
    SolveRequest { frontend: "dockerfile.v0".to_owned(), ..SolveRequest::default() }
}

fn oci() -> Exporter {
    Exporter { kind: "oci".to_owned(), attributes: BTreeMap::new() }
}

/// A target that imports into a store, and what was imported.
fn into_store(store: &Store) -> (ArchiveTarget, Arc<Mutex<Vec<NamedImage>>>) {
    let imported = Arc::new(Mutex::new(Vec::new()));
    let (store, images) = (store.clone(), imported.clone());
    let target = ArchiveTarget::new(move |archive| {
        let found = store.import_archive(archive, Missing::Refuse).map_err(|error| error.to_string())?;
        images.lock().unwrap().extend(found);
        Ok(())
    });
    (target, imported)
}

/// A source whose one secret is `token`.
fn one_secret() -> Arc<FixedSecrets> {
    let secrets = BTreeMap::from([("token".to_owned(), b"secret".to_vec())]);
    Arc::new(FixedSecrets { secrets, ..FixedSecrets::default() })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_comes_home_under_its_digest() {
    let Some(daemon) = Buildkitd::start() else { return };
    let context = context(
        "FROM base\nCOPY src /src\nRUN --mount=type=secret,id=token cat /src/a /run/secrets/token > /both && ls -a /src > /list\n\
         FROM base\nCOPY --from=1 /both /list /\nENV made=there\n",
        &[("src/a", "file "), ("src/ignored", "x"), (".dockerignore", "**/ignored\n"), ("unused/large", "x")],
    );
    std::os::unix::fs::symlink("a", context.path().join("src/link")).unwrap();
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path()).unwrap();
    let (target, imported) = into_store(&store);
    let mut attachments = attachments(context.path());
    attachments.archives.push(target);
    attachments.secrets = Some(one_secret());
    let session = Session::new(attachments, "").unwrap();
    let (progress, events) = recorder();

    let node = connect(&daemon).await;
    let request = SolveRequest { exporters: vec![oci()], label: Some("far".to_owned()), ..request() };
    let result = node.solve(request, &session, &progress).await.unwrap();

    let images = imported.lock().unwrap();
    let [image] = images.as_slice() else { panic!("{images:?}") };
    assert_eq!(Some(&image.descriptor.digest.to_string()), result.response.get("containerimage.digest"));
    let ManifestOrIndex::Manifest(manifest) = store.image(&image.descriptor).unwrap() else { panic!() };
    let config = store.config(&manifest.value).unwrap();
    assert!(config.value.config.env.iter().any(|line| line == "made=there"), "{:?}", config.value.config.env);
    let mut files = String::new();
    for layer in &manifest.value.layers[1..] {
        let bytes = store.read(layer, 1 << 20).unwrap();
        let codec = polyarch_snapshot::detect(&bytes);
        let mut tar = Vec::new();
        polyarch_snapshot::decompressor(bytes.as_slice(), codec).unwrap().read_to_end(&mut tar).unwrap();
        files.push_str(&String::from_utf8_lossy(&tar));
    }
    assert!(files.contains("file secret"), "the copied file and the secret");
    assert!(files.contains(".\n..\na\nlink\n"), "what the context has without what is ignored");

    let events = events.lock().unwrap();
    let names: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            Event::Vertex(vertex) if vertex.completed.is_some() => Some(vertex.name.to_string()),
            _ => None,
        })
        .collect();
    assert!(names.iter().any(|name| name.starts_with("[far internal] load build definition")), "{names:?}");
    assert!(names.iter().any(|name| name.contains("exporting to oci image format")), "{names:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_fails_tells_its_place_and_output() {
    let Some(daemon) = Buildkitd::start() else { return };
    let context = context("RUN echo before && exit 3\n", &[]);
    let session = Session::new(attachments(context.path()), "").unwrap();
    let (progress, events) = recorder();
    let node = connect(&daemon).await;
    let error = node.solve(request(), &session, &progress).await.unwrap_err();
    let location = error.location.clone().unwrap();
    assert_eq!((location.file.as_str(), location.lines), ("Dockerfile", 3..=3));
    assert!(location.text.contains("exit 3"));
    let text = error.to_string();
    assert!(text.contains("did not complete successfully: exit code: 3"), "{text}");
    assert!(!error.error.is_of_node());
    let events = events.lock().unwrap();
    let failed = events.iter().find_map(|event| match event {
        Event::Vertex(vertex) if !vertex.error.is_empty() => Some(vertex.clone()),
        _ => None,
    });
    assert_eq!(failed.map(|vertex| vertex.digest.to_string()), error.vertex);
    let is_shown = |event: &Event| matches!(event, Event::Log(log) if log.data.starts_with(b"before"));
    assert!(events.iter().any(is_shown), "{events:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_session_does_not_hold_can_not_be_had() {
    let Some(daemon) = Buildkitd::start() else { return };
    let context = context("RUN --mount=type=secret,id=other,required=true cat /run/secrets/other\n", &[]);
    let mut attachments = attachments(context.path());
    attachments.secrets = Some(one_secret());
    let session = Session::new(attachments, "").unwrap();
    let node = connect(&daemon).await;
    let error = node.solve(request(), &session, &Progress::none()).await.unwrap_err();
    assert!(error.to_string().contains("secret other: not found"), "{error}");
    let nothing = Session::new(Attachments::default(), "").unwrap();
    let error = node.solve(request(), &nothing, &Progress::none()).await.unwrap_err();
    assert!(error.to_string().contains("no local sources enabled"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_refuses_fails_the_build() {
    let Some(daemon) = Buildkitd::start() else { return };
    let context = context("", &[]);
    let mut attachments = attachments(context.path());
    attachments.archives.push(ArchiveTarget::new(|_| Err("the disk is full".to_owned())));
    let session = Session::new(attachments, "").unwrap();
    let node = connect(&daemon).await;
    let request = SolveRequest { exporters: vec![oci()], ..request() };
    let error = node.solve(request, &session, &Progress::none()).await.unwrap_err();
    assert!(error.to_string().contains("the disk is full"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_dies_is_told_from_a_step_that_fails() {
    let Some(mut daemon) = Buildkitd::start() else { return };
    let context = context("RUN echo started && sleep 60\n", &[]);
    let session = Session::new(attachments(context.path()), "").unwrap();
    let node = connect(&daemon).await;
    let (sender, mut started) = tokio::sync::mpsc::unbounded_channel();
    let progress = Progress::new(move |event| {
        if matches!(&event, Event::Log(log) if log.data.starts_with(b"started")) {
            let _ = sender.send(());
        }
    });
    let building = tokio::spawn(async move { node.solve(request(), &session, &progress).await });
    started.recv().await.unwrap();
    daemon.kill();
    let error = building.await.unwrap().unwrap_err();
    assert!(error.error.is_of_node(), "{error:?}");
}

fn services(root: &Path) -> Arc<Services> {
    let options = ServiceOptions {
        root: root.to_owned(),
        launcher_program: "/proc/self/exe".into(),
        registry: ClientOptions::default(),
        emulator_directories: Vec::new(),
        path_dirs: Vec::new(),
        mapping: IdMapping::Host { reason: "a test of documents".to_owned() },
        resolv_conf: Vec::new(),
        force_copy: false,
        takes_lone_images: false,
    };
    Services::open(options).unwrap()
}

fn build_request(context: &Path) -> BuildRequest {
    BuildRequest {
        context: Context::Directory(context.to_owned()),
        contexts: Vec::new(),
        dockerfile: DockerfileSource::Default,
        platforms: Vec::new(),
        names: Vec::new(),
        keeps_names: true,
        target: None,
        build_args: vec![("WORD".to_owned(), "given".to_owned())],
        labels: Vec::new(),
        outputs: Vec::new(),
        no_cache: false,
        policies: Default::default(),
        cache: Default::default(),
        pull: PullPolicy::Default,
        source_date_epoch: Some(1_000_000_000),
        network: NetworkMode::Default,
        extra_hosts: Vec::new(),
        shm_size_bytes: None,
        steps: StepOptions::default(),
        image: ImageOptions::default(),
        attestations: Default::default(),
        verify: false,
        max_parallel: 0,
        threads: 0,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_of_a_request_comes_home_with_the_platforms_asked_for() {
    let Some(daemon) = Buildkitd::start() else { return };
    let context = context("ARG WORD\nENV word=$WORD\nRUN echo $WORD > /word\n", &[]);
    let root = tempfile::tempdir().unwrap();
    let services = services(root.path());
    let node = connect(&daemon).await;
    let request = build_request(context.path());
    let host = Platform::host();
    let options = NodeBuildOptions { platforms: vec![host.clone()], ..NodeBuildOptions::default() };
    let image = node.build_image(&services, &request, options, &Progress::none()).await.unwrap();
    assert_eq!(image.platforms, [(host.clone(), image.root.clone())]);
    let ManifestOrIndex::Manifest(manifest) = services.store().image(&image.root).unwrap() else { panic!() };
    let config = services.store().config(&manifest.value).unwrap();
    assert!(config.value.config.env.contains(&"word=given".to_owned()));

    // A second platform that needs no step: the index is taken apart.
    std::fs::write(context.path().join("Dockerfile"), "FROM scratch\nCOPY Dockerfile /\n").unwrap();
    let platforms = Platform::parse_list("linux/s390x,linux/arm64").unwrap();
    let options = NodeBuildOptions { platforms: platforms.clone(), ..NodeBuildOptions::default() };
    let image = node.build_image(&services, &request, options, &Progress::none()).await.unwrap();
    let found: Vec<_> = image.platforms.iter().map(|(platform, _)| platform.clone()).collect();
    assert_eq!(found, platforms);
    assert!(matches!(services.store().image(&image.root).unwrap(), ManifestOrIndex::Index(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dockerfile_outside_of_the_context_brings_its_ignore_file() {
    let Some(daemon) = Buildkitd::start() else { return };
    let context = context("", &[("kept", "x"), ("left-out", "x")]);
    let elsewhere = tempfile::tempdir().unwrap();
    let dockerfile = elsewhere.path().join("other.Dockerfile");
    std::fs::write(&dockerfile, "FROM scratch\nCOPY left-out /\n").unwrap();
    std::fs::write(elsewhere.path().join("other.Dockerfile.dockerignore"), "left-out\n").unwrap();
    let root = tempfile::tempdir().unwrap();
    let request =
        BuildRequest { dockerfile: DockerfileSource::File(dockerfile), ..build_request(context.path()) };
    let options = NodeBuildOptions { platforms: vec![Platform::host()], ..NodeBuildOptions::default() };
    let node = connect(&daemon).await;
    let built = node.build_image(&services(root.path()), &request, options, &Progress::none()).await;
    let error = built.unwrap_err().error;
    assert!(error.message.contains("\"/left-out\": not found"), "{}", error.message);
    assert_eq!(error.location.map(|location| location.file).as_deref(), Some("other.Dockerfile"));
}
