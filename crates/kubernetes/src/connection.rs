// SPDX-License-Identifier: Apache-2.0
//! A connection to a program in a pod: its standard input and output.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use k8s_openapi::api::core::v1;
use kube::Api;
use kube::api::{AttachParams, AttachedProcess};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, ReadHalf, SimplexStream, WriteHalf};

use crate::error::ClusterError;

/// What a daemon's connection is, in a container of its image.
const COMMAND: [&str; 2] = ["buildctl", "dial-stdio"];

/// How much of what the program says is kept, in bytes.
const MAX_STDERR_BYTES: usize = 4 << 10;

/// How much may wait to be read or sent, in bytes.
const BUFFER_BYTES: usize = 1 << 20;

/// The standard input and output of a program in a pod; the program ends with it.
pub struct PodConnection {
    stdin: WriteHalf<SimplexStream>,
    stdout: ReadHalf<SimplexStream>,
    stderr: ReadHalf<SimplexStream>,
    /// What the program has said on its standard error.
    said: Vec<u8>,
    /// Ends with the program, or with the way to it. The streams don't tell the latter: they would wait for ever.
    ended: Pin<Box<dyn Future<Output = ()> + Send>>,
    is_over: bool,
    /// The program has sent something, and so is what it should be.
    has_answered: bool,
    process: AttachedProcess,
}

impl PodConnection {
    /// Starts the program in the first container of a pod.
    pub(crate) async fn open(
        pods: &Api<v1::Pod>,
        pod: &str,
        container: &str,
    ) -> Result<PodConnection, ClusterError> {
        let parameters = AttachParams::default()
            .container(container)
            .stdin(true)
            .stdout(true)
            .stderr(true)
            .max_stdin_buf_size(BUFFER_BYTES)
            .max_stdout_buf_size(BUFFER_BYTES);
        let started = pods.exec(pod, COMMAND, &parameters).await;
        let mut process = started.map_err(ClusterError::api(format!("start buildctl in the pod {pod}")))?;
        let missing = |reason| ClusterError::Stream { pod: pod.to_owned(), reason };
        let stdin = process.stdin().ok_or_else(|| missing("it has no standard input"))?;
        let stdout = process.stdout().ok_or_else(|| missing("it has no standard output"))?;
        let stderr = process.stderr().ok_or_else(|| missing("it has no standard error"))?;
        let status = process.take_status().ok_or_else(|| missing("its end is not told"))?;
        Ok(PodConnection {
            stdin,
            stdout,
            stderr,
            said: Vec::new(),
            ended: Box::pin(async { drop(status.await) }),
            is_over: false,
            has_answered: false,
            process,
        })
    }

    /// Returns what the program has said on its standard error, in one line. It is heard while the connection is read.
    pub fn said(&self) -> String {
        let text = String::from_utf8_lossy(&self.said);
        text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ")
    }

    /// Takes what the program has said, and keeps the beginning.
    fn poll_stderr(&mut self, cx: &mut Context<'_>) {
        let mut buffer = [0; 1024];
        loop {
            let mut read = ReadBuf::new(&mut buffer);
            match Pin::new(&mut self.stderr).poll_read(cx, &mut read) {
                Poll::Ready(Ok(())) if !read.filled().is_empty() => {
                    let room = MAX_STDERR_BYTES.saturating_sub(self.said.len());
                    let heard = read.filled();
                    self.said.extend_from_slice(&heard[..heard.len().min(room)]);
                }
                _ => return,
            }
        }
    }

    /// Reads what there is; nothing means the end.
    fn poll_stdout(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stdout).poll_read(cx, buffer);
        if read.is_ready() {
            return read;
        }
        if !self.is_over {
            if self.ended.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            self.is_over = true;
        }
        // What came before the end is there now; when nothing is, nothing comes any more.
        match Pin::new(&mut self.stdout).poll_read(cx, buffer) {
            Poll::Pending => Poll::Ready(Ok(())),
            read => read,
        }
    }
}

impl Drop for PodConnection {
    fn drop(&mut self) {
        self.process.abort();
    }
}

impl AsyncRead for PodConnection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = self.poll_stdout(cx, buffer);
        self.poll_stderr(cx);
        if !matches!(read, Poll::Ready(Ok(()))) {
            return read;
        }
        let is_end = buffer.filled().len() == before && buffer.capacity() > before;
        self.has_answered |= !is_end;
        // An image without the program, or whose daemon does not listen, is told by the program itself.
        let said = if is_end && !self.has_answered { self.said() } else { String::new() };
        match said.is_empty() {
            true => Poll::Ready(Ok(())),
            false => Poll::Ready(Err(io::Error::other(said))),
        }
    }
}

impl AsyncWrite for PodConnection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.is_over {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        Pin::new(&mut self.stdin).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stdin).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stdin).poll_shutdown(cx)
    }
}
