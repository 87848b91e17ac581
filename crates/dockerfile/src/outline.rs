// SPDX-License-Identifier: Apache-2.0
//! What a user can give to a build of a stage: arguments, secrets, agents, and the caches that it keeps.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use crate::Survey;
use crate::survey::{Asked, StageSurvey};

/// What a stage and those that it needs ask for, each list in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outline {
    /// The stage's name.
    pub name: Option<String>,
    /// What the comment above the stage says.
    pub description: Option<String>,
    /// The arguments.
    pub arguments: Vec<Argument>,
    /// The secrets.
    pub secrets: Vec<Wanted>,
    /// The ssh agents.
    pub agents: Vec<Wanted>,
    /// The caches.
    pub caches: Vec<Wanted>,
}

/// An argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Argument {
    /// Its name.
    pub name: String,
    /// What it is worth in this build; empty when it has no value.
    pub value: String,
    /// What the comment above it says.
    pub description: Option<String>,
    /// The lines that define it, counted from 1.
    pub lines: RangeInclusive<u32>,
}

/// A secret, an agent or a cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Its id.
    pub id: String,
    /// Whether the build fails without it.
    pub is_required: bool,
    /// The lines that ask for it first, counted from 1.
    pub lines: RangeInclusive<u32>,
}

impl Outline {
    /// Gathers what the target of a survey asks for.
    pub fn of(survey: &Survey) -> Outline {
        let mut gathered = Gathered::default();
        gathered.visit(survey.target, &survey.stages);
        let target = survey.stages.get(survey.target);
        let mut arguments: Vec<Argument> = gathered.arguments.into_values().collect();
        arguments.sort_by_key(|argument| *argument.lines.start());
        Outline {
            name: target.and_then(|stage| stage.name.clone()),
            description: target.and_then(|stage| stage.description.clone()),
            arguments,
            secrets: in_order(gathered.secrets),
            agents: in_order(gathered.agents),
            caches: in_order(gathered.caches),
        }
    }
}

fn in_order(wanted: BTreeMap<String, Asked>) -> Vec<Wanted> {
    let mut list: Vec<Wanted> = wanted
        .into_iter()
        .map(|(id, asked)| Wanted { id, is_required: asked.is_required, lines: asked.span.lines() })
        .collect();
    list.sort_by_key(|wanted| *wanted.lines.start());
    list
}

/// What has been met so far; what was met first counts.
#[derive(Default)]
struct Gathered {
    stages: BTreeSet<usize>,
    arguments: BTreeMap<String, Argument>,
    secrets: BTreeMap<String, Asked>,
    agents: BTreeMap<String, Asked>,
    caches: BTreeMap<String, Asked>,
}

impl Gathered {
    /// Takes a stage, then what it is built on, then what it copies from.
    fn visit(&mut self, index: usize, stages: &[StageSurvey]) {
        let mut left = vec![index];
        while let Some(index) = left.pop() {
            let Some(stage) = stages.get(index) else { continue };
            if self.stages.insert(index) {
                self.take(stage);
                left.extend(stage.sources.iter().rev());
                left.extend(stage.base);
            }
        }
    }

    fn take(&mut self, stage: &StageSurvey) {
        for name in with_needs(stage) {
            let Some(info) = stage.arguments.get(name) else { continue };
            self.arguments.entry(name.to_owned()).or_insert_with(|| Argument {
                name: name.to_owned(),
                value: info.value.clone().unwrap_or_default(),
                description: info.description.clone(),
                lines: info.span.lines(),
            });
        }
        for (all, own) in [
            (&mut self.secrets, &stage.secrets),
            (&mut self.agents, &stage.agents),
            (&mut self.caches, &stage.caches),
        ] {
            for (id, asked) in own {
                all.entry(id.clone()).or_insert(*asked);
            }
        }
    }
}

/// Returns the arguments that a stage uses, and those that their values are made of.
fn with_needs(stage: &StageSurvey) -> BTreeSet<&str> {
    let mut all = BTreeSet::new();
    let mut left: Vec<&str> = stage.used.iter().map(String::as_str).collect();
    while let Some(name) = left.pop() {
        if all.insert(name)
            && let Some(info) = stage.arguments.get(name)
        {
            left.extend(info.needs.iter().map(String::as_str));
        }
    }
    all
}
