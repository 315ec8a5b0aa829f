//! The maps that are kept over generations, by a generation that uses them or by their pins.

use std::os::fd::AsFd as _;

use aya::Pod;
use aya::maps::{Map, MapData};

use super::chain;
use super::load::{Generation, LoadError};
use super::memory::Memory;
use super::pins::Pins;

pub(super) enum Kept<'a> {
    By(&'a Generation),
    Pinned(&'a Pins),
}

impl Kept<'_> {
    fn data(&self, name: &'static str) -> Result<MapData, LoadError> {
        let failed = |error: &dyn std::fmt::Display| LoadError::Object(format!("{name}: {error}"));
        match self {
            Kept::By(generation) => {
                let fd = generation.map(name)?.fd().as_fd().try_clone_to_owned();
                Ok(MapData::from_fd(fd.map_err(|error| failed(&error))?)?)
            }
            Kept::Pinned(pins) => {
                MapData::from_pin(pins.maps().join(name)).map_err(|error| failed(&chain(&error)))
            }
        }
    }

    pub(super) fn map(&self, name: &'static str) -> Result<Map, LoadError> {
        Ok(Map::from_map_data(self.data(name)?)?)
    }

    pub(super) fn memory<T: Pod>(&self, name: &'static str) -> Result<Memory<T>, LoadError> {
        Memory::of(&self.data(name)?).map_err(|error| LoadError::Object(format!("mapping {name}: {error}")))
    }
}
