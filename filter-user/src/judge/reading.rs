//! The rules (docs/ARCHITECTURE.md) read aloud: each asked in its order over the policy's own entries, one after the other, with
//! what it answers and which entry says so.
//!
//! Plain and slow on purpose: it walks the policy, not the tables, so that an entry's file and line are at hand and a
//! fault of the tables shows as a difference. Takes no token, counts nothing.

mod grants;
mod words;

use std::net::IpAddr;

use filter_common::abi::EVERYTHING;
use filter_common::charge::Charge;
use filter_common::classify::{self, Icmp};
use filter_common::lookup::Tables as _;
use filter_common::parse::{Family, Fragment, Frame, Packet, Protocol};
use filter_common::verdict::{Reason, Verdict};
use ipnet::IpNet;

use self::grants::Grantor;
pub use self::words::{Bucket, Matched, Step, address, buckets};
use self::words::{Notes, entries, has, in_ranges, longest, said, shape, word};
use super::Names;
use crate::compiler::host::HostTables;
use crate::compiler::{Pushed, service_mode};
use crate::policy::Policy;
use crate::policy::model::{
    Addresses, Deny, Limits, Management, Mode, PassDrop, PassListedDrop, Service, Source,
};

/// The whole reading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    pub steps: Vec<Step>,
    pub matched: Vec<Matched>,
    /// Those that were asked, in their order.
    pub buckets: Vec<Bucket>,
    pub verdict: Verdict,
    pub reason: Reason,
    pub service: Option<String>,
    pub owner: Option<String>,
}

/// What the rules are read by.
pub struct Reader<'a> {
    pub policy: &'a Policy,
    /// What API servers and operators have pushed.
    pub pushed: &'a Pushed,
    pub names: &'a Names,
    pub host: &'a HostTables,
    /// What `"host"` means.
    pub host_addresses: &'a [IpNet],
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
        let a_while = !decision.passes && !decision.observed && self.observed_for_a_while(&decision);
        let verdict = match (decision.passes, decision.observed || a_while) {
            (true, _) => Verdict::Pass,
            (false, true) => Verdict::Observe,
            (false, false) => Verdict::Drop,
        };
        let mode = match verdict {
            Verdict::Observe if a_while => (
                "yes",
                "it passes for a while, as `keyfence observe` was asked, and is recorded as refused"
                    .to_owned(),
            ),
            Verdict::Pass => ("not asked", "nothing is refused".to_owned()),
            Verdict::Observe => ("yes", "it passes, and is recorded as refused".to_owned()),
            Verdict::Drop => ("no", "the mode is enforce".to_owned()),
        };
        notes.step(10, mode.0, mode.1);
        Reading {
            steps: notes.in_order(),
            matched: notes.matched,
            buckets: notes.buckets,
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
        match self.entries(packet, notes) {
            Some(decision) => decision,
            None => self.traffic(packet, notes),
        }
    }

    /// Rules 4 and 5.
    fn entries(&self, packet: &Packet, notes: &mut Notes) -> Option<Decision> {
        let source = address(&packet.source);
        if let Some((entry, source)) = self.management(packet) {
            notes.step(
                3,
                "yes",
                said("management", &entry.name, &entry.origin, Some(source)),
            );
            notes.matched.push(Matched::of(
                "management",
                &entry.name,
                &entry.origin,
                Some(source),
                &entry.remarks,
            ));
            return Some(self.pass(Reason::Management));
        }
        notes.step(
            3,
            "no",
            format!("{}, none for this packet", entries(self.policy.management.len())),
        );
        let denied = self
            .policy
            .denies
            .iter()
            .find_map(|deny: &Deny| Some((deny, longest(&deny.sources, source)?)));
        if let Some((deny, source)) = denied {
            notes.step(4, "yes", said("deny", &deny.name, &deny.origin, Some(source)));
            notes.matched.push(Matched::of(
                "deny",
                &deny.name,
                &deny.origin,
                Some(source),
                &deny.remarks,
            ));
            return Some(self.refuse(Reason::Denied));
        }
        let now = self.host.now.get().0;
        let pushed = self.pushed.denies.iter().find_map(|(name, (sources, end))| {
            let holding = sources.iter().filter(|prefix| prefix.contains(&source));
            Some((name, holding.max_by_key(|prefix| prefix.prefix_len())?)).filter(|_| *end > now)
        });
        if let Some((name, prefix)) = pushed {
            notes.step(4, "yes", format!("deny {name} (pushed) by {prefix}"));
            notes.matched.push(Matched::pushed("deny", name, *prefix));
            return Some(self.refuse(Reason::Denied));
        }
        let denies = entries(self.policy.denies.len());
        notes.step(4, "no", format!("{denies}, none holds {source}"));
        None
    }

    /// Rules 6 to 8.
    fn traffic(&self, packet: &Packet, notes: &mut Notes) -> Decision {
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
                if held.iter().all(|grant| grant.ended) {
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
        let left = self.host.shared_left(bucket);
        let level = notes.level(buckets("icmp", "", &filter.icmp_limit, left));
        if filter.icmp_limit != Limits::default() && !self.shared_pays(bucket, Charge::of(packet, true)) {
            notes.step(5, "yes", format!("{what}; the ICMP limit cannot pay: {level}"));
            return self.refuse(Reason::LimitIcmp);
        }
        notes.step(5, "yes", format!("{what} passes; ICMP limit: {level}"));
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
                "; a packet of a connection that stands on this host, whoever opened it, would pass (reply): sockets are not looked \
                 at here"
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
        let wanted = |grantor: Grantor<'_>| here.iter().any(|service| self.reaches(grantor, service));
        self.fragment(packet, &wanted, observed, notes)
    }

    fn services(&self) -> impl Iterator<Item = &Service> {
        self.policy.services.iter()
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
            Addresses::Host => holds(self.host_addresses, destination),
            Addresses::Prefixes(prefixes) => holds(prefixes, destination),
        }
    }

    fn other(&self, notes: &mut Notes, rule: usize, why: &str) -> Decision {
        let says = self.policy.filter.other_traffic;
        notes.step(rule, "yes", format!("{why}: `other-traffic` says {}", word(says)));
        self.by(says, Reason::Other)
    }

    /// What an operator has opened for a while.
    fn observed_for_a_while(&self, decision: &Decision) -> bool {
        let now = self.host.now.get().0;
        let service = decision.service.as_deref();
        let number = |name: &str| self.names.services().find(|(_, known)| *known == name);
        let number = service.and_then(number).map(|(number, _)| number);
        let all = number.into_iter().chain([EVERYTHING]);
        let mut until = all.map(|number| self.host.observe_until(number));
        until.any(|until| until > now)
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

fn holds(prefixes: &[IpNet], address: IpAddr) -> bool {
    prefixes.iter().any(|prefix| prefix.contains(&address))
}
