//! The sources of a measurement and the addresses that packets come from: the same ones in every run.
//!
//! Listed addresses and strangers are random over the same space, so that every table is walked as under an attack
//! that hits all of it at once: nothing is ever looked up twice in a row.

use std::collections::HashSet;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::selection::Kind;

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::HostsV4 => "IPv4 /32",
            Kind::MixedV4 => "IPv4 mixed",
            Kind::HostsV6 => "IPv6 /128",
            Kind::MixedV6 => "IPv6 mixed",
        }
    }

    pub(crate) fn is_v6(self) -> bool {
        matches!(self, Kind::HostsV6 | Kind::MixedV6)
    }

    fn source(self, random: &mut Random) -> IpNet {
        let length = self.length(random);
        if self.is_v6() {
            IpNet::V6(v6(random.address_v6(), length))
        } else {
            IpNet::V4(v4(random.address_v4(), length))
        }
    }

    fn length(self, random: &mut Random) -> u8 {
        let percent = random.below(100);
        let step = random.below(4) as u8;
        match (self, percent) {
            (Kind::HostsV4, _) | (Kind::MixedV4, 0..70) => 32,
            (Kind::MixedV4, 70..85) => 28 + step,
            (Kind::MixedV4, 85..99) => 24 + step,
            (Kind::MixedV4, _) => 20 + step,
            (Kind::HostsV6, _) | (Kind::MixedV6, 0..40) => 128,
            (Kind::MixedV6, 40..70) => 64,
            (Kind::MixedV6, 70..90) => 56,
            (Kind::MixedV6, 90..99) => 48,
            (Kind::MixedV6, _) => 40,
        }
    }
}

fn v4(address: u32, length: u8) -> Ipv4Net {
    let net = Ipv4Net::new(address.into(), length).expect("lengths end at 32");
    net.trunc()
}

fn v6(address: u128, length: u8) -> Ipv6Net {
    let net = Ipv6Net::new(address.into(), length).expect("lengths end at 128");
    net.trunc()
}

/// An address as it stands in a frame, IPv4 in the first word.
pub(crate) type Wire = [u32; 4];

pub(crate) struct Population {
    pub(crate) kind: Kind,
    /// Sorted, distinct.
    pub(crate) sources: Vec<IpNet>,
}

/// Of a policy.
const SOURCES_MAX: usize = 10_000_000;
/// Where strangers' addresses and the order of hits repeat.
const ADDRESSES_MAX: usize = 1 << 23;
const STRANGERS: usize = 1 << 20;
const FEW_STRANGERS: usize = 1 << 10;

impl Population {
    pub(crate) fn new(kind: Kind, size: usize) -> Self {
        // As many as a policy may have, less the one of management that every scenario has.
        let size = size.min(SOURCES_MAX - 1);
        let mut random = Random(size as u64);
        let mut sources: Vec<IpNet> = Vec::with_capacity(size);
        while sources.len() < size {
            let missing = size - sources.len();
            sources.extend((0..missing).map(|_| kind.source(&mut random)));
            sources.sort_unstable();
            sources.dedup();
        }
        Self { kind, sources }
    }

    /// Addresses that are listed, in random order: every source about once.
    pub(crate) fn hits(&self) -> Vec<Wire> {
        let mut random = Random(0x6869_7473);
        let length = self.sources.len().next_power_of_two().min(ADDRESSES_MAX);
        let inside = |net: &IpNet, random: &mut Random| match net {
            IpNet::V4(net) => {
                let host = random.next() as u32 & u32::from(net.hostmask());
                wire_v4(u32::from(net.addr()) | host)
            }
            IpNet::V6(net) => {
                let host = random.wide() & u128::from(net.hostmask());
                wire_v6(u128::from(net.addr()) | host)
            }
        };
        (0..length)
            .map(|_| {
                let at = random.below(self.sources.len());
                inside(&self.sources[at], &mut random)
            })
            .collect()
    }

    /// As many strangers as each have a record of their own, with room to spare.
    pub(crate) fn few_strangers(&self) -> Vec<Wire> {
        self.no_sources(FEW_STRANGERS)
    }

    /// Addresses in no source, over the same space.
    pub(crate) fn strangers(&self) -> Vec<Wire> {
        self.no_sources(STRANGERS)
    }

    fn no_sources(&self, count: usize) -> Vec<Wire> {
        let mut random = Random(0x7374_7261);
        let listed: HashSet<IpNet> = self.sources.iter().copied().collect();
        let lengths: HashSet<u8> = self.sources.iter().map(IpNet::prefix_len).collect();
        let mut strangers = Vec::with_capacity(count);
        while strangers.len() < count {
            if self.kind.is_v6() {
                let address = random.address_v6();
                if !lengths
                    .iter()
                    .any(|length| listed.contains(&v6(address, *length).into()))
                {
                    strangers.push(wire_v6(address));
                }
            } else {
                let address = random.address_v4();
                if !lengths
                    .iter()
                    .any(|length| listed.contains(&v4(address, *length).into()))
                {
                    strangers.push(wire_v4(address));
                }
            }
        }
        strangers
    }
}

fn wire_v4(address: u32) -> Wire {
    [address.to_be(), 0, 0, 0]
}

fn wire_v6(address: u128) -> Wire {
    let bytes = address.to_be_bytes();
    let word = |at: usize| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    [word(0), word(4), word(8), word(12)]
}

/// SplitMix64: the same numbers everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn wide(&mut self) -> u128 {
        u128::from(self.next()) << 64 | u128::from(self.next())
    }

    fn below(&mut self, end: usize) -> usize {
        ((u128::from(self.next()) * end as u128) >> 64) as usize
    }

    /// Of unicast space that no stack refuses: 1.0.0.0 to 126.255.255.255.
    fn address_v4(&mut self) -> u32 {
        0x0100_0000 + self.below(0x7e00_0000) as u32
    }

    /// Of 2000::/3.
    fn address_v6(&mut self) -> u128 {
        1 << 125 | self.wide() >> 3
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hits_are_listed_and_strangers_are_not() {
        for kind in Kind::ALL {
            let population = Population::new(kind, 500);
            assert_eq!(population.sources.len(), 500);
            let listed = |wire: &Wire| {
                let bytes: Vec<u8> = wire.iter().flat_map(|word| word.to_ne_bytes()).collect();
                let address: std::net::IpAddr = if kind.is_v6() {
                    <[u8; 16]>::try_from(bytes).unwrap().into()
                } else {
                    <[u8; 4]>::try_from(&bytes[..4]).unwrap().into()
                };
                population.sources.iter().any(|net| net.contains(&address))
            };
            assert!(population.hits().iter().all(listed), "{kind:?}");
            assert!(!population.strangers().iter().take(2000).any(listed), "{kind:?}");
        }
    }
}
