//! Rule 10: what a packet costs, and whose buckets pay for it.
//!
//! At each level packets, then bytes, then connections; what is taken stays taken. The buckets themselves are
//! in `limit`, the order of the owners comes from `classify`.

use crate::abi::Limit;
use crate::classify::Grants;
use crate::limit::take;
use crate::lookup::Tables;
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

/// Whether an owner's own buckets pay: packets, then bytes, then connections. Called through `Tables`.
#[inline(always)]
pub fn owner_pays<T: Tables>(tables: &T, number: u32, charge: Charge, now: Nanos) -> bool {
    let Some(owner) = tables.owner(number) else {
        return false;
    };
    let pays = |level, limit: &Limit, amount| match tables.owner_bucket(number, level) {
        Some(bucket) => take(&bucket, limit, amount, now, tables.effect()),
        None => false,
    };
    if owner.packets.cost != 0 && !pays(0, &owner.packets, 1) {
        return false;
    }
    if owner.bytes_limit != 0
        && !tables
            .limit(owner.bytes_limit)
            .is_some_and(|limit| pays(1, limit, charge.bytes))
    {
        return false;
    }
    owner.connections_limit == 0
        || charge.connections == 0
        || tables
            .limit(owner.connections_limit)
            .is_some_and(|limit| pays(2, limit, 1))
}

/// Whether a service's buckets, or an ICMP limit's, pay for a packet. Called through `Tables`.
#[inline(always)]
pub fn service_pays<T: Tables>(tables: &T, number: u32, charge: Charge, now: Nanos) -> bool {
    let Some(entry) = tables.service(number) else {
        return false;
    };
    let [packets, bytes, connections] = entry.limits;
    let pays = |level, limit, amount| {
        let (Some(limit), Some(bucket)) = (tables.limit(limit), tables.service_bucket(number, level)) else {
            return false;
        };
        take(&bucket, limit, amount, now, tables.effect())
    };
    (packets == 0 || pays(0, packets, 1))
        && (bytes == 0 || pays(1, bytes, charge.bytes))
        && (connections == 0 || charge.connections == 0 || pays(2, connections, 1))
}

/// A TCP SYN without ACK: one new connection.
#[inline(always)]
fn is_opening(packet: &Packet) -> bool {
    const SYN: u8 = 0x02;
    const ACK: u8 = 0x10;
    packet.protocol as u8 == Protocol::Tcp as u8 && packet.tcp_flags & (SYN | ACK) == SYN
}
