//! The folders of generations in the pin directory: one for that in force, one for that which stands by.

use std::fs;
use std::path::PathBuf;

use filter_common::abi::names;

use super::chain;
use super::load::{Generation, LoadError};
use super::pins::{PinError, Pins, remove};
use super::witness::{self, WitnessMap};

impl Pins {
    pub fn generation(&self, number: u64) -> PathBuf {
        self.root.join(format!("generation-{number}"))
    }

    /// Beside the tables of a generation.
    pub(super) fn witness(&self, generation: u64) -> PathBuf {
        self.generation(generation).join(witness::NAME)
    }

    /// Pins the tables of a generation, for readers and for the next start, and what tells that one of the state folder; a
    /// half-made folder is replaced.
    pub fn pin_generation(
        &self,
        number: u64,
        generation: &Generation,
        witness: Option<&WitnessMap>,
    ) -> Result<(), PinError> {
        let folder = self.generation(number);
        remove(&folder).map_err(|error| self.io(&folder, error))?;
        fs::create_dir(&folder).map_err(|error| self.io(&folder, error))?;
        for name in names::GENERATIONAL {
            let map = generation.map(name)?;
            map.pin(folder.join(name))
                .map_err(|error| LoadError::Object(format!("{name}: {}", chain(&error))))?;
        }
        let path = self.witness(number);
        let pinned = witness.map_or(Ok(()), |witness| witness.pin(&path));
        pinned.map_err(|error| self.io(&path, error))
    }

    /// Removes the folders of all generations but these.
    pub fn keep_generations(&self, numbers: &[u64]) -> Result<(), PinError> {
        let kept: Vec<String> = numbers
            .iter()
            .map(|number| format!("generation-{number}"))
            .collect();
        for name in self.list(&self.root)? {
            if name.starts_with("generation-") && !kept.contains(&name) {
                let path = self.root.join(name);
                remove(&path).map_err(|error| self.io(&path, error))?;
            }
        }
        Ok(())
    }
}
