// SPDX-License-Identifier: Apache-2.0
//! Files of an image copied to this machine, or into a tar archive.
//!
//! What goes where is docker's rule for `cp`: a directory into one that exists goes there under its own
//! name, `DIRECTORY/.` stands for what is in it, and what does not exist yet becomes the copy. Paths of the
//! image are resolved beneath its root, and what is put into a directory stays beneath that directory,
//! whatever links are in either.

use std::fs::Permissions;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use polyarch_build::fetch::{Shown, blocking};
use polyarch_build::tree::{ImageLayer, Layer, Tree};
use polyarch_build::{BuildError, ErrorKind, Services, write_file};
use polyarch_contents::ImagePath;
use polyarch_oci::platform::did_you_mean;
use polyarch_oci::{Digest, Platform};
use polyarch_snapshot::{
    CopySource, CopySpec, KeepAll, Kind, LayerTimes, Metadata, SnapshotError, SnapshotId, TreeRoot, copy,
};

use crate::lookup::{SelectedImage, find};

/// What to copy.
#[derive(Debug, Clone)]
pub struct CopyRequest {
    /// The image, by name, digest or id.
    pub image: String,
    /// The platform; this machine's, or the only one, when absent.
    pub platform: Option<Platform>,
    /// The path in the image, as written: `/` and `/.` at its end mean something.
    pub path: String,
    /// Copy what a link leads to, and not the link.
    pub follow_link: bool,
    /// Keep the owners that the image tells; else the files belong to whoever copies.
    pub keep_owner: bool,
    /// Where it goes.
    pub destination: CopyDestination,
}

/// Where copied files go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CopyDestination {
    /// A place on this machine.
    Path {
        /// The path, absolute.
        path: PathBuf,
        /// Whether it was written as a directory.
        is_directory: bool,
    },
    /// A tar archive.
    Archive,
}

/// Copies files out of an image. An archive is written to `out`, anything else where the request says;
/// returns the platform that the files are of.
///
/// # Errors
/// When there is no such image, platform or path, and what the disk refuses.
pub async fn copy_out(
    services: &Arc<Services>,
    request: &CopyRequest,
    out: impl Write + Send + 'static,
    shown: &Shown,
) -> Result<Platform, BuildError> {
    let found = find(services.store(), &request.image)?;
    let selected = found.select(services.store(), request.platform.as_ref())?;
    let layers = layers_of(services, &selected)?;
    let ids = services.directories(&Tree::new(layers, Vec::new()), shown).await?;
    let (worker, request, platform) = (services.clone(), request.clone(), selected.platform);
    blocking(move || {
        let tree = worker.snapshots().view(&ids).map_err(|error| failed(&worker, &error))?;
        let source = Source::find(&worker, &tree, &request, &platform)?;
        match &request.destination {
            CopyDestination::Path { path, is_directory } => {
                source.put_at(path, *is_directory, request.keep_owner)?;
            }
            CopyDestination::Archive => source.write_archive(out)?,
        }
        Ok(platform)
    })
    .await
}

fn failed(services: &Services, error: &SnapshotError) -> BuildError {
    services.snapshot_error("can't copy", error)
}

/// Returns the layers of an image; blobs that the store has lost are fetched from where they came.
fn layers_of(services: &Services, selected: &SelectedImage) -> Result<Vec<Layer>, BuildError> {
    let (diff_ids, blobs) = (&selected.config.value.rootfs.diff_ids, &selected.manifest.value.layers);
    if diff_ids.len() != blobs.len() {
        let message = format!(
            "{} has {} layers, and its config tells of {}",
            selected.descriptor.digest,
            blobs.len(),
            diff_ids.len()
        );
        return Err(BuildError::new(ErrorKind::Storage, message));
    }
    let layers = diff_ids.iter().zip(blobs).map(|(diff_id, descriptor)| {
        Layer::Image(Box::new(ImageLayer {
            diff_id: diff_id.clone(),
            descriptor: descriptor.clone(),
            from: services.blob_origin(&descriptor.digest),
        }))
    });
    Ok(layers.collect())
}

/// What is copied.
struct Source<'a> {
    services: &'a Services,
    tree: &'a TreeRoot,
    /// The path, cleaned, absolute.
    path: String,
    /// Its last name; empty for the root.
    name: String,
    metadata: Metadata,
    /// Whether only what is in the directory is meant.
    is_content: bool,
}

impl<'a> Source<'a> {
    fn find(
        services: &'a Services,
        tree: &'a TreeRoot,
        request: &CopyRequest,
        platform: &Platform,
    ) -> Result<Source<'a>, BuildError> {
        let written = &request.path;
        let cleaned = ImagePath::clean(written).to_string();
        let path = format!("/{}", cleaned.trim_start_matches('/'));
        let name = path.rsplit('/').next().unwrap_or_default().to_owned();
        let is_content = name.is_empty() || written.ends_with("/.");
        let must_be_directory = is_content || written.ends_with('/');
        let found = match request.follow_link || must_be_directory {
            true => tree.metadata(&path),
            false => tree.symlink_metadata(&path),
        };
        let image = format!("{} ({platform})", request.image);
        let Some(metadata) = found.map_err(|error| failed(services, &error))? else {
            let message = format!("there is no {path} in {image}{}", near_names(tree, &path, &name));
            return Err(BuildError::new(ErrorKind::Usage, message));
        };
        if must_be_directory && metadata.kind != Kind::Directory {
            return Err(BuildError::new(ErrorKind::Usage, format!("{path} in {image} is not a directory")));
        }
        Ok(Source { services, tree, path, name, metadata, is_content })
    }

    /// Copies to a place on this machine.
    fn put_at(&self, path: &Path, is_directory: bool, keep_owner: bool) -> Result<(), BuildError> {
        let wrong = |what: String| BuildError::new(ErrorKind::Usage, what);
        let owner = (!keep_owner).then_some((0, 0));
        let shown = path.display();
        let is_source_directory = self.metadata.kind == Kind::Directory;
        match std::fs::metadata(path) {
            Ok(there) if there.is_dir() => {
                let into = TreeRoot::open(path).map_err(|error| failed(self.services, &error))?;
                let name = if self.is_content { "" } else { self.name.as_str() };
                self.check_place(&into, name, &path.join(name))?;
                self.put(&into, name, owner)
            }
            Ok(_) if is_directory => Err(wrong(format!("{shown} is not a directory"))),
            Ok(_) if is_source_directory => {
                Err(wrong(format!("can't copy the directory {} to the file {shown}", self.path)))
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(BuildError::io("can't look at", path, &error))
            }
            Err(_) if is_directory && !is_source_directory => {
                Err(wrong(format!("the directory {shown} does not exist"))
                    .with_hint(format!("make it first: mkdir -p {shown}")))
            }
            _ if self.metadata.kind == Kind::File => self.write_to(path, keep_owner),
            there => {
                let is_special = there.is_ok_and(|there| !there.is_file());
                let (Some(parent), Some(name)) = (path.parent(), path.file_name().and_then(|it| it.to_str()))
                else {
                    return Err(wrong(format!("can't copy to {shown}: its name is no text")));
                };
                if is_special {
                    return Err(wrong(format!("can't replace {shown}: it is not a regular file")));
                }
                if !parent.is_dir() {
                    return Err(wrong(format!("the directory {} does not exist", parent.display()))
                        .with_hint(format!("make it first: mkdir -p {}", parent.display())));
                }
                let into = TreeRoot::open(parent).map_err(|error| failed(self.services, &error))?;
                self.put(&into, name, owner)
            }
        }
    }

    /// Refuses to put a file where a directory is, and the other way round.
    fn check_place(&self, into: &TreeRoot, name: &str, path: &Path) -> Result<(), BuildError> {
        let there = into.symlink_metadata(name).map_err(|error| failed(self.services, &error))?;
        let is_directory = self.metadata.kind == Kind::Directory;
        let what = match there.map(|there| there.kind) {
            Some(Kind::Directory) if !is_directory => "can't replace a directory by a file",
            Some(Kind::File | Kind::CharDevice | Kind::BlockDevice | Kind::Fifo) if is_directory => {
                "can't replace a file by a directory"
            }
            _ => return Ok(()),
        };
        Err(BuildError::new(ErrorKind::Usage, format!("{what}: {}", path.display())))
    }

    /// Copies into a tree, under a name; without one what is in the directory goes into the tree itself.
    fn put(&self, into: &TreeRoot, name: &str, owner: Option<(u32, u32)>) -> Result<(), BuildError> {
        self.put_into(into, name, owner).map_err(|error| failed(self.services, &error))
    }

    fn put_into(&self, into: &TreeRoot, name: &str, owner: Option<(u32, u32)>) -> Result<(), SnapshotError> {
        let metadata = &self.metadata;
        let of_source = owner.unwrap_or((metadata.uid, metadata.gid));
        if metadata.kind == Kind::Symlink {
            into.symlink(self.tree.read_link(&self.path)?, name, of_source)?;
            return into.set_modified(name, metadata.modified);
        }
        let is_directory = metadata.kind == Kind::Directory;
        let is_new = is_directory && !name.is_empty() && !into.exists(name);
        if is_new {
            into.mkdir_all(name, metadata.mode, of_source)?;
        }
        let destination = match is_directory && !name.is_empty() {
            true => format!("/{name}/"),
            false => format!("/{name}"),
        };
        let spec = CopySpec {
            source: self.tree,
            sources: &[CopySource { pattern: self.path.clone(), allow_wildcard: false }],
            filter: &KeepAll,
            matcher: &|pattern, name| pattern == name,
            destination: &destination,
            owner,
            mode: None,
            unpack: false,
            unpack_owner: None,
            modified: None,
            within: None,
            created_mode: 0o755,
            keeps_directories: false,
            follows_links: true,
            needs_match: false,
        };
        copy(&spec, into)?;
        if is_new { into.set_modified(name, metadata.modified) } else { Ok(()) }
    }

    /// Writes a regular file to a place that the user named: whole, or not at all. A link there is followed.
    fn write_to(&self, path: &Path, keep_owner: bool) -> Result<(), BuildError> {
        let metadata = &self.metadata;
        let mut content = self.tree.open_file(&self.path).map_err(|error| failed(self.services, &error))?;
        write_file(path, |out| {
            let writing = |error: &io::Error| BuildError::io("can't write", path, error);
            io::copy(&mut content, out).map_err(|error| writing(&error))?;
            out.flush().map_err(|error| writing(&error))?;
            let file = out.get_ref();
            // A device or a pipe keeps what it is.
            if file.metadata().is_ok_and(|it| it.is_file()) {
                let set = || {
                    if keep_owner {
                        std::os::unix::fs::fchown(file, Some(metadata.uid), Some(metadata.gid))?;
                    }
                    file.set_permissions(Permissions::from_mode(metadata.mode))?;
                    file.set_modified(metadata.modified)
                };
                set().map_err(|error| BuildError::io("can't set the attributes of", path, &error))?;
            }
            Ok(())
        })
    }

    /// Writes a tar archive: the files are laid into a fresh layer, whose tar is what is wanted.
    fn write_archive(&self, mut out: impl Write) -> Result<(), BuildError> {
        let snapshots = self.services.snapshots();
        let id = scratch_id()?;
        let mut lay = || {
            let active = snapshots.prepare(&[])?;
            let into = active.tree()?;
            let name = if self.is_content { "" } else { self.name.as_str() };
            self.put_into(&into, name, None)?;
            drop(into);
            let layer = active.commit(id.clone())?;
            match layer.is_empty {
                false => snapshots.write_layer(&layer.id, &[], &LayerTimes::default(), &mut out),
                // The end of an archive without entries: two blocks of zeros.
                true => out
                    .write_all(&[0; 1024])
                    .map_err(|source| SnapshotError::Stream { action: "write the archive", source }),
            }
        };
        let written = lay();
        // A leftover is swept by the next prune.
        let _ = snapshots.remove(&id);
        written.map_err(|error| failed(self.services, &error))?;
        out.flush().map_err(|error| BuildError::io("can't write to", "standard output", &error))
    }
}

/// Returns a name that no other layer directory has.
fn scratch_id() -> Result<SnapshotId, BuildError> {
    let mut random = [0_u8; 32];
    getrandom::fill(&mut random)
        .map_err(|error| BuildError::new(ErrorKind::Storage, format!("no random numbers: {error}")))?;
    Ok(SnapshotId::of_result(&Digest::from_sha256_bytes(random)))
}

/// Says which name beside a path that isn't there is like it.
fn near_names(tree: &TreeRoot, path: &str, name: &str) -> String {
    let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
    let entries = tree.read_dir(format!("/{parent}")).unwrap_or_default();
    let names: Vec<&str> = entries.iter().filter_map(|(name, _)| name.to_str()).collect();
    did_you_mean(name, &names)
}
