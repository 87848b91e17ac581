// SPDX-License-Identifier: Apache-2.0
//! A flag that ends running containers from another thread.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{EventfdFlags, eventfd};

use crate::SandboxError;

/// Asks the runs that hold a clone of it to end.
///
/// Once cancelled it stays so. Runs that wait wake at once; runs that have not begun do not begin.
#[derive(Debug, Clone)]
pub struct CancelFlag {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    is_cancelled: AtomicBool,
    /// Readable from the moment of cancellation on: nobody ever reads it.
    event: OwnedFd,
}

impl CancelFlag {
    /// Makes a flag that is not cancelled.
    ///
    /// Fails only where no file descriptor can be had.
    pub fn new() -> Result<CancelFlag, SandboxError> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|errno| SandboxError::system("make an eventfd for cancellation", errno))?;
        Ok(CancelFlag { shared: Arc::new(Shared { is_cancelled: AtomicBool::new(false), event }) })
    }

    /// Cancels. Idempotent; returns at once, the runs end a moment later.
    pub fn cancel(&self) {
        if !self.shared.is_cancelled.swap(true, Ordering::SeqCst) {
            // The counter goes from 0 to 1 once, so the write can neither block nor overflow.
            let _ = rustix::io::write(&self.shared.event, &1u64.to_ne_bytes());
        }
    }

    /// Says whether [`CancelFlag::cancel`] was called.
    pub fn is_cancelled(&self) -> bool {
        self.shared.is_cancelled.load(Ordering::SeqCst)
    }

    /// The descriptor that becomes readable with cancellation.
    pub(crate) fn event(&self) -> BorrowedFd<'_> {
        self.shared.event.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    fn is_readable(flag: &CancelFlag) -> bool {
        let event = flag.event();
        let mut fds = [PollFd::new(&event, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).expect("poll") == 1
    }

    #[test]
    fn cancellation_stays_and_reaches_every_clone() {
        let flag = CancelFlag::new().expect("eventfd");
        let clone = flag.clone();
        assert!(!clone.is_cancelled() && !is_readable(&clone));
        flag.cancel();
        flag.cancel();
        assert!(clone.is_cancelled() && is_readable(&clone) && is_readable(&clone));
    }
}
