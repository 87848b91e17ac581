// SPDX-License-Identifier: Apache-2.0
//! The steps of a build as `mode=max` tells them: in the words of BuildKit's LLB, so that its readers read
//! them.
//!
//! The words are fewer than BuildKit's, because steps here know less of how they are carried out. The digests
//! name the steps within the document, and nothing outside of it.

use std::collections::{BTreeMap, HashMap};

use polyarch_oci::{Descriptor, Digest};
use polyarch_solver::{Graph, VertexId};
use serde_json::{Value, json};

use super::{Capture, Source};
use crate::definition::{Definition, Edge, LoweredDefinition, ToldFile, ToldStep};
use crate::error::SourceLocation;
use crate::ops::copy::CopyAction;
use crate::ops::exec::ExecOp;
use crate::ops::file::FileAction;
use crate::ops::image::ImageOp;
use crate::ops::{BuildOp, OpKind};
use crate::request::NetworkMode;

/// A step of a build, inputs before their readers.
#[derive(Debug, Clone)]
pub(super) struct CapturedStep {
    op: Value,
    /// Numbers of the steps that it reads, and which outputs of them.
    inputs: Vec<(usize, usize)>,
    /// Its places in the source; null where nothing is told of it.
    location: Value,
    /// Its name, where it has one.
    digest: Option<String>,
    layers: StepLayers,
}

/// The layers of a step's tree.
#[derive(Debug, Clone)]
enum StepLayers {
    /// Those of an image.
    Image(Vec<Descriptor>),
    /// Those of the result but for this many steps at its end.
    Result { later_steps: usize },
    /// Of another stage: they are no part of the result.
    Untold,
}

/// Describes the steps that a vertex needs.
pub(super) fn capture(graph: &Graph<BuildOp>, target: VertexId) -> Vec<CapturedStep> {
    let chain = chain_of(graph, target);
    let mut numbers: HashMap<VertexId, usize> = HashMap::new();
    let mut steps = Vec::new();
    for id in graph.reachable(&[target]) {
        let op = graph.op(id);
        let inputs: Vec<Option<usize>> =
            graph.inputs(id).iter().map(|input| numbers.get(input).copied()).collect();
        // `scratch` is no step, there as here.
        let Some(value) = describe(op, &inputs) else { continue };
        let layers = match (&op.kind, chain.iter().position(|it| *it == id)) {
            (OpKind::Image(image), _) => layers_of(image),
            (_, Some(later_steps)) => StepLayers::Result { later_steps },
            (_, None) => StepLayers::Untold,
        };
        numbers.insert(id, steps.len());
        steps.push(CapturedStep {
            op: value,
            inputs: inputs.into_iter().flatten().map(|input| (input, 0)).collect(),
            location: op.location.as_ref().map_or_else(|| json!({}), location_of),
            digest: None,
            layers,
        });
    }
    // The last one is the result; it does nothing.
    let last = numbers.get(&target).copied();
    steps.push(CapturedStep {
        op: json!({ "Op": {} }),
        inputs: last.into_iter().map(|last| (last, 0)).collect(),
        location: Value::Null,
        digest: None,
        layers: StepLayers::Untold,
    });
    steps
}

fn location_of(location: &SourceLocation) -> Value {
    let line = |line: &u32| json!({ "line": line });
    let range = json!({ "start": line(location.lines.start()), "end": line(location.lines.end()) });
    json!({ "locations": [{ "ranges": [range] }] })
}

/// Takes the steps of a client's definition in its own words.
pub(super) fn capture_told(definition: &Definition, lowered: &LoweredDefinition) -> Vec<CapturedStep> {
    let chain = chain_of(&lowered.graph, lowered.target);
    let steps = definition.told.steps.iter().enumerate().map(|(number, told)| {
        let id = lowered.made.get(&Edge { vertex: number, output: 0 });
        let layers = id.and_then(|id| match &lowered.graph.op(*id).kind {
            OpKind::Image(image) => Some(layers_of(image)),
            _ => {
                let later_steps = chain.iter().position(|it| it == id)?;
                Some(StepLayers::Result { later_steps })
            }
        });
        CapturedStep { layers: layers.unwrap_or(StepLayers::Untold), ..CapturedStep::of_told(told) }
    });
    steps.collect()
}

fn layers_of(image: &ImageOp) -> StepLayers {
    StepLayers::Image(image.layers.iter().map(|layer| layer.descriptor.clone()).collect())
}

impl CapturedStep {
    fn of_told(told: &ToldStep) -> CapturedStep {
        CapturedStep {
            op: told.op.clone(),
            inputs: told.inputs.clone(),
            location: told.location.clone().unwrap_or_default(),
            digest: Some(told.digest.clone()),
            layers: StepLayers::Untold,
        }
    }
}

/// Returns the steps that made the result one upon the other, the last one first.
fn chain_of(graph: &Graph<BuildOp>, target: VertexId) -> Vec<VertexId> {
    let mut chain = Vec::new();
    let mut at = Some(target);
    while let Some(id) = at {
        match graph.op(id).kind {
            OpKind::Exec(_) | OpKind::File(_) | OpKind::Merge(_) => chain.push(id),
            // One of the trees of the step that it reads.
            OpKind::Pick(_) => {}
            _ => break,
        }
        at = graph.inputs(id).first().copied();
    }
    chain
}

fn describe(op: &BuildOp, inputs: &[Option<usize>]) -> Option<Value> {
    let input = |at: usize| -> i64 {
        // As in LLB: the place among the inputs that are there, or none.
        match inputs.get(at) {
            Some(Some(_)) => {
                let before = inputs[..at].iter().flatten().count();
                i64::try_from(before).unwrap_or(-1)
            }
            _ => -1,
        }
    };
    match &op.kind {
        OpKind::Image(image) => {
            let identifier = image.identifier.as_ref()?;
            Some(json!({ "Op": { "source": { "identifier": identifier } }, "constraints": {} }))
        }
        // How it came to be is told by the build that made it.
        OpKind::Built(_) | OpKind::Diff(_) | OpKind::Pick(_) => None,
        OpKind::Context(context) => {
            let name = if context.identity.is_empty() { "context" } else { &context.identity };
            let identifier = format!("local://{name}");
            Some(json!({ "Op": { "source": { "identifier": identifier } }, "constraints": {} }))
        }
        OpKind::File(file) => {
            let action = match &file.action {
                FileAction::Mkdir { path, .. } => {
                    json!([{ "Action": { "mkdir": { "path": path, "mode": 0o755, "makeParents": true, "timestamp": -1 } },
                             "input": input(0), "secondaryInput": -1, "output": 0 }])
                }
                FileAction::Copy(copies) => copy_actions(copies, &input),
                // The client has written them, and knows them better.
                FileAction::Changes(_) => return None,
            };
            Some(json!({ "Op": { "file": { "actions": action } }, "constraints": {} }))
        }
        OpKind::Exec(exec) => Some(exec_step(exec, input(0))),
        OpKind::Merge(_) => Some(
            json!({ "Op": { "merge": { "inputs": [{ "input": 0 }, { "input": 1 }] } }, "constraints": {} }),
        ),
        OpKind::Remote(op) => {
            Some(json!({ "Op": { "source": { "identifier": op.source.shown() } }, "constraints": {} }))
        }
    }
}

fn copy_actions(copies: &[CopyAction], input: &dyn Fn(usize) -> i64) -> Value {
    let mut actions: Vec<Value> = Vec::new();
    for copy in copies {
        add_copy_actions(copy, input(copy.input), &mut actions);
    }
    let last = actions.len().saturating_sub(1);
    for (at, action) in actions.iter_mut().enumerate() {
        // Each works on what the one before it gave; the last one's is the output.
        action["input"] = if at == 0 { input(0) } else { i64::try_from(at).unwrap_or(0) + 1 }.into();
        action["output"] = if at == last { 0 } else { -1 }.into();
    }
    actions.into()
}

fn add_copy_actions(copy: &CopyAction, secondary: i64, actions: &mut Vec<Value>) {
    for source in &copy.sources {
        let mut words = json!({
            "src": source.pattern, "dest": copy.destination, "mode": -1, "timestamp": -1, "followSymlink": true,
            "dirCopyContents": true, "createDestPath": true, "allowWildcard": true, "allowEmptyWildcard": true,
        });
        if copy.unpack {
            words["attemptUnpackDockerCompatibility"] = true.into();
        }
        if let Some(mode) = &copy.mode {
            words["modeStr"] = mode.clone().into();
        }
        if !copy.exclude.is_empty() {
            words["exclude_patterns"] = copy.exclude.clone().into();
        }
        actions.push(json!({ "Action": { "copy": words }, "secondaryInput": secondary }));
    }
    for (name, _) in &copy.heredocs {
        // The text stands in the Dockerfile, which is told too.
        let words = json!({ "path": name, "mode": 0o644, "timestamp": -1 });
        actions.push(json!({ "Action": { "mkfile": words }, "secondaryInput": -1 }));
    }
}

fn exec_step(exec: &ExecOp, input: i64) -> Value {
    let mut meta = json!({
        "args": exec.args, "env": exec.env, "cwd": exec.cwd, "removeMountStubsRecursive": true,
    });
    if !exec.user.is_empty() {
        meta["user"] = exec.user.clone().into();
    }
    let mut words = json!({ "meta": meta, "mounts": [{ "input": input, "dest": "/", "output": 0 }] });
    match exec.network {
        NetworkMode::Default => {}
        NetworkMode::Host => words["network"] = 1.into(),
        NetworkMode::None => words["network"] = 2.into(),
    }
    let platform = &exec.platform;
    let mut named = json!({ "Architecture": platform.architecture, "OS": platform.os });
    if !platform.variant.is_empty() {
        named["Variant"] = platform.variant.clone().into();
    }
    json!({ "Op": { "exec": words }, "platform": named, "constraints": {} })
}

impl Capture {
    /// Returns the steps, and how they are called by their digests.
    pub(super) fn build_config(&self) -> Value {
        config_of(&self.steps)
    }

    /// Returns the Dockerfile, and which lines of it each step is.
    pub(super) fn source_map(&self) -> Value {
        let mut locations = serde_json::Map::new();
        for (number, step) in self.steps.iter().enumerate() {
            if !step.location.is_null() {
                locations.insert(format!("step{number}"), step.location.clone());
            }
        }
        let infos = match &self.source {
            Source::Dockerfile { name, text } => {
                let read = if self.locals.contains("dockerfile") { read_dockerfile() } else { Vec::new() };
                vec![info(name, "Dockerfile", text.as_bytes(), &read)]
            }
            Source::Files(files) => {
                let read = |file: &ToldFile| file.read.iter().map(CapturedStep::of_told).collect::<Vec<_>>();
                files.iter().map(|file| info(&file.name, &file.language, &file.data, &read(file))).collect()
            }
        };
        json!({ "locations": locations, "infos": infos })
    }

    /// Returns the layers of each step's tree, where they are known as blobs.
    pub(super) fn step_layers(&self, layers: &[Descriptor]) -> BTreeMap<String, Vec<Vec<Descriptor>>> {
        let mut told = BTreeMap::new();
        for (number, step) in self.steps.iter().enumerate() {
            let chain = match &step.layers {
                StepLayers::Image(layers) => layers.clone(),
                StepLayers::Result { later_steps } => match self.layers_before(*later_steps, layers.len()) {
                    Some(count) => layers[..count].to_vec(),
                    None => continue,
                },
                StepLayers::Untold => continue,
            };
            if !chain.is_empty() {
                told.insert(format!("step{number}:0"), vec![chain]);
            }
        }
        told
    }

    /// Returns how many of the result's layers are there when all but the last steps are done.
    fn layers_before(&self, later_steps: usize, layers: usize) -> Option<usize> {
        let made = &self.layers_made;
        // A step that the result does not know would shift all others.
        let later = made.get(made.len().checked_sub(later_steps)?..)?;
        layers.checked_sub(later.iter().filter(|made| **made).count())
    }
}

/// Returns the steps by which a Dockerfile is read from somebody's disk.
fn read_dockerfile() -> Vec<CapturedStep> {
    let step = |op: Value, inputs: Vec<(usize, usize)>| CapturedStep {
        op,
        inputs,
        location: Value::Null,
        digest: None,
        layers: StepLayers::Untold,
    };
    let source = json!({ "source": { "identifier": "local://dockerfile" } });
    vec![
        step(json!({ "Op": source, "constraints": {} }), Vec::new()),
        step(json!({ "Op": {} }), vec![(0, 0)]),
    ]
}

fn info(name: &str, language: &str, data: &[u8], read: &[CapturedStep]) -> Value {
    use base64::Engine as _;
    let data = base64::engine::general_purpose::STANDARD.encode(data);
    let mut info = json!({ "filename": name, "language": language, "data": data });
    if !read.is_empty() {
        let config = config_of(read);
        info["llbDefinition"] = config["llbDefinition"].clone();
        info["digestMapping"] = config["digestMapping"].clone();
    }
    info
}

fn config_of(steps: &[CapturedStep]) -> Value {
    let mut definition = Vec::new();
    let mut mapping = serde_json::Map::new();
    for (number, step) in steps.iter().enumerate() {
        let mut told = json!({ "id": format!("step{number}"), "op": step.op });
        if !step.inputs.is_empty() {
            let inputs = step.inputs.iter().map(|(input, output)| format!("step{input}:{output}"));
            told["inputs"] = inputs.collect::<Vec<_>>().into();
        }
        let digest = step.digest.clone().unwrap_or_else(|| Digest::of(told.to_string()).to_string());
        mapping.insert(digest, format!("step{number}").into());
        definition.push(told);
    }
    json!({ "llbDefinition": definition, "digestMapping": mapping })
}
