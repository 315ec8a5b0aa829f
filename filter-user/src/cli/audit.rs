//! `keyfence audit`: the log of who changed what, shown and checked.

use std::path::PathBuf;

use hyper::Method;
use serde_json::{Value, json};

use super::client::{self, SocketArguments};
use super::exit::{Exit, Failure};
use super::shell::Shell;
use crate::bindings::audit::{self as log, VerifyError};

const AFTER_HELP: &str = "\
Every change is one line, chained by hashes, written before its answer. A head that was kept elsewhere (in a \
status, or in the checkpoints that every sink of records gets each minute) shows a log that was cut or rewritten since. \
The daemon looks for that at each start, by what its store knows of the log, and writes a line `cut` where lines are \
missing: verify then fails until a later head is named.

Exit codes:
  0  shown, or the log is whole
  1  failed
  2  wrong usage
  5  the daemon is not reachable
  6  the log is broken or tells of a cut, does not hold the head, or a sync's change file is missing or changed

Examples:
  keyfence audit show --from 1 | jq .
  keyfence audit verify
  keyfence audit verify --head 5b11618c2e440278";

const AFTER_SHOW: &str = "\
The daemon is asked; each line is one JSON object.

Exit codes:
  0  shown
  1  failed
  2  wrong usage
  5  the daemon is not reachable

Example:
  keyfence audit show --from 1 | jq .";

const AFTER_VERIFY: &str = "\
Exit codes:
  0  the log is whole
  1  failed: it cannot be read
  2  wrong usage
  6  the log is broken or tells of a cut, does not hold the head, or a sync's change file is missing or changed

Examples:
  keyfence audit verify
  keyfence audit verify --head 5b11618c2e440278";

/// Show or check the audit log
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// The lines, as they stand in the log
    #[command(after_help = AFTER_SHOW)]
    Show {
        /// The first line
        #[arg(long, value_name = "N", default_value = "1")]
        from: u64,
        /// At most so many
        #[arg(long, value_name = "N", default_value = "1000")]
        limit: usize,
        #[command(flatten)]
        daemon: SocketArguments,
        /// Changes nothing here: the lines are JSON
        #[arg(long)]
        json: bool,
    },
    /// Check that each line follows from the one before, also with the daemon stopped
    #[command(after_help = AFTER_VERIFY)]
    Verify {
        /// The log
        #[arg(value_name = "FILE", default_value = "/var/lib/keyfence/audit.jsonl")]
        file: PathBuf,
        /// A head that was told earlier: 8 digits or more of its hash
        #[arg(long, value_name = "HASH", value_parser = hash)]
        head: Option<String>,
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
}

pub(super) fn hash(text: &str) -> Result<String, String> {
    let digits = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if digits && (8..=64).contains(&text.len()) {
        Ok(text.to_ascii_lowercase())
    } else {
        Err("a hash is 8 to 64 hexadecimal digits".to_owned())
    }
}

pub(crate) fn run(arguments: &Arguments, shell: &Shell) -> Result<Exit, Failure> {
    match &arguments.what {
        What::Show {
            from, limit, daemon, ..
        } => show(*from, *limit, daemon, shell),
        What::Verify { file, head, json } => check(file, head.as_deref(), *json, shell),
    }
}

fn show(from: u64, limit: usize, daemon: &SocketArguments, shell: &Shell) -> Result<Exit, Failure> {
    let (mut from, mut left) = (from, limit);
    while left > 0 {
        let asked = left.min(1_000);
        let path = format!("/v1/audit?from={from}&limit={asked}");
        let lines = client::ask(&daemon.socket, Method::GET, &path, client::PATIENCE)?;
        let count = lines.lines().count();
        shell.write(&lines)?;
        if count < asked {
            break;
        }
        from += count as u64;
        left -= count;
    }
    Ok(Exit::Done)
}

fn check(file: &std::path::Path, head: Option<&str>, as_json: bool, shell: &Shell) -> Result<Exit, Failure> {
    let shown = file.display();
    let (exit, object, text): (Exit, Value, String) = match log::verify(file, head) {
        Ok(verified) => {
            let torn = match verified.torn_bytes {
                0 => String::new(),
                bytes => format!("; {bytes} bytes after it are of a line that was never finished"),
            };
            let head = &verified.head;
            (
                Exit::Done,
                json!({ "whole": true, "line": head.line, "hash": head.hash, "torn_bytes": verified.torn_bytes }),
                format!("{shown} is whole: line {}, hash {}{torn}\n", head.line, head.hash),
            )
        }
        Err(VerifyError::Io(error)) => {
            let fix = "name the log as FILE; only root and the daemon's user may read it";
            return Err(Failure::new(Exit::Failed, format!("{shown}: {error}; {fix}")));
        }
        Err(broken) => (
            Exit::Degraded,
            json!({ "whole": false, "why": broken.to_string() }),
            format!("{shown} does not match: {broken}\n"),
        ),
    };
    if as_json {
        let mut object = object;
        object["schema"] = 1.into();
        shell.write(&format!("{object}\n"))?;
    } else {
        shell.write(&text)?;
    }
    Ok(exit)
}
