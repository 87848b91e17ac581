// SPDX-License-Identifier: Apache-2.0
//! Images as archives: OCI layouts, and what `docker load` reads.

use std::io::{self, Write};
use std::sync::Arc;

use polyarch_oci::Descriptor;
use polyarch_solver::progress::ActiveStatus;
use polyarch_store::{DockerArchive, DockerLayers, LayoutOptions, Missing, NamedImage, StoreError};

use crate::error::{BuildError, ErrorKind};
use crate::fetch::{Shown, blocking};
use crate::image::PlatformImage;
use crate::image_source::storage_error;
use crate::output_file::write_file;
use crate::request::{BuildRequest, Destination};
use crate::services::Services;

/// Writes an OCI layout of all platforms, under every name.
pub(super) async fn write_oci(
    services: &Arc<Services>,
    request: &BuildRequest,
    root: &Descriptor,
    destination: &Destination,
    tar: bool,
    shown: &Shown,
) -> Result<(), BuildError> {
    let images: Vec<NamedImage> = if request.names.is_empty() {
        vec![NamedImage::new(root.clone(), None)]
    } else {
        request.names.iter().map(|name| NamedImage::new(root.clone(), Some(name.clone()))).collect()
    };
    let options = LayoutOptions { epoch: epoch_of(request), missing: Missing::Refuse };
    let store = services.store.clone();
    let _status = sending(shown);
    match (destination, tar) {
        (Destination::Path(path), false) => {
            let path = path.clone();
            blocking(move || store.write_layout(&images, options, &path))
                .await
                .map_err(|error| storage_error(&error))
        }
        (Destination::Stdout | Destination::Stream(_), false) => {
            Err(BuildError::new(ErrorKind::Usage, "a layout directory can't go to standard output")
                .with_hint("leave out tar=false, or name a directory with dest="))
        }
        (destination, true) => {
            write_stream(destination, move |out| store.write_oci_archive(&images, options, out).map(drop))
                .await
        }
    }
}

/// Writes the archive of the only platform.
pub(super) async fn write_docker(
    services: &Arc<Services>,
    request: &BuildRequest,
    images: &[PlatformImage],
    destination: &Destination,
    shown: &Shown,
) -> Result<(), BuildError> {
    let [image] = images else {
        return Err(BuildError::new(
            ErrorKind::Usage,
            format!("a docker archive holds one platform, and {} were built", images.len()),
        )
        .with_hint("use -o type=oci for all of them, or --load to keep them in the local store"));
    };
    let archive = DockerArchive {
        manifest: image.descriptor(),
        names: request.names.clone(),
        layers: DockerLayers::default(),
        epoch: epoch_of(request),
    };
    let store = services.store.clone();
    let _status = sending(shown);
    write_stream(destination, move |out| store.write_docker_archive(&archive, out).map(drop)).await
}

fn sending(shown: &Shown) -> ActiveStatus {
    ActiveStatus::start(shown.progress.clone(), shown.vertex.clone(), "sending tarball".to_owned(), 0)
}

fn epoch_of(request: &BuildRequest) -> u64 {
    request.source_date_epoch.and_then(|epoch| u64::try_from(epoch).ok()).unwrap_or(0)
}

/// Writes a stream to a file, which appears only when it is complete, or to standard output.
async fn write_stream(
    destination: &Destination,
    write: impl FnOnce(&mut dyn Write) -> Result<(), StoreError> + Send + 'static,
) -> Result<(), BuildError> {
    let destination = destination.clone();
    blocking(move || match &destination {
        Destination::Stdout => write(&mut io::stdout().lock()).map_err(|error| storage_error(&error)),
        Destination::Stream(stream) => {
            let failed = |error: io::Error| {
                BuildError::of_output(ErrorKind::Registry, format!("can't send the archive: {error}"))
            };
            let mut out = stream.take().map_err(failed)?;
            write(&mut out).map_err(|error| storage_error(&error))?;
            out.flush().map_err(failed)
        }
        Destination::Path(path) => write_file(path, |out| write(out).map_err(|error| storage_error(&error))),
    })
    .await
}
