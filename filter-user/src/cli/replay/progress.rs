//! How far a replay is, on standard error: only for people, and only where there is something to wait for.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::super::words::{rate, thousands};

/// What takes no longer needs no bar.
const PATIENCE: Duration = Duration::from_secs(2);
/// Frames between two looks at the clock.
const STEP: u64 = 4096;

pub(super) struct Progress {
    bar: ProgressBar,
    started: Instant,
    frames: u64,
    shown: bool,
    /// Bytes of the files before this one.
    before: u64,
}

impl Progress {
    /// `lines_on_terminal`: a bar between lines of data would spoil both.
    pub(super) fn new(bytes: u64, lines_on_terminal: bool) -> Self {
        let bar = ProgressBar::with_draw_target(Some(bytes), ProgressDrawTarget::hidden());
        let style = ProgressStyle::with_template("{bar:30} {bytes}/{total_bytes}  {msg}  {eta} left");
        if let Ok(style) = style {
            bar.set_style(style);
        }
        Self {
            bar,
            started: Instant::now(),
            frames: 0,
            // As if it were shown already: it will not be.
            shown: lines_on_terminal || !std::io::stderr().is_terminal(),
            before: 0,
        }
    }

    /// One more frame; `taken` are the bytes read of the file at hand.
    pub(super) fn frame(&mut self, taken: u64) {
        self.frames += 1;
        if self.frames.is_multiple_of(STEP) {
            self.look(taken);
        }
    }

    fn look(&mut self, taken: u64) {
        let elapsed = self.started.elapsed();
        if !self.shown && elapsed >= PATIENCE {
            self.shown = true;
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        self.bar.set_message(format!(
            "{} frames, {}/s",
            thousands(self.frames),
            rate(self.frames, elapsed)
        ));
        self.bar.set_position(self.before + taken);
    }

    pub(super) fn file_done(&mut self, bytes: u64) {
        self.before += bytes;
    }

    /// Takes the bar away; gives the time it all took.
    pub(super) fn done(&self) -> Duration {
        self.bar.finish_and_clear();
        self.started.elapsed()
    }
}
