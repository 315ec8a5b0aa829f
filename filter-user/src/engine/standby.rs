//! The policy that comes back unless the one in force is confirmed: its tables are kept whole beside those in force,
//! and up with what is pushed.
//!
//! The kernel turns back by itself (`kernel::switch`), also where no daemon runs. So what is taken away is taken out of
//! these tables before anybody is told that it is. An owner has one number in both; none that either knows is given to
//! another meanwhile.

use std::sync::Arc;
use std::time::Duration;

use filter_common::abi;
use ipnet::IpNet;

use super::attachments::Attachments;
use super::build::{Next, Parted};
use super::change::grant_error;
use super::error::FilterError;
use super::filter::{Filter, SharedNumbers, read, write};
use super::live::Stop;
use super::tables::{Ahead, Tables};
use super::{Changed, Engine};
use crate::bindings::seam::{Change, Grantee, Under};
use crate::kernel::clock;
use crate::kernel::load::{Generation, LoadError};
use crate::kernel::source_levels;
use crate::kernel::state::{State, Towards};
use crate::kernel::tick::Jiffy;
use crate::kernel::written::ReadBack;
use crate::policy::Policy;

/// Where the kernel refuses the way back that it has taken already.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// What is in force when a policy is put in force that has to be confirmed.
pub(super) struct Before {
    pub(super) policy: Arc<Policy>,
    pub(super) hash: String,
    pub(super) epoch: u64,
    /// Held for the bindings: their view of this policy is asked with every change.
    pub(super) under: Option<Arc<dyn Under>>,
    /// By which ends were worked out.
    pub(super) wall_offset: i128,
    /// Monotonic nanoseconds: when it comes back.
    pub(super) deadline: u64,
}

/// What the filter knows of a generation, beside its tables.
pub(super) struct Left {
    number: u64,
    jiffy: Option<Jiffy>,
    host: Vec<IpNet>,
    narrowed: Option<String>,
    slots: Vec<(String, Vec<u32>)>,
    attachments: Attachments,
}

/// A policy that stands by.
pub(super) struct Standby {
    pub(super) before: Before,
    left: Left,
    tables: Tables,
    /// Set where a change could not be made in the tables: they must be made anew, and take none until then.
    pub(super) behind: bool,
    /// When the daemon takes the way back, and when again where the kernel refused it.
    pub(super) due: u64,
}

impl Standby {
    pub(super) fn new(before: Before, left: Left, tables: Tables) -> Self {
        Self {
            due: before.deadline,
            before,
            left,
            tables,
            behind: false,
        }
    }

    pub(super) fn number(&self) -> u64 {
        self.left.number
    }

    /// Its tables, and the number that they are pinned under.
    pub(super) fn pinned(&self) -> (u64, &Generation) {
        (self.left.number, &self.tables.generation)
    }

    pub(super) fn interfaces(&self) -> impl Iterator<Item = &String> {
        self.left.slots.iter().map(|(name, _)| name)
    }

    /// Has its judge ask the coarse clock as well, where jiffies have lost the monotonic one.
    pub(super) fn check_clock(&mut self, jiffy: Jiffy) {
        match self.tables.generation.rewind(jiffy) {
            Ok(true) => self.left.jiffy = None,
            Ok(false) => {}
            Err(error) => tracing::warn!("{error}"),
        }
    }

    /// Makes changes in its tables, after they were made in those in force: `were` are the numbers that their owners
    /// had before that.
    fn change(
        &mut self,
        numbers: &SharedNumbers,
        state: &State,
        changes: &[Change],
        were: &[Option<u32>],
    ) -> Result<(), Stop> {
        if self.behind {
            return Err(Stop::Generation);
        }
        let changed = change(&mut self.tables, (numbers, state), changes, were);
        self.behind = changed.is_err();
        changed
    }
}

/// Makes changes in tables that are not in force: each owner under the number that it has in those that are.
pub(super) fn change(
    tables: &mut Tables,
    (numbers, state): (&SharedNumbers, &State),
    changes: &[Change],
    were: &[Option<u32>],
) -> Result<(), Stop> {
    for (change, from) in changes.iter().zip(were) {
        let Some(owner) = change.owner() else {
            tables.change(numbers, state, change.clone())?;
            continue;
        };
        let before = tables.grantees.get(*from, owner);
        let wanted = match change {
            Change::Put(grantee) => Some(grantee.clone()),
            Change::End { end, .. } => before.cloned().map(|before| Grantee { end: *end, ..before }),
            Change::Remove { .. } => None,
            Change::Kept { .. } | Change::Deny { .. } | Change::Undeny { .. } => before.cloned(),
        };
        let ahead = Ahead {
            owner,
            from: *from,
            in_force: read(numbers).owner(owner),
        };
        tables.change_ahead(&mut write(numbers), state, ahead, wanted)?;
    }
    Ok(())
}

/// The numbers of their owners, before they are changed in the tables in force.
pub(super) fn numbers_of(numbers: &SharedNumbers, changes: &[Change]) -> Vec<Option<u32>> {
    let numbers = read(numbers);
    let owners = changes.iter().map(Change::owner);
    owners.map(|owner| numbers.owner(owner?)).collect()
}

impl Filter {
    /// What is known of the generation in force, for when it comes back; its interfaces as they were before another
    /// policy's were attached to.
    pub(super) fn step_aside(&mut self, attachments: Attachments) -> Left {
        Left {
            number: self.number,
            jiffy: self.jiffy,
            host: std::mem::take(&mut self.host),
            narrowed: self.narrowed.take(),
            slots: std::mem::take(&mut self.slots),
            attachments,
        }
    }

    /// From the deadline on, the kernel has packets judged by what is in force now, whatever comes into force next.
    pub(super) fn arm(&mut self, before: &Before) -> Result<(), LoadError> {
        self.tap.stand_by(&mut self.tables.generation)?;
        self.switch.arm(abi::Switch {
            deadline: before.deadline,
            standby: self.number,
        });
        Ok(())
    }

    /// What is in force stays.
    pub(super) fn nothing_stands_by(&mut self) {
        // The way there first: no packet finds the place empty.
        self.switch.disarm();
        if let Err(error) = self.tap.stand_down(&mut self.tables.generation) {
            tracing::warn!("tables that no packet goes to are kept in the kernel: {error}");
        }
    }

    /// The policy in force is for good; gives what stood by, to be let go of.
    pub(super) fn confirm(&mut self) -> Option<Box<Standby>> {
        let standby = self.standby.take()?;
        self.nothing_stands_by();
        self.detach_the_rest();
        self.keep_pinned();
        Some(standby)
    }

    /// Other tables stand by for the same policy. Gives those that did, to be let go of.
    pub(super) fn put_standby(&mut self, mut next: Box<Next>) -> Result<Parted, FilterError> {
        let number = self.next_number();
        let Some(standby) = &mut self.standby else {
            return Err(FilterError::Abandoned);
        };
        let witness = self.witness.as_deref();
        self.pins
            .pin_generation(number, &next.tables.generation, witness)?;
        let (was, now) = (&standby.tables, &next.tables);
        source_levels::hand_over((&was.generation, &now.generation), (&was.limits, &now.limits))?;
        self.tap.stand_by(&mut next.tables.generation)?;
        self.switch.arm(abi::Switch {
            deadline: standby.before.deadline,
            standby: number,
        });
        standby.left.number = number;
        standby.left.jiffy = next.jiffy;
        standby.left.host.clone_from(&next.around.host);
        standby.left.narrowed.clone_from(&next.narrowed);
        standby.left.slots.clone_from(&next.slots);
        standby.behind = false;
        let parted = next.stand_by(&mut standby.tables, &mut write(&self.numbers));
        self.keep_pinned();
        Ok(parted)
    }

    /// What stood by is in force again, at once. Gives what it was before, and the tables that were in force instead,
    /// to be let go of; `None` where nothing stood by. On an error all is as it was, but for what the kernel does by
    /// itself at the deadline.
    pub(super) fn come_back(&mut self) -> Result<Option<(Before, Tables)>, FilterError> {
        let number = self.next_number();
        let Some(standby) = &mut self.standby else {
            return Ok(None);
        };
        standby.due = clock::precise().0 + AGAIN_AFTER.as_nanos() as u64;
        let read_back = Arc::new(ReadBack::of(&standby.tables.generation)?);
        let (back, witness) = (&standby.tables.generation, self.witness.as_deref());
        if let Err(error) = self.pins.pin_generation(number, back, witness) {
            tracing::warn!("the tables that come back cannot be pinned: {error}");
        }
        self.tables.settle(&self.state);
        let (old, new) = (&self.tables.limits, &standby.tables.limits);
        self.state.carry(old, new, Towards::Back);
        source_levels::carry(&self.pins.maps(), &standby.tables.generation, old, new)?;
        let swap = || self.tap.swap(&mut standby.tables.generation);
        self.in_force.put(number, read_back, swap)?;
        let Some(standby) = self.standby.take() else {
            return Ok(None);
        };
        let Standby {
            before,
            left,
            tables,
            behind,
            ..
        } = *standby;
        let gone = std::mem::replace(&mut self.tables, tables);
        self.nothing_stands_by();
        write(&self.numbers).come_back();
        self.number = number;
        self.in_part = behind;
        self.jiffy = left.jiffy;
        self.host = left.host;
        self.narrowed = left.narrowed;
        self.slots = left.slots;
        self.attachments = left.attachments;
        self.has_swapped();
        Ok(Some((before, gone)))
    }

    /// What comes back unless the policy in force is confirmed.
    pub(super) fn before(&self) -> Option<&Before> {
        self.standby.as_ref().map(|standby| &standby.before)
    }

    /// When the daemon takes the way back.
    pub(super) fn due(&self) -> Option<u64> {
        self.standby.as_ref().map(|standby| standby.due)
    }

    /// Whether they were before.
    fn standby_fell_behind(&mut self) -> bool {
        let standby = self.standby.as_mut();
        standby.is_some_and(|standby| std::mem::replace(&mut standby.behind, true))
    }

    pub(super) fn standby_is_behind(&self) -> bool {
        self.standby.as_ref().is_some_and(|standby| standby.behind)
    }

    /// By which ends were worked out in the tables that stand by.
    pub(super) fn note_wall_offset(&mut self, wall_offset: i128) {
        if let Some(standby) = &mut self.standby {
            standby.before.wall_offset = wall_offset;
        }
    }

    /// Whether the tables that stand by may have as many sets of source ports as these changes come to.
    pub(super) fn standby_port_sets_fit(&self, changes: &[Change]) -> Result<(), Stop> {
        match &self.standby {
            Some(standby) => standby.tables.port_sets_fit(&self.numbers, changes),
            None => Ok(()),
        }
    }

    /// Makes changes in the tables that stand by, after those in force have them.
    pub(super) fn change_standby(&mut self, changes: &[Change], were: &[Option<u32>]) -> Result<(), Stop> {
        match &mut self.standby {
            Some(standby) => standby.change(&self.numbers, &self.state, changes, were),
            None => Ok(()),
        }
    }
}

impl Engine {
    /// A change that stands in the tables in force is in no tables that stand by: it is refused, and leaves both.
    pub(super) fn standby_not_made(&mut self, answer: Option<Changed>, error: FilterError) {
        let was_behind = self.filter.standby_fell_behind();
        match answer {
            Some(answer) => {
                self.filter.in_part = true;
                self.changed(answer, Err(grant_error(error)));
            }
            // It is tried again with every look, and told once.
            None if was_behind => {}
            None => tracing::error!("the tables that stand by could not be made anew: {error}"),
        }
    }
}

/// Resolves when what stands by is to come back; never, where nothing does.
pub(super) async fn over(due: Option<u64>) {
    match due {
        Some(due) => tokio::time::sleep(left_until(due)).await,
        None => std::future::pending().await,
    }
}

/// How long it is until a moment of the monotonic clock.
pub(super) fn left_until(moment: u64) -> Duration {
    Duration::from_nanos(moment.saturating_sub(clock::precise().0))
}
