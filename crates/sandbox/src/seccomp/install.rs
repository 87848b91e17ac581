// SPDX-License-Identifier: Apache-2.0
//! Hands a filter to the kernel.

use std::io;

use super::{Instruction, Program, SeccompError};

/// Installs the filter for the calling thread and all its descendants, irrevocably.
///
/// The caller needs either CAP_SYS_ADMIN in its user namespace or no_new_privs already set; neither is
/// changed here. Makes one system call, allocates nothing.
///
/// # Errors
/// [`SeccompError::Install`] with the kernel's answer.
pub fn install(program: &Program) -> Result<(), SeccompError> {
    let refuse = |source| SeccompError::Install { instructions: program.instructions.len(), source };
    let length = u16::try_from(program.instructions.len())
        .map_err(|_| refuse(io::Error::from(io::ErrorKind::InvalidInput)))?;
    load(&program.instructions, length).map_err(refuse)
}

#[expect(unsafe_code, reason = "rustix has no call that installs a filter")]
fn load(instructions: &[Instruction], length: u16) -> io::Result<()> {
    let program = libc::sock_fprog { len: length, filter: instructions.as_ptr().cast_mut().cast() };
    let no_flags: libc::c_uint = 0;
    // SAFETY: `program` and the `length` instructions behind its pointer outlive the call, `Instruction` has the
    // layout of `sock_filter` (repr(C), same fields), and the kernel only reads them.
    let result = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, no_flags, &raw const program)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instruction_has_the_layout_of_the_kernels() {
        assert_eq!(size_of::<Instruction>(), size_of::<libc::sock_filter>());
        assert_eq!(align_of::<Instruction>(), align_of::<libc::sock_filter>());
        assert_eq!(std::mem::offset_of!(Instruction, jt), std::mem::offset_of!(libc::sock_filter, jt));
        assert_eq!(std::mem::offset_of!(Instruction, jf), std::mem::offset_of!(libc::sock_filter, jf));
        assert_eq!(std::mem::offset_of!(Instruction, k), std::mem::offset_of!(libc::sock_filter, k));
    }

    #[test]
    fn a_program_that_no_kernel_takes_is_refused() {
        let nothing = Program { instructions: Vec::new() };
        assert!(matches!(install(&nothing), Err(SeccompError::Install { instructions: 0, .. })));
        let endless = Instruction { code: 6, jt: 0, jf: 0, k: 0x7fff_0000 };
        let too_long = Program { instructions: vec![endless; 70_000] };
        assert!(matches!(install(&too_long), Err(SeccompError::Install { instructions: 70_000, .. })));
    }
}
