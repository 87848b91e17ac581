// SPDX-License-Identifier: Apache-2.0
//! Image layers on their way in and out.

use crate::error::SnapshotError;
use crate::id::SnapshotId;

/// Caps on a layer that comes from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApplyLimits {
    /// Most bytes of tar, and of files when unpacked (holes of sparse files count).
    pub max_bytes: u64,
    /// Most entries.
    pub max_entries: u64,
    /// Most bytes of tar per byte of blob, looked at once [`ApplyLimits::ratio_grace_bytes`] have come.
    pub max_ratio: u64,
    /// How many bytes of tar may come before the ratio counts.
    pub ratio_grace_bytes: u64,
    /// Longest path in bytes.
    pub max_path_bytes: u32,
    /// Most path components.
    pub max_depth: u32,
}

impl Default for ApplyLimits {
    fn default() -> ApplyLimits {
        ApplyLimits {
            max_bytes: 256 << 30,
            max_entries: 10_000_000,
            max_ratio: 2_000,
            ratio_grace_bytes: 4 << 30,
            max_path_bytes: 4095,
            max_depth: 256,
        }
    }
}

/// What times a layer's tar gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LayerTimes {
    /// Times after this second of the epoch become it (`SOURCE_DATE_EPOCH`).
    pub clamp: Option<i64>,
    /// With [`LayerTimes::clamp`]: all times become it, also earlier ones.
    pub set_all: bool,
}

/// A layer that is unpacked and verified, but not yet in the store.
///
/// Dropping it removes what was unpacked.
#[derive(Debug)]
pub struct UnpackedLayer {
    id: SnapshotId,
}

impl UnpackedLayer {
    /// Tells whether the layer's meaning depends on the layers beneath it.
    pub fn needs_parents(&self) -> bool {
        false
    }

    /// Puts the layer into the store; `parents` (lowest first, all in the store) are read only when
    /// [`UnpackedLayer::needs_parents`].
    pub fn finish(self, _parents: &[SnapshotId]) -> Result<SnapshotId, SnapshotError> {
        Err(SnapshotError::Unfinished { what: self.id.to_string() })
    }
}
