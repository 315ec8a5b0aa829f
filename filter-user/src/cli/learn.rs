//! `keyfence learn`: client entries for the unlisted sources that were recorded, for review.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::client::SocketArguments;
use super::drops::{self, Filter};
use super::exit::{Exit, Failure};
use super::shell::Shell;
use crate::records::read::{Query, RECORDS_MAX};

const AFTER_HELP: &str = "\
Prints entries for the policy; nothing is changed. A source that was dropped may be an attacker as well as a client: \
each entry is for you to name, or to leave out. Neighbours are put together where a /24 (IPv6: a /64) had several.

Exit codes:
  0  printed
  1  failed
  5  the daemon is not reachable

Example:
  keyfence learn --since 24h --service payments > clients.d/new.toml";

/// A /24 or /64 with so many sources becomes one entry's prefix.
const NEIGHBOURS: usize = 8;

/// Print client entries for the unlisted sources that were recorded
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    /// Read these files instead of asking the daemon, the oldest first
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    filter: Filter,
    #[command(flatten)]
    daemon: SocketArguments,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

/// Sources that were unlisted for one service.
#[derive(Debug, Default, PartialEq, Eq)]
struct Learned {
    prefixes: BTreeMap<IpNet, u64>,
}

pub(crate) fn run(arguments: &Arguments, shell: &Shell) -> Result<Exit, Failure> {
    let query = Query {
        reason: Some("unlisted".to_owned()),
        top: RECORDS_MAX,
        ..arguments.filter.query()
    };
    let answer = drops::ask(&arguments.files, &arguments.daemon, &query)?;
    let top = answer["top"].as_array().map(Vec::as_slice).unwrap_or_default();
    let (learned, left) = learn(top, arguments.filter.service.as_deref());
    if arguments.json {
        let clients: Vec<Value> = learned
            .iter()
            .map(|(service, learned)| {
                let sources: Vec<Value> = learned
                    .prefixes
                    .iter()
                    .map(|(prefix, packets)| json!({ "prefix": prefix, "packets": packets }))
                    .collect();
                json!({ "service": service, "sources": sources })
            })
            .collect();
        shell.write(&format!(
            "{}\n",
            json!({ "schema": 1, "clients": clients, "left_out": left })
        ))?;
    } else {
        shell.write(&text(&learned, Timestamp::now()))?;
    }
    if left > 0 {
        shell.say(&format!(
            "{left} sources are known as networks or pseudonyms only, by [records] addresses or in a flood: left out"
        ));
    }
    if top.len() == RECORDS_MAX {
        shell.say(&format!(
            "the busiest {RECORDS_MAX} sources are shown; --source or --since narrow it"
        ));
    }
    Ok(Exit::Done)
}

/// By service, and how many sources are not known one by one.
fn learn(top: &[Value], only: Option<&str>) -> (BTreeMap<String, Learned>, u64) {
    let mut by_service: BTreeMap<String, BTreeMap<IpAddr, u64>> = BTreeMap::new();
    let mut left = 0;
    for source in top {
        let Some(address) = source["source"].as_str().and_then(|text| text.parse().ok()) else {
            left += 1;
            continue;
        };
        for (service, packets) in source["services"].as_object().into_iter().flatten() {
            if only.is_none_or(|only| only == service) {
                let sum = by_service
                    .entry(service.clone())
                    .or_default()
                    .entry(address)
                    .or_default();
                *sum += packets.as_u64().unwrap_or(0);
            }
        }
    }
    let learned = by_service
        .into_iter()
        .map(|(service, sources)| (service, grouped(&sources)));
    (learned.collect(), left)
}

fn grouped(sources: &BTreeMap<IpAddr, u64>) -> Learned {
    let mut around: BTreeMap<IpNet, Vec<(IpAddr, u64)>> = BTreeMap::new();
    for (address, packets) in sources {
        around
            .entry(network(*address))
            .or_default()
            .push((*address, *packets));
    }
    let mut learned = Learned::default();
    for (network, members) in around {
        if members.len() >= NEIGHBOURS {
            let packets = members.iter().map(|(_, packets)| packets).sum();
            learned.prefixes.insert(network, packets);
        } else {
            let single = members
                .into_iter()
                .map(|(address, packets)| (IpNet::from(address), packets));
            learned.prefixes.extend(single);
        }
    }
    learned
}

fn network(address: IpAddr) -> IpNet {
    match address {
        IpAddr::V4(address) => Ipv4Net::new_assert(address, 24).trunc().into(),
        IpAddr::V6(address) => Ipv6Net::new_assert(address, 64).trunc().into(),
    }
}

fn text(learned: &BTreeMap<String, Learned>, now: Timestamp) -> String {
    if learned.is_empty() {
        return "# No unlisted source of a service was recorded.\n".to_owned();
    }
    let mut text = format!("# Unlisted sources as recorded until {now}: review each before it is listed.\n");
    for (service, learned) in learned {
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "\n[[client]]\nname = {}\nservices = [{}]\nnote = \"learned {now}\"\nsources = [\n",
            toml::Value::from(format!("learned-{service}").chars().take(63).collect::<String>()),
            toml::Value::from(service.as_str()),
        );
        let mut busiest: Vec<_> = learned.prefixes.iter().collect();
        busiest.sort_by(|a, b| b.1.cmp(a.1).then_with(|| a.0.cmp(b.0)));
        for (prefix, packets) in busiest {
            let _ = writeln!(text, "  \"{}\", # {packets} packets", shown(prefix));
        }
        text.push_str("]\n");
    }
    text
}

/// A single address without its length, as policies have it.
fn shown(prefix: &IpNet) -> String {
    if prefix.prefix_len() == prefix.max_prefix_len() {
        prefix.addr().to_string()
    } else {
        prefix.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(address: &str, service: &str, packets: u64) -> Value {
        let mut services = serde_json::Map::new();
        services.insert(service.to_owned(), packets.into());
        json!({ "source": address, "services": services })
    }

    #[test]
    fn neighbours_become_one_prefix_and_what_is_unknown_is_left_out() {
        let mut top: Vec<Value> = (1..=8)
            .map(|host| source(&format!("198.51.100.{host}"), "web", 2))
            .collect();
        top.push(source("192.0.2.7", "web", 30));
        top.push(source("192.0.2.7", "other", 1));
        top.push(source("10.0.0.0/16", "web", 9));
        let (learned, left) = learn(&top, Some("web"));
        assert_eq!(left, 1);
        let found = text(&learned, Timestamp::UNIX_EPOCH);
        assert!(
            found.contains("  \"192.0.2.7\", # 30 packets\n  \"198.51.100.0/24\", # 16 packets\n"),
            "{found}"
        );
        assert!(!found.contains("other"));
        let parsed: toml::Table = found.parse().unwrap();
        assert_eq!(parsed["client"][0]["services"][0].as_str(), Some("web"));
    }
}
