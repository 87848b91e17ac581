// SPDX-License-Identifier: Apache-2.0
//! Flags of buildx that this version doesn't have: they are refused by name, or accepted and ignored
//! where ignoring them does no harm, as buildx itself does.

use clap::{Arg, ArgAction, ArgMatches, Command};

use super::super::flag_values::go_bool;

/// What happens to a flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Refused, for this reason.
    Refused(&'static str),
    /// Ignored without a word: what it asks for is so in any case.
    Silent,
    /// Ignored with a warning, for this reason.
    Warned(&'static str),
}

struct Flag {
    name: &'static str,
    short: Option<char>,
    takes_value: bool,
    fate: Fate,
}

const fn flag(name: &'static str, takes_value: bool, fate: Fate) -> Flag {
    Flag { name, short: None, takes_value, fate }
}

const LIMITS: Fate = Fate::Warned("steps run without limits in this version");
const NO_ISOLATION: Fate = Fate::Warned("steps are isolated in one way only");
const NOT_YET: Fate = Fate::Refused("this version doesn't have it");

const FLAGS: &[Flag] = &[
    flag("policy", true, NOT_YET),
    flag("invoke", true, NOT_YET),
    flag("resource", true, LIMITS),
    Flag { name: "memory", short: Some('m'), takes_value: true, fate: LIMITS },
    flag("memory-swap", true, LIMITS),
    Flag { name: "cpu-shares", short: Some('c'), takes_value: true, fate: LIMITS },
    flag("cpu-period", true, LIMITS),
    flag("cpu-quota", true, LIMITS),
    flag("cpuset-cpus", true, LIMITS),
    flag("cpuset-mems", true, LIMITS),
    flag("isolation", true, NO_ISOLATION),
    flag("security-opt", true, NO_ISOLATION),
    flag("squash", false, Fate::Warned("layers are kept as they are")),
    flag("compress", false, Fate::Silent),
    flag("rm", false, Fate::Silent),
    flag("force-rm", false, Fate::Silent),
    flag("disable-content-trust", false, Fate::Silent),
    flag("stream", false, Fate::Silent),
];

/// The flags of the table above that were given.
#[derive(Debug, Clone, Default)]
pub struct UnavailableFlags {
    given: Vec<&'static str>,
}

impl UnavailableFlags {
    /// Refuses the first flag that can't be ignored; returns warnings about the others.
    ///
    /// # Errors
    /// One sentence that names the flag.
    pub fn check(&self) -> Result<Vec<String>, String> {
        let mut warnings = Vec::new();
        for flag in FLAGS.iter().filter(|flag| self.given.contains(&flag.name)) {
            match flag.fate {
                Fate::Refused(reason) => return Err(format!("--{} is not supported: {reason}", flag.name)),
                Fate::Warned(reason) => warnings.push(format!("--{} is ignored: {reason}", flag.name)),
                Fate::Silent => {}
            }
        }
        Ok(warnings)
    }
}

impl clap::FromArgMatches for UnavailableFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<UnavailableFlags, clap::Error> {
        let is_given = |flag: &&Flag| {
            if flag.takes_value {
                // An empty value switches a list off, as scripts with empty variables write it.
                matches.get_many::<String>(flag.name).is_some_and(|mut values| values.any(|v| !v.is_empty()))
            } else {
                matches.get_one::<bool>(flag.name) == Some(&true)
            }
        };
        let given = FLAGS.iter().filter(is_given).map(|flag| flag.name).collect();
        Ok(UnavailableFlags { given })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = <UnavailableFlags as clap::FromArgMatches>::from_arg_matches(matches)?;
        Ok(())
    }
}

impl clap::Args for UnavailableFlags {
    fn augment_args(command: Command) -> Command {
        FLAGS.iter().fold(command, |command, flag| {
            let arg = Arg::new(flag.name).long(flag.name).hide(true);
            let arg = match flag.short {
                Some(short) => arg.short(short),
                None => arg,
            };
            command.arg(if flag.takes_value {
                arg.action(ArgAction::Append).value_parser(clap::value_parser!(String))
            } else {
                arg.action(ArgAction::Set)
                    .num_args(0..=1)
                    .require_equals(true)
                    .default_missing_value("true")
                    .value_parser(go_bool)
            })
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        <UnavailableFlags as clap::Args>::augment_args(command)
    }
}
