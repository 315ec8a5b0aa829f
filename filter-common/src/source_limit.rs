//! Rule 10's first level: a bucket for each listed source address (IPv6: each /64), out of a fixed number.
//!
//! Buckets stand in lines of four; a source takes one whose owner's is full again, so that nothing is evicted that
//! somebody still owes. Where all four are in use the source shares one: stricter, never looser, and counted.

use crate::abi::{Limit, SOURCE_LIMIT};
use crate::bounds::SOURCE_WAYS;
use crate::charge::Charge;
use crate::limit::{Bucket, Effect, take};
use crate::lookup::Tables;
use crate::parse::{Family, Packet};
use crate::units::Nanos;

/// Whether the source's own buckets pay. Called through `Tables`.
#[inline(always)]
pub fn pays<T: Tables>(tables: &T, packet: &Packet, charge: Charge, now: Nanos) -> bool {
    let Some(limits) = tables
        .service(SOURCE_LIMIT)
        .and_then(|entry| tables.limits(entry.limits))
    else {
        return false;
    };
    let tag = tag(packet);
    (limits.packets.cost == 0 || unit_pays(tables, tag, 0, &limits.packets, 1, now))
        && (limits.bytes.cost == 0 || unit_pays(tables, tag, 1, &limits.bytes, charge.bytes, now))
        && (limits.connections.cost == 0
            || charge.connections == 0
            || unit_pays(tables, tag, 2, &limits.connections, charge.connections, now))
}

/// What is no upper half of a source: Linux takes no packet from a multicast address (RFC 4291, 2.7).
const NO_UPPER_HALF: u64 = 0xff00 << 48;

/// Whose bucket it is: an IPv4 address, or the upper half of an IPv6 one. 0 is nobody's.
#[inline(always)]
pub fn tag(packet: &Packet) -> u64 {
    if matches!(packet.family, Family::V4) {
        NO_UPPER_HALF | packet.source.v4() as u64
    } else if packet.source.upper == 0 {
        NO_UPPER_HALF | 1 << 32
    } else {
        packet.source.upper
    }
}

/// Where a tag's bucket of a unit stands, of so many lines a unit; and the hash it comes from, whose lower bits say
/// which way of a full line is shared.
#[inline(always)]
pub fn line(tag: u64, unit: u32, lines: u32) -> (u32, u64) {
    // The upper half: the product's lower bits are those of the tag's lower bits alone, which are 0 for many networks.
    let hash = (tag ^ (tag >> 29)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    (unit * lines + ((hash * lines as u64) >> 32) as u32, hash)
}

#[inline(always)]
fn unit_pays<T: Tables>(tables: &T, tag: u64, unit: u32, limit: &Limit, amount: u32, now: Nanos) -> bool {
    let (line, hash) = line(tag, unit, tables.source_lines());
    let effect = tables.effect();
    for way in 0..SOURCE_WAYS {
        let Some((owner, bucket)) = tables.source_bucket(line, way) else {
            return false;
        };
        if owner.load() == tag {
            return take(&bucket, limit, amount, now, effect);
        }
    }
    for way in 0..SOURCE_WAYS {
        let Some((owner, bucket)) = tables.source_bucket(line, way) else {
            return false;
        };
        let seen = owner.load();
        // Full again: whose it was has nothing to lose.
        if seen != tag && bucket.load() > now.units() {
            continue;
        }
        // Another CPU may place the same source just now: both then take from one bucket.
        let is_ours = seen == tag
            || matches!(effect, Effect::Dry)
            || match owner.compare_exchange(seen, tag) {
                Ok(()) => true,
                Err(other) => other == tag,
            };
        if is_ours {
            return take(&bucket, limit, amount, now, effect);
        }
    }
    if matches!(effect, Effect::Commit) {
        tables.count_shared_source();
    }
    match tables.source_bucket(line, hash as u32 & (SOURCE_WAYS - 1)) {
        Some((_, bucket)) => take(&bucket, limit, amount, now, effect),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use core::cell::Cell;
    use std::collections::HashSet;

    use super::*;
    use crate::abi::LimitSet;
    use crate::double::Double;
    use crate::parse::{Address, Protocol};

    const START: Nanos = Nanos(3_600_000_000_000);
    const SECOND: u64 = 1_000_000_000;
    const SYN: u8 = 0x02;

    /// One line for each unit: all sources meet there.
    fn tables(packets: u64, bytes: u64) -> Double {
        let limit = |tokens| match tokens {
            0 => Limit::NONE,
            tokens => Limit::of_tokens(1, 1, tokens).unwrap(),
        };
        Double {
            limits: LimitSet {
                packets: limit(packets),
                bytes: limit(bytes),
                connections: limit(0),
            },
            lines: 1,
            ways: (0..3 * SOURCE_WAYS)
                .map(|_| [Cell::new(0), Cell::new(0)])
                .collect(),
            ..Double::default()
        }
    }

    fn from(number: u32) -> Packet {
        Packet {
            source: Address::of_v4(number),
            length: 40,
            ..Packet::default()
        }
    }

    fn passes(tables: &Double, number: u32, now: Nanos) -> bool {
        let packet = from(number);
        pays(tables, &packet, Charge::of(&packet, true), now)
    }

    fn tags(tables: &Double) -> Vec<u64> {
        tables.ways.iter().map(|[tag, _]| tag.get()).collect()
    }

    #[test]
    fn each_of_four_has_its_own_and_a_fifth_shares_until_one_is_full_again() {
        let tables = tables(2, 0);
        for number in 1..=4 {
            assert!(
                passes(&tables, number, START) && passes(&tables, number, START),
                "{number}"
            );
            assert!(!passes(&tables, number, START), "{number} has spent its own");
        }
        assert_eq!(tables.shared.get(), 0);
        let held: HashSet<u64> = tags(&tables).into_iter().take(4).collect();
        let expected: HashSet<u64> = (1..=4).map(|number| tag(&from(number))).collect();
        assert_eq!(held, expected, "a way each");
        assert!(!passes(&tables, 5, START), "stricter, never looser");
        assert_eq!(tables.shared.get(), 1, "and counted");
        // A token each is back: not full, so nobody's place is taken.
        let later = Nanos(START.0 + SECOND);
        assert!(passes(&tables, 1, later) && !passes(&tables, 1, later));
        // At the very moment at which the others are full.
        let full = Nanos(START.0 + 2 * SECOND);
        assert!(passes(&tables, 5, full) && passes(&tables, 5, full) && !passes(&tables, 5, full));
        assert_eq!(tables.shared.get(), 1, "it has a place of its own");
        assert!(tags(&tables).contains(&tag(&from(1))), "1 still owes");
        assert!(passes(&tables, 1, full), "and goes on with its own");
    }

    #[test]
    fn the_shared_one_is_the_same_for_every_packet_of_a_source() {
        let tables = tables(1000, 0);
        for number in 1..=4 {
            assert!(passes(&tables, number, START));
        }
        let before: Vec<u64> = tables.ways.iter().map(|[_, word]| word.get()).collect();
        for _ in 0..10 {
            assert!(passes(&tables, 5, START));
        }
        assert_eq!(changed(&tables, &before), [shared(5)]);
        assert_eq!(tables.shared.get(), 10);
        for number in 6..20 {
            let before: Vec<u64> = tables.ways.iter().map(|[_, word]| word.get()).collect();
            assert!(passes(&tables, number, START));
            assert_eq!(changed(&tables, &before), [shared(number)], "{number}");
        }
    }

    /// The way of its line that a source shares, where all are in use.
    fn shared(number: u32) -> usize {
        let (_, hash) = line(tag(&from(number)), 0, 1);
        hash as usize % SOURCE_WAYS as usize
    }

    /// The ways whose words are others than before.
    fn changed(tables: &Double, before: &[u64]) -> Vec<usize> {
        let ways = 0..tables.ways.len();
        ways.filter(|way| tables.ways[*way][1].get() != before[*way])
            .collect()
    }

    #[test]
    fn a_source_that_owes_keeps_its_place_when_one_before_it_is_free() {
        let tables = tables(2, 0);
        for number in [1, 2, 3, 4, 4] {
            assert!(passes(&tables, number, START), "{number}");
        }
        let expected: Vec<u64> = (1..=4).map(|number| tag(&from(number))).collect();
        assert_eq!(tags(&tables)[..4], expected);
        // The others are full again, and 4 has one token back.
        let later = Nanos(START.0 + SECOND);
        assert!(passes(&tables, 4, later) && !passes(&tables, 4, later));
        assert_eq!(tags(&tables)[..4], expected);
    }

    #[test]
    fn a_source_is_looked_for_in_its_own_line_alone() {
        let tables = tables(1000, 0);
        for number in 1..=4 {
            assert!(passes(&tables, number, START));
        }
        tables.ways[SOURCE_WAYS as usize][0].set(tag(&from(5)));
        assert!(passes(&tables, 5, START));
        assert_eq!(tables.shared.get(), 1);
        assert_eq!(tables.ways[SOURCE_WAYS as usize][1].get(), 0);
    }

    #[test]
    fn who_is_overtaken_shares_with_itself_and_makes_way_for_others() {
        let itself = tables(1, 0);
        itself.rival.set(tag(&from(1)));
        assert!(passes(&itself, 1, START) && !passes(&itself, 1, START));
        let placed = [tag(&from(1)), 0, 0, 0];
        assert_eq!(tags(&itself)[..4], placed, "one place for both");
        let other = tables(1, 0);
        other.rival.set(tag(&from(2)));
        assert!(passes(&other, 1, START));
        let placed = [tag(&from(2)), tag(&from(1)), 0, 0];
        assert_eq!(tags(&other)[..4], placed);
        assert_eq!(other.ways[0][1].get(), 0, "nothing is taken from the other's");
    }

    #[test]
    fn what_has_no_limit_and_what_is_no_connection_takes_no_place() {
        let syn = Packet {
            protocol: Protocol::Tcp,
            tcp_flags: SYN,
            ..from(1)
        };
        let places = |limits: [u64; 3], packet: &Packet| {
            let mut tables = tables(limits[0], limits[1]);
            if limits[2] != 0 {
                tables.limits.connections = Limit::of_tokens(1, 1, limits[2]).unwrap();
            }
            assert!(pays(&tables, packet, Charge::of(packet, true), START));
            let placed: Vec<usize> = (0..tables.ways.len())
                .filter(|way| tags(&tables)[*way] != 0)
                .map(|way| way / SOURCE_WAYS as usize)
                .collect();
            placed
        };
        assert_eq!(places([1, 0, 0], &syn), [0]);
        assert_eq!(places([0, 40, 0], &syn), [1]);
        assert_eq!(places([0, 0, 1], &syn), [2]);
        assert_eq!(places([0, 0, 1], &from(1)), []);
        assert_eq!(places([1, 40, 1], &syn), [0, 1, 2]);
    }

    #[test]
    fn without_its_table_nothing_passes() {
        let mut tables = tables(1, 0);
        tables.ways.clear();
        assert!(!passes(&tables, 1, START));
    }

    #[test]
    fn a_dry_run_places_and_counts_nothing() {
        let mut tables = tables(1, 0);
        tables.effect = Effect::Dry;
        assert!(passes(&tables, 1, START) && passes(&tables, 1, START));
        assert!(tags(&tables).iter().all(|tag| *tag == 0), "no place is taken");
        tables.effect = Effect::Commit;
        for number in 1..=4 {
            assert!(passes(&tables, number, START));
        }
        tables.effect = Effect::Dry;
        assert!(!passes(&tables, 1, START) && !passes(&tables, 5, START));
        assert_eq!(tables.shared.get(), 0);
    }

    #[test]
    fn units_have_lines_of_their_own() {
        let tables = tables(1, 40);
        assert!(passes(&tables, 1, START));
        let tag = tag(&from(1));
        let place = |unit: usize| {
            tags(&tables)[unit * 4..][..4]
                .iter()
                .filter(|seen| **seen == tag)
                .count()
        };
        assert_eq!([place(0), place(1), place(2)], [1, 1, 0]);
        assert_eq!(line(tag, 0, 8).0 + 8, line(tag, 1, 8).0);
        assert_eq!(line(tag, 0, 8).0 + 16, line(tag, 2, 8).0);
    }

    #[test]
    fn addresses_spread_over_all_lines() {
        let mut seen = [0u32; 64];
        for number in 0..64_000 {
            let (line, _) = line(tag(&from(0xc633_6400 + number)), 0, 64);
            seen[line as usize] += 1;
        }
        assert!(seen.iter().all(|count| (500..2000).contains(count)), "{seen:?}");
    }

    #[test]
    fn networks_share_all_ways_alike() {
        // Each the first /64 of its /48: the lower bits are 0.
        let mut seen = [0u32; SOURCE_WAYS as usize];
        for network in 0..4_000u64 {
            let (_, hash) = line(0x2001_0db8 << 32 | network << 16, 0, 64);
            seen[hash as usize % SOURCE_WAYS as usize] += 1;
        }
        assert!(seen.iter().all(|count| (500..2000).contains(count)), "{seen:?}");
    }

    #[test]
    fn no_two_sources_have_one_tag() {
        let six = |upper| Packet {
            source: Address { upper, lower: 1 },
            family: Family::V6,
            ..Packet::default()
        };
        let mut seen = HashSet::new();
        for number in [0, 1, 0xc633_6407, u32::MAX] {
            assert!(seen.insert(tag(&from(number))), "{number:x}");
            assert_eq!(
                tag(&from(number)) >> 32,
                0xff00_0000,
                "a multicast address, no source"
            );
        }
        for upper in [0, 1, 2, 0xffff_c633_6407, 0x2001_0db8_0000_0000, u64::MAX] {
            assert!(seen.insert(tag(&six(upper))), "{upper:x}");
        }
        assert_eq!(tag(&six(0)), 0xff00_0001_0000_0000);
        assert!(!seen.contains(&0), "0 is nobody");
    }
}
