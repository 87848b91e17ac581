// SPDX-License-Identifier: Apache-2.0
//! `Control.Solve` and `Control.Status`: a build from its request to what its client is told.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::{Stream, StreamExt as _};
use jiff::Timestamp;
use polyarch_build::{BuildError, ServiceOptions, Services};
use polyarch_registry::{Credential, CredentialLookup, Credentials, LentToken, TokenWanted};
use tokio::sync::Semaphore;
use tonic::metadata::AsciiMetadataValue;
use tonic::{Response, Status};

use crate::api::auth::FetchTokenRequest;
use crate::api::control::{SolveRequest, SolveResponse, StatusResponse};
use crate::caller::ClientSession;
use crate::history::Outcome;
use crate::server::Server;
use crate::server::attributes::granted;
use crate::server::builds::{Build, MAX_SOLVING, Place};
use crate::server::errors::{status_of, status_of_lost_task};
use crate::server::exporters;
use crate::server::history::provenance_of;
use crate::server::outputs::{OutputKind, WantedOutput, outputs_of};
use crate::server::results::{Results, Solved};

/// How long a build waits for its client's session.
const SESSION_PATIENCE: Duration = Duration::from_secs(4);

/// The life of a token of a client that does not tell it.
const DEFAULT_LIFE: Duration = Duration::from_secs(60);

/// The host by which clients know Docker Hub's credentials.
const DOCKER_HUB: &str = "registry-1.docker.io";

impl Server {
    /// Answers `Control.Solve` when the build has ended. The build is stopped when nobody waits for the answer
    /// any more.
    pub(super) async fn solve(&self, request: SolveRequest) -> Result<SolveResponse, Status> {
        let place = self.0.builds.reserve(&request.r#ref)?;
        let cancel = place.cancel.clone();
        let guard = CancelOnDrop(cancel);
        // The build has a task of its own, so that it can clean up when its client has gone.
        let task = tokio::spawn(self.clone().run(place, request));
        let ended = task.await.unwrap_or_else(|lost| Err(status_of_lost_task(&lost)));
        drop(guard);
        ended
    }

    async fn run(self, place: Place, request: SolveRequest) -> Result<SolveResponse, Status> {
        let outputs = outputs_of(&request).map_err(|error| status_of(&error))?;
        if !request.source_policy_session.is_empty() {
            // What the client forbids must not be read unasked.
            return Err(Status::unimplemented("source policies that the client evaluates are not supported"));
        }
        granted(&request.entitlements, &self.0.options.entitlements).map_err(|error| status_of(&error))?;
        let session = match request.session.as_str() {
            "" => None,
            // What needs the client says so when it is not there.
            id => self.0.sessions.find(id, SESSION_PATIENCE).await.ok(),
        };
        let options = self.service_options(session.clone(), &outputs);
        // On a new store this takes a while, in which others must be answered.
        let services = tokio::task::spawn_blocking(move || Services::open_for_client(options))
            .await
            .map_err(|lost| status_of_lost_task(&lost))?
            .map_err(|error| status_of(&error))?;
        let build = Arc::new(Build {
            request,
            session,
            services,
            status: place.status.clone(),
            cancel: place.cancel.clone(),
            results: Results::default(),
            solving: Semaphore::new(MAX_SOLVING),
            uploads: Default::default(),
        });
        let remembered = self.begin_record(&build);
        place.fill(build.clone());
        let mut outcome = Outcome::default();
        let ended = self.build(&build, &outputs, &mut outcome).await;
        place.status.end();
        if let Some(remembered) = remembered {
            self.keep_record(remembered, outcome, &ended).await;
        }
        ended
    }

    async fn build(
        &self,
        build: &Arc<Build>,
        outputs: &[WantedOutput],
        outcome: &mut Outcome,
    ) -> Result<SolveResponse, Status> {
        let request = &build.request;
        let has_definition = request.definition.as_ref().is_some_and(|it| !it.def.is_empty());
        let solved = match (request.frontend.as_str(), has_definition) {
            ("", false) => self.of_client(build).await?,
            ("", true) => {
                self.solve_definition(build, &request.definition.clone().unwrap_or_default(), &[]).await?
            }
            (frontend, _) => {
                self.run_frontend(build, frontend, &request.frontend_attrs, &request.frontend_inputs).await?
            }
        };
        outcome.provenance = provenance_of(build, &solved);
        let exporting = exporters::export(build, &solved, outputs);
        let exported = tokio::select! {
            exported = exporting => exported,
            () = build.cancel.cancelled() => Err(BuildError::cancelled()),
        };
        let mut response = exported.map_err(|error| status_of(&error))?;
        for (key, value) in &solved.metadata {
            // What frontends say to clients beside images.
            if key.starts_with("frontend.") || key.starts_with("result.") {
                response.insert(key.clone(), String::from_utf8_lossy(value).into_owned());
            }
        }
        Ok(SolveResponse { exporter_response: response })
    }

    /// Waits for the frontend in the client.
    async fn of_client(&self, build: &Arc<Build>) -> Result<Solved, Status> {
        tokio::select! {
            returned = build.results.returned() => returned,
            () = build.cancel.cancelled() => Err(status_of(&BuildError::cancelled())),
        }
    }

    /// Returns how a build opens the rooms: with its client's credentials.
    fn service_options(&self, session: Option<ClientSession>, outputs: &[WantedOutput]) -> ServiceOptions {
        let mut options = self.0.options.services.clone();
        // Clients of BuildKit are warned and no more (the rule InvalidBaseImagePlatform).
        options.takes_lone_images = true;
        options.registry.credentials = match session {
            Some(session) => Credentials::of_lookup(Arc::new(Lookup(session)), "the client"),
            None => Credentials::anonymous(),
        };
        for output in outputs {
            if matches!(output.kind, OutputKind::Image { is_insecure: true, .. }) {
                for name in &output.names {
                    options.registry.hosts.entry(name.host()).insecure = true;
                }
            }
        }
        options
    }

    /// Answers `Control.Status`.
    pub(super) async fn status(
        self,
        build: String,
    ) -> Result<Response<impl Stream<Item = Result<StatusResponse, Status>> + Send + 'static>, Status> {
        let kept = match self.0.builds.knows(&build) {
            true => None,
            false => self.remembered_status(build.clone()).await?,
        };
        let mut response = Response::new(match kept {
            Some(messages) => futures_util::stream::iter(messages.into_iter().map(Ok)).boxed(),
            None => self.0.builds.status(&build).await?.follow().boxed(),
        });
        if let Ok(now) = AsciiMetadataValue::try_from(Timestamp::now().to_string()) {
            response.metadata_mut().insert("buildkit-current-timestamp", now);
        }
        Ok(response)
    }
}

/// Stops a build when its client does not wait for it any more.
struct CancelOnDrop(polyarch_solver::CancelFlag);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// Asks a client for its credentials.
struct Lookup(ClientSession);

impl CredentialLookup for Lookup {
    fn find<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Result<Option<Credential>, String>> {
        Box::pin(async move {
            let host = if host == "docker.io" { DOCKER_HUB } else { host };
            let login = self.0.credentials(host).await.map_err(|error| crate::error::chain_of(&error))?;
            Ok(login.map(|login| match login.user.is_empty() {
                true => Credential::IdentityToken { token: login.secret },
                false => Credential::UserPassword { user: login.user, password: login.secret },
            }))
        })
    }

    fn token<'a>(&'a self, wanted: TokenWanted<'a>) -> BoxFuture<'a, Result<Option<LentToken>, String>> {
        Box::pin(async move {
            let host = if wanted.host == "docker.io" { DOCKER_HUB } else { wanted.host };
            let request = FetchTokenRequest {
                client_id: "polyarch".to_owned(),
                host: host.to_owned(),
                realm: wanted.realm.to_owned(),
                service: wanted.service.to_owned(),
                scopes: wanted.scopes,
            };
            let lent = self.0.token(request).await.map_err(|error| crate::error::chain_of(&error))?;
            Ok(lent.filter(|lent| !lent.token.is_empty()).map(|lent| LentToken {
                token: lent.token,
                life: u64::try_from(lent.expires_in)
                    .ok()
                    .filter(|life| *life > 0)
                    .map_or(DEFAULT_LIFE, Duration::from_secs),
            }))
        })
    }
}
