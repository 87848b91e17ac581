// SPDX-License-Identifier: Apache-2.0
//! When an insecure host is spoken to in plain HTTP: where TLS fails it may be somebody's wish.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use polyarch_oci::media_type::OCI_MANIFEST;
use polyarch_registry::{AuthFile, Client, ClientOptions, Credentials, RegistryError};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::fake::{Fake, options};

/// What a host does to who begins with TLS.
#[derive(Clone, Copy, PartialEq)]
enum Tls {
    HangUp,
    Silence,
}

/// A host that spoils TLS and asks in plain HTTP for a password; remembers what it was told in the clear.
async fn spoiler(tls: Tls) -> (u16, Arc<Mutex<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let heard = Arc::new(Mutex::new(String::new()));
    let ears = heard.clone();
    tokio::spawn(async move {
        let mut silent = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut bytes = vec![0; 4096];
            let count = stream.read(&mut bytes).await.unwrap_or(0);
            if bytes[0] == 0x16 {
                if tls == Tls::Silence {
                    silent.push(stream);
                }
                continue;
            }
            ears.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..count]));
            let answer = "HTTP/1.1 401 Unauthorized\r\nwww-authenticate: Basic realm=\"x\"\r\n\
                          content-length: 0\r\nconnection: close\r\n\r\n";
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    (port, heard)
}

fn insecure(host: &str) -> Client {
    let text = format!(r#"{{"auths":{{"{host}":{{"username":"ann","password":"secret"}}}}}}"#);
    let file = AuthFile { origin: "config.json".into(), text };
    let credentials = Credentials::new(vec![file], Vec::new());
    let mut options = ClientOptions { credentials, answer_timeout: Duration::from_secs(2), ..options() };
    options.retry.max_attempts = 1;
    options.hosts.entry(host).insecure = true;
    Client::new(options)
}

// The unspecified address leads to this machine and is no loopback address.

#[tokio::test]
async fn an_insecure_host_that_speaks_plain_http_is_spoken_to_so() {
    let fake = Fake::start().await;
    fake.put_manifest("app", "v1", br#"{"layers":[]}"#, OCI_MANIFEST);
    let host = format!("0.0.0.0:{}", fake.port());
    insecure(&host).get_manifest(&format!("{host}/app:v1").parse().unwrap()).await.unwrap();
}

#[tokio::test]
async fn nothing_is_said_in_the_clear_after_tls_that_was_spoilt() {
    for tls in [Tls::HangUp, Tls::Silence] {
        let (port, heard) = spoiler(tls).await;
        let host = format!("0.0.0.0:{port}");
        let name = format!("{host}/app:v1").parse().unwrap();
        let error = insecure(&host).get_manifest(&name).await.unwrap_err();
        assert!(!matches!(error, RegistryError::Unauthorized { .. }), "{error}");
        assert_eq!(*heard.lock().unwrap(), "", "{error}");
    }
    // A loopback host is this machine.
    let (port, heard) = spoiler(Tls::HangUp).await;
    let host = format!("127.0.0.1:{port}");
    let error = insecure(&host).get_manifest(&format!("{host}/app:v1").parse().unwrap()).await.unwrap_err();
    assert!(matches!(error, RegistryError::Unauthorized { .. }), "{error}");
    assert!(heard.lock().unwrap().to_ascii_lowercase().contains("authorization: basic"));
}

#[tokio::test]
async fn where_nothing_listens_the_error_is_that_of_https() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = format!("0.0.0.0:{}", listener.local_addr().unwrap().port());
    drop(listener);
    let error = insecure(&host).get_manifest(&format!("{host}/app:v1").parse().unwrap()).await.unwrap_err();
    assert!(matches!(error, RegistryError::Connect { .. }), "{error}");
}
