//! The built program, run as an operator runs it. Tests that load programs into the kernel need root: they fail with
//! the reason, they are never left out.

use std::path::Path;
use std::process::Command;

use crate::harness::{keyfence, keyfence_path, output, system};

/// What a run came to.
#[derive(Debug)]
pub struct Ended {
    pub exit: i32,
    pub output: String,
    pub errors: String,
}

impl Ended {
    /// Standard output as one object a line.
    pub fn lines(&self) -> Vec<serde_json::Value> {
        let lines = self.output.lines();
        lines
            .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
            .collect()
    }

    /// Standard output as one object.
    pub fn object(&self) -> serde_json::Value {
        serde_json::from_str(&self.output).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Runs it in a folder; fails the test where it cannot be started or was killed.
pub fn run(folder: &Path, arguments: &[&str]) -> Ended {
    ended(keyfence(), folder, arguments)
}

/// The same without any capability; still as root, so that a clone below a private folder can be reached.
pub fn run_without_rights(folder: &Path, arguments: &[&str]) -> Ended {
    let mut command = system("setpriv");
    command
        .args(["--inh-caps=-all", "--bounding-set=-all"])
        .arg(keyfence_path());
    ended(command, folder, arguments)
}

fn ended(mut command: Command, folder: &Path, arguments: &[&str]) -> Ended {
    let ended = output(command.args(arguments).current_dir(folder).env("NO_COLOR", "1"));
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("the program writes text");
    Ended {
        exit: ended.status.code().expect("it ended by itself"),
        output: text(ended.stdout),
        errors: text(ended.stderr),
    }
}
