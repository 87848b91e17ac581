// SPDX-License-Identifier: Apache-2.0
//! The last steps in the program's own process: streams, limits, rights, `execve`.
//!
//! The system call filter is installed while the process is still privileged, so that it needs no `no_new_privs`
//! (setuid programs such as `sudo` work in a build step); the filter allows what follows it.

use std::ffi::CString;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{FileType, Mode, OFlags, fstat, open};
use rustix::io::Errno;
use rustix::process::{Gid, Rlimit, Uid};

use crate::failure::{Failure, Step};
use crate::{ExecFailure, ProcessSpec, Security, capabilities, kernel, seccomp};

/// Where programs are looked for when the environment has no `PATH`: Docker's default.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// No more of the image's `/etc/passwd` is read.
const PASSWD_LIMIT_BYTES: u64 = 1 << 20;

/// How often a program is tried again while its file is open for writing.
const BUSY_TRIES: u32 = 200;

/// How long is waited between two tries.
const BUSY_WAIT: Duration = Duration::from_millis(5);

/// Turns this process into the program; returns only the reason why that failed.
///
/// `report` stays open until `execve`, for the caller to tell the reason.
pub(super) fn become_program(spec: &ProcessSpec, stdio: &[OwnedFd; 3], report: &OwnedFd) -> Failure {
    match prepare(spec, stdio, report) {
        Ok(command) => Failure::Exec(command.execute()),
        Err(failure) => failure,
    }
}

fn prepare(spec: &ProcessSpec, stdio: &[OwnedFd; 3], report: &OwnedFd) -> Result<ProgramCommand, Failure> {
    let [stdin, stdout, stderr] = stdio;
    rustix::stdio::dup2_stdin(stdin).step("set up standard input")?;
    rustix::stdio::dup2_stdout(stdout).step("set up standard output")?;
    rustix::stdio::dup2_stderr(stderr).step("set up standard error")?;
    // Before any path of the specification is used: one through /proc/self/fd must not find what the init holds.
    kernel::close_all_except(&[report.as_raw_fd()]).step("close descriptors")?;
    if !spec.is_tty {
        rustix::process::setsid().step("start a session")?;
    }
    for limit in &spec.ulimits {
        let value = Rlimit { current: limit.soft, maximum: limit.hard };
        rustix::process::setrlimit(limit.resource.to_kernel(), value)
            .at("set the limit", limit.resource.name())?;
    }
    // Kernels and quotas without keyrings exist; then there is nothing to be shared either.
    let _ = kernel::join_new_session_keyring();
    let command = ProgramCommand::new(spec)?;
    // As root: a directory that its user may not read can still be a working directory.
    rustix::process::chdir(&*spec.cwd).at("enter the working directory", &spec.cwd)?;
    match spec.security {
        Security::Sandbox => restrict()?,
        Security::Insecure => {}
    }
    change_user(spec)?;
    if spec.security == Security::Sandbox {
        capabilities::keep_only(capabilities::DEFAULT, spec.uid).step("drop capabilities")?;
    }
    rustix::process::umask(Mode::from_raw_mode(0o022));
    kernel::reset_signals().step("reset signals")?;
    Ok(command)
}

/// Limits what this process and all after it can ever do.
fn restrict() -> Result<(), Failure> {
    capabilities::limit_bounding_set(capabilities::DEFAULT).step("drop capabilities for good")?;
    match seccomp::default_program() {
        Ok(program) => seccomp::install(program).map_err(|error| Failure::Setup {
            step: format!("install the system call filter ({error})"),
            path: Default::default(),
            errno: match error {
                seccomp::SeccompError::Install { source, .. } => source.raw_os_error().unwrap_or(0),
                seccomp::SeccompError::UnknownHost { .. } => 0,
            },
        }),
        // A host for which nobody has written a table: the namespaces and capabilities hold alone.
        Err(_) => Ok(()),
    }
}

fn change_user(spec: &ProcessSpec) -> Result<(), Failure> {
    use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
    let groups: Vec<Gid> = spec.groups.iter().map(|group| Gid::from_raw(*group)).collect();
    match set_thread_groups(&groups) {
        // With a single identifier the kernel forbids the call; there are no other groups to drop or to have.
        Err(Errno::PERM) if spec.groups.iter().all(|group| *group == 0) => {}
        result => explain_unmapped(result, "the supplementary groups", &format!("{:?}", spec.groups))?,
    }
    let (uid, gid) = (Uid::from_raw(spec.uid), Gid::from_raw(spec.gid));
    explain_unmapped(set_thread_res_gid(gid, gid, gid), "group", &spec.gid.to_string())?;
    explain_unmapped(set_thread_res_uid(uid, uid, uid), "user", &spec.uid.to_string())
}

/// EINVAL says that the user namespace does not map an identifier, EPERM of the groups that it maps only one.
fn explain_unmapped(result: Result<(), Errno>, what: &str, value: &str) -> Result<(), Failure> {
    match result {
        Err(Errno::INVAL | Errno::PERM) => Err(Failure::Specification {
            reason: format!(
                "{what} {value} cannot be had: not mapped into the user namespace of this build; give the builder's \
                 user (more) ranges in /etc/subuid and /etc/subgid"
            ),
        }),
        result => result.at("become", format!("{what} {value}")),
    }
}

/// Everything that `execve` needs, made while the process may still read the image's files.
struct ProgramCommand {
    program: String,
    /// The paths to try, in order.
    candidates: Vec<CString>,
    is_searched: bool,
    arguments: Vec<CString>,
    environment: Vec<CString>,
}

impl ProgramCommand {
    fn new(spec: &ProcessSpec) -> Result<ProgramCommand, Failure> {
        let text = |text: &str| {
            CString::new(text)
                .map_err(|_| Failure::Specification { reason: format!("{text:?} has a NUL character") })
        };
        let program = spec.args.first().cloned().unwrap_or_default();
        let is_searched = !program.contains('/');
        let variable =
            |name: &str| spec.env.iter().rev().find_map(|entry| entry.strip_prefix(name)?.strip_prefix('='));
        let candidates = if is_searched {
            let directories = variable("PATH").unwrap_or(DEFAULT_PATH).split(':');
            // An empty entry means the working directory, which no build should depend on.
            directories
                .filter(|directory| !directory.is_empty())
                .map(|directory| text(&format!("{directory}/{program}")))
                .collect::<Result<_, _>>()?
        } else {
            vec![text(&program)?]
        };
        let mut environment = spec.env.iter().map(|entry| text(entry)).collect::<Result<Vec<_>, _>>()?;
        if variable("HOME").is_none() {
            let home = home_directory(spec.uid).unwrap_or_else(|| "/".to_owned());
            environment.push(text(&format!("HOME={home}"))?);
        }
        let arguments = spec.args.iter().map(|argument| text(argument)).collect::<Result<_, _>>()?;
        Ok(ProgramCommand { program, candidates, is_searched, arguments, environment })
    }

    /// Tries the candidates; returns why none could be executed.
    fn execute(&self) -> ExecFailure {
        let mut refused = None;
        for path in &self.candidates {
            let errno = once_not_busy(|| {
                let Err(errno) = kernel::execute(path, &self.arguments, &self.environment);
                errno
            });
            let file = Path::new(std::ffi::OsStr::from_bytes(path.as_bytes()));
            let program = file.to_string_lossy().into_owned();
            match errno {
                Errno::NOENT | Errno::NOTDIR if !file.exists() => {}
                Errno::NOENT => {
                    let interpreter = interpreter_of(file).unwrap_or_else(|| "unknown".to_owned());
                    return ExecFailure::InterpreterNotFound { program, interpreter };
                }
                // Looking on, as a shell does: a directory or a file without the x bit may precede the program.
                Errno::ACCESS | Errno::ISDIR => refused = Some(ExecFailure::PermissionDenied { program }),
                Errno::NOEXEC => return ExecFailure::Format { program, elf_machine: elf_machine_of(file) },
                errno => return ExecFailure::Other { program, errno: errno.raw_os_error() },
            }
        }
        let program = self.program.clone();
        refused.unwrap_or(match self.is_searched {
            true => ExecFailure::NotInPath { program },
            false => ExecFailure::NotFound { program },
        })
    }
}

/// Tries again, for a second at most, while the program's file is open for writing.
///
/// Whoever wrote it has closed it; but a process that was just forked off another thread holds a copy of each
/// descriptor until it executes its own program.
fn once_not_busy(mut execute: impl FnMut() -> Errno) -> Errno {
    for _ in 0..BUSY_TRIES {
        match execute() {
            Errno::TXTBSY => std::thread::sleep(BUSY_WAIT),
            errno => return errno,
        }
    }
    execute()
}

/// Reads the beginning of a regular file; anything else could block.
fn read_head(file: &Path, limit_bytes: u64) -> Option<Vec<u8>> {
    let fd = open(file, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty()).ok()?;
    if FileType::from_raw_mode(fstat(&fd).ok()?.st_mode) != FileType::RegularFile {
        return None;
    }
    let mut head = Vec::new();
    std::fs::File::from(fd).take(limit_bytes).read_to_end(&mut head).ok()?;
    Some(head)
}

/// Returns the home directory of a user from the image's `/etc/passwd`.
fn home_directory(uid: u32) -> Option<String> {
    home_in(&String::from_utf8_lossy(&read_head(Path::new("/etc/passwd"), PASSWD_LIMIT_BYTES)?), uid)
}

fn home_in(passwd: &str, uid: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let is_user = fields.len() >= 6 && fields[2].parse() == Ok(uid);
        (is_user && fields[5].starts_with('/') && !fields[5].contains('\0')).then(|| fields[5].to_owned())
    })
}

/// Returns the machine of an ELF file (ELF-64 object file format, file header: offset 18 in the file's byte order).
fn elf_machine_of(file: &Path) -> Option<u16> {
    let head = read_head(file, 20)?;
    elf_machine_in(&head)
}

fn elf_machine_in(head: &[u8]) -> Option<u16> {
    if head.len() < 20 || !head.starts_with(b"\x7fELF") {
        return None;
    }
    let machine = [head[18], head[19]];
    match head[5] {
        1 => Some(u16::from_le_bytes(machine)),
        2 => Some(u16::from_be_bytes(machine)),
        _ => None,
    }
}

/// Returns the interpreter that a script or a dynamic ELF program names.
fn interpreter_of(file: &Path) -> Option<String> {
    let head = read_head(file, 64 << 10)?;
    if let Some(line) = head.strip_prefix(b"#!") {
        let line = line.split(|byte| *byte == b'\n').next()?;
        let line = String::from_utf8_lossy(line);
        return line.split_ascii_whitespace().next().map(str::to_owned);
    }
    elf_interpreter_in(&head)
}

fn elf_interpreter_in(head: &[u8]) -> Option<String> {
    use object::read::elf::{FileHeader, ProgramHeader};
    fn find<E: FileHeader<Endian = object::Endianness>>(head: &[u8]) -> Option<String> {
        let header = E::parse(head).ok()?;
        let endian = header.endian().ok()?;
        let segments = header.program_headers(endian, head).ok()?;
        let name = segments.iter().find_map(|segment| segment.interpreter(endian, head).ok()?)?;
        Some(String::from_utf8_lossy(name).into_owned())
    }
    find::<object::elf::FileHeader64<object::Endianness>>(head)
        .or_else(|| find::<object::elf::FileHeader32<object::Endianness>>(head))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_home_of_a_user_comes_from_passwd() {
        let passwd =
            "root:x:0:0:root:/root:/bin/sh\nbad:x\nann:x:1000:1000::/home/ann:/bin/sh\nrel:x:7:7::home:\n";
        assert_eq!(home_in(passwd, 1000).as_deref(), Some("/home/ann"));
        assert_eq!(home_in(passwd, 0).as_deref(), Some("/root"));
        assert_eq!(home_in(passwd, 7), None);
        assert_eq!(home_in(passwd, 8), None);
    }

    #[test]
    fn the_machine_of_an_elf_file_is_read_in_its_byte_order() {
        let mut head = vec![0; 20];
        head[..6].copy_from_slice(b"\x7fELF\x02\x01");
        head[18] = 0xb7;
        assert_eq!(elf_machine_in(&head), Some(0xb7));
        head[5] = 2;
        head[18..].copy_from_slice(&[0, 22]);
        assert_eq!(elf_machine_in(&head), Some(22));
        assert_eq!(elf_machine_in(b"#!/bin/sh\necho hello, world\n"), None);
        assert_eq!(elf_machine_in(b"\x7fELF"), None);
    }

    #[test]
    fn the_interpreter_of_this_test_is_found_or_there_is_none() {
        let own = std::env::current_exe().expect("a path");
        let interpreter = interpreter_of(&own);
        assert!(interpreter.is_none_or(|path| path.contains("ld")), "of this test program");
        assert_eq!(elf_interpreter_in(b"\x7fELF\x02\x01\x01nonsense"), None);
    }

    #[test]
    fn a_file_that_is_still_open_for_writing_is_tried_again() {
        let mut answers = vec![Errno::NOENT, Errno::TXTBSY, Errno::TXTBSY];
        assert_eq!(once_not_busy(|| answers.pop().expect("no try after an answer")), Errno::NOENT);
        assert_eq!(answers, []);
    }

    #[test]
    fn programs_are_looked_for_along_the_path_of_the_environment() {
        let mut spec = ProcessSpec::new(vec!["tool".to_owned()]);
        spec.env = vec!["PATH=/ignored".to_owned(), "HOME=/".to_owned(), "PATH=/a::/b".to_owned()];
        let command = ProgramCommand::new(&spec).expect("no NUL");
        assert_eq!(command.candidates, [c"/a/tool".to_owned(), c"/b/tool".to_owned()]);
        spec.args[0] = "./tool".to_owned();
        let command = ProgramCommand::new(&spec).expect("no NUL");
        assert_eq!(command.candidates, [c"./tool".to_owned()]);
    }
}
