//! A record's key as the words of a line, and what a packet adds to it.

use super::{BYTES_SHIFT, META};
use crate::parse::{Family, Packet};
use crate::verdict::Judgement;

/// Last to be set in a key's last word: the line is whole.
pub(super) const READY: u64 = 1 << 63;
const CHECK_SHIFT: u32 = 52;
const CHECK: u64 = 0x7ff << CHECK_SHIFT;

/// What a packet adds to its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sighting {
    pub bytes: u32,
    pub source_port: u16,
    pub tcp_flags: u8,
}

impl Sighting {
    #[inline(always)]
    pub fn of(packet: &Packet, bytes: u32) -> Self {
        Self {
            bytes,
            source_port: packet.source_port,
            tcp_flags: packet.tcp_flags,
        }
    }

    #[inline(always)]
    pub(super) fn count(self) -> u64 {
        1 | (self.bytes as u64) << BYTES_SHIFT
    }

    /// Bits that are only ever set: flags, that there was another port than the first, and which ports, roughly.
    #[inline(always)]
    pub(super) fn ports(self, first: u16) -> u64 {
        let mixed = (self.source_port as u32).wrapping_mul(40_503) & 0xffff;
        let several = (self.source_port != first) as u64;
        (self.tcp_flags as u64) << 32 | several << 40 | 1 << (41 + ((mixed * 23) >> 16))
    }
}

/// A record's key in the words of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    pub words: [u64; 6],
}

/// 0: the source is not known (what is no IP, or broken before it).
pub(super) const FAMILY_V4: u64 = 1;
pub(super) const FAMILY_V6: u64 = 2;

impl Key {
    #[inline(always)]
    pub fn of(packet: &Packet, judgement: &Judgement, interface: u32) -> Self {
        let family = if matches!(packet.family, Family::V6) {
            FAMILY_V6
        } else {
            packet.source.is_mapped() as u64
        };
        let service = judgement.service as u64 & 0xffff;
        Self {
            words: [
                packet.source.upper,
                packet.source.lower,
                packet.destination.upper,
                packet.destination.lower,
                judgement.owner as u64 | service << 32 | (packet.destination_port as u64) << 48,
                interface as u64
                    | (packet.protocol_number as u64) << 32
                    | (judgement.reason as u64) << 40
                    | (judgement.verdict as u64) << 48
                    | family << 50,
            ],
        }
    }

    /// Sums of products in parallel: one pass of the multiplier, not six in a row.
    #[inline(always)]
    pub fn hash(&self, seed: u64) -> u64 {
        let [a, b, c, d, e, f] = self.words;
        let sum = (a ^ seed)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .wrapping_add((b ^ seed).wrapping_mul(0xc2b2_ae3d_27d4_eb4f))
            .wrapping_add(c.wrapping_mul(0x1656_67b1_9e37_79f9))
            .wrapping_add(d.wrapping_mul(0x27d4_eb2f_1656_67c5))
            .wrapping_add(e.wrapping_mul(0x85eb_ca77_c2b2_ae63))
            .wrapping_add(f.wrapping_mul(0xff51_afd7_ed55_8ccd));
        let mixed = (sum ^ sum >> 32).wrapping_mul(0x9e6c_63d0_876a_68ee | 1);
        mixed ^ mixed >> 29
    }

    /// The last word as it stands in a line.
    #[inline(always)]
    pub(super) fn meta(&self, hash: u64) -> u64 {
        self.words[META] | (hash << CHECK_SHIFT) & CHECK | READY
    }
}
