//! Where interfaces are counted: a slot each that stays with its name, and for a bond one more for each member.
//!
//! In native mode a bond's frames come in by its members, so what the bond carries is the sum of all its slots. The
//! slots of members that have left stay the bond's, so that its counts never fall.

use filter_common::bounds::INTERFACES_MAX;

use crate::compiler::owner_hash;

/// An interface to be counted.
#[derive(Clone, Copy, Debug)]
pub struct Counted<'a> {
    pub name: &'a str,
    /// How many members it has.
    pub members: usize,
}

/// The slots of each interface, its own first. `owners` holds whose each slot is, as a word, 0 for nobody's. A name
/// that has a slot keeps it; a new one takes a free slot, one whose interface is not asked for, or a member's. `None`
/// where there are too few; a member without a slot is not counted.
pub(super) fn place(owners: &mut [u64], wanted: &[Counted<'_>]) -> Option<Vec<Vec<u32>>> {
    let tags: Vec<Vec<u64>> = wanted
        .iter()
        .map(|interface| tags_of(interface, owners))
        .collect();
    let own: Vec<u64> = tags.iter().map(|tags| tags[0]).collect();
    let taken: Vec<u64> = tags.iter().flatten().copied().collect();
    let mut slot_of = |tag: u64, kept: &[u64]| {
        let known = owners.iter().position(|owner| *owner == tag);
        let free = || owners.iter().position(|owner| *owner == 0);
        let idle = || owners.iter().position(|owner| !taken.contains(owner));
        let last = || owners.iter().rposition(|owner| !kept.contains(owner));
        let slot = known.or_else(free).or_else(idle).or_else(last)?;
        owners[slot] = tag;
        Some(slot as u32)
    };
    let own_slots: Option<Vec<u32>> = own.iter().map(|tag| slot_of(*tag, &own)).collect();
    let mut slots: Vec<Vec<u32>> = own_slots?.into_iter().map(|slot| vec![slot]).collect();
    for (slots, tags) in slots.iter_mut().zip(&tags) {
        slots.extend(tags[1..].iter().map_while(|tag| slot_of(*tag, &taken)));
    }
    Some(slots)
}

/// Where nobody has a slot yet. The policy's bounds leave one for each interface.
pub fn fresh(wanted: &[Counted<'_>]) -> Vec<Vec<u32>> {
    place(&mut [0; INTERFACES_MAX as usize], wanted).unwrap_or_default()
}

/// The interface's own, then its members', those that have left included.
fn tags_of(interface: &Counted<'_>, owners: &[u64]) -> Vec<u64> {
    // No interface has a colon in its name.
    let member = |number: usize| tag(&format!("{}:{number}", interface.name));
    let members = (0..owners.len()).map(|number| (number, member(number)));
    let members = members.take_while(|(number, tag)| *number < interface.members || owners.contains(tag));
    std::iter::once(tag(interface.name))
        .chain(members.map(|(_, tag)| tag))
        .collect()
}

/// A name as a word, never 0.
fn tag(name: &str) -> u64 {
    let hash = owner_hash(name);
    let (half, _) = hash.split_at(8);
    half.iter().fold(1, |tag, byte| tag << 8 | u64::from(*byte)) | 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(name: &str, members: usize) -> Counted<'_> {
        Counted { name, members }
    }

    #[test]
    fn names_keep_their_slots_and_new_ones_take_free_or_idle_ones() {
        let mut owners = [0; 3];
        let mut placed = |names: &[&str]| {
            let wanted: Vec<_> = names.iter().map(|name| counted(name, 0)).collect();
            place(&mut owners, &wanted)
        };
        assert_eq!(placed(&["a", "b"]), Some(vec![vec![0], vec![1]]));
        assert_eq!(placed(&["b", "c"]), Some(vec![vec![1], vec![2]]));
        assert_eq!(placed(&["d", "b", "c"]), Some(vec![vec![0], vec![1], vec![2]]));
        assert_eq!(placed(&["a", "b", "c", "d"]), None);
    }

    #[test]
    fn bond_has_a_slot_for_each_member_and_keeps_those_of_members_that_left() {
        let mut owners = [0; 5];
        let mut placed = |members| place(&mut owners, &[counted("bond0", members), counted("eth2", 0)]);
        assert_eq!(placed(0), Some(vec![vec![0], vec![1]]));
        assert_eq!(placed(2), Some(vec![vec![0, 2, 3], vec![1]]));
        assert_eq!(placed(1), Some(vec![vec![0, 2, 3], vec![1]]));
        // Interfaces go before members.
        assert_eq!(placed(9), Some(vec![vec![0, 2, 3, 4], vec![1]]));
        let many = [counted("bond0", 1), counted("eth2", 0), counted("eth3", 0)];
        assert_eq!(
            place(&mut owners, &many),
            Some(vec![vec![0, 2, 3], vec![1], vec![4]])
        );
        assert_eq!(place(&mut owners, &[counted("eth4", 0)]), Some(vec![vec![0]]));
    }
}
