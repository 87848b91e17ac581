// SPDX-License-Identifier: Apache-2.0
//! One line of comma-separated fields (RFC 4180), as mounts and devices hold them.

/// Says why a line is not fields.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CsvError {
    /// There is nothing.
    #[error("no fields")]
    Empty,
    /// A quote stands within a field that does not begin with one.
    #[error("bare \" in field {field:?}")]
    BareQuote {
        /// The field.
        field: String,
    },
    /// A quoted field is not closed, or something follows its closing quote.
    #[error("extraneous or missing \" in a quoted field")]
    Quote,
}

/// Cuts a line into fields.
pub(crate) fn fields(line: &str) -> Result<Vec<String>, CsvError> {
    if line.is_empty() {
        return Err(CsvError::Empty);
    }
    let mut fields = Vec::new();
    let mut rest = line;
    loop {
        let (field, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted_field(quoted)?,
            None => plain_field(rest)?,
        };
        fields.push(field);
        match after {
            Some(after) => rest = after,
            None => return Ok(fields),
        }
    }
}

/// Reads a field and returns what follows its comma, if there is one.
fn plain_field(rest: &str) -> Result<(String, Option<&str>), CsvError> {
    let (field, after) = match rest.split_once(',') {
        Some((field, after)) => (field, Some(after)),
        None => (rest, None),
    };
    if field.contains('"') {
        return Err(CsvError::BareQuote { field: field.to_owned() });
    }
    Ok((field.to_owned(), after))
}

fn quoted_field(mut rest: &str) -> Result<(String, Option<&str>), CsvError> {
    let mut field = String::new();
    loop {
        let (part, after) = rest.split_once('"').ok_or(CsvError::Quote)?;
        field.push_str(part);
        if let Some(after) = after.strip_prefix('"') {
            field.push('"');
            rest = after;
        } else if let Some(after) = after.strip_prefix(',') {
            return Ok((field, Some(after)));
        } else if after.is_empty() {
            return Ok((field, None));
        } else {
            return Err(CsvError::Quote);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_and_quotes() {
        assert_eq!(fields("a,b=c").unwrap(), ["a", "b=c"]);
        assert_eq!(fields("a,").unwrap(), ["a", ""]);
        assert_eq!(fields("\"a,b\",c").unwrap(), ["a,b", "c"]);
        assert_eq!(fields("\"a\"\"b\"").unwrap(), ["a\"b"]);
        assert_eq!(fields("\"a\",").unwrap(), ["a", ""]);
        assert_eq!(fields(""), Err(CsvError::Empty));
        assert_eq!(fields("a\"b"), Err(CsvError::BareQuote { field: "a\"b".to_owned() }));
        assert_eq!(fields("\"a"), Err(CsvError::Quote));
        assert_eq!(fields("\"a\"b"), Err(CsvError::Quote));
    }
}
