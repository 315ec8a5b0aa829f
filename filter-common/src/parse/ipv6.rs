//! IPv6 (RFC 8200): header, payload length, the chain of extension headers in any order, fragments.

use super::{Address, Bytes as _, Family, Fragment, Packet, PacketBytes, Protocol, packet_end};
use crate::bounds::{EXTENSIONS_MAX, HEADER_OFFSET_MAX};

const HEADER_LENGTH: u32 = 40;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;

/// Reads the packet at `at`; `None` is malformed.
#[inline(always)]
pub(super) fn parse<F: PacketBytes + ?Sized>(frame: &F, at: u32, packet: &mut Packet) -> Option<()> {
    let header = frame.bytes::<40>(at)?;
    if header.u8::<0>() >> 4 != 6 {
        return None;
    }
    let payload = header.u16::<4>();
    let end = packet_end(frame, at, payload, HEADER_LENGTH + payload as u32)?;
    packet.family = Family::V6;
    packet.length = end - at;
    packet.hop_limit = header.u8::<7>();
    packet.source = Address {
        upper: header.u64::<8>(),
        lower: header.u64::<16>(),
    };
    packet.destination = Address {
        upper: header.u64::<24>(),
        lower: header.u64::<32>(),
    };
    let next = header.u8::<6>();
    // A socket would take these for the IPv4 peer (RFC 4942, 2.2).
    if packet.source.is_mapped() || packet.destination.is_mapped() {
        return None;
    }
    let at = extensions(frame, at + HEADER_LENGTH, end, next, packet)?;
    if packet.fragment as u8 == Fragment::Later as u8 {
        return Some(());
    }
    if frame.ipv6_transport(at, end, packet) {
        Some(())
    } else {
        None
    }
}

/// Walks the extension headers from `at` and gives the offset of what follows them.
#[inline(always)]
fn extensions<F: PacketBytes + ?Sized>(
    frame: &F,
    mut at: u32,
    end: u32,
    mut next: u8,
    packet: &mut Packet,
) -> Option<u32> {
    let mut fragment_seen = false;
    for count in 0..=EXTENSIONS_MAX {
        if !is_extension(next) {
            packet.protocol_number = next;
            return Some(at);
        }
        if count == EXTENSIONS_MAX || next == FRAGMENT && fragment_seen {
            return None;
        }
        let is_fragment = next == FRAGMENT;
        let step = frame.ipv6_extension(at, end, next);
        if step == MALFORMED {
            return None;
        }
        next = (step >> 32) as u8;
        at = step as u32;
        if is_fragment {
            fragment_seen = true;
            if step & LATER != 0 {
                // Reassembly takes the protocol of the first fragment, whatever this one names.
                packet.fragment = Fragment::Later;
                packet.protocol = Protocol::Unknown;
                packet.protocol_number = next;
                return Some(at);
            }
            if step & FIRST != 0 {
                packet.fragment = Fragment::First;
            }
        }
    }
    None
}

/// A step's answer: where the next header is, its protocol from bit 32, and what the fragment header said.
pub const MALFORMED: u64 = 0;
const FIRST: u64 = 1 << 40;
const LATER: u64 = 1 << 41;

/// Reads the extension header `next` at `at`. Called through `PacketBytes::ipv6_extension`.
#[inline(always)]
pub fn extension<F: PacketBytes + ?Sized>(frame: &F, at: u32, end: u32, next: u8) -> u64 {
    // None is shorter than 8 bytes.
    if at > HEADER_OFFSET_MAX || at + 8 > end {
        return MALFORMED;
    }
    let Some(header) = frame.bytes::<4>(at) else {
        return MALFORMED;
    };
    // Type 0 is forbidden (RFC 5095); with segments left the packet is for somebody else.
    if next == ROUTING && (header.u8::<2>() == 0 || header.u8::<3>() != 0) {
        return MALFORMED;
    }
    let behind = at + extension_length(next, header.u8::<1>());
    if behind > end {
        return MALFORMED;
    }
    let mut step = behind as u64 | (header.u8::<0>() as u64) << 32;
    if next == FRAGMENT {
        let field = header.u16::<2>();
        if field & 0xfff8 != 0 {
            step |= LATER;
        } else if field & 1 != 0 {
            step |= FIRST;
        }
    }
    step
}

#[inline(always)]
fn is_extension(protocol: u8) -> bool {
    matches!(
        protocol,
        HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION_OPTIONS
    )
}

#[inline(always)]
fn extension_length(protocol: u8, field: u8) -> u32 {
    match protocol {
        FRAGMENT => 8,
        // In 4-byte units, less 2 (RFC 4302, 2.2).
        AUTHENTICATION => (field as u32 + 2) * 4,
        _ => (field as u32 + 1) * 8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_mapped_prefix_is_mapped() {
        let mapped = Address::of_v4(0xcb00_710a);
        assert!(mapped.is_mapped());
        assert_eq!(mapped.octets()[10..], [0xff, 0xff, 203, 0, 113, 10]);
        for bit in 0..64 {
            let upper = Address {
                upper: 1 << bit,
                ..mapped
            };
            assert!(!upper.is_mapped(), "bit {bit}");
            let lower = Address {
                lower: mapped.lower ^ 1 << bit,
                ..mapped
            };
            assert_eq!(lower.is_mapped(), bit < 32, "bit {bit}");
        }
    }

    #[test]
    fn a_later_fragment_keeps_the_number_it_names() {
        let mut frame = [0u8; 54];
        frame[0] = 0x60;
        frame[5] = 14;
        frame[6] = FRAGMENT;
        frame[7] = 61;
        frame[40] = 17;
        frame[43] = 8;
        let mut packet = Packet::default();
        assert_eq!(parse(frame.as_slice(), 0, &mut packet), Some(()));
        assert_eq!(
            (packet.fragment, packet.protocol),
            (Fragment::Later, Protocol::Unknown)
        );
        assert_eq!((packet.protocol_number, packet.hop_limit), (17, 61));
    }
}
