// SPDX-License-Identifier: Apache-2.0
//! Docker archives, reading: manifests are made for what `docker save` wrote without them.

use std::io::{self, Read as _};

use polyarch_oci::config::MAX_CONFIG_BYTES;
use polyarch_oci::media_type::{self, Flavour};
use polyarch_oci::{Descriptor, DiffId, Digest, Document, Hasher, ImageConfig, Manifest, Reference};
use serde::Deserialize;

use crate::archive::{Contents, compression_of, decompress};
use crate::ingest::copy;
use crate::layout::NamedImage;
use crate::tar_read::resolve;
use crate::{Store, StoreError};

/// The largest number of images in one archive, and of layers in one image.
const MAX_ENTRIES: usize = 1_000;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ArchiveImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

impl Store {
    /// Makes manifests for the images that `manifest.json` lists, one result per image and name.
    pub(crate) fn import_docker_contents(&self, contents: &Contents) -> Result<Vec<NamedImage>, StoreError> {
        const LIST: &str = "manifest.json";
        let bytes = contents.documents.get(LIST).ok_or(StoreError::NoImage)?;
        let images: Vec<ArchiveImage> = serde_json::from_slice(bytes)
            .map_err(|source| StoreError::ArchiveJson { path: LIST.to_owned(), source })?;
        if images.is_empty() {
            return Err(StoreError::NoImage);
        }
        if images.len() > MAX_ENTRIES {
            return Err(StoreError::Entry { path: LIST.to_owned(), problem: "lists more than 1000 images" });
        }
        let mut found = Vec::new();
        for image in images {
            let descriptor = self.make_manifest(contents, &image)?;
            let names = parse_names(image.repo_tags.unwrap_or_default())?;
            if names.is_empty() {
                found.push(NamedImage::new(descriptor, None));
            } else {
                found.extend(names.into_iter().map(|name| NamedImage::new(descriptor.clone(), Some(name))));
            }
        }
        Ok(found)
    }

    fn make_manifest(&self, contents: &Contents, image: &ArchiveImage) -> Result<Descriptor, StoreError> {
        let (digest, size) = lookup(contents, &image.config)?;
        let config = Descriptor::new(media_type::DOCKER_CONFIG, digest.clone(), size);
        let parsed: Document<ImageConfig> =
            Document::parse(self.read(&config, MAX_CONFIG_BYTES)?, "image config")
                .map_err(|source| StoreError::Document { digest: digest.clone(), source })?;
        let diff_ids = &parsed.value.rootfs.diff_ids;
        let paths = image.layers.as_deref().unwrap_or_default();
        if paths.len() != diff_ids.len() {
            return Err(StoreError::LayerCount { digest, layers: paths.len(), diff_ids: diff_ids.len() });
        }
        if paths.len() > MAX_ENTRIES {
            return Err(StoreError::Entry {
                path: image.config.clone(),
                problem: "has more than 1000 layers",
            });
        }
        let mut layers = Vec::new();
        for (path, diff_id) in paths.iter().zip(diff_ids) {
            let (digest, size) = lookup(contents, path)?;
            layers.push(self.check_layer(digest, size, diff_id)?);
        }
        let manifest = Document::indented(Manifest::new(Flavour::Docker, config, layers));
        self.put(&manifest.bytes)?;
        let descriptor =
            Descriptor::new(media_type::DOCKER_MANIFEST, manifest.digest.clone(), manifest.size());
        Ok(descriptor.with_platform(parsed.value.platform()))
    }

    /// Checks a layer, which may be compressed, against its diff id and describes it.
    fn check_layer(&self, digest: Digest, size: u64, diff_id: &DiffId) -> Result<Descriptor, StoreError> {
        let mut start = Vec::new();
        let file = self.open_blob(&digest)?;
        (&file).take(4).read_to_end(&mut start).map_err(StoreError::stream("read"))?;
        let compression = compression_of(&start);
        if digest != diff_id.0 {
            let plain =
                decompress(io::Cursor::new(start).chain(&file)).map_err(StoreError::stream("decompress"))?;
            let mut hasher = Hasher::new(diff_id.0.algorithm());
            copy(plain, &mut hasher).map_err(StoreError::stream("decompress"))?;
            let found = hasher.finish();
            if found != diff_id.0 {
                return Err(StoreError::Mismatch { expected: diff_id.0.clone(), found });
            }
        }
        Ok(Descriptor::new(compression.layer_media_type(Flavour::Docker), digest, size))
    }
}

fn lookup(contents: &Contents, path: &str) -> Result<(Digest, u64), StoreError> {
    resolve("", path)
        .and_then(|path| contents.blob(&path).cloned())
        .ok_or_else(|| StoreError::Entry { path: path.chars().take(300).collect(), problem: "is missing" })
}

fn parse_names(tags: Vec<String>) -> Result<Vec<Reference>, StoreError> {
    let parse = |tag: String| {
        tag.parse().map_err(|_| StoreError::Entry {
            path: tag.chars().take(300).collect(),
            problem: "is listed as a name but is not one",
        })
    };
    tags.into_iter().map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Missing;
    use crate::tar_write::TarWriter;

    fn config_of(layers: &[&[u8]]) -> Vec<u8> {
        let mut config = ImageConfig::default();
        config.set_platform(&"linux/arm/v7".parse().unwrap());
        config.rootfs.diff_ids = layers.iter().map(|layer| DiffId(Digest::of(layer))).collect();
        Document::compact(config).bytes
    }

    fn archive_of(files: &[(&str, &[u8])], list: &str) -> Vec<u8> {
        let mut tar = TarWriter::new(Vec::new(), 0);
        for (path, bytes) in files {
            tar.bytes(path, bytes).unwrap();
        }
        tar.bytes("manifest.json", list.as_bytes()).unwrap();
        tar.finish().unwrap()
    }

    fn import(archive: &[u8]) -> Result<Vec<NamedImage>, StoreError> {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let images = store.import_archive(archive, Missing::Refuse)?;
        for image in &images {
            store.closure(&image.descriptor, Missing::Refuse)?;
        }
        Ok(images)
    }

    const LIST: &str = r#"[{"Config":"c.json","RepoTags":["a:1","b:2"],"Layers":["x/layer.tar"]}]"#;

    #[test]
    fn an_old_archive_is_read_also_when_compressed() {
        let config = config_of(&[b"layer"]);
        let archive =
            archive_of(&[("c.json", &config), ("x/layer.tar", b"layer"), ("x/VERSION", b"1.0")], LIST);
        let images = import(&archive).unwrap();
        let names: Vec<_> = images.iter().map(|image| image.name.as_ref().unwrap().familiar()).collect();
        assert_eq!(names, ["a:1", "b:2"]);
        assert_eq!(images[0].descriptor.platform.as_ref().unwrap().to_string(), "linux/arm/v7");
        let mut gzip = Vec::new();
        let level = flate2::Compression::fast();
        flate2::read::GzEncoder::new(&archive[..], level).read_to_end(&mut gzip).unwrap();
        assert_eq!(import(&gzip).unwrap(), images);
        assert_eq!(import(&zstd::encode_all(&archive[..], 1).unwrap()).unwrap(), images);
    }

    #[test]
    fn hostile_archives_are_refused() {
        let config = config_of(&[b"layer"]);
        let good: [(&str, &[u8]); 2] = [("c.json", &config), ("x/layer.tar", b"layer")];
        assert!(import(&archive_of(&good, LIST)).is_ok());
        let other_layer: [(&str, &[u8]); 2] = [("c.json", &config), ("x/layer.tar", b"other")];
        assert!(matches!(import(&archive_of(&other_layer, LIST)), Err(StoreError::Mismatch { .. })));
        let without_layer: [(&str, &[u8]); 1] = [("c.json", &config)];
        let missing = import(&archive_of(&without_layer, LIST)).unwrap_err();
        assert_eq!(missing.to_string(), r#"archive entry "x/layer.tar" is missing"#);
        let two = LIST.replace(r#"["x/layer.tar"]"#, r#"["x/layer.tar","x/layer.tar"]"#);
        assert!(matches!(import(&archive_of(&good, &two)), Err(StoreError::LayerCount { .. })));
        let outside = LIST.replace("c.json", "../../etc/passwd");
        assert!(import(&archive_of(&good, &outside)).is_err());
        let name = LIST.replace("a:1", "NOT A NAME");
        assert!(import(&archive_of(&good, &name)).is_err());
        assert!(matches!(import(&archive_of(&good, "{")), Err(StoreError::ArchiveJson { .. })));
        assert!(matches!(import(&archive_of(&good, "[]")), Err(StoreError::NoImage)));
        assert!(matches!(import(&[0; 1024]), Err(StoreError::NoImage)));
        assert!(import(b"not a tar file at all").is_err());
        let bytes = archive_of(&good, LIST);
        assert!(import(&bytes[..700]).is_err());
    }
}
