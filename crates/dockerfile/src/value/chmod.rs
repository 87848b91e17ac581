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
        changes.push(Change { who, operator, what: parse_what(permissions, operator)? });
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
    // The sticky bit belongs to nobody in particular; nobody named means everybody.
    Some(if bits == 0 || bits & 0o770 != 0 { if bits == 0 { ALL } else { bits | 0o1000 } } else { bits })
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
