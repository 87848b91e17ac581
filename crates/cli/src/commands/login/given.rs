// SPDX-License-Identifier: Apache-2.0
//! The user and the password: what the command line gives, and what is asked for.

use std::io::Read as _;

use super::{HUB, LoginArgs};
use crate::CommandError;
use crate::session::Session;
use crate::terminal_prompt::{ask, ask_secret};
use crate::visible_text::visible_line;

/// No password is longer.
const MAX_PASSWORD_BYTES: u64 = 64 << 10;

/// What the command line gives.
pub(super) struct Given {
    pub(super) user: Option<String>,
    pub(super) password: Option<String>,
}

impl Given {
    pub(super) fn new(args: &LoginArgs, session: &Session) -> Result<Given, CommandError> {
        let from_stdin = args.password_stdin || args.password.as_deref() == Some("-");
        if from_stdin && args.password.as_deref().is_some_and(|password| password != "-") {
            return Err(CommandError::usage("--password and --password-stdin exclude each other"));
        }
        let user = args.username.as_deref().map(str::trim);
        if user == Some("") {
            return Err(CommandError::usage("the user name is empty"));
        }
        if user.is_some_and(|user| user.contains(':')) {
            return Err(CommandError::usage("a user name can't contain a colon"));
        }
        if from_stdin && user.is_none() {
            return Err(CommandError::usage("--password-stdin needs a user name as well")
                .with_hint("echo \"$TOKEN\" | polyarch login -u USER --password-stdin HOST"));
        }
        let password = if from_stdin {
            Some(read_password()?)
        } else if let Some(password) = &args.password {
            session
                .printer
                .message("WARNING! Using --password via the CLI is insecure. Use --password-stdin.\n");
            Some(password.clone())
        } else {
            None
        };
        if password.as_deref().is_some_and(|password| password.trim().is_empty()) {
            return Err(CommandError::usage("the password is empty"));
        }
        Ok(Given { user: user.map(str::to_owned), password })
    }

    /// Asks for what is missing.
    pub(super) fn complete(
        self,
        host: &str,
        default_user: Option<String>,
        session: &Session,
    ) -> Result<(String, String), CommandError> {
        if (self.user.is_none() || self.password.is_none()) && !session.environment.stdin_is_terminal {
            return Err(CommandError::usage(
                "can't ask for user and password: standard input is no terminal",
            )
            .with_hint(format!("echo \"$TOKEN\" | polyarch login -u USER --password-stdin {host}")));
        }
        if self.password.is_none() && host == HUB {
            session.printer.message(
                "An access token serves as a password: https://app.docker.com/settings makes one.\n",
            );
        }
        let user = match (self.user, default_user) {
            (Some(user), _) => user,
            (None, Some(default)) => {
                let answer =
                    ask(&format!("Username ({}): ", visible_line(default.as_bytes())))?.trim().to_owned();
                if answer.is_empty() { default } else { answer }
            }
            (None, None) => ask("Username: ")?.trim().to_owned(),
        };
        if user.is_empty() || user.contains(':') {
            return Err(CommandError::usage("a user name is needed, and can't contain a colon"));
        }
        let password = match self.password {
            Some(password) => password,
            None => ask_secret("Password: ")?,
        };
        if password.is_empty() {
            return Err(CommandError::usage("a password is needed"));
        }
        Ok((user, password))
    }
}

/// Reads a password to the end of the input, without the end of its line.
fn read_password() -> Result<String, CommandError> {
    let mut text = String::new();
    std::io::stdin()
        .lock()
        .take(MAX_PASSWORD_BYTES)
        .read_to_string(&mut text)
        .map_err(|error| CommandError::io("can't read the password from", "standard input", &error))?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    Ok(line.strip_suffix('\r').unwrap_or(line).to_owned())
}
