// SPDX-License-Identifier: Apache-2.0
//! Questions on the terminal, and answers that nobody shall read over the user's shoulder.

use std::io::{self, BufRead, Read, Write};

use polyarch_build::BuildError;
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};

use crate::CommandError;

/// No answer is longer.
const MAX_ANSWER_BYTES: usize = 64 << 10;

/// Asks on standard error and reads one line from standard input.
///
/// # Errors
/// When the input can't be read, or ends before there is an answer.
pub(crate) fn ask(question: &str) -> Result<String, CommandError> {
    show(question);
    let mut answer = Vec::new();
    let mut stdin = io::stdin().lock().take(MAX_ANSWER_BYTES as u64);
    stdin
        .read_until(b'\n', &mut answer)
        .map_err(|error| CommandError::io("can't read", "standard input", &error))?;
    if answer.is_empty() {
        show("\n");
        return Err(BuildError::cancelled().into());
    }
    text(answer)
}

/// Asks for a secret: the same, but nothing that is typed is shown.
///
/// # Errors
/// The same; and when standard input is no terminal that can be silenced.
pub(crate) fn ask_secret(question: &str) -> Result<String, CommandError> {
    let failed = |error: io::Error| CommandError::io("can't read", "the terminal", &error);
    // Silent before it asks: an answer may come at once.
    let silence = Silence::start().map_err(failed)?;
    show(question);
    let typed = read_typed(&mut io::stdin().lock());
    drop(silence);
    show("\n");
    match typed.map_err(failed)? {
        Some(secret) => text(secret),
        None => Err(BuildError::cancelled().into()),
    }
}

fn show(text: &str) {
    let mut stderr = io::stderr().lock();
    // A question that nobody can read still gets its answer from standard input.
    let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
}

fn text(bytes: Vec<u8>) -> Result<String, CommandError> {
    let text = String::from_utf8(bytes).map_err(|_| CommandError::usage("the answer is not UTF-8 text"))?;
    Ok(text.trim_end_matches(['\n', '\r']).to_owned())
}

/// Reads a line key by key, since a silent terminal's own editing and signals are switched off: so Ctrl-C
/// can't leave it silent. `None` when it was interrupted or ended.
fn read_typed(input: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut line: Vec<u8> = Vec::new();
    let mut key = [0];
    loop {
        if input.read(&mut key)? == 0 {
            return Ok(None);
        }
        match key[0] {
            b'\r' | b'\n' => return Ok(Some(line)),
            // Ctrl-C; and Ctrl-D where nothing stands before it.
            3 => return Ok(None),
            4 if line.is_empty() => return Ok(None),
            4 => return Ok(Some(line)),
            // Backspace takes a whole character; Ctrl-U takes all.
            8 | 127 => while line.pop().is_some_and(|byte| byte & 0xC0 == 0x80) {},
            21 => line.clear(),
            byte if line.len() < MAX_ANSWER_BYTES => line.push(byte),
            _ => return Err(io::Error::new(io::ErrorKind::InvalidInput, "the answer is too long")),
        }
    }
}

/// A terminal that shows nothing of what is typed, until this value is gone.
struct Silence {
    before: Termios,
}

impl Silence {
    fn start() -> io::Result<Silence> {
        let stdin = io::stdin();
        let before = tcgetattr(&stdin)?;
        let mut silent = before.clone();
        silent
            .local_modes
            .remove(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG | LocalModes::IEXTEN);
        silent.special_codes[SpecialCodeIndex::VMIN] = 1;
        silent.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(&stdin, OptionalActions::Drain, &silent)?;
        Ok(Silence { before })
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        // A terminal that went away needs no mending.
        let _ = tcsetattr(io::stdin(), OptionalActions::Drain, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_edit_the_line() {
        let table: [(&[u8], Option<&[u8]>); 8] = [
            (b"secret\r", Some(b"secret")),
            (b"secret\nmore", Some(b"secret")),
            (b"wrong\x15right\r", Some(b"right")),
            ("aé\u{7f}b\u{8}\u{8}\u{8}c\r".as_bytes(), Some(b"c")),
            (b"sec\x03", None),
            (b"\x04", None),
            (b"abc\x04", Some(b"abc")),
            (b"", None),
        ];
        for (typed, expected) in table {
            let mut input = typed;
            assert_eq!(read_typed(&mut input).unwrap().as_deref(), expected, "{typed:?}");
        }
    }
}
