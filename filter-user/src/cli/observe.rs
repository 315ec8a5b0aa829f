//! `keyfence observe`: what would be dropped passes for a while, and the kernel ends it by itself.

use std::time::Duration;

use hyper::Method;
use serde_json::{Value, json};

use super::bind::{parsed, with_schema};
use super::bindings::duration;
use super::client::{self, Call, SocketArguments};
use super::exit::{Exit, Failure};
use super::shell::Shell;

const AFTER_HELP: &str = "\
What would be dropped passes, is counted as `observe` and recorded with its reason. Without --service that is \
everything, denied and malformed packets too; with it, what the service refuses (later fragments, which carry no port, \
are judged as before). The kernel ends it by itself, also with the daemon dead; reloads and restarts do not. `--for 0s` \
ends it now. At most a day: what is to be open for longer belongs into the policy (mode = \"observe\"). The caller must \
be an operator.

Exit codes:
  0  observed, or no more
  1  refused or failed
  2  wrong usage
  5  the daemon is not reachable

Examples:
  keyfence observe --for 15m --reason 'OPS-12: a client is cut off'
  keyfence observe --for 1h --service payments --reason OPS-12
  keyfence observe --for 0s --reason 'OPS-12: found'";

/// Let through for a while what would be dropped, and record it
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    /// How long, as in 15m; 0s ends it
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    time: Duration,
    /// One service alone
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// For the audit log
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    daemon: SocketArguments,
    /// The daemon's answer as it is: one JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments, shell: &Shell) -> Result<Exit, Failure> {
    let call = Call {
        method: Method::POST,
        path: "/v1/observe".to_owned(),
        body: Some(json!({
            // A part of a second more is no harm; 0 would end it.
            "seconds": arguments.time.as_millis().div_ceil(1000) as u64,
            "service": arguments.service,
            "reason": arguments.reason,
        })),
    };
    let flags = [
        ("seconds", "--for"),
        ("service", "--service"),
        ("reason", "--reason"),
    ];
    let answer = client::send_as(&arguments.daemon.socket, call, client::PATIENCE, &flags)?;
    if arguments.json {
        shell.write(&with_schema(&answer)?)?;
        return Ok(Exit::Done);
    }
    let answer: Value = parsed(&answer)?;
    let observing = answer["observing"].as_array().into_iter().flatten();
    let lines: String = observing.map(|one| format!("{}\n", line(one))).collect();
    if lines.is_empty() {
        shell.write("nothing is observed for a while any more\n")?;
    }
    shell.write(&lines)?;
    Ok(Exit::Done)
}

/// `service payments is observed until …`
pub(super) fn line(observing: &Value) -> String {
    let until = observing["until"].as_str().unwrap_or("?");
    match observing["service"].as_str() {
        Some(service) => format!("service {service} is observed until {until}"),
        None => format!("everything is observed until {until}"),
    }
}
