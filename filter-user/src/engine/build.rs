//! A generation made beside the one in force: compiled, loaded and filled on threads of its own, while the engine goes
//! on to change single bindings in the tables that judge.
//!
//! What was changed since it was begun is asked for by name and made in it as well, with the same code; the engine
//! does the last few, and puts it in force in one step.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use filter_common::abi::names;
use ipnet::IpNet;

use super::attachments::{by_slot, counted, placed};
use super::compile::{Occasion, compile, host_addresses};
use super::crowded;
use super::error::FilterError;
use super::fill::owners_of;
use super::filter::{SharedNumbers, name, read};
use super::live::{Deny, Stop};
use super::tables::{Ahead, Tables};
use crate::bindings::seam::{Grantee, Many, Under};
use crate::compiler::{Assigned, CompileError, Compiled, Keep, Numbers, Pushed};
use crate::kernel::choice::{Choice, choose, choose_most};
use crate::kernel::interfaces;
use crate::kernel::load::{Generation, KernelLog, Setting};
use crate::kernel::state::State;
use crate::kernel::tick::Jiffy;
use crate::kernel::written::ReadBack;
use crate::policy::Policy;

/// What a policy means on this host now.
pub(super) struct Around {
    pub(super) choice: Choice,
    pub(super) host: Vec<IpNet>,
}

impl Around {
    pub(super) async fn read(policy: &Policy, occasion: Occasion) -> Result<Self, FilterError> {
        let (patterns, present) = (&policy.filter.interfaces, interfaces::read().await?);
        let choice = match occasion {
            Occasion::Change => choose_most(patterns, &present),
            Occasion::Start | Occasion::Reload => Choice {
                interfaces: choose(patterns, &present)?,
                left_out: Vec::new(),
            },
        };
        Ok(Self {
            choice,
            host: host_addresses(policy).await?,
        })
    }
}

/// What is to be in force.
#[derive(Clone)]
pub(super) struct Wanted {
    pub(super) policy: Arc<Policy>,
    /// Those whose names keep their numbers: the one in force, and the one that stands by.
    pub(super) before: Vec<Arc<Policy>>,
    pub(super) keep: Keep,
    pub(super) occasion: Occasion,
    /// How many it has room for at least, in all.
    pub(super) many: Many,
}

/// What a generation is made beside, as it is when it is begun.
pub(super) struct Ground {
    /// Shares what the filter's had, and takes new ones from the same set.
    pub(super) numbers: Numbers,
    pub(super) state: State,
    /// Where the maps that outlive a generation are pinned; `None` for tables of their own (tests).
    pub(super) maps: Option<PathBuf>,
    pub(super) log: KernelLog,
    /// As an earlier load measured it, or 0.
    pub(super) jiffy_zero: u64,
    /// Set where nobody waits for it any more.
    pub(super) abandoned: Arc<AtomicBool>,
}

/// Denies by their names, as a policy has no say in them; `None` is none.
pub(super) type Denies = BTreeMap<String, Option<Deny>>;

/// Owners' numbers that were given out for a generation: given back where it never comes into force.
struct Claim {
    /// The numbers that it was assigned from: what is changed in them is known as long as this is held.
    from: Numbers,
    assigned: Assigned,
    is_in_force: bool,
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.is_in_force {
            self.from.dismiss(&self.assigned);
        }
    }
}

/// A generation that is loaded and not in force.
pub(super) struct Next {
    pub(super) policy: Arc<Policy>,
    pub(super) occasion: Occasion,
    pub(super) around: Around,
    pub(super) narrowed: Option<String>,
    /// Where each interface is counted.
    pub(super) slots: Vec<(String, Vec<u32>)>,
    pub(super) jiffy: Option<Jiffy>,
    pub(super) tables: Tables,
    pub(super) read_back: Arc<ReadBack>,
    numbers: Numbers,
    claim: Claim,
    state: State,
    /// What holds under the policy.
    under: Option<Arc<dyn Under>>,
}

impl Next {
    /// Blocks for as long as the policy is large.
    pub(super) fn make(
        wanted: Wanted,
        (mut pushed, under): (Pushed, Option<Arc<dyn Under>>),
        around: Around,
        ground: Ground,
    ) -> Result<Box<Self>, FilterError> {
        let Ground {
            numbers: from,
            mut state,
            maps,
            log,
            jiffy_zero,
            abandoned,
        } = ground;
        let go_on = || match abandoned.load(Ordering::Relaxed) {
            true => Err(FilterError::Abandoned),
            false => Ok(()),
        };
        go_on()?;
        let owners_max = state.owners_max();
        let placed = placed(&around.choice);
        let (mut numbers, claim, (compiled, narrowed)) = fit(
            &wanted,
            (&mut pushed, under.as_deref()),
            (&from, owners_max),
            (&around.host, &go_on),
        )?;
        drop(from);
        go_on()?;
        let slots = state.place_interfaces(&counted(&placed))?;
        let setting = Setting {
            interfaces: &by_slot(&placed, &slots),
            pins: maps.as_deref(),
            owners_max: 1,
            log,
            records: true,
        };
        let mut generation = Generation::load(&compiled, setting)?;
        let jiffy = generation.wind(jiffy_zero)?;
        go_on()?;
        let read_back = ReadBack::of(&generation)?;
        let tables = Tables::new(
            generation,
            compiled,
            &mut numbers,
            (&wanted.policy, pushed),
            owners_max,
        )?;
        name(&mut state, &claim.assigned)?;
        let names = placed.iter().map(|interface| interface.name.clone());
        Ok(Box::new(Self {
            slots: names.zip(slots).collect(),
            policy: wanted.policy,
            occasion: wanted.occasion,
            around,
            narrowed,
            jiffy,
            tables,
            read_back: Arc::new(read_back),
            numbers,
            claim,
            state,
            under,
        }))
    }

    /// Makes the grants of these owners as they are now, with the numbers that they have in force, and these denies as
    /// they are there.
    pub(super) fn catch_up(
        &mut self,
        owners: &BTreeSet<String>,
        denies: &Denies,
        in_force: &SharedNumbers,
    ) -> Result<(), Stop> {
        for (name, deny) in denies {
            self.tables.deny(name, deny.clone())?;
        }
        let Some(under) = &self.under else {
            return Ok(());
        };
        let grants = under.of(owners).into_iter();
        let mut grants: BTreeMap<Arc<str>, Grantee> = grants
            .map(|grantee| (grantee.credential.clone(), grantee))
            .collect();
        let (kept, gone): (Vec<&String>, Vec<&String>) = owners
            .iter()
            .partition(|owner| grants.contains_key(owner.as_str()));
        // Nobody is judged by these tables yet: what makes room goes first.
        for owner in gone.into_iter().chain(kept) {
            let ahead = Ahead {
                owner,
                from: self.numbers.owner(owner),
                in_force: read(in_force).owner(owner),
            };
            let wanted = grants.remove(owner.as_str());
            let taken = self
                .tables
                .change_ahead(&mut self.numbers, &self.state, ahead, wanted)?;
            let number = self.numbers.owner(owner);
            self.claim.assigned.took(owner, number, taken);
        }
        Ok(())
    }

    pub(super) fn under(&self) -> Option<Arc<dyn Under>> {
        self.under.clone()
    }

    /// It is in force: its tables and numbers change places with those that were. Gives back what is to be let go of.
    pub(super) fn take_over(mut self: Box<Self>, tables: &mut Tables, numbers: &mut Numbers) -> Parted {
        self.claim.is_in_force = true;
        self.numbers.succeed(numbers, &mut self.claim.assigned);
        std::mem::swap(tables, &mut self.tables);
        std::mem::swap(numbers, &mut self.numbers);
        self.parted()
    }

    /// It stands by, with its names' numbers known to those in force: its tables change places with those that did.
    pub(super) fn stand_by(mut self: Box<Self>, tables: &mut Tables, numbers: &mut Numbers) -> Parted {
        self.claim.is_in_force = true;
        numbers.learn(&self.claim.assigned);
        std::mem::swap(tables, &mut self.tables);
        self.parted()
    }

    fn parted(self: Box<Self>) -> Parted {
        let Next {
            tables,
            numbers,
            claim,
            state,
            ..
        } = *self;
        Parted {
            tables: Some(tables),
            numbers,
            claim,
            state,
        }
    }
}

/// Tables, and why `"host"` means less in them than it says, where it does.
type Narrowed = (Compiled, Option<String>);

/// Numbers for all that is wanted, and its tables: without what was pushed last where an operator's policy leaves it no room.
fn fit(
    wanted: &Wanted,
    (pushed, under): (&mut Pushed, Option<&dyn Under>),
    (from, owners_max): (&Numbers, u32),
    (host, go_on): (&[IpNet], &dyn Fn() -> Result<(), FilterError>),
) -> Result<(Numbers, Claim, Narrowed), FilterError> {
    let policy = &*wanted.policy;
    let before: Vec<&Policy> = wanted.before.iter().map(AsRef::as_ref).collect();
    loop {
        let (numbers, assigned) = from.assign_over((policy, pushed), (&before, wanted.keep), owners_max);
        let claim = Claim {
            from: from.clone(),
            assigned,
            is_in_force: false,
        };
        if wanted.keep == Keep::All && claim.assigned.unnumbered + claim.assigned.unnamed != 0 {
            return Err(FilterError::BothFull);
        }
        if claim.assigned.unnumbered != 0 {
            let needed = owners_of(policy, pushed) as u32;
            let max = owners_max - 1;
            return Err(FilterError::OwnersFull { needed, max });
        }
        go_on()?;
        match (
            compile((policy, pushed), &numbers, host, (wanted.occasion, wanted.many)),
            under,
        ) {
            // An operator's policy does not wait for what was pushed, nor does a start, which has no policy before it; what
            // is pushed waits for its place.
            (
                Err(FilterError::Compile(
                    CompileError::OwnersPerSource { .. }
                    | CompileError::TableFull {
                        table: names::PORT_SETS,
                        ..
                    },
                )),
                Some(under),
            ) if (wanted.occasion == Occasion::Reload || wanted.before.is_empty())
                && crowded::leave_out(policy, pushed, under) != 0 => {}
            (compiled, _) => return Ok((numbers, claim, compiled?)),
        }
    }
}

/// What was in force, or stood by, before: as large as a policy, and no packet is judged by it.
pub(super) struct Parted {
    tables: Option<Tables>,
    numbers: Numbers,
    claim: Claim,
    state: State,
}

impl Parted {
    /// What may come back.
    pub(super) fn take_tables(&mut self) -> Option<Tables> {
        self.tables.take()
    }

    /// Blocks for as long as the policy was large.
    pub(super) fn let_go(self) {
        let state = &self.state;
        drop(self.tables);
        self.numbers
            .release(&self.claim.assigned, |number| state.unname_owner(number));
    }
}
