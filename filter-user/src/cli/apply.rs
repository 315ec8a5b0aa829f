//! `keyfence apply`, `confirm` and `rollback`: a policy put in force, for good or until it is confirmed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use super::bindings::duration;
use super::client::SocketArguments;
use super::exit::{Exit, Failure};
use super::past;
use super::policy::{self, short};
use super::shell::Shell;

const AFTER_HELP: &str = "\
The file and what it includes are read with the caller's rights and sent to the daemon, which judges them, tries each \
`[[expect]]` in the kernel program, and swaps all tables at once. It stays in force over restarts, whatever the file that \
`keyfence run` was given says. The caller must be one of `[daemon] operators` (default: root).

A policy is refused that would drop the packets of a connection that stands: to a management port of this host, or held \
by this command's own ancestors, such as the SSH session that it runs in. `--force` applies it all the same; \
`--confirm-within` applies it for so long, and the kernel puts the one before back unless `keyfence confirm` comes in time.

What then goes past the filter is named: other interfaces, devices that unwrap (tunnels, VPNs), addresses that no service \
has, ports that NAT publishes. `keyfence doctor` says what each means and what to do.

Exit codes:
  0  in force
  1  it could not be applied, or the caller is no operator
  2  wrong usage
  3  the policy is invalid, or an `[[expect]]` differs
  4  it would cut a connection, or another policy waits to be confirmed
  5  the daemon is not reachable

Examples:
  keyfence apply keyfence.toml
  keyfence apply keyfence.toml --confirm-within 60s && keyfence confirm";

/// Those that stand may go on as replies, with the daemon's next policy as with this one.
const PROOF: &str =
    "only a new connection shows that you still get in: one that stands may go on whatever the policy says";

/// Put a policy file in force
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    /// The policy file
    #[arg(value_name = "FILE", default_value = super::POLICY_FILE)]
    file: PathBuf,
    /// Put the policy before back after this time, unless `keyfence confirm` comes first
    #[arg(long, value_name = "DURATION", value_parser = trial)]
    confirm_within: Option<Duration>,
    /// Whatever connection it cuts
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    daemon: SocketArguments,
    /// One JSON object: the plan that was carried out, or the problem
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments, shell: &Shell) -> Result<Exit, Failure> {
    let mut body = policy::body(&arguments.file, arguments.json, shell)?;
    if arguments.confirm_within.is_some() && !arguments.json {
        forewarn(&body, &arguments.daemon.socket, shell)?;
    }
    guard(&mut body, arguments.confirm_within, arguments.force, shell);
    let asked = ("/v1/policy/apply", Some(body));
    let applied = policy::ask(&arguments.daemon.socket, asked, arguments.json, shell)?;
    if !arguments.json {
        policy::warn(&applied, shell);
        shell.write(&policy::page(&applied, shell))?;
        shell.write(&outcome(&applied))?;
        if applied["pending"].is_null() {
            policy::remind(&arguments.daemon.socket, shell);
        } else {
            shell.say(PROOF);
        }
    }
    past::warn(&arguments.file, shell);
    Ok(Exit::Done)
}

/// Before the swap, since over a connection that it cuts nothing more is told.
fn forewarn(body: &Value, socket: &Path, shell: &Shell) -> Result<(), Failure> {
    let mut body = body.clone();
    body["connections"] = policy::held(shell);
    let plan = policy::ask(socket, ("/v1/policy/plan", Some(body)), false, shell)?;
    policy::warn_of_cut(&plan, shell);
    Ok(())
}

/// How the change is guarded: by its time, or by the connections that it may not cut.
fn guard(body: &mut Value, confirm_within: Option<Duration>, force: bool, shell: &Shell) {
    if let Some(time) = confirm_within {
        body["confirm_seconds"] = seconds(time);
    } else if !force {
        body["connections"] = policy::held(shell);
    }
    body["force"] = force.into();
}

/// How long a trial lasts.
fn trial(text: &str) -> Result<Duration, String> {
    let time = duration(text)?;
    match time.is_zero() {
        true => Err("a trial of no time cannot be confirmed: write 60s, say".to_owned()),
        false => Ok(time),
    }
}

/// As the API has it, to the millisecond, which is as fine as a duration can be written.
fn seconds(time: Duration) -> Value {
    match time.subsec_millis() {
        0 => time.as_secs().into(),
        _ => time.as_secs_f64().into(),
    }
}

fn outcome(applied: &Value) -> String {
    let detail = applied["detail"].as_str().unwrap_or("in force");
    let mode = match (applied["mode"].as_str(), applied["mode_was"].as_str()) {
        (Some(mode), Some(was)) => format!(", mode {mode} (was {was})"),
        _ => String::new(),
    };
    match applied["pending"]["deadline"].as_str() {
        None => format!("{detail}{mode}\n"),
        Some(deadline) => {
            format!(
                "{detail}{mode}, until {deadline}: `keyfence confirm` keeps it, `keyfence rollback --pending` ends it\n"
            )
        }
    }
}

const AFTER_CONFIRM: &str = "\
Exit codes:
  0  the policy stays in force
  1  no policy waits to be confirmed, or the caller is no operator
  2  wrong usage
  4  another policy than the one named waits
  5  the daemon is not reachable

Example:
  keyfence apply keyfence.toml --confirm-within 60s && keyfence confirm";

/// Keep the policy that was applied with --confirm-within
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_CONFIRM)]
pub(crate) struct ConfirmArguments {
    /// Only if it is this policy that waits: the hash that `keyfence apply` or `history` names, or its first 8 digits or more
    #[arg(value_name = "HASH", value_parser = policy::digits)]
    hash: Option<String>,
    #[command(flatten)]
    daemon: SocketArguments,
    /// One JSON object: what stays in force, or the problem
    #[arg(long)]
    json: bool,
}

pub(crate) fn confirm(arguments: &ConfirmArguments, shell: &Shell) -> Result<Exit, Failure> {
    let socket = &arguments.daemon.socket;
    let path = match &arguments.hash {
        None => "/v1/policy/confirm".to_owned(),
        Some(named) => {
            let waiting = policy::waiting(socket, arguments.json, shell)?;
            // What it begins is it; else what was given, for the daemon to refuse.
            let meant = if waiting.starts_with(named) {
                &waiting
            } else {
                named
            };
            format!("/v1/policy/confirm?hash={meant}")
        }
    };
    let answer = policy::ask(socket, (&path, None), arguments.json, shell)?;
    if !arguments.json {
        shell.write(&format!("policy {} is confirmed\n", short(&answer["hash"])))?;
        policy::remind(&arguments.daemon.socket, shell);
    }
    Ok(Exit::Done)
}

const AFTER_ROLLBACK: &str = "\
While a policy waits to be confirmed, the one before it is back at once. Else the policy that was confirmed before the one \
in force is put in force again; `keyfence history` shows which. A second rollback undoes the first. With `--pending` nothing \
but a policy that waits is taken back: once its time is over, there is nothing to do.

A policy confirmed before is refused, as by `keyfence apply`, if it would drop the packets of a connection that stands: to a \
management port of this host, or held by this command's own ancestors. `--force` puts it in force all the same; \
`--confirm-within` does so for so long.

In the ten minutes after a policy that was not confirmed in time has gone by itself, nothing is done, since the one before is \
in force already: `--force` goes back further.

Exit codes:
  0  the policy before is in force
  1  there is none, none waits (--pending), a trial has just ended by itself, it could not be applied, or the caller is no operator
  2  wrong usage
  3  it is invalid on this host now
  4  it would cut a connection
  5  the daemon is not reachable

Examples:
  keyfence rollback --pending
  keyfence rollback --confirm-within 60s && keyfence confirm";

/// Go back to the policy before
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_ROLLBACK)]
pub(crate) struct RollbackArguments {
    /// Only if a policy waits to be confirmed
    #[arg(long, conflicts_with_all = ["confirm_within", "force"])]
    pending: bool,
    /// Put the policy of now back after this time, unless `keyfence confirm` comes first
    #[arg(long, value_name = "DURATION", value_parser = trial)]
    confirm_within: Option<Duration>,
    /// Whatever connection it cuts, and also just after a trial that ended by itself
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    daemon: SocketArguments,
    /// One JSON object: what is in force, or the problem
    #[arg(long)]
    json: bool,
}

pub(crate) fn rollback(arguments: &RollbackArguments, shell: &Shell) -> Result<Exit, Failure> {
    let socket = &arguments.daemon.socket;
    let mut path = "/v1/policy/rollback".to_owned();
    if arguments.pending {
        // Named, so that it is this one that goes, or none.
        path += &format!("?base={}", policy::waiting(socket, arguments.json, shell)?);
    }
    let mut body = json!({});
    guard(&mut body, arguments.confirm_within, arguments.force, shell);
    let answer = policy::ask(socket, (&path, Some(body)), arguments.json, shell)?;
    if !arguments.json {
        policy::warn(&answer, shell);
        let (hash, generation) = (short(&answer["hash"]), &answer["generation"]);
        let mut told = answer.clone();
        told["detail"] = format!("policy {hash} is in force again as generation {generation}").into();
        shell.write(&outcome(&told))?;
        policy::remind(socket, shell);
    }
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_to_confirm_is_sent_as_it_was_written() {
        let sent = |text: &str| seconds(duration(text).unwrap());
        assert_eq!(
            [sent("1m"), sent("1500ms"), sent("1ms")],
            [json!(60), json!(1.5), json!(0.001)]
        );
    }

    #[test]
    fn outcome_says_until_when_it_is_in_force() {
        let mut applied =
            json!({ "detail": "generation 8", "mode": "enforce", "mode_was": null, "pending": null });
        assert_eq!(outcome(&applied), "generation 8\n");
        applied["mode_was"] = "observe".into();
        applied["pending"] = json!({ "deadline": "2026-11-22T12:00:00Z" });
        let told = outcome(&applied);
        assert!(
            told.starts_with(
                "generation 8, mode enforce (was observe), until 2026-11-22T12:00:00Z: `keyfence confirm`"
            ),
            "{told}"
        );
    }
}
