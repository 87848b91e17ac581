// SPDX-License-Identifier: Apache-2.0
//! Receives a directory of the client (`FileSync.DiffCopy`, fsutil's transfers).
//!
//! The counterpart of [`crate::session::file_sync`]: the client lists, we ask for the files that we have
//! not, and end with FIN. What comes is written in the order in which it comes, on a thread that may block only
//! while there is something to write: a client that sends nothing holds none. Requests are few enough at a time
//! that they never wait, so neither side can wait for the other forever.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use prost::Message as _;
use tokio::sync::{Semaphore, mpsc};
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
/// How many packets are written at once.
const BATCH: usize = 64;
/// How many transfers there may be at a time, of all clients together.
static TRANSFERS: Semaphore = Semaphore::const_new(512);
/// The most bytes of one transfer: a context that large is a mistake or an attack.
const MAX_BYTES: u64 = 1 << 40;

/// How long a client may send nothing; a slow disk or link at its side needs less.
const IDLE_TIMEOUT: Duration = Duration::from_secs(600);
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
        // Neither is ever closed.
        let (_own, _of_all) = (self.0.transfers.acquire().await, TRANSFERS.acquire().await);
        // As many as can be under way at a time, and the last one.
        let (requests, receiver) = mpsc::channel(MAX_REQUESTS + 1);
        let mut call = Request::new(ReceiverStream::new(receiver));
        let headers = call.metadata_mut();
        metadata::insert(headers, "dir-name", std::slice::from_ref(&request.name));
        metadata::insert(headers, "include-patterns", &request.include);
        metadata::insert(headers, "exclude-patterns", &request.exclude);
        metadata::insert(headers, "followpaths", &request.follow_paths);
        let mut incoming = self.within(WHAT, client::FILE_SYNC.open(&self.0.channel, call)).await?;
        let (sender, mut packets) = mpsc::channel(QUEUE);
        // It holds the directory until it has ended, also when nobody waits for it any more.
        let directory = into.clone();
        let writing = async move {
            let mut transfer = blocking(move || {
                let tree = TreeWriter::open(directory.path())?;
                Ok(Box::new(Transfer::new(tree, requests, progress, directory)))
            })
            .await?;
            loop {
                let mut batch = Vec::with_capacity(BATCH);
                if packets.recv_many(&mut batch, BATCH).await == 0 {
                    return Err(CallerError::Ended { what: WHAT });
                }
                let step = blocking(move || transfer.take_all(batch)).await?;
                transfer = match step {
                    Step::More(transfer) => transfer,
                    Step::All(received) => return Ok(received),
                };
            }
        };
        tokio::pin!(writing);
        let reading = async {
            loop {
                let next = tokio::time::timeout(IDLE_TIMEOUT, incoming.next());
                let next = self.within(WHAT, async { Ok(next.await) }).await?;
                let timed_out = |_| CallerError::TimedOut { what: WHAT, seconds: IDLE_TIMEOUT.as_secs() };
                let packet = match next.map_err(timed_out)? {
                    None => return Ok::<_, CallerError>(()),
                    Some(packet) => self.within(WHAT, std::future::ready(packet)).await?,
                };
                if sender.send(packet).await.is_err() {
                    // It has all or has failed, and tells itself.
                    std::future::pending::<()>().await;
                }
            }
        };
        let read = tokio::select! {
            written = &mut writing => {
                let received = written?;
                // The client's half ends now; one that goes on is cut off.
                let rest = async { while let Some(Ok(_)) = incoming.next().await {} };
                let _ = tokio::time::timeout(END_TIMEOUT, rest).await;
                return Ok(received);
            }
            read = reading => read,
        };
        drop(sender);
        match (writing.await, read) {
            // Why the packets ended tells more than that they did.
            (Err(CallerError::Ended { .. }), Err(error)) => Err(error),
            (written, _) => written,
        }
    }
}

/// Does work of a transfer where it may block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, CallerError> + Send + 'static,
) -> Result<T, CallerError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|panic| Err(CallerError::of_status(WHAT, &Status::internal(panic.to_string()))))
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
    /// What came, once all has.
    ended: Option<Received>,
    /// Nobody else writes there meanwhile.
    _directory: KeptDirectory,
}

/// Where a transfer is after some packets.
enum Step<P> {
    More(Box<Transfer<P>>),
    All(Received),
}

impl<P: Fn(Received)> Transfer<P> {
    fn new(
        tree: TreeWriter,
        requests: mpsc::Sender<Packet>,
        progress: P,
        directory: KeptDirectory,
    ) -> Transfer<P> {
        Transfer {
            tree,
            requests,
            progress,
            received: Received::default(),
            waiting: VecDeque::new(),
            asked: HashMap::new(),
            open: HashMap::new(),
            is_listed: false,
            ended: None,
            _directory: directory,
        }
    }

    /// Takes packets in the order in which they came.
    fn take_all(mut self: Box<Self>, packets: Vec<Packet>) -> Result<Step<P>, CallerError> {
        for packet in packets {
            if let Some(received) = self.ended {
                // The client has seen that we have all.
                return match packet.r#type == i32::from(PacketType::Fin) {
                    true => Ok(Step::All(received)),
                    false => Err(unexpected(&packet)),
                };
            }
            self.take(packet)?;
            self.request()?;
            if self.is_complete() {
                self.tree.finish()?;
                self.received.is_complete = true;
                (self.progress)(self.received);
                send(&self.requests, PacketType::Fin, 0)?;
                self.ended = Some(self.received);
            }
        }
        Ok(Step::More(self))
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
    requests.try_send(packet).map_err(|error| match error {
        mpsc::error::TrySendError::Closed(_) => CallerError::Ended { what: WHAT },
        // It sends files whose requests it has not even read.
        mpsc::error::TrySendError::Full(_) => {
            CallerError::Hostile { what: WHAT, problem: "files before they were asked for".to_owned() }
        }
    })
}

fn unexpected(packet: &Packet) -> CallerError {
    CallerError::Hostile { what: WHAT, problem: format!("a packet of type {} out of turn", packet.r#type) }
}
