// SPDX-License-Identifier: Apache-2.0
//! Standard input as a Dockerfile or as a context.

use std::io::{Read, Write as _};
use std::path::Path;

use tempfile::TempPath;

use crate::CommandError;

/// No Dockerfile is larger.
const MAX_DOCKERFILE_BYTES: u64 = 16 << 20;
/// One block of a tar archive (POSIX.1-2024, pax, ustar interchange format).
const TAR_BLOCK: usize = 512;

/// What came on standard input.
#[derive(Debug)]
pub enum Input {
    /// An archive, written to a file that goes away with this value.
    Archive(TempPath),
    /// A text.
    Text(Vec<u8>),
}

/// Reads standard input to its end as a Dockerfile.
///
/// # Errors
/// When it can't be read, is empty or too large.
pub fn read_text(input: &mut dyn Read) -> Result<Vec<u8>, CommandError> {
    read_rest(input, Vec::new())
}

/// Reads standard input to its end; a tar archive, compressed or not, goes to a file in `directory`.
///
/// # Errors
/// When it can't be read or written, is empty or, for a Dockerfile, too large.
pub fn read_any(input: &mut dyn Read, directory: &Path) -> Result<Input, CommandError> {
    let mut start = Vec::new();
    input.take(TAR_BLOCK as u64).read_to_end(&mut start).map_err(|error| reading(&error))?;
    if !is_archive(&start) {
        return read_rest(input, start).map(Input::Text);
    }
    let writing = |error: &std::io::Error| CommandError::io("can't write the context to", directory, error);
    let mut file = tempfile::Builder::new()
        .prefix("polyarch-context-")
        .tempfile_in(directory)
        .map_err(|error| writing(&error))?;
    file.write_all(&start).map_err(|error| writing(&error))?;
    let mut buffer = vec![0; 256 << 10];
    loop {
        let count = match input.read(&mut buffer) {
            Ok(0) => return Ok(Input::Archive(file.into_temp_path())),
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(reading(&error)),
        };
        file.write_all(&buffer[..count]).map_err(|error| writing(&error))?;
    }
}

fn read_rest(input: &mut dyn Read, mut text: Vec<u8>) -> Result<Vec<u8>, CommandError> {
    input.take(MAX_DOCKERFILE_BYTES + 1).read_to_end(&mut text).map_err(|error| reading(&error))?;
    if text.is_empty() {
        return Err(CommandError::usage(
            "standard input is empty; a Dockerfile or a tar archive was expected",
        ));
    }
    if text.len() as u64 > MAX_DOCKERFILE_BYTES {
        return Err(CommandError::usage(
            "standard input is neither a tar archive nor a Dockerfile of less than 16 MiB",
        ));
    }
    Ok(text)
}

fn reading(error: &std::io::Error) -> CommandError {
    CommandError::io("can't read", "standard input", error)
}

/// Tells archives by how they begin: compressed ones by their magic, tar by its header's checksum.
fn is_archive(start: &[u8]) -> bool {
    let magics: [&[u8]; 4] = [b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"];
    magics.iter().any(|magic| start.starts_with(magic)) || is_tar_header(start)
}

fn is_tar_header(block: &[u8]) -> bool {
    if block.len() < TAR_BLOCK {
        return false;
    }
    let field = &block[148..156];
    let digits: String = field.iter().map(|byte| char::from(*byte)).collect();
    let Ok(stated) = u32::from_str_radix(digits.trim_matches([' ', '\0']), 8) else { return false };
    // The field itself counts as blanks.
    let outside = block[..148].iter().chain(&block[156..TAR_BLOCK]);
    stated == outside.map(|byte| u32::from(*byte)).sum::<u32>() + 8 * u32::from(b' ')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tar_header() -> Vec<u8> {
        let mut block = vec![0; TAR_BLOCK];
        block[..4].copy_from_slice(b"file");
        block[148..156].copy_from_slice(b"        ");
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        block
    }

    #[test]
    fn archives_and_texts_are_told_apart() {
        let directory = tempfile::tempdir().unwrap();
        let read = |bytes: &[u8]| read_any(&mut &*bytes, directory.path());
        let mut archive = tar_header();
        archive.extend([7; 5000]);
        let Input::Archive(path) = read(&archive).unwrap() else { panic!("not told as an archive") };
        assert_eq!(std::fs::read(&path).unwrap(), archive);
        assert!(matches!(read(b"\x1f\x8b\x08rest").unwrap(), Input::Archive(_)));
        let Input::Text(text) = read(b"FROM scratch\n").unwrap() else { panic!("not told as a text") };
        assert_eq!(text, b"FROM scratch\n");
        let long = [b"# ".as_slice(), &[b'x'; 2000]].concat();
        assert!(matches!(read(&long).unwrap(), Input::Text(text) if text == long));
        drop(path);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "the files have gone");
    }

    #[test]
    fn nothing_and_far_too_much_are_refused() {
        let error = read_text(&mut &b""[..]).unwrap_err();
        assert!(error.render().contains("empty"), "{}", error.render());
        let mut endless = std::io::repeat(b'x');
        assert!(read_text(&mut endless).unwrap_err().render().contains("16 MiB"));
    }
}
