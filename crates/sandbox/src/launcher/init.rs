// SPDX-License-Identifier: Apache-2.0
//! The init of a container: sets it up, forks the program, reaps, forwards signals, cleans up.
//!
//! As process 1 of the PID namespace it takes all other processes with it. It ends early when the pipe `life` is
//! closed: the launcher does that to cancel, and the kernel does it when the launcher dies.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{
    DumpableBehavior, Pid, WaitOptions, WaitStatus, kill_process, set_dumpable_behavior, wait,
};

use super::descendants::Descendants;
use super::program;
use super::protocol::Request;
use super::report::{self, Report};
use crate::failure::{Failure, Step};
use crate::kernel;
use crate::mounts;
use crate::{ExitStatus, Network};

/// The descriptors that the init is born with.
#[derive(Debug)]
pub(super) struct Descriptors {
    /// Standard input, output and error of the program.
    pub(super) stdio: [OwnedFd; 3],
    /// Reads as ended when the container is to end.
    pub(super) life: OwnedFd,
    /// Takes the report.
    pub(super) report: OwnedFd,
}

/// Which namespaces the init was born into, beyond those that every container has.
#[derive(Debug, Clone, Copy)]
pub(super) struct Namespaces {
    /// A PID namespace.
    pub(super) has_pid: bool,
    /// A cgroup namespace.
    pub(super) has_cgroup: bool,
}

/// The whole life of the init. Nothing of the launcher, of which this is a copy, is returned to.
pub(super) fn live(request: &Request, namespaces: Namespaces, fds: Descriptors) -> ! {
    let [stdin, stdout, stderr] = &fds.stdio;
    let keep = [stdin, stdout, stderr, &fds.life, &fds.report].map(AsRawFd::as_raw_fd);
    let Descriptors { stdio, life, report } = fds;
    let outcome = kernel::close_all_except(&keep)
        .step("close the launcher's descriptors")
        .and_then(|()| run(request, namespaces, stdio, &life, &report));
    let last = match outcome {
        Ok(status) => Report::Ended(status),
        Err(failure) => Report::Failed(failure),
    };
    report::write(report.as_fd(), &last);
    kernel::exit_now(0)
}

fn run(
    request: &Request,
    namespaces: Namespaces,
    stdio: [OwnedFd; 3],
    life: &OwnedFd,
    report: &OwnedFd,
) -> Result<ExitStatus, Failure> {
    let Request { scratch, root, spec } = request;
    let signals = kernel::block_signals().step("block signals")?;
    let descendants = match namespaces.has_pid {
        true => None,
        false => Some(Descendants::adopt().step("adopt the orphans of the container")?),
    };
    if !spec.hostname.is_empty() {
        rustix::system::sethostname(spec.hostname.as_bytes()).at("set the host name to", &spec.hostname)?;
    }
    if spec.network == Network::None {
        kernel::bring_loopback_up().step("bring the loopback interface up")?;
    }
    let stubs = mounts::enter(mounts::Plan {
        scratch,
        root,
        spec,
        has_pid_namespace: namespaces.has_pid,
        has_cgroup_namespace: namespaces.has_cgroup,
        terminal: spec.is_tty.then(|| stdio[0].as_fd()),
    })?;
    // From now on no process of the container may look into this one: its executable is the host's.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).step("hide the init")?;
    let Some(program) = kernel::fork().step("fork the program")? else {
        let failure = program::become_program(spec, &stdio, report);
        report::write(report.as_fd(), &Report::Failed(failure));
        kernel::exit_now(127)
    };
    // The streams end for their readers with the program, not with this process.
    drop(stdio);
    let supervised = detach_streams().and_then(|()| supervise(program, &signals, life));
    end_everyone(descendants.as_ref());
    stubs.remove();
    supervised
}

/// Leaves the launcher's own standard streams.
fn detach_streams() -> Result<(), Failure> {
    let step = "open /dev/null";
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).step(step)?;
    rustix::stdio::dup2_stdin(&null).step(step)?;
    rustix::stdio::dup2_stdout(&null).step(step)?;
    rustix::stdio::dup2_stderr(&null).step(step)
}

/// Waits for the end of the program, or of `life`.
fn supervise(program: Pid, signals: &OwnedFd, life: &OwnedFd) -> Result<ExitStatus, Failure> {
    loop {
        let mut fds = [PollFd::new(signals, PollFlags::IN), PollFd::new(life, PollFlags::IN)];
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno).step("wait for the program"),
        }
        if !fds[1].revents().is_empty() {
            return Ok(ExitStatus::Signal(libc::SIGKILL));
        }
        while let Some(signal) = kernel::read_signal(signals.as_fd()) {
            // What the terminal sends, it sends to the program itself as well, or means for the builder.
            if signal.number != libc::SIGCHLD
                && !signal.is_from_kernel
                && let Some(signal) = kernel::signal_of(signal.number)
            {
                let _ = kill_process(program, signal);
            }
        }
        if let Some(status) = reap(program) {
            return Ok(status);
        }
    }
}

/// Reaps whoever has ended; returns how the program ended if it did.
fn reap(program: Pid) -> Option<ExitStatus> {
    while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
        if pid == program {
            return Some(exit_status(status));
        }
    }
    None
}

fn exit_status(status: WaitStatus) -> ExitStatus {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => ExitStatus::Code(code),
        (None, Some(signal)) => ExitStatus::Signal(signal),
        // Neither is possible without WUNTRACED and WCONTINUED.
        (None, None) => ExitStatus::Code(255),
    }
}

fn end_everyone(descendants: Option<&Descendants>) {
    match descendants {
        Some(descendants) => descendants.end_all(),
        None => {
            kernel::kill_everyone();
            while matches!(wait(WaitOptions::empty()), Ok(_) | Err(Errno::INTR)) {}
        }
    }
}
