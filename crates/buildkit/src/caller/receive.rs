// SPDX-License-Identifier: Apache-2.0
//! Receives a directory of the client (`FileSync.DiffCopy`, fsutil's transfers).
//!
//! The counterpart of [`crate::session::file_sync`]: the client lists, we ask for the files that we have
//! not, and end with FIN. One thread writes what comes in the order in which it comes; requests are few
//! enough at a time that they never wait, so neither side can wait for the other forever.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use prost::Message as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Status};

use crate::api::fsutil::{Packet, PacketType};
use crate::api::methods::client;
use crate::caller::tree_writer::{OpenFile, TreeWriter, Wanted};
use crate::caller::{CallerError, ClientSession, KeptDirectory};
use crate::session::metadata;

const WHAT: &str = "receive the client's files";

/// How many files are asked for at a time.
const MAX_REQUESTS: usize = 256;
/// How many packets wait to be written.
const QUEUE: usize = 64;
/// The most bytes of one transfer: a context that large is a mistake or an attack.
const MAX_BYTES: u64 = 1 << 40;

/// How long a client may take to end its half of a transfer that is complete.
const END_TIMEOUT: Duration = Duration::from_secs(10);

/// What of a client's directory is wanted. Patterns are those of a `.dockerignore`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReceiveRequest {
    /// The name under which the client offers it: `context`, `dockerfile`…
    pub name: String,
    /// Only what one of these matches, when there are any.
    pub include: Vec<String>,
    /// Not what these match.
    pub exclude: Vec<String>,
    /// Only these paths, and what symlinks on the way to them lead to, when there are any.
    pub follow_paths: Vec<String>,
}

/// How much has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Received {
    /// Entries that were listed.
    pub entries: u64,
    /// Files whose bytes came.
    pub files: u64,
    /// Those bytes.
    pub bytes: u64,
    /// All bytes of the transfer, with those that list and describe.
    pub transferred_bytes: u64,
    /// Whether nothing more comes.
    pub is_complete: bool,
}

impl ClientSession {
    /// Makes a directory the same as one of the client's. What is there already and the same is not sent
    /// again, what the client has not (or what is not wanted of it) is removed. All belongs to the user that
    /// this process is. `progress` is called now and then, on another thread.
    ///
    /// # Errors
    /// When the client offers no such directory, can't read it, breaks the rules or goes away; when something
    /// can't be written, or is a device that this process may not make. What has come until then stays and
    /// need not come again.
    pub async fn receive_directory(
        &self,
        request: &ReceiveRequest,
        into: &KeptDirectory,
        progress: impl Fn(Received) + Send + 'static,
    ) -> Result<Received, CallerError> {
        self.need(WHAT, client::FILE_SYNC.path())?;
        // As many as can be under way at a time, and the last one.
        let (requests, receiver) = mpsc::channel(MAX_REQUESTS + 1);
        let mut call = Request::new(ReceiverStream::new(receiver));
        let headers = call.metadata_mut();
        metadata::insert(headers, "dir-name", std::slice::from_ref(&request.name));
        metadata::insert(headers, "include-patterns", &request.include);
        metadata::insert(headers, "exclude-patterns", &request.exclude);
        metadata::insert(headers, "followpaths", &request.follow_paths);
        let mut incoming = self.within(WHAT, client::FILE_SYNC.open(&self.0.channel, call)).await?;
        let (sender, packets) = mpsc::channel(QUEUE);
        // It holds the directory until it has ended, also when nobody waits for it any more.
        let directory = into.clone();
        let mut writing = tokio::task::spawn_blocking(move || {
            let transfer = Transfer::new(TreeWriter::open(directory.path())?, requests, progress);
            transfer.run(packets)
        });
        let reading = async {
            while let Some(packet) = self.within(WHAT, async { incoming.next().await.transpose() }).await? {
                if sender.send(packet).await.is_err() {
                    // It has all or has failed, and tells itself.
                    std::future::pending::<()>().await;
                }
            }
            Ok::<_, CallerError>(())
        };
        let read = tokio::select! {
            written = &mut writing => {
                let received = joined(written)?;
                // The client's half ends now; one that goes on is cut off.
                let rest = async { while let Some(Ok(_)) = incoming.next().await {} };
                let _ = tokio::time::timeout(END_TIMEOUT, rest).await;
                return Ok(received);
            }
            read = reading => read,
        };
        drop(sender);
        match (joined(writing.await), read) {
            // Why the packets ended tells more than that they did.
            (Err(CallerError::Ended { .. }), Err(error)) => Err(error),
            (written, _) => written,
        }
    }
}

fn joined(
    written: Result<Result<Received, CallerError>, tokio::task::JoinError>,
) -> Result<Received, CallerError> {
    let panicked = |error: tokio::task::JoinError| {
        Err(CallerError::of_status(WHAT, &Status::internal(error.to_string())))
    };
    written.unwrap_or_else(panicked)
}

/// The side of a transfer that writes, and may block.
struct Transfer<P> {
    tree: TreeWriter,
    requests: mpsc::Sender<Packet>,
    progress: P,
    received: Received,
    /// Files whose bytes are needed and that were not asked for yet, by their place in the listing.
    waiting: VecDeque<(u32, Wanted)>,
    /// Files that were asked for and of which nothing has come.
    asked: HashMap<u32, Wanted>,
    /// Files of which something has come.
    open: HashMap<u32, OpenFile>,
    is_listed: bool,
}

impl<P: Fn(Received)> Transfer<P> {
    fn new(tree: TreeWriter, requests: mpsc::Sender<Packet>, progress: P) -> Transfer<P> {
        Transfer {
            tree,
            requests,
            progress,
            received: Received::default(),
            waiting: VecDeque::new(),
            asked: HashMap::new(),
            open: HashMap::new(),
            is_listed: false,
        }
    }

    fn run(mut self, mut packets: mpsc::Receiver<Packet>) -> Result<Received, CallerError> {
        while !self.is_complete() {
            let Some(packet) = packets.blocking_recv() else {
                return Err(CallerError::Ended { what: WHAT });
            };
            self.take(packet)?;
            self.request()?;
        }
        self.tree.finish()?;
        self.received.is_complete = true;
        (self.progress)(self.received);
        send(&self.requests, PacketType::Fin, 0)?;
        // The client has seen that we have all.
        match packets.blocking_recv() {
            Some(packet) if packet.r#type == i32::from(PacketType::Fin) => Ok(self.received),
            Some(packet) => Err(unexpected(&packet)),
            None => Err(CallerError::Ended { what: WHAT }),
        }
    }

    fn is_complete(&self) -> bool {
        self.is_listed && self.waiting.is_empty() && self.asked.is_empty() && self.open.is_empty()
    }

    fn take(&mut self, packet: Packet) -> Result<(), CallerError> {
        let size = u64::try_from(packet.encoded_len()).unwrap_or(u64::MAX);
        self.received.transferred_bytes = self.received.transferred_bytes.saturating_add(size);
        match PacketType::try_from(packet.r#type) {
            Ok(PacketType::Stat) if !self.is_listed => match packet.stat {
                Some(stat) => {
                    // The listing is shorter than that.
                    let id = u32::try_from(self.received.entries).unwrap_or(u32::MAX);
                    self.received.entries += 1;
                    if let Some(wanted) = self.tree.entry(&stat)? {
                        self.waiting.push_back((id, wanted));
                    }
                    Ok(())
                }
                None => {
                    self.is_listed = true;
                    self.tree.end_listing()
                }
            },
            Ok(PacketType::Data) => self.data(packet.id, &packet.data),
            Ok(PacketType::Err) => {
                let message = String::from_utf8_lossy(&packet.data).into_owned();
                Err(CallerError::Refused { what: WHAT, code: Code::Unknown, message })
            }
            Ok(PacketType::Stat | PacketType::Req | PacketType::Fin) | Err(_) => Err(unexpected(&packet)),
        }
    }

    /// Takes bytes of a file; none are its end.
    fn data(&mut self, id: u32, data: &[u8]) -> Result<(), CallerError> {
        let mut open = match (self.open.remove(&id), self.asked.remove(&id)) {
            (Some(open), _) => open,
            (None, Some(wanted)) => self.tree.begin(wanted)?,
            (None, None) => {
                let problem = format!("bytes of the file {id}, which was not asked for");
                return Err(CallerError::Hostile { what: WHAT, problem });
            }
        };
        if data.is_empty() {
            self.received.files += 1;
            self.tree.end(open)?;
        } else {
            self.received.bytes = self.received.bytes.saturating_add(data.len() as u64);
            if self.received.bytes > MAX_BYTES {
                let problem = format!("more than {MAX_BYTES} bytes");
                return Err(CallerError::Hostile { what: WHAT, problem });
            }
            open.write(data)?;
            self.open.insert(id, open);
        }
        (self.progress)(self.received);
        Ok(())
    }

    /// Asks for files, but not for too many at a time.
    fn request(&mut self) -> Result<(), CallerError> {
        while self.asked.len() + self.open.len() < MAX_REQUESTS {
            let Some((id, wanted)) = self.waiting.pop_front() else { break };
            self.asked.insert(id, wanted);
            send(&self.requests, PacketType::Req, id)?;
        }
        Ok(())
    }
}

/// Sends a packet of ours. There is room: no more than that are under way.
fn send(requests: &mpsc::Sender<Packet>, kind: PacketType, id: u32) -> Result<(), CallerError> {
    let packet = Packet { r#type: kind.into(), stat: None, id, data: Bytes::new() };
    requests.blocking_send(packet).map_err(|_| CallerError::Ended { what: WHAT })
}

fn unexpected(packet: &Packet) -> CallerError {
    CallerError::Hostile { what: WHAT, problem: format!("a packet of type {} out of turn", packet.r#type) }
}
