// SPDX-License-Identifier: Apache-2.0
//! How large a value may get: a few lines of a file could otherwise ask for more memory than there is.

use super::number::Number;
use super::value::{Type, Value};

/// The most that one value may take.
pub const MAX_VALUE_BYTES: usize = 16 << 20;
/// How deep values may be nested; conversions, comparisons and printing recurse.
const MAX_DEPTH: usize = 128;
/// What a value takes besides its text, and a type.
const NODE_BYTES: usize = 64;
/// How many elements a value can have at most.
pub const MAX_ELEMENTS: usize = MAX_VALUE_BYTES / NODE_BYTES;

/// What a refusal says.
pub fn too_large() -> String {
    format!("the value would be larger than {} MiB", MAX_VALUE_BYTES >> 20)
}

/// Checks that a value is neither too large nor nested too deeply, and returns what it takes.
///
/// # Errors
/// It is.
pub fn check(value: &Value) -> Result<usize, String> {
    let mut tally = Tally::default();
    tally.add(value)?;
    Ok(tally.bytes)
}

/// Counts what the parts of one value take, while it is made.
#[derive(Debug, Default)]
pub struct Tally {
    bytes: usize,
}

impl Tally {
    /// Counts a part.
    ///
    /// # Errors
    /// The whole gets too large.
    pub fn add(&mut self, part: &Value) -> Result<(), String> {
        self.value(part, 0)
    }

    /// Counts bytes of text.
    ///
    /// # Errors
    /// The whole gets too large.
    pub fn add_bytes(&mut self, count: usize) -> Result<(), String> {
        self.bytes = self.bytes.saturating_add(count);
        if self.bytes > MAX_VALUE_BYTES { Err(too_large()) } else { Ok(()) }
    }

    fn value(&mut self, value: &Value, depth: usize) -> Result<(), String> {
        if depth > MAX_DEPTH {
            return Err(format!("the value is nested more than {MAX_DEPTH} levels deep"));
        }
        self.add_bytes(NODE_BYTES)?;
        match value {
            Value::Bool(_) => Ok(()),
            Value::Null(ty) => self.ty(ty),
            Value::Number(number) => self.add_bytes(Number::text_bytes(number)),
            Value::String(text) => self.add_bytes(text.len()),
            Value::List(element, values) | Value::Set(element, values) => {
                self.ty(element)?;
                values.iter().try_for_each(|value| self.value(value, depth + 1))
            }
            Value::Tuple(values) => values.iter().try_for_each(|value| self.value(value, depth + 1)),
            Value::Map(element, values) => {
                self.ty(element)?;
                self.members(values, depth)
            }
            Value::Object(values) => self.members(values, depth),
        }
    }

    fn members<'a>(
        &mut self,
        members: impl IntoIterator<Item = (&'a String, &'a Value)>,
        depth: usize,
    ) -> Result<(), String> {
        members.into_iter().try_for_each(|(name, value)| {
            self.add_bytes(name.len() + NODE_BYTES)?;
            self.value(value, depth + 1)
        })
    }

    /// Types are as deep as the values or the expressions that they come from.
    fn ty(&mut self, ty: &Type) -> Result<(), String> {
        match ty {
            Type::Dynamic | Type::Bool | Type::Number | Type::String => Ok(()),
            Type::List(element) | Type::Set(element) | Type::Map(element) => {
                self.add_bytes(NODE_BYTES)?;
                self.ty(element)
            }
            Type::Tuple(types) => types.iter().try_for_each(|ty| {
                self.add_bytes(NODE_BYTES)?;
                self.ty(ty)
            }),
            Type::Object(attributes) => attributes.iter().try_for_each(|(name, attribute)| {
                self.add_bytes(name.len() + NODE_BYTES)?;
                self.ty(&attribute.ty)
            }),
        }
    }
}

/// Collects the parts of one value as long as they fit into one.
///
/// # Errors
/// The first part that can't be made, or the one that is too much.
pub fn collect(parts: impl IntoIterator<Item = Result<Value, String>>) -> Result<Vec<Value>, String> {
    let mut tally = Tally::default();
    let mut values = Vec::new();
    for part in parts {
        let part = part?;
        tally.add(&part)?;
        values.push(part);
    }
    Ok(values)
}

/// Checks how large all combinations of elements are together, one element of each collection, before any
/// is made; returns how many there are.
///
/// # Errors
/// They are too large.
pub fn check_product<'a>(collections: impl IntoIterator<Item = &'a Value>) -> Result<usize, String> {
    let mut sizes = Vec::new();
    for collection in collections {
        let count = collection.elements().map(<[Value]>::len);
        let count = count.or_else(|| collection.attributes().map(|attributes| attributes.len()));
        sizes.push((count.unwrap_or(0), check(collection)?));
    }
    if sizes.iter().any(|(count, _)| *count == 0) {
        return Ok(0);
    }
    let rows = sizes.iter().fold(1usize, |rows, (count, _)| rows.saturating_mul(*count));
    let mut tally = Tally::default();
    tally.add_bytes(rows.saturating_mul(NODE_BYTES))?;
    for (count, bytes) in sizes {
        tally.add_bytes(bytes.saturating_mul(rows / count))?;
    }
    Ok(rows)
}

/// Checks that comparing each of some values with each of others is not too much work.
///
/// # Errors
/// It is.
pub fn check_comparisons(some: usize, others: usize) -> Result<(), String> {
    const MAX_COMPARISONS: usize = 20_000_000;
    if some.saturating_mul(others) > MAX_COMPARISONS {
        return Err(format!("comparing {some} with {others} elements takes too much work"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::parse::{File, Inputs, parse};

    /// What a file is refused for; each must be found out before the memory is asked for.
    fn refused(text: &str) -> String {
        let file = File { name: "docker-bake.hcl".to_owned(), text: text.to_owned() };
        match parse(&[file], &Inputs::default()) {
            Ok(_) => "accepted".to_owned(),
            Err(error) => error.to_string(),
        }
    }

    /// A chain of variables, each made of the one before, which `PREVIOUS` stands for.
    fn chain(first: &str, next: &str) -> String {
        let mut text = format!("variable \"v0\" {{ default = {first} }}\n");
        for at in 1..=200 {
            let next = next.replace("PREVIOUS", &format!("v{}", at - 1));
            text.push_str(&format!("variable \"v{at}\" {{ default = {next} }}\n"));
        }
        text + "target \"default\" { args = { A = length(v200) } }\n"
    }

    #[test]
    fn values_that_double_end_early() {
        let text = format!("\"{}\"", "x".repeat(16));
        for (first, next) in [
            (r#"["x"]"#, "concat(PREVIOUS, PREVIOUS)"),
            (r#"["x"]"#, "[PREVIOUS, PREVIOUS]"),
            (r#"["x"]"#, "[for i in range(1000): PREVIOUS]"),
            (r#"["x"]"#, "{ for i in range(1000): i => PREVIOUS }"),
            (r#"["x"]"#, "setproduct(PREVIOUS, [1, 2, 3])"),
            (&text, "join(\"\", [PREVIOUS, PREVIOUS])"),
            (&text, "format(\"%s%s\", PREVIOUS, PREVIOUS)"),
            (&text, "formatlist(\"%s%s\", PREVIOUS, PREVIOUS)[0]"),
            (&text, "\"${PREVIOUS}${PREVIOUS}\""),
            (&text, "\"%{ for i in range(1000) }${PREVIOUS}%{ endfor }\""),
            (&text, "replace(PREVIOUS, \"x\", \"xx\")"),
            (&text, "base64encode(PREVIOUS)"),
            ("\"\\n\"", "indent(1000, \"${PREVIOUS}\\n\")"),
        ] {
            let refusal = refused(&chain(first, next));
            assert!(
                refusal.contains("the value would be larger than 16 MiB")
                    || refusal.contains("takes too much work")
                    || refusal.contains("nested more than 128 levels deep"),
                "{next}: {}",
                refusal.chars().take(500).collect::<String>()
            );
        }
    }

    #[test]
    fn depth_has_a_limit() {
        let refusal = refused(&chain("[]", "[PREVIOUS]"));
        assert!(refusal.contains("nested more than 128 levels deep"), "{refusal}");
    }

    #[test]
    fn numbers_have_a_range() {
        for (first, next) in [("1e300", "PREVIOUS * PREVIOUS"), ("2", "PREVIOUS / 1e-300")] {
            let text = chain(first, next).replace("length(v200)", "\"${v200}\"");
            let refusal = refused(&text);
            assert!(refusal.contains("larger than numbers can be"), "{next}: {refusal}");
        }
        let zero = chain("1e-4096", "PREVIOUS * PREVIOUS").replace("length(v200)", "\"${v200}\"");
        assert_eq!(refused(&zero), "accepted");
    }

    #[test]
    fn products_and_lists_are_measured_before_they_are_made() {
        for (expression, problem) in [
            ("length(setproduct(range(1000), range(1000), range(1000)))", "larger than 16 MiB"),
            ("format(\"%999999999d\", 1)", "unrecognized format character"),
            ("join(substr(BIG, 0, 1000000), range(1000))", "larger than 16 MiB"),
            ("length(split(\"\", BIG))", "larger than 16 MiB"),
            ("length(split(\"x\", BIG))", "larger than 16 MiB"),
            ("length(regexall(\"x\", BIG))", "larger than 16 MiB"),
            ("length(jsondecode(\"[${join(\",\", [for c in range(1000): \"${LIST}\"])}]\"))", "larger"),
            ("length(csvdecode(\"${BIG}\\n${replace(LIST, \",\", \"\\n\")}\"))", "larger than 16 MiB"),
            ("regex_replace(BIG, \"^.*$\", substr(replace(LIST, \"1,\", \"$0\"), 0, 2000))", "larger"),
            (
                "length(regex(join(\"\", [for i in range(20): \"(\"], [\".*\"], [for i in range(20): \")\"]), BIG))",
                "larger",
            ),
        ] {
            // A million letters, and a thousand numbers with commas.
            let text = format!(
                "variable \"K\" {{ default = join(\"\", [for i in range(1000): \"x\"]) }}
                variable \"BIG\" {{ default = join(\"\", [for i in range(1000): K]) }}
                variable \"LIST\" {{ default = join(\",\", [for i in range(1000): 1]) }}
                target \"default\" {{ args = {{ A = {expression} }} }}"
            );
            let refusal = refused(&text);
            assert!(refusal.contains(problem), "{expression}: {refusal}");
        }
    }

    #[test]
    fn a_matrix_is_measured_before_it_is_made() {
        let text = "variable \"BIG\" { default = join(\"\", [for i in range(1000): \"0123456789\"]) }
            target \"default\" {
                name = \"t${a}-${b}\"
                matrix = { a = range(90), b = range(90), c = [BIG] }
            }";
        let refusal = refused(text);
        assert!(refusal.contains("larger than 16 MiB"), "{refusal}");
    }
}
