//! Random policies that Keyfence takes: no two services overlap, every name is known and used once.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::{Budgets, Rng, SECOND};
use crate::oracle::policy::{
    Addresses, Client, Deny, Fragments, Limit, Limits, Management, Ping, Policy, Service, Services,
};
use crate::oracle::vectors::START_NS;

const V4_LENGTHS: [u8; 12] = [0, 8, 16, 24, 24, 26, 28, 29, 30, 31, 32, 32];
const V6_LENGTHS: [u8; 13] = [0, 16, 32, 48, 48, 56, 63, 64, 64, 65, 124, 128, 128];
const PORTS: [(u16, u16); 12] = [
    (22, 22),
    (53, 53),
    (80, 80),
    (443, 443),
    (8443, 8450),
    (5060, 5061),
    (0, 0),
    (65535, 65535),
    (67, 68),
    (546, 547),
    (1, 1023),
    (30000, 40000),
];
/// Prefixes of each other, and bytes around the ones that names may have: owners are ordered by bytes.
const NAMES: [&str; 16] = [
    "a", "a-", "a.b", "a0", "aa", "A", "Z9", "acme", "acme-2", "acme.3", "acme_4", "b", "0", "9z", "m", "z",
];
const SERVICE_NAMES: [&str; 7] = ["payments", "resolver", "web", "voice", "s-1", "s.2", "s_3"];

/// A source address of the small world.
pub(super) fn source(rng: &mut Rng) -> IpAddr {
    if rng.chance(60) {
        IpAddr::V4(Ipv4Addr::new(198, 51, 100, rng.below(64) as u8))
    } else {
        let (subnet, host) = (rng.below(4) as u16, rng.below(16) as u16);
        IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xac, subnet, 0, 0, 0, host))
    }
}

/// A destination address of the small world, of the family asked for.
pub(super) fn destination(rng: &mut Rng, v4: bool) -> IpAddr {
    if v4 {
        IpAddr::V4(Ipv4Addr::new(203, 0, 113, 8 + rng.below(8) as u8))
    } else {
        let (subnet, host) = (rng.below(4) as u16, 8 + rng.below(4) as u16);
        IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, subnet, 0, 0, 0, host))
    }
}

/// The policy of this seed.
pub fn policy(seed: u64, budgets: Budgets) -> Policy {
    let rng = &mut Rng::new(seed);
    let mut policy = Policy {
        observe: rng.chance(25),
        other_traffic_drop: rng.chance(40),
        other_address_drop: rng.chance(50),
        fragments: rng.pick(&[
            Fragments::Listed,
            Fragments::Listed,
            Fragments::Drop,
            Fragments::Pass,
        ]),
        ping: rng.pick(&[Ping::Pass, Ping::Listed, Ping::Drop]),
        non_ip_drop: rng.chance(50),
        icmp_limit: (rng.chance(40)).then(|| limit(rng, budgets, 1)).flatten(),
        ..Policy::default()
    };
    for _ in 0..rng.below(4) {
        let v4 = rng.chance(50);
        policy.host_addresses.push(destination(rng, v4));
    }
    for name in SERVICE_NAMES.iter().take(1 + rng.below(SERVICE_NAMES.len())) {
        let candidate = service(rng, name, budgets);
        if !policy.services.iter().any(|other| overlap(other, &candidate)) {
            policy.services.push(candidate);
        }
    }
    let crowd = rng.chance(30).then(|| prefix(rng));
    let clients = if crowd.is_some() {
        9 + rng.below(6)
    } else {
        rng.below(9)
    };
    let names: Vec<String> = policy
        .services
        .iter()
        .map(|service| service.name.clone())
        .collect();
    let first_name = rng.below(NAMES.len());
    for index in 0..clients {
        let name = NAMES[(first_name + index * 5) % NAMES.len()];
        let mut client = client(rng, name, &names, budgets);
        if let Some(prefix) = crowd {
            client.enabled = true;
            if !client.sources.contains(&prefix) {
                client.sources.push(prefix);
            }
        }
        policy.clients.push(client);
    }
    for index in 0..rng.below(3) {
        let sources = vec![narrow(rng)];
        policy.denies.push(Deny {
            name: format!("deny-{index}"),
            sources,
        });
    }
    for index in 0..rng.below(3) {
        policy.management.push(management(rng, index));
    }
    policy.source_limit = limits(rng, budgets, 15);
    policy
}

fn service(rng: &mut Rng, name: &str, budgets: Budgets) -> Service {
    let (tcp, udp) = rng.pick(&[(true, false), (true, false), (false, true), (true, true)]);
    Service {
        name: name.to_owned(),
        addresses: addresses(rng),
        tcp,
        udp,
        ports: service_ports(rng),
        observe: rng.pick(&[None, None, None, Some(true), Some(false)]),
        limit: limits(rng, budgets, 15),
    }
}

fn client(rng: &mut Rng, name: &str, services: &[String], budgets: Budgets) -> Client {
    let named: Vec<String> = services.iter().filter(|_| rng.chance(60)).cloned().collect();
    let services = if named.is_empty() || rng.chance(20) {
        Services::All
    } else {
        Services::Named(named)
    };
    let mut sources = Vec::new();
    for _ in 0..1 + rng.below(4) {
        let prefix = prefix(rng);
        if !sources.contains(&prefix) {
            sources.push(prefix);
        }
    }
    Client {
        name: name.to_owned(),
        sources,
        source_ports: if rng.chance(25) {
            port_ranges(rng)
        } else {
            Vec::new()
        },
        services,
        limit: limits(rng, budgets, 30),
        // Some end before the first frame, some between frames, at a whole second.
        expires_ns: rng
            .chance(30)
            .then(|| START_NS - 5 * SECOND + rng.word() % 40 * SECOND),
        enabled: !rng.chance(8),
    }
}

fn management(rng: &mut Rng, index: usize) -> Management {
    let (tcp, udp) = rng.pick(&[(true, false), (true, false), (false, true), (true, true)]);
    Management {
        name: format!("way-in-{index}"),
        sources: vec![narrow(rng)],
        tcp,
        udp,
        ports: service_ports(rng),
        addresses: match addresses(rng) {
            Addresses::Host => Addresses::Any,
            other => other,
        },
    }
}

fn addresses(rng: &mut Rng) -> Addresses {
    match rng.below(10) {
        0 | 1 => Addresses::Any,
        2 => Addresses::Host,
        _ => {
            let mut prefixes = Vec::new();
            for v4 in [true, false] {
                if rng.chance(80) {
                    let long = if v4 {
                        rng.pick(&[29, 31, 32, 32])
                    } else {
                        rng.pick(&[62, 64, 127, 128])
                    };
                    prefixes.push(net(destination(rng, v4), long));
                }
            }
            if prefixes.is_empty() {
                Addresses::Any
            } else {
                Addresses::Prefixes(prefixes)
            }
        }
    }
}

/// No service has port 0; a source may come from it.
fn service_ports(rng: &mut Rng) -> Vec<(u16, u16)> {
    port_ranges(rng)
        .into_iter()
        .map(|(first, last)| (first.max(1), last.max(1)))
        .collect()
}

fn port_ranges(rng: &mut Rng) -> Vec<(u16, u16)> {
    let mut ranges: Vec<(u16, u16)> = Vec::new();
    for _ in 0..1 + rng.below(3) {
        let range = rng.pick(&PORTS);
        if !ranges.iter().any(|&other| meet(other, range)) {
            ranges.push(range);
        }
    }
    ranges
}

fn prefix(rng: &mut Rng) -> IpNet {
    let address = source(rng);
    let length = if address.is_ipv4() {
        rng.pick(&V4_LENGTHS)
    } else {
        rng.pick(&V6_LENGTHS)
    };
    net(address, length)
}

/// A prefix that leaves the rest of the world something to do.
fn narrow(rng: &mut Rng) -> IpNet {
    let address = source(rng);
    let length = if address.is_ipv4() {
        29 + rng.below(4) as u8
    } else {
        125 + rng.below(4) as u8
    };
    net(address, length)
}

fn net(address: IpAddr, length: u8) -> IpNet {
    IpNet::new(address, length).map_or(IpNet::from(address), |net| net.trunc())
}

fn meet(a: (u16, u16), b: (u16, u16)) -> bool {
    a.0 <= b.1 && b.0 <= a.1
}

/// Same protocol and port at a common address; what `host` holds is not known here, so it meets all.
fn overlap(a: &Service, b: &Service) -> bool {
    let addresses = match (&a.addresses, &b.addresses) {
        (Addresses::Prefixes(a), Addresses::Prefixes(b)) => {
            a.iter().any(|a| b.iter().any(|b| a.contains(b) || b.contains(a)))
        }
        _ => true,
    };
    let ports = a.ports.iter().any(|&a| b.ports.iter().any(|&b| meet(a, b)));
    (a.tcp && b.tcp || a.udp && b.udp) && addresses && ports
}

fn limits(rng: &mut Rng, budgets: Budgets, percent: usize) -> Limits {
    let mut one = |scale| rng.chance(percent).then(|| limit(rng, budgets, scale)).flatten();
    Limits {
        packets: one(1),
        bytes: one(60),
        connections: one(1),
    }
}

/// Small bursts run out within a run, big ones never do. `scale`: what a packet costs, about.
fn limit(rng: &mut Rng, budgets: Budgets, scale: u64) -> Option<Limit> {
    let burst = if rng.chance(75) {
        scale * (1 + rng.word() % 5)
    } else {
        scale * 1_000_000
    };
    let (rate, per_seconds) = match budgets {
        Budgets::None => return None,
        // Each divides its seconds into whole nanoseconds.
        Budgets::Whole => rng.pick(&[
            (1, 1),
            (2, 1),
            (4, 1),
            (5, 1),
            (64, 1),
            (1000, 1),
            (6, 60),
            (60, 60),
            (3600, 3600),
        ]),
        Budgets::Any => (1 + rng.word() % 100, rng.pick(&[1, 60, 3600])),
    };
    // No bucket takes longer than a year to fill: a policy's bound.
    let burst = burst.min(rate * 31_000_000 / per_seconds);
    Some(Limit {
        rate,
        per_seconds,
        burst,
    })
}
