// SPDX-License-Identifier: Apache-2.0
//! Which method of the API is answered where.

use std::future::ready;

use futures_util::StreamExt as _;
use tonic::body::Body;
use tonic::{Request, Response, Status};

use crate::api::health::{HealthCheckResponse, ServingStatus};
use crate::api::methods::{bridge, client, daemon};
use crate::server::Server;

impl Server {
    /// Answers one call.
    pub(super) async fn answer(self, request: http::Request<Body>) -> http::Response<Body> {
        let path = request.uri().path().to_owned();
        let path = path.as_str();
        if path.starts_with("/moby.buildkit.v1.frontend.LLBBridge/") {
            return self.answer_frontend(path, request).await;
        }
        if path == daemon::LIST_WORKERS.path() {
            daemon::LIST_WORKERS.serve(request, |_| self.list_workers()).await
        } else if path == daemon::INFO.path() {
            daemon::INFO.serve(request, |_| ready(Ok(self.info()))).await
        } else if path == daemon::SESSION.path() {
            daemon::SESSION
                .exchange(request, |request| async move {
                    let (_, stream) = self.0.sessions.accept(request).await?;
                    Ok(Response::new(stream))
                })
                .await
        } else if path == daemon::SOLVE.path() {
            daemon::SOLVE.serve(request, |request| self.solve(request.into_inner())).await
        } else if path == daemon::STATUS.path() {
            daemon::STATUS
                .serve_stream(request, |request| async move { self.status(request.into_inner().r#ref).await })
                .await
        } else if path == daemon::DISK_USAGE.path() {
            daemon::DISK_USAGE.serve(request, |request| self.disk_usage(request.into_inner())).await
        } else if path == daemon::PRUNE.path() {
            daemon::PRUNE
                .serve_stream(request, |request| async move {
                    let records = self.prune(request.into_inner()).await?;
                    Ok(Response::new(futures_util::stream::iter(records).map(Ok)))
                })
                .await
        } else if path == daemon::LISTEN_BUILD_HISTORY.path() {
            daemon::LISTEN_BUILD_HISTORY
                .serve_stream(request, |request| self.listen_history(request.into_inner()))
                .await
        } else if path == daemon::UPDATE_BUILD_HISTORY.path() {
            daemon::UPDATE_BUILD_HISTORY
                .serve(request, |request| self.update_history(request.into_inner()))
                .await
        } else if path == client::CONTENT_INFO.path() {
            client::CONTENT_INFO.serve(request, |request| self.content_info(request.into_inner())).await
        } else if path == client::CONTENT_READ.path() {
            client::CONTENT_READ
                .serve_stream(request, |request| self.content_read(request.into_inner()))
                .await
        } else if path == client::HEALTH_CHECK.path() {
            let status = HealthCheckResponse { status: ServingStatus::Serving.into() };
            client::HEALTH_CHECK.serve(request, |_| ready(Ok(status))).await
        } else {
            unknown(path)
        }
    }

    /// Answers a call of a frontend that runs in the client; the build is named in the headers.
    async fn answer_frontend(self, path: &str, request: http::Request<Body>) -> http::Response<Body> {
        let name = request.headers().get("buildkit-controlapi-buildid");
        let Some(name) = name.and_then(|name| name.to_str().ok()).map(str::to_owned) else {
            return Status::invalid_argument("the header buildkit-controlapi-buildid is missing").into_http();
        };
        if path == bridge::PING.path() {
            return bridge::PING.serve(request, |_| self.ping(name)).await;
        }
        macro_rules! answer {
            ($($method:ident => $handler:ident),* $(,)?) => {
                $(if path == bridge::$method.path() {
                    return bridge::$method
                        .serve(request, |request: Request<_>| async move {
                            let build = self.0.builds.find(&name).await?;
                            self.$handler(build, request.into_inner()).await
                        })
                        .await;
                })*
            };
        }
        answer! {
            SOLVE => bridge_solve,
            RETURN => bridge_return,
            INPUTS => bridge_inputs,
            RESOLVE_IMAGE_CONFIG => resolve_image_config,
            RESOLVE_SOURCE_META => resolve_source_meta,
            READ_FILE => read_file,
            READ_DIR => read_dir,
            STAT_FILE => stat_file,
            EVALUATE => bridge_evaluate,
            WARN => bridge_warn,
        }
        unknown(path)
    }
}

fn unknown(path: &str) -> http::Response<Body> {
    Status::unimplemented(format!("there is no method {path} here")).into_http()
}
