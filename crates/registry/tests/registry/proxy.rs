// SPDX-License-Identifier: Apache-2.0
//! A TCP proxy that cuts connections after so many bytes.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

pub struct Proxy {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// Bytes that may still go up before the next cut; the first is the current one.
    limits: Vec<usize>,
    cuts: usize,
}

impl Proxy {
    pub async fn start(target: &str) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let (shared, target) = (state.clone(), target.to_owned());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (shared, target) = (shared.clone(), target.clone());
                tokio::spawn(async move { forward(client, &target, &shared).await });
            }
        });
        Proxy { address, state }
    }

    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// Cuts a connection whenever so many bytes have gone up since the last cut.
    pub fn cut_after(&self, limits: &[usize]) {
        self.state.lock().unwrap().limits = limits.to_vec();
    }

    pub fn cuts(&self) -> usize {
        self.state.lock().unwrap().cuts
    }
}

async fn forward(client: TcpStream, target: &str, state: &Mutex<State>) {
    let server = TcpStream::connect(target).await.unwrap();
    let (mut client_in, mut client_out) = client.into_split();
    let (mut server_in, mut server_out) = server.into_split();
    let up = async {
        let mut buffer = vec![0; 16 << 10];
        while let Ok(count @ 1..) = client_in.read(&mut buffer).await {
            if server_out.write_all(&buffer[..count]).await.is_err() {
                return;
            }
            let mut state = state.lock().unwrap();
            if let Some(left) = state.limits.first_mut() {
                *left = left.saturating_sub(count);
                if *left == 0 {
                    state.limits.remove(0);
                    state.cuts += 1;
                    return;
                }
            }
        }
    };
    let down = tokio::io::copy(&mut server_in, &mut client_out);
    // Whichever ends first takes the whole connection with it.
    tokio::select! {
        () = up => {}
        _ = down => {}
    }
}
