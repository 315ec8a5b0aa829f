//! What the decision asks of its tables, and the packed words in them.
//!
//! One look-up of the source yields all that depends on it, one of the destination port the candidate services,
//! one of the destination address its class. The kernel's maps and the host's tables implement `Tables`.

mod places;
pub mod prefixes;
mod slots;

use core::borrow::Borrow;

use crate::abi::{Class, LimitSet, Owner, Service, Source};
use crate::charge::Charge;
use crate::classify::{Grants, Walk};
use crate::limit::{Bucket, Effect};
use crate::parse::{Packet, Protocol};
use crate::pipeline::Outcome;
use crate::target::Target;
use crate::units::Nanos;
use crate::verdict::NO_SERVICE;

/// What a generation is set to: constants of the loaded program, so that what is off costs nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    pub flags: u32,
}

pub mod config_flags {
    /// The filter's mode: what rules 9 and 10 do not decide is only observed.
    pub const OBSERVE: u32 = 1;
    pub const OTHER_TRAFFIC_DROP: u32 = 1 << 1;
    pub const OTHER_ADDRESS_DROP: u32 = 1 << 2;
    pub const NON_IP_DROP: u32 = 1 << 3;
    pub const FRAGMENTS_LISTED: u32 = 1 << 4;
    pub const FRAGMENTS_DROP: u32 = 1 << 5;
    pub const PING_LISTED: u32 = 1 << 6;
    pub const PING_DROP: u32 = 1 << 7;
    /// Some service or management entry names addresses: the destination is looked up.
    pub const ADDRESSES: u32 = 1 << 8;
    pub const MANAGEMENT: u32 = 1 << 9;
    pub const ICMP_LIMIT: u32 = 1 << 10;
    pub const SERVICE_LIMIT: u32 = 1 << 11;
    pub const PUBLISHER_LIMIT: u32 = 1 << 12;
    pub const SOURCE_LIMIT: u32 = 1 << 13;
}

impl Config {
    #[inline(always)]
    pub fn has(self, flag: u32) -> bool {
        self.flags & flag != 0
    }
}

/// What a source's value in the tables means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// In no listed prefix.
    None,
    /// One owner holds grants here, and there is nothing else to know.
    Owner(u32),
    /// Number in the table of sources.
    Source(u32),
}

impl Value {
    const SOURCE: u32 = 1 << 31;

    pub const fn pack(self) -> u32 {
        match self {
            Value::None => 0,
            Value::Owner(number) => number,
            Value::Source(number) => number | Self::SOURCE,
        }
    }

    #[inline(always)]
    pub const fn unpack(word: u32) -> Value {
        if word == 0 {
            Value::None
        } else if word & Self::SOURCE == 0 {
            Value::Owner(word)
        } else {
            Value::Source(word & !Self::SOURCE)
        }
    }
}

/// What a destination port leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Port {
    /// The services that have it, as a row number; 0 is none.
    pub row: u32,
    /// The service, where it is the only one; else `NO_SERVICE`.
    pub service: u32,
    /// Number in the table of management masks; 0 is none.
    pub management: u32,
}

impl Port {
    pub const NONE: Port = Port {
        row: 0,
        service: NO_SERVICE,
        management: 0,
    };

    pub const fn pack(self) -> u64 {
        self.row as u64 | (self.management as u64) << 16 | (self.service.wrapping_add(1) as u64) << 32
    }

    #[inline(always)]
    pub const fn unpack(word: u64) -> Port {
        Port {
            row: word as u32 & 0xffff,
            service: ((word >> 32) as u32).wrapping_sub(1),
            management: (word >> 16) as u32 & 0xffff,
        }
    }
}

/// Where a port stands in the port table: TCP's 65,536 first.
#[inline(always)]
pub const fn port_index(protocol: Protocol, port: u16) -> u32 {
    (matches!(protocol, Protocol::Udp) as u32) << 16 | port as u32
}

/// Words of a port set: one bit a port.
pub const PORT_SET_WORDS: u32 = 65_536 / 64;

/// The tables that a walk over a source's owners reads.
pub trait GrantTables {
    /// 64-bit words of a service row: 1..=16, a constant of the generation.
    fn row_words(&self) -> u32;
    fn row_word(&self, row: u32, word: u32) -> u64;
    fn owner_number(&self, position: u32) -> Option<u32>;
    fn owner(&self, number: u32) -> Option<&Owner>;
    fn port_set_word(&self, set: u32, word: u32) -> u64;
}

/// What an owner has used.
pub trait Used {
    type Bucket: Bucket;
    /// `level`: 0 packets, 1 bytes, 2 connections.
    fn bucket(&self, level: u32) -> Self::Bucket;
    /// Counts a packet that passed.
    fn count(&self, bytes: u32, now: Nanos);
}

/// Tables, clock, sockets: all that a decision needs beside the packet.
pub trait Tables: GrantTables {
    type Bucket<'a>: Bucket
    where
        Self: 'a;
    type Used<'a>: Used<Bucket = Self::Bucket<'a>>
    where
        Self: 'a;

    fn config(&self) -> Config;
    /// Whether this run changes anything.
    fn effect(&self) -> Effect;
    /// Asked only after a match: reading a clock costs more than a look-up.
    fn now(&self) -> Nanos;

    /// The value of the packet's source, packed.
    fn value(&self, packet: &Packet) -> u32;
    /// What stands behind a value that is no single owner.
    fn source(&self, number: u32) -> Option<&Source>;
    /// The class of the packet's destination; 0 where no listed prefix holds it.
    fn class_number(&self, packet: &Packet) -> u32;
    fn class(&self, number: u32) -> Option<&Class>;
    fn port(&self, index: u32) -> Port;
    fn management_ports(&self, number: u32) -> u64;
    /// `target::find`, or what is remembered of it.
    fn target(&self, packet: &Packet) -> Option<impl Borrow<Target> + '_>;
    fn limits(&self, number: u32) -> Option<&LimitSet>;
    fn service(&self, number: u32) -> Option<&Service>;

    fn owner_used(&self, number: u32) -> Option<Self::Used<'_>>;
    /// `level`: 0 packets, 1 bytes, 2 connections.
    fn service_bucket(&self, number: u32, level: u32) -> Option<Self::Bucket<'_>>;

    // The larger and rarer stages, called through here so that the kernel can verify each by itself, once, and not
    // once for every way to reach it. The host calls them straight.

    /// `pipeline::unserved`.
    fn unserved(&self, packet: &Packet, source: &Source, class_number: u32, port_row: u32) -> Outcome;
    /// `admit::fragment`.
    fn fragment(&self, packet: &Packet, source: &Source, row: u32, observed: bool) -> Outcome;
    /// `admit::service_of_many`.
    fn service_of_many(&self, packet: &Packet, source: &Source, number: u32) -> Outcome;
    /// Steps through all positions of a walk, again where it asks for it, and hands on what it found.
    fn walk<R>(&self, walk: Walk, then: impl FnOnce(&Grants) -> R) -> R;
    /// `classify::service`.
    fn service_in_both(&self, first_row: u32, second_row: u32) -> u32;
    /// `charge::owner_pays`.
    fn owner_pays(&self, number: u32, charge: Charge, now: Nanos) -> bool;
    /// `charge::shared_pays`.
    fn shared_pays(&self, number: u32, charge: Charge, now: Nanos) -> bool;
    /// `source_limit::pays`.
    fn source_pays(&self, packet: &Packet, charge: Charge, now: Nanos) -> bool;

    /// Whether anything is observed for a while: asked for every drop, so it costs a load at most.
    fn observes_any(&self) -> bool;
    /// Until when what a service refuses, or `EVERYTHING`, is observed; 0 is not at all.
    fn observe_until(&self, number: u32) -> u64;
    /// `pipeline::observed`.
    fn observed(&self, outcome: Outcome) -> Outcome;

    /// Whether the packet answers one of this host's own connections: a TCP socket for its four values in any
    /// state but listening, or a UDP socket connected to them.
    fn is_reply(&self, packet: &Packet) -> bool;

    /// The sources' own buckets: lines for each of packets, bytes and connections.
    fn source_lines(&self) -> u32;
    /// A bucket's tag and its word.
    fn source_bucket(&self, line: u32, way: u32) -> Option<(Self::Bucket<'_>, Self::Bucket<'_>)>;
    /// A source had to share another's bucket.
    fn count_shared_source(&self);

    fn count(&self, index: u32, bytes: u32);
    fn count_interface(&self, verdict: u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_comes_out_of_a_word_as_it_went_in() {
        for (row, management) in [(0, 0), (1, 0), (0, 1), (0xffff, 0xffff), (0x1234, 0x8765)] {
            for service in [NO_SERVICE, 0, 1023] {
                let port = Port {
                    row,
                    service,
                    management,
                };
                assert_eq!(Port::unpack(port.pack()), port);
            }
        }
        assert_eq!(Port::unpack(0), Port::NONE);
    }

    #[test]
    fn a_value_comes_out_of_a_word_as_it_went_in() {
        let numbers = [0, 1, 2, Value::SOURCE - 1];
        let owners = numbers[1..].iter().copied().map(Value::Owner);
        let sources = numbers.into_iter().map(Value::Source);
        for value in core::iter::once(Value::None).chain(owners).chain(sources) {
            assert_eq!(Value::unpack(value.pack()), value);
        }
        assert_eq!(Value::None.pack(), 0, "an empty slot is no prefix");
    }

    #[test]
    fn every_switch_is_a_bit_of_its_own() {
        use config_flags as flags;
        let all = [
            flags::OBSERVE,
            flags::OTHER_TRAFFIC_DROP,
            flags::OTHER_ADDRESS_DROP,
            flags::NON_IP_DROP,
            flags::FRAGMENTS_LISTED,
            flags::FRAGMENTS_DROP,
            flags::PING_LISTED,
            flags::PING_DROP,
            flags::ADDRESSES,
            flags::MANAGEMENT,
            flags::ICMP_LIMIT,
            flags::SERVICE_LIMIT,
            flags::PUBLISHER_LIMIT,
            flags::SOURCE_LIMIT,
        ];
        let mut seen = 0;
        for flag in all {
            assert_eq!((flag.count_ones(), seen & flag), (1, 0), "{flag:b}");
            seen |= flag;
        }
        assert_eq!(seen, (1 << all.len()) - 1, "without a gap");
    }
}
