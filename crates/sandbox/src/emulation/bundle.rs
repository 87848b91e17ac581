// SPDX-License-Identifier: Apache-2.0
//! Makes a dynamically linked QEMU usable inside containers.
//!
//! The kernel keeps a registered emulator open, but looks its loader up in the container, and the loader looks
//! up the libraries there; neither is there. So the emulators, the loader and all libraries that they need are
//! copied into one directory, which containers see read-only as `/dev/.q` (their `/dev` is a tmpfs of ours, so
//! nothing appears in the image), and the copies are changed to look there:
//!
//! - `PT_INTERP` of the emulator becomes `/dev/.q/ld`. What follows in its old, longer place is `/dev/.q`.
//! - A `DT_RPATH` entry that points at the latter replaces its own one or `DT_DEBUG`. It is searched first,
//!   for the libraries of libraries too, before the container's caches and variables.
//! - Search paths of libraries are made void, since they would come before the emulator's.
//!
//! The directory's name is derived from what is in it, and it appears complete by a rename; builds share it, and
//! it may be deleted whenever no build runs.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use polyarch_oci::digest::Hasher;

use super::elf_patch;
use super::{Architecture, Emulator};

/// Where containers see the directory.
pub(super) const CONTAINER_DIRECTORY: &str = "/dev/.q";
/// Where containers see the loader.
const CONTAINER_LOADER: &str = "/dev/.q/ld";
const LOADER_NAME: &str = "ld";
/// QEMU has some 5 MiB, its libraries some 2 each.
const FILE_SIZE_MAX: u64 = 256 * 1024 * 1024;
const LISTING_SIZE_MAX: u64 = 1024 * 1024;
/// Part of the directory's name; to be raised when the same sources give other files.
const FORMAT: u32 = 1;

/// Says why a dynamically linked emulator can't be used.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// It is linked in a way that is not understood.
    #[error("the dynamically linked emulator {} can't be used: {reason}", path.display())]
    Unusable {
        /// The emulator or one of its libraries.
        path: PathBuf,
        /// What is in the way.
        reason: String,
    },
    /// A file could not be read or written.
    #[error("can't copy what an emulator needs: {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

/// A complete directory of emulators with all that they need.
#[derive(Debug)]
pub(super) struct Bundle {
    /// The directory on this machine.
    pub directory: PathBuf,
}

/// What one file of the directory is made of.
struct Ingredient {
    source: PathBuf,
    change: Change,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    None,
    Library,
    Emulator,
}

impl Bundle {
    /// Returns the directory below `state` for these emulators, and makes it if it isn't there yet.
    pub fn make(state: &Path, emulators: &BTreeMap<Architecture, Emulator>) -> Result<Bundle, BundleError> {
        let ingredients = collect(emulators)?;
        let directory = state.join(format!("qemu-{}", name(&ingredients)?));
        if !is_complete(&directory, &ingredients) {
            create(state, &directory, &ingredients)?;
        }
        Ok(Bundle { directory })
    }

    /// Returns the changed emulator of an architecture, which is to be registered.
    pub fn emulator(&self, architecture: Architecture) -> PathBuf {
        self.directory.join(emulator_name(architecture))
    }
}

fn emulator_name(architecture: Architecture) -> String {
    format!("qemu-{}", architecture.qemu_name())
}

/// Finds every file that the emulators need, by its name in the directory.
fn collect(
    emulators: &BTreeMap<Architecture, Emulator>,
) -> Result<BTreeMap<String, Ingredient>, BundleError> {
    let mut ingredients = BTreeMap::new();
    for (architecture, emulator) in emulators {
        let unusable = |reason: String| BundleError::Unusable { path: emulator.path.clone(), reason };
        let bytes = read(&emulator.path)?;
        let loader = elf_patch::interpreter(&bytes).map_err(|reason| unusable(reason.to_owned()))?;
        let mut files: Vec<(String, PathBuf, Change)> = libraries(&loader, &emulator.path)?;
        files.push((LOADER_NAME.to_owned(), loader, Change::None));
        files.push((emulator_name(*architecture), emulator.path.clone(), Change::Emulator));
        for (name, source, change) in files {
            let source =
                fs::canonicalize(&source).map_err(|error| BundleError::Io { path: source, source: error })?;
            match ingredients.get(&name) {
                Some(Ingredient { source: other, .. }) if *other != source => {
                    return Err(unusable(format!(
                        "it needs {}, another emulator of this build {}",
                        source.display(),
                        other.display()
                    )));
                }
                _ => ingredients.insert(name, Ingredient { source, change }),
            };
        }
    }
    Ok(ingredients)
}

/// Asks the loader for the libraries of a program; it lists them without starting the program.
fn libraries(loader: &Path, program: &Path) -> Result<Vec<(String, PathBuf, Change)>, BundleError> {
    let unusable = |reason: String| BundleError::Unusable { path: program.to_owned(), reason };
    let failed = |source| BundleError::Io { path: loader.to_owned(), source };
    let mut child = Command::new(loader)
        .arg("--list")
        .arg(program)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    // Both streams are short; the loader stops at the first library that it misses.
    let (mut listing, mut complaint) = (String::new(), String::new());
    if let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) {
        stdout.take(LISTING_SIZE_MAX).read_to_string(&mut listing).map_err(failed)?;
        stderr.take(LISTING_SIZE_MAX).read_to_string(&mut complaint).map_err(failed)?;
    }
    if !child.wait().map_err(failed)?.success() {
        return Err(unusable(complaint.lines().next().unwrap_or("its loader fails").trim().to_owned()));
    }
    parse_listing(&listing).map_err(unusable)
}

/// Reads `name => path (address)` lines; the kernel's vdso and the loader itself have no arrow.
fn parse_listing(listing: &str) -> Result<Vec<(String, PathBuf, Change)>, String> {
    let mut found = Vec::new();
    for line in listing.lines() {
        let Some((name, rest)) = line.trim().split_once(" => ") else { continue };
        let path = rest.rsplit_once(" (").map_or(rest, |(path, _)| path);
        if !path.starts_with('/') {
            return Err(format!("its library {name} is missing ({rest})"));
        }
        if name.starts_with('/') {
            // Some loaders list themselves with an arrow.
            continue;
        }
        if name == LOADER_NAME || name.starts_with("qemu-") || name.contains('/') {
            return Err(format!("its library {name} has a name that is in use"));
        }
        found.push((name.to_owned(), PathBuf::from(path), Change::Library));
    }
    Ok(found)
}

/// Derives a name from what the ingredients are: their places, sizes and times.
fn name(ingredients: &BTreeMap<String, Ingredient>) -> Result<String, BundleError> {
    let mut hasher = Hasher::sha256();
    hasher.update(&FORMAT.to_le_bytes());
    for (name, ingredient) in ingredients {
        let metadata = fs::metadata(&ingredient.source)
            .map_err(|source| BundleError::Io { path: ingredient.source.clone(), source })?;
        let line = format!(
            "{name}\0{}\0{} {} {} {} {}\n",
            ingredient.source.display(),
            metadata.dev(),
            metadata.ino(),
            metadata.size(),
            metadata.mtime(),
            metadata.mtime_nsec()
        );
        hasher.update(line.as_bytes());
    }
    Ok(hasher.finish().hex()[..16].to_owned())
}

/// Tells whether every file is there in full length; changes never alter a file's length.
fn is_complete(directory: &Path, ingredients: &BTreeMap<String, Ingredient>) -> bool {
    ingredients.iter().all(|(name, ingredient)| {
        match (fs::symlink_metadata(directory.join(name)), fs::metadata(&ingredient.source)) {
            (Ok(copy), Ok(source)) => copy.is_file() && copy.len() == source.len(),
            _ => false,
        }
    })
}

/// Writes all files next to `directory` and renames them into place.
fn create(
    state: &Path,
    directory: &Path,
    ingredients: &BTreeMap<String, Ingredient>,
) -> Result<(), BundleError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| BundleError::Io { path, source }
    };
    fs::create_dir_all(state).map_err(failed(state))?;
    let temporary = tempfile::Builder::new().prefix(".qemu-").tempdir_in(state).map_err(failed(state))?;
    // Processes of a container may have any user.
    fs::set_permissions(temporary.path(), fs::Permissions::from_mode(0o755))
        .map_err(failed(temporary.path()))?;
    for (name, ingredient) in ingredients {
        let mut bytes = read(&ingredient.source)?;
        let changed = match ingredient.change {
            Change::None => Ok(()),
            Change::Library => elf_patch::remove_search_paths(&mut bytes),
            Change::Emulator => elf_patch::relocate(&mut bytes, CONTAINER_LOADER, CONTAINER_DIRECTORY),
        };
        changed.map_err(|reason| BundleError::Unusable {
            path: ingredient.source.clone(),
            reason: reason.to_owned(),
        })?;
        let path = temporary.path().join(name);
        let mut file = fs::File::create_new(&path).map_err(failed(&path))?;
        file.write_all(&bytes).map_err(failed(&path))?;
        file.set_permissions(fs::Permissions::from_mode(0o755)).map_err(failed(&path))?;
        file.sync_all().map_err(failed(&path))?;
    }
    // Point of no return: from here on other builds use it. One that was faster made the same files.
    match fs::rename(temporary.path(), directory) {
        Ok(()) => {
            // What was renamed is not ours to delete any more.
            let _ = temporary.keep();
            Ok(())
        }
        Err(_) if is_complete(directory, ingredients) => Ok(()),
        Err(_) => {
            // A leftover that a crash or somebody else shortened.
            fs::remove_dir_all(directory).map_err(failed(directory))?;
            fs::rename(temporary.path(), directory).map_err(failed(directory))?;
            let _ = temporary.keep();
            Ok(())
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, BundleError> {
    let failed = |source| BundleError::Io { path: path.to_owned(), source };
    let file = fs::File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    let size = file.take(FILE_SIZE_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if size as u64 > FILE_SIZE_MAX {
        return Err(BundleError::Unusable {
            path: path.to_owned(),
            reason: "it is absurdly large".to_owned(),
        });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listings_of_both_loaders_are_read() {
        let glibc = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibz.so.1 => /lib/x86_64-linux-gnu/libz.so.1 (0x00007f)\n\
            \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let names = |text| -> Vec<String> {
            parse_listing(text)
                .unwrap()
                .into_iter()
                .map(|(name, path, _)| format!("{name}={}", path.display()))
                .collect()
        };
        assert_eq!(
            names(glibc),
            ["libz.so.1=/lib/x86_64-linux-gnu/libz.so.1", "libc.so.6=/lib/x86_64-linux-gnu/libc.so.6"]
        );
        let musl =
            "\t/lib/ld-musl-x86_64.so.1 (0x7f)\n\tlibc.musl-x86_64.so.1 => /lib/ld-musl-x86_64.so.1 (0x7f)\n";
        assert_eq!(names(musl), ["libc.musl-x86_64.so.1=/lib/ld-musl-x86_64.so.1"]);
        assert!(parse_listing("\tlibgone.so.1 => not found\n").unwrap_err().contains("libgone.so.1"));
        assert!(parse_listing("\tld => /lib/ld (0x1)\n").is_err());
    }
}
