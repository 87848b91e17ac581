// SPDX-License-Identifier: Apache-2.0
//! Users and groups by name, looked up in a tree's own /etc/passwd and /etc/group.

/// A user of a container, as numbers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct User {
    /// The user.
    pub uid: u32,
    /// The primary group.
    pub gid: u32,
    /// The supplementary groups.
    pub groups: Vec<u32>,
    /// The home directory, when the tree knows it.
    pub home: Option<String>,
}

/// Says why a text names no user.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UserError {
    /// The tree has no such user.
    #[error("user {name:?} is not in the image's /etc/passwd")]
    NoUser {
        /// The name.
        name: String,
    },
    /// The tree has no such group.
    #[error("group {name:?} is not in the image's /etc/group")]
    NoGroup {
        /// The name.
        name: String,
    },
}

/// Resolves `user[:group]`, each a name or a number; empty text is root.
///
/// A user without a group gets the primary group of /etc/passwd and, from /etc/group, the
/// supplementary ones; a number that is not in /etc/passwd gets group 0, as in Docker.
///
/// # Errors
/// When a name is not there. Numbers need not be.
pub fn resolve_user(text: &str, passwd: &str, group: &str) -> Result<User, UserError> {
    let (user_text, group_text) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (text, None),
    };
    let mut user = User::default();
    let mut user_name = None;
    if user_text.is_empty() {
        user.home = passwd_entries(passwd).find(|entry| entry.uid == 0).map(|entry| entry.home.to_owned());
        user_name = Some("root");
    } else {
        let number = user_text.parse::<u32>().ok();
        let found = passwd_entries(passwd).find(|entry| entry.name == user_text || number == Some(entry.uid));
        match (found, number) {
            (Some(entry), _) => {
                user.uid = entry.uid;
                user.gid = entry.gid;
                user.home = Some(entry.home.to_owned());
                user_name = Some(entry.name);
            }
            (None, Some(uid)) => user.uid = uid,
            (None, None) => return Err(UserError::NoUser { name: user_text.to_owned() }),
        }
    }
    match group_text {
        Some(group_text) => user.gid = resolve_group(group_text, group)?,
        None => {
            user.groups = group_entries(group)
                .filter(|entry| {
                    user_name.is_some_and(|name| entry.members.split(',').any(|member| member == name))
                })
                .map(|entry| entry.gid)
                .collect();
        }
    }
    Ok(user)
}

/// Resolves `--chown=user[:group]` to numbers; without a group the user's number stands for both, as
/// in Docker.
///
/// # Errors
/// When a name is not there. Numbers need not be.
pub fn resolve_owner(text: &str, passwd: &str, group: &str) -> Result<(u32, u32), UserError> {
    let (user_text, group_text) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let mut owner = (0, 0);
    if let Ok(uid) = user_text.parse::<u32>() {
        owner = (uid, uid);
    } else if !user_text.is_empty() {
        let entry = passwd_entries(passwd)
            .find(|entry| entry.name == user_text)
            .ok_or_else(|| UserError::NoUser { name: user_text.to_owned() })?;
        owner = (entry.uid, entry.gid);
    }
    if let Some(group_text) = group_text {
        owner.1 = resolve_group(group_text, group)?;
    }
    Ok(owner)
}

fn resolve_group(text: &str, group: &str) -> Result<u32, UserError> {
    if let Ok(gid) = text.parse() {
        return Ok(gid);
    }
    group_entries(group)
        .find(|entry| entry.name == text)
        .map(|entry| entry.gid)
        .ok_or_else(|| UserError::NoGroup { name: text.to_owned() })
}

struct PasswdEntry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

/// Reads `name:password:uid:gid:comment:home:shell`; malformed lines are left out.
fn passwd_entries(text: &str) -> impl Iterator<Item = PasswdEntry<'_>> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        let home = fields.nth(1).unwrap_or("/");
        Some(PasswdEntry { name, uid, gid, home })
    })
}

struct GroupEntry<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

/// Reads `name:password:gid:members`; malformed lines are left out.
fn group_entries(text: &str) -> impl Iterator<Item = GroupEntry<'_>> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let gid = fields.nth(1)?.parse().ok()?;
        Some(GroupEntry { name, gid, members: fields.next().unwrap_or("") })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nbroken\nwww:x:33:34::/var/www:/bin/false\n";
    const GROUP: &str = "root:x:0:\nwww:x:34:\nssl:x:99:www,other\n";

    #[test]
    fn names_and_numbers_are_users() {
        let user = |text| resolve_user(text, PASSWD, GROUP).unwrap();
        assert_eq!((user("").uid, user("").home.as_deref()), (0, Some("/root")));
        let www = user("www");
        assert_eq!((www.uid, www.gid, www.groups.as_slice()), (33, 34, &[99][..]));
        assert_eq!((user("33").uid, user("33").gid), (33, 34));
        assert_eq!((user("1000").uid, user("1000").gid), (1000, 0));
        assert_eq!((user("www:ssl").gid, user("www:ssl").groups.len()), (99, 0));
        assert_eq!((user("7:8").uid, user("7:8").gid), (7, 8));
    }

    #[test]
    fn owners_follow_dockers_rule_for_a_missing_group() {
        let owner = |text| resolve_owner(text, PASSWD, GROUP).unwrap();
        assert_eq!(owner("55:ssl"), (55, 99));
        assert_eq!(owner("www"), (33, 34));
        assert_eq!(owner("1000"), (1000, 1000));
        assert_eq!(owner("1:2"), (1, 2));
        assert_eq!(owner(":34"), (0, 34));
    }

    #[test]
    fn unknown_names_are_named() {
        assert_eq!(
            resolve_user("nobody", PASSWD, GROUP),
            Err(UserError::NoUser { name: "nobody".to_owned() })
        );
        assert_eq!(resolve_owner("www:x", PASSWD, GROUP), Err(UserError::NoGroup { name: "x".to_owned() }));
    }
}
