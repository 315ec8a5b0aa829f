//! The words of a reading: answers in their places, entries with file and line, and what an entry holds.

use std::net::{IpAddr, Ipv6Addr};

use filter_common::parse::{Address, Fragment, Packet, Protocol};
use ipnet::IpNet;

use super::RULES;
use crate::policy::model::{Limit, Limits, Origin, PassDrop, PortRange, Protocols, Remarks, Source};

/// One rule and its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub rule: &'static str,
    /// `no`: on to the next; `yes`: it decides; of grants `granted` or `refused`, of limits `paid` or `refused`;
    /// `not asked`: decided before.
    pub answer: &'static str,
    pub detail: String,
}

/// An entry that had a say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matched {
    /// `service`, `client`, `binding`, `deny`, `management`.
    pub kind: &'static str,
    pub name: String,
    /// `None` where it was pushed.
    pub origin: Option<Origin>,
    /// The source prefix that holds the packet's source, and where it was written.
    pub source: Option<(IpNet, Option<Origin>)>,
    pub remarks: Remarks,
}

impl Matched {
    /// An entry of the policy.
    pub(super) fn of(
        kind: &'static str,
        name: &str,
        origin: &Origin,
        source: Option<&Source>,
        remarks: &Remarks,
    ) -> Self {
        Self {
            kind,
            name: name.to_owned(),
            origin: Some(origin.clone()),
            source: source.map(|source| (source.prefix, Some(source.origin.clone()))),
            remarks: remarks.clone(),
        }
    }

    /// What an API server or an operator has pushed.
    pub(super) fn pushed(kind: &'static str, name: &str, source: IpNet) -> Self {
        Self {
            kind,
            name: name.to_owned(),
            origin: None,
            source: Some((source, None)),
            remarks: Remarks::default(),
        }
    }
}

/// A bucket that was asked, and what it held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// `source`, `grant`, `publisher`, `service`, `icmp`.
    pub level: &'static str,
    /// Of the owner, the publisher or the service; else empty.
    pub name: String,
    /// `packets`, `bytes`, `connections`.
    pub unit: &'static str,
    pub left: u64,
    pub limit: Limit,
}

/// Of a level's limits: packets, bytes, connections.
pub fn buckets(level: &'static str, name: &str, limits: &Limits, left: [u64; 3]) -> Vec<Bucket> {
    let units = [
        ("packets", limits.packets),
        ("bytes", limits.bytes),
        ("connections", limits.connections),
    ];
    let set = units.into_iter().zip(left).filter_map(|((unit, limit), left)| {
        Some(Bucket {
            level,
            name: name.to_owned(),
            unit,
            left,
            limit: limit?,
        })
    });
    set.collect()
}

/// Such as `1 entry` and `2 entries`.
pub(super) fn entries(number: usize) -> String {
    let noun = if number == 1 { "entry" } else { "entries" };
    format!("{number} {noun}")
}

/// The answers as they come.
#[derive(Default)]
pub(super) struct Notes {
    answers: [Option<(&'static str, String)>; RULES.len()],
    pub(super) matched: Vec<Matched>,
    pub(super) buckets: Vec<Bucket>,
}

impl Notes {
    /// Notes a level's buckets; gives their words.
    pub(super) fn level(&mut self, buckets: Vec<Bucket>) -> String {
        let text = levels(&buckets);
        self.buckets.extend(buckets);
        text
    }

    pub(super) fn step(&mut self, rule: usize, answer: &'static str, detail: String) {
        self.answers[rule] = Some((answer, detail));
    }

    pub(super) fn more(&mut self, rule: usize, detail: &str) {
        if let Some((_, said)) = &mut self.answers[rule] {
            said.push_str(detail);
        }
    }

    pub(super) fn in_order(&mut self) -> Vec<Step> {
        let answers = std::mem::take(&mut self.answers);
        let steps = RULES.into_iter().zip(answers).map(|(rule, answer)| {
            let (answer, detail) = answer.unwrap_or(("not asked", String::new()));
            Step { rule, answer, detail }
        });
        steps.collect()
    }
}

/// `client acme (keyfence.toml:12) by 192.0.2.0/24 (acme.txt:3)`
pub(super) fn said(kind: &str, name: &str, origin: &Origin, source: Option<&Source>) -> String {
    let mut text = format!("{kind} {name} ({}:{})", origin.file, origin.line);
    if let Some(Source { prefix, origin }) = source {
        text.push_str(&format!(" by {prefix} ({}:{})", origin.file, origin.line));
    }
    text
}

pub(super) fn shape(packet: &Packet) -> String {
    let fragment = match packet.fragment {
        Fragment::Whole => "",
        Fragment::First => ", a first fragment",
        Fragment::Later => ", a later fragment",
    };
    let protocol = match packet.protocol {
        Protocol::Tcp => "TCP".to_owned(),
        Protocol::Udp => "UDP".to_owned(),
        Protocol::Icmp => "ICMP".to_owned(),
        Protocol::Unknown => "an unknown protocol".to_owned(),
        Protocol::Other => format!("protocol {}", packet.protocol_number),
    };
    format!("{protocol}{fragment}, {} bytes", packet.length)
}

/// `packets 3 of 10 (+1/s), bytes …`
pub(super) fn levels(buckets: &[Bucket]) -> String {
    let shown: Vec<String> = buckets
        .iter()
        .map(
            |Bucket {
                 unit, left, limit, ..
             }| {
                let per = match limit.per_seconds {
                    1 => "s".to_owned(),
                    60 => "m".to_owned(),
                    3600 => "h".to_owned(),
                    seconds => format!("{seconds}s"),
                };
                format!("{unit} {left} of {} (+{}/{per})", limit.burst, limit.rate)
            },
        )
        .collect();
    if shown.is_empty() {
        "no limit".to_owned()
    } else {
        shown.join(", ")
    }
}

pub(super) fn word(says: PassDrop) -> &'static str {
    match says {
        PassDrop::Pass => "pass",
        PassDrop::Drop => "drop",
    }
}

pub(super) fn has(protocols: Protocols, protocol: Protocol) -> bool {
    match protocol {
        Protocol::Tcp => protocols.tcp,
        Protocol::Udp => protocols.udp,
        _ => false,
    }
}

pub(super) fn in_ranges(ranges: &[PortRange], port: u16) -> bool {
    ranges
        .iter()
        .any(|range| (range.first..=range.last).contains(&port))
}

/// The longest of the prefixes that hold an address.
pub(super) fn longest(sources: &[Source], address: IpAddr) -> Option<&Source> {
    let holding = sources
        .iter()
        .filter(|source| IpNet::contains(&source.prefix, &address));
    holding.max_by_key(|source| source.prefix.prefix_len())
}

/// As the packet has it: IPv4 for ::ffff:a.b.c.d.
pub fn address(address: &Address) -> IpAddr {
    IpAddr::V6(Ipv6Addr::from(address.octets())).to_canonical()
}
