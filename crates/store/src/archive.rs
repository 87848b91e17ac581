// SPDX-License-Identifier: Apache-2.0
//! Importing images: OCI layouts as directories, and archives of both kinds as streams.
//!
//! Everything here is foreign. Blobs are kept under the digest of what was read and never under the one
//! that was claimed; paths of an archive are only looked up, never opened.

use std::collections::{HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use polyarch_oci::manifest::MAX_MANIFEST_BYTES;
use polyarch_oci::media_type::Compression;
use polyarch_oci::{Descriptor, Digest, Reference};
use serde::Deserialize;

use crate::documents::{MAX_BLOBS, is_document, too_complex};
use crate::layout::{IMAGE_NAME, NamedImage, REF_NAME, blob_path, parse_index_file};
use crate::tar_read::{EntryKind, TarReader};
use crate::{Missing, Store, StoreError, direct_children};

/// The largest number of images in one layout or archive.
const MAX_IMAGES: usize = 10_000;

/// The longest chain of links in an archive.
const MAX_LINKS: usize = 16;

/// What was found in an archive: the files that describe it, and where its other files went.
#[derive(Default)]
pub(crate) struct Contents {
    pub(crate) documents: HashMap<String, Vec<u8>>,
    blobs: HashMap<String, (Digest, u64)>,
    links: HashMap<String, String>,
}

impl Contents {
    /// Looks up a file, following the archive's own links.
    pub(crate) fn blob(&self, path: &str) -> Option<&(Digest, u64)> {
        let mut path = path;
        for _ in 0..MAX_LINKS {
            match self.links.get(path) {
                Some(target) => path = target,
                None => return self.blobs.get(path),
            }
        }
        None
    }
}

impl Store {
    /// Imports the images of an OCI archive or a docker archive, which may be compressed with gzip or
    /// zstd, and returns them in the archive's order.
    ///
    /// An archive that is both is read as OCI, which keeps the manifests' digests. Nothing is named here:
    /// setting names is up to the caller. What an archive has besides its images becomes garbage.
    ///
    /// # Errors
    /// When the archive is malformed or incomplete, or content does not have the digest it goes by.
    pub fn import_archive(&self, reader: impl Read, missing: Missing) -> Result<Vec<NamedImage>, StoreError> {
        let reader = decompress(reader).map_err(StoreError::stream("read"))?;
        let contents = self.ingest_entries(reader)?;
        match (contents.documents.get("oci-layout"), contents.documents.get("index.json")) {
            (Some(layout), Some(index)) => {
                check_layout(layout)?;
                let images = named_images(index)?;
                for image in &images {
                    self.check_complete(&image.descriptor, missing)?;
                }
                Ok(images)
            }
            _ => self.import_docker_contents(&contents),
        }
    }

    /// Imports the images of an OCI layout directory and returns them in the order of its `index.json`.
    ///
    /// # Errors
    /// As [`Store::import_archive`].
    pub fn import_layout(&self, dir: &Path, missing: Missing) -> Result<Vec<NamedImage>, StoreError> {
        let images = self.layout_images(dir)?;
        for image in &images {
            self.import_from_layout(dir, &image.descriptor, missing)?;
            self.check_complete(&image.descriptor, missing)?;
        }
        Ok(images)
    }

    /// Returns the images that the `index.json` of an OCI layout directory names, in its order.
    ///
    /// # Errors
    /// When it is no layout or malformed.
    pub fn layout_images(&self, dir: &Path) -> Result<Vec<NamedImage>, StoreError> {
        check_layout(&read_layout_file(dir, "oci-layout")?)?;
        named_images(&read_layout_file(dir, "index.json")?)
    }

    /// Imports one image of an OCI layout directory and returns its descriptor. Of `wanted` only the digest
    /// counts: it need not be in `index.json`. What the directory lacks of an index is left out.
    ///
    /// # Errors
    /// When the document is not there, or content does not have the digest it goes by.
    pub fn import_layout_image(&self, dir: &Path, wanted: &Descriptor) -> Result<Descriptor, StoreError> {
        let digest = &wanted.digest;
        let size = match self.size(digest) {
            Some(size) => size,
            None => {
                let path = dir.join(blob_path(digest));
                let missing = || StoreError::MissingBlob { digest: digest.clone() };
                let mut file = open_regular(&path).map_err(|error| match error.kind() {
                    io::ErrorKind::NotFound => missing(),
                    _ => StoreError::io("open", &path)(error),
                })?;
                let size = file.metadata().map_err(StoreError::io("look at", &path))?.len();
                if size > MAX_MANIFEST_BYTES {
                    return Err(StoreError::Entry {
                        path: blob_path(digest),
                        problem: "is larger than a manifest",
                    });
                }
                self.import_file(&mut file, Some((digest, size)))?;
                size
            }
        };
        let document = self.image(&Descriptor::new("", digest.clone(), size))?;
        let descriptor = Descriptor::new(document.media_type(), digest.clone(), size);
        self.import_from_layout(dir, &descriptor, Missing::Skip)?;
        Ok(descriptor)
    }

    /// Imports everything that an image of a layout directory consists of.
    fn import_from_layout(&self, dir: &Path, root: &Descriptor, missing: Missing) -> Result<(), StoreError> {
        let mut seen = HashSet::new();
        let mut open = vec![root.clone()];
        while let Some(descriptor) = open.pop() {
            if !seen.insert(descriptor.digest.clone()) {
                continue;
            }
            if seen.len() > MAX_BLOBS {
                return Err(too_complex(root));
            }
            let is_here = self.contains(&descriptor.digest) || self.import_blob(dir, &descriptor)?;
            if is_here && is_document(&descriptor) {
                open.extend(direct_children(&self.image(&descriptor)?));
            } else if !is_here && missing == Missing::Refuse {
                return Err(StoreError::MissingBlob { digest: descriptor.digest });
            }
        }
        Ok(())
    }

    /// Imports one blob of a layout directory; tells whether it was there.
    fn import_blob(&self, dir: &Path, descriptor: &Descriptor) -> Result<bool, StoreError> {
        let path = dir.join(blob_path(&descriptor.digest));
        match open_regular(&path) {
            Ok(mut file) => {
                self.import_file(&mut file, Some((&descriptor.digest, descriptor.size))).map(|_| true)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(StoreError::io("open", &path)(error)),
        }
    }

    /// Checks that an image is all here, and that blobs have the sizes that its documents say.
    fn check_complete(&self, root: &Descriptor, missing: Missing) -> Result<(), StoreError> {
        for descriptor in self.closure(root, missing)? {
            let found = self.size(&descriptor.digest).unwrap_or_default();
            if found != descriptor.size {
                let (digest, expected) = (descriptor.digest, descriptor.size);
                return Err(StoreError::Size { digest, expected, found });
            }
        }
        Ok(())
    }

    /// Reads all entries of an archive: documents into memory, everything else into the store.
    fn ingest_entries(&self, reader: impl Read) -> Result<Contents, StoreError> {
        let mut tar = TarReader::new(reader);
        let mut contents = Contents::default();
        while let Some(entry) = tar.next_entry()? {
            match entry.kind {
                EntryKind::File => {}
                EntryKind::Link(target) => {
                    contents.links.insert(entry.path, target);
                    continue;
                }
                EntryKind::Directory | EntryKind::Other => continue,
            }
            match entry.path.as_str() {
                "oci-layout" | "index.json" | "manifest.json" => {
                    let bytes = read_document(&entry.path, &mut tar)?;
                    contents.documents.insert(entry.path, bytes);
                }
                path => {
                    let claimed = claimed_digest(path);
                    let is_here = |digest: &Digest| self.size(digest) == Some(entry.size);
                    let blob = match claimed.as_ref() {
                        // The content is here already; reading the copy would prove nothing more.
                        Some(digest) if is_here(digest) => (digest.clone(), entry.size),
                        digest => {
                            self.require_room(entry.size)?;
                            self.ingest(&mut tar, digest.map(|digest| (digest, entry.size)))?
                        }
                    };
                    contents.blobs.insert(entry.path, blob);
                }
            }
        }
        Ok(contents)
    }
}

/// Returns the digest that a path of a layout promises.
fn claimed_digest(path: &str) -> Option<Digest> {
    let (algorithm, hex) = path.strip_prefix("blobs/")?.split_once('/')?;
    format!("{algorithm}:{hex}").parse().ok()
}

/// Reads a small file that describes an archive.
fn read_document(path: &str, reader: impl Read) -> Result<Vec<u8>, StoreError> {
    let mut bytes = Vec::new();
    reader.take(MAX_MANIFEST_BYTES + 1).read_to_end(&mut bytes).map_err(StoreError::stream("read"))?;
    if bytes.len() as u64 > MAX_MANIFEST_BYTES {
        return Err(StoreError::Entry { path: path.to_owned(), problem: "is larger than 8 MiB" });
    }
    Ok(bytes)
}

fn check_layout(bytes: &[u8]) -> Result<(), StoreError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Layout {
        image_layout_version: String,
    }
    let layout: Layout = serde_json::from_slice(bytes)
        .map_err(|source| StoreError::ArchiveJson { path: "oci-layout".to_owned(), source })?;
    if layout.image_layout_version != "1.0.0" {
        let found = layout.image_layout_version.chars().take(50).collect();
        return Err(StoreError::LayoutVersion { found });
    }
    Ok(())
}

/// Reads the roots of a layout and their names.
fn named_images(index: &[u8]) -> Result<Vec<NamedImage>, StoreError> {
    let entries = parse_index_file(index)?.manifests;
    if entries.is_empty() {
        return Err(StoreError::NoImage);
    }
    if entries.len() > MAX_IMAGES {
        return Err(StoreError::Entry {
            path: "index.json".to_owned(),
            problem: "names more than 10000 images",
        });
    }
    Ok(entries
        .into_iter()
        .map(|mut descriptor| {
            let image_name = descriptor.annotations.remove(IMAGE_NAME);
            let ref_name = descriptor.annotations.remove(REF_NAME);
            // skopeo and podman put the full name where others put a tag; a bare tag is no full name.
            let is_full = |text: &&String| text.contains('/') || text.contains(':');
            let full = image_name.as_ref().or(ref_name.as_ref().filter(is_full));
            let name = full.and_then(|text| text.parse::<Reference>().ok());
            NamedImage { descriptor, name, ref_name }
        })
        .collect())
}

/// Reads a file that describes a layout directory.
fn read_layout_file(dir: &Path, name: &str) -> Result<Vec<u8>, StoreError> {
    let path = dir.join(name);
    let file = open_regular(&path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => StoreError::NoImage,
        _ => StoreError::io("open", &path)(error),
    })?;
    read_document(name, file)
}

/// Opens a regular file; a pipe or device in its place neither blocks nor is read.
///
/// Symbolic links are followed on purpose (build tools make layouts of links); where they lead does not
/// matter, because content is taken only under its own digest.
fn open_regular(path: &Path) -> io::Result<File> {
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is not a regular file")) }
}

/// Tells by the first bytes how a stream is compressed.
pub(crate) fn compression_of(start: &[u8]) -> Compression {
    match start {
        [0x1f, 0x8b, ..] => Compression::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Compression::Zstd,
        _ => Compression::Uncompressed,
    }
}

/// Decompresses a stream as its first bytes say.
pub(crate) fn decompress<'a>(reader: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut reader = BufReader::with_capacity(128 << 10, reader);
    Ok(match compression_of(reader.fill_buf()?) {
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(reader)),
        Compression::Zstd => Box::new(zstd::Decoder::with_buffer(reader)?),
        Compression::Uncompressed => Box::new(reader),
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;
    use std::sync::LazyLock;

    use polyarch_oci::media_type;
    use proptest::prelude::*;

    use super::*;
    use crate::documents::tests::{put_image, put_index};
    use crate::layout::{LAYOUT_FILE, LayoutOptions, index_file};
    use crate::tar_write::TarWriter;

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        (dir, store)
    }

    fn archive_of(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut tar = TarWriter::new(Vec::new(), 0);
        files.iter().for_each(|(path, bytes)| tar.bytes(path, bytes).unwrap());
        tar.finish().unwrap()
    }

    fn index_of(descriptor: Descriptor) -> Vec<u8> {
        index_file(vec![descriptor])
    }

    #[test]
    fn hostile_layouts_are_refused() {
        let (_dir, store) = store();
        let manifest = br#"{"schemaVersion":2,"manifests":[]}"#;
        let root = Descriptor::new(media_type::OCI_INDEX, Digest::of(manifest), manifest.len() as u64);
        let path = blob_path(&root.digest);
        let index = index_of(root.clone());
        let import = |files: &[(&str, &[u8])]| store.import_archive(&archive_of(files)[..], Missing::Refuse);
        let missing = import(&[("oci-layout", LAYOUT_FILE), ("index.json", &index)]);
        assert!(matches!(missing, Err(StoreError::MissingBlob { .. })), "{missing:?}");
        let wrong = import(&[("oci-layout", LAYOUT_FILE), ("index.json", &index), (&path, b"other")]);
        assert!(matches!(wrong, Err(StoreError::Mismatch { .. })), "{wrong:?}");
        let version: &[u8] = br#"{"imageLayoutVersion":"2.0.0"}"#;
        let version = import(&[("oci-layout", version), ("index.json", &index), (&path, manifest)]);
        assert!(matches!(version, Err(StoreError::LayoutVersion { .. })), "{version:?}");
        let size = index_of(Descriptor::new(media_type::OCI_INDEX, root.digest.clone(), root.size + 1));
        let size = import(&[("oci-layout", LAYOUT_FILE), ("index.json", &size), (&path, manifest)]);
        assert!(matches!(size, Err(StoreError::Size { .. })), "{size:?}");
        let large = vec![b' '; MAX_MANIFEST_BYTES as usize + 1];
        let large = import(&[("oci-layout", LAYOUT_FILE), ("index.json", &large)]);
        assert!(matches!(large, Err(StoreError::Entry { .. })), "{large:?}");
        let good = import(&[("./oci-layout", LAYOUT_FILE), ("./index.json", &index), (&path, manifest)]);
        assert_eq!(good.unwrap()[0].descriptor, root);
    }

    #[test]
    fn an_archive_that_would_fill_the_disk_is_refused_before_it_does() {
        let (_dir, store) = store();
        let mut archive = archive_of(&[("blobs/sha256/x", b"")]);
        archive.truncate(512);
        // A size of 2^50 in base 256 (GNU tar), and the sum of the header with it.
        archive[124..136].fill(0);
        archive[124] = 0x80;
        archive[129] = 4;
        archive[148..156].fill(b' ');
        let sum: u32 = archive.iter().map(|byte| u32::from(*byte)).sum();
        archive[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let content = io::repeat(0).take(1 << 20);
        let error = store.import_archive(archive.as_slice().chain(content), Missing::Refuse).unwrap_err();
        assert!(matches!(error, StoreError::NoRoom { bytes, .. } if bytes == 1 << 50), "{error:?}");
        assert_eq!(crate::disk::names_in(&store.inner.ingest()).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn links_of_an_archive_are_followed_within_it_and_end() {
        let mut contents = Contents::default();
        contents.blobs.insert("a/layer.tar".to_owned(), (Digest::of("x"), 1));
        contents.links.insert("b/layer.tar".to_owned(), "a/layer.tar".to_owned());
        contents.links.insert("p".to_owned(), "q".to_owned());
        contents.links.insert("q".to_owned(), "p".to_owned());
        assert!(contents.blob("b/layer.tar").is_some());
        assert!(contents.blob("p").is_none());
    }

    #[test]
    fn a_tar_made_by_gnu_tar_of_a_layout_is_read_if_there_is_one() {
        let (dir, store) = store();
        let index = put_index(&store, vec![put_image(&store, "linux/amd64", &[b"layer"])]);
        let layout = dir.path().join("layout");
        let image = [NamedImage::new(index.clone(), Some("app".parse().unwrap()))];
        store.write_layout(&image, LayoutOptions::default(), &layout).unwrap();
        for format in ["gnu", "pax", "ustar"] {
            let mut tar = Command::new("tar");
            tar.arg(format!("--format={format}")).arg("-C").arg(&layout).args(["-cf", "-", "."]);
            let Ok(output) = tar.output() else {
                println!("SKIPPED: there is no tar command");
                return;
            };
            let other = Store::open(&dir.path().join(format)).unwrap();
            let found = other.import_archive(&output.stdout[..], Missing::Refuse).unwrap();
            assert_eq!(found[0].descriptor.digest, index.digest, "{format}");
        }
    }

    #[test]
    fn hostile_directories_are_refused() {
        let (dir, store) = store();
        let other = Store::open(&dir.path().join("other")).unwrap();
        let image = put_image(&store, "linux/amd64", &[b"layer"]);
        let layout = dir.path().join("layout");
        store
            .write_layout(&[NamedImage::new(image.clone(), None)], LayoutOptions::default(), &layout)
            .unwrap();
        let layer = layout.join(blob_path(&Digest::of("layer")));
        fs::remove_file(&layer).unwrap();
        let missing = other.import_layout(&layout, Missing::Refuse);
        assert!(matches!(missing, Err(StoreError::MissingBlob { .. })), "{missing:?}");
        assert!(other.import_layout(&layout, Missing::Skip).is_ok());
        rustix::fs::mkfifoat(rustix::fs::CWD, &layer, rustix::fs::Mode::RUSR).unwrap();
        assert!(other.import_layout(&layout, Missing::Refuse).is_err(), "a pipe must not block");
        fs::remove_file(&layer).unwrap();
        fs::write(&layer, "lager").unwrap();
        let wrong = other.import_layout(&layout, Missing::Refuse);
        assert!(matches!(wrong, Err(StoreError::Mismatch { .. })), "{wrong:?}");
        assert!(!other.contains(&Digest::of("lager")));
        fs::write(&layer, "layer").unwrap();
        assert_eq!(other.import_layout(&layout, Missing::Refuse).unwrap().len(), 1);
        let empty = other.import_layout(dir.path(), Missing::Refuse);
        assert!(matches!(empty, Err(StoreError::NoImage)), "{empty:?}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// One wrong byte anywhere: the import fails, or everything it returns is whole.
        #[test]
        fn damaged_archives_give_errors_or_whole_images(at in any::<prop::sample::Index>(), flip in 1..=255_u8) {
            static ARCHIVE: LazyLock<Vec<u8>> = LazyLock::new(|| {
                let (_dir, store) = store();
                let index = put_index(&store, vec![put_image(&store, "linux/amd64", &[b"layer"])]);
                let image = [NamedImage::new(index, Some("app".parse().unwrap()))];
                store.write_oci_archive(&image, LayoutOptions::default(), Vec::new()).unwrap()
            });
            let mut archive = ARCHIVE.clone();
            let at = at.index(archive.len());
            archive[at] ^= flip;
            let (_dir, store) = store();
            if let Ok(images) = store.import_archive(&archive[..], Missing::Refuse) {
                for image in images {
                    for blob in store.closure(&image.descriptor, Missing::Refuse).unwrap() {
                        prop_assert!(store.read(&blob, 1 << 20).is_ok());
                    }
                }
            }
        }
    }
}
