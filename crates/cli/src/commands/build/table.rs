// SPDX-License-Identifier: Apache-2.0
//! Columns of text.

use unicode_width::UnicodeWidthStr;

/// Writes rows with their cells in columns, three blanks apart. Nothing is left of a column whose cells are
/// all empty, and rows end with their last word.
pub fn render_table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.width()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths).filter(|(_, width)| **width > 0) {
            line.push_str(cell);
            line.push_str(&" ".repeat(width + 3 - cell.width()));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}
