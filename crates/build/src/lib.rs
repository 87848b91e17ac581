// SPDX-License-Identifier: Apache-2.0
//! What an image build is: every other room meets here.
//!
//! A [`BuildRequest`] comes in; [`Services::build`] loads the context and the Dockerfile, probes the
//! platforms, lowers every platform's stages into one graph, solves it and exports the result. The
//! same [`Services`] pull, push, run and prune images.

#![recursion_limit = "256"]

pub mod attest;
mod builder;
mod cache;
pub mod cache_filter;
mod cache_mounts;
mod change;
mod check;
mod client_documents;
pub mod context;
pub mod csv;
pub mod definition;
pub mod distant;
pub mod error;
mod evaluated;
mod exporter;
pub mod fetch;
mod frontend;
pub mod held;
pub mod image;
pub mod image_source;
pub mod inventory;
pub mod layer_contents;
mod layers;
mod lint;
pub mod named_context;
mod named_images;
pub mod nodes;
mod once_map;
mod ops;
mod output_file;
mod platform_args;
mod provenance;
mod prune;
mod pull;
pub mod push;
pub mod remote;
pub mod remote_cache;
pub mod request;
pub mod result;
mod run;
mod sbom;
pub mod secrets;
mod services;
pub mod source_policy;
pub mod source_time;
mod spdx;
mod stats;
pub mod store_usage;
pub mod subrequest;
mod syntax;
pub mod tree;

pub use change::change_config;
pub use error::{BuildError, ErrorKind};
pub use evaluated::{AskedImage, BuiltTree, Evaluated};
pub use exporter::FinishedImage;
pub use named_images::named_images;
pub use output_file::{require_directory, write_file};
pub use prune::{PrunePlan, PruneRequest, plan_prune, prune};
pub use pull::{PullRequest, PullResult, Replaced};
pub use push::{PushRequest, PushResult};
pub use remote_cache::{
    CacheCollector, CacheDirectory, CacheEntry, CacheExport, CacheMode, CacheSource, CacheTarget,
    ClientCache, RemoteCache,
};
pub use request::BuildRequest;
pub use result::{BuildResult, PlatformResult};
pub use run::{RunRequest, RunStdio, SignalRelay};
pub use services::{ServiceOptions, Services};
pub use subrequest::{Subrequest, SubrequestOptions, SubrequestResult};
