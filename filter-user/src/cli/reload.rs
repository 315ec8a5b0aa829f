//! `keyfence reload`.

use serde::Deserialize;
use serde_json::{Value, json};

use super::client::SocketArguments;
use super::exit::{Exit, Failure};
use super::policy;
use super::shell::Shell;

const AFTER_HELP: &str = "\
The daemon reads the file that `keyfence run` was given, as on SIGHUP. A policy with faults changes nothing: what \
was in force stays so. The caller must be one of `[daemon] operators` (default: root).

As by `keyfence apply`, a policy is refused that would drop the packets of a connection that stands: to a management port of \
this host, or held by this command's own ancestors, such as the SSH session that it runs in. SIGHUP and `systemctl reload` \
know of those to management ports alone.

Exit codes:
  0  the file is in force
  1  it could not be applied, or the caller is no operator
  2  wrong usage
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
    /// One JSON object: what is in force, or the problem
    #[arg(long)]
    json: bool,
}

/// What of the answer is told in words.
#[derive(Deserialize)]
struct Reloaded {
    detail: String,
    mode: Option<String>,
    mode_was: Option<String>,
}

pub(crate) fn run(arguments: &Arguments, shell: &Shell) -> Result<Exit, Failure> {
    let body = json!({ "connections": policy::held(shell) });
    let asked = ("/v1/reload", Some(body));
    let answer = policy::ask(&arguments.daemon.socket, asked, arguments.json, shell)?;
    if !arguments.json {
        policy::warn(&answer, shell);
        shell.write(&format!("{}\n", told(answer)?))?;
    }
    Ok(Exit::Done)
}

fn told(answer: Value) -> Result<String, Failure> {
    let answer: Reloaded = serde_json::from_value(answer).map_err(|error| {
        let text = format!("the daemon's answer is not understood: {error}");
        Failure::new(Exit::Failed, text)
    })?;
    let mode = match (answer.mode, answer.mode_was) {
        (Some(mode), Some(was)) => format!(", mode {mode} (was {was})"),
        _ => String::new(),
    };
    Ok(answer.detail + &mode)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mode_is_told_where_it_changes() {
        let mut answer =
            json!({ "schema": 1, "detail": "generation 8", "mode": "enforce", "mode_was": null });
        assert_eq!(told(answer.clone()).unwrap(), "generation 8");
        answer["mode_was"] = "observe".into();
        assert_eq!(
            told(answer.clone()).unwrap(),
            "generation 8, mode enforce (was observe)"
        );
        assert_eq!(
            told(json!({ "detail": "of an older daemon" })).unwrap(),
            "of an older daemon"
        );
    }
}
