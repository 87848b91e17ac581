// SPDX-License-Identifier: Apache-2.0
//! Owners: `user[:group]`, as `--chown` and USER take them.

use super::ValueError;

/// A user or group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// By number.
    Id(u32),
    /// By name, to be looked up in the image's `/etc/passwd` or `/etc/group`.
    Name(String),
}

/// A user and, where given, a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The user.
    pub user: Identity,
    /// The group; none means, for COPY and ADD, the user's number as group number if the user is a number,
    /// and the user's primary group otherwise.
    pub group: Option<Identity>,
}

/// Reads `user[:group]`.
///
/// # Errors
/// No user, or more than one colon.
pub fn parse(text: &str) -> Result<Owner, ValueError> {
    let error = || ValueError::Owner { text: text.to_owned() };
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    if user.is_empty() || group.is_some_and(|group| group.contains(':')) {
        return Err(error());
    }
    let group = group.filter(|group| !group.is_empty()).map(identity);
    Ok(Owner { user: identity(user), group })
}

fn identity(text: &str) -> Identity {
    match text.parse() {
        Ok(id) => Identity::Id(id),
        Err(_) => Identity::Name(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let name = |text: &str| Identity::Name(text.to_owned());
        assert_eq!(parse("root"), Ok(Owner { user: name("root"), group: None }));
        assert_eq!(parse("10:www"), Ok(Owner { user: Identity::Id(10), group: Some(name("www")) }));
        assert_eq!(parse("a:20"), Ok(Owner { user: name("a"), group: Some(Identity::Id(20)) }));
        assert_eq!(parse("a:"), Ok(Owner { user: name("a"), group: None }));
        assert_eq!(parse("4294967296"), Ok(Owner { user: name("4294967296"), group: None }));
        for text in ["", ":", ":a", "a:b:c"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
