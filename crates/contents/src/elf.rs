// SPDX-License-Identifier: Apache-2.0
//! What a program's first bytes say about it: the ELF header, its interpreter, or a script's `#!` line.

use object::Endianness;
use object::elf::{FileHeader32, FileHeader64, PT_INTERP};
use object::read::elf::{FileHeader, ProgramHeader};
use serde::{Deserialize, Serialize};

/// Linux reads this much of a script's first line (fs/binfmt_script.c, `BINPRM_BUF_SIZE`).
const MAX_SCRIPT_LINE_BYTES: usize = 256;
/// Linux takes no longer name of a program interpreter (`PATH_MAX`).
const MAX_INTERPRETER_BYTES: usize = 4096;

/// What kind of program a file is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Program {
    /// An ELF file.
    Elf(ElfFacts),
    /// A script: the path that its `#!` line names.
    Script {
        /// The interpreter, as written.
        interpreter: String,
        /// What follows it on the line, blanks removed; empty when there is nothing.
        argument: String,
    },
}

/// The facts of an ELF header (gABI, chapter 4) that decide where a file runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ElfFacts {
    /// Whether its class is 64 bits.
    pub is_64_bit: bool,
    /// Whether its data is big-endian.
    pub is_big_endian: bool,
    /// `e_machine`.
    pub machine: u16,
    /// `e_flags`.
    pub flags: u32,
    /// `EI_OSABI`.
    pub os_abi: u8,
    /// `e_type`.
    pub kind: ElfKind,
    /// The program interpreter (PT_INTERP); `None` for static programs and shared objects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interpreter: Option<String>,
}

/// `e_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ElfKind {
    /// ET_REL: an object file or a kernel module.
    Relocatable,
    /// ET_EXEC.
    Executable,
    /// ET_DYN: a shared object, or a position-independent executable.
    Shared,
    /// Anything else, such as a core dump.
    Other,
}

/// What the beginning of a file tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reading {
    /// What there is to know; `None` for a file that is no program.
    Known(Option<Program>),
    /// An ELF file whose interpreter stands further on: all up to this many bytes is needed.
    NeedsMore(u64),
}

/// Reads the beginning of a file; `is_whole` tells that there is nothing more.
pub(crate) fn read_program(head: &[u8], is_whole: bool) -> Reading {
    if head.starts_with(b"#!") {
        return Reading::Known(script(head));
    }
    if !head.starts_with(b"\x7fELF") {
        return Reading::Known(None);
    }
    let facts = match head.get(4) {
        Some(1) => facts::<FileHeader32<Endianness>>(head),
        Some(2) => facts::<FileHeader64<Endianness>>(head),
        _ => return Reading::Known(None),
    };
    match facts {
        Some((_, Some(needed))) if !is_whole && needed > head.len() as u64 => Reading::NeedsMore(needed),
        Some((facts, _)) => Reading::Known(Some(Program::Elf(facts))),
        None => Reading::Known(None),
    }
}

/// Reads an ELF header and the interpreter; the number is how many bytes the latter needs.
fn facts<H: FileHeader<Endian = Endianness>>(head: &[u8]) -> Option<(ElfFacts, Option<u64>)> {
    let header = H::parse(head).ok()?;
    let endian = header.endian().ok()?;
    let mut facts = ElfFacts {
        is_64_bit: header.is_type_64(),
        is_big_endian: header.is_big_endian(),
        machine: header.e_machine(endian).0,
        flags: header.e_flags(endian).0,
        os_abi: header.e_ident().os_abi.0,
        kind: match header.e_type(endian).0 {
            1 => ElfKind::Relocatable,
            2 => ElfKind::Executable,
            3 => ElfKind::Shared,
            _ => ElfKind::Other,
        },
        interpreter: None,
    };
    if !facts.is_program() {
        return Some((facts, None));
    }
    let table: u64 = header.e_phoff(endian).into();
    let length = u64::from(header.e_phnum(endian)) * u64::from(header.e_phentsize(endian));
    let table_end = table.saturating_add(length);
    let Ok(segments) = header.program_headers(endian, head) else {
        return Some((facts, Some(table_end)));
    };
    let interpreter = segments.iter().find(|segment| segment.p_type(endian) == PT_INTERP);
    let Some(segment) = interpreter else { return Some((facts, None)) };
    let (offset, size): (u64, u64) = (segment.p_offset(endian).into(), segment.p_filesz(endian).into());
    let end = offset.saturating_add(size.min(MAX_INTERPRETER_BYTES as u64));
    let range = usize::try_from(offset).ok().zip(usize::try_from(end).ok());
    match range.and_then(|(start, end)| head.get(start..end)) {
        Some(bytes) => {
            let name = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
            facts.interpreter = Some(String::from_utf8_lossy(name).into_owned());
            Some((facts, None))
        }
        None => Some((facts, Some(end))),
    }
}

/// Reads a `#!` line as Linux does: one path, then at most one argument.
fn script(head: &[u8]) -> Option<Program> {
    let line = &head[2..head.len().min(MAX_SCRIPT_LINE_BYTES)];
    let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let line = line.trim_matches([' ', '\t', '\0']);
    let (interpreter, argument) = line.split_once([' ', '\t']).unwrap_or((line, ""));
    if interpreter.is_empty() {
        return None;
    }
    let argument = argument.trim_matches([' ', '\t']).to_owned();
    Some(Program::Script { interpreter: interpreter.to_owned(), argument })
}

impl ElfFacts {
    /// Tells whether a loader would map it: an executable or a shared object.
    pub fn is_program(&self) -> bool {
        matches!(self.kind, ElfKind::Executable | ElfKind::Shared)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use polyarch_testkit::hello_program;

    /// Makes a 64-bit little-endian executable of a machine with an interpreter at an offset.
    pub(crate) fn dynamic(machine: u16, kind: u16, interpreter: &str, at: usize) -> Vec<u8> {
        let mut file = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0];
        file.resize(16, 0);
        file.extend(kind.to_le_bytes());
        file.extend(machine.to_le_bytes());
        file.extend(1u32.to_le_bytes());
        file.extend(0u64.to_le_bytes());
        file.extend(64u64.to_le_bytes());
        file.extend(0u64.to_le_bytes());
        file.extend(0u32.to_le_bytes());
        for value in [64u16, 56, 1, 0, 0, 0] {
            file.extend(value.to_le_bytes());
        }
        file.extend(3u32.to_le_bytes());
        file.extend(4u32.to_le_bytes());
        let size = interpreter.len() as u64 + 1;
        for value in [at as u64, 0, 0, size, size, 1] {
            file.extend(value.to_le_bytes());
        }
        assert!(at >= file.len());
        file.resize(at, 0);
        file.extend(interpreter.as_bytes());
        file.push(0);
        file
    }

    fn known(head: &[u8]) -> Option<Program> {
        match read_program(head, true) {
            Reading::Known(program) => program,
            Reading::NeedsMore(_) => panic!("the head is the whole file"),
        }
    }

    #[test]
    fn headers_of_every_class_and_byte_order_are_read() {
        for (name, machine, is_64_bit, is_big_endian) in [
            ("amd64", 62, true, false),
            ("386", 3, false, false),
            ("arm", 40, false, false),
            ("s390x", 22, true, true),
            ("ppc64le", 21, true, false),
        ] {
            let Some(Program::Elf(facts)) = known(&hello_program(name, "x", 0).unwrap()) else {
                panic!("{name} is an ELF file")
            };
            assert_eq!(
                (facts.machine, facts.is_64_bit, facts.is_big_endian),
                (machine, is_64_bit, is_big_endian)
            );
            assert_eq!((facts.kind, facts.interpreter), (ElfKind::Executable, None), "{name}");
        }
    }

    #[test]
    fn the_interpreter_is_found_wherever_it_stands() {
        let file = dynamic(62, 3, "/lib64/ld-linux-x86-64.so.2", 5000);
        let Reading::NeedsMore(needed) = read_program(&file[..1000], false) else { panic!("it is cut off") };
        assert_eq!(needed, file.len() as u64);
        let Some(Program::Elf(facts)) = known(&file) else { panic!("an ELF file") };
        assert_eq!(facts.interpreter.as_deref(), Some("/lib64/ld-linux-x86-64.so.2"));
        assert_eq!(facts.kind, ElfKind::Shared);
        // A table that points nowhere is no reason to fail.
        let Some(Program::Elf(facts)) = known(&file[..100]) else { panic!("an ELF file") };
        assert_eq!(facts.interpreter, None);
    }

    #[test]
    fn no_beginning_of_a_file_makes_it_panic() {
        let file = dynamic(62, 3, "/lib/ld.so", 300);
        for len in 0..file.len() {
            let _ = read_program(&file[..len], true);
            let _ = read_program(&file[..len], false);
        }
        for at in 0..120 {
            let mut damaged = file.clone();
            damaged[at] = 0xff;
            let _ = read_program(&damaged, true);
        }
    }

    #[test]
    fn script_lines_are_read_as_linux_reads_them() {
        let table = [
            ("#!/bin/sh\nx", Some(("/bin/sh", ""))),
            ("#! /usr/bin/env  python3 -u \nx", Some(("/usr/bin/env", "python3 -u"))),
            ("#!/bin/sh", Some(("/bin/sh", ""))),
            ("#!\n/bin/sh", None),
            ("#!   ", None),
            ("plain", None),
        ];
        for (text, expected) in table {
            let found = known(text.as_bytes()).map(|program| match program {
                Program::Script { interpreter, argument } => (interpreter, argument),
                Program::Elf(_) => panic!("{text}"),
            });
            assert_eq!(found.as_ref().map(|(i, a)| (i.as_str(), a.as_str())), expected, "{text:?}");
        }
    }
}
