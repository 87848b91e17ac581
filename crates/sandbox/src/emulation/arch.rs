// SPDX-License-Identifier: Apache-2.0
//! The table of architectures: their executables, their emulators, and which may run where natively.
//!
//! Numbers are those of the ELF header (gABI, chapter 4, and the processor supplements).

use polyarch_oci::Platform;

/// An architecture whose Linux executables can be recognised and emulated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Architecture {
    /// x86, 64 bits.
    Amd64,
    /// x86, 32 bits.
    I386,
    /// Arm, 64 bits.
    Arm64,
    /// Arm, 32 bits, little-endian, all variants.
    Arm,
    /// POWER, 64 bits, little-endian.
    Ppc64le,
    /// POWER, 64 bits, big-endian.
    Ppc64,
    /// z/Architecture.
    S390x,
    /// RISC-V, 64 bits.
    Riscv64,
    /// MIPS, 64 bits, little-endian.
    Mips64le,
    /// MIPS, 64 bits, big-endian.
    Mips64,
    /// MIPS, 32 bits, little-endian.
    Mipsle,
    /// MIPS, 32 bits, big-endian.
    Mips,
    /// LoongArch, 64 bits.
    Loong64,
}

/// What the ELF header of an architecture's executables says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ElfFacts {
    pub is_64_bit: bool,
    pub is_big_endian: bool,
    /// `e_machine`.
    pub machine: u16,
    /// `e_flags` of an ordinary executable of Debian.
    pub flags: u32,
}

impl ElfFacts {
    /// Writes a 16-bit field of the header in the file's byte order.
    pub fn half(&self, value: u16) -> [u8; 2] {
        if self.is_big_endian { value.to_be_bytes() } else { value.to_le_bytes() }
    }

    /// Writes a 32-bit field of the header in the file's byte order.
    pub fn word(&self, value: u32) -> [u8; 4] {
        if self.is_big_endian { value.to_be_bytes() } else { value.to_le_bytes() }
    }
}

/// How the first bytes of an executable are compared: `bytes[i] & mask[i] == magic[i] & mask[i]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Magic {
    /// The expected bytes.
    pub magic: Vec<u8>,
    /// Which of their bits count; as long as `magic`.
    pub mask: Vec<u8>,
}

impl Magic {
    /// Tells whether a file that begins with `header` is meant.
    pub fn matches(&self, header: &[u8]) -> bool {
        header.len() >= self.magic.len()
            && self
                .magic
                .iter()
                .zip(&self.mask)
                .zip(header)
                .all(|((magic, mask), byte)| (magic ^ byte) & mask == 0)
    }
}

/// `EF_MIPS_ABI2`: the 32-bit ABI of 64-bit MIPS, which shares class and machine with the old one.
const MIPS_ABI2: u32 = 0x20;
/// Where `e_flags` lies in a 32-bit header.
const FLAGS_OFFSET_32: usize = 36;

impl Architecture {
    /// Every architecture of the table.
    pub const ALL: [Architecture; 13] = [
        Architecture::Amd64,
        Architecture::I386,
        Architecture::Arm64,
        Architecture::Arm,
        Architecture::Ppc64le,
        Architecture::Ppc64,
        Architecture::S390x,
        Architecture::Riscv64,
        Architecture::Mips64le,
        Architecture::Mips64,
        Architecture::Mipsle,
        Architecture::Mips,
        Architecture::Loong64,
    ];

    /// Returns the architecture of a Linux platform, if it is in the table.
    pub fn of(platform: &Platform) -> Option<Architecture> {
        if platform.os != "linux" {
            return None;
        }
        Architecture::ALL.into_iter().find(|architecture| architecture.name() == platform.architecture)
    }

    /// Returns the architecture of the executable that begins with `header` (40 bytes suffice).
    pub fn of_executable(header: &[u8]) -> Option<Architecture> {
        Architecture::ALL.into_iter().find(|architecture| architecture.magic().matches(header))
    }

    /// Returns the name that platforms use, which is Go's.
    pub fn name(self) -> &'static str {
        match self {
            Architecture::Amd64 => "amd64",
            Architecture::I386 => "386",
            Architecture::Arm64 => "arm64",
            Architecture::Arm => "arm",
            Architecture::Ppc64le => "ppc64le",
            Architecture::Ppc64 => "ppc64",
            Architecture::S390x => "s390x",
            Architecture::Riscv64 => "riscv64",
            Architecture::Mips64le => "mips64le",
            Architecture::Mips64 => "mips64",
            Architecture::Mipsle => "mipsle",
            Architecture::Mips => "mips",
            Architecture::Loong64 => "loong64",
        }
    }

    /// Returns the name that QEMU uses: its emulator is `qemu-NAME` or `qemu-NAME-static`.
    pub fn qemu_name(self) -> &'static str {
        match self {
            Architecture::Amd64 => "x86_64",
            Architecture::I386 => "i386",
            Architecture::Arm64 => "aarch64",
            Architecture::Arm => "arm",
            Architecture::Ppc64le => "ppc64le",
            Architecture::Ppc64 => "ppc64",
            Architecture::S390x => "s390x",
            Architecture::Riscv64 => "riscv64",
            Architecture::Mips64le => "mips64el",
            Architecture::Mips64 => "mips64",
            Architecture::Mipsle => "mipsel",
            Architecture::Mips => "mips",
            Architecture::Loong64 => "loongarch64",
        }
    }

    /// Returns the package of Debian and its descendants that carries the emulator.
    pub fn debian_package(self) -> &'static str {
        // One package carries the emulators of all architectures.
        "qemu-user-static"
    }

    /// Returns the architectures whose programs a processor of this one may run itself.
    ///
    /// Whether it does depends on the model and on the kernel's configuration; only a probe tells.
    pub fn may_run_natively(self) -> &'static [Architecture] {
        match self {
            Architecture::Amd64 => &[Architecture::Amd64, Architecture::I386],
            Architecture::I386 => &[Architecture::I386],
            Architecture::Arm64 => &[Architecture::Arm64, Architecture::Arm],
            Architecture::Arm => &[Architecture::Arm],
            Architecture::Ppc64le => &[Architecture::Ppc64le],
            Architecture::Ppc64 => &[Architecture::Ppc64],
            Architecture::S390x => &[Architecture::S390x],
            Architecture::Riscv64 => &[Architecture::Riscv64],
            Architecture::Mips64le => &[Architecture::Mips64le, Architecture::Mipsle],
            Architecture::Mips64 => &[Architecture::Mips64, Architecture::Mips],
            Architecture::Mipsle => &[Architecture::Mipsle],
            Architecture::Mips => &[Architecture::Mips],
            Architecture::Loong64 => &[Architecture::Loong64],
        }
    }

    /// Returns how executables of this architecture, and of no other, are recognised.
    ///
    /// The OS ABI and the padding of the identification are ignored, as the kernel's own loader does; the
    /// type may be EXEC or DYN.
    pub fn magic(self) -> Magic {
        let facts = self.elf();
        let class = if facts.is_64_bit { 2 } else { 1 };
        let data = if facts.is_big_endian { 2 } else { 1 };
        let mut magic = vec![0x7f, b'E', b'L', b'F', class, data, 1];
        let mut mask = vec![0xff; magic.len()];
        magic.resize(16, 0);
        mask.resize(16, 0);
        // ET_EXEC is 2, ET_DYN 3.
        magic.extend(facts.half(2));
        mask.extend(facts.half(0xfffe));
        magic.extend(facts.half(facts.machine));
        mask.extend(facts.half(0xffff));
        if matches!(self, Architecture::Mips | Architecture::Mipsle) {
            magic.resize(FLAGS_OFFSET_32, 0);
            mask.resize(FLAGS_OFFSET_32, 0);
            magic.extend(facts.word(0));
            mask.extend(facts.word(MIPS_ABI2));
        }
        Magic { magic, mask }
    }

    /// Returns what the header of an ordinary executable says.
    pub(super) fn elf(self) -> ElfFacts {
        let (is_64_bit, is_big_endian, machine, flags) = match self {
            Architecture::Amd64 => (true, false, 62, 0),
            Architecture::I386 => (false, false, 3, 0),
            Architecture::Arm64 => (true, false, 183, 0),
            // EABI version 5.
            Architecture::Arm => (false, false, 40, 0x0500_0000),
            // ABI version 2: the entry point is an address, not a function descriptor.
            Architecture::Ppc64le => (true, false, 21, 2),
            Architecture::Ppc64 => (true, true, 21, 2),
            Architecture::S390x => (true, true, 22, 0),
            // Compressed instructions, floating point in double registers.
            Architecture::Riscv64 => (true, false, 243, 5),
            // Release 2 of the instruction set; position-independent calls.
            Architecture::Mips64le => (true, false, 8, 0x8000_0007),
            Architecture::Mips64 => (true, true, 8, 0x8000_0007),
            // The same with ABI o32.
            Architecture::Mipsle => (false, false, 8, 0x7000_1007),
            Architecture::Mips => (false, true, 8, 0x7000_1007),
            // Object file ABI 1, floating point in double registers.
            Architecture::Loong64 => (true, false, 258, 0x43),
        };
        ElfFacts { is_64_bit, is_big_endian, machine, flags }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first 40 bytes of an executable, with the type and OS ABI given.
    fn header(architecture: Architecture, file_type: u16, os_abi: u8) -> Vec<u8> {
        let facts = architecture.elf();
        let mut header = vec![0x7f, b'E', b'L', b'F'];
        header.push(if facts.is_64_bit { 2 } else { 1 });
        header.push(if facts.is_big_endian { 2 } else { 1 });
        header.extend([1, os_abi, 0, 0, 0, 0, 0, 0, 0, 0]);
        header.extend(facts.half(file_type));
        header.extend(facts.half(facts.machine));
        header.resize(36, 0x11);
        header.extend(facts.word(facts.flags));
        header
    }

    #[test]
    fn every_executable_is_taken_by_exactly_its_own_architecture() {
        for architecture in Architecture::ALL {
            for file_type in [2, 3] {
                for os_abi in [0, 3] {
                    let header = header(architecture, file_type, os_abi);
                    let takers: Vec<Architecture> =
                        Architecture::ALL.into_iter().filter(|a| a.magic().matches(&header)).collect();
                    assert_eq!(takers, [architecture], "type {file_type}, OS ABI {os_abi}");
                }
            }
            // Object files and core dumps are no executables.
            for file_type in [0, 1, 4] {
                assert_eq!(Architecture::of_executable(&header(architecture, file_type, 0)), None);
            }
        }
    }

    #[test]
    fn neighbours_that_share_a_machine_are_told_apart() {
        // x32: machine of amd64, class of 386.
        let mut x32 = header(Architecture::Amd64, 2, 0);
        x32[4] = 1;
        assert_eq!(Architecture::of_executable(&x32), None);
        // MIPS n32: machine and class of o32, another ABI.
        let mut n32 = header(Architecture::Mipsle, 2, 0);
        n32[36] |= 0x20;
        assert_eq!(Architecture::of_executable(&n32), None);
        // Big-endian Arm.
        let mut arm_be = header(Architecture::Arm64, 2, 0);
        arm_be[5] = 2;
        assert_eq!(Architecture::of_executable(&arm_be), None);
        assert_eq!(Architecture::of_executable(b"\x7fELF"), None);
        assert_eq!(Architecture::of_executable(b"#!/bin/sh\n"), None);
    }

    #[test]
    fn platforms_map_to_architectures() {
        for (platform, expected) in [
            ("linux/amd64", Some(Architecture::Amd64)),
            ("linux/386", Some(Architecture::I386)),
            ("linux/arm/v6", Some(Architecture::Arm)),
            ("linux/loong64", Some(Architecture::Loong64)),
            ("linux/wasm", None),
            ("windows/amd64", None),
        ] {
            let platform: Platform = platform.parse().unwrap();
            assert_eq!(Architecture::of(&platform), expected, "{platform}");
        }
    }

    #[test]
    fn the_own_executable_is_recognised() {
        let bytes = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert_eq!(Architecture::of_executable(&bytes[..40]), Architecture::of(&Platform::host()));
    }
}
