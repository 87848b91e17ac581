// SPDX-License-Identifier: Apache-2.0
//! How many connections a listener has, and how many of them are of strangers.
//!
//! A connection first has a place among those that arrive: until it has proved who it is and has begun to speak
//! HTTP/2, within a short time. Only then it takes one of the places of clients. So whoever only connects can
//! keep nobody out for long, and one address can take neither all places of the first kind nor of the second.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::client::Transport;
use crate::server::listen::ServerTls;

/// The most clients of a listener at a time.
const MAX_CLIENTS: u32 = 1024;
/// The most connections of a listener at a time that have not said who they are.
const MAX_ARRIVING: usize = 256;
/// The most of those of one address.
const MAX_ARRIVING_OF_ADDRESS: usize = 32;
/// The most connections of one address.
const MAX_OF_ADDRESS: usize = 256;
/// How long a connection may take to say who it is and to begin.
const ARRIVAL: Duration = Duration::from_secs(10);

/// What every connection of HTTP/2 begins with (RFC 9113, section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The places of one listener.
pub(super) struct Admission {
    arriving: Arc<Semaphore>,
    clients: Arc<Semaphore>,
    addresses: Arc<Addresses>,
}

/// A connection that has not said yet who it is.
pub(super) struct Arrival {
    _place: OwnedSemaphorePermit,
    clients: Arc<Semaphore>,
    of_address: Option<OfAddress>,
}

/// A client's place; it is free again when this goes.
pub(super) struct Place {
    _client: OwnedSemaphorePermit,
    _of_address: Option<OfAddress>,
}

#[derive(Default)]
struct Addresses(Mutex<HashMap<IpAddr, Counts>>);

#[derive(Default)]
struct Counts {
    all: usize,
    arriving: usize,
}

/// One connection among those of its address.
struct OfAddress {
    addresses: Arc<Addresses>,
    address: IpAddr,
    is_arriving: bool,
}

impl Admission {
    pub(super) fn new() -> Admission {
        Admission {
            arriving: Arc::new(Semaphore::new(MAX_ARRIVING)),
            clients: Arc::new(Semaphore::new(MAX_CLIENTS as usize)),
            addresses: Arc::default(),
        }
    }

    /// Gives a connection a place among those that arrive; `None` when there are too many, of its address or at
    /// all. Sockets of the file system have no address: who may open them is not a stranger.
    pub(super) fn arrive(&self, address: Option<IpAddr>) -> Option<Arrival> {
        let of_address = match address {
            Some(address) => Some(OfAddress::count(&self.addresses, address)?),
            None => None,
        };
        let place = self.arriving.clone().try_acquire_owned().ok()?;
        Some(Arrival { _place: place, clients: self.clients.clone(), of_address })
    }

    /// Waits until every client's place is free.
    pub(super) async fn all_gone(&self) {
        let _all = self.clients.acquire_many(MAX_CLIENTS).await;
    }
}

impl Arrival {
    /// Lets a client in that proves who it is and begins in time; else tells why not.
    pub(super) async fn admit(
        self,
        transport: Box<dyn Transport>,
        tls: Option<ServerTls>,
    ) -> Result<(Box<dyn Transport>, Place), String> {
        let begin = async {
            let mut transport = match tls {
                None => transport,
                Some(tls) => Box::new(tls.accept(transport).await?),
            };
            let mut first = [0; PREFACE.len()];
            transport.read_exact(&mut first).await?;
            if first != *PREFACE {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "it does not speak HTTP/2"));
            }
            let client = self.clients.acquire_owned().await.map_err(io::Error::other)?;
            Ok((transport, client))
        };
        let begun = tokio::time::timeout(ARRIVAL, begin).await;
        let (transport, client) = match begun {
            Ok(Ok(begun)) => begun,
            Ok(Err(error)) => return Err(error.to_string()),
            Err(_) => return Err(format!("it took more than {} s", ARRIVAL.as_secs())),
        };
        let mut of_address = self.of_address;
        if let Some(of_address) = &mut of_address {
            of_address.has_arrived();
        }
        let place = Place { _client: client, _of_address: of_address };
        Ok((Box::new(Begun { left: PREFACE, transport }), place))
    }
}

impl OfAddress {
    fn count(addresses: &Arc<Addresses>, address: IpAddr) -> Option<OfAddress> {
        let mut by_address = addresses.0.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = by_address.entry(address).or_default();
        if counts.all >= MAX_OF_ADDRESS || counts.arriving >= MAX_ARRIVING_OF_ADDRESS {
            return None;
        }
        counts.all += 1;
        counts.arriving += 1;
        Some(OfAddress { addresses: addresses.clone(), address, is_arriving: true })
    }

    fn has_arrived(&mut self) {
        if std::mem::take(&mut self.is_arriving) {
            self.change(|counts| counts.arriving -= 1);
        }
    }

    fn change(&self, change: impl FnOnce(&mut Counts)) {
        let mut by_address = self.addresses.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(counts) = by_address.get_mut(&self.address) {
            change(counts);
            if counts.all == 0 {
                by_address.remove(&self.address);
            }
        }
    }
}

impl Drop for OfAddress {
    fn drop(&mut self) {
        let arriving = usize::from(self.is_arriving);
        self.change(|counts| {
            counts.arriving -= arriving;
            counts.all -= 1;
        });
    }
}

/// A connection whose first bytes were read already.
struct Begun {
    left: &'static [u8],
    transport: Box<dyn Transport>,
}

impl AsyncRead for Begun {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.left.is_empty() {
            return Pin::new(&mut self.transport).poll_read(cx, buffer);
        }
        let (now, later) = self.left.split_at(self.left.len().min(buffer.remaining()));
        buffer.put_slice(now);
        self.left = later;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Begun {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.transport).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.transport).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.transport.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    fn address(last: u8) -> Option<IpAddr> {
        Some(IpAddr::from([10, 0, 0, last]))
    }

    #[tokio::test]
    async fn strangers_of_one_address_take_no_place_of_another() {
        let admission = Admission::new();
        let strangers: Vec<_> = (0..1000).map_while(|_| admission.arrive(address(1))).collect();
        assert_eq!(strangers.len(), MAX_ARRIVING_OF_ADDRESS);
        assert!(admission.arrive(address(2)).is_some());
        drop(strangers);
        assert!(admission.arrive(address(1)).is_some());
        assert!(admission.addresses.0.lock().unwrap().is_empty(), "nothing is left of those that went");
    }

    #[tokio::test]
    async fn who_was_let_in_is_no_stranger_any_more_but_counts() {
        let admission = Admission::new();
        let mut places = Vec::new();
        for _ in 0..MAX_OF_ADDRESS {
            let arrival = admission.arrive(address(1)).expect("there is room");
            let (mut client, server) = tokio::io::duplex(1024);
            client.write_all(PREFACE).await.unwrap();
            client.write_all(b"more").await.unwrap();
            let (mut transport, place) = arrival.admit(Box::new(server), None).await.unwrap();
            let mut read = [0; 28];
            transport.read_exact(&mut read).await.unwrap();
            assert_eq!(read[24..], *b"more");
            places.push(place);
        }
        assert!(admission.arrive(address(1)).is_none());
        assert_eq!(admission.arriving.available_permits(), MAX_ARRIVING);
        assert!(admission.arrive(None).is_some(), "sockets have no address");
        drop(places);
        admission.all_gone().await;
    }

    #[tokio::test]
    async fn who_speaks_something_else_is_not_let_in() {
        let admission = Admission::new();
        let (mut client, server) = tokio::io::duplex(1024);
        client.write_all(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await.unwrap();
        let admitted = admission.arrive(None).expect("there is room").admit(Box::new(server), None).await;
        assert!(admitted.is_err_and(|reason| reason.contains("HTTP/2")));
        admission.all_gone().await;
    }
}
