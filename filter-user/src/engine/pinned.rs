//! Whether what outlives the daemon stands where the next one looks for it: looked at every second, before a generation is
//! made, and when the daemon ends.

use super::Engine;
use super::error::FilterError;
use super::filter::Filter;
use super::snapshot::View as _;
use crate::kernel::load::Generation;
use crate::kernel::pins::PinError;
use crate::kernel::repin::Held;

/// Pins named in one sentence.
const NAMED_MAX: usize = 4;

impl Filter {
    /// Whether the filter still stands: `detach` may have taken it off while this daemon ran.
    pub fn is_pinned(&self) -> bool {
        self.pins.stands() || self.entry.links().any()
    }

    /// Whether a generation can be made for it: else its maps would be others than packets go by.
    pub(super) fn must_stand(&mut self) -> Result<(), FilterError> {
        if !self.is_pinned() {
            return Err(FilterError::Detached);
        }
        self.mend_pins()
    }

    /// Whether a generation that was made can be put in force.
    pub(super) fn may_follow(&mut self, next: &Generation) -> Result<(), FilterError> {
        self.must_stand()?;
        match next.is_beside(&self.tables.generation) {
            true => Ok(()),
            false => Err(FilterError::Parted),
        }
    }

    /// Pins again what somebody has removed, and says so; the error is what could not be.
    pub fn mend_pins(&mut self) -> Result<(), FilterError> {
        // Whoever takes the filter off takes its links first.
        if !self.entry.links().any() {
            return Ok(());
        }
        self.hold_folder()
            .map_err(|error| FilterError::Unpinned(error.to_string()))?;
        let mended = self.pins.mend(&self.held());
        if !mended.again.is_empty() {
            tracing::error!(
                "pins of the filter were removed while this daemon ran, and are made again: {}; find who removes them",
                some(&mended.again)
            );
        }
        match mended.failed.as_slice() {
            [] => Ok(()),
            failed => Err(FilterError::Unpinned(some(failed))),
        }
    }

    /// What is locked is the folder that is there.
    fn hold_folder(&mut self) -> Result<(), PinError> {
        if self.pins.is_root(&self.lock) {
            return Ok(());
        }
        self.pins.create()?;
        let lock = self.pins.lock()?;
        self.lock = lock.ok_or_else(|| PinError::Taken(self.pins.root().to_owned()))?;
        Ok(())
    }

    fn held(&self) -> Held<'_> {
        let standby = self.standby.iter().map(|standby| standby.pinned());
        let in_force = (self.number, &self.tables.generation);
        let known = !self.kept;
        Held {
            entry: &self.entry,
            generation: &self.tables.generation,
            tables: known.then_some(in_force).into_iter().chain(standby).collect(),
            witness: self.witness.as_deref(),
            interfaces: self.attachments.numbers(),
        }
    }
}

impl Engine {
    /// Looks after the pins; what is missing still is told, once.
    pub(super) fn look_after_pins(&mut self) {
        let unpinned = self.filter.mend_pins().err().map(|error| error.to_string());
        if self.watch.unpinned == unpinned {
            return;
        }
        match &unpinned {
            Some(trouble) => tracing::error!("{trouble}"),
            None => tracing::info!("the filter's pins are all there again"),
        }
        self.watch.unpinned = unpinned;
        self.publish(self.shared.snapshot().policy.clone());
    }
}

fn some(names: &[String]) -> String {
    let named = names[..names.len().min(NAMED_MAX)].join(", ");
    match names.len().saturating_sub(NAMED_MAX) {
        0 => named,
        more => format!("{named}, and {more} more"),
    }
}
