//! One record as a document of the Elastic Common Schema. docs/RECORDS.md tells the fields one by one.

use std::net::IpAddr;

use filter_common::parse::Family;
use filter_common::records::{Ports, Record, RecordKey, Tally, has_ports};
use jiff::Timestamp;
use serde::Serialize;

use super::address::{Shown, Veil, ip, show_prefix};
use crate::kernel::records::Epoch;

#[derive(Clone, Copy, Serialize)]
pub(super) struct Ecs {
    version: &'static str,
}

/// The version of the schema that the fields are of.
pub(super) const ECS: Ecs = Ecs { version: "8.11.0" };

#[derive(Serialize)]
pub(super) struct Document<'a> {
    #[serde(rename = "@timestamp")]
    timestamp: Timestamp,
    ecs: Ecs,
    event: Event<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<End>,
    #[serde(skip_serializing_if = "Option::is_none")]
    destination: Option<End>,
    network: Network,
    observer: Observer<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<Rule<'a>>,
    keyfence: Own<'a>,
}

#[derive(Serialize)]
pub(super) struct Event<'a> {
    pub(super) id: String,
    pub(super) sequence: u64,
    pub(super) start: Timestamp,
    pub(super) end: Timestamp,
    pub(super) kind: &'static str,
    pub(super) category: [&'static str; 1],
    pub(super) r#type: [&'static str; 2],
    pub(super) action: &'static str,
    pub(super) outcome: &'static str,
    pub(super) reason: &'a str,
}

#[derive(Serialize, Default)]
struct End {
    #[serde(skip_serializing_if = "Option::is_none")]
    ip: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
}

#[derive(Serialize)]
struct Network {
    #[serde(skip_serializing_if = "Option::is_none")]
    transport: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iana_number: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    r#type: Option<&'static str>,
    packets: u64,
    bytes: u64,
}

#[derive(Serialize)]
struct Observer<'a> {
    vendor: &'static str,
    product: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ingress: Option<Ingress<'a>>,
}

#[derive(Serialize)]
struct Ingress<'a> {
    interface: Interface<'a>,
}

#[derive(Serialize)]
struct Interface<'a> {
    name: &'a str,
}

#[derive(Serialize)]
struct Rule<'a> {
    name: &'a str,
}

#[derive(Serialize)]
struct Own<'a> {
    kind: &'static str,
    verdict: &'static str,
    reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<&'a str>,
    epoch: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    source_port_first: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source_port_last: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source_ports_min: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tcp_flags: Option<u8>,
}

pub(super) type Named<'a> = (Option<&'a str>, Option<&'a str>, Option<&'a str>);

pub(super) fn exact<'a>(
    epoch: &Epoch,
    key: &RecordKey,
    tally: Tally,
    ports: Ports,
    veil: &Veil,
    (service, owner, interface): Named<'a>,
    event: Event<'a>,
) -> Document<'a> {
    let ported = key.family.is_some()
        && has_ports(key.protocol)
        && (ports.first, ports.last, key.destination_port) != (0, 0, 0);
    let given = |port| ported.then_some(port);
    let source = key.family.map(|family| {
        let Shown { ip, address } = veil.show(key.source, family);
        End {
            ip,
            address,
            port: given(ports.first).filter(|_| ports.same),
        }
    });
    let destination = key.family.map(|family| End {
        ip: Some(ip(key.destination, family)),
        address: None,
        port: given(key.destination_port),
    });
    Document {
        timestamp: event.end,
        ecs: ECS,
        source,
        destination,
        network: network(key.family, Some(key.protocol), tally),
        observer: Observer {
            vendor: "Keyfence",
            product: "keyfence",
            ingress: interface.map(|name| Ingress {
                interface: Interface { name },
            }),
        },
        rule: service.map(|name| Rule { name }),
        keyfence: Own {
            kind: "record",
            verdict: key.verdict.name(),
            reason: key.reason.name(),
            service,
            owner,
            epoch: epoch.number,
            source_port_first: given(ports.first),
            source_port_last: given(ports.last),
            source_ports_min: ported.then_some(ports.distinct_min),
            tcp_flags: (ported && key.protocol == TCP).then_some(ports.tcp_flags),
        },
        event,
    }
}

pub(super) fn beyond<'a>(
    epoch: &Epoch,
    record: &Record,
    event: impl Fn(&'static str) -> Event<'a>,
) -> Document<'a> {
    let (prefix, reason, verdict, tally) = match record {
        Record::Overflow {
            prefix,
            reason,
            verdict,
            tally,
        } => (*prefix, *reason, *verdict, *tally),
        Record::Exact { key, tally, .. } => (None, key.reason, key.verdict, *tally),
    };
    let event = event(reason.name());
    Document {
        timestamp: event.end,
        ecs: ECS,
        source: prefix.map(|(address, family)| {
            let Shown { ip, address } = show_prefix(address, family);
            End {
                ip,
                address,
                port: None,
            }
        }),
        destination: None,
        network: network(prefix.map(|(_, family)| family), None, tally),
        observer: Observer {
            vendor: "Keyfence",
            product: "keyfence",
            ingress: None,
        },
        rule: None,
        keyfence: Own {
            kind: "overflow",
            verdict: verdict.name(),
            reason: reason.name(),
            service: None,
            owner: None,
            epoch: epoch.number,
            source_port_first: None,
            source_port_last: None,
            source_ports_min: None,
            tcp_flags: None,
        },
        event,
    }
}

const TCP: u8 = 6;

fn network(family: Option<Family>, protocol: Option<u8>, tally: Tally) -> Network {
    let protocol = protocol.filter(|_| family.is_some());
    Network {
        transport: match protocol {
            Some(1) => Some("icmp"),
            Some(TCP) => Some("tcp"),
            Some(17) => Some("udp"),
            Some(58) => Some("ipv6-icmp"),
            _ => None,
        },
        iana_number: protocol.map(|number| number.to_string()),
        r#type: family.map(|family| match family {
            Family::V4 => "ipv4",
            Family::V6 => "ipv6",
        }),
        packets: tally.packets,
        bytes: tally.bytes,
    }
}
