// SPDX-License-Identifier: Apache-2.0
//! A binfmt_misc instance that only our own user namespace sees.
//!
//! Since Linux 6.7 every user namespace may have a binfmt_misc of its own; processes use the instance of
//! their nearest ancestor namespace that has one. The instance is mounted nowhere: its entries live as long
//! as the detached mount does, which [`PrivateBinfmt`] holds.
//!
//! Registration is one write of a line, `:name:M:offset:magic:mask:interpreter:flags`
//! (kernel, Documentation/admin-guide/binfmt-misc.rst). The flags used are `F` (the interpreter is opened now,
//! in our view of the file system, so images need no copy of it), `C` (set-user-ID works as on hardware), `O`
//! (the program is handed over as an open file) and `P` (the original first argument is kept).

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

use super::Architecture;

/// The kernel's limit of a registration line.
const LINE_MAX: usize = 1920;
/// More values at the same time than any program has.
const ENTRIES_MAX: u32 = 64;
/// The inode number of the initial user namespace (kernel, `PROC_USER_INIT_INO`).
const INITIAL_USER_NAMESPACE: u64 = 0xEFFF_FFFD;

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
    /// Whether the interpreter knows how to keep the original first argument (`P`); QEMU does since 6.0.
    pub keeps_first_argument: bool,
}

impl Handler {
    /// Makes the handler that runs an architecture's executables with `interpreter`.
    pub fn new(architecture: Architecture, interpreter: PathBuf) -> Handler {
        let magic = architecture.magic();
        Handler {
            name: format!("polyarch-{}", architecture.name()),
            magic: magic.magic,
            mask: magic.mask,
            interpreter,
            keeps_first_argument: true,
        }
    }

    /// Writes the registration line with this name and these flags.
    pub(super) fn line(&self, name: &str, flags: &str) -> Result<Vec<u8>, BinfmtError> {
        let refuse =
            |reason: &str| BinfmtError::Handler { name: self.name.clone(), reason: reason.to_owned() };
        let interpreter = self.interpreter.as_os_str().as_bytes();
        if !self.interpreter.is_absolute() || interpreter.contains(&0) || interpreter.ends_with(b"\n") {
            return Err(refuse("its interpreter is not an absolute path that a registration can carry"));
        }
        let is_name = !name.is_empty() && !matches!(name, "." | "..");
        if !is_name || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) {
            return Err(refuse("its name may only have letters, digits, `-`, `_` and `.`"));
        }
        if self.magic.is_empty() || self.magic.len() != self.mask.len() {
            return Err(refuse("its magic and mask differ in length"));
        }
        // The first character of the line separates its fields; the others can't contain these. In a file of
        // binfmt.d, `;` would begin a comment.
        let separator = *b":,|!%"
            .iter()
            .find(|separator| !interpreter.contains(separator))
            .ok_or_else(|| refuse("its interpreter's path has every possible separator"))?;
        let mut line = Vec::new();
        for field in [name.as_bytes(), b"M", b"", &escape(&self.magic), &escape(&self.mask), interpreter] {
            line.push(separator);
            line.extend(field);
        }
        line.push(separator);
        line.extend(flags.as_bytes());
        if line.len() > LINE_MAX {
            return Err(refuse("its interpreter's path is too long for the kernel"));
        }
        Ok(line)
    }
}

/// Writes bytes as `\xHH`, which the kernel reads back.
fn escape(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().flat_map(|byte| format!("\\x{byte:02x}").into_bytes()).collect()
}

/// Says why handlers could not be registered privately.
#[derive(Debug, thiserror::Error)]
pub enum BinfmtError {
    /// The kernel or the namespace has no private instances; nothing has been changed.
    #[error("private binfmt_misc is not available: {reason}")]
    Unsupported {
        /// What is missing.
        reason: String,
    },
    /// A handler can't be expressed in a registration.
    #[error("binfmt_misc handler {name:?} can't be registered: {reason}")]
    Handler {
        /// The handler's name.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The kernel refused a registration.
    #[error("the kernel refused the binfmt_misc handler {name:?} with the interpreter {}", interpreter.display())]
    Register {
        /// The handler's name.
        name: String,
        /// Its interpreter.
        interpreter: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// An entry could not be removed.
    #[error("can't remove the binfmt_misc handler {name:?}")]
    Remove {
        /// The handler's name.
        name: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
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
    /// [`BinfmtError::Unsupported`] in the initial user namespace, without the namespace's CAP_SYS_ADMIN and
    /// where the kernel (before 6.7) has only one instance for all; nothing has been changed then.
    pub fn create(handlers: &[Handler]) -> Result<PrivateBinfmt, BinfmtError> {
        if is_initial_user_namespace()? {
            return Err(BinfmtError::Unsupported {
                reason: "this is the host's user namespace, whose handlers are not ours to change".to_owned(),
            });
        }
        let binfmt = PrivateBinfmt { mount: detached_mount()? };
        for handler in handlers {
            binfmt.register(handler)?;
        }
        Ok(binfmt)
    }

    /// Adds a handler, which counts from the next execution on; returns the name of its entry.
    ///
    /// The name gets a number where another value of this namespace has an entry of the same name.
    ///
    /// # Errors
    /// [`BinfmtError::Handler`] and [`BinfmtError::Register`].
    pub fn register(&self, handler: &Handler) -> Result<String, BinfmtError> {
        let refuse = |errno: Errno| BinfmtError::Register {
            name: handler.name.clone(),
            interpreter: handler.interpreter.clone(),
            source: errno.into(),
        };
        let mut flags = if handler.keeps_first_argument { "POCF" } else { "OCF" };
        let mut number = 1;
        loop {
            let name = if number == 1 { handler.name.clone() } else { format!("{}-{number}", handler.name) };
            match self.write("register", &handler.line(&name, flags)?) {
                Ok(()) => return Ok(name),
                Err(Errno::EXIST) if number < ENTRIES_MAX => number += 1,
                // A flag that the kernel doesn't know (P, before 5.12) is EINVAL.
                Err(Errno::INVAL) if flags == "POCF" => flags = "OCF",
                Err(errno) => return Err(refuse(errno)),
            }
        }
    }

    /// Removes the handler of this name.
    ///
    /// # Errors
    /// [`BinfmtError::Remove`], also when there is none.
    pub fn remove(&self, name: &str) -> Result<(), BinfmtError> {
        self.write(name, b"-1")
            .map_err(|errno| BinfmtError::Remove { name: name.to_owned(), source: errno.into() })
    }

    fn write(&self, file: impl AsRef<OsStr>, bytes: &[u8]) -> Result<(), Errno> {
        let file = openat(&self.mount, file.as_ref(), OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
        rustix::io::write(&file, bytes).map(|_| ())
    }
}

impl AsFd for PrivateBinfmt {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.mount.as_fd()
    }
}

/// Tells whether this process lives in the host's user namespace.
///
/// # Errors
/// When the kernel doesn't say.
pub fn is_initial_user_namespace() -> Result<bool, BinfmtError> {
    match std::fs::metadata("/proc/self/ns/user") {
        Ok(metadata) => Ok(metadata.ino() == INITIAL_USER_NAMESPACE),
        // Without certainty we must not touch what may be the host's.
        Err(error) => Err(BinfmtError::Unsupported {
            reason: format!("/proc/self/ns/user does not tell which user namespace this is: {error}"),
        }),
    }
}

/// Mounts this user namespace's binfmt_misc nowhere.
fn detached_mount() -> Result<OwnedFd, BinfmtError> {
    let unsupported = |step: &str, errno: Errno| BinfmtError::Unsupported {
        reason: match errno {
            Errno::NODEV => {
                "the kernel was built without binfmt_misc, or its module is not loaded".to_owned()
            }
            Errno::PERM => {
                format!("the kernel does not permit it in a user namespace ({step}); Linux 6.7 or newer does")
            }
            other => format!("{step}: {other}"),
        },
    };
    let context = fsopen("binfmt_misc", FsOpenFlags::FSOPEN_CLOEXEC).map_err(|e| unsupported("fsopen", e))?;
    // A kernel with one instance for all refuses here, since it asks for the host's CAP_SYS_ADMIN.
    fsconfig_create(context.as_fd()).map_err(|e| unsupported("fsconfig", e))?;
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
        .map_err(|e| unsupported("fsmount", e))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handler(interpreter: &str) -> Handler {
        Handler::new(Architecture::Arm64, interpreter.into())
    }

    #[test]
    fn a_line_has_the_form_that_the_kernel_reads() {
        let line = handler("/usr/bin/qemu-aarch64-static").line("polyarch-arm64", "POCF").unwrap();
        assert_eq!(
            String::from_utf8(line).unwrap(),
            ":polyarch-arm64:M::\
             \\x7f\\x45\\x4c\\x46\\x02\\x01\\x01\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x02\\x00\\xb7\\x00:\
             \\xff\\xff\\xff\\xff\\xff\\xff\\xff\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\xfe\\xff\\xff\\xff:\
             /usr/bin/qemu-aarch64-static:POCF"
        );
    }

    #[test]
    fn a_path_with_the_separator_gets_another_one() {
        let line = handler("/opt/a:b/qemu").line("polyarch-arm64", "OCF").unwrap();
        assert!(line.starts_with(b",polyarch-arm64,M,,"));
        assert!(line.ends_with(b",/opt/a:b/qemu,OCF"));
    }

    #[test]
    fn what_a_line_cannot_carry_is_refused() {
        for path in ["qemu", "/a:;,|!%b/qemu", "/qemu\n", &format!("/{}", "a".repeat(LINE_MAX))] {
            let error = handler(path).line("polyarch-arm64", "OCF").unwrap_err().to_string();
            assert!(error.contains("polyarch-arm64"), "{error}");
        }
        for name in ["", ".", "..", "a/b", "a:b", "a\nb"] {
            assert!(handler("/qemu").line(name, "OCF").is_err(), "{name:?}");
        }
        let handler = Handler { mask: vec![0xff], ..handler("/qemu") };
        assert!(handler.line("polyarch-arm64", "OCF").is_err());
    }

    #[test]
    fn kernel_the_hosts_user_namespace_is_left_alone() {
        if !is_initial_user_namespace().unwrap() {
            eprintln!("skipped: this test runs in a user namespace already");
            return;
        }
        assert!(matches!(PrivateBinfmt::create(&[]), Err(BinfmtError::Unsupported { .. })));
    }
}
