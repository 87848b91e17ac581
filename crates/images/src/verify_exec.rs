// SPDX-License-Identifier: Apache-2.0
//! Images proved by execution: the program that each platform would start can be executed at all.

use std::io::Read as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use polyarch_build::request::{NetworkMode, PullPolicy};
use polyarch_build::{BuildError, ErrorKind, RunRequest, RunStdio, SignalRelay};
use polyarch_contents::Severity;
use polyarch_oci::{Platform, Reference};
use polyarch_solver::CancelFlag;

use crate::found::FoundImage;
use crate::verify::{PlatformReport, Report, finding};

/// How long a program may run before it has proved that it can.
const TIME_LIMIT: Duration = Duration::from_secs(10);
/// How often it is looked whether the program runs by now.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// SIGILL, SIGBUS and SIGSEGV, as shells tell them.
const CRASHES: [(i32, &str); 3] = [(132, "SIGILL"), (135, "SIGBUS"), (139, "SIGSEGV")];

/// What loaders write when a program can't be started for want of a file (glibc, musl, qemu-user).
const LOADER_FAILURES: [&str; 5] = [
    "error while loading shared libraries: ",
    "Error loading shared library ",
    "Error relocating ",
    ": Could not open '",
    ": Invalid ELF image for this architecture",
];
/// The rules whose findings keep an image from being unpacked.
const KEEP_FROM_UNPACKING: [&str; 3] = ["layer-count", "layer-damaged", "diff-id"];
/// How much of what a program writes is looked at.
const MAX_SAID_BYTES: u64 = 16 << 10;

/// Executes the program of every platform of a report, whose layers are in the store, and adds what came of it.
///
/// # Errors
/// When this machine can't execute anything.
pub async fn execute_each(image: &FoundImage, report: &mut Report) -> Result<(), BuildError> {
    for platform in &mut report.platforms {
        execute(image, platform).await?;
    }
    report.settle();
    Ok(())
}

async fn execute(image: &FoundImage, report: &mut PlatformReport) -> Result<(), BuildError> {
    let (Some(platform), Some(config)) = (report.declared.clone(), report.config.as_ref()) else {
        return Ok(());
    };
    let entrypoint = config.config.entrypoint.as_ref().filter(|words| !words.is_empty());
    let program = entrypoint.or(config.config.cmd.as_ref()).and_then(|words| words.first()).cloned();
    let Some(program) = program else {
        report.findings.push(finding(
            Severity::Note,
            "exec-nothing",
            "the image names no program to execute",
        ));
        return Ok(());
    };
    if report.findings.iter().any(|finding| KEEP_FROM_UNPACKING.contains(&finding.rule)) {
        // Which was said.
        return Ok(());
    }
    let found = match run(image, report, &platform, &program).await {
        Ok(None) => return Ok(()),
        Ok(Some(problem)) => finding(Severity::Error, "exec-failed", problem),
        Err(error) if error.kind == ErrorKind::Platform => {
            let hint = error.hints.first().map(|hint| format!(" ({hint})")).unwrap_or_default();
            finding(Severity::Warning, "exec-unavailable", format!("{}{hint}", error.message))
        }
        Err(error) => return Err(error),
    };
    report.findings.push(found);
    Ok(())
}

/// Runs a program; returns why it could not be executed.
async fn run(
    image: &FoundImage,
    report: &PlatformReport,
    platform: &Platform,
    program: &str,
) -> Result<Option<String>, BuildError> {
    // A document of the store needs no name but its digest, and this host is nobody's (RFC 2606).
    let name: Reference = "verify.invalid/image"
        .parse()
        .map_err(|error| BuildError::from_source(ErrorKind::Usage, "no name for the image", &error))?;
    let request = RunRequest {
        platform: Some(platform.clone()),
        command: vec!["--version".to_owned()],
        entrypoint: Some(program.to_owned()),
        network: NetworkMode::None,
        pull: PullPolicy::Never,
        ..RunRequest::new(name.with_digest(report.digest.clone()))
    };
    let cancel = CancelFlag::default();
    let is_late = Arc::new(AtomicBool::new(false));
    let relay = SignalRelay::default();
    let (late, flag, running) = (is_late.clone(), cancel.clone(), relay.clone());
    let timer = tokio::spawn(async move {
        // Unpacking takes its time, which is not the program's.
        while !running.is_set() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        tokio::time::sleep(TIME_LIMIT).await;
        late.store(true, Ordering::Relaxed);
        flag.cancel();
    });
    let (said, stderr) = std::io::pipe()
        .map_err(|error| BuildError::from_source(ErrorKind::Sandbox, "can't make a pipe", &error))?;
    let said = tokio::task::spawn_blocking(move || beginning(said));
    let stdio = RunStdio { stderr: Some(stderr.into()), ..RunStdio::default() };
    let result = image.services.run_image(request, stdio, &image.shown.progress, cancel, relay).await;
    timer.abort();
    if is_late.load(Ordering::Relaxed) {
        return Ok(None);
    }
    match result {
        Ok(0) => Ok(None),
        Ok(code) => {
            if let Some((_, signal)) = CRASHES.iter().find(|(of_signal, _)| *of_signal == code) {
                return Ok(Some(format!("{program} --version was killed by {signal}")));
            }
            // The run has ended, and with it everything that could write.
            let said = said.await.unwrap_or_default();
            let is_failure = |line: &&str| LOADER_FAILURES.iter().any(|words| line.contains(words));
            Ok(said.lines().find(is_failure).map(|line| format!("{program} can't be executed: {line}")))
        }
        Err(error) if error.exit_code.is_some() => {
            Ok(Some(format!("{program} can't be executed: {}", error.message)))
        }
        // The image's user is not among its users, or its files are no tree.
        Err(error) if matches!(error.kind, ErrorKind::Usage | ErrorKind::Dockerfile | ErrorKind::Step) => {
            Ok(Some(format!("{program} can't be executed: {}", error.message)))
        }
        Err(error) => Err(error),
    }
}

/// Reads to the end and returns the beginning.
fn beginning(mut stream: std::io::PipeReader) -> String {
    let mut bytes = Vec::new();
    // What can't be read tells nothing.
    let _ = stream.by_ref().take(MAX_SAID_BYTES).read_to_end(&mut bytes);
    let _ = std::io::copy(&mut stream, &mut std::io::sink());
    String::from_utf8_lossy(&bytes).into_owned()
}
