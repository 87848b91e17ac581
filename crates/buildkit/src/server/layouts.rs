// SPDX-License-Identifier: Apache-2.0
//! Images of layouts that clients have: their blobs come into our store, each under the digest that it has.

use std::fs::File;
use std::path::Path;

use polyarch_build::{BuildError, ErrorKind, Services};
use polyarch_oci::{Descriptor, Digest, DigestError, ManifestOrIndex};
use polyarch_store::StoreError;

use crate::caller::{ClientContent, ClientSession};
use crate::server::attributes::wrong;

/// The largest manifest or index, in bytes.
const MAX_DOCUMENT_BYTES: u64 = 4 << 20;
/// The largest config or layer, in bytes.
const MAX_BLOB_BYTES: u64 = 64 << 30;
/// The most manifests of an index.
const MAX_MANIFESTS: usize = 256;
/// The most layers of a manifest.
const MAX_LAYERS: usize = 1000;

/// Copies an image, with all its platforms that the client has, from a client's store (`oci:NAME`,
/// `local:DIRECTORY`). Returns the descriptor of its root.
pub(super) async fn copy_image(
    session: &ClientSession,
    store_name: &str,
    digest: &Digest,
    services: &Services,
) -> Result<Descriptor, BuildError> {
    let content = session.content(store_name)?;
    let root = copy_root(&content, digest, services).await?;
    let size = services.store().size(digest).unwrap_or_default();
    Ok(Descriptor::new(root.media_type(), digest.clone(), size))
}

async fn copy_root(
    content: &ClientContent,
    digest: &Digest,
    services: &Services,
) -> Result<ManifestOrIndex, BuildError> {
    let root = copy_document(content, digest, "", services).await?;
    match &root {
        ManifestOrIndex::Manifest(manifest) => {
            copy_blobs(content, &manifest.value.layers, &manifest.value.config, services).await?;
        }
        ManifestOrIndex::Index(index) => {
            let mut found = 0;
            for entry in index.value.images().take(MAX_MANIFESTS) {
                // A layout may have only some of the platforms that its index names.
                let Ok(document) = copy_document(content, &entry.digest, &entry.media_type, services).await
                else {
                    continue;
                };
                if let ManifestOrIndex::Manifest(manifest) = document {
                    copy_blobs(content, &manifest.value.layers, &manifest.value.config, services).await?;
                    found += 1;
                }
            }
            if found == 0 {
                return Err(wrong(format!("the client's layout has no image of the index {digest}")));
            }
        }
    }
    Ok(root)
}

/// Leaves out a tag, which clients write although the digest says it all.
pub(super) fn without_tag(name: &str) -> &str {
    let tag = name.rfind(':').filter(|at| !name[*at..].contains('/'));
    &name[..tag.unwrap_or(name.len())]
}

async fn copy_document(
    content: &ClientContent,
    digest: &Digest,
    media_type: &str,
    services: &Services,
) -> Result<ManifestOrIndex, BuildError> {
    let bytes = content.read(digest, MAX_DOCUMENT_BYTES).await?;
    services.store().put_as(digest, &bytes).map_err(|error| failed(&error))?;
    services.note_sent(digest);
    ManifestOrIndex::parse(bytes, media_type).map_err(|error| {
        BuildError::from_source(ErrorKind::Usage, format!("the client's layout: {digest}"), &error)
    })
}

async fn copy_blobs(
    content: &ClientContent,
    layers: &[Descriptor],
    config: &Descriptor,
    services: &Services,
) -> Result<(), BuildError> {
    if layers.len() > MAX_LAYERS {
        return Err(wrong(format!("an image has at most {MAX_LAYERS} layers")));
    }
    for blob in layers.iter().chain([config]) {
        // That the store has it already says nothing about this client.
        if services.has_sent(&blob.digest) {
            continue;
        }
        let mut writer =
            services.store().writer_of(blob.digest.algorithm()).map_err(|error| failed(&error))?;
        content.copy(&blob.digest, blob.size.min(MAX_BLOB_BYTES), &mut writer).await?;
        writer.commit(Some((&blob.digest, blob.size))).map_err(|error| failed(&error))?;
        services.note_sent(&blob.digest);
    }
    Ok(())
}

/// Gives a client's store the blobs of a layout that was made here.
pub(super) async fn send_layout(content: &ClientContent, layout: &Path) -> Result<(), BuildError> {
    let blobs = layout.join("blobs");
    for algorithm in names(&blobs)? {
        for name in names(&blobs.join(&algorithm))? {
            let path = blobs.join(&algorithm).join(&name);
            let failed = |error: std::io::Error| BuildError::io("can't read", &path, &error);
            let digest: Digest = format!("{algorithm}:{name}").parse().map_err(|error| {
                let what = format!("{} is no blob", path.display());
                BuildError::from_source(ErrorKind::Storage, what, &error as &DigestError)
            })?;
            let file = File::open(&path).map_err(failed)?;
            let size = file.metadata().map_err(failed)?.len();
            content.write(&digest, size, file).await?;
        }
    }
    Ok(())
}

/// Returns the names in a directory, sorted.
fn names(directory: &Path) -> Result<Vec<String>, BuildError> {
    let failed = |error: std::io::Error| BuildError::io("can't read", directory, &error);
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        names.push(entry.map_err(failed)?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

fn failed(error: &StoreError) -> BuildError {
    BuildError::from_source(ErrorKind::Storage, "can't keep the client's image", error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stores_have_names_without_tags() {
        for (written, name) in [
            ("nnhri7:latest", "nnhri7"),
            ("nnhri7", "nnhri7"),
            ("nnhri7:", "nnhri7"),
            ("host:5000/app", "host:5000/app"),
            ("host:5000/app:1", "host:5000/app"),
        ] {
            assert_eq!(without_tag(written), name);
        }
    }
}
