//! Frames whose verdict is known by the policy alone: what the canary asks the kernel's program in force. Pure.

use std::net::IpAddr;

use ipnet::IpNet;

use super::frame::{Flow, build};
use crate::policy::Policy;
use crate::policy::model::{Addresses, ExpectProtocol, PortRange, Protocols, ServiceSet};

/// Of services, and of clients, denies and management entries each: so many are asked about in a round.
const ENTRIES_MAX: usize = 4;
/// Of ports that no entry writes.
const PORT: u16 = 40_000;
/// Where nobody is: "this network" (RFC 1122, 3.2.1.3), and the discard prefix (RFC 6666). Who lists these is asked for.
const STRANGERS: [&str; 2] = ["0.0.0.6", "100::6"];
/// Any address of a service that has all, of each family: for documentation (RFC 5737, RFC 3849).
const ANYWHERE: [&str; 2] = ["192.0.2.1", "2001:db8::1"];

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// `a stranger to service pay`
    pub what: String,
    pub frame: Vec<u8>,
}

/// For a policy in force; `host` are addresses of this host.
pub fn frames(policy: &Policy, host: &[IpAddr]) -> Vec<Known> {
    let mut known = vec![Known {
        what: "a malformed packet".to_owned(),
        frame: malformed(),
    }];
    let mut add = |what: String, from: (IpAddr, u16), to: Option<(IpAddr, u16)>, protocols: Protocols| {
        let flow = to.map(|to| Flow {
            from,
            to,
            protocol: protocol(protocols),
        });
        let frame = flow.as_ref().and_then(build);
        known.extend(frame.map(|frame| Known { what, frame }));
    };
    let place = |addresses: &Addresses, ports: &[PortRange], like: IpAddr| {
        Some((destination(addresses, host, like)?, ports.first()?.first))
    };
    for service in policy.services.iter().take(ENTRIES_MAX) {
        for from in STRANGERS.iter().filter_map(|text| text.parse().ok()) {
            let what = format!("a stranger ({from}) to service {}", service.name);
            let to = place(&service.address, &service.ports, from);
            add(what, (from, PORT), to, service.protocols);
        }
    }
    let enabled = policy.clients.iter().filter(|client| client.enabled);
    for client in enabled.take(ENTRIES_MAX) {
        let service = match &client.services {
            ServiceSet::All => policy.services.first(),
            ServiceSet::Some(some) => some.first().and_then(|at| policy.services.get(*at)),
        };
        let (Some(service), Some(source)) = (service, client.sources.first()) else {
            continue;
        };
        let from = source.prefix.addr();
        let port = client.source_ports.first().map_or(PORT, |range| range.first);
        let what = format!("client {} ({from}) to service {}", client.name, service.name);
        let to = place(&service.address, &service.ports, from);
        add(what, (from, port), to, service.protocols);
    }
    for entry in policy.management.iter().take(ENTRIES_MAX) {
        let Some(source) = entry.sources.first() else {
            continue;
        };
        let from = source.prefix.addr();
        let what = format!("management {} ({from})", entry.name);
        let to = place(&entry.address, &entry.ports, from);
        add(what, (from, PORT), to, entry.protocols);
    }
    for deny in policy.denies.iter().take(ENTRIES_MAX) {
        let (Some(service), Some(source)) = (policy.services.first(), deny.sources.first()) else {
            continue;
        };
        let from = source.prefix.addr();
        let what = format!("denied {} ({from})", deny.name);
        let to = place(&service.address, &service.ports, from);
        add(what, (from, PORT), to, service.protocols);
    }
    known
}

/// IPv4 whose header says that it is shorter than a header can be.
fn malformed() -> Vec<u8> {
    let mut frame = vec![0; 34];
    frame[12] = 0x08;
    frame[14] = 0x44;
    frame
}

fn protocol(protocols: Protocols) -> ExpectProtocol {
    if protocols.tcp {
        ExpectProtocol::Tcp
    } else {
        ExpectProtocol::Udp
    }
}

/// One of an entry's addresses, of the family of another.
fn destination(addresses: &Addresses, host: &[IpAddr], like: IpAddr) -> Option<IpAddr> {
    let is_like = |address: &IpAddr| address.is_ipv4() == like.is_ipv4();
    match addresses {
        Addresses::Any => ANYWHERE
            .iter()
            .filter_map(|text| text.parse().ok())
            .find(|address| is_like(address)),
        Addresses::Host => host.iter().copied().find(is_like),
        Addresses::Prefixes(prefixes) => prefixes.iter().map(IpNet::addr).find(is_like),
    }
}
