// SPDX-License-Identifier: Apache-2.0
//! File modes of `--chmod`: octal, or symbolic as `chmod(1)` has it.

use super::ValueError;

const EXECUTE: u32 = 0o111;
const ALL: u32 = 0o7777;

/// A mode, or a change of modes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Chmod {
    /// This mode for every file and directory; `mode: 0..=07777`, octal file mode.
    Absolute {
        /// The mode.
        mode: u32,
    },
    /// These changes, one after the other.
    Symbolic {
        /// The changes.
        changes: Vec<Change>,
    },
}

/// One change: `u+x`, `go=`, `a=rX`, `g=u`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The bits that may change.
    who: u32,
    operator: Operator,
    what: What,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Add,
    Remove,
    Set,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    /// These bits, and with `execute_if_any` the execute bits of directories and of files that have one.
    Bits { bits: u32, execute_if_any: bool },
    /// The bits of the user (6), the group (3) or others (0), told by where they stand.
    CopyOf { shift: u32 },
}

impl Chmod {
    /// Reads a mode.
    ///
    /// # Errors
    /// Neither octal up to 7777 nor symbolic.
    pub fn parse(text: &str) -> Result<Chmod, ValueError> {
        let error = || ValueError::Chmod { text: text.to_owned() };
        if text.starts_with(|character: char| character.is_ascii_digit()) {
            let mode = u32::from_str_radix(text, 8).ok().filter(|&mode| mode <= ALL).ok_or_else(error)?;
            return Ok(Chmod::Absolute { mode });
        }
        let mut changes = Vec::new();
        for clause in text.split(',') {
            parse_clause(clause, &mut changes).ok_or_else(error)?;
        }
        Ok(Chmod::Symbolic { changes })
    }

    /// Returns the mode (permissions and the three special bits) that a file of this mode gets.
    pub fn apply(&self, mode: u32, is_directory: bool) -> u32 {
        match self {
            Chmod::Absolute { mode } => *mode,
            Chmod::Symbolic { changes } => {
                let has_execute = is_directory || mode & EXECUTE != 0;
                changes.iter().fold(mode & ALL, |mode, change| change.apply(mode, has_execute))
            }
        }
    }
}

impl Change {
    fn apply(&self, mode: u32, has_execute: bool) -> u32 {
        let bits = match self.what {
            What::Bits { bits, execute_if_any } => {
                bits | if execute_if_any && has_execute { EXECUTE } else { 0 }
            }
            What::CopyOf { shift } => ((mode >> shift) & 0o7) * 0o111,
        } & self.who;
        match self.operator {
            Operator::Add => mode | bits,
            Operator::Remove => mode & !bits,
            Operator::Set => mode & !self.who | bits,
        }
    }
}

/// Reads `[ugoa…]` and then one or more of `+-=` each with its permissions.
fn parse_clause(clause: &str, changes: &mut Vec<Change>) -> Option<()> {
    let operators = clause.find(['+', '-', '='])?;
    let (who, mut rest) = clause.split_at(operators);
    let who = parse_who(who)?;
    while let Some(character) = rest.chars().next() {
        let operator = match character {
            '+' => Operator::Add,
            '-' => Operator::Remove,
            _ => Operator::Set,
        };
        rest = &rest[1..];
        let end = rest.find(['+', '-', '=']).unwrap_or(rest.len());
        let (permissions, after) = rest.split_at(end);
        let what = parse_what(permissions, operator)?;
        changes.push(Change { who: with_sticky(who, what), operator, what });
        rest = after;
    }
    Some(())
}

fn parse_who(who: &str) -> Option<u32> {
    let mut bits = 0;
    for character in who.chars() {
        bits |= match character {
            'u' => 0o4700,
            'g' => 0o2070,
            'o' => 0o0007,
            'a' => 0o6777,
            _ => return None,
        };
    }
    Some(if bits == 0 { 0o6777 } else { bits })
}

/// The sticky bit belongs to nobody in particular: it changes only where it is named, and not for others alone.
fn with_sticky(who: u32, what: What) -> u32 {
    match what {
        What::Bits { bits, .. } if bits & 0o1000 != 0 && who & 0o770 != 0 => who | 0o1000,
        _ => who,
    }
}

fn parse_what(permissions: &str, operator: Operator) -> Option<What> {
    if let "u" | "g" | "o" = permissions {
        let shift = match permissions {
            "u" => 6,
            "g" => 3,
            _ => 0,
        };
        return Some(What::CopyOf { shift });
    }
    let (mut bits, mut execute_if_any) = (0, false);
    for character in permissions.chars() {
        match character {
            'r' => bits |= 0o444,
            'w' => bits |= 0o222,
            'x' => bits |= EXECUTE,
            // As in BSD's setmode, taking X away takes all execute bits.
            'X' if operator == Operator::Remove => bits |= EXECUTE,
            'X' => execute_if_any = true,
            's' => bits |= 0o6000,
            't' => bits |= 0o1000,
            _ => return None,
        }
    }
    Some(What::Bits { bits, execute_if_any })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes() {
        // Text, mode before, whether a directory, mode after.
        for (text, before, is_directory, after) in [
            ("644", 0o777, false, 0o644),
            ("0", 0o777, true, 0),
            ("4755", 0o644, false, 0o4755),
            ("07777", 0, false, 0o7777),
            ("u+x", 0o644, false, 0o744),
            ("+x", 0o644, false, 0o755),
            ("a+x", 0o644, false, 0o755),
            ("go-w", 0o666, false, 0o644),
            ("go=", 0o777, false, 0o700),
            ("u=rwx,go=rx", 0o000, false, 0o755),
            ("u=rwX,go=rX", 0o644, false, 0o644),
            ("u=rwX,go=rX", 0o600, true, 0o755),
            ("u=rwX,go=rX", 0o100, false, 0o755),
            ("a=rX", 0o755, false, 0o555),
            ("+X", 0o644, false, 0o644),
            ("+X", 0o744, false, 0o755),
            ("+X", 0o644, true, 0o755),
            ("g=u", 0o750, false, 0o770),
            ("g=u-w", 0o750, false, 0o750),
            ("o+g", 0o750, false, 0o755),
            ("u-g", 0o750, false, 0o250),
            ("u+s", 0o755, false, 0o4755),
            ("g+s", 0o755, false, 0o2755),
            ("o+s", 0o755, false, 0o755),
            ("+t", 0o755, true, 0o1755),
            ("u+t", 0o755, true, 0o1755),
            ("o+t", 0o755, true, 0o755),
            ("a+t", 0o755, true, 0o1755),
            ("=", 0o7777, true, 0o1000),
            ("-t", 0o1777, true, 0o777),
            ("u=rwx", 0o1077, true, 0o1777),
            ("u=rw,u+x", 0, false, 0o700),
            ("u+r-w", 0o200, false, 0o400),
            ("a-X", 0o755, false, 0o644),
        ] {
            let chmod = Chmod::parse(text).unwrap();
            assert_eq!(chmod.apply(before, is_directory), after, "{text} on {before:o}");
        }
        for text in [
            "",
            "8",
            "10000",
            "0x1",
            "+z",
            "z+r",
            "u",
            "u+r,",
            ",u+r",
            "u+r g+r",
            "77777777777777",
            "-1",
            "u+ug",
        ] {
            assert!(Chmod::parse(text).is_err(), "{text}");
        }
    }
}
