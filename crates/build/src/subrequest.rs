// SPDX-License-Identifier: Apache-2.0
//! Questions about a Dockerfile that need no build: what rules find in it, what can be given to it, which
//! stages it has. Answers are in the shapes of BuildKit's subrequests, so that its clients can read them.

mod answers;
mod text;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use polyarch_dockerfile::{Outline, Survey};
use polyarch_oci::Platform;
use polyarch_solver::progress::Progress;
use polyarch_solver::{CancelFlag, Graph};

use crate::builder::parse;
use crate::error::{BuildError, ErrorKind, SourceLocation};
use crate::frontend::Frontend;
use crate::lint::survey_text;
use crate::request::BuildRequest;
use crate::services::Services;
use answers::{LintAnswer, OutlineAnswer, TargetsAnswer};

/// The version of the answers' shapes.
const VERSION: &str = "1.0.0";

/// A question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subrequest {
    /// What rules find.
    Lint,
    /// What a user can give to a build of the target.
    Outline,
    /// Which stages there are.
    Targets,
    /// Which questions there are.
    Describe,
}

impl Subrequest {
    /// Reads a request id of BuildKit's, such as `frontend.lint`.
    pub fn parse(request_id: &str) -> Option<Subrequest> {
        [Subrequest::Lint, Subrequest::Outline, Subrequest::Targets, Subrequest::Describe]
            .into_iter()
            .find(|subrequest| subrequest.request_id() == request_id)
    }

    /// Returns the request id.
    pub fn request_id(self) -> &'static str {
        match self {
            Subrequest::Lint => "frontend.lint",
            Subrequest::Outline => "frontend.outline",
            Subrequest::Targets => "frontend.targets",
            Subrequest::Describe => "frontend.subrequests.describe",
        }
    }
}

/// How a question is answered.
#[derive(Debug, Clone, Copy, Default)]
pub struct SubrequestOptions {
    /// Whether our own rules apply; foreign clients know BuildKit's only.
    pub with_own_rules: bool,
}

/// An answer.
#[derive(Debug, Clone)]
pub struct SubrequestResult {
    /// The answer as JSON.
    pub json: String,
    /// The answer as text.
    pub text: String,
    /// Of [`Subrequest::Lint`], 1 when something was found and else 0.
    pub status_code: Option<u8>,
    /// How many findings there are.
    pub finding_count: usize,
    /// Why the Dockerfile could not be built, when the question was what rules find.
    pub build_error: Option<BuildError>,
}

impl SubrequestResult {
    /// Returns the answer as the metadata of a result, as BuildKit's clients read it.
    pub fn metadata(&self) -> Vec<(&'static str, Vec<u8>)> {
        let mut metadata = vec![
            ("result.json", self.json.clone().into_bytes()),
            ("result.txt", self.text.clone().into_bytes()),
            ("version", VERSION.as_bytes().to_vec()),
        ];
        if let Some(code) = self.status_code {
            metadata.push(("result.statuscode", code.to_string().into_bytes()));
        }
        metadata
    }
}

impl Services {
    /// Answers a question about the Dockerfile of a request.
    ///
    /// Rules look at the target and what it needs, or without a target at all stages. Base images are looked
    /// up; nothing is executed, fetched or stored but their documents.
    ///
    /// # Errors
    /// When the Dockerfile can't be read; one that can't be built fails all but [`Subrequest::Lint`], which
    /// tells it in its answer.
    pub async fn subrequest(
        self: &Arc<Self>,
        subrequest: Subrequest,
        request: &BuildRequest,
        options: SubrequestOptions,
        progress: &Progress,
    ) -> Result<SubrequestResult, BuildError> {
        // Without its type the future of all that lowering may do does not grow into the caller's.
        let answer: Pin<Box<dyn Future<Output = Result<SubrequestResult, BuildError>> + Send + '_>> =
            Box::pin(self.answer(subrequest, request, options, progress));
        answer.await
    }

    async fn answer(
        self: &Arc<Self>,
        subrequest: Subrequest,
        request: &BuildRequest,
        options: SubrequestOptions,
        progress: &Progress,
    ) -> Result<SubrequestResult, BuildError> {
        if subrequest == Subrequest::Describe {
            return Ok(answers::describe());
        }
        let host = Platform::host();
        let mut request = request.clone();
        if request.platforms.is_empty() {
            request.platforms.push(host.clone());
        }
        // Who asks drops the question when it is no longer wanted.
        let (context, text, _) = self.load(&request, progress, &CancelFlag::default()).await?;
        crate::syntax::check(&request, &text)?;
        let dockerfile = match parse(&text) {
            Ok(dockerfile) => dockerfile,
            Err(error) if subrequest == Subrequest::Lint => {
                let survey = survey_text(&request, &text)?;
                return Ok(LintAnswer::new(&text, &survey, Some(error)).finish());
            }
            Err(error) => return Err(error),
        };
        if subrequest == Subrequest::Targets {
            return Ok(TargetsAnswer::new(&text, &dockerfile).finish());
        }
        let frontend = Frontend::new(self, &request, context, &text, dockerfile, progress);
        if subrequest == Subrequest::Outline {
            let survey = frontend.survey(false, false).await?;
            frontend.require_complete(&survey)?;
            return Ok(OutlineAnswer::new(&text, &Outline::of(&survey)).finish());
        }
        let all_stages = request.target.is_none();
        let survey = frontend.survey(all_stages, options.with_own_rules).await?;
        let lowered = frontend.try_to_lower(all_stages).await;
        let error = lowered.err().or_else(|| frontend.violation(&survey));
        Ok(LintAnswer::new(&text, &survey, error).finish())
    }
}

impl Frontend<'_> {
    /// Makes sure that a survey came to its end.
    fn require_complete(&self, survey: &Survey) -> Result<(), BuildError> {
        self.target_index()?;
        let Some(stopped) = &survey.stopped else { return Ok(()) };
        let error = BuildError::new(ErrorKind::Dockerfile, stopped.message.clone());
        Err(error.at(SourceLocation {
            file: self.file_name.clone(),
            text: self.text.clone(),
            lines: stopped.span.lines(),
        }))
    }

    /// Finds what would fail a build before its first step.
    async fn try_to_lower(&self, all_stages: bool) -> Result<(), BuildError> {
        let platform = self.request.platforms.first().unwrap_or(&self.host);
        let global = self.global_scope(platform)?;
        let count = self.dockerfile.stages.len();
        for index in 0..count {
            self.expand_from(index, &global)?;
        }
        let indices = match all_stages {
            true => {
                for index in 0..count {
                    self.needed_stages(index, &global, platform)?;
                }
                (0..count).collect()
            }
            false => self.needed_with_triggers(self.target_index()?, &global, platform).await?,
        };
        self.lower_stages(&mut Graph::new(), platform, &indices).await.map(drop)
    }
}
