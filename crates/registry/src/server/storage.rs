// SPDX-License-Identifier: Apache-2.0
//! The directory of a registry: its repositories, the pool of their blobs, and how blobs come in.

use std::collections::HashMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use polyarch_oci::Digest;

use super::disk::{Disk, DiskError, names_in};
use super::index::{ALGORITHMS, RepositoryIndex, blob_path_in};
use super::names::RepositoryName;
use super::repository::Layout;

/// What the format file says.
const FORMAT: &str = "polyarch-registry 1\n";
/// Repositories that are kept in memory without being used.
const MAX_IDLE_REPOSITORIES: usize = 4096;

/// Says what is wrong with the directory of a registry.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// A file or directory could not be used.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// An `index.json` is damaged.
    #[error("{} is damaged", path.display())]
    Index {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        #[source]
        source: serde_json::Error,
    },
    /// The `index.json` of a repository would be too large to be read again.
    #[error("the repository {repository} has as many manifests and tags as one can have")]
    IndexFull {
        /// The repository.
        repository: String,
    },
    /// The directory holds something else, or a registry of another version.
    #[error("{} is not a registry of this version (its file `format` says {found:?})", path.display())]
    Format {
        /// The directory.
        path: PathBuf,
        /// What the file says.
        found: String,
    },
    /// A bucket could not be used.
    #[cfg(feature = "s3")]
    #[error(transparent)]
    Bucket(#[from] super::bucket::BucketError),
    /// The failure of a change that several requests made together.
    #[error(transparent)]
    Shared(Arc<StorageError>),
    /// There is no registry.
    #[error("there is no registry in {}", path.display())]
    Missing {
        /// The directory.
        path: PathBuf,
    },
    /// The directory has files, but no registry's.
    #[error("{} is not empty and holds no registry", path.display())]
    Foreign {
        /// The directory.
        path: PathBuf,
    },
}

impl StorageError {
    /// Tells whether there is no room on the disk.
    pub fn is_full(&self) -> bool {
        match self {
            StorageError::Disk(error) => error.is_full(),
            StorageError::Shared(error) => error.is_full(),
            _ => false,
        }
    }
}

/// The directory of a registry; a clone is another handle of the same.
///
/// Several processes may use one directory at the same time.
#[derive(Debug, Clone)]
pub struct Directory {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    temp: Arc<TempNames>,
    disk: Arc<Disk>,
    repositories: Mutex<HashMap<RepositoryName, Arc<Layout>>>,
}

/// Names of files in `incoming` that no other process or thread uses.
#[derive(Debug)]
pub(super) struct TempNames {
    dir: PathBuf,
    token: String,
    sequence: AtomicU64,
}

impl TempNames {
    pub(super) fn new(dir: PathBuf) -> Result<TempNames, DiskError> {
        let mut random = [0; 8];
        getrandom::fill(&mut random)
            .map_err(|error| DiskError::new("get random bytes for", &dir)(io::Error::other(error)))?;
        Ok(TempNames { dir, token: hex::encode(random), sequence: AtomicU64::new(0) })
    }

    #[cfg(feature = "s3")]
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    fn next(&self) -> PathBuf {
        let number = self.sequence.fetch_add(1, Ordering::Relaxed);
        self.dir.join(format!("{}-{number}-{}", std::process::id(), self.token))
    }
}

/// A file that is being written; it goes when it was not placed.
#[derive(Debug)]
pub(super) struct Incoming {
    pub(super) path: PathBuf,
    pub(super) file: File,
    /// The file has gone to its place.
    pub(super) is_placed: bool,
    disk: Arc<Disk>,
}

impl Incoming {
    pub(super) fn create(temp: &TempNames, disk: &Arc<Disk>) -> Result<Incoming, DiskError> {
        let path = temp.next();
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o444);
        let file = options.open(&path).map_err(DiskError::new("create", &path))?;
        Ok(Incoming { path, file, is_placed: false, disk: disk.clone() })
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if !self.is_placed {
            // What can't be removed now is removed by a collection.
            let _ = self.disk.remove(&self.path);
        }
    }
}

impl Directory {
    /// Opens the directory of a registry, and makes it when there is none.
    ///
    /// # Errors
    /// When it cannot be used, or holds something else.
    pub fn open(root: &Path) -> Result<Directory, StorageError> {
        let root = std::path::absolute(root).map_err(DiskError::new("find", root))?;
        let disk = Arc::new(Disk::default());
        let temp = TempNames::new(root.join("incoming"))?;
        let inner = Inner { root, temp: Arc::new(temp), disk, repositories: Mutex::default() };
        let storage = Directory { inner: Arc::new(inner) };
        if !storage.is_made()? {
            storage.make()?;
        }
        // Also when another process has made it: it may not have come this far yet.
        storage.disk().sync_dir(storage.root())?;
        Ok(storage)
    }

    /// Opens the directory of a registry that is there.
    ///
    /// # Errors
    /// When there is none, or it cannot be used.
    pub fn open_existing(root: &Path) -> Result<Directory, StorageError> {
        if fs::metadata(root.join("format")).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            return Err(StorageError::Missing { path: root.to_owned() });
        }
        Directory::open(root)
    }

    /// Returns the directory.
    pub fn root(&self) -> &Path {
        &self.inner.root
    }

    fn is_made(&self) -> Result<bool, StorageError> {
        let path = self.root().join("format");
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            other => other.map_err(DiskError::new("open", &path))?,
        };
        let mut found = String::new();
        file.take(100).read_to_string(&mut found).map_err(DiskError::new("read", &path))?;
        if found == FORMAT {
            return Ok(true);
        }
        Err(StorageError::Format { path: self.root().to_owned(), found })
    }

    fn make(&self) -> Result<(), StorageError> {
        let (root, disk) = (self.root(), &self.inner.disk);
        let missing: Vec<&Path> = root.ancestors().take_while(|dir| !dir.exists()).collect();
        DirBuilder::new().recursive(true).mode(0o700).create(root).map_err(DiskError::new("create", root))?;
        for parent in missing.iter().filter_map(|dir| dir.parent()) {
            disk.sync_dir(parent)?;
        }
        // The last is on every new file system.
        let ours = ["blobs", "incoming", "repositories", "uploads", "format", "lost+found"];
        if names_in(root)?.iter().any(|name| !ours.contains(&name.as_str())) {
            return Err(StorageError::Foreign { path: root.to_owned() });
        }
        for dir in ["incoming", "repositories", "uploads", "blobs/sha256", "blobs/sha512"] {
            disk.ensure_dir(&root.join(dir))?;
        }
        let mut incoming = self.incoming()?;
        incoming.file.write_all(FORMAT.as_bytes()).map_err(DiskError::new("write", &incoming.path))?;
        disk.sync_file(&incoming.file, &incoming.path)?;
        disk.rename(&incoming.path, &root.join("format"))?;
        incoming.is_placed = true;
        Ok(())
    }

    pub(super) fn disk(&self) -> &Arc<Disk> {
        &self.inner.disk
    }

    pub(super) fn incoming(&self) -> Result<Incoming, DiskError> {
        Incoming::create(&self.inner.temp, &self.inner.disk)
    }

    pub(super) fn uploads_dir(&self) -> PathBuf {
        self.root().join("uploads")
    }

    pub(super) fn pool_path(&self, digest: &Digest) -> PathBuf {
        blob_path_in(self.root(), digest)
    }

    /// Lists the repositories, by name.
    pub(super) fn repository_names(&self) -> Result<Vec<RepositoryName>, StorageError> {
        let names = names_in(&self.root().join("repositories"))?;
        let mut names: Vec<_> = names.iter().filter_map(|name| RepositoryName::of_directory(name)).collect();
        names.sort_unstable();
        Ok(names)
    }

    /// Returns a repository, whether it exists or not.
    pub(super) fn repository(&self, name: &RepositoryName) -> Arc<Layout> {
        let mut known = self.inner.repositories.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(repository) = known.get(name) {
            return repository.clone();
        }
        if known.len() >= MAX_IDLE_REPOSITORIES {
            known.retain(|_, repository| Arc::strong_count(repository) > 1);
        }
        let dir = self.root().join("repositories").join(name.directory());
        let (temp, disk) = (self.inner.temp.clone(), self.inner.disk.clone());
        let repository = Arc::new(Layout::new(name.clone(), dir, temp, disk));
        known.insert(name.clone(), repository.clone());
        repository
    }

    /// Makes a repository that does not exist yet, durably.
    pub(super) fn ensure_repository(&self, repository: &Layout) -> Result<(), StorageError> {
        let is_there = repository.index()?.is_some();
        if is_there && repository.is_durable() {
            return Ok(());
        }
        let disk = &self.inner.disk;
        if !is_there {
            let made = self.inner.temp.next();
            let result = self
                .make_repository(&made)
                .and_then(|()| Ok(disk.rename_new(&made, &repository.dir).map(|_| ())?));
            // Gone, when it was renamed.
            let _ = fs::remove_dir_all(&made);
            result?;
        }
        // Also when another request or process has made it: it may not have come this far yet.
        disk.sync_dir(&self.root().join("repositories"))?;
        repository.set_durable();
        Ok(())
    }

    fn make_repository(&self, dir: &Path) -> Result<(), StorageError> {
        let disk = &self.inner.disk;
        for algorithm in ALGORITHMS {
            disk.ensure_dir(&dir.join("blobs").join(algorithm.as_str()))?;
        }
        let index = RepositoryIndex::default().to_bytes();
        for (name, bytes) in
            [("oci-layout", &b"{\"imageLayoutVersion\":\"1.0.0\"}"[..]), ("index.json", &index)]
        {
            let path = dir.join(name);
            let mut file = File::create_new(&path).map_err(DiskError::new("create", &path))?;
            file.write_all(bytes).map_err(DiskError::new("write", &path))?;
            disk.sync_file(&file, &path)?;
        }
        Ok(disk.sync_dir(dir)?)
    }

    /// Puts a file whose content has the digest into a repository, durably. The file keeps its own name, too.
    pub(super) fn place_blob(
        &self,
        repository: &Layout,
        path: &Path,
        file: &File,
        digest: &Digest,
    ) -> Result<(), StorageError> {
        self.ensure_repository(repository)?;
        let disk = &self.inner.disk;
        let target = repository.blob_path(digest);
        let size = file.metadata().map_err(DiskError::new("read", path))?.len();
        if fs::metadata(&target).is_ok_and(|there| there.len() != size) {
            // Damaged; the right bytes are at hand.
            disk.remove(&target)?;
        }
        let pool = self.pool_path(digest);
        if fs::metadata(&pool).is_ok_and(|there| there.len() != size) {
            disk.remove(&pool)?;
        }
        // One that is there is used, so that all repositories share one file.
        if !pool.exists() {
            disk.sync_file(file, path)?;
            if let Err(error) = disk.link(path, &pool)
                && error.kind() != io::ErrorKind::AlreadyExists
            {
                return Err(DiskError::new("link a new blob to", &pool)(error).into());
            }
        }
        if let Err(error) = self.link_into(&pool, &target) {
            // Collected just now, or with as many links as a file may have: then a file of its own.
            tracing::debug!(%digest, %error, "a blob of the pool is not shared");
            disk.sync_file(file, path)?;
            self.link_into(path, &target).map_err(DiskError::new("link a new blob to", &target))?;
        }
        // The point of no return: from here on the blob is there after a crash.
        disk.sync_dir(target.parent().unwrap_or(&repository.dir))?;
        if repository.promise_blob(digest)?.is_none() {
            // It was there, and a collection has taken it at this moment.
            disk.sync_file(file, path)?;
            self.link_into(path, &target).map_err(DiskError::new("link a new blob to", &target))?;
            disk.sync_dir(target.parent().unwrap_or(&repository.dir))?;
        }
        Ok(())
    }

    /// Gives a repository a blob that another one has, or any; tells whether it was there.
    pub(super) fn mount(
        &self,
        repository: &Layout,
        from: Option<&Layout>,
        digest: &Digest,
    ) -> Result<bool, StorageError> {
        let source = from.map_or_else(|| self.pool_path(digest), |from| from.blob_path(digest));
        if !source.exists() {
            return Ok(false);
        }
        self.ensure_repository(repository)?;
        let target = repository.blob_path(digest);
        match self.link_into(&source, &target) {
            Ok(()) => {}
            // The client sends it then.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::TooManyLinks) => {
                return Ok(false);
            }
            Err(error) => return Err(DiskError::new("link a blob to", &target)(error).into()),
        }
        self.inner.disk.sync_dir(target.parent().unwrap_or(&repository.dir))?;
        Ok(repository.promise_blob(digest)?.is_some())
    }

    /// Removes a blob from the pool when no repository has it.
    pub(super) fn forget_unused(&self, digest: &Digest) -> Result<(), StorageError> {
        let pool = self.pool_path(digest);
        // A repository that links it at this moment keeps it.
        if fs::metadata(&pool).is_ok_and(|metadata| std::os::unix::fs::MetadataExt::nlink(&metadata) == 1) {
            self.inner.disk.remove(&pool)?;
        }
        Ok(())
    }

    fn link_into(&self, from: &Path, to: &Path) -> io::Result<()> {
        match self.inner.disk.link(from, to) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        }
    }
}
