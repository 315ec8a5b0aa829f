//! `keyfence deny` and `keyfence undeny`: sources kept out at once, over everything that lists them.

use std::time::Duration;

use hyper::Method;
use ipnet::IpNet;
use serde_json::{Value, json};

use super::bind::{parsed, prefix, with_schema};
use super::bindings::duration;
use super::client::{self, Call, SocketArguments, encoded};
use super::exit::{Exit, Failure};
use super::shell::Shell;

const AFTER_DENY: &str = "\
In force at once, survives restarts, and ends by itself. Only its owner or an operator removes it.

Exit codes:
  0  in force
  1  refused or failed
  5  the daemon is not reachable

Example:
  keyfence deny 198.51.100.66 --for 1h --reason 'OPS-12: scans'";

/// Drop everything from an address, whatever lists it
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_DENY)]
pub(crate) struct Arguments {
    /// An address or a prefix
    #[arg(value_name = "ADDR", value_parser = prefix)]
    source: IpNet,
    /// The deny's name; the default is `cli-` and the address
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// How long, as in 1h30m
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    time: Duration,
    /// For the audit log and those who ask why
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    daemon: SocketArguments,
    /// The daemon's answer as it is: one JSON object
    #[arg(long)]
    json: bool,
}

/// `cli-198.51.100.66`, `cli-2001_db8___48`.
fn default_name(source: IpNet) -> String {
    let host = source.prefix_len() == source.max_prefix_len();
    let text = match host {
        true => source.addr().to_string(),
        false => source.to_string(),
    };
    format!("cli-{}", text.replace([':', '/'], "_"))
}

pub(crate) fn run(arguments: &Arguments, shell: &Shell) -> Result<Exit, Failure> {
    let name = arguments
        .name
        .clone()
        .unwrap_or_else(|| default_name(arguments.source));
    let call = Call {
        method: Method::PUT,
        path: format!("/v1/denies/{}", encoded(&name)),
        body: Some(json!({
            "sources": [arguments.source],
            "seconds": arguments.time.as_secs(),
            "reason": arguments.reason,
        })),
    };
    let answer = client::send(&arguments.daemon.socket, call, client::PATIENCE)?;
    if arguments.json {
        shell.write(&with_schema(&answer)?)?;
        return Ok(Exit::Done);
    }
    let deny: Value = parsed(&answer)?;
    let until = deny["ends_at"].as_str().unwrap_or("it is removed");
    shell.write(&format!(
        "{} is denied as {name} until {until}\n",
        arguments.source
    ))?;
    Ok(Exit::Done)
}

const AFTER_UNDENY: &str = "\
Exit codes:
  0  removed, or there was none
  1  refused (another's) or failed
  5  the daemon is not reachable

Examples:
  keyfence undeny 198.51.100.66
  keyfence undeny abuse-7";

/// Take a deny of run time away
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_UNDENY)]
pub(crate) struct UndenyArguments {
    /// Its name, or the address that `keyfence deny` was given
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    daemon: SocketArguments,
    /// The daemon's answer as it is: one JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn undeny(arguments: &UndenyArguments, shell: &Shell) -> Result<Exit, Failure> {
    // What reads as an address was denied under its default name.
    let name = match prefix(&arguments.name) {
        Ok(source) => default_name(source),
        Err(_) => arguments.name.clone(),
    };
    let call = Call {
        method: Method::DELETE,
        path: format!("/v1/denies/{}", encoded(&name)),
        body: None,
    };
    let answer = client::send(&arguments.daemon.socket, call, client::PATIENCE)?;
    if arguments.json {
        shell.write(&with_schema(&answer)?)?;
        return Ok(Exit::Done);
    }
    let line = match parsed(&answer)?["removed"].as_bool() {
        Some(true) => format!("{name} denies no more\n"),
        _ => format!("there was no deny {name}\n"),
    };
    shell.write(&line)?;
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_name_is_the_address_with_underscores() {
        for (source, name) in [
            ("198.51.100.66", "cli-198.51.100.66"),
            ("198.51.100.0/24", "cli-198.51.100.0_24"),
            ("2001:db8::/48", "cli-2001_db8___48"),
        ] {
            assert_eq!(default_name(prefix(source).unwrap()), name);
        }
    }
}
