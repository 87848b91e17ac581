// SPDX-License-Identifier: Apache-2.0
//! The images that a build names: in its Dockerfile, its named contexts and its caches.
//!
//! What is found is what may be asked for on behalf of the build; nothing is looked up for it. Images that only
//! the triggers of a base name are not among them.

use polyarch_dockerfile::instruction::Arg;
use polyarch_dockerfile::{Dockerfile, Environment, Expander, InstructionKind};
use polyarch_oci::{Platform, Reference};

use crate::context::DockerfileText;
use crate::named_context::{ContextSource, NamedContext};
use crate::platform_args::platform_args;
use crate::remote_cache::CacheSource;
use crate::request::BuildRequest;
use crate::syntax;

/// Returns the images that a build names; `None` when its texts alone do not tell.
///
/// `platforms` are those that are built.
pub fn named_images(
    request: &BuildRequest,
    text: &DockerfileText,
    platforms: &[Platform],
) -> Option<Vec<Reference>> {
    if request.policies.given().is_some() || syntax::check(request, text).is_err() {
        // Either may turn a name into any other.
        return None;
    }
    let dockerfile = Dockerfile::parse_bytes(&text.bytes).ok()?;
    let mut names = Vec::new();
    names.extend(syntax::asked_image(request, text));
    for platform in platforms {
        // What builds may be this machine or one of the platform.
        for build in [&Platform::host(), platform] {
            let scope = global_scope(&dockerfile, request, build, platform)?;
            names.extend(names_of(&dockerfile, request, &scope, platform)?);
        }
    }
    let mut images: Vec<Reference> = names.iter().filter_map(|name| name.parse().ok()).collect();
    images.extend(request.contexts.iter().filter_map(|context| match &context.source {
        ContextSource::Image(reference) => Some(reference.clone()),
        _ => None,
    }));
    images.extend(request.cache.from.iter().filter_map(|source| match source {
        CacheSource::Registry(reference) => Some(reference.clone()),
        CacheSource::Directory { .. } | CacheSource::Client(_) => None,
    }));
    images.dedup();
    Some(images)
}

/// Returns what FROM, COPY and mounts name that is no stage and no named context.
fn names_of(
    dockerfile: &Dockerfile,
    request: &BuildRequest,
    scope: &Environment,
    platform: &Platform,
) -> Option<Vec<String>> {
    let is_context = |name: &str| NamedContext::find(&request.contexts, name, platform).is_some();
    let mut names = Vec::new();
    for stage in &dockerfile.stages {
        let from = stage.from.expand(&mut Expander::new(scope, dockerfile.escape)).ok()?;
        if dockerfile.stage_before(&from.image, stage.index).is_none() && !is_context(&from.image) {
            names.push(from.image);
        }
        for reference in stage.references() {
            if reference.text.contains('$') {
                return None;
            }
            if dockerfile.referenced_stage(reference.text).is_none() && !is_context(reference.text) {
                names.push(reference.text.to_owned());
            }
        }
    }
    names.retain(|name| name != "scratch");
    Some(names)
}

/// Evaluates the arguments before the first FROM.
fn global_scope(
    dockerfile: &Dockerfile,
    request: &BuildRequest,
    build: &Platform,
    target: &Platform,
) -> Option<Environment> {
    let given = |name: &str| {
        let mut args = request.build_args.iter().rev();
        args.find(|(given, _)| given == name).map(|(_, value)| value.clone())
    };
    let last = dockerfile.stages.last().and_then(|stage| stage.name.as_deref());
    let stage = request.target.as_deref().or(last).unwrap_or("default");
    let mut scope = Environment::new();
    for (name, value) in platform_args(build, target, stage) {
        let value = given(&name).unwrap_or(value);
        scope.set(name, value);
    }
    for instruction in &dockerfile.global_args {
        let InstructionKind::Arg(Arg { definitions }) = &instruction.kind else { continue };
        for definition in definitions {
            let value = match (given(&definition.name), &definition.default) {
                (Some(given), _) => Some(given),
                (None, Some(default)) => Some(Expander::new(&scope, dockerfile.escape).word(default).ok()?),
                (None, None) => None,
            };
            if let Some(value) = value {
                scope.set(&definition.name, value);
            }
        }
    }
    Some(scope)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::{Context, DockerfileSource, ImageOptions, NetworkMode, PullPolicy, StepOptions};

    fn request() -> BuildRequest {
        BuildRequest {
            context: Context::Empty,
            contexts: Vec::new(),
            dockerfile: DockerfileSource::Default,
            platforms: Vec::new(),
            names: Vec::new(),
            keeps_names: true,
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
            image: ImageOptions::default(),
            attestations: Default::default(),
            verify: true,
            max_parallel: 0,
            threads: 0,
        }
    }

    fn named(text: &str, change: impl FnOnce(&mut BuildRequest)) -> Option<Vec<String>> {
        let mut request = request();
        change(&mut request);
        let text = DockerfileText { name: "Dockerfile".to_owned(), bytes: text.as_bytes().to_vec() };
        let images = named_images(&request, &text, &["linux/s390x".parse().unwrap()])?;
        Some(images.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn images_are_found_wherever_a_build_names_them() {
        let text = "# syntax=mirror.example/docker/dockerfile:1\n\
            ARG HOST=one.example\nARG BASE=$HOST/base\n\
            FROM $BASE:$TARGETARCH AS base\nFROM scratch AS empty\nFROM base\n\
            COPY --from=0 /a /\nCOPY --from=empty /a /\nCOPY --from=tools /a /\n\
            COPY --from=two.example/files /a /\nRUN --mount=from=three.example/m,target=/m true\n";
        let images = named(text, |request| {
            let context = NamedContext {
                name: "tools".to_owned(),
                platform: None,
                source: ContextSource::parse("docker-image://four.example/tools").unwrap().unwrap(),
            };
            request.contexts.push(context);
            request.cache.from.push(CacheSource::Registry("five.example/cache".parse().unwrap()));
        });
        let mut images = images.unwrap();
        images.sort();
        images.dedup();
        let expected = [
            "five.example/cache",
            "four.example/tools:latest",
            "mirror.example/docker/dockerfile:1",
            "one.example/base:s390x",
            "three.example/m",
            "two.example/files",
        ];
        assert_eq!(images, expected);
    }

    #[test]
    fn an_argument_decides_and_what_a_text_does_not_tell_is_not_known() {
        let text = "ARG HOST=one.example\nFROM $HOST/base\n";
        let given = named(text, |request| request.build_args.push(("HOST".into(), "two.example".into())));
        assert_eq!(given.unwrap()[0], "two.example/base");
        assert_eq!(named("FROM scratch\nRUN --mount=from=$X,target=/m true\n", |_| ()), None);
        assert_eq!(named("# syntax=other.example/frontend\nanything", |_| ()), None);
        assert_eq!(named("FROM", |_| ()), None);
    }
}
