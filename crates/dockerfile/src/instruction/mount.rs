// SPDX-License-Identifier: Apache-2.0
//! `RUN --mount`: fields as written, and what they mean once their variables are replaced.

use crate::csv::CsvError;
use crate::suggest::did_you_mean;
use crate::value::{go_bool, size};
use crate::{ExpandError, Expander, csv};

/// A `--mount` flag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// The flag's value as written.
    pub text: String,
    /// Its fields in order: the key in lower case, and the value if there is an `=`.
    pub fields: Vec<(String, Option<String>)>,
}

/// What a mount is. Targets may be relative to the working directory, or empty; that none is `/` is checked by
/// who knows the working directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountSpec {
    /// Files of the context (`from` is none), a stage or an image; writes are thrown away.
    Bind {
        /// Where the files come from.
        from: Option<String>,
        /// The path there.
        source: String,
        /// The path in the container.
        target: String,
        /// True unless asked otherwise.
        read_only: bool,
    },
    /// A directory that stays from build to build.
    Cache {
        /// Which cache: the id given, or the cleaned target.
        id: String,
        /// What an empty cache begins with; none means nothing.
        from: Option<String>,
        /// The path there.
        source: String,
        /// The path in the container.
        target: String,
        /// False unless asked otherwise.
        read_only: bool,
        /// How steps that run at once share it.
        sharing: Sharing,
        /// Mode, owner and group of a new cache directory.
        owner: MountOwner,
    },
    /// A directory in memory.
    Tmpfs {
        /// The path in the container.
        target: String,
        /// The largest size, 0 for no limit.
        size_bytes: u64,
    },
    /// A secret as a file, as an environment variable, or both.
    Secret {
        /// Which secret.
        id: String,
        /// The path of the file; none means no file.
        target: Option<String>,
        /// The name of the environment variable; none means no variable.
        env: Option<String>,
        /// True when the step fails without the secret.
        required: bool,
        /// Mode (default 0400), owner and group of the file.
        owner: MountOwner,
    },
    /// A socket of an ssh agent.
    Ssh {
        /// Which agent.
        id: String,
        /// The path of the socket; none means the builder chooses.
        target: Option<String>,
        /// True when the step fails without the agent.
        required: bool,
        /// Mode (default 0600), owner and group of the socket.
        owner: MountOwner,
    },
}

/// How steps that run at once share a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Sharing {
    /// All at once.
    #[default]
    Shared,
    /// Each a cache of its own.
    Private,
    /// One after the other.
    Locked,
}

/// Mode, owner and group, as far as given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct MountOwner {
    /// Octal file mode.
    pub mode: Option<u32>,
    /// Numeric user.
    pub uid: Option<u32>,
    /// Numeric group.
    pub gid: Option<u32>,
}

/// Says why a `--mount` is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MountError {
    /// The commas and quotes do not make fields.
    #[error("mount {text:?}: {reason}")]
    Csv {
        /// The mount.
        text: String,
        /// What is wrong with the fields.
        reason: CsvError,
    },
    /// A key that no mount has.
    #[error("unexpected key '{key}' in mount {text:?}{hint}")]
    UnknownKey {
        /// The mount.
        text: String,
        /// The key.
        key: String,
        /// ` (did you mean …?)`, or nothing.
        hint: String,
    },
    /// A type that does not exist.
    #[error(
        "unsupported mount type {value:?} in mount {text:?}, must be bind, cache, tmpfs, secret or ssh{hint}"
    )]
    Type {
        /// The mount.
        text: String,
        /// The type as written.
        value: String,
        /// ` (did you mean …?)`, or nothing.
        hint: String,
    },
    /// A key without a value.
    #[error("invalid field {field:?} of mount {text:?}, must be a key=value pair")]
    NoValue {
        /// The mount.
        text: String,
        /// The field.
        field: String,
    },
    /// A value that the key does not take.
    #[error("invalid value {value:?} for {key} of mount {text:?}, must be {expected}{hint}")]
    Value {
        /// The mount.
        text: String,
        /// The key.
        key: String,
        /// The value.
        value: String,
        /// What may stand there.
        expected: &'static str,
        /// ` (did you mean …?)`, or nothing.
        hint: String,
    },
    /// A key that this type does not take.
    #[error("{key} is not allowed for mounts of type {kind}: {text:?}")]
    NotForType {
        /// The mount.
        text: String,
        /// The key.
        key: &'static str,
        /// The type.
        kind: &'static str,
    },
    /// A key that this type needs.
    #[error("mount of type {kind} needs {key}: {text:?}")]
    Missing {
        /// The mount.
        text: String,
        /// The key or keys.
        key: &'static str,
        /// The type.
        kind: &'static str,
    },
}

impl Mount {
    /// Cuts the flag's value into fields.
    ///
    /// # Errors
    /// The commas and quotes do not make fields.
    pub fn parse(text: &str) -> Result<Mount, MountError> {
        let fields = csv::fields(text)
            .map_err(|reason| MountError::Csv { text: text.to_owned(), reason })?
            .into_iter()
            .map(|field| match field.split_once('=') {
                Some((key, value)) => (key.to_lowercase(), Some(value.to_owned())),
                None => (field.to_lowercase(), None),
            })
            .collect();
        Ok(Mount { text: text.to_owned(), fields })
    }

    /// Returns the value of `from`, which never holds variables.
    pub fn from(&self) -> Option<&str> {
        let mut values = self.fields.iter().filter(|(key, _)| key == "from");
        values.next_back()?.1.as_deref().filter(|from| !from.is_empty())
    }

    pub(super) fn expand(&self, expander: &mut Expander<'_>) -> Result<Mount, ExpandError> {
        let mut fields = Vec::with_capacity(self.fields.len());
        for (key, value) in &self.fields {
            let value = match value {
                Some(value) => Some(expander.word(value)?),
                None => None,
            };
            fields.push((key.clone(), value));
        }
        Ok(Mount { text: self.text.clone(), fields })
    }

    /// Returns what the mount is. To be called on the expanded instruction.
    ///
    /// # Errors
    /// A key or value that does not fit.
    pub fn spec(&self) -> Result<MountSpec, MountError> {
        Draft::of(self)?.finish(&self.text)
    }
}

/// The fields of a mount as they are collected, before it is known whether they fit the type.
#[derive(Debug, Default)]
struct Draft {
    kind: Kind,
    from: Option<String>,
    source: String,
    target: String,
    read_only: Option<bool>,
    size_bytes: u64,
    id: String,
    sharing: Option<Sharing>,
    required: bool,
    env: Option<String>,
    owner: MountOwner,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Kind {
    #[default]
    Bind,
    Cache,
    Tmpfs,
    Secret,
    Ssh,
}

impl Kind {
    const NAMES: &[&str] = &["bind", "cache", "tmpfs", "secret", "ssh"];

    fn parse(text: &str) -> Option<Kind> {
        Some(match text.to_lowercase().as_str() {
            "bind" => Kind::Bind,
            "cache" => Kind::Cache,
            "tmpfs" => Kind::Tmpfs,
            "secret" => Kind::Secret,
            "ssh" => Kind::Ssh,
            _ => return None,
        })
    }

    fn name(self) -> &'static str {
        match self {
            Kind::Bind => "bind",
            Kind::Cache => "cache",
            Kind::Tmpfs => "tmpfs",
            Kind::Secret => "secret",
            Kind::Ssh => "ssh",
        }
    }
}

const SHARINGS: &[&str] = &["shared", "private", "locked"];

const KEYS: &[&str] = &[
    "type",
    "from",
    "source",
    "target",
    "readonly",
    "id",
    "sharing",
    "required",
    "size",
    "mode",
    "uid",
    "gid",
    "src",
    "dst",
    "destination",
    "ro",
    "rw",
    "readwrite",
    "env",
];

impl Draft {
    fn of(mount: &Mount) -> Result<Draft, MountError> {
        let mut draft = Draft::default();
        for (key, value) in &mount.fields {
            match value {
                Some(value) => draft.set(&mount.text, key, value)?,
                None => draft.set_alone(&mount.text, key)?,
            }
        }
        Ok(draft)
    }

    /// A key without a value.
    fn set_alone(&mut self, text: &str, key: &str) -> Result<(), MountError> {
        match key {
            "readonly" | "ro" => self.read_only = Some(true),
            "readwrite" | "rw" => self.read_only = Some(false),
            "required" => self.set_required(text, true)?,
            _ => return Err(MountError::NoValue { text: text.to_owned(), field: key.to_owned() }),
        }
        Ok(())
    }

    fn set(&mut self, text: &str, key: &str, value: &str) -> Result<(), MountError> {
        let invalid = |expected: &'static str, options: &[&'static str]| MountError::Value {
            text: text.to_owned(),
            key: key.to_owned(),
            value: value.to_owned(),
            expected,
            hint: did_you_mean(value, options.iter().copied()),
        };
        let boolean = || go_bool(value).ok_or_else(|| invalid("true or false", &[]));
        let number = || value.parse().map_err(|_| invalid("a number", &[]));
        match key {
            "type" => {
                self.kind = Kind::parse(value).ok_or_else(|| MountError::Type {
                    text: text.to_owned(),
                    value: value.to_owned(),
                    hint: did_you_mean(value, Kind::NAMES.iter().copied()),
                })?;
            }
            "from" => self.from = Some(value.to_owned()).filter(|from| !from.is_empty()),
            "source" | "src" => self.source = value.to_owned(),
            "target" | "dst" | "destination" => self.target = value.to_owned(),
            "readonly" | "ro" => self.read_only = Some(boolean()?),
            "readwrite" | "rw" => self.read_only = Some(!boolean()?),
            "required" => {
                let required = boolean()?;
                self.set_required(text, required)?;
            }
            "size" if self.kind == Kind::Tmpfs => {
                self.size_bytes = size::parse(value).map_err(|_| invalid("a size such as 64m", &[]))?;
            }
            "size" => return Err(self.not_for_type(text, "size")),
            "id" => self.id = value.to_owned(),
            "sharing" => {
                self.sharing = Some(match value.to_lowercase().as_str() {
                    "shared" => Sharing::Shared,
                    "private" => Sharing::Private,
                    "locked" => Sharing::Locked,
                    _ => return Err(invalid("shared, private or locked", SHARINGS)),
                });
            }
            "mode" => {
                let mode = u32::from_str_radix(value, 8).ok().filter(|&mode| mode <= 0o7777);
                self.owner.mode = Some(mode.ok_or_else(|| invalid("an octal file mode", &[]))?);
            }
            "uid" => self.owner.uid = Some(number()?),
            "gid" => self.owner.gid = Some(number()?),
            "env" => self.env = Some(value.to_owned()),
            _ => {
                return Err(MountError::UnknownKey {
                    text: text.to_owned(),
                    key: key.to_owned(),
                    hint: did_you_mean(key, KEYS.iter().copied()),
                });
            }
        }
        Ok(())
    }

    /// As in BuildKit `type` must stand before keys that only some types take.
    fn set_required(&mut self, text: &str, required: bool) -> Result<(), MountError> {
        if !matches!(self.kind, Kind::Secret | Kind::Ssh) {
            return Err(self.not_for_type(text, "required"));
        }
        self.required = required;
        Ok(())
    }

    fn not_for_type(&self, text: &str, key: &'static str) -> MountError {
        MountError::NotForType { text: text.to_owned(), key, kind: self.kind.name() }
    }

    /// Checks that the fields fit the type.
    fn finish(self, text: &str) -> Result<MountSpec, MountError> {
        self.check(text)?;
        let read_only = self.read_only;
        Ok(match self.kind {
            Kind::Bind => MountSpec::Bind {
                from: self.from,
                source: self.source,
                target: self.target,
                read_only: read_only.unwrap_or(true),
            },
            Kind::Cache => MountSpec::Cache {
                id: if self.id.is_empty() { crate::path::clean(&self.target) } else { self.id },
                from: self.from,
                source: self.source,
                target: self.target,
                read_only: read_only.unwrap_or(false),
                sharing: self.sharing.unwrap_or_default(),
                owner: self.owner,
            },
            Kind::Tmpfs => MountSpec::Tmpfs { target: self.target, size_bytes: self.size_bytes },
            Kind::Secret => self.secret(),
            Kind::Ssh => MountSpec::Ssh {
                id: if self.id.is_empty() { "default".to_owned() } else { self.id },
                target: Some(self.target).filter(|target| !target.is_empty()),
                required: self.required,
                owner: self.owner,
            },
        })
    }

    fn check(&self, text: &str) -> Result<(), MountError> {
        let not_allowed =
            |condition: bool, key| if condition { Err(self.not_for_type(text, key)) } else { Ok(()) };
        let missing = |key| MountError::Missing { text: text.to_owned(), key, kind: self.kind.name() };
        if matches!(self.kind, Kind::Bind | Kind::Tmpfs) {
            not_allowed(self.owner.mode.is_some(), "mode")?;
            not_allowed(self.owner.uid.is_some(), "uid")?;
            not_allowed(self.owner.gid.is_some(), "gid")?;
        }
        not_allowed(self.sharing.is_some() && self.kind != Kind::Cache, "sharing")?;
        match self.kind {
            Kind::Secret => {
                not_allowed(self.from.is_some(), "from")?;
                not_allowed(!self.source.is_empty() && !self.id.is_empty(), "source together with id")?;
                if self.source.is_empty() && self.id.is_empty() && self.target.is_empty() {
                    return Err(missing("id or target"));
                }
            }
            Kind::Ssh => not_allowed(!self.source.is_empty(), "source")?,
            _ => {}
        }
        Ok(())
    }

    fn secret(self) -> MountSpec {
        let id = if self.source.is_empty() { self.id } else { self.source };
        let id = if id.is_empty() { crate::path::base(&self.target) } else { id };
        let target = match (self.target, &self.env) {
            (target, _) if !target.is_empty() => Some(target),
            (_, Some(_)) => None,
            (_, None) => Some(format!("/run/secrets/{}", crate::path::base(&id))),
        };
        MountSpec::Secret { id, target, env: self.env, required: self.required, owner: self.owner }
    }
}
