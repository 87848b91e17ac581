// SPDX-License-Identifier: Apache-2.0
//! Executes probes, all at once, the way the kernel would execute a build step.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, MemfdFlags, Mode, memfd_create, mkdir};
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, mount, mount_change, move_mount,
    open_tree,
};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::PROBE_STATUS;
use super::bundle::CONTAINER_DIRECTORY;

/// A probe needs milliseconds, on a very busy machine seconds.
const DEADLINE: Duration = Duration::from_secs(20);

/// How a probe ended.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It ran as a program should.
    Ran,
    /// It ran, but was given the original first argument as an additional one.
    ExtraArgument,
    /// The kernel did not execute it.
    Refused(io::Error),
    /// It started and ended otherwise.
    Ended(ExitStatus),
    /// It did not end.
    Hung,
}

impl Outcome {
    /// Says in a few words why the probe did not run.
    pub fn reason(&self) -> String {
        match self {
            Outcome::Ran => "it runs".to_owned(),
            Outcome::ExtraArgument => "the emulator is too old for the flag P of its registration".to_owned(),
            Outcome::Refused(error) => format!("a test program was refused: {error}"),
            Outcome::Ended(status) => match status.signal() {
                Some(4) => "a test program died of an instruction that is missing (signal 4)".to_owned(),
                Some(signal) => format!("a test program died of signal {signal}"),
                None => format!("a test program failed ({status})"),
            },
            Outcome::Hung => format!("a test program did not end within {} seconds", DEADLINE.as_secs()),
        }
    }
}

/// Executes the programs at the same time and returns how each ended, in their order.
///
/// With a `bundle` they run in a mount namespace where it is seen as it is in containers; that takes the right
/// to mount.
pub(super) fn execute(programs: &[Vec<u8>], bundle: Option<&Path>) -> Vec<Outcome> {
    let started: Vec<io::Result<(File, Child)>> =
        programs.iter().map(|program| start(program, bundle)).collect();
    let deadline = Instant::now() + DEADLINE;
    started
        .into_iter()
        .map(|child| match child {
            Ok((_file, mut child)) => wait(&mut child, deadline),
            Err(error) => Outcome::Refused(error),
        })
        .collect()
}

/// Starts one program from memory, so that no file system's `noexec` and no temporary file matters.
fn start(program: &[u8], bundle: Option<&Path>) -> io::Result<(File, Child)> {
    // Kept open over the execution: a handler without the flag O opens the path again.
    let memory = match memfd_create("probe", MemfdFlags::EXEC) {
        // Before Linux 6.3 the flag is unknown, and memory is executable anyway.
        Err(rustix::io::Errno::INVAL) => memfd_create("probe", MemfdFlags::empty())?,
        other => other?,
    };
    let mut file = File::from(memory);
    file.write_all(program)?;
    let mut command = Command::new(format!("/proc/self/fd/{}", file.as_raw_fd()));
    command.env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    if let Some(bundle) = bundle {
        let flags = OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::OPEN_TREE_CLONE;
        show_in_child(&mut command, open_tree(CWD, bundle, flags)?);
    }
    Ok((file, command.spawn()?))
}

/// Makes the child see the detached mount at the containers' place.
#[expect(unsafe_code, reason = "the child must change its mounts between fork and exec")]
fn show_in_child(command: &mut Command, bundle: OwnedFd) {
    // SAFETY: between fork and exec `show` makes system calls only; it neither allocates nor takes locks, since
    // its paths are short constants, which rustix terminates on the stack.
    unsafe { command.pre_exec(move || show(bundle.as_fd()).map_err(io::Error::from)) };
}

/// Mounts a fresh `/dev` with the bundle in it, in a mount namespace of its own.
fn show(bundle: BorrowedFd<'_>) -> rustix::io::Result<()> {
    leave_mount_namespace()?;
    mount_change(c"/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    mount(c"tmpfs", c"/dev", c"tmpfs", MountFlags::NOSUID, None)?;
    mkdir(CONTAINER_DIRECTORY, Mode::from_raw_mode(0o755))?;
    move_mount(bundle, c"", CWD, CONTAINER_DIRECTORY, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

#[expect(unsafe_code, reason = "rustix marks unshare as unsafe for all its flags")]
fn leave_mount_namespace() -> rustix::io::Result<()> {
    // SAFETY: only CLONE_FILES can invalidate what other code relies on; a mount namespace can't.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }
}

/// Waits for the end of a probe, and ends it at the deadline.
fn wait(child: &mut Child, deadline: Instant) -> Outcome {
    let has_ended = match pidfd_open(Pid::from_child(child), PidfdFlags::empty()) {
        Ok(process) => {
            let left = Timespec::try_from(deadline.saturating_duration_since(Instant::now()));
            let mut events = [PollFd::new(&process, PollFlags::IN)];
            loop {
                match poll(&mut events, left.as_ref().ok()) {
                    Err(rustix::io::Errno::INTR) => {}
                    other => break !matches!(other, Ok(0)),
                }
            }
        }
        // Without process descriptors (before Linux 5.3) there is no deadline.
        Err(_) => true,
    };
    if !has_ended {
        // Both fail only for a process that is gone already.
        let _ = child.kill();
        let _ = child.wait();
        return Outcome::Hung;
    }
    match child.wait() {
        Ok(status) => match status.code() {
            Some(PROBE_STATUS) => Outcome::Ran,
            Some(code) if code == PROBE_STATUS + 1 => Outcome::ExtraArgument,
            _ => Outcome::Ended(status),
        },
        Err(error) => Outcome::Refused(error),
    }
}

#[cfg(test)]
mod tests {
    use polyarch_oci::Platform;

    use super::super::probe_executable;
    use super::*;

    #[test]
    fn kernel_the_hosts_own_probe_runs() {
        let probe = probe_executable(&Platform::host()).unwrap();
        let outcomes = execute(&[probe.clone(), probe], None);
        assert!(matches!(outcomes[..], [Outcome::Ran, Outcome::Ran]), "{outcomes:?}");
    }

    #[test]
    fn kernel_what_is_no_program_is_refused() {
        let outcomes = execute(&[b"\x7fELF but not really".to_vec(), Vec::new()], None);
        for outcome in outcomes {
            assert!(matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
        }
    }
}
