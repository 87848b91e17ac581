// SPDX-License-Identifier: Apache-2.0
//! A layer's contents as a record, so that a layer is read once.
//!
//! The form is JSON, compressed with zstd; `docs/store-format.md` has it. A record of another version, and one
//! that can't be read, is none.

use std::io::{Read as _, Write as _};

use polyarch_oci::DiffId;
use polyarch_oci::media_type::Compression;
use polyarch_snapshot::{Codec, compressor, decompressor};
use serde::{Deserialize, Serialize};

use crate::layer::LayerContents;

/// Changes when what is read of a layer changes, so that old records are not mistaken for new ones.
const VERSION: u32 = 1;
/// Most bytes of JSON.
const MAX_BYTES: u64 = 512 << 20;

/// A layer that was read whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadLayer {
    /// Its files.
    pub contents: LayerContents,
    /// The digest of its uncompressed tar.
    pub diff_id: DiffId,
    /// How the blob was compressed.
    pub compression: Compression,
}

#[derive(Serialize, Deserialize)]
struct Record<C> {
    version: u32,
    compression: String,
    diff_id: DiffId,
    contents: C,
}

impl ReadLayer {
    /// Writes the record; `None` when it would be too large to be worth it.
    pub fn to_record(&self) -> Option<Vec<u8>> {
        let record = Record {
            version: VERSION,
            compression: self.compression.as_str().to_owned(),
            diff_id: self.diff_id.clone(),
            contents: &self.contents,
        };
        let mut out = compressor(Compression::Zstd, None, 1, Vec::new()).ok()?;
        let json = serde_json::to_vec(&record).ok().filter(|json| json.len() as u64 <= MAX_BYTES)?;
        out.write_all(&json).ok()?;
        out.finish().ok()
    }

    /// Reads a record.
    pub fn from_record(bytes: &[u8]) -> Option<ReadLayer> {
        let mut json = Vec::new();
        decompressor(bytes, Some(Codec::Zstd)).ok()?.take(MAX_BYTES).read_to_end(&mut json).ok()?;
        let record: Record<LayerContents> = serde_json::from_slice(&json).ok()?;
        (record.version == VERSION).then_some(())?;
        Some(ReadLayer {
            contents: record.contents,
            diff_id: record.diff_id,
            compression: Compression::parse(&record.compression)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use polyarch_oci::{Algorithm, Digest};
    use polyarch_testkit::{TarBuilder, hello_program};

    #[test]
    fn a_layer_comes_back_from_its_record() {
        let tar = TarBuilder::new()
            .file("bin/hello", 0o755, hello_program("arm", "x", 0).unwrap())
            .file("100%/\u{e4}", 0o600, "#!/bin/sh -e\n")
            .symlink("etc/link", "../100%")
            .hard_link("below", "usr/file")
            .file("var/.wh.gone", 0, "")
            .file("opt/.wh..wh..opq", 0, "")
            .finish();
        let compression = Compression::Uncompressed;
        let (contents, diff_id) =
            LayerContents::read(tar.as_slice(), compression, Algorithm::Sha256).unwrap();
        assert_eq!(diff_id.0, Digest::of(&tar));
        let layer = ReadLayer { contents, diff_id, compression };
        let record = layer.to_record().unwrap();
        assert_eq!(ReadLayer::from_record(&record).unwrap(), layer);
        for len in 0..record.len() {
            assert_eq!(ReadLayer::from_record(&record[..len]), None, "{len}");
        }
        assert_eq!(ReadLayer::from_record(b"{}"), None);
    }
}
