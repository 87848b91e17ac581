// SPDX-License-Identifier: Apache-2.0
//! The emulators that are registered in this user namespace's own binfmt_misc.
//!
//! The instance is made with the first registration, not before: from then on the host's handlers are out of
//! sight of this namespace.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::bundle::Bundle;
use super::{Architecture, Emulator, Handler, PrivateBinfmt};

/// The registered emulators and what keeps them usable.
#[derive(Debug)]
pub(super) struct Registration {
    instance: Instance,
    registered: BTreeMap<Architecture, Registered>,
    /// What dynamically linked emulators need, if there are any.
    bundle: Option<Bundle>,
    /// Where bundles are kept.
    state: PathBuf,
}

/// The state of this user namespace's own binfmt_misc.
#[derive(Debug)]
enum Instance {
    Possible,
    Impossible { reason: String },
    Exists(PrivateBinfmt),
}

/// An emulator, the file that was registered for it (itself, or its copy in the bundle) and the entry's name.
#[derive(Debug)]
struct Registered {
    emulator: Emulator,
    interpreter: PathBuf,
    entry: String,
}

impl Registration {
    /// Begins without an instance.
    pub fn new(is_allowed: bool, state: PathBuf) -> Registration {
        let instance = if is_allowed {
            Instance::Possible
        } else {
            Instance::Impossible { reason: "this build has no user namespace of its own".to_owned() }
        };
        Registration { instance, registered: BTreeMap::new(), bundle: None, state }
    }

    /// Tells whether the instance could be made and has not been made yet.
    pub fn is_undecided(&self) -> bool {
        matches!(self.instance, Instance::Possible)
    }

    /// Tells whether the host's handlers are hidden.
    pub fn exists(&self) -> bool {
        matches!(self.instance, Instance::Exists(_))
    }

    /// Says why there is no instance, if there can't be one.
    pub fn obstacle(&self) -> Option<&str> {
        match &self.instance {
            Instance::Impossible { reason } => Some(reason),
            _ => None,
        }
    }

    /// Returns the emulator that is registered for an architecture.
    pub fn emulator(&self, architecture: Architecture) -> Option<&Emulator> {
        self.registered.get(&architecture).map(|registered| &registered.emulator)
    }

    /// Returns the directory that processes must see where containers see it.
    pub fn bundle(&self) -> Option<&Path> {
        self.bundle.as_ref().map(|bundle| bundle.directory.as_path())
    }

    /// Registers the emulators; returns what was refused, and why.
    ///
    /// Where there can be no instance nothing is registered and nothing counts as refused.
    pub fn register(&mut self, plan: BTreeMap<Architecture, Emulator>) -> BTreeMap<Architecture, String> {
        let mut refused = BTreeMap::new();
        if plan.is_empty() {
            return refused;
        }
        if self.is_undecided() {
            self.instance = match PrivateBinfmt::create(&[]) {
                Ok(binfmt) => Instance::Exists(binfmt),
                Err(error) => Instance::Impossible { reason: error.to_string() },
            };
        }
        let bundled = self.bundle_with(&plan);
        let Instance::Exists(binfmt) = &self.instance else { return refused };
        for (architecture, emulator) in plan {
            let interpreter = match (&self.bundle, &bundled) {
                _ if emulator.is_static => emulator.path.clone(),
                (Some(bundle), Ok(())) => bundle.emulator(architecture),
                (_, outcome) => {
                    refused.insert(architecture, outcome.clone().err().unwrap_or_default());
                    continue;
                }
            };
            match binfmt.register(&Handler::new(architecture, interpreter.clone())) {
                Ok(entry) => {
                    self.registered.insert(architecture, Registered { emulator, interpreter, entry });
                }
                Err(error) => {
                    let source = std::error::Error::source(&error).map(|source| format!(": {source}"));
                    refused.insert(architecture, format!("{error}{}", source.unwrap_or_default()));
                }
            }
        }
        refused
    }

    /// Makes the bundle of all dynamically linked emulators, those of earlier calls and those of the plan,
    /// since a container sees one directory.
    fn bundle_with(&mut self, plan: &BTreeMap<Architecture, Emulator>) -> Result<(), String> {
        if !self.exists() || plan.values().all(|emulator| emulator.is_static) {
            return Ok(());
        }
        let earlier =
            self.registered.iter().map(|(architecture, registered)| (architecture, &registered.emulator));
        let dynamic = earlier
            .chain(plan)
            .filter(|(_, emulator)| !emulator.is_static)
            .map(|(architecture, emulator)| (*architecture, emulator.clone()))
            .collect();
        self.bundle = Some(Bundle::make(&self.state, &dynamic).map_err(|error| error.to_string())?);
        Ok(())
    }

    /// Registers emulators again without the flag `P`, which they are too old for; tells whether any was.
    pub fn drop_first_argument(&mut self, architectures: &BTreeSet<Architecture>) -> bool {
        let Instance::Exists(binfmt) = &self.instance else { return false };
        let mut is_changed = false;
        for architecture in architectures {
            let Some(registered) = self.registered.get_mut(architecture) else { continue };
            let mut handler = Handler::new(*architecture, registered.interpreter.clone());
            handler.keeps_first_argument = false;
            // If the kernel refuses, the second probe says that the program doesn't run.
            if let Ok(entry) = binfmt.remove(&registered.entry).and_then(|()| binfmt.register(&handler)) {
                registered.entry = entry;
                is_changed = true;
            }
        }
        is_changed
    }
}
