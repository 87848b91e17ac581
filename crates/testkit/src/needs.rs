// SPDX-License-Identifier: Apache-2.0
//! What a test needs of the machine.

use std::path::{Path, PathBuf};

/// Something that not every machine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// The real root user.
    Root,
    /// User namespaces that an unprivileged process may make.
    UserNamespaces,
    /// A binfmt_misc of one's own in a user namespace (Linux 6.7).
    PrivateBinfmt,
    /// QEMU's user emulation of an architecture, by QEMU's name: `aarch64`.
    Qemu(&'static str),
    /// A program on `PATH`.
    Command(&'static str),
    /// A file.
    File(&'static str),
}

/// Returns the first reason why a test can't run here, after printing it as `SKIPPED: reason`.
///
/// The test returns at once when there is one. Continuous integration counts the printed lines and fails
/// when a test was skipped there.
#[must_use]
#[expect(clippy::print_stderr, reason = "the line is what tells that the test did not run")]
pub fn requires(needs: &[Need]) -> Option<String> {
    let reason = needs.iter().find_map(|need| missing(*need))?;
    eprintln!("SKIPPED: {reason}");
    Some(reason)
}

fn missing(need: Need) -> Option<String> {
    match need {
        Need::Root => (!rustix::process::geteuid().is_root()).then(|| "needs root".to_owned()),
        Need::UserNamespaces => {
            let limit = read_number("/proc/sys/user/max_user_namespaces");
            let is_refused = limit == Some(0)
                || (!rustix::process::geteuid().is_root()
                    && (read_number("/proc/sys/kernel/unprivileged_userns_clone") == Some(0)
                        || read_number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == Some(1)));
            is_refused.then(|| "needs user namespaces, which are switched off here".to_owned())
        }
        Need::PrivateBinfmt => {
            let release = rustix::system::uname().release().to_string_lossy().into_owned();
            let mut numbers = release.split(['.', '-']).map(|part| part.parse::<u32>().unwrap_or(0));
            let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
            (version < (6, 7))
                .then(|| format!("needs Linux 6.7 for a private binfmt_misc, this is {release}"))
        }
        Need::Qemu(name) => {
            let is_there = [format!("qemu-{name}-static"), format!("qemu-{name}")]
                .iter()
                .any(|program| find_program(program).is_some());
            (!is_there).then(|| format!("needs qemu-{name}-static (apt-get install qemu-user-static)"))
        }
        Need::Command(name) => find_program(name).is_none().then(|| format!("needs the program {name}")),
        Need::File(path) => (!Path::new(path).exists()).then(|| format!("needs the file {path}")),
    }
}

fn read_number(path: &str) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// Finds a program on `PATH`, and where administrators' programs are.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|directory| directory.join(name))
        .find(|program| program.is_file())
}
