// SPDX-License-Identifier: Apache-2.0
//! The instructions that hold names with values: ENV, LABEL, ARG.

pub use crate::ast::Pair;
use crate::{ExpandError, Expander};

/// ENV: environment variables, in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Env {
    /// The variables.
    pub pairs: Vec<Pair>,
}

/// LABEL: labels, in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Label {
    /// The labels.
    pub pairs: Vec<Pair>,
}

/// ARG: build arguments, in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Arg {
    /// The arguments.
    pub definitions: Vec<ArgDefinition>,
}

/// One build argument.
///
/// Its value is, first that applies: the build argument given by the user, as it is; the default,
/// expanded with [`Expander::word`] over the variables set so far, those of the same line included; the
/// global argument of that name, as it is. With none of these it is not set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArgDefinition {
    /// The name.
    pub name: String,
    /// The default, unexpanded, quotes kept.
    pub default: Option<String>,
    /// What the comment above says about it: the text after the name.
    pub description: Option<String>,
}

pub(super) fn expand(pairs: &[Pair], expander: &mut Expander<'_>) -> Result<Vec<Pair>, ExpandError> {
    pairs
        .iter()
        .map(|pair| {
            Ok(Pair {
                name: expander.word(&pair.name)?,
                value: expander.word(&pair.value)?,
                has_equals: pair.has_equals,
            })
        })
        .collect()
}
