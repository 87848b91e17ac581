// SPDX-License-Identifier: Apache-2.0
//! `SOURCE_DATE_EPOCH`: a number of seconds, or what tells the time: `context`, a named context, or a stage that
//! does nothing but ADD one remote source.
//!
//! It is the build argument of that name, or else the default of a global ARG. A source that tells no time, a
//! directory for one, leaves the build without.

use polyarch_dockerfile::instruction::{Add, Source};
use polyarch_dockerfile::{Environment, Expander, InstructionKind, Span, Stage};
use polyarch_oci::Platform;
use polyarch_solver::CancelFlag;

use super::Frontend;
use super::args::value_of;
use crate::error::{BuildError, ErrorKind};
use crate::fetch::blocking;
use crate::named_context::ContextSource;
use crate::remote::{GitReference, GitSource, RemoteSource, WebSource, is_git, is_http, redacted};

/// The name of the argument.
pub(crate) const SOURCE_DATE_EPOCH: &str = "SOURCE_DATE_EPOCH";

/// What the argument came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SourceDateEpoch {
    /// In seconds since 1970; `None` when nobody tells a time.
    pub(crate) seconds: Option<i64>,
    /// The same as the Dockerfile sees it.
    pub(super) text: Option<String>,
}

impl SourceDateEpoch {
    fn new(seconds: Option<i64>) -> SourceDateEpoch {
        SourceDateEpoch { seconds, text: seconds.map(|seconds| seconds.to_string()) }
    }
}

impl Frontend<'_> {
    /// Finds out what the argument means; `None` when nobody gave it.
    pub(crate) async fn find_source_date_epoch(&self) -> Result<Option<SourceDateEpoch>, BuildError> {
        let platform = self.request.platforms.first().unwrap_or(&self.host);
        let definition = self.dockerfile.global_args.iter().find(|instruction| match &instruction.kind {
            InstructionKind::Arg(arg) => arg.definitions.iter().any(|it| it.name == SOURCE_DATE_EPOCH),
            _ => false,
        });
        let (value, span) = match (self.build_arg(SOURCE_DATE_EPOCH), definition) {
            (Some(given), _) => (given.to_owned(), None),
            (None, Some(definition)) => {
                let value = value_of(&self.global_scope(platform)?, SOURCE_DATE_EPOCH);
                (value.unwrap_or_default(), Some(definition.span))
            }
            (None, None) => return Ok(None),
        };
        if value.is_empty() {
            return Ok(None);
        }
        if let Ok(seconds) = value.parse() {
            return Ok(Some(SourceDateEpoch::new(Some(seconds))));
        }
        let seconds = self.time_of(&value, platform).await.map_err(|error| match span {
            Some(span) if error.location.is_none() => error.at(self.location(span)),
            _ => error,
        })?;
        Ok(Some(SourceDateEpoch::new(seconds)))
    }

    /// Returns the time that a name stands for.
    async fn time_of(&self, name: &str, platform: &Platform) -> Result<Option<i64>, BuildError> {
        if name == "context" {
            let context = self.context.clone();
            return Ok(blocking(move || context.time().seconds()).await);
        }
        if let Some(context) = self.named_context(name, platform) {
            return match &context.source {
                ContextSource::Git(url) => {
                    let source = git_source(url)?;
                    self.time_of_source(&RemoteSource::Git(source), url).await
                }
                ContextSource::Http(url) => {
                    let source =
                        WebSource { url: url.clone(), file_name: "context".to_owned(), checksum: None };
                    self.time_of_source(&RemoteSource::Web(source), url).await
                }
                ContextSource::Directory(_)
                | ContextSource::Distant(_)
                | ContextSource::Scratch
                | ContextSource::Image(_)
                | ContextSource::OciLayout { .. }
                | ContextSource::StoredLayout(_)
                | ContextSource::Built(_) => Ok(None),
            };
        }
        let mut stages = self.dockerfile.stages.iter();
        let named = |stage: &&Stage| stage.name.as_ref().is_some_and(|it| it.eq_ignore_ascii_case(name));
        if let Some(stage) = stages.find(named) {
            let (source, url) = self.source_of_stage(stage, platform)?;
            return self.time_of_source(&source, &url).await;
        }
        Err(BuildError::new(ErrorKind::Dockerfile, format!("invalid SOURCE_DATE_EPOCH: {name}")).with_hint(
            "give seconds since 1970, `context`, or the name of a named context or of a stage that ADDs one URL",
        ))
    }

    async fn time_of_source(&self, source: &RemoteSource, url: &str) -> Result<Option<i64>, BuildError> {
        let shown = redacted(url);
        let vertex = self.progress.begin(
            &format!("source date epoch {shown}"),
            format!("[internal] resolve SOURCE_DATE_EPOCH of {shown}"),
        );
        let secrets = self.request.steps.secrets.clone();
        let source = self.permitted_remote(source.clone())?;
        // Dropping this future, as an interrupted build does, ends what it began.
        match source.time(&self.services, &secrets, &CancelFlag::default()).await {
            Ok(seconds) => {
                vertex.done();
                Ok(seconds)
            }
            Err(error) => {
                vertex.failed(&error);
                Err(error)
            }
        }
    }

    /// Returns the only source of a stage that is nothing but one.
    fn source_of_stage(
        &self,
        stage: &Stage,
        platform: &Platform,
    ) -> Result<(RemoteSource, String), BuildError> {
        let refused = |problem: &str, span: Span| {
            let message = format!("SOURCE_DATE_EPOCH stage {problem}");
            BuildError::new(ErrorKind::Dockerfile, message).at(self.location(span))
        };
        let global = self.global_scope(platform)?;
        let global: Environment = global.iter().filter(|(name, _)| *name != SOURCE_DATE_EPOCH).collect();
        if self.expand_from(stage.index, &global)?.image != "scratch" {
            return Err(refused("must use FROM scratch", stage.span));
        }
        // Nothing is executed here, so the stage need not declare what it uses.
        let mut scope = global.clone();
        let mut found = None;
        for instruction in &stage.instructions {
            match &instruction.kind {
                InstructionKind::Arg(arg) => {
                    for definition in &arg.definitions {
                        let value = self.arg_value(definition, &scope, Some(&global), instruction.span)?;
                        if let Some(value) = value {
                            scope.set(&definition.name, value);
                        }
                    }
                }
                InstructionKind::Add(_) if found.is_some() => {
                    return Err(refused("must contain exactly one remote ADD", stage.span));
                }
                InstructionKind::Add(_) => {
                    let expanded = instruction
                        .expand(&mut Expander::new(&scope, self.dockerfile.escape))
                        .map_err(|error| self.expand_error(&error, instruction.span))?;
                    let InstructionKind::Add(add) = &expanded.kind else { continue };
                    let source =
                        source_of_add(add).map_err(|error| error.at(self.location(instruction.span)))?;
                    found = Some(source.ok_or_else(|| {
                        refused("source must be a single HTTP(S) or Git ADD", instruction.span)
                    })?);
                }
                _ => {
                    let problem = format!(
                        "does not meet source-only requirements: unsupported {} instruction",
                        instruction.name()
                    );
                    return Err(refused(&problem, instruction.span));
                }
            }
        }
        found.ok_or_else(|| refused("must contain exactly one remote ADD", stage.span))
    }
}

/// Reads the URL of a repository.
fn git_source(url: &str) -> Result<GitSource, BuildError> {
    let wrong = |problem: String| BuildError::new(ErrorKind::Dockerfile, problem);
    let reference = GitReference::parse(url).map_err(|error| wrong(error.to_string()))?;
    let reference = reference.ok_or_else(|| wrong(format!("{url} is no git repository")))?;
    Ok(GitSource { reference, keep_git_dir: false })
}

/// Returns the source of an ADD with one that is remote.
fn source_of_add(add: &Add) -> Result<Option<(RemoteSource, String)>, BuildError> {
    let [Source::Path(url)] = add.sources.as_slice() else { return Ok(None) };
    let checksum = add.checksum.as_ref().filter(|checksum| !checksum.is_empty());
    if is_git(url) {
        let mut source = git_source(url)?;
        if let Some(checksum) = checksum {
            source.reference.checksum = Some(checksum.clone());
        }
        return Ok(Some((RemoteSource::Git(source), url.clone())));
    }
    if !is_http(url) {
        return Ok(None);
    }
    let checksum = checksum.map(|checksum| {
        checksum.parse().map_err(|error: polyarch_oci::DigestError| {
            BuildError::from_source(ErrorKind::Dockerfile, format!("--checksum={checksum}"), &error)
        })
    });
    let source = WebSource::of_add(url, checksum.transpose()?);
    Ok(Some((RemoteSource::Web(source), url.clone())))
}
