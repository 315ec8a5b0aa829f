//! The frames: a TCP SYN to the service, 60 bytes as the wire would pad it. The source is the driver's to write.

use std::net::{Ipv4Addr, Ipv6Addr};

const TO_V4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
const TO_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10);
const PORT: u16 = 443;
const FROM_PORT: u16 = 40_000;
const LENGTH: usize = 60;
const TCP_LENGTH: u16 = 20;

/// From the second of two local devices to the first; see `live`.
pub(crate) const MAC_TO: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub(crate) const MAC_FROM: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// The frame without a source.
pub(crate) fn tcp(is_v6: bool) -> Vec<u8> {
    let mut frame = Vec::with_capacity(LENGTH);
    frame.extend(MAC_TO);
    frame.extend(MAC_FROM);
    if is_v6 {
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
        frame.extend(TCP_LENGTH.to_be_bytes());
        frame.extend([6, 64]);
        frame.extend([0; 16]);
        frame.extend(TO_V6.octets());
    } else {
        frame.extend([8, 0]);
        frame.extend(header_v4());
    }
    frame.extend(FROM_PORT.to_be_bytes());
    frame.extend(PORT.to_be_bytes());
    // Sequence and acknowledgement numbers; then 5 words, SYN, a window, no checksum.
    frame.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 255, 255, 0, 0, 0, 0]);
    frame.resize(LENGTH.max(frame.len()), 0);
    frame
}

fn header_v4() -> [u8; 20] {
    let mut header = [0; 20];
    header[0] = 0x45;
    header[2..4].copy_from_slice(&(20 + TCP_LENGTH).to_be_bytes());
    header[6] = 0x40;
    header[8] = 64;
    header[9] = 6;
    header[16..].copy_from_slice(&TO_V4.octets());
    header
}

/// The sum of the IPv4 header's words, as they lie in memory: the sender adds the source's.
pub(crate) fn checksum_base() -> u32 {
    let words = header_v4();
    let words = words
        .chunks_exact(2)
        .map(|word| u16::from_ne_bytes([word[0], word[1]]));
    words.map(u32::from).sum()
}
