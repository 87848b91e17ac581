// SPDX-License-Identifier: Apache-2.0
//! The small values that flags and instructions carry.

pub mod chmod;
pub mod duration;
pub mod owner;
pub mod port;
pub mod signal;
pub mod size;

/// Says why a text is not the value it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// Not a file mode.
    #[error("invalid mode {text:?}, must be octal from 0 to 7777, or symbolic such as u=rwX,go=rX")]
    Chmod {
        /// The rejected text.
        text: String,
    },
    /// Not an owner.
    #[error("invalid owner {text:?}, must be user[:group], each a name or a number")]
    Owner {
        /// The rejected text.
        text: String,
    },
    /// Not a duration.
    #[error("invalid duration {text:?}, must be numbers with units, such as 30s or 1m30s")]
    Duration {
        /// The rejected text.
        text: String,
    },
    /// A duration that is too short.
    #[error("interval {name:?} cannot be less than 1ms: {text:?}")]
    ShortInterval {
        /// The flag.
        name: &'static str,
        /// The rejected text.
        text: String,
    },
    /// Not a number from 0 up.
    #[error("invalid number {text:?}, must be a whole number from 0 to 2147483647")]
    Number {
        /// The rejected text.
        text: String,
    },
    /// Not a signal.
    #[error("invalid signal {text:?}, must be a name such as SIGTERM or a number")]
    Signal {
        /// The rejected text.
        text: String,
    },
    /// Not a port or range of ports.
    #[error("invalid port {text:?}: {reason}")]
    Port {
        /// The rejected text.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Not a size.
    #[error("invalid size {text:?}, must be a number with an optional unit, such as 64m")]
    Size {
        /// The rejected text.
        text: String,
    },
}

/// Reads a truth value in the spellings that Go's `strconv.ParseBool` takes.
pub(crate) fn go_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}
