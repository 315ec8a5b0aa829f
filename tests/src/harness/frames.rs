//! Frames byte by byte, from the RFCs and not from the program: whole ones, and the pieces of broken ones.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::site::{INSIDE_MAC, OUTSIDE_MAC};

pub const IPV4: u16 = 0x0800;
pub const IPV6: u16 = 0x86dd;
pub const ARP: u16 = 0x0806;
pub const ICMP: u8 = 1;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const ICMPV6: u8 = 58;
/// IPv6's extension header.
pub const FRAGMENT: u8 = 44;

pub const SYN: u8 = 0x02;

/// Of an Ethernet header.
pub const ETHERNET_BYTES: usize = 14;

/// From the outside end of the wire to the inside one.
pub fn ethernet(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    ethernet_to(INSIDE_MAC, ethertype, payload)
}

pub fn ethernet_to(destination: [u8; 6], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&destination, &OUTSIDE_MAC, &ethertype.to_be_bytes()[..], payload].concat()
}

/// The frame with a VLAN tag in front of its EtherType.
pub fn tagged(tag_type: u16, tag: u16, frame: &[u8]) -> Vec<u8> {
    let (addresses, rest) = frame.split_at(12);
    [addresses, &tag_type.to_be_bytes(), &tag.to_be_bytes(), rest].concat()
}

/// An IP packet in its frame; the family is that of the addresses.
pub fn ip(source: IpAddr, destination: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            ethernet(IPV4, &ipv4(source, destination, protocol, 0, payload))
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            ethernet(IPV6, &ipv6(source, destination, protocol, 64, payload))
        }
        _ => panic!("{source} and {destination} are of two families"),
    }
}

/// An IPv4 packet; `fragment` is the word of flags and offset.
pub fn ipv4(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, fragment: u16, payload: &[u8]) -> Vec<u8> {
    let length = (20 + payload.len()) as u16;
    let mut header = [0u8; 20];
    header[0] = 0x45;
    header[2..4].copy_from_slice(&length.to_be_bytes());
    header[6..8].copy_from_slice(&fragment.to_be_bytes());
    header[8] = 64;
    header[9] = protocol;
    header[12..16].copy_from_slice(&source.octets());
    header[16..20].copy_from_slice(&destination.octets());
    let sum = checksum(&[&header]);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    [&header[..], payload].concat()
}

pub fn ipv6(source: Ipv6Addr, destination: Ipv6Addr, next: u8, hop_limit: u8, payload: &[u8]) -> Vec<u8> {
    let length = payload.len() as u16;
    let mut header = [0u8; 40];
    header[0] = 0x60;
    header[4..6].copy_from_slice(&length.to_be_bytes());
    header[6] = next;
    header[7] = hop_limit;
    header[8..24].copy_from_slice(&source.octets());
    header[24..40].copy_from_slice(&destination.octets());
    [&header[..], payload].concat()
}

/// IPv6's fragment header in front of a piece; `offset` in units of 8 bytes.
pub fn fragment(next: u8, offset: u16, more: bool, piece: &[u8]) -> Vec<u8> {
    let field = (offset << 3 | u16::from(more)).to_be_bytes();
    [&[next, 0, field[0], field[1], 0, 0, 0, 7], piece].concat()
}

/// A UDP datagram in its frame, its checksum good.
pub fn udp(source: IpAddr, source_port: u16, destination: IpAddr, port: u16, data: &[u8]) -> Vec<u8> {
    let length = (8 + data.len()) as u16;
    let mut datagram = udp_header(source_port, port, length).to_vec();
    datagram.extend_from_slice(data);
    let sum = transport_checksum(source, destination, UDP, &datagram);
    datagram[6..8].copy_from_slice(&sum.to_be_bytes());
    ip(source, destination, UDP, &datagram)
}

/// Without a checksum, which IPv4 allows.
pub fn udp_header(source_port: u16, port: u16, length: u16) -> [u8; 8] {
    let mut header = [0; 8];
    header[..2].copy_from_slice(&source_port.to_be_bytes());
    header[2..4].copy_from_slice(&port.to_be_bytes());
    header[4..6].copy_from_slice(&length.to_be_bytes());
    header
}

/// A TCP segment without data in its frame.
pub fn tcp(source: IpAddr, source_port: u16, destination: IpAddr, port: u16, flags: u8) -> Vec<u8> {
    let mut header = [0u8; 20];
    header[..2].copy_from_slice(&source_port.to_be_bytes());
    header[2..4].copy_from_slice(&port.to_be_bytes());
    header[12] = 5 << 4;
    header[13] = flags;
    header[14..16].copy_from_slice(&1024u16.to_be_bytes());
    let sum = transport_checksum(source, destination, TCP, &header);
    header[16..18].copy_from_slice(&sum.to_be_bytes());
    ip(source, destination, TCP, &header)
}

/// An ICMP or ICMPv6 message with eight bytes of nothing; `hop_limit` is of IPv6.
pub fn icmp(source: IpAddr, destination: IpAddr, kind: u8, code: u8, hop_limit: u8) -> Vec<u8> {
    let mut message = [0u8; 16];
    message[0] = kind;
    message[1] = code;
    match (source, destination) {
        (IpAddr::V4(_), _) => {
            let sum = checksum(&[&message]);
            message[2..4].copy_from_slice(&sum.to_be_bytes());
            ip(source, destination, ICMP, &message)
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let sum = transport_checksum(source, destination, ICMPV6, &message);
            message[2..4].copy_from_slice(&sum.to_be_bytes());
            ethernet(IPV6, &ipv6(from, to, ICMPV6, hop_limit, &message))
        }
        _ => panic!("{source} and {destination} are of two families"),
    }
}

fn transport_checksum(source: IpAddr, destination: IpAddr, protocol: u8, segment: &[u8]) -> u16 {
    let octets = |address| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let length = (segment.len() as u32).to_be_bytes();
    checksum(&[
        &octets(source),
        &octets(destination),
        &length,
        &[0, 0, 0, protocol],
        segment,
    ])
}

/// RFC 1071. Each part but the last has an even length.
fn checksum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let sum: u32 = words
        .map(|word| u32::from(word[0]) << 8 | u32::from(word.get(1).copied().unwrap_or(0)))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}
