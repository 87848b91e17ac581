// SPDX-License-Identifier: Apache-2.0
//! Lists as flags and attributes write them: one line of comma-separated values.

/// Splits one line of comma-separated values (RFC 4180): a field that begins with a quote may hold
/// commas, and quotes written twice.
///
/// # Errors
/// When a quote is not closed or stands inside a field, in one sentence with the text.
pub fn split_csv(text: &str) -> Result<Vec<String>, String> {
    let mut fields = Vec::new();
    let mut rest = text;
    loop {
        if let Some(quoted) = rest.strip_prefix('"') {
            let (field, after) = quoted_field(quoted)
                .ok_or_else(|| format!("{text:?}: a quote is not closed, or something follows it"))?;
            fields.push(field);
            rest = after;
        } else {
            let end = rest.find(',').unwrap_or(rest.len());
            if rest[..end].contains('"') {
                return Err(format!("{text:?}: a quote stands inside a field; quote the whole field"));
            }
            fields.push(rest[..end].to_owned());
            rest = &rest[end..];
        }
        match rest.strip_prefix(',') {
            Some(after) => rest = after,
            None => return Ok(fields),
        }
    }
}

/// Reads a field up to its closing quote; returns it and what follows, which is a comma or nothing.
fn quoted_field(text: &str) -> Option<(String, &str)> {
    let mut field = String::new();
    let mut rest = text;
    loop {
        let (part, after) = rest.split_once('"')?;
        field.push_str(part);
        match after.strip_prefix('"') {
            Some(after) => {
                field.push('"');
                rest = after;
            }
            None => return (after.is_empty() || after.starts_with(',')).then_some((field, after)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn csv_fields_may_be_quoted() {
        let table: [(&str, Result<&[&str], ()>); 9] = [
            ("a,b", Ok(&["a", "b"])),
            ("type=image,\"name=a,b\",push=true", Ok(&["type=image", "name=a,b", "push=true"])),
            ("\"say \"\"hi\"\"\"", Ok(&["say \"hi\""])),
            ("", Ok(&[""])),
            ("a,", Ok(&["a", ""])),
            ("\"\"", Ok(&[""])),
            ("\"open", Err(())),
            ("\"a\"b", Err(())),
            ("na\"me", Err(())),
        ];
        for (text, expected) in table {
            let expected =
                expected.map(|fields| fields.iter().map(|field| (*field).to_owned()).collect::<Vec<_>>());
            assert_eq!(split_csv(text).map_err(drop), expected, "{text}");
        }
    }
}
