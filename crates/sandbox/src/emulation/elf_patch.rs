// SPDX-License-Identifier: Apache-2.0
//! Changes where an executable's loader and libraries are looked for, without changing its layout.
//!
//! Only 64-bit files are understood; a 32-bit host has no use for the rest.

use std::ops::Range;
use std::path::PathBuf;

use object::Endianness;
use object::elf::{FileHeader64, PT_DYNAMIC, PT_INTERP};
use object::read::elf::{FileHeader, ProgramHeader};

// Tags of the dynamic section (gABI, chapter 5).
const DT_NULL: u64 = 0;
const DT_STRTAB: u64 = 5;
const DT_RPATH: u64 = 15;
const DT_DEBUG: u64 = 21;
const DT_RUNPATH: u64 = 29;
/// A tag that loaders pass over: of the range for operating systems, and of no meaning to any.
const DT_IGNORED: u64 = 0x6000_0d00;
/// Tag and value.
const ENTRY_SIZE: usize = 16;

type Result<T> = std::result::Result<T, &'static str>;

/// Where the parts that matter lie in a file.
struct Layout {
    endian: Endianness,
    /// The loader's path and its terminating zero, and the address it is mapped at.
    interpreter: Option<(Range<usize>, u64)>,
    /// The dynamic section; a multiple of [`ENTRY_SIZE`].
    dynamic: Range<usize>,
}

impl Layout {
    fn of(bytes: &[u8]) -> Result<Layout> {
        let malformed = "it is not a well-formed 64-bit executable";
        let header = FileHeader64::<Endianness>::parse(bytes).map_err(|_| malformed)?;
        let endian = header.endian().map_err(|_| malformed)?;
        let (mut interpreter, mut dynamic) = (None, None);
        for segment in header.program_headers(endian, bytes).map_err(|_| malformed)? {
            let range = || {
                let first = usize::try_from(segment.p_offset(endian)).ok()?;
                let last = first.checked_add(usize::try_from(segment.p_filesz(endian)).ok()?)?;
                bytes.get(first..last).map(|_| first..last)
            };
            match segment.p_type(endian) {
                PT_INTERP => interpreter = Some((range().ok_or(malformed)?, segment.p_vaddr(endian))),
                PT_DYNAMIC => dynamic = Some(range().ok_or(malformed)?),
                _ => {}
            }
        }
        let dynamic = dynamic.ok_or("it has no dynamic section")?;
        let size = dynamic.len() / ENTRY_SIZE * ENTRY_SIZE;
        Ok(Layout { endian, interpreter, dynamic: dynamic.start..dynamic.start + size })
    }

    /// Returns the offsets of the entries up to and without the first that ends the list.
    fn entries(&self, bytes: &[u8]) -> Vec<usize> {
        self.dynamic.clone().step_by(ENTRY_SIZE).take_while(|at| self.tag(bytes, *at) != DT_NULL).collect()
    }

    fn tag(&self, bytes: &[u8], at: usize) -> u64 {
        self.read(bytes, at)
    }

    fn read(&self, bytes: &[u8], at: usize) -> u64 {
        // Every caller's `at` lies in `dynamic`, a range of the file whose size is a multiple of the entry's.
        let word = bytes[at..at + 8].try_into().expect("a range of eight bytes is eight bytes long");
        match self.endian {
            Endianness::Little => u64::from_le_bytes(word),
            Endianness::Big => u64::from_be_bytes(word),
        }
    }

    fn write(&self, bytes: &mut [u8], at: usize, value: u64) {
        let word = match self.endian {
            Endianness::Little => value.to_le_bytes(),
            Endianness::Big => value.to_be_bytes(),
        };
        bytes[at..at + 8].copy_from_slice(&word);
    }

    fn is_search_path(&self, bytes: &[u8], at: usize) -> bool {
        let tag = self.tag(bytes, at);
        tag == DT_RPATH || tag == DT_RUNPATH
    }
}

/// Returns the loader that a file names.
pub(super) fn interpreter(bytes: &[u8]) -> Result<PathBuf> {
    let (range, _) = Layout::of(bytes)?.interpreter.ok_or("it names no loader")?;
    let path = bytes[range].split(|byte| *byte == 0).next().unwrap_or_default();
    let path = std::str::from_utf8(path).map_err(|_| "its loader's path is not text")?;
    if path.starts_with('/') { Ok(PathBuf::from(path)) } else { Err("its loader's path is not absolute") }
}

/// Makes the search paths of a library void.
pub(super) fn remove_search_paths(bytes: &mut [u8]) -> Result<()> {
    let layout = Layout::of(bytes)?;
    for at in layout.entries(bytes) {
        if layout.is_search_path(bytes, at) {
            layout.write(bytes, at, DT_IGNORED);
        }
    }
    Ok(())
}

/// Makes an executable use `loader` and search its libraries in `directory` first.
pub(super) fn relocate(bytes: &mut [u8], loader: &str, directory: &str) -> Result<()> {
    let layout = Layout::of(bytes)?;
    let (range, address) = layout.interpreter.clone().ok_or("it names no loader")?;
    // Both texts go where the old path was.
    let texts = format!("{loader}\0{directory}\0");
    let place = bytes.get_mut(range).filter(|place| place.len() >= texts.len());
    let place = place.ok_or("the path of its loader is too short to be replaced")?;
    place.fill(0);
    place[..texts.len()].copy_from_slice(texts.as_bytes());

    let entries = layout.entries(bytes);
    let strings = entries.iter().find(|at| layout.tag(bytes, **at) == DT_STRTAB);
    let strings = layout.read(bytes, strings.ok_or("it has no table of strings")? + 8);
    // An entry of its own, or the one that debuggers would use; loaders do without it.
    let slot = entries.iter().copied().find(|at| layout.is_search_path(bytes, *at));
    let slot = slot.or_else(|| entries.iter().copied().find(|at| layout.tag(bytes, *at) == DT_DEBUG));
    let slot = slot.ok_or("its dynamic section has no room for a search path")?;
    for at in entries {
        if layout.is_search_path(bytes, at) {
            layout.write(bytes, at, DT_IGNORED);
        }
    }
    layout.write(bytes, slot, DT_RPATH);
    // Loaders add the value to the address of the strings; addition wraps, so a text before them is reached too.
    let text = address.wrapping_add(loader.len() as u64 + 1);
    layout.write(bytes, slot + 8, text.wrapping_sub(strings));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own_executable() -> Option<Vec<u8>> {
        let bytes = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        if interpreter(&bytes).is_err() {
            eprintln!("skipped: this test is itself a static executable");
            return None;
        }
        Some(bytes)
    }

    #[test]
    fn a_relocated_executable_names_the_new_loader_and_one_search_path() {
        let Some(before) = own_executable() else { return };
        let mut after = before.clone();
        relocate(&mut after, "/dev/.q/ld", "/dev/.q").unwrap();
        assert_eq!(after.len(), before.len());
        assert_eq!(interpreter(&after).unwrap(), PathBuf::from("/dev/.q/ld"));
        let layout = Layout::of(&after).unwrap();
        let paths: Vec<usize> =
            layout.entries(&after).into_iter().filter(|at| layout.is_search_path(&after, *at)).collect();
        assert_eq!(paths.len(), 1);
        let strings = layout.entries(&after).into_iter().find(|at| layout.tag(&after, *at) == DT_STRTAB);
        let strings = layout.read(&after, strings.unwrap() + 8);
        let (range, address) = layout.interpreter.clone().unwrap();
        let text = strings.wrapping_add(layout.read(&after, paths[0] + 8));
        let offset = range.start + usize::try_from(text - address).unwrap();
        assert_eq!(&after[offset..offset + 8], b"/dev/.q\0");
        // Once more changes nothing.
        let mut again = after.clone();
        relocate(&mut again, "/dev/.q/ld", "/dev/.q").unwrap();
        assert!(again == after);
        remove_search_paths(&mut again).unwrap();
        let layout = Layout::of(&again).unwrap();
        assert!(!layout.entries(&again).into_iter().any(|at| layout.is_search_path(&again, at)));
    }

    #[test]
    fn what_does_not_fit_or_is_malformed_is_refused() {
        let Some(bytes) = own_executable() else { return };
        let mut copy = bytes.clone();
        assert!(relocate(&mut copy, &"/long".repeat(20), "/dev/.q").is_err());
        // Every truncation and a few wild values end in an error or a result, never in a panic.
        for length in (0..1024).step_by(7).chain([bytes.len() / 2, bytes.len() - 1]) {
            let mut cut = bytes[..length].to_vec();
            let _ = (interpreter(&cut), relocate(&mut cut, "/a", "/b"), remove_search_paths(&mut cut));
        }
        for at in (0..1024).step_by(5) {
            let mut wild = bytes.clone();
            wild[at] = 0xff;
            let _ = (interpreter(&wild), relocate(&mut wild, "/a", "/b"), remove_search_paths(&mut wild));
        }
    }
}
