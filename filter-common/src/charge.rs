//! Rule 10: what a packet costs, and whose buckets pay for it.
//!
//! At each level packets, then bytes, then connections; what is taken stays taken. The buckets themselves are
//! in `limit`, the order of the owners comes from `classify`.

use crate::abi::{Limit, Owner, owner_flags};
use crate::classify::Grants;
use crate::limit::{Bucket, take};
use crate::lookup::{Tables, Used as _};
use crate::parse::{Packet, Protocol};
use crate::units::Nanos;
use crate::verdict::NO_OWNER;

/// What one packet costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Charge {
    pub bytes: u32,
    /// 1 where the packet opens a connection and connections are charged, else 0.
    pub connections: u32,
}

impl Charge {
    /// Fragments are charged packets and bytes only.
    #[inline(always)]
    pub fn of(packet: &Packet, connections: bool) -> Self {
        Self {
            bytes: packet.length,
            connections: u32::from(connections && is_opening(packet)),
        }
    }
}

/// The first of the owners to try whose own buckets pay, or `NO_OWNER`. What is taken stays taken.
#[inline(always)]
pub fn first_to_pay<T: Tables>(tables: &T, grants: &Grants, charge: Charge, now: Nanos) -> u32 {
    for number in grants.tries {
        if number == NO_OWNER {
            break;
        }
        if tables.owner_pays(number, charge, now) {
            return number;
        }
    }
    NO_OWNER
}

/// Whether an owner's own buckets pay. Called through `Tables`.
#[inline(always)]
pub fn owner_pays<T: Tables>(tables: &T, number: u32, charge: Charge, now: Nanos) -> bool {
    let Some(owner) = tables.owner(number) else {
        return false;
    };
    if owner.limits == 0 {
        return true;
    }
    let Some(used) = tables.owner_used(number) else {
        return false;
    };
    all_pay(tables, owner.limits, charge, now, |level| {
        Some(used.bucket(level))
    })
}

/// The same for the one owner of a source, which is what most packets meet: straight where only packets are limited.
#[inline(always)]
pub fn sole_owner_pays<T: Tables>(
    tables: &T,
    (number, owner): (u32, &Owner),
    used: &T::Used<'_>,
    charge: Charge,
    now: Nanos,
) -> bool {
    if owner.limits == 0 {
        return true;
    }
    if owner.flags & owner_flags::PACKETS_ONLY == 0 {
        return tables.owner_pays(number, charge, now);
    }
    match tables.limits(owner.limits) {
        Some(limits) => take(&used.bucket(0), &limits.packets, 1, now, tables.effect()),
        None => false,
    }
}

/// Whether the buckets of a service, a publisher or an ICMP limit pay for a packet. Called through `Tables`.
#[inline(always)]
pub fn shared_pays<T: Tables>(tables: &T, number: u32, charge: Charge, now: Nanos) -> bool {
    let Some(entry) = tables.service(number) else {
        return false;
    };
    if entry.limits == 0 {
        return true;
    }
    all_pay(tables, entry.limits, charge, now, |level| {
        tables.service_bucket(number, level)
    })
}

/// Packets, then bytes, then connections.
#[inline(always)]
fn all_pay<T: Tables, B: Bucket>(
    tables: &T,
    limits: u32,
    charge: Charge,
    now: Nanos,
    bucket: impl Fn(u32) -> Option<B>,
) -> bool {
    let Some(limits) = tables.limits(limits) else {
        return false;
    };
    let pays = |level, limit: &Limit, amount| match bucket(level) {
        Some(bucket) => take(&bucket, limit, amount, now, tables.effect()),
        None => false,
    };
    (limits.packets.cost == 0 || pays(0, &limits.packets, 1))
        && (limits.bytes.cost == 0 || pays(1, &limits.bytes, charge.bytes))
        && (limits.connections.cost == 0
            || charge.connections == 0
            || pays(2, &limits.connections, charge.connections))
}

/// A TCP SYN without ACK: one new connection.
#[inline(always)]
fn is_opening(packet: &Packet) -> bool {
    const SYN: u8 = 0x02;
    const ACK: u8 = 0x10;
    packet.protocol as u8 == Protocol::Tcp as u8 && packet.tcp_flags & (SYN | ACK) == SYN
}
