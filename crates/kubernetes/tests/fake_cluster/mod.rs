// SPDX-License-Identifier: Apache-2.0
//! An API server of one namespace, as far as builders ask it. The command's tests have it as well.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use futures_util::{SinkExt as _, StreamExt as _};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::upgrade::Upgraded;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

/// An API server. Every question about a workload finds one more pod ready.
#[derive(Default)]
pub struct ApiServer {
    log: Mutex<Vec<String>>,
    objects: Mutex<BTreeMap<String, Value>>,
    questions: Mutex<u32>,
    is_forbidding: bool,
    /// What a pod runs; without it a pod says who it is on standard error and gives back what it is given.
    program: Option<Program>,
}

/// Makes the command that a pod runs.
type Program = Box<dyn Fn() -> Command + Send + Sync>;

/// Where pods are.
pub const PODS: &str = "/api/v1/namespaces/ci/pods";
/// Where deployments are.
pub const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/ci/deployments";

impl ApiServer {
    /// Returns one that answers every question with a refusal.
    pub fn forbidding() -> ApiServer {
        ApiServer { is_forbidding: true, ..ApiServer::default() }
    }

    /// Makes its pods run a program.
    pub fn with_program(self, program: impl Fn() -> Command + Send + Sync + 'static) -> ApiServer {
        ApiServer { program: Some(Box::new(program)), ..self }
    }

    /// Starts it, and writes the kubeconfig that names it.
    pub async fn start(self) -> (Arc<ApiServer>, tempfile::NamedTempFile) {
        let server = Arc::new(self);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has free ports");
        let address = listener.local_addr().expect("it is bound");
        let serving = server.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let server = serving.clone();
                let service = hyper::service::service_fn(move |request| server.clone().answer(request));
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .with_upgrades();
                tokio::spawn(connection);
            }
        });
        let kubeconfig = tempfile::NamedTempFile::new().expect("there is a directory for temporary files");
        let text = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "contexts": [{ "name": "test", "context": { "cluster": "test", "user": "test", "namespace": "ci" } }],
            "clusters": [{ "name": "test", "cluster": { "server": format!("http://{address}") } }],
            "users": [{ "name": "test", "user": { "token": "open sesame" } }],
        });
        std::fs::write(kubeconfig.path(), text.to_string()).expect("the file is ours");
        (server, kubeconfig)
    }

    /// Returns the requests since the last time.
    pub fn log(&self) -> Vec<String> {
        std::mem::take(&mut *self.log.lock().expect("no test panics with the lock"))
    }

    /// Returns a document by its path; null when there is none.
    pub fn object(&self, path: &str) -> Value {
        self.objects.lock().expect("no test panics with the lock").get(path).cloned().unwrap_or(Value::Null)
    }

    async fn answer(
        self: Arc<ApiServer>,
        mut request: Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, Infallible> {
        let path = request.uri().path().to_owned();
        let query = request.uri().query().unwrap_or_default().to_owned();
        let method = request.method().to_string();
        let line = format!("{method} {path}{}{query}", if query.is_empty() { "" } else { "?" });
        self.log.lock().expect("no test panics with the lock").push(line);
        assert_eq!(request.headers()["authorization"], "Bearer open sesame");
        if self.is_forbidding {
            return Ok(status(403, "deployments.apps \"fleet0\" is forbidden: ask the owner of the cluster"));
        }
        if path.ends_with("/exec") {
            return Ok(exec(&mut request, self.program.as_ref().map(|program| program())));
        }
        let body = request.into_body().collect().await.expect("the client sends all").to_bytes();
        let mut objects = self.objects.lock().expect("no test panics with the lock");
        Ok(match method.as_str() {
            "POST" => {
                let document: Value = serde_json::from_slice(&body).expect("documents are JSON");
                let name = document["metadata"]["name"].as_str().expect("documents have names");
                match objects.insert(format!("{path}/{name}"), document.clone()) {
                    None => reply(201, &document),
                    Some(_) => status(409, "already exists"),
                }
            }
            "DELETE" => match objects.remove(&path) {
                Some(_) => reply(200, &json!({ "kind": "Status", "apiVersion": "v1", "status": "Success" })),
                None => status(404, "not found"),
            },
            _ if path == PODS => reply(200, &pods()),
            _ => match objects.get(&path).cloned() {
                None => status(404, "not found"),
                Some(mut document) => {
                    let mut questions = self.questions.lock().expect("no test panics with the lock");
                    document["status"] = json!({ "readyReplicas": *questions, "replicas": 2 });
                    *questions += 1;
                    reply(200, &document)
                }
            },
        })
    }
}

fn reply(code: u16, document: &Value) -> Response<Full<Bytes>> {
    let response = Response::builder().status(code).header("content-type", "application/json");
    response.body(Full::from(document.to_string())).expect("the parts are valid")
}

fn status(code: u16, message: &str) -> Response<Full<Bytes>> {
    let document = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message,
        "reason": if code == 404 { "NotFound" } else { "Other" }, "code": code,
    });
    reply(code, &document)
}

/// Pods in all states; two of them can be used.
fn pods() -> Value {
    let pod = |name: &str, phase: &str| {
        json!({
            "metadata": { "name": name, "annotations": { "buildx.docker.com/platform": "linux/arm64" } },
            "spec": { "containers": [{ "name": "buildkitd" }, { "name": "sidecar" }] },
            "status": { "phase": phase },
        })
    };
    let mut ending = pod("fleet0-c", "Running");
    ending["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    let items = [pod("fleet0-b", "Running"), pod("fleet0-a", "Running"), ending, pod("fleet0-d", "Pending")];
    json!({ "kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items })
}

/// Upgrades to a web socket and runs what a pod runs.
fn exec(request: &mut Request<Incoming>, command: Option<Command>) -> Response<Full<Bytes>> {
    let accept = derive_accept_key(request.headers()["sec-websocket-key"].as_bytes());
    let upgrade = hyper::upgrade::on(request);
    tokio::spawn(async move {
        let stream = TokioIo::new(upgrade.await.expect("the client upgrades"));
        let socket = tokio_tungstenite::WebSocketStream::from_raw_socket(stream, Role::Server, None).await;
        match command {
            None => echo(socket).await,
            Some(command) => run(socket, command).await,
        }
    });
    Response::builder()
        .status(101)
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-accept", accept)
        .header("sec-websocket-protocol", "v5.channel.k8s.io")
        .body(Full::default())
        .expect("the parts are valid")
}

type Socket = tokio_tungstenite::WebSocketStream<TokioIo<Upgraded>>;

/// Says who it is on standard error, and gives back what it is given.
async fn echo(mut socket: Socket) {
    socket.send(of_channel(2, b"buildctl here\n")).await.expect("the client listens");
    while let Some(Ok(message)) = socket.next().await {
        let Message::Binary(data) = message else { continue };
        if data.first() == Some(&0) && socket.send(of_channel(1, &data[1..])).await.is_err() {
            return;
        }
    }
}

/// Connects a program's standard input and output with the socket; it ends with it. What it says on standard error is
/// sent at its end.
async fn run(socket: Socket, mut command: Command) {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().expect("the program is there");
    let mut stdin = child.stdin.take().expect("it is piped");
    let mut stdout = child.stdout.take().expect("it is piped");
    let mut stderr = child.stderr.take().expect("it is piped");
    let said = tokio::spawn(async move {
        let mut said = Vec::new();
        stderr.read_to_end(&mut said).await.map(|_| said)
    });
    let (mut to_client, mut of_client) = socket.split();
    let mut buffer = vec![0; 64 << 10];
    loop {
        tokio::select! {
            read = stdout.read(&mut buffer) => match read {
                Ok(count @ 1..) if to_client.send(of_channel(1, &buffer[..count])).await.is_ok() => {}
                _ => {
                    let said = said.await.expect("nothing panics there").expect("the pipe is ours");
                    // The client may be gone already.
                    let _ = to_client.send(of_channel(2, &said)).await;
                    return;
                }
            },
            message = of_client.next() => match message {
                Some(Ok(Message::Binary(data))) if data.first() == Some(&0) => {
                    if stdin.write_all(&data[1..]).await.is_err() {
                        return;
                    }
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return,
            },
        }
    }
}

fn of_channel(channel: u8, data: &[u8]) -> Message {
    Message::Binary([&[channel], data].concat().into())
}
