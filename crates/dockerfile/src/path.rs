// SPDX-License-Identifier: Apache-2.0
//! Paths as texts, in the way of Go's `path` package.

/// Returns the shortest path that means the same: no empty names, no `.`, no `..` that something precedes.
pub(crate) fn clean(path: &str) -> String {
    let is_rooted = path.starts_with('/');
    let mut names: Vec<&str> = Vec::new();
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." if names.last().is_some_and(|&last| last != "..") => {
                names.pop();
            }
            ".." if is_rooted => {}
            _ => names.push(name),
        }
    }
    match (is_rooted, names.join("/")) {
        (true, names) => format!("/{names}"),
        (false, names) if names.is_empty() => ".".to_owned(),
        (false, names) => names,
    }
}

/// Returns the last name of a path; `/` has none but itself.
pub(crate) fn base(path: &str) -> String {
    let trimmed = path.trim_end_matches('/');
    match trimmed.rsplit('/').next() {
        Some("") | None if path.is_empty() => ".".to_owned(),
        Some("") | None => "/".to_owned(),
        Some(name) => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cleaning() {
        for (path, cleaned) in [
            ("", "."),
            ("/", "/"),
            ("a/", "a"),
            ("./a//b/./c", "a/b/c"),
            ("a/../b", "b"),
            ("..", ".."),
            ("../../a", "../../a"),
            ("a/../..", ".."),
            ("/../a", "/a"),
            ("//a", "/a"),
        ] {
            assert_eq!(clean(path), cleaned, "{path}");
        }
        assert_eq!([base("/a/b/"), base("b"), base("/"), base("")], ["b", "b", "/", "."]);
    }
}
