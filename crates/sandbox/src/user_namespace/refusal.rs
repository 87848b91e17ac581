// SPDX-License-Identifier: Apache-2.0
//! Explains why the kernel refuses a user namespace, and what mends it.

use std::path::Path;

use rustix::io::Errno;

use crate::SandboxError;

/// Names the setting behind `errno`, as far as `/proc` (given as `proc`) tells it.
pub(super) fn explain(errno: Errno, uid: u32, proc: &Path) -> SandboxError {
    let setting = |path: &str| {
        std::fs::read_to_string(proc.join("sys").join(path)).ok().map(|text| text.trim().to_owned())
    };
    let is_set_to = |path: &str, value: &str| setting(path).as_deref() == Some(value);
    if errno == Errno::INVAL && thread_count(proc) != Some(1) {
        return SandboxError::Threads;
    }
    let (reason, fix) = if is_set_to("user/max_user_namespaces", "0") {
        (
            "user.max_user_namespaces is 0".to_owned(),
            "allow them with: sudo sysctl -w user.max_user_namespaces=28633 (to keep it, put the setting into \
             /etc/sysctl.d/)",
        )
    } else if uid != 0 && is_set_to("kernel/unprivileged_userns_clone", "0") {
        (
            "kernel.unprivileged_userns_clone is 0".to_owned(),
            "allow them with: sudo sysctl -w kernel.unprivileged_userns_clone=1 (to keep it, put the setting into \
             /etc/sysctl.d/)",
        )
    } else if uid != 0 && is_set_to("kernel/apparmor_restrict_unprivileged_userns", "1") {
        (
            "AppArmor restricts them (kernel.apparmor_restrict_unprivileged_userns is 1)".to_owned(),
            "add an AppArmor profile with `userns,` for this program, or allow them for all with: sudo sysctl -w \
             kernel.apparmor_restrict_unprivileged_userns=0",
        )
    } else {
        match errno {
            Errno::NOSPC | Errno::USERS => (
                "too many user namespaces, or too deeply nested".to_owned(),
                "raise user.max_user_namespaces, or run it in an outer namespace",
            ),
            Errno::INVAL | Errno::NOSYS => (
                "the kernel was built without user namespaces".to_owned(),
                "use a kernel with CONFIG_USER_NS",
            ),
            Errno::PERM | Errno::ACCESS => (
                "the kernel forbids it to this process (a container's system call filter, a security module or a \
                 chroot)"
                    .to_owned(),
                "inside of a container start that one with --security-opt seccomp=unconfined --security-opt \
                 apparmor=unconfined, or --privileged",
            ),
            _ => (format!("the kernel answered {errno}"), "see the answer below"),
        }
    };
    SandboxError::UserNamespace {
        who: if uid == 0 { "root".to_owned() } else { format!("uid {uid}") },
        reason,
        fix: fix.to_owned(),
        source: errno.into(),
    }
}

fn thread_count(proc: &Path) -> Option<u32> {
    let status = std::fs::read_to_string(proc.join("self/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Threads:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fake_proc(settings: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("tempdir");
        for (path, value) in settings {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().expect("has a parent")).expect("mkdir");
            std::fs::write(path, value).expect("write");
        }
        dir
    }

    fn text(errno: Errno, uid: u32, settings: &[(&str, &str)]) -> String {
        explain(errno, uid, fake_proc(settings).path()).to_string()
    }

    #[test]
    fn each_setting_has_its_remedy() {
        let none = text(Errno::NOSPC, 1000, &[("sys/user/max_user_namespaces", "0\n")]);
        assert!(
            none.contains("let uid 1000 create") && none.contains("sysctl -w user.max_user_namespaces="),
            "{none}"
        );
        let debian = text(Errno::PERM, 1000, &[("sys/kernel/unprivileged_userns_clone", "0\n")]);
        assert!(debian.contains("kernel.unprivileged_userns_clone=1"), "{debian}");
        let ubuntu = text(Errno::PERM, 1000, &[("sys/kernel/apparmor_restrict_unprivileged_userns", "1\n")]);
        assert!(ubuntu.contains("apparmor_restrict_unprivileged_userns=0"), "{ubuntu}");
        let root = text(Errno::PERM, 0, &[("sys/kernel/unprivileged_userns_clone", "0\n")]);
        assert!(root.contains("let root create") && root.contains("seccomp=unconfined"), "{root}");
    }

    #[test]
    fn a_second_thread_is_told_apart_from_a_kernel_without_user_namespaces() {
        let threads = fake_proc(&[("self/status", "Name:\tx\nThreads:\t2\n")]);
        assert!(matches!(explain(Errno::INVAL, 0, threads.path()), SandboxError::Threads));
        let one = text(Errno::INVAL, 0, &[("self/status", "Threads:\t1\n")]);
        assert!(one.contains("CONFIG_USER_NS"), "{one}");
    }
}
