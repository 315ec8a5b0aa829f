//! Says what is measured now: one moving line on a terminal, plain lines elsewhere.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

const SPINNER_EVERY: Duration = Duration::from_millis(120);

pub(crate) struct Progress {
    spinner: Option<ProgressBar>,
    started: Instant,
}

impl Progress {
    pub(crate) fn start() -> Self {
        let spinner = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{spinner} [{elapsed}] {wide_msg}");
            let spinner = ProgressBar::new_spinner();
            spinner.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
            spinner.enable_steady_tick(SPINNER_EVERY);
            spinner
        });
        Self {
            spinner,
            started: Instant::now(),
        }
    }

    pub(crate) fn step(&self, what: &str) {
        match &self.spinner {
            Some(spinner) => spinner.set_message(what.to_owned()),
            None => eprintln!("[{:>4} s] {what}", self.started.elapsed().as_secs()),
        }
    }

    pub(crate) fn end(self) {
        if let Some(spinner) = &self.spinner {
            spinner.finish_and_clear();
        }
        eprintln!("measured in {:.0} s", self.started.elapsed().as_secs_f64());
    }
}
