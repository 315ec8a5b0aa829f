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

/// Where a tag's bucket of a unit stands, of so many lines a unit; and the hash it comes from.
#[inline(always)]
pub fn line(tag: u64, unit: u32, lines: u32) -> (u32, u64) {
    let hash = (tag ^ (tag >> 29)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (unit * lines + (((hash >> 32) * lines as u64) >> 32) as u32, hash)
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
