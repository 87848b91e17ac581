// SPDX-License-Identifier: Apache-2.0
//! An image built on a node, with its blobs brought home into the store.
//!
//! A node is not believed: blobs are kept under the digests that they have, the image must be complete, its
//! digest the one that the node's exporter told, and its platforms those that were asked for.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use polyarch_build::context::{DockerfileText, LocalContext};
use polyarch_build::error::chain_of;
use polyarch_build::named_context::ContextSource;
use polyarch_build::request::BuildRequest;
use polyarch_build::{BuildError, ErrorKind, Services, named_images};
use polyarch_oci::{Descriptor, ManifestOrIndex, Platform};
use polyarch_registry::Credentials;
use polyarch_solver::CancelFlag;
use polyarch_solver::progress::Progress;
use polyarch_store::{Missing, NamedImage, Store};

use crate::client::attributes::{
    context_name, context_value, entitlements, exporter_attributes, frontend_attributes,
};
use crate::client::cache::NodeCache;
use crate::client::{Exporter, Node, SolveError, SolveRequest};
use crate::session::{ArchiveTarget, Attachments, Session, SharedDirectory, SharedRegistries};

/// Says that a descriptor is of no platform but of another entry.
const REFERENCE_TYPE: &str = "vnd.docker.reference.type";

/// What a node needs besides the request.
#[derive(Clone, Default)]
pub struct NodeBuildOptions {
    /// The platforms that this node builds, some of the request's.
    pub platforms: Vec<Platform>,
    /// Tells this node's steps apart from those of other nodes.
    pub label: Option<String>,
    /// Credentials for the images that the build names, of which the node gets tokens where registries take those.
    pub credentials: Option<Credentials>,
}

/// An image that came home.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeImage {
    /// The index or manifest that the node made.
    pub root: Descriptor,
    /// The manifest of each platform, in the order asked for.
    pub platforms: Vec<(Platform, Descriptor)>,
    /// The manifest of what the node knows of the steps, if that was asked for.
    pub cache: Option<Descriptor>,
}

/// Why an image did not come of a node.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{error}")]
pub struct NodeBuildError {
    /// What failed.
    #[source]
    pub error: BuildError,
    /// Whether the node or the way to it failed, so that another node may do better.
    pub is_of_node: bool,
}

impl From<BuildError> for NodeBuildError {
    fn from(error: BuildError) -> NodeBuildError {
        NodeBuildError { error, is_of_node: false }
    }
}

impl From<SolveError> for NodeBuildError {
    fn from(error: SolveError) -> NodeBuildError {
        NodeBuildError { is_of_node: error.error.is_of_node(), error: error.into() }
    }
}

impl Node {
    /// Builds some platforms of a request on the node and imports the result into the store, without a name.
    ///
    /// # Errors
    /// How the build failed, that the connection broke, or that the node sent something else than what was
    /// asked for.
    pub async fn build_image(
        &self,
        services: &Arc<Services>,
        request: &BuildRequest,
        options: NodeBuildOptions,
        progress: &Progress,
    ) -> Result<NodeImage, NodeBuildError> {
        // Dropping this future ends what it fetches.
        let here = services.localize(request, &CancelFlag::default()).await?;
        let (context, text) = LocalContext::open(services, &here.context, &here.dockerfile)?;
        let context = context.of_time(here.time).keeping(here.scratch);
        // The node gets a directory, which has no time.
        let request = &request.with_time_of_context(&context);
        let dockerfile = dockerfile_directory(services, &text, context.ignore_file())?;
        let (target, imported) = import_target(services.store());
        let mut directories = BTreeMap::from([
            ("context".to_owned(), share(context.root()?)?.withholding(context.ignored())),
            ("dockerfile".to_owned(), share(dockerfile.path())?),
        ]);
        for context in &request.contexts {
            if let ContextSource::Directory(path) = &context.source {
                let opened = LocalContext::open_named(services, path)?;
                directories.insert(context_name(context), share(path)?.withholding(opened.ignored()));
            }
            if context_value(context).is_none() {
                let message = format!(
                    "the context {} is an OCI layout, which only builds on this machine can read",
                    context.name
                );
                return Err(BuildError::new(ErrorKind::Usage, message)
                    .with_hint("push the image to a registry and name it as docker-image://NAME")
                    .into());
            }
        }
        let cache = NodeCache::new(services, &request.cache, progress).await?;
        let random =
            |error| BuildError::new(ErrorKind::Sandbox, format!("the system gives no random bytes: {error}"));
        let images = named_images(request, &text, &options.platforms);
        let share = |credentials| {
            SharedRegistries::new(services.registry().clone(), credentials, images.as_deref()).map_err(random)
        };
        let registries = options.credentials.map(share).transpose()?;
        let attachments = Attachments {
            contents: cache.contents(),
            directories,
            archives: vec![target],
            registries,
            secrets: Some(request.steps.secrets.clone()),
        };
        let session = Session::new(attachments, "").map_err(random)?;
        let solve = SolveRequest {
            frontend: "dockerfile.v0".to_owned(),
            attributes: frontend_attributes(request, &text.name, &options.platforms),
            exporters: vec![Exporter { kind: "oci".to_owned(), attributes: exporter_attributes(request) }],
            cache_from: cache.from.clone(),
            cache_to: cache.to.clone(),
            entitlements: entitlements(request),
            policy: request.policies.given(),
            label: options.label,
        };
        let solved = self.solve(solve, &session, progress).await?;
        let images = std::mem::take(&mut *imported.lock().unwrap_or_else(PoisonError::into_inner));
        let told = solved.response.get("containerimage.digest").map(String::as_str);
        let wrong = |problem: String| {
            BuildError::new(ErrorKind::Registry, format!("the node at {} {problem}", self.endpoint()))
        };
        let root = match images.as_slice() {
            [image] if told.is_none_or(|told| image.descriptor.digest.to_string() == told) => {
                image.descriptor.clone()
            }
            [image] => {
                let (sent, told) = (&image.descriptor.digest, told.unwrap_or_default());
                return Err(wrong(format!("sent the image {sent} and says that it is {told}")).into());
            }
            images => return Err(wrong(format!("sent {} images instead of one", images.len())).into()),
        };
        let platforms = platforms_of_image(services.store(), &root, &options.platforms).map_err(wrong)?;
        let cache = cache.made(&solved)?;
        Ok(NodeImage { root, platforms, cache })
    }
}

fn share(path: &Path) -> Result<SharedDirectory, BuildError> {
    SharedDirectory::open(path).map_err(|error| {
        BuildError::from_source(ErrorKind::Usage, format!("can't share {}", path.display()), &error)
    })
}

/// Makes the directory that a node reads the Dockerfile and its ignore file from, with nothing else in it:
/// what lies around them is nobody's business.
fn dockerfile_directory(
    services: &Services,
    text: &DockerfileText,
    ignore_file: Option<&[u8]>,
) -> Result<tempfile::TempDir, BuildError> {
    let directory = services.scratch()?;
    let write = |name: &str, bytes: &[u8]| {
        let path = directory.path().join(name);
        std::fs::write(&path, bytes).map_err(|error| BuildError::io("can't write", &path, &error))
    };
    write(&text.name, &text.bytes)?;
    // Frontends look for this one first, so it stands for wherever the rules were.
    if let Some(bytes) = ignore_file {
        write(&format!("{}.dockerignore", text.name), bytes)?;
    }
    Ok(directory)
}

/// Makes a target that imports an archive, and the place where its images are noted.
fn import_target(store: &Store) -> (ArchiveTarget, Arc<Mutex<Vec<NamedImage>>>) {
    let imported = Arc::new(Mutex::new(Vec::new()));
    let (store, noted) = (store.clone(), imported.clone());
    let target = ArchiveTarget::new(move |archive| {
        let images = store.import_archive(archive, Missing::Refuse).map_err(|error| chain_of(&error))?;
        noted.lock().unwrap_or_else(PoisonError::into_inner).extend(images);
        Ok(())
    });
    (target, imported)
}

/// Returns the manifest of each platform asked for; the problem when the image has others or not all.
fn platforms_of_image(
    store: &Store,
    root: &Descriptor,
    asked: &[Platform],
) -> Result<Vec<(Platform, Descriptor)>, String> {
    let manifests = match store.image(root).map_err(|error| chain_of(&error))? {
        ManifestOrIndex::Manifest(_) => vec![root.clone()],
        ManifestOrIndex::Index(index) => {
            let is_image = |entry: &&Descriptor| !entry.annotations.contains_key(REFERENCE_TYPE);
            index.value.manifests.iter().filter(is_image).cloned().collect()
        }
    };
    let mut found = Vec::new();
    for descriptor in manifests {
        let ManifestOrIndex::Manifest(manifest) =
            store.image(&descriptor).map_err(|error| chain_of(&error))?
        else {
            return Err("sent an index within an index".to_owned());
        };
        // What counts is what the image says of itself, not what stands beside it.
        let config = store.config(&manifest.value).map_err(|error| chain_of(&error))?;
        found.push((config.value.platform().normalized(), descriptor));
    }
    let mut platforms = Vec::new();
    for platform in asked {
        let wanted = platform.clone().normalized();
        let Some(at) = found.iter().position(|(platform, _)| *platform == wanted) else {
            let sent: Vec<String> = found.iter().map(|(platform, _)| platform.to_string()).collect();
            return Err(format!("was asked for {platform} and sent {}", sent.join(", ")));
        };
        platforms.push((platform.clone(), found.swap_remove(at).1));
    }
    match found.first() {
        None => Ok(platforms),
        Some((platform, _)) => Err(format!("was not asked for {platform} and sent it")),
    }
}
