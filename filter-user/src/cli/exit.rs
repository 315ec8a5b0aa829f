//! Exit codes, and failures that carry theirs.

use std::fmt::Display;
use std::process::ExitCode;

/// How a command ended; scripts rely on the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    Done = 0,
    Failed = 1,
    Usage = 2,
    PolicyInvalid = 3,
    Refused = 4,
    Unreachable = 5,
    Degraded = 6,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

/// Why a command did not do what was asked: what, where and how to fix it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    pub(crate) text: String,
}

impl Failure {
    pub(crate) fn new(exit: Exit, text: impl Display) -> Failure {
        Failure {
            exit,
            text: text.to_string(),
        }
    }

    /// The same with another way out.
    pub(crate) fn or(self, way: &str) -> Failure {
        Failure::new(self.exit, format!("{}; {way}", self.text))
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Failure {
        // With its causes, in one line.
        Failure::new(Exit::Failed, format!("{error:#}"))
    }
}
