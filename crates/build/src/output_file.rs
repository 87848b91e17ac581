// SPDX-License-Identifier: Apache-2.0
//! Files that the user asked for: there whole, or as they were before.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use crate::error::BuildError;

/// Writes a file beside its place and moves it there when it is complete.
///
/// A link is followed. What is no regular file, a device or a pipe, is written to and never replaced.
///
/// # Errors
/// What `write` gave, or why the file can't be written; its directory must be there.
pub fn write_file(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> Result<(), BuildError>,
) -> Result<(), BuildError> {
    let failed = |error: &io::Error| BuildError::io("can't write", path, error);
    if std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
        let file = File::options().write(true).open(path).map_err(|error| failed(&error))?;
        let mut out = BufWriter::with_capacity(1 << 20, file);
        write(&mut out)?;
        return out.flush().map_err(|error| failed(&error));
    }
    let target = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let directory = target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let file = tempfile::Builder::new()
        .prefix(".polyarch-")
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .tempfile_in(directory)
        .map_err(|error| failed(&error))?;
    let mut out = BufWriter::with_capacity(1 << 20, file.reopen().map_err(|error| failed(&error))?);
    write(&mut out)?;
    out.flush().map_err(|error| failed(&error))?;
    file.persist(&target).map(drop).map_err(|error| failed(&error.error))
}
