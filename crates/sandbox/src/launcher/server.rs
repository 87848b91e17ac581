// SPDX-License-Identifier: Apache-2.0
//! The launcher's loop: takes requests, forks containers, waits for their ends.
//!
//! It has one thread and blocks nowhere but in `poll`. A run goes through three states: running; ending, after its
//! `life` was closed and while the init cleans up; ended, when its pidfd becomes readable. An init that does not end by
//! itself within a while is killed.

use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, pidfd_send_signal, waitpid};

use super::init::{self, Descriptors, Namespaces};
use super::protocol::{self, Message, Reply, RunPacket};
use super::report::{self, Report};
use crate::failure::{Failure, Step};
use crate::{Network, kernel, mounts, seccomp};

/// How long an init may take to end its container before it is killed.
const PATIENCE: Duration = Duration::from_secs(2);

/// A container.
struct Run {
    socket: OwnedFd,
    init: Pid,
    pidfd: OwnedFd,
    report: OwnedFd,
    /// Closed to end the container.
    life: Option<OwnedFd>,
    /// When it was asked to end.
    ending_since: Option<Instant>,
    /// The caller's terminal, whose foreground is to be given back.
    terminal: Option<OwnedFd>,
}

/// Serves until the builder is gone and every container has ended.
pub(super) fn serve() -> ExitCode {
    let Ok(control) = take_control() else { return ExitCode::FAILURE };
    // Whoever started the builder may have made it ignore or block any signal, SIGCHLD among them.
    if kernel::reset_signals().is_err() {
        return ExitCode::FAILURE;
    }
    // What the terminal, or who ends a job, sends to the whole process group is for the builder, which decides;
    // writing to a closed pipe is an error to handle.
    for signal in [
        libc::SIGINT,
        libc::SIGQUIT,
        libc::SIGHUP,
        libc::SIGTERM,
        libc::SIGUSR1,
        libc::SIGUSR2,
        libc::SIGTTOU,
        libc::SIGPIPE,
    ] {
        kernel::ignore_signal(signal);
    }
    rustix::process::umask(Mode::from_raw_mode(0o022));
    // Made once here, it is there in every fork.
    let _ = seccomp::default_program();
    let mut server = Server { control: Some(control), runs: Vec::new(), namespaces: None };
    while server.control.is_some() || !server.runs.is_empty() {
        server.turn();
    }
    ExitCode::SUCCESS
}

/// Moves the connection away from standard input, which every child would share.
fn take_control() -> Result<OwnedFd, Errno> {
    let control = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    let null = rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::stdio::dup2_stdin(&null)?;
    Ok(control)
}

struct Server {
    /// `None` when the builder is gone.
    control: Option<OwnedFd>,
    runs: Vec<Run>,
    /// Which namespaces this machine lets us have; found out by the first run.
    namespaces: Option<Namespaces>,
}

impl Server {
    /// Waits for something to happen and handles it.
    fn turn(&mut self) {
        let mut fds = Vec::with_capacity(2 * self.runs.len() + 1);
        for run in &self.runs {
            fds.push(PollFd::new(&run.pidfd, PollFlags::IN));
            // An ending run has nothing more to be told, and a closed socket would be ready all the time.
            let events = if run.ending_since.is_none() { PollFlags::IN } else { PollFlags::empty() };
            fds.push(PollFd::new(if run.ending_since.is_none() { &run.socket } else { &run.pidfd }, events));
        }
        if let Some(control) = &self.control {
            fds.push(PollFd::new(control, PollFlags::IN));
        }
        let timeout = self.runs.iter().filter_map(|run| run.ending_since).min().map(|since| {
            // A little more, so that the time has really come when poll returns.
            let left =
                (since + PATIENCE).saturating_duration_since(Instant::now()) + Duration::from_millis(1);
            Timespec { tv_sec: left.as_secs() as _, tv_nsec: left.subsec_nanos() as _ }
        });
        if poll(&mut fds, timeout.as_ref()).is_err() {
            return;
        }
        let is_ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        drop(fds);
        let has_request = self.control.is_some() && is_ready.last() == Some(&true);
        let mut index = 0;
        self.runs.retain_mut(|run| {
            let (has_ended, has_message) = (is_ready[2 * index], is_ready[2 * index + 1]);
            index += 1;
            run.attend(has_ended, has_message)
        });
        if has_request {
            self.take_request();
        }
    }

    fn take_request(&mut self) {
        let Some(control) = &self.control else { return };
        match protocol::receive_run(control.as_fd()) {
            Ok(Some(packet)) => {
                let RunPacket { socket, request, stdio } = packet;
                match self.start(request, stdio) {
                    Ok(start) => self.runs.push(start.into_run(socket)),
                    Err(failure) => protocol::send_reply(socket.as_fd(), &Reply::Failed(failure)),
                }
            }
            Err(Errno::INTR | Errno::AGAIN | Errno::BADMSG) => {}
            Ok(None) | Err(_) => {
                self.control = None;
                self.runs.iter_mut().for_each(Run::end);
            }
        }
    }

    fn start(&mut self, request: OwnedFd, stdio: [OwnedFd; 3]) -> Result<Started, Failure> {
        let request = protocol::read_request(request)?;
        let namespaces = *self.namespaces.get_or_insert_with(find_namespaces);
        let step = "make a pipe";
        let (life_end, life) = pipe_with(PipeFlags::CLOEXEC).step(step)?;
        let (report, report_end) = pipe_with(PipeFlags::CLOEXEC).step(step)?;
        let terminal = match request.spec.is_tty {
            true => Some(rustix::io::fcntl_dupfd_cloexec(&stdio[0], 3).step("keep the terminal")?),
            false => None,
        };
        let mut flags = namespaces.flags();
        if request.spec.network == Network::None {
            flags |= libc::CLONE_NEWNET;
        }
        let Some((init, pidfd)) = kernel::clone_into(flags).step("create the container's namespaces")? else {
            init::live(&request, namespaces, Descriptors { stdio, life: life_end, report: report_end })
        };
        // A writer that outlives the init must not hold the launcher up.
        rustix::fs::fcntl_setfl(&report, OFlags::NONBLOCK).step(step)?;
        Ok(Started { init, pidfd, report, life, terminal })
    }
}

/// A container that has no run yet.
struct Started {
    init: Pid,
    pidfd: OwnedFd,
    report: OwnedFd,
    life: OwnedFd,
    terminal: Option<OwnedFd>,
}

impl Started {
    fn into_run(self, socket: OwnedFd) -> Run {
        let Started { init, pidfd, report, life, terminal } = self;
        Run { socket, init, pidfd, report, life: Some(life), ending_since: None, terminal }
    }
}

impl Run {
    /// Handles what has happened; returns whether the run goes on.
    fn attend(&mut self, has_ended: bool, has_message: bool) -> bool {
        if has_ended {
            self.finish();
            return false;
        }
        if has_message && self.ending_since.is_none() {
            match protocol::receive_message(self.socket.as_fd()) {
                // The init can't pass this one on, as it would never see it.
                Some(Message::Kill) => self.end(),
                Some(Message::Signal(number)) if i32::from(number) == libc::SIGKILL => self.end(),
                Some(Message::Signal(number)) => {
                    if let Some(signal) = kernel::signal_of(i32::from(number)) {
                        let _ = pidfd_send_signal(&self.pidfd, signal);
                    }
                }
                None => {}
            }
        }
        if self.ending_since.is_some_and(|since| since.elapsed() >= PATIENCE) {
            let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
            // Once more later: it dies as soon as the kernel lets it.
            self.ending_since = Some(Instant::now());
        }
        true
    }

    /// Asks the init to end everything.
    fn end(&mut self) {
        self.life = None;
        self.ending_since.get_or_insert_with(Instant::now);
    }

    /// Reaps the init and tells the builder.
    fn finish(&mut self) {
        let status = waitpid(Some(self.init), WaitOptions::empty());
        if let Some(terminal) = &self.terminal {
            // A shell in the container has taken the foreground; SIGTTOU is ignored here.
            let _ = rustix::termios::tcsetpgrp(terminal, rustix::process::getpgrp());
        }
        let report = match rustix::io::fcntl_dupfd_cloexec(&self.report, 3) {
            Ok(pipe) => report::read(pipe),
            Err(_) => None,
        };
        let killed =
            status.ok().flatten().and_then(|(_, status): (Pid, WaitStatus)| status.terminating_signal());
        let reply = match report {
            _ if self.ending_since.is_some() => Reply::Cancelled,
            Some(Report::Ended(status)) => Reply::Exited(status),
            Some(Report::Failed(failure)) => Reply::Failed(failure),
            None => Reply::Killed(killed.unwrap_or(0)),
        };
        protocol::send_reply(self.socket.as_fd(), &reply);
    }
}

impl Namespaces {
    fn flags(self) -> i32 {
        let mut flags = libc::CLONE_NEWNS | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
        if self.has_pid {
            flags |= libc::CLONE_NEWPID;
        }
        if self.has_cgroup {
            flags |= libc::CLONE_NEWCGROUP;
        }
        flags
    }
}

/// Tries in a child which namespaces can be had with all that belongs to them.
fn find_namespaces() -> Namespaces {
    let is_possible = |flags: i32, attempt: fn() -> bool| match kernel::clone_into(flags) {
        Ok(None) => kernel::exit_now(if attempt() { 0 } else { 1 }),
        Ok(Some((child, _))) => matches!(
            waitpid(Some(child), WaitOptions::empty()),
            Ok(Some((_, status))) if status.exit_status() == Some(0)
        ),
        Err(_) => false,
    };
    Namespaces {
        has_pid: is_possible(libc::CLONE_NEWNS | libc::CLONE_NEWPID, mounts::can_mount_proc),
        has_cgroup: is_possible(libc::CLONE_NEWCGROUP, || true),
    }
}
