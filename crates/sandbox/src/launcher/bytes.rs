// SPDX-License-Identifier: Apache-2.0
//! How paths and contents stand in the launcher's JSON: as text where they are UTF-8, else as a list of bytes.

use std::os::unix::ffi::{OsStrExt, OsStringExt};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

#[derive(Serialize)]
#[serde(untagged)]
enum Borrowed<'a> {
    Text(&'a str),
    Bytes(&'a [u8]),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Owned {
    Text(String),
    Bytes(Vec<u8>),
}

impl<'a> Borrowed<'a> {
    fn of(bytes: &'a [u8]) -> Borrowed<'a> {
        match std::str::from_utf8(bytes) {
            Ok(text) => Borrowed::Text(text),
            Err(_) => Borrowed::Bytes(bytes),
        }
    }
}

impl Owned {
    fn into_bytes(self) -> Vec<u8> {
        match self {
            Owned::Text(text) => text.into_bytes(),
            Owned::Bytes(bytes) => bytes,
        }
    }
}

/// For `Vec<u8>`.
pub(crate) mod blob {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(value: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        Borrowed::of(value).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        Owned::deserialize(deserializer).map(Owned::into_bytes)
    }
}

/// For `PathBuf`.
pub(crate) mod path {
    use super::*;
    use std::ffi::OsString;
    use std::path::{Path, PathBuf};

    pub(crate) fn serialize<S: Serializer>(value: &Path, serializer: S) -> Result<S::Ok, S::Error> {
        Borrowed::of(value.as_os_str().as_bytes()).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
        Owned::deserialize(deserializer).map(|owned| PathBuf::from(OsString::from_vec(owned.into_bytes())))
    }
}

/// For `Vec<PathBuf>`.
pub(crate) mod paths {
    use super::*;
    use std::ffi::OsString;
    use std::path::PathBuf;

    pub(crate) fn serialize<S: Serializer>(value: &[PathBuf], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(value.iter().map(|path| Borrowed::of(path.as_os_str().as_bytes())))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<PathBuf>, D::Error> {
        let list = Vec::<Owned>::deserialize(deserializer)?;
        Ok(list.into_iter().map(|owned| PathBuf::from(OsString::from_vec(owned.into_bytes()))).collect())
    }
}
