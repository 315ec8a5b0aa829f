//! Bends the bytes of a frame that was built: flips, cuts, lengths, moved and repeated pieces.

use super::Rng;

/// Where headers are; what lies beyond is payload.
const HEADERS: usize = 110;
const TELLING: [u8; 14] = [0, 1, 4, 6, 17, 43, 44, 45, 51, 58, 59, 60, 0x81, 0xff];

/// One to three bends.
pub(super) fn bend(rng: &mut Rng, bytes: &mut Vec<u8>) {
    for _ in 0..1 + rng.below(3) {
        let header = HEADERS.min(bytes.len());
        let at = rng.below(header);
        match rng.below(8) {
            0 | 1 => flip(rng, bytes, at),
            2 => bytes.truncate(at.max(14)),
            3 => bytes.truncate(bytes.len() - rng.below(8).min(bytes.len() - 14)),
            4 => replace(rng, bytes, at),
            5 => length(rng, bytes),
            6 => shuffle(rng, bytes),
            _ => {
                // A piece of eight again, as an extension header more.
                let piece = bytes[at..(at + 8).min(bytes.len())].to_vec();
                bytes.splice(at..at, piece);
            }
        }
        if bytes.len() < 14 {
            bytes.resize(14, 0);
        }
    }
}

fn flip(rng: &mut Rng, bytes: &mut [u8], at: usize) {
    if let Some(byte) = bytes.get_mut(at) {
        *byte ^= 1 << rng.below(8);
    }
}

fn replace(rng: &mut Rng, bytes: &mut [u8], at: usize) {
    let value = if rng.chance(60) {
        rng.pick(&TELLING)
    } else {
        rng.byte()
    };
    if let Some(byte) = bytes.get_mut(at) {
        *byte = value;
    }
}

/// The length fields of IPv4 and IPv6 behind no tag, or the length byte of an extension header.
fn length(rng: &mut Rng, bytes: &mut [u8]) {
    let at = rng.pick(&[14, 16, 17, 18, 19, 20, 38, 39, 46, 55, 58, 59, 63]);
    let value = if rng.chance(50) {
        rng.below(64) as u8
    } else {
        rng.byte()
    };
    if let Some(byte) = bytes.get_mut(at) {
        *byte = value;
    }
}

/// Two pieces of eight after the IPv6 header change places.
fn shuffle(rng: &mut Rng, bytes: &mut [u8]) {
    let pieces = bytes.len().saturating_sub(54) / 8;
    if pieces < 2 {
        return;
    }
    let (a, b) = (54 + 8 * rng.below(pieces), 54 + 8 * rng.below(pieces));
    for step in 0..8 {
        bytes.swap(a + step, b + step);
    }
}
