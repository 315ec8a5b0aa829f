//! The policy as the kernel's tables: pure, from a checked policy and the numbers its names have.
//!
//! Everything that a source or an address means is worked out here, so that the kernel asks one longest prefix
//! and finds the whole answer. Knows no map and no clock: `kernel::load` writes what stands here, `host` walks
//! it on the host.

mod destinations;
mod homes;
pub mod host;
mod limits;
mod numbers;
pub mod port_sets;
mod ports;
pub mod prefixes;
#[cfg(test)]
mod prefixes_tests;
mod pushed;
mod rows;
pub mod runs;
mod sources;
mod tables;
mod threads;

pub use limits::{LimitTable, limit_set};
pub use numbers::{Assigned, Keep, Numbers, OwnerHash, owner_hash, owner_name};
pub use pushed::{Pushed, binding_name};
pub use rows::Rows;
pub use tables::{Compiled, Key, Room};

use filter_common::abi::{self, ICMP_ANSWERS, ICMP_REQUESTS, Owner, SOURCE_LIMIT};
use filter_common::bounds::{OWNERS_PER_SOURCE_MAX, SOURCE_WAYS};
use filter_common::lookup::prefixes::parts;
use filter_common::lookup::{PORT_SET_WORDS, config_flags};
use ipnet::IpNet;
use port_sets::SourcePorts;
use thiserror::Error;

use crate::bindings::seam::Many;
use crate::policy::bounds::SOURCES_MAX;
use crate::policy::model::{Filter, Limits, Mode, PassDrop, PassListedDrop, Policy, Service, ServiceSet};

/// Why a policy that is free of faults does not fit the kernel's tables.
#[derive(Debug, Error)]
pub enum CompileError {
    #[error(
        "{prefix} would be granted by {owners} owners at once, and the kernel walks at most {max}; \
         give some of them narrower sources, or merge clients that share their services",
        max = OWNERS_PER_SOURCE_MAX
    )]
    OwnersPerSource { prefix: String, owners: usize },
    #[error("{what} need {needed} entries, and the table {table} holds at most {max}; simplify the policy")]
    TableFull {
        table: &'static str,
        what: &'static str,
        needed: usize,
        max: u32,
    },
    #[error(
        "services {first} and {second} overlap at an address of this host; \
         give them different ports, or addresses instead of \"host\""
    )]
    Overlap { first: String, second: String },
    #[error("{0} has no number: a fault of this program, please report it")]
    Unnumbered(String),
    #[error("the limit of {0} cannot be counted: its burst takes longer than a year to fill")]
    Limit(String),
}

/// What a compile needs beside the policy.
pub struct Surroundings<'a> {
    /// What `"host"` means now.
    pub host_addresses: &'a [IpNet],
    /// Turns a wall-clock end into the filter's monotonic nanoseconds; 0 is past.
    pub end: &'a dyn Fn(jiff::Timestamp) -> u64,
    /// What API servers have pushed.
    pub pushed: &'a Pushed,
    /// Whether more will be pushed while this is in force: room is left for it, and for so many in all at least.
    pub grows: Option<Many>,
}

/// Compiles a policy; `numbers` must hold every service and client of it.
pub fn compile(
    policy: &Policy,
    numbers: &Numbers,
    around: &Surroundings<'_>,
) -> Result<Compiled, CompileError> {
    let number = |service: &Service| {
        numbers
            .service(&service.name)
            .ok_or_else(|| CompileError::Unnumbered(service.name.clone()))
    };
    let services: Vec<u32> = policy.services.iter().map(number).collect::<Result<_, _>>()?;
    let row_words = services.iter().max().map_or(1, |highest| highest / 64 + 1);
    let mut rows = Rows::new(row_words as usize);
    let mut limits = LimitTable::default();
    let mut flags = filter_flags(&policy.filter);

    let service_entries = services_table(policy, numbers, &services, &mut limits, &mut flags)?;
    let management = destinations::Management::of(policy)?;
    let pushed = around.pushed;
    let (sources, owners) = threads::both(
        || sources::build(policy, numbers, &management, pushed),
        || owners_table(policy, numbers, &services, &mut rows, &mut limits, around),
    );
    let (owners, sources) = (owners?, sources?);
    bounded(&sources)?;
    let destinations = destinations::build(policy, &services, &management, &mut rows, around.host_addresses)?;
    if destinations.addressed {
        flags |= config_flags::ADDRESSES;
    }
    if !policy.management.is_empty() {
        flags |= config_flags::MANAGEMENT;
    }
    let room = match around.grows {
        Some(many) => room(policy, (&owners, &sources), many),
        None => Room::default(),
    };
    // As many lines as the buckets asked for fill, for each unit.
    let source_lines = if flags & config_flags::SOURCE_LIMIT == 0 {
        0
    } else {
        (policy.filter.source_limit_max.div_ceil(u64::from(SOURCE_WAYS))) as u32
    };
    rows.bounded()?;
    Ok(Compiled {
        flags,
        row_words,
        sources_v4: sources.v4,
        sources_v6: sources.v6,
        sources: sources.sources,
        addresses: destinations.addresses,
        classes: destinations.classes,
        ports: destinations.ports,
        port_masks: destinations.port_masks,
        rows: rows.words,
        grants: sources.grants,
        doubled_v4: sources.doubled_v4,
        doubled_v6: sources.doubled_v6,
        owners: owners.entries,
        port_sets: owners.port_sets,
        limits: limits.entries,
        services: service_entries,
        source_lines,
        room,
    })
}

/// What is left free for what is pushed from here on.
fn room(policy: &Policy, (owners, sources): (&Owners, &sources::Sources), many: Many) -> Room {
    let single = sources.v4.len() + sources.v6.len();
    let (several, listed) = (sources.sources.len(), sources.grants.len());
    let room = Room::for_more(owners.entries.len(), single, several, listed);
    let more = |many: u64, there: usize| many.saturating_sub(there as u64).min(u64::from(u32::MAX)) as u32;
    Room {
        parts: pushed_parts(policy),
        owners: room.owners.max(more(many.owners, owners.entries.len())),
        hosts_v4: room.hosts_v4.max(more(many.v4, sources.v4.len())),
        hosts_v6: room.hosts_v6.max(more(many.v6, sources.v6.len())),
        port_sets: port_sets::room_beside((owners.port_sets.len() / PORT_SET_WORDS as usize) as u32),
        ..room
    }
}

/// The parts of the table that what is pushed may stand in, so that it needs no generation to come: bindings as wide as
/// publishers may push, and denies up to a /24 and a /48. The parts of these cost nothing where nothing stands in them:
/// the gate says so first.
fn pushed_parts(policy: &Policy) -> u32 {
    let widest = policy.publishers.iter().map(|publisher| publisher.widest_ipv6);
    let widest = widest.min().unwrap_or(128);
    let wider = |part, than| if widest < than { part } else { 0 };
    parts::PREFIXES_V4
        | parts::BLOCKS_64
        | parts::BLOCKS_48
        | wider(parts::BLOCKS_32, 48)
        | wider(parts::TOP_V6, 32)
}

/// Sources of each family, those pushed among them.
fn bounded(sources: &sources::Sources) -> Result<(), CompileError> {
    for (table, needed) in [("SOURCES_V4", sources.v4.len()), ("SOURCES_V6", sources.v6.len())] {
        if needed > SOURCES_MAX {
            return Err(CompileError::TableFull {
                table,
                what: "sources",
                needed,
                max: SOURCES_MAX as u32,
            });
        }
    }
    Ok(())
}

fn filter_flags(filter: &Filter) -> u32 {
    let mut flags = 0;
    let mut set = |on: bool, flag| flags |= if on { flag } else { 0 };
    set(filter.mode == Mode::Observe, config_flags::OBSERVE);
    set(
        filter.other_traffic == PassDrop::Drop,
        config_flags::OTHER_TRAFFIC_DROP,
    );
    set(
        filter.other_address == PassDrop::Drop,
        config_flags::OTHER_ADDRESS_DROP,
    );
    set(filter.non_ip == PassDrop::Drop, config_flags::NON_IP_DROP);
    set(
        filter.fragments == PassListedDrop::Listed,
        config_flags::FRAGMENTS_LISTED,
    );
    set(
        filter.fragments == PassListedDrop::Drop,
        config_flags::FRAGMENTS_DROP,
    );
    set(filter.ping == PassListedDrop::Listed, config_flags::PING_LISTED);
    set(filter.ping == PassListedDrop::Drop, config_flags::PING_DROP);
    flags
}

/// The mode a service is judged in.
pub fn service_mode(policy: &Policy, service: &Service) -> Mode {
    service.mode.unwrap_or(policy.filter.mode)
}

fn services_table(
    policy: &Policy,
    numbers: &Numbers,
    services: &[u32],
    limits: &mut LimitTable,
    flags: &mut u32,
) -> Result<Vec<abi::Service>, CompileError> {
    let mut entries = vec![abi::Service::default(); abi::SERVICE_ENTRIES as usize];
    for (service, number) in policy.services.iter().zip(services) {
        let entry = &mut entries[*number as usize];
        if service_mode(policy, service) == Mode::Observe {
            entry.flags |= abi::service_flags::OBSERVE;
        }
        entry.limits = limits.number(&service.limit, &format!("service {}", service.name))?;
        if entry.limits != 0 {
            *flags |= config_flags::SERVICE_LIMIT;
        }
    }
    for publisher in &policy.publishers {
        let what = format!("publisher {}", publisher.name);
        let number = numbers.publisher(&publisher.name);
        let number = number.ok_or_else(|| CompileError::Unnumbered(what.clone()))?;
        let set = limits.number(&publisher.limit, &what)?;
        entries[number as usize].limits = set;
        if set != 0 {
            *flags |= config_flags::PUBLISHER_LIMIT;
        }
    }
    let sources = limits.number(&policy.filter.source_limit, "[filter.source-limit]")?;
    if sources != 0 {
        *flags |= config_flags::SOURCE_LIMIT;
        entries[SOURCE_LIMIT as usize].limits = sources;
    }
    let icmp = limits.number(&policy.filter.icmp_limit, "[filter.icmp-limit]")?;
    if icmp != 0 {
        *flags |= config_flags::ICMP_LIMIT;
        entries[ICMP_ANSWERS as usize].limits = icmp;
        entries[ICMP_REQUESTS as usize].limits = icmp;
    }
    Ok(entries)
}

struct Owners {
    entries: Vec<Owner>,
    port_sets: Vec<u64>,
}

fn owners_table(
    policy: &Policy,
    numbers: &Numbers,
    services: &[u32],
    rows: &mut Rows,
    limits: &mut LimitTable,
    around: &Surroundings<'_>,
) -> Result<Owners, CompileError> {
    let mut owners = Owners {
        entries: vec![Owner::default()],
        port_sets: Vec::new(),
    };
    let mut sets = SourcePorts::default();
    let mut place = |number: u32, owner: Owner| {
        let number = number as usize;
        if owners.entries.len() <= number {
            owners.entries.resize(number + 1, Owner::default());
        }
        owners.entries[number] = owner;
    };
    // Neighbours often have the same: a million of them ask once.
    let mut row_of = Last::default();
    let mut limits_of = Last::default();
    let clients = policy.clients.iter().zip(numbers.clients(policy)?);
    for (client, number) in clients.filter(|(client, _)| client.enabled) {
        let row = row_of.or_ask(&client.services, || {
            Ok(match &client.services {
                ServiceSet::All => rows.of(services.iter().copied()),
                ServiceSet::Some(indexes) => rows.of(indexes.iter().map(|index| services[*index])),
            })
        })?;
        let (first, last, port_set) = sets.of(&client.source_ports);
        let owner = Owner {
            end: client.expires.map_or(u64::MAX, |expires| (around.end)(expires)),
            limits: limits_of.or_ask(&client.limit, || {
                limits.number(&client.limit, &format!("client {}", client.name))
            })?,
            row,
            source_port_first: first,
            source_port_last: last,
            port_set,
            publisher: 0,
            flags: owner_flags(&client.limit),
        };
        place(*number, owner);
    }
    let mut row_of = Last::default();
    let grantees = around.pushed.grantees.iter();
    for ((name, grantee), number) in grantees.zip(numbers.grantees(around.pushed)?) {
        let (first, last, port_set) = sets.of(&grantee.source_ports);
        let row = row_of.or_ask(&grantee.services, || {
            let named = grantee.services.iter();
            Ok(rows.of(named.filter_map(|service| numbers.service(service))))
        })?;
        let owner = Owner {
            end: grantee.end,
            limits: limits_of.or_ask(&grantee.limit, || limits.number(&grantee.limit, name))?,
            row,
            source_port_first: first,
            source_port_last: last,
            port_set,
            publisher: numbers.publisher(&grantee.publisher).unwrap_or(0),
            flags: owner_flags(&grantee.limit),
        };
        place(*number, owner);
    }
    owners.port_sets = sets.words()?;
    Ok(owners)
}

/// The last answer, for who asks the same again.
struct Last<'a, K>(Option<(&'a K, u32)>);

impl<K> Default for Last<'_, K> {
    fn default() -> Self {
        Self(None)
    }
}

impl<'a, K: PartialEq> Last<'a, K> {
    fn or_ask(
        &mut self,
        key: &'a K,
        ask: impl FnOnce() -> Result<u32, CompileError>,
    ) -> Result<u32, CompileError> {
        match self.0 {
            Some((last, answer)) if last == key => Ok(answer),
            _ => {
                let answer = ask()?;
                self.0 = Some((key, answer));
                Ok(answer)
            }
        }
    }
}

pub fn owner_flags(limit: &Limits) -> u32 {
    if limit.bytes.is_none() && limit.connections.is_none() {
        abi::owner_flags::PACKETS_ONLY
    } else {
        0
    }
}
