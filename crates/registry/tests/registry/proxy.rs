// SPDX-License-Identifier: Apache-2.0
//! A TCP proxy that cuts connections after so many bytes.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

pub struct Proxy {
    address: SocketAddr,
    up: Arc<Mutex<Cuts>>,
    down: Arc<Mutex<Cuts>>,
}

#[derive(Default)]
struct Cuts {
    /// Bytes that may still pass before the next cut; the first is the current one.
    limits: Vec<usize>,
    done: usize,
}

impl Proxy {
    pub async fn start(target: &str) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let proxy = Proxy { address, up: Arc::default(), down: Arc::default() };
        let (up, down, target) = (proxy.up.clone(), proxy.down.clone(), target.to_owned());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (up, down, target) = (up.clone(), down.clone(), target.clone());
                tokio::spawn(async move {
                    let server = TcpStream::connect(target).await.unwrap();
                    let (client_in, client_out) = client.into_split();
                    let (server_in, server_out) = server.into_split();
                    // Whichever ends first takes the whole connection with it.
                    tokio::select! {
                        () = pump(client_in, server_out, &up) => {}
                        () = pump(server_in, client_out, &down) => {}
                    }
                });
            }
        });
        proxy
    }

    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// Cuts a connection whenever so many bytes have gone to the server since the last cut.
    pub fn cut_up_after(&self, limits: &[usize]) {
        self.up.lock().unwrap().limits = limits.to_vec();
    }

    /// Cuts a connection whenever so many bytes have come from the server since the last cut.
    pub fn cut_down_after(&self, limits: &[usize]) {
        self.down.lock().unwrap().limits = limits.to_vec();
    }

    /// Returns how many connections have been cut.
    pub fn cuts(&self) -> usize {
        self.up.lock().unwrap().done + self.down.lock().unwrap().done
    }
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, cuts: &Mutex<Cuts>) {
    let mut buffer = vec![0; 16 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
        let mut cuts = cuts.lock().unwrap();
        if let Some(left) = cuts.limits.first_mut() {
            *left = left.saturating_sub(count);
            if *left == 0 {
                cuts.limits.remove(0);
                cuts.done += 1;
                return;
            }
        }
    }
}
