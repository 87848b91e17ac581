// SPDX-License-Identifier: Apache-2.0
//! `--format` of docker's listings: a template for each row, or a table with titles above it.

use unicode_width::UnicodeWidthStr as _;

use super::{Functions, Template, TemplateError, Value};

/// How the rows of a listing are written.
#[derive(Debug, Clone)]
pub struct Listing {
    template: Template,
    is_table: bool,
}

impl Listing {
    /// Reads `table TEMPLATE` or a template; in both, `\t` and `\n` mean tab and line end.
    ///
    /// # Errors
    /// When it is no template.
    pub fn parse(format: &str) -> Result<Listing, TemplateError> {
        let (template, is_table) = match format.strip_prefix("table") {
            Some(template) => (template, true),
            None => (format, false),
        };
        let template = template.trim_matches(' ').replace("\\t", "\t").replace("\\n", "\n");
        Ok(Listing { template: Template::parse(&template)?, is_table })
    }

    /// Writes rows, below the titles of their fields when it is a table.
    ///
    /// # Errors
    /// When the template asks for what rows don't have.
    pub fn render(&self, titles: &[(&str, &str)], rows: &[Value]) -> Result<String, TemplateError> {
        let functions = Functions::docker();
        let mut lines = Vec::new();
        if self.is_table {
            let titles = Value::structure(titles.iter().map(|(name, title)| (*name, Value::from(*title))));
            lines.push(self.template.render(&titles, functions.header())?);
        }
        for row in rows {
            lines.push(self.template.render(row, functions)?);
        }
        let text: String = lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect();
        Ok(if self.is_table { columns(&text) } else { text })
    }
}

/// Puts what tabs separate into columns: at least ten wide, three blanks between them.
fn columns(text: &str) -> String {
    let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split('\t').collect()).collect();
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let mut widths = vec![0; count];
    for row in &rows {
        // What no tab follows has no column.
        for (at, cell) in row.iter().enumerate().take(row.len().saturating_sub(1)) {
            widths[at] = widths[at].max((cell.width() + 3).max(10));
        }
    }
    let mut out = String::new();
    for row in &rows {
        for (at, cell) in row.iter().enumerate() {
            out.push_str(cell);
            if at + 1 < row.len() {
                out.push_str(&" ".repeat(widths[at].saturating_sub(cell.width())));
            }
        }
        out.push('\n');
    }
    out
}
