// SPDX-License-Identifier: Apache-2.0
//! Comma-separated fields, as flags and bake files have them.

/// Splits one line into its fields.
///
/// # Errors
/// Quotes that don't close.
pub fn fields(line: &str, separator: char) -> Result<Vec<String>, String> {
    let mut records = parse(line, separator)?;
    if records.len() > 1 {
        return Err("parse error: unexpected line break".to_owned());
    }
    Ok(records.pop().unwrap_or_default())
}

/// Splits a text into lines of fields.
///
/// # Errors
/// Quotes that don't close.
pub fn records(text: &str) -> Result<Vec<Vec<String>>, String> {
    parse(text, ',')
}

fn parse(text: &str, separator: char) -> Result<Vec<Vec<String>>, String> {
    let mut records = Vec::new();
    let mut record: Vec<String> = Vec::new();
    let mut field = String::new();
    let mut is_quoted = false;
    let mut letters = text.chars().peekable();
    let mut is_empty_line = true;
    while let Some(c) = letters.next() {
        if is_quoted {
            match c {
                '"' if letters.peek() == Some(&'"') => {
                    letters.next();
                    field.push('"');
                }
                '"' => {
                    is_quoted = false;
                    if letters.peek().is_some_and(|next| *next != separator && *next != '\n' && *next != '\r')
                    {
                        return Err("parse error: extraneous or missing \" in quoted-field".to_owned());
                    }
                }
                c => field.push(c),
            }
            continue;
        }
        match c {
            '"' if field.is_empty() => {
                is_quoted = true;
                is_empty_line = false;
            }
            '"' => return Err("parse error: bare \" in non-quoted-field".to_owned()),
            '\r' if letters.peek() == Some(&'\n') => {}
            '\n' => {
                if !is_empty_line {
                    record.push(std::mem::take(&mut field));
                    records.push(std::mem::take(&mut record));
                }
                is_empty_line = true;
            }
            c if c == separator => {
                is_empty_line = false;
                record.push(std::mem::take(&mut field));
            }
            c => {
                is_empty_line = false;
                field.push(c);
            }
        }
    }
    if is_quoted {
        return Err("parse error: extraneous or missing \" in quoted-field".to_owned());
    }
    if !is_empty_line {
        record.push(field);
        records.push(record);
    }
    Ok(records)
}

/// Joins fields into one line that [`fields`] splits again.
pub fn join(fields: &[String]) -> String {
    let quoted = |field: &String| {
        if field.contains(['"', ',', '\n', '\r']) {
            format!("\"{}\"", field.replace('"', "\"\""))
        } else {
            field.clone()
        }
    };
    fields.iter().map(quoted).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_may_be_quoted() {
        assert_eq!(
            fields("a,\"b,c\",d\"\"", ','),
            Err("parse error: bare \" in non-quoted-field".to_owned())
        );
        assert_eq!(
            fields("a,\"b,\"\"c\",", ','),
            Ok(vec!["a".to_owned(), "b,\"c".to_owned(), String::new()])
        );
        assert_eq!(join(&["a".to_owned(), "b,\"c".to_owned()]), "a,\"b,\"\"c\"");
        assert!(fields("\"a", ',').is_err());
        assert_eq!(records("a,b\n1,2\n").map(|records| records.len()), Ok(2));
    }
}
