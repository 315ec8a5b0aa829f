//! Pins that somebody has removed under a running daemon are made again, of what it holds: without them what is in force
//! would end with the daemon, and a generation made meanwhile would have maps that nothing goes by.

use std::fs;
use std::io::ErrorKind;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::Path;

use aya::maps::{MapData, MapInfo};
use filter_common::abi::names;

use super::attach::Entry;
use super::load::Generation;
use super::pins::Pins;
use super::witness::WitnessMap;
use super::{chain, raw, source_levels};

/// What a daemon holds of its filter.
pub struct Held<'h> {
    pub entry: &'h Entry,
    /// By which the maps that outlive a generation are held too.
    pub generation: &'h Generation,
    /// The tables that are pinned: those in force, and those that stand by. None of them are known of a filter that an
    /// earlier daemon left.
    pub tables: Vec<(u64, &'h Generation)>,
    /// Pinned beside each of them.
    pub witness: Option<&'h WitnessMap>,
    /// The interfaces by their names and numbers.
    pub interfaces: Vec<(&'h str, u32)>,
}

/// What became of pins that were not there.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Mended {
    /// Made again, below the instance's folder.
    pub again: Vec<String>,
    /// With what is in the way.
    pub failed: Vec<String>,
}

impl Pins {
    /// Whether an open folder is the instance's own still.
    pub fn is_root(&self, folder: &fs::File) -> bool {
        let place = |found: fs::Metadata| (found.dev(), found.ino());
        let now = fs::metadata(&self.root).map(place).ok();
        now.is_some() && now == folder.metadata().map(place).ok()
    }

    /// Pins again what is not there. What says that a filter stands comes last.
    pub fn mend(&self, held: &Held<'_>) -> Mended {
        let mut mended = Mended::default();
        let links = held.entry.links();
        for interface in links.interfaces() {
            let known = held.interfaces.iter().find(|(_, number)| *number == interface);
            let Some(path) = known.map(|(name, _)| self.link(name)) else {
                continue;
            };
            self.make(&path, exists(&path), &mut mended, || {
                links.pin(interface, &path).map_err(|error| error.to_string())
            });
        }
        let path = self.entry();
        self.make(&path, exists(&path), &mut mended, || {
            let program = held.entry.program().fd().map_err(|error| chain(&error))?;
            raw::pin(program.as_fd(), &path).map_err(|error| error.to_string())
        });
        for (number, generation) in &held.tables {
            for name in names::GENERATIONAL {
                let path = self.generation(*number).join(name);
                self.make(&path, exists(&path), &mut mended, || pin(generation, name, &path));
            }
            if let Some(witness) = held.witness {
                let path = self.witness(*number);
                self.make(&path, exists(&path), &mut mended, || {
                    witness.pin(&path).map_err(|error| error.to_string())
                });
            }
        }
        let maps = self.maps();
        if let Some((_, in_force)) = held.tables.first() {
            let path = maps.join(names::SOURCE_STATE);
            self.make(&path, exists(&path), &mut mended, || {
                source_levels::keep(&maps, in_force).map_err(|error| error.to_string())
            });
        }
        for name in names::PERSISTENT.into_iter().rev() {
            let path = maps.join(name);
            self.make(
                &path,
                is_pinned(held.generation, name, &path),
                &mut mended,
                || pin(held.generation, name, &path),
            );
        }
        mended
    }

    /// Makes a pin that is not there, and its folder.
    fn make(
        &self,
        path: &Path,
        is_there: bool,
        mended: &mut Mended,
        made: impl FnOnce() -> Result<(), String>,
    ) {
        if is_there {
            return;
        }
        let folder = path.parent().unwrap_or(&self.root);
        let folder = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
        let made = folder.map_err(|error| error.to_string()).and_then(|()| made());
        let name = path.strip_prefix(&self.root).unwrap_or(path).display();
        match made {
            Ok(()) => mended.again.push(name.to_string()),
            Err(error) => mended.failed.push(format!("{name}: {error}")),
        }
    }
}

impl Generation {
    /// Whether it has the maps that outlive a generation together with another one.
    pub fn is_beside(&self, other: &Self) -> bool {
        let id = |generation: &Self, name| generation.map(name).ok()?.info().ok().map(|info| info.id());
        let same = |name| id(self, name).is_some() && id(self, name) == id(other, name);
        names::PERSISTENT.into_iter().all(same)
    }
}

/// What cannot be looked at is told where it is needed.
pub(super) fn exists(path: &Path) -> bool {
    !matches!(fs::symlink_metadata(path), Err(error) if error.kind() == ErrorKind::NotFound)
}

/// Whether a generation's map is the one that is pinned: one that was made meanwhile may have taken the place.
fn is_pinned(generation: &Generation, name: &'static str, path: &Path) -> bool {
    let ours = generation.map(name).ok().and_then(|map| map.info().ok());
    match MapInfo::from_pin(path) {
        Ok(info) => Some(info.id()) == ours.map(|info| info.id()),
        Err(_) => exists(path),
    }
}

/// In the place of whatever is there.
fn pin(generation: &Generation, name: &'static str, path: &Path) -> Result<(), String> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.to_string()),
        _ => {}
    }
    let map: &MapData = generation.map(name).map_err(|error| error.to_string())?;
    map.pin(path).map_err(|error| chain(&error))
}
