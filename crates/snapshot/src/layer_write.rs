// SPDX-License-Identifier: Apache-2.0
//! A layer directory as a tar stream (image-spec, layer.md): the same bytes for the same tree.
//!
//! Entries go by directory, each before what is in it, names sorted by bytes. A whiteout stands where
//! the name that it hides would, the mark of an opaque directory right after the directory; both have
//! mode 0, owner 0:0 and time 0, because nothing about them means anything. The second and further
//! names of a file are hard links to the first. Sockets are left out.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::{BufWriter, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::attributes::{Xattrs, is_opaque, kept_xattrs};
use crate::error::{At, SnapshotError};
use crate::merge::check_depth;
use crate::meta::{Kind, Meta, names, open_directory, open_for_reading, read_link};
use crate::stack::{Effective, Stack, StackLayer};
use crate::tar_write::{Header, TarWriter, TypeFlag};

const OUTPUT_BUFFER_BYTES: usize = 256 << 10;

/// What times a layer's tar gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LayerTimes {
    /// Times after this second of the epoch become it (`SOURCE_DATE_EPOCH`).
    pub clamp: Option<i64>,
    /// With [`LayerTimes::clamp`]: a time that is exactly this one says nothing, and becomes the clamp.
    pub unknown: Option<i64>,
}

impl LayerTimes {
    fn of(&self, meta: &Meta) -> i64 {
        match self.clamp {
            Some(clamp) if meta.mtime.sec >= clamp || Some(meta.mtime.sec) == self.unknown => clamp,
            _ => meta.mtime.sec,
        }
    }
}

/// Writes the tar of `layer`, which lies on `parents`.
pub(crate) fn write_layer(
    layer: &StackLayer,
    parents: &Stack,
    times: &LayerTimes,
    out: &mut impl Write,
) -> Result<(), SnapshotError> {
    let out = BufWriter::with_capacity(OUTPUT_BUFFER_BYTES, out);
    let mut writer = LayerWriter { layer, parents, times, tar: TarWriter::new(out), links: HashMap::new() };
    writer.directory(&layer.directory, Path::new(""), 0, false)?;
    let mut out = writer.tar.finish().map_err(write_failed)?;
    out.flush().map_err(write_failed)
}

fn write_failed(source: std::io::Error) -> SnapshotError {
    SnapshotError::Stream { action: "write the layer's tar", source }
}

struct LayerWriter<'a, W> {
    layer: &'a StackLayer,
    parents: &'a Stack,
    times: &'a LayerTimes,
    tar: TarWriter<W>,
    /// The first path of each file with several, by inode.
    links: HashMap<((u32, u32), u64), PathBuf>,
}

impl<W: Write> LayerWriter<'_, W> {
    /// Writes what is in a directory, but not the directory itself. `hides` tells that nothing of lower
    /// layers shows here.
    fn directory(
        &mut self,
        directory: &OwnedFd,
        path: &Path,
        depth: usize,
        hides: bool,
    ) -> Result<(), SnapshotError> {
        check_depth(path, depth)?;
        for name in names(directory).at("list", path)? {
            let child = path.join(&name);
            let meta = Meta::at(directory, &name).at("look at", &child)?;
            if meta.is_whiteout() {
                self.mark(path, &[b".wh.", name.as_bytes()].concat())?;
            } else if meta.is_directory() {
                self.subdirectory((directory, &name), &child, &meta, depth, hides)?;
            } else {
                self.node((directory, &name), &child, &meta, hides)?;
            }
        }
        Ok(())
    }

    fn subdirectory(
        &mut self,
        (parent, name): (&OwnedFd, &OsStr),
        path: &Path,
        meta: &Meta,
        depth: usize,
        is_hidden: bool,
    ) -> Result<(), SnapshotError> {
        let directory = open_directory(parent, name).at("open", path)?;
        let xattrs = kept_xattrs(&directory).at("read xattrs of", path)?;
        let is_marked = is_opaque(&directory).at("read xattrs of", path)?;
        let hides = is_hidden || is_marked;
        let effective = self.effective(path, meta, xattrs, hides)?;
        let mut header = self.header(meta, &effective, TypeFlag::Directory);
        let text = [path.as_os_str().as_bytes(), b"/"].concat();
        header.name = &text;
        self.tar.entry(&header).map_err(write_failed)?;
        // Overlayfs marks every new directory; the mark means something only where one is hidden.
        if is_marked && !is_hidden && self.parents.find(path)?.is_some_and(|found| found.meta.is_directory())
        {
            self.mark(path, b".wh..wh..opq")?;
        }
        self.directory(&directory, path, depth + 1, hides)
    }

    fn node(
        &mut self,
        (directory, name): (&OwnedFd, &OsStr),
        path: &Path,
        meta: &Meta,
        hides: bool,
    ) -> Result<(), SnapshotError> {
        if meta.kind == Kind::Socket {
            return Ok(());
        }
        let file = match meta.kind {
            Kind::File => Some(open_for_reading(directory, name).at("open", path)?),
            _ => None,
        };
        let xattrs = match &file {
            Some(file) => kept_xattrs(file).at("read xattrs of", path)?,
            None => Xattrs::new(),
        };
        let effective = self.effective(path, meta, xattrs, hides)?;
        if meta.links > 1 {
            let key = (meta.dev, meta.ino);
            if let Some(first) = self.links.get(&key) {
                let first = first.clone();
                let mut header = self.header(meta, &effective, TypeFlag::HardLink);
                header.name = path.as_os_str().as_bytes();
                header.link = first.as_os_str().as_bytes();
                header.device = (0, 0);
                return self.tar.entry(&header).map_err(write_failed);
            }
            self.links.insert(key, path.to_owned());
        }
        let flag = match effective.kind {
            Kind::Symlink => TypeFlag::Symlink,
            Kind::CharDevice => TypeFlag::CharDevice,
            Kind::BlockDevice => TypeFlag::BlockDevice,
            Kind::Fifo => TypeFlag::Fifo,
            Kind::File | Kind::Directory | Kind::Socket => TypeFlag::Regular,
        };
        let mut header = self.header(meta, &effective, flag);
        header.name = path.as_os_str().as_bytes();
        match (flag, file) {
            (TypeFlag::Regular, Some(file)) => {
                header.size = meta.size;
                self.tar.file(&header, std::fs::File::from(file)).at("write the tar entry of", path)
            }
            (TypeFlag::Symlink, _) => {
                let target = read_link(directory, name).at("read link", path)?;
                header.link = target.as_bytes();
                self.tar.entry(&header).map_err(write_failed)
            }
            _ => self.tar.entry(&header).map_err(write_failed),
        }
    }

    /// Writes an empty file that stands for something that is not there.
    fn mark(&mut self, directory: &Path, name: &[u8]) -> Result<(), SnapshotError> {
        let path = directory.join(OsStr::from_bytes(name));
        let header = Header {
            name: path.as_os_str().as_bytes(),
            link: b"",
            flag: TypeFlag::Regular,
            mode: 0,
            owner: (0, 0),
            size: 0,
            mtime: 0,
            device: (0, 0),
            xattrs: &Xattrs::new(),
        };
        self.tar.entry(&header).map_err(write_failed)
    }

    /// Completes a node by the side files; one that hides what is beneath takes nothing from there.
    fn effective(
        &self,
        path: &Path,
        meta: &Meta,
        xattrs: Xattrs,
        hides: bool,
    ) -> Result<Effective, SnapshotError> {
        let own = self.layer.records.get(path);
        if hides {
            return Stack::default().effective(own, path, meta, xattrs);
        }
        self.parents.effective(own, path, meta, xattrs)
    }

    fn header<'e>(&self, meta: &Meta, effective: &'e Effective, flag: TypeFlag) -> Header<'e> {
        Header {
            name: b"",
            link: b"",
            flag,
            mode: meta.mode,
            owner: effective.owner,
            size: 0,
            mtime: self.times.of(meta),
            device: effective.device,
            xattrs: &effective.xattrs,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta::Time;

    #[test]
    fn times_are_clamped_or_set() {
        let base = tempfile::tempdir().unwrap();
        let mut meta = Meta::of(std::fs::File::open(base.path()).unwrap()).unwrap();
        let mut at = |sec, times: LayerTimes| {
            meta.mtime = Time { sec, nsec: 7 };
            times.of(&meta)
        };
        assert_eq!(at(50, LayerTimes::default()), 50);
        let clamp = LayerTimes { clamp: Some(100), ..LayerTimes::default() };
        assert_eq!([at(50, clamp), at(100, clamp), at(150, clamp)], [50, 100, 100]);
        let unknown = LayerTimes { unknown: Some(50), ..clamp };
        assert_eq!([at(49, unknown), at(50, unknown), at(51, unknown)], [49, 100, 51]);
    }
}
