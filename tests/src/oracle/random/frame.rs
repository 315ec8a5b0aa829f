//! Random frames that are built, not noise: aimed at the policy's own addresses and ports, then bent a little.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::policy::{destination, source};
use super::{Rng, mutate};
use crate::oracle::frames::{ACK, Carrier, Extension, FIN, Frame, Ipv4, Ipv6, RST, SYN, Tcp, Udp, icmp};
use crate::oracle::policy::{Addresses, Policy, Service};

const ICMP_TYPES: [u8; 9] = [0, 3, 4, 5, 8, 8, 11, 12, 13];
const ICMPV6_TYPES: [u8; 17] = [
    0, 1, 2, 3, 4, 5, 127, 128, 128, 129, 130, 132, 133, 135, 137, 138, 143,
];
const PROTOCOLS: [u8; 18] = [
    0, 1, 2, 4, 6, 17, 41, 43, 44, 47, 50, 51, 58, 59, 60, 132, 135, 255,
];
const ETHER_TYPES: [u16; 10] = [
    0x0806, 0x0026, 0x05dc, 0x05dd, 0x8035, 0x8847, 0x8864, 0x88cc, 0x9100, 0x86de,
];
const WALKED: [u8; 5] = [0, 43, 44, 51, 60];

/// A frame for this policy, at least 14 bytes long.
pub fn frame(rng: &mut Rng, policy: &Policy) -> Vec<u8> {
    let mut frame = match rng.below(100) {
        0..=4 => not_ip(rng),
        5..=9 => essential(rng),
        _ => ip(rng, policy),
    };
    match rng.below(40) {
        0..=3 => frame = frame.tag(tpid(rng), rng_vlan(rng)),
        4..=5 => frame = frame.tag(tpid(rng), 0).tag(tpid(rng), rng_vlan(rng)),
        6 => frame = frame.tag(tpid(rng), 1).tag(tpid(rng), 2).tag(tpid(rng), 3),
        7..=9 => frame = frame.pad(rng.below(20), rng.byte()),
        _ => {}
    }
    if rng.chance(1) {
        frame = frame.to([0x01, 0x80, 0xc2, 0, 0, rng.below(0x12) as u8]);
    }
    let mut bytes = frame.bytes();
    if rng.chance(15) {
        mutate::bend(rng, &mut bytes);
    }
    if bytes.len() < 14 {
        bytes.resize(14, 0);
    }
    bytes
}

fn tpid(rng: &mut Rng) -> u16 {
    rng.pick(&[0x8100, 0x8100, 0x88a8, 0x9100])
}

fn rng_vlan(rng: &mut Rng) -> u16 {
    rng.port()
}

fn not_ip(rng: &mut Rng) -> Frame {
    match rng.below(5) {
        0 => Frame::arp(),
        1 => Frame::llc(0x42, 0x42, 3, &[0; 35]).to([0x01, 0x80, 0xc2, 0, 0, rng.below(0x12) as u8]),
        2 => Frame::snap(0x0800, &[0x45; 40]),
        _ => Frame::new(rng.pick(&ETHER_TYPES), vec![rng.byte(); rng.below(60)]),
    }
}

/// What rule 3 lets pass, and its near misses.
fn essential(rng: &mut Rng) -> Frame {
    let local = Ipv6Addr::new(
        rng.pick(&[0xfe80, 0xfebf, 0xfec0]),
        0,
        0,
        0,
        0,
        0,
        0,
        rng.below(16) as u16,
    );
    let from = rng.pick(&[
        local,
        Ipv6Addr::UNSPECIFIED,
        Ipv6Addr::new(0x2001, 0xdb8, 0xac, 0, 0, 0, 0, 1),
    ]);
    let to = rng.pick(&[local, Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1)]);
    let v6 = Ipv6::new(from, to).hop_limit(rng.pick(&[255, 255, 254, 1]));
    let mut v6 = match rng.below(4) {
        0 => v6.icmp(133 + rng.below(6) as u8, u8::from(rng.chance(15))),
        1 => v6
            .icmp(rng.pick(&[130, 131, 132, 143, 144, 129]), 0)
            .ext(Extension::hop_by_hop()),
        2 => v6.udp(rng.pick(&[547, 547, 546]), rng.pick(&[546, 546, 547])),
        _ => {
            let v4 = Ipv4::new(Ipv4Addr::new(198, 51, 100, 1), Ipv4Addr::BROADCAST);
            let v4 = v4.udp(rng.pick(&[67, 67, 68]), rng.pick(&[68, 68, 67]));
            return if rng.chance(10) {
                v4.fragment(0, true).into()
            } else {
                v4.into()
            };
        }
    };
    if rng.chance(15) {
        v6 = v6.ext(Extension::fragment(0, rng.chance(50)));
    }
    v6.into()
}

fn ip(rng: &mut Rng, policy: &Policy) -> Frame {
    let from = source_of(rng, policy);
    let service = if policy.services.is_empty() {
        None
    } else {
        Some(rng.pick(&policy.services))
    };
    let aimed = service.filter(|_| rng.chance(45));
    let to = match &aimed {
        Some(service) => address_of(rng, policy, service, from.is_ipv4()),
        None => destination_of(rng, policy, from.is_ipv4()),
    };
    let (protocol, payload) = match &aimed {
        Some(service) => to_service(rng, policy, service),
        None => transport(rng, policy, from.is_ipv4()),
    };
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => v4(rng, Ipv4::new(from, to).payload(protocol, payload)),
        (IpAddr::V6(from), IpAddr::V6(to)) => v6(rng, Ipv6::new(from, to).payload(protocol, payload)),
        _ => Frame::arp(),
    }
}

fn v4(rng: &mut Rng, mut packet: Ipv4) -> Frame {
    if rng.chance(10) {
        packet = packet.options(&[1, 1, 1, 0, 0, 0, 0, 0][..4 * (1 + rng.below(2))]);
    }
    match rng.below(30) {
        0..=2 => packet = packet.fragment(1 + rng.port() % 200, rng.chance(50)),
        3..=4 => packet = packet.fragment(0, true),
        5 => packet = packet.fragment(1, rng.chance(50)),
        6 => packet.reserved = true,
        7 => packet.dont_fragment = true,
        _ => {}
    }
    match rng.below(100) {
        0 => packet.version = rng.byte() & 0xf,
        1..=2 => packet.header_words = Some(rng.byte() & 0xf),
        3..=5 => packet.total_length = Some(lie(rng, packet.packet().len())),
        6..=7 => packet = packet.shorten(rng.below(24)),
        _ => {}
    }
    packet.into()
}

fn v6(rng: &mut Rng, mut packet: Ipv6) -> Frame {
    if rng.chance(35) {
        let usual = 1 + rng.below(3);
        let count = if rng.chance(15) { rng.below(11) } else { usual };
        for _ in 0..count {
            packet = packet.ext(extension(rng));
        }
    }
    match rng.below(30) {
        0..=2 => packet = packet.ext(Extension::fragment(1 + rng.port() % 200, rng.chance(50))),
        3..=4 => packet = packet.ext(Extension::fragment(0, true)),
        5 => packet = packet.ext(Extension::fragment(0, false)),
        _ => {}
    }
    match rng.below(100) {
        0 => packet.version = rng.byte() & 0xf,
        1..=3 => packet.payload_length = Some(lie(rng, packet.packet().len() - 40)),
        4..=5 => packet = packet.shorten(rng.below(24)),
        6 => packet.source = Ipv4Addr::new(198, 51, 100, rng.byte()).to_ipv6_mapped(),
        7 => packet.destination = Ipv4Addr::new(203, 0, 113, 10).to_ipv6_mapped(),
        _ => {}
    }
    packet.into()
}

fn extension(rng: &mut Rng) -> Extension {
    let extension = match rng.below(20) {
        0..=4 => Extension::hop_by_hop(),
        5..=7 => Extension::options(60, 1 + rng.below(3) as u8),
        8..=11 => Extension::routing(rng.pick(&[2, 3, 4, 4, 4, 0]), u8::from(rng.chance(10))),
        12..=13 => Extension::fragment(0, false),
        14..=17 => Extension::authentication(),
        18 => Extension::other(rng.pick(&[135, 139, 140])),
        _ => Extension::options(rng.pick(&WALKED), 1),
    };
    if rng.chance(3) {
        extension.length(rng.byte() % 8)
    } else {
        extension
    }
}

/// Near what is true, or anything.
fn lie(rng: &mut Rng, truth: usize) -> u16 {
    match rng.below(4) {
        0 => rng.port(),
        1 => rng.below(48) as u16,
        _ => (truth + 8).saturating_sub(rng.below(24)) as u16,
    }
}

fn transport(rng: &mut Rng, policy: &Policy, v4: bool) -> (u8, Vec<u8>) {
    let kinds: &[u8] = if v4 { &ICMP_TYPES } else { &ICMPV6_TYPES };
    match rng.below(20) {
        0..=8 => {
            let mut tcp = Tcp::new(source_port(rng, policy), port(rng, policy));
            tcp.flags = rng.pick(&[SYN, SYN, ACK, SYN | ACK, FIN | ACK, RST, 0]);
            tcp.options = vec![1; 4 * rng.below(4)];
            tcp.data = vec![0x43; rng.below(30)];
            if rng.chance(4) {
                tcp.data_offset = Some(rng.byte() & 0xf);
            }
            (6, tcp.bytes())
        }
        9..=14 => {
            let mut udp = Udp::new(source_port(rng, policy), port(rng, policy));
            udp.data = vec![0x44; rng.below(30)];
            if rng.chance(5) {
                udp.length = Some(lie(rng, 8 + udp.data.len()));
            }
            (17, udp.bytes())
        }
        15..=17 => (
            if v4 { 1 } else { 58 },
            icmp(rng.pick(kinds), rng.byte() & 1, rng.below(24)),
        ),
        18 => (if v4 { 58 } else { 1 }, icmp(rng.pick(kinds), 0, 8)),
        _ => (rng.pick(&PROTOCOLS), vec![rng.byte(); rng.below(40)]),
    }
}

fn source_of(rng: &mut Rng, policy: &Policy) -> IpAddr {
    let prefixes: Vec<IpNet> = match rng.below(20) {
        0..=9 => policy
            .clients
            .iter()
            .flat_map(|client| client.sources.iter().copied())
            .collect(),
        10 => policy
            .denies
            .iter()
            .flat_map(|deny| deny.sources.iter().copied())
            .collect(),
        11..=12 => policy
            .management
            .iter()
            .flat_map(|entry| entry.sources.iter().copied())
            .collect(),
        13 => return anywhere(rng),
        _ => Vec::new(),
    };
    match prefixes.is_empty() {
        true => source(rng),
        false => {
            let prefix = rng.pick(&prefixes);
            within(rng, prefix)
        }
    }
}

fn destination_of(rng: &mut Rng, policy: &Policy, v4: bool) -> IpAddr {
    if rng.chance(4) {
        for _ in 0..4 {
            let address = anywhere(rng);
            if address.is_ipv4() == v4 {
                return address;
            }
        }
    }
    if rng.chance(15) || policy.services.is_empty() {
        return destination(rng, v4);
    }
    let service = rng.pick(&policy.services);
    address_of(rng, policy, &service, v4)
}

/// One of the service's addresses, where it has one of the family.
fn address_of(rng: &mut Rng, policy: &Policy, service: &Service, v4: bool) -> IpAddr {
    let candidates: Vec<IpNet> = match &service.addresses {
        Addresses::Any => Vec::new(),
        Addresses::Host => policy
            .host_addresses
            .iter()
            .map(|address| IpNet::from(*address))
            .collect(),
        Addresses::Prefixes(prefixes) => prefixes.clone(),
    };
    match candidates.iter().find(|prefix| prefix.addr().is_ipv4() == v4) {
        Some(prefix) => within(rng, *prefix),
        None => destination(rng, v4),
    }
}

/// A segment or datagram to one of the service's own ports.
fn to_service(rng: &mut Rng, policy: &Policy, service: &Service) -> (u8, Vec<u8>) {
    let (first, last) = rng.pick(&service.ports);
    let inside = first + rng.below(usize::from(last - first) + 1) as u16;
    let port = rng.pick(&[first, last, inside]);
    if service.tcp && (!service.udp || rng.chance(50)) {
        let mut tcp = Tcp::new(source_port(rng, policy), port);
        tcp.flags = rng.pick(&[SYN, SYN, ACK, SYN | ACK]);
        tcp.data = vec![0x45; rng.below(60)];
        (6, tcp.bytes())
    } else {
        let mut udp = Udp::new(source_port(rng, policy), port);
        udp.data = vec![0x46; rng.below(60)];
        (17, udp.bytes())
    }
}

/// An address of the prefix: its ends more often than chance, and of short prefixes the small world's.
fn within(rng: &mut Rng, prefix: IpNet) -> IpAddr {
    let world = source(rng);
    if prefix.contains(&world) && rng.chance(60) {
        return world;
    }
    match (rng.below(4), prefix) {
        (0, _) => prefix.network(),
        (1, _) => prefix.broadcast(),
        (_, IpNet::V4(net)) => {
            let host = (rng.word() as u32)
                .checked_shr(u32::from(net.prefix_len()))
                .unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from(u32::from(net.network()) | host))
        }
        (_, IpNet::V6(net)) => {
            let random = u128::from(rng.word()) << 64 | u128::from(rng.word());
            let host = random.checked_shr(u32::from(net.prefix_len())).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from(u128::from(net.network()) | host))
        }
    }
}

fn anywhere(rng: &mut Rng) -> IpAddr {
    if rng.chance(50) {
        IpAddr::V4(Ipv4Addr::from(rng.word() as u32))
    } else {
        IpAddr::V6(Ipv6Addr::from(
            u128::from(rng.word()) << 64 | u128::from(rng.word()),
        ))
    }
}

fn port(rng: &mut Rng, policy: &Policy) -> u16 {
    let ranges: Vec<(u16, u16)> = match rng.below(10) {
        0..=6 => policy
            .services
            .iter()
            .flat_map(|service| service.ports.iter().copied())
            .collect(),
        7 => policy
            .management
            .iter()
            .flat_map(|entry| entry.ports.iter().copied())
            .collect(),
        _ => Vec::new(),
    };
    in_ranges(rng, &ranges)
}

fn source_port(rng: &mut Rng, policy: &Policy) -> u16 {
    let ranges: Vec<(u16, u16)> = match rng.below(2) {
        0 => policy
            .clients
            .iter()
            .flat_map(|client| client.source_ports.iter().copied())
            .collect(),
        _ => Vec::new(),
    };
    in_ranges(rng, &ranges)
}

/// Inside a range, at its ends, or one past them.
fn in_ranges(rng: &mut Rng, ranges: &[(u16, u16)]) -> u16 {
    if ranges.is_empty() {
        return if rng.chance(50) {
            rng.port()
        } else {
            rng.pick(&[53, 80, 443, 40000, 0, 65535])
        };
    }
    let (first, last) = rng.pick(ranges);
    match rng.below(10) {
        0 => first.wrapping_sub(1),
        1 => last.wrapping_add(1),
        2..=4 => first,
        5..=6 => last,
        _ => first + (rng.below(usize::from(last - first) + 1) as u16),
    }
}
