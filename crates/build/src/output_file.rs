// SPDX-License-Identifier: Apache-2.0
//! Files that the user asked for: there whole, or as they were before.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::fd::AsRawFd as _;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;

use crate::error::{BuildError, ErrorKind};

/// Writes a file without a name, or beside its place, and puts it there when it is complete.
///
/// A link is followed. What is no regular file, a device or a pipe, is written to and never replaced.
/// Where the file system has files without names, nothing is left of one when the process is ended.
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
    let directory = directory_of(&target);
    require_directory(path)?;
    let mode = Mode::from_raw_mode(0o644);
    match rustix::fs::open(directory, OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC, mode) {
        Ok(file) => {
            let mut out = BufWriter::with_capacity(1 << 20, File::from(file));
            write(&mut out)?;
            let file = out.into_inner().map_err(|error| failed(error.error()))?;
            return put_in_place(&file, directory, &target).map_err(|error| failed(&error));
        }
        // open(2), O_TMPFILE: how file systems and kernels without it answer.
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOENT | Errno::INVAL) => {}
        Err(error) => return Err(failed(&error.into())),
    }
    let file = beside().tempfile_in(directory).map_err(|error| failed(&reason(&error)))?;
    let mut out = BufWriter::with_capacity(1 << 20, file.reopen().map_err(|error| failed(&error))?);
    write(&mut out)?;
    out.flush().map_err(|error| failed(&error))?;
    file.persist(&target).map(drop).map_err(|error| failed(&error.error))
}

/// Refuses a file whose directory is not there, before the work that the file is to tell of.
///
/// # Errors
/// That the directory does not exist.
pub fn require_directory(path: &Path) -> Result<(), BuildError> {
    let directory = directory_of(path);
    if std::fs::metadata(directory).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
        let shown = directory.display();
        let message = format!("can't write {}: the directory {shown} does not exist", path.display());
        return Err(
            BuildError::new(ErrorKind::Usage, message).with_hint(format!("make it first: mkdir -p {shown}"))
        );
    }
    Ok(())
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Makes files with names that nobody has, beside the one that is asked for.
fn beside() -> tempfile::Builder<'static, 'static> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".polyarch-").permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644));
    builder
}

/// Gives a file without a name one, in place of what has it.
fn put_in_place(file: &File, directory: &Path, target: &Path) -> io::Result<()> {
    let own = format!("/proc/self/fd/{}", file.as_raw_fd());
    // A link can't replace a file: it is made beside it and moved.
    let link = beside()
        .make_in(directory, |path| {
            rustix::fs::linkat(CWD, own.as_str(), CWD, path, AtFlags::SYMLINK_FOLLOW).map_err(Into::into)
        })
        .map_err(|error| reason(&error))?;
    link.persist(target).map(drop).map_err(|error| error.error)
}

/// Returns the reason alone: what wraps it tells a name that nobody asked for.
fn reason(error: &io::Error) -> io::Error {
    io::Error::from(error.kind())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(directory).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_has_its_name_only_when_it_is_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        for text in ["first", "second"] {
            write_file(&path, |out| {
                out.write_all(text.as_bytes()).unwrap();
                Ok(())
            })
            .unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
        let failed = write_file(&path, |out| {
            out.write_all(&[0; 4 << 20]).unwrap();
            Err(BuildError::cancelled())
        });
        assert_eq!(failed.unwrap_err().kind, ErrorKind::Cancelled);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "second");
        assert_eq!(names(directory.path()), ["file"]);
    }

    #[test]
    fn a_missing_directory_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("none/file");
        let error = write_file(&path, |_| Ok(())).unwrap_err();
        let none = directory.path().join("none");
        let (path, none) = (path.display(), none.display());
        assert_eq!(error.message, format!("can't write {path}: the directory {none} does not exist"));
        assert_eq!(error.hints, [format!("make it first: mkdir -p {none}")]);
    }
}
