// SPDX-License-Identifier: Apache-2.0
//! Tables as Go's tabwriter lays them out.

/// Lays out rows whose cells, all but the last, are as wide as the widest of their column and `padding` more.
pub(super) fn table(rows: &[Vec<String>], padding: usize) -> String {
    let width_of = |column: usize| {
        let cells = rows.iter().filter(|row| column + 1 < row.len()).map(|row| row[column].chars().count());
        cells.max().unwrap_or(0) + padding
    };
    let mut text = String::new();
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            text.push_str(cell);
            if column + 1 < row.len() {
                text.push_str(&" ".repeat(width_of(column).saturating_sub(cell.chars().count())));
            }
        }
        text.push('\n');
    }
    text
}
