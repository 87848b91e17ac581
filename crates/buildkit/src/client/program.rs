// SPDX-License-Identifier: Apache-2.0
//! Programs whose standard input and output are a connection: ssh and `docker exec`.

use std::io;
use std::pin::Pin;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::process::{ChildStderr, ChildStdin, ChildStdout};
use tokio::sync::watch;

use crate::client::connect::{ConnectOptions, command_of};
use crate::client::endpoint::Endpoint;

/// How much of what a program says is kept, in bytes.
const MAX_STDERR_BYTES: usize = 4 << 10;

/// How long a program that failed may take to finish its sentence.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What programs said on their standard errors.
#[derive(Clone)]
pub(super) struct Heard {
    text: Arc<Mutex<Vec<u8>>>,
    /// How many programs may still say something.
    speaking: Arc<watch::Sender<usize>>,
}

impl Default for Heard {
    fn default() -> Heard {
        Heard { text: Arc::default(), speaking: Arc::new(watch::Sender::new(0)) }
    }
}

impl Heard {
    /// Listens to a program from now on.
    fn listen(&self, mut stderr: ChildStderr) {
        let heard = self.clone();
        heard.speaking.send_modify(|count| *count += 1);
        tokio::spawn(async move {
            let mut buffer = [0; 1024];
            while let Ok(count @ 1..) = stderr.read(&mut buffer).await {
                let mut kept = heard.text.lock().unwrap_or_else(PoisonError::into_inner);
                let room = MAX_STDERR_BYTES.saturating_sub(kept.len());
                kept.extend_from_slice(&buffer[..count.min(room)]);
            }
            heard.speaking.send_modify(|count| *count -= 1);
        });
    }

    /// Returns what was said, in one line; waits a moment for programs that are about to end.
    pub(super) async fn text(&self) -> Option<String> {
        let mut speaking = self.speaking.subscribe();
        // Who goes on speaking has been heard as far as that.
        let _ = tokio::time::timeout(LAST_WORDS, speaking.wait_for(|count| *count == 0)).await;
        let bytes = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        (!lines.is_empty()).then(|| lines.join("; "))
    }
}

/// A connection that was begun before it is wanted, by a process that is somebody else afterwards: in a user namespace
/// ssh would not find its user's keys. It serves once.
#[derive(Debug, Clone)]
pub struct DialedAhead(Arc<Mutex<Option<Child>>>);

impl DialedAhead {
    /// Starts the program of an endpoint; `None` for an endpoint that needs none. Starts no thread.
    ///
    /// # Errors
    /// When the program can't be started.
    pub fn start(endpoint: &Endpoint, options: &ConnectOptions) -> io::Result<Option<DialedAhead>> {
        let Some(command) = command_of(endpoint, options) else { return Ok(None) };
        Ok(Some(DialedAhead(Arc::new(Mutex::new(Some(spawn(command)?))))))
    }

    pub(super) fn take(&self) -> Option<Child> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Starts a program with pipes.
pub(super) fn spawn(mut command: Command) -> io::Result<Child> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let program = command.get_program().to_string_lossy().into_owned();
    command.spawn().map_err(|error| io::Error::new(error.kind(), format!("can't start {program}: {error}")))
}

/// A program that is a connection; it ends with it.
pub(super) struct Program {
    stdout: ChildStdout,
    stdin: ChildStdin,
    _running: Running,
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // One that has ended can't be killed; either way it is waited for, which after that takes no time.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Program {
    /// Makes a connection of a program that was started with pipes, and listens to what it says.
    pub(super) fn new(child: Child, heard: &Heard) -> io::Result<Program> {
        let mut running = Running(child);
        let missing = || io::Error::other("a program's pipe is missing");
        let child = &mut running.0;
        let stdin = ChildStdin::from_std(child.stdin.take().ok_or_else(missing)?)?;
        let stdout = ChildStdout::from_std(child.stdout.take().ok_or_else(missing)?)?;
        heard.listen(ChildStderr::from_std(child.stderr.take().ok_or_else(missing)?)?);
        Ok(Program { stdout, stdin, _running: running })
    }
}

impl AsyncRead for Program {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stdout).poll_read(cx, buf)
    }
}

impl AsyncWrite for Program {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stdin).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stdin).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stdin).poll_shutdown(cx)
    }
}
