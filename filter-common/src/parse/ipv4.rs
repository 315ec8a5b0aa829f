//! IPv4 (RFC 791): header, total length, fragments.

use super::{Family, Fragment, Packet, PacketBytes, Protocol, be16, packet_end, transport};

const HEADER_LENGTH_MIN: u32 = 20;

/// Reads the packet at `at`; `None` is malformed.
#[inline(always)]
pub(super) fn parse<F: PacketBytes + ?Sized>(frame: &F, at: u32, packet: &mut Packet) -> Option<()> {
    let header: [u8; 20] = frame.read(at)?;
    let header_length = (header[0] & 0x0f) as u32 * 4;
    if header[0] >> 4 != 4 || header_length < HEADER_LENGTH_MIN {
        return None;
    }
    let total = be16(header[2], header[3]);
    let end = packet_end(frame, at, total, total as u32)?;
    if end < at + header_length {
        return None;
    }
    packet.family = Family::V4;
    packet.length = end - at;
    packet.hop_limit = header[8];
    packet.protocol_number = header[9];
    packet.source = mapped([header[12], header[13], header[14], header[15]]);
    packet.destination = mapped([header[16], header[17], header[18], header[19]]);

    let fragment = be16(header[6], header[7]);
    let offset = fragment & 0x1fff;
    if offset != 0 {
        // Later fragments carry no ports (RFC 791, 3.2).
        packet.fragment = Fragment::Later;
        packet.protocol = transport::protocol(Family::V4, header[9]);
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

#[inline(always)]
fn mapped(address: [u8; 4]) -> [u8; 16] {
    let [a, b, c, d] = address;
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
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
