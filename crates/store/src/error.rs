// SPDX-License-Identifier: Apache-2.0
//! What can go wrong with a store.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use polyarch_oci::{Digest, DocumentError};

/// Says what could not be done, and with what.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system refused an operation.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// The operation, as an infinitive.
        action: &'static str,
        /// The path.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The root holds something else, or a store of another version.
    #[error(
        "{} is not a store of version 1 (its format file says {found:?}); use another directory or the version of polyarch that made it",
        path.display()
    )]
    Format {
        /// The format file.
        path: PathBuf,
        /// Its first bytes.
        found: String,
    },
    /// Other processes have the store open.
    #[error(
        "store {} is in use by other processes{holders}; waited {} s; let them end and try again",
        root.display(), waited.as_secs()
    )]
    Busy {
        /// The store.
        root: PathBuf,
        /// Their process ids, as ` (pid 1, 2)`, or nothing when unknown.
        holders: String,
        /// How long was waited.
        waited: Duration,
    },
    /// This process has another handle of the store.
    #[error("store {} is still in use by this process", root.display())]
    InUse {
        /// The store.
        root: PathBuf,
    },
    /// There is no such blob.
    #[error("blob {digest} is not in the store")]
    MissingBlob {
        /// The wanted digest.
        digest: Digest,
    },
    /// Bytes have another digest than was promised.
    #[error("content has digest {found} but {expected} was expected")]
    Mismatch {
        /// The promised digest.
        expected: Digest,
        /// The digest of the bytes.
        found: Digest,
    },
    /// There are more or fewer bytes than was promised.
    #[error("content of {digest} has {found} bytes but {expected} were expected")]
    Size {
        /// The digest of the content.
        digest: Digest,
        /// The promised size.
        expected: u64,
        /// The size; when more bytes came than promised, the size at which reading stopped.
        found: u64,
    },
    /// What comes would leave too little free on the disk.
    #[error(
        "{bytes} bytes are too many for the disk of {}: {free} are free, and {reserve} of them are kept so; free some with `polyarch prune`",
        root.display()
    )]
    NoRoom {
        /// The store.
        root: PathBuf,
        /// How much comes.
        bytes: u64,
        /// How much is free.
        free: u64,
        /// How much stays free.
        reserve: u64,
    },
    /// A blob is too large to be read into memory.
    #[error("blob {digest} has {size} bytes, at most {cap} are read into memory")]
    TooLarge {
        /// The blob.
        digest: Digest,
        /// Its declared size.
        size: u64,
        /// The cap.
        cap: u64,
    },
    /// A blob is not the document that it should be.
    #[error("blob {digest} cannot be used")]
    Document {
        /// The blob.
        digest: Digest,
        /// What is wrong with it.
        #[source]
        source: DocumentError,
    },
    /// Indexes are nested too deeply or name too many blobs.
    #[error("image {digest} is nested deeper than {depth} levels or names more than {blobs} blobs")]
    TooComplex {
        /// The root document.
        digest: Digest,
        /// The largest depth.
        depth: usize,
        /// The largest number of distinct blobs.
        blobs: usize,
    },
    /// A file of a name cannot be read.
    #[error("{} is not a valid reference file; remove it and set the name again", path.display())]
    CorruptRef {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        #[source]
        source: serde_json::Error,
    },
    /// What is said about a name is more than its file may have.
    #[error(
        "what is kept of the name {name} would have {size} bytes, at most {cap} are read; nothing was changed"
    )]
    RefSize {
        /// The name.
        name: String,
        /// The size of the file.
        size: u64,
        /// The cap.
        cap: u64,
    },
    /// A name or a working list leads to something that cannot be read.
    #[error(
        "what {name} stands for cannot be read; fetch or make it again, or take the name away: {removal}"
    )]
    Reached {
        /// The name.
        name: String,
        /// The command that takes it away.
        removal: String,
        /// What cannot be read.
        #[source]
        source: Box<StoreError>,
    },
    /// A file below `refs` has a name that no reference encodes to.
    #[error("{} is not the file name of a reference; remove the file", path.display())]
    StrayRef {
        /// The file.
        path: PathBuf,
    },
    /// A namespace or key of a record is malformed.
    #[error("record {namespace}/{key} has a malformed name (lower-case letters, digits, `-`; keys also `_`)")]
    RecordName {
        /// The namespace.
        namespace: String,
        /// The key.
        key: String,
    },
    /// A record is too large to be kept.
    #[error("record {namespace}/{key} has {size} bytes, at most {cap} are kept")]
    RecordSize {
        /// The namespace.
        namespace: String,
        /// The key.
        key: String,
        /// Its size.
        size: u64,
        /// The cap.
        cap: u64,
    },
    /// A tar archive is malformed.
    #[error("archive is not a valid tar file")]
    Tar {
        /// What the parser said.
        #[source]
        source: tar_core::parse::ParseError,
    },
    /// A stream that is read or written for a caller failed.
    #[error("cannot {action} the archive")]
    Stream {
        /// The operation, as an infinitive.
        action: &'static str,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// An archive or layout has something that is refused.
    #[error("archive entry {path:?} {problem}")]
    Entry {
        /// The path within the archive or layout.
        path: String,
        /// What is wrong with it, as a predicate.
        problem: &'static str,
    },
    /// A JSON file of an archive or layout is malformed.
    #[error("{path} of the archive is not valid JSON of its type")]
    ArchiveJson {
        /// The path within the archive or layout.
        path: String,
        /// What the parser said.
        #[source]
        source: serde_json::Error,
    },
    /// An archive lacks the file that says what is in it.
    #[error("no image in it: neither index.json (OCI layout) nor manifest.json (docker save) was found")]
    NoImage,
    /// An OCI layout of an unknown version.
    #[error("OCI layout has version {found:?}, only 1.0.0 is supported")]
    LayoutVersion {
        /// The version found.
        found: String,
    },
    /// A document is an index where one platform's manifest is needed.
    #[error("{digest} is an index; a docker archive holds one platform, so name the manifest of one")]
    NotAManifest {
        /// The document.
        digest: Digest,
    },
    /// A manifest and its config disagree.
    #[error("manifest {digest} has {layers} layers but its config has {diff_ids} diff ids")]
    LayerCount {
        /// The manifest.
        digest: Digest,
        /// Layers of the manifest.
        layers: usize,
        /// Diff ids of the config.
        diff_ids: usize,
    },
}

impl StoreError {
    /// Makes a mapper of system errors for an action on a path.
    pub(crate) fn io(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> StoreError {
        let path = path.as_ref().to_owned();
        move |source| StoreError::Io { action, path, source }
    }

    /// Makes an error of a foreign stream, or gives back the store's own error that travelled in it.
    pub(crate) fn stream(action: &'static str) -> impl FnOnce(io::Error) -> StoreError {
        move |source| match source.downcast::<StoreError>() {
            Ok(own) => own,
            Err(source) => StoreError::Stream { action, source },
        }
    }
}

/// Lets the store's errors travel through `Read` and `Write`.
impl From<StoreError> for io::Error {
    fn from(error: StoreError) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, error)
    }
}
