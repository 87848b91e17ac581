// SPDX-License-Identifier: Apache-2.0
//! A machine at the other end of ssh: what it is, and putting the program on it.
//!
//! Nothing is needed there but a POSIX shell. Questions go to `sh -s` on its standard input, so that no login shell has
//! to understand them; answers are lines `KEY=VALUE`, of which only known keys count.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use polyarch_buildkit::client::{Endpoint, quote_for_shell};
use serde::Serialize;

use crate::CommandError;

/// The most that a machine may say, in bytes.
const MAX_ANSWER_BYTES: u64 = 256 << 10;

/// How much of a program is sent at a time, in bytes.
const PIECE_BYTES: u64 = 256 << 10;

/// How long a machine may take.
#[derive(Debug, Clone, Copy)]
struct Patience {
    /// Until somebody is let in: ssh may ask for a password, and servers wait for one for two minutes.
    login: Duration,
    /// For all questions, and for what a copied program says.
    answers: Duration,
    /// Without taking any more of a program that is copied.
    stall: Duration,
    /// To end when everything is said.
    end: Duration,
}

const PATIENCE: Patience = Patience {
    login: Duration::from_secs(180),
    answers: Duration::from_secs(60),
    stall: Duration::from_secs(60),
    end: Duration::from_secs(2),
};

/// Machines by the name that the kernel has for them: platform, and the number in the header of programs.
const MACHINES: [(&str, &str, u16); 12] = [
    ("x86_64", "linux/amd64", 62),
    ("i686", "linux/386", 3),
    ("i386", "linux/386", 3),
    ("aarch64", "linux/arm64", 183),
    ("armv7l", "linux/arm/v7", 40),
    ("armv6l", "linux/arm/v6", 40),
    ("armv8l", "linux/arm/v7", 40),
    ("riscv64", "linux/riscv64", 243),
    ("s390x", "linux/s390x", 22),
    ("ppc64le", "linux/ppc64le", 21),
    ("loongarch64", "linux/loong64", 258),
    ("mips64", "linux/mips64le", 8),
];

/// What a machine says of itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Machine {
    /// Its platform; empty when the kernel's name for it is not known.
    pub platform: String,
    /// The kernel's name for it, `aarch64`.
    pub machine: String,
    /// `Linux 6.18.0`.
    pub kernel: String,
    /// How long an answer takes on its way and back, in milliseconds.
    pub latency_milliseconds: f64,
    /// How many CPUs it has.
    pub cpus: u64,
    /// Its memory, in bytes.
    pub memory_bytes: u64,
    /// What is free where the home directory is, in bytes.
    pub disk_free_bytes: u64,
    /// The emulators that its kernel uses.
    pub emulators: Vec<String>,
    /// Where polyarch is; empty when it is not there.
    pub polyarch: String,
    /// What polyarch says that it is, `0.1.0`.
    pub polyarch_version: String,
    /// Where buildctl is; empty when it is not there.
    pub buildctl: String,
}

/// The questions after the first, in POSIX sh. `~/.local/bin` is looked at too, which login shells have and others not.
const QUESTIONS: &str = r#"PATH="$PATH:$HOME/.local/bin:/usr/local/bin"
echo "machine=$(uname -m)"
echo "kernel=$(uname -sr)"
echo "cpus=$(getconf _NPROCESSORS_ONLN 2>/dev/null)"
echo "memory=$(sed -n 's/^MemTotal: *\([0-9]*\) kB$/\1/p' /proc/meminfo 2>/dev/null)"
echo "disk=$(df -Pk "$HOME" 2>/dev/null | awk 'NR == 2 { print $4 }')"
for entry in /proc/sys/fs/binfmt_misc/qemu-*; do [ ! -e "$entry" ] || echo "emulator=${entry##*/}"; done
echo "polyarch=$(command -v polyarch)"
echo "version=$(polyarch --version 2>/dev/null)"
echo "buildctl=$(command -v buildctl)"
echo end=
exit
"#;

/// Takes the program on its standard input. It replaces an older one only after it has run there.
const INSTALL: &str = r#"set -e
directory=$HOME/.local/bin
mkdir -p "$directory"
new=$directory/.polyarch-new.$$
trap 'rm -f "$new"' EXIT
cat >"$new"
chmod 755 "$new"
[ "$(wc -c <"$new")" -eq SIZE ] || { echo "only a part arrived" >&2; exit 1; }
"$new" --version >/dev/null
mv "$new" "$directory/polyarch"
PATH="$PATH:$directory:/usr/local/bin"
command -v buildctl >/dev/null || ln -s polyarch "$directory/buildctl"
echo "$directory/polyarch""#;

/// The way to a machine.
pub struct Ssh {
    program: PathBuf,
    arguments: Vec<String>,
    host: String,
    patience: Patience,
}

impl Ssh {
    /// Prepares the way to an `ssh://` endpoint; `None` for others.
    pub fn to(endpoint: &Endpoint, program: PathBuf, timeout: Duration) -> Option<Ssh> {
        let Endpoint::Ssh { user, host, port, .. } = endpoint else { return None };
        let mut arguments = vec!["-o".to_owned(), format!("ConnectTimeout={}", timeout.as_secs().max(1))];
        if let Some(user) = user {
            arguments.extend(["-l".to_owned(), user.clone()]);
        }
        if let Some(port) = port {
            arguments.extend(["-p".to_owned(), port.to_string()]);
        }
        Some(Ssh { program, arguments, host: host.clone(), patience: PATIENCE })
    }

    /// Asks the machine what it is.
    ///
    /// # Errors
    /// That it can't be reached, in ssh's words.
    pub fn ask(&self) -> Result<Machine, CommandError> {
        let mut talk = Talk::start(self.command(&["sh", "-s"]), &self.host, self.patience)?;
        // The first answer comes when the connection stands, the second tells how long the way is.
        talk.say("echo ready=\n")?;
        talk.wait_for("ready=", self.patience.login)?;
        let begun = Instant::now();
        talk.say("echo pong=\n")?;
        talk.wait_for("pong=", self.patience.answers)?;
        let latency = begun.elapsed();
        talk.say(QUESTIONS)?;
        let until = Instant::now() + self.patience.answers;
        let mut machine = Machine { latency_milliseconds: milliseconds(latency), ..Machine::default() };
        loop {
            let line = talk.line(until)?;
            if line == "end=" {
                return Ok(machine);
            }
            if let Some((key, value)) = line.split_once('=') {
                machine.take(key, value.trim());
            }
        }
    }

    /// Puts a program on the machine, as `~/.local/bin/polyarch`; returns where it is.
    ///
    /// # Errors
    /// That it can't be read, does not run there, or did not arrive.
    pub fn install(&self, program: &Path) -> Result<String, CommandError> {
        let failed = |error: io::Error| CommandError::io("can't read", program, &error);
        let file = File::open(program).map_err(failed)?;
        let size = file.metadata().map_err(failed)?.len();
        let script = INSTALL.replace("SIZE", &size.to_string());
        let command = self.command(&["sh", "-c", &quote_for_shell(&script)]);
        let mut talk = Talk::start(command, &self.host, self.patience)?;
        talk.send(file);
        match talk.line_after_sending()? {
            place if place.starts_with('/') => Ok(place),
            _ => Err(talk.ended()),
        }
    }

    fn command(&self, remote: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).args(["--", &self.host]).args(remote);
        command
    }
}

impl Machine {
    fn take(&mut self, key: &str, value: &str) {
        let kibibytes =
            || value.parse::<u64>().ok().and_then(|count| count.checked_mul(1024)).unwrap_or_default();
        let text = || value.chars().filter(|character| !character.is_control()).take(256).collect::<String>();
        match key {
            "machine" => {
                self.machine = text();
                let known = MACHINES.iter().find(|(machine, ..)| *machine == value);
                self.platform = known.map(|(_, platform, _)| (*platform).to_owned()).unwrap_or_default();
            }
            "kernel" => self.kernel = text(),
            "cpus" => self.cpus = value.parse().unwrap_or_default(),
            "memory" => self.memory_bytes = kibibytes(),
            "disk" => self.disk_free_bytes = kibibytes(),
            "emulator" if self.emulators.len() < 64 => self.emulators.push(text()),
            "polyarch" => self.polyarch = text(),
            "version" => self.polyarch_version = text().trim_start_matches("polyarch ").to_owned(),
            "buildctl" => self.buildctl = text(),
            _ => {}
        }
    }

    /// Tells whether a program is one for this machine, by the header of its file.
    ///
    /// # Errors
    /// When it can't be read or is no program.
    pub fn fits(&self, program: &Path) -> Result<bool, CommandError> {
        let mut header = [0; 20];
        File::open(program)
            .and_then(|mut file| file.read_exact(&mut header))
            .map_err(|error| CommandError::io("can't read", program, &error))?;
        let [0x7f, b'E', b'L', b'F', _, order, ..] = header else {
            return Err(CommandError::usage(format!("{} is no program of Linux", program.display())));
        };
        let number = [header[18], header[19]];
        let number = if order == 2 { u16::from_be_bytes(number) } else { u16::from_le_bytes(number) };
        Ok(MACHINES.iter().any(|(machine, _, own)| *machine == self.machine && *own == number))
    }
}

fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

/// What a program at the other end does.
enum Heard {
    Line(String),
    /// It has taken a piece of what is copied.
    Took,
    /// It has taken all of it.
    TookAll,
    /// It has said all that is read of it.
    Enough,
    End,
}

/// A program at the other end.
struct Talk {
    child: Child,
    stdin: Option<ChildStdin>,
    heard: Receiver<Heard>,
    sender: SyncSender<Heard>,
    host: String,
    patience: Patience,
}

impl Talk {
    /// What ssh says goes to our own standard error: it may ask for something there.
    fn start(mut command: Command, host: &str, patience: Patience) -> Result<Talk, CommandError> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let program = command.get_program().to_owned();
        let mut child = command.spawn().map_err(|error| CommandError::io("can't start", &program, &error))?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let (sender, heard) = mpsc::sync_channel(64);
        let talk = Talk { child, stdin, heard, sender: sender.clone(), host: host.to_owned(), patience };
        let stdout = stdout.ok_or_else(|| CommandError::usage("ssh has no standard output"))?;
        std::thread::spawn(move || listen(stdout, &sender));
        Ok(talk)
    }

    fn say(&mut self, text: &str) -> Result<(), CommandError> {
        let said = self
            .stdin
            .as_mut()
            .map_or(Ok(()), |stdin| stdin.write_all(text.as_bytes()).and_then(|()| stdin.flush()));
        said.map_err(|_| self.ended())
    }

    /// Sends a file; its end is the end of standard input.
    fn send(&mut self, mut file: File) {
        let (Some(mut stdin), sender) = (self.stdin.take(), self.sender.clone()) else { return };
        std::thread::spawn(move || {
            while let Ok(1..) = io::copy(&mut (&mut file).take(PIECE_BYTES), &mut stdin) {
                // Nobody listens to one that was given up.
                if sender.send(Heard::Took).is_err() {
                    return;
                }
            }
            drop(stdin);
            let _ = sender.send(Heard::TookAll);
        });
    }

    /// Reads up to a line; what comes before is the greeting of a login shell.
    fn wait_for(&mut self, expected: &str, patience: Duration) -> Result<(), CommandError> {
        let until = Instant::now() + patience;
        while self.line(until)? != expected {}
        Ok(())
    }

    /// Reads a line that comes before a time.
    fn line(&mut self, until: Instant) -> Result<String, CommandError> {
        loop {
            match self.heard.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(Heard::Line(line)) => return Ok(line),
                Ok(Heard::Took | Heard::TookAll) => {}
                Ok(Heard::Enough) => return Err(self.given_up("it says more than 256 KiB")),
                Ok(Heard::End) | Err(RecvTimeoutError::Disconnected) => return Err(self.ended()),
                Err(RecvTimeoutError::Timeout) => return Err(self.given_up("it does not answer in time")),
            }
        }
    }

    /// Reads the line that comes when all is sent, as long as something is taken.
    fn line_after_sending(&mut self) -> Result<String, CommandError> {
        let mut patience = self.patience.login;
        loop {
            match self.heard.recv_timeout(patience) {
                Ok(Heard::Took) => patience = self.patience.stall,
                Ok(Heard::TookAll) => return self.line(Instant::now() + self.patience.answers),
                Ok(Heard::Line(line)) => return Ok(line),
                Ok(Heard::Enough) => return Err(self.given_up("it says more than 256 KiB")),
                Ok(Heard::End) | Err(RecvTimeoutError::Disconnected) => return Err(self.ended()),
                Err(RecvTimeoutError::Timeout) => {
                    return Err(self.given_up("it takes no more of the program"));
                }
            }
        }
    }

    /// Says that the other end is gone.
    fn ended(&mut self) -> CommandError {
        drop(self.stdin.take());
        let code = self.wait_for_end().and_then(|status| status.code());
        let how = code.map_or_else(|| "was ended".to_owned(), |code| format!("ended with {code}"));
        self.failure(&format!("can't work on {} through ssh, which {how}", self.host))
    }

    /// Ends it, and says why.
    fn given_up(&mut self, why: &str) -> CommandError {
        let _ = self.child.kill();
        self.failure(&format!("can't work on {} through ssh: {why}", self.host))
    }

    fn failure(&self, message: &str) -> CommandError {
        CommandError::from(polyarch_build::BuildError::new(polyarch_build::ErrorKind::Registry, message))
            .with_hint(format!("try `ssh {} true`: it must work by itself", self.host))
    }

    /// Waits a moment for the program to end by itself; one that does not is ended.
    fn wait_for_end(&mut self) -> Option<std::process::ExitStatus> {
        let until = Instant::now() + self.patience.end;
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return Some(status),
                Ok(None) if Instant::now() < until => std::thread::sleep(Duration::from_millis(10)),
                Ok(None) | Err(_) => break,
            }
        }
        let _ = self.child.kill();
        self.child.wait().ok()
    }
}

/// Passes on what a program says, line by line.
fn listen(stdout: ChildStdout, sender: &SyncSender<Heard>) {
    let mut stdout = BufReader::new(stdout.take(MAX_ANSWER_BYTES));
    loop {
        let mut line = Vec::new();
        let heard = match stdout.read_until(b'\n', &mut line) {
            Ok(0) if stdout.get_ref().limit() == 0 => Heard::Enough,
            Ok(0) | Err(_) => Heard::End,
            Ok(_) => Heard::Line(String::from_utf8_lossy(&line).trim_end().to_owned()),
        };
        let is_end = !matches!(heard, Heard::Line(_));
        // Nobody listens to one that was given up.
        if sender.send(heard).is_err() || is_end {
            return;
        }
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        drop(self.stdin.take());
        // One that has ended can't be killed; either way it is waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A way to a machine that does this, whatever it is told.
    fn ssh(script: &str) -> Ssh {
        let patience = Patience { login: Duration::ZERO, ..PATIENCE };
        let arguments = ["-c", script].map(str::to_owned).to_vec();
        Ssh { program: "/bin/sh".into(), arguments, host: "far.example".to_owned(), patience }
    }

    #[test]
    fn a_machine_that_talks_without_end_or_not_at_all_is_given_up() {
        let patient = |script: &str| Ssh { patience: PATIENCE, ..ssh(script) };
        let failure = |ssh: &Ssh| ssh.ask().unwrap_err().error.message;
        let error = failure(&patient("exec yes"));
        assert!(error.contains("it says more than 256 KiB"), "{error}");
        let error = failure(&ssh("exec sleep 100000"));
        assert!(error.contains("it does not answer in time"), "{error}");
        let error = failure(&patient("exit 7"));
        assert!(error.contains("ended with 7"), "{error}");
        // It says nothing more, and does not end either.
        let closed = Ssh { patience: Patience { end: Duration::ZERO, ..PATIENCE }, ..ssh("") };
        let closed = Ssh { arguments: ["-c", "exec sleep 100000 >&-"].map(str::to_owned).to_vec(), ..closed };
        let error = failure(&closed);
        assert!(error.contains("was ended"), "{error}");
    }

    #[test]
    fn a_machine_that_takes_no_program_is_given_up() {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("program");
        std::fs::write(&program, vec![0; 1 << 20]).unwrap();
        let install = |ssh: &Ssh| ssh.install(&program).unwrap_err().error.message;
        let error = install(&ssh("exec sleep 100000"));
        assert!(error.contains("it takes no more of the program"), "{error}");
        let patient = Ssh { patience: PATIENCE, ..ssh("cat >/dev/null; echo /there") };
        assert_eq!(patient.install(&program).unwrap(), "/there");
    }

    #[test]
    fn answers_become_a_machine() {
        let mut machine = Machine::default();
        for line in [
            "machine=aarch64",
            "kernel=Linux 6.18.0",
            "cpus=8",
            "memory=1024",
            "disk=2048",
            "emulator=qemu-x86_64",
            "polyarch=/home/me/.local/bin/polyarch",
            "version=polyarch 0.1.0",
            "buildctl=",
            "other=x",
        ] {
            let (key, value) = line.split_once('=').unwrap();
            machine.take(key, value);
        }
        assert_eq!((machine.platform.as_str(), machine.cpus), ("linux/arm64", 8));
        assert_eq!((machine.memory_bytes, machine.disk_free_bytes), (1 << 20, 2 << 20));
        assert_eq!((machine.polyarch_version.as_str(), machine.emulators.len()), ("0.1.0", 1));
        machine.take("kernel", "\u{1b}[31mLinux");
        assert_eq!(machine.kernel, "[31mLinux");
        machine.take("memory", "99999999999999999999");
        assert_eq!(machine.memory_bytes, 0);
    }

    #[test]
    fn programs_are_known_by_their_header() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("program");
        let mut arm64 = b"\x7fELF\x02\x01".to_vec();
        arm64.resize(18, 0);
        arm64.extend(183u16.to_le_bytes());
        std::fs::write(&file, arm64).unwrap();
        let of = |machine: &str| Machine { machine: machine.to_owned(), ..Machine::default() };
        assert!(of("aarch64").fits(&file).unwrap());
        assert!(!of("x86_64").fits(&file).unwrap());
        assert!(!of("unheard").fits(&file).unwrap());
        std::fs::write(&file, "#!/bin/sh\necho it is a script\n").unwrap();
        assert!(of("aarch64").fits(&file).is_err());
    }
}
