//! Sets of source ports in the tables in force: taken with a grant, given back with it, and whether there are enough.

use filter_common::abi::names;

use super::{Live, Stop};
use crate::bindings::seam::{Change, Grantee};
use crate::compiler::Numbers;
use crate::compiler::port_sets::{NoSet, PortDraft, are_set};
use crate::engine::grantees::Grantees;
use crate::policy::bounds::PORT_SETS_MAX;
use crate::policy::model::PortRange;

impl From<NoSet> for Stop {
    fn from(no: NoSet) -> Self {
        match no {
            NoSet::Full(needed) => Self::Full(names::PORT_SETS, needed.into(), PORT_SETS_MAX.into()),
            NoSet::Kept(has) => Self::Kept(names::PORT_SETS, has.into()),
        }
    }
}

impl Live {
    /// The number of an owner's set, written where it was not there. Where numbers are free but for packets that may
    /// still read what was there, it waits for these.
    pub(super) fn take_port_set(&mut self, publisher: u32, ranges: &[PortRange]) -> Result<u32, Stop> {
        let entries = self.edit.port_sets();
        let mut taken = self.port_sets.take(publisher, ranges, entries);
        if taken.is_none() && self.port_sets.waits() {
            if let Err(error) = tokio::task::block_in_place(|| self.edit.wait_for_packets()) {
                tracing::warn!("packets do not come to rest, and a change takes new tables: {error}");
                return Err(Stop::Generation);
            }
            self.port_sets.settle();
            taken = self.port_sets.take(publisher, ranges, entries);
        }
        let taken = taken.ok_or(Stop::Generation)?;
        if let Some(words) = &taken.words {
            self.edit.set_port_set(taken.number, words)?;
            self.tell_port_sets();
        }
        Ok(taken.number)
    }

    /// An owner has this grant no more.
    pub(super) fn drop_port_set(&mut self, numbers: &Numbers, before: Option<&Grantee>) {
        if let Some(before) = before.filter(|before| are_set(&before.source_ports)) {
            let publisher = publisher_of(numbers, before);
            self.port_sets.give_back(publisher, &before.source_ports);
            self.tell_port_sets();
        }
    }

    fn tell_port_sets(&self) {
        self.fill.port_sets.set(self.port_sets.count().into());
        self.fill.port_set_entries.set(self.port_sets.entries().into());
    }

    /// Whether there may be as many sets as these changes come to, all together.
    pub(in crate::engine) fn port_sets_fit(
        &self,
        numbers: &Numbers,
        grantees: &Grantees,
        changes: &[Change],
    ) -> Result<(), Stop> {
        let has_set =
            |change: &Change| matches!(change, Change::Put(grantee) if are_set(&grantee.source_ports));
        if !changes.iter().any(has_set) {
            return Ok(());
        }
        let mut draft = PortDraft::default();
        for change in changes {
            let (owner, after) = match change {
                Change::Put(grantee) => (&grantee.credential, Some(grantee)),
                Change::Remove { owner } => (owner, None),
                _ => continue,
            };
            let before = grantees.get(numbers.owner(owner), owner);
            self.draft_port_set(numbers, (before, after), &mut draft);
        }
        draft
            .refuses_any(&self.port_sets)
            .map_or(Ok(()), |no| Err(no.into()))
    }

    /// The same of one grant behind others. What there may not be leaves nothing in the draft.
    pub(super) fn try_port_set(
        &self,
        numbers: &Numbers,
        (before, after): (Option<&Grantee>, &Grantee),
        draft: &mut PortDraft,
    ) -> Result<(), Stop> {
        let known = draft.more();
        self.draft_port_set(numbers, (before, Some(after)), draft);
        let publisher = publisher_of(numbers, after);
        match draft.refuses(&self.port_sets, publisher) {
            Some(no) if draft.more() > known => {
                self.take_back_port_set(numbers, (before, after), draft);
                Err(no.into())
            }
            _ => Ok(()),
        }
    }

    /// The draft as it was before one that was tried.
    pub(super) fn take_back_port_set(
        &self,
        numbers: &Numbers,
        (before, after): (Option<&Grantee>, &Grantee),
        draft: &mut PortDraft,
    ) {
        self.draft_port_set(numbers, (Some(after), before), draft);
    }

    fn draft_port_set(
        &self,
        numbers: &Numbers,
        (before, after): (Option<&Grantee>, Option<&Grantee>),
        draft: &mut PortDraft,
    ) {
        for (grantee, by) in [(after, 1), (before, -1)] {
            if let Some(grantee) = grantee.filter(|grantee| are_set(&grantee.source_ports)) {
                let publisher = publisher_of(numbers, grantee);
                draft.change(&self.port_sets, publisher, &grantee.source_ports, by);
            }
        }
    }
}

fn publisher_of(numbers: &Numbers, grantee: &Grantee) -> u32 {
    numbers.publisher(&grantee.publisher).unwrap_or(0)
}
