// SPDX-License-Identifier: Apache-2.0
//! Symlinks followed as if the image's root were `/`.

use crate::path::unescape;

/// Linux's own cap on symlinks in one resolution.
pub(crate) const MAX_SYMLINKS: u32 = 40;

/// Splits a symlink's target: whether it is absolute, and its names and `..` in order.
pub(crate) fn target_parts(target: &str) -> (bool, Vec<Vec<u8>>) {
    // What was written by `escape` can always be read; anything else names nothing.
    let bytes = unescape(target).unwrap_or_default();
    let parts = bytes
        .split(|byte| *byte == b'/')
        .filter(|part| !matches!(*part, b"" | b"."))
        .map(<[u8]>::to_vec)
        .collect();
    (bytes.starts_with(b"/"), parts)
}
