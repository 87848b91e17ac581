// SPDX-License-Identifier: Apache-2.0
//! Provenance: how an image was built, in the forms of SLSA as BuildKit fills them.
//!
//! While a build is lowered, a [`Capture`] of each platform is made: what it took in, what it was asked, its
//! steps. A predicate is written of it when somebody asks. Two builds of the same with a
//! `SOURCE_DATE_EPOCH` give the same bytes: then no times and no identity of the run are told.

mod asked;
mod invocation;
mod materials;
mod predicate;
mod steps;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::SystemTime;

use polyarch_oci::{Descriptor, Platform};
use polyarch_solver::{Graph, VertexId};

use crate::attest::{AskedRequest, ProvenanceOptions, SlsaVersion, ToldRequest};
use crate::definition::{Definition, LoweredDefinition, ToldFile, VertexKind};
use crate::error::{BuildError, ErrorKind};
use crate::frontend::{Frontend, LoweredPlatform};
use crate::ops::exec_mounts::ExecMount;
use crate::ops::{BuildOp, OpKind};
use crate::request::{BuildRequest, DockerfileSource as DockerfileFrom, NetworkMode};
use crate::tree::Tree;

pub(crate) use materials::{Material, package_url};
use steps::CapturedStep;

/// The frontend that was asked, by BuildKit's name.
const FRONTEND: &str = "dockerfile.v0";

/// What is known of how one platform's tree was made.
#[derive(Debug, Clone)]
pub(crate) struct Capture {
    /// The frontend that was asked, by BuildKit's name; empty where a client has written the steps itself.
    frontend: String,
    materials: Vec<Material>,
    /// The names of contexts that lie on somebody's disk: nothing names their content by a digest.
    locals: BTreeSet<String>,
    /// Where something was taken from that nobody has found out the digest of.
    unknown: BTreeSet<String>,
    /// Secrets by their identifiers, and whether each may be absent.
    secrets: BTreeMap<String, bool>,
    /// Agents, likewise.
    agents: BTreeMap<String, bool>,
    has_network: bool,
    /// What was asked, in the words of BuildKit's Dockerfile frontend.
    arguments: BTreeMap<String, String>,
    /// What was asked of the builds whose results this one takes in.
    inputs: BTreeMap<String, ToldRequest>,
    /// What was asked in the first place, where that was not this.
    root: Option<AskedRequest>,
    environment: BTreeMap<String, serde_json::Value>,
    steps: Vec<CapturedStep>,
    /// Which of the steps that made the result made a layer, the first one first; known when they are done.
    layers_made: Vec<bool>,
    source: Source,
    run: Option<Run>,
    /// The platform of the machine.
    builder: Platform,
}

/// What the steps were made of.
#[derive(Debug, Clone)]
enum Source {
    /// A Dockerfile.
    Dockerfile { name: String, text: Arc<str> },
    /// Files of a client's.
    Files(Arc<[ToldFile]>),
}

/// Which run of a build it was.
#[derive(Debug, Clone)]
struct Run {
    id: String,
    started: SystemTime,
}

impl Capture {
    /// Captures how a platform is built.
    pub(crate) fn new(
        frontend: &Frontend<'_>,
        graph: &Graph<BuildOp>,
        lowered: &LoweredPlatform,
        started: SystemTime,
    ) -> Capture {
        let request = frontend.request;
        let mut capture = Capture {
            frontend: FRONTEND.to_owned(),
            materials: [frontend.context.materials(), &lowered.materials].concat(),
            locals: invocation::locals(request),
            unknown: BTreeSet::new(),
            secrets: BTreeMap::new(),
            agents: BTreeMap::new(),
            has_network: false,
            arguments: invocation::arguments(request, &frontend.file_name),
            inputs: request.attestations.inputs.clone(),
            root: request.attestations.root.clone(),
            environment: request.attestations.environment.clone(),
            steps: steps::capture(graph, lowered.vertex),
            layers_made: Vec::new(),
            source: Source::Dockerfile { name: frontend.file_name.clone(), text: frontend.text.clone() },
            run: request.source_date_epoch.is_none().then(|| Run { id: invocation::run_id(), started }),
            builder: frontend.host.clone(),
        };
        for id in graph.reachable(&[lowered.vertex]) {
            if let OpKind::Context(op) = &graph.op(id).kind
                && !op.identity.is_empty()
            {
                capture.locals.insert(op.identity.clone());
            }
        }
        capture.note_steps(graph, lowered.vertex);
        capture
    }

    /// Captures how the tree of a client's definition is made.
    pub(crate) fn of_definition(
        definition: &Definition,
        request: &BuildRequest,
        lowered: &LoweredDefinition,
        started: SystemTime,
    ) -> Capture {
        let locals = definition.vertices.iter().filter_map(|vertex| match &vertex.kind {
            VertexKind::Directory { local, .. } => Some(local.clone()),
            _ => None,
        });
        let mut capture = Capture {
            frontend: String::new(),
            materials: lowered.materials.clone(),
            locals: locals.collect(),
            unknown: BTreeSet::new(),
            secrets: BTreeMap::new(),
            agents: BTreeMap::new(),
            has_network: false,
            arguments: BTreeMap::new(),
            inputs: BTreeMap::new(),
            root: None,
            environment: request.attestations.environment.clone(),
            steps: steps::capture_told(definition, lowered),
            layers_made: Vec::new(),
            source: Source::Files(definition.told.files.clone().into()),
            run: Some(Run { id: invocation::run_id(), started }),
            builder: Platform::host(),
        };
        capture.note_steps(&lowered.graph, lowered.target);
        capture
    }

    /// Notes what the steps that a target needs may know and reach.
    fn note_steps(&mut self, graph: &Graph<BuildOp>, target: VertexId) {
        for id in graph.reachable(&[target]) {
            match &graph.op(id).kind {
                OpKind::Exec(op) => {
                    self.has_network |= op.network != NetworkMode::None;
                    op.mounts.iter().for_each(|mount| self.note(mount));
                }
                OpKind::Built(op) => match &op.capture {
                    Some(made) => self.merge(made),
                    // Like a directory of somebody's it has no name that others could look up.
                    None => drop(self.locals.insert("input".to_owned())),
                },
                OpKind::Context(_)
                | OpKind::File(_)
                | OpKind::Image(_)
                | OpKind::Merge(_)
                | OpKind::Diff(_)
                | OpKind::Pick(_)
                | OpKind::Remote(_) => {}
            }
        }
    }

    /// Notes what a step may know: by its name, and never what it is.
    fn note(&mut self, mount: &ExecMount) {
        let (names, id, required) = match mount {
            ExecMount::Secret { id, required, .. } => (&mut self.secrets, id, *required),
            ExecMount::Ssh { id, required, .. } => (&mut self.agents, id, *required),
            ExecMount::Bind { .. }
            | ExecMount::Writable { .. }
            | ExecMount::Cache(_)
            | ExecMount::Tmpfs { .. } => return,
        };
        let is_optional = names.entry(id.clone()).or_insert(true);
        *is_optional &= !required;
    }

    /// Tells whether no frontend was asked: a client has written the steps itself.
    pub(crate) fn is_of_client(&self) -> bool {
        self.frontend.is_empty()
    }

    /// Takes in what another build took in, whose result is a part of this one.
    pub(crate) fn merge(&mut self, other: &Capture) {
        self.materials.extend_from_slice(&other.materials);
        self.locals.extend(other.locals.iter().cloned());
        self.unknown.extend(other.unknown.iter().cloned());
        for (own, others) in [(&mut self.secrets, &other.secrets), (&mut self.agents, &other.agents)] {
            for (id, is_optional) in others {
                *own.entry(id.clone()).or_insert(true) &= is_optional;
            }
        }
        self.has_network |= other.has_network;
    }

    /// Takes in images that a frontend has asked about.
    pub(crate) fn take(&mut self, images: impl IntoIterator<Item = Material>) {
        self.materials.extend(images);
    }

    /// Notes what became of the steps, and what was found where they looked.
    pub(crate) fn finished(&mut self, graph: &Graph<BuildOp>, target: VertexId, tree: &Tree) {
        self.layers_made = tree.steps.iter().map(|step| step.made_layer).collect();
        for id in graph.reachable(&[target]) {
            let OpKind::Remote(op) = &graph.op(id).kind else { continue };
            match op.material() {
                Some(material) => self.materials.push(material.clone()),
                None => drop(self.unknown.insert(op.source.shown())),
            }
        }
    }

    /// Returns what was asked of the frontend.
    pub(crate) fn asked(&self) -> ToldRequest {
        let asked = asked::Told::new(&self.frontend, &self.arguments, &self.materials, &self.inputs);
        ToldRequest(asked.value())
    }

    /// Refuses a build whose inputs are not all known by a digest, where the request wants that.
    ///
    /// # Errors
    /// Which inputs are not.
    pub(crate) fn check(&self, options: &ProvenanceOptions) -> Result<(), BuildError> {
        if !options.complete_materials || self.is_complete() {
            return Ok(());
        }
        let mut message = "provenance materials are incomplete\n\nThe build requested complete provenance \
                           materials, but not all dependencies could be captured."
            .to_owned();
        for (what, names, reason) in
            [("local sources", &self.locals, "local_source"), ("requests", &self.unknown, "missing_material")]
        {
            if !names.is_empty() {
                let names = names.iter().map(|name| format!("\n  - {name}\n    reason: {reason}"));
                message = format!("{message}\n\nUncaptured {what}:{}", names.collect::<String>());
            }
        }
        Err(BuildError::new(ErrorKind::Usage, message)
            .with_hint("build from a git URL, or leave out complete-materials=true"))
    }

    /// Tells whether all that the build took in has a digest.
    fn is_complete(&self) -> bool {
        self.locals.is_empty() && self.unknown.is_empty()
    }

    /// Writes the predicate; `layers` are those of the result, lowest first, where they became blobs.
    pub(crate) fn predicate(&self, options: &ProvenanceOptions, layers: &[Descriptor]) -> serde_json::Value {
        predicate::write(self, options, layers)
    }
}

impl BuildRequest {
    /// Returns what is asked in the words of BuildKit's Dockerfile frontend, without what is not told.
    pub fn frontend_attributes(&self) -> BTreeMap<String, String> {
        let name = match &self.dockerfile {
            DockerfileFrom::File(path) => path.file_name().map(|name| name.to_string_lossy().into_owned()),
            DockerfileFrom::InContext(name) => Some(name.clone()),
            DockerfileFrom::Default | DockerfileFrom::Text(_) | DockerfileFrom::Url(_) => None,
        };
        invocation::arguments(self, name.as_deref().unwrap_or("Dockerfile"))
    }
}

/// Returns the type of the predicate.
pub(crate) fn predicate_type(version: SlsaVersion) -> &'static str {
    match version {
        SlsaVersion::V02 => "https://slsa.dev/provenance/v0.2",
        SlsaVersion::V1 => "https://slsa.dev/provenance/v1",
    }
}
