//! By which ways services are reached unjudged. Pure.

use std::net::IpAddr;

use super::host::Host;
use super::published::speaks;
use super::{Finding, definitions as all};
use crate::kernel::devices::Device;
use crate::policy::Policy;
use crate::policy::model::{Addresses, PassDrop, Service};
use crate::sockets::Socket;

/// Devices that receive nothing from outside.
const SILENT: [&str; 3] = ["dummy", "ifb", "nlmon"];
/// Devices whose parts bring their frames.
const OF_PARTS: [&str; 3] = ["bond", "bridge", "team"];
/// As deep as devices stand on each other before it is taken for a circle.
const DEPTH_MAX: u32 = 8;
/// Addresses named in one sentence.
const NAMED_MAX: usize = 8;

/// Sockets on services' ports, at each interface by which packets reach them unjudged.
pub(super) fn unfiltered(policy: &Policy, host: &Host, filtered: &[String]) -> Vec<Finding> {
    let ways: Vec<&Device> = host
        .devices
        .iter()
        .filter(|device| is_way_in(device, host, filtered))
        .collect();
    let mut found = Vec::new();
    for (socket, services) in served(policy, host) {
        let addresses = reached(socket, host);
        if addresses.is_empty() {
            continue;
        }
        for way in &ways {
            let what = format!(
                "{} (service {}) is reachable by {}, which is not filtered, at {}",
                shown(socket),
                names(&services),
                way.name,
                named(&addresses)
            );
            found.push(Finding::new(&all::UNFILTERED_INTERFACE, what));
        }
    }
    found
}

/// Sockets on services' ports, at addresses that no service has.
pub(super) fn unserved(policy: &Policy, host: &Host, filtered: &[String]) -> Vec<Finding> {
    // Where it drops, they are judged; where nothing is filtered, that is the finding.
    if policy.filter.other_address == PassDrop::Drop || filtered.is_empty() {
        return Vec::new();
    }
    let mut found = Vec::new();
    for (socket, services) in served(policy, host) {
        let has = |address: &IpAddr| services.iter().any(|service| holds(service, address));
        let open: Vec<IpAddr> = reached(socket, host)
            .into_iter()
            .filter(|address| !has(address))
            .collect();
        if open.is_empty() {
            continue;
        }
        let what = format!(
            "{} is reachable at {}, and service {} is not there",
            shown(socket),
            named(&open),
            names(&services)
        );
        found.push(Finding::new(&all::UNSERVED_ADDRESS, what));
    }
    found
}

/// Devices that are up and unwrap what nobody judges then, and IPsec, which needs none.
pub(super) fn unwraps(host: &Host, filtered: &[String]) -> Vec<Finding> {
    let devices = host.devices.iter();
    let mut found: Vec<Finding> = devices
        .filter(|device| device.is_up() && device.unwraps() && !filtered.contains(&device.name))
        .map(|device| {
            let kind = if device.kind.is_empty() {
                "ppp"
            } else {
                device.kind.as_str()
            };
            Finding::new(&all::UNWRAPS, format!("{} ({kind})", device.name))
        })
        .collect();
    if host.ipsec {
        found.push(Finding::new(
            &all::UNWRAPS,
            "IPsec (`ip xfrm state` shows its associations)",
        ));
    }
    found
}

/// Listening sockets that are on some service's port, with these services.
fn served<'a>(policy: &'a Policy, host: &'a Host) -> impl Iterator<Item = (&'a Socket, Vec<&'a Service>)> {
    host.listening.iter().filter_map(|socket| {
        let port = socket.local.port();
        let on_port = |service: &&Service| {
            let mut ranges = service.ports.iter();
            speaks(service, Some(socket.protocol))
                && ranges.any(|range| range.first <= port && port <= range.last)
        };
        let services: Vec<&Service> = policy.services.iter().filter(on_port).collect();
        (!services.is_empty()).then_some((socket, services))
    })
}

/// The host's addresses at which a socket is reached from outside: Linux takes them all by every interface.
fn reached(socket: &Socket, host: &Host) -> Vec<IpAddr> {
    let local = socket.local.ip();
    let is_reached = |address: &&IpAddr| match (local, address) {
        _ if address.is_loopback() => false,
        // What is IPv4 reaches a socket of IPv6 as well, unless it was told otherwise, which is not to be seen.
        (IpAddr::V6(local), _) if local.is_unspecified() => true,
        (IpAddr::V4(local), IpAddr::V4(_)) if local.is_unspecified() => true,
        (local, address) => local == **address,
    };
    host.addresses.iter().filter(is_reached).copied().collect()
}

fn holds(service: &Service, address: &IpAddr) -> bool {
    match &service.address {
        // All of these are the host's own.
        Addresses::Any | Addresses::Host => true,
        Addresses::Prefixes(prefixes) => prefixes.iter().any(|prefix| prefix.contains(address)),
    }
}

/// Whether frames come in by a device from outside, and no filter sees them on the way.
fn is_way_in(device: &Device, host: &Host, filtered: &[String]) -> bool {
    let kind = device.kind.as_str();
    let of_whole = device
        .master
        .as_ref()
        .and_then(|master| host.device(master))
        .is_some_and(|master| OF_PARTS.contains(&master.kind.as_str()));
    // What stands on others is reached by these, and they are named; a bridge or bond rather than its parts.
    let is_whole = OF_PARTS.contains(&kind);
    let stands = if is_whole {
        device.lower.is_empty()
    } else {
        !device.lower.is_empty() && !device.unwraps()
    };
    device.is_up()
        && !device.is_loopback()
        && !SILENT.contains(&kind)
        && !of_whole
        && !stands
        && !is_covered(device, host, filtered, DEPTH_MAX)
}

/// Whether all that comes in by a device has been judged.
fn is_covered(device: &Device, host: &Host, filtered: &[String], depth: u32) -> bool {
    if filtered.contains(&device.name) {
        return true;
    }
    if depth == 0 || device.unwraps() || device.lower.is_empty() {
        return false;
    }
    device.lower.iter().all(|lower| {
        host.device(lower)
            .is_some_and(|lower| is_covered(lower, host, filtered, depth - 1))
    })
}

fn shown(socket: &Socket) -> String {
    let protocol = socket.protocol.word();
    let who = socket.process.as_deref().unwrap_or("a program");
    format!("{who} at {}/{protocol}", socket.local)
}

fn names(services: &[&Service]) -> String {
    let names: Vec<&str> = services.iter().map(|service| service.name.as_str()).collect();
    names.join(", ")
}

/// Addresses up to a bound, and their families.
fn named(addresses: &[IpAddr]) -> String {
    let mut text: Vec<String> = addresses.iter().take(NAMED_MAX).map(IpAddr::to_string).collect();
    if let more @ 1.. = addresses.len().saturating_sub(NAMED_MAX) {
        text.push(format!("{more} more"));
    }
    let families = match (
        addresses.iter().any(IpAddr::is_ipv4),
        addresses.iter().any(IpAddr::is_ipv6),
    ) {
        (true, true) => "IPv4 and IPv6",
        (true, false) => "IPv4",
        _ => "IPv6",
    };
    format!("{} ({families})", text.join(", "))
}
