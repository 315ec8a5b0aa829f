//! SPEC 3.1 and 3.2: what a frame is. Fixed headers are read by etherparse; what SPEC judges otherwise than
//! etherparse does (lengths, extension chains, fragments) is read by hand.
//!
//! Knows no policy. The first fault found ends the reading.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::{
    EtherType, Ethernet2HeaderSlice, Ipv4HeaderSlice, Ipv6HeaderSlice, SingleVlanHeaderSlice, TcpHeaderSlice,
    UdpHeaderSlice,
};

/// Frames above this, with a length field of 0, were merged by the host and end at the frame's end (SPEC 3.2).
const FRAME_MAX: usize = 65_535;
const TAGS_MAX: usize = 2;
const EXTENSIONS_MAX: usize = 8;

const HOP_BY_HOP: u8 = 0;
const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const ICMPV6: u8 = 58;
const DESTINATION_OPTIONS: u8 = 60;

/// A frame that is not malformed.
#[derive(Debug)]
pub enum Frame {
    /// ARP, or link-local control that is not IP.
    Essential,
    NotIp,
    Ip(Packet),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Not fragmented; an atomic fragment too.
    Whole,
    /// Offset 0, more to come.
    First,
    /// Offset above 0.
    Later,
}

/// What the packet carries. `Icmp` is ICMP in IPv4 and ICMPv6 in IPv6, nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Tcp,
    Udp,
    Icmp,
    Other,
    /// A later fragment of IPv6.
    Unknown,
}

#[derive(Clone, Debug)]
pub struct Packet {
    pub source: IpAddr,
    pub destination: IpAddr,
    /// The IP packet's length: what a byte limit counts.
    pub bytes: u64,
    pub hop_limit: u8,
    pub part: Part,
    pub protocol: Protocol,
    /// Source and destination port; None in later fragments and without TCP and UDP.
    pub ports: Option<(u16, u16)>,
    /// Type and code; None in later fragments and without ICMP.
    pub icmp: Option<(u8, u8)>,
    /// A TCP SYN without ACK.
    pub connection: bool,
}

/// Reads a frame. The error says which sentence of SPEC 3.1 or 3.2 it breaks.
pub fn read(frame: &[u8]) -> Result<Frame, &'static str> {
    let ethernet =
        Ethernet2HeaderSlice::from_slice(frame).map_err(|_| "an Ethernet header needs 14 bytes")?;
    let mut ether_type = ethernet.ether_type();
    let mut at = 14;
    for _ in 0..TAGS_MAX {
        if !is_tag(ether_type) {
            break;
        }
        let tag = SingleVlanHeaderSlice::from_slice(&frame[at..]).map_err(|_| "a cut VLAN tag")?;
        ether_type = tag.ether_type();
        at += 4;
    }
    if is_tag(ether_type) {
        return Err("a third VLAN tag");
    }
    let merged = frame.len() > FRAME_MAX;
    match ether_type {
        EtherType::IPV4 => ipv4(&frame[at..], merged).map(Frame::Ip),
        EtherType::IPV6 => ipv6(&frame[at..], merged).map(Frame::Ip),
        EtherType::ARP => Ok(Frame::Essential),
        _ if is_link_control(ethernet.destination()) => Ok(Frame::Essential),
        _ => Ok(Frame::NotIp),
    }
}

fn is_tag(ether_type: EtherType) -> bool {
    ether_type.0 == 0x8100 || ether_type.0 == 0x88a8
}

/// 01-80-C2-00-00-00 to -0F (IEEE 802.1Q, 8.6.3): spanning tree, pause, LACP, LLDP.
fn is_link_control(destination: [u8; 6]) -> bool {
    destination[..5] == [0x01, 0x80, 0xc2, 0, 0] && destination[5] <= 0x0f
}

fn ipv4(bytes: &[u8], merged: bool) -> Result<Packet, &'static str> {
    let header = Ipv4HeaderSlice::from_slice(bytes)
        .map_err(|_| "an IPv4 header cut, of another version or under 20")?;
    let header_bytes = usize::from(header.ihl()) * 4;
    // RFC 791, 3.1: the total length counts header and data.
    let total = match usize::from(header.total_len()) {
        0 if merged => bytes.len(),
        total => total,
    };
    if total < header_bytes {
        return Err("an IPv4 total length under the header");
    }
    let Some(packet) = bytes.get(..total) else {
        return Err("an IPv4 total length past the frame");
    };
    let offset = header.fragments_offset().value();
    let protocol_number = header.protocol().0;
    // RFC 1858, RFC 3128: eight bytes on is where the flags of a TCP header are.
    if protocol_number == TCP && offset == 1 {
        return Err("a TCP fragment of offset 1");
    }
    let part = match (offset, header.more_fragments()) {
        (0, false) => Part::Whole,
        (0, true) => Part::First,
        _ => Part::Later,
    };
    let protocol = match protocol_number {
        TCP => Protocol::Tcp,
        UDP => Protocol::Udp,
        ICMP => Protocol::Icmp,
        _ => Protocol::Other,
    };
    let read = Packet {
        source: IpAddr::V4(Ipv4Addr::from(header.source())),
        destination: IpAddr::V4(Ipv4Addr::from(header.destination())),
        bytes: total as u64,
        hop_limit: header.ttl(),
        part,
        protocol,
        ports: None,
        icmp: None,
        connection: false,
    };
    transport(read, &packet[header_bytes..])
}

fn ipv6(bytes: &[u8], merged: bool) -> Result<Packet, &'static str> {
    let header =
        Ipv6HeaderSlice::from_slice(bytes).map_err(|_| "an IPv6 header cut or of another version")?;
    // RFC 8200, 3: the payload length counts what follows the header, extension headers too.
    let end = match usize::from(header.payload_length()) {
        0 if merged => bytes.len(),
        payload => 40 + payload,
    };
    let Some(packet) = bytes.get(..end) else {
        return Err("an IPv6 payload past the frame");
    };
    let (source, destination) = (
        Ipv6Addr::from(header.source()),
        Ipv6Addr::from(header.destination()),
    );
    if is_mapped(source) || is_mapped(destination) {
        return Err("an IPv4-mapped address in IPv6");
    }
    let (at, next, part) = extensions(packet, header.next_header().0)?;
    let protocol = match next {
        // Reassembly takes the first fragment's next header, whatever the later ones say (RFC 8200, 4.5).
        _ if part == Part::Later => Protocol::Unknown,
        TCP => Protocol::Tcp,
        UDP => Protocol::Udp,
        ICMPV6 => Protocol::Icmp,
        _ => Protocol::Other,
    };
    let read = Packet {
        source: IpAddr::V6(source),
        destination: IpAddr::V6(destination),
        bytes: end as u64,
        hop_limit: header.hop_limit(),
        part,
        protocol,
        ports: None,
        icmp: None,
        connection: false,
    };
    transport(read, &packet[at..])
}

/// ::ffff:0:0/96 (RFC 4291, 2.5.5.2), which a socket shows as the IPv4 peer.
fn is_mapped(address: Ipv6Addr) -> bool {
    address.octets()[..12] == [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]
}

/// Walks the extension headers: where the walk ended, the next header there, and which part of a packet it is.
fn extensions(packet: &[u8], first: u8) -> Result<(usize, u8, Part), &'static str> {
    let (mut at, mut next, mut part) = (40, first, Part::Whole);
    let (mut walked, mut fragment_seen) = (0, false);
    while [HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, DESTINATION_OPTIONS].contains(&next) {
        walked += 1;
        if walked > EXTENSIONS_MAX {
            return Err("more than 8 extension headers");
        }
        // None of them is shorter than 8 bytes, and all begin with the next header and a length.
        let Some(fixed) = packet.get(at..at + 8) else {
            return Err("an extension header past the packet");
        };
        let length = match next {
            FRAGMENT => 8,
            // RFC 4302, 2.2: in 4-byte units, minus 2.
            AUTHENTICATION => (usize::from(fixed[1]) + 2) * 4,
            // RFC 8200, 4.3: in 8-byte units, not counting the first.
            _ => (usize::from(fixed[1]) + 1) * 8,
        };
        if at + length > packet.len() {
            return Err("an extension header past the packet");
        }
        if next == ROUTING && (fixed[2] == 0 || fixed[3] != 0) {
            return Err("a routing header of type 0 or with segments left");
        }
        if next == FRAGMENT {
            if fragment_seen {
                return Err("a second fragment header");
            }
            fragment_seen = true;
            // RFC 8200, 4.5: 13 bits of offset, 2 reserved, 1 for more.
            let word = u16::from_be_bytes([fixed[2], fixed[3]]);
            part = match (word >> 3, word & 1) {
                (0, 0) => Part::Whole,
                (0, _) => Part::First,
                _ => return Ok((at + 8, fixed[0], Part::Later)),
            };
        }
        next = fixed[0];
        at += length;
    }
    Ok((at, next, part))
}

/// Reads the transport header. A first fragment must hold it whole as well; a later one has none.
fn transport(mut read: Packet, payload: &[u8]) -> Result<Packet, &'static str> {
    if read.part == Part::Later {
        return Ok(read);
    }
    match read.protocol {
        Protocol::Tcp => {
            let tcp = TcpHeaderSlice::from_slice(payload)
                .map_err(|_| "a TCP header cut, or a data offset under 5 or past")?;
            read.ports = Some((tcp.source_port(), tcp.destination_port()));
            read.connection = tcp.syn() && !tcp.ack();
        }
        Protocol::Udp => {
            let udp = UdpHeaderSlice::from_slice(payload).map_err(|_| "a UDP header cut")?;
            let length = usize::from(udp.length());
            if length < 8 {
                return Err("a UDP length under 8");
            }
            if read.part == Part::Whole && length > payload.len() {
                return Err("a UDP length past the packet");
            }
            read.ports = Some((udp.source_port(), udp.destination_port()));
        }
        Protocol::Icmp => {
            if payload.len() < 8 {
                return Err("ICMP under 8 bytes");
            }
            read.icmp = Some((payload[0], payload[1]));
        }
        Protocol::Other | Protocol::Unknown => {}
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use etherparse::{NetSlice, SlicedPacket, TransportSlice};

    use super::*;
    use crate::oracle::{captures, random};

    #[test]
    fn a_frame_under_14_bytes_is_malformed() {
        for length in 0..14 {
            assert!(read(&[0; 14][..length]).is_err());
        }
        assert!(matches!(read(&[0; 14]), Ok(Frame::NotIp)));
    }

    #[test]
    fn no_cut_of_a_frame_panics() {
        for (_, frame) in random::run(3, 3000, random::Budgets::None).frames {
            for length in 0..frame.len() {
                let _ = read(&frame[..length]);
            }
        }
    }

    /// Where etherparse's own walk of a whole packet gets to the ports, they are the ports read here.
    #[test]
    fn etherparse_finds_the_same_addresses_and_ports() {
        let mut frames: Vec<Vec<u8>> = Vec::new();
        for seed in 0..200 {
            let run = random::run(seed, 500, random::Budgets::None);
            frames.extend(run.frames.into_iter().map(|(_, frame)| frame));
        }
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        match captures::folder(&root).unwrap() {
            Some(folder) => {
                let all = captures::all(&folder).unwrap().flatten();
                let ethernet = all.filter(|frame| frame.link_type == captures::ETHERNET);
                frames.extend(ethernet.map(|frame| frame.bytes));
            }
            None => println!("captures: not given"),
        }
        let mut agreed = 0;
        for frame in &frames {
            let (Ok(Frame::Ip(ours)), Ok(theirs)) = (read(frame), SlicedPacket::from_ethernet(frame)) else {
                continue;
            };
            let addresses = match &theirs.net {
                Some(NetSlice::Ipv4(v4)) => (
                    v4.header().source_addr().into(),
                    v4.header().destination_addr().into(),
                ),
                Some(NetSlice::Ipv6(v6)) => (
                    v6.header().source_addr().into(),
                    v6.header().destination_addr().into(),
                ),
                _ => continue,
            };
            assert_eq!((ours.source, ours.destination), addresses, "{frame:02x?}");
            let ports = match &theirs.transport {
                Some(TransportSlice::Tcp(tcp)) => (tcp.source_port(), tcp.destination_port()),
                Some(TransportSlice::Udp(udp)) => (udp.source_port(), udp.destination_port()),
                _ => continue,
            };
            assert_eq!(ours.ports, Some(ports), "{frame:02x?}");
            agreed += 1;
        }
        println!("{agreed} of {} frames have the same ports", frames.len());
        assert!(agreed > 20_000, "{agreed}");
    }
}
