// SPDX-License-Identifier: Apache-2.0
//! Whether an ELF file's header is that of a platform (gABI, chapter 4, and the processor supplements).

use polyarch_oci::Platform;

use crate::elf::ElfFacts;

/// How a file stands to a platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fit {
    /// It is of the platform.
    Fits,
    /// It is of an older or narrower ABI that processors of the platform usually run as well, given
    /// libraries of its own: 386 on amd64. Its name.
    Companion(String),
    /// It is of another platform: its name.
    Foreign(String),
    /// It is code for no processor that a platform names, such as BPF or firmware.
    NoPlatform(String),
}

/// A line of the table: Go's name, class, byte order, machine.
type Row = (&'static str, bool, bool, u16);

/// The architectures that platforms name.
const PLATFORMS: [Row; 13] = [
    ("amd64", true, false, 62),
    ("386", false, false, 3),
    ("arm64", true, false, 183),
    ("arm", false, false, 40),
    ("ppc64le", true, false, 21),
    ("ppc64", true, true, 21),
    ("s390x", true, true, 22),
    ("riscv64", true, false, 243),
    ("mips64le", true, false, 8),
    ("mips64", true, true, 8),
    ("mipsle", false, false, 8),
    ("mips", false, true, 8),
    ("loong64", true, false, 258),
];

/// Others that have processors and Linux.
const OTHERS: [Row; 12] = [
    ("x32, the 32-bit ABI of amd64", false, false, 62),
    ("big-endian arm", false, true, 40),
    ("big-endian arm64", true, true, 183),
    ("arm64 ILP32", false, false, 183),
    ("31-bit s390", false, true, 22),
    ("32-bit ppc", false, true, 20),
    ("32-bit riscv", false, false, 243),
    ("loong32", false, false, 258),
    ("sparc64", true, true, 43),
    ("ia64", true, false, 50),
    ("alpha", true, false, 0x9026),
    ("m68k", false, true, 4),
];

/// Which ABIs processors of an architecture usually run beside their own.
const COMPANIONS: [(&str, &[&str]); 6] = [
    ("amd64", &["386", "x32, the 32-bit ABI of amd64"]),
    ("arm64", &["arm"]),
    ("s390x", &["31-bit s390"]),
    ("ppc64", &["32-bit ppc"]),
    ("mips64", &["mips", "mips n32"]),
    ("mips64le", &["mipsle", "mips n32"]),
];

/// `EF_ARM_ABI_FLOAT_HARD`.
const ARM_HARD_FLOAT: u32 = 0x400;
/// `EF_MIPS_ABI2`: n32, which shares class and machine with o32.
const MIPS_ABI2: u32 = 0x20;
/// `EF_RISCV_RVE`: half the registers, which no Linux supports.
const RISCV_RVE: u32 = 0x8;

/// Tells whether there are rules for a platform.
pub fn is_known(platform: &Platform) -> bool {
    platform.os == "linux" && PLATFORMS.iter().any(|row| row.0 == platform.architecture)
}

/// Compares a header with a platform of [`is_known`].
pub fn fit(facts: &ElfFacts, platform: &Platform) -> Fit {
    if let Some(system) = other_system(facts.os_abi) {
        return Fit::Foreign(system.to_owned());
    }
    let Some(name) = architecture_of(facts) else {
        return Fit::NoPlatform(format!("machine {}", facts.machine));
    };
    if name == platform.architecture {
        return match lacking(facts, platform) {
            None => Fit::Fits,
            Some(what) => Fit::Foreign(format!("{name} {what}")),
        };
    }
    let companions = COMPANIONS.iter().find(|(own, _)| *own == platform.architecture);
    if companions.is_some_and(|(_, names)| names.contains(&name)) {
        return Fit::Companion(name.to_owned());
    }
    Fit::Foreign(name.to_owned())
}

/// Returns the name of the architecture of a header; `None` when no platform and no Linux has it.
pub fn architecture_of(facts: &ElfFacts) -> Option<&'static str> {
    let machine = if facts.machine == 6 { 3 } else { facts.machine };
    let row = PLATFORMS
        .iter()
        .chain(&OTHERS)
        .find(|row| (row.1, row.2, row.3) == (facts.is_64_bit, facts.is_big_endian, machine))?;
    if machine == 8 && !facts.is_64_bit && facts.flags & MIPS_ABI2 != 0 {
        return Some("mips n32");
    }
    Some(row.0)
}

/// Returns what the flags say against a platform of the same architecture.
fn lacking(facts: &ElfFacts, platform: &Platform) -> Option<&'static str> {
    match platform.architecture.as_str() {
        // EABI version 5 is what Linux distributions use; kernels refuse the ABI before it.
        "arm" if facts.flags >> 24 == 0 => Some("with the ABI before EABI"),
        "arm" if platform.variant == "v5" && facts.flags & ARM_HARD_FLOAT != 0 => {
            Some("with hard floating point, which arm/v5 lacks")
        }
        "ppc64le" if facts.flags & 3 == 1 => Some("with ABI version 1"),
        "riscv64" if facts.flags & RISCV_RVE != 0 => Some("with the reduced register set (RVE)"),
        _ => None,
    }
}

/// Returns the name of a system other than Linux that an OS ABI names.
fn other_system(os_abi: u8) -> Option<&'static str> {
    match os_abi {
        2 => Some("NetBSD"),
        6 => Some("Solaris"),
        9 => Some("FreeBSD"),
        12 => Some("OpenBSD"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elf::ElfKind;

    fn facts(architecture: &str, flags: u32) -> ElfFacts {
        let row = PLATFORMS.iter().chain(&OTHERS).find(|row| row.0 == architecture).unwrap();
        ElfFacts {
            is_64_bit: row.1,
            is_big_endian: row.2,
            machine: row.3,
            flags,
            os_abi: 0,
            kind: ElfKind::Executable,
            interpreter: None,
        }
    }

    #[test]
    fn every_architecture_fits_its_own_platform_only() {
        for (name, ..) in PLATFORMS {
            let platform = Platform::new("linux", name, "");
            assert!(is_known(&platform));
            for (other, ..) in PLATFORMS {
                let flags = if other == "arm" { 0x0500_0000 } else { 0 };
                let found = fit(&facts(other, flags), &platform);
                assert_eq!(found == Fit::Fits, name == other, "{other} on {name}: {found:?}");
            }
        }
        assert!(!is_known(&Platform::new("windows", "amd64", "")));
        assert!(!is_known(&Platform::new("linux", "wasm", "")));
    }

    #[test]
    fn flags_and_systems_decide_where_machines_agree() {
        let table = [
            ("arm/v5", facts("arm", 0x0500_0400), "arm with hard floating point, which arm/v5 lacks"),
            ("arm/v5", facts("arm", 0x0500_0200), ""),
            ("arm/v6", facts("arm", 0x0500_0400), ""),
            ("arm/v7", facts("arm", 0x0500_0200), ""),
            ("arm/v7", facts("arm", 0), "arm with the ABI before EABI"),
            ("ppc64le", facts("ppc64le", 2), ""),
            ("ppc64le", facts("ppc64le", 0), ""),
            ("ppc64le", facts("ppc64le", 1), "ppc64le with ABI version 1"),
            ("riscv64", facts("riscv64", 8), "riscv64 with the reduced register set (RVE)"),
            ("mipsle", facts("mipsle", MIPS_ABI2), "mips n32"),
            ("amd64", ElfFacts { os_abi: 9, ..facts("amd64", 0) }, "FreeBSD"),
            ("amd64", ElfFacts { os_abi: 3, ..facts("amd64", 0) }, ""),
        ];
        for (platform, facts, expected) in table {
            let platform: Platform = format!("linux/{platform}").parse().unwrap();
            let found = match fit(&facts, &platform) {
                Fit::Fits => String::new(),
                Fit::Foreign(name) => name,
                other => panic!("{platform}: {other:?}"),
            };
            assert_eq!(found, expected, "{platform} {facts:?}");
        }
    }

    #[test]
    fn narrower_abis_of_the_same_processors_are_companions() {
        for (platform, other) in [
            ("amd64", "386"),
            ("amd64", "x32, the 32-bit ABI of amd64"),
            ("arm64", "arm"),
            ("s390x", "31-bit s390"),
            ("mips64le", "mipsle"),
        ] {
            let found = fit(&facts(other, 0x0500_0000), &Platform::new("linux", platform, ""));
            assert_eq!(found, Fit::Companion(other.to_owned()), "{platform}");
        }
        let bpf = ElfFacts { machine: 247, ..facts("amd64", 0) };
        assert_eq!(fit(&bpf, &Platform::new("linux", "amd64", "")), Fit::NoPlatform("machine 247".into()));
    }
}
