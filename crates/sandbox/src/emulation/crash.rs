// SPDX-License-Identifier: Apache-2.0
//! Explains the death of an emulated process.

use polyarch_oci::Platform;

use super::Emulator;

/// Explains an exit status that a crash of QEMU leaves, or returns nothing for other ends.
///
/// `exit_code` is the shell's: the status, or 128 plus the signal that ended the process. 132 and 139 are
/// explained, whether the process itself or a child of the step's shell died of signal 4 or 11. Asks the
/// emulator for its version, which costs one execution.
pub fn describe_crash(exit_code: i32, platform: &Platform, emulator: &Emulator) -> Option<String> {
    let signal = match exit_code {
        132 => "4 (SIGILL)",
        139 => "11 (SIGSEGV)",
        _ => return None,
    };
    let version = emulator.version().map_or(String::new(), |version| format!(" {version}"));
    Some(format!(
        "a process died of signal {signal} while {}{version} emulated {platform}; emulators crash where real \
         hardware does not: another version of QEMU or a native node for {platform} may help",
        emulator.name(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_signals_of_a_crash_are_explained() {
        let emulator = Emulator { path: "/nonexistent/qemu-aarch64-static".into(), is_static: true };
        let platform = Platform::new("linux", "arm64", "");
        for exit_code in [0, 1, 4, 11, 127, 130, 137, 143] {
            assert_eq!(describe_crash(exit_code, &platform, &emulator), None, "{exit_code}");
        }
        assert_eq!(
            describe_crash(139, &platform, &emulator).unwrap(),
            "a process died of signal 11 (SIGSEGV) while qemu-aarch64-static emulated linux/arm64; emulators \
             crash where real hardware does not: another version of QEMU or a native node for linux/arm64 may help"
        );
        assert!(describe_crash(132, &platform, &emulator).unwrap().contains("4 (SIGILL)"));
    }
}
