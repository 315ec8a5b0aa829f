//! The form that most packets have, read in one piece: no VLAN tag, no options, no fragment, TCP or UDP, its headers in
//! the frame's first buffer. What is of another form, or malformed, is left to the parsers of each layer.

use super::{Address, Bytes, Family, Fragment, Packet, PacketBytes, Protocol};

const ETHERNET: u32 = 14;
const IPV4: u32 = 20;
const IPV6: u32 = 40;
const TCP_MIN: u32 = 20;
const UDP: u32 = 8;

/// A frame with fewer bytes than Ethernet, IPv4 and TCP take is left to the others, whatever it holds.
const WINDOW_V4: usize = (ETHERNET + IPV4 + TCP_MIN) as usize;
const WINDOW_V6: usize = (ETHERNET + IPV6 + TCP_MIN) as usize;

/// Reads a whole packet, or nothing: then `packet` is as it was.
#[inline(always)]
pub(super) fn parse<F: PacketBytes + ?Sized>(frame: &F, packet: &mut Packet) -> bool {
    let Some(header) = frame.first_bytes::<WINDOW_V4>() else {
        return false;
    };
    // The type, and the first byte of what follows: version 4 and a header without options, or version 6.
    match header.u32::<12>() >> 8 {
        0x0008_0045 => ipv4(frame, &header, packet),
        0x0086_dd60..=0x0086_dd6f => match frame.first_bytes::<WINDOW_V6>() {
            Some(header) => ipv6(frame, &header, packet),
            None => false,
        },
        _ => false,
    }
}

#[inline(always)]
fn ipv4<F: PacketBytes + ?Sized, B: Bytes>(frame: &F, header: &B, packet: &mut Packet) -> bool {
    // Total length, identification, fragment, time to live, protocol.
    let word = header.u64::<16>();
    let length = (word >> 48) as u32;
    let fragment = (word >> 16) as u16;
    // Its offset, and more to come.
    if fragment & 0x3fff != 0 {
        return false;
    }
    let number = word as u8;
    let words = Words {
        ports: header.u32::<34>(),
        tcp: header.u16::<46>(),
        udp: header.u16::<38>(),
    };
    let Some(transport) = transport(&words, number, length, IPV4) else {
        return false;
    };
    if !frame.first_holds(ETHERNET + length) {
        return false;
    }
    *packet = Packet {
        source: Address::of_v4(header.u32::<26>()),
        destination: Address::of_v4(header.u32::<30>()),
        length,
        family: Family::V4,
        hop_limit: (word >> 8) as u8,
        ..transport
    };
    true
}

#[inline(always)]
fn ipv6<F: PacketBytes + ?Sized, B: Bytes>(frame: &F, header: &B, packet: &mut Packet) -> bool {
    // Version, class and label; then length, next header, hop limit.
    let word = header.u64::<14>();
    let payload = (word >> 16) as u16 as u32;
    let number = (word >> 8) as u8;
    let words = Words {
        ports: header.u32::<54>(),
        tcp: header.u16::<66>(),
        udp: header.u16::<58>(),
    };
    let Some(transport) = transport(&words, number, payload, 0) else {
        return false;
    };
    if !frame.first_holds(ETHERNET + IPV6 + payload) {
        return false;
    }
    let source = Address {
        upper: header.u64::<22>(),
        lower: header.u64::<30>(),
    };
    let destination = Address {
        upper: header.u64::<38>(),
        lower: header.u64::<46>(),
    };
    if source.is_mapped() || destination.is_mapped() {
        return false;
    }
    *packet = Packet {
        source,
        destination,
        length: IPV6 + payload,
        family: Family::V6,
        hop_limit: word as u8,
        ..transport
    };
    true
}

/// The words of a transport header that are asked for here, wherever it stands.
struct Words {
    /// Both, the source's above.
    ports: u32,
    /// TCP's length and flags.
    tcp: u16,
    /// UDP's length.
    udp: u16,
}

/// Protocol, ports and flags of a well-formed TCP or UDP header, of a packet with `length` bytes from `before` in front
/// of it to its end. Length 0, of a merged frame, is none.
#[inline(always)]
fn transport(words: &Words, number: u8, length: u32, before: u32) -> Option<Packet> {
    let packet = Packet {
        source_port: (words.ports >> 16) as u16,
        destination_port: words.ports as u16,
        fragment: Fragment::Whole,
        protocol_number: number,
        ..Packet::default()
    };
    match number {
        6 => {
            let own = (words.tcp >> 12) as u32 * 4;
            let fits = own >= TCP_MIN && before + own <= length;
            fits.then_some(Packet {
                protocol: Protocol::Tcp,
                tcp_flags: words.tcp as u8,
                ..packet
            })
        }
        17 => {
            let own = words.udp as u32;
            let fits = own >= UDP && before + own <= length;
            fits.then_some(Packet {
                protocol: Protocol::Udp,
                ..packet
            })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::parse::{Frame, by_layers};

    /// A frame of the form that is read here, lengths and all as they should be.
    fn plain(v6: bool, udp: bool, payload: usize) -> Vec<u8> {
        let transport = if udp { 8 } else { 20 } + payload;
        let mut frame = vec![0u8; 12];
        if v6 {
            frame.extend([0x86, 0xdd, 0x60, 1, 2, 3]);
            frame.extend((transport as u16).to_be_bytes());
            frame.extend([if udp { 17 } else { 6 }, 64]);
            frame.extend([0x20, 0x01, 0x0d, 0xb8, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
            frame.extend([0x20, 0x01, 0x0d, 0xb8, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1]);
        } else {
            frame.extend([8, 0, 0x45, 0]);
            frame.extend((20 + transport as u16).to_be_bytes());
            frame.extend([1, 2, 0x40, 0, 63, if udp { 17 } else { 6 }, 3, 4]);
            frame.extend([192, 0, 2, 1, 203, 0, 113, 10]);
        }
        frame.extend([0xc3, 0x50, 0x01, 0xbb]);
        if udp {
            frame.extend((transport as u16).to_be_bytes());
            frame.extend([0; 2]);
        } else {
            frame.extend([1, 2, 3, 4, 5, 6, 7, 8, 0x50, 0x12, 1, 1, 0, 0, 0, 0]);
        }
        frame.extend(std::iter::repeat_n(7, payload));
        frame
    }

    fn both(frame: &[u8]) -> (Option<Packet>, (Frame, Packet)) {
        let mut straight = Packet::default();
        let read = parse(frame, &mut straight);
        assert!(read || straight == Packet::default(), "all of it or nothing");
        let mut layered = Packet::default();
        let kind = by_layers(frame, &mut layered);
        (read.then_some(straight), (kind, layered))
    }

    #[test]
    fn plain_packets_are_read_here_and_as_the_layers_read_them() {
        for v6 in [false, true] {
            for udp in [false, true] {
                for payload in [12, 13, 1400] {
                    let frame = plain(v6, udp, payload);
                    let (straight, layered) = both(&frame);
                    assert_eq!((Frame::Ip, straight.unwrap()), layered, "{v6} {udp} {payload}");
                }
            }
        }
    }

    #[test]
    fn a_header_that_is_too_short_or_of_another_version_is_left_to_the_layers() {
        for v6 in [false, true] {
            let transport = if v6 { 54 } else { 34 };
            for length in [0, 7] {
                let mut frame = plain(v6, true, 40);
                frame[transport + 5] = length;
                assert_eq!(both(&frame).0, None, "{v6} {length}");
                assert_eq!(both(&frame).1.0, Frame::Malformed);
            }
            let mut frame = plain(v6, false, 40);
            frame[transport + 12] = 0x40;
            assert_eq!(both(&frame).0, None, "{v6}");
            frame[transport + 12] = 0x50;
            frame[14] = if v6 { 0x5f } else { 0x44 };
            assert_eq!(both(&frame).0, None, "{v6}");
            frame[14] = 0x70;
            assert_eq!(both(&frame).0, None, "{v6}");
        }
    }

    #[test]
    fn padding_is_no_payload() {
        let mut frame = plain(false, true, 4);
        frame.resize(60, 0xff);
        let (straight, layered) = both(&frame);
        assert_eq!((Frame::Ip, straight.unwrap()), layered);
        assert_eq!(straight.unwrap().length, 32);
    }

    proptest! {
        /// Whatever is read here, the layers read the same; what they find malformed is never read here.
        #[test]
        fn what_is_read_here_the_layers_read_too(
            v6: bool, udp: bool, payload in 0usize..40, changes in prop::collection::vec((0usize..80, any::<u8>()), 0..4),
            cut in 0usize..80,
        ) {
            let mut frame = plain(v6, udp, payload);
            for (at, byte) in changes {
                if let Some(place) = frame.get_mut(at) {
                    *place = byte;
                }
            }
            frame.truncate(frame.len().saturating_sub(cut / 8).max(cut % 8));
            let (straight, layered) = both(&frame);
            if let Some(packet) = straight {
                prop_assert_eq!((Frame::Ip, packet), layered);
            }
        }
    }
}
