//! Of sets of source ports: counted, shared, freed, refused.

use super::*;

const ENTRIES: u32 = 10_000;

fn ranges(of: &[(u16, u16)]) -> Vec<PortRange> {
    of.iter()
        .map(|(first, last)| PortRange {
            first: *first,
            last: *last,
        })
        .collect()
}

/// Ports of which each number has its own.
fn own(number: u32) -> Vec<PortRange> {
    let number = number as u16;
    ranges(&[(0, 0), (number + 2, number + 2)])
}

fn none() -> PortSets {
    PortSets::of(&[0; WORDS], &[])
}

#[test]
fn ports_are_the_same_bits_and_ranges_however_they_were_written() {
    for (written, read) in [
        (vec![(0, 65_535)], vec![(0, 65_535)]),
        (vec![(0, 63), (64, 127)], vec![(0, 127)]),
        (vec![(63, 64), (10, 10), (5, 12)], vec![(5, 12), (63, 64)]),
        (vec![(65_535, 65_535), (0, 0)], vec![(0, 0), (65_535, 65_535)]),
        (vec![(1, 62), (64, 64)], vec![(1, 62), (64, 64)]),
    ] {
        let written = ranges(&written);
        assert_eq!(*ports(&written), *ranges(&read), "{written:?}");
        let words = words_of(&written);
        for port in 0..=u16::MAX {
            let is = written
                .iter()
                .any(|range| (range.first..=range.last).contains(&port));
            assert_eq!(
                words[usize::from(port) / 64] >> (port % 64) & 1 == 1,
                is,
                "{port}"
            );
        }
    }
}

#[test]
fn set_is_one_for_all_who_ask_for_it_and_goes_with_the_last_of_them() {
    let mut sets = none();
    let first = sets.take(1, &ranges(&[(1, 2), (4, 4)]), ENTRIES).unwrap();
    assert_eq!((first.number, first.words.is_some()), (1, true));
    let again = sets.take(2, &ranges(&[(4, 4), (1, 2)]), ENTRIES).unwrap();
    assert_eq!((again.number, again.words), (1, None));
    let other = sets.take(1, &own(7), ENTRIES).unwrap();
    assert_eq!((other.number, sets.count(), sets.entries()), (2, 2, 3));
    sets.give_back(1, &ranges(&[(1, 2), (4, 4)]));
    assert!(!sets.waits() && sets.count() == 2);
    sets.give_back(2, &ranges(&[(1, 2), (4, 4)]));
    assert!(sets.waits() && sets.count() == 1);
    // No packet may find another set under the number that it has read.
    assert_eq!(sets.take(1, &own(8), ENTRIES).unwrap().number, 3);
    sets.settle();
    assert_eq!(sets.take(1, &own(9), ENTRIES).unwrap().number, 1);
    assert!(!sets.waits());
}

#[test]
fn table_without_a_free_entry_has_no_more_sets() {
    let mut sets = none();
    assert!(sets.take(1, &own(0), 2).is_some());
    assert_eq!(sets.take(1, &own(1), 2), None);
    assert_eq!((sets.count(), sets.entries()), (1, 2));
    assert!(sets.take(1, &own(0), 2).is_some(), "it is there");
}

#[test]
fn what_a_compile_gave_is_known_with_its_users() {
    let words = [vec![0; WORDS], words_of(&own(3)), words_of(&own(4))].concat();
    let owner = |publisher, port_set| Owner {
        publisher,
        port_set,
        ..Owner::default()
    };
    let owners = [owner(0, 0), owner(0, 1), owner(9, 1), owner(9, 2), owner(9, 2)];
    let mut sets = PortSets::of(&words, &owners);
    assert_eq!((sets.count(), sets.entries(), sets.of[&9]), (2, 3, 2));
    assert_eq!(sets.take(9, &own(3), ENTRIES).unwrap().number, 1);
    for _ in 0..2 {
        sets.give_back(9, &own(4));
        sets.give_back(9, &own(3));
    }
    assert_eq!((sets.count(), sets.of[&9]), (1, 0), "the policy's stays");
    sets.settle();
    assert_eq!(sets.take(9, &own(5), ENTRIES).unwrap().number, 2);
}

#[test]
fn last_sets_are_kept_for_publishers_that_have_few() {
    let mut sets = none();
    let asks = |sets: &PortSets, publisher, ports: &[u32]| {
        let mut draft = PortDraft::default();
        let each = ports.iter().map(|port| own(*port));
        each.for_each(|ranges| draft.change(sets, publisher, &ranges, 1));
        draft.refuses_any(sets)
    };
    let most = PORT_SETS_MAX - PORT_SETS_KEPT;
    for number in 0..most {
        assert_eq!(asks(&sets, 1, &[number]), None, "{number}");
        sets.take(1, &own(number), ENTRIES).unwrap();
    }
    assert_eq!(asks(&sets, 1, &[most]), Some(NoSet::Kept(most)));
    assert_eq!(asks(&sets, 1, &[0]), None, "what is there takes no room");
    for number in 0..PORT_SETS_FEW {
        assert_eq!(asks(&sets, 2, &[most + number]), None);
        sets.take(2, &own(most + number), ENTRIES).unwrap();
    }
    let next = most + PORT_SETS_FEW;
    assert_eq!(asks(&sets, 2, &[next]), Some(NoSet::Kept(PORT_SETS_FEW)));
    assert_eq!(asks(&sets, 2, &[0]), None, "another's takes no room either");
    for (number, publisher) in (next..PORT_SETS_MAX).zip(100u32..) {
        assert_eq!(asks(&sets, publisher, &[number]), None);
        sets.take(publisher, &own(number), ENTRIES).unwrap();
    }
    let beyond = PORT_SETS_MAX + 1;
    assert_eq!(asks(&sets, 5, &[beyond]), Some(NoSet::Full(beyond)));
    let two = [beyond, beyond + 1];
    assert_eq!(asks(&sets, 5, &two), Some(NoSet::Full(beyond + 1)));
    // What goes makes room for what comes with it.
    let mut draft = PortDraft::default();
    draft.change(&sets, 1, &own(beyond), 1);
    assert!(draft.refuses_any(&sets).is_some() && draft.more() == 1);
    draft.change(&sets, 1, &own(4), -1);
    assert!(draft.refuses_any(&sets).is_none() && draft.more() == 0);
}
