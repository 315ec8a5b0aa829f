//! The tables walked on the host: the reference that the kernel program is held to, and what `check` and
//! `explain` ask without root.

use filter_common::abi::{
    Class, LimitSet, Owner, OwnerState, SERVICE_ENTRIES, SOURCE_LIMIT, Service, Source,
};
use filter_common::account::{COUNTERS, SHARED_SOURCES};
use filter_common::admit;
use filter_common::bounds::SOURCE_WAYS;
use filter_common::charge::{self, Charge};
use filter_common::classify::{self, Grants, Walk};
use filter_common::limit::{self, Bucket, Effect};
use filter_common::lookup::prefixes::{find_v4, find_v6};
use filter_common::lookup::{Config, GrantTables, PORT_SET_WORDS, Port, Tables, Used};
use filter_common::parse::{Family, Packet};
use filter_common::pipeline::{self, Outcome};
use filter_common::source_limit;
use filter_common::target::{self, Target};
use filter_common::units::Nanos;
use std::borrow::Borrow;
use std::cell::{Cell, RefCell};

use super::prefixes::{Layout, lay_out};
use super::{Compiled, Room};

/// One generation and its state, for one thread.
pub struct HostTables {
    compiled: Compiled,
    from: Layout,
    to: Layout,
    pub now: Cell<Nanos>,
    pub effect: Cell<Effect>,
    owner_buckets: Vec<[Cell<u64>; 3]>,
    service_buckets: Vec<[Cell<u64>; 3]>,
    /// Tags and words.
    source_buckets: Vec<[Cell<u64>; 2]>,
    pub owners: RefCell<Vec<OwnerState>>,
    pub counts: RefCell<Vec<(u64, u64)>>,
    /// Frames by verdict, as an interface counts them.
    pub interface: RefCell<[u64; 3]>,
    /// Until when what a service refuses is observed, by its number, or everything.
    pub observed: RefCell<Vec<(u32, u64)>>,
    /// Whether the packet answers a connection of the host's own: its sockets are the kernel's to know.
    pub is_reply: Cell<bool>,
}

impl HostTables {
    pub fn new(compiled: Compiled) -> Self {
        let owners = compiled.owners.len();
        Self {
            from: lay_out(&compiled.sources_v4, &compiled.sources_v6, Room::default()),
            to: lay_out(&[], &compiled.addresses, Room::default()),
            source_buckets: {
                let lines = 3 * compiled.source_lines as usize;
                (0..lines * SOURCE_WAYS as usize)
                    .map(|_| Default::default())
                    .collect()
            },
            now: Cell::new(Nanos(1)),
            effect: Cell::new(Effect::Commit),
            owner_buckets: (0..owners).map(|_| Default::default()).collect(),
            service_buckets: (0..SERVICE_ENTRIES).map(|_| Default::default()).collect(),
            owners: RefCell::new(vec![OwnerState::default(); owners]),
            counts: RefCell::new(vec![(0, 0); COUNTERS as usize]),
            interface: RefCell::default(),
            observed: RefCell::default(),
            is_reply: Cell::new(false),
            compiled,
        }
    }

    pub fn compiled(&self) -> &Compiled {
        &self.compiled
    }

    /// Words as another has them, in place of an owner's own: packets, bytes, connections.
    pub fn set_owner_words(&self, number: u32, words: [u64; 3]) {
        let cells = self.owner_buckets.get(number as usize).into_iter().flatten();
        cells.zip(words).for_each(|(cell, word)| cell.set(word));
    }

    /// The same for a service, a publisher or the ICMP limits.
    pub fn set_shared_words(&self, number: u32, words: [u64; 3]) {
        let cells = self.service_buckets.get(number as usize).into_iter().flatten();
        cells.zip(words).for_each(|(cell, word)| cell.set(word));
    }

    /// The same for a line of the sources' own buckets: tags and words, as the kernel has them.
    pub fn set_source_line(&self, line: u32, words: [u64; 8]) {
        let start = (line * SOURCE_WAYS) as usize;
        let cells = self.source_buckets.iter().skip(start).flatten();
        cells.zip(words).for_each(|(cell, word)| cell.set(word));
    }

    /// The tokens that an owner's buckets hold now.
    pub fn owner_left(&self, number: u32) -> [u64; 3] {
        let limits = self.owner(number).and_then(|owner| self.limits(owner.limits));
        self.left(limits, self.owner_buckets.get(number as usize))
    }

    /// The same of what a service, a publisher or the ICMP limits have.
    pub fn shared_left(&self, number: u32) -> [u64; 3] {
        let limits = self.service(number).and_then(|entry| self.limits(entry.limits));
        self.left(limits, self.service_buckets.get(number as usize))
    }

    /// The same of the source's own: of the shared one where all of its line are in use by others.
    pub fn source_left(&self, packet: &Packet) -> [u64; 3] {
        let limits = self
            .service(SOURCE_LIMIT)
            .and_then(|entry| self.limits(entry.limits));
        let words = [0, 1, 2].map(|unit| Cell::new(self.source_word(packet, unit)));
        self.left(limits, Some(&words))
    }

    /// The word that `source_limit::pays` would ask: 0 is a full bucket.
    fn source_word(&self, packet: &Packet, unit: u32) -> u64 {
        let tag = source_limit::tag(packet);
        let (line, hash) = source_limit::line(tag, unit, self.compiled.source_lines);
        let of_way = |way| {
            let [owner, word] = self.source_buckets.get((line * SOURCE_WAYS + way) as usize)?;
            Some((owner.get(), word.get()))
        };
        let mut ways = (0..SOURCE_WAYS).filter_map(of_way);
        if let Some((_, word)) = ways.find(|(owner, _)| *owner == tag) {
            return word;
        }
        let mut ways = (0..SOURCE_WAYS).filter_map(of_way);
        if ways.any(|(_, word)| word <= self.now.get().units()) {
            return 0;
        }
        of_way(hash as u32 & (SOURCE_WAYS - 1)).map_or(0, |(_, word)| word)
    }

    fn left(&self, limits: Option<&LimitSet>, words: Option<&[Cell<u64>; 3]>) -> [u64; 3] {
        let (Some(limits), Some(words)) = (limits, words) else {
            return [0; 3];
        };
        let now = self.now.get();
        let left = |limit, word: &Cell<u64>| limit::level(limit, word.get(), now);
        [
            left(&limits.packets, &words[0]),
            left(&limits.bytes, &words[1]),
            left(&limits.connections, &words[2]),
        ]
    }

    /// All buckets full again.
    pub fn refill(&self) {
        let named = self.owner_buckets.iter().chain(&self.service_buckets).flatten();
        for cell in named.chain(self.source_buckets.iter().flatten()) {
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

/// What an owner has used, on the host.
pub struct HostUsed<'a> {
    buckets: &'a [Cell<u64>; 3],
    number: u32,
    owners: &'a RefCell<Vec<OwnerState>>,
}

impl<'a> Used for HostUsed<'a> {
    type Bucket = HostBucket<'a>;

    fn bucket(&self, level: u32) -> HostBucket<'a> {
        HostBucket(&self.buckets[level as usize])
    }

    fn count(&self, bytes: u32, now: Nanos) {
        if let Some(owner) = self.owners.borrow_mut().get_mut(self.number as usize) {
            owner.packets += 1;
            owner.bytes += bytes as u64;
            owner.last_seen = now.0;
        }
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
    type Used<'a> = HostUsed<'a>;

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

    fn value(&self, packet: &Packet) -> u32 {
        let source = packet.source;
        match packet.family {
            Family::V4 => find_v4(&self.from, source.v4()),
            Family::V6 => find_v6(&self.from, source.upper, source.lower),
        }
    }

    fn source(&self, number: u32) -> Option<&Source> {
        self.compiled.sources.get(number as usize)
    }

    fn class_number(&self, packet: &Packet) -> u32 {
        find_v6(&self.to, packet.destination.upper, packet.destination.lower)
    }

    fn class(&self, number: u32) -> Option<&Class> {
        self.compiled.classes.get(number as usize)
    }

    fn port(&self, index: u32) -> Port {
        self.compiled
            .ports
            .get(index as usize)
            .copied()
            .map_or(Port::NONE, Port::unpack)
    }

    fn management_ports(&self, number: u32) -> u64 {
        self.compiled
            .port_masks
            .get(number as usize)
            .copied()
            .unwrap_or(0)
    }

    fn unserved(&self, packet: &Packet, source: &Source, class_number: u32, port_row: u32) -> Outcome {
        pipeline::unserved(self, packet, source, class_number, port_row)
    }

    fn fragment(&self, packet: &Packet, source: &Source, row: u32, observed: bool) -> Outcome {
        admit::fragment(self, packet, source, row, observed)
    }

    fn service_of_many(&self, packet: &Packet, source: &Source, number: u32) -> Outcome {
        admit::service_of_many(self, packet, source, number)
    }

    fn service_in_both(&self, first_row: u32, second_row: u32) -> u32 {
        classify::service(self, first_row, second_row)
    }

    fn owner_pays(&self, number: u32, charge: Charge, now: Nanos) -> bool {
        charge::owner_pays(self, number, charge, now)
    }

    fn shared_pays(&self, number: u32, charge: Charge, now: Nanos) -> bool {
        charge::shared_pays(self, number, charge, now)
    }

    fn source_pays(&self, packet: &Packet, charge: Charge, now: Nanos) -> bool {
        source_limit::pays(self, packet, charge, now)
    }

    fn source_lines(&self) -> u32 {
        self.compiled.source_lines
    }

    fn source_bucket(&self, line: u32, way: u32) -> Option<(HostBucket<'_>, HostBucket<'_>)> {
        let [tag, word] = self.source_buckets.get((line * SOURCE_WAYS + way) as usize)?;
        Some((HostBucket(tag), HostBucket(word)))
    }

    fn count_shared_source(&self) {
        self.count(SHARED_SOURCES, 0);
    }

    fn walk<R>(&self, mut walk: Walk, then: impl FnOnce(&Grants) -> R) -> R {
        loop {
            for position in 0..walk.length {
                walk.step(self, position);
            }
            if !walk.goes_again() {
                return then(&walk.found);
            }
        }
    }

    fn limits(&self, number: u32) -> Option<&LimitSet> {
        self.compiled.limits.get(number as usize)
    }

    fn service(&self, number: u32) -> Option<&Service> {
        self.compiled.services.get(number as usize)
    }

    fn target(&self, packet: &Packet) -> Option<impl Borrow<Target> + '_> {
        target::find(self, packet)
    }

    fn owner_used(&self, number: u32) -> Option<HostUsed<'_>> {
        let buckets = self.owner_buckets.get(number as usize)?;
        Some(HostUsed {
            buckets,
            number,
            owners: &self.owners,
        })
    }

    fn service_bucket(&self, number: u32, level: u32) -> Option<HostBucket<'_>> {
        self.service_buckets
            .get(number as usize)?
            .get(level as usize)
            .map(HostBucket)
    }

    fn observes_any(&self) -> bool {
        !self.observed.borrow().is_empty()
    }

    fn observe_until(&self, number: u32) -> u64 {
        let observed = self.observed.borrow();
        let found = observed.iter().find(|(of, _)| *of == number);
        found.map_or(0, |(_, until)| *until)
    }

    fn observed(&self, outcome: Outcome) -> Outcome {
        pipeline::observed(self, outcome)
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

    fn count_interface(&self, verdict: u8) {
        if let Some(count) = self.interface.borrow_mut().get_mut(verdict as usize) {
            *count += 1;
        }
    }
}
