// SPDX-License-Identifier: Apache-2.0
//! What an image says of itself, platform by platform: its configs, and its attestations' statements.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine as _;
use polyarch_build::BuildError;
use polyarch_oci::{Descriptor, Digest, Document, ImageConfig, Manifest};
use serde::Deserialize;
use serde_json::Value;

use crate::compose::REFERENCE_DIGEST;
use crate::found::{FoundImage, text_of};

/// The older name of [`REFERENCE_DIGEST`].
const OLD_REFERENCE_DIGEST: &str = "com.docker.reference.digest";
/// The annotation of an attestation's layer that says what is stated.
const PREDICATE_TYPE: &str = "in-toto.io/predicate-type";
const IN_TOTO: &str = "application/vnd.in-toto+json";
/// The largest statement that is read; bills of materials of large images have some megabytes.
const MAX_STATEMENT_BYTES: u64 = 64 << 20;
/// The most bytes of statements that are read of all platforms together.
const MAX_STATEMENTS_BYTES: u64 = 256 << 20;
/// The most values (texts, numbers, lists, objects) of all of them: each takes some dozens of bytes of
/// memory and may be two bytes long.
const MAX_STATEMENTS_VALUES: u64 = 2_000_000;

/// What is stated about an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Statement {
    /// Its bill of materials (SPDX).
    Sbom,
    /// How it was built (SLSA).
    Provenance,
}

/// One platform's image.
#[derive(Debug, Clone)]
pub struct PlatformDetails {
    /// The platform, as the index or else the config says.
    pub platform: String,
    /// The config.
    pub config: Document<ImageConfig>,
    /// What attests it.
    attestations: Vec<Manifest>,
    account: Arc<Account>,
}

/// How much was read of the statements of all platforms together.
#[derive(Debug, Default)]
struct Account {
    bytes: AtomicU64,
    values: AtomicU64,
}

/// Reads the configs of all platforms, sorted by platform; of equal platforms the last counts.
///
/// # Errors
/// When a part can't be read.
pub async fn details(image: &FoundImage) -> Result<Vec<PlatformDetails>, BuildError> {
    let mut images: BTreeMap<String, (Digest, Manifest)> = BTreeMap::new();
    let mut attestations: BTreeMap<Digest, Vec<Manifest>> = BTreeMap::new();
    for (descriptor, manifest) in image.manifests_below(&image.descriptor).await? {
        let manifest = manifest.value;
        let subject = [OLD_REFERENCE_DIGEST, REFERENCE_DIGEST]
            .iter()
            .find_map(|key| descriptor.annotations.get(*key)?.parse::<Digest>().ok());
        if let Some(subject) = subject {
            attestations.entry(subject).or_default().push(manifest);
            continue;
        }
        let platform = match &descriptor.platform {
            Some(platform) => platform.clone().normalized(),
            None => image.declared_platform(&manifest).await?,
        };
        images.insert(platform.to_string(), (descriptor.digest, manifest));
    }
    let account = Arc::default();
    let mut found = Vec::new();
    for (platform, (digest, manifest)) in images {
        let config = image.config(&manifest).await?;
        let attestations = attestations.get(&digest).cloned().unwrap_or_default();
        found.push(PlatformDetails { platform, config, attestations, account: Arc::clone(&account) });
    }
    Ok(found)
}

impl PlatformDetails {
    /// Reads what is stated about the platform's image: the statements' predicates.
    ///
    /// # Errors
    /// When a statement can't be read, or is not what its media type says.
    pub async fn predicates(
        &self,
        image: &FoundImage,
        statement: Statement,
    ) -> Result<Vec<Value>, BuildError> {
        let is_wanted = |layer: &&Descriptor| {
            let kind = layer.annotations.get(PREDICATE_TYPE).map_or("", String::as_str);
            let is_kind = match statement {
                Statement::Sbom => kind == "https://spdx.dev/Document",
                Statement::Provenance => kind.starts_with("https://slsa.dev/provenance/"),
            };
            is_kind && (layer.media_type == IN_TOTO || is_envelope(&layer.media_type))
        };
        let mut found = Vec::new();
        for layer in self.attestations.iter().flat_map(|manifest| &manifest.layers).filter(is_wanted) {
            let read_before = self.account.bytes.fetch_add(layer.size, Ordering::Relaxed);
            if read_before.saturating_add(layer.size) > MAX_STATEMENTS_BYTES {
                let mib = MAX_STATEMENTS_BYTES >> 20;
                return Err(image.damaged(format!("its attestations have more than {mib} MiB")));
            }
            let bytes = image.read_blob(layer, MAX_STATEMENT_BYTES).await?;
            let damaged = |what: String| image.damaged(format!("the attestation {}: {what}", layer.digest));
            let bytes =
                if is_envelope(&layer.media_type) { payload(&bytes).map_err(damaged)? } else { bytes };
            let mut statement = self.account.statement(&bytes).map_err(damaged)?;
            found.push(statement.get_mut("predicate").map(Value::take).unwrap_or_default());
        }
        Ok(found)
    }
}

/// Tells whether a media type is of a signed envelope around a statement (DSSE).
fn is_envelope(media_type: &str) -> bool {
    media_type.starts_with("application/vnd.in-toto.") && media_type.ends_with("+dsse")
}

fn payload(bytes: &[u8]) -> Result<Vec<u8>, String> {
    // What else is in it is not kept.
    #[derive(Deserialize)]
    struct Envelope {
        payload: Option<String>,
    }
    let envelope: Envelope = serde_json::from_slice(bytes).map_err(|error| text_of(&error))?;
    let payload = envelope.payload.ok_or("it has no payload")?;
    base64::engine::general_purpose::STANDARD.decode(payload).map_err(|error| text_of(&error))
}

impl Account {
    /// Parses a statement, unless it and those before it have too many values.
    fn statement(&self, bytes: &[u8]) -> Result<Value, String> {
        let own = value_count(bytes);
        let before = self.values.fetch_add(own, Ordering::Relaxed);
        if before.saturating_add(own) > MAX_STATEMENTS_VALUES {
            return Err(format!("with it the attestations have more than {MAX_STATEMENTS_VALUES} values"));
        }
        serde_json::from_slice(bytes).map_err(|error| text_of(&error))
    }
}

/// Counts the values of a JSON text, rather too many than too few: what its punctuation allows.
fn value_count(json: &[u8]) -> u64 {
    let (mut count, mut is_text, mut is_escaped) = (1, false, false);
    for byte in json {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_text => is_escaped = true,
            b'"' => is_text = !is_text,
            b',' | b'[' | b'{' if !is_text => count += 1,
            _ => {}
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_counted_before_they_are_made() {
        assert_eq!(value_count(b"1"), 1);
        assert_eq!(value_count(br#"{"a,[{":["b\",[",2,{"c":null}]}"#), 6);
        let account = Account::default();
        assert_eq!(account.statement(br#"{"predicate":[1,2]}"#).unwrap()["predicate"][1], 2);
        // Two bytes each.
        let many = format!("[{}0]", "0,".repeat(1_200_000));
        assert!(account.statement(many.as_bytes()).is_ok());
        let error = account.statement(many.as_bytes()).unwrap_err();
        assert!(error.contains("more than 2000000 values"), "{error}");
    }

    #[test]
    fn the_payload_of_an_envelope_is_taken_out() {
        assert_eq!(payload(br#"{"payload":"e30=","signatures":[]}"#).unwrap(), b"{}");
        assert_eq!(payload(br#"{"signatures":[]}"#).unwrap_err(), "it has no payload");
    }
}
