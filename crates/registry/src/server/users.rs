// SPDX-License-Identifier: Apache-2.0
//! Users and their passwords, in the form of Apache's htpasswd (bcrypt).

use std::collections::HashMap;

/// Says what is wrong with a file of users.
#[derive(Debug, thiserror::Error)]
pub enum HtpasswdError {
    /// A line has not the form `NAME:HASH`.
    #[error("line {line} has no form NAME:HASH")]
    Form {
        /// Its number, from 1.
        line: usize,
    },
    /// A hash is not bcrypt's.
    #[error("the password of {user:?} in line {line} is not bcrypt's (make it with `htpasswd -B`)")]
    NotBcrypt {
        /// Its number, from 1.
        line: usize,
        /// The user.
        user: String,
    },
    /// There is no user at all.
    #[error("there is no user in it")]
    Empty,
}

/// The users of a registry.
#[derive(Debug, Clone, Default)]
pub struct Users {
    pub(super) hashes: HashMap<String, String>,
}

impl Users {
    /// Reads a file in the form of htpasswd; empty lines and those that begin with `#` say nothing.
    ///
    /// # Errors
    /// When a line cannot be used: a user who could never get in would be worse than an error.
    pub fn parse(text: &str) -> Result<Users, HtpasswdError> {
        let mut hashes = HashMap::new();
        for (number, line) in text.lines().enumerate().map(|(number, line)| (number + 1, line.trim())) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let form = || HtpasswdError::Form { line: number };
            let (user, hash) = line.split_once(':').filter(|(user, _)| !user.is_empty()).ok_or_else(form)?;
            let parts = hash.split('$').collect::<Vec<_>>();
            let is_bcrypt = matches!(parts[..], ["", "2a" | "2b" | "2x" | "2y", cost, rest]
                if cost.parse::<u32>().is_ok_and(|cost| (4..=20).contains(&cost)) && rest.len() == 53);
            if !is_bcrypt {
                return Err(HtpasswdError::NotBcrypt { line: number, user: user.to_owned() });
            }
            hashes.insert(user.to_owned(), hash.to_owned());
        }
        if hashes.is_empty() {
            return Err(HtpasswdError::Empty);
        }
        Ok(Users { hashes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "ann:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a";

    #[test]
    fn only_bcrypt_is_taken() {
        assert_eq!(Users::parse(&format!("# users\n\n{LINE}\n")).unwrap().hashes.len(), 1);
        let error = Users::parse(&format!("{LINE}\nbob:$apr1$x$y\n")).unwrap_err();
        assert!(matches!(&error, HtpasswdError::NotBcrypt { line: 2, user } if user == "bob"), "{error}");
        assert!(matches!(Users::parse("bob"), Err(HtpasswdError::Form { line: 1 })));
        assert!(matches!(Users::parse("#"), Err(HtpasswdError::Empty)));
    }
}
