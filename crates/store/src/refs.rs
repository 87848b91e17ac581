// SPDX-License-Identifier: Apache-2.0
//! Names of images. A name points at one document; an index holds all platforms of the name.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use jiff::Timestamp;
use polyarch_oci::{Descriptor, Reference};
use serde::{Deserialize, Serialize};

use crate::disk::names_in;
use crate::{Store, StoreError, ref_name};

/// The largest reference file that is read, in bytes.
const MAX_REF_BYTES: u64 = 1 << 20;

/// The deepest nesting of directories that an encoded reference has, with room.
const MAX_DEPTH: usize = 16;

/// What a name points at.
#[derive(Debug, Clone, PartialEq)]
pub struct RefEntry {
    /// The index or manifest.
    pub descriptor: Descriptor,
    /// When the name was last set.
    pub updated: Timestamp,
}

#[derive(Serialize, Deserialize)]
struct RefFile {
    reference: String,
    descriptor: Descriptor,
    updated: Timestamp,
}

impl Store {
    /// Points a name at an index or manifest, durably, after everything written so far.
    ///
    /// A name without tag and digest gets the tag `latest`, here and in the other functions on names.
    /// Atomic; the last writer wins.
    ///
    /// # Errors
    /// [`StoreError::MissingBlob`] when the document is not in the store. Its children may be missing.
    /// [`StoreError::RefSize`] when the descriptor says more than would be read again.
    pub fn set_ref(&self, reference: &Reference, descriptor: &Descriptor) -> Result<(), StoreError> {
        if !self.contains(&descriptor.digest) {
            return Err(StoreError::MissingBlob { digest: descriptor.digest.clone() });
        }
        let name = full_name(reference);
        let target = self.inner.root.join("refs").join(ref_name::encode(&name));
        let file = RefFile { reference: name, descriptor: descriptor.clone(), updated: Timestamp::now() };
        let bytes = written(&file, &file.reference, MAX_REF_BYTES)?;
        self.sync()?;
        if let Some(dir) = target.parent() {
            self.inner.disk.ensure_dir(dir)?;
        }
        self.inner.replace(&target, &bytes, true)
    }

    /// Looks up a name; `None` when it is not set.
    pub fn get_ref(&self, reference: &Reference) -> Result<Option<RefEntry>, StoreError> {
        read_ref(&self.inner.root.join("refs").join(ref_name::encode(&full_name(reference))))
    }

    /// Removes a name, durably; tells whether it was there. Its blobs stay until the next collection.
    pub fn remove_ref(&self, reference: &Reference) -> Result<bool, StoreError> {
        let path = self.inner.root.join("refs").join(ref_name::encode(&full_name(reference)));
        if !path.exists() {
            return Ok(false);
        }
        self.inner.disk.remove(&path)?;
        self.inner.disk.sync_dir(path.parent().unwrap_or(&self.inner.root))?;
        Ok(true)
    }

    /// Lists all names, sorted.
    ///
    /// # Errors
    /// When any of them cannot be read: leaving one out would let its image be collected.
    pub fn refs(&self) -> Result<Vec<(Reference, RefEntry)>, StoreError> {
        let mut found = Vec::new();
        walk(&self.inner.root.join("refs"), &mut |reference, path| {
            // One that is gone was removed since it was listed.
            if let Some(entry) = read_ref(path)? {
                found.push((reference, entry));
            }
            Ok(())
        })?;
        found.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(found)
    }
}

/// Returns the full text of a name; the tag `latest` is written out.
pub(crate) fn full_name(reference: &Reference) -> String {
    reference.clone().with_default_tag().to_string()
}

/// Writes the file of a name or a list, which must not be larger than what is read again: one that can't be
/// read would stop every listing and every collection.
pub(crate) fn written(file: &impl Serialize, name: &str, cap: u64) -> Result<Vec<u8>, StoreError> {
    let bytes = polyarch_oci::json::to_indented(file, "  ");
    let size = bytes.len() as u64;
    if size > cap {
        return Err(StoreError::RefSize { name: name.chars().take(300).collect(), size, cap });
    }
    Ok(bytes)
}

fn read_ref(path: &Path) -> Result<Option<RefEntry>, StoreError> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(StoreError::io("open", path))?,
    };
    let mut bytes = Vec::new();
    file.take(MAX_REF_BYTES).read_to_end(&mut bytes).map_err(StoreError::io("read", path))?;
    let RefFile { descriptor, updated, .. } = serde_json::from_slice(&bytes)
        .map_err(|source| StoreError::CorruptRef { path: path.to_owned(), source })?;
    Ok(Some(RefEntry { descriptor, updated }))
}

/// Visits the files of a directory whose names are encoded references.
pub(crate) fn walk(
    dir: &Path,
    visit: &mut impl FnMut(Reference, &Path) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    walk_beneath(dir, &mut Vec::new(), visit)
}

fn walk_beneath(
    dir: &Path,
    components: &mut Vec<String>,
    visit: &mut impl FnMut(Reference, &Path) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    for name in names_in(dir)? {
        let path = dir.join(&name);
        let is_dir = name.ends_with(ref_name::DIRECTORY_END);
        components.push(name);
        if is_dir && components.len() < MAX_DEPTH {
            walk_beneath(&path, components, visit)?;
        } else {
            let reference = ref_name::decode(components)
                .and_then(|text| text.parse().ok())
                .ok_or_else(|| StoreError::StrayRef { path: path.clone() })?;
            visit(reference, &path)?;
        }
        components.pop();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use polyarch_oci::{Digest, media_type};

    use super::*;

    fn store() -> (tempfile::TempDir, Store, Descriptor) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let digest = store.put(b"{}").unwrap();
        (dir, store, Descriptor::new(media_type::OCI_INDEX, digest, 2))
    }

    #[test]
    fn names_are_set_replaced_listed_and_removed() {
        let (_dir, store, descriptor) = store();
        let long = format!("host.example:5000/{}/{}:{}", "a".repeat(120), "b".repeat(120), "t".repeat(128));
        let names: Vec<Reference> =
            ["app", "app:v1", "[::1]:5000/x", &long].iter().map(|name| name.parse().unwrap()).collect();
        for name in &names {
            assert_eq!(store.get_ref(name).unwrap(), None);
            store.set_ref(name, &descriptor).unwrap();
            store.set_ref(name, &descriptor.clone().with_platform("linux/arm64".parse().unwrap())).unwrap();
        }
        assert!(store.inner.blob(&descriptor.digest).exists(), "the blob is durable before its name");
        let listed = store.refs().unwrap();
        assert_eq!(listed.len(), 4);
        assert!(listed.iter().any(|(name, _)| name.to_string() == "docker.io/library/app:latest"));
        assert!(listed.iter().all(|(_, entry)| entry.descriptor.platform.is_some()));
        for name in &names {
            assert_eq!(store.get_ref(name).unwrap().unwrap().descriptor.digest, descriptor.digest);
            assert!(store.remove_ref(name).unwrap() && !store.remove_ref(name).unwrap());
        }
        assert!(store.refs().unwrap().is_empty());
    }

    #[test]
    fn a_name_needs_its_document() {
        let (_dir, store, _) = store();
        let absent = Descriptor::new(media_type::OCI_INDEX, Digest::of("absent"), 6);
        let error = store.set_ref(&"app".parse().unwrap(), &absent).unwrap_err();
        assert!(matches!(error, StoreError::MissingBlob { .. }));
    }

    #[test]
    fn torn_and_stray_files_are_named_not_skipped() {
        let (dir, store, descriptor) = store();
        store.set_ref(&"app".parse().unwrap(), &descriptor).unwrap();
        let path = dir.path().join("refs/docker.io%2Flibrary%2Fapp%3Alatest.json");
        std::fs::write(&path, "{").unwrap();
        assert!(matches!(store.refs(), Err(StoreError::CorruptRef { path: named, .. }) if named == path));
        std::fs::write(dir.path().join("refs/README"), "").unwrap();
        assert!(matches!(store.refs(), Err(StoreError::StrayRef { .. })));
    }

    #[test]
    fn a_name_whose_file_could_not_be_read_again_is_not_set() {
        let (_dir, store, descriptor) = store();
        let name = "app".parse().unwrap();
        let mut large = descriptor.clone();
        large.media_type = "x".repeat(2 << 20);
        assert!(matches!(store.set_ref(&name, &large), Err(StoreError::RefSize { .. })));
        assert_eq!(store.refs().unwrap(), []);
        store.set_ref(&name, &descriptor).unwrap();
    }
}
