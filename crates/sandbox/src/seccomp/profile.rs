// SPDX-License-Identifier: Apache-2.0
//! What a build step may ask of the kernel: the rules of Docker's default profile (moby/profiles, June 2026).
//!
//! A rule permits system calls by name, perhaps only for a host, only with a capability, or only with certain
//! arguments. What no rule permits fails with EPERM. Differences from Docker: arguments are compared in the
//! 32 bits that the kernel itself looks at, and numbers without a system call give ENOSYS, as without a filter.

use super::HostArch;

/// The error number EPERM, the same on every architecture here.
pub(super) const EPERM: u16 = 1;
/// The error number ENOSYS, the same on every architecture here.
pub(super) const ENOSYS: u16 = 38;

/// What happens when a system call is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    /// It goes through.
    Allow,
    /// It fails with this error number.
    Errno(u16),
    /// It goes through if the lower half of the argument lies in one of the ranges, both ends included.
    AllowIfWithin { argument: u8, ranges: &'static [(u32, u32)] },
    /// It goes through if no bit of the mask is set in the lower half of the argument.
    AllowIfClear { argument: u8, mask: u32 },
}

/// Decides about a system call of a process with these capabilities (a mask, as capset(2) has it).
pub(super) fn decide(host: HostArch, capabilities: u64, name: &str) -> Decision {
    let has = |capability: u8| capabilities & 1 << capability != 0;
    let is_allowed = ALWAYS.contains(&name)
        || ON_HOST.iter().any(|(hosts, names)| hosts.contains(&host) && names.contains(&name))
        || WITH_CAPABILITY.iter().any(|(capability, names)| has(*capability) && names.contains(&name));
    if is_allowed {
        return Decision::Allow;
    }
    match name {
        "socket" => Decision::AllowIfWithin { argument: 0, ranges: SOCKET_FAMILIES },
        "personality" => Decision::AllowIfWithin { argument: 0, ranges: PERSONALITIES },
        // The s390 kernel takes stack and flags of clone in the other order.
        "clone" => {
            Decision::AllowIfClear { argument: u8::from(host == HostArch::S390x), mask: NAMESPACE_FLAGS }
        }
        // Its flags are in memory, where a filter can't see them; libraries then fall back to clone.
        "clone3" => Decision::Errno(ENOSYS),
        _ => Decision::Errno(EPERM),
    }
}

/// Every address family but ALG (38), a door to the kernel's cryptography, and VSOCK (40), a door to the
/// hypervisor; neither is confined to a network namespace.
const SOCKET_FAMILIES: &[(u32, u32)] = &[(0, 37), (39, 39), (41, u32::MAX)];

/// PER_LINUX and PER_LINUX32, each also with UNAME26, and the question for the current one.
const PERSONALITIES: &[(u32, u32)] =
    &[(0, 0), (8, 8), (0x2_0000, 0x2_0000), (0x2_0008, 0x2_0008), (u32::MAX, u32::MAX)];

/// CLONE_NEW{CGROUP,UTS,IPC,USER,PID,NET,NS}.
const NAMESPACE_FLAGS: u32 = 0x7e02_0000;

/// Numbers of capabilities (linux/capability.h).
mod capability {
    pub const DAC_READ_SEARCH: u8 = 2;
    pub const SYS_MODULE: u8 = 16;
    pub const SYS_RAWIO: u8 = 17;
    pub const SYS_CHROOT: u8 = 18;
    pub const SYS_PTRACE: u8 = 19;
    pub const SYS_PACCT: u8 = 20;
    pub const SYS_ADMIN: u8 = 21;
    pub const SYS_BOOT: u8 = 22;
    pub const SYS_NICE: u8 = 23;
    pub const SYS_TIME: u8 = 25;
    pub const SYS_TTY_CONFIG: u8 = 26;
    pub const SYSLOG: u8 = 34;
    pub const PERFMON: u8 = 38;
    pub const BPF: u8 = 39;
}

/// Permitted on some hosts, to all of their ABIs.
const ON_HOST: &[(&[HostArch], &[&str])] = &[
    (&[HostArch::X86_64], &["arch_prctl", "modify_ldt"]),
    (
        &[HostArch::Aarch64],
        &[
            "arm_fadvise64_64",
            "arm_sync_file_range",
            "breakpoint",
            "cacheflush",
            "set_tls",
            "sync_file_range2",
        ],
    ),
    (&[HostArch::Ppc64le], &["swapcontext", "sync_file_range2"]),
    (&[HostArch::S390x], &["s390_pci_mmio_read", "s390_pci_mmio_write", "s390_runtime_instr"]),
    (&[HostArch::Riscv64], &["riscv_flush_icache"]),
];

/// Permitted to processes that have the capability.
const WITH_CAPABILITY: &[(u8, &[&str])] = &[
    (capability::DAC_READ_SEARCH, &["open_by_handle_at"]),
    (
        capability::SYS_ADMIN,
        &[
            "bpf",
            "clone",
            "clone3",
            "fanotify_init",
            "fsconfig",
            "fsmount",
            "fsopen",
            "fspick",
            "lookup_dcookie",
            "lsm_get_self_attr",
            "lsm_list_modules",
            "lsm_set_self_attr",
            "mount",
            "mount_setattr",
            "move_mount",
            "open_tree",
            "perf_event_open",
            "quotactl",
            "quotactl_fd",
            "setdomainname",
            "sethostname",
            "setns",
            "syslog",
            "umount",
            "umount2",
            "unshare",
        ],
    ),
    (capability::SYS_BOOT, &["reboot"]),
    (capability::SYS_CHROOT, &["chroot"]),
    (capability::SYS_MODULE, &["delete_module", "finit_module", "init_module"]),
    (capability::SYS_PACCT, &["acct"]),
    (capability::SYS_PTRACE, &["kcmp", "pidfd_getfd", "process_madvise"]),
    (capability::SYS_RAWIO, &["ioperm", "iopl"]),
    (capability::SYS_TIME, &["clock_settime", "clock_settime64", "settimeofday", "stime"]),
    (capability::SYS_TTY_CONFIG, &["vhangup"]),
    (capability::SYS_NICE, &["get_mempolicy", "mbind", "set_mempolicy", "set_mempolicy_home_node"]),
    (capability::SYSLOG, &["syslog"]),
    (capability::BPF, &["bpf"]),
    (capability::PERFMON, &["perf_event_open"]),
];

/// Permitted always. ptrace and its relatives are safe under a filter since Linux 4.8.
#[rustfmt::skip] // one name per line would hide the rest of the file
const ALWAYS: &[&str] = &[
    "_llseek", "_newselect", "accept", "accept4", "access", "adjtimex", "alarm", "bind", "brk", "cachestat",
    "capget", "capset", "chdir", "chmod", "chown", "chown32", "clock_adjtime", "clock_adjtime64",
    "clock_getres", "clock_getres_time64", "clock_gettime", "clock_gettime64", "clock_nanosleep",
    "clock_nanosleep_time64", "close", "close_range", "connect", "copy_file_range", "creat", "dup", "dup2",
    "dup3", "epoll_create", "epoll_create1", "epoll_ctl", "epoll_ctl_old", "epoll_pwait", "epoll_pwait2",
    "epoll_wait", "epoll_wait_old", "eventfd", "eventfd2", "execve", "execveat", "exit", "exit_group",
    "faccessat", "faccessat2", "fadvise64", "fadvise64_64", "fallocate", "fanotify_mark", "fchdir", "fchmod",
    "fchmodat", "fchmodat2", "fchown", "fchown32", "fchownat", "fcntl", "fcntl64", "fdatasync", "fgetxattr",
    "flistxattr", "flock", "fork", "fremovexattr", "fsetxattr", "fstat", "fstat64", "fstatat64", "fstatfs",
    "fstatfs64", "fsync", "ftruncate", "ftruncate64", "futex", "futex_requeue", "futex_time64", "futex_wait",
    "futex_waitv", "futex_wake", "futimesat", "get_robust_list", "get_thread_area", "getcpu", "getcwd",
    "getdents", "getdents64", "getegid", "getegid32", "geteuid", "geteuid32", "getgid", "getgid32",
    "getgroups", "getgroups32", "getitimer", "getpeername", "getpgid", "getpgrp", "getpid", "getppid",
    "getpriority", "getrandom", "getresgid", "getresgid32", "getresuid", "getresuid32", "getrlimit",
    "getrusage", "getsid", "getsockname", "getsockopt", "gettid", "gettimeofday", "getuid", "getuid32",
    "getxattr", "getxattrat", "inotify_add_watch", "inotify_init", "inotify_init1", "inotify_rm_watch",
    "io_cancel", "io_destroy", "io_getevents", "io_pgetevents", "io_pgetevents_time64", "io_setup",
    "io_submit", "ioctl", "ioprio_get", "ioprio_set", "ipc", "kill", "landlock_add_rule",
    "landlock_create_ruleset", "landlock_restrict_self", "lchown", "lchown32", "lgetxattr", "link", "linkat",
    "listen", "listmount", "listxattr", "listxattrat", "llistxattr", "lremovexattr", "lseek", "lsetxattr",
    "lstat", "lstat64", "madvise", "map_shadow_stack", "membarrier", "memfd_create", "memfd_secret",
    "mincore", "mkdir", "mkdirat", "mknod", "mknodat", "mlock", "mlock2", "mlockall", "mmap", "mmap2",
    "mprotect", "mq_getsetattr", "mq_notify", "mq_open", "mq_timedreceive", "mq_timedreceive_time64",
    "mq_timedsend", "mq_timedsend_time64", "mq_unlink", "mremap", "mseal", "msgctl", "msgget", "msgrcv",
    "msgsnd", "msync", "munlock", "munlockall", "munmap", "name_to_handle_at", "nanosleep", "newfstatat",
    "open", "openat", "openat2", "pause", "pidfd_open", "pidfd_send_signal", "pipe", "pipe2", "pkey_alloc",
    "pkey_free", "pkey_mprotect", "poll", "ppoll", "ppoll_time64", "prctl", "pread64", "preadv", "preadv2",
    "prlimit64", "process_mrelease", "process_vm_readv", "process_vm_writev", "pselect6", "pselect6_time64",
    "ptrace", "pwrite64", "pwritev", "pwritev2", "read", "readahead", "readlink", "readlinkat", "readv",
    "recv", "recvfrom", "recvmmsg", "recvmmsg_time64", "recvmsg", "remap_file_pages", "removexattr",
    "removexattrat", "rename", "renameat", "renameat2", "restart_syscall", "riscv_hwprobe", "rmdir", "rseq",
    "rt_sigaction", "rt_sigpending", "rt_sigprocmask", "rt_sigqueueinfo", "rt_sigreturn", "rt_sigsuspend",
    "rt_sigtimedwait", "rt_sigtimedwait_time64", "rt_tgsigqueueinfo", "sched_get_priority_max",
    "sched_get_priority_min", "sched_getaffinity", "sched_getattr", "sched_getparam", "sched_getscheduler",
    "sched_rr_get_interval", "sched_rr_get_interval_time64", "sched_setaffinity", "sched_setattr",
    "sched_setparam", "sched_setscheduler", "sched_yield", "seccomp", "select", "semctl", "semget", "semop",
    "semtimedop", "semtimedop_time64", "send", "sendfile", "sendfile64", "sendmmsg", "sendmsg", "sendto",
    "set_robust_list", "set_thread_area", "set_tid_address", "setfsgid", "setfsgid32", "setfsuid",
    "setfsuid32", "setgid", "setgid32", "setgroups", "setgroups32", "setitimer", "setpgid", "setpriority",
    "setregid", "setregid32", "setresgid", "setresgid32", "setresuid", "setresuid32", "setreuid",
    "setreuid32", "setrlimit", "setsid", "setsockopt", "setuid", "setuid32", "setxattr", "setxattrat",
    "shmat", "shmctl", "shmdt", "shmget", "shutdown", "sigaltstack", "signalfd", "signalfd4", "sigprocmask",
    "sigreturn", "socketcall", "socketpair", "splice", "stat", "stat64", "statfs", "statfs64", "statmount",
    "statx", "symlink", "symlinkat", "sync", "sync_file_range", "syncfs", "sysinfo", "tee", "tgkill", "time",
    "timer_create", "timer_delete", "timer_getoverrun", "timer_gettime", "timer_gettime64", "timer_settime",
    "timer_settime64", "timerfd_create", "timerfd_gettime", "timerfd_gettime64", "timerfd_settime",
    "timerfd_settime64", "times", "tkill", "truncate", "truncate64", "ugetrlimit", "umask", "uname", "unlink",
    "unlinkat", "uretprobe", "utime", "utimensat", "utimensat_time64", "utimes", "vfork", "vmsplice", "wait4",
    "waitid", "waitpid", "write", "writev",
];

#[cfg(test)]
mod tests {
    use super::super::DEFAULT_CAPABILITIES;
    use super::super::tables::Abi;
    use super::*;

    #[test]
    fn every_name_of_a_rule_is_a_system_call() {
        let known: Vec<&str> =
            Abi::ALL.into_iter().flat_map(|abi| abi.system_calls()).map(|(_, name)| name).collect();
        let conditional = ON_HOST.iter().flat_map(|(_, names)| names.iter());
        let with_capability = WITH_CAPABILITY.iter().flat_map(|(_, names)| names.iter());
        for name in ALWAYS.iter().chain(conditional).chain(with_capability).chain(&["socket", "personality"])
        {
            assert!(known.contains(name), "{name}");
        }
        assert!(ALWAYS.is_sorted());
    }

    #[test]
    fn the_default_capabilities_decide_as_dockers_do() {
        let decide = |name: &str| decide(HostArch::X86_64, DEFAULT_CAPABILITIES, name);
        for name in
            ["read", "execve", "ptrace", "chroot", "arch_prctl", "mknod", "setgroups", "seccomp", "openat2"]
        {
            assert_eq!(decide(name), Decision::Allow, "{name}");
        }
        for name in [
            "mount",
            "umount2",
            "unshare",
            "setns",
            "keyctl",
            "add_key",
            "request_key",
            "bpf",
            "perf_event_open",
            "userfaultfd",
            "init_module",
            "kexec_load",
            "reboot",
            "swapon",
            "iopl",
            "settimeofday",
            "sethostname",
            "open_by_handle_at",
            "io_uring_setup",
            "open_tree",
            "fsopen",
            "move_mount",
            "pivot_root",
            "acct",
        ] {
            assert_eq!(decide(name), Decision::Errno(EPERM), "{name}");
        }
        assert_eq!(decide("clone3"), Decision::Errno(ENOSYS));
        assert!(matches!(decide("clone"), Decision::AllowIfClear { argument: 0, .. }));
    }

    #[test]
    fn capabilities_open_what_they_govern() {
        let all = u64::MAX;
        for name in ["mount", "unshare", "clone", "clone3", "bpf", "reboot", "acct", "kcmp", "syslog"] {
            assert_eq!(decide(HostArch::Aarch64, all, name), Decision::Allow, "{name}");
        }
        assert_eq!(decide(HostArch::Aarch64, 0, "chroot"), Decision::Errno(EPERM));
        assert!(matches!(
            decide(HostArch::S390x, DEFAULT_CAPABILITIES, "clone"),
            Decision::AllowIfClear { argument: 1, .. }
        ));
        // Another host's own calls stay closed.
        assert_eq!(decide(HostArch::Aarch64, all, "modify_ldt"), Decision::Errno(EPERM));
    }
}
