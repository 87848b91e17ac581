// SPDX-License-Identifier: Apache-2.0
//! What a client's frontend asks about sources before it builds on them: configs of images, commits, downloads.

use std::sync::Arc;

use polyarch_build::definition::{SourceFacts, VertexKind};
use polyarch_build::request::PullPolicy;
use polyarch_build::{AskedImage, BuildError, fetch::Shown};
use polyarch_oci::{Platform, Reference};
use tonic::Status;

use crate::api::gateway::{
    ResolveImageConfigRequest, ResolveImageConfigResponse, ResolveSourceGitResponse,
    ResolveSourceHTTPResponse, ResolveSourceImageResponse, ResolveSourceMetaRequest,
    ResolveSourceMetaResponse,
};
use crate::api::llb::{self, SourceOp};
use crate::server::Server;
use crate::server::builds::Build;
use crate::server::definition::sources::Sources;
use crate::server::errors::status_of;
use crate::server::secrets::ClientSecrets;

/// The scheme of images of registries.
const IMAGE: &str = "docker-image://";
/// The scheme of images of layouts that clients have.
const LAYOUT: &str = "oci-layout://";
/// The kind of resolver that asks a client's layout.
const LAYOUT_RESOLVER: i32 = 1;

/// What is asked about an image.
struct Asked<'a> {
    platform: Option<&'a llb::Platform>,
    mode: &'a str,
    label: &'a str,
}

/// What an image is.
struct Found {
    digest: String,
    config: Vec<u8>,
}

impl Server {
    pub(super) async fn resolve_image_config(
        &self,
        build: Arc<Build>,
        request: ResolveImageConfigRequest,
    ) -> Result<ResolveImageConfigResponse, Status> {
        let mut source = SourceOp { identifier: format!("{IMAGE}{}", request.r#ref), ..SourceOp::default() };
        if request.resolver_type == LAYOUT_RESOLVER {
            source.identifier = format!("{LAYOUT}{}", request.r#ref);
            let attributes = [("oci.session", &request.session_id), ("oci.store", &request.store_id)];
            source.attrs = attributes.map(|(key, value)| (key.to_owned(), value.clone())).into();
        }
        let asked = Asked {
            platform: request.platform.as_ref(),
            mode: &request.resolve_mode,
            label: &request.log_name,
        };
        let (source, found) = self.image_of(&build, &source, &asked).await?;
        let no_image = || Status::invalid_argument(format!("{} is no image", source.identifier));
        let found = found.ok_or_else(no_image)?;
        let name = source.identifier.strip_prefix(IMAGE).or_else(|| source.identifier.strip_prefix(LAYOUT));
        let name = name.unwrap_or(&request.r#ref).to_owned();
        Ok(ResolveImageConfigResponse { digest: found.digest, config: found.config, r#ref: name })
    }

    pub(super) async fn resolve_source_meta(
        &self,
        build: Arc<Build>,
        request: ResolveSourceMetaRequest,
    ) -> Result<ResolveSourceMetaResponse, Status> {
        let source = request.source.ok_or_else(|| Status::invalid_argument("the source is missing"))?;
        if request.image.as_ref().is_some_and(|image| image.attestation_chain)
            || request.http.as_ref().is_some_and(|http| http.checksum_request.is_some())
        {
            let what = "attestations of images and further checksums of downloads can't be looked up";
            return Err(Status::unimplemented(format!("{what} by this builder")));
        }
        let answer = ResolveSourceMetaResponse::default();
        if source.identifier.starts_with(IMAGE) || source.identifier.starts_with(LAYOUT) {
            let asked = Asked {
                platform: request.platform.as_ref(),
                mode: &request.resolve_mode,
                label: &request.log_name,
            };
            let (source, found) = self.image_of(&build, &source, &asked).await?;
            let wants_config = !request.image.as_ref().is_some_and(|image| image.no_config);
            // Where a policy has put something else in its place, the frontend goes on with that.
            let image = found.map(|found| ResolveSourceImageResponse {
                digest: found.digest,
                config: if wants_config { found.config } else { Vec::new() },
                attestation_chain: None,
            });
            return Ok(ResolveSourceMetaResponse { source: Some(source), image, ..answer });
        }
        let wants_objects = request.git.as_ref().is_some_and(|git| git.return_object);
        let (source, facts) = self.facts_of(&build, &source, &request.log_name, wants_objects).await?;
        let (mut git, mut http) = (None, None);
        match facts {
            SourceFacts::Nothing => {}
            SourceFacts::Git(found) => {
                git = Some(ResolveSourceGitResponse {
                    checksum: found.object,
                    r#ref: found.name,
                    commit_checksum: found.commit.unwrap_or_default(),
                    commit_object: found.commit_object,
                    tag_object: found.tag_object,
                });
            }
            SourceFacts::Http(found) => {
                let time = |seconds| prost_types::Timestamp { seconds, nanos: 0 };
                http = Some(ResolveSourceHTTPResponse {
                    checksum: found.digest.to_string(),
                    filename: found.file_name,
                    last_modified: found.modified.map(time),
                    checksum_response: None,
                });
            }
        }
        Ok(ResolveSourceMetaResponse { source: Some(source), git, http, ..answer })
    }

    /// Looks up an image, in a registry or in a layout of the client's, as the build's source policy has it; nothing
    /// is found where the policy has put in its place what is no image.
    async fn image_of(
        &self,
        build: &Arc<Build>,
        source: &SourceOp,
        asked: &Asked<'_>,
    ) -> Result<(SourceOp, Option<Found>), Status> {
        let failed = |error: BuildError| status_of(&error);
        let sources = Sources::new(self, build).map_err(failed)?;
        let source = sources.permitted(source).map_err(failed)?.into_owned();
        let (reference, is_layout) = match source.identifier.strip_prefix(LAYOUT) {
            Some(rest) => (sources.bring_layout(rest, &source.attrs).await.map_err(failed)?, true),
            None => {
                let Some(name) = source.identifier.strip_prefix(IMAGE) else { return Ok((source, None)) };
                let reference: Reference = name.parse().map_err(|error: polyarch_oci::ReferenceError| {
                    Status::invalid_argument(format!("{name} is not the name of an image: {error}"))
                })?;
                (reference.with_default_tag(), false)
            }
        };
        let platform = match asked.platform {
            Some(platform) => Platform {
                os_version: platform.os_version.clone(),
                os_features: platform.os_features.clone(),
                ..Platform::new(&platform.os, &platform.architecture, &platform.variant)
            }
            .normalized(),
            None => Platform::host(),
        };
        let pull = match (is_layout, asked.mode) {
            // No registry knows it.
            (true, _) => PullPolicy::Never,
            (false, "pull") => PullPolicy::Always,
            (false, _) => PullPolicy::Default,
        };
        let label = match asked.label {
            "" => format!("[internal] load metadata for {reference}"),
            name => name.to_owned(),
        };
        let progress = build.progress();
        let vertex = progress.begin(&format!("metadata {platform} {reference}"), label);
        let shown = Shown { progress: progress.clone(), vertex: vertex.digest() };
        match build.services.resolve_image(&reference, &platform, pull, &shown).await {
            Ok(image) => {
                vertex.done();
                let digest = image.root.digest.clone();
                build.results.note_image(AskedImage {
                    reference: reference.clone(),
                    platform,
                    digest: reference.digest().unwrap_or(&digest).clone(),
                    is_layout,
                });
                let scheme = if is_layout { LAYOUT } else { IMAGE };
                let source = SourceOp { identifier: format!("{scheme}{reference}"), ..source };
                let config = image.config.bytes.to_vec();
                Ok((source, Some(Found { digest: digest.to_string(), config })))
            }
            Err(error) => {
                vertex.failed(&error);
                Err(status_of(&error))
            }
        }
    }

    /// Asks where a source is from what it is at present.
    async fn facts_of(
        &self,
        build: &Arc<Build>,
        source: &SourceOp,
        label: &str,
        wants_objects: bool,
    ) -> Result<(SourceOp, SourceFacts), Status> {
        let looking = async {
            let mut sources = Sources::new(self, build)?;
            let source = sources.permitted(source)?.into_owned();
            let label = if label.is_empty() { "[internal] load metadata of a source" } else { label };
            let kind = match source.identifier.split_once("://") {
                Some(("git" | "http" | "https", _)) => sources.source(&source, "", label).await?,
                _ => return Ok((source, SourceFacts::Nothing)),
            };
            if let VertexKind::Directory { .. } = kind {
                return Ok((source, SourceFacts::Nothing));
            }
            let sockets = build.services.scratch()?;
            let secrets: Arc<dyn polyarch_build::secrets::SecretSource> = match &build.session {
                Some(session) => Arc::new(ClientSecrets::new(session.clone(), sockets.path().to_owned())),
                None => Arc::new(polyarch_build::secrets::NoSecrets),
            };
            let vertex = build.progress().begin(&format!("source metadata {label}"), label);
            match build.services.look_up(&kind, wants_objects, &secrets, &build.cancel).await {
                Ok(facts) => {
                    vertex.done();
                    Ok((source, facts))
                }
                Err(error) => {
                    vertex.failed(&error);
                    Err(error)
                }
            }
        };
        looking.await.map_err(|error: BuildError| status_of(&error))
    }
}
