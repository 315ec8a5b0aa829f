//! SPEC 3, rule by rule: one decision a frame, the first rule that decides it ends it.
//!
//! Loops over every service, client and prefix. Keeps nothing between frames but the levels of the buckets.
//! Not here: sockets (all or none is a connection: `connected`), publishers and bindings.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

use super::bucket::{Bucket, Cost, Purse};
use super::packet::{self, Frame, Packet, Part, Protocol};
use super::policy::{Client, Fragments, Ping, Policy, Service, Services};

/// How many owners rule 10 tries.
const TRIES_MAX: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Answer {
    Pass,
    Drop,
    Observe,
}

impl Answer {
    pub fn as_str(self) -> &'static str {
        match self {
            Answer::Pass => "pass",
            Answer::Drop => "drop",
            Answer::Observe => "observe",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub verdict: Answer,
    pub reason: &'static str,
    pub service: Option<String>,
    pub owner: Option<String>,
}

impl Verdict {
    fn pass(reason: &'static str) -> Verdict {
        Verdict {
            verdict: Answer::Pass,
            reason,
            service: None,
            owner: None,
        }
    }

    fn refuse(observed: bool, reason: &'static str) -> Verdict {
        let verdict = if observed { Answer::Observe } else { Answer::Drop };
        Verdict {
            verdict,
            reason,
            service: None,
            owner: None,
        }
    }

    fn named(self, service: Option<&str>, owner: Option<&str>) -> Verdict {
        Verdict {
            service: service.map(str::to_owned),
            owner: owner.map(str::to_owned),
            ..self
        }
    }
}

/// A judge of one policy, its buckets full.
#[derive(Clone)]
pub struct Judge {
    policy: Policy,
    /// Whether this host has a connection with every packet's four values; at first, with none.
    pub connected: bool,
    owners: Vec<String>,
    client_purses: Vec<Purse>,
    service_purses: Vec<Purse>,
    /// By the source's address; of IPv6 its upper half.
    source_purses: HashMap<IpAddr, Purse>,
    /// Errors and echo replies; echo requests and ICMP fragments.
    icmp_buckets: Option<[Bucket; 2]>,
}

impl Judge {
    pub fn new(policy: &Policy) -> Judge {
        Judge {
            owners: policy.clients.iter().map(Client::owner).collect(),
            client_purses: policy
                .clients
                .iter()
                .map(|client| Purse::new(&client.limit))
                .collect(),
            service_purses: policy
                .services
                .iter()
                .map(|service| Purse::new(&service.limit))
                .collect(),
            source_purses: HashMap::new(),
            icmp_buckets: policy
                .icmp_limit
                .map(|limit| [Bucket::new(limit), Bucket::new(limit)]),
            policy: policy.clone(),
            connected: false,
        }
    }

    /// Judges one frame, and takes what it costs. `now_ns` counts from 1970, as `Client::expires_ns` does.
    pub fn judge(&mut self, frame: &[u8], now_ns: u64) -> Verdict {
        let packet = match packet::read(frame) {
            // Rules 1 and 2.
            Err(_) => return self.by_filter("malformed"),
            Ok(Frame::Essential) => return Verdict::pass("essential"),
            Ok(Frame::NotIp) if self.policy.non_ip_drop => return self.by_filter("non-ip"),
            Ok(Frame::NotIp) => return Verdict::pass("non-ip"),
            Ok(Frame::Ip(packet)) => packet,
        };
        if is_essential(&packet) {
            return Verdict::pass("essential");
        }
        if self.is_management(&packet) {
            return Verdict::pass("management");
        }
        let holds_source = |prefix: &ipnet::IpNet| prefix.contains(&packet.source);
        if self
            .policy
            .denies
            .iter()
            .any(|deny| deny.sources.iter().any(holds_source))
        {
            return self.by_filter("denied");
        }
        // Rule 8 (a): a later fragment of a protocol that services have.
        if packet.part == Part::Later {
            let considered = self.services_considered(&packet);
            if !considered.is_empty() {
                let observed = considered.iter().all(|&service| self.observes(service));
                return self.fragment(&packet, Some(&considered), observed, now_ns);
            }
        }
        // Rule 7, and for what it names rules 9 and 10.
        if let Some(service) = self.service_named(&packet) {
            return self.grants(&packet, service, now_ns);
        }
        // Rules 6 and 7 for the rest.
        let reason = match self.unserved(&packet, now_ns) {
            Ok(reason) => reason,
            Err(reason) => return self.by_filter(reason),
        };
        // Rule 8 (b).
        if packet.part != Part::Whole && self.is_service_address(packet.destination) {
            return self.fragment(&packet, None, self.policy.observe, now_ns);
        }
        Verdict::pass(reason)
    }

    /// Rule 11, for all but rules 9 and 10 and 8 (a).
    fn by_filter(&self, reason: &'static str) -> Verdict {
        Verdict::refuse(self.policy.observe, reason)
    }

    fn observes(&self, service: usize) -> bool {
        self.policy.services[service]
            .observe
            .unwrap_or(self.policy.observe)
    }

    /// Rule 4.
    fn is_management(&self, packet: &Packet) -> bool {
        self.policy.management.iter().any(|entry| {
            let protocol = match packet.protocol {
                Protocol::Tcp => entry.tcp,
                Protocol::Udp => entry.udp,
                Protocol::Unknown => true,
                Protocol::Icmp | Protocol::Other => false,
            };
            let port = match packet.ports {
                Some((_, port)) => holds(&entry.ports, port),
                None => packet.part == Part::Later,
            };
            protocol
                && port
                && entry.sources.iter().any(|prefix| prefix.contains(&packet.source))
                && self.policy.address_holds(&entry.addresses, packet.destination)
        })
    }

    /// Rule 8 (a): the services that have a later fragment's address and protocol.
    fn services_considered(&self, packet: &Packet) -> Vec<usize> {
        let fits = |service: &Service| match packet.protocol {
            Protocol::Tcp => service.tcp,
            Protocol::Udp => service.udp,
            Protocol::Unknown => true,
            Protocol::Icmp | Protocol::Other => false,
        };
        let services = self.policy.services.iter().enumerate();
        let considered = services.filter(|(_, service)| {
            fits(service) && self.policy.address_holds(&service.addresses, packet.destination)
        });
        considered.map(|(index, _)| index).collect()
    }

    /// Rule 7: the one service of this protocol, address and port.
    fn service_named(&self, packet: &Packet) -> Option<usize> {
        let (_, port) = packet.ports?;
        self.policy.services.iter().position(|service| {
            has_port(service, packet.protocol, port)
                && self.policy.address_holds(&service.addresses, packet.destination)
        })
    }

    fn is_service_address(&self, destination: IpAddr) -> bool {
        self.policy
            .services
            .iter()
            .any(|service| self.policy.address_holds(&service.addresses, destination))
    }

    /// Rules 6 and 7 for a packet that names no service: the reason to pass it, or the reason to drop it.
    fn unserved(&mut self, packet: &Packet, now_ns: u64) -> Result<&'static str, &'static str> {
        let other = |drop: bool| if drop { Err("other") } else { Ok("other") };
        match packet.protocol {
            Protocol::Icmp => self.icmp(packet, now_ns),
            Protocol::Tcp | Protocol::Udp => {
                let elsewhere = packet.ports.is_some_and(|(_, port)| {
                    self.policy
                        .services
                        .iter()
                        .any(|service| has_port(service, packet.protocol, port))
                });
                let drop = if elsewhere {
                    self.policy.other_address_drop
                } else {
                    self.policy.other_traffic_drop
                };
                // Without ports it is a later fragment, to which rule 7 does not apply.
                if drop && self.connected && packet.ports.is_some() {
                    return Ok("reply");
                }
                other(drop)
            }
            Protocol::Other | Protocol::Unknown => other(self.policy.other_traffic_drop),
        }
    }

    /// Rule 6.
    fn icmp(&mut self, packet: &Packet, now_ns: u64) -> Result<&'static str, &'static str> {
        enum Kind {
            ErrorOrReply,
            Request,
            Else,
        }
        let kind = match (packet.icmp, packet.source.is_ipv4()) {
            // A later fragment, which only IPv4 has.
            (None, _) => Kind::Request,
            (Some((0 | 3 | 11 | 12, _)), true) | (Some((1..=4 | 129, _)), false) => Kind::ErrorOrReply,
            (Some((8, _)), true) | (Some((128, _)), false) => Kind::Request,
            _ => Kind::Else,
        };
        let asked = matches!(kind, Kind::Request);
        match kind {
            Kind::Else if self.policy.other_traffic_drop => return Err("other"),
            Kind::Else => return Ok("other"),
            Kind::Request | Kind::ErrorOrReply => {}
        }
        let pass = match self.policy.ping {
            _ if !asked => true,
            Ping::Pass => true,
            Ping::Drop => false,
            Ping::Listed => !self.owners_of(packet, None, false, now_ns).is_empty(),
        };
        if !pass {
            return Err("icmp");
        }
        // One bucket for errors and echo replies, a second for echo requests and ICMP fragments (SPEC 2).
        let second = asked || packet.part != Part::Whole;
        let bucket = self
            .icmp_buckets
            .as_mut()
            .map(|buckets| &mut buckets[usize::from(second)]);
        if bucket.is_none_or(|bucket| bucket.pay(1, now_ns)) {
            Ok("icmp")
        } else {
            Err("limit-icmp")
        }
    }

    /// Rule 8: what `fragments` says. `services`: (a), only grants for these let it through; None: (b), any.
    fn fragment(
        &mut self,
        packet: &Packet,
        services: Option<&[usize]>,
        observed: bool,
        now_ns: u64,
    ) -> Verdict {
        match self.policy.fragments {
            Fragments::Pass => return Verdict::pass("fragment"),
            Fragments::Drop => return Verdict::refuse(observed, "fragment"),
            Fragments::Listed => {}
        }
        let owners = self.owners_of(packet, services, false, now_ns);
        if owners.is_empty() {
            return Verdict::refuse(observed, "fragment");
        }
        // (c): packets and bytes, no connections; no service is named, so none is charged.
        if !self.source_pays(packet, false, now_ns) {
            return Verdict::refuse(observed, "limit-source");
        }
        let (first, paid) = self.pay(&owners, packet, false, now_ns);
        match paid {
            Some(owner) => Verdict::pass("fragment").named(None, Some(&self.owners[owner])),
            None => Verdict::refuse(observed, "limit-grant").named(None, Some(&self.owners[first])),
        }
    }

    /// Rules 9 and 10.
    fn grants(&mut self, packet: &Packet, service: usize, now_ns: u64) -> Verdict {
        let observed = self.observes(service);
        let name = self.policy.services[service].name.clone();
        let refuse = |reason, owner| Verdict::refuse(observed, reason).named(Some(&name), owner);
        let any = [service];
        let owners = self.owners_of(packet, Some(&any), true, now_ns);
        if owners.is_empty() {
            let listed = self.grants_of(packet.source, Some(&any));
            let reason = if listed.is_empty() {
                "unlisted"
            } else if listed.iter().all(|grant| self.has_ended(grant.client, now_ns)) {
                "ended"
            } else {
                "source-port"
            };
            return refuse(reason, None);
        }
        if !self.source_pays(packet, packet.connection, now_ns) {
            return refuse("limit-source", None);
        }
        let (first, paid) = self.pay(&owners, packet, packet.connection, now_ns);
        let Some(owner) = paid else {
            return refuse("limit-grant", Some(&self.owners[first]));
        };
        let cost = Cost {
            bytes: packet.bytes,
            connection: packet.connection,
        };
        let owner = &self.owners[owner];
        if !self.service_purses[service].pay(cost, now_ns) {
            return refuse("limit-service", Some(owner));
        }
        Verdict::pass("allowed").named(Some(&name), Some(owner))
    }

    /// Rule 10's first level.
    fn source_pays(&mut self, packet: &Packet, connection: bool, now_ns: u64) -> bool {
        let whose = match packet.source {
            IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
            four => four,
        };
        let limits = &self.policy.source_limit;
        let purse = self
            .source_purses
            .entry(whose)
            .or_insert_with(|| Purse::new(limits));
        let cost = Cost {
            bytes: packet.bytes,
            connection,
        };
        purse.pay(cost, now_ns)
    }

    /// Rule 10: who is tried first, and whose own buckets paid.
    fn pay(
        &mut self,
        owners: &[usize],
        packet: &Packet,
        connection: bool,
        now_ns: u64,
    ) -> (usize, Option<usize>) {
        let start = match packet.ports {
            Some((source_port, _)) if owners.len() > TRIES_MAX => usize::from(source_port) % owners.len(),
            _ => 0,
        };
        let cost = Cost {
            bytes: packet.bytes,
            connection,
        };
        let mut tried = (0..owners.len().min(TRIES_MAX)).map(|step| owners[(start + step) % owners.len()]);
        let paid = tried.find(|&owner| self.client_purses[owner].pay(cost, now_ns));
        (owners[start], paid)
    }

    /// The owners of the grants that match, in the order of rule 10, each once.
    fn owners_of(
        &self,
        packet: &Packet,
        services: Option<&[usize]>,
        with_source_port: bool,
        now_ns: u64,
    ) -> Vec<usize> {
        let mut grants = self.grants_of(packet.source, services);
        grants.retain(|grant| {
            let ports = &self.policy.clients[grant.client].source_ports;
            let port = match packet.ports {
                Some((source_port, _)) if with_source_port => ports.is_empty() || holds(ports, source_port),
                _ => true,
            };
            port && !self.has_ended(grant.client, now_ns)
        });
        grants.sort_by_key(|grant| (Reverse(grant.prefix_length), self.owners[grant.client].as_bytes()));
        let mut owners = Vec::new();
        for grant in grants {
            if !owners.contains(&grant.client) {
                owners.push(grant.client);
            }
        }
        owners
    }

    /// Every grant whose prefix holds the source and that names one of the services (None: any service).
    fn grants_of(&self, source: IpAddr, services: Option<&[usize]>) -> Vec<Grant> {
        let mut grants = Vec::new();
        for (index, client) in self.policy.clients.iter().enumerate() {
            if !client.enabled || !self.names(client, services) {
                continue;
            }
            for prefix in &client.sources {
                if prefix.contains(&source) {
                    grants.push(Grant {
                        client: index,
                        prefix_length: prefix.prefix_len(),
                    });
                }
            }
        }
        grants
    }

    fn names(&self, client: &Client, services: Option<&[usize]>) -> bool {
        match (&client.services, services) {
            (Services::All, Some(services)) => !services.is_empty(),
            (Services::All, None) => !self.policy.services.is_empty(),
            (Services::Named(names), Some(services)) => services
                .iter()
                .any(|&service| names.contains(&self.policy.services[service].name)),
            (Services::Named(names), None) => !names.is_empty(),
        }
    }

    fn has_ended(&self, client: usize, now_ns: u64) -> bool {
        self.policy.clients[client]
            .expires_ns
            .is_some_and(|end| end <= now_ns)
    }
}

/// One source prefix of one client.
struct Grant {
    client: usize,
    prefix_length: u8,
}

/// Rule 3.
fn is_essential(packet: &Packet) -> bool {
    if packet.part != Part::Whole {
        return false;
    }
    match (packet.source, packet.destination) {
        (IpAddr::V4(_), _) => packet.protocol == Protocol::Udp && packet.ports == Some((67, 68)),
        (IpAddr::V6(source), IpAddr::V6(destination)) => match packet.icmp {
            Some((133..=137, 0)) => packet.hop_limit == 255,
            Some((130..=132 | 143, _)) => is_link_local(source) || source.is_unspecified(),
            Some(_) => false,
            None => {
                packet.protocol == Protocol::Udp
                    && packet.ports == Some((547, 546))
                    && is_link_local(destination)
            }
        },
        (IpAddr::V6(_), IpAddr::V4(_)) => false,
    }
}

/// fe80::/10 (RFC 4291, 2.4).
fn is_link_local(address: Ipv6Addr) -> bool {
    address.segments()[0] & 0xffc0 == 0xfe80
}

fn has_port(service: &Service, protocol: Protocol, port: u16) -> bool {
    let has_protocol = match protocol {
        Protocol::Tcp => service.tcp,
        Protocol::Udp => service.udp,
        Protocol::Icmp | Protocol::Other | Protocol::Unknown => false,
    };
    has_protocol && holds(&service.ports, port)
}

fn holds(ranges: &[(u16, u16)], port: u16) -> bool {
    ranges.iter().any(|&(first, last)| (first..=last).contains(&port))
}
