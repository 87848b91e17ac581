// SPDX-License-Identifier: Apache-2.0
//! Which nodes of a source tree a COPY or ADD means, and in what order they are visited.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use crate::copy::{CopySpec, Verdict};
use crate::error::{At, SnapshotError};
use crate::merge::check_depth;
use crate::meta::{Meta, names, open_directory};
use crate::resolve::{clean, find_place, open_in_root, open_without_symlinks, split};

/// How different a name may be and still be offered instead of a missing one.
const MAX_NEAR_DISTANCE: usize = 3;
const MAX_NEAR_NAMES: usize = 3;

/// One node that a source names.
#[derive(Debug)]
pub(crate) struct Selected {
    /// The last name of the source as written or matched; empty for the root.
    pub(crate) name: OsString,
    /// The number of the source.
    pub(crate) source: usize,
    /// Where it really is: a symlink at the top is followed.
    pub(crate) path: PathBuf,
    pub(crate) meta: Meta,
}

/// Finds what the sources name, in the order of the sources and sorted within a pattern.
pub(crate) fn select(spec: &CopySpec<'_>) -> Result<Vec<Selected>, SnapshotError> {
    let mut selected = Vec::new();
    for (number, source) in spec.sources.iter().enumerate() {
        let is_pattern = source.allow_wildcard && source.pattern.contains(['*', '?', '[', '\\']);
        let candidates = if is_pattern {
            matches(spec, &source.pattern)?
        } else {
            vec![clean(Path::new(&source.pattern))]
        };
        let before = selected.len();
        for named in candidates {
            selected.extend(look_at(spec, number, &named)?);
        }
        if selected.len() == before && (!is_pattern || spec.needs_match) {
            return Err(missing(spec, &source.pattern));
        }
        if let Some(required) = spec.within.and_then(|within| within.required(number))
            && look_at(spec, number, &clean(Path::new(required)))?.is_none()
        {
            return Err(missing(spec, required));
        }
    }
    Ok(selected)
}

/// Follows a named path; `None` when nothing visible is there.
fn look_at(spec: &CopySpec<'_>, source: usize, named: &Path) -> Result<Option<Selected>, SnapshotError> {
    let Some(path) = real_path(spec, named)? else { return Ok(None) };
    let root = spec.source.as_fd();
    let meta = match split(&path) {
        None => Meta::of(root).at("look at", &path)?,
        Some((parent, name)) => {
            let flags = OFlags::PATH | OFlags::DIRECTORY;
            let parent = open_without_symlinks(root, parent, flags).at("open", &path)?;
            Meta::at(parent, name).at("look at", &path)?
        }
    };
    // A link must not be a way to what the ignore rules hide.
    let is_directory = meta.is_directory();
    if !is_visible(spec, named, is_directory) || !is_visible(spec, &path, is_directory) {
        return Ok(None);
    }
    let name = named.file_name().unwrap_or_default().to_owned();
    Ok(Some(Selected { name, source, path, meta }))
}

/// Returns where a named path really is: where it leads, or with links that are not followed where it stands.
fn real_path(spec: &CopySpec<'_>, named: &Path) -> Result<Option<PathBuf>, SnapshotError> {
    match split(named) {
        Some((parent, name)) if !spec.follows_links => {
            let found = spec.source.symlink_metadata(named)?;
            let parent = match found {
                Some(_) => spec.source.real_path(parent)?,
                None => None,
            };
            Ok(parent.map(|parent| parent.join(name)))
        }
        _ => spec.source.real_path(named),
    }
}

fn is_visible(spec: &CopySpec<'_>, path: &Path, is_directory: bool) -> bool {
    if path.as_os_str().is_empty() {
        return true;
    }
    let is_hidden_above = path
        .ancestors()
        .skip(1)
        .any(|above| !above.as_os_str().is_empty() && spec.filter.verdict(above, true) == Verdict::Skip);
    !is_hidden_above
        && match spec.filter.verdict(path, is_directory) {
            Verdict::Keep => true,
            Verdict::Descend => is_directory,
            Verdict::Skip => false,
        }
}

/// Finds the paths that match a pattern, component by component.
fn matches(spec: &CopySpec<'_>, pattern: &str) -> Result<Vec<PathBuf>, SnapshotError> {
    let mut found = vec![PathBuf::new()];
    for part in clean(Path::new(pattern)).components() {
        // The pattern came as text and is only split.
        let part = part.as_os_str().to_string_lossy().into_owned();
        let mut next = Vec::new();
        for directory in found {
            if !part.contains(['*', '?', '[', '\\']) {
                next.push(directory.join(&part));
                continue;
            }
            let flags = OFlags::RDONLY | OFlags::DIRECTORY;
            let opened = match open_in_root(spec.source.as_fd(), &directory, flags) {
                Ok(opened) => opened,
                Err(error) if is_no_directory(&error) => continue,
                Err(error) => return Err(error).at("open", directory),
            };
            for name in names(&opened).at("list", &directory)? {
                if name.to_str().is_some_and(|name| (spec.matcher)(&part, name)) {
                    next.push(directory.join(name));
                }
            }
        }
        found = next;
    }
    Ok(found)
}

fn is_no_directory(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Says why a source is missing, with names that look like it.
fn missing(spec: &CopySpec<'_>, pattern: &str) -> SnapshotError {
    let path = clean(Path::new(pattern));
    let excluded = spec.source.exists(&path);
    let mut near = Vec::new();
    if let Some((parent, name)) = split(&path).filter(|_| !excluded) {
        let wanted = name.to_string_lossy();
        let listed = spec.source.read_dir(parent).unwrap_or_default();
        for (name, kind) in listed {
            let candidate = parent.join(&name);
            let name = name.to_string_lossy();
            let distance = edit_distance(&wanted, &name);
            let is_near = distance <= MAX_NEAR_DISTANCE && distance < wanted.chars().count();
            if is_near && is_visible(spec, &candidate, kind == crate::meta::Kind::Directory) {
                near.push((distance, candidate.display().to_string()));
            }
        }
    }
    near.sort();
    near.truncate(MAX_NEAR_NAMES);
    let near = near.into_iter().map(|(_, name)| name).collect();
    SnapshotError::MissingSource { pattern: pattern.to_owned(), excluded, near }
}

/// Counts the insertions, deletions and replacements between two words; case counts half a change.
fn edit_distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.to_lowercase(), b.to_lowercase());
    // Long names are cut: this is for typing errors.
    let b: Vec<char> = b.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (index, letter) in a.chars().take(64).enumerate() {
        let mut diagonal = row[0];
        row[0] = index + 1;
        for (column, other) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *other);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[b.len()]
}

/// One node on a visit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Visited<'a> {
    /// The directory that it is in; for a directory being entered, that directory itself.
    pub(crate) directory: BorrowedFd<'a>,
    pub(crate) name: &'a OsStr,
    /// Relative to the source tree.
    pub(crate) path: &'a Path,
    /// Relative to the directory that the visit began with.
    pub(crate) relative: &'a Path,
    pub(crate) meta: &'a Meta,
}

/// What is done on a visit.
pub(crate) trait Visitor {
    /// Comes to a directory, before what is in it.
    fn enter(&mut self, directory: Visited<'_>) -> Result<(), SnapshotError>;
    /// Leaves the directory that was entered last.
    fn leave(&mut self) -> Result<(), SnapshotError>;
    /// Comes to anything else.
    fn node(&mut self, node: Visited<'_>) -> Result<(), SnapshotError>;
}

/// Visits what is visible beneath a directory, but not the directory itself, sorted by names.
pub(crate) fn visit(
    spec: &CopySpec<'_>,
    selected: &Selected,
    visitor: &mut dyn Visitor,
) -> Result<(), SnapshotError> {
    let path = &selected.path;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let directory = open_without_symlinks(spec.source.as_fd(), path, flags).at("open", path)?;
    let source = selected.source;
    let mut walk = Walk { spec, source, visitor, levels: Vec::new(), entered: 0 };
    walk.contents(&directory, path, Path::new(""))
}

struct Walk<'a, 'b> {
    spec: &'a CopySpec<'a>,
    source: usize,
    visitor: &'b mut dyn Visitor,
    /// The directories down to the current one.
    levels: Vec<Level>,
    /// How many of them the visitor knows: one that is only passed through is shown when needed.
    entered: usize,
}

struct Level {
    directory: OwnedFd,
    path: PathBuf,
    relative: PathBuf,
    meta: Meta,
}

impl Walk<'_, '_> {
    fn contents(&mut self, directory: &OwnedFd, path: &Path, relative: &Path) -> Result<(), SnapshotError> {
        check_depth(path, self.levels.len())?;
        for name in names(directory).at("list", path)? {
            let (child, child_relative) = (path.join(&name), relative.join(&name));
            // Listed names may be whiteouts in a directory that no other layer has.
            let Some(meta) = Meta::find(directory, &name).at("look at", &child)? else { continue };
            let is_directory = meta.is_directory();
            let verdict = self.spec.filter.verdict(&child, is_directory);
            let verdict = match self.spec.within {
                Some(within) => verdict.and(within.verdict(self.source, &child_relative, is_directory)),
                None => verdict,
            };
            match verdict {
                Verdict::Skip => continue,
                Verdict::Descend if !meta.is_directory() => continue,
                Verdict::Descend | Verdict::Keep => {}
            }
            if !meta.is_directory() {
                self.enter_pending()?;
                self.visitor.node(Visited {
                    directory: directory.as_fd(),
                    name: &name,
                    path: &child,
                    relative: &child_relative,
                    meta: &meta,
                })?;
                continue;
            }
            let inner = open_directory(directory, &name).at("open", &child)?;
            let held = rustix::io::fcntl_dupfd_cloexec(&inner, 0).at("open", &child)?;
            self.levels.push(Level {
                directory: held,
                path: child.clone(),
                relative: child_relative.clone(),
                meta,
            });
            if verdict == Verdict::Keep {
                self.enter_pending()?;
            }
            self.contents(&inner, &child, &child_relative)?;
            if self.entered == self.levels.len() {
                self.visitor.leave()?;
                self.entered -= 1;
            }
            self.levels.pop();
        }
        Ok(())
    }

    /// Shows the visitor the directories that it has not seen yet.
    fn enter_pending(&mut self) -> Result<(), SnapshotError> {
        while let Some(level) = self.levels.get(self.entered) {
            self.visitor.enter(Visited {
                directory: level.directory.as_fd(),
                name: level.path.file_name().unwrap_or_default(),
                path: &level.path,
                relative: &level.relative,
                meta: &level.meta,
            })?;
            self.entered += 1;
        }
        Ok(())
    }
}

/// Opens the directory that a selected file is in, with the file's name.
pub(crate) fn open_parent(
    spec: &CopySpec<'_>,
    selected: &Selected,
) -> Result<(OwnedFd, OsString), SnapshotError> {
    let found = split(&selected.path).map(|(parent, name)| (find_place(spec.source.as_fd(), parent), name));
    match found {
        Some((Ok(Some(place)), name)) => Ok((place.directory, name.to_owned())),
        Some((Err(error), _)) => Err(error).at("open the directory of", &selected.path),
        // It was there a moment ago.
        Some((Ok(None), _)) | None => {
            Err(io::Error::from(io::ErrorKind::NotFound)).at("open the directory of", &selected.path)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_count_typing_errors() {
        assert_eq!(edit_distance("main.go", "main.go"), 0);
        assert_eq!(edit_distance("mian.go", "main.go"), 2);
        assert_eq!(edit_distance("Makefile", "makefile"), 0);
        assert_eq!(edit_distance("", "abc"), 3);
    }
}
