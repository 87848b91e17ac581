// SPDX-License-Identifier: Apache-2.0
//! All that the files define, and the targets that a command asks for.

use std::collections::BTreeMap;

use super::definition::{Definition, ResourceKind};
use super::entries::Export;
use super::error::BakeError;
use super::overrides::{self, Overrides};
use super::paths;
use super::resolve::{Output, VariableInfo};
use super::target::{Group, Target};

/// How many targets may be linked in a row.
const MAX_LINKS: usize = 200;

/// All that the files define.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// The groups, in order.
    pub groups: Vec<Group>,
    /// The targets, in order.
    pub targets: Vec<Target>,
    /// The variables, by name.
    pub variables: Vec<VariableInfo>,
}

/// What the command line allows by setting it itself.
#[derive(Debug, Clone, Default)]
pub struct Granted {
    /// Files and directories that may be read.
    pub read: Vec<String>,
    /// Files and directories that may be written.
    pub write: Vec<String>,
    /// The host's network.
    pub network_host: bool,
    /// Steps with privileges.
    pub security_insecure: bool,
}

/// The targets that a command asks for, with all they need.
#[derive(Debug, Clone, Default)]
pub struct Resolved {
    /// The targets by name.
    pub targets: BTreeMap<String, Target>,
    /// The groups that name them.
    pub groups: BTreeMap<String, Group>,
    /// What the command line allows.
    pub granted: Granted,
}

impl Config {
    /// Adds a target, or merges it into the one of its name.
    pub(crate) fn add_target(&mut self, target: Target) {
        match self.targets.iter_mut().find(|other| other.name == target.name) {
            Some(other) => other.merge(target),
            None => self.targets.push(target),
        }
    }

    fn add_group(&mut self, mut group: Group) {
        group.targets = without_doubles(group.targets);
        match self.groups.iter_mut().find(|other| other.name == group.name) {
            Some(other) => *other = group,
            None => self.groups.push(group),
        }
    }

    /// Adds the values of blocks; a label whose matrix gave other names becomes a group of them.
    pub(crate) fn add_blocks(
        &mut self,
        definition: &Definition,
        blocks: Vec<(usize, Vec<Output>)>,
        directory: impl Fn(usize) -> Option<String>,
    ) {
        let mut renamed: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (at, outputs) in blocks {
            let block = &definition.blocks[at];
            let base = directory(block.span.file);
            for output in outputs {
                match output {
                    Output::Group(group) => self.add_group(group),
                    Output::Target(mut target) => {
                        renamed.entry(block.label.clone()).or_default().push(target.name.clone());
                        target.bases.default.clone_from(&base);
                        if let Some(context) = block.attribute("context") {
                            target.bases.context.clone_from(&base);
                            target.bases.context_of = referred_context(context);
                        }
                        if let (true, Some(base)) = (block.attribute("contexts").is_some(), &base) {
                            let names = target.contexts.keys().cloned();
                            target.bases.contexts = names.map(|name| (name, base.clone())).collect();
                        }
                        self.add_target(*target);
                    }
                }
            }
        }
        for (label, names) in renamed {
            let names = without_doubles(names);
            if names.as_slice() != [label.as_str()] {
                match self.groups.iter_mut().find(|group| group.name == label) {
                    Some(group) => group.targets = without_doubles([group.targets.clone(), names].concat()),
                    None => self.groups.push(Group { name: label, targets: names, ..Group::default() }),
                }
            }
        }
    }

    /// Says that all targets so far were written in files of a directory.
    pub(crate) fn base_targets(&mut self, directory: &str) {
        for target in self.targets.iter_mut().filter(|_| !directory.is_empty()) {
            target.bases.default = Some(directory.to_owned());
            target.bases.context = target.context.is_some().then(|| directory.to_owned());
            let names = target.contexts.keys().cloned();
            target.bases.contexts = names.map(|name| (name, directory.to_owned())).collect();
        }
    }

    /// Makes contexts relative to the files that they were written in.
    pub(crate) fn rebase(&mut self) {
        let bases: BTreeMap<String, (Option<String>, Option<String>)> = self
            .targets
            .iter()
            .map(|target| (target.name.clone(), (target.bases.context.clone(), target.bases.default.clone())))
            .collect();
        for target in &mut self.targets {
            if let Some((context, default)) =
                target.bases.context_of.as_ref().and_then(|name| bases.get(name))
            {
                target.bases.context = context.clone().or_else(|| default.clone());
            }
            match (&mut target.context, &target.bases.context) {
                (Some(context), Some(base)) => *context = paths::rebase(base, context),
                (None, _) if target.bases.default.is_some() => target.bases.uses_default = true,
                _ => {}
            }
            for (name, context) in &mut target.contexts {
                if let Some(base) = target.bases.contexts.get(name) {
                    *context = paths::rebase(base, context);
                }
            }
        }
    }

    /// Finds the targets that are asked for, and sets what the command line sets.
    ///
    /// # Errors
    /// A name that is not defined, a link that leads in a circle, or a setting that makes no sense.
    pub fn resolve(
        &self,
        names: &[String],
        set: &[String],
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Resolved, BakeError> {
        let mut wanted = Vec::new();
        for name in names {
            wanted.extend(self.matching(&name.replace('.', "_"))?);
        }
        let wanted = without_doubles(wanted);
        let overrides = overrides::read(set, &self.targets, environment)?;
        let mut resolved = Resolved::default();
        for name in &wanted {
            let (targets, groups) = self.members(name);
            for target in targets {
                let value = self.target(&target, &overrides, &mut resolved.granted)?;
                resolved.targets.insert(target, value);
            }
            for name in groups {
                if let Some(group) = self.groups.iter().find(|group| group.name == name) {
                    resolved.groups.insert(name, group.clone());
                }
            }
        }
        let has_default = resolved.groups.contains_key("default");
        let others: Vec<String> =
            wanted.into_iter().filter(|name| !(has_default && name == "default")).collect();
        if !others.is_empty() || has_default {
            let default = resolved
                .groups
                .entry("default".to_owned())
                .or_insert_with(|| Group { name: "default".to_owned(), ..Group::default() });
            default.targets = without_doubles([default.targets.clone(), others].concat());
            default.targets.sort();
        }
        for name in resolved.targets.keys().cloned().collect::<Vec<_>>() {
            self.link(&name, &overrides, &mut Vec::new(), &mut resolved)?;
        }
        Ok(resolved)
    }

    fn matching(&self, pattern: &str) -> Result<Vec<String>, BakeError> {
        if !pattern.contains(['*', '?', '[', ']']) {
            return Ok(vec![pattern.to_owned()]);
        }
        let all = self.groups.iter().map(|group| &group.name);
        let all = all.chain(self.targets.iter().map(|target| &target.name));
        let names: Vec<String> =
            all.filter(|name| paths::matches(pattern, name) == Some(true)).cloned().collect();
        if names.is_empty() {
            return Err(BakeError::request(format!("could not find any target matching {pattern:?}")));
        }
        Ok(names)
    }

    /// The targets and the groups that a name stands for.
    fn members(&self, name: &str) -> (Vec<String>, Vec<String>) {
        let (mut targets, mut groups) = (Vec::new(), Vec::new());
        let mut waiting = vec![name.to_owned()];
        while let Some(name) = waiting.pop() {
            match self.groups.iter().find(|group| group.name == name) {
                Some(_) if groups.contains(&name) => {
                    // A target may have the name of a group that contains it.
                    let is_target = self.targets.iter().any(|target| target.name == name);
                    targets.extend(Some(name).filter(|name| is_target && !targets.contains(name)));
                }
                Some(group) => {
                    groups.push(name);
                    waiting.extend(group.targets.iter().rev().cloned());
                }
                None if !targets.contains(&name) => targets.push(name),
                None => {}
            }
        }
        (targets, groups)
    }

    fn target(&self, name: &str, overrides: &Overrides, granted: &mut Granted) -> Result<Target, BakeError> {
        let mut target = self
            .inherited(name, &mut BTreeMap::new(), overrides, granted)?
            .ok_or_else(|| BakeError::request(format!("failed to find target {name}")))?;
        target.inherits = Vec::new();
        name.clone_into(&mut target.name);
        if target.context.is_none() {
            let base = target.bases.default.as_deref().filter(|_| target.bases.uses_default);
            target.context = Some(base.map_or_else(|| ".".to_owned(), |base| paths::rebase(base, ".")));
        }
        if target.dockerfile.as_deref().is_none_or(str::is_empty) {
            target.dockerfile = Some("Dockerfile".to_owned());
        }
        Ok(target)
    }

    /// A target with all that it inherits. What leads back to it is left out.
    fn inherited(
        &self,
        name: &str,
        visited: &mut BTreeMap<String, Option<Target>>,
        overrides: &Overrides,
        granted: &mut Granted,
    ) -> Result<Option<Target>, BakeError> {
        if let Some(target) = visited.get(name) {
            return Ok(target.clone());
        }
        if visited.len() > MAX_LINKS * 10 {
            return Err(BakeError::request(format!("target {name} inherits from too many targets")));
        }
        visited.insert(name.to_owned(), None);
        let own = self.targets.iter().find(|target| target.name == name);
        let own = own.ok_or_else(|| BakeError::request(format!("failed to find target {name}")))?;
        let mut target = Target::default();
        for parent in &own.inherits {
            if let Some(parent) = self.inherited(parent, visited, overrides, granted)? {
                // Whom it inherits from has been merged into it already; the names would only multiply.
                target.merge(Target { inherits: Vec::new(), ..parent });
            }
        }
        target.merge(own.clone());
        if let Some(changes) = overrides.get(name) {
            overrides::apply(&mut target, changes, granted)?;
        }
        target.normalize();
        visited.insert(name.to_owned(), Some(target.clone()));
        Ok(Some(target))
    }

    /// Brings in the targets that a target's contexts link to.
    fn link(
        &self,
        name: &str,
        overrides: &Overrides,
        visited: &mut Vec<String>,
        resolved: &mut Resolved,
    ) -> Result<(), BakeError> {
        if visited.len() > MAX_LINKS {
            return Err(BakeError::request(format!("target {name} links to too many targets")));
        }
        visited.push(name.to_owned());
        let Some(target) = resolved.targets.get(name).cloned() else { return Ok(()) };
        for linked in target.contexts.values().filter_map(|context| context.strip_prefix("target:")) {
            if linked == name {
                return Err(BakeError::request(format!("target {linked} cannot link to itself")));
            }
            if visited.iter().any(|other| other == linked) {
                return Err(BakeError::request(format!("infinite loop from {name} to {linked}")));
            }
            if !resolved.targets.contains_key(linked) {
                let mut other = self.target(linked, overrides, &mut resolved.granted)?;
                other.outputs = Some(vec![Export { kind: "cacheonly".to_owned(), ..Export::default() }]);
                other.is_linked = true;
                resolved.targets.insert(linked.to_owned(), other);
            }
            self.link(linked, overrides, visited, resolved)?;
            let Some(other) = resolved.targets.get(linked).cloned() else { continue };
            if let (Some(own), Some(others)) = (&target.platforms, &other.platforms)
                && own.len() > 1
                && others.len() > 1
                && own.iter().any(|platform| !others.contains(platform))
            {
                return Err(BakeError::request(format!(
                    "target {linked} can't be used by {name} because its platforms [{}] are not a subset of [{}]",
                    own.join(" "),
                    others.join(" ")
                )));
            }
            if let (Some(target), Some(more)) = (resolved.targets.get_mut(name), other.entitlements) {
                let all = target.entitlements.get_or_insert_default();
                for entitlement in more {
                    if !all.contains(&entitlement) {
                        all.push(entitlement);
                    }
                }
            }
        }
        visited.pop();
        Ok(())
    }
}

impl Resolved {
    /// Gives each target its final context, as builds and listings have it, and the time that the
    /// environment sets.
    ///
    /// # Errors
    /// A context or a Dockerfile from standard input.
    pub fn finish(&mut self, source_date_epoch: Option<&str>) -> Result<(), BakeError> {
        for target in self.targets.values_mut() {
            if let Some(epoch) = source_date_epoch.filter(|epoch| !epoch.is_empty()) {
                target.args.entry("SOURCE_DATE_EPOCH".to_owned()).or_insert_with(|| Some(epoch.to_owned()));
            }
            if target.context.as_deref() == Some("-") {
                return Err(BakeError::request("context from stdin not allowed in bake"));
            }
            if target.dockerfile.as_deref() == Some("-") {
                return Err(BakeError::request("dockerfile from stdin not allowed in bake"));
            }
            let context = target.context.take().unwrap_or_default();
            target.context = Some(match context.strip_prefix("cwd://") {
                Some(path) => paths::clean(path),
                None if paths::is_remote(&context) => context,
                None => paths::clean(&context),
            });
        }
        Ok(())
    }

    /// The groups and targets as JSON, as `--print` writes them.
    pub fn print(&self) -> String {
        super::print::text(&super::print::document(&self.groups, &self.targets))
    }
}

/// The target whose context an expression is.
fn referred_context(expression: &super::ast::Expression) -> Option<String> {
    match super::dependencies::references(expression).as_slice() {
        [reference] if reference.root == ResourceKind::Target.word() => match reference.steps.as_slice() {
            [Some(name), Some(field)] if field == "context" => Some(name.clone()),
            _ => None,
        },
        _ => None,
    }
}

fn without_doubles(names: Vec<String>) -> Vec<String> {
    let mut kept: Vec<String> = Vec::with_capacity(names.len());
    let mut seen = std::collections::BTreeSet::new();
    for name in names {
        if seen.insert(name.clone()) {
            kept.push(name);
        }
    }
    kept
}
