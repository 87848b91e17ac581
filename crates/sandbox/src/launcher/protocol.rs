// SPDX-License-Identifier: Apache-2.0
//! What passes between the builder and its launcher.
//!
//! The control connection is a sequenced-packet socket pair. Each run is one packet from the builder, whose five
//! descriptors are: the run's own sequenced-packet socket, a memory file with the [`Request`], and the three standard
//! streams. On the run's socket the builder may send [`Message`]s; the launcher sends one [`Reply`] at the end of the
//! run. Either side ends the run by closing its end.

use std::fs::File;
use std::io::{IoSlice, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, send, sendmsg,
};
use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::{ExitStatus, ProcessSpec, RootFs, SandboxError};

/// No request is larger.
const REQUEST_LIMIT_BYTES: usize = 64 << 20;

/// No reply is larger: its largest part is a path.
const REPLY_LIMIT_BYTES: usize = 64 << 10;

/// The payload of a run's packet; a launcher of another version would expect another one.
const RUN_PACKET: &[u8; 4] = b"run1";

/// How many descriptors a run's packet has.
const DESCRIPTORS: usize = 5;

/// What to run.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Request {
    /// Where the root is mounted and mount points are kept.
    #[serde(with = "crate::launcher::bytes::path")]
    pub(super) scratch: PathBuf,
    /// The root file system.
    pub(super) root: RootFs,
    /// The process.
    pub(super) spec: ProcessSpec,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Reply {
    /// The process ran.
    Exited(ExitStatus),
    /// The process did not run.
    Failed(Failure),
    /// The builder had it killed.
    Cancelled,
    /// Somebody else killed its init process.
    Killed(i32),
}

/// What the builder says during a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Message {
    /// Kill everything.
    Kill,
    /// Pass on a signal.
    Signal(u8),
}

/// A run's packet as the launcher receives it.
#[derive(Debug)]
pub(super) struct RunPacket {
    /// The launcher's end of the run's socket.
    pub(super) socket: OwnedFd,
    /// The memory file.
    pub(super) request: OwnedFd,
    /// Standard input, output and error.
    pub(super) stdio: [OwnedFd; 3],
}

/// Sends a run's packet.
pub(super) fn send_run(
    control: BorrowedFd<'_>,
    request: &Request,
    socket: BorrowedFd<'_>,
    stdio: [BorrowedFd<'_>; 3],
) -> Result<(), SandboxError> {
    let text = serde_json::to_vec(request)
        .map_err(|error| SandboxError::Specification { reason: error.to_string() })?;
    if text.len() > REQUEST_LIMIT_BYTES {
        return Err(SandboxError::Specification { reason: format!("it has {} bytes", text.len()) });
    }
    let memory = memfd_create("polyarch-run", MemfdFlags::CLOEXEC)
        .map_err(|errno| SandboxError::system("make a memory file for the request", errno))?;
    let mut memory = File::from(memory);
    memory.write_all(&text).map_err(|source| SandboxError::System { action: "write the request", source })?;
    let [stdin, stdout, stderr] = stdio;
    let descriptors = [socket, memory.as_fd(), stdin, stdout, stderr];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut control_data = SendAncillaryBuffer::new(&mut space);
    if !control_data.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(SandboxError::Protocol { reason: "too many descriptors".to_owned() });
    }
    loop {
        match sendmsg(control, &[IoSlice::new(RUN_PACKET)], &mut control_data, SendFlags::NOSIGNAL) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(Errno::PIPE | Errno::CONNRESET) => return Err(SandboxError::LauncherGone),
            Err(errno) => return Err(SandboxError::system("send a request to the launcher process", errno)),
        }
    }
}

/// Receives a run's packet. `None` is the end of the connection.
pub(super) fn receive_run(control: BorrowedFd<'_>) -> Result<Option<RunPacket>, Errno> {
    let mut payload = [0u8; 64];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut control_data = RecvAncillaryBuffer::new(&mut space);
    let received =
        recvmsg(control, &mut [IoSliceMut::new(&mut payload)], &mut control_data, RecvFlags::CMSG_CLOEXEC)?;
    let descriptors: Vec<OwnedFd> = control_data
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        })
        .flatten()
        .collect();
    if received.bytes == 0 && descriptors.is_empty() {
        return Ok(None);
    }
    let is_cut = received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC);
    let parts: Result<[OwnedFd; DESCRIPTORS], _> = descriptors.try_into();
    match parts {
        Ok([socket, request, stdin, stdout, stderr]) if !is_cut && payload.starts_with(RUN_PACKET) => {
            Ok(Some(RunPacket { socket, request, stdio: [stdin, stdout, stderr] }))
        }
        // The run's socket is closed with the rest: the builder sees that nothing comes of it.
        _ => Err(Errno::BADMSG),
    }
}

/// Reads the request out of its memory file.
pub(super) fn read_request(memory: OwnedFd) -> Result<Request, Failure> {
    let refuse = |reason: String| Failure::Specification { reason };
    let file = File::from(memory);
    let length = file.metadata().map_err(|error| refuse(error.to_string()))?.len();
    let length = usize::try_from(length)
        .ok()
        .filter(|length| *length <= REQUEST_LIMIT_BYTES)
        .ok_or_else(|| refuse(format!("it has {length} bytes")))?;
    let mut text = vec![0; length];
    file.read_exact_at(&mut text, 0).map_err(|error| refuse(error.to_string()))?;
    serde_json::from_slice(&text).map_err(|error| refuse(error.to_string()))
}

/// Sends the one reply of a run. That the builder is gone is no error.
pub(super) fn send_reply(socket: BorrowedFd<'_>, reply: &Reply) {
    // The types have no map with foreign keys and no failing serializer.
    if let Ok(text) = serde_json::to_vec(reply) {
        let _ = send(socket, &text, SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
    }
}

/// Receives the one reply of a run.
pub(super) fn receive_reply(socket: BorrowedFd<'_>) -> Result<Reply, SandboxError> {
    let mut text = vec![0; REPLY_LIMIT_BYTES];
    let mut is_reset = false;
    let length = loop {
        match rustix::net::recv(socket, &mut text, RecvFlags::empty()) {
            Ok((length, _)) => break length,
            Err(Errno::INTR) => {}
            // The launcher closed its end with a message of ours unread. The kernel tells this before it hands over a
            // reply that was sent earlier, and only once.
            Err(Errno::CONNRESET) if !is_reset => is_reset = true,
            Err(Errno::CONNRESET) => break 0,
            Err(errno) => {
                return Err(SandboxError::system("receive the answer of the launcher process", errno));
            }
        }
    };
    if length == 0 {
        return Err(SandboxError::LauncherGone);
    }
    serde_json::from_slice(&text[..length])
        .map_err(|error| SandboxError::Protocol { reason: error.to_string() })
}

/// Sends a message of a run; `false` when the run has ended.
pub(super) fn send_message(socket: BorrowedFd<'_>, message: Message) -> Result<bool, SandboxError> {
    let packet = match message {
        Message::Kill => [b'K', 0],
        Message::Signal(number) => [b'S', number],
    };
    match send(socket, &packet, SendFlags::NOSIGNAL) {
        Ok(_) => Ok(true),
        Err(Errno::PIPE | Errno::CONNRESET) => Ok(false),
        Err(errno) => Err(SandboxError::system("send a message to the launcher process", errno)),
    }
}

/// Receives a message of a run, without waiting. The builder's end being closed counts as [`Message::Kill`].
pub(super) fn receive_message(socket: BorrowedFd<'_>) -> Option<Message> {
    let mut packet = [0u8; 2];
    match rustix::net::recv(socket, &mut packet, RecvFlags::DONTWAIT) {
        Ok((2, _)) if packet[0] == b'S' => Some(Message::Signal(packet[1])),
        Err(Errno::AGAIN | Errno::INTR) => None,
        _ => Some(Message::Kill),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    use std::os::unix::ffi::OsStringExt;

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .expect("socketpair")
    }

    #[test]
    fn a_request_larger_than_a_packet_arrives_whole() {
        let (builder, launcher) = pair();
        let (_run, theirs) = pair();
        let null = File::open("/dev/null").expect("open");
        let strange = PathBuf::from(std::ffi::OsString::from_vec(b"/layers/\xff\xfe".to_vec()));
        let lower = (0..300).map(|index| strange.join("x".repeat(200)).join(index.to_string())).collect();
        let mut spec = ProcessSpec::new(vec!["true".to_owned()]);
        spec.env = (0..5000).map(|index| format!("NAME{index}={}", "y".repeat(100))).collect();
        spec.resolv_conf = b"nameserver \xff".to_vec();
        let root = RootFs::overlay(lower, PathBuf::from("/upper"), PathBuf::from("/work"));
        let request = Request { scratch: PathBuf::from("/scratch"), root, spec };
        let stdio = [null.as_fd(), null.as_fd(), null.as_fd()];
        send_run(builder.as_fd(), &request, theirs.as_fd(), stdio).expect("sent");
        let packet = receive_run(launcher.as_fd()).expect("received").expect("a run");
        let read = read_request(packet.request).expect("readable");
        assert_eq!((read.root, read.spec), (request.root, request.spec));
        drop(builder);
        assert!(receive_run(launcher.as_fd()).expect("end").is_none());
    }

    #[test]
    fn a_packet_of_another_kind_is_refused() {
        let (builder, launcher) = pair();
        send(&builder, b"hello", SendFlags::empty()).expect("send");
        assert_eq!(receive_run(launcher.as_fd()).expect_err("no descriptors"), Errno::BADMSG);
    }

    #[test]
    fn a_closed_run_reads_as_kill_and_as_a_lost_launcher() {
        let (builder, launcher) = pair();
        assert_eq!(receive_message(launcher.as_fd()), None);
        assert!(send_message(builder.as_fd(), Message::Signal(15)).expect("sent"));
        assert_eq!(receive_message(launcher.as_fd()), Some(Message::Signal(15)));
        let (gone, _) = pair();
        assert!(matches!(receive_reply(gone.as_fd()), Err(SandboxError::LauncherGone)));
        drop(builder);
        assert_eq!(receive_message(launcher.as_fd()), Some(Message::Kill));
    }

    #[test]
    fn a_reply_arrives_although_a_message_was_never_read() {
        let (builder, launcher) = pair();
        assert!(send_message(builder.as_fd(), Message::Signal(15)).expect("sent"));
        send_reply(launcher.as_fd(), &Reply::Exited(ExitStatus::Code(143)));
        drop(launcher);
        assert_eq!(receive_reply(builder.as_fd()).expect("reply"), Reply::Exited(ExitStatus::Code(143)));
        let (builder, launcher) = pair();
        assert!(send_message(builder.as_fd(), Message::Kill).expect("sent"));
        drop(launcher);
        assert!(matches!(receive_reply(builder.as_fd()), Err(SandboxError::LauncherGone)));
    }

    #[test]
    fn a_reply_keeps_what_failed() {
        let (builder, launcher) = pair();
        let failure = Failure::Setup { step: "mount proc".to_owned(), path: PathBuf::new(), errno: 1 };
        send_reply(launcher.as_fd(), &Reply::Failed(failure.clone()));
        assert_eq!(receive_reply(builder.as_fd()).expect("reply"), Reply::Failed(failure.clone()));
        let error = SandboxError::from(failure);
        assert_eq!(error.to_string(), "cannot set up the container: mount proc");
    }
}
