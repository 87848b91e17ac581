// SPDX-License-Identifier: Apache-2.0
//! Finds QEMU's user-mode emulators on this machine.

use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use object::read::elf::{FileHeader, ProgramHeader};
use polyarch_oci::Platform;
use serde::{Deserialize, Serialize};

use super::Architecture;

/// Program headers lie in the first bytes of every executable a linker makes.
const HEAD_SIZE_MAX: u64 = 64 * 1024;
/// `qemu --version` prints two lines.
const VERSION_SIZE_MAX: u64 = 4096;

/// A user-mode emulator for one architecture.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Emulator {
    /// The executable on this machine.
    pub path: PathBuf,
    /// Whether it needs no loader and no libraries.
    pub is_static: bool,
}

impl Emulator {
    /// Finds the emulator of an architecture: in `directories` first, then in `path_dirs`.
    ///
    /// In each of the two lists a static one wins over a dynamic one, then the earlier directory over the
    /// later one. Relative directories and files that this machine can't execute are passed over.
    pub fn find(
        architecture: Architecture,
        directories: &[PathBuf],
        path_dirs: &[PathBuf],
    ) -> Option<Emulator> {
        let names = [
            format!("qemu-{}-static", architecture.qemu_name()),
            format!("qemu-{}", architecture.qemu_name()),
        ];
        [directories, path_dirs].into_iter().find_map(|list| {
            let mut found = list
                .iter()
                .filter(|directory| directory.is_absolute())
                .flat_map(|directory| names.iter().map(|name| directory.join(name)))
                .filter_map(|path| Emulator::inspect(&path));
            let first = found.next()?;
            if first.is_static {
                Some(first)
            } else {
                Some(found.find(|other| other.is_static).unwrap_or(first))
            }
        })
    }

    /// Returns the emulator at this path, if the file is an executable for this machine.
    pub fn inspect(path: &Path) -> Option<Emulator> {
        let metadata = path.metadata().ok()?;
        if !metadata.is_file() || metadata.permissions().mode() & 0o111 == 0 {
            return None;
        }
        let mut head = Vec::new();
        std::fs::File::open(path).ok()?.take(HEAD_SIZE_MAX).read_to_end(&mut head).ok()?;
        let host = Architecture::of(&Platform::host())?;
        if !host.may_run_natively().contains(&Architecture::of_executable(&head)?) {
            return None;
        }
        Some(Emulator { path: path.to_owned(), is_static: !has_interpreter(&head)? })
    }

    /// Returns the file's name, for example `qemu-aarch64-static`.
    pub fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Asks the emulator for its version, for example `7.2.22`; costs one execution.
    pub fn version(&self) -> Option<String> {
        let mut child = Command::new(&self.path)
            .arg("--version")
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let mut text = String::new();
        let read = child.stdout.take()?.take(VERSION_SIZE_MAX).read_to_string(&mut text);
        child.wait().ok()?;
        read.ok()?;
        parse_version(&text)
    }
}

/// Takes the number out of `qemu-aarch64 version 7.2.22 (Debian …)`.
fn parse_version(text: &str) -> Option<String> {
    let (_, rest) = text.lines().next()?.split_once(" version ")?;
    let version: String =
        rest.chars().take_while(|c| c.is_ascii_alphanumeric() || ".-+".contains(*c)).collect();
    (!version.is_empty()).then_some(version)
}

/// Tells whether an executable names a loader (`PT_INTERP`).
fn has_interpreter(head: &[u8]) -> Option<bool> {
    fn search<F: FileHeader>(head: &[u8]) -> Option<bool> {
        let header = F::parse(head).ok()?;
        let endian = header.endian().ok()?;
        let segments = header.program_headers(endian, head).ok()?;
        Some(segments.iter().any(|segment| segment.p_type(endian) == object::elf::PT_INTERP))
    }
    match head.get(4)? {
        1 => search::<object::elf::FileHeader32<object::Endianness>>(head),
        2 => search::<object::elf::FileHeader64<object::Endianness>>(head),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::emulation::probe_executable;

    /// A static executable of this machine, under an emulator's name.
    fn put(directory: &Path, name: &str, mode: u32) -> PathBuf {
        let path = directory.join(name);
        std::fs::write(&path, probe_executable(&Platform::host()).unwrap()).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    /// A dynamic executable of this machine: this test.
    fn put_dynamic(directory: &Path, name: &str) -> PathBuf {
        let path = directory.join(name);
        std::fs::copy(std::env::current_exe().unwrap(), &path).unwrap();
        path
    }

    #[test]
    fn configured_directories_win_over_the_path() {
        let (configured, path) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let lists = ([configured.path().to_owned()], [path.path().to_owned()]);
        let find = || Emulator::find(Architecture::S390x, &lists.0, &lists.1).map(|emulator| emulator.path);
        assert_eq!(find(), None);
        let in_path = put(path.path(), "qemu-s390x-static", 0o755);
        assert_eq!(find(), Some(in_path));
        let plain = put(configured.path(), "qemu-s390x", 0o755);
        assert_eq!(find(), Some(plain));
        let suffixed = put(configured.path(), "qemu-s390x-static", 0o755);
        assert_eq!(find(), Some(suffixed));
    }

    #[test]
    fn a_static_emulator_wins_over_a_dynamic_one() {
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let dynamic = put_dynamic(first.path(), "qemu-arm");
        if !has_interpreter(&std::fs::read(&dynamic).unwrap()).unwrap() {
            eprintln!("skipped: this test is itself a static executable");
            return;
        }
        let path_dirs = [first.path().to_owned(), second.path().to_owned()];
        let find = || Emulator::find(Architecture::Arm, &[], &path_dirs).unwrap();
        assert_eq!(find(), Emulator { path: dynamic, is_static: false });
        let fixed = put(second.path(), "qemu-arm", 0o755);
        assert_eq!(find(), Emulator { path: fixed, is_static: true });
    }

    #[test]
    fn files_that_cannot_emulate_are_passed_over() {
        let directory = tempfile::tempdir().unwrap();
        let path = put(directory.path(), "qemu-arm", 0o644);
        assert_eq!(Emulator::inspect(&path), None, "not executable");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert!(Emulator::inspect(&path).is_some());
        for bytes in [&b"#!/bin/sh\n"[..], b"", b"\x7fELF", b"\x7fELF\x02\x01\x01"] {
            std::fs::write(&path, bytes).unwrap();
            assert_eq!(Emulator::inspect(&path), None, "{bytes:?}");
        }
        std::fs::write(&path, probe_executable(&Platform::new("linux", "s390x", "")).unwrap()).unwrap();
        assert_eq!(Emulator::inspect(&path).is_some(), Platform::host().architecture == "s390x");
        assert_eq!(Emulator::inspect(directory.path()), None, "a directory");
        assert_eq!(Emulator::find(Architecture::Arm, &[PathBuf::from("relative")], &[]), None);
    }

    #[test]
    fn versions_are_read_from_what_qemu_prints() {
        let debian = "qemu-aarch64 version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)\nCopyright\n";
        assert_eq!(parse_version(debian).as_deref(), Some("7.2.22"));
        assert_eq!(parse_version("qemu-arm version 11.1.0-rc1\n").as_deref(), Some("11.1.0-rc1"));
        assert_eq!(parse_version("usage: something else"), None);
        assert_eq!(parse_version(""), None);
    }
}
