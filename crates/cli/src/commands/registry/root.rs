// SPDX-License-Identifier: Apache-2.0
//! What a registry is kept in: `--root`, a directory or a bucket.

use std::path::{Path, PathBuf};

use clap::Args;
use polyarch_build::{BuildError, ErrorKind};
use polyarch_registry::server::{Storage, StorageError};

use crate::CommandError;
use crate::session::Session;

/// What a bucket's address begins with.
const BUCKETS: &str = "s3://";

/// What a registry is kept in.
#[derive(Debug, Args)]
pub(super) struct RootArg {
    /// Directory of the registry, or s3://BUCKET[/PREFIX], for which the AWS_* variables give credentials [default:
    /// `registry` in the store's: /var/lib/polyarch for root, else ~/.local/share/polyarch]
    #[arg(long, value_name = "DIR|s3://BUCKET")]
    root: Option<PathBuf>,
    /// Address of the object store, when it is not Amazon's
    #[arg(long, value_name = "URL", requires = "root")]
    s3_endpoint: Option<String>,
    /// Region of the bucket [default: AWS_REGION, else us-east-1]
    #[arg(long, value_name = "REGION", requires = "root")]
    s3_region: Option<String>,
}

impl RootArg {
    /// Opens the registry, and makes it when there is none.
    pub(super) fn open(&self, session: &Session) -> Result<Storage, CommandError> {
        if let Some(bucket) = self.bucket()? {
            return open_bucket(self, bucket, session, true);
        }
        Storage::open(&self.directory(session)?).map_err(|error| storage_error(&error))
    }

    /// Opens a registry that is there.
    pub(super) fn open_existing(&self, session: &Session) -> Result<Storage, CommandError> {
        if let Some(bucket) = self.bucket()? {
            return open_bucket(self, bucket, session, false);
        }
        Storage::open_existing(&self.directory(session)?).map_err(|error| storage_error(&error))
    }

    /// Returns the address of a bucket, when it is one.
    fn bucket(&self) -> Result<Option<&str>, CommandError> {
        let address = self.root.as_deref().and_then(Path::to_str).filter(|root| root.starts_with(BUCKETS));
        if address.is_none() && (self.s3_endpoint.is_some() || self.s3_region.is_some()) {
            return Err(CommandError::usage("--s3-endpoint and --s3-region are for a registry in a bucket")
                .with_hint("name the bucket: --root s3://BUCKET/PREFIX"));
        }
        Ok(address)
    }

    fn directory(&self, session: &Session) -> Result<PathBuf, CommandError> {
        match &self.root {
            Some(root) => Ok(session.environment.resolve(root)),
            None => Ok(session.settings()?.root.join("registry")),
        }
    }
}

#[cfg(feature = "s3")]
fn open_bucket(
    arg: &RootArg,
    address: &str,
    session: &Session,
    makes: bool,
) -> Result<Storage, CommandError> {
    use polyarch_registry::server::BucketOptions;
    let mut options = BucketOptions::parse(address).map_err(|problem| {
        CommandError::usage(format!("--root {address:?}: {problem}"))
            .with_hint("write for example --root s3://images/team")
    })?;
    options.endpoint.clone_from(&arg.s3_endpoint);
    options.region.clone_from(&arg.s3_region);
    let environment = &session.environment;
    let variables = environment.variables.keys().filter(|name| name.starts_with("AWS_"));
    options.settings =
        variables.filter_map(|name| Some((name.clone(), environment.text(name)?.to_owned()))).collect();
    options.scratch = session.settings()?.root.join("registry-incoming");
    let opened = match makes {
        true => Storage::open_bucket(&options),
        false => Storage::open_existing_bucket(&options),
    };
    opened.map_err(|error| storage_error(&error))
}

#[cfg(not(feature = "s3"))]
fn open_bucket(_: &RootArg, address: &str, _: &Session, _: bool) -> Result<Storage, CommandError> {
    Err(CommandError::usage(format!(
        "can't use {address:?}: registries in buckets are not built into this binary"
    ))
    .with_hint("build it with `cargo build --release --features s3`, or name a directory with --root DIR"))
}

/// Says what is wrong with what a registry is kept in.
pub(super) fn storage_error(error: &StorageError) -> CommandError {
    let text = polyarch_build::error::chain_of(error);
    let error = match error {
        StorageError::Format { .. } | StorageError::Foreign { .. } | StorageError::Missing { .. } => {
            BuildError::new(ErrorKind::Usage, text).with_hint("name another directory with --root DIR")
        }
        StorageError::Index { .. } => BuildError::new(ErrorKind::Storage, text).with_hint(
            "`polyarch registry scrub` says what is damaged; images of that repository can be pushed again",
        ),
        #[cfg(feature = "s3")]
        StorageError::Bucket(error) => bucket_error(error, text),
        _ => BuildError::new(ErrorKind::Storage, text),
    };
    error.into()
}

#[cfg(feature = "s3")]
fn bucket_error(error: &polyarch_registry::server::BucketError, text: String) -> BuildError {
    use polyarch_registry::server::BucketError as Bucket;
    let usage = |hint: &str| BuildError::new(ErrorKind::Usage, text.clone()).with_hint(hint);
    match error {
        Bucket::Settings { .. } => {
            usage("see --root, --s3-endpoint, --s3-region and the variables AWS_* in docs/registry.md")
        }
        Bucket::NoBucket { .. } => usage("make it with the store's own tool, or name another with --root"),
        Bucket::Denied { .. } => usage(
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY to a key that may list, read, write and delete there",
        ),
        Bucket::Unreachable { .. } => {
            usage("name the store's address with --s3-endpoint URL, and Amazon's region with --s3-region")
        }
        Bucket::Unconditional { .. } => {
            usage("take a store that has conditional writes, as Amazon's has, or a directory")
        }
        Bucket::Missing { .. } | Bucket::Foreign { .. } | Bucket::Format { .. } => {
            usage("name another prefix with --root s3://BUCKET/PREFIX")
        }
        Bucket::Damaged { .. } => BuildError::new(ErrorKind::Storage, text)
            .with_hint("`polyarch registry scrub` with the same --root says what is damaged"),
        _ => BuildError::new(ErrorKind::Storage, text),
    }
}
