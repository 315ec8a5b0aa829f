//! The rules of SPEC 3 read aloud: each asked in its order over the policy's own entries, one after the other, with
//! what it answers and which entry says so.
//!
//! Plain and slow on purpose: it walks the policy, not the tables, so that an entry's file and line are at hand and a
//! fault of the tables shows as a difference. Takes no token, counts nothing.

use std::net::{IpAddr, Ipv6Addr};

use filter_common::charge::{self, Charge};
use filter_common::classify::{self, Icmp};
use filter_common::limit::Effect;
use filter_common::lookup::GrantTables as _;
use filter_common::parse::{Family, Fragment, Frame, Packet, Protocol};
use filter_common::verdict::{Reason, Verdict};
use ipnet::IpNet;

use super::Names;
use crate::compiler::host::HostTables;
use crate::compiler::{owner_name, service_mode};
use crate::policy::Policy;
use crate::policy::model::{
    Addresses, Client, Deny, Limits, Management, Mode, Origin, PassDrop, PassListedDrop, PortRange,
    Protocols, Remarks, Service, ServiceSet, Source,
};

/// Grants tried for one packet, and so the most that are shown.
const TRIES_MAX: usize = filter_common::bounds::TRIES_MAX as usize;

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
    /// `service`, `client`, `deny`, `management`.
    pub kind: &'static str,
    pub name: String,
    pub origin: Origin,
    /// The source prefix that holds the packet's source, where it was written.
    pub source: Option<Source>,
    pub remarks: Remarks,
}

/// The whole reading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    pub steps: Vec<Step>,
    pub matched: Vec<Matched>,
    pub verdict: Verdict,
    pub reason: Reason,
    pub service: Option<String>,
    pub owner: Option<String>,
}

/// What the rules are read by.
pub struct Reader<'a> {
    pub policy: &'a Policy,
    pub names: &'a Names,
    pub host: &'a HostTables,
    /// What `"host"` means.
    pub host_addresses: &'a [IpAddr],
}

const RULES: [&str; 11] = [
    "3.1 link layer",
    "3.2 malformed",
    "3.3 essential",
    "3.4 management",
    "3.5 deny",
    "3.6 icmp",
    "3.7 service",
    "3.8 fragments",
    "3.9 grants",
    "3.10 limits",
    "3.11 observe",
];

/// How a rule ends it.
struct Decision {
    passes: bool,
    reason: Reason,
    service: Option<String>,
    owner: Option<String>,
    /// Whether a drop would only be observed.
    observed: bool,
}

impl Reader<'_> {
    /// Reads the rules for a frame as `parse` left it.
    pub fn read(&self, frame: Frame, packet: &Packet) -> Reading {
        let mut notes = Notes::default();
        let decision = self.decide(frame, packet, &mut notes);
        let verdict = match (decision.passes, decision.observed) {
            (true, _) => Verdict::Pass,
            (false, true) => Verdict::Observe,
            (false, false) => Verdict::Drop,
        };
        let mode = match verdict {
            Verdict::Pass => ("not asked", "nothing is refused".to_owned()),
            Verdict::Observe => ("yes", "it passes, and is recorded as refused".to_owned()),
            Verdict::Drop => ("no", "the mode is enforce".to_owned()),
        };
        notes.step(10, mode.0, mode.1);
        Reading {
            steps: notes.in_order(),
            matched: notes.matched,
            verdict,
            reason: decision.reason,
            service: decision.service,
            owner: decision.owner,
        }
    }

    fn decide(&self, frame: Frame, packet: &Packet, notes: &mut Notes) -> Decision {
        let filter = &self.policy.filter;
        match frame {
            Frame::LinkControl => {
                notes.step(0, "yes", "ARP or a link-control frame: essential".into());
                return self.pass(Reason::Essential);
            }
            Frame::NonIp => {
                notes.step(0, "yes", format!("not IP: `non-ip` says {}", word(filter.non_ip)));
                return self.by(filter.non_ip, Reason::NonIp);
            }
            Frame::Malformed => {
                let at = match packet.length {
                    0 => "its link layer or its IP header".to_owned(),
                    _ => format!("behind its IP header (protocol {})", packet.protocol_number),
                };
                notes.step(0, "no", "not decided by the link layer".into());
                notes.step(1, "yes", format!("the fault is in {at}"));
                return self.refuse(Reason::Malformed);
            }
            Frame::Ip => {}
        }
        let family = if packet.family == Family::V4 {
            "IPv4"
        } else {
            "IPv6"
        };
        notes.step(0, "no", family.to_owned());
        notes.step(1, "no", shape(packet));
        if classify::is_essential(packet) {
            notes.step(
                2,
                "yes",
                "neighbour discovery, listener reports or a DHCP answer".into(),
            );
            return self.pass(Reason::Essential);
        }
        notes.step(2, "no", String::new());
        self.entries(packet, notes)
    }

    /// Rules 4 to 8.
    fn entries(&self, packet: &Packet, notes: &mut Notes) -> Decision {
        let source = address(&packet.source);
        if let Some((entry, source)) = self.management(packet) {
            notes.step(
                3,
                "yes",
                said("management", &entry.name, &entry.origin, Some(source)),
            );
            notes.matched.push(matched(
                "management",
                &entry.name,
                &entry.origin,
                Some(source),
                &entry.remarks,
            ));
            return self.pass(Reason::Management);
        }
        notes.step(
            3,
            "no",
            format!("{} entries, none for this packet", self.policy.management.len()),
        );
        let denied = self
            .policy
            .denies
            .iter()
            .find_map(|deny: &Deny| Some((deny, longest(&deny.sources, source)?)));
        if let Some((deny, source)) = denied {
            notes.step(4, "yes", said("deny", &deny.name, &deny.origin, Some(source)));
            notes.matched.push(matched(
                "deny",
                &deny.name,
                &deny.origin,
                Some(source),
                &deny.remarks,
            ));
            return self.refuse(Reason::Denied);
        }
        notes.step(
            4,
            "no",
            format!("{} entries, none holds {source}", self.policy.denies.len()),
        );
        let decision = match packet.protocol {
            Protocol::Icmp => self.icmp(packet, notes),
            Protocol::Tcp | Protocol::Udp if packet.fragment != Fragment::Later => {
                notes.step(5, "no", "not ICMP".into());
                match self.services().find(|service| self.takes(service, packet)) {
                    Some(service) => return self.grants(service, packet, notes),
                    None => self.unnamed(packet, notes),
                }
            }
            Protocol::Tcp | Protocol::Udp | Protocol::Unknown => {
                notes.step(5, "no", "not ICMP".into());
                notes.step(6, "no", "a later fragment carries no ports".into());
                let here: Vec<&Service> = self
                    .services()
                    .filter(|service| self.could_take(service, packet))
                    .collect();
                if !here.is_empty() {
                    return self.later_fragment(&here, packet, notes);
                }
                self.other(notes, 7, "no service has its protocol at its address")
            }
            Protocol::Other => {
                notes.step(5, "no", "not ICMP".into());
                self.other(notes, 6, "neither TCP, UDP nor ICMP")
            }
        };
        let at_service = || {
            self.services()
                .any(|service| self.holds(&service.address, packet))
        };
        if decision.passes && packet.fragment != Fragment::Whole && at_service() {
            let observed = self.policy.filter.mode == Mode::Observe;
            return self.fragment(packet, &|_| true, observed, notes);
        }
        decision
    }

    fn management(&self, packet: &Packet) -> Option<(&Management, &Source)> {
        let source = address(&packet.source);
        self.policy.management.iter().find_map(|entry| {
            let named = match (packet.protocol, packet.fragment) {
                (Protocol::Tcp | Protocol::Udp, Fragment::Later) => has(entry.protocols, packet.protocol),
                (Protocol::Unknown, _) => true,
                (Protocol::Tcp | Protocol::Udp, _) => {
                    has(entry.protocols, packet.protocol) && in_ranges(&entry.ports, packet.destination_port)
                }
                _ => false,
            };
            let source = longest(&entry.sources, source)?;
            (named && self.holds(&entry.address, packet)).then_some((entry, source))
        })
    }

    fn icmp(&self, packet: &Packet, notes: &mut Notes) -> Decision {
        let filter = &self.policy.filter;
        let kind = classify::icmp(packet);
        let what = match packet.fragment {
            Fragment::Later => "a later fragment".to_owned(),
            _ => format!("type {}", packet.icmp_type),
        };
        match kind {
            Icmp::Other => return self.other(notes, 5, &format!("ICMP {what}")),
            Icmp::Request if filter.ping == PassListedDrop::Drop => {
                notes.step(5, "yes", format!("{what}: `ping` says drop"));
                return self.refuse(Reason::Icmp);
            }
            Icmp::Request if filter.ping == PassListedDrop::Listed => {
                let held = self.matching(packet, &|_| true);
                if held.iter().all(|(_, grant)| grant.ended) {
                    notes.step(
                        5,
                        "yes",
                        format!("{what}: `ping` says listed, and its source holds no grant"),
                    );
                    return self.refuse(Reason::Icmp);
                }
            }
            Icmp::Request | Icmp::Answer => {}
        }
        let answer = kind == Icmp::Answer && packet.fragment == Fragment::Whole;
        let bucket = if answer {
            filter_common::abi::ICMP_ANSWERS
        } else {
            filter_common::abi::ICMP_REQUESTS
        };
        if filter.icmp_limit != Limits::default() && !self.service_pays(bucket, Charge::of(packet, true)) {
            notes.step(
                5,
                "yes",
                format!("{what}, and more than the ICMP limit's whole burst"),
            );
            return self.refuse(Reason::LimitIcmp);
        }
        notes.step(
            5,
            "yes",
            format!("{what} passes; ICMP limit: {}", levels(&filter.icmp_limit)),
        );
        self.pass(Reason::Icmp)
    }

    fn unnamed(&self, packet: &Packet, notes: &mut Notes) -> Decision {
        let filter = &self.policy.filter;
        let elsewhere = self.services().find(|service| {
            has(service.protocols, packet.protocol) && in_ranges(&service.ports, packet.destination_port)
        });
        let (key, says, why) = match elsewhere {
            Some(service) => (
                "other-address",
                filter.other_address,
                format!("service {} has that port, at another address", service.name),
            ),
            None => (
                "other-traffic",
                filter.other_traffic,
                "no service has that port".to_owned(),
            ),
        };
        let sockets = match says {
            PassDrop::Drop => {
                "; a reply to a connection of this host would pass: sockets are not looked at here"
            }
            PassDrop::Pass => "",
        };
        notes.step(6, "yes", format!("{why}: `{key}` says {}{sockets}", word(says)));
        self.by(says, Reason::Other)
    }

    fn later_fragment(&self, here: &[&Service], packet: &Packet, notes: &mut Notes) -> Decision {
        let names: Vec<&str> = here.iter().map(|service| service.name.as_str()).collect();
        notes.step(
            7,
            "yes",
            format!("a later fragment for one of: {}", names.join(", ")),
        );
        let observed = here
            .iter()
            .all(|service| service_mode(self.policy, service) == Mode::Observe);
        let wanted = |client: &Client| here.iter().any(|service| self.reaches(client, service));
        self.fragment(packet, &wanted, observed, notes)
    }

    /// What `fragments` says.
    fn fragment(
        &self,
        packet: &Packet,
        wanted: &dyn Fn(&Client) -> bool,
        observed: bool,
        notes: &mut Notes,
    ) -> Decision {
        let refuse = |reason, owner| Decision {
            passes: false,
            reason,
            service: None,
            owner,
            observed,
        };
        match self.policy.filter.fragments {
            PassListedDrop::Drop => {
                notes.step(7, "yes", "`fragments` says drop".into());
                return refuse(Reason::Fragment, None);
            }
            PassListedDrop::Pass => {
                notes.step(7, "yes", "`fragments` says pass".into());
                return self.pass(Reason::Fragment);
            }
            PassListedDrop::Listed => {}
        }
        let held = self.matching(packet, wanted);
        let live: Vec<_> = held.into_iter().filter(|(_, grant)| !grant.ended).collect();
        if live.is_empty() {
            notes.step(
                7,
                "yes",
                "`fragments` says listed, and its source holds no grant for it".into(),
            );
            return refuse(Reason::Fragment, None);
        }
        notes.step(
            7,
            "yes",
            "`fragments` says listed, and its source holds a grant".into(),
        );
        match self.pays(&live, packet, Charge::of(packet, false), notes) {
            Ok(owner) => Decision {
                owner: Some(owner),
                ..self.pass(Reason::Fragment)
            },
            Err(first) => refuse(Reason::LimitGrant, Some(first)),
        }
    }

    /// Rules 9 and 10.
    fn grants(&self, service: &Service, packet: &Packet, notes: &mut Notes) -> Decision {
        notes.step(6, "yes", said("service", &service.name, &service.origin, None));
        notes.step(7, "no", "its ports are known".into());
        notes.matched.push(matched(
            "service",
            &service.name,
            &service.origin,
            None,
            &service.remarks,
        ));
        let observed = service_mode(self.policy, service) == Mode::Observe;
        let refuse = |reason, owner| Decision {
            passes: false,
            reason,
            service: Some(service.name.clone()),
            owner,
            observed,
        };
        let held = self.matching(packet, &|client| self.reaches(client, service));
        if held.is_empty() {
            let source = address(&packet.source);
            notes.step(
                8,
                "refused",
                format!("no grant holds {source} and names {}", service.name),
            );
            return refuse(Reason::Unlisted, None);
        }
        let admitted = |client: &Client| {
            client.source_ports.is_empty() || in_ranges(&client.source_ports, packet.source_port)
        };
        let live: Vec<_> = held.iter().filter(|(_, grant)| !grant.ended).collect();
        let (first, grant) = &held[0];
        let shown = said("client", &first.name, &first.origin, Some(grant.source));
        if live.is_empty() {
            let end = first
                .expires
                .map_or_else(String::new, |end| format!(", at {end}"));
            notes.step(8, "refused", format!("{shown} has ended{end}"));
            return refuse(Reason::Ended, None);
        }
        let ready: Vec<_> = live
            .into_iter()
            .filter(|(client, _)| admitted(client))
            .cloned()
            .collect();
        if ready.is_empty() {
            notes.step(
                8,
                "refused",
                format!("{shown} does not admit source port {}", packet.source_port),
            );
            return refuse(Reason::SourcePort, None);
        }
        let (first, grant) = &ready[0];
        let others = match ready.len() - 1 {
            0 => String::new(),
            others => format!(" and {others} more"),
        };
        let shown = said("client", &first.name, &first.origin, Some(grant.source));
        notes.step(8, "granted", format!("{shown}{others}"));
        let cost = Charge::of(packet, true);
        let owner = match self.pays(&ready, packet, cost, notes) {
            Ok(owner) => owner,
            Err(first) => return refuse(Reason::LimitGrant, Some(first)),
        };
        let number = self.names.services().find(|(_, name)| *name == service.name);
        let number = number.map_or(u32::MAX, |(number, _)| number);
        if service.limit != Limits::default() && !self.service_pays(number, cost) {
            notes.step(
                9,
                "refused",
                format!("more than the whole burst of service {}", service.name),
            );
            return refuse(Reason::LimitService, Some(owner));
        }
        notes.more(
            9,
            &format!("; service {}: {}", service.name, levels(&service.limit)),
        );
        Decision {
            service: Some(service.name.clone()),
            owner: Some(owner),
            ..self.pass(Reason::Allowed)
        }
    }

    /// The owner whose buckets pay first, or the first that was tried.
    fn pays(
        &self,
        ready: &[(&Client, Grant<'_>)],
        packet: &Packet,
        cost: Charge,
        notes: &mut Notes,
    ) -> Result<String, String> {
        let count = ready.len();
        let first = if count > TRIES_MAX {
            usize::from(packet.source_port) % count
        } else {
            0
        };
        let tries: Vec<_> = ready
            .iter()
            .cycle()
            .skip(first)
            .take(count.min(TRIES_MAX))
            .collect();
        let mut refused = Vec::new();
        for (client, grant) in &tries {
            if self.owner_pays(grant.number, cost) {
                let before = match refused.as_slice() {
                    [] => String::new(),
                    names => format!("{} cannot pay; ", names.join(", ")),
                };
                notes.step(
                    9,
                    "paid",
                    format!("{before}client {}: {}", client.name, levels(&client.limit)),
                );
                notes.matched.push(grant.matched(client));
                return Ok(owner_name(&client.name));
            }
            refused.push(client.name.clone());
        }
        let (client, grant) = tries[0];
        notes.step(
            9,
            "refused",
            format!("more than the whole burst of: {}", refused.join(", ")),
        );
        notes.matched.push(grant.matched(client));
        Err(owner_name(&client.name))
    }

    /// The grants that hold the source, longest prefix first, then by name, each client once.
    fn matching(&self, packet: &Packet, wanted: &dyn Fn(&Client) -> bool) -> Vec<(&Client, Grant<'_>)> {
        let source = address(&packet.source);
        let now = self.host.now.get();
        let numbers: std::collections::HashMap<&str, u32> =
            self.names.owners().map(|(number, name)| (name, number)).collect();
        let enabled = self
            .policy
            .clients
            .iter()
            .filter(|client| client.enabled && wanted(client));
        let mut found: Vec<_> = enabled
            .filter_map(|client| {
                let source = longest(&client.sources, source)?;
                let number = *numbers.get(owner_name(&client.name).as_str())?;
                let ended = self.host.owner(number).is_none_or(|owner| owner.end <= now.0);
                Some((
                    client,
                    Grant {
                        source,
                        number,
                        ended,
                    },
                ))
            })
            .collect();
        found.sort_by(|(a, left), (b, right)| {
            let length = |grant: &Grant<'_>| std::cmp::Reverse(grant.source.prefix.prefix_len());
            (length(left), a.name.as_bytes()).cmp(&(length(right), b.name.as_bytes()))
        });
        found
    }

    fn owner_pays(&self, number: u32, cost: Charge) -> bool {
        self.dry(|| charge::owner_pays(self.host, number, cost, self.host.now.get()))
    }

    fn service_pays(&self, number: u32, cost: Charge) -> bool {
        self.dry(|| charge::service_pays(self.host, number, cost, self.host.now.get()))
    }

    fn dry(&self, ask: impl FnOnce() -> bool) -> bool {
        let effect = self.host.effect.replace(Effect::Dry);
        let answer = ask();
        self.host.effect.set(effect);
        answer
    }

    fn services(&self) -> impl Iterator<Item = &Service> {
        self.policy.services.iter()
    }

    fn reaches(&self, client: &Client, service: &Service) -> bool {
        match &client.services {
            ServiceSet::All => true,
            ServiceSet::Some(indexes) => indexes
                .iter()
                .any(|index| self.policy.services[*index].name == service.name),
        }
    }

    /// Protocol, port and address.
    fn takes(&self, service: &Service, packet: &Packet) -> bool {
        self.could_take(service, packet) && in_ranges(&service.ports, packet.destination_port)
    }

    /// Protocol and address; an unknown protocol fits any.
    fn could_take(&self, service: &Service, packet: &Packet) -> bool {
        let protocol = packet.protocol == Protocol::Unknown || has(service.protocols, packet.protocol);
        protocol && self.holds(&service.address, packet)
    }

    fn holds(&self, addresses: &Addresses, packet: &Packet) -> bool {
        let destination = address(&packet.destination);
        match addresses {
            Addresses::Any => true,
            Addresses::Host => self.host_addresses.contains(&destination),
            Addresses::Prefixes(prefixes) => prefixes.iter().any(|prefix| prefix.contains(&destination)),
        }
    }

    fn other(&self, notes: &mut Notes, rule: usize, why: &str) -> Decision {
        let says = self.policy.filter.other_traffic;
        notes.step(rule, "yes", format!("{why}: `other-traffic` says {}", word(says)));
        self.by(says, Reason::Other)
    }

    fn pass(&self, reason: Reason) -> Decision {
        Decision {
            passes: true,
            reason,
            service: None,
            owner: None,
            observed: false,
        }
    }

    fn refuse(&self, reason: Reason) -> Decision {
        Decision {
            passes: false,
            observed: self.policy.filter.mode == Mode::Observe,
            ..self.pass(reason)
        }
    }

    fn by(&self, says: PassDrop, reason: Reason) -> Decision {
        match says {
            PassDrop::Pass => self.pass(reason),
            PassDrop::Drop => self.refuse(reason),
        }
    }
}

/// A client's hold on a source.
#[derive(Clone, Copy)]
struct Grant<'a> {
    source: &'a Source,
    number: u32,
    ended: bool,
}

impl Grant<'_> {
    fn matched(&self, client: &Client) -> Matched {
        matched(
            "client",
            &client.name,
            &client.origin,
            Some(self.source),
            &client.remarks,
        )
    }
}

/// The answers as they come.
#[derive(Default)]
struct Notes {
    answers: [Option<(&'static str, String)>; RULES.len()],
    matched: Vec<Matched>,
}

impl Notes {
    fn step(&mut self, rule: usize, answer: &'static str, detail: String) {
        self.answers[rule] = Some((answer, detail));
    }

    fn more(&mut self, rule: usize, detail: &str) {
        if let Some((_, said)) = &mut self.answers[rule] {
            said.push_str(detail);
        }
    }

    fn in_order(&mut self) -> Vec<Step> {
        let answers = std::mem::take(&mut self.answers);
        let steps = RULES.into_iter().zip(answers).map(|(rule, answer)| {
            let (answer, detail) = answer.unwrap_or(("not asked", String::new()));
            Step { rule, answer, detail }
        });
        steps.collect()
    }
}

fn matched(
    kind: &'static str,
    name: &str,
    origin: &Origin,
    source: Option<&Source>,
    remarks: &Remarks,
) -> Matched {
    Matched {
        kind,
        name: name.to_owned(),
        origin: origin.clone(),
        source: source.cloned(),
        remarks: remarks.clone(),
    }
}

/// `client acme (keyfence.toml:12) by 192.0.2.0/24 (acme.txt:3)`
fn said(kind: &str, name: &str, origin: &Origin, source: Option<&Source>) -> String {
    let mut text = format!("{kind} {name} ({}:{})", origin.file, origin.line);
    if let Some(Source { prefix, origin }) = source {
        text.push_str(&format!(" by {prefix} ({}:{})", origin.file, origin.line));
    }
    text
}

fn shape(packet: &Packet) -> String {
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

/// Buckets of a fresh copy are full.
fn levels(limits: &Limits) -> String {
    let units = [
        ("packets", limits.packets),
        ("bytes", limits.bytes),
        ("connections", limits.connections),
    ];
    let shown: Vec<String> = units
        .into_iter()
        .filter_map(|(unit, limit)| {
            let limit = limit?;
            let per = match limit.per_seconds {
                1 => "s".to_owned(),
                60 => "m".to_owned(),
                3600 => "h".to_owned(),
                seconds => format!("{seconds}s"),
            };
            Some(format!(
                "{unit} {burst} of {burst} (+{}/{per})",
                limit.rate,
                burst = limit.burst
            ))
        })
        .collect();
    if shown.is_empty() {
        "no limit".to_owned()
    } else {
        shown.join(", ")
    }
}

fn word(says: PassDrop) -> &'static str {
    match says {
        PassDrop::Pass => "pass",
        PassDrop::Drop => "drop",
    }
}

fn has(protocols: Protocols, protocol: Protocol) -> bool {
    match protocol {
        Protocol::Tcp => protocols.tcp,
        Protocol::Udp => protocols.udp,
        _ => false,
    }
}

fn in_ranges(ranges: &[PortRange], port: u16) -> bool {
    ranges
        .iter()
        .any(|range| (range.first..=range.last).contains(&port))
}

/// The longest of the prefixes that hold an address.
fn longest(sources: &[Source], address: IpAddr) -> Option<&Source> {
    let holding = sources
        .iter()
        .filter(|source| IpNet::contains(&source.prefix, &address));
    holding.max_by_key(|source| source.prefix.prefix_len())
}

/// As the packet has it: IPv4 for ::ffff:a.b.c.d.
pub fn address(octets: &[u8; 16]) -> IpAddr {
    IpAddr::V6(Ipv6Addr::from(*octets)).to_canonical()
}
