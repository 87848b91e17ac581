// SPDX-License-Identifier: Apache-2.0
//! RUN and HEALTHCHECK, from syntax tree to type.

use super::{Request, command};
use crate::ast::Arguments;
use crate::flags::{FlagKind, Flags};
use crate::instruction::command::{Command, Healthcheck};
use crate::instruction::mount::Mount;
use crate::instruction::run::{Device, Network, Run, Security};
use crate::value::{ValueError, duration, go_bool};
use crate::{ParseError, ParseErrorKind, csv};

const RUN_FLAGS: &[(&str, FlagKind)] = &[
    ("mount", FlagKind::Texts),
    ("network", FlagKind::Text),
    ("security", FlagKind::Text),
    ("device", FlagKind::Texts),
];

const HEALTHCHECK_FLAGS: &[(&str, FlagKind)] = &[
    ("interval", FlagKind::Text),
    ("timeout", FlagKind::Text),
    ("start-period", FlagKind::Text),
    ("start-interval", FlagKind::Text),
    ("retries", FlagKind::Text),
];

impl Request<'_> {
    pub(super) fn run(&self) -> Result<Run, ParseError> {
        let flags = self.flags(RUN_FLAGS)?;
        let command = command(&self.node.arguments);
        if matches!(&command, Command::Exec(arguments) if arguments.is_empty())
            || matches!(&command, Command::Shell(text) if text.is_empty())
        {
            return Err(self.missing("a command"));
        }
        let value = |flag: &str, value: String, expected| {
            self.error(ParseErrorKind::FlagValue { flag: flag.to_owned(), value, expected })
        };
        let network = match flags.texts("network").pop() {
            None => Network::Default,
            Some(mode) => match mode.as_str() {
                "default" => Network::Default,
                "none" => Network::None,
                "host" => Network::Host,
                _ => return Err(value("network", mode, "default, none or host")),
            },
        };
        let security = match flags.texts("security").pop() {
            None => Security::Sandbox,
            Some(mode) => match mode.as_str() {
                "sandbox" => Security::Sandbox,
                "insecure" => Security::Insecure,
                _ => return Err(value("security", mode, "sandbox or insecure")),
            },
        };
        let mut mounts = Vec::new();
        for text in flags.texts("mount") {
            mounts.push(self.mount(&text)?);
        }
        let mut devices = Vec::new();
        for text in flags.texts("device") {
            let device = device(&text).ok_or_else(|| value("device", text, "name[,required]"))?;
            devices.push(device);
        }
        Ok(Run { command, heredocs: self.node.heredocs.clone(), mounts, network, security, devices })
    }

    fn mount(&self, text: &str) -> Result<Mount, ParseError> {
        let mount = Mount::parse(text).map_err(|error| self.error(ParseErrorKind::Mount(error)))?;
        // A `$` at the very end is no variable.
        let has_variable = |from: &str| from.find('$').is_some_and(|at| at + 1 < from.len());
        if mount.fields.iter().any(|(key, value)| key == "from" && value.as_deref().is_some_and(has_variable))
        {
            return Err(self.not_expanded(ParseErrorKind::VariableNotExpanded { place: "'from'" }));
        }
        Ok(mount)
    }

    pub(super) fn healthcheck(&self) -> Result<Healthcheck, ParseError> {
        let flags = self.flags(HEALTHCHECK_FLAGS)?;
        let Arguments::Typed(kind, rest) = &self.node.arguments else {
            return Err(self.missing("at least one argument: NONE or CMD command"));
        };
        match kind.to_ascii_uppercase().as_str() {
            "NONE" if matches!(**rest, Arguments::None) => Ok(Healthcheck::None),
            "NONE" => Err(self.missing("no arguments after NONE")),
            "CMD" => {
                let command = command(rest);
                if matches!(&command, Command::Exec(arguments) if arguments.is_empty())
                    || matches!(**rest, Arguments::None)
                {
                    return Err(self.missing("a command after CMD"));
                }
                Ok(Healthcheck::Command {
                    command,
                    interval_nanoseconds: self.interval(&flags, "interval")?,
                    timeout_nanoseconds: self.interval(&flags, "timeout")?,
                    start_period_nanoseconds: self.interval(&flags, "start-period")?,
                    start_interval_nanoseconds: self.interval(&flags, "start-interval")?,
                    retries: self.retries(&flags)?,
                })
            }
            _ => Err(self.error(ParseErrorKind::HealthcheckType { kind: kind.clone() })),
        }
    }

    /// Reads a duration; 0 and none mean inherited, anything else is at least a millisecond.
    fn interval(&self, flags: &Flags, name: &'static str) -> Result<i64, ParseError> {
        let Some(text) = flags.text(name) else { return Ok(0) };
        let nanoseconds = duration::parse(&text).map_err(|error| self.error(ParseErrorKind::Value(error)))?;
        if nanoseconds != 0 && nanoseconds < 1_000_000 {
            return Err(self.error(ParseErrorKind::Value(ValueError::ShortInterval { name, text })));
        }
        Ok(nanoseconds)
    }

    fn retries(&self, flags: &Flags) -> Result<u32, ParseError> {
        let Some(text) = flags.text("retries") else { return Ok(0) };
        match text.parse::<i32>().ok().and_then(|number| u32::try_from(number).ok()) {
            Some(number) => Ok(number),
            None => Err(self.error(ParseErrorKind::Value(ValueError::Number { text }))),
        }
    }
}

/// Reads `name[,required[=bool]]` or `name=…,required`.
fn device(text: &str) -> Option<Device> {
    let mut device = Device { name: String::new(), required: false };
    for field in csv::fields(text).ok()? {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key.to_lowercase(), Some(value)),
            None => (field.to_lowercase(), None),
        };
        match (key.as_str(), value) {
            ("required", None) => device.required = true,
            ("required", Some(value)) => device.required = go_bool(value)?,
            ("name", Some(name)) if device.name.is_empty() => device.name = name.to_owned(),
            // A device's own name may hold a `=`: vendor/class=name.
            _ if device.name.is_empty() => device.name = field,
            _ => return None,
        }
    }
    Some(device)
}
