// SPDX-License-Identifier: Apache-2.0
//! What a stage asks for.

use std::collections::{BTreeMap, BTreeSet};

use polyarch_dockerfile::{Environment, Outline, SurveyRequest, survey};
use polyarch_oci::Platform;

fn outline(source: &str, target: &str, build_args: &[(&str, &str)]) -> Outline {
    let platform = Platform::new("linux", "amd64", "");
    let given: Vec<(String, String)> =
        build_args.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let request = SurveyRequest {
        target: Some(target),
        all_stages: false,
        build_args: &given,
        platform_args: Environment::from_iter([("TARGETARCH", "amd64")]),
        build_platform: &platform,
        platforms: std::slice::from_ref(&platform),
        bases: &BTreeMap::new(),
        replaced: &BTreeSet::new(),
        ignored: None,
        with_own_rules: false,
    };
    Outline::of(&survey(source, &request).expect("the settings make sense"))
}

const SOURCE: &str = "\
ARG FLAVOUR=plain
ARG unused=${FLAVOUR}
# TAG is which one
ARG TAG=\"1-${FLAVOUR}\"
FROM base:${TAG} AS tools
# nothing about it
ARG NUMBER=1
# LEVEL is how far
ARG LEVEL=2
RUN --mount=type=secret,id=key,required --mount=type=cache,target=/root/.cache true
FROM other AS apart
ARG AWAY=1
RUN --mount=type=secret,id=away --mount=type=ssh true
FROM scratch AS below
ARG TARGETARCH
ARG GIVEN
# result is what comes out
FROM below AS result
ARG FLAVOUR
COPY --from=tools / /
RUN --mount=type=ssh,id=agent$LEVEL true
";

#[test]
fn arguments_of_the_target_and_of_what_it_needs() {
    let outline = outline(SOURCE, "result", &[("LEVEL", "3")]);
    assert_eq!(outline.name.as_deref(), Some("result"));
    assert_eq!(outline.description.as_deref(), Some("is what comes out"));
    let arguments: Vec<_> = outline
        .arguments
        .iter()
        .map(|it| (*it.lines.start(), it.name.as_str(), it.value.as_str(), it.description.as_deref()))
        .collect();
    assert_eq!(
        arguments,
        [
            (1, "FLAVOUR", "plain", None),
            (4, "TAG", "1-plain", Some("is which one")),
            (7, "NUMBER", "1", None),
            (9, "LEVEL", "3", Some("is how far")),
            (16, "GIVEN", "", None),
        ]
    );
}

#[test]
fn secrets_agents_and_caches() {
    let outline = outline(SOURCE, "result", &[]);
    let shown = |list: &[polyarch_dockerfile::outline::Wanted]| -> Vec<(u32, String, bool)> {
        list.iter().map(|it| (*it.lines.start(), it.id.clone(), it.is_required)).collect()
    };
    assert_eq!(shown(&outline.secrets), [(10, "key".to_owned(), true)]);
    // LEVEL belongs to another stage.
    assert_eq!(shown(&outline.agents), [(21, "agent".to_owned(), false)]);
    assert_eq!(shown(&outline.caches), [(10, "/root/.cache".to_owned(), false)]);
}

#[test]
fn an_argument_that_extends_itself_needs_what_it_was_made_of() {
    let source = "ARG A=1\nARG B=2\nARG A=${A}${B}\nFROM scratch AS s\nARG A\n";
    let arguments = outline(source, "s", &[]).arguments;
    let values: Vec<_> = arguments.iter().map(|it| (it.name.as_str(), it.value.as_str())).collect();
    assert_eq!(values, [("B", "2"), ("A", "12")]);
}
