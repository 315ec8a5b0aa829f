//! The file syntax of SPEC 2, as far as the oracle judges it. An unknown key is an error.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};
use serde::Deserialize;
use toml::value::Datetime;

use super::{
    Addresses, Client, Deny, Fragments, Limit, Limits, Management, Ping, Policy, Service, Services, date,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct File {
    version: u64,
    filter: FilterTable,
    #[serde(default)]
    service: Vec<ServiceTable>,
    #[serde(default)]
    client: Vec<ClientTable>,
    #[serde(default)]
    deny: Vec<DenyTable>,
    #[serde(default)]
    management: Vec<ManagementTable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct FilterTable {
    #[serde(rename = "interfaces")]
    _interfaces: Vec<String>,
    mode: Option<Mode>,
    other_traffic: Option<PassOrDrop>,
    other_address: Option<PassOrDrop>,
    fragments: Option<Choice>,
    ping: Option<Choice>,
    non_ip: Option<PassOrDrop>,
    #[serde(rename = "management-none")]
    _management_none: Option<bool>,
    icmp_limit: Option<LimitTable>,
    source_limit: Option<LimitTable>,
}

#[derive(Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Mode {
    Enforce,
    Observe,
}

#[derive(Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum PassOrDrop {
    Pass,
    Drop,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Choice {
    Listed,
    Pass,
    Drop,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ServiceTable {
    name: String,
    address: Option<OneOrMany<String>>,
    protocol: OneOrMany<String>,
    ports: Vec<Number>,
    mode: Option<Mode>,
    limit: Option<LimitTable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct ClientTable {
    name: String,
    sources: Vec<String>,
    #[serde(default)]
    source_ports: Vec<Number>,
    services: Vec<String>,
    limit: Option<LimitTable>,
    expires: Option<Datetime>,
    enabled: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DenyTable {
    name: String,
    sources: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ManagementTable {
    name: String,
    sources: Vec<String>,
    protocol: OneOrMany<String>,
    ports: Vec<Number>,
    address: Option<OneOrMany<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LimitTable {
    packets: Option<BucketTable>,
    bytes: Option<BucketTable>,
    connections: Option<BucketTable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BucketTable {
    rate: Number,
    burst: Number,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany<T> {
    One(T),
    Many(Vec<T>),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Number {
    Whole(u64),
    Text(String),
}

pub(super) fn policy(text: &str) -> Result<Policy, String> {
    let file: File = toml::from_str(text).map_err(|error| error.to_string())?;
    if file.version != 1 {
        return Err(format!("version {}", file.version));
    }
    let filter = file.filter;
    let icmp_limit = match filter.icmp_limit.map(limits).transpose()? {
        Some(
            Limits { bytes: Some(_), .. }
            | Limits {
                connections: Some(_), ..
            },
        ) => {
            return Err("icmp-limit takes packets only".to_owned());
        }
        Some(limits) => limits.packets,
        None => None,
    };
    let source_limit = filter.source_limit.map(limits).transpose()?;
    Ok(Policy {
        source_limit: source_limit.unwrap_or_default(),
        observe: filter.mode == Some(Mode::Observe),
        other_traffic_drop: filter.other_traffic == Some(PassOrDrop::Drop),
        other_address_drop: filter.other_address == Some(PassOrDrop::Drop),
        fragments: match filter.fragments {
            None | Some(Choice::Listed) => Fragments::Listed,
            Some(Choice::Drop) => Fragments::Drop,
            Some(Choice::Pass) => Fragments::Pass,
        },
        ping: match filter.ping {
            None | Some(Choice::Pass) => Ping::Pass,
            Some(Choice::Listed) => Ping::Listed,
            Some(Choice::Drop) => Ping::Drop,
        },
        non_ip_drop: filter.non_ip == Some(PassOrDrop::Drop),
        icmp_limit,
        host_addresses: Vec::new(),
        services: file.service.into_iter().map(service).collect::<Result<_, _>>()?,
        clients: file.client.into_iter().map(client).collect::<Result<_, _>>()?,
        denies: file.deny.into_iter().map(deny).collect::<Result<_, _>>()?,
        management: file
            .management
            .into_iter()
            .map(management)
            .collect::<Result<_, _>>()?,
    })
}

fn service(table: ServiceTable) -> Result<Service, String> {
    let (tcp, udp) = protocols(table.protocol)?;
    Ok(Service {
        name: table.name,
        addresses: addresses(table.address)?,
        tcp,
        udp,
        ports: ports(table.ports)?,
        observe: table.mode.map(|mode| mode == Mode::Observe),
        limit: table.limit.map(limits).transpose()?.unwrap_or_default(),
    })
}

fn client(table: ClientTable) -> Result<Client, String> {
    let all = table.services.iter().any(|name| name == "*");
    let expires_ns = match &table.expires {
        Some(moment) => Some(date::read(moment).ok_or_else(|| format!("expires {moment}"))?),
        None => None,
    };
    Ok(Client {
        name: table.name,
        sources: prefixes(&table.sources)?,
        source_ports: ports(table.source_ports)?,
        services: if all {
            Services::All
        } else {
            Services::Named(table.services)
        },
        limit: table.limit.map(limits).transpose()?.unwrap_or_default(),
        expires_ns,
        enabled: table.enabled.unwrap_or(true),
    })
}

fn deny(table: DenyTable) -> Result<Deny, String> {
    Ok(Deny {
        name: table.name,
        sources: prefixes(&table.sources)?,
    })
}

fn management(table: ManagementTable) -> Result<Management, String> {
    let (tcp, udp) = protocols(table.protocol)?;
    Ok(Management {
        name: table.name,
        sources: prefixes(&table.sources)?,
        tcp,
        udp,
        ports: ports(table.ports)?,
        addresses: addresses(table.address)?,
    })
}

fn many<T>(values: OneOrMany<T>) -> Vec<T> {
    match values {
        OneOrMany::One(value) => vec![value],
        OneOrMany::Many(values) => values,
    }
}

fn protocols(names: OneOrMany<String>) -> Result<(bool, bool), String> {
    let (mut tcp, mut udp) = (false, false);
    for name in many(names) {
        match name.as_str() {
            "tcp" => tcp = true,
            "udp" => udp = true,
            _ => return Err(format!("protocol {name}")),
        }
    }
    Ok((tcp, udp))
}

fn addresses(names: Option<OneOrMany<String>>) -> Result<Addresses, String> {
    let Some(names) = names.map(many) else {
        return Ok(Addresses::Any);
    };
    if names == ["host"] {
        Ok(Addresses::Host)
    } else {
        Ok(Addresses::Prefixes(prefixes(&names)?))
    }
}

fn prefixes(names: &[String]) -> Result<Vec<IpNet>, String> {
    names.iter().map(|name| prefix(name)).collect()
}

/// `10.1.2.3` means `/32`; an IPv4-mapped prefix is read as IPv4 (SPEC 2).
fn prefix(name: &str) -> Result<IpNet, String> {
    let net = match name.parse::<IpAddr>() {
        Ok(address) => IpNet::from(address),
        Err(_) => name
            .parse::<IpNet>()
            .map_err(|error| format!("{name}: {error}"))?,
    };
    if net.trunc() != net {
        return Err(format!("{name} has host bits set"));
    }
    if let IpNet::V6(v6) = net
        && let Some(address) = v6.addr().to_ipv4_mapped()
        && v6.prefix_len() >= 96
    {
        let v4 = Ipv4Net::new(address, v6.prefix_len() - 96).map_err(|error| error.to_string())?;
        return Ok(IpNet::V4(v4));
    }
    Ok(net)
}

fn ports(values: Vec<Number>) -> Result<Vec<(u16, u16)>, String> {
    let port = |text: &str| {
        text.parse::<u16>()
            .map_err(|error| format!("port {text}: {error}"))
    };
    let range = |value: Number| match value {
        Number::Whole(number) => {
            let number = port(&number.to_string())?;
            Ok((number, number))
        }
        Number::Text(text) => match text.split_once('-') {
            Some((first, last)) => Ok((port(first)?, port(last)?)),
            None => Ok((port(&text)?, port(&text)?)),
        },
    };
    values.into_iter().map(range).collect()
}

fn limits(table: LimitTable) -> Result<Limits, String> {
    Ok(Limits {
        packets: table.packets.map(limit).transpose()?,
        bytes: table.bytes.map(limit).transpose()?,
        connections: table.connections.map(limit).transpose()?,
    })
}

fn limit(table: BucketTable) -> Result<Limit, String> {
    let (rate, seconds, parts) = match table.rate {
        Number::Whole(rate) => (rate, 1, 1),
        Number::Text(text) => {
            let (amount_text, seconds) = match text.rsplit_once('/') {
                Some((head, "s")) => (head, 1),
                Some((head, "m")) => (head, 60),
                Some((head, "h")) => (head, 3600),
                Some((_, unit)) => return Err(format!("rate per {unit}")),
                None => (text.as_str(), 1),
            };
            let (rate, parts) = amount(amount_text)?;
            (rate, seconds, parts)
        }
    };
    let burst = match table.burst {
        Number::Whole(burst) => burst,
        Number::Text(text) => {
            let (burst, parts) = amount(&text)?;
            burst / parts
        }
    };
    Ok(Limit {
        rate,
        per_seconds: seconds * parts,
        burst,
    })
}

/// A count and in how many parts it is measured: 8 for bits, else 1.
fn amount(text: &str) -> Result<(u64, u64), String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| format!("amount {text}"))?;
    let (scale, parts) = match unit.strip_suffix("bit") {
        Some(scale) => (scale, 8),
        None => (unit.strip_suffix('B').unwrap_or(unit), 1),
    };
    let factor = match scale {
        "" => 1,
        "k" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        _ => return Err(format!("unit {unit}")),
    };
    Ok((
        number
            .checked_mul(factor)
            .ok_or_else(|| format!("amount {text}"))?,
        parts,
    ))
}
