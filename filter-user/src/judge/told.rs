//! An explained packet as one JSON object: what `keyfence explain --json` prints and `GET /v1/explain` answers.

use std::fmt::Write as _;
use std::net::SocketAddr;

use filter_common::limit;
use filter_common::parse::{Fragment, Frame, Packet, Protocol};
use filter_common::units::Nanos;
use filter_common::verdict::{Judgement, Verdict};
use serde_json::{Value, json};

use super::Names;
use super::reading::{Bucket, Matched, Reading, address, buckets};
use crate::compiler::limit_set;
use crate::policy::Policy;
use crate::policy::model::{Limits, Origin};

pub struct Explained<'a> {
    pub frame: &'a [u8],
    pub kind: Frame,
    pub packet: Packet,
    pub interface: Interface,
    pub reading: Reading,
    pub reference: Said,
    /// `Err` is why it was not asked.
    pub kernel: Result<Said, String>,
}

/// Where the packet arrives.
pub struct Interface {
    pub name: String,
    /// Whether the policy names it.
    pub filtered: bool,
}

impl Interface {
    /// The default is the policy's first.
    pub fn of(policy: &Policy, asked: Option<&str>) -> Self {
        let names = &policy.filter.interfaces;
        let name = asked.or(names.first().map(String::as_str)).unwrap_or_default();
        let matches = |pattern: &String| {
            pattern == name || glob::Pattern::new(pattern).is_ok_and(|pattern| pattern.matches(name))
        };
        Self {
            name: name.to_owned(),
            filtered: names.iter().any(matches),
        }
    }
}

/// A judgement in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    verdict: Verdict,
    reason: &'static str,
    service: Option<String>,
    owner: Option<String>,
}

impl Said {
    pub fn of(judgement: &Judgement, names: &Names) -> Self {
        Self {
            verdict: judgement.verdict,
            reason: judgement.reason.name(),
            service: names.service(judgement).map(str::to_owned),
            owner: names.owner(judgement).map(str::to_owned),
        }
    }

    /// Whether two judges say the same, but for what is in the buckets, which packets change between two looks.
    pub fn agrees(&self, other: &Self) -> bool {
        let by_buckets = |said: &Self| said.reason == "allowed" || said.reason.starts_with("limit-");
        self == other || by_buckets(self) && by_buckets(other) && self.service == other.service
    }

    fn object(&self) -> Value {
        json!({
            "verdict": self.verdict.name(),
            "reason": self.reason,
            "service": self.service,
            "owner": self.owner,
        })
    }
}

impl std::fmt::Display for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.verdict.name(), self.reason)
    }
}

impl Explained<'_> {
    /// What the rules as they are read here come to.
    fn read(&self) -> Said {
        Said {
            verdict: self.reading.verdict,
            reason: self.reading.reason.name(),
            service: self.reading.service.clone(),
            owner: self.reading.owner.clone(),
        }
    }

    /// Whether all who were asked say the same.
    fn agree(&self) -> bool {
        let same = |said: &Said| *said == self.reference;
        same(&self.read()) && self.kernel.as_ref().is_ok_and(same) | self.kernel.is_err()
    }

    pub fn object(&self) -> Value {
        let (from, to) = self.ends();
        let rules = self
            .reading
            .steps
            .iter()
            .map(|step| json!({ "rule": step.rule, "answer": step.answer, "detail": step.detail }));
        let matched = |kind: &str| {
            let mut all = self.reading.matched.iter();
            all.find(|matched| matched.kind == kind).map(entry)
        };
        json!({
            "schema": 1,
            "from": from,
            "to": to,
            "frame": hex(self.frame),
            "interface": self.interface.name,
            "filtered": self.interface.filtered,
            "verdict": self.reference.verdict.name(),
            "reason": self.reference.reason,
            "service": self.reference.service,
            "owner": self.reference.owner,
            "rules": rules.collect::<Vec<_>>(),
            "matched": {
                "management": matched("management"),
                "deny": matched("deny"),
                "service": matched("service"),
                "client": matched("client"),
                "binding": matched("binding"),
            },
            "buckets": self.reading.buckets.iter().map(bucket).collect::<Vec<_>>(),
            "reference": self.reference.object(),
            "read": self.read().object(),
            "kernel": self.kernel.as_ref().ok().map(Said::object),
            "kernel_not_asked": self.kernel.as_ref().err(),
            "agree": self.agree(),
        })
    }

    /// Source, and destination with the protocol, where it is an IP packet.
    fn ends(&self) -> (Option<String>, Option<String>) {
        if self.kind != Frame::Ip {
            return (None, None);
        }
        let packet = &self.packet;
        let [from, to] = [&packet.source, &packet.destination].map(address);
        let protocol = match packet.protocol {
            Protocol::Tcp => "tcp".to_owned(),
            Protocol::Udp => "udp".to_owned(),
            Protocol::Icmp => "icmp".to_owned(),
            Protocol::Other | Protocol::Unknown => packet.protocol_number.to_string(),
        };
        let has_ports = matches!(packet.protocol, Protocol::Tcp | Protocol::Udp);
        if !has_ports || packet.fragment == Fragment::Later {
            return (Some(from.to_string()), Some(format!("{to}/{protocol}")));
        }
        let from = SocketAddr::new(from, packet.source_port);
        let to = SocketAddr::new(to, packet.destination_port);
        (Some(from.to_string()), Some(format!("{to}/{protocol}")))
    }
}

/// What is pushed stands in no file: `file` and `line` are null.
fn entry(matched: &Matched) -> Value {
    let origin = |origin: Option<&Origin>| {
        json!({
            "file": origin.map(|origin| origin.file.as_ref()),
            "line": origin.map(|origin| origin.line),
        })
    };
    let source = matched.source.as_ref().map(|(prefix, at)| {
        let mut object = origin(at.as_ref());
        object["prefix"] = prefix.to_string().into();
        object
    });
    let labels = matched
        .remarks
        .labels
        .iter()
        .map(|(label, value)| (label.clone(), value.as_str().into()));
    let mut object = origin(matched.origin.as_ref());
    object["name"] = matched.name.as_str().into();
    object["source"] = source.into();
    object["note"] = matched.remarks.note.clone().into();
    object["labels"] = serde_json::Map::from_iter(labels).into();
    object
}

fn bucket(bucket: &Bucket) -> Value {
    json!({
        "level": bucket.level,
        "name": bucket.name,
        "unit": bucket.unit,
        "left": bucket.left,
        "burst": bucket.limit.burst,
        "rate": bucket.limit.rate,
        "per_seconds": bucket.limit.per_seconds,
    })
}

/// The buckets of a grant by their words, as they are told.
pub fn grant_buckets(owner: &str, limits: &Limits, words: [u64; 3], now: u64) -> Vec<Value> {
    level_buckets("grant", owner, limits, words, now)
}

/// The same of any level.
pub fn level_buckets(
    level: &'static str,
    name: &str,
    limits: &Limits,
    words: [u64; 3],
    now: u64,
) -> Vec<Value> {
    let Ok(set) = limit_set(limits) else {
        return Vec::new();
    };
    let [packets, bytes, connections] = words;
    let left = [
        (&set.packets, packets),
        (&set.bytes, bytes),
        (&set.connections, connections),
    ]
    .map(|(limit, word)| limit::level(limit, word, Nanos(now)));
    buckets(level, name, limits, left).iter().map(bucket).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
