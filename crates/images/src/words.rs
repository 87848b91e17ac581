// SPDX-License-Identifier: Apache-2.0
//! Lists of names in messages.

/// Joins the first names of a list, and counts the others: what is listed may be somebody else's, and long.
pub(crate) fn first_of<T: AsRef<str>>(names: &[T]) -> String {
    let mut text = names.iter().take(5).map(AsRef::as_ref).collect::<Vec<&str>>().join(", ");
    if names.len() > 5 {
        text.push_str(&format!(" and {} more", names.len() - 5));
    }
    text
}
