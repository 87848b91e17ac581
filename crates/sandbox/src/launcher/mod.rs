// SPDX-License-Identifier: Apache-2.0
//! A small process that forks the containers, and the builder's side of the connection to it.
//!
//! The builder has many threads and much memory: forking it would be slow and unsafe. The launcher is the same program
//! executed anew, has one thread and next to no memory, and does nothing but fork containers and wait for them. A
//! container is two processes: the *init*, which is process 1 of the container's PID namespace, sets everything up and
//! reaps; and the *program*. They are gone when the run ends, when the [`RunHandle`] is dropped, and when the builder
//! or the launcher dies.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use crate::{CancelFlag, ExitStatus, Mount, ProcessSpec, RootFs, SandboxError, Stdio};
use protocol::{Message, Reply, Request};

pub(crate) mod bytes;
mod descendants;
mod init;
mod program;
mod protocol;
mod report;
mod server;

/// The first argument that makes the program a launcher: `main` must call [`main`] when it sees it.
pub const ARGUMENT: &str = "polyarch-launcher";

/// How to start a launcher.
#[derive(Debug, Clone)]
pub struct LauncherOptions {
    /// The program to execute with [`ARGUMENT`]: `/proc/self/exe`, except in tests.
    pub program: PathBuf,
    /// An absolute directory of the caller's, best on the same file system as the layers; made if missing.
    ///
    /// It gets a few directories (`skeleton-*`, `root`, `files`) that hold nothing but empty mount points, are the
    /// same each time and may be shared by several launchers. They may be removed while no launcher runs.
    pub scratch_directory: PathBuf,
}

/// The builder's end of the launcher process. Dropping it ends the process and every container.
///
/// Shared between threads by reference: any number of runs may be under way.
#[derive(Debug)]
pub struct Launcher {
    /// `None` only while being dropped.
    control: Option<OwnedFd>,
    process: Child,
    null: File,
    scratch: PathBuf,
}

impl Launcher {
    /// Starts the launcher process.
    ///
    /// Call it after [`user_namespace::enter`](crate::user_namespace::enter), best before anything large is
    /// allocated. The process ends by itself when this one dies, however that happens.
    pub fn start(options: LauncherOptions) -> Result<Launcher, SandboxError> {
        let LauncherOptions { program, scratch_directory } = options;
        if !scratch_directory.is_absolute() {
            let reason = format!("the scratch directory {} is not absolute", scratch_directory.display());
            return Err(SandboxError::Specification { reason });
        }
        let fail =
            |program: &PathBuf, source| SandboxError::LauncherStart { program: program.clone(), source };
        for name in ["root", "files", "trees"] {
            std::fs::create_dir_all(scratch_directory.join(name)).map_err(|source| fail(&program, source))?;
        }
        let null = File::options().read(true).write(true).open("/dev/null");
        let null = null.map_err(|source| fail(&program, source))?;
        let (control, theirs) = connection()?;
        // Containers see this command line as that of their process 1: it should tell nothing of the host.
        let process = Command::new(&program)
            .arg0("polyarch")
            .arg(ARGUMENT)
            .env_clear()
            .current_dir("/")
            .stdin(theirs)
            .stdout(std::process::Stdio::null())
            .spawn()
            .map_err(|source| fail(&program, source))?;
        Ok(Launcher { control: Some(control), process, null, scratch: scratch_directory })
    }

    /// Runs a process and waits for its end.
    ///
    /// When it returns, no process of the container is left and nothing of it is mounted. Blocks the thread.
    pub fn run(
        &self,
        root: &RootFs,
        spec: &ProcessSpec,
        stdio: Stdio,
        cancel: &CancelFlag,
    ) -> Result<ExitStatus, SandboxError> {
        if cancel.is_cancelled() {
            return Err(SandboxError::Cancelled);
        }
        self.spawn(root, spec, stdio)?.wait(cancel)
    }

    /// Starts a process and returns at once.
    ///
    /// Errors of the set-up are told by [`RunHandle::wait`]; here only a specification that makes no sense is
    /// refused, and a launcher that is gone.
    pub fn spawn(&self, root: &RootFs, spec: &ProcessSpec, stdio: Stdio) -> Result<RunHandle, SandboxError> {
        check(spec)?;
        let control = self.control.as_ref().ok_or(SandboxError::LauncherGone)?;
        let (socket, theirs) = connection()?;
        let request = Request { scratch: self.scratch.clone(), root: root.clone(), spec: spec.clone() };
        let streams = [&stdio.stdin, &stdio.stdout, &stdio.stderr];
        let streams: [BorrowedFd<'_>; 3] =
            streams.map(|stream| stream.as_ref().map_or(self.null.as_fd(), |fd| fd.as_fd()));
        protocol::send_run(control.as_fd(), &request, theirs.as_fd(), streams)?;
        Ok(RunHandle { socket })
    }
}

impl Drop for Launcher {
    fn drop(&mut self) {
        // The end of the connection is what tells the launcher to end; it kills what still runs, then itself.
        self.control = None;
        let _ = self.process.wait();
    }
}

/// A running container. Dropping it kills the container without waiting.
#[derive(Debug)]
pub struct RunHandle {
    socket: OwnedFd,
}

impl RunHandle {
    /// Waits for the end of the process.
    ///
    /// On cancellation the container is killed, its end is awaited, and [`SandboxError::Cancelled`] is returned.
    /// To be called once; other threads may send signals meanwhile.
    pub fn wait(&self, cancel: &CancelFlag) -> Result<ExitStatus, SandboxError> {
        self.wait_or_cancelled(cancel)?;
        match protocol::receive_reply(self.socket.as_fd())? {
            Reply::Exited(status) => Ok(status),
            Reply::Failed(failure) => Err(failure.into()),
            Reply::Cancelled => Err(SandboxError::Cancelled),
            Reply::Killed(signal) => Err(SandboxError::Killed { signal }),
        }
    }

    /// Returns when a reply is there, or after having asked for the container's end.
    fn wait_or_cancelled(&self, cancel: &CancelFlag) -> Result<(), SandboxError> {
        let event = cancel.event();
        loop {
            let mut fds = [PollFd::new(&self.socket, PollFlags::IN), PollFd::new(&event, PollFlags::IN)];
            match poll(&mut fds, None) {
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(SandboxError::system("wait for the container", errno)),
            }
            if !fds[0].revents().is_empty() {
                return Ok(());
            }
            if !fds[1].revents().is_empty() {
                return self.kill();
            }
        }
    }

    /// Sends a signal to the container's process; that it has ended already is no error.
    ///
    /// `SIGKILL` ends the container as [`RunHandle::kill`] does.
    pub fn signal(&self, signal: i32) -> Result<(), SandboxError> {
        let number = u8::try_from(signal).ok().filter(|number| (1..=64).contains(number));
        let number = number
            .ok_or_else(|| SandboxError::Specification { reason: format!("there is no signal {signal}") })?;
        protocol::send_message(self.socket.as_fd(), Message::Signal(number)).map(drop)
    }

    /// Kills the container with everything in it. [`RunHandle::wait`] then returns [`SandboxError::Cancelled`].
    pub fn kill(&self) -> Result<(), SandboxError> {
        protocol::send_message(self.socket.as_fd(), Message::Kill).map(drop)
    }
}

/// The whole of the launcher process: serves requests until the builder is gone.
///
/// Standard input is the connection. Never returns in the containers' processes.
pub fn main() -> ExitCode {
    // A container's process is a fork of this one. Unwinding, it would clean up what belongs to its parent.
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        report(info);
        std::process::abort();
    }));
    server::serve()
}

fn connection() -> Result<(OwnedFd, OwnedFd), SandboxError> {
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .map_err(|errno| SandboxError::system("make a connection to the launcher process", errno))
}

/// Refuses what no container could make sense of.
fn check(spec: &ProcessSpec) -> Result<(), SandboxError> {
    let refuse = |reason: String| Err(SandboxError::Specification { reason });
    if spec.args.first().is_none_or(String::is_empty) {
        return refuse("there is no program to execute".to_owned());
    }
    if let Some(text) = spec.args.iter().chain(&spec.env).find(|text| text.contains('\0')) {
        return refuse(format!("{text:?} has a NUL character"));
    }
    if let Some(text) = spec.env.iter().find(|text| text.find('=').is_none_or(|at| at == 0)) {
        return refuse(format!("the environment entry {text:?} has no form NAME=value"));
    }
    if !spec.cwd.starts_with('/') || spec.cwd.contains('\0') {
        return refuse(format!("the working directory {:?} is not absolute", spec.cwd));
    }
    if spec.hostname.len() > 64 || spec.hostname.contains('\0') {
        return refuse(format!("the host name {:?} is longer than 64 bytes", spec.hostname));
    }
    for mount in &spec.mounts {
        let target = mount.target();
        if !crate::mounts::is_plausible(target) || target.parent().is_none() {
            return refuse(format!("the mount target {} is not an absolute path below /", target.display()));
        }
        if let Mount::Bind { source, .. } = mount
            && !source.is_absolute()
        {
            return refuse(format!("the mount source {} is not absolute", source.display()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(change: impl FnOnce(&mut ProcessSpec)) -> String {
        let mut spec = ProcessSpec::new(vec!["true".to_owned()]);
        check(&spec).expect("the plain one is right");
        change(&mut spec);
        check(&spec).expect_err("refused").to_string()
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_its_name() {
        assert!(refusal(|spec| spec.args.clear()).contains("no program"));
        assert!(refusal(|spec| spec.args.push("a\0b".to_owned())).contains("NUL"));
        assert!(refusal(|spec| spec.env.push("NAME".to_owned())).contains("NAME=value"));
        assert!(refusal(|spec| spec.cwd = "src".to_owned()).contains("\"src\" is not absolute"));
        assert!(refusal(|spec| spec.hostname = "x".repeat(65)).contains("64"));
        let tmpfs = |target: &str| Mount::Tmpfs { target: PathBuf::from(target), size_bytes: 0 };
        assert!(refusal(|spec| spec.mounts.push(tmpfs("/"))).contains("below /"));
        assert!(refusal(|spec| spec.mounts.push(tmpfs("tmp"))).contains("tmp is not"));
    }
}
