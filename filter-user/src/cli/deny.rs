//! `keyfence deny` and `keyfence undeny`: sources kept out at once, over everything that lists them; and the list of them.

mod guard;

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use comfy_table::{Table, presets};
use hyper::Method;
use ipnet::IpNet;
use serde_json::{Value, json};

use super::bind::{parsed, prefix, warn, with_schema};
use super::bindings::{lines, whole_seconds};
use super::client::{self, Call, SocketArguments, encoded};
use super::exit::{Exit, Failure};
use super::shell::Shell;

const AFTER_DENY: &str = "\
In force at once, survives restarts, and ends by itself. Only its owner or an operator removes it. What holds a \
management entry, the peer of an SSH session here or half the world is asked about on a terminal, and elsewhere needs \
--yes.

Exit codes:
  0  in force, or listed
  1  refused or failed
  2  wrong usage
  4  not confirmed
  5  the daemon is not reachable

Examples:
  keyfence deny 198.51.100.66 --for 1h --reason 'OPS-12: scans'
  keyfence deny --list";

/// Drop everything from an address, whatever lists it
#[derive(Debug, clap::Args)]
#[command(
    after_help = AFTER_DENY,
    override_usage = "keyfence deny [OPTIONS] --for <DURATION> --reason <TEXT> <ADDR>\n       keyfence deny [OPTIONS] --list"
)]
pub(crate) struct Arguments {
    /// An address or a prefix
    #[arg(value_name = "ADDR", value_parser = prefix, required_unless_present = "list")]
    source: Option<IpNet>,
    /// The deny's name; the default is `cli-` and the address
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// How long, as in 1h30m
    #[arg(long = "for", value_name = "DURATION", value_parser = whole_seconds, required_unless_present = "list")]
    time: Option<Duration>,
    /// For the audit log and those who ask why
    #[arg(long, value_name = "TEXT", required_unless_present = "list")]
    reason: Option<String>,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Show those that are in force instead; the policy's own stand in its file
    #[arg(long, conflicts_with_all = ["source", "name", "time", "reason", "yes"])]
    list: bool,
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

/// How the command calls what it sends.
const FLAGS: &client::Flags = &[("sources", "ADDR"), ("seconds", "--for"), ("reason", "--reason")];

pub(crate) fn run(arguments: &Arguments, shell: &Shell) -> Result<Exit, Failure> {
    let Some(source) = arguments.source.filter(|_| !arguments.list) else {
        return list(arguments, shell);
    };
    guard::ask(source, &arguments.daemon, arguments.yes, shell)?;
    let name = arguments.name.clone().unwrap_or_else(|| default_name(source));
    let call = Call {
        method: Method::PUT,
        path: format!("/v1/denies/{}", encoded(&name)),
        body: Some(json!({
            "sources": [source],
            "seconds": arguments.time.map(|time| time.as_secs()),
            "reason": arguments.reason,
        })),
    };
    let answer = client::send_as(&arguments.daemon.socket, call, client::PATIENCE, FLAGS)?;
    warn(&answer, shell)?;
    if arguments.json {
        shell.write(&with_schema(&answer)?)?;
        return Ok(Exit::Done);
    }
    let deny: Value = parsed(&answer)?;
    let until = deny["ends_at"].as_str().unwrap_or("it is removed");
    shell.write(&format!("{source} is denied as {name} until {until}\n"))?;
    Ok(Exit::Done)
}

fn list(arguments: &Arguments, shell: &Shell) -> Result<Exit, Failure> {
    let answer = client::ask(
        &arguments.daemon.socket,
        Method::GET,
        "/v1/denies",
        client::PATIENCE,
    )?;
    if arguments.json {
        shell.write(&with_schema(&answer)?)?;
    } else {
        shell.write(&listed(&parsed(&answer)?, shell))?;
    }
    Ok(Exit::Done)
}

fn listed(denies: &Value, shell: &Shell) -> String {
    let items = denies["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    if items.is_empty() {
        return "Nothing is denied at run time; the policy's own denies stand in its file.\n".to_owned();
    }
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).force_no_tty();
    table.set_header(["name", "sources", "owner", "until", "reason"]);
    for item in items {
        let text = |name: &str, none: &str| item[name].as_str().unwrap_or(none).to_owned();
        let sources = item["sources"].as_array().into_iter().flatten();
        let sources: Vec<&str> = sources.filter_map(Value::as_str).collect();
        table.add_row([
            text("name", "?"),
            sources.join(", "),
            text("owner", "?"),
            text("ends_at", "removed"),
            text("reason", ""),
        ]);
    }
    lines(&table, shell)
}

const AFTER_UNDENY: &str = "\
Exit codes:
  0  removed, or there was none
  1  refused (another's) or failed
  2  wrong usage
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
    warn(&answer, shell)?;
    if arguments.json {
        shell.write(&with_schema(&answer)?)?;
        return Ok(Exit::Done);
    }
    let line = match parsed(&answer)?["removed"].as_bool() {
        Some(true) => format!("{name} denies no more\n"),
        _ => format!("there was no deny {name}\n"),
    };
    shell.write(&line)?;
    if let Ok(address) = arguments.name.parse::<IpAddr>() {
        // What was asked for is done.
        if let Err(failure) = still_denied(address, &arguments.daemon.socket, shell) {
            shell.say(&format!(
                "what else denies {address} cannot be told: {}",
                failure.text
            ));
        }
    }
    Ok(Exit::Done)
}

/// What else denies the address: a wider deny, one of another name, one of the policy.
fn still_denied(address: IpAddr, socket: &Path, shell: &Shell) -> Result<(), Failure> {
    let path = format!("/v1/why?address={}", encoded(&address.to_string()));
    let why = parsed(&client::ask(socket, Method::GET, &path, client::PATIENCE)?)?;
    for deny in why["denied_by"].as_array().into_iter().flatten() {
        shell.say(&denied(address, deny));
    }
    Ok(())
}

fn denied(address: IpAddr, deny: &Value) -> String {
    let text = |name: &str| deny[name].as_str().unwrap_or("?");
    let (name, prefix) = (text("name"), text("prefix"));
    let way = match deny["owner"].as_str() {
        Some(_) => format!("`keyfence undeny {name}` takes it away"),
        None => "it stands in the policy".to_owned(),
    };
    format!("{address} is still denied by {name} ({prefix}): {way}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn denies_are_listed_with_whose_they_are_and_why() {
        let plain = Shell {
            colour_output: false,
            colour_errors: false,
        };
        let items = json!({ "items": [{ "name": "d", "sources": ["198.51.100.66/32"], "owner": "operator/root",
            "reason": "scans", "ends_at": null }] });
        let page = listed(&items, &plain);
        let row = page.lines().last().unwrap();
        for part in ["d ", "198.51.100.66/32", "operator/root", "removed", "scans"] {
            assert!(row.contains(part), "{page}");
        }
        assert!(listed(&json!({ "items": [] }), &plain).starts_with("Nothing is denied"));
    }

    #[test]
    fn deny_that_is_left_is_told_with_the_way_out() {
        let address: IpAddr = "198.51.100.66".parse().unwrap();
        let wider = json!({ "name": "net", "prefix": "198.51.100.0/24", "owner": "operator/root" });
        assert_eq!(
            denied(address, &wider),
            "198.51.100.66 is still denied by net (198.51.100.0/24): `keyfence undeny net` takes it away"
        );
        let written = json!({ "name": "abuse", "prefix": "198.51.100.0/24", "owner": null });
        assert!(denied(address, &written).ends_with("it stands in the policy"));
    }

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
