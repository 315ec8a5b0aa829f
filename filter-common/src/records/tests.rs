//! The drop accounting on the host: exact while the keys fit, and never a packet lost or counted twice.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;

use super::*;
use crate::bounds::{RECORD_KEYS, RECORDS_MAX};
use crate::parse::{Address, Family, Packet};
use crate::verdict::{Judgement, NO_OWNER, NO_SERVICE, Reason, Verdict};

mod flood;

/// Both halves, as the kernel's maps have them.
struct Host {
    epoch: AtomicU64,
    seed: u64,
    tags: Vec<AtomicU64>,
    lines: Vec<AtomicU64>,
    more: Vec<AtomicU64>,
    spills: Vec<AtomicU64>,
}

fn words(count: usize) -> Vec<AtomicU64> {
    (0..count).map(|_| AtomicU64::new(0)).collect()
}

impl Host {
    fn new(seed: u64) -> Self {
        Self {
            epoch: AtomicU64::new(0),
            seed,
            tags: words(2 * RECORD_BUCKETS as usize),
            lines: words(2 * RECORD_SLOTS as usize * LINE_WORDS),
            more: words(2 * MORE as usize * PREFIX_WORDS),
            spills: words(2 * SPILLS as usize * 2),
        }
    }

    fn add(&self, key: &Key, sighting: Sighting) {
        record(&self, key, sighting);
    }

    fn records(&self, half: u32) -> Vec<Record> {
        fn of<const N: usize>(words: &[AtomicU64], index: u32) -> [u64; N] {
            std::array::from_fn(|word| words[index as usize * N + word].load(Ordering::Relaxed))
        }
        let spill = |index| of::<2>(&self.spills, half * SPILLS + index);
        let lines = (0..RECORD_SLOTS)
            .filter_map(|slot| read_line(of(&self.lines, half * RECORD_SLOTS + slot), spill(slot)));
        let more = (0..MORE).filter_map(|place| {
            let words = of(&self.more, half * MORE + place);
            read_more(place, words, spill(RECORD_SLOTS + place))
        });
        lines.chain(more).collect()
    }
}

struct Place<'a>(&'a [AtomicU64]);

impl Words for Place<'_> {
    fn load(&self, word: usize) -> u64 {
        self.0[word].load(Ordering::Acquire)
    }
    fn store(&self, word: usize, value: u64) {
        self.0[word].store(value, Ordering::Release);
    }
    fn add(&self, word: usize, value: u64) -> u64 {
        self.0[word].fetch_add(value, Ordering::AcqRel)
    }
    fn or(&self, word: usize, bits: u64) {
        self.0[word].fetch_or(bits, Ordering::AcqRel);
    }
    fn swap(&self, word: usize, value: u64) -> u64 {
        self.0[word].swap(value, Ordering::AcqRel)
    }
    fn compare_exchange(&self, word: usize, old: u64, new: u64) -> Result<(), u64> {
        let swapped = self.0[word].compare_exchange(old, new, Ordering::AcqRel, Ordering::Acquire);
        swapped.map(|_| ())
    }
    fn store_second_half(&self, word: usize, value: u16) {
        let update = |seen: u64| Some(seen & !0xffff_0000 | u64::from(value) << 16);
        let _ = self.0[word].fetch_update(Ordering::AcqRel, Ordering::Acquire, update);
    }
}

impl<'a> Memory for &'a Host {
    type Words = Place<'a>;
    fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }
    fn seed(&self) -> u64 {
        self.seed
    }
    fn tags(&self, index: u32) -> Option<Place<'a>> {
        Some(Place(self.tags.get(index as usize..=index as usize)?))
    }
    fn line(&self, index: u32) -> Option<Place<'a>> {
        Some(Place(self.lines.chunks(LINE_WORDS).nth(index as usize)?))
    }
    fn more(&self, index: u32) -> Option<Place<'a>> {
        Some(Place(self.more.chunks(PREFIX_WORDS).nth(index as usize)?))
    }
    fn spill(&self, index: u32) -> Option<Place<'a>> {
        Some(Place(self.spills.chunks(2).nth(index as usize)?))
    }
    fn elsewhere(&self, key: &Key, sighting: Sighting) {
        add_elsewhere(self, key, sighting);
    }
    fn put_down(&self, index: u32, count: u64) {
        put_down(self, index, count);
    }
}

fn packet(source: u32, destination_port: u16) -> Packet {
    Packet {
        source: Address::of_v4(source),
        destination: Address::of_v4(0xcb00_710a),
        destination_port,
        source_port: 40_000,
        protocol_number: 6,
        tcp_flags: 2,
        length: 60,
        ..Packet::default()
    }
}

fn judgement(verdict: Verdict, reason: Reason) -> Judgement {
    Judgement {
        verdict,
        reason,
        service: 3,
        owner: NO_OWNER,
        bytes: 60,
    }
}

fn key(source: u32) -> Key {
    let judgement = judgement(Verdict::Drop, Reason::Unlisted);
    Key::of(&packet(source, 443), &judgement, 7)
}

fn seen(bytes: u32, source_port: u16) -> Sighting {
    Sighting {
        bytes,
        source_port,
        tcp_flags: 2,
    }
}

fn tally(record: &Record) -> Tally {
    match record {
        Record::Exact { tally, .. } | Record::Overflow { tally, .. } => *tally,
    }
}

fn sum(records: &[Record]) -> Tally {
    records
        .iter()
        .map(tally)
        .fold(Tally::default(), |sum, tally| Tally {
            packets: sum.packets + tally.packets,
            bytes: sum.bytes + tally.bytes,
        })
}

#[test]
fn a_packet_comes_out_as_it_went_in() {
    let host = Host::new(5);
    let packet = packet(0xc633_6407, 443);
    let judgement = judgement(Verdict::Observe, Reason::LimitGrant);
    let judgement = Judgement {
        owner: 9,
        ..judgement
    };
    host.add(&Key::of(&packet, &judgement, 7), Sighting::of(&packet, 60));
    let found = host.records(0);
    let Record::Exact { key, tally, ports } = &found[0] else {
        panic!("{found:?}");
    };
    assert_eq!(
        *key,
        RecordKey {
            source: packet.source,
            destination: packet.destination,
            family: Some(Family::V4),
            service: 3,
            owner: 9,
            interface: 7,
            destination_port: 443,
            protocol: 6,
            reason: Reason::LimitGrant,
            verdict: Verdict::Observe,
        }
    );
    assert_eq!((tally.packets, tally.bytes), (1, 60));
    assert_eq!(
        *ports,
        Ports {
            first: 40_000,
            last: 40_000,
            same: true,
            distinct_min: 1,
            tcp_flags: 2
        }
    );
    assert_eq!(found.len(), 1);
    assert_eq!(host.records(1), []);
}

#[test]
fn a_frame_without_a_source_has_a_record_too() {
    let host = Host::new(5);
    let judgement = Judgement {
        service: NO_SERVICE,
        ..judgement(Verdict::Drop, Reason::NonIp)
    };
    host.add(&Key::of(&Packet::default(), &judgement, 7), seen(64, 0));
    let found = host.records(0);
    let Record::Exact { key, .. } = &found[0] else {
        panic!("{found:?}");
    };
    assert_eq!((key.family, key.service, key.owner), (None, NO_SERVICE, NO_OWNER));
    let v6 = Packet {
        family: Family::V6,
        ..Packet::default()
    };
    host.add(&Key::of(&v6, &judgement, 7), seen(64, 0));
    assert_eq!(host.records(0).len(), 2, "`::` is an address");
}

#[test]
fn source_ports_are_told_as_far_as_they_are_known() {
    let host = Host::new(5);
    let ports = || match &host.records(0)[0] {
        Record::Exact { ports, .. } => *ports,
        other => panic!("{other:?}"),
    };
    for port in [1000, 1000, 1001, 1002] {
        host.add(&key(1), seen(60, port));
    }
    assert_eq!((ports().first, ports().last, ports().same), (1000, 1002, false));
    assert!((2..=3).contains(&ports().distinct_min));
    (0..=u16::MAX).for_each(|port| host.add(&key(1), seen(60, port)));
    assert_eq!(
        (ports().first, ports().last, ports().distinct_min),
        (1000, u16::MAX, 23)
    );
    let one = Ports {
        first: 5,
        last: 5,
        same: true,
        distinct_min: 1,
        tcp_flags: 2,
    };
    let two = Ports {
        first: 6,
        last: 6,
        tcp_flags: 16,
        ..one
    };
    assert_eq!(
        one.with(two),
        Ports {
            first: 5,
            last: 6,
            same: false,
            distinct_min: 2,
            tcp_flags: 18
        }
    );
    assert!(one.with(one).same);
}

#[test]
fn counts_beyond_a_words_room_are_whole() {
    let host = Host::new(5);
    let (mut packets, mut bytes) = (0, 0);
    for round in 0..300 {
        // As if all but the last of a spill had been counted: 2^23 packets, or 2^39 bytes.
        host.add(&key(1), seen(1500, 1));
        let line = host
            .lines
            .chunks(LINE_WORDS)
            .position(|line| line[META].load(Ordering::Relaxed) != 0);
        let count = &host.lines[line.unwrap() * LINE_WORDS + COUNT];
        let more = if round % 2 == 0 {
            (1 << 23) - 9
        } else {
            ((1 << 39) - 9999) << BYTES_SHIFT
        };
        let held = count.load(Ordering::Relaxed);
        let fits = held & ((1 << BYTES_SHIFT) - 1) < 100 && held >> BYTES_SHIFT < 9_999_999;
        if fits {
            count.fetch_add(more, Ordering::Relaxed);
            packets += more & ((1 << BYTES_SHIFT) - 1);
            bytes += more >> BYTES_SHIFT;
        }
        for _ in 0..10 {
            host.add(&key(1), seen(60_000, 1));
        }
        packets += 11;
        bytes += 1500 + 600_000;
        assert_eq!(sum(&host.records(0)), Tally { packets, bytes });
    }
    assert!(
        host.spills
            .iter()
            .any(|word| word.load(Ordering::Relaxed) > 1 << 39)
    );
}

/// The promise of the status: so many keys have a record of their own, whichever they are.
#[test]
fn as_many_keys_as_are_promised_fit() {
    for seed in 0..6u64 {
        let host = Host::new(seed.wrapping_mul(0x9e37_79b9_97f4_a7c1));
        let source = |number: u32| match seed {
            0 => 0x0a00_0000 + number,
            1 => number << 8,
            2 => number.wrapping_mul(0x9e37_79b1),
            3 => number.reverse_bits(),
            _ => number.wrapping_mul(0x85eb_ca6b) ^ number >> 7,
        };
        for round in 0..2 {
            for number in 0..RECORD_KEYS {
                host.add(&key(source(number)), seen(60 + round, 9));
            }
        }
        let found = host.records(0);
        assert_eq!(found.len(), RECORD_KEYS as usize, "seed {seed}");
        let exact = Tally {
            packets: 2,
            bytes: 121,
        };
        assert!(
            found
                .iter()
                .all(|found| matches!(found, Record::Exact { tally, .. } if *tally == exact))
        );
    }
}

#[test]
fn all_cpus_together_lose_nothing() {
    let host = Host::new(3);
    let each = 200_000u32;
    std::thread::scope(|scope| {
        for cpu in 0..4 {
            let host = &host;
            scope.spawn(move || {
                for number in 0..each {
                    // Few keys that all have, and many that fill the table.
                    let source = if number % 2 == 0 {
                        number % 50
                    } else {
                        number * 4 + cpu
                    };
                    host.add(&key(source), seen(100, number as u16));
                }
            });
        }
    });
    let total = sum(&host.records(0));
    assert_eq!(
        (total.packets, total.bytes),
        (u64::from(each) * 4, u64::from(each) * 400)
    );
}

#[test]
fn the_halves_are_apart() {
    let host = Host::new(3);
    host.add(&key(1), seen(60, 1));
    host.epoch.store(1, Ordering::Release);
    host.add(&key(1), seen(70, 1));
    host.add(&key(2), seen(70, 1));
    assert_eq!((host.records(0).len(), host.records(1).len()), (1, 2));
    assert_eq!(sum(&host.records(1)).bytes, 140);
}

proptest! {
    #[test]
    fn every_key_keeps_its_own_count(
        packets in prop::collection::vec((0u32..400, 0u16..3, 40u32..1500, any::<u16>(), any::<bool>()), 1..3000),
        seed in any::<u64>(),
    ) {
        let host = Host::new(seed);
        let mut model: HashMap<_, Tally> = HashMap::new();
        for (source, port, bytes, source_port, observed) in packets {
            let verdict = if observed { Verdict::Observe } else { Verdict::Drop };
            let judgement = judgement(verdict, Reason::Unlisted);
            host.add(&Key::of(&packet(source, port), &judgement, 7), seen(bytes, source_port));
            let tally = model.entry((source, port, verdict)).or_default();
            tally.packets += 1;
            tally.bytes += u64::from(bytes);
        }
        let found: HashMap<_, _> = host.records(0).into_iter().map(|record| match record {
            Record::Exact { key, tally, .. } => ((key.source.v4(), key.destination_port, key.verdict), tally),
            other => panic!("{other:?}"),
        }).collect();
        prop_assert_eq!(found, model);
    }
}
