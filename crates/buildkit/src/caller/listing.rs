// SPDX-License-Identifier: Apache-2.0
//! Checks the order of a transfer's entries.
//!
//! A directory comes before what is in it, names in the order of their bytes, and each path once. Whoever
//! keeps to that can neither leave the directory nor change afterwards what a path is.

/// The most entries of a directory.
const MAX_ENTRIES: u32 = 4_000_000;
/// The deepest directory.
const MAX_DEPTH: usize = 256;
/// The longest path, in bytes; what the kernel takes.
const MAX_PATH_BYTES: usize = 4095;
/// The longest name, in bytes.
const MAX_NAME_BYTES: usize = 255;

/// The place at which a listing is.
#[derive(Debug)]
pub(super) struct Listing {
    /// The directories on the way to it, the root first, each with the name that came last in it.
    open: Vec<(String, Option<String>)>,
    entries: u32,
}

/// Where a path stands in a listing.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place<'a> {
    /// How many directories lead to it; the root counts as none.
    pub(super) depth: usize,
    /// Its name.
    pub(super) name: &'a str,
}

impl Listing {
    pub(super) fn new() -> Listing {
        Listing { open: vec![(String::new(), None)], entries: 0 }
    }

    /// Takes the next entry.
    ///
    /// # Errors
    /// What is wrong with it, as what the client sent.
    pub(super) fn next<'a>(&mut self, path: &'a str, is_directory: bool) -> Result<Place<'a>, String> {
        self.entries += 1;
        if self.entries > MAX_ENTRIES {
            return Err(format!("more than {MAX_ENTRIES} files"));
        }
        check(path)?;
        let depth = path.bytes().filter(|byte| *byte == b'/').count();
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        if depth >= MAX_DEPTH {
            return Err(format!("directories nested more than {MAX_DEPTH} deep"));
        }
        let is_in_open = depth < self.open.len()
            && (depth == 0
                || parent.split('/').eq(self.open[1..=depth].iter().map(|(name, _)| name.as_str())));
        if !is_in_open {
            return Err(format!("{path:?} before its directory, or out of order"));
        }
        self.open.truncate(depth + 1);
        let last = &mut self.open[depth].1;
        if last.as_deref().is_some_and(|last| last >= name) {
            return Err(format!("{path:?} out of order"));
        }
        *last = Some(name.to_owned());
        if is_directory {
            self.open.push((name.to_owned(), None));
        }
        Ok(Place { depth, name })
    }
}

/// Checks that a path stays beneath its root, whatever the files are.
pub(super) fn check(path: &str) -> Result<(), String> {
    let is_bad =
        |name: &str| matches!(name, "" | "." | "..") || name.len() > MAX_NAME_BYTES || name.contains('\0');
    match path.len() > MAX_PATH_BYTES || path.split('/').any(is_bad) {
        true => {
            let shown: String = path.chars().take(256).collect();
            Err(format!("{shown:?} as a path"))
        }
        false => Ok(()),
    }
}

/// Tells whether a path comes before another one in a listing.
pub(super) fn is_before(path: &str, other: &str) -> bool {
    path.split('/').lt(other.split('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lists paths, directories with a slash at the end; returns the first problem.
    fn list(paths: &[&str]) -> Option<String> {
        let mut listing = Listing::new();
        paths.iter().find_map(|path| {
            let (path, is_directory) = path.strip_suffix('/').map_or((*path, false), |path| (path, true));
            listing.next(path, is_directory).err()
        })
    }

    #[test]
    fn listings_in_order_pass() {
        assert_eq!(list(&["a/", "a/b/", "a/b/c", "a/x", "a.txt", "b/", "c"]), None);
        assert_eq!(list(&[]), None);
        let mut listing = Listing::new();
        listing.next("a", true).unwrap();
        assert_eq!(listing.next("a/b", false).unwrap(), Place { depth: 1, name: "b" });
        assert!(is_before("a/b", "a.txt") && !is_before("a", "a") && !is_before("b", "a/z"));
    }

    #[test]
    fn others_do_not() {
        for paths in [
            &["b", "a"] as &[_],
            &["a", "a"],
            &["a/b"],
            &["a", "a/b"],
            &["a/", "b/", "a/c"],
            &["a/", "a/b/", "c/", "c/b/x"],
            &["a/", "a/x", "a/b"],
            &[".."],
            &["a/", "a/.."],
            &["/etc"],
            &["."],
            &["a//b"],
            &["a\0b"],
            &[""],
        ] {
            assert!(list(paths).is_some(), "{paths:?}");
        }
        assert!(list(&[&"n".repeat(256)]).is_some());
        let deep: Vec<String> = (1..=300).map(|depth| vec!["d"; depth].join("/") + "/").collect();
        assert!(list(&deep.iter().map(String::as_str).collect::<Vec<_>>()).unwrap().contains("nested"));
    }
}
