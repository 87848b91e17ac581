// SPDX-License-Identifier: Apache-2.0
//! How each platform runs on this machine, for polyarch and for everybody.

use std::collections::BTreeMap;
use std::path::PathBuf;

use polyarch_build::error::chain_of;
use polyarch_oci::Platform;
use polyarch_sandbox::emulation::{
    Architecture, BinfmtDirectory, Emulation, EmulationConfig, HostBinfmt, HostHandler, Origin, Support,
};
use polyarch_sandbox::user_namespace::{EnterOptions, enter};
use serde::Serialize;

use super::super::build::table::render_table;
use crate::Environment;
use crate::config::Settings;

/// The platforms after the machine's own, in the order in which BuildKit examines them.
const PLATFORMS: [&str; 15] = [
    "linux/amd64",
    "linux/amd64/v2",
    "linux/amd64/v3",
    "linux/amd64/v4",
    "linux/arm64",
    "linux/riscv64",
    "linux/ppc64",
    "linux/ppc64le",
    "linux/s390x",
    "linux/386",
    "linux/mips64le",
    "linux/mips64",
    "linux/loong64",
    "linux/arm/v7",
    "linux/arm/v6",
];
/// Those that BuildKit does not look for.
const MORE_PLATFORMS: [&str; 3] = ["linux/arm/v5", "linux/mipsle", "linux/mips"];

/// What there is to tell.
#[derive(Debug)]
pub struct Status {
    /// Each platform, the machine's own first.
    pub platforms: Vec<PlatformStatus>,
    /// The entries of the host's binfmt_misc that are switched on, also those that are no emulators.
    pub emulators: Vec<String>,
    /// The host's binfmt_misc; `None` where it is not mounted.
    pub mount: Option<PathBuf>,
    /// Why polyarch has no user namespace here, when it has none.
    pub obstacle: Option<String>,
}

/// One platform.
#[derive(Debug)]
pub struct PlatformStatus {
    /// The platform.
    pub platform: Platform,
    /// How polyarch runs its programs.
    pub support: Support,
    /// The version of the emulator, where there is one that tells it.
    pub version: Option<String>,
    /// Who runs its programs for everybody.
    pub handler: Option<HostHandler>,
    /// What registers that handler at the next boot.
    pub origin: Option<Origin>,
}

/// Examines every platform. To be called once, while there is one thread: it enters the user namespace.
pub fn collect(
    settings: &Settings,
    environment: &Environment,
    host: &HostBinfmt,
    directory: &BinfmtDirectory,
) -> Status {
    let path = environment.variables.get("PATH").cloned().unwrap_or_default();
    let entered = enter(&EnterOptions::for_path(&path));
    let obstacle = entered.as_ref().err().map(|error| chain_of(error));
    let is_private_allowed = entered.is_ok_and(|mapping| mapping.is_user_namespace());
    examine(settings, environment, host, directory, is_private_allowed, obstacle)
}

/// Examines every platform in the present user namespace.
pub fn examine(
    settings: &Settings,
    environment: &Environment,
    host: &HostBinfmt,
    directory: &BinfmtDirectory,
    is_private_allowed: bool,
    obstacle: Option<String>,
) -> Status {
    let mut emulation = Emulation::prepare(EmulationConfig {
        directories: settings.emulator_directories.clone(),
        path_dirs: environment.path_directories(),
        host_binfmt: host.directory().to_owned(),
        state: settings.root.join("emulation"),
        is_private_allowed,
    });
    let platforms = platforms();
    let supports = emulation.support(&platforms);
    let handlers = host.handlers();
    let mut versions: BTreeMap<PathBuf, Option<String>> = BTreeMap::new();
    let platforms = platforms
        .into_iter()
        .zip(supports)
        .map(|(platform, support)| {
            let version = match &support {
                Support::Private { emulator } => {
                    versions.entry(emulator.path.clone()).or_insert_with(|| emulator.version()).clone()
                }
                _ => None,
            };
            let architecture = Architecture::of(&platform);
            let handler = handlers.iter().find(|handler| Some(handler.architecture) == architecture).cloned();
            let origin = handler.as_ref().and_then(|handler| directory.origin(&handler.name));
            PlatformStatus { platform, support, version, handler, origin }
        })
        .collect();
    Status {
        platforms,
        emulators: host.enabled_names().unwrap_or_default(),
        mount: host.is_mounted().then(|| host.directory().to_owned()),
        obstacle,
    }
}

/// Returns every platform that is examined: the machine's own, then the others.
fn platforms() -> Vec<Platform> {
    let mut platforms = vec![Platform::host()];
    for name in PLATFORMS.iter().chain(&MORE_PLATFORMS) {
        let platform: Platform = name.parse().expect("the names of the table are platforms");
        if !platforms.contains(&platform) {
            platforms.push(platform);
        }
    }
    platforms
}

/// Returns the architectures in the same order.
pub fn architectures_in_order() -> Vec<Architecture> {
    let mut architectures = Vec::new();
    for architecture in platforms().iter().filter_map(Architecture::of) {
        if !architectures.contains(&architecture) {
            architectures.push(architecture);
        }
    }
    architectures
}

#[derive(Serialize)]
struct Compatible<'a> {
    supported: Vec<String>,
    /// Go writes an empty list that was never made as `null`.
    emulators: Option<&'a [String]>,
}

#[derive(Serialize)]
struct Full<'a> {
    #[serde(flatten)]
    compatible: Compatible<'a>,
    mount: Option<String>,
    obstacle: Option<&'a str>,
    platforms: Vec<FullPlatform<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FullPlatform<'a> {
    platform: String,
    support: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    emulator: Option<FullEmulator<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    host_handler: Option<FullHandler<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<&'a str>,
}

#[derive(Serialize)]
struct FullEmulator<'a> {
    path: String,
    version: Option<&'a str>,
    r#static: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FullHandler<'a> {
    name: &'a str,
    interpreter: String,
    flags: &'a str,
    at_boot: Option<String>,
}

impl Status {
    fn compatible(&self) -> Compatible<'_> {
        let is_examined_there = |platform: &Platform| {
            let name = platform.to_string();
            !MORE_PLATFORMS.contains(&name.as_str()) || *platform == Platform::host()
        };
        let supported = self
            .platforms
            .iter()
            .filter(|one| !matches!(one.support, Support::None { .. }) && is_examined_there(&one.platform))
            .map(|one| one.platform.to_string())
            .collect();
        let emulators = (!self.emulators.is_empty()).then_some(self.emulators.as_slice());
        Compatible { supported, emulators }
    }

    /// Writes the status as tonistiigi/binfmt does.
    pub fn compatible_json(&self) -> String {
        pretty(&self.compatible())
    }

    /// Writes everything as JSON.
    pub fn json(&self) -> String {
        let platforms = self.platforms.iter().map(FullPlatform::of).collect();
        pretty(&Full {
            compatible: self.compatible(),
            mount: self.mount.as_ref().map(|path| path.display().to_string()),
            obstacle: self.obstacle.as_deref(),
            platforms,
        })
    }

    /// Writes a table, and below it what mends what is missing.
    pub fn table(&self) -> String {
        let header = ["PLATFORM", "POLYARCH", "HOST-WIDE"].map(str::to_owned).to_vec();
        let mut rows = vec![header];
        let mut missing: BTreeMap<(&str, &str), Vec<String>> = BTreeMap::new();
        for one in &self.platforms {
            let here = match &one.support {
                Support::Native => "native".to_owned(),
                Support::Private { emulator } => format!(
                    "QEMU {}, private ({})",
                    one.version.as_deref().unwrap_or("of unknown version"),
                    emulator.path.display()
                ),
                Support::HostHandler { name, .. } => format!("the host's {name}"),
                Support::None { reason, fix } => {
                    missing.entry((reason, fix)).or_default().push(one.platform.to_string());
                    "-".to_owned()
                }
            };
            let everybody = match (&one.handler, &one.support) {
                (Some(handler), _) => format!(
                    "{} ({}, flags {}{})",
                    handler.name,
                    handler.interpreter.display(),
                    handler.flags,
                    if one.origin.is_some() { ", persistent" } else { "" }
                ),
                (None, Support::Native) => "native".to_owned(),
                _ => "-".to_owned(),
            };
            rows.push(vec![one.platform.to_string(), here, everybody]);
        }
        let mut text = render_table(&rows);
        if let Some(obstacle) = &self.obstacle {
            text.push_str(&format!("no private emulation: {obstacle}\n"));
        }
        for ((reason, fix), platforms) in missing {
            text.push_str(&format!("{}: {reason}; {fix}\n", platforms.join(", ")));
        }
        crate::visible_text::visible_text(&text)
    }
}

impl FullPlatform<'_> {
    fn of(one: &PlatformStatus) -> FullPlatform<'_> {
        let (support, emulator, reason, fix) = match &one.support {
            Support::Native => ("native", None, None, None),
            Support::Private { emulator } => {
                let emulator = FullEmulator {
                    path: emulator.path.display().to_string(),
                    version: one.version.as_deref(),
                    r#static: emulator.is_static,
                };
                ("private", Some(emulator), None, None)
            }
            Support::HostHandler { .. } => ("host", None, None, None),
            Support::None { reason, fix } => ("none", None, Some(reason.as_str()), Some(fix.as_str())),
        };
        let host_handler = one.handler.as_ref().map(|handler| FullHandler {
            name: &handler.name,
            interpreter: handler.interpreter.display().to_string(),
            flags: &handler.flags,
            at_boot: one.origin.as_ref().map(|origin| match origin {
                Origin::Ours(path) | Origin::Other(path) => path.display().to_string(),
            }),
        });
        FullPlatform { platform: one.platform.to_string(), support, emulator, host_handler, reason, fix }
    }
}

fn pretty(value: &impl Serialize) -> String {
    serde_json::to_string_pretty(value).expect("texts and lists are always JSON") + "\n"
}
