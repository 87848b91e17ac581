// SPDX-License-Identifier: Apache-2.0
//! OCI image layouts (image-spec, image-layout.md): writing them as directories and as tar streams.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read as _, Write};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use polyarch_oci::manifest::MAX_MANIFEST_BYTES;
use polyarch_oci::media_type::Flavour;
use polyarch_oci::{Descriptor, Digest, ImageIndex, Reference, json};

use crate::ingest::copy;
use crate::tar_write::TarWriter;
use crate::{Missing, Store, StoreError, VerifiedReader};

/// Annotation of an entry of `index.json`: its name within the layout (image-spec, annotations.md).
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// containerd's annotation of an entry of `index.json`: its full name.
pub(crate) const IMAGE_NAME: &str = "io.containerd.image.name";

/// The content of `oci-layout`.
pub(crate) const LAYOUT_FILE: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// A root document of a layout, and the name it goes by there.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedImage {
    /// The index or manifest.
    pub descriptor: Descriptor,
    /// The full name, when there is one.
    pub name: Option<Reference>,
    /// The layout's own name for it (`org.opencontainers.image.ref.name`), often just a tag. When
    /// writing, `None` stands for the tag of `name`.
    pub ref_name: Option<String>,
}

impl NamedImage {
    /// Makes an image of a layout, with a name or without.
    pub fn new(descriptor: Descriptor, name: Option<Reference>) -> NamedImage {
        NamedImage { descriptor, name, ref_name: None }
    }

    /// Makes the entry of `index.json`.
    pub(crate) fn to_entry(&self) -> Descriptor {
        let mut entry = self.descriptor.clone();
        let name = self.name.clone().map(Reference::with_default_tag);
        let tag = name.as_ref().and_then(|name| name.tag().map(str::to_owned));
        if let Some(ref_name) = self.ref_name.clone().or(tag) {
            entry.annotations.insert(REF_NAME.to_owned(), ref_name);
        }
        if let Some(name) = name {
            entry.annotations.insert(IMAGE_NAME.to_owned(), name.to_string());
        }
        entry
    }
}

/// How a layout is written.
#[derive(Debug, Clone, Copy)]
pub struct LayoutOptions {
    /// The time of all files of a tar stream, in seconds since 1970.
    pub epoch: u64,
    /// What to do about blobs that the store lacks.
    pub missing: Missing,
}

impl Default for LayoutOptions {
    fn default() -> LayoutOptions {
        LayoutOptions { epoch: 0, missing: Missing::Refuse }
    }
}

impl Store {
    /// Writes images as a layout directory, which may be there already.
    ///
    /// Entries of an existing `index.json` stay, unless they have a name that is written now. Blobs come
    /// first and `index.json` last, each by a rename, so the layout is valid at any time. Nothing is
    /// synced.
    ///
    /// # Errors
    /// When blobs are missing (as the options say) or rotten, and when the directory cannot be written.
    pub fn write_layout(
        &self,
        images: &[NamedImage],
        options: LayoutOptions,
        dir: &Path,
    ) -> Result<(), StoreError> {
        let blobs = self.blobs_of(images, options.missing)?;
        let mut entries = kept_entries(dir, images)?;
        entries.extend(images.iter().map(NamedImage::to_entry));
        for descriptor in blobs.values() {
            let target = dir.join(blob_path(&descriptor.digest));
            if let Some(parent) = target.parent() {
                let made = DirBuilder::new().recursive(true).mode(0o755).create(parent);
                made.map_err(StoreError::io("create", parent))?;
            }
            if !is_whole(&target, descriptor) {
                let reader = self.reader(descriptor)?;
                replace_file(&target, |file| copy(reader, file).map(|_| ()))?;
            }
        }
        replace_file(&dir.join("oci-layout"), |file| file.write_all(LAYOUT_FILE))?;
        replace_file(&dir.join("index.json"), |file| file.write_all(&index_file(entries)))
    }

    /// Writes images as a tar stream of a layout (an "OCI archive") and returns the flushed output.
    ///
    /// The same images and options give the same bytes.
    ///
    /// # Errors
    /// As [`Store::write_layout`]. The output is then of no use.
    pub fn write_oci_archive<W: Write>(
        &self,
        images: &[NamedImage],
        options: LayoutOptions,
        out: W,
    ) -> Result<W, StoreError> {
        let blobs = self.blobs_of(images, options.missing)?;
        let mut tar = TarWriter::new(out, options.epoch);
        self.write_blobs(&mut tar, &blobs)?;
        tar.bytes("index.json", &index_file(images.iter().map(NamedImage::to_entry).collect()))?;
        tar.bytes("oci-layout", LAYOUT_FILE)?;
        tar.finish()
    }

    /// Writes the `blobs` folder of a layout: directories and blobs in the order of their paths.
    pub(crate) fn write_blobs<W: Write>(
        &self,
        tar: &mut TarWriter<W>,
        blobs: &BTreeMap<Digest, Descriptor>,
    ) -> Result<(), StoreError> {
        let algorithms: BTreeSet<&str> = blobs.keys().map(|digest| digest.algorithm().as_str()).collect();
        tar.directory("blobs/")?;
        for algorithm in algorithms {
            tar.directory(&format!("blobs/{algorithm}/"))?;
            for descriptor in blobs.values().filter(|blob| blob.digest.algorithm().as_str() == algorithm) {
                tar.file(&blob_path(&descriptor.digest), descriptor.size, self.reader(descriptor)?)?;
            }
        }
        Ok(())
    }

    /// Returns everything that images consist of, sorted by digest.
    pub(crate) fn blobs_of(
        &self,
        images: &[NamedImage],
        missing: Missing,
    ) -> Result<BTreeMap<Digest, Descriptor>, StoreError> {
        let mut blobs = BTreeMap::new();
        for image in images {
            let closure = self.closure(&image.descriptor, missing)?;
            blobs.extend(closure.into_iter().map(|descriptor| (descriptor.digest.clone(), descriptor)));
        }
        Ok(blobs)
    }
}

/// Returns the path of a blob within a layout.
pub(crate) fn blob_path(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().as_str(), digest.hex())
}

/// Makes the content of `index.json`.
pub(crate) fn index_file(entries: Vec<Descriptor>) -> Vec<u8> {
    json::to_compact(&ImageIndex::new(Flavour::Oci, entries))
}

/// Reads an `index.json`, capped.
pub(crate) fn parse_index_file(bytes: &[u8]) -> Result<ImageIndex, StoreError> {
    serde_json::from_slice(bytes)
        .map_err(|source| StoreError::ArchiveJson { path: "index.json".to_owned(), source })
}

/// Returns the entries of an existing layout that are not replaced by the new ones.
fn kept_entries(dir: &Path, images: &[NamedImage]) -> Result<Vec<Descriptor>, StoreError> {
    let path = dir.join("index.json");
    let file = match File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(StoreError::io("open", &path))?,
    };
    let mut bytes = Vec::new();
    file.take(MAX_MANIFEST_BYTES).read_to_end(&mut bytes).map_err(StoreError::io("read", &path))?;
    let names = |entry: &Descriptor| {
        [REF_NAME, IMAGE_NAME].map(|annotation| entry.annotations.get(annotation).cloned())
    };
    let new: Vec<Descriptor> = images.iter().map(NamedImage::to_entry).collect();
    let is_replaced = |old: &Descriptor| {
        new.iter().any(|new| {
            names(old) == names(new) && (old.digest == new.digest || names(old).iter().any(Option::is_some))
        })
    };
    let mut entries = parse_index_file(&bytes)?.manifests;
    entries.retain(|old| !is_replaced(old));
    Ok(entries)
}

/// Tells whether a file is a blob, so that writing a layout again copies only what is new.
fn is_whole(path: &Path, descriptor: &Descriptor) -> bool {
    File::open(path)
        .and_then(|file| copy(VerifiedReader::new(file, descriptor), io::sink()))
        .is_ok_and(|size| size == descriptor.size)
}

/// Writes a file beside its name and renames it.
fn replace_file(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> Result<(), StoreError> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let create = || {
        let mut builder = tempfile::Builder::new();
        builder.prefix(".polyarch-").permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644));
        builder.tempfile_in(dir)
    };
    let mut temp = match create() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(dir).map_err(StoreError::io("create", dir))?;
            create()
        }
        other => other,
    }
    .map_err(StoreError::io("create a file in", dir))?;
    write(temp.as_file_mut()).map_err(|error| {
        error.downcast::<StoreError>().unwrap_or_else(|source| StoreError::io("write", path)(source))
    })?;
    temp.persist(path).map(|_| ()).map_err(|error| StoreError::io("create", path)(error.error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::documents::tests::{put_image, put_index};

    fn two_platforms() -> (tempfile::TempDir, Store, Descriptor) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        let images = ["linux/amd64", "linux/arm64"].map(|p| put_image(&store, p, &[b"shared", p.as_bytes()]));
        let index = put_index(&store, images.to_vec());
        (dir, store, index)
    }

    #[test]
    fn an_archive_comes_back_and_is_the_same_every_time() {
        let (dir, store, index) = two_platforms();
        let images = [
            NamedImage::new(index.clone(), Some("example.com/app:v1".parse().unwrap())),
            NamedImage::new(index.clone(), Some("app".parse().unwrap())),
        ];
        let options = LayoutOptions { epoch: 1_000, ..LayoutOptions::default() };
        let archive = store.write_oci_archive(&images, options, Vec::new()).unwrap();
        assert_eq!(archive, store.write_oci_archive(&images, options, Vec::new()).unwrap());
        let other = Store::open(&dir.path().join("other")).unwrap();
        let found = other.import_archive(&archive[..], Missing::Refuse).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].name, images[0].name);
        assert_eq!(found[0].ref_name.as_deref(), Some("v1"));
        assert_eq!(found[1].name.as_ref().unwrap().to_string(), "docker.io/library/app:latest");
        assert_eq!(found[0].descriptor.digest, index.digest);
        assert_eq!(other.closure(&index, Missing::Refuse).unwrap().len(), 8);
        let again = other.write_oci_archive(&images, options, Vec::new()).unwrap();
        assert_eq!(archive, again);
    }

    #[test]
    fn a_directory_comes_back_and_keeps_other_images() {
        let (dir, store, index) = two_platforms();
        let layout = dir.path().join("layout");
        let named = |name: &str| NamedImage::new(index.clone(), Some(name.parse().unwrap()));
        store.write_layout(&[named("app:v1")], LayoutOptions::default(), &layout).unwrap();
        store.write_layout(&[named("app:v2")], LayoutOptions::default(), &layout).unwrap();
        store.write_layout(&[named("app:v2")], LayoutOptions::default(), &layout).unwrap();
        let other = Store::open(&dir.path().join("other")).unwrap();
        let found = other.import_layout(&layout, Missing::Refuse).unwrap();
        let names: Vec<_> = found.iter().map(|image| image.name.as_ref().unwrap().familiar()).collect();
        assert_eq!(names, ["app:v1", "app:v2"]);
        assert_eq!(other.closure(&index, Missing::Refuse).unwrap().len(), 8);
        let left: Vec<_> = crate::disk::names_in(&layout).unwrap();
        assert_eq!(left, ["blobs", "index.json", "oci-layout"]);
    }

    #[test]
    fn a_torn_blob_of_an_existing_layout_is_mended() {
        let (dir, store, index) = two_platforms();
        let layout = dir.path().join("layout");
        let image = [NamedImage::new(index.clone(), None)];
        store.write_layout(&image, LayoutOptions::default(), &layout).unwrap();
        fs::write(layout.join(blob_path(&index.digest)), "torn").unwrap();
        store.write_layout(&image, LayoutOptions::default(), &layout).unwrap();
        assert!(is_whole(&layout.join(blob_path(&index.digest)), &index));
    }

    #[test]
    fn sparse_images_are_written_only_when_asked() {
        let (_dir, store, index) = two_platforms();
        let absent = Descriptor::new(polyarch_oci::media_type::OCI_MANIFEST, Digest::of("absent"), 6);
        let sparse = put_index(&store, vec![index, absent]);
        let image = [NamedImage::new(sparse, None)];
        assert!(store.write_oci_archive(&image, LayoutOptions::default(), Vec::new()).is_err());
        let options = LayoutOptions { missing: Missing::Skip, ..LayoutOptions::default() };
        store.write_oci_archive(&image, options, Vec::new()).unwrap();
    }
}
