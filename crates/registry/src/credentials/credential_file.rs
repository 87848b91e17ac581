// SPDX-License-Identifier: Apache-2.0
//! A credentials file that a login changes: one entry of it, and nothing else.
//!
//! What stands in the file besides is kept as it is written: other programs keep their settings there. The
//! layout of what is new is docker's, with tabs.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::{RawValue, to_raw_value};

use super::{ConfigFile, Credential, CredentialsError, key_of_host, name_of_key, problem_of};
use crate::config::canonical_host;

/// The fields of an entry that say who somebody is.
const ENTRY_FIELDS: [&str; 6] =
    ["auth", "username", "password", "identitytoken", "registrytoken", "serveraddress"];

/// The content of a credentials file, to be changed.
pub struct CredentialFile {
    origin: String,
    fields: Fields,
    known: ConfigFile,
    ends_with_newline: bool,
}

impl CredentialFile {
    /// Parses a file; an empty text is a new one. `origin` is its name for messages.
    ///
    /// # Errors
    /// When it is not JSON of the known form; the message has line and column.
    pub fn parse(origin: &str, text: &str) -> Result<CredentialFile, CredentialsError> {
        let source = if text.trim().is_empty() { "{}" } else { text };
        let broken = |error: serde_json::Error| CredentialsError::Json {
            origin: origin.to_owned(),
            problem: problem_of(&error),
        };
        let fields = serde_json::from_str(source).map_err(broken)?;
        let known = serde_json::from_str(source).map_err(broken)?;
        let ends_with_newline = text.ends_with('\n');
        Ok(CredentialFile { origin: origin.to_owned(), fields, known, ends_with_newline })
    }

    /// Returns the name of the helper that keeps a host's credentials, when it is not the file itself.
    pub fn helper_of(&self, host: &str) -> Option<&str> {
        let default = Some(self.known.creds_store.as_str()).filter(|name| !name.is_empty());
        self.known.helper_of(canonical_host(host)).filter(|name| !name.is_empty()).or(default)
    }

    /// Tells whether the file has an entry of the host.
    pub fn has(&self, host: &str) -> bool {
        self.known.auths.keys().any(|key| name_of_key(key) == canonical_host(host))
    }

    /// Puts a host's credential into the file, in the place of all that it had; without one, the empty entry
    /// by which docker remembers that a helper has it.
    ///
    /// # Errors
    /// When the file has entries that are no objects.
    pub fn set(
        &mut self,
        host: &str,
        user: &str,
        credential: Option<&Credential>,
    ) -> Result<(), CredentialsError> {
        let mut auths = self.auths()?;
        let (mut place, mut kept) = (auths.0.len(), Vec::new());
        for (at, (key, entry)) in auths.0.iter().enumerate().rev() {
            if name_of_key(key) == canonical_host(host) {
                place = at;
                // An unknown field, as the address that docker asked for once, is its owner's.
                kept = serde_json::from_str::<Fields>(entry.get()).map(|fields| fields.0).unwrap_or_default();
            }
        }
        kept.retain(|(name, _)| !ENTRY_FIELDS.contains(&name.as_str()));
        let mut fields = Vec::new();
        match credential {
            Some(Credential::UserPassword { password, .. }) => {
                fields.push(text_field("auth", &STANDARD.encode(format!("{user}:{password}"))));
            }
            Some(Credential::IdentityToken { token }) => {
                fields.push(text_field("auth", &STANDARD.encode(format!("{user}:"))));
                fields.push(text_field("identitytoken", token));
            }
            Some(Credential::RegistryToken { token }) => fields.push(text_field("registrytoken", token)),
            None => {}
        }
        fields.extend(kept);
        let entry = raw(Fields(fields).text("\t\t"));
        auths.0.insert(place, (key_of_host(host).to_owned(), entry));
        let mut at = 0;
        auths.0.retain(|(key, _)| {
            at += 1;
            at == place + 1 || name_of_key(key) != canonical_host(host)
        });
        self.put_auths(auths);
        Ok(())
    }

    /// Takes a host's entries out of the file; tells whether there were any.
    ///
    /// # Errors
    /// When the file's entries are no object.
    pub fn remove(&mut self, host: &str) -> Result<bool, CredentialsError> {
        let mut auths = self.auths()?;
        let before = auths.0.len();
        auths.0.retain(|(key, _)| name_of_key(key) != canonical_host(host));
        let has_changed = auths.0.len() != before;
        if has_changed {
            self.put_auths(auths);
        }
        Ok(has_changed)
    }

    /// Returns the file's text.
    pub fn text(&self) -> String {
        let mut text = self.fields.text("");
        if self.ends_with_newline {
            text.push('\n');
        }
        text
    }

    fn auths(&self) -> Result<Fields, CredentialsError> {
        match self.fields.0.iter().find(|(name, _)| name == "auths") {
            Some((_, value)) if value.get() != "null" => serde_json::from_str(value.get()).map_err(|error| {
                CredentialsError::Json { origin: self.origin.clone(), problem: problem_of(&error) }
            }),
            _ => Ok(Fields(Vec::new())),
        }
    }

    fn put_auths(&mut self, auths: Fields) {
        let value = raw(auths.text("\t"));
        match self.fields.0.iter_mut().find(|(name, _)| name == "auths") {
            Some(field) => field.1 = value,
            None => self.fields.0.insert(0, ("auths".to_owned(), value)),
        }
        // What was parsed came back out as JSON of the same form; the keys are all that is asked for later.
        self.known = serde_json::from_str(&self.fields.text("")).unwrap_or_default();
    }
}

/// A JSON object whose fields keep their order, and their values their bytes.
struct Fields(Vec<(String, Box<RawValue>)>);

impl Fields {
    /// Writes the object, its fields one tab deeper than `indent`.
    fn text(&self, indent: &str) -> String {
        if self.0.is_empty() {
            return "{}".to_owned();
        }
        let fields: Vec<String> = self
            .0
            .iter()
            .map(|(name, value)| format!("{indent}\t{}: {}", quoted(name), value.get()))
            .collect();
        format!("{{\n{}\n{indent}}}", fields.join(",\n"))
    }
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Fields, D::Error> {
        struct FieldsVisitor;
        impl<'de> Visitor<'de> for FieldsVisitor {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(FieldsVisitor)
    }
}

fn text_field(name: &str, value: &str) -> (String, Box<RawValue>) {
    (name.to_owned(), raw(quoted(value)))
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn raw(text: String) -> Box<RawValue> {
    // Only texts made here come in, and they are JSON; were one not, a string of it would still be.
    RawValue::from_string(text.clone())
        .or_else(|_| to_raw_value(&text))
        .unwrap_or_else(|_| RawValue::NULL.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ann() -> Credential {
        Credential::UserPassword { user: "ann".into(), password: "secret".into() }
    }

    #[test]
    fn a_new_file_looks_like_dockers() {
        let mut file = CredentialFile::parse("config.json", "").unwrap();
        file.set("docker.io", "ann", Some(&ann())).unwrap();
        assert_eq!(
            file.text(),
            "{\n\t\"auths\": {\n\t\t\"https://index.docker.io/v1/\": {\n\t\t\t\"auth\": \"YW5uOnNlY3JldA==\"\n\t\t}\n\t}\n}"
        );
        assert!(file.has("docker.io") && file.remove("index.docker.io").unwrap());
        assert_eq!(file.text(), "{\n\t\"auths\": {}\n}");
        assert!(!file.remove("docker.io").unwrap());
    }

    #[test]
    fn everything_else_keeps_its_place_and_its_bytes() {
        let text = "{\n    \"HttpHeaders\": {\"X-Meta\":   1.50},\n    \"auths\": {\n        \"z.example\": { \"auth\": \"eDp5\" },\n        \
            \"http://r.example/v1/\": {\"email\": \"a@b\", \"auth\": \"b2xkOm9sZA==\"},\n        \"r.example\": {},\n        \
            \"r.example/team\": {\"auth\": \"eDp5\"}\n    },\n    \"zeta\": 12345678901234567890123,\n    \"alpha\": null\n}\n";
        let mut file = CredentialFile::parse("config.json", text).unwrap();
        file.set("r.example", "ann", Some(&Credential::IdentityToken { token: "t".into() })).unwrap();
        assert_eq!(
            file.text(),
            "{\n\t\"HttpHeaders\": {\"X-Meta\":   1.50},\n\t\"auths\": {\n\t\t\"z.example\": { \"auth\": \"eDp5\" },\n\t\t\
             \"r.example\": {\n\t\t\t\"auth\": \"YW5uOg==\",\n\t\t\t\"identitytoken\": \"t\",\n\t\t\t\"email\": \"a@b\"\n\t\t},\n\t\t\
             \"r.example/team\": {\"auth\": \"eDp5\"}\n\t},\n\t\"zeta\": 12345678901234567890123,\n\t\"alpha\": null\n}\n"
        );
        let again = CredentialFile::parse("config.json", &file.text()).unwrap();
        assert_eq!(again.text(), file.text());
    }

    #[test]
    fn the_helper_of_a_host_comes_before_the_default_one() {
        let text = r#"{"credsStore":"keys","credHelpers":{"https://r.example":"cloud"},"auths":null}"#;
        let mut file = CredentialFile::parse("config.json", text).unwrap();
        assert_eq!((file.helper_of("r.example"), file.helper_of("docker.io")), (Some("cloud"), Some("keys")));
        file.set("r.example", "ann", None).unwrap();
        assert!(file.text().contains("\"auths\": {\n\t\t\"r.example\": {}\n\t}"), "{}", file.text());
    }

    #[test]
    fn a_broken_file_is_refused_with_line_and_column() {
        for text in ["{\n \"auths\": {\n", "{\n \"auths\": 5}", "[\n\n]", "{\"auths\":\n {\"r\": \"x\"}}"] {
            let error = CredentialFile::parse("config.json", text).err().unwrap().to_string();
            assert!(error.contains("config.json") && error.contains("line"), "{text}: {error}");
        }
    }
}
