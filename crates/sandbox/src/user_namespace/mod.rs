// SPDX-License-Identifier: Apache-2.0
//! Makes this process root in a user namespace and a mount namespace of its own.
//!
//! There are four outcomes, told by [`IdMapping`]. Real root maps every identifier onto itself; an ordinary user gets
//! the subordinate ranges of `/etc/subuid` and `/etc/subgid` where `newuidmap` and `newgidmap` are installed, and
//! otherwise just one identifier; real root that may not have a user namespace keeps the one it has.

mod id_mapper;
mod refusal;
mod subordinate;

use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::process::{DumpableBehavior, getpid, set_dumpable_behavior};
use rustix::thread::{CapabilitySet, UnshareFlags, capabilities};

use crate::SandboxError;
use id_mapper::{Helper, HelperFailure, HelperPlan};

/// What [`enter`] needs to know of the system; [`EnterOptions::for_path`] has the usual values.
#[derive(Debug, Clone)]
pub struct EnterOptions {
    /// Where to look for `newuidmap` and `newgidmap`.
    pub path_dirs: Vec<PathBuf>,
    /// The file with subordinate user identifiers.
    pub subuid: PathBuf,
    /// The file with subordinate group identifiers.
    pub subgid: PathBuf,
    /// The file that tells the name of a user.
    pub passwd: PathBuf,
}

impl EnterOptions {
    /// The system's files, and the directories of a `PATH` variable.
    pub fn for_path(path_variable: &std::ffi::OsStr) -> EnterOptions {
        EnterOptions {
            path_dirs: std::env::split_paths(path_variable).filter(|dir| dir.is_absolute()).collect(),
            subuid: PathBuf::from("/etc/subuid"),
            subgid: PathBuf::from("/etc/subgid"),
            passwd: PathBuf::from("/etc/passwd"),
        }
    }
}

/// Which identifiers exist inside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdMapping {
    /// Real root without a user namespace of its own: the kernel refused one. No private emulation.
    Host {
        /// Why there is no user namespace.
        reason: String,
    },
    /// Started as root: every identifier stands for itself.
    Identity,
    /// An ordinary user: 0 is the user, 1 and above are the subordinate ranges.
    Subordinate {
        /// How many user identifiers there are, 0 included.
        uid_count: u64,
        /// How many group identifiers there are, 0 included.
        gid_count: u64,
    },
    /// An ordinary user without subordinate identifiers: only 0 exists.
    Single {
        /// What is missing and the commands that mend it.
        reason: String,
    },
}

impl IdMapping {
    /// Says whether this process has a user namespace of its own.
    pub fn is_user_namespace(&self) -> bool {
        !matches!(self, IdMapping::Host { .. })
    }
}

/// Enters a new user and mount namespace and becomes root in it.
///
/// Must be called first thing in `main`: the kernel refuses it to a process with more than one thread
/// ([`SandboxError::Threads`]). Mounts made afterwards are seen by nobody outside. Not undone on error: the
/// caller reports the error and ends. Costs about 0.2 ms, and 3 ms where `newuidmap` has to be run.
pub fn enter(options: &EnterOptions) -> Result<IdMapping, SandboxError> {
    let uid = rustix::process::geteuid().as_raw();
    let own = capabilities(None)
        .map_err(|errno| SandboxError::system("read the capabilities of this process", errno))?
        .effective;
    let mapping = if uid == 0 && own.contains(CapabilitySet::SETUID | CapabilitySet::SETGID) {
        enter_as_root(own)?
    } else {
        enter_as_user(options, uid)?
    };
    mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)
        .map_err(|errno| refusal::explain(errno, uid, Path::new("/proc")))?;
    // The change of identifiers made the process undumpable, and with it /proc/self unreadable.
    set_dumpable_behavior(DumpableBehavior::Dumpable)
        .map_err(|errno| SandboxError::system("make this process readable in /proc again", errno))?;
    Ok(mapping)
}

/// Maps all identifiers that this process sees onto themselves.
fn enter_as_root(own: CapabilitySet) -> Result<IdMapping, SandboxError> {
    let proc = Path::new("/proc");
    let plan = HelperPlan::Write {
        uid_map: identity_of(&read_map("/proc/self/uid_map")?),
        gid_map: identity_of(&read_map("/proc/self/gid_map")?),
    };
    let helper = Helper::start(plan, getpid())?;
    if let Err(errno) = unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWNS) {
        helper.dismiss();
        let refused = refusal::explain(errno, 0, proc);
        if matches!(refused, SandboxError::Threads) || !own.contains(CapabilitySet::SYS_ADMIN) {
            return Err(refused);
        }
        unshare(UnshareFlags::NEWNS)
            .map_err(|errno| SandboxError::system("create a mount namespace", errno))?;
        return Ok(IdMapping::Host { reason: refused.to_string() });
    }
    helper.apply().map_err(|failure| SandboxError::IdMapping {
        reason: failure.reason,
        fix: "start it with the capabilities SETUID, SETGID and SETFCAP, or as an ordinary user".to_owned(),
    })?;
    Ok(IdMapping::Identity)
}

fn enter_as_user(options: &EnterOptions, uid: u32) -> Result<IdMapping, SandboxError> {
    let gid = rustix::process::getegid().as_raw();
    let planned = match plan_subordinate(options, uid, gid) {
        Ok((plan, uid_count, gid_count)) => Ok((Helper::start(plan, getpid())?, uid_count, gid_count)),
        Err(reason) => Err(reason),
    };
    if let Err(errno) = unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWNS) {
        if let Ok((helper, ..)) = planned {
            helper.dismiss();
        }
        return Err(refusal::explain(errno, uid, Path::new("/proc")));
    }
    let mapping = match planned {
        Err(reason) => IdMapping::Single { reason },
        Ok((helper, uid_count, gid_count)) => match helper.apply() {
            Ok(()) => IdMapping::Subordinate { uid_count, gid_count },
            Err(HelperFailure { is_untouched: true, reason }) => IdMapping::Single { reason },
            Err(HelperFailure { reason, .. }) => {
                return Err(SandboxError::IdMapping {
                    reason,
                    fix: "check that newuidmap and newgidmap are both setuid root and that the ranges in \
                          /etc/subuid and /etc/subgid do not overlap"
                        .to_owned(),
                });
            }
        },
    };
    if let IdMapping::Single { .. } = mapping {
        map_single("/proc/self/setgroups", "deny")?;
        map_single("/proc/self/uid_map", &format!("0 {uid} 1"))?;
        map_single("/proc/self/gid_map", &format!("0 {gid} 1"))?;
    }
    become_root()?;
    Ok(mapping)
}

/// Says how the subordinate ranges are to be mapped, or what is missing for it.
fn plan_subordinate(options: &EnterOptions, uid: u32, gid: u32) -> Result<(HelperPlan, u64, u64), String> {
    let name = subordinate::user_name(&options.passwd, uid);
    let user = name.clone().unwrap_or_else(|| uid.to_string());
    let (first, last) = subordinate::free_range([&options.subuid, &options.subgid]);
    let add_ranges = format!("sudo usermod --add-subuids {first}-{last} --add-subgids {first}-{last} {user}");
    let find = |tool: &str| {
        let found = options.path_dirs.iter().map(|dir| dir.join(tool)).find(|path| path.is_file());
        found.ok_or_else(|| {
            format!(
                "{tool} is not installed; install it (Debian, Ubuntu: sudo apt-get install uidmap; \
                 Fedora: sudo dnf install shadow-utils) and see that {user} has ranges in {} and {} ({add_ranges})",
                options.subuid.display(),
                options.subgid.display()
            )
        })
    };
    let (newuidmap, newgidmap) = (find("newuidmap")?, find("newgidmap")?);
    let read = |file: &Path| subordinate::read(file, name.as_deref(), uid);
    let (uids, gids) = (read(&options.subuid), read(&options.subgid));
    let add_gids = format!("sudo usermod --add-subgids {first}-{last} {user}");
    let add_uids = format!("sudo usermod --add-subuids {first}-{last} {user}");
    let (file, add) = match (uids.as_slice(), gids.as_slice()) {
        ([], []) => (&options.subuid, add_ranges),
        ([], _) => (&options.subuid, add_uids),
        (_, []) => (&options.subgid, add_gids),
        _ => {
            let plan = HelperPlan::Commands {
                newuidmap: (newuidmap, subordinate::triples(uid, &uids)),
                newgidmap: (newgidmap, subordinate::triples(gid, &gids)),
            };
            return Ok((plan, subordinate::count(&uids), subordinate::count(&gids)));
        }
    };
    Err(format!("{} has no range for {user}; add one with: {add}", file.display()))
}

fn map_single(file: &'static str, text: &str) -> Result<(), SandboxError> {
    std::fs::write(file, text).map_err(|error| match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(errno @ (Errno::PERM | Errno::ACCESS)) => {
            let uid = rustix::process::geteuid().as_raw();
            refusal::explain(errno, uid, Path::new("/proc"))
        }
        _ => SandboxError::IdMapping {
            reason: format!("writing {text:?} to {file}: {error}"),
            fix: "is this process in a sandbox that forbids user namespaces?".to_owned(),
        },
    })
}

fn become_root() -> Result<(), SandboxError> {
    use rustix::thread::{set_thread_res_gid, set_thread_res_uid};
    let (uid, gid) = (rustix::process::Uid::ROOT, rustix::process::Gid::ROOT);
    set_thread_res_gid(gid, gid, gid)
        .map_err(|errno| SandboxError::system("become group 0 of the user namespace", errno))?;
    set_thread_res_uid(uid, uid, uid)
        .map_err(|errno| SandboxError::system("become user 0 of the user namespace", errno))
}

#[expect(
    unsafe_code,
    reason = "unshare of descriptors or memory could be unsound; these flags share neither"
)]
fn unshare(flags: UnshareFlags) -> rustix::io::Result<()> {
    // SAFETY: only NEWUSER and NEWNS are passed; they change what paths and identifiers mean, not the file
    // descriptor table, so no I/O safety is at stake.
    unsafe { rustix::thread::unshare_unsafe(flags) }
}

fn read_map(file: &'static str) -> Result<String, SandboxError> {
    std::fs::read_to_string(file).map_err(|source| SandboxError::System {
        action: "read the identifiers of this user namespace from /proc/self",
        source: io::Error::new(source.kind(), format!("{file}: {source}")),
    })
}

/// Turns the map of the present namespace into the one that maps each of its identifiers onto itself.
fn identity_of(map: &str) -> String {
    let mut lines = String::new();
    for line in map.lines() {
        let mut words = line.split_ascii_whitespace();
        if let (Some(inside), Some(_), Some(count)) = (words.next(), words.next(), words.next()) {
            lines.push_str(&format!("{inside} {inside} {count}\n"));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_identity_of_a_nested_namespace_covers_what_it_has() {
        assert_eq!(identity_of("         0          0 4294967295\n"), "0 0 4294967295\n");
        assert_eq!(identity_of("0 1000 1\n1 100000 65536\n"), "0 0 1\n1 1 65536\n");
    }

    fn options(dir: &Path) -> EnterOptions {
        EnterOptions {
            path_dirs: vec![dir.to_owned()],
            subuid: dir.join("subuid"),
            subgid: dir.join("subgid"),
            passwd: dir.join("passwd"),
        }
    }

    #[test]
    fn what_is_missing_is_told_with_its_remedy() {
        let dir = tempfile::tempdir().expect("tempdir");
        let options = options(dir.path());
        let reason = plan_subordinate(&options, 1000, 1000).expect_err("nothing is there");
        assert!(reason.contains("newuidmap is not installed"), "{reason}");
        assert!(reason.contains("apt-get install uidmap"), "{reason}");

        std::fs::write(dir.path().join("newuidmap"), "").expect("write");
        std::fs::write(dir.path().join("newgidmap"), "").expect("write");
        std::fs::write(dir.path().join("passwd"), "ann:x:1000:1000::/home/ann:/bin/sh\n").expect("write");
        std::fs::write(dir.path().join("subuid"), "ann:100000:65536\n").expect("write");
        let reason = plan_subordinate(&options, 1000, 1000).expect_err("no subgid");
        assert!(reason.contains("subgid has no range for ann"), "{reason}");
        // A range that is nobody's, and only where there is none.
        assert!(reason.ends_with("sudo usermod --add-subgids 165536-231071 ann"), "{reason}");

        std::fs::write(dir.path().join("subgid"), "1000:200000:1000\n").expect("write");
        let (plan, uid_count, gid_count) = plan_subordinate(&options, 1000, 1000).expect("complete");
        assert_eq!((uid_count, gid_count), (65537, 1001));
        let HelperPlan::Commands { newuidmap, newgidmap } = plan else { panic!("commands are expected") };
        assert_eq!(newuidmap.1, ["0", "1000", "1", "1", "100000", "65536"]);
        assert_eq!(newgidmap.1, ["0", "1000", "1", "1", "200000", "1000"]);
    }
}
