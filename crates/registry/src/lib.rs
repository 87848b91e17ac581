// SPDX-License-Identifier: Apache-2.0
//! The distribution API: client and server.
//!
//! Pulls and pushes manifests and blobs over HTTP (distribution-spec 1.1). It owns transport,
//! authorization, mirrors, retries and verification; it owns no storage: blobs stream into a
//! [`BlobSink`] and out of a [`BlobSource`], manifests are passed as their exact bytes. It reads no
//! environment and no home directory: [`RegistryConfig`] and [`Credentials`] are made from texts that
//! the caller has read.

pub mod api;
pub mod client;
pub mod config;
pub mod credentials;
pub mod error;
pub mod server;

pub use client::{
    AuthScheme, BlobReader, BlobSink, BlobSource, Client, ClientOptions, FetchedManifest, FnSink, LentToken,
    Login, MountOutcome, Progress, ProxySettings, PushOutcome, RetryPolicy, TrustRoots, UploadSession,
    WebAnswer, WebFile,
};
pub use config::{
    ConfigError, HostConfig, HostSettings, HostTable, KeyPair, KeyPairBytes, Mirror, RegistryConfig,
};
pub use credentials::{
    AuthFile, Credential, CredentialFile, CredentialLookup, Credentials, CredentialsError, FoundCredential,
    HelperError, TokenWanted,
};
pub use error::{CredentialUse, Refusal, RegistryError};
