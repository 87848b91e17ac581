// SPDX-License-Identifier: Apache-2.0
//! Hides names and passwords in URLs, before they are shown, recorded or told.

/// Stands for a name or a password, as with BuildKit.
const MASK: &str = "xxxxx";

/// Returns a URL without its name and its password; a token may be either. What is no URL stays as it is.
pub fn redacted(url: &str) -> String {
    masked(url, true)
}

/// The same; where it is sure that a text is meant to be a URL, also one that nobody takes is masked.
fn masked(url: &str, is_url: bool) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    // Readers of URLs skip slashes before the host.
    let start = rest.find(|c| !matches!(c, '/' | '\\')).unwrap_or(rest.len());
    let (slashes, rest) = rest.split_at(start);
    let end = rest.find(['/', '\\', '?', '#']).unwrap_or(rest.len());
    let credentials = match rest[..end].rfind('@') {
        Some(at) => Some(at),
        // A password with such a character makes a URL that nobody takes, but errors show it.
        None if is_url && !is_host(&rest[..end]) => rest.rfind('@'),
        None => None,
    };
    let Some(at) = credentials else { return url.to_owned() };
    let mask = match rest[..at].split_once(':') {
        Some(("", _)) => format!(":{MASK}"),
        Some(_) => format!("{MASK}:{MASK}"),
        None if at == 0 => String::new(),
        None => MASK.to_owned(),
    };
    format!("{scheme}://{slashes}{mask}{}", &rest[at..])
}

/// Tells whether a text is a host as it stands in URLs, with a port or without.
fn is_host(text: &str) -> bool {
    match text.rsplit_once(':') {
        Some((_, port)) => text.ends_with(']') || port.bytes().all(|byte| byte.is_ascii_digit()),
        None => true,
    }
}

/// Hides names and passwords in all URLs of a text, such as an instruction, or what a program says.
pub(crate) fn redacted_text(text: &str) -> String {
    let is_end = |c: char| c.is_whitespace() || matches!(c, '\'' | '"' | '<' | '>' | '`');
    text.split_inclusive(is_end).map(|word| masked(word, false)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_hidden() {
        for (url, expected) in [
            ("https://user:pass@e.example/repo.git#v1:src", "https://xxxxx:xxxxx@e.example/repo.git#v1:src"),
            ("https://TOKEN@e.example", "https://xxxxx@e.example"),
            ("https://:pass@e.example", "https://:xxxxx@e.example"),
            ("https://a@b:c@e.example/@x", "https://xxxxx:xxxxx@e.example/@x"),
            ("https:///u:p@e.example/x", "https:///xxxxx:xxxxx@e.example/x"),
            ("https://u:p/w@e.example/x", "https://xxxxx:xxxxx@e.example/x"),
            ("https://u:p#w@e.example/x", "https://xxxxx:xxxxx@e.example/x"),
            ("https://e.example:8080/a@b", "https://e.example:8080/a@b"),
            ("https://[::1]/a@b", "https://[::1]/a@b"),
            ("https://e.example/a@b", "https://e.example/a@b"),
            ("git@e.example:repo", "git@e.example:repo"),
        ] {
            assert_eq!(redacted(url), expected);
        }
    }

    #[test]
    fn messages_of_programs_show_no_credentials() {
        let text =
            "fatal: clone of 'http://u:PW@h/sub.git' into path '/s/w' failed\nsee https://TOKEN@h/ now";
        let expected = "fatal: clone of 'http://xxxxx:xxxxx@h/sub.git' into path '/s/w' failed\nsee https://xxxxx@h/ now";
        assert_eq!(redacted_text(text), expected);
        let text = "ADD https://$HOST:$PORT/a@b /";
        assert_eq!(redacted_text(text), text);
    }
}
