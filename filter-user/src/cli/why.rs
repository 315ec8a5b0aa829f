//! `keyfence why`: what lists or denies an address, in a sentence and a table.

use std::net::IpAddr;

use comfy_table::{Cell, Table, presets};
use hyper::Method;
use serde_json::Value;

use super::bind::parsed;
use super::client::{self, SocketArguments, encoded};
use super::exit::{Exit, Failure};
use super::shell::Shell;

const AFTER_HELP: &str = "\
Drops of the last hour are those in the log of drops; `keyfence explain` shows each rule for one packet.

Exit codes:
  0  told
  1  failed
  2  wrong usage
  5  the daemon is not reachable

Example:
  keyfence why 198.51.100.7";

/// Tell why an address passes or does not: its grants, leases and tokens left, denies
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    /// The address
    #[arg(value_name = "ADDR", value_parser = address)]
    address: IpAddr,
    #[command(flatten)]
    daemon: SocketArguments,
    /// The daemon's answer as it is: one JSON object
    #[arg(long)]
    json: bool,
}

fn address(text: &str) -> Result<IpAddr, String> {
    let fault = match text.parse::<ipnet::IpNet>() {
        Ok(_) => {
            "this takes one address; `keyfence bindings --source PREFIX` lists what overlaps a prefix, `keyfence drops \
             --source PREFIX` what was dropped from it"
        }
        Err(_) => "this is no IP address",
    };
    text.parse().map_err(|_| fault.to_owned())
}

pub(crate) fn run(arguments: &Arguments, shell: &Shell) -> Result<Exit, Failure> {
    let path = format!("/v1/why?address={}", encoded(&arguments.address.to_string()));
    let answer = client::ask(&arguments.daemon.socket, Method::GET, &path, client::PATIENCE)?;
    let why: Value = parsed(&answer)?;
    if arguments.json {
        shell.write(&format!("{}\n", answer.trim_end()))?;
    } else {
        shell.write(&page(&why))?;
    }
    Ok(Exit::Done)
}

fn page(why: &Value) -> String {
    let caution = why["caution"].as_str();
    let mut page = caution.map_or_else(String::new, |caution| format!("! {caution}\n"));
    page.push_str(&format!(
        "{}\n",
        why["sentence"].as_str().unwrap_or("The daemon gave no sentence.")
    ));
    if let Some(drops) = why["drops"].as_object().filter(|drops| !drops.is_empty()) {
        let drops: Vec<String> = drops
            .iter()
            .map(|(reason, packets)| format!("{packets} {reason}"))
            .collect();
        page.push_str(&format!(
            "Dropped or observed in the last hour: {}.\n",
            drops.join(", ")
        ));
    }
    if let Some(hint) = why["drops_hint"].as_str() {
        page.push_str(&format!("{hint}\n"));
    }
    denied_as_well(&mut page, why);
    let grants = why["grants"].as_array().map(Vec::as_slice).unwrap_or_default();
    if grants.is_empty() {
        return page;
    }
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.force_no_tty();
    table.set_header([
        "grant",
        "prefix",
        "services",
        "state",
        "ends",
        "lease left",
        "last passed",
        "packets",
        "left in its buckets",
    ]);
    for grant in grants {
        let text = |name: &str, none: &str| grant[name].as_str().unwrap_or(none).to_owned();
        let services = grant["services"].as_array().into_iter().flatten();
        let services: Vec<&str> = services.filter_map(Value::as_str).collect();
        let packets = grant["packets"]
            .as_u64()
            .map_or("-".to_owned(), |packets| packets.to_string());
        table.add_row([
            Cell::new(text("owner", "?")),
            Cell::new(text("prefix", "-")),
            Cell::new(services.join(", ")),
            Cell::new(text("state", "?")),
            Cell::new(text("ends_at", "never")),
            Cell::new(lease_left(grant)),
            Cell::new(text("last_seen", "-")),
            Cell::new(packets),
            Cell::new(buckets(grant)),
        ]);
    }
    page.push('\n');
    for line in table.lines() {
        page.push_str(line.trim_end());
        page.push('\n');
    }
    if why["more_grants"] == true {
        page.push_str("There are more; `keyfence bindings --source` lists all.\n");
    }
    page
}

/// What denies it beside the one that the sentence names.
fn denied_as_well(page: &mut String, why: &Value) {
    for deny in why["denied_by"].as_array().into_iter().flatten().skip(1) {
        let text = |name: &str| deny[name].as_str();
        page.push_str(&format!(
            "Denied as well by {} ({}, until {}){}\n",
            text("name").unwrap_or("?"),
            text("owner").unwrap_or("of the policy"),
            text("ends_at").unwrap_or("it is removed"),
            text("reason")
                .map(|reason| format!(": {reason}"))
                .unwrap_or_default(),
        ));
    }
}

/// `59m 58s`
fn lease_left(grant: &Value) -> String {
    let Some(seconds) = grant["seconds_left"].as_i64() else {
        return "-".to_owned();
    };
    let units = [(86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")];
    let mut left = seconds;
    let parts = units.into_iter().filter_map(|(length, unit)| {
        let count = left / length;
        left %= length;
        (count > 0).then(|| format!("{count}{unit}"))
    });
    let parts: Vec<String> = parts.take(2).collect();
    if parts.is_empty() {
        return "0s".to_owned();
    }
    parts.join(" ")
}

/// `packets 3 of 10`; a grant without a limit has none.
fn buckets(grant: &Value) -> String {
    let Some(buckets) = grant["buckets"].as_array() else {
        return "?".to_owned();
    };
    let buckets: Vec<String> = buckets
        .iter()
        .map(|bucket| {
            let unit = bucket["unit"].as_str().unwrap_or("?");
            format!("{unit} {} of {}", bucket["left"], bucket["burst"])
        })
        .collect();
    match buckets.as_slice() {
        [] => "no limit".to_owned(),
        buckets => buckets.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn page_is_a_sentence_and_a_row_for_each_grant() {
        let why = json!({
            "sentence": "198.51.100.7 is listed by client/acme.",
            "grants": [{ "owner": "client/acme", "prefix": "198.51.100.0/24", "services": ["payments"], "state": "active",
                "seconds_left": 3_725, "buckets": [{ "unit": "packets", "left": 3, "burst": 10 }] }],
        });
        let page = page(&why);
        let mut lines = page.lines();
        assert_eq!(lines.next(), Some("198.51.100.7 is listed by client/acme."));
        let row = lines.last().unwrap();
        for part in [
            "client/acme",
            "198.51.100.0/24",
            "payments",
            "active",
            "never",
            "1h 2m",
            "packets 3 of 10",
        ] {
            assert!(row.contains(part), "{page}");
        }
        let hinted =
            json!({ "sentence": "Nothing.", "grants": [], "drops": { "denied": 2 }, "drops_hint": "Two." });
        let expected = "Nothing.\nDropped or observed in the last hour: 2 denied.\nTwo.\n";
        assert_eq!(super::page(&hinted), expected);
        assert_eq!(
            super::page(&json!({ "sentence": "Nothing.", "grants": [] })),
            "Nothing.\n"
        );
    }
}
