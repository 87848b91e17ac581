// SPDX-License-Identifier: Apache-2.0
//! The Dockerfile frontend for clients: attributes in, trees and what is known of them out.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use polyarch_build::attest::{AskedRequest, Attestations, ToldRequest};
use polyarch_build::{BuildError, ErrorKind, Subrequest, SubrequestOptions};
use polyarch_oci::{ImageConfig, Platform};
use serde_json::json;
use tonic::Status;

use crate::api::llb::Definition;
use crate::server::Server;
use crate::server::attributes::{granted, request_of, wrong};
use crate::server::builds::Build;
use crate::server::cache::remote_cache;
use crate::server::contexts::load;
use crate::server::errors::{status_of, unsupported_capability, unsupported_request};
use crate::server::exporters::TIME_KEY;
use crate::server::results::{Evaluation, ResultTree, Solved};
use crate::server::secrets::ClientSecrets;

/// What our frontend is called.
const DOCKERFILE: &str = "dockerfile.v0";
/// What clients may need of it.
const CAPABILITIES: [&str; 3] = [
    "moby.buildkit.frontend.inputs",
    "moby.buildkit.frontend.contexts",
    "moby.buildkit.frontend.subrequests",
];
/// The most inputs of a build.
const MAX_INPUTS: usize = 1_000;
/// What runs an image as frontend; those of the Dockerfile are ours.
const GATEWAY: &str = "gateway.v0";

impl Server {
    /// Runs a frontend.
    pub(super) async fn run_frontend(
        &self,
        build: &Arc<Build>,
        frontend: &str,
        attributes: &BTreeMap<String, String>,
        inputs: &BTreeMap<String, Definition>,
    ) -> Result<Solved, Status> {
        let mut attributes = attributes.clone();
        match frontend {
            DOCKERFILE => {}
            GATEWAY => check_image(&attributes.remove("source").unwrap_or_default())?,
            other => return Err(Status::not_found(format!("frontend {other} not found"))),
        }
        let subrequest = match attributes.get("requestid") {
            None => None,
            Some(id) => Some(Subrequest::parse(id).ok_or_else(|| unsupported_request(id))?),
        };
        check_capabilities(attributes.get("frontend.caps").map_or("", String::as_str))?;
        let attributes = &attributes;
        let inputs = Inputs::read(self, build, inputs, attributes).await?;
        let solving = async {
            match subrequest {
                Some(subrequest) => self.question(build, subrequest, attributes, &inputs).await,
                None => self.dockerfile(build, attributes, &inputs).await,
            }
        };
        let solved = tokio::select! {
            solved = solving => solved,
            () = build.cancel.cancelled() => Err(BuildError::cancelled()),
        };
        solved.map_err(|error| status_of(&error))
    }

    /// Answers a question about the Dockerfile, in the metadata of a result that has no trees.
    async fn question(
        &self,
        build: &Arc<Build>,
        subrequest: Subrequest,
        attributes: &BTreeMap<String, String>,
        inputs: &Inputs,
    ) -> Result<Solved, BuildError> {
        let mut request = request_of(attributes, Vec::new())?;
        // What can be asked does not depend on the Dockerfile, which need not be there.
        let loaded = match subrequest {
            Subrequest::Describe => None,
            _ => Some(load(build, &self.0.sessions, attributes, inputs).await?),
        };
        if let Some(loaded) = &loaded {
            (request.context, request.dockerfile) = (loaded.context.clone(), loaded.dockerfile.clone());
            request.contexts.clone_from(&loaded.contexts);
            request.policies.clone_from(&loaded.policies);
        }
        // Clients know BuildKit's rules and no others.
        let options = SubrequestOptions { with_own_rules: false };
        let answer = build.services.subrequest(subrequest, &request, options, &build.progress()).await?;
        let metadata = answer.metadata().into_iter().map(|(key, value)| (key.to_owned(), value));
        Ok(Solved { metadata: metadata.collect(), ..Solved::default() })
    }

    async fn dockerfile(
        &self,
        build: &Arc<Build>,
        attributes: &BTreeMap<String, String>,
        inputs: &Inputs,
    ) -> Result<Solved, BuildError> {
        let options = &self.0.options;
        let entitlements = granted(&build.request.entitlements, &options.entitlements)?;
        let mut request = request_of(attributes, entitlements)?;
        (request.max_parallel, request.threads) = (options.max_parallel, options.threads);
        if request.platforms.is_empty() {
            request.platforms.push(Platform::host());
        }
        let loaded = load(build, &self.0.sessions, attributes, inputs).await?;
        (request.context, request.dockerfile) = (loaded.context.clone(), loaded.dockerfile.clone());
        request.contexts.clone_from(&loaded.contexts);
        request.policies.clone_from(&loaded.policies);
        self.attest(build, &mut request.attestations, inputs)?;
        let sockets = build.services.scratch()?;
        if let Some(session) = &build.session {
            let secrets = ClientSecrets::new(session.clone(), sockets.path().to_owned());
            request.steps.secrets = Arc::new(secrets);
        }
        request.cache = remote_cache(build, attributes, &[])?;
        let (progress, cancel) = (build.progress(), &build.cancel);
        let evaluated = build.services.evaluate(&request, &progress, cancel).await?;
        solved_of(Evaluation { request, evaluated })
    }
}

impl Server {
    /// Fills in what is attested: what the build's client asked for, whatever its frontend says, and what was
    /// asked in the first place.
    fn attest(
        &self,
        build: &Build,
        attestations: &mut Attestations,
        inputs: &Inputs,
    ) -> Result<(), BuildError> {
        let asked = &build.request;
        let of_build = crate::server::attributes::attestations(build)?;
        attestations.provenance = of_build.provenance;
        attestations.sbom = attestations.sbom.take().or(of_build.sbom);
        attestations.inputs = inputs.asked();
        // What an input's own build has forgotten is not told.
        let told = asked
            .frontend_inputs
            .iter()
            .filter_map(|(name, definition)| Some((name.clone(), self.result_of(definition)?)));
        attestations.root = Some(AskedRequest {
            frontend: asked.frontend.clone(),
            attributes: asked.frontend_attrs.clone(),
            inputs: Inputs(told.collect()).asked(),
        });
        Ok(())
    }
}

/// Puts trees into the form of a frontend's result.
fn solved_of(evaluation: Evaluation) -> Result<Solved, BuildError> {
    let is_map = evaluation.request.image.always_index || evaluation.request.platforms.len() > 1;
    let evaluation = Arc::new(evaluation);
    let mut solved = Solved { is_map, ..Solved::default() };
    let mut platforms = Vec::new();
    for (number, platform) in evaluation.evaluated.platforms().enumerate() {
        let name = platform.to_string();
        let config = evaluation.evaluated.config(number).map(serde_json::to_vec);
        let config = config.transpose().map_err(|error| {
            BuildError::new(ErrorKind::Usage, format!("the image's config can't be written: {error}"))
        })?;
        let key = match is_map {
            true => format!("containerimage.config/{name}"),
            false => "containerimage.config".to_owned(),
        };
        solved.metadata.insert(key, config.unwrap_or_default());
        if let Some(time) = evaluation.evaluated.source_date_epoch() {
            let key = if is_map { format!("{TIME_KEY}/{name}") } else { TIME_KEY.to_owned() };
            solved.metadata.insert(key, time.to_string().into_bytes());
        }
        platforms.push(json!({ "ID": name, "Platform": platform }));
        let tree = ResultTree { evaluation: evaluation.clone(), platform: number };
        solved.trees.push((if is_map { name } else { String::new() }, tree));
    }
    let platforms = json!({ "Platforms": platforms }).to_string().into_bytes();
    solved.metadata.insert("refs.platforms".to_owned(), platforms);
    Ok(solved)
}

/// The results of other builds that a build takes as inputs, by name.
#[derive(Default)]
pub(super) struct Inputs(BTreeMap<String, ResultTree>);

impl Inputs {
    async fn read(
        server: &Server,
        build: &Arc<Build>,
        definitions: &BTreeMap<String, Definition>,
        attributes: &BTreeMap<String, String>,
    ) -> Result<Inputs, Status> {
        if definitions.len() > MAX_INPUTS {
            return Err(Status::invalid_argument(format!("a build has at most {MAX_INPUTS} inputs")));
        }
        let mut inputs = Inputs::default();
        for (name, definition) in definitions {
            let mut tree = server.tree_of(build, definition, &[]).await?;
            if let Some(config) = input_config(name, attributes).map_err(|error| status_of(&error))? {
                tree = tree.with_config(config);
            }
            inputs.0.insert(name.clone(), tree);
        }
        Ok(inputs)
    }

    /// Returns what was asked of the builds that made them.
    fn asked(&self) -> BTreeMap<String, ToldRequest> {
        let asked = |tree: &ResultTree| tree.evaluation.evaluated.built_tree(tree.platform)?.asked();
        self.0.iter().filter_map(|(name, tree)| Some((name.clone(), asked(tree)?))).collect()
    }

    /// Returns an input.
    pub(super) fn get(&self, name: &str) -> Option<&ResultTree> {
        self.0.get(name)
    }
}

/// Returns the config that a client tells of an input: `input-metadata:NAME`, where NAME is that of a context
/// that is the input.
fn input_config(
    input: &str,
    attributes: &BTreeMap<String, String>,
) -> Result<Option<ImageConfig>, BuildError> {
    let is_input = |value: &String| value.strip_prefix("input:") == Some(input);
    let contexts = attributes.iter().filter(|(_, value)| is_input(value));
    let mut names = contexts.filter_map(|(key, _)| key.strip_prefix("context:"));
    let told = names.find_map(|name| attributes.get(&format!("input-metadata:{name}")));
    let Some(text) = told.or_else(|| attributes.get(&format!("input-metadata:{input}"))) else {
        return Ok(None);
    };
    let failed = |what: String| wrong(format!("failed to unmarshal metadata of the input {input}: {what}"));
    let metadata: BTreeMap<String, String> =
        serde_json::from_str(text).map_err(|error| failed(error.to_string()))?;
    let Some(config) = metadata.get("containerimage.config") else { return Ok(None) };
    let config = STANDARD.decode(config).map_err(|error| failed(error.to_string()))?;
    serde_json::from_slice(&config).map(Some).map_err(|error| failed(error.to_string()))
}

/// Refuses what a client needs of a frontend and ours has not, in the form that clients look for.
fn check_capabilities(list: &str) -> Result<(), Status> {
    let wanted = list.split(',').map(|name| name.trim().trim_end_matches("+forward"));
    let missing = wanted.filter(|name| !name.is_empty()).find(|name| !CAPABILITIES.contains(name));
    match missing {
        None => Ok(()),
        Some(name) => Err(unsupported_capability(name)),
    }
}

/// Accepts images that are BuildKit's own Dockerfile frontend: what they do is done here.
fn check_image(source: &str) -> Result<(), Status> {
    let name = source.split(['@', ':']).next().unwrap_or_default();
    let name = name.strip_prefix("docker.io/").unwrap_or(name);
    match name {
        DOCKERFILE | "docker/dockerfile" | "docker/dockerfile-upstream" => Ok(()),
        _ => Err(status_of(
            &wrong(format!("the frontend {source:?} can't be run: images as frontends are not supported"))
                .with_hint("docker/dockerfile is built in"),
        )),
    }
}
