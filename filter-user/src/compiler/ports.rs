//! Destination ports to the services that have them, and to the management combinations.
//!
//! Each port of each protocol has one word: the row of its services and the number of its management mask.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use filter_common::lookup::{Port, port_index};
use filter_common::parse::Protocol;
use filter_common::verdict::NO_SERVICE;

use super::CompileError;
use super::destinations::Management;
use super::rows::Rows;
use crate::policy::model::{Policy, PortRange, Protocols};

/// The port table.
pub(super) struct Ports {
    pub(super) words: Vec<u64>,
    /// No port, all combinations of TCP, all of UDP, then the distinct ones that ports have.
    pub(super) masks: Vec<u64>,
    /// The distinct rows in it, with whether they are UDP's.
    pub(super) rows: BTreeSet<(u32, bool)>,
    mask_numbers: HashMap<u64, u32>,
}

/// What begins at a port (true), or has ended before it (false).
type Changes = BTreeMap<u32, Vec<(bool, Change)>>;

#[derive(Clone, Copy)]
enum Change {
    Service(u32),
    Management(u64),
}

pub(super) fn build(
    policy: &Policy,
    numbers: &[u32],
    management: &Management,
    rows: &mut Rows,
) -> Result<Ports, CompileError> {
    let combined = |wanted: fn(&Protocols) -> bool| {
        let bits = management
            .combinations
            .iter()
            .enumerate()
            .filter(|(_, (has, _, _))| wanted(has));
        bits.fold(0u64, |mask, (bit, _)| mask | 1 << bit)
    };
    let mut ports = Ports {
        words: vec![0; 2 << 16],
        masks: vec![0, combined(|has| has.tcp), combined(|has| has.udp)],
        rows: BTreeSet::new(),
        mask_numbers: HashMap::from([(0, 0)]),
    };
    let tcp = changes(policy, numbers, management, |protocols| protocols.tcp);
    ports.sweep(Protocol::Tcp, &tcp, rows)?;
    let udp = changes(policy, numbers, management, |protocols| protocols.udp);
    ports.sweep(Protocol::Udp, &udp, rows)?;
    Ok(ports)
}

fn changes(
    policy: &Policy,
    numbers: &[u32],
    management: &Management,
    has: fn(&Protocols) -> bool,
) -> Changes {
    let mut changes = Changes::new();
    let mut mark = |range: &PortRange, change: Change| {
        changes
            .entry(range.first.into())
            .or_default()
            .push((true, change));
        changes
            .entry(u32::from(range.last) + 1)
            .or_default()
            .push((false, change));
    };
    for (service, number) in policy
        .services
        .iter()
        .zip(numbers)
        .filter(|(s, _)| has(&s.protocols))
    {
        service
            .ports
            .iter()
            .for_each(|range| mark(range, Change::Service(*number)));
    }
    for (bit, (protocols, ranges, _)) in management.combinations.iter().enumerate() {
        if has(protocols) {
            ranges
                .iter()
                .for_each(|range| mark(range, Change::Management(1 << bit)));
        }
    }
    changes
}

impl Ports {
    /// Fills one protocol's half, from change to change.
    fn sweep(&mut self, protocol: Protocol, changes: &Changes, rows: &mut Rows) -> Result<(), CompileError> {
        let mut services = BTreeSet::new();
        let mut mask = 0u64;
        let mut bounds = changes.iter().peekable();
        while let Some((first, changed)) = bounds.next() {
            for (begins, change) in changed {
                match (begins, change) {
                    (true, Change::Service(number)) => drop(services.insert(*number)),
                    (false, Change::Service(number)) => drop(services.remove(number)),
                    (true, Change::Management(bit)) => mask |= bit,
                    (false, Change::Management(bit)) => mask &= !bit,
                }
            }
            let next = bounds.peek().map_or(1 << 16, |(next, _)| **next);
            let row = rows.of(services.iter().copied());
            self.rows.insert((row, protocol == Protocol::Udp));
            let management = self.mask_number(mask);
            if management > u16::MAX.into() || row > u16::MAX.into() {
                return Err(CompileError::TableFull {
                    table: "ports",
                    what: "sets of services or management entries that share a port",
                    needed: self.masks.len().max(rows.count()),
                    max: u16::MAX.into(),
                });
            }
            let mut named = services.iter().copied();
            let service = match (named.next(), named.next()) {
                (Some(only), None) => only,
                _ => NO_SERVICE,
            };
            let word = Port {
                row,
                service,
                management,
            }
            .pack();
            for port in *first..next {
                self.words[port_index(protocol, port as u16) as usize] = word;
            }
        }
        Ok(())
    }

    fn mask_number(&mut self, mask: u64) -> u32 {
        *self.mask_numbers.entry(mask).or_insert_with(|| {
            self.masks.push(mask);
            (self.masks.len() - 1) as u32
        })
    }
}
