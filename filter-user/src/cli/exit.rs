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
    /// Where the daemon was asked, and `--json` has shown nothing of it yet: what it answered, or nothing.
    pub(crate) answer: Option<String>,
}

impl Failure {
    pub(crate) fn new(exit: Exit, text: impl Display) -> Failure {
        Failure {
            exit,
            text: text.to_string(),
            answer: None,
        }
    }

    /// Of a daemon that was asked.
    pub(crate) fn answered(self, answer: &str) -> Failure {
        Failure {
            answer: Some(answer.to_owned()),
            ..self
        }
    }

    /// The same with another way out.
    pub(crate) fn or(self, way: &str) -> Failure {
        Failure {
            text: format!("{}; {way}", self.text),
            ..self
        }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Failure {
        // With its causes, in one line.
        Failure::new(Exit::Failed, format!("{error:#}"))
    }
}
