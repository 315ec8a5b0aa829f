//! The filter in the kernel, as the engine holds it: start or adopt, apply, look, leave.

use std::fs::File;
use std::net::IpAddr;

use filter_common::abi::{LAYOUT_CHECKSUM, LAYOUT_VERSION, MAGIC, Meta};
use nix::fcntl::Flock;

use super::Options;
use super::error::FilterError;
use super::members::{Members, by_slot, counted};
use super::reader::Reader;
use super::snapshot::{AttachMode, InterfaceState};
use super::tables::{Overlaps, compile, host_addresses};
use crate::compiler::{self, Numbers};
use crate::kernel::attach::{self, Entry};
use crate::kernel::interfaces::{self, Interface};
use crate::kernel::load::{Generation, KernelLog, LoadError, Setting};
use crate::kernel::log::Lines;
use crate::kernel::observe;
use crate::kernel::pins::{Found, Pins};
use crate::kernel::slots;
use crate::kernel::state::{Limits, State};
use crate::policy::Policy;
use crate::policy::model::Attach;

/// The owner table of a new filter: what later policies may grow to without a new one.
const OWNERS_AT_LEAST: u32 = 65_536;

/// The filter of one instance.
pub struct Filter {
    pins: Pins,
    /// Of the pin folder: one daemon an instance. Goes with the process, however it ends.
    _lock: Flock<File>,
    entry: Entry,
    /// The loaded generation in force: its maps stay readable while it is held.
    generation: Generation,
    number: u64,
    numbers: Numbers,
    limits: Limits,
    state: State,
    log: KernelLog,
    /// The judge's own log lines, where they are switched on.
    lines: Option<Lines>,
    interfaces: Vec<InterfaceState>,
    /// What `"host"` stands for in the generation in force; empty where the policy does not say it.
    host: Vec<IpAddr>,
    /// Set where an address of this host is a written service's too, and left to that one.
    narrowed: Option<String>,
    /// Where each interface is counted, in the policy's order.
    slots: Vec<Vec<u32>>,
    members: Members,
    members_moved: bool,
    fill: Vec<(&'static str, u64, u64)>,
}

impl Filter {
    /// Puts a policy in force on its interfaces, over what an earlier daemon left or from nothing.
    pub async fn start(options: &Options, policy: &Policy) -> Result<Self, FilterError> {
        let pins = Pins::of(&options.bpf_fs, &policy.daemon.instance)?;
        let held = || FilterError::Instance(policy.daemon.instance.clone());
        // Whoever holds the folder owns what is in it, wherever its state is kept.
        let lock = match pins.root().exists() {
            true => Some(pins.lock()?.ok_or_else(held)?),
            false => None,
        };
        let found = pins.look()?;
        let chosen = interfaces::choose(&policy.filter.interfaces, &interfaces::read().await?)?;
        match found {
            Found::Ours(meta) => {
                pins.check_shapes()?;
                let lock = lock.ok_or_else(held)?;
                tokio::task::block_in_place(|| Self::adopt(pins, lock, options, policy, &chosen, meta))
            }
            Found::Nothing | Found::Half => {
                if found == Found::Half {
                    tracing::warn!(
                        "{}: an earlier start ended half-way; cleared",
                        pins.root().display()
                    );
                    pins.clear()?;
                }
                pins.create()?;
                let lock = pins.lock()?.ok_or_else(held)?;
                tokio::task::block_in_place(|| Self::create(pins, lock, options, policy, &chosen))
            }
        }
    }

    fn create(
        pins: Pins,
        lock: Flock<File>,
        options: &Options,
        policy: &Policy,
        chosen: &[Interface],
    ) -> Result<Self, FilterError> {
        let made = Self::build(pins.clone(), lock, options, policy, chosen);
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
        policy: &Policy,
        chosen: &[Interface],
    ) -> Result<Self, FilterError> {
        let (numbers, assigned) = Numbers::default().assign(policy, None);
        let host = host_addresses(policy)?;
        let (compiled, narrowed) = compile(policy, &numbers, &host, Overlaps::Narrow)?;
        let slots = slots::fresh(&counted(chosen));
        let maps = pins.maps();
        let owners_max = OWNERS_AT_LEAST.max(numbers.owners_end().saturating_mul(2));
        let log = options.kernel_log;
        let setting = Setting {
            interfaces: &by_slot(chosen, &slots),
            pins: Some(&maps),
            owners_max,
            log,
        };
        let mut generation = Generation::load(&compiled, setting)?;
        let mut state = State::of(&generation)?;
        name(&mut state, &assigned)?;
        state.place_interfaces(&counted(chosen))?;
        let entry = Entry::create(&mut generation, &pins)?;
        pins.pin_generation(1, &generation)?;
        attach::swap(&mut generation)?;
        state.write_meta(meta(1))?;
        let fill = observe::fill(&compiled, &generation, numbers.owners().count() as u64)?;
        let limits = Limits::from(&compiled);
        let mut filter = Self {
            pins,
            _lock: lock,
            entry,
            generation,
            number: 1,
            numbers,
            limits,
            state,
            log,
            lines: None,
            interfaces: Vec::new(),
            host,
            narrowed,
            slots,
            members: Members::of(chosen),
            members_moved: false,
            fill,
        };
        if let Err(error) = filter.attach(policy, chosen) {
            // All or none: an operator who reads the error finds the host as it was.
            filter.leave()?;
            return Err(error);
        }
        filter.follow_log();
        Ok(filter)
    }

    /// Takes over a pinned filter of this layout: packets go on being judged by it until the swap.
    fn adopt(
        pins: Pins,
        lock: Flock<File>,
        options: &Options,
        policy: &Policy,
        chosen: &[Interface],
        meta: Meta,
    ) -> Result<Self, FilterError> {
        // A stand-in for what is in force: only its maps are of interest, and they are pinned.
        let empty = compiler::Compiled {
            row_words: 1,
            ..Default::default()
        };
        let maps = pins.maps();
        let log = options.kernel_log;
        let setting = Setting {
            interfaces: &[],
            pins: Some(&maps),
            owners_max: 1,
            log,
        };
        let generation = Generation::load(&empty, setting)?;
        let state = State::of(&generation)?;
        let limits = Limits::pinned(&pins.generation(meta.generation));
        if limits.is_none() {
            tracing::warn!("the limits in force cannot be read back: buckets whose limit changed start full");
        }
        let mut filter = Self {
            entry: Entry::adopt(&pins)?,
            pins,
            _lock: lock,
            generation,
            number: meta.generation,
            numbers: state.numbers(),
            limits: limits.unwrap_or_default(),
            state,
            log,
            lines: None,
            interfaces: Vec::new(),
            host: Vec::new(),
            narrowed: None,
            slots: Vec::new(),
            members: Members::default(),
            members_moved: false,
            fill: Vec::new(),
        };
        filter.put(policy, None, chosen, Overlaps::Narrow)?;
        tracing::info!(
            generation = filter.number,
            "took over the filter of an earlier daemon"
        );
        Ok(filter)
    }

    /// Puts another policy in force. On an error, what was in force still is.
    pub async fn apply(
        &mut self,
        policy: &Policy,
        in_force: Option<&Policy>,
        overlaps: Overlaps,
    ) -> Result<(), FilterError> {
        if !self.is_pinned() {
            return Err(FilterError::Detached);
        }
        let chosen = interfaces::choose(&policy.filter.interfaces, &interfaces::read().await?)?;
        // System calls for as long as a tenth of a second: the other tasks of this thread go on elsewhere.
        tokio::task::block_in_place(|| self.put(policy, in_force, &chosen, overlaps))
    }

    fn put(
        &mut self,
        policy: &Policy,
        in_force: Option<&Policy>,
        chosen: &[Interface],
        overlaps: Overlaps,
    ) -> Result<(), FilterError> {
        let (numbers, assigned) = self.numbers.assign(policy, in_force);
        if numbers.owners_end() > self.state.owners_max() {
            let (needed, max) = (numbers.owners_end() - 1, self.state.owners_max() - 1);
            return Err(FilterError::OwnersFull { needed, max });
        }
        let host = host_addresses(policy)?;
        let (compiled, narrowed) = compile(policy, &numbers, &host, overlaps)?;
        let slots = self.state.place_interfaces(&counted(chosen))?;
        let maps = self.pins.maps();
        let setting = Setting {
            interfaces: &by_slot(chosen, &slots),
            pins: Some(&maps),
            owners_max: 1,
            log: self.log,
        };
        let mut generation = Generation::load(&compiled, setting)?;
        let next = self.number + 1;
        let fill = observe::fill(&compiled, &generation, numbers.owners().count() as u64)?;
        name(&mut self.state, &assigned)?;
        // New interfaces first, still under the generation in force: a hook that is held stops the change here.
        let (before, linked) = (self.interfaces.clone(), self.pins.linked()?);
        let swapped = self.attach(policy, chosen).and_then(|()| {
            self.pins.pin_generation(next, &generation)?;
            self.state.carry(&self.limits, &compiled);
            Ok(attach::swap(&mut generation)?)
        });
        if let Err(error) = swapped {
            self.detach_all_but(&linked);
            self.interfaces = before;
            if let Err(error) = self.pins.keep_generation(self.number) {
                tracing::warn!("tables that are not in force stay pinned: {error}");
            }
            return Err(error);
        }
        self.state.write_meta(meta(next))?;
        self.fill = fill;
        self.generation = generation;
        self.follow_log();
        self.number = next;
        self.numbers = numbers;
        self.limits = Limits::from(&compiled);
        self.host = host;
        self.narrowed = narrowed;
        self.slots = slots;
        self.members = Members::of(chosen);
        self.members_moved = false;
        self.detach_all_but(&names_of(chosen));
        if let Err(error) = self.pins.keep_generation(next) {
            tracing::warn!("an old generation's tables stay pinned: {error}");
        }
        Ok(())
    }

    fn attach(&mut self, policy: &Policy, chosen: &[Interface]) -> Result<(), FilterError> {
        let mut states = Vec::new();
        for interface in chosen {
            let attached = self.entry.attach(interface, policy.filter.attach, &self.pins)?;
            if let Some(why) = &attached.fallback {
                tracing::warn!(
                    interface = attached.interface,
                    "the driver takes no XDP program ({why}): attached in generic mode, which costs more a packet"
                );
            }
            let follows = match policy.filter.attach {
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
            let mode = if attached.generic {
                AttachMode::Generic
            } else {
                AttachMode::Native
            };
            states.push(InterfaceState {
                name: attached.interface,
                ifindex: attached.index,
                mode,
                attached: true,
            });
        }
        self.interfaces = states;
        Ok(())
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

    fn follow_log(&mut self) {
        if self.log == KernelLog::Off {
            return;
        }
        match Lines::follow(&mut self.generation) {
            Ok(lines) => self.lines = Some(lines),
            Err(error) => tracing::error!("{error}"),
        }
    }

    /// Looks whether what should be filtered is; true where something has changed.
    pub async fn look(&mut self) -> bool {
        let (Ok(present), Ok(ours)) = (interfaces::read().await, self.entry.id()) else {
            return false;
        };
        let before = self.interfaces.clone();
        for state in &mut self.interfaces {
            let found = present
                .iter()
                .map(|(interface, _)| interface)
                .find(|i| i.name == state.name);
            state.attached = found.is_some_and(|interface| interface.hook.programs().any(|id| id == ours));
        }
        self.members_moved = self.members.moved(&present);
        for (was, is) in before.iter().zip(&self.interfaces) {
            if was.attached && !is.attached {
                tracing::error!(interface = is.name, "is not filtered any more");
            }
        }
        before != self.interfaces
    }

    /// Whether the filter's pins are still there: `detach` may have taken them while this daemon ran.
    pub fn is_pinned(&self) -> bool {
        self.pins.linked().is_ok_and(|linked| !linked.is_empty())
    }

    /// Why a part of the policy is not judged as written; `None` where all is.
    pub fn narrowed(&self) -> Option<&str> {
        self.narrowed.as_deref()
    }

    /// Whether a bond had other members when it was last looked at than when the generation was loaded.
    pub fn members_moved(&self) -> bool {
        self.members_moved
    }

    /// Whether `"host"` means other addresses now than when the policy was compiled.
    pub fn host_moved(&self, policy: &Policy) -> Result<bool, FilterError> {
        Ok(host_addresses(policy)? != self.host)
    }

    /// Takes the filter off all interfaces and removes all that is pinned.
    pub fn leave(&self) -> Result<(), FilterError> {
        Ok(self.pins.clear()?)
    }

    pub fn generation(&self) -> u64 {
        self.number
    }

    pub fn interfaces(&self) -> &[InterfaceState] {
        &self.interfaces
    }

    pub fn fill(&self) -> &[(&'static str, u64, u64)] {
        &self.fill
    }

    pub fn service_number(&self, name: &str) -> Option<u32> {
        self.numbers.service(name)
    }

    /// Reads the counters of the policy in force, apart from the engine.
    pub fn reader(&self, policy: &Policy) -> Result<Reader, FilterError> {
        let services = policy
            .services
            .iter()
            .filter_map(|service| Some((service.name.clone(), self.numbers.service(&service.name)?)));
        let names = self.interfaces.iter().map(|interface| interface.name.clone());
        let interfaces = names.zip(self.slots.iter().cloned());
        Ok(Reader::new(
            State::of(&self.generation)?,
            services.collect(),
            interfaces.collect(),
        ))
    }
}

fn names_of(chosen: &[Interface]) -> Vec<String> {
    chosen.iter().map(|interface| interface.name.clone()).collect()
}

fn name(state: &mut State, assigned: &compiler::Assigned) -> Result<(), LoadError> {
    for (service, number) in &assigned.services {
        state.name_service(*number, service)?;
    }
    for (hash, number) in &assigned.owners {
        state.name_owner(*number, *hash);
    }
    Ok(())
}

fn meta(generation: u64) -> Meta {
    Meta {
        magic: MAGIC,
        layout_version: LAYOUT_VERSION,
        layout_checksum: LAYOUT_CHECKSUM,
        generation,
        reserved: [0; 5],
    }
}
