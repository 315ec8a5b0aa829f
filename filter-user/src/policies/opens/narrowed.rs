//! Ports that services keep, and guard at fewer addresses than before. Pure.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::{Protocol, listed, ports_shown};
use crate::policy::Policy;
use crate::policy::model::{Addresses, Mode, PassDrop, Service};

/// Where services have one port.
#[derive(Default)]
struct Guarded<'a> {
    any: bool,
    host: bool,
    prefixes: Vec<&'a IpNet>,
}

impl<'a> Guarded<'a> {
    fn of(services: impl Iterator<Item = &'a Service>) -> Self {
        let mut guarded = Self::default();
        for service in services {
            match &service.address {
                Addresses::Any => guarded.any = true,
                Addresses::Host => guarded.host = true,
                Addresses::Prefixes(prefixes) => guarded.prefixes.extend(prefixes),
            }
        }
        guarded
    }

    fn is_nowhere(&self) -> bool {
        !self.any && !self.host && self.prefixes.is_empty()
    }

    /// Of addresses: those, and where this host's are meant, these.
    fn prefixes(&self, host: &'a [IpNet]) -> impl Iterator<Item = &'a IpNet> {
        let host = if self.host { host } else { &[] };
        self.prefixes.iter().copied().chain(host)
    }
}

/// A sentence for all ports that are open at the same addresses; `host` are this host's.
pub(super) fn narrowed(old: &Policy, new: &Policy, protocol: Protocol, host: &[IpNet]) -> Vec<String> {
    if new.filter.other_address == PassDrop::Drop && new.filter.mode == Mode::Enforce {
        return Vec::new();
    }
    let old = protocol.services(old, &[Mode::Enforce]);
    let new = protocol.services(new, &[Mode::Enforce, Mode::Observe]);
    let ranges = old.iter().chain(&new).flat_map(|service| &service.ports);
    let edges: BTreeSet<usize> = ranges
        .flat_map(|range| [usize::from(range.first), usize::from(range.last) + 1])
        .collect();
    let edges: Vec<usize> = edges.into_iter().collect();
    let mut open: BTreeMap<String, Vec<(usize, usize)>> = BTreeMap::new();
    for pair in edges.windows(2) {
        let (first, last) = (pair[0], pair[1] - 1);
        let (before, after) = (at(&old, first), at(&new, first));
        // Those that no service has any more are told of as such.
        if after.any || after.is_nowhere() || before.is_nowhere() {
            continue;
        }
        let Some(place) = opened(&before, &after, protocol, host) else {
            continue;
        };
        let ranges = open.entry(place).or_default();
        match ranges.last_mut() {
            Some((_, before)) if *before + 1 == first => *before = last,
            _ => ranges.push((first, last)),
        }
    }
    let sentence = |(place, ranges): (String, Vec<(usize, usize)>)| {
        format!(
            "this opens {} {} at {place} to everybody: services have them at fewer addresses than before, and what is for \
             a service's port at another address passes (other-address)",
            protocol.name(),
            ports_shown(&ranges)
        )
    };
    open.into_iter().map(sentence).collect()
}

fn at<'a>(services: &[&'a Service], port: usize) -> Guarded<'a> {
    let has = |service: &&Service| {
        let mut ranges = service.ports.iter();
        ranges.any(|range| (usize::from(range.first)..=usize::from(range.last)).contains(&port))
    };
    Guarded::of(services.iter().copied().filter(has))
}

/// Where a port was guarded and is not any more, in words.
fn opened(before: &Guarded<'_>, after: &Guarded<'_>, protocol: Protocol, host: &[IpNet]) -> Option<String> {
    if before.any {
        let own = after.host.then(|| "this host's own".to_owned());
        let kept: Vec<String> = own
            .into_iter()
            .chain(after.prefixes.iter().map(|prefix| shown(prefix)))
            .collect();
        return Some(format!("every address but {}", listed(&kept)));
    }
    let kept: HashSet<&IpNet> = after.prefixes(host).collect();
    let gone: BTreeSet<&IpNet> = before
        .prefixes(host)
        .filter(|prefix| !kept.contains(prefix))
        .collect();
    let left: Vec<String> = gone
        .into_iter()
        .flat_map(|prefix| without(*prefix, &kept))
        .filter(|left| arrives(left, protocol))
        .map(|left| shown(&left))
        .collect();
    (!left.is_empty()).then(|| listed(&left))
}

/// What of a prefix none of these holds, as the prefixes that make it up.
fn without(prefix: IpNet, kept: &HashSet<&IpNet>) -> Vec<IpNet> {
    if kept.iter().any(|kept| kept.contains(&prefix)) {
        return Vec::new();
    }
    let inside: Vec<&IpNet> = kept
        .iter()
        .copied()
        .filter(|kept| prefix.contains(*kept))
        .collect();
    let mut left = Vec::new();
    // A prefix is halved at most as often as it has bits.
    let mut parts = vec![prefix];
    while let Some(part) = parts.pop() {
        if inside.iter().any(|kept| kept.contains(&part)) {
            continue;
        }
        match part.subnets(part.prefix_len() + 1) {
            Ok(halves) if inside.iter().any(|kept| part.contains(*kept)) => parts.extend(halves),
            _ => left.push(part),
        }
    }
    left.sort_unstable();
    left
}

/// Whether this host takes packets to it from outside.
fn arrives(prefix: &IpNet, protocol: Protocol) -> bool {
    let is_everybodys = match prefix.addr() {
        IpAddr::V4(address) => address.is_broadcast() || address.is_multicast(),
        IpAddr::V6(address) => address.is_multicast(),
    };
    let is_nobodys = prefix.addr().is_unspecified() && prefix.prefix_len() == prefix.max_prefix_len();
    match protocol {
        _ if prefix.addr().is_loopback() || is_nobodys => false,
        Protocol::Tcp => !is_everybodys,
        Protocol::Udp => true,
    }
}

fn shown(prefix: &IpNet) -> String {
    match prefix.prefix_len() == prefix.max_prefix_len() {
        true => prefix.addr().to_string(),
        false => prefix.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{ETH0, policy};
    use super::*;

    const HOST: [&str; 6] = [
        "127.0.0.0/8",
        "192.0.2.10/32",
        "192.0.2.11/32",
        "224.0.0.1/32",
        "2001:db8::10/128",
        "0.0.0.0/32",
    ];

    /// Where TCP ports are open that were not, as sentences would say it.
    fn said(filter: &str, old: &[(&str, &str, &str)], new: &[(&str, &str, &str)]) -> Vec<String> {
        let host: Vec<IpNet> = HOST.iter().map(|net| net.parse().unwrap()).collect();
        let filter = format!("{ETH0}\n{filter}");
        let said = narrowed(&policy(&filter, old), &policy(&filter, new), Protocol::Tcp, &host);
        let short = |said: String| {
            let said = said.strip_prefix("this opens TCP ports ").unwrap();
            said.split_once(" to everybody").unwrap().0.to_owned()
        };
        said.into_iter().map(short).collect()
    }

    const ANY: (&str, &str, &str) = ("web", "443", "");
    const OWN: (&str, &str, &str) = ("web", "443", "address = \"host\"");
    const ONE: (&str, &str, &str) = ("web", "443", "address = [\"192.0.2.10\"]");

    #[test]
    fn port_of_every_address_that_is_guarded_at_some_is_open_at_all_others() {
        assert_eq!(said("", &[ANY], &[ONE]), ["443 at every address but 192.0.2.10"]);
        assert_eq!(
            said("", &[ANY], &[OWN]),
            ["443 at every address but this host's own"]
        );
        assert_eq!(said("", &[ONE], &[ANY]), [""; 0]);
        assert_eq!(said("", &[OWN], &[ANY]), [""; 0]);
        assert_eq!(
            said("", &[ANY], &[("site", "443", "")]),
            [""; 0],
            "by another name"
        );
        assert_eq!(
            said("", &[ANY], &[("web", "444", "")]),
            [""; 0],
            "told of as a port without a service"
        );
    }

    #[test]
    fn hosts_addresses_and_prefixes_that_nothing_holds_any_more_are_named() {
        assert_eq!(said("", &[OWN], &[ONE]), ["443 at 192.0.2.11, 2001:db8::10"]);
        assert_eq!(said("", &[ONE], &[OWN]), [""; 0], "it is the host's");
        let prefix = |address: &'static str| [("web", "443", address)];
        let wide = prefix("address = [\"192.0.2.8/30\", \"198.51.100.0/24\"]");
        assert_eq!(
            said("", &wide, &[ONE]),
            ["443 at 192.0.2.8/31, 192.0.2.11, 198.51.100.0/24"]
        );
        assert_eq!(said("", &wide, &[OWN]), ["443 at 192.0.2.8/31, 198.51.100.0/24"]);
        let halves = [
            ("web", "443", "address = [\"192.0.2.8/31\", \"198.51.100.0/24\"]"),
            ("more", "443", "address = [\"192.0.2.10/31\"]"),
        ];
        assert_eq!(said("", &wide, &halves), [""; 0], "by two services together");
    }

    #[test]
    fn ports_with_the_same_addresses_are_one_sentence_and_others_have_their_own() {
        let old = [("web", "443, \"8000-8009\"", ""), ("more", "9000", "")];
        let new = [
            ("web", "443, \"8000-8004\"", "address = [\"192.0.2.10\"]"),
            ("site", "\"8005-8009\"", "address = [\"192.0.2.11\"]"),
            ("more", "9000", ""),
        ];
        assert_eq!(
            said("", &old, &new),
            [
                "443, 8000-8004 at every address but 192.0.2.10",
                "8005-8009 at every address but 192.0.2.11"
            ]
        );
    }

    #[test]
    fn nothing_is_open_where_it_is_dropped_or_was_only_observed() {
        assert_eq!(said("other-address = \"drop\"", &[ANY], &[ONE]), [""; 0]);
        let observed = [("web", "443", "mode = \"observe\"")];
        assert_eq!(said("", &observed, &[ONE]), [""; 0]);
        let enforced = |address: &'static str| [("web", "443", address)];
        // What is at another address is the filter's to drop, and that observes.
        assert_eq!(
            said(
                "other-address = \"drop\"\nmode = \"observe\"",
                &enforced("mode = \"enforce\""),
                &enforced("mode = \"enforce\"\naddress = [\"192.0.2.10\"]")
            ),
            ["443 at every address but 192.0.2.10"]
        );
    }

    #[test]
    fn groups_and_broadcasts_are_reached_by_udp_alone() {
        for (address, by) in [
            ("224.0.0.1/32", [false, true]),
            ("255.255.255.255/32", [false, true]),
            ("ff02::1/128", [false, true]),
            ("127.0.0.0/8", [false, false]),
            ("0.0.0.0/32", [false, false]),
            ("0.0.0.0/1", [true, true]),
            ("192.0.2.1/32", [true, true]),
        ] {
            let address: IpNet = address.parse().unwrap();
            assert_eq!(
                [Protocol::Tcp, Protocol::Udp].map(|by| arrives(&address, by)),
                by,
                "{address}"
            );
        }
    }
}
