// SPDX-License-Identifier: Apache-2.0
//! The files by which registered emulators come back at the next boot.
//!
//! systemd-binfmt (binfmt.d(5)) and OpenRC's `binfmt` service register the lines of `*.conf` files of several
//! directories. A file in `/etc/binfmt.d` replaces the one of the same name in the others, so ours are named after
//! their entry. The first line tells that a file is ours; files of others are never written or removed.

use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use super::host_registration::entry_name;
use super::{Architecture, BinfmtError, Handler};

/// The beginning of our files.
const MARK: &str = "# Written by `polyarch binfmt --install`";
/// More files than any host has.
const FILES_MAX: usize = 1024;
/// Where distributions and administrators put theirs, besides the directory that is written to.
const OTHER_DIRECTORIES: [&str; 4] =
    ["/run/binfmt.d", "/usr/local/lib/binfmt.d", "/usr/lib/binfmt.d", "/lib/binfmt.d"];
/// Debian's binfmt-support has a directory of its own.
const BINFMT_SUPPORT: &str = "/usr/share/binfmts";
/// The programs that register what the directories say.
const READERS: [&str; 4] = [
    "/usr/lib/systemd/systemd-binfmt",
    "/lib/systemd/systemd-binfmt",
    "/usr/libexec/rc/sh/binfmt.sh",
    "/lib/rc/sh/binfmt.sh",
];

/// A directory of `*.conf` files, `/etc/binfmt.d` as a rule.
#[derive(Debug, Clone)]
pub struct BinfmtDirectory {
    path: PathBuf,
}

/// Whose word it is that an entry comes back at boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A file that polyarch wrote.
    Ours(PathBuf),
    /// Another file.
    Other(PathBuf),
}

impl BinfmtDirectory {
    /// Takes the directory that files are written to.
    pub fn at(path: impl Into<PathBuf>) -> BinfmtDirectory {
        BinfmtDirectory { path: path.into() }
    }

    /// Returns that directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Tells whether this machine has a program that reads such files at boot.
    pub fn has_reader() -> bool {
        READERS.iter().any(|program| Path::new(program).is_file())
    }

    /// Returns what brings an entry back at boot, if anything does.
    pub fn origin(&self, name: &str) -> Option<Origin> {
        let file = format!("{name}.conf");
        let own = self.path.join(&file);
        if is_ours(&own) {
            return Some(Origin::Ours(own));
        }
        let others = OTHER_DIRECTORIES.iter().map(|directory| Path::new(directory).join(&file));
        let support = Path::new(BINFMT_SUPPORT).join(name);
        [own].into_iter().chain(others).chain([support]).find(|path| path.exists()).map(Origin::Other)
    }

    /// Returns the names of the entries that files of ours bring back, sorted.
    pub fn ours(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(&self.path) else { return Vec::new() };
        let mut names: Vec<String> = entries
            .take(FILES_MAX)
            .filter_map(|entry| {
                let path = entry.ok()?.path();
                let is_conf = path.extension() == Some(OsStr::new("conf"));
                let name = path.file_stem()?.to_str()?.to_owned();
                (is_conf && is_ours(&path)).then_some(name)
            })
            .collect();
        names.sort();
        names
    }

    /// Writes the file of an emulator, with these flags; returns its path. The directory is made when missing.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] when there is a file of somebody else; what the disk says.
    pub fn write(&self, architecture: Architecture, interpreter: &Path, flags: &str) -> io::Result<PathBuf> {
        let mut handler = Handler::new(architecture, interpreter.to_owned());
        handler.name = entry_name(architecture);
        let line = handler
            .line(&handler.name, flags)
            .map_err(|error: BinfmtError| io::Error::new(io::ErrorKind::InvalidInput, error.to_string()))?;
        let path = self.path.join(format!("{}.conf", handler.name));
        if path.symlink_metadata().is_ok() && !is_ours(&path) {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "a file of somebody else is there"));
        }
        std::fs::create_dir_all(&self.path)?;
        let mut file = tempfile::Builder::new()
            .prefix(".polyarch-")
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
            .tempfile_in(&self.path)?;
        writeln!(file, "{MARK}; `polyarch binfmt --uninstall {}` removes it.", architecture.name())?;
        file.write_all(&line)?;
        file.write_all(b"\n")?;
        file.as_file().sync_all()?;
        file.persist(&path).map_err(|error| error.error)?;
        std::fs::File::open(&self.path)?.sync_all()?;
        Ok(path)
    }

    /// Removes our file of an entry, if there is one; returns its path.
    ///
    /// # Errors
    /// What the disk says.
    pub fn remove(&self, name: &str) -> io::Result<Option<PathBuf>> {
        match self.origin(name) {
            Some(Origin::Ours(path)) => {
                std::fs::remove_file(&path)?;
                std::fs::File::open(&self.path)?.sync_all()?;
                Ok(Some(path))
            }
            _ => Ok(None),
        }
    }
}

/// Tells whether a file begins as ours do.
fn is_ours(path: &Path) -> bool {
    let is_file = path.symlink_metadata().is_ok_and(|metadata| metadata.is_file());
    let mut head = Vec::new();
    let limit = u64::try_from(MARK.len()).unwrap_or(0);
    is_file
        && std::fs::File::open(path).is_ok_and(|file| file.take(limit).read_to_end(&mut head).is_ok())
        && head == MARK.as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_files_come_and_go_and_those_of_others_stay() {
        let parent = tempfile::tempdir().unwrap();
        let directory = BinfmtDirectory::at(parent.path().join("binfmt.d"));
        assert_eq!((directory.ours(), directory.remove("qemu-s390x").unwrap()), (Vec::new(), None));
        let write = |architecture| directory.write(architecture, Path::new("/usr/bin/q:e"), "POCF");
        let path = write(Architecture::S390x).unwrap();
        assert_eq!(path, directory.path().join("qemu-s390x.conf"));
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with('#') && lines[0].contains("--uninstall s390x"), "{text}");
        // Neither `#` nor `;`, which begin comments; and one line per entry (binfmt.d(5)).
        assert!(
            lines[1].starts_with(",qemu-s390x,M,,\\x7f\\x45") && lines[1].ends_with(",/usr/bin/q:e,POCF"),
            "{text}"
        );
        assert_eq!(lines.len(), 2);
        write(Architecture::S390x).expect("it is ours to replace");

        let other = directory.path().join("qemu-riscv64.conf");
        std::fs::write(&other, ":qemu-riscv64:M::x::/q:F\n").unwrap();
        assert_eq!(write(Architecture::Riscv64).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(directory.remove("qemu-riscv64").unwrap(), None);
        assert_eq!(directory.origin("qemu-riscv64"), Some(Origin::Other(other.clone())));
        // A link to ours is not ours: the administrator put it there.
        std::os::unix::fs::symlink(&path, directory.path().join("link.conf")).unwrap();
        assert_eq!(directory.ours(), ["qemu-s390x"]);

        assert_eq!(directory.remove("qemu-s390x").unwrap(), Some(path.clone()));
        assert!(!path.exists() && other.exists() && directory.ours().is_empty());
        let left: Vec<_> = std::fs::read_dir(directory.path()).unwrap().collect();
        assert_eq!(left.len(), 2, "no temporary file is left");
    }
}
