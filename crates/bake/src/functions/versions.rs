// SPDX-License-Identifier: Apache-2.0
//! `semvercmp`: whether a version satisfies a constraint like `>= 1.2, < 2 || ~3.1`.

use std::cmp::Ordering;

use super::super::value::Value;
use super::{Function, Kind, function, parameter, text};

pub const FUNCTIONS: &[Function] = &[function(
    "semvercmp",
    &[parameter("version", Kind::Text), parameter("contraint", Kind::Text)],
    |args, _| {
        let version = Version::parse(text(args, 0)).ok_or_else(|| "invalid semantic version".to_owned())?;
        let alternatives = text(args, 1)
            .split("||")
            .map(|part| constraints(part).ok_or_else(|| format!("improper constraint: {}", text(args, 1))))
            .collect::<Result<Vec<_>, _>>()?;
        let is_met = alternatives.iter().any(|all| all.iter().all(|constraint| constraint.is_met(&version)));
        Ok(Value::Bool(is_met))
    },
)];

#[derive(Debug, Clone, PartialEq, Eq)]
struct Version {
    numbers: [u64; 3],
    prerelease: Vec<String>,
    /// How many numbers were written.
    given: usize,
}

impl Version {
    fn parse(text: &str) -> Option<Version> {
        let text = text.strip_prefix(['v', 'V']).unwrap_or(text);
        let text = text.split('+').next()?;
        let (core, prerelease) = match text.split_once('-') {
            Some((core, prerelease)) => (core, prerelease.split('.').map(str::to_owned).collect()),
            None => (text, Vec::new()),
        };
        let parts: Vec<&str> = core.split('.').collect();
        if parts.len() > 3 {
            return None;
        }
        let mut version = Version { numbers: [0; 3], prerelease, given: 0 };
        for (at, part) in parts.iter().enumerate() {
            if matches!(*part, "x" | "X" | "*") {
                return Some(version);
            }
            version.numbers[at] = part.parse().ok()?;
            version.given = at + 1;
        }
        Some(version)
    }

    fn compare(&self, other: &Version) -> Ordering {
        self.numbers.cmp(&other.numbers).then_with(|| {
            match (self.prerelease.is_empty(), other.prerelease.is_empty()) {
                (true, true) => Ordering::Equal,
                (true, false) => Ordering::Greater,
                (false, true) => Ordering::Less,
                (false, false) => compare_prereleases(&self.prerelease, &other.prerelease),
            }
        })
    }

    /// The first version behind all that begin like this one up to its `place`-th number.
    fn next(&self, place: usize) -> Version {
        let mut numbers = [0; 3];
        numbers[..=place].copy_from_slice(&self.numbers[..=place]);
        numbers[place] = numbers[place].saturating_add(1);
        Version { numbers, prerelease: Vec::new(), given: 3 }
    }
}

fn compare_prereleases(a: &[String], b: &[String]) -> Ordering {
    for (a, b) in a.iter().zip(b) {
        let order = match (a.parse::<u64>(), b.parse::<u64>()) {
            (Ok(a), Ok(b)) => a.cmp(&b),
            (Ok(_), Err(_)) => Ordering::Less,
            (Err(_), Ok(_)) => Ordering::Greater,
            (Err(_), Err(_)) => a.cmp(b),
        };
        if order.is_ne() {
            return order;
        }
    }
    a.len().cmp(&b.len())
}

#[derive(Debug)]
struct Constraint {
    operator: String,
    version: Version,
}

/// Reads constraints that all must be met, with commas or spaces between them; `a - b` is a range.
fn constraints(text: &str) -> Option<Vec<Constraint>> {
    let text = match text.split_once(" - ") {
        Some((from, to)) => format!(">={} <={}", from.trim(), to.trim()),
        None => text.to_owned(),
    };
    let is_operator = |c: char| "<>=!~^".contains(c);
    let mut all = Vec::new();
    let mut operator = String::new();
    for word in text.split([',', ' ']).filter(|word| !word.is_empty()) {
        let rest = word.trim_start_matches(is_operator);
        operator.push_str(&word[..word.len() - rest.len()]);
        if rest.is_empty() {
            continue;
        }
        let version = Version::parse(rest)?;
        let operator = std::mem::take(&mut operator);
        if !["", "=", "!=", "<", "<=", "=<", ">", ">=", "=>", "~", "~>", "^"].contains(&operator.as_str()) {
            return None;
        }
        all.push(Constraint { operator, version });
    }
    (operator.is_empty() && !all.is_empty()).then_some(all)
}

impl Constraint {
    fn is_met(&self, version: &Version) -> bool {
        // A pre-release only counts where one is named.
        if !version.prerelease.is_empty() && self.version.prerelease.is_empty() {
            return false;
        }
        let order = version.compare(&self.version);
        let given = self.version.given;
        let begins = version.numbers[..given] == self.version.numbers[..given];
        let below = |limit: Version| version.compare(&limit).is_lt();
        match self.operator.as_str() {
            "" | "=" if given < 3 => begins,
            "" | "=" => order.is_eq(),
            "!=" if given < 3 => !begins,
            "!=" => order.is_ne(),
            "<" => order.is_lt(),
            "<=" | "=<" => order.is_le() || given < 3 && begins,
            ">" => order.is_gt() && !(given < 3 && begins),
            ">=" | "=>" => order.is_ge(),
            "~" | "~>" => match given {
                0 => true,
                1 => order.is_ge() && below(self.version.next(0)),
                _ => order.is_ge() && below(self.version.next(1)),
            },
            // The first number that is not zero may not change.
            _ => {
                let place = match self.version.numbers {
                    [0, 0, _] if given == 3 => 2,
                    [0, _, _] if given >= 2 => 1,
                    _ => 0,
                };
                given == 0 || order.is_ge() && below(self.version.next(place))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constraints_are_met() {
        let met = |version: &str, constraint: &str| {
            let version = Version::parse(version).expect("a version");
            constraint
                .split("||")
                .any(|part| constraints(part).expect("constraints").iter().all(|one| one.is_met(&version)))
        };
        for (version, constraint) in [
            ("1.2.3", ">= 1.2, < 2"),
            ("v1.2.3", "^1.0"),
            ("1.2.9", "~1.2.3"),
            ("0.2.5", "^0.2.3"),
            ("2.0.0", "1.x || 2.x"),
            ("1.5.0", "1.2 - 1.6"),
            ("1.0.0-rc.2", ">=1.0.0-rc.1"),
        ] {
            assert!(met(version, constraint), "{version} {constraint}");
        }
        for (version, constraint) in [
            ("2.0.0", "^1.0"),
            ("1.3.0", "~1.2.3"),
            ("0.3.0", "^0.2.3"),
            ("1.0.0-rc.1", ">=0.9"),
            ("1.2.3", "> 1.2"),
        ] {
            assert!(!met(version, constraint), "{version} {constraint}");
        }
        assert!(constraints(">=").is_none() && constraints("abc").is_none());
    }
}
