// SPDX-License-Identifier: Apache-2.0
//! The first contact with a bucket: what is wrong with it is found out and told now, and not with the first push.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::path::Path as Key;
use object_store::{
    BackoffConfig, ClientConfigKey, ClientOptions, Error as StoreError, ObjectStore, ObjectStoreExt as _,
    RetryConfig, UpdateVersion,
};

use super::super::api_error::chain_of;
use super::super::storage::StorageError;
use super::Bucket;
use super::objects::{BucketError, Objects};

/// What the object `format` says.
const FORMAT: &str = "polyarch-registry-bucket 1\n";

/// A bucket, and how it is reached.
#[derive(Debug, Clone, Default)]
pub struct BucketOptions {
    /// Its name.
    pub bucket: String,
    /// What the registry's keys begin with; may be empty.
    pub prefix: String,
    /// The address of a store that is not Amazon's.
    pub endpoint: Option<String>,
    /// Where the bucket is.
    pub region: Option<String>,
    /// Settings as Amazon's tools know them, such as `AWS_ACCESS_KEY_ID`; others are ignored.
    pub settings: Vec<(String, String)>,
    /// A directory of this machine for blobs that are read while they come from elsewhere.
    pub scratch: PathBuf,
}

impl BucketOptions {
    /// Reads `s3://BUCKET/PREFIX`; the error is a sentence.
    ///
    /// # Errors
    /// When it has no such form.
    pub fn parse(text: &str) -> Result<BucketOptions, String> {
        let rest = text.strip_prefix("s3://").ok_or("it does not begin with s3://")?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let is_bucket = (3..=63).contains(&bucket.len())
            && bucket.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'));
        if !is_bucket {
            return Err(format!("{bucket:?} is no name of a bucket"));
        }
        let prefix = prefix.trim_matches('/');
        let is_part = |part: &str| {
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
            !part.is_empty() && part != "." && part != ".." && part.bytes().all(is_plain)
        };
        if prefix.len() > 200 || !(prefix.is_empty() || prefix.split('/').all(is_part)) {
            return Err(format!(
                "{prefix:?} is no prefix: letters, digits, `.`, `_` and `-`, in parts separated by `/`"
            ));
        }
        Ok(BucketOptions { bucket: bucket.to_owned(), prefix: prefix.to_owned(), ..BucketOptions::default() })
    }

    fn place(&self) -> String {
        match self.prefix.is_empty() {
            true => format!("s3://{}", self.bucket),
            false => format!("s3://{}/{}", self.bucket, self.prefix),
        }
    }

    fn connect(&self) -> Result<Arc<dyn ObjectStore>, BucketError> {
        // Names are resolved as everywhere else, without libc.
        let client = ClientOptions::new()
            .with_config(ClientConfigKey::RandomizeAddresses, "false")
            .with_connect_timeout(Duration::from_secs(5))
            .with_timeout_disabled()
            .with_read_timeout(Duration::from_secs(60));
        let backoff = BackoffConfig {
            init_backoff: Duration::from_millis(50),
            max_backoff: Duration::from_secs(2),
            base: 2.0,
        };
        let retry = RetryConfig { backoff, max_retries: 5, retry_timeout: Duration::from_secs(60) };
        // First, because it takes the place of what was set before.
        let mut builder = AmazonS3Builder::new().with_client_options(client).with_retry(retry);
        let mut endpoint = self.endpoint.clone();
        for (name, value) in &self.settings {
            if let Ok(key) = name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>() {
                if key == AmazonS3ConfigKey::Endpoint && endpoint.is_none() {
                    endpoint = Some(value.clone());
                }
                builder = builder.with_config(key, value);
            }
        }
        if let Some(endpoint) = endpoint {
            // Whoever writes http means it.
            builder = builder.with_allow_http(endpoint.starts_with("http://")).with_endpoint(endpoint);
        }
        if let Some(region) = &self.region {
            builder = builder.with_region(region);
        }
        let store = builder
            .with_bucket_name(&self.bucket)
            .build()
            .map_err(|error| BucketError::Settings { problem: chain_of(&error) })?;
        Ok(Arc::new(store))
    }
}

impl Bucket {
    /// Opens the registry of a bucket, and makes it when there is none.
    pub(in crate::server) fn open(options: &BucketOptions) -> Result<Bucket, StorageError> {
        Bucket::over(options.connect()?, options, true)
    }

    /// Opens the registry of a bucket that is there.
    pub(in crate::server) fn open_existing(options: &BucketOptions) -> Result<Bucket, StorageError> {
        Bucket::over(options.connect()?, options, false)
    }

    pub(super) fn over(
        store: Arc<dyn ObjectStore>,
        options: &BucketOptions,
        makes: bool,
    ) -> Result<Bucket, StorageError> {
        let place = options.place();
        let objects = Objects::new(store, Key::from(options.prefix.as_str()), place.clone())?;
        contact(&objects, &options.bucket)?;
        if !is_made(&objects)? {
            if !makes {
                return Err(BucketError::Missing { place }.into());
            }
            // Another server may make it at this moment.
            let others = objects.list_some("", 1)?;
            if others.iter().any(|object| object.name != "format") {
                return Err(BucketError::Foreign { place }.into());
            }
            objects.replace("format", None, Bytes::from_static(FORMAT.as_bytes()))?;
            is_made(&objects)?;
        }
        if makes {
            check_conditions(&objects)?;
        }
        Bucket::new(objects, options.scratch.clone())
    }
}

/// Asks the store for something, to tell what is wrong as well as it can be told.
fn contact(objects: &Objects, bucket: &str) -> Result<(), BucketError> {
    let place = objects.place().to_owned();
    let store = objects.store();
    let Err(error) = objects.wait(store.get(&objects.key("format"))) else { return Ok(()) };
    let text = chain_of(&error);
    match error {
        StoreError::NotFound { .. } if text.contains("NoSuchBucket") => {
            Err(BucketError::NoBucket { bucket: bucket.to_owned() })
        }
        StoreError::NotFound { .. } => Ok(()),
        StoreError::PermissionDenied { .. } | StoreError::Unauthenticated { .. } => {
            Err(BucketError::Denied { place, source: Box::new(error) })
        }
        // The library's word for an answer that was none.
        _ if !text.contains("HTTP error") => {
            let (action, key) = ("read", "format".to_owned());
            Err(BucketError::Object { action, key, place, source: Box::new(error) })
        }
        _ => Err(BucketError::Unreachable { place, source: Box::new(error) }),
    }
}

fn is_made(objects: &Objects) -> Result<bool, StorageError> {
    let Some(bytes) = objects.get("format", 1 << 10)? else { return Ok(false) };
    if bytes == FORMAT {
        return Ok(true);
    }
    let found = String::from_utf8_lossy(&bytes).chars().take(100).collect();
    Err(BucketError::Format { place: objects.place().to_owned(), found }.into())
}

/// Makes sure that the store heeds conditions: replacing `format` by itself does no harm where it does not.
fn check_conditions(objects: &Objects) -> Result<(), StorageError> {
    let format = || Bytes::from_static(FORMAT.as_bytes());
    let other =
        UpdateVersion { e_tag: Some("\"00000000000000000000000000000000\"".to_owned()), version: None };
    for (known, header) in [(None, "If-None-Match"), (Some(&other), "If-Match")] {
        if objects.replace("format", known, format())?.is_some() {
            return Err(BucketError::Unconditional { place: objects.place().to_owned(), header }.into());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read() {
        for (text, bucket, prefix) in [
            ("s3://images", "images", ""),
            ("s3://images/", "images", ""),
            ("s3://my.images-1/team/a_b/", "my.images-1", "team/a_b"),
        ] {
            let options = BucketOptions::parse(text).unwrap();
            assert_eq!((&*options.bucket, &*options.prefix), (bucket, prefix), "{text}");
        }
        for text in [
            "images",
            "s3://",
            "s3://a",
            "s3:///x",
            "s3://a b c",
            "s3://images/../x",
            "s3://images/a//b",
            "s3://images/a*",
        ] {
            assert!(BucketOptions::parse(text).is_err(), "{text}");
        }
    }
}
