//! Where a verdict is counted: one closed numbering for the kernel's counters and all who read them.

use crate::bounds::SERVICES_MAX;
use crate::lookup::Tables;
use crate::verdict::{Judgement, Reason, Verdict};

/// Counters of verdicts without a service: 32 for each verdict.
const GENERAL: u32 = 96;
/// Counters of one service: `allowed`, then seven reasons dropped, then the same observed.
const PER_SERVICE: u32 = 16;
/// All of them.
pub const COUNTERS: u32 = GENERAL + SERVICES_MAX * PER_SERVICE;

/// Packets of sources that had to share another's bucket: a place that no reason has.
pub const SHARED_SOURCES: u32 = 31;

const _: () = assert!(Reason::ALL.len() <= SHARED_SOURCES as usize);

/// Where a judgement is counted; always below `COUNTERS`.
#[inline(always)]
pub fn index(verdict: Verdict, reason: Reason, service: u32) -> u32 {
    if service < SERVICES_MAX {
        GENERAL + service * PER_SERVICE + service_slot(verdict, reason)
    } else {
        verdict as u32 * 32 + reason as u32
    }
}

#[inline(always)]
fn service_slot(verdict: Verdict, reason: Reason) -> u32 {
    let reason = (reason as u32).wrapping_sub(Reason::Unlisted as u32);
    if reason > Reason::LimitService as u32 - Reason::Unlisted as u32 {
        return 0;
    }
    if verdict as u8 == Verdict::Observe as u8 {
        reason + 8
    } else {
        reason + 1
    }
}

/// Every (verdict, reason) that a service can have, for readers.
pub fn service_reasons() -> impl Iterator<Item = (Verdict, Reason)> {
    let refused = Reason::ALL
        .into_iter()
        .filter(|reason| reason.names_service() && *reason != Reason::Allowed);
    core::iter::once((Verdict::Pass, Reason::Allowed))
        .chain(refused.clone().map(|reason| (Verdict::Drop, reason)))
        .chain(refused.map(|reason| (Verdict::Observe, reason)))
}

/// Every (verdict, reason) without a service, for readers: fragments are charged to grants without naming one.
pub fn general_reasons() -> impl Iterator<Item = (Verdict, Reason)> {
    Verdict::ALL
        .into_iter()
        .flat_map(|verdict| Reason::ALL.into_iter().map(move |reason| (verdict, reason)))
        .filter(|(verdict, reason)| reason.fits(*verdict) && (!reason.names_service() || charged(*reason)))
}

/// The levels that a listed fragment is charged at.
fn charged(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::LimitSource | Reason::LimitGrant | Reason::LimitPublisher
    )
}

/// Counts one judgement; what its owner used, `admit` has counted.
#[inline(always)]
pub fn account<T: Tables>(tables: &T, judgement: &Judgement) {
    tables.count(
        index(judgement.verdict, judgement.reason, judgement.service),
        judgement.bytes,
    );
    tables.count_interface(judgement.verdict as u8);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::NO_SERVICE;
    use std::collections::HashSet;

    #[test]
    fn every_count_has_a_place_of_its_own() {
        let mut seen = HashSet::new();
        for (verdict, reason) in general_reasons() {
            assert!(seen.insert(index(verdict, reason, NO_SERVICE)));
        }
        for service in [0, 1, SERVICES_MAX - 1] {
            for (verdict, reason) in service_reasons() {
                assert!(
                    seen.insert(index(verdict, reason, service)),
                    "{verdict:?} {reason:?} {service}"
                );
            }
        }
        assert!(seen.iter().all(|index| *index < COUNTERS));
    }

    #[test]
    fn the_two_lists_hold_every_pair_of_the_contract_once() {
        assert_eq!(service_reasons().count(), 15);
        let all: HashSet<_> = general_reasons().chain(service_reasons()).collect();
        let fitting = Verdict::ALL
            .into_iter()
            .flat_map(|verdict| Reason::ALL.into_iter().map(move |reason| (verdict, reason)))
            .filter(|(verdict, reason)| reason.fits(*verdict));
        assert_eq!(all, fitting.collect());
    }

    #[test]
    fn only_levels_that_charge_fragments_count_without_a_service() {
        use Reason::{LimitGrant, LimitPublisher, LimitSource};
        let charged: HashSet<_> = general_reasons()
            .filter(|(_, reason)| reason.names_service())
            .collect();
        let refusals = [Verdict::Drop, Verdict::Observe].into_iter();
        let levels = |verdict| [LimitSource, LimitGrant, LimitPublisher].map(|reason| (verdict, reason));
        assert_eq!(charged, refusals.flat_map(levels).collect());
    }

    /// Pinned counters outlive the program: another numbering is another layout version.
    #[test]
    fn the_numbering_is_the_pinned_one() {
        assert_eq!(COUNTERS, 96 + 1024 * 16);
        assert_eq!(SHARED_SOURCES, 31);
        // What names no service has no place of its own at one.
        assert_eq!(index(Verdict::Drop, Reason::LimitIcmp, 5), 96 + 5 * 16);
        assert_eq!(index(Verdict::Observe, Reason::Internal, 5), 96 + 5 * 16);
        assert_eq!(index(Verdict::Observe, Reason::Internal, NO_SERVICE), 2 * 32 + 18);
        assert_eq!(index(Verdict::Drop, Reason::Other, SERVICES_MAX), 32 + 3);
        assert_eq!(index(Verdict::Pass, Reason::Allowed, 0), 96);
        assert_eq!(index(Verdict::Drop, Reason::Unlisted, 1), 96 + 16 + 1);
        assert_eq!(
            index(Verdict::Observe, Reason::LimitService, 1023),
            96 + 1023 * 16 + 14
        );
    }
}
