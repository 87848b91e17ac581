// SPDX-License-Identifier: Apache-2.0
//! Predicates in the two forms of SLSA, with BuildKit's extensions.
//!
//! SLSA provenance v1 and v0.2, <https://slsa.dev/provenance>; what is BuildKit's own is in its
//! docs/attestations/slsa-definitions.md.

use std::time::SystemTime;

use polyarch_oci::Descriptor;
use serde_json::{Map, Value, json};

use super::asked::{Told, scrub};
use super::materials::{NamedMaterial, name_materials};
use super::{Capture, FRONTEND, invocation};
use crate::attest::{DOCKERFILE_VERSION, ProvenanceMode, ProvenanceOptions, SlsaVersion};

/// What both forms tell, each in its own words.
struct Facts<'a> {
    options: &'a ProvenanceOptions,
    materials: Vec<NamedMaterial>,
    /// Where the Dockerfile was found: `uri` and `digest`.
    source: Map<String, Value>,
    path: Option<String>,
    request: Value,
    environment: Map<String, Value>,
    build_config: Option<Value>,
    /// Identity, start and end of the run.
    run: Option<(String, String, String)>,
    extension: Map<String, Value>,
    is_request_complete: bool,
    is_complete: bool,
    is_hermetic: bool,
}

/// Writes a predicate.
pub(super) fn write(capture: &Capture, options: &ProvenanceOptions, layers: &[Descriptor]) -> Value {
    let facts = Facts::of(capture, options, layers);
    match options.version {
        SlsaVersion::V1 => facts.v1(),
        SlsaVersion::V02 => facts.v02(),
    }
}

impl<'a> Facts<'a> {
    fn of(capture: &Capture, options: &'a ProvenanceOptions, layers: &[Descriptor]) -> Facts<'a> {
        let mut told = Told::new(&capture.frontend, &capture.arguments, &capture.materials, &capture.inputs);
        let root = capture.root.as_ref().and_then(|root| {
            let arguments = invocation::filtered(&root.attributes);
            let root = Told::new(&root.frontend, &arguments, &capture.materials, &root.inputs);
            // A client that asked for nothing but this has said it.
            (!root.is_empty() && root != told).then(|| root.value())
        });
        let mut extension = Map::new();
        let vcs = told.take_vcs();
        if !vcs.is_empty() {
            extension.insert("vcs".to_owned(), json!(vcs));
        }
        let mut request = told.request();
        request.extend(root.map(|root| ("root".to_owned(), root)));
        // What was asked of a client's own frontend nobody here knows.
        let mut is_request_complete = !capture.is_of_client();
        let mut build_config = None;
        match options.mode {
            ProvenanceMode::Min => is_request_complete &= scrub(&mut request),
            ProvenanceMode::Max => {
                for (word, names) in [("secrets", &capture.secrets), ("ssh", &capture.agents)] {
                    let named: Vec<Value> =
                        names.iter().map(|(id, optional)| identified(id, *optional)).collect();
                    if !named.is_empty() {
                        request.insert(word.to_owned(), named.into());
                    }
                }
                build_config = Some(capture.build_config());
                extension.insert("source".to_owned(), capture.source_map());
                let layers = capture.step_layers(layers);
                if !layers.is_empty() {
                    extension.insert("layers".to_owned(), json!(layers));
                }
            }
        }
        if !capture.locals.is_empty() {
            let locals: Vec<Value> = capture.locals.iter().map(|name| json!({ "name": name })).collect();
            request.insert("locals".to_owned(), locals.into());
        }
        let is_complete = capture.is_complete();
        let now = SystemTime::now();
        Facts {
            options,
            materials: name_materials(&capture.materials),
            source: told.source,
            path: told.path,
            request: request.into(),
            environment: environment(capture),
            build_config,
            run: capture
                .run
                .as_ref()
                .map(|run| (run.id.clone(), time(run.started), time(now.max(run.started)))),
            extension,
            is_request_complete,
            is_complete,
            is_hermetic: is_complete && !capture.has_network,
        }
    }

    fn v1(self) -> Value {
        let mut source = self.source;
        source.extend(self.path.map(|path| ("path".to_owned(), path.into())));
        let mut internal = self.environment;
        internal.extend(self.build_config.map(|config| ("buildConfig".to_owned(), config)));
        let mut definition = json!({
            "buildType": "https://github.com/moby/buildkit/blob/master/docs/attestations/slsa-definitions.md",
            "externalParameters": { "configSource": source, "request": self.request },
            "internalParameters": internal,
        });
        if !self.materials.is_empty() {
            definition["resolvedDependencies"] = json!(self.materials);
        }
        let mut metadata = json!({
            "buildkit_metadata": self.extension,
            "buildkit_completeness": {
                "request": self.is_request_complete,
                "resolvedDependencies": self.is_complete,
            },
        });
        if let Some((id, started, finished)) = self.run {
            metadata["invocationId"] = id.into();
            metadata["startedOn"] = started.into();
            metadata["finishedOn"] = finished.into();
        }
        if self.is_hermetic {
            metadata["buildkit_hermetic"] = true.into();
        }
        if self.options.reproducible {
            metadata["buildkit_reproducible"] = true.into();
        }
        json!({
            "buildDefinition": definition,
            "runDetails": { "builder": { "id": self.options.builder_id }, "metadata": metadata },
        })
    }

    fn v02(self) -> Value {
        let mut source = self.source;
        source.extend(self.path.map(|path| ("entryPoint".to_owned(), path.into())));
        let mut environment = self.environment;
        if let Some(platform) = environment.remove("builderPlatform") {
            environment.insert("platform".to_owned(), platform);
        }
        let mut metadata = json!({
            "completeness": {
                "parameters": self.is_request_complete,
                "environment": true,
                "materials": self.is_complete,
            },
            "reproducible": self.options.reproducible,
            "https://mobyproject.org/buildkit@v1#metadata": self.extension,
        });
        if let Some((id, started, finished)) = self.run {
            metadata["buildInvocationID"] = id.into();
            metadata["buildStartedOn"] = started.into();
            metadata["buildFinishedOn"] = finished.into();
        }
        if self.is_hermetic {
            metadata["https://mobyproject.org/buildkit@v1#hermetic"] = true.into();
        }
        let mut predicate = json!({
            "builder": { "id": self.options.builder_id },
            "buildType": "https://mobyproject.org/buildkit@v1",
            "invocation": {
                "configSource": source,
                "parameters": self.request,
                "environment": environment,
            },
            "metadata": metadata,
        });
        if !self.materials.is_empty() {
            predicate["materials"] = json!(self.materials);
        }
        if let Some(config) = self.build_config {
            predicate["buildConfig"] = config;
        }
        predicate
    }
}

fn environment(capture: &Capture) -> Map<String, Value> {
    let mut environment: Map<String, Value> = capture.environment.clone().into_iter().collect();
    environment.insert("builderPlatform".to_owned(), capture.builder.to_string().into());
    if capture.frontend == FRONTEND {
        environment.insert("dockerfileVersion".to_owned(), DOCKERFILE_VERSION.into());
    }
    environment
}

fn identified(id: &str, is_optional: bool) -> Value {
    if is_optional { json!({ "id": id, "optional": true }) } else { json!({ "id": id }) }
}

fn time(time: SystemTime) -> String {
    jiff::Timestamp::try_from(time).unwrap_or_default().to_string()
}
