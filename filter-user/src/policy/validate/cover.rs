//! Sources that another entry already covers: a warning, because removing that other entry later would change
//! less than it seems, or this one is not needed.
//!
//! One sort and one sweep over all sources, so that a million of them take about a second.

use ipnet::IpNet;

use crate::policy::bounds::COVER_CANDIDATES_MAX;
use crate::policy::model::{Addresses, Client, Management, PortRange, ServiceSet};
use crate::policy::prefix::bounds;
use crate::policy::schema::Draft;
use crate::policy::source::{Place, Placed};
use crate::policy::suggest::quoted;
use crate::policy::validate::Judge;

/// One source of one entry.
struct Span {
    is_ipv6: bool,
    first: u128,
    last: u128,
    entry: u32,
    place: Place,
}

/// Entries of one kind: their names, places and sources, and which covers which.
struct Kind<'a> {
    name: &'static str,
    entries: Vec<(&'a str, Place, &'a [Placed<IpNet>])>,
    /// Whether the first admits or drops all that the second does, given its sources.
    covers: &'a dyn Fn(usize, usize) -> bool,
}

impl Judge<'_> {
    pub(crate) fn covers(&mut self, draft: &Draft) {
        let clients: Vec<&Client> = draft.clients.iter().map(|draft| &draft.client).collect();
        // An entry that is not in force covers nothing, and it does not matter what covers it.
        let in_force = |draft: &crate::policy::schema::ClientDraft| draft.client.enabled;
        self.sweep(&Kind {
            name: "client",
            entries: draft
                .clients
                .iter()
                .map(|d| {
                    let sources = if in_force(d) { d.sources.as_slice() } else { &[] };
                    (d.client.name.as_str(), d.name, sources)
                })
                .collect(),
            covers: &|holder, held| {
                client_covers(clients[holder], clients[held])
                    && credentials_cover(
                        &draft.clients[holder].credentials,
                        &draft.clients[held].credentials,
                    )
            },
        });
        self.sweep(&Kind {
            name: "deny",
            entries: draft
                .denies
                .iter()
                .map(|d| (d.deny.name.as_str(), d.name, d.sources.as_slice()))
                .collect(),
            covers: &|_, _| true,
        });
        self.sweep(&Kind {
            name: "management",
            entries: draft
                .management
                .iter()
                .map(|d| (d.management.name.as_str(), d.name, d.sources.as_slice()))
                .collect(),
            covers: &|holder, held| {
                management_covers(
                    &draft.management[holder].management,
                    &draft.management[held].management,
                )
            },
        });
    }

    fn sweep(&mut self, kind: &Kind<'_>) {
        let mut spans = spans(kind);
        spans.sort_unstable_by_key(|span| {
            (span.is_ipv6, span.first, std::cmp::Reverse(span.last), span.entry)
        });
        // What holds the current prefix.
        let mut holders: Vec<&Span> = Vec::new();
        for equal in spans.chunk_by(|a, b| (a.is_ipv6, a.first, a.last) == (b.is_ipv6, b.first, b.last)) {
            let Some(first) = equal.first() else { continue };
            while holders
                .last()
                .is_some_and(|top| top.is_ipv6 != first.is_ipv6 || top.last < first.first)
            {
                holders.pop();
            }
            for (index, span) in equal.iter().enumerate() {
                let (earlier, later) = (&equal[..index], &equal[index + 1..]);
                let outer = holders.iter().rev().copied().take(COVER_CANDIDATES_MAX);
                let candidates = earlier.iter().rev().take(COVER_CANDIDATES_MAX).chain(outer);
                self.tell_cover(
                    kind,
                    span,
                    candidates.chain(later.iter().take(COVER_CANDIDATES_MAX)),
                );
            }
            holders.extend(equal);
        }
    }

    fn tell_cover<'s>(
        &mut self,
        kind: &Kind<'_>,
        span: &Span,
        mut candidates: impl Iterator<Item = &'s Span>,
    ) {
        let covering = candidates.find(|holder| {
            let (holder_entry, entry) = (holder.entry as usize, span.entry as usize);
            let equal = holder.first == span.first && holder.last == span.last;
            // Of two that cover each other, the later is the one too many.
            holder_entry != entry
                && (kind.covers)(holder_entry, entry)
                && (!equal || holder_entry < entry || !(kind.covers)(entry, holder_entry))
        });
        let Some(holder) = covering else { return };
        let (name, place, _) = kind.entries[holder.entry as usize];
        let message = format!(
            "{} is already covered by {} of {} {} at {}",
            shown(span),
            shown(holder),
            kind.name,
            quoted(name),
            self.sources.shown(place),
        );
        self.faults.warning(
            span.place,
            "covered-source",
            message,
            "remove it, unless a limit of its own is meant",
        );
    }
}

fn spans(kind: &Kind<'_>) -> Vec<Span> {
    let mut spans = Vec::with_capacity(kind.entries.iter().map(|(_, _, sources)| sources.len()).sum());
    for (entry, (_, _, sources)) in kind.entries.iter().enumerate() {
        for source in *sources {
            let (first, last) = bounds(&source.value);
            let is_ipv6 = source.value.addr().is_ipv6();
            // Entries are at least a line each in files bounded below 4 GiB.
            spans.push(Span {
                is_ipv6,
                first,
                last,
                entry: entry as u32,
                place: source.place,
            });
        }
    }
    spans
}

fn shown(span: &Span) -> IpNet {
    let ones = (span.last - span.first).trailing_ones().min(128) as u8;
    let (address, bits): (std::net::IpAddr, u8) = if span.is_ipv6 {
        (std::net::Ipv6Addr::from_bits(span.first).into(), 128)
    } else {
        (std::net::Ipv4Addr::from_bits(span.first as u32).into(), 32)
    };
    IpNet::new_assert(address, bits - ones)
}

fn client_covers(holder: &Client, held: &Client) -> bool {
    let outlives = match (holder.expires, held.expires) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(holder), Some(held)) => holder >= held,
    };
    outlives
        && services_cover(&holder.services, &held.services)
        && (holder.source_ports.is_empty()
            || (!held.source_ports.is_empty() && ports_cover(&holder.source_ports, &held.source_ports)))
}

fn services_cover(holder: &ServiceSet, held: &ServiceSet) -> bool {
    match (holder, held) {
        (ServiceSet::All, _) => true,
        (ServiceSet::Some(_), ServiceSet::All) => false,
        (ServiceSet::Some(holder), ServiceSet::Some(held)) => {
            held.iter().all(|index| holder.binary_search(index).is_ok())
        }
    }
}

/// Another entry's sources say nothing about a credential that only this one names.
fn credentials_cover(holder: &[Placed<String>], held: &[Placed<String>]) -> bool {
    held.iter()
        .all(|credential| holder.iter().any(|other| other.value == credential.value))
}

fn management_covers(holder: &Management, held: &Management) -> bool {
    (holder.protocols.tcp || !held.protocols.tcp)
        && (holder.protocols.udp || !held.protocols.udp)
        && (holder.address == Addresses::Any || holder.address == held.address)
        && ports_cover(&holder.ports, &held.ports)
}

/// Both sorted and merged.
fn ports_cover(holder: &[PortRange], held: &[PortRange]) -> bool {
    held.iter().all(|range| {
        holder
            .iter()
            .any(|h| h.first <= range.first && range.last <= h.last)
    })
}
