//! The switch that turns a policy back which nobody confirms: a word in the kernel that the entry program reads for each
//! packet, so that it needs no daemon.
//!
//! Packets go to the generation that stands by from the deadline on. So it is put there before the deadline is
//! written, and leaves its place after the deadline is gone: no packet ever finds the place empty.

use std::sync::atomic::Ordering;

use filter_common::abi::{self, names};

use super::kept::Kept;
use super::load::{Generation, LoadError};
use super::memory::Memory;
use super::pins::Pins;

const DEADLINE: usize = std::mem::offset_of!(abi::Switch, deadline) / 8;
const STANDBY: usize = std::mem::offset_of!(abi::Switch, standby) / 8;

/// The switch of an instance, for all its generations.
pub struct Switch(Memory<abi::Switch>);

impl Switch {
    pub fn of(generation: &Generation) -> Result<Self, LoadError> {
        let memory = Memory::of(generation.map(names::SWITCH)?);
        let memory =
            memory.map_err(|error| LoadError::Object(format!("mapping {}: {error}", names::SWITCH)))?;
        Ok(Self(memory))
    }

    /// The words of another layout's, where they can be read.
    pub fn pinned(pins: &Pins) -> Option<abi::Switch> {
        Self(Kept::Pinned(pins).memory(names::SWITCH).ok()?).armed()
    }

    /// When the generation that stands by comes back, and its number; `None` where nothing is to be confirmed.
    pub fn armed(&self) -> Option<abi::Switch> {
        let deadline = self.read(DEADLINE);
        let standby = self.read(STANDBY);
        (deadline != 0).then_some(abi::Switch { deadline, standby })
    }

    /// From the deadline on, packets go to the generation of this number, which stands by already.
    pub fn arm(&self, switch: abi::Switch) {
        self.write(STANDBY, switch.standby);
        self.write(DEADLINE, switch.deadline);
    }

    /// The generation in force stays.
    pub fn disarm(&self) {
        self.write(DEADLINE, 0);
    }

    fn read(&self, word: usize) -> u64 {
        let words = self.0.words(0).unwrap_or_default();
        words.get(word).map_or(0, |word| word.load(Ordering::Acquire))
    }

    fn write(&self, word: usize, value: u64) {
        let words = self.0.words(0).unwrap_or_default();
        if let Some(word) = words.get(word) {
            word.store(value, Ordering::SeqCst);
        }
    }
}
