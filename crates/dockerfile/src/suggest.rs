// SPDX-License-Identifier: Apache-2.0
//! "Did you mean": the known word nearest to a mistyped one.

/// Mistakes allowed: one letter more or less than this is another word.
const MAX_DISTANCE: usize = 2;

/// Returns the option nearest to a word, if any is near.
pub(crate) fn nearest<'a>(word: &str, options: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Distances of long words are not worth their quadratic time.
    if word.len() > 64 {
        return None;
    }
    options
        .into_iter()
        .map(|option| (distance(&word.to_lowercase(), &option.to_lowercase()), option))
        .filter(|&(distance, _)| distance <= MAX_DISTANCE)
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, option)| option)
}

/// Returns ` (did you mean …?)`, or nothing.
pub(crate) fn did_you_mean<'a>(word: &str, options: impl IntoIterator<Item = &'a str>) -> String {
    nearest(word, options).map(|option| format!(" (did you mean {option}?)")).unwrap_or_default()
}

/// Returns the first of the options nearest to a word, with its casing; none when the word itself is one of
/// them, for then its spelling is not what is wrong.
pub fn nearest_exact<'a>(word: &str, options: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if word.len() > 64 {
        return None;
    }
    let mut near: Option<(usize, &str)> = None;
    for option in options {
        if option == word {
            return None;
        }
        // Words whose lengths differ by more than the distance need no look.
        if option.len().abs_diff(word.len()) > 4 * MAX_DISTANCE {
            continue;
        }
        let distance = distance(word, option);
        if distance <= near.map_or(MAX_DISTANCE, |(best, _)| best.saturating_sub(1)) && distance > 0 {
            near = Some((distance, option));
        }
    }
    near.map(|(_, option)| option)
}

/// Counts the letters to insert, delete or change (Levenshtein).
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut previous: Vec<usize> = (0..=right.len()).collect();
    for (row, left) in left.chars().enumerate() {
        let mut current = vec![row + 1];
        for (column, &right) in right.iter().enumerate() {
            let change = previous[column] + usize::from(left != right);
            current.push(change.min(previous[column + 1] + 1).min(current[column] + 1));
        }
        previous = current;
    }
    previous[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_word() {
        let names = ["RUN", "COPY", "ENTRYPOINT", "FROM"];
        assert_eq!(nearest("RUM", names), Some("RUN"));
        assert_eq!(nearest("entrypont", names), Some("ENTRYPOINT"));
        assert_eq!(nearest("FORM", names), Some("FROM"));
        assert_eq!(nearest("INCLUDE", names), None);
        assert_eq!(nearest(&"x".repeat(1000), names), None);
        assert_eq!(did_you_mean("COPPY", names), " (did you mean COPY?)");
    }
}
