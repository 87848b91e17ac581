// SPDX-License-Identifier: Apache-2.0
//! Connections to nodes: sockets, TLS, and programs whose standard input and output are one.

use std::io;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tonic::transport::Channel;
use tower_service::Service;

use crate::client::docker;
use crate::client::endpoint::Endpoint;
use crate::client::program::{self, DialedAhead, Heard, Program};
use crate::client::tls::{Tls, TlsFiles};
use crate::error::NodeError;

/// How much may be under way before the other side has taken it, in bytes: contexts and results pass through.
const WINDOW_BYTES: u32 = 8 << 20;

/// What runs at the other end of ssh, whose login shell need not look into a user's own directory: `buildctl`, or what
/// polyarch has in its place.
const REMOTE_SCRIPT: &str = r#"PATH="$PATH:$HOME/.local/bin:/usr/local/bin"
command -v buildctl >/dev/null || exec polyarch node dial-stdio "$@"
exec buildctl "$@""#;

/// How to connect.
#[derive(Debug, Clone)]
pub struct ConnectOptions {
    /// Certificates; without them nothing is encrypted but SSH.
    pub tls: Option<TlsFiles>,
    /// Permits a connection without encryption to another machine.
    pub is_plain_allowed: bool,
    /// How long connecting may take.
    pub timeout: Duration,
    /// The program for `ssh://`.
    pub ssh_program: PathBuf,
    /// The program for `docker-container://`.
    pub docker_program: PathBuf,
    /// A connection that was begun already; it is used first.
    pub dialed: Option<DialedAhead>,
    /// What reaches an [`Endpoint::Dialed`].
    pub dialer: Option<Dialer>,
}

/// A connection that is being made.
type Dialing = BoxFuture<'static, io::Result<Box<dyn Transport>>>;

/// A way to a node that this crate knows nothing of; it is asked again whenever a connection is lost.
#[derive(Clone)]
pub struct Dialer(Arc<dyn Fn() -> Dialing + Send + Sync>);

impl Dialer {
    /// Makes a dialer of what gives a connection.
    pub fn new<T: Transport>(
        dial: impl Fn() -> BoxFuture<'static, io::Result<T>> + Send + Sync + 'static,
    ) -> Dialer {
        Dialer(Arc::new(move || {
            let dialing = dial();
            async move { Ok(Box::new(dialing.await?) as Box<dyn Transport>) }.boxed()
        }))
    }
}

impl std::fmt::Debug for Dialer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Dialer")
    }
}

impl Default for ConnectOptions {
    fn default() -> ConnectOptions {
        ConnectOptions {
            tls: None,
            is_plain_allowed: false,
            timeout: Duration::from_secs(20),
            ssh_program: "ssh".into(),
            docker_program: "docker".into(),
            dialed: None,
            dialer: None,
        }
    }
}

/// What connects to an endpoint, again whenever the connection is lost.
#[derive(Clone)]
pub(crate) struct Connector {
    endpoint: Endpoint,
    tls: Option<Tls>,
    options: ConnectOptions,
    /// What helper programs said.
    heard: Heard,
}

impl Connector {
    pub(crate) fn new(endpoint: &Endpoint, options: &ConnectOptions) -> Result<Connector, NodeError> {
        let tls = match (endpoint, &options.tls) {
            (Endpoint::Tcp { host, .. } | Endpoint::Docker { host, .. }, Some(files)) => {
                Some(files.load(host)?)
            }
            (Endpoint::Tcp { .. } | Endpoint::Docker { .. }, None)
                if !endpoint.is_local() && !options.is_plain_allowed =>
            {
                return Err(NodeError::Unprotected { endpoint: endpoint.to_string() });
            }
            _ => None,
        };
        Ok(Connector { endpoint: endpoint.clone(), tls, options: options.clone(), heard: Heard::default() })
    }

    /// Opens a channel; calls fail until the node can be reached.
    pub(crate) async fn open(&self) -> Result<Channel, NodeError> {
        let failed = |source| NodeError::Connect { endpoint: self.endpoint.to_string(), source };
        let authority = match &self.endpoint {
            Endpoint::Tcp { .. } | Endpoint::Docker { .. } => {
                self.endpoint.to_string().replacen("tcp://", "http://", 1)
            }
            _ => "http://localhost".to_owned(),
        };
        let channel = tonic::transport::Endpoint::from_shared(authority)
            .map_err(|error| failed(error.into()))?
            .user_agent(concat!("polyarch/", env!("CARGO_PKG_VERSION")))
            .map_err(|error| failed(error.into()))?
            .initial_connection_window_size(WINDOW_BYTES)
            .initial_stream_window_size(WINDOW_BYTES)
            .http2_max_header_list_size(1 << 20)
            .connect_timeout(self.options.timeout);
        let connected =
            tokio::time::timeout(self.options.timeout, channel.connect_with_connector(self.clone()));
        match connected.await {
            Ok(Ok(channel)) => Ok(channel),
            Ok(Err(error)) => Err(failed(self.explain(error).await)),
            Err(_) => Err(NodeError::TimedOut {
                endpoint: self.endpoint.to_string(),
                seconds: self.options.timeout.as_secs(),
            }),
        }
    }

    /// Adds what a helper program said to an error.
    pub(crate) async fn explain(
        &self,
        error: impl std::error::Error + Send + Sync + 'static,
    ) -> Box<dyn std::error::Error + Send + Sync> {
        match self.said().await {
            Some(said) => format!("{}: {said}", crate::error::chain_of(&error)).into(),
            None => error.into(),
        }
    }

    /// Returns what a helper program said, in one line, when something has failed.
    pub(crate) async fn said(&self) -> Option<String> {
        self.heard.text().await
    }

    async fn connect(self) -> io::Result<TokioIo<Box<dyn Transport>>> {
        let transport: Box<dyn Transport> = match &self.endpoint {
            Endpoint::Unix(path) => Box::new(UnixStream::connect(path).await?),
            Endpoint::Tcp { host, port } => self.dial(host, *port).await?,
            Endpoint::Docker { host, port } => {
                let mut stream = self.dial(host, *port).await?;
                docker::upgrade(&mut stream, &format!("{host}:{port}")).await?;
                stream
            }
            Endpoint::Dialed { .. } => match &self.options.dialer {
                Some(dialer) => (dialer.0)().await?,
                None => return Err(io::Error::other("nothing here knows a way to this endpoint")),
            },
            Endpoint::Ssh { .. } | Endpoint::DockerContainer { .. } => {
                let ahead = self.options.dialed.as_ref().and_then(DialedAhead::take);
                let child = match (ahead, command_of(&self.endpoint, &self.options)) {
                    (Some(child), _) => child,
                    (None, Some(command)) => program::spawn(command)?,
                    (None, None) => return Err(io::Error::other("no program reaches this endpoint")),
                };
                Box::new(Program::new(child, &self.heard)?)
            }
        };
        Ok(TokioIo::new(transport))
    }
}

impl Connector {
    async fn dial(&self, host: &str, port: u16) -> io::Result<Box<dyn Transport>> {
        let stream = TcpStream::connect((host, port)).await?;
        prepare(&stream)?;
        Ok(match &self.tls {
            Some(tls) => {
                let connector = TlsConnector::from(tls.config.clone());
                Box::new(connector.connect(tls.server_name.clone(), stream).await?)
            }
            None => Box::new(stream),
        })
    }
}

/// Returns the program that reaches an endpoint; `None` for endpoints that need none.
pub(super) fn command_of(endpoint: &Endpoint, options: &ConnectOptions) -> Option<Command> {
    match endpoint {
        Endpoint::Unix(_) | Endpoint::Tcp { .. } | Endpoint::Docker { .. } | Endpoint::Dialed { .. } => None,
        Endpoint::Ssh { user, host, port, socket } => {
            let mut command = Command::new(&options.ssh_program);
            // A dead link ends within 40 s, as a socket's of our own does.
            command.args(["-o", "ServerAliveInterval=10", "-o", "ServerAliveCountMax=3"]);
            if let Some(user) = user {
                command.args(["-l", user]);
            }
            if let Some(port) = port {
                command.args(["-p", &port.to_string()]);
            }
            command.args(["--", host, "sh", "-c", &quote(REMOTE_SCRIPT), "sh"]);
            if let Some(socket) = socket {
                command.arg("--addr").arg(quote(&format!("unix://{socket}")));
            }
            command.arg("dial-stdio");
            Some(command)
        }
        Endpoint::DockerContainer { container } => {
            let mut command = Command::new(&options.docker_program);
            command.args(["exec", "-i", container, "buildctl", "dial-stdio"]);
            Some(command)
        }
    }
}

/// Quotes a word for the shell at the other end of an SSH connection.
pub fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Makes a dead link fail within half a minute instead of hours.
fn prepare(stream: &TcpStream) -> io::Result<()> {
    use rustix::net::sockopt;
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, Duration::from_secs(10))?;
    sockopt::set_tcp_keepintvl(stream, Duration::from_secs(5))?;
    sockopt::set_tcp_keepcnt(stream, 4)?;
    sockopt::set_tcp_user_timeout(stream, 30_000)?;
    Ok(())
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Box<dyn Transport>>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<TokioIo<Box<dyn Transport>>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        self.clone().connect().boxed()
    }
}

/// Bytes to a node and from it.
pub trait Transport: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Transport for T {}
