// SPDX-License-Identifier: Apache-2.0
//! Executables of a few instructions, one per architecture, that tell whether it runs, and how to run them.
//!
//! A probe reads its argument count from where the kernel puts it, on top of the stack, and ends with 41 plus
//! that count. So 42 proves that the program was started as a program is, and 43 betrays an emulator that was
//! registered to be given the original first argument (flag `P`) but is too old to know it.

use polyarch_oci::Platform;

use super::Architecture;
use super::arch::ElfFacts;

/// The exit status of a probe that ran with exactly one argument.
pub const PROBE_STATUS: i32 = 42;

/// Where the probe is loaded: above every architecture's least mappable address, a multiple of every page size.
const LOAD_ADDRESS: u32 = 0x0040_0000;
const ALIGNMENT: u32 = 0x1_0000;

/// Returns the bytes of a static executable of the platform that ends with [`PROBE_STATUS`].
///
/// It uses an instruction of the variant, where the platform has one (arm v5 to v8, amd64 v2 to v4), and dies
/// of SIGILL where that is missing. Platforms out of the table and unknown variants of these two have none.
pub fn probe_executable(platform: &Platform) -> Option<Vec<u8>> {
    let architecture = Architecture::of(platform)?;
    let mut code = variant_code(architecture, &platform.variant)?;
    code.extend(exit_code(architecture));
    Some(executable(architecture.elf(), &code))
}

/// Wraps the code in an ELF header and one loadable segment.
fn executable(facts: ElfFacts, code: &[u8]) -> Vec<u8> {
    let (header_size, segment_size): (u16, u16) = if facts.is_64_bit { (64, 56) } else { (52, 32) };
    let code_offset = u32::from(header_size) + u32::from(segment_size);
    // The longest code has less than a hundred bytes.
    let file_size = code_offset + u32::try_from(code.len()).expect("the probes' code is a few instructions");
    // Addresses are as wide as the class; the upper half is zero.
    let address = |value: u32| -> Vec<u8> {
        match (facts.is_64_bit, facts.is_big_endian) {
            (false, _) => facts.word(value).to_vec(),
            (true, true) => u64::from(value).to_be_bytes().to_vec(),
            (true, false) => u64::from(value).to_le_bytes().to_vec(),
        }
    };
    let mut file = vec![0x7f, b'E', b'L', b'F'];
    file.push(if facts.is_64_bit { 2 } else { 1 });
    file.push(if facts.is_big_endian { 2 } else { 1 });
    file.push(1);
    file.resize(16, 0);
    file.extend(facts.half(2)); // ET_EXEC
    file.extend(facts.half(facts.machine));
    file.extend(facts.word(1)); // EV_CURRENT
    file.extend(address(LOAD_ADDRESS + code_offset));
    file.extend(address(u32::from(header_size))); // segments follow the header
    file.extend(address(0)); // no sections
    file.extend(facts.word(facts.flags));
    file.extend(facts.half(header_size));
    file.extend(facts.half(segment_size));
    file.extend(facts.half(1)); // segments
    for _ in 0..3 {
        file.extend(facts.half(0)); // size, count and names of sections
    }
    // A 64-bit segment has its flags second, a 32-bit one last but one.
    const READ_EXECUTE: u32 = 5;
    file.extend(facts.word(1)); // PT_LOAD
    if facts.is_64_bit {
        file.extend(facts.word(READ_EXECUTE));
    }
    file.extend(address(0)); // offset
    file.extend(address(LOAD_ADDRESS)); // virtual
    file.extend(address(LOAD_ADDRESS)); // physical
    file.extend(address(file_size)); // in the file
    file.extend(address(file_size)); // in memory
    if !facts.is_64_bit {
        file.extend(facts.word(READ_EXECUTE));
    }
    file.extend(address(ALIGNMENT));
    file.extend(code);
    file
}

/// Returns instructions that exist from the variant on and change nothing that the exit needs.
fn variant_code(architecture: Architecture, variant: &str) -> Option<Vec<u8>> {
    let facts = architecture.elf();
    let code: &[u8] = match (architecture, variant) {
        (Architecture::Amd64, "") => &[],
        // popcnt eax, eax; pshufb xmm0, xmm0; pcmpgtq xmm0, xmm0
        (Architecture::Amd64, "v2") => {
            &[0xf3, 0x0f, 0xb8, 0xc0, 0x66, 0x0f, 0x38, 0x00, 0xc0, 0x66, 0x0f, 0x38, 0x37, 0xc0]
        }
        // andn eax, eax, eax; vpaddd ymm0, ymm0, ymm0; vfmadd132ps xmm0, xmm0, xmm0; movbe eax, [rsp]
        (Architecture::Amd64, "v3") => &[
            0xc4, 0xe2, 0x78, 0xf2, 0xc0, 0xc5, 0xfd, 0xfe, 0xc0, 0xc4, 0xe2, 0x79, 0x98, 0xc0, 0x0f, 0x38,
            0xf0, 0x04, 0x24,
        ],
        // vpaddd zmm0, zmm0, zmm0; vpaddd ymm0, ymm0, ymm0 in its AVX-512VL form
        (Architecture::Amd64, "v4") => {
            &[0x62, 0xf1, 0x7d, 0x48, 0xfe, 0xc0, 0x62, 0xf1, 0x7d, 0x28, 0xfe, 0xc0]
        }
        (Architecture::Amd64, _) => return None,
        // clz r1, r1
        (Architecture::Arm, "v5") => &facts.word(0xe16f_1f11),
        // rev r1, r1
        (Architecture::Arm, "v6") => &facts.word(0xe6bf_1f31),
        // movw r1, #0
        (Architecture::Arm, "" | "v7") => &facts.word(0xe300_1000),
        // lda r1, [sp]
        (Architecture::Arm, "v8") => &facts.word(0xe19d_1c9f),
        (Architecture::Arm, _) => return None,
        _ => &[],
    };
    Some(code.to_vec())
}

/// Returns the instructions of `exit_group(41 + argc)`.
fn exit_code(architecture: Architecture) -> Vec<u8> {
    let words: &[u32] = match architecture {
        // mov edi, [rsp]; add edi, 41; mov eax, 231; syscall
        Architecture::Amd64 => {
            return vec![0x8b, 0x3c, 0x24, 0x83, 0xc7, 41, 0xb8, 231, 0, 0, 0, 0x0f, 0x05];
        }
        // mov ebx, [esp]; add ebx, 41; mov eax, 252; int 0x80
        Architecture::I386 => {
            return vec![0x8b, 0x1c, 0x24, 0x83, 0xc3, 41, 0xb8, 252, 0, 0, 0, 0xcd, 0x80];
        }
        // lg %r2, 0(%r15); aghi %r2, 41; svc 248
        Architecture::S390x => {
            return vec![0xe3, 0x20, 0xf0, 0x00, 0x00, 0x04, 0xa7, 0x2b, 0x00, 41, 0x0a, 248];
        }
        // ldr x0, [sp]; add x0, x0, #41; movz x8, #94; svc #0
        Architecture::Arm64 => &[0xf940_03e0, 0x9100_a400, 0xd280_0bc8, 0xd400_0001],
        // ldr r0, [sp]; add r0, r0, #41; mov r7, #248; svc #0
        Architecture::Arm => &[0xe59d_0000, 0xe280_0029, 0xe3a0_70f8, 0xef00_0000],
        // ld r3, 0(r1); addi r3, r3, 41; li r0, 234; sc
        Architecture::Ppc64le | Architecture::Ppc64 => &[0xe861_0000, 0x3863_0029, 0x3800_00ea, 0x4400_0002],
        // ld a0, 0(sp); addi a0, a0, 41; li a7, 94; ecall
        Architecture::Riscv64 => &[0x0001_3503, 0x0295_0513, 0x05e0_0893, 0x0000_0073],
        // ld $a0, 0($sp); daddiu $a0, $a0, 41; li $v0, 5205; syscall
        Architecture::Mips64le | Architecture::Mips64 => {
            &[0xdfa4_0000, 0x6484_0029, 0x2402_1455, 0x0000_000c]
        }
        // lw $a0, 0($sp); addiu $a0, $a0, 41; li $v0, 4246; syscall
        Architecture::Mipsle | Architecture::Mips => &[0x8fa4_0000, 0x2484_0029, 0x2402_1096, 0x0000_000c],
        // ld.d $a0, $sp, 0; addi.d $a0, $a0, 41; ori $a7, $zero, 94; syscall 0
        Architecture::Loong64 => &[0x28c0_0064, 0x02c0_a484, 0x0381_780b, 0x002b_0000],
    };
    let facts = architecture.elf();
    words.iter().flat_map(|word| facts.word(*word)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_is_an_executable_of_its_platform() {
        use object::read::elf::{FileHeader, ProgramHeader};
        for architecture in Architecture::ALL {
            let platform = Platform::new("linux", architecture.name(), "");
            let bytes = probe_executable(&platform).expect("every architecture has a probe");
            assert!(bytes.len() < 256, "{platform}: {} bytes", bytes.len());
            assert_eq!(Architecture::of_executable(&bytes), Some(architecture));
            let entry = if architecture.elf().is_64_bit {
                let header = object::elf::FileHeader64::<object::Endianness>::parse(&*bytes).unwrap();
                let endian = header.endian().unwrap();
                let segments = header.program_headers(endian, &*bytes).unwrap();
                assert_eq!(segments[0].data(endian, &*bytes).unwrap(), &bytes[..]);
                header.e_entry(endian)
            } else {
                let header = object::elf::FileHeader32::<object::Endianness>::parse(&*bytes).unwrap();
                let endian = header.endian().unwrap();
                let segments = header.program_headers(endian, &*bytes).unwrap();
                assert_eq!(segments[0].data(endian, &*bytes).unwrap(), &bytes[..]);
                u64::from(header.e_entry(endian))
            };
            assert!(entry > u64::from(LOAD_ADDRESS) && entry < u64::from(LOAD_ADDRESS) + bytes.len() as u64);
        }
    }

    #[test]
    fn unknown_platforms_and_variants_have_no_probe() {
        for platform in ["windows/amd64", "linux/wasm", "linux/amd64/v9", "linux/arm/v4"] {
            assert_eq!(probe_executable(&platform.parse().unwrap()), None, "{platform}");
        }
    }
}
