//! The tables walked on the host: the reference that the kernel program is held to, and what `check` and
//! `explain` ask without root.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use filter_common::abi::{Class, Limit, Owner, OwnerState, SERVICE_ENTRIES, Service, Source};
use filter_common::account::COUNTERS;
use filter_common::charge::{self, Charge};
use filter_common::classify::{self, Grants, Walk};
use filter_common::limit::{Bucket, Effect};
use filter_common::lookup::{Config, GrantTables, PORT_SET_WORDS, Port, Tables};
use filter_common::parse::{Family, Packet};
use filter_common::pipeline::{self, Outcome};
use filter_common::units::Nanos;

use super::{Compiled, Key};

/// One generation and its state, for one thread.
pub struct HostTables {
    compiled: Compiled,
    v4: Prefixes<4, Source>,
    v6: Prefixes<16, Source>,
    addresses: Prefixes<16, u32>,
    pub now: Cell<Nanos>,
    pub effect: Cell<Effect>,
    owner_buckets: Vec<[Cell<u64>; 3]>,
    service_buckets: Vec<[Cell<u64>; 3]>,
    pub owners: RefCell<Vec<OwnerState>>,
    pub counts: RefCell<Vec<(u64, u64)>>,
    /// Frames by verdict, as an interface counts them.
    pub interface: RefCell<[u64; 3]>,
    /// Whether the packet answers a connection of the host's own: its sockets are the kernel's to know.
    pub is_reply: Cell<bool>,
}

/// Longest prefix match, one hash table a length: exact and plain, not fast.
struct Prefixes<const N: usize, V> {
    lengths: Vec<u8>,
    entries: HashMap<Key<N>, V>,
}

impl<const N: usize, V: Copy> Prefixes<N, V> {
    fn new(entries: &[(Key<N>, V)]) -> Self {
        let mut lengths: Vec<u8> = entries.iter().map(|(key, _)| key.length).collect();
        lengths.sort_unstable_by(|a, b| b.cmp(a));
        lengths.dedup();
        Self {
            lengths,
            entries: entries.iter().copied().collect(),
        }
    }

    fn longest(&self, address: [u8; N]) -> Option<V> {
        self.lengths.iter().find_map(|length| {
            self.entries
                .get(&Key {
                    address: cut(address, *length),
                    length: *length,
                })
                .copied()
        })
    }
}

fn cut<const N: usize>(mut address: [u8; N], length: u8) -> [u8; N] {
    for (index, byte) in address.iter_mut().enumerate() {
        let kept = (length as usize).saturating_sub(index * 8).min(8);
        *byte &= (0xff00u16 >> kept) as u8;
    }
    address
}

impl HostTables {
    pub fn new(compiled: Compiled) -> Self {
        let owners = compiled.owners.len();
        Self {
            v4: Prefixes::new(&compiled.sources_v4),
            v6: Prefixes::new(&compiled.sources_v6),
            addresses: Prefixes::new(&compiled.addresses),
            now: Cell::new(Nanos(1)),
            effect: Cell::new(Effect::Commit),
            owner_buckets: (0..owners).map(|_| Default::default()).collect(),
            service_buckets: (0..SERVICE_ENTRIES).map(|_| Default::default()).collect(),
            owners: RefCell::new(vec![OwnerState::default(); owners]),
            counts: RefCell::new(vec![(0, 0); COUNTERS as usize]),
            interface: RefCell::default(),
            is_reply: Cell::new(false),
            compiled,
        }
    }

    pub fn compiled(&self) -> &Compiled {
        &self.compiled
    }

    /// All buckets full again.
    pub fn refill(&self) {
        for cell in self.owner_buckets.iter().chain(&self.service_buckets).flatten() {
            cell.set(0);
        }
    }
}

/// A bucket's word on the host.
pub struct HostBucket<'a>(&'a Cell<u64>);

impl Bucket for HostBucket<'_> {
    fn load(&self) -> u64 {
        self.0.get()
    }

    fn compare_exchange(&self, old: u64, new: u64) -> Result<(), u64> {
        if self.0.get() != old {
            return Err(self.0.get());
        }
        self.0.set(new);
        Ok(())
    }
}

impl GrantTables for HostTables {
    fn row_words(&self) -> u32 {
        self.compiled.row_words
    }

    fn row_word(&self, row: u32, word: u32) -> u64 {
        self.compiled
            .rows
            .get((row * self.compiled.row_words + word) as usize)
            .copied()
            .unwrap_or(0)
    }

    fn owner_number(&self, position: u32) -> Option<u32> {
        self.compiled.grants.get(position as usize).copied()
    }

    fn owner(&self, number: u32) -> Option<&Owner> {
        self.compiled.owners.get(number as usize)
    }

    fn port_set_word(&self, set: u32, word: u32) -> u64 {
        self.compiled
            .port_sets
            .get((set * PORT_SET_WORDS + word) as usize)
            .copied()
            .unwrap_or(0)
    }
}

impl Tables for HostTables {
    type Bucket<'a> = HostBucket<'a>;

    fn config(&self) -> Config {
        Config {
            flags: self.compiled.flags,
        }
    }

    fn effect(&self) -> Effect {
        self.effect.get()
    }

    fn now(&self) -> Nanos {
        self.now.get()
    }

    fn source(&self, packet: &Packet) -> Source {
        let found = match packet.family {
            Family::V4 => {
                let [.., a, b, c, d] = packet.source;
                self.v4.longest([a, b, c, d])
            }
            Family::V6 => self.v6.longest(packet.source),
        };
        found.unwrap_or_default()
    }

    fn class(&self, packet: &Packet) -> Option<&Class> {
        self.compiled
            .classes
            .get(self.addresses.longest(packet.destination).unwrap_or(0) as usize)
    }

    fn class_default(&self) -> Option<&Class> {
        self.compiled.classes.first()
    }

    fn port(&self, index: u32) -> Port {
        self.compiled
            .ports
            .get(index as usize)
            .copied()
            .map(Port::unpack)
            .unwrap_or_default()
    }

    fn management_ports(&self, number: u32) -> u64 {
        self.compiled
            .port_masks
            .get(number as usize)
            .copied()
            .unwrap_or(0)
    }

    fn ip(&self, packet: &Packet) -> Outcome {
        pipeline::ip(self, packet)
    }

    fn service_in_both(&self, first_row: u32, second_row: u32) -> u32 {
        classify::service(self, first_row, second_row)
    }

    fn owner_pays(&self, number: u32, charge: Charge, now: Nanos) -> bool {
        charge::owner_pays(self, number, charge, now)
    }

    fn service_pays(&self, number: u32, charge: Charge, now: Nanos) -> bool {
        charge::service_pays(self, number, charge, now)
    }

    fn walk(&self, mut walk: Walk) -> Grants {
        for position in 0..walk.length {
            walk.step(self, position);
        }
        walk.found
    }

    fn limit(&self, number: u32) -> Option<&Limit> {
        self.compiled.limits.get(number as usize)
    }

    fn service(&self, number: u32) -> Option<&Service> {
        self.compiled.services.get(number as usize)
    }

    fn owner_bucket(&self, number: u32, level: u32) -> Option<HostBucket<'_>> {
        self.owner_buckets
            .get(number as usize)?
            .get(level as usize)
            .map(HostBucket)
    }

    fn service_bucket(&self, number: u32, level: u32) -> Option<HostBucket<'_>> {
        self.service_buckets
            .get(number as usize)?
            .get(level as usize)
            .map(HostBucket)
    }

    fn is_reply(&self, _: &Packet) -> bool {
        self.is_reply.get()
    }

    fn count(&self, index: u32, bytes: u32) {
        if let Some(count) = self.counts.borrow_mut().get_mut(index as usize) {
            count.0 += 1;
            count.1 += bytes as u64;
        }
    }

    fn count_owner(&self, number: u32, bytes: u32, now: Nanos) {
        if let Some(owner) = self.owners.borrow_mut().get_mut(number as usize) {
            owner.packets += 1;
            owner.bytes += bytes as u64;
            owner.last_seen = now.0;
        }
    }

    fn count_interface(&self, verdict: u8) {
        if let Some(count) = self.interface.borrow_mut().get_mut(verdict as usize) {
            *count += 1;
        }
    }
}
