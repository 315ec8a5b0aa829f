//! Where the table goes: redrawn in place on a terminal, a plain line each time elsewhere.

use std::io::{self, IsTerminal as _, Write as _};

use anyhow::Result;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::table::Paint;

pub(super) enum Display {
    Terminal(ProgressBar),
    Plain,
}

impl Display {
    pub(super) fn start() -> Self {
        if paint() == Paint::Plain {
            return Self::Plain;
        }
        let style = ProgressStyle::with_template("{msg}");
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stdout())
            .with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
        Self::Terminal(bar)
    }

    /// Shows the table on a terminal, the line elsewhere.
    pub(super) fn show(&self, table: &dyn Fn(Paint) -> String, line: &dyn Fn() -> String) -> Result<()> {
        match self {
            Self::Terminal(bar) => bar.set_message(table(Paint::Terminal)),
            // An error, unlike println: whoever read us is gone, and the lab ends in its order.
            Self::Plain => writeln!(io::stdout(), "{}", line())?,
        }
        Ok(())
    }
}

impl Drop for Display {
    /// What was shown last stays.
    fn drop(&mut self) {
        if let Self::Terminal(bar) = self {
            bar.abandon();
        }
    }
}

/// Whether what goes to standard output is in colour.
pub(super) fn paint() -> Paint {
    let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    if wanted && io::stdout().is_terminal() {
        Paint::Terminal
    } else {
        Paint::Plain
    }
}
