//! How a filter begins: from nothing, over what an earlier daemon has left, or (`succession`) in the place of a filter of
//! another layout. Until the last step what was in force still is.

use std::collections::HashSet;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use filter_common::abi::{self, Meta, names};
use nix::fcntl::Flock;

use super::attachments::{Attachments, by_slot, counted, placed};
use super::build::{Around, Next, Wanted};
use super::compile::{Occasion, compile};
use super::crowded;
use super::drift::TablesInForce;
use super::error::FilterError;
use super::fill::{owners_max, owners_needed_beside, owners_of};
use super::filter::{Filter, meta, name, names_of, read, shared};
use super::finding::{Finding, There};
use super::succession::may_give_way;
use super::tables::Tables;
use super::{Earlier, Options};
use crate::bindings::seam::{Many, Under};
use crate::compiler::{self, Keep, Numbers, Pushed, owner_hash, owner_name};
use crate::kernel::attach::Entry;
use crate::kernel::capture::Tap;
use crate::kernel::chain;
use crate::kernel::choice::Choice;
use crate::kernel::clock;
use crate::kernel::load::{Generation, KernelLog, LoadError, Setting};
use crate::kernel::pins::{Found, Pins};
use crate::kernel::slots;
use crate::kernel::source_levels;
use crate::kernel::state::{Limits, State};
use crate::kernel::switch::Switch;
use crate::kernel::tick::Jiffy;
use crate::kernel::witness::WitnessMap;
use crate::kernel::written::ReadBack;
use crate::policy::Policy;

/// What is pushed, and who knows what of it holds under the policy.
type UnderPolicy = (Pushed, Option<Arc<dyn Under>>);

impl Filter {
    /// Puts a policy in force on its interfaces, over what an earlier daemon left or from nothing.
    /// Where not all is known of what that one had in force, it stays as it is.
    pub async fn start(
        Finding { options, pins, there }: Finding,
        policy: &Arc<Policy>,
        (mut pushed, under, earlier): (Pushed, Option<Arc<dyn Under>>, Earlier),
    ) -> Result<Self, FilterError> {
        let options = &options;
        let held = || FilterError::Instance(policy.daemon.instance.clone());
        let around = Around::read(policy, Occasion::of_start(options)).await?;
        // A crash may have left more in the store than was ever in force, and the file may have changed.
        let leave_out = |pushed: &mut Pushed| {
            let under = under.as_deref();
            under.map_or(0, |under| crowded::leave_out(policy, pushed, under))
        };
        if matches!(there, There::Ours(..) | There::Other(..)) {
            say_open(&around.choice);
        }
        match there {
            There::Other(lock, found) => {
                may_give_way(&pins, found, earlier)?;
                tokio::task::block_in_place(|| {
                    leave_out(&mut pushed);
                    Self::succeed((pins, lock), options, (policy, pushed), around, found)
                })
            }
            There::Ours(filter, _)
                if earlier == Earlier::Known && filter.is_too_small_for((policy, &pushed), options) =>
            {
                let found = Found::Ours(filter.state.meta()?);
                tokio::task::block_in_place(|| {
                    leave_out(&mut pushed);
                    Self::succeed((pins, filter.lock), options, (policy, pushed), around, found)
                })
            }
            There::Ours(filter, armed) => tokio::task::block_in_place(|| {
                let what = (policy, (pushed, under), earlier);
                Self::adopt(*filter, armed, options, what, around)
            }),
            nothing @ (There::Nothing | There::Half(_)) => {
                // It is held until it is gone.
                if let There::Half(_lock) = nothing {
                    tracing::warn!(
                        "{}: an earlier start ended half-way; cleared",
                        pins.root().display()
                    );
                    pins.clear()?;
                }
                pins.create()?;
                let lock = pins.lock()?.ok_or_else(held)?;
                pins.settle()?;
                tokio::task::block_in_place(|| {
                    leave_out(&mut pushed);
                    Self::create(pins, lock, options, (policy, pushed), around)
                })
            }
        }
    }

    fn create(
        pins: Pins,
        lock: Flock<File>,
        options: &Options,
        (policy, pushed): (&Policy, Pushed),
        around: Around,
    ) -> Result<Self, FilterError> {
        let made = Self::build(pins.clone(), lock, options, (policy, pushed), around);
        if made.is_err() && pins.linked().is_ok_and(|linked| linked.is_empty()) {
            // Nothing was attached: leave nothing behind either.
            pins.clear()?;
        }
        made
    }

    fn build(
        pins: Pins,
        lock: Flock<File>,
        options: &Options,
        (policy, pushed): (&Policy, Pushed),
        around: Around,
    ) -> Result<Self, FilterError> {
        let Around { choice, host } = &around;
        let occasion = Occasion::of_start(options);
        let placed = placed(choice);
        let (mut numbers, assigned) = Numbers::default().assign((policy, &pushed), None, u32::MAX);
        let (compiled, narrowed) = compile((policy, &pushed), &numbers, host, (occasion, Many::default()))?;
        let slots = slots::fresh(&counted(&placed));
        let maps = pins.maps();
        let owners_max = owners_max(policy, &numbers, options.owners_at_least);
        let log = options.kernel_log;
        let setting = Setting {
            interfaces: &by_slot(&placed, &slots),
            pins: Some(&maps),
            owners_max,
            log,
            records: true,
        };
        let mut generation = Generation::load(&compiled, setting)?;
        let jiffy = generation.wind(0)?;
        tracing::info!(jiffies = jiffy.is_some(), "the program's clock");
        let (mut state, switch) = (State::of(&generation)?, Switch::of(&generation)?);
        name(&mut state, &assigned)?;
        state.place_interfaces(&counted(&placed))?;
        let entry = Entry::create(&mut generation, &pins)?;
        let witness = witness_made();
        pins.pin_generation(1, &generation, witness.as_deref())?;
        source_levels::keep(&maps, &generation)?;
        let (in_force, tap) = (TablesInForce::default(), Tap::new(maps.join(names::DESK)));
        let read_back = Arc::new(ReadBack::of(&generation)?);
        in_force.put(1, read_back, || tap.swap(&mut generation))?;
        state.write_meta(meta(1, jiffy))?;
        let owners_max = state.owners_max();
        let tables = Tables::new(generation, compiled, &mut numbers, (policy, pushed), owners_max)?;
        let mut filter = Self {
            pins,
            lock,
            entry,
            tables,
            number: 1,
            numbers: shared(numbers),
            state,
            jiffy,
            log,
            lines: None,
            attachments: Attachments::default(),
            host: host.clone(),
            narrowed,
            slots: names_of(&placed).into_iter().zip(slots).collect(),
            in_force: Arc::new(in_force),
            in_part: false,
            kept: false,
            tap: Arc::new(tap),
            switch,
            standby: None,
            witness,
        };
        if let Err(error) = filter.attach(policy, choice, occasion) {
            // All or none: an operator who reads the error finds the host as it was.
            filter.leave()?;
            return Err(error);
        }
        filter.follow_log();
        Ok(filter)
    }

    /// Takes over a pinned filter of this layout: packets go on being judged by it until the swap.
    fn adopt(
        mut filter: Self,
        armed: Option<abi::Switch>,
        options: &Options,
        (policy, pushed, earlier): (&Arc<Policy>, UnderPolicy, Earlier),
        around: Around,
    ) -> Result<Self, FilterError> {
        filter.kept = match earlier {
            Earlier::Known => false,
            Earlier::NewStore | Earlier::Nothing => filter.has_other_owners(policy),
            Earlier::NoPolicy | Earlier::NoPushes => true,
        };
        if filter.kept {
            filter.keep(policy, around.choice)?;
            return Ok(filter);
        }
        let wanted = Wanted {
            policy: Arc::clone(policy),
            before: Vec::new(),
            keep: Keep::Least,
            occasion: Occasion::of_start(options),
            many: Many::default(),
        };
        let ground = filter.ground(Arc::default())?;
        let next = Next::make(wanted, pushed, around, ground)?;
        filter.put(next, None)?.let_go();
        if armed.is_some() {
            filter.nothing_stands_by();
            tracing::warn!(
                "a policy waited to be confirmed when an earlier daemon ended: it is not in force any more"
            );
        }
        tracing::info!(
            generation = filter.number,
            "took over the filter of an earlier daemon"
        );
        Ok(filter)
    }

    /// Over a filter of which nothing is known but what is pinned.
    pub(super) fn over(was: Inherited) -> Result<Self, FilterError> {
        let state = State::of(&was.generation)?;
        let switch = Switch::of(&was.generation)?;
        Ok(Self {
            entry: was.entry,
            tap: Arc::new(Tap::new(was.maps.join(names::DESK))),
            pins: was.pins,
            lock: was.lock,
            tables: Tables::unknown(was.generation, was.limits, state.owners_max()),
            number: was.number,
            numbers: shared(state.numbers()),
            state,
            jiffy: Some(Jiffy {
                nanos: 0,
                zero: was.jiffy_zero,
            }),
            log: was.log,
            lines: None,
            attachments: Attachments::default(),
            host: Vec::new(),
            narrowed: None,
            slots: Vec::new(),
            in_force: Arc::default(),
            in_part: false,
            kept: false,
            switch,
            standby: None,
            witness: was.witness,
        })
    }

    /// Whether its table of owners has no room for all that may be pushed, or for what the policy's file has.
    fn is_too_small_for(&self, (policy, pushed): (&Policy, &Pushed), options: &Options) -> bool {
        let needed = owners_needed_beside(policy, owners_of(policy, pushed));
        let needed = needed.max(options.owners_at_least);
        let has = self.state.owners_max();
        if has < needed {
            tracing::info!(
                "the table of owners holds {has} and {needed} are needed: a larger one takes its place"
            );
        }
        has < needed
    }

    /// Whether the kernel has owners that are no clients of this policy.
    fn has_other_owners(&self, policy: &Policy) -> bool {
        let clients = policy.clients.iter();
        let clients: HashSet<[u8; 16]> = clients
            .map(|client| owner_hash(&owner_name(&client.name)))
            .collect();
        let owners = read(&self.numbers);
        let mut owners = owners.owners();
        owners.any(|(owner, _)| !clients.contains(&owner))
    }

    /// What an earlier daemon left stays in force: it is looked at, and nothing of it is changed.
    fn keep(&mut self, policy: &Policy, mut choice: Choice) -> Result<(), FilterError> {
        let linked = self.pins.linked()?;
        choice
            .interfaces
            .retain(|interface| linked.contains(&interface.name));
        self.attach(policy, &choice, Occasion::Change)?;
        let placed = placed(&choice);
        let slots = self.state.place_interfaces(&counted(&placed))?;
        self.slots = names_of(&placed).into_iter().zip(slots).collect();
        tracing::warn!(
            generation = self.number,
            "the filter of an earlier daemon stays in force as it is: what it had in force cannot be read"
        );
        Ok(())
    }
}

/// An earlier daemon's filter was not there either: "took over" alone would say that it was.
fn say_open(choice: &Choice) {
    let interfaces = choice.interfaces.iter();
    for open in interfaces.filter(|interface| interface.hook.programs().next().is_none()) {
        tracing::warn!(
            interface = open.name,
            "had no filter when this start found it: all that came in by it passed. It came while no daemon ran, or its \
             link was taken off or unpinned"
        );
    }
}

/// What a daemon finds of a filter that another one has made.
pub(super) struct Inherited {
    pub(super) pins: Pins,
    pub(super) lock: Flock<File>,
    pub(super) entry: Entry,
    /// A stand-in for what is in force, with the maps that outlive it.
    pub(super) generation: Generation,
    pub(super) limits: Limits,
    pub(super) number: u64,
    pub(super) jiffy_zero: u64,
    pub(super) witness: Option<Arc<WitnessMap>>,
    /// Where its maps are pinned for good.
    pub(super) maps: PathBuf,
    pub(super) log: KernelLog,
}

/// What the filter there has told this start, to be told more; where there is none, or none that can be read, a new one.
pub(super) fn witness_of(pins: &Pins, generation: u64) -> Option<Arc<WitnessMap>> {
    let pinned = WitnessMap::pinned(pins, generation).map_err(|error| chain(&error));
    let read = pinned.and_then(|pinned| match pinned {
        Some(pinned) => pinned.read().map(|_| Some(pinned)),
        None => Ok(None),
    });
    match read {
        Ok(Some(pinned)) => return Some(Arc::new(pinned)),
        Ok(None) => {}
        Err(why) => tracing::warn!(
            "what the filter was told of its state folder cannot be read ({why}): it is told anew, and an older folder would \
             not be noticed by this start"
        ),
    }
    witness_made()
}

fn witness_made() -> Option<Arc<WitnessMap>> {
    let made = WitnessMap::make().inspect_err(|error| {
        tracing::warn!(
            "the kernel cannot be told of the state folder, so an older one would not be noticed: {}",
            chain(error)
        );
    });
    made.ok().map(Arc::new)
}

/// A stand-in for what is in force: only its maps are of interest, and they are pinned.
pub(super) fn stand_in(pins: &Pins, options: &Options, owners_max: u32) -> Result<Generation, LoadError> {
    let empty = compiler::Compiled {
        row_words: 1,
        ..Default::default()
    };
    let setting = Setting {
        interfaces: &[],
        pins: Some(&pins.maps()),
        owners_max,
        log: options.kernel_log,
        records: true,
    };
    Generation::load(&empty, setting)
}

/// The number of the generation that packets go to. A policy that nobody has confirmed goes, whether its time is over or
/// not.
pub(super) fn judging(armed: Option<abi::Switch>, meta: Meta) -> u64 {
    let over = armed.filter(|armed| armed.deadline <= clock::monotonic().0);
    over.map_or(meta.generation, |over| over.standby)
}
