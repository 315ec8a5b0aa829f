//! What of the pinned layout a filter of another layout takes over: maps that are the same in both are shared by both
//! while packets go over from one to the other, so that nothing counted or taken meanwhile is lost.
//!
//! Who changes what the maps of a part hold, or how it is read, writes the new `LAYOUT_VERSION` into its `since`.

use super::names;

/// Maps that are taken over together.
#[derive(Debug)]
pub struct Part {
    /// Since which version its maps have been as they are now.
    pub since: u32,
    pub maps: &'static [&'static str],
    /// What an operator is told where they are others.
    pub lost: &'static str,
}

/// Numbers of owners: the accounting names them too.
pub const OWNERS: usize = 0;
pub const ACCOUNTING: usize = 1;
/// The sources' own buckets.
pub const SOURCES: usize = 2;
/// Tables of a generation from which the next one reads the limits that were in force.
pub const LIMITS: usize = 3;

pub const PARTS: [Part; 4] = [
    Part {
        since: 5,
        maps: &[names::OWNER_STATE],
        lost: "what grants have counted and used starts anew",
    },
    Part {
        since: 5,
        maps: &[
            names::COUNTERS,
            names::INTERFACES,
            names::SERVICE_STATE,
            names::RECORD_HEAD,
            names::RECORD_TAGS,
            names::RECORD_LINES,
            names::RECORD_MORE,
            names::RECORD_SPILLS,
        ],
        lost: "counters start at 0, the buckets of services and publishers are full, `observe` ends, and what was \
               dropped since the last daemon ended has no record",
    },
    Part {
        since: if cfg!(feature = "next-layout") { 6 } else { 5 },
        maps: &[names::SOURCE_STATE],
        lost: "the sources' own buckets are full",
    },
    Part {
        since: 5,
        maps: &[],
        lost: "buckets whose limit is another now are full",
    },
];

/// As `Meta` tells of this layout.
pub const SINCE: [u32; 8] = {
    let mut since = [0; 8];
    let mut part = 0;
    while part < PARTS.len() {
        since[part] = PARTS[part].since;
        part += 1;
    }
    since
};

/// Which parts of a filter that tells `theirs` are as they are here. Without the owners there is no accounting, whose
/// records name them.
pub fn same(theirs: &[u32; 8]) -> [bool; PARTS.len()] {
    let mut same = core::array::from_fn(|part| SINCE[part] == theirs[part]);
    same[ACCOUNTING] &= same[OWNERS];
    same
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::LAYOUT_VERSION;

    #[test]
    fn parts_that_are_told_alike_are_the_same_and_nothing_else_is() {
        assert_eq!(same(&SINCE), [true; 4]);
        assert_eq!(same(&[0; 8]), [false; 4], "as before it was told");
        let mut other = SINCE;
        other[SOURCES] += 1;
        assert_eq!(same(&other), [true, true, false, true]);
        let mut other = SINCE;
        other[OWNERS] += 1;
        assert_eq!(same(&other), [false, false, true, true]);
    }

    #[test]
    fn every_part_is_of_a_layout_there_is_and_no_map_is_of_two() {
        let mut maps: std::vec::Vec<&str> = PARTS.iter().flat_map(|part| part.maps).copied().collect();
        assert!(
            PARTS
                .iter()
                .all(|part| (1..=LAYOUT_VERSION).contains(&part.since))
        );
        maps.sort_unstable();
        maps.windows(2).for_each(|pair| assert_ne!(pair[0], pair[1]));
        // What is in no part belongs to the entry program of a layout.
        let own = [names::META, names::GENERATION, names::SWITCH, names::DESK];
        let kept = |name: &&&str| !own.contains(*name);
        assert!(
            names::PERSISTENT
                .iter()
                .filter(kept)
                .all(|name| maps.contains(name))
        );
    }
}
