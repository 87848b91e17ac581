// SPDX-License-Identifier: Apache-2.0
//! One run of `git` with all the programs that it starts: they end together, also when we are killed.
//!
//! The programs are a group of processes. It is killed when the run is canceled, when it takes too much of the
//! disk, and when nobody waits for it any more; a shell within it kills it when our end of a pipe closes, which
//! the kernel does for us whatever we die of.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use polyarch_solver::CancelFlag;
use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};

use crate::fetch::blocking;

/// The most that is read of what `git` writes, in bytes.
const MAX_OUTPUT_BYTES: u64 = 8 << 20;

/// How long killed programs may take to be gone; they have nothing to say in that.
const DYING: Duration = Duration::from_secs(5);

/// How often the disk is looked at, unless looking takes long.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Runs `git`, with the modes of files that it gives them everywhere, and kills the group with our pipe.
const SCRIPT: &str = r#"umask 022
exec 3<&0 </dev/null
(read -r line <&3; kill -s KILL 0) >/dev/null 2>&1 &
guard=$!
git "$@" 3<&-
code=$?
exec 2>/dev/null
kill "$guard"
wait "$guard"
exit "$code"
"#;

/// What a run may take of the disk.
#[derive(Debug, Clone, Copy)]
pub(super) struct DiskLimits {
    /// Bytes of all files.
    pub(super) bytes: u64,
    /// Files and directories.
    pub(super) entries: u64,
}

impl Default for DiskLimits {
    fn default() -> DiskLimits {
        DiskLimits { bytes: 64 << 30, entries: 10_000_000 }
    }
}

/// One run.
pub(super) struct GitRun<'a> {
    /// All of its environment.
    pub(super) environment: &'a [(String, OsString)],
    /// Settings, `NAME=VALUE`.
    pub(super) settings: &'a [&'a str],
    /// The command with its arguments.
    pub(super) arguments: &'a [&'a str],
    /// The repository, where there is one yet; what is in it is limited.
    pub(super) directory: Option<&'a Path>,
    /// Stops it.
    pub(super) cancel: &'a CancelFlag,
    /// What it may take of the disk.
    pub(super) limits: DiskLimits,
}

/// Why a run gave nothing.
#[derive(Debug)]
pub(super) enum GitFailure {
    /// What `git` said, or what kept it from running.
    Said(String),
    /// It was canceled.
    Cancelled,
}

/// The group, killed with the value unless it has ended.
struct Group {
    leader: Child,
}

impl Group {
    fn kill(&self) {
        // The number is the group's as long as the leader was not waited for.
        let id =
            self.leader.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw);
        if let Some(id) = id {
            let _ = rustix::process::kill_process_group(id, rustix::process::Signal::KILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

impl GitRun<'_> {
    /// Runs it to its end and returns what it wrote.
    pub(super) async fn call(self) -> Result<String, GitFailure> {
        let said = |problem: String| GitFailure::Said(problem);
        if self.cancel.is_cancelled() {
            return Err(GitFailure::Cancelled);
        }
        let mut command = Command::new("/bin/sh");
        command.args(["-c", SCRIPT, "git"]);
        for setting in self.settings {
            command.args(["-c", setting]);
        }
        command
            .args(self.arguments)
            .env_clear()
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(self.directory.unwrap_or(Path::new("/")))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        let mut leader = command.spawn().map_err(|error| said(format!("git can't be started: {error}")))?;
        let (out, messages) = (leader.stdout.take(), leader.stderr.take());
        // Closed with the value, or by the kernel.
        let _pipe = leader.stdin.take();
        let mut group = Group { leader };
        // At the end of these all programs are gone that hold the other ends.
        let reading = async { tokio::join!(read(out), read(messages)) };
        tokio::pin!(reading);
        let stopped = tokio::select! {
            read = &mut reading => Ok(read),
            () = self.cancel.cancelled() => Err(GitFailure::Cancelled),
            problem = self.overflow() => Err(GitFailure::Said(problem)),
        };
        let (out, messages) = match stopped {
            Ok(read) => read,
            Err(failure) => {
                group.kill();
                let _ =
                    tokio::time::timeout(DYING, async { (reading.await, group.leader.wait().await) }).await;
                return Err(failure);
            }
        };
        let (out, messages) = (out.map_err(said)?, messages.map_err(said)?);
        let status = tokio::select! {
            status = group.leader.wait() => status.map_err(|error| said(format!("git got lost: {error}")))?,
            () = self.cancel.cancelled() => return Err(GitFailure::Cancelled),
        };
        told(status, out, messages).map_err(said)
    }

    /// Ends when what is in the repository's directory is too much, with the reason.
    async fn overflow(&self) -> String {
        let Some(directory) = self.directory else { return std::future::pending().await };
        let mut pause = LOOK_EVERY;
        loop {
            tokio::time::sleep(pause).await;
            let begun = Instant::now();
            let (directory, limits) = (directory.to_owned(), self.limits);
            if let Some(problem) = blocking(move || excess(directory, limits)).await {
                return problem;
            }
            pause = LOOK_EVERY.max(begun.elapsed() * 10);
        }
    }
}

fn told(status: ExitStatus, out: String, messages: String) -> Result<String, String> {
    match status.code() {
        Some(0) => Ok(out),
        Some(127) => Err("there is no program git; install it".to_owned()),
        _ if messages.trim().is_empty() => Err(status.to_string()),
        _ => Err(messages),
    }
}

/// Says what is too much in a directory; what vanishes meanwhile does not count.
fn excess(directory: PathBuf, limits: DiskLimits) -> Option<String> {
    use std::os::unix::fs::MetadataExt;
    let (mut bytes, mut entries) = (0_u64, 0_u64);
    let mut left = vec![directory];
    while let Some(directory) = left.pop() {
        let Ok(found) = std::fs::read_dir(&directory) else { continue };
        for entry in found.flatten() {
            // Of the entry itself: links are not followed.
            let Ok(metadata) = entry.metadata() else { continue };
            entries += 1;
            bytes = bytes.saturating_add(metadata.blocks().saturating_mul(512));
            if bytes > limits.bytes {
                return Some(format!("the repository takes more than {} MiB", limits.bytes >> 20));
            }
            if entries > limits.entries {
                return Some(format!("the repository has more than {} files", limits.entries));
            }
            if metadata.is_dir() {
                left.push(entry.path());
            }
        }
    }
    None
}

async fn read(stream: Option<impl tokio::io::AsyncRead + Unpin>) -> Result<String, String> {
    let mut bytes = Vec::new();
    if let Some(stream) = stream {
        let read = stream.take(MAX_OUTPUT_BYTES + 1).read_to_end(&mut bytes).await;
        read.map_err(|error| format!("what git says can't be read: {error}"))?;
    }
    if bytes.len() as u64 > MAX_OUTPUT_BYTES {
        return Err(format!("git says more than {} MiB", MAX_OUTPUT_BYTES >> 20));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read};
    use std::sync::mpsc;

    use super::*;

    /// A directory with a program `git` of these lines, and a pipe with a name that tells who lives.
    struct World {
        directory: tempfile::TempDir,
        environment: Vec<(String, OsString)>,
    }

    impl World {
        fn new(lines: &str) -> World {
            let directory = tempfile::tempdir().expect("a directory");
            // Another process writes it: nobody here has it open when it is executed.
            let script = format!("#!/bin/sh\nexec 9>alive\n{lines}\n");
            let made = std::process::Command::new("/bin/sh")
                .args(["-c", "printf %s \"$1\" >git && chmod 755 git && mkfifo alive", "sh", &script])
                .current_dir(directory.path())
                .status()
                .expect("a shell");
            assert!(made.success());
            let path = format!("{}:/usr/bin:/bin", directory.path().display());
            World { directory, environment: vec![("PATH".to_owned(), path.into())] }
        }

        async fn call(&self, cancel: &CancelFlag, limits: DiskLimits) -> Result<String, GitFailure> {
            let directory = Some(self.directory.path());
            let environment = &self.environment;
            GitRun { environment, settings: &[], arguments: &["x"], directory, cancel, limits }.call().await
        }

        /// Tells when the program has said something, and then when the last process of it is gone.
        fn life(&self) -> (tokio::sync::oneshot::Receiver<()>, mpsc::Receiver<()>) {
            let (born, is_born) = tokio::sync::oneshot::channel();
            let (dead, is_dead) = mpsc::channel();
            let path = self.directory.path().join("alive");
            std::thread::spawn(move || {
                let mut reader = BufReader::new(std::fs::File::open(path).expect("a pipe"));
                reader.read_line(&mut String::new()).expect("a line");
                let _ = born.send(());
                reader.read_to_end(&mut Vec::new()).expect("the end");
                let _ = dead.send(());
            });
            (is_born, is_dead)
        }
    }

    /// Two processes that never end; neither hears anything but what kills.
    const FOR_EVER: &str = "trap '' INT TERM HUP\nsleep 100000 &\necho born >&9\nsleep 100000";

    const PATIENCE: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn what_is_canceled_is_gone_with_all_that_it_started() {
        let world = World::new(FOR_EVER);
        let (is_born, is_dead) = world.life();
        let cancel = CancelFlag::default();
        let stop = async {
            is_born.await.expect("it starts");
            cancel.cancel();
        };
        let (result, ()) = tokio::join!(world.call(&cancel, DiskLimits::default()), stop);
        assert!(matches!(result, Err(GitFailure::Cancelled)));
        is_dead.recv_timeout(PATIENCE).expect("all processes end");
        assert!(matches!(world.call(&cancel, DiskLimits::default()).await, Err(GitFailure::Cancelled)));
    }

    #[tokio::test]
    async fn what_nobody_waits_for_is_gone() {
        let world = World::new(FOR_EVER);
        let (is_born, is_dead) = world.life();
        let cancel = CancelFlag::default();
        tokio::select! {
            _ = world.call(&cancel, DiskLimits::default()) => panic!("it never ends"),
            born = is_born => born.expect("it starts"),
        }
        is_dead.recv_timeout(PATIENCE).expect("all processes end");
    }

    #[tokio::test]
    async fn what_takes_too_much_is_stopped() {
        for (lines, limits, problem) in [
            (
                "head -c 3000000 /dev/zero >big",
                DiskLimits { bytes: 2 << 20, entries: 100 },
                "takes more than 2 MiB",
            ),
            (
                "for n in 1 2 3 4 5; do : >$n; done",
                DiskLimits { bytes: 2 << 20, entries: 5 },
                "more than 5 files",
            ),
        ] {
            let world = World::new(&format!("{lines}\necho born >&9\nsleep 100000"));
            let (_is_born, is_dead) = world.life();
            match world.call(&CancelFlag::default(), limits).await {
                Err(GitFailure::Said(said)) => assert!(said.contains(problem), "{said}"),
                other => panic!("{other:?}"),
            }
            is_dead.recv_timeout(PATIENCE).expect("all processes end");
        }
    }

    #[tokio::test]
    async fn what_ends_by_itself_is_heard() {
        let world = World::new("[ \"$*\" = x ] && echo said");
        let (_is_born, is_dead) = world.life();
        let cancel = CancelFlag::default();
        assert_eq!(world.call(&cancel, DiskLimits::default()).await.expect("it succeeds"), "said\n");
        is_dead.recv_timeout(PATIENCE).expect("all processes end");
        let world = World::new("echo wrong >&2; exit 3");
        let (_is_born, _is_dead) = world.life();
        let failure = world.call(&cancel, DiskLimits::default()).await;
        assert!(matches!(failure, Err(GitFailure::Said(said)) if said == "wrong\n"));
    }
}
