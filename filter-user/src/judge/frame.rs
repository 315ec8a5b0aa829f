//! Frames made from a few words: what a packet from here to there looks like on the wire.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::policy::model::ExpectProtocol;

/// One packet in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// The port is 0 where none was named.
    pub from: (IpAddr, u16),
    pub to: (IpAddr, u16),
    pub protocol: ExpectProtocol,
}

/// Locally administered addresses: no maker's.
const DESTINATION: [u8; 6] = [0x02, 0, 0, 0, 0, 0x01];
const SOURCE: [u8; 6] = [0x02, 0, 0, 0, 0, 0x02];
const HOPS: u8 = 64;

/// The first packet of the flow: a SYN, a datagram without data, an echo request. `None` where the two addresses
/// are not of one family. IPv4-mapped addresses are read as IPv4.
pub fn build(flow: &Flow) -> Option<Vec<u8>> {
    let mut frame = Vec::from(DESTINATION);
    frame.extend(SOURCE);
    match (flow.from.0.to_canonical(), flow.to.0.to_canonical()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let payload = payload(flow, false);
            frame.extend([0x08, 0x00]);
            frame.extend(ipv4(from, to, number(flow.protocol, false), payload.len()));
            frame.extend(payload);
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let payload = payload(flow, true);
            frame.extend([0x86, 0xdd]);
            frame.extend(ipv6(from, to, number(flow.protocol, true), payload.len()));
            frame.extend(payload);
        }
        _ => return None,
    }
    Some(frame)
}

fn number(protocol: ExpectProtocol, v6: bool) -> u8 {
    match (protocol, v6) {
        (ExpectProtocol::Tcp, _) => 6,
        (ExpectProtocol::Udp, _) => 17,
        (ExpectProtocol::Icmp, false) => 1,
        (ExpectProtocol::Icmp, true) => 58,
    }
}

/// Without checksums: none is verified where packets are judged.
fn payload(flow: &Flow, v6: bool) -> Vec<u8> {
    let ports = [flow.from.1.to_be_bytes(), flow.to.1.to_be_bytes()].concat();
    match flow.protocol {
        ExpectProtocol::Tcp => {
            const HEADER_WORDS: u8 = 5 << 4;
            const SYN: u8 = 0x02;
            let window = 0xffff_u16.to_be_bytes();
            [&ports[..], &[0; 8], &[HEADER_WORDS, SYN], &window, &[0; 4]].concat()
        }
        ExpectProtocol::Udp => [&ports[..], &[0, 8, 0, 0]].concat(),
        ExpectProtocol::Icmp => vec![if v6 { 128 } else { 8 }, 0, 0, 0, 0, 1, 0, 1],
    }
}

fn ipv4(from: Ipv4Addr, to: Ipv4Addr, protocol: u8, payload: usize) -> Vec<u8> {
    let length = (20 + payload as u16).to_be_bytes();
    let mut header = vec![0x45, 0, length[0], length[1], 0, 0, 0x40, 0, HOPS, protocol, 0, 0];
    header.extend(from.octets());
    header.extend(to.octets());
    header
}

fn ipv6(from: Ipv6Addr, to: Ipv6Addr, protocol: u8, payload: usize) -> Vec<u8> {
    let length = (payload as u16).to_be_bytes();
    let mut header = vec![0x60, 0, 0, 0, length[0], length[1], protocol, HOPS];
    header.extend(from.octets());
    header.extend(to.octets());
    header
}

#[cfg(test)]
mod tests {
    use super::*;
    use filter_common::parse::{self, Fragment, Frame, Packet, Protocol};

    fn parsed(from: &str, to: &str, protocol: ExpectProtocol) -> Packet {
        let flow = Flow {
            from: (from.parse().unwrap(), 40_000),
            to: (to.parse().unwrap(), 443),
            protocol,
        };
        let mut packet = Packet::default();
        let frame = build(&flow).unwrap();
        assert_eq!(parse::parse(frame.as_slice(), &mut packet), Frame::Ip);
        assert_eq!(packet.fragment, Fragment::Whole);
        packet
    }

    #[test]
    fn frames_are_what_the_words_say() {
        for (from, to) in [
            ("192.0.2.1", "192.0.2.2"),
            ("2001:db8::1", "2001:db8::2"),
            ("::ffff:1.2.3.4", "1.2.3.5"),
        ] {
            let tcp = parsed(from, to, ExpectProtocol::Tcp);
            assert_eq!(
                (tcp.protocol, tcp.source_port, tcp.destination_port),
                (Protocol::Tcp, 40_000, 443)
            );
            assert_eq!(tcp.tcp_flags, 0x02);
            let udp = parsed(from, to, ExpectProtocol::Udp);
            assert_eq!(
                (udp.protocol, udp.source_port, udp.destination_port),
                (Protocol::Udp, 40_000, 443)
            );
            let icmp = parsed(from, to, ExpectProtocol::Icmp);
            assert_eq!(
                filter_common::classify::icmp(&icmp),
                filter_common::classify::Icmp::Request
            );
        }
    }

    #[test]
    fn two_families_make_no_packet() {
        let flow = Flow {
            from: ("::1".parse().unwrap(), 1),
            to: ("192.0.2.2".parse().unwrap(), 1),
            protocol: ExpectProtocol::Tcp,
        };
        assert_eq!(build(&flow), None);
    }
}
