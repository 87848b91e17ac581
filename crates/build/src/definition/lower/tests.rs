// SPDX-License-Identifier: Apache-2.0
//! Definitions become graphs, and what provenance tells of them.

use std::path::Path;

use polyarch_registry::ClientOptions;
use polyarch_sandbox::user_namespace::IdMapping;
use polyarch_solver::CancelFlag;
use polyarch_solver::progress::Progress;
use serde_json::{Value, json};

use super::super::{
    Exec, ExecMountKind, ExecMountSpec, FileChange, FileInput, FileStep, ToldDefinition, ToldFile, ToldStep,
};
use super::*;
use crate::attest::ProvenanceOptions;
use crate::evaluated::{AskedImage, Evaluated};
use crate::request::{Context, DockerfileSource, NetworkMode, StepOptions};
use crate::services::ServiceOptions;

fn vertex(kind: VertexKind, inputs: &[(usize, usize)]) -> Vertex {
    Vertex {
        kind,
        inputs: inputs.iter().map(|(vertex, output)| Edge { vertex: *vertex, output: *output }).collect(),
        platform: Platform::host(),
        name: String::new(),
        no_cache: false,
        location: None,
    }
}

fn mount(target: &str, input: Option<usize>, output: Option<usize>) -> ExecMountSpec {
    ExecMountSpec {
        target: target.to_owned(),
        input,
        selector: String::new(),
        output,
        read_only: false,
        kind: ExecMountKind::Bind,
    }
}

fn mkdir(path: &str) -> FileChange {
    let path = path.to_owned();
    FileChange::Mkdir { path, mode: 0o755, parents: true, owner: None, time: None }
}

fn services(root: &Path) -> Arc<Services> {
    let services = Services::open(ServiceOptions {
        root: root.to_owned(),
        launcher_program: "/proc/self/exe".into(),
        registry: ClientOptions::default(),
        emulator_directories: Vec::new(),
        path_dirs: Vec::new(),
        mapping: IdMapping::Host { reason: "a test".to_owned() },
        resolv_conf: Vec::new(),
        force_copy: true,
        takes_lone_images: false,
    });
    services.unwrap()
}

fn request() -> BuildRequest {
    BuildRequest {
        context: Context::Empty,
        contexts: Vec::new(),
        dockerfile: DockerfileSource::Default,
        platforms: Vec::new(),
        names: Vec::new(),
        keeps_names: false,
        target: None,
        build_args: Vec::new(),
        labels: Vec::new(),
        outputs: Vec::new(),
        no_cache: false,
        policies: Default::default(),
        cache: Default::default(),
        pull: PullPolicy::Default,
        source_date_epoch: None,
        network: NetworkMode::Default,
        extra_hosts: Vec::new(),
        shm_size_bytes: None,
        steps: StepOptions::default(),
        image: Default::default(),
        attestations: Default::default(),
        verify: false,
        max_parallel: 0,
        threads: 0,
    }
}

fn definition(vertices: Vec<Vertex>, result: (usize, usize)) -> Definition {
    let result = Edge { vertex: result.0, output: result.1 };
    Definition { vertices, result, ..Definition::default() }
}

async fn lowered(vertices: Vec<Vertex>, result: (usize, usize)) -> Result<LoweredDefinition, BuildError> {
    let root = tempfile::tempdir().unwrap();
    let services = services(root.path());
    lower(&services, &definition(vertices, result), &request(), &Progress::none()).await
}

async fn evaluated(services: &Arc<Services>, definition: &Definition) -> Evaluated {
    let (progress, cancel) = (Progress::none(), CancelFlag::default());
    services.evaluate_definition(definition, &request(), &progress, &cancel).await.unwrap()
}

fn exec(mounts: Vec<ExecMountSpec>) -> VertexKind {
    VertexKind::Exec(Box::new(Exec { args: vec!["/a".to_owned()], mounts, ..Exec::default() }))
}

#[tokio::test]
async fn further_outputs_of_a_process_are_picked() {
    let vertices = || {
        let mounts = vec![mount("/", Some(0), Some(0)), mount("/out", None, Some(1))];
        vec![vertex(VertexKind::Scratch, &[]), vertex(exec(mounts), &[(0, 0)])]
    };
    for output in [0, 1] {
        let lowered = lowered(vertices(), (1, output)).await.unwrap();
        let OpKind::Pick(pick) = &lowered.graph.op(lowered.target).kind else { panic!("not picked") };
        assert_eq!(pick.number, output);
    }
    let missing = lowered(vertices(), (1, 2)).await.err().unwrap();
    assert_eq!(missing.message, "an operation has no output 2");
}

#[tokio::test]
async fn a_chain_of_changes_is_one_operation() {
    let step = |base, output, path: &str| FileStep { base, from: None, output, change: mkdir(path) };
    let steps =
        vec![step(Some(FileInput::Input(0)), None, "/a"), step(Some(FileInput::Step(0)), Some(0), "/b")];
    let vertices = vec![vertex(VertexKind::Scratch, &[]), vertex(VertexKind::File(steps), &[(0, 0)])];
    let lowered = lowered(vertices, (1, 0)).await.unwrap();
    assert_eq!(lowered.graph.len(), 2);
    let OpKind::File(file) = &lowered.graph.op(lowered.target).kind else { panic!("no file operation") };
    let FileAction::Changes(changes) = &file.action else { panic!("no changes") };
    assert_eq!(changes.len(), 2);
}

#[tokio::test]
async fn what_is_not_granted_or_makes_no_sense_is_refused() {
    let host = VertexKind::Exec(Box::new(Exec {
        args: vec!["/a".to_owned()],
        network: NetworkMode::Host,
        mounts: vec![mount("/", None, Some(0))],
        ..Exec::default()
    }));
    for (kind, text) in [
        (host, "network.host is not allowed"),
        (exec(vec![mount("/out", None, Some(0))]), "needs one mount at \"/\""),
        (VertexKind::Diff { lower: Some(0), upper: None }, "reads its input 0"),
    ] {
        let error = lowered(vec![vertex(kind, &[])], (0, 0)).await.err().unwrap();
        assert!(error.message.contains(text), "{text}: {}", error.message);
    }
}

fn told(number: usize, inputs: &[(usize, usize)], location: Option<Value>) -> ToldStep {
    ToldStep {
        digest: format!("sha256:{number}"),
        op: json!({ "Op": number }),
        inputs: inputs.to_vec(),
        location,
    }
}

fn predicate(evaluated: &Evaluated) -> Value {
    evaluated.provenance(0).expect("it is known").predicate(&ProvenanceOptions::default())
}

#[tokio::test]
async fn what_a_client_has_written_is_told_in_its_words() {
    let root = tempfile::tempdir().unwrap();
    let services = services(root.path());
    let step = FileStep { base: None, from: None, output: Some(0), change: mkdir("/a") };
    let mut definition = definition(vec![vertex(VertexKind::File(vec![step]), &[])], (0, 0));
    let file = ToldFile {
        name: "Dockerfile".to_owned(),
        language: "Dockerfile".to_owned(),
        data: b"FROM scratch".to_vec(),
        read: vec![told(7, &[], None)],
    };
    let steps = vec![told(0, &[], Some(json!({ "locations": [] }))), told(1, &[(0, 0)], None)];
    definition.told = ToldDefinition { steps, files: vec![file] };
    let predicate = predicate(&evaluated(&services, &definition).await);
    let parameters = &predicate["buildDefinition"]["internalParameters"];
    assert_eq!(parameters["dockerfileVersion"], Value::Null);
    assert_eq!(
        parameters["buildConfig"],
        json!({
            "llbDefinition": [
                { "id": "step0", "op": { "Op": 0 } },
                { "id": "step1", "op": { "Op": 1 }, "inputs": ["step0:0"] },
            ],
            "digestMapping": { "sha256:0": "step0", "sha256:1": "step1" },
        })
    );
    let request = &predicate["buildDefinition"]["externalParameters"]["request"];
    assert_eq!(request["frontend"], Value::Null);
    let metadata = &predicate["runDetails"]["metadata"];
    assert_eq!(metadata["buildkit_completeness"], json!({ "request": false, "resolvedDependencies": true }));
    let source = &metadata["buildkit_metadata"]["source"];
    assert_eq!(source["locations"], json!({ "step0": { "locations": [] } }));
    assert_eq!(source["infos"][0]["filename"], "Dockerfile");
    assert_eq!(source["infos"][0]["digestMapping"], json!({ "sha256:7": "step0" }));
}

#[tokio::test]
async fn what_a_frontend_has_read_besides_belongs_to_its_result() {
    let root = tempfile::tempdir().unwrap();
    let files = tempfile::tempdir().unwrap();
    std::fs::write(files.path().join("Dockerfile"), "FROM scratch").unwrap();
    let services = services(root.path());
    let (name, local) = ("dockerfile 1".to_owned(), "dockerfile".to_owned());
    let directory = VertexKind::Directory { name, local, path: files.path().to_owned() };
    let read = evaluated(&services, &definition(vec![vertex(directory, &[])], (0, 0))).await;
    let made = evaluated(&services, &definition(vec![vertex(VertexKind::Scratch, &[])], (0, 0))).await;
    assert_eq!(
        predicate(&made)["runDetails"]["metadata"]["buildkit_completeness"]["resolvedDependencies"],
        true
    );
    let image = AskedImage {
        reference: "example.com/a:1".parse().unwrap(),
        platform: "linux/amd64".parse().unwrap(),
        digest: Digest::of("a"),
        is_layout: false,
    };
    let whole = predicate(&made.taking_in(0, [(&read, 0)], &[image]).expect("a client has made it"));
    let request = &whole["buildDefinition"]["externalParameters"]["request"];
    assert_eq!(request["locals"], json!([{ "name": "dockerfile" }]));
    let materials = &whole["buildDefinition"]["resolvedDependencies"];
    assert_eq!(materials[0]["uri"], "pkg:docker/example.com/a@1?platform=linux%2Famd64");
    assert_eq!(whole["runDetails"]["metadata"]["buildkit_completeness"]["resolvedDependencies"], false);
}
