// SPDX-License-Identifier: Apache-2.0
//! What is remembered of builds: who asked for what, how it ended, what it said, how it was made.
//!
//! A record is a message of BuildKit's API ([`BuildHistoryRecord`]), kept in the store under a key made of its name;
//! what it refers to (progress, the whole error, provenance, trace) are attachments beside it, which belong to
//! it alone and go with it. Records of the command's own builds and of clients' builds are the same. Those that are
//! not pinned are at most [`MAX_RECORDS`]: the oldest go first. The form on the disk: docs/history.md.

mod filter;
mod log;
mod recorder;
mod trace;

use std::str::FromStr as _;

use polyarch_build::{BuildError, ErrorKind};
use polyarch_oci::Digest;
use polyarch_store::{Store, StoreError};
use prost::Message as _;

use crate::api::control::{BuildHistoryRecord, BuildResultInfo, Descriptor};

pub use filter::{Filter, FilterError, status_of};
pub use log::{events_of, messages_of};
pub use recorder::{LOCAL_CONTEXT, Outcome, Recorder};

/// The most records that are not pinned; BuildKit's own number.
pub const MAX_RECORDS: usize = 50;

/// The namespace of records in the store.
const RECORDS: &str = "history";
/// The namespace of what records refer to.
const ATTACHMENTS: &str = "history-attachments";
/// The largest attachment, in bytes: what a record of the store holds.
pub(crate) const MAX_ATTACHMENT_BYTES: usize = 7 << 20;

/// The history in a store; clones are the same.
#[derive(Clone)]
pub struct History {
    store: Store,
}

impl History {
    /// Returns the history of a store.
    pub fn new(store: &Store) -> History {
        History { store: store.clone() }
    }

    /// Returns all records, the newest first; what can't be read is left out.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn list(&self) -> Result<Vec<BuildHistoryRecord>, BuildError> {
        let mut records = Vec::new();
        for found in self.store.records(RECORDS).map_err(|error| failed(&error))? {
            let (_, bytes) = found.map_err(|error| failed(&error))?;
            records.extend(BuildHistoryRecord::decode(bytes.as_slice()));
        }
        records.sort_by_key(|record| std::cmp::Reverse(age_key(record)));
        Ok(records)
    }

    /// Finds the record that somebody means: the newest for an empty text, `^N` for the one N before it, a whole
    /// name, also behind `BUILDER/NODE/`, or the beginning of one.
    ///
    /// # Errors
    /// When there is none, or more than one begins so.
    pub fn find(&self, text: &str) -> Result<BuildHistoryRecord, BuildError> {
        let unknown = |message: String| {
            let error = BuildError::new(ErrorKind::Usage, message);
            error.with_hint("see what is remembered: polyarch buildx history ls")
        };
        let mut records = self.list()?;
        if records.is_empty() {
            return Err(unknown("no build is remembered".to_owned()));
        }
        let before = if text.is_empty() {
            Some(0)
        } else {
            text.strip_prefix('^').map(usize::from_str).transpose().map_err(|_| {
                unknown(format!("invalid offset {text:?}: write ^1 for the build before the last"))
            })?
        };
        if let Some(before) = before {
            return match before < records.len() {
                true => Ok(records.swap_remove(before)),
                false => Err(unknown(format!("no build record found with offset {before}"))),
            };
        }
        let name = text.rsplit('/').next().unwrap_or(text);
        if let Some(record) = self.get(name)? {
            return Ok(record);
        }
        records.retain(|record| !name.is_empty() && record.r#ref.starts_with(name));
        match records.len() {
            1 => Ok(records.swap_remove(0)),
            0 => Err(unknown(format!("no build record found for {text:?}"))),
            count => Err(unknown(format!("{count} build records begin with {text:?}"))),
        }
    }

    /// Returns a record by its whole name.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn get(&self, name: &str) -> Result<Option<BuildHistoryRecord>, BuildError> {
        let bytes = self.store.get_record(RECORDS, &key_of(name)).map_err(|error| failed(&error))?;
        let record = bytes.and_then(|bytes| BuildHistoryRecord::decode(bytes.as_slice()).ok());
        Ok(record.filter(|record| record.r#ref == name))
    }

    /// Keeps a record, and lets the oldest ones go where there are too many.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn put(&self, record: &BuildHistoryRecord) -> Result<(), BuildError> {
        self.write(record)?;
        let records = self.list()?;
        for old in records.iter().filter(|record| !record.pinned).skip(MAX_RECORDS) {
            self.remove(&old.r#ref)?;
        }
        Ok(())
    }

    /// Pins a record or lets it loose; tells whether there is one.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn pin(&self, name: &str, is_pinned: bool) -> Result<Option<BuildHistoryRecord>, BuildError> {
        let Some(mut record) = self.get(name)? else { return Ok(None) };
        if record.pinned != is_pinned {
            record.pinned = is_pinned;
            record.generation = record.generation.saturating_add(1);
            self.write(&record)?;
        }
        Ok(Some(record))
    }

    /// Removes a record and what it refers to; tells whether there was one.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn remove(&self, name: &str) -> Result<bool, BuildError> {
        let record = self.get(name)?;
        // First the record: what nobody refers to is never found.
        let was_there = self.store.remove_record(RECORDS, &key_of(name)).map_err(|error| failed(&error))?;
        for attachment in record.iter().flat_map(attachments_of) {
            if let Some(key) = attachment_key(name, &attachment.digest) {
                self.store.remove_record(ATTACHMENTS, &key).map_err(|error| failed(&error))?;
            }
        }
        Ok(was_there)
    }

    /// Reads something that a record refers to.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn attachment(&self, record: &str, digest: &str) -> Result<Option<Vec<u8>>, BuildError> {
        let Some(key) = attachment_key(record, digest) else { return Ok(None) };
        self.store.get_record(ATTACHMENTS, &key).map_err(|error| failed(&error))
    }

    /// Finds what any record refers to by its digest: the descriptor, and the bytes.
    ///
    /// # Errors
    /// When the disk refuses.
    pub(crate) fn find_attachment(&self, digest: &str) -> Result<Option<Vec<u8>>, BuildError> {
        for record in self.list()? {
            if attachments_of(&record).any(|attachment| attachment.digest == digest)
                && let Some(bytes) = self.attachment(&record.r#ref, digest)?
            {
                return Ok(Some(bytes));
            }
        }
        Ok(None)
    }

    /// Keeps what a record refers to; the record comes after it.
    pub(crate) fn attach(
        &self,
        record: &str,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<Descriptor, BuildError> {
        let digest = Digest::of(bytes).to_string();
        if let Some(key) = attachment_key(record, &digest) {
            self.store.put_record(ATTACHMENTS, &key, bytes).map_err(|error| failed(&error))?;
        }
        Ok(Descriptor {
            media_type: media_type.to_owned(),
            digest,
            size: i64::try_from(bytes.len()).unwrap_or(i64::MAX),
            ..Descriptor::default()
        })
    }

    fn write(&self, record: &BuildHistoryRecord) -> Result<(), BuildError> {
        let key = key_of(&record.r#ref);
        self.store.put_record(RECORDS, &key, &record.encode_to_vec()).map_err(|error| failed(&error))
    }
}

/// Returns what a record refers to and keeps beside it; images are not among that.
fn attachments_of(record: &BuildHistoryRecord) -> impl Iterator<Item = &Descriptor> {
    let one = [&record.logs, &record.trace, &record.external_error].into_iter().flatten();
    let results = record.result.iter().chain(record.results.values());
    one.chain(results.flat_map(|result: &BuildResultInfo| &result.attestations))
}

/// Returns when a build began, for sorting.
fn age_key(record: &BuildHistoryRecord) -> (i64, i32) {
    record.created_at.as_ref().map_or((0, 0), |time| (time.seconds, time.nanos))
}

/// Returns the key of a record; names are made up by clients.
fn key_of(name: &str) -> String {
    Digest::of(name).hex().to_owned()
}

/// Returns the key of an attachment; `None` for what is no digest of ours.
fn attachment_key(record: &str, digest: &str) -> Option<String> {
    let digest: Digest = digest.parse().ok()?;
    (digest.hex().len() == 64).then(|| format!("{}-{}", &key_of(record)[..32], digest.hex()))
}

fn failed(error: &StoreError) -> BuildError {
    BuildError::from_source(ErrorKind::Storage, "the history of builds", error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(name: &str, seconds: i64) -> BuildHistoryRecord {
        BuildHistoryRecord {
            r#ref: name.to_owned(),
            created_at: Some(prost_types::Timestamp { seconds, nanos: 0 }),
            ..BuildHistoryRecord::default()
        }
    }

    fn history() -> (tempfile::TempDir, History) {
        let directory = tempfile::tempdir().unwrap();
        let history = History::new(&Store::open(directory.path()).unwrap());
        (directory, history)
    }

    #[test]
    fn records_come_back_the_newest_first_and_go_with_what_they_refer_to() {
        let (_directory, history) = history();
        let mut one = record("one", 1);
        one.logs = Some(history.attach("one", "text/plain", b"said").unwrap());
        history.put(&one).unwrap();
        history.put(&record("../two", 2)).unwrap();
        let names: Vec<String> = history.list().unwrap().into_iter().map(|it| it.r#ref).collect();
        assert_eq!(names, ["../two", "one"]);
        let digest = Digest::of("said").to_string();
        assert_eq!(history.find_attachment(&digest).unwrap().as_deref(), Some(&b"said"[..]));
        assert!(history.remove("one").unwrap() && !history.remove("one").unwrap());
        assert_eq!(history.attachment("one", &digest).unwrap(), None);
        assert_eq!(history.find_attachment("no digest").unwrap(), None);
    }

    #[test]
    fn the_oldest_go_and_the_pinned_stay() {
        let (_directory, history) = history();
        history.put(&record("kept", 0)).unwrap();
        assert!(history.pin("kept", true).unwrap().is_some_and(|it| it.pinned));
        for number in 1..=MAX_RECORDS + 2 {
            history.put(&record(&number.to_string(), i64::try_from(number).unwrap())).unwrap();
        }
        let names: Vec<String> = history.list().unwrap().into_iter().map(|it| it.r#ref).collect();
        assert_eq!(names.len(), MAX_RECORDS + 1);
        assert!(names.contains(&"kept".to_owned()) && !names.contains(&"2".to_owned()));
        let found = |text: &str| history.find(text).map(|record| record.r#ref);
        assert_eq!(found("").unwrap(), "52");
        assert_eq!(found("^1").unwrap(), "51");
        assert_eq!(found("builder/node/3").unwrap(), "3");
        assert_eq!(found("ke").unwrap(), "kept");
        for text in ["^99", "^x", "1", "zz", "a/"] {
            assert!(found(text).is_err(), "{text}");
        }
        assert!(history.pin("2", true).unwrap().is_none());
    }
}
