// SPDX-License-Identifier: Apache-2.0
//! Images made by code: valid enough for every loader.

use std::io::Write as _;

use polyarch_oci::media_type::{self, Compression, Flavour};
use polyarch_oci::{Descriptor, DiffId, Digest, Document, ImageConfig, ImageIndex, Manifest, Platform};
use polyarch_store::Store;

/// Makes an index of images for the given platforms, each with a shared layer and one of its own.
pub fn put_index(
    store: &Store,
    platforms: &[&str],
    compression: Compression,
) -> (Descriptor, Vec<Descriptor>) {
    let images: Vec<Descriptor> =
        platforms.iter().map(|platform| put_image(store, platform, compression)).collect();
    let index = Document::indented(ImageIndex::new(Flavour::Oci, images.clone()));
    store.put(&index.bytes).unwrap();
    (Descriptor::new(media_type::OCI_INDEX, index.digest.clone(), index.size()), images)
}

fn put_image(store: &Store, platform: &str, compression: Compression) -> Descriptor {
    let platform: Platform = platform.parse().unwrap();
    let tars = [layer("shared", "the same everywhere"), layer("platform", &platform.to_string())];
    let mut config =
        ImageConfig { created: Some("1970-01-01T00:00:00Z".to_owned()), ..ImageConfig::default() };
    config.set_platform(&platform);
    config.config.cmd = Some(vec!["/bin/true".to_owned()]);
    config.rootfs.diff_ids = tars.iter().map(|tar| DiffId(Digest::of(tar))).collect();
    let config = Document::compact(config);
    store.put(&config.bytes).unwrap();
    let layers = tars.map(|tar| {
        let bytes = compress(&tar, compression);
        Descriptor::new(
            compression.layer_media_type(Flavour::Oci),
            store.put(&bytes).unwrap(),
            bytes.len() as u64,
        )
    });
    let config = Descriptor::new(media_type::OCI_CONFIG, config.digest.clone(), config.size());
    let manifest = Document::indented(Manifest::new(Flavour::Oci, config, layers.into()));
    store.put(&manifest.bytes).unwrap();
    Descriptor::new(media_type::OCI_MANIFEST, manifest.digest.clone(), manifest.size())
        .with_platform(platform)
}

/// Makes a layer with one file.
fn layer(path: &str, content: &str) -> Vec<u8> {
    let mut header = tar_core::Header::new_ustar();
    header.set_path(path.as_bytes()).unwrap();
    header.set_mode_small(0o644);
    header.set_uid(0).unwrap();
    header.set_gid(0).unwrap();
    header.set_size_small(content.len() as u32);
    header.set_mtime_small(0);
    header.set_entry_type(tar_core::EntryType::Regular);
    header.set_checksum();
    let mut tar = header.as_bytes().to_vec();
    tar.extend_from_slice(content.as_bytes());
    tar.resize(tar.len().next_multiple_of(512) + 1024, 0);
    tar
}

fn compress(bytes: &[u8], compression: Compression) -> Vec<u8> {
    match compression {
        Compression::Uncompressed => bytes.to_vec(),
        Compression::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
        Compression::Zstd => zstd::encode_all(bytes, 1).unwrap(),
    }
}
