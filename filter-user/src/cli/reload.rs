//! `keyfence reload`.

use std::time::Duration;

use hyper::Method;
use serde::Deserialize;

use super::client::{self, SocketArguments};
use super::exit::{Exit, Failure};
use super::shell::Shell;

/// A policy of millions of sources takes its time; the daemon gives up at the same time.
const PATIENCE: Duration = Duration::from_secs(605);

const AFTER_HELP: &str = "\
The daemon reads the file that `keyfence run` was given, as on SIGHUP. A policy with faults changes nothing: what \
was in force stays so. The caller must be one of `[daemon] operators` (default: root).

Exit codes:
  0  the file is in force
  1  it could not be applied, or the caller is no operator
  3  the policy is invalid
  4  a guard refused it
  5  the daemon is not reachable

Example:
  keyfence check /etc/keyfence/keyfence.toml && keyfence reload";

/// Let the daemon apply its policy file again
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    #[command(flatten)]
    daemon: SocketArguments,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Deserialize)]
struct Reloaded {
    detail: String,
}

pub(crate) fn run(arguments: &Arguments, shell: &Shell) -> Result<Exit, Failure> {
    let body = client::ask(&arguments.daemon.socket, Method::POST, "/v1/reload", PATIENCE)?;
    if arguments.json {
        shell.write(&format!("{}\n", body.trim_end()))?;
    } else {
        let answer: Reloaded = serde_json::from_str(&body).map_err(|error| {
            Failure::new(
                Exit::Failed,
                format!("the daemon's answer is not understood: {error}"),
            )
        })?;
        shell.write(&format!("{}\n", answer.detail))?;
    }
    Ok(Exit::Done)
}
