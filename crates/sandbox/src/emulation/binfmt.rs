// SPDX-License-Identifier: Apache-2.0
//! A binfmt_misc instance that only our own user namespace sees.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

/// Says which executables an interpreter takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handler {
    /// The entry's name, without `/`.
    pub name: String,
    /// The first bytes of the executables.
    pub magic: Vec<u8>,
    /// Which bits of `magic` count; as long as it.
    pub mask: Vec<u8>,
    /// The absolute path of the interpreter, resolved when it is registered.
    pub interpreter: PathBuf,
}

/// Says why handlers could not be registered privately.
#[derive(Debug, thiserror::Error)]
pub enum BinfmtError {
    /// The kernel or the namespace has no private instances.
    #[error("private binfmt_misc is not available: {reason}")]
    Unsupported {
        /// What is missing.
        reason: String,
    },
}

/// A private binfmt_misc instance; its handlers live exactly as long as this value.
#[derive(Debug)]
pub struct PrivateBinfmt {
    mount: OwnedFd,
}

impl PrivateBinfmt {
    /// Creates the instance of this user namespace with the handlers.
    ///
    /// From then on the namespace no longer sees the host's handlers, even after the value is dropped.
    ///
    /// # Errors
    /// [`BinfmtError::Unsupported`] in the initial user namespace and where the kernel (before 6.7) has
    /// only one instance for all; nothing has been changed then.
    pub fn create(handlers: &[Handler]) -> Result<PrivateBinfmt, BinfmtError> {
        let _ = handlers;
        Err(BinfmtError::Unsupported { reason: "not built yet".to_owned() })
    }
}

impl AsFd for PrivateBinfmt {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.mount.as_fd()
    }
}
