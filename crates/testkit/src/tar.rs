// SPDX-License-Identifier: Apache-2.0
//! Small tar archives (POSIX ustar), the same bytes each time.

/// Collects entries of an archive.
#[derive(Debug, Clone, Default)]
pub struct TarBuilder {
    bytes: Vec<u8>,
}

const BLOCK: usize = 512;

impl TarBuilder {
    /// Starts an archive.
    pub fn new() -> TarBuilder {
        TarBuilder::default()
    }

    /// Adds a directory.
    #[must_use]
    pub fn directory(mut self, path: &str, mode: u32) -> TarBuilder {
        self.header(&format!("{}/", path.trim_end_matches('/')), b'5', mode, 0, "");
        self
    }

    /// Adds a file.
    #[must_use]
    pub fn file(mut self, path: &str, mode: u32, content: impl AsRef<[u8]>) -> TarBuilder {
        let content = content.as_ref();
        self.header(path, b'0', mode, content.len(), "");
        self.bytes.extend_from_slice(content);
        let end = self.bytes.len().next_multiple_of(BLOCK);
        self.bytes.resize(end, 0);
        self
    }

    /// Adds a symbolic link.
    #[must_use]
    pub fn symlink(mut self, path: &str, target: &str) -> TarBuilder {
        self.header(path, b'2', 0o777, 0, target);
        self
    }

    /// Adds a hard link to an earlier entry.
    #[must_use]
    pub fn hard_link(mut self, path: &str, target: &str) -> TarBuilder {
        self.header(path, b'1', 0o644, 0, target);
        self
    }

    /// Returns the archive with its end.
    pub fn finish(mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len() + 2 * BLOCK, 0);
        self.bytes
    }

    /// Writes a header (POSIX.1-2024, pax, ustar interchange format).
    fn header(&mut self, path: &str, kind: u8, mode: u32, size: usize, target: &str) {
        assert!(path.len() <= 100 && target.len() <= 100, "{path}: names have at most 100 bytes here");
        let mut block = [0u8; BLOCK];
        let mut put = |at: usize, text: &str| block[at..at + text.len()].copy_from_slice(text.as_bytes());
        put(0, path);
        put(100, &format!("{mode:07o}\0"));
        put(108, "0000000\0");
        put(116, "0000000\0");
        put(124, &format!("{size:011o}\0"));
        put(136, &format!("{:011o}\0", 0));
        put(148, "        ");
        put(157, target);
        put(257, "ustar\x0000");
        block[156] = kind;
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.bytes.extend_from_slice(&block);
    }
}
