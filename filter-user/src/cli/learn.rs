//! `keyfence learn`: client entries for the unlisted sources that were recorded, for review.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use hyper::Method;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::bind::parsed;
use super::client::{self, SocketArguments};
use super::drops::{self, Filter};
use super::exit::{Exit, Failure};
use super::shell::Shell;
use super::words::count;
use crate::engine;
use crate::policy::Policy;
use crate::policy::model::{Client, ServiceSet};
use crate::records::read::{Query, RECORDS_MAX};

const AFTER_HELP: &str = "\
Prints entries for the policy, one a /24 (IPv6: a /64), the busiest first; nothing is changed. A source that was \
dropped may be an attacker as well as a client: each entry is for you to name, or to leave out. Where a prefix had \
several sources, it stands for them. What the policy lists for the service or denies by now is left out: the policy of \
--policy, else the one that the daemon runs by, as far as this user may read its file. Bindings are not looked up.

Exit codes:
  0  printed
  1  failed
  2  wrong usage
  5  the daemon is not reachable

Example:
  keyfence learn --since 24h --service payments > clients.d/new.toml";

/// A /24 or /64 with so many sources becomes one entry's prefix.
const NEIGHBOURS: usize = 8;
/// Of a name's 63, with room for a number.
const NAME_CHARACTERS: usize = 55;

/// Print client entries for the unlisted sources that were recorded
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    /// Read these files instead of asking the daemon, the oldest first
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    filter: Filter,
    /// The policy that says who is listed or denied by now
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    #[command(flatten)]
    daemon: SocketArguments,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

/// Sources of one network that were unlisted for one service, with their packets, the busiest first.
#[derive(Debug, PartialEq, Eq)]
struct Learned {
    service: String,
    network: IpNet,
    sources: Vec<(IpNet, u64)>,
}

impl Learned {
    fn packets(&self) -> u64 {
        self.sources.iter().map(|(_, packets)| packets).sum()
    }
}

/// Sources that are not printed, and why.
#[derive(Debug, Default, PartialEq, Eq)]
struct LeftOut {
    /// Known as a network or a pseudonym only.
    unknown: u64,
    /// For the service, by now.
    listed: u64,
    denied: u64,
}

pub(crate) fn run(arguments: &Arguments, shell: &Shell) -> Result<Exit, Failure> {
    let query = Query {
        reason: Some("unlisted".to_owned()),
        top: RECORDS_MAX,
        ..arguments.filter.query()
    };
    let answer = drops::ask(&arguments.files, &arguments.daemon, &query)?;
    let top = answer["top"].as_array().map(Vec::as_slice).unwrap_or_default();
    let known = Known::of(arguments, shell)?;
    let (learned, left) = learn(top, arguments.filter.service.as_deref(), &known);
    if arguments.json {
        let clients: Vec<Value> = learned
            .iter()
            .map(|learned| {
                let sources = learned.sources.iter();
                let sources: Vec<Value> = sources
                    .map(|(prefix, packets)| json!({ "prefix": prefix, "packets": packets }))
                    .collect();
                json!({ "service": learned.service, "network": learned.network, "sources": sources })
            })
            .collect();
        let object = json!({ "schema": 1, "clients": clients, "left_out": left.unknown, "listed_by_now": left.listed,
            "denied_by_now": left.denied });
        shell.write(&format!("{object}\n"))?;
    } else {
        shell.write(&text(&learned, Timestamp::now()))?;
    }
    for (number, why) in [
        (
            left.unknown,
            "known as networks or pseudonyms only, by [records] addresses or in a flood",
        ),
        (left.listed, "listed for the service by now"),
        (left.denied, "denied by now"),
    ] {
        if number > 0 {
            shell.say(&format!(
                "left out, {why}: {}",
                count(number as usize, "source", "sources")
            ));
        }
    }
    if top.len() == RECORDS_MAX {
        shell.say(&format!(
            "the busiest {RECORDS_MAX} sources are shown; --source or --since narrow it"
        ));
    }
    Ok(Exit::Done)
}

/// The policy in force, and what is denied beside it, as far as they are at hand.
#[derive(Default)]
struct Known {
    policy: Option<Policy>,
    denied: Vec<IpNet>,
}

impl Known {
    fn of(arguments: &Arguments, shell: &Shell) -> Result<Self, Failure> {
        if let Some(file) = &arguments.policy {
            let policy = read(file).map_err(|why| Failure::new(Exit::PolicyInvalid, why))?;
            return Ok(Self {
                policy: Some(policy),
                denied: Vec::new(),
            });
        }
        // Of files nobody knows whose they are.
        if !arguments.files.is_empty() {
            return Ok(Self::default());
        }
        let ask = |path: &str| {
            let answer = client::ask(&arguments.daemon.socket, Method::GET, path, client::PATIENCE);
            answer
                .and_then(|answer| parsed(&answer))
                .map_err(|failure| failure.text)
        };
        let policy = ask("/v1/status").and_then(|status| {
            let file = status["policy"]["file"].as_str().unwrap_or_default();
            read(Path::new(file))
        });
        let denied = ask("/v1/denies");
        for why in [policy.as_ref().err(), denied.as_ref().err()]
            .into_iter()
            .flatten()
        {
            shell.say(&format!("who is listed or denied by now is not all known: {why}"));
        }
        let denied = denied.unwrap_or_default();
        let items = denied["items"].as_array().into_iter().flatten();
        let sources = items.filter_map(|item| item["sources"].as_array()).flatten();
        let sources = sources.filter_map(|source| source.as_str()?.parse().ok());
        Ok(Self {
            policy: policy.ok(),
            denied: sources.collect(),
        })
    }

    fn denies(&self, address: IpAddr) -> bool {
        let entries = self.policy.iter().flat_map(|policy| &policy.denies);
        let mut sources = entries
            .flat_map(|deny| &deny.sources)
            .map(|source| &source.prefix);
        sources.any(|prefix| prefix.contains(&address))
            || self.denied.iter().any(|prefix| prefix.contains(&address))
    }

    fn lists(&self, address: IpAddr, service: &str) -> bool {
        let Some(policy) = &self.policy else { return false };
        let opens = |client: &Client| match &client.services {
            ServiceSet::All => true,
            ServiceSet::Some(some) => some.iter().any(|at| {
                policy
                    .services
                    .get(*at)
                    .is_some_and(|known| known.name == service)
            }),
        };
        let holds = |client: &Client| {
            client
                .sources
                .iter()
                .any(|source| source.prefix.contains(&address))
        };
        let in_force =
            |client: &Client| client.enabled && client.expires.is_none_or(|end| end > Timestamp::now());
        let mut clients = policy.clients.iter();
        clients.any(|client| in_force(client) && opens(client) && holds(client))
    }
}

fn read(file: &Path) -> Result<Policy, String> {
    let loaded = engine::load_policy(file);
    let why = || format!("{} cannot be read as a policy", file.display());
    loaded.policy.ok_or_else(why)
}

/// By service and network, the busiest first, and what is left out.
fn learn(top: &[Value], only: Option<&str>, known: &Known) -> (Vec<Learned>, LeftOut) {
    let mut around: BTreeMap<(String, IpNet), BTreeMap<IpAddr, u64>> = BTreeMap::new();
    let mut left = LeftOut::default();
    for source in top {
        let Some(address) = source["source"].as_str().and_then(|text| text.parse().ok()) else {
            left.unknown += 1;
            continue;
        };
        if known.denies(address) {
            left.denied += 1;
            continue;
        }
        let services = source["services"].as_object().into_iter().flatten();
        let mut listed = false;
        for (service, packets) in services.filter(|(name, _)| only.is_none_or(|only| only == *name)) {
            if known.lists(address, service) {
                listed = true;
                continue;
            }
            let members = around.entry((service.clone(), network(address))).or_default();
            *members.entry(address).or_default() += packets.as_u64().unwrap_or(0);
        }
        left.listed += u64::from(listed);
    }
    let learned = around.into_iter().map(|((service, network), members)| Learned {
        service,
        network,
        sources: grouped(network, members),
    });
    let mut learned: Vec<Learned> = learned.collect();
    learned.sort_by_key(|learned| Reverse(learned.packets()));
    (learned, left)
}

fn grouped(network: IpNet, members: BTreeMap<IpAddr, u64>) -> Vec<(IpNet, u64)> {
    if members.len() >= NEIGHBOURS {
        return vec![(network, members.values().sum())];
    }
    let single = members.into_iter();
    let mut single: Vec<_> = single
        .map(|(address, packets)| (IpNet::from(address), packets))
        .collect();
    single.sort_by_key(|(_, packets)| Reverse(*packets));
    single
}

fn network(address: IpAddr) -> IpNet {
    match address {
        IpAddr::V4(address) => Ipv4Net::new_assert(address, 24).trunc().into(),
        IpAddr::V6(address) => Ipv6Net::new_assert(address, 64).trunc().into(),
    }
}

fn text(learned: &[Learned], now: Timestamp) -> String {
    if learned.is_empty() {
        return "# No unlisted source of a service was recorded.\n".to_owned();
    }
    let mut text = format!("# Unlisted sources as recorded until {now}: review each before it is listed.\n");
    for (number, learned) in (1..).zip(learned) {
        let service = &learned.service;
        // Names end in a number, so that none is there twice.
        let name: String = format!("learned-{service}")
            .chars()
            .take(NAME_CHARACTERS)
            .collect();
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "\n# {} packets from {}\n[[client]]\nname = {}\nservices = [{}]\nnote = \"learned {now}\"\nsources = [\n",
            learned.packets(),
            learned.network,
            toml::Value::from(format!("{name}-{number}")),
            toml::Value::from(service.as_str()),
        );
        for (prefix, packets) in &learned.sources {
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

    fn known(entries: &str) -> Known {
        let text = format!(
            "version = 1\n[filter]\ninterfaces = [\"eth0\"]\n[[service]]\nname = \"web\"\nprotocol = \"tcp\"\nports = [1]\n\
             [[service]]\nname = \"other\"\nprotocol = \"tcp\"\nports = [2]\n{entries}"
        );
        let files = crate::policy::MemoryFiles::new([("p.toml".into(), text.into_bytes())]);
        let context = crate::policy::LoadContext::at(Timestamp::UNIX_EPOCH);
        let policy = crate::policy::load_from(&files, Path::new("p.toml"), &context).policy;
        Known {
            policy: Some(policy.unwrap()),
            denied: vec!["203.0.113.0/24".parse().unwrap()],
        }
    }

    #[test]
    fn each_prefix_is_a_client_of_its_own_and_neighbours_are_one_source() {
        let mut top: Vec<Value> = (1..=8)
            .map(|host| source(&format!("198.51.100.{host}"), "web", 2))
            .collect();
        top.push(source("192.0.2.7", "web", 30));
        top.push(source("192.0.2.8", "web", 1));
        top.push(source("192.0.2.7", "other", 1));
        top.push(source("10.0.0.0/16", "web", 9));
        let (learned, left) = learn(&top, Some("web"), &Known::default());
        let unknown = LeftOut {
            unknown: 1,
            ..LeftOut::default()
        };
        assert_eq!(left, unknown);
        let found = text(&learned, Timestamp::UNIX_EPOCH);
        assert!(!found.contains("other"));
        let parsed: toml::Table = found.parse().unwrap();
        let clients = parsed["client"].as_array().unwrap();
        let of = |at: usize| {
            (
                clients[at]["name"].as_str().unwrap(),
                clients[at]["sources"].to_string(),
            )
        };
        assert_eq!(
            of(0),
            ("learned-web-1", "[\"192.0.2.7\", \"192.0.2.8\"]".to_owned())
        );
        assert_eq!(of(1), ("learned-web-2", "[\"198.51.100.0/24\"]".to_owned()));
        assert_eq!(
            (clients.len(), clients[0]["services"][0].as_str()),
            (2, Some("web"))
        );
    }

    #[test]
    fn what_is_listed_or_denied_by_now_is_left_out() {
        let known = known(
            "[[client]]\nname = \"a\"\nsources = [\"192.0.2.7\"]\nservices = [\"web\"]\n\
             [[deny]]\nname = \"d\"\nsources = [\"198.51.100.0/24\"]\n",
        );
        let top = [
            source("192.0.2.7", "web", 1),
            source("192.0.2.7", "other", 1),
            source("198.51.100.9", "web", 1),
            source("203.0.113.9", "web", 1),
        ];
        let (learned, left) = learn(&top, None, &known);
        let services: Vec<&str> = learned.iter().map(|learned| learned.service.as_str()).collect();
        assert_eq!(services, ["other"]);
        assert_eq!(
            left,
            LeftOut {
                unknown: 0,
                listed: 1,
                denied: 2
            }
        );
    }
}
