// SPDX-License-Identifier: Apache-2.0
//! Makes foreign text harmless for a terminal.
//!
//! Output of build steps, answers of registries and names of files may carry escape sequences that move
//! the cursor, change the title or reorder what is read; here only what is visible remains.

/// Returns the visible part of one line: no escape sequences, no control characters, tabs as blanks;
/// of what was written over with carriage returns, the last.
pub fn visible_line(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let text = text.trim_end_matches(['\r', '\n']);
    let text = text.rsplit('\r').next().unwrap_or_default();
    visible(text, |_| false)
}

/// Returns the visible part of a text of several lines; line ends and tabs stay.
pub fn visible_text(text: &str) -> String {
    visible(text, |c| matches!(c, '\n' | '\t'))
}

/// Returns the visible part of what a platform, or anything else with a name from outside, is called: one
/// line, so that it fills one place in a table and no more.
pub fn visible_name(name: &impl std::fmt::Display) -> String {
    visible(&name.to_string(), |_| false)
}

fn visible(text: &str, is_kept: impl Fn(char) -> bool) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            _ if is_kept(c) => out.push(c),
            '\t' => out.push_str("    "),
            '\u{1b}' => skip_escape(&mut chars),
            // The 8-bit form of `ESC [`.
            '\u{9b}' => skip_control_sequence(&mut chars),
            _ if c.is_control() || is_invisible_format(c) => {}
            _ => out.push(c),
        }
    }
    out
}

/// Skips what follows an ESC (ECMA-48, 5.3: escape sequences, control sequences and strings).
fn skip_escape(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    match chars.peek() {
        Some('[') => {
            chars.next();
            skip_control_sequence(chars);
        }
        // Control strings: everything up to BEL or ESC \.
        Some(']' | 'P' | '_' | '^' | 'X') => {
            while let Some(c) = chars.next() {
                if c == '\u{7}' || c == '\u{9c}' {
                    break;
                }
                if c == '\u{1b}' {
                    chars.next_if_eq(&'\\');
                    break;
                }
            }
        }
        _ => {
            while chars.next_if(|c| (' '..='/').contains(c)).is_some() {}
            chars.next_if(|c| ('0'..='~').contains(c));
        }
    }
}

/// Skips parameters, intermediates and the final byte of a control sequence.
fn skip_control_sequence(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    while chars.next_if(|c| (' '..='?').contains(c)).is_some() {}
    chars.next_if(|c| ('@'..='~').contains(c));
}

/// Tells the characters that reorder or hide text without being visible themselves.
fn is_invisible_format(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_visible_remains() {
        let table: [(&[u8], &str); 11] = [
            (b"plain", "plain"),
            (b"\x1b[31mred\x1b[0m", "red"),
            (b"\x1b]0;title\x07after", "after"),
            (b"\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
            (b"10%\r50%\r100%", "100%"),
            (b"line\r\n", "line"),
            (b"a\tb", "a    b"),
            (b"\x1b[2J\x1b[H\x1b(Bx\x07", "x"),
            ("a\u{202e}b\u{200b}".as_bytes(), "ab"),
            (b"\xff\xfe", "\u{fffd}\u{fffd}"),
            (b"\x1b[", ""),
        ];
        for (line, expected) in table {
            assert_eq!(visible_line(line), expected, "{line:?}");
        }
        assert_eq!(visible_text("a\tb\nc\x1b[1A"), "a\tb\nc");
    }

    #[test]
    fn a_name_stays_on_its_line() {
        assert_eq!(visible_name(&"linux/arm64"), "linux/arm64");
        assert_eq!(visible_name(&"linux/arm\n\u{1b}[2Jfake/row\u{202e}"), "linux/armfake/row");
    }
}
