//! The filter in the kernel, as the engine holds it: apply, look, leave. How it begins: `start`, `succession`.

use std::fs::File;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use filter_common::abi::parts::SINCE;
use filter_common::abi::{EVERYTHING, LAYOUT_CHECKSUM, LAYOUT_VERSION, MAGIC, Meta};
use ipnet::IpNet;
use nix::fcntl::Flock;

use super::attachments::{Attachments, Look};
use super::build::{Ground, Next, Parted};
use super::compile::{Occasion, host_addresses};
use super::drift::TablesInForce;
use super::error::FilterError;
use super::fill::Fill;
use super::reader::Reader;
use super::snapshot::InterfaceState;
use super::snapshot::ObserveError;
use super::standby::{Before, Standby};
use super::tables::Tables;
use crate::compiler::{self, Numbers};
use crate::kernel::attach::{self, Entry};
use crate::kernel::capture::Tap;
use crate::kernel::choice::{Choice, choose_most};
use crate::kernel::interfaces::{self, Interface};
use crate::kernel::load::{KernelLog, LoadError};
use crate::kernel::log::Lines;
use crate::kernel::pins::Pins;
use crate::kernel::records::Accounting;
use crate::kernel::source_levels;
use crate::kernel::state::{State, Towards};
use crate::kernel::switch::Switch;
use crate::kernel::tick::Jiffy;
use crate::kernel::witness::WitnessMap;
use crate::policy::Policy;

/// The numbers of names: the filter's to write, the readers' to look up.
pub(super) type SharedNumbers = Arc<RwLock<Numbers>>;

pub(super) fn shared(numbers: Numbers) -> SharedNumbers {
    Arc::new(RwLock::new(numbers))
}

// A writer only inserts and replaces whole: what a panic left is whole.
pub(super) fn read(numbers: &SharedNumbers) -> RwLockReadGuard<'_, Numbers> {
    numbers.read().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn write(numbers: &SharedNumbers) -> RwLockWriteGuard<'_, Numbers> {
    numbers.write().unwrap_or_else(PoisonError::into_inner)
}

/// The filter of one instance.
pub struct Filter {
    pub(super) pins: Pins,
    /// Of the pin folder: one daemon an instance. Goes with the process, however it ends.
    pub(super) lock: Flock<File>,
    pub(super) entry: Entry,
    /// Those in force.
    pub(super) tables: Tables,
    pub(super) number: u64,
    pub(super) numbers: SharedNumbers,
    pub(super) state: State,
    /// By what the judge in force tells the time, where not by the coarse clock.
    pub(super) jiffy: Option<Jiffy>,
    pub(super) log: KernelLog,
    /// The judge's own log lines, where they are switched on.
    pub(super) lines: Option<Lines>,
    pub(super) attachments: Attachments,
    /// What `"host"` stands for in the generation in force; empty where the policy does not say it.
    pub(super) host: Vec<IpNet>,
    /// Set where an address of this host is a written service's too, and left to that one.
    pub(super) narrowed: Option<String>,
    /// Where each interface is counted.
    pub(super) slots: Vec<(String, Vec<u32>)>,
    pub(super) in_force: Arc<TablesInForce>,
    /// Set where a change that was refused could not be taken back whole.
    pub(super) in_part: bool,
    /// Set where an earlier daemon's generation is in force as it was, of which nothing is known.
    pub(super) kept: bool,
    pub(super) tap: Arc<Tap>,
    /// In the kernel, what `standby` is here.
    pub(super) switch: Switch,
    /// What comes back unless the policy in force is confirmed.
    pub(super) standby: Option<Box<Standby>>,
    /// What tells the next start of the state folder; none where the kernel refuses it.
    pub(super) witness: Option<Arc<WitnessMap>>,
}

impl Filter {
    /// What another generation is made beside. From here on it must be told what is changed in this one.
    pub(super) fn ground(&mut self, abandoned: Arc<AtomicBool>) -> Result<Ground, FilterError> {
        self.must_stand()?;
        Ok(Ground {
            numbers: read(&self.numbers).clone(),
            state: self.state.share(&self.tables.generation)?,
            maps: Some(self.pins.maps()),
            log: self.log,
            jiffy_zero: self.jiffy.unwrap_or_default().zero,
            abandoned,
        })
    }

    /// Puts a generation in force that has all that was changed meanwhile; with `before`, what was in force stands by.
    /// On an error, what was in force still is.
    pub(super) fn put(&mut self, mut next: Box<Next>, before: Option<Before>) -> Result<Parted, FilterError> {
        self.may_follow(&next.tables.generation)?;
        let number = self.next_number();
        let read_back = Arc::clone(&next.read_back);
        // New interfaces first, still under the generation in force: a hook that is held stops the change here.
        let (attachments, linked) = (self.attachments.clone(), self.pins.linked()?);
        let (policy, occasion) = (Arc::clone(&next.policy), next.occasion);
        let swapped = self
            .attach(&policy, &next.around.choice, occasion)
            .and_then(|()| {
                let witness = self.witness.as_deref();
                self.pins
                    .pin_generation(number, &next.tables.generation, witness)?;
                self.tables.settle(&self.state);
                let (old, new) = (&self.tables.limits, &next.tables.limits);
                self.state.carry(old, new, Towards::Next);
                source_levels::carry(&self.pins.maps(), &next.tables.generation, old, new)?;
                next.tables.generation.observe(latest(&self.state.observed()))?;
                if let Some(before) = &before {
                    self.arm(before)?;
                }
                let swap = || self.tap.swap(&mut next.tables.generation);
                Ok(self.in_force.put(number, read_back, swap)?)
            });
        if let Err(error) = swapped {
            if before.is_some() {
                self.nothing_stands_by();
            }
            self.detach_all_but(&linked);
            self.attachments = attachments;
            self.keep_pinned();
            return Err(error);
        }
        let left = self.step_aside(attachments);
        self.number = number;
        (self.in_part, self.kept) = (false, false);
        self.jiffy = next.jiffy;
        self.host.clone_from(&next.around.host);
        self.narrowed.clone_from(&next.narrowed);
        self.slots.clone_from(&next.slots);
        let mut parted = next.take_over(&mut self.tables, &mut write(&self.numbers));
        if let Some(before) = before {
            let standing = |tables| Box::new(Standby::new(before, left, tables));
            self.standby = parted.take_tables().map(standing);
        }
        self.has_swapped();
        Ok(parted)
    }

    /// Another generation is in force: what goes by it follows.
    pub(super) fn has_swapped(&mut self) {
        if let Err(error) = source_levels::keep(&self.pins.maps(), &self.tables.generation) {
            tracing::error!("sources' own buckets will start full after the next change: {error}");
        }
        if let Err(error) = self.state.write_meta(meta(self.number, self.jiffy)) {
            tracing::error!("the next start cannot tell which generation is in force: {error}");
        }
        self.follow_log();
        self.detach_the_rest();
        self.keep_pinned();
    }

    /// A number for the next generation.
    pub(super) fn next_number(&self) -> u64 {
        let standby = self.standby.as_ref().map_or(0, |standby| standby.number());
        self.number.max(standby) + 1
    }

    /// Removes the pins of all tables that packets do not go to.
    pub(super) fn keep_pinned(&self) {
        let standby = self.standby.as_ref().map(|standby| standby.number());
        let kept: Vec<u64> = std::iter::once(self.number).chain(standby).collect();
        if let Err(error) = self.pins.keep_generations(&kept) {
            tracing::warn!("tables that are not in force stay pinned: {error}");
        }
    }

    /// Takes the filter off the interfaces of neither policy.
    pub(super) fn detach_the_rest(&self) {
        let standby = self.standby.iter().flat_map(|standby| standby.interfaces());
        let names = self.slots.iter().map(|(name, _)| name).chain(standby);
        self.detach_all_but(&names.cloned().collect::<Vec<String>>());
    }

    pub(super) fn shared_numbers(&self) -> SharedNumbers {
        Arc::clone(&self.numbers)
    }

    pub(super) fn attach(
        &mut self,
        policy: &Policy,
        choice: &Choice,
        occasion: Occasion,
    ) -> Result<(), FilterError> {
        let wanted = policy.filter.attach;
        self.attachments
            .attach(&mut self.entry, &self.pins, choice, wanted, occasion)
    }

    /// Takes the filter off all other interfaces that have it.
    fn detach_all_but(&self, keep: &[String]) {
        let linked = self.pins.linked().unwrap_or_default();
        for name in linked.iter().filter(|name| !keep.contains(*name)) {
            match attach::unpin(&self.pins, name) {
                Ok(()) => tracing::info!(interface = name, "no longer of the policy: detached"),
                Err(error) => tracing::error!(interface = name, "could not be detached: {error}"),
            }
        }
    }

    pub(super) fn follow_log(&mut self) {
        if self.log == KernelLog::Off {
            return;
        }
        match Lines::follow(&mut self.tables.generation) {
            Ok(lines) => self.lines = Some(lines),
            Err(error) => tracing::error!("{error}"),
        }
    }

    /// Looks whether what should be filtered is, and whether there is more of it.
    pub async fn look(&mut self, policy: &Policy) -> Look {
        let (Ok(present), Ok(ours)) = (interfaces::read().await, self.entry.id()) else {
            return Look::default();
        };
        let choice = choose_most(&policy.filter.interfaces, &present);
        self.attachments
            .look(&choice, &present, ours, &self.pins, policy.filter.attach)
    }

    /// What is not filtered and should be, a sentence each.
    pub fn unfiltered(&self) -> Vec<String> {
        self.attachments.unfiltered()
    }

    /// Why a part of the policy is not judged as written; `None` where all is.
    pub fn narrowed(&self) -> Option<&str> {
        self.narrowed.as_deref()
    }

    /// What `"host"` means now and the generation in force does not know; `None` where nothing has changed.
    pub async fn host_moved(&self, policy: &Policy) -> Result<Option<Vec<IpNet>>, FilterError> {
        let now = host_addresses(policy).await?;
        let missing = now.iter().filter(|net| !self.host.contains(net)).copied();
        Ok((now != self.host).then(|| missing.collect()))
    }

    /// Takes the filter off all interfaces and removes all that is pinned.
    pub fn leave(&self) -> Result<(), FilterError> {
        // Also those whose pins are gone.
        self.entry.links().detach()?;
        Ok(self.pins.clear()?)
    }

    /// Observes a service, or everything, for a while: in the kernel, whatever becomes of this daemon.
    pub fn observe(&mut self, service: Option<&str>, until: u64) -> Result<(), ObserveError> {
        let number = match service {
            None => EVERYTHING,
            Some(name) => {
                let number = read(&self.numbers).service(name);
                number.ok_or_else(|| ObserveError::NoSuchService(name.to_owned()))?
            }
        };
        if !self.is_pinned() {
            return Err(ObserveError::Failed(FilterError::Detached.to_string()));
        }
        // What is in force is an earlier daemon's, whose program this one does not hold.
        if self.kept {
            return Err(ObserveError::Failed(FilterError::Kept.to_string()));
        }
        self.state.observe(number, until);
        self.settle_observed()
            .map_err(|error| ObserveError::Failed(error.to_string()))
    }

    /// Has the program ask who is observed as long as anybody is.
    pub fn settle_observed(&mut self) -> Result<(), LoadError> {
        let until = latest(&self.state.observed());
        self.tables.generation.observe(until)
    }

    /// Services that are observed for a while, `None` for everything, and until when.
    pub fn observed(&self) -> Vec<(Option<String>, u64)> {
        let named = |(number, until): (u32, u64)| match number {
            EVERYTHING => Some((None, until)),
            number => Some((Some(self.state.service_name(number)?), until)),
        };
        self.state.observed().into_iter().filter_map(named).collect()
    }

    /// Has the judge ask the coarse clock from now on where its own has lost the monotonic one.
    pub fn check_clock(&mut self) {
        let Some(jiffy) = self.jiffy else { return };
        let lost = match self.tables.generation.rewind(jiffy) {
            Ok(lost) => lost,
            Err(error) => return tracing::warn!("{error}"),
        };
        if lost {
            if let Some(standby) = &mut self.standby {
                standby.check_clock(jiffy);
            }
            tracing::warn!(
                "jiffies do not follow the monotonic clock: packets are judged by the coarse clock"
            );
            self.jiffy = None;
        }
    }

    pub fn generation(&self) -> u64 {
        self.number
    }

    pub fn interfaces(&self) -> &[InterfaceState] {
        &self.attachments.states
    }

    pub(super) fn fill(&self) -> &Arc<Fill> {
        &self.tables.fill
    }

    /// Whether packets go to another judge than this generation's.
    pub(super) fn misled(&self) -> bool {
        self.in_force.misled(self.number)
    }

    pub(super) fn tables_in_force(&self) -> Arc<TablesInForce> {
        Arc::clone(&self.in_force)
    }

    pub fn service_number(&self, name: &str) -> Option<u32> {
        read(&self.numbers).service(name)
    }

    /// Where captures are put in the packets' way.
    pub fn tap(&self) -> Arc<Tap> {
        Arc::clone(&self.tap)
    }

    /// The drop accounting, for its one reader, and the state that its numbers are of.
    pub fn accounting(&self) -> Result<(Accounting, State), FilterError> {
        Ok((
            Accounting::of(&self.tables.generation)?,
            self.state.share(&self.tables.generation)?,
        ))
    }

    /// Reads the counters of the policy in force, apart from the engine.
    pub fn reader(&self, policy: &Policy) -> Result<Reader, FilterError> {
        let services = policy
            .services
            .iter()
            .filter_map(|service| Some((service.name.clone(), read(&self.numbers).service(&service.name)?)));
        Ok(Reader::new(
            self.state.share(&self.tables.generation)?,
            services.collect(),
            self.slots.clone(),
        ))
    }
}

fn latest(observed: &[(u32, u64)]) -> u64 {
    observed.iter().map(|(_, until)| *until).max().unwrap_or(0)
}

pub(super) fn names_of(interfaces: &[Interface]) -> Vec<String> {
    interfaces
        .iter()
        .map(|interface| interface.name.clone())
        .collect()
}

pub(super) fn name(state: &mut State, assigned: &compiler::Assigned) -> Result<(), LoadError> {
    for (service, number) in &assigned.services {
        state.name_service(*number, service)?;
    }
    for (hash, number) in &assigned.owners {
        state.name_owner(*number, *hash);
    }
    Ok(())
}

pub(super) fn meta(generation: u64, jiffy: Option<Jiffy>) -> Meta {
    Meta {
        magic: MAGIC,
        layout_version: LAYOUT_VERSION,
        layout_checksum: LAYOUT_CHECKSUM,
        generation,
        jiffy_zero: jiffy.unwrap_or_default().zero,
        since: SINCE,
    }
}
