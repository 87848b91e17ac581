// SPDX-License-Identifier: Apache-2.0
//! Scopes of arguments: global ones, those of a stage, and what the user gave.

use polyarch_dockerfile::instruction::{Arg, ArgDefinition};
use polyarch_dockerfile::{Environment, Expander, InstructionKind, Span};
use polyarch_oci::Platform;
use polyarch_solver::progress::Progress;

use super::{Frontend, SOURCE_DATE_EPOCH};
use crate::error::{BuildError, ErrorKind};
use crate::platform_args::{is_proxy_arg, platform_args, proxy_env};

impl Frontend<'_> {
    /// Returns where events go.
    pub(crate) fn progress(&self) -> Progress {
        self.progress.clone()
    }

    /// Returns the value that the user gave for an argument.
    pub(crate) fn build_arg(&self, name: &str) -> Option<&str> {
        let given = self.request.build_args.iter().rev();
        let value = given.into_iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())?;
        match &self.source_date_epoch {
            Some(epoch) if name == SOURCE_DATE_EPOCH => epoch.text.as_deref(),
            _ => Some(value),
        }
    }

    /// Returns what TARGETSTAGE says: the target as the user named it, or the name of the last stage.
    pub(crate) fn target_stage(&self) -> &str {
        let last = || self.dockerfile.stages.last()?.name.as_deref();
        self.request.target.as_deref().or_else(last).unwrap_or("default")
    }

    /// Evaluates the global arguments for a platform: platform arguments, then the ARGs before the first FROM.
    pub(crate) fn global_scope(&self, platform: &Platform) -> Result<Environment, BuildError> {
        let target_stage = self.target_stage();
        let mut scope = Environment::new();
        for (name, value) in platform_args(&self.host, platform, target_stage) {
            let given = self.build_arg(&name).map(str::to_owned);
            scope.set(name, given.unwrap_or(value));
        }
        for instruction in &self.dockerfile.global_args {
            let InstructionKind::Arg(Arg { definitions }) = &instruction.kind else { continue };
            for definition in definitions {
                let mut value = self.arg_value(definition, &scope, None, instruction.span)?;
                if let Some(epoch) = &self.source_date_epoch
                    && definition.name == SOURCE_DATE_EPOCH
                {
                    value.clone_from(&epoch.text);
                }
                if let Some(value) = value {
                    scope.set(&definition.name, value);
                }
            }
        }
        Ok(scope)
    }

    /// Returns the value of an argument: what the user gave, else the expanded default, else the global one.
    pub(crate) fn arg_value(
        &self,
        definition: &ArgDefinition,
        scope: &Environment,
        global: Option<&Environment>,
        span: Span,
    ) -> Result<Option<String>, BuildError> {
        if let Some(given) = self.build_arg(&definition.name) {
            return Ok(Some(given.to_owned()));
        }
        let Some(default) = &definition.default else {
            return Ok(global.and_then(|global| value_of(global, &definition.name)));
        };
        Expander::new(scope, self.dockerfile.escape)
            .word(default)
            .map(Some)
            .map_err(|error| self.expand_error(&error, span))
    }

    pub(crate) fn expand_error(&self, error: &polyarch_dockerfile::ExpandError, span: Span) -> BuildError {
        BuildError::from_source(ErrorKind::Dockerfile, "can't expand the variables", error)
            .at(self.location(span))
    }

    /// Returns the proxies that the user gave, for the environment of RUN: whatever the casing they were given
    /// in, programs find them in capitals and in small letters.
    pub(crate) fn proxy_env(&self) -> Vec<String> {
        proxy_env(&self.request.build_args)
    }

    /// Names the arguments that the user gave and no ARG declares.
    pub(crate) fn unused_build_args(&self) -> Vec<&str> {
        let is_declared = |name: &str| {
            self.dockerfile
                .global_args
                .iter()
                .chain(self.dockerfile.stages.iter().flat_map(|it| &it.instructions))
                .any(|instruction| match &instruction.kind {
                    InstructionKind::Arg(Arg { definitions }) => definitions.iter().any(|it| it.name == name),
                    _ => false,
                })
        };
        let is_known =
            |name: &str| is_proxy_arg(name) || name.starts_with("BUILDKIT_") || name == SOURCE_DATE_EPOCH;
        let given = self.request.build_args.iter().map(|(name, _)| name.as_str());
        given.filter(|name| !is_known(name) && !is_declared(name)).collect()
    }
}

/// Looks a name up in an environment.
pub(crate) fn value_of(environment: &Environment, name: &str) -> Option<String> {
    environment.iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_owned())
}
