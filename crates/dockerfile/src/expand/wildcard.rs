// SPDX-License-Identifier: Apache-2.0
//! The patterns of `${n#p}`, `${n%p}` and `${n/p/r}`: `*`, `?`, `\` and nothing else.
//!
//! A pattern is pieces of fixed length with stars between them. Placing each piece at its first fitting
//! place finds the shortest match, the last piece at its last place the longest; so matching takes time
//! in proportion to text times pattern, whatever they hold. As in BuildKit `*` and `?` do not match a line
//! feed.

use super::MAX_EXPANDED_BYTES;

/// One character of a piece.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Element {
    Exactly(char),
    Any,
}

impl Element {
    fn fits(self, character: char) -> bool {
        match self {
            Element::Exactly(wanted) => wanted == character,
            Element::Any => character != '\n',
        }
    }
}

/// A pattern: pieces with a `*` between each two.
#[derive(Debug)]
pub(super) struct Wildcard {
    pieces: Vec<Vec<Element>>,
}

impl Wildcard {
    /// Reads a pattern. `\` before `}` and `/` belongs to the `${…}` around it and is dropped.
    pub(super) fn parse(pattern: &str) -> Option<Wildcard> {
        let mut pieces = vec![];
        let mut piece = vec![];
        let mut characters = pattern.chars().peekable();
        while let Some(character) = characters.next() {
            match character {
                '*' => pieces.push(std::mem::take(&mut piece)),
                '?' => piece.push(Element::Any),
                '\\' if matches!(characters.peek(), Some('}' | '/')) => {}
                '\\' => match characters.next() {
                    Some(escaped @ ('*' | '?' | '\\')) => piece.push(Element::Exactly(escaped)),
                    _ => return None,
                },
                _ => piece.push(Element::Exactly(character)),
            }
        }
        pieces.push(piece);
        Some(Wildcard { pieces })
    }

    /// Removes the shortest or longest beginning that matches.
    pub(super) fn without_prefix(&self, value: &str, longest: bool) -> String {
        let characters: Vec<char> = value.chars().collect();
        let end = self.match_at(&characters, 0, longest).unwrap_or(0);
        characters[end..].iter().collect()
    }

    /// Removes the shortest or longest end that matches.
    pub(super) fn without_suffix(&self, value: &str, longest: bool) -> String {
        let characters: Vec<char> = value.chars().rev().collect();
        let end = self.reversed().match_at(&characters, 0, longest).unwrap_or(0);
        characters[end..].iter().rev().collect()
    }

    /// Replaces the first or all of the longest matches; none if the result gets too large.
    pub(super) fn replace(&self, value: &str, replacement: &str, all: bool) -> Option<String> {
        let characters: Vec<char> = value.chars().collect();
        let mut result = String::new();
        let mut position = 0;
        let mut last_end = None;
        while position <= characters.len() {
            if result.len() > MAX_EXPANDED_BYTES {
                return None;
            }
            let matched = self.match_at(&characters, position, true);
            match matched {
                // An empty match right after a match would replace the same place twice.
                Some(end) if !(end == position && last_end == Some(position)) => {
                    result.push_str(replacement);
                    last_end = Some(end);
                    if !all {
                        result.extend(&characters[end..]);
                        return Some(result);
                    }
                    if end > position {
                        position = end;
                        continue;
                    }
                }
                _ => {}
            }
            let mut next = position + 1;
            if matched.is_none() && self.pieces.len() > 1 && self.first_fits(&characters, position) {
                // The pieces after the first star are not in the rest of this line, wherever one begins.
                next = line_end(&characters, position).max(next);
            }
            let next = next.min(characters.len() + 1);
            result.extend(&characters[position..next.min(characters.len())]);
            position = next;
        }
        Some(result)
    }

    /// Returns the end of the match that begins at `start`.
    fn match_at(&self, characters: &[char], start: usize, longest: bool) -> Option<usize> {
        if !self.first_fits(characters, start) {
            return None;
        }
        let mut position = start + self.pieces[0].len();
        let last = self.pieces.len() - 1;
        for (index, piece) in self.pieces.iter().enumerate().skip(1) {
            let end = line_end(characters, position);
            let mut places = (position..=end).filter(|&place| fits(piece, characters, place));
            let place = if index == last && longest { places.next_back()? } else { places.next()? };
            position = place + piece.len();
        }
        Some(position)
    }

    fn first_fits(&self, characters: &[char], start: usize) -> bool {
        // A parsed pattern has at least one piece.
        self.pieces.first().is_some_and(|piece| fits(piece, characters, start))
    }

    fn reversed(&self) -> Wildcard {
        let pieces = self.pieces.iter().rev().map(|piece| piece.iter().rev().copied().collect()).collect();
        Wildcard { pieces }
    }
}

fn fits(piece: &[Element], characters: &[char], place: usize) -> bool {
    match characters.get(place..place + piece.len()) {
        Some(part) => piece.iter().zip(part).all(|(element, &character)| element.fits(character)),
        None => false,
    }
}

/// Returns the place of the next line feed, or the end.
fn line_end(characters: &[char], from: usize) -> usize {
    let rest = &characters[from.min(characters.len())..];
    from + rest.iter().position(|&character| character == '\n').unwrap_or(rest.len())
}
