// SPDX-License-Identifier: Apache-2.0
//! Tiny static programs for foreign architectures, made without a compiler.

/// Where the program is loaded; a multiple of every page size.
const BASE: u32 = 0x40_0000;
const HEADER_64: usize = 64 + 56;
const HEADER_32: usize = 52 + 32;

/// Makes a Linux program that writes a text of at most 200 bytes and exits.
///
/// Architectures are named as in platforms: `amd64`, `386`, `arm64`, `arm`, `riscv64`, `ppc64le`, `s390x`.
/// `None` for any other.
pub fn hello_program(architecture: &str, text: &str, exit_code: u8) -> Option<Vec<u8>> {
    assert!(text.len() <= 200, "the text has at most 200 bytes");
    let length = u32::try_from(text.len()).expect("at most 200");
    let code = u32::from(exit_code);
    let (machine, flags, is_64, is_big, instructions) = match architecture {
        "amd64" => (62, 0, true, false, amd64(length, code)),
        "386" => (3, 0, false, false, i386(length, code)),
        "arm64" => (183, 0, true, false, words_le(&arm64(length, code))),
        "arm" => (40, 0x0500_0000, false, false, words_le(&arm(length, code))),
        "riscv64" => (243, 0, true, false, words_le(&riscv64(length, code))),
        "ppc64le" => (21, 2, true, false, words_le(&ppc64le(length, code))),
        "s390x" => (22, 0, true, true, s390x(length, code)),
        _ => return None,
    };
    let mut program = if is_64 {
        header_64(machine, flags, is_big, instructions.len() + text.len())
    } else {
        header_32(machine, flags, instructions.len() + text.len())
    };
    program.extend(instructions);
    program.extend(text.as_bytes());
    Some(program)
}

/// Writes an ELF header and one program header that loads the whole file (System V ABI, gABI 4.1).
fn header_64(machine: u16, flags: u32, is_big: bool, content: usize) -> Vec<u8> {
    let mut out = Elf { bytes: vec![0x7f, b'E', b'L', b'F', 2, if is_big { 2 } else { 1 }, 1, 0], is_big };
    out.bytes.resize(16, 0);
    let size = (HEADER_64 + content) as u64;
    out.u16(&[2, machine]).u32(&[1]).u64(&[u64::from(BASE) + HEADER_64 as u64, 64, 0]).u32(&[flags]);
    out.u16(&[64, 56, 1, 0, 0, 0]);
    out.u32(&[1, 5]).u64(&[0, BASE.into(), BASE.into(), size, size, 0x1_0000]);
    out.bytes
}

fn header_32(machine: u16, flags: u32, content: usize) -> Vec<u8> {
    let mut out = Elf { bytes: vec![0x7f, b'E', b'L', b'F', 1, 1, 1, 0], is_big: false };
    out.bytes.resize(16, 0);
    let size = (HEADER_32 + content) as u32;
    out.u16(&[2, machine]).u32(&[1, BASE + HEADER_32 as u32, 52, 0, flags]).u16(&[52, 32, 1, 0, 0, 0]);
    out.u32(&[1, 0, BASE, BASE, size, size, 5, 0x1_0000]);
    out.bytes
}

struct Elf {
    bytes: Vec<u8>,
    is_big: bool,
}

impl Elf {
    fn u16(&mut self, values: &[u16]) -> &mut Elf {
        for value in values {
            self.bytes.extend(if self.is_big { value.to_be_bytes() } else { value.to_le_bytes() });
        }
        self
    }

    fn u32(&mut self, values: &[u32]) -> &mut Elf {
        for value in values {
            self.bytes.extend(if self.is_big { value.to_be_bytes() } else { value.to_le_bytes() });
        }
        self
    }

    fn u64(&mut self, values: &[u64]) -> &mut Elf {
        for value in values {
            self.bytes.extend(if self.is_big { value.to_be_bytes() } else { value.to_le_bytes() });
        }
        self
    }
}

fn words_le(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

// Each function below is write(1, text, length); exit(code), the text following the instructions.

fn amd64(length: u32, code: u32) -> Vec<u8> {
    let mut out = vec![0xb8, 1, 0, 0, 0, 0xbf, 1, 0, 0, 0]; // mov eax, 1; mov edi, 1
    out.extend([0x48, 0x8d, 0x35, 19, 0, 0, 0]); // lea rsi, [rip + 19], the bytes that follow
    out.push(0xba); // mov edx, length
    out.extend(length.to_le_bytes());
    out.extend([0x0f, 0x05, 0xb8, 60, 0, 0, 0, 0xbf]); // syscall; mov eax, 60; mov edi, code
    out.extend(code.to_le_bytes());
    out.extend([0x0f, 0x05]); // syscall
    out
}

fn i386(length: u32, code: u32) -> Vec<u8> {
    let instructions = 5 + 5 + 5 + 5 + 2 + 5 + 5 + 2;
    let text = BASE + (HEADER_32 + instructions) as u32;
    let mut out = vec![0xb8, 4, 0, 0, 0, 0xbb, 1, 0, 0, 0, 0xb9]; // mov eax, 4; mov ebx, 1; mov ecx, text
    out.extend(text.to_le_bytes());
    out.push(0xba); // mov edx, length
    out.extend(length.to_le_bytes());
    out.extend([0xcd, 0x80, 0xb8, 1, 0, 0, 0, 0xbb]); // int 0x80; mov eax, 1; mov ebx, code
    out.extend(code.to_le_bytes());
    out.extend([0xcd, 0x80]); // int 0x80
    out
}

fn arm64(length: u32, code: u32) -> [u32; 8] {
    let movz = |register: u32, value: u32| 0xd280_0000 | value << 5 | register;
    let distance = 7 * 4; // from the second instruction to the text
    let adr_x1 = 0x1000_0000 | (distance >> 2) << 5 | 1;
    let svc = 0xd400_0001;
    [movz(0, 1), adr_x1, movz(2, length), movz(8, 64), svc, movz(0, code), movz(8, 93), svc]
}

fn arm(length: u32, code: u32) -> [u32; 8] {
    let mov = |register: u32, value: u32| 0xe3a0_0000 | register << 12 | value;
    let distance = 7 * 4 - 8; // pc is two instructions ahead
    let add_r1_pc = 0xe28f_1000 | distance;
    let svc = 0xef00_0000;
    [mov(0, 1), add_r1_pc, mov(2, length), mov(7, 4), svc, mov(0, code), mov(7, 1), svc]
}

fn riscv64(length: u32, code: u32) -> [u32; 9] {
    let addi = |to: u32, from: u32, value: u32| value << 20 | from << 15 | to << 7 | 0x13;
    let auipc_a1 = 11 << 7 | 0x17;
    let distance = 8 * 4;
    let ecall = 0x73;
    [
        addi(10, 0, 1),
        auipc_a1,
        addi(11, 11, distance),
        addi(12, 0, length),
        addi(17, 0, 64),
        ecall,
        addi(10, 0, code),
        addi(17, 0, 93),
        ecall,
    ]
}

fn ppc64le(length: u32, code: u32) -> [u32; 9] {
    let li = |register: u32, value: u32| 14 << 26 | register << 21 | value;
    let text = BASE + (HEADER_64 + 9 * 4) as u32;
    let lis_r4 = 15 << 26 | 4 << 21 | text >> 16;
    let ori_r4 = 24 << 26 | 4 << 21 | 4 << 16 | (text & 0xffff);
    let sc = 0x4400_0002;
    [li(0, 4), li(3, 1), lis_r4, ori_r4, li(5, length), sc, li(0, 1), li(3, code), sc]
}

fn s390x(length: u32, code: u32) -> Vec<u8> {
    let lghi = |register: u8, value: u32| [0xa7, register << 4 | 9, (value >> 8) as u8, value as u8];
    let mut out = lghi(2, 1).to_vec();
    out.extend([0xc0, 0x30, 0, 0, 0, 10]); // larl r3, 10 halfwords on: the text
    out.extend(lghi(4, length));
    out.extend([0x0a, 4]); // svc write
    out.extend(lghi(2, code));
    out.extend([0x0a, 1]); // svc exit
    // larl counts halfwords, so the text begins at an even address, as it does.
    out.extend([0x07, 0x07]); // nopr
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::needs::{Need, requires};
    use std::os::unix::fs::PermissionsExt as _;
    use std::process::Command;

    #[test]
    fn each_program_says_its_text_under_qemu() {
        let table = [
            ("amd64", "x86_64"),
            ("386", "i386"),
            ("arm64", "aarch64"),
            ("arm", "arm"),
            ("riscv64", "riscv64"),
            ("ppc64le", "ppc64le"),
            ("s390x", "s390x"),
        ];
        let directory = tempfile::tempdir().unwrap();
        for (architecture, qemu) in table {
            if requires(&[Need::Qemu(match architecture {
                "amd64" => "x86_64",
                "386" => "i386",
                "arm64" => "aarch64",
                other => other,
            })])
            .is_some()
            {
                continue;
            }
            let path = directory.path().join(architecture);
            std::fs::write(&path, hello_program(architecture, "hello, you\n", 42).unwrap()).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
            let output = Command::new(format!("qemu-{qemu}-static")).arg(&path).output().unwrap();
            assert_eq!(String::from_utf8_lossy(&output.stdout), "hello, you\n", "{architecture}: {output:?}");
            assert_eq!(output.status.code(), Some(42), "{architecture}: {output:?}");
        }
    }

    #[test]
    fn unknown_architectures_have_no_program() {
        assert_eq!(hello_program("vax", "", 0), None);
    }
}
