// SPDX-License-Identifier: Apache-2.0
//! Runs processes in sandboxes as it is told: what the integration tests drive.
//!
//! Standard input is a [`Request`] as JSON, since tests say more than a command line would; standard output gets one
//! line of JSON, an [`Answer`].

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use polyarch_oci::Platform;
use polyarch_sandbox::emulation::{Emulation, EmulationConfig, Support};
use polyarch_sandbox::user_namespace::{EnterOptions, enter};
use polyarch_sandbox::{
    CancelFlag, ExitStatus, Launcher, LauncherOptions, ProcessSpec, RootFs, SandboxError, Stdio, launcher,
};
use serde::{Deserialize, Serialize};

/// What is to be done.
#[derive(Deserialize)]
struct Request {
    scratch: PathBuf,
    runs: Vec<Run>,
    /// Whether the runs happen at the same time.
    #[serde(default)]
    at_once: bool,
    /// The platforms to be made runnable first.
    #[serde(default)]
    platforms: Vec<Platform>,
    emulation: Option<EmulationConfig>,
}

/// One container.
#[derive(Deserialize)]
struct Run {
    root: RootFs,
    spec: ProcessSpec,
    /// Whether the first output of the process cancels the run.
    #[serde(default)]
    cancel_on_output: bool,
    /// A signal to send at the first output of the process.
    #[serde(default)]
    signal_on_output: Option<i32>,
    /// Whether the process gets the terminal of this one instead of pipes.
    #[serde(default)]
    on_terminal: bool,
}

/// What came of it.
#[derive(Serialize)]
struct Answer {
    mapping: String,
    support: Vec<Support>,
    results: Vec<Outcome>,
}

#[derive(Serialize, Default)]
struct Outcome {
    code: Option<i32>,
    signal: Option<i32>,
    error: Option<String>,
    output: String,
    microseconds: u64,
}

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some(launcher::ARGUMENT) {
        return launcher::main();
    }
    let answer = match serve() {
        Ok(answer) => serde_json::to_vec(&answer),
        Err(error) => serde_json::to_vec(&serde_json::json!({ "failure": error.to_string() })),
    };
    let mut line = answer.unwrap_or_default();
    line.push(b'\n');
    match std::io::stdout().write_all(&line) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn serve() -> Result<Answer, Box<dyn std::error::Error + Send + Sync>> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text)?;
    let request: Request = serde_json::from_str(&text)?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mapping = format!("{:?}", enter(&EnterOptions::for_path(&path))?);
    // Lives as long as the containers: with it the registrations would go.
    let mut emulation = request.emulation.map(Emulation::prepare);
    let support =
        emulation.as_mut().map(|emulation| emulation.support(&request.platforms)).unwrap_or_default();
    let options = LauncherOptions { program: "/proc/self/exe".into(), scratch_directory: request.scratch };
    let launcher = Launcher::start(options)?;
    let results = if request.at_once {
        std::thread::scope(|scope| {
            let threads: Vec<_> =
                request.runs.iter().map(|run| scope.spawn(|| run_one(&launcher, run))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap_or_default()).collect()
        })
    } else {
        request.runs.iter().map(|run| run_one(&launcher, run)).collect()
    };
    Ok(Answer { mapping, support, results })
}

fn run_one(launcher: &Launcher, run: &Run) -> Outcome {
    match try_run(launcher, run) {
        Ok(outcome) => outcome,
        Err(error) => Outcome { error: Some(chain(&error)), ..Outcome::default() },
    }
}

fn try_run(launcher: &Launcher, run: &Run) -> Result<Outcome, SandboxError> {
    // With a terminal nothing is written to the pipe, and its end is read at once.
    let pipe = || std::io::pipe().map_err(|source| SandboxError::System { action: "make a pipe", source });
    let (mut reader, writer) = pipe()?;
    let second = OwnedFd::from(
        writer.try_clone().map_err(|source| SandboxError::System { action: "duplicate a pipe", source })?,
    );
    let cancel = CancelFlag::new()?;
    let started = Instant::now();
    let stdio = match run.on_terminal {
        true => {
            drop((writer, second));
            terminal()
                .map_err(|source| SandboxError::System { action: "duplicate standard error", source })?
        }
        false => Stdio { stdin: None, stdout: Some(writer.into()), stderr: Some(second) },
    };
    let handle = launcher.spawn(&run.root, &run.spec, stdio)?;
    let mut output = Vec::new();
    if run.cancel_on_output || run.signal_on_output.is_some() {
        let mut first = [0u8; 1];
        if reader.read(&mut first).is_ok_and(|count| count == 1) {
            output.push(first[0]);
        }
        if let Some(signal) = run.signal_on_output {
            handle.signal(signal)?;
        }
        if run.cancel_on_output {
            cancel.cancel();
        }
    }
    // The end of the output is the end of every process that has it.
    let rest = std::thread::spawn(move || {
        let mut rest = Vec::new();
        let _ = reader.read_to_end(&mut rest);
        rest
    });
    let result = handle.wait(&cancel);
    output.extend(rest.join().unwrap_or_default());
    let mut outcome = Outcome {
        output: String::from_utf8_lossy(&output).into_owned(),
        microseconds: started.elapsed().as_micros() as u64,
        ..Outcome::default()
    };
    match result {
        Ok(ExitStatus::Code(code)) => outcome.code = Some(code),
        Ok(ExitStatus::Signal(signal)) => outcome.signal = Some(signal),
        Err(error) => outcome.error = Some(chain(&error)),
    }
    Ok(outcome)
}

/// The terminal that standard error is.
fn terminal() -> std::io::Result<Stdio> {
    let terminal = || std::io::stderr().as_fd().try_clone_to_owned().map(Some);
    Ok(Stdio { stdin: terminal()?, stdout: terminal()?, stderr: terminal()? })
}

/// The whole chain of causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}
