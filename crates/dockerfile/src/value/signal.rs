// SPDX-License-Identifier: Apache-2.0
//! Signals of STOPSIGNAL: a name with or without `SIG`, whatever the casing, or a number.

use super::ValueError;

/// The names that Linux gives its signals, without `SIG`.
const NAMES: &[&str] = &[
    "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL", "PIPE",
    "POLL", "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP", "TTIN", "TTOU",
    "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ",
];

/// Checks that a text names a signal; image configs hold it as written.
///
/// # Errors
/// No signal has that name, or the number is 0.
pub fn validate(text: &str) -> Result<(), ValueError> {
    let error = || ValueError::Signal { text: text.to_owned() };
    if let Ok(number) = text.parse::<i32>() {
        return if number == 0 { Err(error()) } else { Ok(()) };
    }
    let name = text.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    if NAMES.contains(&name) || is_real_time(name) { Ok(()) } else { Err(error()) }
}

/// `RTMIN`, `RTMIN+1` … `RTMIN+15`, `RTMAX-14` … `RTMAX-1`, `RTMAX`.
fn is_real_time(name: &str) -> bool {
    let (rest, sign, last) = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(rest), _) => (rest, '+', 15),
        (_, Some(rest)) => (rest, '-', 14),
        _ => return false,
    };
    let Some(number) = rest.strip_prefix(sign) else { return rest.is_empty() };
    !number.starts_with(['0', '+']) && number.parse::<u8>().is_ok_and(|number| (1..=last).contains(&number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        for text in ["SIGTERM", "term", "SigQuit", "9", "SIGRTMIN", "RTMIN+3", "SIGRTMAX-1", "64"] {
            assert!(validate(text).is_ok(), "{text}");
        }
        for text in
            ["", "0", "SIG", "SIGFOO", "RTMIN+16", "RTMIN-1", "RTMAX-0", "RTMAX-15", "SIGSIGTERM", "$S"]
        {
            assert!(validate(text).is_err(), "{text}");
        }
    }
}
