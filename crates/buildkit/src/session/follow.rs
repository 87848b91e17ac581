// SPDX-License-Identifier: Apache-2.0
//! Paths that a daemon follows: each becomes the paths that lead to it through symlinks.
//!
//! A context is sent with only what COPY and ADD name. Where such a path goes through a symlink, both the
//! link and what it points to are needed; absolute links mean the root of the directory.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use polyarch_dockerfile::Pattern;
use polyarch_dockerfile::pattern::has_wildcards;

/// The most links that are followed for one list of paths.
const MAX_LINKS: usize = 1_000;

/// Returns the paths to send for a list of paths that are followed; `None` when one of them is the root,
/// so that everything is sent.
///
/// Paths may have wildcards; those of a last name are looked up to find symlinks among their matches.
pub(crate) fn follow_paths(root: &Path, paths: &[String]) -> Option<Vec<String>> {
    let mut resolved = BTreeSet::new();
    let mut open: Vec<PathBuf> = paths.iter().rev().map(|path| clean(Path::new(path))).collect();
    let mut links_left = MAX_LINKS;
    while let Some(path) = open.pop() {
        follow_one(root, &path, &mut resolved, &mut open, &mut links_left);
    }
    if resolved.contains(Path::new("")) {
        return None;
    }
    let mut kept: Vec<String> = Vec::new();
    for path in resolved.iter().map(|path| path.to_string_lossy()) {
        // What is below a path stands right behind it.
        let is_below =
            |parent: &String| path.strip_prefix(parent.as_str()).is_some_and(|rest| rest.starts_with('/'));
        if !kept.last().is_some_and(is_below) {
            kept.push(path.into_owned());
        }
    }
    Some(kept)
}

/// Walks along one path; at a symlink what it points to takes its turn instead of the rest.
fn follow_one(
    root: &Path,
    path: &Path,
    resolved: &mut BTreeSet<PathBuf>,
    open: &mut Vec<PathBuf>,
    links_left: &mut usize,
) {
    let mut current = PathBuf::new();
    let mut components = path.components();
    while let Some(component) = components.next() {
        current.push(component);
        let targets = targets_of(root, &current);
        if targets.is_empty() {
            continue;
        }
        if !resolved.insert(current) || *links_left == 0 {
            return;
        }
        let rest = components.as_path();
        for target in targets.into_iter().rev() {
            *links_left = links_left.saturating_sub(1);
            open.push(clean(&target.join(rest)));
        }
        return;
    }
    resolved.insert(current);
}

/// Returns what a path points to, or its matches, where they are symlinks; nothing for anything else.
fn targets_of(root: &Path, path: &Path) -> Vec<PathBuf> {
    let directory = path.parent().unwrap_or(Path::new(""));
    let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    if !has_wildcards(&name) {
        return target_of(root, path).into_iter().collect();
    }
    let (Ok(pattern), Ok(entries)) = (Pattern::new(&name), std::fs::read_dir(root.join(directory))) else {
        return Vec::new();
    };
    let mut names: Vec<_> = entries.flatten().map(|entry| entry.file_name()).collect();
    names.sort();
    let names = names.into_iter().filter(|name| pattern.matches(&name.to_string_lossy()));
    names.filter_map(|name| target_of(root, &directory.join(name))).collect()
}

fn target_of(root: &Path, path: &Path) -> Option<PathBuf> {
    let target = std::fs::read_link(root.join(path)).ok()?;
    let directory = path.parent().unwrap_or(Path::new(""));
    Some(if target.is_absolute() { target } else { directory.join(target) })
}

/// Makes a path relative to the root without `.` and `..`, neither of which leads above the root.
fn clean(path: &Path) -> PathBuf {
    let mut cleaned = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => cleaned.push(name),
            Component::ParentDir => {
                cleaned.pop();
            }
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    cleaned
}

#[cfg(test)]
mod tests {
    use super::*;

    fn followed(root: &Path, paths: &[&str]) -> Option<Vec<String>> {
        follow_paths(root, &paths.iter().map(|path| (*path).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn links_bring_what_they_point_to() {
        let root = tempfile::tempdir().unwrap();
        let link =
            |target: &str, path: &str| std::os::unix::fs::symlink(target, root.path().join(path)).unwrap();
        std::fs::create_dir_all(root.path().join("real/deep")).unwrap();
        link("real", "dir");
        link("/real/deep", "absolute");
        link("../../outside", "escape");
        link("loop2", "loop1");
        link("loop1", "loop2");
        let paths = |paths: &[&str]| followed(root.path(), paths).unwrap();
        assert_eq!(paths(&["plain"]), ["plain"]);
        assert_eq!(paths(&["dir/deep/file"]), ["dir", "real/deep/file"]);
        assert_eq!(paths(&["absolute"]), ["absolute", "real/deep"]);
        assert_eq!(paths(&["escape"]), ["escape", "outside"]);
        assert_eq!(paths(&["loop1"]), ["loop1", "loop2"]);
        assert_eq!(paths(&["d*"]), ["d*", "real"]);
        assert_eq!(paths(&["a", "a/b"]), ["a"]);
        assert_eq!(followed(root.path(), &["a", "/"]), None);
    }
}
