// SPDX-License-Identifier: Apache-2.0
//! Our server, called as clients of BuildKit's API call one: by our own client, and by hand.

use std::path::{Path, PathBuf};
use std::time::Duration;

use polyarch_build::ServiceOptions;
use polyarch_buildkit::Method;
use polyarch_buildkit::api::control::{ListWorkersRequest, SolveRequest, StatusRequest};
use polyarch_buildkit::api::gateway::{PingRequest, Result as FrontendResult, ReturnRequest};
use polyarch_buildkit::api::methods::{bridge, daemon};
use polyarch_buildkit::api::rpc;
use polyarch_buildkit::client::{Endpoint, Node};
use polyarch_buildkit::server::{Listener, Server, ServerOptions};
use polyarch_registry::ClientOptions;
use polyarch_sandbox::IdMapping;
use polyarch_solver::CancelFlag;
use tokio::net::{UnixListener, UnixStream};
use tonic::transport::{Channel, Uri};
use tonic::{Code, Request, Status};

use crate::foreign::options;

/// A server on a socket; it stops when dropped.
pub(crate) struct Running {
    root: tempfile::TempDir,
    stop: CancelFlag,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Running {
    pub(crate) fn start() -> Running {
        let root = tempfile::tempdir().unwrap();
        let services = ServiceOptions {
            root: root.path().join("store"),
            launcher_program: PathBuf::from("/proc/self/exe"),
            registry: ClientOptions::default(),
            emulator_directories: Vec::new(),
            path_dirs: Vec::new(),
            mapping: IdMapping::Host { reason: "a test of the protocol".to_owned() },
            resolv_conf: Vec::new(),
            force_copy: false,
            takes_lone_images: false,
        };
        let server = Server::new(ServerOptions {
            services,
            version: "v1.2.3".to_owned(),
            labels: [("a".to_owned(), "b".to_owned())].into(),
            platforms: vec!["linux/s390x".parse().unwrap()],
            entitlements: Default::default(),
            max_parallel: 0,
            threads: 0,
        });
        let running = Running { stop: CancelFlag::default(), root };
        let listener = Listener::Unix(UnixListener::bind(running.socket()).unwrap());
        let stop = running.stop.clone();
        let server = server.unwrap();
        tokio::spawn(async move { server.serve(vec![listener], stop).await });
        running
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.root.path().join("socket")
    }

    pub(crate) async fn channel(&self) -> Channel {
        channel(&self.socket()).await
    }
}

async fn channel(socket: &Path) -> Channel {
    let socket = socket.to_owned();
    let connect = tower_service_fn(move |_| {
        let socket = socket.clone();
        Box::pin(async move { UnixStream::connect(socket).await.map(hyper_util::rt::TokioIo::new) })
    });
    tonic::transport::Endpoint::from_static("http://localhost").connect_with_connector(connect).await.unwrap()
}

type Connecting =
    std::pin::Pin<Box<dyn Future<Output = std::io::Result<hyper_util::rt::TokioIo<UnixStream>>> + Send>>;

/// A connector of a function.
#[derive(Clone)]
struct Connector<F>(F);

fn tower_service_fn<F: Fn(Uri) -> Connecting>(connect: F) -> Connector<F> {
    Connector(connect)
}

impl<F: Fn(Uri) -> Connecting> tower_service::Service<Uri> for Connector<F> {
    type Response = hyper_util::rt::TokioIo<UnixStream>;
    type Error = std::io::Error;
    type Future = Connecting;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Connecting {
        (self.0)(uri)
    }
}

pub(crate) fn of_build<T>(message: T, build: &str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("buildkit-controlapi-buildid", build.parse().unwrap());
    request
}

pub(crate) fn solve(build: &str, frontend: &str) -> Request<SolveRequest> {
    Request::new(SolveRequest {
        r#ref: build.to_owned(),
        frontend: frontend.to_owned(),
        ..SolveRequest::default()
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn our_client_learns_what_the_worker_is() {
    let server = Running::start();
    let (node, workers) = Node::connect(&Endpoint::Unix(server.socket()), &options()).await.unwrap();
    let [worker] = workers.as_slice() else { panic!("{workers:?}") };
    assert_eq!(worker.labels["a"], "b");
    let platforms: Vec<String> =
        polyarch_buildkit::client::platforms_of(worker).iter().map(ToString::to_string).collect();
    assert_eq!(platforms, ["linux/s390x"]);
    assert_eq!(node.disk_usage(Vec::new(), 0).await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_without_frontend_lasts_until_its_client_returns() {
    let server = Running::start();
    let channel = server.channel().await;
    let building = {
        let channel = channel.clone();
        tokio::spawn(async move { daemon::SOLVE.call(&channel, solve("one", "")).await })
    };
    // May come before the build does.
    let pong = bridge::PING.call(&channel, of_build(PingRequest {}, "one")).await.unwrap();
    assert!(pong.frontend_api_caps.iter().any(|cap| cap.id == "solve.base" && cap.enabled));
    assert!(!pong.llb_caps.iter().any(|cap| cap.id == "exec.meta.cdi"), "only what works is told");
    let twice = daemon::SOLVE.call(&channel, solve("one", "")).await.unwrap_err();
    assert_eq!(twice.code(), Code::AlreadyExists);
    let result = ReturnRequest { result: Some(FrontendResult::default()), error: None };
    bridge::RETURN.call(&channel, of_build(result.clone(), "one")).await.unwrap();
    let again = bridge::RETURN.call(&channel, of_build(result, "one")).await;
    assert!(again.is_err(), "a result is returned once");
    assert_eq!(building.await.unwrap().unwrap().exporter_response.len(), 0);
    let status = Request::new(StatusRequest { r#ref: "one".to_owned() });
    let status = daemon::STATUS.call_for_stream(&channel, status).await.unwrap();
    assert!(status.metadata().contains_key("buildkit-current-timestamp"));
    assert!(status.into_inner().message().await.unwrap().is_none(), "the progress has ended with the build");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_error_of_a_frontend_is_that_of_the_build() {
    let server = Running::start();
    let channel = server.channel().await;
    let building = {
        let channel = channel.clone();
        tokio::spawn(async move { daemon::SOLVE.call(&channel, solve("one", "")).await })
    };
    let error = rpc::Status { code: 3, message: "no such stage".to_owned(), details: Vec::new() };
    let result = ReturnRequest { result: None, error: Some(error) };
    bridge::RETURN.call(&channel, of_build(result, "one")).await.unwrap();
    let status = building.await.unwrap().unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::InvalidArgument, "no such stage"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_ends_its_build() {
    let server = Running::start();
    let building = {
        let channel = server.channel().await;
        tokio::spawn(async move { daemon::SOLVE.call(&channel, solve("one", "")).await })
    };
    let other = server.channel().await;
    bridge::PING.call(&other, of_build(PingRequest {}, "one")).await.unwrap();
    let status = Request::new(StatusRequest { r#ref: "one".to_owned() });
    let mut status = daemon::STATUS.call_for_stream(&other, status).await.unwrap().into_inner();
    building.abort();
    // The progress ends when the build has: without that this waits for ever.
    let end = tokio::time::timeout(Duration::from_secs(30), status.message()).await.unwrap();
    assert!(end.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_told() {
    let server = Running::start();
    let channel = server.channel().await;
    let error = |answer: Result<_, Status>| answer.map(|_| ()).unwrap_err();
    let unknown: Method<ListWorkersRequest, ListWorkersRequest> =
        Method::new("/moby.buildkit.v1.Control/Nothing");
    let status = error(unknown.call(&channel, Request::new(ListWorkersRequest::default())).await.map(drop));
    assert_eq!(status.code(), Code::Unimplemented);
    let status = error(bridge::PING.call(&channel, Request::new(PingRequest {})).await.map(drop));
    assert!(status.message().contains("buildkit-controlapi-buildid"), "{status}");
    let status = error(daemon::SOLVE.call(&channel, solve("a", "cobol.v0")).await.map(drop));
    assert_eq!((status.code(), status.message()), (Code::NotFound, "frontend cobol.v0 not found"));
    let status = error(daemon::SOLVE.call(&channel, solve("b", "dockerfile.v0")).await.map(drop));
    assert!(status.message().contains("session"), "{status}");
    let mut granted = solve("c", "dockerfile.v0");
    granted.get_mut().entitlements.push("security.insecure".to_owned());
    let status = error(daemon::SOLVE.call(&channel, granted).await.map(drop));
    assert!(status.message().contains("security.insecure is not allowed"), "{status}");
    let mut exporter = solve("d", "dockerfile.v0");
    exporter.get_mut().exporter_deprecated = "s3".to_owned();
    let status = error(daemon::SOLVE.call(&channel, exporter).await.map(drop));
    assert!(status.message().contains("exporter \"s3\" could not be found"), "{status}");
}
