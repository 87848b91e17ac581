// SPDX-License-Identifier: Apache-2.0
//! What the kernel and the installed programs permit: namespaces, identifiers, file trees, emulation.

use std::collections::BTreeMap;
use std::path::Path;

use polyarch_build::error::chain_of;
use polyarch_oci::Platform;
use polyarch_sandbox::IdMapping;
use polyarch_sandbox::emulation::{BinfmtDirectory, HostBinfmt, PrivateBinfmt, Support};
use polyarch_sandbox::user_namespace::{EnterOptions, enter};
use polyarch_snapshot::{SnapshotOptions, Snapshots, TreeMode};

use super::super::binfmt::status::{Status, examine};
use super::super::binfmt::{BINFMT_DIRECTORY, HOST_BINFMT};
use super::{Check, Outcome};
use crate::Environment;
use crate::config::Settings;

/// What packages of distributions expect to find.
const USUAL_ID_COUNT: u64 = 65_536;

/// Enters the user namespace and looks around from there. To be called once, while there is one thread.
pub(super) fn check(settings: &Settings, environment: &Environment) -> Vec<Check> {
    let path = environment.variables.get("PATH").cloned().unwrap_or_default();
    let entered = enter(&EnterOptions::for_path(&path)).map_err(|error| chain_of(&error));
    let mut checks = vec![system(environment)];
    checks.extend(namespace(&entered));
    let is_private_allowed = entered.as_ref().is_ok_and(IdMapping::is_user_namespace);
    checks.push(file_trees(&settings.root, is_private_allowed));
    let (host, directory) = (HostBinfmt::at(HOST_BINFMT), BinfmtDirectory::at(BINFMT_DIRECTORY));
    let status = examine(settings, environment, &host, &directory, is_private_allowed, entered.err());
    checks.push(private_binfmt(&status, is_private_allowed));
    checks.extend(platforms(&status));
    checks.push(host_handlers(&status));
    checks
}

fn system(environment: &Environment) -> Check {
    let name = rustix::system::uname();
    let user = match environment.user_id {
        0 => "root".to_owned(),
        id => format!("uid {id}"),
    };
    Check::ok(
        "system",
        format!(
            "polyarch {}, {} {}, as {user}",
            env!("CARGO_PKG_VERSION"),
            name.sysname().to_string_lossy(),
            name.release().to_string_lossy()
        ),
    )
}

/// Tells how the user namespace was entered, and which identifiers there are in it.
fn namespace(entered: &Result<IdMapping, String>) -> Vec<Check> {
    let (space, ids) = ("user namespace", "subordinate ids");
    match entered {
        Ok(IdMapping::Identity) => {
            vec![Check::ok(space, "entered"), Check::ok(ids, "not needed: root has them all")]
        }
        Ok(IdMapping::Subordinate { uid_count, gid_count }) => {
            let text = format!("{uid_count} users and {gid_count} groups, by newuidmap and newgidmap");
            let is_usual = uid_count.min(gid_count) >= &USUAL_ID_COUNT;
            let check = if is_usual {
                Check::ok(ids, text)
            } else {
                Check::new(ids, Outcome::Warning, format!("{text}: less than the usual {USUAL_ID_COUNT}"))
                    .with_fix("give your user larger ranges in /etc/subuid and /etc/subgid (subuid(5))")
            };
            vec![Check::ok(space, "entered"), check]
        }
        Ok(IdMapping::Single { reason }) => vec![
            Check::ok(space, "entered"),
            Check::new(ids, Outcome::Warning, format!("only your own user exists in steps: {reason}")),
        ],
        Ok(IdMapping::Host { reason }) => vec![
            Check::new(space, Outcome::Warning, format!("not entered, working as the host's root: {reason}")),
            Check::ok(ids, "not needed: root has them all"),
        ],
        Err(reason) => vec![Check::new(space, Outcome::Problem, reason.clone())],
    }
}

/// Mounts an overlay where the store is, or would be made.
fn file_trees(root: &Path, is_namespace: bool) -> Check {
    let name = "file trees";
    let problem = |text: String| {
        Check::new(name, Outcome::Problem, text)
            .with_fix("give the store a directory that you may write to: --root DIR or POLYARCH_ROOT")
    };
    let parent = root.ancestors().find(|directory| directory.is_dir()).unwrap_or(Path::new("/"));
    let directory = match tempfile::Builder::new().prefix(".polyarch-doctor-").tempdir_in(parent) {
        Ok(directory) => directory,
        Err(error) => {
            let reason = std::io::Error::from(error.kind());
            return problem(format!("{} can't be made in {}: {reason}", root.display(), parent.display()));
        }
    };
    let snapshots = match Snapshots::open(directory.path(), SnapshotOptions { force_copy: false }) {
        Ok(snapshots) => snapshots,
        Err(error) => return problem(chain_of(&error)),
    };
    match snapshots.mode() {
        TreeMode::Overlay => Check::ok(name, "overlays can be mounted"),
        TreeMode::Copy { reason } => {
            let fix = if is_namespace {
                "keep the store on a local file system such as ext4, xfs or btrfs (--root DIR), with Linux 5.11 or newer"
            } else {
                "see the user namespace above"
            };
            let text = format!("made by copying, which is slower: {reason}");
            Check::new(name, Outcome::Warning, text).with_fix(fix)
        }
    }
}

fn private_binfmt(status: &Status, is_allowed: bool) -> Check {
    let name = "private emulation";
    let is_used = status.platforms.iter().any(|one| matches!(one.support, Support::Private { .. }));
    let obstacle = match (is_used, is_allowed) {
        (true, _) => None,
        (false, true) => PrivateBinfmt::create(&[]).err().map(|error| chain_of(&error)),
        (false, false) => Some("there is no user namespace for it".to_owned()),
    };
    match obstacle {
        None => Check::ok(name, "this user namespace has a binfmt_misc of its own"),
        Some(obstacle) => Check::new(name, Outcome::Warning, obstacle).with_fix(
            "use Linux 6.7 or newer, or emulators of the whole machine: sudo polyarch binfmt --install all",
        ),
    }
}

fn platforms(status: &Status) -> Vec<Check> {
    let host = Platform::host();
    let native: Vec<String> = status
        .platforms
        .iter()
        .filter(|one| one.support == Support::Native)
        .map(|one| one.platform.to_string())
        .collect();
    let mut checks = vec![Check::ok("native platforms", native.join(", "))];
    let mut missing: BTreeMap<&str, Vec<(String, &String)>> = BTreeMap::new();
    for one in &status.platforms {
        let name = one.platform.to_string();
        match &one.support {
            Support::Native => {}
            Support::Private { emulator } => {
                let version = one.version.as_deref().unwrap_or("of unknown version");
                checks.push(Check::ok(name, format!("QEMU {version} ({})", emulator.path.display())));
            }
            Support::HostHandler { name: handler, interpreter } => {
                checks.push(Check::ok(name, format!("the host's {handler} ({})", interpreter.display())));
            }
            // A newer processor than this one has; nothing is wrong with the machine.
            Support::None { reason, .. } if one.platform.architecture == host.architecture => {
                checks.push(Check::new(name, Outcome::Note, reason.clone()));
            }
            Support::None { reason, fix } => missing.entry(fix).or_default().push((name, reason)),
        }
    }
    // What one command mends is one line.
    for (fix, platforms) in missing {
        let names: Vec<&str> = platforms.iter().map(|(name, _)| name.as_str()).collect();
        let reason = platforms.first().map_or("", |(_, reason)| reason.as_str());
        let for_first = if names.len() > 1 { format!(" (for {})", names[0]) } else { String::new() };
        let text = format!("{} can't run: {reason}{for_first}", names.join(", "));
        checks.push(Check::new("other platforms", Outcome::Warning, text).with_fix(fix));
    }
    checks
}

/// Tells which emulators other programs of the machine have.
fn host_handlers(status: &Status) -> Check {
    let name = "host-wide emulators";
    let mut handlers: Vec<String> = status
        .platforms
        .iter()
        .filter_map(|one| one.handler.as_ref())
        .map(|handler| format!("{} ({})", handler.name, handler.flags))
        .collect();
    handlers.dedup();
    if handlers.is_empty() {
        let text = "none, and polyarch needs none; other programs, such as docker, do";
        return Check::new(name, Outcome::Note, text).with_fix("sudo polyarch binfmt --install all");
    }
    Check::ok(name, handlers.join(", "))
}
