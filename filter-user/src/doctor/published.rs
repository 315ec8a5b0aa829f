//! Ports that NAT publishes, out of the words of iptables and nftables. Pure.

use serde_json::Value;

use super::{Finding, definitions as all};
use crate::policy::Policy;
use crate::policy::model::Service;
use crate::sockets::Protocol;

/// One rule that sends what arrives elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Published {
    /// `None`: any.
    pub(super) protocol: Option<Protocol>,
    /// First and last of those at which packets arrive; empty: any, or by a map that is not read.
    pub(super) ports: Vec<(u16, u16)>,
    /// As the rule has it.
    pub(super) to: String,
    pub(super) to_port: Option<u16>,
}

/// The lines of `iptables-save -t nat`.
pub(super) fn of_iptables(text: &str) -> Vec<Published> {
    text.lines().filter_map(of_line).collect()
}

fn of_line(line: &str) -> Option<Published> {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let after = |word: &str| {
        let at = words.iter().position(|other| *other == word)?;
        words.get(at + 1).copied()
    };
    let to = match (words.first().copied()?, after("-j")?) {
        ("-A", "DNAT") => after("--to-destination")?.to_owned(),
        ("-A", "REDIRECT") => format!(":{}", after("--to-ports")?),
        _ => return None,
    };
    let protocol = match after("-p") {
        Some("tcp") => Some(Protocol::Tcp),
        Some("udp") => Some(Protocol::Udp),
        _ => None,
    };
    let ports = after("--dport").or_else(|| after("--dports")).unwrap_or_default();
    Some(Published {
        protocol,
        ports: ports.split(',').filter_map(range).collect(),
        to_port: port_of(&to),
        to,
    })
}

/// `443` or `8000:8010`.
fn range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once([':', '-']).unwrap_or((text, text));
    Some((first.parse().ok()?, last.parse().ok()?))
}

/// Of `10.0.0.2:80`, `[fd00::2]:80`, `:80`; an IPv6 address without brackets has none.
fn port_of(to: &str) -> Option<u16> {
    let (address, port) = to.rsplit_once(':')?;
    let is_whole = !address.contains(':') || address.ends_with(']');
    let first = port.split('-').next()?;
    is_whole.then(|| first.parse().ok())?
}

/// What `nft --json list ruleset` prints. Rules that iptables made are in its own words there, and left to it.
pub(super) fn of_nft(text: &str) -> serde_json::Result<Vec<Published>> {
    let whole: Value = serde_json::from_str(text)?;
    let parts = whole["nftables"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let rules = parts.iter().filter_map(|part| part["rule"]["expr"].as_array());
    Ok(rules.filter_map(|rule| of_rule(rule)).collect())
}

fn of_rule(rule: &[Value]) -> Option<Published> {
    let (target, kind) = rule.iter().find_map(|statement| {
        let kinds = ["dnat", "redirect"];
        let kind = kinds.into_iter().find(|kind| statement.get(kind).is_some())?;
        Some((&statement[kind], kind))
    })?;
    let to_port = target["port"].as_u64().and_then(|port| u16::try_from(port).ok());
    let address = match &target["addr"] {
        Value::String(address) => address.clone(),
        Value::Null if kind == "redirect" => String::new(),
        _ => "what a map says".to_owned(),
    };
    let mut published = Published {
        protocol: None,
        ports: Vec::new(),
        to: to_port.map_or(address.clone(), |port| format!("{address}:{port}")),
        to_port,
    };
    for asked in rule.iter().filter_map(|statement| statement.get("match")) {
        let payload = &asked["left"]["payload"];
        if payload["field"] != "dport" || asked["op"] != "==" {
            continue;
        }
        published.protocol = match payload["protocol"].as_str() {
            Some("tcp") => Some(Protocol::Tcp),
            Some("udp") => Some(Protocol::Udp),
            _ => None,
        };
        published.ports = ports(&asked["right"]);
    }
    Some(published)
}

/// A number, a range, or a set of these.
fn ports(value: &Value) -> Vec<(u16, u16)> {
    let port = |value: &Value| u16::try_from(value.as_u64()?).ok();
    if let Some(set) = value["set"].as_array() {
        return set.iter().flat_map(ports).collect();
    }
    if let Some([first, last]) = value["range"].as_array().map(Vec::as_slice) {
        return port(first).zip(port(last)).into_iter().collect();
    }
    port(value).map(|port| (port, port)).into_iter().collect()
}

pub(super) fn findings(policy: &Policy, published: &[Published]) -> Vec<Finding> {
    published.iter().filter_map(|one| finding(policy, one)).collect()
}

fn finding(policy: &Policy, published: &Published) -> Option<Finding> {
    let has = |service: &Service, (first, last): (u16, u16)| {
        speaks(service, published.protocol)
            && service
                .ports
                .iter()
                .any(|range| range.first <= last && first <= range.last)
    };
    let arrives = |service: &&Service| published.ports.iter().any(|ports| has(service, *ports));
    if policy.services.iter().any(|service| arrives(&service)) {
        return None;
    }
    let what = format!("NAT sends {} to {}", published.arriving(), published.to);
    let behind = published.to_port.and_then(|port| {
        let mut services = policy.services.iter();
        services.find(|service| has(service, (port, port)))
    });
    Some(match behind {
        Some(service) => Finding::new(
            &all::NAT_PUBLISHED,
            format!("{what}, the port of service {}", service.name),
        ),
        None => Finding::new(&all::NAT_OTHER, what),
    })
}

impl Published {
    fn arriving(&self) -> String {
        let protocol = self.protocol.map_or("any protocol", Protocol::word);
        let shown = |(first, last): &(u16, u16)| match first == last {
            true => first.to_string(),
            false => format!("{first}-{last}"),
        };
        let ports: Vec<String> = self.ports.iter().map(shown).collect();
        match ports.as_slice() {
            [] => format!("{protocol} (its ports are not told)"),
            ports => format!("{}/{protocol}", ports.join(",")),
        }
    }
}

/// `None` is any.
pub(super) fn speaks(service: &Service, protocol: Option<Protocol>) -> bool {
    match protocol {
        Some(Protocol::Tcp) => service.protocols.tcp,
        Some(Protocol::Udp) => service.protocols.udp,
        None => true,
    }
}
