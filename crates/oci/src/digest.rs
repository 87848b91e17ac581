// SPDX-License-Identifier: Apache-2.0
//! Digests: the names of bytes (image-spec, descriptor.md, "Digests").

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::Digest as _;

/// A registered digest algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// SHA-256, 64 hexadecimal digits.
    Sha256,
    /// SHA-512, 128 hexadecimal digits.
    Sha512,
}

impl Algorithm {
    /// Returns the name before the colon.
    pub fn as_str(self) -> &'static str {
        match self {
            Algorithm::Sha256 => "sha256",
            Algorithm::Sha512 => "sha512",
        }
    }

    /// Returns the number of hexadecimal digits of a digest of this algorithm.
    pub fn hex_len(self) -> usize {
        match self {
            Algorithm::Sha256 => 64,
            Algorithm::Sha512 => 128,
        }
    }
}

/// Says why a text is not a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// There is no `algorithm:hex` form.
    #[error("digest {text:?} has no `algorithm:hex` form")]
    Form {
        /// The rejected text.
        text: String,
    },
    /// The algorithm is not one of the registered ones.
    #[error("digest algorithm {algorithm:?} is not supported (sha256 and sha512 are)")]
    Algorithm {
        /// The rejected algorithm name.
        algorithm: String,
    },
    /// The part after the colon is not lower-case hexadecimal of the right length.
    #[error("digest {text:?} must have {expected} lower-case hexadecimal digits after the colon")]
    Hex {
        /// The rejected text.
        text: String,
        /// How many digits the algorithm has.
        expected: usize,
    },
}

/// The digest of some bytes: `algorithm:hex`, checked when made.
///
/// The hexadecimal part is safe to use as a file name.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest {
    algorithm: Algorithm,
    hex: Box<str>,
}

impl Digest {
    /// Computes the SHA-256 digest of bytes.
    pub fn of(bytes: impl AsRef<[u8]>) -> Digest {
        let mut hasher = Hasher::new(Algorithm::Sha256);
        hasher.update(bytes.as_ref());
        hasher.finish()
    }

    /// Makes a SHA-256 digest from its 32 raw bytes.
    pub fn from_sha256_bytes(bytes: [u8; 32]) -> Digest {
        Digest { algorithm: Algorithm::Sha256, hex: hex::encode(bytes).into() }
    }

    /// Returns the algorithm.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Returns the hexadecimal part.
    pub fn hex(&self) -> &str {
        &self.hex
    }

    /// Returns the first twelve hexadecimal digits, the length that people read.
    pub fn short(&self) -> &str {
        &self.hex[..12]
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Digest, DigestError> {
        let (name, hex) = text.split_once(':').ok_or_else(|| DigestError::Form { text: clip(text) })?;
        let algorithm = match name {
            "sha256" => Algorithm::Sha256,
            "sha512" => Algorithm::Sha512,
            _ => return Err(DigestError::Algorithm { algorithm: clip(name) }),
        };
        let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if hex.len() != algorithm.hex_len() || !hex.bytes().all(is_hex) {
            return Err(DigestError::Hex { text: clip(text), expected: algorithm.hex_len() });
        }
        Ok(Digest { algorithm, hex: hex.into() })
    }
}

/// Shortens hostile text for an error message.
fn clip(text: &str) -> String {
    text.chars().take(150).collect()
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm.as_str(), self.hex)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The digest of a layer's uncompressed tar (image-spec, config.md, "Layer DiffID").
///
/// Never to be mixed up with the digest of the blob that carries the layer.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DiffId(pub Digest);

impl fmt::Display for DiffId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Computes the chain id of a stack of layers, lowest first (image-spec, config.md, "Layer ChainID").
///
/// Returns `None` for no layers.
pub fn chain_id(diff_ids: &[DiffId]) -> Option<Digest> {
    let (first, rest) = diff_ids.split_first()?;
    Some(rest.iter().fold(first.0.clone(), |chain, diff_id| Digest::of(format!("{chain} {diff_id}"))))
}

/// Computes a digest over bytes as they come.
#[derive(Clone)]
pub struct Hasher {
    state: State,
}

#[derive(Clone)]
enum State {
    Sha256(sha2::Sha256),
    Sha512(Box<sha2::Sha512>),
}

impl Hasher {
    /// Starts a digest of the given algorithm.
    pub fn new(algorithm: Algorithm) -> Hasher {
        let state = match algorithm {
            Algorithm::Sha256 => State::Sha256(sha2::Sha256::new()),
            Algorithm::Sha512 => State::Sha512(Box::new(sha2::Sha512::new())),
        };
        Hasher { state }
    }

    /// Starts a SHA-256 digest.
    pub fn sha256() -> Hasher {
        Hasher::new(Algorithm::Sha256)
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.state {
            State::Sha256(state) => state.update(bytes),
            State::Sha512(state) => state.update(bytes),
        }
    }

    /// Ends the digest.
    pub fn finish(self) -> Digest {
        match self.state {
            State::Sha256(state) => {
                Digest { algorithm: Algorithm::Sha256, hex: hex::encode(state.finalize()).into() }
            }
            State::Sha512(state) => {
                Digest { algorithm: Algorithm::Sha512, hex: hex::encode(state.finalize()).into() }
            }
        }
    }
}

impl std::io::Write for Hasher {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_of_nothing_is_the_known_one() {
        let digest = Digest::of(b"");
        assert_eq!(
            digest.to_string(),
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        assert_eq!(digest.to_string().parse::<Digest>(), Ok(digest));
    }

    #[test]
    fn malformed_digests_are_refused() {
        for text in ["", "sha256", "sha256:", "md5:00", "sha256:ABC", "sha256:../../etc/passwd"] {
            assert!(text.parse::<Digest>().is_err(), "{text}");
        }
        let upper = format!("sha256:{}", "A".repeat(64));
        assert!(matches!(upper.parse::<Digest>(), Err(DigestError::Hex { .. })));
    }

    #[test]
    fn chain_id_of_one_layer_is_its_diff_id() {
        let a = DiffId(Digest::of("a"));
        let b = DiffId(Digest::of("b"));
        assert_eq!(chain_id(&[]), None);
        assert_eq!(chain_id(std::slice::from_ref(&a)), Some(a.0.clone()));
        assert_eq!(chain_id(&[a.clone(), b.clone()]), Some(Digest::of(format!("{a} {b}"))));
    }
}
