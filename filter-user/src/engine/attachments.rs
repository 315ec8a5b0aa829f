//! Which interfaces are filtered and which should be: what the policy means on this host, as it was tried and as it is.
//!
//! Also under which interfaces packets are counted: a bond's members under their bond.

use filter_common::bounds::INTERFACES_MAX;

use super::compile::Occasion;
use super::error::FilterError;
use super::snapshot::{AttachMode, InterfaceState};
use crate::kernel::attach::{self, Entry};
use crate::kernel::choice::Choice;
use crate::kernel::interfaces::{Hook, Interface};
use crate::kernel::pins::Pins;
use crate::kernel::slots::Counted;
use crate::policy::model::Attach;

/// The interfaces of the policy in force.
#[derive(Clone, Debug, Default)]
pub(super) struct Attachments {
    pub(super) states: Vec<InterfaceState>,
    /// Why something is not filtered that should be: its interface, where there is one, and the reason.
    pub(super) troubles: Vec<(Option<String>, String)>,
    /// What was chosen when the generation was loaded, as it was then.
    tried: Vec<Interface>,
    /// Which of these could not be attached to.
    refused: Vec<u32>,
}

impl Attachments {
    /// Attaches to all that were chosen. Where the host has changed, what cannot be attached to is left out and told.
    pub(super) fn attach(
        &mut self,
        entry: &mut Entry,
        pins: &Pins,
        choice: &Choice,
        wanted: Attach,
        occasion: Occasion,
    ) -> Result<(), FilterError> {
        let mut now = Self {
            tried: choice.interfaces.clone(),
            ..Self::default()
        };
        for interface in &choice.interfaces {
            let name = &interface.name;
            match entry.attach(interface, wanted, pins) {
                Ok(attached) => {
                    say_mode(&attached, wanted);
                    let mode = mode(attached.generic);
                    if !self.is_attached(name) {
                        tracing::info!(interface = name, mode = mode.as_str(), "filtering");
                    }
                    now.show(name, attached.index, mode, true);
                }
                Err(error) if occasion == Occasion::Change => {
                    now.refused.push(interface.index);
                    now.show(name, interface.index, mode(wanted == Attach::Generic), false);
                    now.troubles.push((Some(name.clone()), error.to_string()));
                }
                Err(error) => return Err(error.into()),
            }
        }
        now.leave_out(choice, &self.states, wanted);
        now.say(&self.troubles);
        *self = now;
        Ok(())
    }

    /// Looks whether what should be filtered is, and whether the policy means something else by now.
    pub(super) fn look(
        &mut self,
        choice: &Choice,
        present: &[(Interface, Option<u32>)],
        ours: u32,
        pins: &Pins,
        wanted: Attach,
    ) -> Look {
        let before = self.clone();
        let find = |name: &str| present.iter().map(|(found, _)| found).find(|i| i.name == name);
        let named = |name: &str| {
            choice
                .left_out
                .iter()
                .any(|left| left.interface.as_deref() == Some(name))
        };
        for state in &mut self.states {
            let now = choice.interfaces.iter().find(|now| now.index == state.ifindex);
            if let (None, Some(now)) = (find(&state.name), now) {
                // Filtered all along: its link follows the interface, whatever it is called.
                tracing::info!(interface = state.name, "is called {} now", now.name);
                match pins.rename_link(&state.name, &now.name) {
                    Ok(()) => state.name.clone_from(&now.name),
                    Err(error) => {
                        tracing::error!(interface = state.name, "its link keeps that name: {error}")
                    }
                }
            }
        }
        self.states.retain(|state| {
            let kept = find(&state.name).is_some() || named(&state.name);
            if !kept {
                tracing::info!(interface = state.name, "is gone");
                // Its link went with it; the pin of that is all there is.
                if let Err(error) = attach::unpin(pins, &state.name) {
                    tracing::warn!(interface = state.name, "its link stays pinned: {error}");
                }
            }
            kept
        });
        for state in &mut self.states {
            state.attached =
                find(&state.name).is_some_and(|interface| interface.hook.programs().any(|id| id == ours));
        }
        let refused = |name: &Option<String>| {
            let interface = name.as_deref().and_then(find);
            interface.is_some_and(|interface| before.refused.contains(&interface.index))
        };
        self.troubles.retain(|(name, _)| refused(name));
        let states = self.states.clone();
        self.leave_out(choice, &states, wanted);
        self.say(&before.troubles);
        for is in self.states.iter().filter(|state| !state.attached) {
            if before.is_attached(&is.name) {
                tracing::error!(interface = is.name, "is not filtered any more");
            }
        }
        Look {
            shown: before.states != self.states || before.troubles != self.troubles,
            moved: self.moved(choice),
        }
    }

    /// Whether there is an interface that the generation does not know as it is. One that is gone does no harm in it.
    fn moved(&self, choice: &Choice) -> bool {
        choice.interfaces.iter().any(|now| {
            let tried = self.tried.iter().find(|tried| tried.index == now.index);
            tried.is_none_or(|tried| {
                let again =
                    self.refused.contains(&now.index) && (tried.hook, tried.mtu) != (now.hook, now.mtu);
                tried.name != now.name || tried.members != now.members || again
            })
        })
    }

    /// The names of interfaces, and their numbers.
    pub(super) fn numbers(&self) -> Vec<(&str, u32)> {
        let states = self.states.iter();
        states.map(|state| (state.name.as_str(), state.ifindex)).collect()
    }

    fn is_attached(&self, name: &str) -> bool {
        self.states
            .iter()
            .any(|state| state.name == name && state.attached)
    }

    fn show(&mut self, name: &str, ifindex: u32, mode: AttachMode, attached: bool) {
        self.states.push(InterfaceState {
            name: name.to_owned(),
            ifindex,
            mode,
            attached,
        });
    }

    /// Adds what is left out, as it was last seen.
    fn leave_out(&mut self, choice: &Choice, last: &[InterfaceState], wanted: Attach) {
        for left in &choice.left_out {
            if let Some(name) = &left.interface
                && !self.states.iter().any(|state| state.name == *name)
            {
                let seen = last.iter().find(|state| state.name == *name);
                let index = seen.map_or(0, |state| state.ifindex);
                let mode = seen.map_or(mode(wanted == Attach::Generic), |state| state.mode);
                self.show(name, index, mode, false);
            }
            self.troubles.push((left.interface.clone(), left.why.to_string()));
        }
    }

    /// Each reason once, when it is new.
    fn say(&self, before: &[(Option<String>, String)]) {
        for trouble in self.troubles.iter().filter(|trouble| !before.contains(trouble)) {
            let (interface, why) = trouble;
            match interface {
                Some(name) => tracing::error!(interface = name, "is not filtered: {why}"),
                None => tracing::error!("{why}"),
            }
        }
    }

    /// What is not filtered and should be, a sentence each.
    pub(super) fn unfiltered(&self) -> Vec<String> {
        let why = |name: &str| {
            let known = self.troubles.iter().find(|(of, _)| of.as_deref() == Some(name));
            known.map_or(String::new(), |(_, why)| format!(": {why}"))
        };
        let states = self.states.iter().filter(|state| !state.attached);
        let states =
            states.map(|state| format!("interface {} is not filtered{}", state.name, why(&state.name)));
        let nowhere = self.troubles.iter().filter(|(of, _)| of.is_none());
        states.chain(nowhere.map(|(_, why)| why.clone())).collect()
    }
}

/// What a look has found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// Something is shown otherwise.
    pub shown: bool,
    /// There are interfaces to attach to or to count by.
    pub moved: bool,
}

fn mode(generic: bool) -> AttachMode {
    if generic {
        AttachMode::Generic
    } else {
        AttachMode::Native
    }
}

fn say_mode(attached: &attach::Attached, wanted: Attach) {
    if let Some(why) = &attached.fallback {
        tracing::warn!(
            interface = attached.interface,
            "the driver takes no XDP program ({why}): attached in generic mode, which costs more a packet"
        );
    }
    let follows = match wanted {
        Attach::Auto => true,
        Attach::Native => !attached.generic,
        Attach::Generic => attached.generic,
    };
    if !follows {
        tracing::warn!(
            interface = attached.interface,
            "stays attached as it was: `attach` is followed after `keyfence detach --yes` and a start"
        );
    }
}

/// What is counted: all that were chosen, and by its name what is not there now. Counts of what returns go on.
pub(super) fn placed(choice: &Choice) -> Vec<Interface> {
    let away = choice.left_out.iter().filter_map(|left| left.interface.clone());
    let away = away.map(|name| Interface {
        name,
        index: 0,
        ethernet: true,
        mtu: 0,
        hook: Hook::default(),
        members: Vec::new(),
    });
    let mut placed: Vec<Interface> = choice.interfaces.iter().cloned().chain(away).collect();
    placed.truncate(INTERFACES_MAX as usize);
    placed
}

pub(super) fn counted(placed: &[Interface]) -> Vec<Counted<'_>> {
    let counted = placed.iter().map(|interface| Counted {
        name: &interface.name,
        members: interface.members.len(),
    });
    counted.collect()
}

/// The interfaces' numbers, and their members', by the slots they are counted in; 0 is nobody's.
pub(super) fn by_slot(placed: &[Interface], slots: &[Vec<u32>]) -> Vec<u32> {
    let mut numbers = vec![0; slots.iter().flatten().max().map_or(0, |last| *last as usize + 1)];
    for (interface, slots) in placed.iter().zip(slots) {
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
    fn what_comes_or_is_made_anew_is_noticed_and_what_goes_is_not() {
        let attachments = Attachments {
            tried: vec![interface("bond0", 9, &[4]), interface("eth2", 6, &[])],
            refused: vec![6],
            ..Attachments::default()
        };
        let moved = |interfaces: &[Interface]| {
            attachments.moved(&Choice {
                interfaces: interfaces.to_vec(),
                left_out: Vec::new(),
            })
        };
        let [bond, eth2] = [interface("bond0", 9, &[4]), interface("eth2", 6, &[])];
        assert!(!moved(&[bond.clone(), eth2.clone()]));
        assert!(!moved(std::slice::from_ref(&bond)));
        assert!(moved(&[interface("bond0", 9, &[4, 5]), eth2.clone()]));
        assert!(moved(&[interface("bond0", 9, &[]), eth2.clone()]));
        assert!(moved(&[bond.clone(), interface("eth2", 7, &[])]));
        assert!(moved(&[bond.clone(), eth2.clone(), interface("eth3", 8, &[])]));
        // One that was refused is tried again as soon as it is another than it was.
        let freed = Interface { mtu: 9000, ..eth2 };
        assert!(moved(&[bond, freed]));
    }
}
