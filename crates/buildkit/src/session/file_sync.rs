// SPDX-License-Identifier: Apache-2.0
//! Sends a directory's files to a daemon (`FileSync.DiffCopy`, fsutil's transfers).
//!
//! We tell every entry with a STAT packet, an empty one at the end; the daemon compares with what it has and
//! asks with REQ for the bytes of regular files by their place in that order, at any time after their STAT;
//! we answer with DATA packets, an empty one at the end of each file. When it has all, it sends FIN and
//! we send FIN back. A failure on either side is an ERR packet. Only files that were told can be asked
//! for, each once.

use std::collections::HashMap;
use std::io::Read as _;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::api::fsutil::{Packet, PacketType, Stat};
use crate::session::Attachments;
use crate::session::directory::{Selection, SharedDirectory, WalkError};
use crate::session::{go_mode, metadata};

/// The size of a DATA packet, in bytes.
const CHUNK_BYTES: usize = 256 << 10;
/// How many packets wait to be sent.
const QUEUE: usize = 32;
/// How many files are read at a time.
const READERS: usize = 4;

pub(crate) type Sender = mpsc::Sender<Result<Packet, Status>>;

/// Serves a transfer of one of the session's directories.
pub(crate) async fn diff_copy(
    attachments: Arc<Attachments>,
    request: Request<Streaming<Packet>>,
) -> Result<Response<impl Stream<Item = Result<Packet, Status>> + Send + 'static>, Status> {
    let headers = request.metadata();
    let name = metadata::first(headers, "dir-name").unwrap_or_default();
    let Some(directory) = attachments.directories.get(&name).cloned() else {
        return Err(Status::not_found(format!("no access allowed to dir {name:?}")));
    };
    let list = |key| metadata::values(headers, key);
    let selection = directory
        .select(&list("include-patterns"), &list("exclude-patterns"), &list("followpaths"))
        .map_err(|error| Status::invalid_argument(crate::error::chain_of(&error)))?;
    let (sender, receiver) = mpsc::channel(QUEUE);
    let incoming = request.into_inner();
    tokio::spawn(async move {
        // The daemon is told of a failure within the transfer.
        let _ = transfer(directory, selection, incoming, sender).await;
    });
    Ok(Response::new(ReceiverStream::new(receiver)))
}

/// Sends a directory to whoever asks for its files; a failure is also told to them.
///
/// # Errors
/// When something can't be read, or the other side breaks the rules, fails, or goes away.
pub(crate) async fn transfer<S>(
    directory: SharedDirectory,
    selection: Selection,
    incoming: S,
    sender: Sender,
) -> Result<(), Status>
where
    S: Stream<Item = Result<Packet, Status>> + Unpin,
{
    let told = Arc::new(Told::default());
    let walking = tokio::task::spawn_blocking({
        let (directory, told, sender) = (directory.clone(), told.clone(), sender.clone());
        move || walk(&directory, &selection, &told, &sender)
    });
    let walked = async { walking.await.unwrap_or_else(|panic| Err(Status::internal(panic.to_string()))) };
    // The first failure of either ends the transfer: the daemon may wait for what will never come.
    let ended = tokio::try_join!(walked, answer(directory, told, incoming, sender.clone()));
    if let Err(status) = &ended {
        // The receiver of both may be gone already; then nobody needs to know.
        let data = Bytes::copy_from_slice(status.message().as_bytes());
        let _ = sender.send(Ok(packet(PacketType::Err, 0, data))).await;
        let _ = sender.send(Err(status.clone())).await;
    }
    ended.map(|_| ())
}

/// The files that may be asked for, by their place in the listing.
#[derive(Default)]
struct Told(Mutex<HashMap<u32, String>>);

impl Told {
    fn add(&self, id: u32, path: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id, path);
    }

    fn take(&self, id: u32) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&id)
    }
}

fn walk(
    directory: &SharedDirectory,
    selection: &Selection,
    told: &Told,
    sender: &Sender,
) -> Result<(), Status> {
    let mut id = 0u32;
    let mut tell = |stat: Stat| {
        if go_mode::is_regular(stat.mode) && stat.linkname.is_empty() {
            told.add(id, stat.path.clone());
        }
        id = id.checked_add(1).ok_or(WalkError::Stopped)?;
        let packet = Packet { stat: Some(stat), ..packet(PacketType::Stat, 0, Bytes::new()) };
        sender.blocking_send(Ok(packet)).map_err(|_| WalkError::Stopped)
    };
    match directory.walk(selection, &mut tell) {
        Ok(()) => {
            // The end of the listing; if nobody listens any more, the other half of the transfer says so.
            let _ = sender.blocking_send(Ok(packet(PacketType::Stat, 0, Bytes::new())));
            Ok(())
        }
        Err(error) => Err(Status::aborted(crate::error::chain_of(&error))),
    }
}

/// Answers requests until the daemon has everything.
async fn answer<S>(
    directory: SharedDirectory,
    told: Arc<Told>,
    mut incoming: S,
    sender: Sender,
) -> Result<(), Status>
where
    S: Stream<Item = Result<Packet, Status>> + Unpin,
{
    let readers = Arc::new(Semaphore::new(READERS));
    loop {
        let Some(request) = incoming.next().await else {
            return Err(Status::aborted("the daemon ended the transfer early"));
        };
        let request = request?;
        match PacketType::try_from(request.r#type) {
            Ok(PacketType::Req) => {
                let Some(path) = told.take(request.id) else {
                    return Err(Status::invalid_argument(format!("invalid file id {}", request.id)));
                };
                let permit = readers.clone().acquire_owned().await;
                let (directory, sender) = (directory.clone(), sender.clone());
                tokio::task::spawn_blocking(move || {
                    let _permit = permit;
                    send_file(&directory, &path, request.id, &sender);
                });
            }
            Ok(PacketType::Fin) => {
                let _ = sender.send(Ok(packet(PacketType::Fin, 0, Bytes::new()))).await;
                return Ok(());
            }
            Ok(PacketType::Err) => {
                let text = String::from_utf8_lossy(&request.data).into_owned();
                return Err(Status::aborted(format!("error from receiver: {text}")));
            }
            Ok(PacketType::Stat | PacketType::Data) | Err(_) => {
                return Err(Status::invalid_argument(format!(
                    "unexpected packet of type {}",
                    request.r#type
                )));
            }
        }
    }
}

/// Sends a file; one that can't be read fails the whole transfer, lest an empty one be built in.
fn send_file(directory: &SharedDirectory, path: &str, id: u32, sender: &Sender) {
    let failed = |error: &dyn std::fmt::Display| {
        let text = format!("can't read {path} of the context: {error}");
        // When nobody listens any more, the transfer has failed already.
        let _ = sender.blocking_send(Ok(packet(PacketType::Err, 0, Bytes::from(text.clone()))));
        let _ = sender.blocking_send(Err(Status::aborted(text)));
    };
    let mut file = match directory.open_file(path) {
        Ok(file) => file,
        Err(error) => return failed(&crate::error::chain_of(&error)),
    };
    loop {
        let mut chunk = BytesMut::zeroed(CHUNK_BYTES);
        match file.read(&mut chunk) {
            Ok(0) => break,
            Ok(count) => {
                chunk.truncate(count);
                if sender.blocking_send(Ok(packet(PacketType::Data, id, chunk.freeze()))).is_err() {
                    return;
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return failed(&error),
        }
    }
    // The end of the file; as above, nobody may listen any more.
    let _ = sender.blocking_send(Ok(packet(PacketType::Data, id, Bytes::new())));
}

fn packet(kind: PacketType, id: u32, data: Bytes) -> Packet {
    Packet { r#type: kind.into(), stat: None, id, data }
}
