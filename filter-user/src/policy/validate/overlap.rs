//! Services that overlap: one protocol and port at a common address would name two services.
//!
//! `host` against prefixes is not known here: that they may overlap is a warning, and whether they do is checked where
//! the host's addresses are.

use std::collections::HashSet;

use crate::policy::model::{Addresses, PortRange, Service};
use crate::policy::prefix::bounds;
use crate::policy::schema::ServiceDraft;
use crate::policy::source::Place;
use crate::policy::suggest::quoted;
use crate::policy::validate::Judge;

/// One prefix of a service, as a range of addresses of one family.
struct Span {
    is_ipv6: bool,
    first: u128,
    last: u128,
    service: usize,
    shown: ipnet::IpNet,
}

impl Judge<'_> {
    pub(crate) fn overlaps(&mut self, services: &[ServiceDraft]) {
        let mut told = HashSet::new();
        self.overlaps_by_kind(services, &mut told);
        self.overlaps_by_prefix(services, &mut told);
    }

    /// Every address with anything, this host's with this host's.
    fn overlaps_by_kind(&mut self, services: &[ServiceDraft], told: &mut HashSet<(usize, usize)>) {
        for (later, b) in services.iter().enumerate() {
            for (earlier, a) in services[..later].iter().enumerate() {
                let at = match (&a.service.address, &b.service.address) {
                    (Addresses::Prefixes(prefixes), _) | (_, Addresses::Prefixes(prefixes))
                        if prefixes.is_empty() =>
                    {
                        continue;
                    }
                    (Addresses::Any, Addresses::Any) => "every address".to_owned(),
                    (Addresses::Host, Addresses::Host | Addresses::Any)
                    | (Addresses::Any, Addresses::Host) => "this host's addresses".to_owned(),
                    (Addresses::Any, Addresses::Prefixes(prefixes))
                    | (Addresses::Prefixes(prefixes), Addresses::Any) => prefixes[0].to_string(),
                    (Addresses::Host, Addresses::Prefixes(prefixes))
                    | (Addresses::Prefixes(prefixes), Addresses::Host) => {
                        self.tell_possible(services, (earlier, later), &prefixes[0].to_string());
                        continue;
                    }
                    (Addresses::Prefixes(_), Addresses::Prefixes(_)) => continue,
                };
                self.tell(services, (earlier, later), &at, told);
            }
        }
    }

    /// Records the pair if it has a protocol and port in common, which matters where the host has such an address.
    fn tell_possible(&mut self, services: &[ServiceDraft], (earlier, later): (usize, usize), at: &str) {
        let (a, b) = (&services[earlier], &services[later]);
        let Some((protocol, ports)) = in_common(&a.service, &b.service) else {
            return;
        };
        let message = format!(
            "service {} overlaps with service {} at {} on a host with an address in {at}: {protocol} port {}",
            quoted(&b.service.name),
            quoted(&a.service.name),
            self.sources.shown(a.name),
            shown_ports(ports),
        );
        let fix = "there a reload is refused, and a start leaves the address to the one that names it: give one of them \
                   other ports, or addresses instead of \"host\"";
        self.faults
            .warning(port_place(b, ports), "service-may-overlap", message, fix);
    }

    /// Sorted by their beginnings, prefixes that hold the next one are a stack.
    fn overlaps_by_prefix(&mut self, services: &[ServiceDraft], told: &mut HashSet<(usize, usize)>) {
        let mut spans = spans(services);
        spans.sort_unstable_by_key(|span| {
            (
                span.is_ipv6,
                span.first,
                std::cmp::Reverse(span.last),
                span.service,
            )
        });
        let mut holders: Vec<&Span> = Vec::new();
        for span in &spans {
            while holders
                .last()
                .is_some_and(|top| top.is_ipv6 != span.is_ipv6 || top.last < span.first)
            {
                holders.pop();
            }
            for holder in &holders {
                let pair = (holder.service.min(span.service), holder.service.max(span.service));
                if pair.0 != pair.1 && !told.contains(&pair) {
                    self.tell(services, pair, &span.shown.to_string(), told);
                }
            }
            holders.push(span);
        }
    }

    /// Records the pair if it has a protocol and port in common; one pair is told once.
    fn tell(
        &mut self,
        services: &[ServiceDraft],
        (earlier, later): (usize, usize),
        at: &str,
        told: &mut HashSet<(usize, usize)>,
    ) {
        let (a, b) = (&services[earlier], &services[later]);
        let Some((protocol, ports)) = in_common(&a.service, &b.service) else {
            return;
        };
        if !told.insert((earlier, later)) {
            return;
        }
        let place = port_place(b, ports);
        let first = self.sources.shown(a.name);
        let message = format!(
            "service {} overlaps with service {} at {first}: {protocol} port {} at {at}",
            quoted(&b.service.name),
            quoted(&a.service.name),
            shown_ports(ports),
        );
        let fix = "give one of them other ports, protocols or addresses, or make them one service";
        self.faults.error(place, "service-overlap", message, fix);
    }
}

fn spans(services: &[ServiceDraft]) -> Vec<Span> {
    let mut spans = Vec::new();
    for (index, draft) in services.iter().enumerate() {
        if let Addresses::Prefixes(prefixes) = &draft.service.address {
            for prefix in prefixes {
                let (first, last) = bounds(prefix);
                let is_ipv6 = prefix.addr().is_ipv6();
                spans.push(Span {
                    is_ipv6,
                    first,
                    last,
                    service: index,
                    shown: *prefix,
                });
            }
        }
    }
    spans
}

/// Whether two services have a protocol and port in common.
pub(crate) fn share_port(a: &Service, b: &Service) -> bool {
    in_common(a, b).is_some()
}

fn in_common(a: &Service, b: &Service) -> Option<(&'static str, PortRange)> {
    let protocol = if a.protocols.tcp && b.protocols.tcp {
        "tcp"
    } else if a.protocols.udp && b.protocols.udp {
        "udp"
    } else {
        return None;
    };
    ports_in_common(&a.ports, &b.ports).map(|ports| (protocol, ports))
}

/// Both sorted and merged.
fn ports_in_common(a: &[PortRange], b: &[PortRange]) -> Option<PortRange> {
    let (mut i, mut j) = (0, 0);
    while let (Some(x), Some(y)) = (a.get(i), b.get(j)) {
        let common = PortRange {
            first: x.first.max(y.first),
            last: x.last.min(y.last),
        };
        if common.first <= common.last {
            return Some(common);
        }
        if x.last < y.last { i += 1 } else { j += 1 }
    }
    None
}

/// Where the service wrote one of these ports.
fn port_place(draft: &ServiceDraft, ports: PortRange) -> Place {
    let written = draft
        .ports
        .iter()
        .find(|port| port.value.first <= ports.last && port.value.last >= ports.first);
    written.map_or(draft.name, |port| port.place)
}

fn shown_ports(ports: PortRange) -> String {
    if ports.first == ports.last {
        ports.first.to_string()
    } else {
        format!("{}-{}", ports.first, ports.last)
    }
}
