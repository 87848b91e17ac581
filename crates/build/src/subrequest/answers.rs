// SPDX-License-Identifier: Apache-2.0
//! The answers, as JSON in BuildKit's shapes and as the text that its clients print.

use std::ops::RangeInclusive;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use polyarch_dockerfile::{Dockerfile, Finding, Outline, Survey, render_excerpt};
use polyarch_oci::json::to_indented;
use serde::Serialize;

use super::text::table;
use super::{Subrequest, SubrequestResult, VERSION};
use crate::context::DockerfileText;
use crate::error::BuildError;

fn finish(answer: &impl Serialize, text: String) -> SubrequestResult {
    SubrequestResult {
        // What is serialized here is text.
        json: String::from_utf8_lossy(&to_indented(answer, "  ")).into_owned(),
        text,
        status_code: None,
        finding_count: 0,
        build_error: None,
    }
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

fn is_false(value: &bool) -> bool {
    !value
}

#[derive(Serialize)]
struct Position {
    #[serde(skip_serializing_if = "is_zero")]
    line: u32,
}

#[derive(Serialize)]
struct Range {
    start: Position,
    end: Position,
}

#[derive(Serialize, Default)]
struct Location {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ranges: Vec<Range>,
}

impl Location {
    /// As BuildKit: each line by itself.
    fn of(lines: RangeInclusive<u32>) -> Location {
        let range = |line| Range { start: Position { line }, end: Position { line } };
        Location { ranges: lines.map(range).collect() }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Warning {
    rule_name: &'static str,
    description: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    url: &'static str,
    detail: String,
    location: Location,
    /// Ours: the lines as they could be.
    #[serde(skip_serializing_if = "Option::is_none")]
    mended: Option<String>,
}

#[derive(Serialize)]
struct Source {
    filename: String,
    data: String,
    language: &'static str,
}

#[derive(Serialize)]
struct FailedBuild {
    message: String,
    location: Location,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LintJson {
    warnings: Option<Vec<Warning>>,
    sources: Vec<Source>,
    #[serde(skip_serializing_if = "Option::is_none")]
    build_error: Option<FailedBuild>,
}

/// What rules found.
pub(super) struct LintAnswer {
    json: LintJson,
    text: String,
    error: Option<BuildError>,
}

impl LintAnswer {
    pub(super) fn new(text: &DockerfileText, survey: &Survey, error: Option<BuildError>) -> LintAnswer {
        let warning = |finding: &Finding| Warning {
            rule_name: finding.rule.name,
            description: finding.rule.description,
            url: finding.rule.url,
            detail: finding.detail.clone(),
            location: Location::of(finding.lines.clone()),
            mended: finding.mended.clone(),
        };
        let warnings: Vec<Warning> = survey.findings.iter().map(warning).collect();
        let source = Source {
            filename: text.name.clone(),
            data: STANDARD.encode(&text.bytes),
            language: "Dockerfile",
        };
        let build_error = error.as_ref().map(|error| FailedBuild {
            message: error.to_string(),
            location: error
                .location
                .as_ref()
                .map_or_else(Location::default, |location| Location::of(location.lines.clone())),
        });
        let json = LintJson {
            warnings: Some(warnings).filter(|warnings| !warnings.is_empty()),
            sources: vec![source],
            build_error,
        };
        let mut findings: Vec<&Finding> = survey.findings.iter().collect();
        findings.sort_by_key(|finding| *finding.lines.start());
        let lossy = String::from_utf8_lossy(&text.bytes);
        LintAnswer {
            json,
            text: findings.into_iter().map(|it| shown(it, &text.name, &lossy)).collect(),
            error,
        }
    }

    pub(super) fn finish(self) -> SubrequestResult {
        let finding_count = self.json.warnings.as_ref().map_or(0, Vec::len);
        let status_code = Some(u8::from(finding_count > 0 || self.error.is_some()));
        SubrequestResult {
            status_code,
            finding_count,
            build_error: self.error,
            ..finish(&self.json, self.text)
        }
    }
}

fn shown(finding: &Finding, file: &str, source: &str) -> String {
    let mut text = format!("\nWARNING: {}", finding.rule.name);
    if !finding.rule.url.is_empty() {
        text.push_str(" - ");
        text.push_str(finding.rule.url);
    }
    text.push_str(&format!("\n{}\n", finding.detail));
    text.push_str(&render_excerpt(file, source, finding.lines.clone()));
    if let Some(mended) = &finding.mended {
        text.push_str("better:\n");
        mended.lines().for_each(|line| text.push_str(&format!("      | {line}\n")));
    }
    text
}

#[derive(Serialize)]
struct ArgumentJson {
    name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    description: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    value: String,
    location: Location,
}

#[derive(Serialize)]
struct WantedJson {
    name: String,
    #[serde(skip_serializing_if = "is_false")]
    required: bool,
    location: Location,
}

#[derive(Serialize)]
struct CacheJson {
    #[serde(rename = "ID")]
    id: String,
    location: Location,
}

/// What can be given to a build.
#[derive(Serialize)]
pub(super) struct OutlineAnswer {
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    description: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    args: Vec<ArgumentJson>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    secrets: Vec<WantedJson>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ssh: Vec<WantedJson>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cache: Vec<CacheJson>,
    sources: Vec<String>,
}

impl OutlineAnswer {
    pub(super) fn new(text: &DockerfileText, outline: &Outline) -> OutlineAnswer {
        let wanted = |wanted: &polyarch_dockerfile::outline::Wanted| WantedJson {
            name: wanted.id.clone(),
            required: wanted.is_required,
            location: Location::of(wanted.lines.clone()),
        };
        let argument = |argument: &polyarch_dockerfile::outline::Argument| ArgumentJson {
            name: argument.name.clone(),
            description: argument.description.clone().unwrap_or_default(),
            value: argument.value.clone(),
            location: Location::of(argument.lines.clone()),
        };
        let cache = |wanted: &polyarch_dockerfile::outline::Wanted| CacheJson {
            id: wanted.id.clone(),
            location: Location::of(wanted.lines.clone()),
        };
        OutlineAnswer {
            name: outline.name.clone().unwrap_or_default(),
            description: outline.description.clone().unwrap_or_default(),
            args: outline.arguments.iter().map(argument).collect(),
            secrets: outline.secrets.iter().map(wanted).collect(),
            ssh: outline.agents.iter().map(wanted).collect(),
            cache: outline.caches.iter().map(cache).collect(),
            sources: vec![STANDARD.encode(&text.bytes)],
        }
    }

    pub(super) fn finish(self) -> SubrequestResult {
        let mut text = String::new();
        if !self.name.is_empty() || !self.description.is_empty() {
            let name = if self.name.is_empty() { "(default)" } else { &self.name };
            let mut rows = vec![vec!["TARGET:".to_owned(), name.to_owned()]];
            if !self.description.is_empty() {
                rows.push(vec!["DESCRIPTION:".to_owned(), self.description.clone()]);
            }
            text.push_str(&format!("{}\n", table(&rows, 1)));
        }
        if !self.args.is_empty() {
            let mut rows = vec![["BUILD ARG", "VALUE", "DESCRIPTION"].map(str::to_owned).to_vec()];
            rows.extend(self.args.iter().map(|argument| {
                vec![argument.name.clone(), argument.value.clone(), argument.description.clone()]
            }));
            text.push_str(&format!("{}\n", table(&rows, 3)));
        }
        for (title, list) in [("SECRET", &self.secrets), ("SSH", &self.ssh)] {
            if !list.is_empty() {
                let mut rows = vec![vec![title.to_owned(), "REQUIRED".to_owned()]];
                let required = |is_required| if is_required { "true" } else { "" }.to_owned();
                rows.extend(list.iter().map(|wanted| vec![wanted.name.clone(), required(wanted.required)]));
                text.push_str(&format!("{}\n", table(&rows, 3)));
            }
        }
        finish(&self, text)
    }
}

#[derive(Serialize)]
struct TargetJson {
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(skip_serializing_if = "is_false")]
    default: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    description: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    base: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    platform: String,
    location: Location,
}

/// Which stages there are.
#[derive(Serialize)]
pub(super) struct TargetsAnswer {
    targets: Vec<TargetJson>,
    sources: Vec<String>,
}

impl TargetsAnswer {
    pub(super) fn new(text: &DockerfileText, dockerfile: &Dockerfile) -> TargetsAnswer {
        let last = dockerfile.stages.len().saturating_sub(1);
        let target = |stage: &polyarch_dockerfile::Stage| TargetJson {
            name: stage.name.clone().unwrap_or_default(),
            default: stage.index == last,
            description: stage.description.clone().unwrap_or_default(),
            base: stage.from.image.clone(),
            platform: stage.from.platform.clone().unwrap_or_default(),
            location: Location::of(stage.span.lines()),
        };
        TargetsAnswer {
            targets: dockerfile.stages.iter().map(target).collect(),
            sources: vec![STANDARD.encode(&text.bytes)],
        }
    }

    pub(super) fn finish(self) -> SubrequestResult {
        let mut rows = vec![vec!["TARGET".to_owned(), "DESCRIPTION".to_owned()]];
        rows.extend(self.targets.iter().map(|target| {
            let name = match (target.name.as_str(), target.default) {
                ("", true) => "(default)".to_owned(),
                (name, true) => format!("{name} (default)"),
                (name, false) => name.to_owned(),
            };
            vec![name, target.description.clone()]
        }));
        finish(&self, table(&rows, 1))
    }
}

#[derive(Serialize)]
struct Named {
    name: &'static str,
    description: &'static str,
}

/// A question that can be asked. The lists that BuildKit has none for are null.
#[derive(Serialize)]
struct Question {
    name: &'static str,
    version: &'static str,
    #[serde(rename = "type")]
    kind: &'static str,
    description: &'static str,
    opts: Option<Vec<Named>>,
    inputs: Option<Vec<Named>>,
    metadata: Vec<Named>,
    refs: Option<Vec<Named>>,
}

/// Lists the questions that BuildKit lists: rules are asked for without being listed.
pub(super) fn describe() -> SubrequestResult {
    let question = |subrequest: Subrequest, description, opts| Question {
        name: subrequest.request_id(),
        version: VERSION,
        kind: "rpc",
        description,
        opts,
        inputs: None,
        metadata: ["result.json", "result.txt"].map(|name| Named { name, description: "" }).into(),
        refs: None,
    };
    let target = Named { name: "target", description: "Target build stage" };
    let questions = vec![
        question(
            Subrequest::Outline,
            "List all parameters current build target supports",
            Some(vec![target]),
        ),
        question(Subrequest::Targets, "List all targets current build supports", Some(Vec::new())),
        question(Subrequest::Describe, "List available subrequest types", None),
    ];
    let mut rows = vec![["NAME", "VERSION", "DESCRIPTION"].map(str::to_owned).to_vec()];
    rows.extend(questions.iter().map(|it| {
        [it.name.trim_start_matches("frontend."), it.version, it.description].map(str::to_owned).to_vec()
    }));
    let text = table(&rows, 1);
    finish(&questions, text)
}
