// SPDX-License-Identifier: Apache-2.0
//! The system call filter in the real kernel.
//!
//! The tests need the right to install a filter: root, or a user namespace.

#![cfg(target_arch = "x86_64")]
#![expect(clippy::print_stderr, reason = "a skipped test says why")]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use polyarch_oci::Platform;
use polyarch_sandbox::emulation::{PROBE_STATUS, probe_executable};
use polyarch_sandbox::seccomp::{default_program, install};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType};

/// Set in the process that installs the filter.
const INNER: &str = "POLYARCH_TEST_UNDER_FILTER";

/// Runs this test again in a process of its own, since a filter can't be taken off.
fn in_own_process(test: &str) {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: an ordinary user may only install a filter after no_new_privs");
        return;
    }
    let output = Command::new(std::env::current_exe().expect("the running test has a file"))
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(INNER, "1")
        .output()
        .expect("the running test can be started again");
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "under the filter:\n{text}\n{errors}");
    eprint!("{errors}");
}

fn write_executable(path: &Path, bytes: &[u8]) {
    std::fs::write(path, bytes).expect("the tests' directories are writable");
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("the file is ours");
}

/// A program that makes one system call with all arguments zero and ends with the error number.
fn one_call(platform: &str, number: u32) -> Vec<u8> {
    let platform: Platform = platform.parse().expect("the tests name valid platforms");
    let mut program = probe_executable(&platform).expect("the tests name known platforms");
    let mut code = vec![0xb8];
    code.extend(number.to_le_bytes());
    let code_offset = if platform.architecture == "386" {
        // mov eax, number; int 0x80; neg eax; xchg ebx, eax; inc eax; int 0x80
        code.extend([0xcd, 0x80, 0xf7, 0xd8, 0x93, 0x40, 0xcd, 0x80]);
        84
    } else {
        // mov eax, number; syscall; neg eax; xchg edi, eax; mov al, 60; syscall
        code.extend([0x0f, 0x05, 0xf7, 0xd8, 0x97, 0xb0, 60, 0x0f, 0x05]);
        120
    };
    program[code_offset..code_offset + code.len()].copy_from_slice(&code);
    program
}

#[test]
fn kernel_forbidden_calls_fail_and_ordinary_ones_work_in_every_abi() {
    if std::env::var_os(INNER).is_none() {
        return in_own_process("kernel_forbidden_calls_fail_and_ordinary_ones_work_in_every_abi");
    }
    const EPERM: i32 = 1;
    const ENOSYS: i32 = 38;
    // The variant only makes the file long enough.
    const BITS_64: &str = "linux/amd64/v2";
    const BITS_32: &str = "linux/386";
    const X32: u32 = 0x4000_0000;
    let calls = [
        ("mount", BITS_64, 165, EPERM),
        ("unshare", BITS_64, 272, EPERM),
        ("keyctl", BITS_64, 250, EPERM),
        ("clone3", BITS_64, 435, ENOSYS),
        ("no call", BITS_64, 0x7000, ENOSYS),
        ("personality", BITS_64, 135, 0),
        ("umask", BITS_64, 95, -0o22 & 0xff),
        ("keyctl of x32", BITS_64, X32 | 250, EPERM),
        ("mount", BITS_32, 21, EPERM),
        ("unshare", BITS_32, 310, EPERM),
        ("keyctl", BITS_32, 288, EPERM),
        ("clone3", BITS_32, 435, ENOSYS),
        ("no call", BITS_32, 0x7000, ENOSYS),
        ("personality", BITS_32, 136, 0),
        ("umask", BITS_32, 60, -0o22 & 0xff),
    ];
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o22));
    let directory = tempfile::tempdir().unwrap();
    let run = |platform: &str, number: u32| -> Result<i32, std::io::Error> {
        let file = directory.path().join(format!("call-{number}"));
        write_executable(&file, &one_call(platform, number));
        Command::new(&file).status().map(|status| status.code().unwrap_or(-1))
    };
    let before: Vec<i32> =
        calls.iter().map(|(_, platform, number, _)| run(platform, *number).unwrap_or(-2)).collect();
    if before[8] == -2 {
        eprintln!("skipped for 386: this kernel runs no 32-bit programs");
    }

    install(default_program().unwrap()).unwrap();

    for ((name, platform, number, expected), before) in calls.iter().zip(before) {
        if before == -2 {
            continue;
        }
        assert_eq!(run(platform, *number).unwrap(), *expected, "{name} ({platform})");
        // Without the filter the same call fails otherwise or works, so the answer was the filter's.
        if *expected == EPERM && !name.contains("x32") {
            assert_ne!(before, *expected, "{name} ({platform}) without the filter");
        }
    }
    // Arguments decide too.
    let socket = |family: u16| {
        rustix::net::socket(AddressFamily::from_raw(family), SocketType::DGRAM, None).map(|_| ()).err()
    };
    assert_eq!(socket(1), None, "AF_UNIX");
    assert_eq!(socket(16), None, "AF_NETLINK");
    assert_eq!(socket(38), Some(Errno::PERM), "AF_ALG");
    assert_eq!(socket(40), Some(Errno::PERM), "AF_VSOCK");
}

#[test]
fn kernel_shells_threads_and_emulators_work_under_the_filter() {
    if std::env::var_os(INNER).is_none() {
        return in_own_process("kernel_shells_threads_and_emulators_work_under_the_filter");
    }
    install(default_program().unwrap()).unwrap();
    assert_eq!(std::thread::spawn(|| 7).join().unwrap(), 7);
    let script = "set -e; t=$(mktemp -d); cd $t; echo b >x; echo a >>x; sort x | head -1; (sleep 0 &) ; wait; rm -r $t";
    let output = Command::new("sh").args(["-c", script]).output().unwrap();
    assert_eq!((output.status.code(), &*output.stdout), (Some(0), &b"a\n"[..]));
    for arguments in [["--user", "true"], ["--mount", "true"], ["--pid", "true"]] {
        let status = Command::new("unshare").args(arguments).stderr(Stdio::null()).status().unwrap();
        assert_eq!(status.code(), Some(1), "unshare {arguments:?}");
    }
    let directory = tempfile::tempdir().unwrap();
    for (platform, emulator) in [("linux/arm64", "qemu-aarch64-static"), ("linux/arm/v7", "qemu-arm-static")]
    {
        let emulator = Path::new("/usr/bin").join(emulator);
        if !emulator.exists() {
            eprintln!("skipped: {} is not installed (apt-get install qemu-user-static)", emulator.display());
            continue;
        }
        let file = directory.path().join("probe");
        write_executable(&file, &probe_executable(&platform.parse().unwrap()).unwrap());
        let status = Command::new(&emulator).arg(&file).status().unwrap();
        assert_eq!(status.code(), Some(PROBE_STATUS), "{platform}");
    }
}
