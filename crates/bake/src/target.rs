// SPDX-License-Identifier: Apache-2.0
//! Targets and groups, and what becomes of two that are merged.

use std::collections::BTreeMap;

use super::credentials::{Resources, Secret, Ssh};
use super::entries::{Attest, Cache, Export, without_doubles, without_replaced};
use super::policy::Policy;

/// Values by name; `None` is written as `null` and changes nothing.
pub type Texts = BTreeMap<String, Option<String>>;

/// A group of targets.
#[derive(Debug, Clone, Default)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// Names of targets and groups.
    pub targets: Vec<String>,
}

/// A target. Lists that are `None` were not given; empty ones were, and replace what they are merged into.
#[derive(Debug, Clone, Default)]
#[expect(
    missing_docs,
    reason = "the fields are the attributes of a target, which bake's documentation tells"
)]
pub struct Target {
    pub name: String,
    pub description: String,
    pub inherits: Vec<String>,
    pub annotations: Option<Vec<String>>,
    pub attest: Option<Vec<Attest>>,
    pub context: Option<String>,
    pub contexts: BTreeMap<String, String>,
    pub dockerfile: Option<String>,
    pub dockerfile_inline: Option<String>,
    pub args: Texts,
    pub labels: Texts,
    pub tags: Option<Vec<String>>,
    pub cache_from: Option<Vec<Cache>>,
    pub cache_to: Option<Vec<Cache>>,
    pub target: Option<String>,
    pub secrets: Option<Vec<Secret>>,
    pub ssh: Option<Vec<Ssh>>,
    pub platforms: Option<Vec<String>>,
    pub outputs: Option<Vec<Export>>,
    pub pull: Option<bool>,
    pub no_cache: Option<bool>,
    pub network: Option<String>,
    pub no_cache_filter: Option<Vec<String>>,
    pub shm_size: Option<String>,
    pub ulimits: Option<Vec<String>>,
    pub resources: Option<Resources>,
    pub call: Option<String>,
    pub entitlements: Option<Vec<String>>,
    pub extra_hosts: Texts,
    pub policy: Option<Vec<Policy>>,
    /// It is only built because another target links to it.
    pub is_linked: bool,
    /// Where relative paths of the definition start, when they don't start at the working directory.
    pub(crate) bases: Bases,
}

/// The directories of the files that a target's paths were written in.
#[derive(Debug, Clone, Default)]
pub(crate) struct Bases {
    /// Of the block.
    pub default: Option<String>,
    /// The default is used as the context.
    pub uses_default: bool,
    /// Of `context`.
    pub context: Option<String>,
    /// The target whose context was referred to.
    pub context_of: Option<String>,
    /// Of each of `contexts`.
    pub contexts: BTreeMap<String, String>,
}

fn append<T>(list: &mut Option<Vec<T>>, more: Option<Vec<T>>) {
    if let Some(more) = more {
        list.get_or_insert_default().extend(more);
    }
}

fn replace<T>(value: &mut Option<T>, new: Option<T>) {
    if new.is_some() {
        *value = new;
    }
}

fn add_texts(texts: &mut Texts, more: Texts) {
    texts.extend(more.into_iter().filter(|(_, value)| value.is_some()));
}

impl Target {
    /// Merges another target into this one: what it has replaces or extends what is here.
    pub fn merge(&mut self, other: Target) {
        if other.bases.default.is_some() {
            self.bases.default = other.bases.default;
            self.bases.uses_default = other.bases.uses_default;
        }
        if other.context.is_some() {
            self.context = other.context;
            self.bases.context = other.bases.context;
            self.bases.context_of = other.bases.context_of;
        }
        replace(&mut self.dockerfile, other.dockerfile);
        replace(&mut self.dockerfile_inline, other.dockerfile_inline);
        add_texts(&mut self.args, other.args);
        for (name, context) in other.contexts {
            match other.bases.contexts.get(&name) {
                Some(base) => self.bases.contexts.insert(name.clone(), base.clone()),
                None => self.bases.contexts.remove(&name),
            };
            self.contexts.insert(name, context);
        }
        add_texts(&mut self.labels, other.labels);
        replace(&mut self.tags, other.tags);
        replace(&mut self.target, other.target);
        replace(&mut self.call, other.call);
        append(&mut self.annotations, other.annotations);
        append(&mut self.attest, other.attest);
        append(&mut self.policy, other.policy);
        if let Some(policies) = &mut self.policy {
            // All policies hold together, so one that comes again says nothing new where it stood before.
            let all = std::mem::take(policies);
            let comes_again = |at: usize| all[at + 1..].contains(&all[at]);
            policies.extend((0..all.len()).filter(|at| !comes_again(*at)).map(|at| all[at].clone()));
        }
        append(&mut self.secrets, other.secrets);
        append(&mut self.ssh, other.ssh);
        replace(&mut self.platforms, other.platforms);
        append(&mut self.cache_from, other.cache_from);
        if let Some(caches) = &mut self.cache_from {
            without_doubles(caches);
        }
        replace(&mut self.cache_to, other.cache_to);
        replace(&mut self.outputs, other.outputs);
        replace(&mut self.pull, other.pull);
        replace(&mut self.no_cache, other.no_cache);
        replace(&mut self.network, other.network);
        append(&mut self.no_cache_filter, other.no_cache_filter);
        replace(&mut self.shm_size, other.shm_size);
        append(&mut self.ulimits, other.ulimits);
        if let Some(resources) = other.resources {
            self.resources.get_or_insert_default().limits.extend(resources.limits);
        }
        if !other.description.is_empty() {
            self.description = other.description;
        }
        append(&mut self.entitlements, other.entitlements);
        add_texts(&mut self.extra_hosts, other.extra_hosts);
        self.inherits.extend(other.inherits);
        self.attest = self.attest.take().map(|attest| without_replaced(attest, |entry| &entry.kind));
        self.secrets = self.secrets.take().map(|secrets| without_replaced(secrets, |entry| &entry.id));
        self.ssh = self.ssh.take().map(|ssh| without_replaced(ssh, |entry| &entry.id));
    }

    /// Takes out doubles and what is empty.
    pub fn normalize(&mut self) {
        let texts = [
            &mut self.annotations,
            &mut self.tags,
            &mut self.platforms,
            &mut self.no_cache_filter,
            &mut self.ulimits,
        ];
        for list in texts {
            without_repeats(list);
        }
        self.attest = self.attest.take().map(|attest| without_replaced(attest, |entry| &entry.kind));
        self.secrets = self.secrets.take().map(|secrets| without_replaced(secrets, |entry| &entry.id));
        self.ssh = self.ssh.take().map(|ssh| without_replaced(ssh, |entry| &entry.id));
        for caches in [&mut self.cache_from, &mut self.cache_to].into_iter().flatten() {
            without_doubles(caches);
        }
        if let Some(outputs) = &mut self.outputs {
            without_doubles(outputs);
        }
        if self.network.as_deref() == Some("host") {
            self.entitlements.get_or_insert_default().push("network.host".to_owned());
        }
        without_repeats(&mut self.entitlements);
        self.contexts.retain(|_, context| !context.is_empty());
    }
}

fn without_repeats(list: &mut Option<Vec<String>>) {
    if let Some(list) = list {
        let mut seen: Vec<String> = Vec::new();
        list.retain(|text| {
            let is_new = !text.is_empty() && !seen.contains(text);
            if is_new {
                seen.push(text.clone());
            }
            is_new
        });
    }
}
