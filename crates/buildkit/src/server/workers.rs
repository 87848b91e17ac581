// SPDX-License-Identifier: Apache-2.0
//! What we tell clients of the machine: one worker, with the platforms whose programs run here.

use polyarch_build::Services;
use polyarch_oci::Platform;
use tonic::Status;

use crate::api::control::{InfoResponse, ListWorkersResponse};
use crate::api::llb;
use crate::api::worker::{BuildkitVersion, WorkerRecord};
use crate::server::Server;
use crate::server::errors::status_of;

/// The platforms that are tried, those that people build for most first.
const CANDIDATES: [&str; 12] = [
    "linux/amd64",
    "linux/arm64",
    "linux/386",
    "linux/arm/v7",
    "linux/arm/v6",
    "linux/riscv64",
    "linux/ppc64le",
    "linux/s390x",
    "linux/loong64",
    "linux/mips64le",
    "linux/mips64",
    "linux/arm/v5",
];

/// The version of the Dockerfile language that is understood.
const DOCKERFILE_VERSION: &str = "1.26.0";

impl Server {
    /// Answers `Control.ListWorkers`.
    pub(super) async fn list_workers(&self) -> Result<ListWorkersResponse, Status> {
        Ok(ListWorkersResponse { record: vec![self.worker().await?] })
    }

    /// Answers `Control.Info`.
    pub(super) fn info(&self) -> InfoResponse {
        InfoResponse { buildkit_version: Some(self.version()) }
    }

    pub(super) async fn worker(&self) -> Result<WorkerRecord, Status> {
        let platforms = self.platforms().await?;
        let mut labels = self.0.options.labels.clone();
        labels
            .entry("org.mobyproject.buildkit.worker.executor".to_owned())
            .or_insert_with(|| "polyarch".into());
        Ok(WorkerRecord {
            id: self.0.worker.clone(),
            labels,
            platforms: platforms.iter().map(message_of).collect(),
            buildkit_version: Some(self.version()),
            ..WorkerRecord::default()
        })
    }

    fn version(&self) -> BuildkitVersion {
        BuildkitVersion {
            package: "polyarch".to_owned(),
            version: self.0.options.version.clone(),
            revision: String::new(),
            dockerfile_version: DOCKERFILE_VERSION.to_owned(),
        }
    }

    /// Returns the platforms, this machine's own first; they are tried once.
    pub(super) async fn platforms(&self) -> Result<&[Platform], Status> {
        let found = self.0.platforms.get_or_try_init(|| async {
            if !self.0.options.platforms.is_empty() {
                return Ok(self.0.options.platforms.clone());
            }
            let options = self.0.options.services.clone();
            let tried = tokio::task::spawn_blocking(move || {
                let host = Platform::host();
                let mut candidates = vec![host.clone()];
                candidates.extend(
                    CANDIDATES
                        .iter()
                        .filter_map(|text| text.parse().ok())
                        .filter(|platform| *platform != host),
                );
                let services = Services::open(options).map_err(|error| status_of(&error))?;
                let runs = services.runs(&candidates);
                Ok(candidates.into_iter().zip(runs).filter_map(|(it, runs)| runs.then_some(it)).collect())
            });
            tried.await.unwrap_or_else(|panic| Err(Status::internal(panic.to_string())))
        });
        found.await.map(Vec::as_slice)
    }
}

/// Returns a platform as the protocol has it.
pub(super) fn message_of(platform: &Platform) -> llb::Platform {
    llb::Platform {
        architecture: platform.architecture.clone(),
        os: platform.os.clone(),
        variant: platform.variant.clone(),
        os_version: platform.os_version.clone(),
        os_features: platform.os_features.clone(),
    }
}
