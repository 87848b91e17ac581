// SPDX-License-Identifier: Apache-2.0
//! The content of one file as it comes: its digest, and what its beginning says.

use polyarch_oci::{Algorithm, Hasher};

use crate::elf::{Program, Reading, read_program};

/// The beginning of a file in which programs tell what they are.
const HEAD_BYTES: usize = 64 << 10;
/// How much of an ELF file is kept in memory when its interpreter stands further on.
const MAX_HEAD_BYTES: u64 = 256 << 20;

/// Hashes what comes and keeps as much of the beginning as is needed.
pub(crate) struct Content {
    hasher: Hasher,
    is_hashed: bool,
    head: Vec<u8>,
    wanted: usize,
}

impl Content {
    /// Begins a file. Of one that is not hashed the beginning alone is looked at.
    pub(crate) fn new(is_hashed: bool) -> Content {
        let hasher = Hasher::new(Algorithm::Sha256);
        Content { hasher, is_hashed, head: Vec::new(), wanted: HEAD_BYTES }
    }

    /// Takes the next bytes.
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        if self.is_hashed {
            self.hasher.update(bytes);
        }
        let mut bytes = bytes;
        while self.head.len() < self.wanted && !bytes.is_empty() {
            let count = bytes.len().min(self.wanted - self.head.len());
            self.head.extend_from_slice(&bytes[..count]);
            bytes = &bytes[count..];
            if self.head.len() == self.wanted
                && let Reading::NeedsMore(needed) = read_program(&self.head, false)
                && needed <= MAX_HEAD_BYTES
            {
                // The cap is far below what a size in memory can be.
                self.wanted = needed as usize;
            }
        }
    }

    /// Takes bytes of a hole, which are zeros.
    pub(crate) fn zeros(&mut self, count: u64) {
        let zeros = [0; 4096];
        let mut left = count;
        if !self.is_hashed {
            // Costs no time, however large the hole is: what comes after it is no beginning any more.
            left = left.min(HEAD_BYTES.saturating_sub(self.head.len()) as u64);
        }
        let is_cut = left < count;
        while left > 0 {
            let len = left.min(zeros.len() as u64);
            self.update(&zeros[..len as usize]);
            left -= len;
        }
        if is_cut {
            self.wanted = self.head.len();
        }
    }

    /// Returns the SHA-256 in hexadecimal, empty when it is not hashed, and what kind of program it is.
    pub(crate) fn finish(self) -> (String, Option<Program>) {
        let program = match read_program(&self.head, true) {
            Reading::Known(program) => program,
            Reading::NeedsMore(_) => None,
        };
        let sha256 = if self.is_hashed { self.hasher.finish().hex().to_owned() } else { String::new() };
        (sha256, program)
    }
}
