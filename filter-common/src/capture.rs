//! Captures: which judged packets one takes, and what stands in front of each frame that it hands on.
//!
//! The kernel's capture program asks `Wanted::takes` of what the judge has left on its desk. It decides nothing about
//! packets: the filter is the same with a capture and without.

use crate::abi::{Desk, Limit};
use crate::parse::{Address, Family};
use crate::verdict::{NO_SERVICE, Reason, Verdict};

/// What one capture takes, as its program reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Wanted {
    /// The source's prefix: its bits, and which of them count.
    pub source: Address,
    pub mask: Address,
    /// How many packets a second, and how many at once.
    pub limit: Limit,
    /// Of the source: 4 or 6; 0 is any packet, with addresses or without.
    pub family: u32,
    /// The service that the verdict names; `NO_SERVICE` is any, and none.
    pub service: u32,
    /// A bit for each verdict and for each reason, by their numbers.
    pub verdicts: u32,
    pub reasons: u32,
    /// A packet is taken where a random number is at most this: all are at `u32::MAX`.
    pub sample: u32,
    /// Bytes of a frame at most.
    pub snap: u32,
}

impl Wanted {
    /// Every packet, and all of it that a capture can hold.
    pub const ALL: Self = Self {
        source: Address { upper: 0, lower: 0 },
        mask: Address { upper: 0, lower: 0 },
        limit: Limit::NONE,
        family: 0,
        service: NO_SERVICE,
        verdicts: (1 << Verdict::ALL.len()) - 1,
        reasons: (1 << Reason::ALL.len()) - 1,
        sample: u32::MAX,
        snap: SNAP_MAX,
    };

    /// Whether a judged packet is one that is wanted; sampling and the rate come after.
    #[inline(always)]
    pub fn takes(&self, desk: &Desk) -> bool {
        let judgement = &desk.judgement;
        self.verdicts >> (judgement.verdict as u32 & 31) & 1 != 0
            && self.reasons >> (judgement.reason as u32 & 31) & 1 != 0
            && (self.service == NO_SERVICE || self.service == judgement.service)
            && (self.family == 0 || self.holds(desk))
    }

    /// Frames without addresses, and those that could not be read as far, have none in any prefix.
    #[inline(always)]
    fn holds(&self, desk: &Desk) -> bool {
        let source = desk.packet.source;
        let known = if self.family == Family::V4 as u32 {
            source.is_mapped()
        } else {
            desk.packet.family as u8 == Family::V6 as u8
        };
        known
            && (source.upper ^ self.source.upper) & self.mask.upper == 0
            && (source.lower ^ self.source.lower) & self.mask.lower == 0
    }
}

/// Bytes of a frame that a capture can hand on: the kernel's record of it has 64 KiB, with what stands in front.
pub const SNAP_MAX: u32 = 65_000;

/// What stands in front of a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Taken {
    /// Of the monotonic clock, in nanoseconds.
    pub time: u64,
    /// Of the frame, and how much of it follows.
    pub length: u32,
    pub captured: u32,
    /// By which it came in.
    pub interface: u32,
    pub service: u32,
    pub owner: u32,
    pub verdict: u8,
    pub reason: u8,
    pub reserved: [u8; 2],
}

/// What became of the packets of one interface, on one CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Counts {
    /// All that were judged.
    pub judged: u64,
    /// Those that were wanted; of them:
    pub wanted: u64,
    /// left out by sampling,
    pub unsampled: u64,
    /// beyond the rate,
    pub over: u64,
    /// and without room in the buffer.
    pub lost: u64,
}

impl Counts {
    /// Those of another CPU added.
    pub const fn and(self, other: &Self) -> Self {
        Self {
            judged: self.judged + other.judged,
            wanted: self.wanted + other.wanted,
            unsampled: self.unsampled + other.unsampled,
            over: self.over + other.over,
            lost: self.lost + other.lost,
        }
    }
}

/// Interfaces that are counted apart; the rest are counted under number 0.
pub const INTERFACES: usize = 1024;

const _: () = assert!(size_of::<Wanted>() == 80 && size_of::<Taken>() == 32 && size_of::<Counts>() == 40);
const _: () = assert!(Reason::ALL.len() <= 32);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::Packet;
    use crate::verdict::Judgement;

    fn desk(source: Address, family: Family, verdict: Verdict, reason: Reason, service: u32) -> Desk {
        Desk {
            packet: Packet {
                source,
                family,
                ..Packet::default()
            },
            judgement: Judgement {
                verdict,
                reason,
                service,
                ..Judgement::default()
            },
            ..Desk::default()
        }
    }

    #[test]
    fn verdict_reason_and_service_are_asked_together() {
        let wanted = Wanted {
            verdicts: 1 << Verdict::Drop as u32 | 1 << Verdict::Observe as u32,
            reasons: 1 << Reason::Unlisted as u32,
            service: 7,
            ..Wanted::ALL
        };
        let of = |verdict, reason, service| desk(Address::of_v4(1), Family::V4, verdict, reason, service);
        assert!(wanted.takes(&of(Verdict::Drop, Reason::Unlisted, 7)));
        assert!(wanted.takes(&of(Verdict::Observe, Reason::Unlisted, 7)));
        assert!(!wanted.takes(&of(Verdict::Pass, Reason::Unlisted, 7)));
        assert!(!wanted.takes(&of(Verdict::Drop, Reason::Ended, 7)));
        assert!(!wanted.takes(&of(Verdict::Drop, Reason::Unlisted, 8)));
        assert!(!wanted.takes(&of(Verdict::Drop, Reason::Unlisted, NO_SERVICE)));
        for verdict in Verdict::ALL {
            for reason in Reason::ALL {
                assert!(Wanted::ALL.takes(&of(verdict, reason, NO_SERVICE)));
            }
        }
    }

    #[test]
    fn a_prefix_takes_its_own_family_and_never_a_frame_without_addresses() {
        let any = |source, family| desk(source, family, Verdict::Drop, Reason::Unlisted, 0);
        let ten = Wanted {
            family: 4,
            source: Address::of_v4(0x0a00_0000),
            mask: Address {
                upper: u64::MAX,
                lower: u64::MAX << 24,
            },
            ..Wanted::ALL
        };
        assert!(ten.takes(&any(Address::of_v4(0x0aff_0102), Family::V4)));
        assert!(!ten.takes(&any(Address::of_v4(0x0bff_0102), Family::V4)));
        let all_v4 = Wanted {
            family: 4,
            ..Wanted::ALL
        };
        let all_v6 = Wanted {
            family: 6,
            ..Wanted::ALL
        };
        let (v6, none) = (Address { upper: 1, lower: 2 }, Address::default());
        assert!(all_v4.takes(&any(Address::of_v4(0), Family::V4)) && !all_v4.takes(&any(v6, Family::V6)));
        assert!(all_v6.takes(&any(v6, Family::V6)) && !all_v6.takes(&any(Address::of_v4(9), Family::V4)));
        // What could not be read, or is no IP, leaves no address.
        assert!(!all_v4.takes(&any(none, Family::V4)) && !all_v6.takes(&any(none, Family::V4)));
        assert!(Wanted::ALL.takes(&any(none, Family::V4)));
    }
}
