// SPDX-License-Identifier: Apache-2.0
//! A reader that vouches for what it read.

use std::io::{self, Read};

use polyarch_oci::{Descriptor, Digest, Hasher};

use crate::StoreError;

/// Reads bytes that must have a given size and digest.
///
/// The last bytes are handed out only after size and digest have proved right, so a consumer that read
/// to the promised size has read the right bytes, whether or not it read on to the end. Errors are
/// `io::Error`s of kind `InvalidData` that carry a [`StoreError`]. After an error the reader keeps failing.
pub struct VerifiedReader<R> {
    inner: R,
    expected: Digest,
    size: u64,
    count: u64,
    state: State,
}

enum State {
    Reading(Hasher),
    Verified,
    Failed,
}

impl<R: Read> VerifiedReader<R> {
    /// Wraps a reader of the bytes that a descriptor names.
    pub fn new(inner: R, descriptor: &Descriptor) -> VerifiedReader<R> {
        VerifiedReader::with(inner, descriptor.digest.clone(), descriptor.size)
    }

    /// Wraps a reader of `size` bytes with digest `expected`.
    pub fn with(inner: R, expected: Digest, size: u64) -> VerifiedReader<R> {
        let state = State::Reading(Hasher::new(expected.algorithm()));
        VerifiedReader { inner, expected, size, count: 0, state }
    }

    /// Checks the end: no byte more, and the right digest.
    fn finish(&mut self, hasher: Hasher) -> io::Result<()> {
        let mut extra = [0];
        let more = loop {
            match self.inner.read(&mut extra) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other?,
            }
        };
        if self.count + (more as u64) != self.size {
            return Err(self.wrong_size(self.count + more as u64));
        }
        let found = hasher.finish();
        if found != self.expected {
            return Err(StoreError::Mismatch { expected: self.expected.clone(), found }.into());
        }
        Ok(())
    }

    fn wrong_size(&self, found: u64) -> io::Error {
        StoreError::Size { digest: self.expected.clone(), expected: self.size, found }.into()
    }
}

impl<R: Read> Read for VerifiedReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let mut hasher = match std::mem::replace(&mut self.state, State::Failed) {
            State::Reading(hasher) => hasher,
            State::Verified => {
                self.state = State::Verified;
                return Ok(0);
            }
            State::Failed => return Err(self.wrong_size(self.count)),
        };
        // Never reads past the promised size, so the sum stays within it.
        let room = usize::try_from(self.size - self.count).unwrap_or(usize::MAX).min(buffer.len());
        let got = match self.inner.read(&mut buffer[..room]) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                self.state = State::Reading(hasher);
                return Err(error);
            }
            other => other?,
        };
        hasher.update(&buffer[..got]);
        self.count += got as u64;
        if got > 0 && self.count < self.size {
            self.state = State::Reading(hasher);
            return Ok(got);
        }
        self.finish(hasher)?;
        self.state = State::Verified;
        Ok(got)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8], digest_of: &[u8], size: u64) -> Result<Vec<u8>, StoreError> {
        let mut out = Vec::new();
        let mut reader = VerifiedReader::with(bytes, Digest::of(digest_of), size);
        reader.read_to_end(&mut out).map_err(StoreError::stream("read"))?;
        Ok(out)
    }

    #[test]
    fn right_bytes_pass() {
        assert_eq!(read(b"abc", b"abc", 3).unwrap(), b"abc");
        assert_eq!(read(b"", b"", 0).unwrap(), b"");
    }

    #[test]
    fn every_lie_is_found() {
        assert!(matches!(read(b"abd", b"abc", 3), Err(StoreError::Mismatch { .. })));
        assert!(matches!(read(b"ab", b"ab", 3), Err(StoreError::Size { expected: 3, found: 2, .. })));
        assert!(matches!(read(b"abcd", b"abc", 3), Err(StoreError::Size { expected: 3, found: 4, .. })));
        assert!(matches!(read(b"x", b"", 0), Err(StoreError::Size { .. })));
        assert!(matches!(read(b"", b"x", 0), Err(StoreError::Mismatch { .. })));
    }

    #[test]
    fn who_stops_at_the_promised_size_has_been_told() {
        let mut reader = VerifiedReader::with(&b"abd"[..], Digest::of("abc"), 3);
        assert!(reader.read_exact(&mut [0; 3]).is_err());
        assert!(reader.read(&mut [0; 3]).is_err(), "it keeps failing");
    }
}
