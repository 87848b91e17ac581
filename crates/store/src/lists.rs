// SPDX-License-Identifier: Apache-2.0
//! Working lists: images that are being joined under a name, before anything is pushed.
//!
//! A list is a file of its own beside the names, so that `images` does not show what is not an image
//! yet. Its manifests are kept from collection as those of a name are. Changes are made under a lock,
//! one after the other, so that two commands at once both count.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use polyarch_oci::media_type::Flavour;
use polyarch_oci::{Descriptor, Reference};
use serde::{Deserialize, Serialize};

use crate::{Store, StoreError, lock, ref_name, refs};

/// The largest file of a list, in bytes.
const MAX_LIST_BYTES: u64 = 16 << 20;

/// How long a change waits for those of others.
const PATIENCE: Duration = Duration::from_secs(60);

/// Images that are being joined.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct WorkingList {
    /// Which media types the index is to have; `None` leaves that to its entries.
    pub flavour: Option<Flavour>,
    /// Annotations of the index.
    pub annotations: BTreeMap<String, String>,
    /// The images, and what is said about them, in the order in which they were added.
    pub entries: Vec<ListEntry>,
    /// When the list was last changed.
    pub updated: Timestamp,
}

/// One image of a working list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ListEntry {
    /// What it was added as: a full reference, or the text of another kind of source.
    pub source: String,
    /// The manifest, with the platform and the annotations of the entry; its bytes are in the store.
    pub descriptor: Descriptor,
    /// The repository that has its blobs; `None` when the store has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Reference>,
}

#[derive(Serialize, Deserialize)]
struct ListFile {
    reference: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    format: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
    entries: Vec<ListEntry>,
    updated: Timestamp,
}

impl Store {
    /// Reads a working list; `None` when there is none of that name.
    ///
    /// A name without tag and digest gets the tag `latest`, here and in the other functions on lists.
    pub fn list(&self, name: &Reference) -> Result<Option<WorkingList>, StoreError> {
        read_list(&self.list_path(name))
    }

    /// Changes a working list: `change` gets it as it is, `None` when there is none, and leaves it as it
    /// is to be; `None` removes it. Atomic, durable after everything written so far, and one after the
    /// other when several processes do it; the change must not wait for anything.
    ///
    /// # Errors
    /// What `change` returns, the list being left alone; [`StoreError::MissingBlob`] when a manifest is
    /// not in the store; [`StoreError::RefSize`] when it says too much; and what keeps the file from being
    /// written.
    pub fn change_list<T, E: From<StoreError>>(
        &self,
        name: &Reference,
        change: impl FnOnce(&mut Option<WorkingList>) -> Result<T, E>,
    ) -> Result<T, E> {
        let path = self.list_path(name);
        let lock = self.lock_lists()?;
        let before = read_list(&path)?;
        let mut list = before.clone();
        let result = change(&mut list)?;
        match list {
            Some(list) if before.as_ref() != Some(&list) => self.write_list(name, &path, list)?,
            None if before.is_some() => {
                self.inner.disk.remove(&path)?;
                self.inner.disk.sync_dir(path.parent().unwrap_or(&self.inner.root))?;
            }
            _ => {}
        }
        drop(lock);
        Ok(result)
    }

    /// Returns all working lists, sorted by name.
    ///
    /// # Errors
    /// When any of them cannot be read: leaving one out would let its manifests be collected.
    pub fn lists(&self) -> Result<Vec<(Reference, WorkingList)>, StoreError> {
        let mut found = Vec::new();
        refs::walk(&self.inner.root.join("lists"), &mut |reference, path| {
            // One that is gone was removed since it was listed.
            if let Some(list) = read_list(path)? {
                found.push((reference, list));
            }
            Ok(())
        })?;
        found.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(found)
    }

    fn write_list(&self, name: &Reference, path: &Path, list: WorkingList) -> Result<(), StoreError> {
        if let Some(entry) = list.entries.iter().find(|entry| !self.contains(&entry.descriptor.digest)) {
            return Err(StoreError::MissingBlob { digest: entry.descriptor.digest.clone() });
        }
        let format = match list.flavour {
            None => "",
            Some(Flavour::Oci) => "oci",
            Some(Flavour::Docker) => "docker",
        };
        let file = ListFile {
            reference: refs::full_name(name),
            format: format.to_owned(),
            annotations: list.annotations,
            entries: list.entries,
            updated: Timestamp::now(),
        };
        let bytes = refs::written(&file, &file.reference, MAX_LIST_BYTES)?;
        self.sync()?;
        if let Some(dir) = path.parent() {
            self.inner.disk.ensure_dir(dir)?;
        }
        self.inner.replace(path, &bytes, true)
    }

    fn list_path(&self, name: &Reference) -> PathBuf {
        self.inner.root.join("lists").join(ref_name::encode(&refs::full_name(name)))
    }

    /// Waits for the changes of others.
    fn lock_lists(&self) -> Result<File, StoreError> {
        let path = self.inner.root.join("lists.lock");
        let mut options = OpenOptions::new();
        let file = options.create(true).append(true).mode(0o644).open(&path);
        let file = file.map_err(StoreError::io("open", &path))?;
        lock::acquire(|| file.try_lock(), &file, &self.inner.root, PATIENCE)?;
        Ok(file)
    }
}

fn read_list(path: &Path) -> Result<Option<WorkingList>, StoreError> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(StoreError::io("open", path))?,
    };
    let mut bytes = Vec::new();
    file.take(MAX_LIST_BYTES).read_to_end(&mut bytes).map_err(StoreError::io("read", path))?;
    let file: ListFile = serde_json::from_slice(&bytes)
        .map_err(|source| StoreError::CorruptRef { path: path.to_owned(), source })?;
    let flavour = match file.format.as_str() {
        "oci" => Some(Flavour::Oci),
        "docker" => Some(Flavour::Docker),
        _ => None,
    };
    let ListFile { annotations, entries, updated, .. } = file;
    Ok(Some(WorkingList { flavour, annotations, entries, updated }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::documents::tests::put_image;

    fn name() -> Reference {
        "example.com/app:v1".parse().unwrap()
    }

    fn add(store: &Store, platform: &str) {
        let entry = ListEntry {
            source: format!("example.com/app:{platform}"),
            descriptor: put_image(store, platform, &[platform.as_bytes()]),
            from: None,
        };
        store
            .change_list::<(), StoreError>(&name(), |list| {
                list.get_or_insert_default().entries.push(entry);
                Ok(())
            })
            .unwrap();
    }

    #[test]
    fn a_list_comes_back_and_is_no_name() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        assert_eq!(store.list(&name()).unwrap(), None);
        add(&store, "linux/amd64");
        let flavour = Some(Flavour::Docker);
        let change = |list: &mut Option<WorkingList>| {
            list.as_mut().unwrap().flavour = flavour;
            Ok::<(), StoreError>(())
        };
        store.change_list(&name(), change).unwrap();
        let list = Store::open(dir.path()).unwrap().list(&name()).unwrap().unwrap();
        assert_eq!((list.entries.len(), list.flavour), (1, flavour));
        assert_eq!(store.lists().unwrap(), [(name(), list)]);
        assert!(store.refs().unwrap().is_empty());
        let remove = |list: &mut Option<WorkingList>| Ok::<_, StoreError>(list.take());
        assert!(store.change_list(&name(), remove).unwrap().is_some());
        assert!(store.lists().unwrap().is_empty());
    }

    #[test]
    fn changes_at_the_same_time_all_count() {
        let dir = tempfile::tempdir().unwrap();
        let platforms = ["linux/amd64", "linux/arm64", "linux/s390x", "linux/riscv64"];
        std::thread::scope(|scope| {
            for platform in platforms {
                let store = Store::open(dir.path()).unwrap();
                scope.spawn(move || add(&store, platform));
            }
        });
        let list = Store::open(dir.path()).unwrap().list(&name()).unwrap().unwrap();
        assert_eq!(list.entries.len(), platforms.len());
    }

    #[test]
    fn a_refused_change_leaves_the_list_alone() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        add(&store, "linux/amd64");
        let before = store.list(&name()).unwrap();
        let error = StoreError::MissingBlob { digest: polyarch_oci::Digest::of("x") };
        let refused = store.change_list::<(), StoreError>(&name(), |list| {
            *list = None;
            Err(error)
        });
        assert!(refused.is_err());
        let absent = Descriptor::new("", polyarch_oci::Digest::of("absent"), 6);
        let refused = store.change_list::<(), StoreError>(&name(), |list| {
            list.as_mut().unwrap().entries[0].descriptor = absent;
            Ok(())
        });
        assert!(matches!(refused, Err(StoreError::MissingBlob { .. })));
        assert_eq!(store.list(&name()).unwrap(), before);
    }

    #[test]
    fn what_a_list_names_stays_and_a_damaged_list_stops_the_collection() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        add(&store, "linux/amd64");
        let garbage = store.put(b"garbage").unwrap();
        let image = store.list(&name()).unwrap().unwrap().entries.remove(0).descriptor;
        let path = store.list_path(&name());
        drop(store);
        let exclusive = || Store::open(dir.path()).unwrap().lock_exclusive(Duration::from_secs(10)).unwrap();
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        assert!(exclusive().gc([]).is_err());
        std::fs::write(&path, whole).unwrap();
        let mut store = exclusive();
        store.gc([]).unwrap();
        assert!(!store.contains(&garbage));
        assert_eq!(store.closure(&image, crate::Missing::Refuse).unwrap().len(), 3);
    }

    #[test]
    fn a_list_that_could_not_be_read_again_is_not_written() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        add(&store, "linux/amd64");
        let before = store.list(&name()).unwrap();
        let change = |list: &mut Option<WorkingList>| {
            list.as_mut().unwrap().annotations.insert("a".into(), "x".repeat(17 << 20));
            Ok::<(), StoreError>(())
        };
        assert!(matches!(store.change_list(&name(), change), Err(StoreError::RefSize { .. })));
        assert_eq!(store.list(&name()).unwrap(), before);
        assert_eq!(store.lists().unwrap().len(), 1);
    }
}
