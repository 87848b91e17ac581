// SPDX-License-Identifier: Apache-2.0
//! Renders the events of a build: plain lines, a live view of a terminal, JSON, or nothing.
//!
//! [`Display::start`] gives a [`Progress`] to send events to; a thread of its own owns the output and
//! draws at most ten times a second, whatever is sent. [`Display::finish`] draws the final state.
//! Output of steps is clipped before it is queued, so a step that writes without end costs no memory.

pub mod clip;
pub mod colors;
pub mod format;
pub mod plain;
pub mod rawjson;
pub mod trace;
pub mod tty;

use std::io::Write;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use polyarch_solver::progress::{Event, Progress};

pub use clip::LogLimits;
pub use colors::Colors;

/// How often the output changes at most.
const REFRESH_INTERVAL: Duration = Duration::from_millis(100);

/// How progress is shown, as named by `--progress`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProgressMode {
    /// A live view on a terminal, lines elsewhere.
    Auto,
    /// Lines.
    Plain,
    /// A live view; lines where there is no terminal.
    Tty,
    /// One JSON object per line, as BuildKit's status messages.
    RawJson,
    /// Nothing.
    Quiet,
}

impl ProgressMode {
    /// Reads the word of `--progress`; `None` for any other.
    pub fn parse(word: &str) -> Option<ProgressMode> {
        match word {
            "auto" | "" => Some(ProgressMode::Auto),
            "plain" => Some(ProgressMode::Plain),
            "tty" => Some(ProgressMode::Tty),
            "rawjson" => Some(ProgressMode::RawJson),
            "quiet" | "none" => Some(ProgressMode::Quiet),
            _ => None,
        }
    }

    /// Decides between the live view and lines.
    #[must_use]
    pub fn resolve(self, output_is_terminal: bool) -> ProgressMode {
        match self {
            ProgressMode::Auto | ProgressMode::Tty if output_is_terminal => ProgressMode::Tty,
            ProgressMode::Auto | ProgressMode::Tty => ProgressMode::Plain,
            other => other,
        }
    }
}

/// Turns events into output. Times are passed in, so that tests can fix them.
pub trait Renderer: Send {
    /// Takes one event; writes nothing yet.
    fn update(&mut self, event: Event, now: SystemTime);

    /// Writes what has changed since the last time.
    ///
    /// # Errors
    /// When the output can't be written.
    fn refresh(&mut self, out: &mut dyn Write, now: SystemTime) -> std::io::Result<()>;

    /// Writes the final state.
    ///
    /// # Errors
    /// When the output can't be written.
    fn finish(&mut self, out: &mut dyn Write, now: SystemTime) -> std::io::Result<()>;
}

/// How to show progress.
#[derive(Debug, Clone)]
pub struct DisplayOptions {
    /// The mode; [`ProgressMode::Auto`] counts as plain, resolve it first.
    pub mode: ProgressMode,
    /// Colours of the live view.
    pub colors: Colors,
    /// How much output of a step is shown.
    pub limits: LogLimits,
    /// How many lines of a running step's output the live view shows.
    pub log_lines: usize,
    /// A word about the builder, at the right of the live view's header.
    pub corner: String,
    /// What is built, as line `#0` of plain; empty for none.
    pub description: String,
    /// Tell all that is known about warnings.
    pub is_debug: bool,
}

enum Message {
    Event(Event),
    Finish,
}

/// The thread that owns the output.
pub struct Display {
    sender: Sender<Message>,
    thread: Option<JoinHandle<()>>,
}

impl Display {
    /// Starts showing progress on `out`, usually standard error.
    pub fn start(options: DisplayOptions, out: Box<dyn Write + Send>) -> (Progress, Display) {
        let (sender, receiver) = channel();
        let queue = sender.clone();
        let clipper = Mutex::new(clip::Clipper::new(options.limits));
        let progress = Progress::new(move |event| {
            let mut clipper = clipper.lock().unwrap_or_else(PoisonError::into_inner);
            // The lock is held while queueing, so that the pieces of a step's output keep their order.
            clipper.pass(event, |event| {
                // After the display has finished nobody reads, and nothing need be told.
                let _ = queue.send(Message::Event(event));
            });
        });
        let thread = renderer(&options).and_then(|renderer| {
            std::thread::Builder::new()
                .name("progress".to_owned())
                .spawn(move || show(renderer, &receiver, out))
                .ok()
        });
        (progress, Display { sender, thread })
    }

    /// Draws what has come until now and ends; later events are dropped.
    pub fn finish(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let _ = self.sender.send(Message::Finish);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        self.end();
    }
}

fn renderer(options: &DisplayOptions) -> Option<Box<dyn Renderer>> {
    match options.mode {
        ProgressMode::Quiet => None,
        ProgressMode::RawJson => Some(Box::new(rawjson::RawJson::default())),
        ProgressMode::Plain | ProgressMode::Auto => {
            Some(Box::new(plain::Plain::new(options.description.clone(), options.is_debug)))
        }
        ProgressMode::Tty => Some(Box::new(tty::Tty::new(tty::TtyOptions {
            colors: options.colors,
            log_lines: options.log_lines,
            description: options.corner.clone(),
            is_debug: options.is_debug,
            size: tty::terminal_size,
        }))),
    }
}

/// Draws until told to finish. An output that went away ends the drawing, never the build.
fn show(mut renderer: Box<dyn Renderer>, receiver: &Receiver<Message>, mut out: Box<dyn Write + Send>) {
    let mut next_refresh = Instant::now();
    let mut is_writable = true;
    loop {
        match receiver.recv_timeout(next_refresh.saturating_duration_since(Instant::now())) {
            Ok(Message::Event(event)) => renderer.update(event, SystemTime::now()),
            Ok(Message::Finish) | Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {}
        }
        if is_writable && Instant::now() >= next_refresh {
            is_writable = renderer.refresh(&mut *out, SystemTime::now()).is_ok();
        }
        if Instant::now() >= next_refresh {
            next_refresh = Instant::now() + REFRESH_INTERVAL;
        }
    }
    if is_writable {
        let _ = renderer.finish(&mut *out, SystemTime::now()).and_then(|()| out.flush());
    }
}
