// SPDX-License-Identifier: Apache-2.0
//! Docker archives, writing: what `docker load`, `podman load` and `skopeo docker-archive:` read.
//!
//! `manifest.json` is a list of images, each with the paths of its config and layers and its names;
//! `repositories` is its ancestor, kept for readers that want both.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

use polyarch_oci::config::MAX_CONFIG_BYTES;
use polyarch_oci::{Descriptor, DiffId, Digest, Document, Manifest, ManifestOrIndex, Reference, json};
use serde::Serialize;

use crate::archive::decompress;
use crate::ingest::copy;
use crate::layout::{LAYOUT_FILE, NamedImage, blob_path, index_file};
use crate::tar_write::TarWriter;
use crate::{Missing, Store, StoreError, VerifiedReader};

/// What goes into a docker archive.
#[derive(Debug, Clone)]
pub struct DockerArchive {
    /// The manifest of one platform.
    pub manifest: Descriptor,
    /// The names that the image gets when loaded: `latest` where there is no tag, none for a digest.
    pub names: Vec<Reference>,
    /// How layers are written.
    pub layers: DockerLayers,
    /// The time of all files, in seconds since 1970.
    pub epoch: u64,
}

/// How layers are written into a docker archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DockerLayers {
    /// As they are, together with the image's own manifest as an OCI layout in the same archive, so that
    /// loaders that keep manifests keep its digest.
    #[default]
    AsTheyAre,
    /// Uncompressed, for loaders that know neither OCI layouts nor the layers' compression.
    Uncompressed,
}

/// An entry of `manifest.json`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ArchiveImage {
    config: String,
    repo_tags: Vec<String>,
    layers: Vec<String>,
}

impl Store {
    /// Writes one platform's image as a docker archive and returns the flushed output.
    ///
    /// The same image and options give the same bytes. Uncompressed layers are decompressed twice, for
    /// their sizes and for their bytes, and checked against the config's diff ids.
    ///
    /// # Errors
    /// [`StoreError::NotAManifest`] for an index, and when a blob is missing or rotten. The output is
    /// then of no use.
    pub fn write_docker_archive<W: Write>(&self, archive: &DockerArchive, out: W) -> Result<W, StoreError> {
        let ManifestOrIndex::Manifest(manifest) = self.image(&archive.manifest)? else {
            return Err(StoreError::NotAManifest { digest: archive.manifest.digest.clone() });
        };
        let diff_ids = self.diff_ids(&manifest)?;
        let tar = TarWriter::new(out, archive.epoch);
        match archive.layers {
            DockerLayers::AsTheyAre => {
                self.write_layers_as_they_are(archive, &manifest.value, &diff_ids, tar)
            }
            DockerLayers::Uncompressed => {
                self.write_layers_uncompressed(archive, &manifest.value, &diff_ids, tar)
            }
        }
    }

    fn write_layers_as_they_are<W: Write>(
        &self,
        archive: &DockerArchive,
        manifest: &Manifest,
        diff_ids: &[DiffId],
        mut tar: TarWriter<W>,
    ) -> Result<W, StoreError> {
        let image = |name: Option<Reference>| NamedImage::new(archive.manifest.clone(), name);
        let mut images: Vec<NamedImage> =
            tagged(&archive.names).into_iter().map(|name| image(Some(name))).collect();
        if images.is_empty() {
            images.push(image(None));
        }
        let blobs = self.blobs_of(&images[..1], Missing::Refuse)?;
        let entries = images.iter().map(NamedImage::to_entry).collect();
        let layers = manifest.layers.iter().map(|layer| blob_path(&layer.digest)).collect();
        self.write_blobs(&mut tar, &blobs)?;
        tar.bytes("index.json", &index_file(entries))?;
        tar.bytes(
            "manifest.json",
            &manifest_file(blob_path(&manifest.config.digest), &archive.names, layers),
        )?;
        tar.bytes("oci-layout", LAYOUT_FILE)?;
        write_repositories(&mut tar, &archive.names, diff_ids)?;
        tar.finish()
    }

    fn write_layers_uncompressed<W: Write>(
        &self,
        archive: &DockerArchive,
        manifest: &Manifest,
        diff_ids: &[DiffId],
        mut tar: TarWriter<W>,
    ) -> Result<W, StoreError> {
        let config = format!("{}.json", manifest.config.digest.hex());
        let layer_path = |diff_id: &DiffId| format!("{}.tar", diff_id.0.hex());
        tar.bytes(&config, &self.read(&manifest.config, MAX_CONFIG_BYTES)?)?;
        let mut written = BTreeSet::new();
        for (layer, diff_id) in manifest.layers.iter().zip(diff_ids) {
            if written.insert(diff_id) {
                let size = self.uncompressed_size(layer)?;
                let plain = decompress(self.reader(layer)?).map_err(StoreError::stream("decompress"))?;
                let plain = VerifiedReader::with(plain, diff_id.0.clone(), size);
                tar.file(&layer_path(diff_id), size, plain)?;
            }
        }
        let layers = diff_ids.iter().map(layer_path).collect();
        tar.bytes("manifest.json", &manifest_file(config, &archive.names, layers))?;
        write_repositories(&mut tar, &archive.names, diff_ids)?;
        tar.finish()
    }

    /// Returns the diff ids of an image, one per layer.
    fn diff_ids(&self, manifest: &Document<Manifest>) -> Result<Vec<DiffId>, StoreError> {
        let diff_ids = self.config(&manifest.value)?.value.rootfs.diff_ids;
        if diff_ids.len() != manifest.value.layers.len() {
            return Err(StoreError::LayerCount {
                digest: manifest.digest.clone(),
                layers: manifest.value.layers.len(),
                diff_ids: diff_ids.len(),
            });
        }
        Ok(diff_ids)
    }

    fn uncompressed_size(&self, layer: &Descriptor) -> Result<u64, StoreError> {
        let plain = decompress(self.reader(layer)?).map_err(StoreError::stream("decompress"))?;
        copy(plain, io::sink()).map_err(StoreError::stream("decompress"))
    }
}

/// Returns the names that a loaded image can have.
fn tagged(names: &[Reference]) -> Vec<Reference> {
    names.iter().cloned().map(Reference::with_default_tag).filter(|name| name.tag().is_some()).collect()
}

fn manifest_file(config: String, names: &[Reference], layers: Vec<String>) -> Vec<u8> {
    let repo_tags = tagged(names).iter().map(tag_of).collect();
    json::to_compact(&[ArchiveImage { config, repo_tags, layers }])
}

/// Returns `repository:tag` in the short form, without a digest.
fn tag_of(name: &Reference) -> String {
    let familiar = name.familiar();
    familiar.split_once('@').map_or(familiar.clone(), |(tagged, _)| tagged.to_owned())
}

/// Writes `repositories`: repository, tag, and the id of the top layer.
fn write_repositories<W: Write>(
    tar: &mut TarWriter<W>,
    names: &[Reference],
    diff_ids: &[DiffId],
) -> Result<(), StoreError> {
    let Some(top) = diff_ids.last() else {
        return Ok(());
    };
    let mut repositories: BTreeMap<String, BTreeMap<String, &Digest>> = BTreeMap::new();
    let tags: Vec<String> = tagged(names).iter().map(tag_of).collect();
    for (repository, tag) in tags.iter().filter_map(|tag| tag.rsplit_once(':')) {
        repositories.entry(repository.to_owned()).or_default().insert(tag.to_owned(), &top.0);
    }
    if repositories.is_empty() {
        return Ok(());
    }
    let hex: BTreeMap<_, BTreeMap<_, &str>> = repositories
        .iter()
        .map(|(name, tags)| (name, tags.iter().map(|(tag, digest)| (tag, digest.hex())).collect()))
        .collect();
    tar.bytes("repositories", &json::to_compact(&hex))
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use polyarch_oci::media_type::{Compression, Flavour};
    use polyarch_oci::{ImageConfig, media_type};

    use super::*;
    use crate::documents::tests::{put_image, put_index};
    use crate::tar_read::TarReader;

    /// Makes an image with one gzip layer and one zstd layer.
    fn put_compressed(store: &Store) -> Descriptor {
        let plain = [b"first".repeat(500), b"second".repeat(500)];
        let mut gzip = Vec::new();
        flate2::read::GzEncoder::new(&plain[0][..], flate2::Compression::fast())
            .read_to_end(&mut gzip)
            .unwrap();
        let zstd = zstd::encode_all(&plain[1][..], 1).unwrap();
        let mut config = ImageConfig::default();
        config.set_platform(&"linux/arm64".parse().unwrap());
        config.rootfs.diff_ids = plain.iter().map(|bytes| DiffId(Digest::of(bytes))).collect();
        let config = Document::compact(config);
        store.put(&config.bytes).unwrap();
        let layers = [(gzip, Compression::Gzip), (zstd, Compression::Zstd)].map(|(bytes, compression)| {
            let kind = compression.layer_media_type(Flavour::Oci);
            Descriptor::new(kind, store.put(&bytes).unwrap(), bytes.len() as u64)
        });
        let config = Descriptor::new(media_type::OCI_CONFIG, config.digest.clone(), config.size());
        let manifest = Document::indented(Manifest::new(Flavour::Oci, config, layers.into()));
        store.put(&manifest.bytes).unwrap();
        Descriptor::new(media_type::OCI_MANIFEST, manifest.digest.clone(), manifest.size())
    }

    fn archive(manifest: &Descriptor, layers: DockerLayers) -> DockerArchive {
        let names = ["app", "example.com:5000/x:v1"].map(|name| name.parse().unwrap()).to_vec();
        DockerArchive { manifest: manifest.clone(), names, layers, epoch: 7 }
    }

    fn files(archive: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let mut tar = TarReader::new(archive);
        let mut files = BTreeMap::new();
        while let Some(entry) = tar.next_entry().unwrap() {
            let mut bytes = Vec::new();
            tar.read_to_end(&mut bytes).unwrap();
            files.insert(entry.path, bytes);
        }
        files
    }

    #[test]
    fn layers_as_they_are_keep_the_manifest() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("a")).unwrap();
        let manifest = put_compressed(&store);
        let archive = archive(&manifest, DockerLayers::AsTheyAre);
        let bytes = store.write_docker_archive(&archive, Vec::new()).unwrap();
        assert_eq!(bytes, store.write_docker_archive(&archive, Vec::new()).unwrap());
        let files = files(&bytes);
        let list: serde_json::Value = serde_json::from_slice(&files["manifest.json"]).unwrap();
        assert_eq!(list[0]["RepoTags"], serde_json::json!(["app:latest", "example.com:5000/x:v1"]));
        assert!(
            list[0]["Layers"]
                .as_array()
                .unwrap()
                .iter()
                .all(|path| files.contains_key(path.as_str().unwrap()))
        );
        let repositories: serde_json::Value = serde_json::from_slice(&files["repositories"]).unwrap();
        assert!(repositories["example.com:5000/x"]["v1"].is_string());
        let other = Store::open(&dir.path().join("b")).unwrap();
        let found = other.import_archive(&bytes[..], Missing::Refuse).unwrap();
        assert_eq!(found.len(), 2);
        assert!(found.iter().all(|image| image.descriptor.digest == manifest.digest));
    }

    #[test]
    fn uncompressed_layers_have_their_diff_ids_and_come_back() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("a")).unwrap();
        let manifest = put_compressed(&store);
        let bytes =
            store.write_docker_archive(&archive(&manifest, DockerLayers::Uncompressed), Vec::new()).unwrap();
        let files = files(&bytes);
        let layers: Vec<_> = files.iter().filter(|(path, _)| path.ends_with(".tar")).collect();
        assert_eq!(layers.len(), 2);
        for (path, content) in layers {
            assert_eq!(*path, format!("{}.tar", Digest::of(content).hex()));
        }
        let other = Store::open(&dir.path().join("b")).unwrap();
        let found = other.import_archive(&bytes[..], Missing::Refuse).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].name.as_ref().unwrap().familiar(), "app:latest");
        let ManifestOrIndex::Manifest(loaded) = other.image(&found[0].descriptor).unwrap() else {
            panic!("a manifest")
        };
        let ManifestOrIndex::Manifest(original) = store.image(&manifest).unwrap() else {
            panic!("a manifest")
        };
        assert_eq!(loaded.value.config.digest, original.value.config.digest, "the image id stays");
    }

    #[test]
    fn an_index_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let index = put_index(&store, vec![put_image(&store, "linux/amd64", &[b"x"])]);
        let error = store.write_docker_archive(&archive(&index, DockerLayers::AsTheyAre), Vec::new());
        assert!(matches!(error, Err(StoreError::NotAManifest { .. })));
    }

    #[test]
    fn a_layer_that_is_not_what_the_config_says_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let right = put_image(&store, "linux/amd64", &[b"right"]);
        let ManifestOrIndex::Manifest(mut manifest) = store.image(&right).unwrap() else {
            panic!("a manifest")
        };
        manifest.value.layers[0].digest = store.put(b"wrong").unwrap();
        let manifest = Document::indented(manifest.value);
        store.put(&manifest.bytes).unwrap();
        let manifest = Descriptor::new(media_type::OCI_MANIFEST, manifest.digest.clone(), manifest.size());
        let error = store.write_docker_archive(&archive(&manifest, DockerLayers::Uncompressed), Vec::new());
        assert!(matches!(error, Err(StoreError::Mismatch { .. })));
    }
}
