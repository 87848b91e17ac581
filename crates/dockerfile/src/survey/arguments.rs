// SPDX-License-Identifier: Apache-2.0
//! Arguments: what they are worth, what they depend on, and where they are defined.

use std::collections::{BTreeMap, BTreeSet};

use super::Stopped;
use crate::instruction::{Arg, ArgDefinition};
use crate::{Dockerfile, Environment, Expander, InstructionKind, Span};

/// An argument that a user can give.
#[derive(Debug, Clone, Default)]
pub(crate) struct ArgumentInfo {
    pub(crate) value: Option<String>,
    pub(crate) description: Option<String>,
    pub(crate) span: Span,
    /// The arguments that its default is made of.
    pub(crate) needs: BTreeSet<String>,
}

/// The arguments before the first FROM.
#[derive(Debug, Clone, Default)]
pub(super) struct Globals {
    /// Platform arguments and those that have a value.
    pub(super) environment: Environment,
    /// All that are defined.
    pub(super) infos: BTreeMap<String, ArgumentInfo>,
}

impl Globals {
    /// Evaluates the global arguments, by what the user gave or, without that, by their defaults alone.
    pub(super) fn evaluate(
        dockerfile: &Dockerfile,
        platform_args: &Environment,
        given: &[(String, String)],
    ) -> Result<Globals, Stopped> {
        let mut globals = Globals { environment: platform_args.clone(), infos: BTreeMap::new() };
        for instruction in &dockerfile.global_args {
            let InstructionKind::Arg(Arg { definitions }) = &instruction.kind else { continue };
            for definition in definitions {
                globals.define(definition, given, instruction.span, dockerfile.escape)?;
            }
        }
        Ok(globals)
    }

    fn define(
        &mut self,
        definition: &ArgDefinition,
        given: &[(String, String)],
        span: Span,
        escape: char,
    ) -> Result<(), Stopped> {
        let name = &definition.name;
        let mut info =
            ArgumentInfo { span, description: definition.description.clone(), ..ArgumentInfo::default() };
        info.value = match (given_value(given, name), &definition.default) {
            (Some(value), _) => Some(value.to_owned()),
            (None, None) => None,
            (None, Some(default)) => {
                let mut expander = Expander::new(&self.environment, escape);
                let value =
                    expander.word(default).map_err(|error| Stopped { message: error.to_string(), span })?;
                info.needs = expander.used().clone();
                // A definition that extends the one before it needs what that one needs.
                if info.needs.remove(name)
                    && let Some(before) = self.infos.get(name)
                {
                    info.needs.extend(before.needs.iter().cloned());
                }
                Some(value)
            }
        };
        if let Some(value) = &info.value {
            self.environment.set(name, value);
        }
        self.infos.insert(name.clone(), info);
        Ok(())
    }

    /// Tells whether a name is defined, with a value or without.
    pub(super) fn has(&self, name: &str) -> bool {
        self.infos.contains_key(name) || self.environment.iter().any(|(known, _)| known == name)
    }

    /// Returns all names that are defined.
    pub(super) fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.environment.iter().map(|(name, _)| name).collect();
        names.extend(
            self.infos.keys().map(String::as_str).filter(|name| !names.contains(name)).collect::<Vec<_>>(),
        );
        names
    }
}

/// Returns the value that the user gave for an argument; the last one counts.
pub(super) fn given_value<'a>(given: &'a [(String, String)], name: &str) -> Option<&'a str> {
    given.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}
