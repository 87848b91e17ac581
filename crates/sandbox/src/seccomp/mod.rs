// SPDX-License-Identifier: Apache-2.0
//! The system call filter of a build step: Docker's default profile as a BPF program.
//!
//! The filter serves every ABI that the host's kernel offers to a process, so that 32-bit programs run under
//! it as well; emulated programs are processes of the host's architecture and need nothing else. Nothing is
//! ever killed: what is not permitted fails with EPERM, what is younger than our tables with ENOSYS.

mod bpf;
mod install;
mod profile;
mod tables;

use std::sync::OnceLock;

pub use install::install;

/// One classic BPF instruction, in the layout of the kernel's `sock_filter`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    /// The operation.
    pub code: u16,
    /// How many instructions to skip when the comparison holds.
    pub jt: u8,
    /// How many instructions to skip when it doesn't.
    pub jf: u8,
    /// The operand.
    pub k: u32,
}

/// A complete filter, ready to be installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    instructions: Vec<Instruction>,
}

impl Program {
    /// Returns the instructions.
    pub fn instructions(&self) -> &[Instruction] {
        &self.instructions
    }
}

/// The architecture of the kernel that a filter is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostArch {
    /// x86-64, with i386 and x32.
    X86_64,
    /// arm64, with 32-bit Arm.
    Aarch64,
    /// RISC-V, 64 bits.
    Riscv64,
    /// POWER, 64 bits, little-endian.
    Ppc64le,
    /// z/Architecture, 64 bits only.
    S390x,
    /// LoongArch, 64 bits.
    Loongarch64,
}

impl HostArch {
    /// Returns the architecture this program was built for, if filters exist for it.
    pub fn current() -> Option<HostArch> {
        match std::env::consts::ARCH {
            "x86_64" => Some(HostArch::X86_64),
            "aarch64" => Some(HostArch::Aarch64),
            "riscv64" => Some(HostArch::Riscv64),
            "powerpc64" if cfg!(target_endian = "little") => Some(HostArch::Ppc64le),
            "s390x" => Some(HostArch::S390x),
            "loongarch64" => Some(HostArch::Loongarch64),
            _ => None,
        }
    }
}

/// Docker's default set of capabilities, as the bit mask that capset(2) uses.
///
/// CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID, SETPCAP, NET_BIND_SERVICE, NET_RAW, SYS_CHROOT,
/// MKNOD, AUDIT_WRITE, SETFCAP.
pub const DEFAULT_CAPABILITIES: u64 = 0xa804_25fb;

/// Says why a filter could not be had.
#[derive(Debug, thiserror::Error)]
pub enum SeccompError {
    /// No table of system calls exists for this machine.
    #[error("no system call filter is known for this machine's architecture ({architecture})")]
    UnknownHost {
        /// The architecture.
        architecture: &'static str,
    },
    /// The kernel refused the filter.
    #[error("the kernel refused the system call filter of {instructions} instructions")]
    Install {
        /// Its length.
        instructions: usize,
        /// The kernel's answer.
        #[source]
        source: std::io::Error,
    },
}

/// Returns the filter for the running host and Docker's default capabilities; made once per process.
///
/// # Errors
/// [`SeccompError::UnknownHost`] where no table exists.
pub fn default_program() -> Result<&'static Program, SeccompError> {
    static PROGRAM: OnceLock<Program> = OnceLock::new();
    let host =
        HostArch::current().ok_or(SeccompError::UnknownHost { architecture: std::env::consts::ARCH })?;
    Ok(PROGRAM.get_or_init(|| program_for(host, DEFAULT_CAPABILITIES)))
}

/// Makes the filter for a host and for a process with the given capabilities (a mask, as capset(2) has it).
pub fn program_for(host: HostArch, capabilities: u64) -> Program {
    bpf::compile(host, capabilities)
}
