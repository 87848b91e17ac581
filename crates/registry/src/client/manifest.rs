// SPDX-License-Identifier: Apache-2.0
//! Manifests: asking for them, fetching and putting them, always byte for byte.

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, Method};
use polyarch_oci::manifest::MAX_MANIFEST_BYTES;
use polyarch_oci::media_type::{DOCKER_INDEX, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST};
use polyarch_oci::{Algorithm, Descriptor, Digest, Hasher, Reference};
use serde::Deserialize;

use super::call::{self, Answer, Call, Subject};
use super::challenge::Scopes;
use super::endpoint::Endpoint;
use super::host::{Attempts, Permission};
use super::{Client, FetchedManifest};
use crate::api::{self, DOCKER_CONTENT_DIGEST};
use crate::error::RegistryError;

const ACCEPTED: [&str; 4] = [OCI_INDEX, OCI_MANIFEST, DOCKER_INDEX, DOCKER_MANIFEST];

impl Client {
    /// Asks what a tag or digest points at, without fetching it.
    ///
    /// Falls back to fetching where the registry does not tell the digest.
    ///
    /// # Errors
    /// [`RegistryError::ManifestUnknown`] when there is none; whatever keeps the registry from answering.
    pub async fn head_manifest(&self, reference: &Reference) -> Result<Descriptor, RegistryError> {
        check_complete(reference)?;
        let mut last = None;
        for endpoint in self.pull_endpoints(reference) {
            match head(&endpoint, reference).await {
                Ok(descriptor) => return Ok(descriptor),
                Err(error) => last = Some(endpoint.give_up(error)),
            }
        }
        Err(last.unwrap_or_else(|| incomplete(reference)))
    }

    /// Fetches a manifest or index; a reference's digest wins over its tag.
    ///
    /// The digest is verified against the reference's and against what the registry claims.
    ///
    /// # Errors
    /// [`RegistryError::ManifestUnknown`] when there is none, [`RegistryError::DigestMismatch`],
    /// [`RegistryError::TooLarge`]; whatever keeps the registry from answering.
    pub async fn get_manifest(&self, reference: &Reference) -> Result<FetchedManifest, RegistryError> {
        check_complete(reference)?;
        let mut last = None;
        for endpoint in self.pull_endpoints(reference) {
            match get(&endpoint, reference).await {
                Ok(manifest) => return Ok(manifest),
                Err(error) => last = Some(endpoint.give_up(error)),
            }
        }
        Err(last.unwrap_or_else(|| incomplete(reference)))
    }

    /// Puts a manifest or index under a tag, or under its digest when the reference has no tag.
    ///
    /// Everything that it refers to must be in the repository. Returns the digest of the bytes.
    ///
    /// # Errors
    /// [`RegistryError::DigestMismatch`] when the reference's digest or the registry's answer differs
    /// from that of the bytes; the registry's refusals.
    pub async fn put_manifest(
        &self,
        reference: &Reference,
        bytes: Bytes,
        media_type: &str,
    ) -> Result<Digest, RegistryError> {
        let origin = self.origin(reference);
        let algorithm = reference.digest().map_or(Algorithm::Sha256, Digest::algorithm);
        let digest = digest_of(algorithm, &bytes);
        if let Some(expected) = reference.digest() {
            expect_digest(reference, &reference.to_string(), expected, digest.clone())?;
        }
        let name = reference.tag().map_or_else(|| digest.to_string(), str::to_owned);
        let path = api::manifest_path(&origin.repository, &name);
        let text = format!("push manifest {}", shown(reference, &digest));
        let subject = Subject::Upload(reference.name());
        let mut call =
            origin.host.call(Method::PUT, &path, text, subject).await?.header(CONTENT_TYPE, media_type);
        call.body = Some(bytes.clone());
        let permission =
            Permission { repository: origin.repository.clone(), scopes: Scopes::push(&origin.repository) };
        let sent = origin.host.send(&call, &permission, Attempts::ByPolicy).await;
        let answer = sent.map_err(|error| refused_type(error, media_type))?;
        if let Some(claimed) = claimed_digest(answer.response.headers()) {
            // A registry that only knows SHA-256 answers with that; only like can be compared with like.
            let actual = digest_of(claimed.algorithm(), &bytes);
            expect_digest(reference, &origin.host.name, &actual, claimed)?;
        }
        Ok(digest)
    }
}

/// Recognises a registry that is too old for the OCI's documents: it says that the manifest is invalid
/// (distribution-spec, "Pushing Manifests": what it can't handle, a registry may refuse so).
fn refused_type(error: RegistryError, media_type: &str) -> RegistryError {
    match error {
        RegistryError::Refused { refusal }
            if matches!(media_type, OCI_INDEX | OCI_MANIFEST)
                && (refusal.status == 415
                    || refusal.body.has_code("MANIFEST_INVALID")
                    || refusal.body.has_code("UNSUPPORTED")) =>
        {
            RegistryError::MediaTypeRefused { media_type: media_type.to_owned(), refusal }
        }
        other => other,
    }
}

async fn head(endpoint: &Endpoint, reference: &Reference) -> Result<Descriptor, RegistryError> {
    let (call, permission) = request(endpoint, reference, Method::HEAD).await?;
    let answer = match endpoint.send(&call, &permission).await {
        Ok(answer) => answer,
        Err(error) if error.status() == Some(405) => return Ok(get(endpoint, reference).await?.descriptor()),
        // A HEAD has no body: only a GET tells whether the tag or the whole repository is missing.
        Err(error) if error.is_not_found() && !endpoint.is_mirror => {
            return get(endpoint, reference).await.map(|manifest| manifest.descriptor());
        }
        Err(error) => return Err(error),
    };
    let headers = answer.response.headers();
    let size = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let media_type = declared_type(&answer);
    let digest = claimed_digest(headers);
    match (digest, size, media_type) {
        (Some(digest), Some(size), Some(media_type)) => {
            if let Some(expected) = reference.digest().filter(|own| own.algorithm() == digest.algorithm()) {
                expect_digest(reference, &endpoint.host.name, expected, digest.clone())?;
            }
            let digest = reference.digest().cloned().unwrap_or(digest);
            Ok(Descriptor::new(media_type, digest, size))
        }
        _ => Ok(get(endpoint, reference).await?.descriptor()),
    }
}

async fn get(endpoint: &Endpoint, reference: &Reference) -> Result<FetchedManifest, RegistryError> {
    let (call, permission) = request(endpoint, reference, Method::GET).await?;
    let answer = endpoint.send(&call, &permission).await?;
    let claimed = claimed_digest(answer.response.headers());
    let declared = declared_type(&answer);
    let what = format!("manifest {reference}");
    let bytes = call::read_all(answer, &call, &what, MAX_MANIFEST_BYTES).await?;
    let host = &endpoint.host.name;
    if let Some(expected) = reference.digest() {
        expect_digest(reference, host, expected, digest_of(expected.algorithm(), &bytes))?;
    }
    if let Some(claimed) = claimed {
        let actual = digest_of(claimed.algorithm(), &bytes);
        expect_digest(reference, host, &claimed, actual)?;
    }
    let algorithm = reference.digest().map_or(Algorithm::Sha256, Digest::algorithm);
    let media_type = media_type(&bytes, declared)
        .ok_or_else(|| call.protocol_error("the answer is neither an image manifest nor an index"))?;
    Ok(FetchedManifest {
        digest: digest_of(algorithm, &bytes),
        bytes,
        media_type,
        served_by: endpoint.host.name.clone(),
    })
}

async fn request(
    endpoint: &Endpoint,
    reference: &Reference,
    method: Method,
) -> Result<(Call, Permission), RegistryError> {
    let name = match (reference.digest(), reference.tag()) {
        (Some(digest), _) => digest.to_string(),
        (None, tag) => tag.unwrap_or_default().to_owned(),
    };
    let path = api::manifest_path(&endpoint.repository, &name);
    let text = format!("pull manifest {reference}");
    let subject = Subject::Manifest(reference.to_string());
    let call = endpoint.call(method, &path, text, subject).await?.header(ACCEPT, &ACCEPTED.join(", "));
    let permission =
        Permission { repository: endpoint.repository.clone(), scopes: Scopes::pull(&endpoint.repository) };
    Ok((call, permission))
}

/// Finds out what a document is: what it says of itself counts, because its digest covers that.
fn media_type(bytes: &[u8], declared: Option<String>) -> Option<String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Probe {
        media_type: Option<String>,
        manifests: Option<serde::de::IgnoredAny>,
        layers: Option<serde::de::IgnoredAny>,
    }
    let probe: Option<Probe> = serde_json::from_slice(bytes).ok();
    let (own, guess) = match probe {
        Some(probe) => {
            let guess = match (&probe.manifests, &probe.layers) {
                (Some(_), None) => Some(OCI_INDEX),
                (None, Some(_)) => Some(OCI_MANIFEST),
                _ => None,
            };
            (probe.media_type.filter(|own| !own.is_empty()), guess)
        }
        None => (None, None),
    };
    let is_known = |name: &String| ACCEPTED.contains(&name.as_str());
    own.or_else(|| declared.clone().filter(is_known)).or_else(|| guess.map(str::to_owned))
}

/// Returns the media type that the answer's header names, without parameters.
fn declared_type(answer: &Answer) -> Option<String> {
    let text = answer.header(CONTENT_TYPE)?;
    let name = text.split(';').next().unwrap_or_default().trim();
    ACCEPTED.contains(&name).then(|| name.to_owned())
}

fn claimed_digest(headers: &HeaderMap) -> Option<Digest> {
    headers.get(DOCKER_CONTENT_DIGEST)?.to_str().ok()?.parse().ok()
}

fn digest_of(algorithm: Algorithm, bytes: &[u8]) -> Digest {
    let mut hasher = Hasher::new(algorithm);
    hasher.update(bytes);
    hasher.finish()
}

fn expect_digest(
    reference: &Reference,
    host: &str,
    expected: &Digest,
    actual: Digest,
) -> Result<(), RegistryError> {
    if *expected == actual {
        return Ok(());
    }
    Err(RegistryError::DigestMismatch {
        what: format!("manifest {reference}"),
        host: host.to_owned(),
        expected: Box::new(expected.clone()),
        actual: Box::new(actual),
    })
}

fn shown(reference: &Reference, digest: &Digest) -> String {
    if reference.tag().is_some() { reference.to_string() } else { format!("{}@{digest}", reference.name()) }
}

fn check_complete(reference: &Reference) -> Result<(), RegistryError> {
    let is_complete = reference.tag().is_some() || reference.digest().is_some();
    if is_complete { Ok(()) } else { Err(incomplete(reference)) }
}

fn incomplete(reference: &Reference) -> RegistryError {
    RegistryError::IncompleteReference { reference: reference.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_says_itself_what_it_is() {
        let of =
            |bytes: &str, declared: Option<&str>| media_type(bytes.as_bytes(), declared.map(str::to_owned));
        let docker = format!(r#"{{"mediaType":"{DOCKER_MANIFEST}","layers":[]}}"#);
        assert_eq!(of(&docker, Some(OCI_MANIFEST)).as_deref(), Some(DOCKER_MANIFEST));
        assert_eq!(of(r#"{"layers":[]}"#, Some(DOCKER_MANIFEST)).as_deref(), Some(DOCKER_MANIFEST));
        assert_eq!(of(r#"{"layers":[]}"#, None).as_deref(), Some(OCI_MANIFEST));
        assert_eq!(of(r#"{"manifests":[]}"#, None).as_deref(), Some(OCI_INDEX));
        assert_eq!(of("<html>", None), None);
    }
}
