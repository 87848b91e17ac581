// SPDX-License-Identifier: Apache-2.0
//! The system calls that rustix does not have, one function each.
#![expect(unsafe_code, reason = "these calls have no safe wrapper elsewhere")]

use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::Errno;
use rustix::process::{Pid, Signal};

/// The kernel's `struct clone_args` in its first version (clone3(2)).
#[repr(C, align(8))]
#[derive(Default)]
struct CloneArguments {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
}

/// The kernel's `struct mount_attr` (mount_setattr(2)).
#[repr(C)]
#[derive(Default)]
struct MountAttributes {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

/// `MOUNT_ATTR_RDONLY`.
pub(crate) const MOUNT_READ_ONLY: u64 = 0x1;
/// `MOUNT_ATTR_NOSUID`.
pub(crate) const MOUNT_NO_SUID: u64 = 0x2;
/// `MOUNT_ATTR_NOEXEC`.
pub(crate) const MOUNT_NO_EXEC: u64 = 0x8;

/// Forks. `None` is the child.
///
/// Only for processes with one thread: they may go on with ordinary Rust in the child.
pub(crate) fn fork() -> Result<Option<Pid>, Errno> {
    // SAFETY: the callers have one thread, so no lock is left held in the child and everything may be used there.
    match unsafe { libc::fork() } {
        -1 => Err(last_errno()),
        pid => Ok(Pid::from_raw(pid)),
    }
}

/// Forks into new namespaces (`CLONE_NEW…` in `flags`). `None` is the child.
///
/// Like [`fork`], only for processes with one thread. Unlike it, handlers of `pthread_atfork` do not run: there are
/// none.
pub(crate) fn clone_into(flags: i32) -> Result<Option<(Pid, OwnedFd)>, Errno> {
    let mut pidfd: RawFd = -1;
    let arguments = CloneArguments {
        // The sign bit is not among the namespace flags, so the cast keeps the value.
        flags: flags as u64 | libc::CLONE_PIDFD as u64,
        pidfd: std::ptr::from_mut(&mut pidfd) as u64,
        exit_signal: libc::SIGCHLD as u64,
        ..CloneArguments::default()
    };
    // SAFETY: without CLONE_VM the child has its own copy of the memory and, with `stack` 0, continues on its copy
    // of this stack. `arguments` and `pidfd` live until the call returns. There is one thread (see above).
    let result = unsafe {
        libc::syscall(libc::SYS_clone3, std::ptr::from_ref(&arguments), size_of::<CloneArguments>())
    };
    match result {
        -1 => Err(last_errno()),
        0 => Ok(None),
        pid => {
            let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(Errno::RANGE)?;
            // SAFETY: with CLONE_PIDFD the kernel has stored a new descriptor, owned by nobody else.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Some((pid, pidfd)))
        }
    }
}

/// Ends the process at once, without destructors and exit handlers.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: _exit takes any value and does not return.
    unsafe { libc::_exit(code) }
}

/// Executes a program; returns only when that fails.
pub(crate) fn execute(
    path: &CStr,
    arguments: &[CString],
    environment: &[CString],
) -> Result<Infallible, Errno> {
    let pointers = |list: &[CString]| {
        let mut pointers: Vec<*const libc::c_char> = list.iter().map(|text| text.as_ptr()).collect();
        pointers.push(std::ptr::null());
        pointers
    };
    let (arguments, environment) = (pointers(arguments), pointers(environment));
    // SAFETY: the path ends with NUL and both lists end with a null pointer; all live until the call returns.
    unsafe { libc::execve(path.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
    Err(last_errno())
}

/// Sets attributes (`MOUNT_…` above) of the mount that `mount` is the root of; `is_recursive` includes those beneath.
pub(crate) fn set_mount_attributes(
    mount: BorrowedFd<'_>,
    attributes: u64,
    is_recursive: bool,
) -> Result<(), Errno> {
    let change = MountAttributes { attr_set: attributes, ..MountAttributes::default() };
    let flags = libc::AT_EMPTY_PATH | if is_recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is an empty C string, `change` has the size that is passed and lives until the call returns.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            std::ptr::from_ref(&change),
            size_of::<MountAttributes>(),
        )
    };
    if result == -1 { Err(last_errno()) } else { Ok(()) }
}

/// Closes every descriptor above standard error except those of `keep`.
pub(crate) fn close_all_except(keep: &[RawFd]) -> Result<(), Errno> {
    let mut keep: Vec<u32> =
        keep.iter().filter_map(|fd| u32::try_from(*fd).ok()).filter(|fd| *fd > 2).collect();
    keep.sort_unstable();
    let mut first = 3u32;
    for kept in keep.into_iter().chain([u32::MAX]) {
        if first < kept {
            close_range(first, if kept == u32::MAX { kept } else { kept - 1 })?;
        }
        first = kept.saturating_add(1);
    }
    Ok(())
}

fn close_range(first: u32, last: u32) -> Result<(), Errno> {
    // SAFETY: called in freshly forked processes that never drop the owners of the closed descriptors: they end
    // with execve or _exit.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    if result == -1 { Err(last_errno()) } else { Ok(()) }
}

/// Blocks every signal and returns a descriptor from which [`read_signal`] takes them.
pub(crate) fn block_signals() -> Result<OwnedFd, Errno> {
    let all = full_set();
    // SAFETY: `all` is initialized; no old set is asked for.
    if unsafe { libc::sigprocmask(libc::SIG_SETMASK, &all, std::ptr::null_mut()) } == -1 {
        return Err(last_errno());
    }
    // SAFETY: `all` is initialized; -1 asks for a new descriptor.
    let fd = unsafe { libc::signalfd(-1, &all, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
    if fd == -1 {
        return Err(last_errno());
    }
    // SAFETY: the descriptor is new and owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A signal that arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ReceivedSignal {
    /// Its number.
    pub(crate) number: i32,
    /// Whether the kernel (the terminal, for example) sent it, not a process.
    pub(crate) is_from_kernel: bool,
}

/// Takes the next signal; `None` when there is none.
pub(crate) fn read_signal(fd: BorrowedFd<'_>) -> Option<ReceivedSignal> {
    let mut record = [0u8; size_of::<libc::signalfd_siginfo>()];
    if rustix::io::read(fd, &mut record) != Ok(record.len()) {
        return None;
    }
    // signalfd(2): the record begins with ssi_signo (u32), ssi_errno (i32), ssi_code (i32).
    let word = |at: usize| i32::from_ne_bytes([record[at], record[at + 1], record[at + 2], record[at + 3]]);
    Some(ReceivedSignal { number: word(0), is_from_kernel: word(8) == libc::SI_KERNEL })
}

/// Gives every signal its default effect and blocks none, as a program expects to be started.
pub(crate) fn reset_signals() -> Result<(), Errno> {
    for number in 1..=64 {
        // SAFETY: the default disposition runs no code of ours. KILL and STOP, and the two that the C library keeps
        // for itself, answer EINVAL, which changes nothing.
        unsafe { libc::signal(number, libc::SIG_DFL) };
    }
    let mut none = full_set();
    // SAFETY: `none` is a valid set to overwrite.
    unsafe { libc::sigemptyset(&mut none) };
    // SAFETY: `none` is initialized; no old set is asked for.
    if unsafe { libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut()) } == -1 {
        return Err(last_errno());
    }
    Ok(())
}

/// Makes this process ignore a signal.
pub(crate) fn ignore_signal(number: i32) {
    // SAFETY: ignoring runs no code of ours.
    unsafe { libc::signal(number, libc::SIG_IGN) };
}

fn full_set() -> libc::sigset_t {
    // SAFETY: a signal set is plain bits; all-zero is a valid value.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is a valid set to overwrite.
    unsafe { libc::sigfillset(&mut set) };
    set
}

/// Makes a signal of a number that comes from outside; `None` when there is no such signal.
pub(crate) fn signal_of(number: i32) -> Option<Signal> {
    // SAFETY: the number is within the kernel's range; the signals that the C library keeps for itself are only
    // passed on to other programs here, never given a handler.
    (1..=64).contains(&number).then(|| unsafe { Signal::from_raw_unchecked(number) })
}

/// Sends a signal to every process that this one may signal, except itself: for a PID namespace's init, all of it.
pub(crate) fn kill_everyone() {
    // SAFETY: kill takes any numbers. The callers are process 1 of a PID namespace, which -1 does not leave.
    unsafe { libc::kill(-1, libc::SIGKILL) };
}

/// Gives this process an anonymous session keyring of its own.
pub(crate) fn join_new_session_keyring() -> Result<(), Errno> {
    /// `KEYCTL_JOIN_SESSION_KEYRING` of keyctl(2).
    const JOIN_SESSION_KEYRING: libc::c_long = 1;
    // SAFETY: a null name asks for an anonymous keyring.
    let result =
        unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, std::ptr::null::<libc::c_char>()) };
    if result == -1 { Err(last_errno()) } else { Ok(()) }
}

/// Brings `lo` up in the present network namespace.
pub(crate) fn bring_loopback_up() -> Result<(), Errno> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    // SAFETY: ifreq is plain data; all-zero is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // The type of the request differs between C libraries; `as _` takes either.
    // SAFETY: SIOCSIFFLAGS reads an ifreq, which lives until the call returns.
    let result =
        unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, std::ptr::from_ref(&request)) };
    if result == -1 { Err(last_errno()) } else { Ok(()) }
}

fn last_errno() -> Errno {
    std::io::Error::last_os_error().raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error)
}
