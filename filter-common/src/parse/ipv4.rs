//! IPv4 (RFC 791): header, total length, fragments.

use super::{Address, Bytes as _, Family, Fragment, Packet, PacketBytes, Protocol, packet_end, transport};

const HEADER_LENGTH_MIN: u32 = 20;

/// Reads the packet at `at`; `None` is malformed.
#[inline(always)]
pub(super) fn parse<F: PacketBytes + ?Sized>(frame: &F, at: u32, packet: &mut Packet) -> Option<()> {
    let header = frame.bytes::<20>(at)?;
    let first = header.u8::<0>();
    let header_length = (first & 0x0f) as u32 * 4;
    if first >> 4 != 4 || header_length < HEADER_LENGTH_MIN {
        return None;
    }
    let total = header.u16::<2>();
    let end = packet_end(frame, at, total, total as u32)?;
    if end < at + header_length {
        return None;
    }
    packet.family = Family::V4;
    packet.length = end - at;
    packet.hop_limit = header.u8::<8>();
    packet.protocol_number = header.u8::<9>();
    packet.source = Address::of_v4(header.u32::<12>());
    packet.destination = Address::of_v4(header.u32::<16>());

    let fragment = header.u16::<6>();
    let offset = fragment & 0x1fff;
    if offset != 0 {
        // Later fragments carry no ports (RFC 791, 3.2).
        packet.fragment = Fragment::Later;
        packet.protocol = transport::protocol(Family::V4, packet.protocol_number);
        // A TCP fragment at 8 bytes would rewrite the flags of the first (RFC 3128).
        if packet.protocol as u8 == Protocol::Tcp as u8 && offset == 1 {
            return None;
        }
        return Some(());
    }
    if fragment & 0x2000 != 0 {
        packet.fragment = Fragment::First;
    }
    transport::parse(frame, at + header_length, end, packet)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_rule_asks_is_read_too() {
        let mut frame = [0u8; 20];
        frame[0] = 0x45;
        frame[3] = 20;
        frame[8] = 61;
        frame[9] = 47;
        let mut packet = Packet {
            family: Family::V6,
            ..Packet::default()
        };
        assert_eq!(parse(frame.as_slice(), 0, &mut packet), Some(()));
        assert_eq!(
            (packet.family, packet.hop_limit, packet.protocol_number),
            (Family::V4, 61, 47)
        );
    }
}
