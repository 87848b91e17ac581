// SPDX-License-Identifier: Apache-2.0
//! The numbers of the system calls of every ABI that a filter may meet (Linux 6.17).
//!
//! The tables are text, one `number name` per line, ascending. x32's numbers are without their marking bit.

/// A set of system calls that a process may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Abi {
    X86_64,
    X32,
    I386,
    Aarch64,
    Arm,
    Riscv64,
    Ppc64le,
    S390x,
    Loongarch64,
}

impl Abi {
    #[cfg(test)]
    pub const ALL: [Abi; 9] = [
        Abi::X86_64,
        Abi::X32,
        Abi::I386,
        Abi::Aarch64,
        Abi::Arm,
        Abi::Riscv64,
        Abi::Ppc64le,
        Abi::S390x,
        Abi::Loongarch64,
    ];

    /// Returns what the kernel calls the ABI in `seccomp_data.arch` (`AUDIT_ARCH_*` of linux/audit.h).
    pub fn audit_arch(self) -> u32 {
        match self {
            // x32 differs in the numbers only.
            Abi::X86_64 | Abi::X32 => 0xc000_003e,
            Abi::I386 => 0x4000_0003,
            Abi::Aarch64 => 0xc000_00b7,
            Abi::Arm => 0x4000_0028,
            Abi::Riscv64 => 0xc000_00f3,
            Abi::Ppc64le => 0xc000_0015,
            Abi::S390x => 0x8000_0016,
            Abi::Loongarch64 => 0xc000_0102,
        }
    }

    /// Returns the bits that every number of the ABI carries.
    pub fn marking(self) -> u32 {
        if self == Abi::X32 { 0x4000_0000 } else { 0 }
    }

    /// Returns the numbers and names, ascending by number.
    pub fn system_calls(self) -> impl Iterator<Item = (u32, &'static str)> {
        let marking = self.marking();
        self.text().lines().filter_map(move |line| {
            let (number, name) = line.split_once(' ')?;
            Some((number.parse::<u32>().ok()? | marking, name))
        })
    }

    fn text(self) -> &'static str {
        match self {
            Abi::X86_64 => include_str!("tables/x86_64.txt"),
            Abi::X32 => include_str!("tables/x32.txt"),
            Abi::I386 => include_str!("tables/i386.txt"),
            Abi::Aarch64 => include_str!("tables/aarch64.txt"),
            Abi::Arm => include_str!("tables/arm.txt"),
            Abi::Riscv64 => include_str!("tables/riscv64.txt"),
            Abi::Ppc64le => include_str!("tables/ppc64le.txt"),
            Abi::S390x => include_str!("tables/s390x.txt"),
            Abi::Loongarch64 => include_str!("tables/loongarch64.txt"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_a_number_and_a_name() {
        for abi in Abi::ALL {
            let calls: Vec<(u32, &str)> = abi.system_calls().collect();
            assert_eq!(calls.len(), abi.text().lines().count(), "{abi:?}");
            assert!(calls.len() > 300, "{abi:?}");
            assert!(calls.is_sorted(), "{abi:?}");
            let mut names: Vec<&str> = calls.iter().map(|(_, name)| *name).collect();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), calls.len(), "{abi:?} has a name twice");
        }
    }

    #[test]
    fn well_known_numbers_are_right() {
        let number =
            |abi: Abi, wanted: &str| abi.system_calls().find(|(_, name)| *name == wanted).map(|(nr, _)| nr);
        for (abi, name, expected) in [
            (Abi::X86_64, "mount", 165),
            (Abi::X32, "rt_sigaction", 0x4000_0200),
            (Abi::I386, "socketcall", 102),
            (Abi::Aarch64, "mount", 40),
            (Abi::Arm, "set_tls", 0xf0005),
            (Abi::Riscv64, "riscv_flush_icache", 259),
            (Abi::Ppc64le, "mount", 21),
            (Abi::S390x, "s390_pci_mmio_write", 352),
            (Abi::Loongarch64, "clone3", 435),
        ] {
            assert_eq!(number(abi, name), Some(expected), "{abi:?} {name}");
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_own_abi_agrees_with_libc() {
        let abi = match std::env::consts::ARCH {
            "x86_64" => Abi::X86_64,
            "aarch64" => Abi::Aarch64,
            "riscv64" => Abi::Riscv64,
            _ => return,
        };
        let expected = [
            ("read", libc::SYS_read),
            ("keyctl", libc::SYS_keyctl),
            ("unshare", libc::SYS_unshare),
            ("clone3", libc::SYS_clone3),
            ("seccomp", libc::SYS_seccomp),
        ];
        for (wanted, number) in expected {
            let found = abi.system_calls().find(|(_, name)| *name == wanted).map(|(nr, _)| i64::from(nr));
            assert_eq!(found, Some(number), "{wanted}");
        }
    }
}
