// SPDX-License-Identifier: Apache-2.0
//! Caches of a step, and what an empty one begins with.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use polyarch_sandbox::{CancelFlag, Mount, RootFsKind};
use polyarch_snapshot::{Kind, SnapshotId, TreeRoot};
use polyarch_solver::KeyHasher;

use super::{CacheExecMount, Files, MountSource, cannot_mount};
use crate::cache_mounts::{self, CacheMount};
use crate::error::{BuildError, ErrorKind};
use crate::services::Services;

/// A cache whose seed is known.
pub(super) struct SeededCache {
    files: Option<Files>,
    pub(super) mount: Box<CacheExecMount>,
}

/// Finds out what tells a cache from those that began otherwise.
pub(super) fn seeded(files: Option<Files>, mut mount: Box<CacheExecMount>) -> SeededCache {
    if let (Some(files), Some(from)) = (&files, &mount.from) {
        let mut hasher = KeyHasher::new("seed");
        hasher.part(&from.path);
        match files {
            Files::Layers(ids) => hasher.parts(ids.iter().map(SnapshotId::as_str)),
            Files::Context(_) => hasher.part("context"),
        };
        mount.id.seed = Some(hasher.finish().hex());
    }
    SeededCache { files, mount }
}

impl SeededCache {
    /// Takes the cache, filled where it is made now.
    pub(super) fn take(
        &self,
        services: &Services,
        cancel: &CancelFlag,
        is_renewed: bool,
    ) -> Result<CacheMount, BuildError> {
        let fill = |path: &Path| match (&self.files, &self.mount.from) {
            (Some(files), Some(from)) => {
                let into = TreeRoot::open(path).map_err(|error| cannot_mount(services, &error))?;
                files.copy_to(services, from, "/", &into)?;
                files.permissions_to(services, from, path)
            }
            _ => Ok(()),
        };
        let parent = cache_mounts::directory(&services.options);
        let id = &self.mount.id;
        // What it begins with is a step too, which is executed again, once for all of a build.
        if is_renewed && id.has_beginning() && services.is_first_use(format!("{id:?}")) {
            cache_mounts::renew(&parent, id)?;
        }
        cache_mounts::acquire(&parent, &self.mount.id, self.mount.sharing, cancel, fill)
    }

    /// Returns the mount of a cache that was taken.
    pub(super) fn mounted(&self, files: &Path) -> Result<Mount, BuildError> {
        let CacheExecMount { from, source, target, read_only, .. } = &*self.mount;
        let tree = RootFsKind::Dir(files.to_owned());
        let path = match from {
            // The cache is what was at the path.
            Some(_) => "/".into(),
            None => {
                let root = TreeRoot::open(files).map_err(|error| {
                    BuildError::from_source(ErrorKind::Storage, "can't open a cache mount", &error)
                })?;
                let found = root.metadata(source.as_str()).ok().flatten();
                if found.is_none_or(|found| found.kind != Kind::Directory) {
                    let message = format!("the cache mount for {target} has no directory {source:?}");
                    return Err(BuildError::new(ErrorKind::Dockerfile, message));
                }
                source.into()
            }
        };
        Ok(Mount::Tree { tree, path, target: target.into(), read_only: *read_only })
    }
}

impl Files {
    /// Gives a directory owner and mode of what is at a path.
    fn permissions_to(&self, services: &Services, from: &MountSource, path: &Path) -> Result<(), BuildError> {
        // Those of a context mean nothing.
        let Files::Layers(ids) = self else { return Ok(()) };
        let tree = services.snapshots.view(ids).map_err(|error| cannot_mount(services, &error))?;
        let found = tree.metadata(from.path.as_str()).map_err(|error| cannot_mount(services, &error))?;
        let Some(found) = found.filter(|found| found.kind == Kind::Directory) else { return Ok(()) };
        let failed = |error| BuildError::io("can't set owner and mode of", path, &error);
        if (found.uid, found.gid) != (0, 0) {
            chown(path, Some(found.uid), Some(found.gid)).map_err(failed)?;
        }
        // After the owner: a change of that takes bits away.
        std::fs::set_permissions(path, PermissionsExt::from_mode(found.mode & 0o7777)).map_err(failed)
    }
}
