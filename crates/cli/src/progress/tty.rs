// SPDX-License-Identifier: Apache-2.0
//! Progress as a live view of a terminal: a header, a row per step, rows of its parts, and a window on
//! the output of steps that run.
//!
//! Each refresh draws over the last one. The cursor is hidden only while drawing, so a process that is
//! killed leaves the terminal as it was. The final state stays, with every step.

use std::collections::VecDeque;
use std::io::Write;
use std::time::{Duration, SystemTime};

use polyarch_solver::progress::{Event, VertexLog};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::Renderer;
use super::colors::{Color, Colors};
use super::format::{amount, between};
use super::trace::{State, Step, Trace};
use crate::visible_text::visible_line;

/// Width and height of a terminal whose size is not known.
const DEFAULT_SIZE: (usize, usize) = (80, 24);
/// Below this many columns a row can't say anything.
const MIN_NAME_WIDTH: usize = 12;
/// A line of output is kept up to here; more never fits a terminal.
const MAX_LINE_BYTES: usize = 4096;

/// How to draw.
pub struct TtyOptions {
    /// The colours.
    pub colors: Colors,
    /// How many lines of a running step's output are shown.
    pub log_lines: usize,
    /// A word about the builder, at the right of the header.
    pub description: String,
    /// Tell all that is known about warnings.
    pub is_debug: bool,
    /// Tells width and height of the terminal; asked at each refresh, so that it can be resized.
    pub size: fn() -> (usize, usize),
}

/// Returns the width and height of the terminal on standard error.
pub fn terminal_size() -> (usize, usize) {
    match rustix::termios::tcgetwinsize(std::io::stderr()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => {
            (usize::from(size.ws_col), usize::from(size.ws_row))
        }
        _ => DEFAULT_SIZE,
    }
}

/// Renders events as a live view.
pub struct Tty {
    options: TtyOptions,
    trace: Trace,
    windows: Vec<LogWindow>,
    started: Option<SystemTime>,
    /// The widths of the lines on the screen that the next drawing replaces.
    drawn_widths: Vec<usize>,
}

/// The last lines of a step's output.
#[derive(Default)]
struct LogWindow {
    lines: VecDeque<String>,
    partial: Vec<u8>,
    updated: Option<SystemTime>,
}

/// One line to draw.
struct Row {
    text: String,
    paint: Paint,
    /// Rows of steps that have ended may give way when the terminal is too low.
    is_completed: bool,
    /// The step whose output is shown below this row.
    log_of: Option<usize>,
}

#[derive(Clone, Copy)]
enum Paint {
    Plain,
    Faint,
    In(Color),
}

impl Tty {
    /// Makes a renderer.
    pub fn new(options: TtyOptions) -> Tty {
        Tty { options, trace: Trace::default(), windows: Vec::new(), started: None, drawn_widths: Vec::new() }
    }

    fn log(&mut self, log: &VertexLog, now: SystemTime) {
        let Some(index) = self.trace.index(&log.vertex) else { return };
        let keep = self.options.log_lines;
        let window = &mut self.windows[index];
        window.updated = Some(now);
        for piece in log.data.split_inclusive(|byte| *byte == b'\n') {
            let room = MAX_LINE_BYTES.saturating_sub(window.partial.len());
            window.partial.extend_from_slice(&piece[..piece.len().min(room)]);
            if piece.ends_with(b"\n") {
                window.lines.push_back(visible_line(&window.partial));
                window.partial.clear();
                while window.lines.len() > keep {
                    window.lines.pop_front();
                }
            }
        }
    }

    fn header(&self, width: usize, is_final: bool, now: SystemTime) -> String {
        let total = self.trace.steps.len();
        let done = self.trace.steps.iter().filter(|step| step.is_completed()).count();
        let elapsed = between(self.started.unwrap_or(now), now).as_secs_f64();
        let finished = if is_final || (total > 0 && done == total) { " FINISHED" } else { "" };
        let left = format!("[+] Building {elapsed:.1}s ({done}/{total}){finished}");
        align(&left, &self.options.description, width)
    }

    fn rows(&self, width: usize, now: SystemTime) -> Vec<Row> {
        let colors = &self.options.colors;
        let mut rows = Vec::new();
        let shown = |step: &Step| step.vertex.started.is_some() || step.is_completed();
        for (index, step) in self.trace.steps.iter().enumerate().filter(|(_, step)| shown(step)) {
            let (prefix, paint) = match step.state() {
                State::Waiting | State::Running => ("", Paint::Plain),
                State::Done => ("", Paint::In(colors.run)),
                State::Cached => ("CACHED ", Paint::In(colors.run)),
                State::Canceled => ("CANCELED ", Paint::In(colors.cancel)),
                State::Failed => ("ERROR ", Paint::In(colors.error)),
            };
            let is_completed = step.is_completed();
            let name = format!("{prefix}{}", step.name());
            let log_of = (step.state() == State::Running).then_some(index);
            let duration = step.duration(now);
            rows.extend(row(&name, "", duration, width).map(|text| Row {
                text,
                paint,
                is_completed,
                log_of,
            }));
            for (status, updated) in &step.statuses {
                let end = status.completed.unwrap_or(if is_completed { *updated } else { now });
                let duration = between(status.started.unwrap_or(*updated), end);
                let name = format!("=> {}", visible_line(status.id.as_bytes()));
                let amount = amount(status.current, status.total);
                let paint = if status.completed.is_some() { Paint::In(colors.run) } else { Paint::Plain };
                rows.extend(row(&name, amount.trim_start(), duration, width).map(|text| Row {
                    text,
                    paint,
                    is_completed,
                    log_of: None,
                }));
            }
        }
        rows
    }

    /// Puts windows on the output of running steps where there is room for them, the liveliest first.
    fn insert_windows(&self, rows: Vec<Row>, width: usize, height: usize) -> Vec<Row> {
        let mut free = height.saturating_sub(rows.len());
        let mut candidates: Vec<usize> = rows
            .iter()
            .filter_map(|row| row.log_of)
            .filter(|index| !self.windows[*index].is_empty())
            .collect();
        candidates.sort_by_key(|index| std::cmp::Reverse(self.windows[*index].updated));
        candidates.retain(|index| {
            let lines = self.windows[*index].visible_lines(self.options.log_lines).len();
            let fits = lines <= free;
            free -= if fits { lines } else { 0 };
            fits
        });
        let mut out = Vec::new();
        for row in rows {
            let log_of = row.log_of.filter(|index| candidates.contains(index));
            out.push(row);
            for line in log_of.map_or(Vec::new(), |at| self.windows[at].visible_lines(self.options.log_lines))
            {
                let text = cut(&format!(" => => # {line}"), width.saturating_sub(1));
                out.push(Row { text, paint: Paint::Faint, is_completed: false, log_of: None });
            }
        }
        out
    }

    fn draw(&mut self, out: &mut dyn Write, is_final: bool, now: SystemTime) -> std::io::Result<()> {
        if self.trace.steps.is_empty() {
            return Ok(());
        }
        let (width, height) = (self.options.size)();
        // One line for the header, one for the cursor below.
        let room = height.saturating_sub(2).max(1);
        let mut rows = self.rows(width, now);
        if !is_final {
            rows = drop_completed(rows, room);
            rows = self.insert_windows(rows, width, room);
        }
        let header = self.header(width, is_final, now);
        let mut text = String::from("\x1b[?25l");
        // A terminal that has become narrower has wrapped the lines drawn before.
        let up: usize = self.drawn_widths.iter().map(|drawn| drawn.max(&1).div_ceil(width.max(1))).sum();
        if up > 0 {
            text.push_str(&format!("\x1b[{up}A\r"));
        }
        self.drawn_widths.clear();
        let header = Row { text: header, paint: Paint::Plain, is_completed: false, log_of: None };
        for row in std::iter::once(&header).chain(&rows) {
            self.drawn_widths.push(row.text.width());
            let painted = match row.paint {
                Paint::Plain => row.text.clone(),
                Paint::Faint => self.options.colors.faint(&row.text),
                Paint::In(color) => self.options.colors.paint(color, &row.text),
            };
            text.push_str(&painted);
            text.push_str("\x1b[K\n");
        }
        text.push_str("\x1b[J\x1b[?25h");
        out.write_all(text.as_bytes())?;
        out.flush()
    }
}

impl Renderer for Tty {
    fn update(&mut self, event: Event, now: SystemTime) {
        self.started.get_or_insert(now);
        match event {
            Event::Vertex(vertex) => {
                self.trace.vertex(vertex);
                self.windows.resize_with(self.trace.steps.len(), LogWindow::default);
            }
            Event::Status(status) => {
                self.trace.status(status, now);
            }
            Event::Log(log) => self.log(&log, now),
            Event::Warning(warning) => {
                self.trace.warning(warning);
            }
        }
    }

    fn refresh(&mut self, out: &mut dyn Write, now: SystemTime) -> std::io::Result<()> {
        self.draw(out, false, now)
    }

    fn finish(&mut self, out: &mut dyn Write, now: SystemTime) -> std::io::Result<()> {
        self.draw(out, true, now)?;
        let summary = self.trace.warning_summary(self.options.is_debug);
        let colors = &self.options.colors;
        let painted: String =
            summary.lines().map(|line| format!("{}\n", colors.paint(colors.warning, line))).collect();
        out.write_all(painted.as_bytes())
    }
}

impl LogWindow {
    fn is_empty(&self) -> bool {
        self.lines.is_empty() && self.partial.is_empty()
    }

    /// Returns the last lines, with the one that has no end yet.
    fn visible_lines(&self, count: usize) -> Vec<String> {
        let mut lines: Vec<String> = self.lines.iter().cloned().collect();
        let partial = visible_line(&self.partial);
        if !partial.is_empty() {
            lines.push(partial);
        }
        lines.split_off(lines.len().saturating_sub(count))
    }
}

/// Lays out ` => NAME STATUS   0.4s`; nothing when the terminal is too narrow.
fn row(name: &str, status: &str, duration: Duration, width: usize) -> Option<String> {
    let timer = format!("{:.1}s", duration.as_secs_f64());
    let mut left = width.checked_sub(" => ".len() + timer.len() + 2)?;
    // A status is worth more than the end of a name, as long as enough of the name remains.
    let status = if !status.is_empty() && left > status.width() + 20 {
        left -= status.width() + 1;
        format!(" {status}")
    } else {
        String::new()
    };
    if left < MIN_NAME_WIDTH {
        return None;
    }
    Some(align(&format!(" => {}{status}", cut(name, left)), &timer, width))
}

/// Puts two texts at the two ends of a line that is one column narrower than the terminal.
fn align(left: &str, right: &str, width: usize) -> String {
    let width = width.saturating_sub(1);
    if left.width() + right.width() + 1 > width {
        return cut(left, width);
    }
    let gap = width - left.width() - right.width();
    if right.is_empty() { left.to_owned() } else { format!("{left}{}{right}", " ".repeat(gap)) }
}

/// Cuts a text to a number of columns.
fn cut(text: &str, width: usize) -> String {
    let mut used = 0;
    let fits = |c: &char| {
        used += c.width().unwrap_or(0);
        used <= width
    };
    text.chars().take_while(fits).collect()
}

/// Drops rows of steps that have ended, the oldest first, then the oldest of the others.
fn drop_completed(mut rows: Vec<Row>, room: usize) -> Vec<Row> {
    let mut excess = rows.len().saturating_sub(room);
    rows.retain(|row| {
        let is_dropped = excess > 0 && row.is_completed;
        excess -= usize::from(is_dropped);
        !is_dropped
    });
    rows.split_off(rows.len().saturating_sub(room))
}
