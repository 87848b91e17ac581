// SPDX-License-Identifier: Apache-2.0
//! Executables of a few instructions, one per architecture, that tell whether it runs.

use polyarch_oci::Platform;

/// The exit status of a probe that ran with exactly one argument.
pub const PROBE_STATUS: i32 = 42;

/// Returns the bytes of a static executable of the platform that ends with [`PROBE_STATUS`].
pub fn probe_executable(platform: &Platform) -> Option<Vec<u8>> {
    let _ = platform;
    None
}
