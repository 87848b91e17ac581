// SPDX-License-Identifier: Apache-2.0
//! Ends what a container started where there is no PID namespace that would do it.
//!
//! The init is then a subreaper: orphans become its children. So it kills its children and reaps them until there are
//! none. A process could only get away by being of another user namespace with more rights than ours.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags, openat, readlinkat};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, wait};

/// The host's `/proc`, held from the time before the root changed.
#[derive(Debug)]
pub(super) struct Descendants {
    proc: OwnedFd,
}

impl Descendants {
    /// Opens `/proc` and makes this process the one that inherits orphans.
    pub(super) fn adopt() -> Result<Descendants, Errno> {
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Descendants { proc: rustix::fs::open("/proc", flags, Mode::empty())? })
    }

    /// Kills and reaps until no descendant is left.
    pub(super) fn end_all(&self) {
        loop {
            for child in self.children() {
                let _ = kill_process(child, Signal::KILL);
            }
            match wait(WaitOptions::empty()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => return,
            }
        }
    }

    /// The identifiers of this process's children, which has one thread.
    fn children(&self) -> Vec<Pid> {
        let Ok(own) = readlinkat(&self.proc, "self", Vec::new()) else { return Vec::new() };
        let own = own.to_string_lossy().into_owned();
        let path = format!("{own}/task/{own}/children");
        let Ok(file) = openat(self.proc.as_fd(), path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        else {
            return Vec::new();
        };
        let text = std::io::read_to_string(std::fs::File::from(file)).unwrap_or_default();
        text.split_ascii_whitespace().filter_map(|word| Pid::from_raw(word.parse().ok()?)).collect()
    }
}
