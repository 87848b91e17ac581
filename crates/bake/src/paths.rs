// SPDX-License-Identifier: Apache-2.0
//! Paths as texts, and patterns for names.

/// Takes out of a path what is superfluous; an empty one becomes `.`.
pub fn clean(path: &str) -> String {
    let is_absolute = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if is_absolute => {}
            part => parts.push(part),
        }
    }
    let joined = parts.join("/");
    match (is_absolute, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    }
}

/// The directory of a file, or nothing for standard input.
pub fn directory(file: &str) -> String {
    if file.is_empty() || file == "-" || is_remote(file) {
        return String::new();
    }
    clean(file.rfind('/').map_or("", |at| &file[..=at]))
}

/// Tells whether a context is not on this machine's disk.
pub fn is_remote(path: &str) -> bool {
    let is_git = path.starts_with("github.com/") || path.starts_with("git@");
    is_git || ["http://", "https://", "git://", "ssh://"].iter().any(|scheme| path.starts_with(scheme))
}

/// Puts a path below a directory, unless it is one of another kind.
pub fn rebase(base: &str, path: &str) -> String {
    let special = ["cwd://", "target:", "docker-image:", "oci-layout://"];
    let is_special = special.iter().any(|prefix| path.starts_with(prefix)) || is_remote(path);
    if base.is_empty() || path.is_empty() || is_special || path.starts_with('/') {
        return path.to_owned();
    }
    clean(&format!("{base}/{path}"))
}

/// Tells whether a name matches a pattern of `*`, `?` and `[…]`; `None` for a pattern that is none.
pub fn matches(pattern: &str, name: &str) -> Option<bool> {
    let pattern: Vec<char> = pattern.chars().collect();
    let name: Vec<char> = name.chars().collect();
    check(&pattern)?;
    // The last star seen, and where the name stood then: what follows is tried again one letter later.
    let (mut at, mut position) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while position < name.len() {
        match pattern.get(at) {
            Some('*') => {
                star = Some((at, position));
                at += 1;
                continue;
            }
            Some(_) => {
                if let Some(length) = matches_one(&pattern[at..], name[position]) {
                    at += length;
                    position += 1;
                    continue;
                }
            }
            None => {}
        }
        let Some((star_at, star_position)) = star else { return Some(false) };
        if name[star_position] == '/' {
            return Some(false);
        }
        star = Some((star_at, star_position + 1));
        at = star_at + 1;
        position = star_position + 1;
    }
    Some(pattern[at..].iter().all(|c| *c == '*'))
}

/// The length of the pattern's first element, if a letter matches it.
fn matches_one(pattern: &[char], letter: char) -> Option<usize> {
    match pattern {
        ['?', ..] => (letter != '/').then_some(1),
        ['\\', escaped, ..] => (*escaped == letter).then_some(2),
        ['[', rest @ ..] => {
            let negated = rest.first() == Some(&'^');
            let mut at = usize::from(negated);
            let mut is_in = false;
            let start = at;
            while at < rest.len() && (rest[at] != ']' || at == start) {
                let low = literal(rest, &mut at)?;
                let high = if rest.get(at) == Some(&'-') {
                    at += 1;
                    literal(rest, &mut at)?
                } else {
                    low
                };
                is_in |= (low..=high).contains(&letter);
            }
            (is_in != negated).then_some(at + 2)
        }
        [plain, ..] => (*plain == letter).then_some(1),
        [] => None,
    }
}

fn literal(pattern: &[char], at: &mut usize) -> Option<char> {
    if pattern.get(*at) == Some(&'\\') {
        *at += 1;
    }
    *at += 1;
    pattern.get(*at - 1).copied()
}

fn check(pattern: &[char]) -> Option<()> {
    let mut at = 0;
    while let Some(c) = pattern.get(at) {
        match c {
            '\\' => at += 2,
            '[' => {
                let close = pattern[at + 1..].iter().skip(1).position(|c| *c == ']')?;
                at += close + 3;
            }
            _ => at += 1,
        }
        if at > pattern.len() {
            return None;
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_names() {
        for (pattern, name, expected) in [
            ("*", "app", Some(true)),
            ("app-*", "app-dev", Some(true)),
            ("a?p", "app", Some(true)),
            ("[a-c]pp", "bpp", Some(true)),
            ("[^a]pp", "app", Some(false)),
            ("*-*-x", "a-b-c-x", Some(true)),
            ("app", "apps", Some(false)),
            ("[a", "a", None),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn paths_are_cleaned() {
        for (path, expected) in [("", "."), ("./a/../b//c/", "b/c"), ("/../a", "/a"), ("../../a", "../../a")]
        {
            assert_eq!(clean(path), expected);
        }
        assert_eq!(rebase("dir", "../x"), "x");
        assert_eq!(rebase("dir", "docker-image://alpine"), "docker-image://alpine");
    }
}
