// SPDX-License-Identifier: Apache-2.0
//! The BuildKit within a docker daemon: its API is behind `POST /grpc`, which is answered with another protocol.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// The longest answer before the protocol changes, in bytes.
const MAX_HEAD_BYTES: usize = 16 << 10;

/// Asks a docker daemon for its BuildKit: after this the stream speaks HTTP/2.
///
/// # Errors
/// When what answers is no docker daemon, or has no BuildKit.
pub(super) async fn upgrade(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    authority: &str,
) -> io::Result<()> {
    let request = format!(
        "POST /grpc HTTP/1.1\r\nHost: {authority}\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 0\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    let mut head = Vec::new();
    // Byte by byte: what follows the empty line is the other protocol's already.
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() == MAX_HEAD_BYTES {
            return Err(io::Error::other("what answers is no docker daemon"));
        }
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(io::Error::other("the docker daemon closed the connection"));
            }
            Err(error) => return Err(error),
        }
    }
    let head = String::from_utf8_lossy(&head);
    let status = head.lines().next().unwrap_or_default();
    match status.split(' ').nth(1) {
        Some("101") => Ok(()),
        _ if !status.starts_with("HTTP/1.") => Err(io::Error::other("what answers is no docker daemon")),
        _ => Err(io::Error::other(format!(
            "the docker daemon offers no BuildKit there: it answered {status:?}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn answered(answer: &[u8]) -> (io::Result<()>, Vec<u8>) {
        let (mut ours, mut theirs) = tokio::io::duplex(64 << 10);
        theirs.write_all(answer).await.unwrap();
        let result = upgrade(&mut ours, "host:2375").await;
        drop(theirs);
        let mut rest = Vec::new();
        ours.read_to_end(&mut rest).await.unwrap();
        (result, rest)
    }

    #[tokio::test]
    async fn what_follows_the_answer_is_left_for_the_other_protocol() {
        let (result, rest) =
            answered(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n\0\0\x06").await;
        result.unwrap();
        assert_eq!(rest, b"\0\0\x06");
    }

    #[tokio::test]
    async fn other_answers_are_told() {
        for (answer, problem) in [
            (&b"HTTP/1.1 404 Not Found\r\n\r\n"[..], "offers no BuildKit there: it answered \"HTTP/1.1 404"),
            (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "no docker daemon"),
            (&[b'x'; 20 << 10], "no docker daemon"),
        ] {
            let error = answered(answer).await.0.unwrap_err().to_string();
            assert!(error.contains(problem), "{error}");
        }
    }
}
