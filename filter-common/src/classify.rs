//! What a packet is to the policy: essential traffic, kinds of ICMP, its service, the owners who grant it.
//!
//! Reads tables, takes no token, decides nothing: `pipeline` puts the answers in the contract's order.

use crate::abi::{Owner, Source};
use crate::bounds::{ROW_WORDS_MAX, TRIES_MAX};
use crate::lookup::GrantTables;
use crate::parse::{Address, Family, Fragment, Packet, Protocol};
use crate::units::Nanos;
use crate::verdict::{NO_OWNER, NO_SERVICE};

/// Rule 3: what a host needs to stay reachable at all. Never a fragment.
#[inline(always)]
pub fn is_essential(packet: &Packet) -> bool {
    if packet.fragment as u8 != Fragment::Whole as u8 {
        return false;
    }
    match (packet.family, packet.protocol) {
        (Family::V6, Protocol::Icmp) => match packet.icmp_type {
            // Neighbour discovery from a neighbour: 255 cannot have been routed (RFC 4861, 7.1).
            133..=137 => packet.icmp_code == 0 && packet.hop_limit == 255,
            130..=132 | 143 => is_link_local(&packet.source) || is_unspecified(&packet.source),
            _ => false,
        },
        (Family::V4, Protocol::Udp) => packet.source_port == 67 && packet.destination_port == 68,
        (Family::V6, Protocol::Udp) => {
            packet.source_port == 547 && packet.destination_port == 546 && is_link_local(&packet.destination)
        }
        _ => false,
    }
}

#[inline(always)]
fn is_link_local(address: &Address) -> bool {
    address.upper >> 54 == 0xfe80 >> 6
}

#[inline(always)]
fn is_unspecified(address: &Address) -> bool {
    address.upper | address.lower == 0
}

/// How rule 6 treats an ICMP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Icmp {
    /// Errors and echo replies.
    Answer,
    /// Echo requests, and later fragments, which carry no type.
    Request,
    Other,
}

#[inline(always)]
pub fn icmp(packet: &Packet) -> Icmp {
    if packet.fragment as u8 == Fragment::Later as u8 {
        return Icmp::Request;
    }
    match (packet.family, packet.icmp_type) {
        (Family::V4, 0 | 3 | 11 | 12) | (Family::V6, 1..=4 | 129) => Icmp::Answer,
        (Family::V4, 8) | (Family::V6, 128) => Icmp::Request,
        _ => Icmp::Other,
    }
}

/// The one service that is in both rows, or `NO_SERVICE`: no two services share protocol, port and address.
#[inline(always)]
pub fn service<T: GrantTables>(tables: &T, port_row: u32, address_row: u32) -> u32 {
    for word in 0..ROW_WORDS_MAX {
        if word >= tables.row_words() {
            break;
        }
        let both = tables.row_word(port_row, word) & tables.row_word(address_row, word);
        if both != 0 {
            return word * 64 + first_bit(both);
        }
    }
    NO_SERVICE
}

/// Whether a service is in a row.
#[inline(always)]
pub fn has<T: GrantTables>(tables: &T, row: u32, service: u32) -> bool {
    tables.row_word(row, service / 64) & (1 << (service % 64)) != 0
}

/// Whether two rows have a service in common.
#[inline(always)]
fn share<T: GrantTables>(tables: &T, first: u32, second: u32) -> bool {
    let mut both = 0;
    for word in 0..ROW_WORDS_MAX {
        if word >= tables.row_words() {
            break;
        }
        both |= tables.row_word(first, word) & tables.row_word(second, word);
    }
    both != 0
}

/// The number of the lowest set bit: the kernel's target has no instruction for it, so it is searched.
#[inline(always)]
fn first_bit(word: u64) -> u32 {
    let mut word = word;
    let mut bit = 0;
    if word & 0xffff_ffff == 0 {
        bit += 32;
        word >>= 32;
    }
    if word & 0xffff == 0 {
        bit += 16;
        word >>= 16;
    }
    if word & 0xff == 0 {
        bit += 8;
        word >>= 8;
    }
    if word & 0xf == 0 {
        bit += 4;
        word >>= 4;
    }
    if word & 0x3 == 0 {
        bit += 2;
        word >>= 2;
    }
    if word & 0x1 == 0 {
        bit += 1;
    }
    bit
}

/// What a grant is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Query {
    /// One service, from this source port.
    Service { number: u32, source_port: u16 },
    /// Any of a row of services, source ports aside.
    AnyOf { row: u32 },
    /// Any service at all, source ports aside.
    Any,
}

/// What the walk over a source's owners found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grants {
    /// Some grant has the service.
    pub named: bool,
    /// One of these has not ended.
    pub live: bool,
    /// How many match altogether.
    pub matching: u32,
    /// The owners to try, in the order of rule 10; `NO_OWNER` behind the last.
    pub tries: [u32; TRIES_MAX as usize],
}

impl Grants {
    pub const NONE: Grants = Grants {
        named: false,
        live: false,
        matching: 0,
        tries: [NO_OWNER; TRIES_MAX as usize],
    };
}

/// A walk over the owners of a source: its question, how far it is, and what it found.
#[derive(Clone, Copy, Debug)]
pub struct Walk {
    pub query: Query,
    pub now: Nanos,
    /// Where the owners start; the owner's number where there is one.
    pub start: u32,
    /// How many there are.
    pub length: u32,
    /// What the first to be tried of many is chosen by.
    spread: u16,
    /// On the second walk, the rank that is tried first; `FIRST_WALK` on the first.
    first: u32,
    /// Matches seen on this walk.
    rank: u32,
    pub found: Grants,
}

const FIRST_WALK: u32 = u32::MAX;

impl Walk {
    #[inline(always)]
    pub fn new(source: &Source, query: Query, spread: u16, now: Nanos) -> Self {
        Self {
            query,
            now,
            start: source.owners_start,
            length: source.owners_length,
            spread,
            first: FIRST_WALK,
            rank: 0,
            found: Grants::NONE,
        }
    }

    /// Takes in the owner at a position of the list.
    #[inline(always)]
    pub fn step<T: GrantTables>(&mut self, tables: &T, position: u32) {
        let number = if self.length == 1 {
            Some(self.start)
        } else {
            tables.owner_number(self.start + position)
        };
        let Some(number) = number else {
            return;
        };
        match asked(tables, number, self.query, self.now) {
            Answer::Elsewhere => {}
            Answer::Ended => self.found.named = true,
            Answer::SourcePort => {
                self.found.named = true;
                self.found.live = true;
            }
            Answer::Matches => self.matches(number),
        }
    }

    #[inline(always)]
    fn matches(&mut self, number: u32) {
        let rank = self.rank;
        self.rank += 1;
        let slot = if self.first == FIRST_WALK {
            self.found.named = true;
            self.found.live = true;
            self.found.matching = self.rank;
            rank
        } else if rank >= self.first {
            rank - self.first
        } else {
            rank + self.found.matching - self.first
        };
        if slot < TRIES_MAX {
            self.found.tries[(slot & (TRIES_MAX - 1)) as usize] = number;
        }
    }

    /// After the first walk: whether a second is needed. With up to eight that match, all are to be tried from the
    /// first; with more, eight from index (`spread` mod their number), wrapping, so that none of many is starved.
    #[inline(always)]
    pub fn goes_again(&mut self) -> bool {
        if self.first != FIRST_WALK || self.found.matching <= TRIES_MAX {
            return false;
        }
        self.first = self.spread as u32 % self.found.matching;
        self.rank = 0;
        true
    }
}

/// What one owner answers to a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It does not have the service.
    Elsewhere,
    Ended,
    /// Another source port is asked for.
    SourcePort,
    Matches,
}

#[inline(always)]
pub fn asked<T: GrantTables>(tables: &T, number: u32, query: Query, now: Nanos) -> Answer {
    match tables.owner(number) {
        Some(owner) => answer(tables, owner, query, now),
        None => Answer::Elsewhere,
    }
}

/// The same of an owner at hand.
#[inline(always)]
pub fn answer<T: GrantTables>(tables: &T, owner: &Owner, query: Query, now: Nanos) -> Answer {
    let has = match query {
        Query::Any => true,
        Query::Service { number, .. } => has(tables, owner.row, number),
        Query::AnyOf { row } => share(tables, owner.row, row),
    };
    if !has {
        return Answer::Elsewhere;
    }
    if owner.end <= now.0 {
        return Answer::Ended;
    }
    if let Query::Service { source_port, .. } = query
        && !admits_port(tables, owner, source_port)
    {
        return Answer::SourcePort;
    }
    Answer::Matches
}

#[inline(always)]
fn admits_port<T: GrantTables>(tables: &T, owner: &Owner, port: u16) -> bool {
    if owner.port_set == 0 {
        return port >= owner.source_port_first && port <= owner.source_port_last;
    }
    tables.port_set_word(owner.port_set, port as u32 / 64) & (1 << (port % 64)) != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bit_is_found() {
        for bit in 0..64 {
            assert_eq!(first_bit(1 << bit), bit);
            assert_eq!(first_bit(u64::MAX << bit), bit);
        }
    }

    /// Sixteen words of services a row; row 1 has all, row n + 2 the service n alone.
    struct Rows;
    const OWNER: crate::abi::Owner = crate::abi::Owner {
        end: 100,
        limits: 0,
        row: 1,
        source_port_first: 0,
        source_port_last: u16::MAX,
        port_set: 0,
        publisher: 0,
        flags: 0,
    };

    impl GrantTables for Rows {
        fn row_words(&self) -> u32 {
            ROW_WORDS_MAX
        }
        fn row_word(&self, row: u32, word: u32) -> u64 {
            match row {
                0 => 0,
                1 => u64::MAX,
                alone if (alone - 2) / 64 == word => 1 << ((alone - 2) % 64),
                _ => 0,
            }
        }
        fn owner_number(&self, _: u32) -> Option<u32> {
            None
        }
        fn owner(&self, number: u32) -> Option<&crate::abi::Owner> {
            (number == 0).then_some(&OWNER)
        }
        fn port_set_word(&self, _: u32, _: u32) -> u64 {
            0
        }
    }

    #[test]
    fn every_service_of_the_widest_row_is_found() {
        for number in 0..crate::bounds::SERVICES_MAX {
            assert_eq!(service(&Rows, 1, number + 2), number);
            assert!(share(&Rows, number + 2, 1) && !share(&Rows, number + 2, 0));
        }
        assert_eq!(service(&Rows, 2, 3), NO_SERVICE);
    }

    #[test]
    fn a_grant_ends_at_its_end_and_an_owner_that_is_not_there_grants_nothing() {
        assert_eq!(asked(&Rows, 0, Query::Any, Nanos(99)), Answer::Matches);
        assert_eq!(asked(&Rows, 0, Query::Any, Nanos(100)), Answer::Ended);
        assert_eq!(asked(&Rows, 1, Query::Any, Nanos(99)), Answer::Elsewhere);
    }
}
