//! A change from what is said of prefixes to what is written: worked out in the model first, with all that could stop
//! it, then written in one go.

use ipnet::IpNet;

use super::family::{Ground, Say};
use super::words::Draft;
use super::{Deny, Live, Stop};
use crate::compiler::Key;
use crate::kernel::edit::Write;

/// Something said of prefixes, all at once.
pub(super) struct Step {
    v4: Vec<Key<4>>,
    v6: Vec<Key<16>>,
    say: Say,
}

impl Step {
    pub(super) fn of<'s>(sources: impl IntoIterator<Item = &'s IpNet>, say: Say) -> Self {
        let mut step = Self {
            v4: Vec::new(),
            v6: Vec::new(),
            say,
        };
        for source in sources {
            match Keyed::of(source) {
                Keyed::V4(key) => step.v4.push(key),
                Keyed::V6(key) => step.v6.push(key),
            }
        }
        step.v4.sort_unstable();
        step.v4.dedup();
        step.v6.sort_unstable();
        step.v6.dedup();
        step
    }
}

/// A prefix of either family.
pub(super) enum Keyed {
    V4(Key<4>),
    V6(Key<16>),
}

impl Keyed {
    pub(super) fn of(source: &IpNet) -> Self {
        match source {
            IpNet::V4(net) => Self::V4(Key::cut(net.addr().octets(), net.prefix_len())),
            IpNet::V6(net) => Self::V6(Key::cut(net.addr().octets(), net.prefix_len())),
        }
    }

    pub(super) fn v4(self) -> Option<Key<4>> {
        match self {
            Self::V4(key) => Some(key),
            Self::V6(_) => None,
        }
    }

    pub(super) fn v6(self) -> Option<Key<16>> {
        match self {
            Self::V4(_) => None,
            Self::V6(key) => Some(key),
        }
    }
}

impl Live {
    /// A deny as it is to be, where `before` was; `None` is none.
    pub(in crate::engine) fn deny(
        &mut self,
        before: Option<&Deny>,
        after: Option<&Deny>,
    ) -> Result<(), Stop> {
        let put = after.map(|(sources, end)| Step::of(sources, Say::Denied(*end)));
        let gone = before.map(|(sources, end)| Step::of(sources, Say::Allowed(*end)));
        let writes = self.plan(put.into_iter().chain(gone))?;
        self.commit(&writes)
    }

    /// What the kernel is to hold once all this is said, one step after the other. The model has it already: it is
    /// committed next, and where it cannot be, nothing has changed.
    pub(super) fn plan(&mut self, steps: impl IntoIterator<Item = Step>) -> Result<Vec<Write>, Stop> {
        // What was planned and never committed is as if it had not been.
        self.take_back();
        let mut draft = Draft::default();
        let mut steps = steps.into_iter();
        let planned = steps.try_for_each(|step| self.step(&step, &mut draft));
        match planned.and_then(|()| self.fits()) {
            Ok(()) => Ok(draft.writes),
            Err(stop) => {
                self.take_back();
                Err(stop)
            }
        }
    }

    /// The model as it was when something was committed last.
    pub(super) fn take_back(&mut self) {
        self.v4.take_back_to(0);
        self.v6.take_back_to(0);
    }

    /// The same steps in the model alone, behind others that were tried. Those that cannot be leave nothing of them.
    pub(super) fn try_steps(&mut self, steps: &[Step]) -> Result<(), Stop> {
        let marks = (self.v4.mark(), self.v6.mark());
        let mut ground = Ground {
            edit: &self.edit,
            meanings: &mut self.meanings,
            names: &self.names,
        };
        let said = steps.iter().try_for_each(|step| {
            self.v4.say(&step.v4, step.say, &mut ground)?;
            self.v6.say(&step.v6, step.say, &mut ground).map(drop)
        });
        said.and_then(|()| self.fits()).inspect_err(|_| {
            self.v4.take_back_to(marks.0);
            self.v6.take_back_to(marks.1);
        })
    }

    fn step(&mut self, step: &Step, draft: &mut Draft) -> Result<(), Stop> {
        let mut ground = Ground {
            edit: &self.edit,
            meanings: &mut self.meanings,
            names: &self.names,
        };
        let v4 = self.v4.say(&step.v4, step.say, &mut ground)?;
        let v6 = self.v6.say(&step.v6, step.say, &mut ground)?;
        self.runs.plan_v4((&self.v4.entries, &self.edit), &v4, draft)?;
        self.runs.plan_v6((&self.v6.entries, &self.edit), &v6, draft)
    }

    /// Whether the tables hold as many sources as there are to be.
    fn fits(&self) -> Result<(), Stop> {
        let tables = [
            (&self.fill.sources_v4, self.v4.entries.count()),
            (&self.fill.sources_v6, self.v6.entries.count()),
        ];
        let mut full = tables.iter().filter_map(|(table, count)| {
            let more = count.checked_sub(table.entries()).filter(|more| *more > 0);
            table.refuses(more?)
        });
        match full.next() {
            Some((table, needed, max)) => Err(Stop::Full(table, needed, max)),
            None => Ok(()),
        }
    }

    /// Writes what was planned: all that could stop it was looked for before.
    pub(super) fn commit(&mut self, writes: &[Write]) -> Result<(), Stop> {
        self.edit.write(writes)?;
        self.v4.keep();
        self.v6.keep();
        self.fill.sources_v4.set(self.v4.entries.count());
        self.fill.sources_v6.set(self.v6.entries.count());
        self.fill.added([
            self.runs.end_v4,
            self.runs.end_v6,
            self.meanings.sources_end,
            self.meanings.grants_end,
        ]);
        Ok(())
    }
}
