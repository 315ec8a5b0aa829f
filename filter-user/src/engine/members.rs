//! Under which interfaces packets are counted: a bond's members under their bond.

use crate::kernel::interfaces::Interface;
use crate::kernel::slots::Counted;

/// Each interface with its members, as the generation in force counts them.
#[derive(Debug, Default)]
pub(super) struct Members(Vec<(String, Vec<u32>)>);

impl Members {
    pub(super) fn of(chosen: &[Interface]) -> Self {
        let members = |interface: &Interface| (interface.name.clone(), interface.members.clone());
        Self(chosen.iter().map(members).collect())
    }

    /// Whether a bond has other members among what is present.
    pub(super) fn moved(&self, present: &[(Interface, Option<u32>)]) -> bool {
        let find = |name: &String| present.iter().map(|(found, _)| found).find(|i| i.name == *name);
        // A member that the policy names is counted by itself.
        let named: Vec<u32> = self
            .0
            .iter()
            .filter_map(|(name, _)| Some(find(name)?.index))
            .collect();
        self.0.iter().any(|(name, members)| {
            let now =
                find(name).map(|interface| interface.members.iter().filter(|index| !named.contains(index)));
            now.is_some_and(|now| !now.eq(members))
        })
    }
}

pub(super) fn counted(chosen: &[Interface]) -> Vec<Counted<'_>> {
    let counted = chosen.iter().map(|interface| Counted {
        name: &interface.name,
        members: interface.members.len(),
    });
    counted.collect()
}

/// The interfaces' numbers, and their members', by the slots they are counted in; 0 is nobody's.
pub(super) fn by_slot(chosen: &[Interface], slots: &[Vec<u32>]) -> Vec<u32> {
    let mut numbers = vec![0; slots.iter().flatten().max().map_or(0, |last| *last as usize + 1)];
    for (interface, slots) in chosen.iter().zip(slots) {
        let indexes = std::iter::once(&interface.index).chain(&interface.members);
        for (slot, index) in slots.iter().zip(indexes) {
            numbers[*slot as usize] = *index;
        }
    }
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::interfaces::Hook;

    fn interface(name: &str, index: u32, members: &[u32]) -> Interface {
        Interface {
            name: name.to_owned(),
            index,
            ethernet: true,
            mtu: 1500,
            hook: Hook::default(),
            members: members.to_vec(),
        }
    }

    #[test]
    fn members_are_counted_in_slots_of_their_bond() {
        let chosen = [interface("bond0", 9, &[4, 5]), interface("eth2", 6, &[])];
        assert_eq!(by_slot(&chosen, &[vec![0, 2, 3], vec![1]]), [9, 6, 4, 5]);
        // A member that has left still has its slot.
        let chosen = [interface("bond0", 9, &[5]), interface("eth2", 6, &[])];
        assert_eq!(by_slot(&chosen, &[vec![0, 2, 3], vec![1]]), [9, 6, 5, 0]);
    }

    #[test]
    fn another_member_is_noticed_and_one_that_is_named_itself_is_not() {
        let members = Members::of(&[interface("bond0", 9, &[4]), interface("eth2", 6, &[])]);
        let present = |members: &[u32]| {
            [interface("bond0", 9, members), interface("eth2", 6, &[])].map(|found| (found, None))
        };
        assert!(!members.moved(&present(&[4])));
        assert!(!members.moved(&present(&[4, 6])));
        assert!(members.moved(&present(&[4, 5])));
        assert!(members.moved(&present(&[])));
        // What is gone is told elsewhere.
        assert!(!members.moved(&[]));
    }
}
