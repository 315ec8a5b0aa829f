//! A filter of another layout gives way to this one's: made beside it in a folder of its own, then each interface's link
//! goes over to it in one step, then the folders change places in one more.
//!
//! Whenever this ends half-way, every link leads to a whole filter whose pins are there; the next start gives all links
//! to the one in the instance's own folder and clears the other.

use std::io;
use std::os::fd::AsFd as _;

use filter_common::abi::parts::{self, PARTS};
use filter_common::abi::{LAYOUT_CHECKSUM, LAYOUT_VERSION, Meta, names};
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use super::attach::Entry;
use super::chain;
use super::load::LoadError;
use super::pins::{PinError, Pins, remove};
use super::raw::{self, Barrier};

/// Behind an instance's name: no name has it.
const BESIDE: &str = "~next";

/// Whether a folder's name is an instance's, and not that of what takes its place.
pub(super) fn is_instance(name: &str) -> bool {
    !name.ends_with(BESIDE)
}

impl Pins {
    /// Where what is to take the place of a filter of another layout is made.
    pub fn beside(&self) -> Self {
        let mut name = self.root.file_name().unwrap_or_default().to_owned();
        name.push(BESIDE);
        Self {
            root: self.root.with_file_name(name),
        }
    }

    /// Clears what a succession has left that ended half-way, whichever of the two stands where; all links lead to the
    /// one here from then on.
    pub fn settle(&self) -> Result<(), PinError> {
        let beside = self.beside();
        if !beside.root.exists() {
            return Ok(());
        }
        tracing::warn!("{}: an upgrade ended half-way; cleared", beside.root().display());
        if self.entry().exists() {
            Entry::adopt(self)?.take_links(self)?;
        }
        beside.forget()
    }

    /// Removes pins whose links another folder has too: nothing is taken off.
    fn forget(&self) -> Result<(), PinError> {
        // No packet is in a program any more whose table of generations goes with its pin.
        let waited = Barrier::new().and_then(|barrier| barrier.wait());
        waited.map_err(|error| self.io(&self.root, error))?;
        remove(&self.root).map_err(|error| self.io(&self.root, error))
    }

    /// Makes the folder, with the maps of `from` in it that are the same in both layouts, but for a table of owners that is
    /// to grow; says which parts are.
    pub fn begin(&self, from: &Pins, theirs: &Meta, grows: bool) -> Result<[bool; PARTS.len()], PinError> {
        self.create()?;
        let mut same = parts::same(&theirs.since);
        if theirs.layout_version == LAYOUT_VERSION && theirs.layout_checksum != LAYOUT_CHECKSUM {
            // Somebody forgot to raise the version: who knows what else.
            same = [false; PARTS.len()];
        }
        for (part, same) in PARTS.iter().zip(&mut same) {
            *same &= part.maps.iter().all(|name| from.has_shape(name));
        }
        same[parts::ACCOUNTING] &= same[parts::OWNERS];
        let shared = PARTS.iter().zip(&same).filter(|(_, same)| **same);
        for name in shared.flat_map(|(part, _)| part.maps) {
            if !grows || *name != names::OWNER_STATE {
                let to = self.maps().join(name);
                let pinned = raw::pin_again(&from.maps().join(name), &to);
                pinned.map_err(|error| self.io(&to, error))?;
            }
        }
        Ok(same)
    }

    /// Pins the links here too.
    pub fn share_links(&self, from: &Pins) -> Result<(), PinError> {
        for interface in from.linked()? {
            let to = self.link(&interface);
            let pinned = raw::pin_again(&from.link(&interface), &to);
            pinned.map_err(|error| self.io(&to, error))?;
        }
        Ok(())
    }

    /// Takes the place of the filter whose links this one has, and whose pins go.
    pub fn succeed(self, before: &Pins) -> Result<Self, PinError> {
        let changed = renameat2(
            AT_FDCWD,
            &self.root,
            AT_FDCWD,
            &before.root,
            RenameFlags::RENAME_EXCHANGE,
        );
        changed.map_err(|error| self.io(&self.root, error.into()))?;
        // What was made beside stands in the instance's folder, and the other way round.
        self.forget()?;
        Ok(before.clone())
    }

    /// As far as this has come: for where there is nothing to go back to.
    pub fn go_through(self, before: &Pins) -> Result<(), PinError> {
        if self.linked()?.is_empty() {
            return self.forget();
        }
        Entry::adopt(&self)?.take_links(&self)?;
        self.succeed(before).map(drop)
    }

    /// As if nothing had been made here: the links lead to the filter of `before` again, and those that are only here
    /// are taken off.
    pub fn give_up(&self, before: &Pins) -> Result<(), PinError> {
        Entry::adopt(before)?.take_links(before)?;
        let kept = before.linked()?;
        for interface in self.linked()?.iter().filter(|name| !kept.contains(name)) {
            let taken = self.unpin_link(interface);
            taken.map_err(|error| self.io(&self.link(interface), error))?;
        }
        self.forget()
    }
}

impl Entry {
    /// Puts this program behind each link that is pinned in a folder, whichever is there.
    pub fn take_links(&self, pins: &Pins) -> Result<(), PinError> {
        let failed = |error: &dyn std::error::Error| LoadError::Object(format!("links: {}", chain(error)));
        let program = self.program().fd().map_err(|error| failed(&error))?;
        for interface in pins.linked()? {
            let link = pins.link(&interface);
            match raw::update_link(&link, program.as_fd()) {
                // Its interface is gone.
                Err(error) if matches!(error.raw_os_error(), Some(libc::ENOLINK | libc::ENODEV)) => {}
                updated => updated.map_err(|error: io::Error| pins.io(&link, error))?,
            }
        }
        Ok(())
    }
}
