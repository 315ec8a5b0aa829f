//! What became of a packet, and why: the closed lists of SPEC 3.
//!
//! One `Reason` for the kernel, metrics, records, the command line and the documents.

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Verdict {
    Pass = 0,
    Drop = 1,
    /// Judged a drop, let through because its service or the filter only observes.
    Observe = 2,
}

/// Why. The numbers are part of the pinned layout: a new one is added at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Reason {
    Allowed = 0,
    Management = 1,
    Essential = 2,
    Other = 3,
    NonIp = 4,
    Icmp = 5,
    Reply = 6,
    Fragment = 7,
    Malformed = 8,
    Denied = 9,
    Unlisted = 10,
    SourcePort = 11,
    Ended = 12,
    LimitSource = 13,
    LimitGrant = 14,
    LimitPublisher = 15,
    LimitService = 16,
    LimitIcmp = 17,
    Internal = 18,
}

impl Verdict {
    pub const ALL: [Verdict; 3] = [Verdict::Pass, Verdict::Drop, Verdict::Observe];
    pub const NAMES: [&str; 3] = [
        Verdict::Pass.name(),
        Verdict::Drop.name(),
        Verdict::Observe.name(),
    ];

    /// The word used everywhere outside the kernel.
    pub const fn name(self) -> &'static str {
        match self {
            Verdict::Pass => "pass",
            Verdict::Drop => "drop",
            Verdict::Observe => "observe",
        }
    }

    pub const fn from_number(number: u8) -> Option<Verdict> {
        match number {
            0 => Some(Verdict::Pass),
            1 => Some(Verdict::Drop),
            2 => Some(Verdict::Observe),
            _ => None,
        }
    }
}

impl Reason {
    pub const ALL: [Reason; 19] = [
        Reason::Allowed,
        Reason::Management,
        Reason::Essential,
        Reason::Other,
        Reason::NonIp,
        Reason::Icmp,
        Reason::Reply,
        Reason::Fragment,
        Reason::Malformed,
        Reason::Denied,
        Reason::Unlisted,
        Reason::SourcePort,
        Reason::Ended,
        Reason::LimitSource,
        Reason::LimitGrant,
        Reason::LimitPublisher,
        Reason::LimitService,
        Reason::LimitIcmp,
        Reason::Internal,
    ];

    /// The word used everywhere outside the kernel.
    pub const fn name(self) -> &'static str {
        match self {
            Reason::Allowed => "allowed",
            Reason::Management => "management",
            Reason::Essential => "essential",
            Reason::Other => "other",
            Reason::NonIp => "non-ip",
            Reason::Icmp => "icmp",
            Reason::Reply => "reply",
            Reason::Fragment => "fragment",
            Reason::Malformed => "malformed",
            Reason::Denied => "denied",
            Reason::Unlisted => "unlisted",
            Reason::SourcePort => "source-port",
            Reason::Ended => "ended",
            Reason::LimitSource => "limit-source",
            Reason::LimitGrant => "limit-grant",
            Reason::LimitPublisher => "limit-publisher",
            Reason::LimitService => "limit-service",
            Reason::LimitIcmp => "limit-icmp",
            Reason::Internal => "internal",
        }
    }

    pub const fn from_number(number: u8) -> Option<Reason> {
        if (number as usize) < Self::ALL.len() {
            Some(Self::ALL[number as usize])
        } else {
            None
        }
    }

    pub const NAMES: [&str; Self::ALL.len()] = {
        let mut names = [""; Self::ALL.len()];
        let mut at = 0;
        while at < names.len() {
            names[at] = Self::ALL[at].name();
            at += 1;
        }
        names
    };

    /// The names of those that fit a verdict, in their order; `N` is how many these are.
    pub const fn names_of<const N: usize>(verdict: Verdict) -> [&'static str; N] {
        let mut names = [""; N];
        let (mut at, mut found) = (0, 0);
        while at < Self::ALL.len() {
            if Self::ALL[at].fits(verdict) {
                names[found] = Self::ALL[at].name();
                found += 1;
            }
            at += 1;
        }
        assert!(found == N);
        names
    }

    /// Whether a packet with this verdict can have this reason.
    pub const fn fits(self, verdict: Verdict) -> bool {
        match self {
            Reason::Allowed | Reason::Management | Reason::Essential | Reason::Reply => {
                matches!(verdict, Verdict::Pass)
            }
            Reason::Other | Reason::NonIp | Reason::Icmp | Reason::Fragment => true,
            _ => !matches!(verdict, Verdict::Pass),
        }
    }

    /// Whether rules 9 or 10 give it, so that the verdict names a service.
    pub const fn names_service(self) -> bool {
        matches!(
            self,
            Reason::Allowed
                | Reason::Unlisted
                | Reason::SourcePort
                | Reason::Ended
                | Reason::LimitSource
                | Reason::LimitGrant
                | Reason::LimitPublisher
                | Reason::LimitService
        )
    }
}

/// The whole answer for one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Judgement {
    pub verdict: Verdict,
    pub reason: Reason,
    /// The service where rules 9 or 10 decided, else `NO_SERVICE`.
    pub service: u32,
    /// The owner whose bucket paid (for `limit-grant` the first tried), else `NO_OWNER`.
    pub owner: u32,
    /// The IP packet's length, or the frame's where it is not IP or malformed.
    pub bytes: u32,
}

impl Default for Judgement {
    /// What nothing was found out about.
    fn default() -> Self {
        Self {
            verdict: Verdict::Drop,
            reason: Reason::Internal,
            service: NO_SERVICE,
            owner: NO_OWNER,
            bytes: 0,
        }
    }
}

pub const NO_SERVICE: u32 = u32::MAX;
pub const NO_OWNER: u32 = u32::MAX;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_found_by_its_number() {
        for (index, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, index);
            assert_eq!(Reason::from_number(index as u8), Some(*reason));
        }
        assert_eq!(Reason::from_number(Reason::ALL.len() as u8), None);
    }

    #[test]
    fn every_verdict_has_the_reasons_of_the_contract() {
        let of = |verdict| Reason::ALL.iter().filter(|reason| reason.fits(verdict)).count();
        assert_eq!(
            (of(Verdict::Pass), of(Verdict::Drop), of(Verdict::Observe)),
            (8, 15, 15)
        );
    }
}
