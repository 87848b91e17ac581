// SPDX-License-Identifier: Apache-2.0
//! Reads which handlers the host's binfmt_misc has.
//!
//! Entries are text files, one per handler; the fields are those of the kernel's `entry_status`:
//! `enabled`, `interpreter PATH`, `flags: F`, `offset N`, `magic HEX`, `mask HEX`.

use std::io::Read;
use std::path::{Path, PathBuf};

use super::Architecture;
use super::arch::Magic;
use super::probe::probe_executable;

/// More entries than any host has.
const ENTRIES_MAX: usize = 1024;
/// The kernel gives an entry in at most one page.
const ENTRY_SIZE_MAX: u64 = 16 * 1024;

/// An enabled entry of the host's binfmt_misc that serves a known architecture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostHandler {
    /// The architecture whose executables it takes.
    pub architecture: Architecture,
    /// The entry's name.
    pub name: String,
    /// The interpreter, as the host registered it.
    pub interpreter: PathBuf,
    /// The flags, for example `POCF`.
    pub flags: String,
}

/// Reads the handlers below `directory`, sorted by name; an absent, disabled or unreadable instance has none.
pub fn read_host_handlers(directory: &Path) -> Vec<HostHandler> {
    if read_capped(&directory.join("status")).is_none_or(|status| status.trim() != "enabled") {
        return Vec::new();
    }
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let mut handlers: Vec<HostHandler> = entries
        .take(ENTRIES_MAX)
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            if name == "status" || name == "register" {
                return None;
            }
            Some(parse_entry(&name, &read_capped(&entry.path())?))
        })
        .flatten()
        .collect();
    handlers.sort_by(|a, b| (&a.name, a.architecture).cmp(&(&b.name, b.architecture)));
    handlers
}

/// Reads a small text file.
fn read_capped(path: &Path) -> Option<String> {
    let mut text = String::new();
    std::fs::File::open(path).ok()?.take(ENTRY_SIZE_MAX).read_to_string(&mut text).ok()?;
    Some(text)
}

/// Reads one entry; it serves each architecture whose executables its magic takes.
fn parse_entry(name: &str, text: &str) -> Vec<HostHandler> {
    let mut lines = text.lines();
    if lines.next() != Some("enabled") {
        return Vec::new();
    }
    let (mut interpreter, mut flags, mut offset, mut magic, mut mask) = ("", "", 0_usize, Vec::new(), None);
    for line in lines {
        let (key, value) = line.split_once(' ').unwrap_or((line, ""));
        match key {
            "interpreter" => interpreter = value,
            "flags:" => flags = value.trim(),
            "offset" => offset = value.parse().unwrap_or(usize::MAX),
            "magic" => magic = hex::decode(value).unwrap_or_default(),
            "mask" => mask = hex::decode(value).ok(),
            _ => {}
        }
    }
    let mask = mask.unwrap_or_else(|| vec![0xff; magic.len()]);
    if offset != 0 || magic.is_empty() || magic.len() != mask.len() || interpreter.is_empty() {
        return Vec::new();
    }
    let magic = Magic { magic, mask };
    Architecture::ALL
        .into_iter()
        .filter(|architecture| {
            let platform = polyarch_oci::Platform::new("linux", architecture.name(), "");
            probe_executable(&platform).is_some_and(|probe| magic.matches(&probe))
        })
        .map(|architecture| HostHandler {
            architecture,
            name: name.to_owned(),
            interpreter: PathBuf::from(interpreter),
            flags: flags.to_owned(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const AARCH64: &str = "enabled\ninterpreter /usr/bin/qemu-aarch64\nflags: POCF\noffset 0\n\
        magic 7f454c460201010000000000000000000200b700\nmask ffffffffffffff00fffffffffffffffffeffffff\n";

    fn instance(entries: &[(&str, &str)]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in entries {
            std::fs::write(directory.path().join(name), text).unwrap();
        }
        directory
    }

    #[test]
    fn enabled_handlers_of_known_architectures_are_found() {
        let java = "enabled\ninterpreter /usr/bin/jexec\nflags: \noffset 0\nmagic 504b0304\n";
        let off = AARCH64.replace("enabled", "disabled");
        let extension = "enabled\ninterpreter /usr/bin/wine\nflags: \nextension .exe\n";
        let directory = instance(&[
            ("status", "enabled\n"),
            ("register", ""),
            ("qemu-aarch64", AARCH64),
            ("qemu-off", &off),
            ("jar", java),
            ("wine", extension),
        ]);
        assert_eq!(
            read_host_handlers(directory.path()),
            [HostHandler {
                architecture: Architecture::Arm64,
                name: "qemu-aarch64".to_owned(),
                interpreter: "/usr/bin/qemu-aarch64".into(),
                flags: "POCF".to_owned(),
            }]
        );
    }

    #[test]
    fn absent_disabled_and_malformed_instances_have_none() {
        assert_eq!(read_host_handlers(Path::new("/nonexistent")), []);
        let disabled = instance(&[("status", "disabled\n"), ("qemu-aarch64", AARCH64)]);
        assert_eq!(read_host_handlers(disabled.path()), []);
        for text in [
            "",
            "enabled",
            "enabled\ninterpreter /q\noffset 0\nmagic zz\n",
            "enabled\ninterpreter /q\noffset 0\nmagic 7f45\nmask ff\n",
            "enabled\ninterpreter /q\noffset 999999999999999999999\nmagic 7f45\n",
            "enabled\nmagic 7f454c46\noffset 0\n",
        ] {
            let directory = instance(&[("status", "enabled\n"), ("entry", text)]);
            assert_eq!(read_host_handlers(directory.path()), [], "{text:?}");
        }
    }
}
