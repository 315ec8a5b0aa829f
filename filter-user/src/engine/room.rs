//! Tables with more room, begun beside those in force before these have none: so that seldom a change has to wait for
//! them.

use std::time::{Duration, Instant};

use super::Engine;
use super::error::FilterError;
use super::under_way::Purpose;
use crate::bindings::seam::Many;

/// So that changes that use up much room, and the making of more, leave time for other things.
const ROOM_AFTER: Duration = Duration::from_secs(10);

/// What room has been made for, and what is still to be.
#[derive(Default)]
pub(super) struct Room {
    /// When some was begun last because what is only added to was half used.
    made: Option<Instant>,
    /// When some could not be made.
    failed: Option<Instant>,
    /// What is likely to be there soon, in all.
    expected: Many,
}

impl Engine {
    /// So many more are likely to be pushed soon: room for them is made at once, which costs the less the fewer there are.
    pub(super) fn expect(&mut self, more: Many) {
        self.room.expected = self.filter.fill().with(more);
        self.make_room();
    }

    /// Begins tables with more room, where it is time.
    pub(super) fn make_room(&mut self) {
        if self.under_way.is_some() || self.filter.kept {
            return;
        }
        let expected = std::mem::take(&mut self.room.expected);
        let fill = self.filter.fill();
        if let Some(table) = fill.lacks(&expected) {
            return self.begin(Purpose::Room(table, expected));
        }
        let is_late = |since: Option<Instant>| since.is_none_or(|since| since.elapsed() >= ROOM_AFTER);
        if let Some(table) = fill.scarce().filter(|_| is_late(self.room.failed)) {
            // As much again as there is.
            return self.begin(Purpose::Room(table, Many::default()));
        }
        if let Some(table) = fill.half_used().filter(|_| is_late(self.room.made)) {
            self.room.made = Some(Instant::now());
            self.begin(Purpose::Room(table, Many::default()));
        }
    }

    pub(super) fn no_room_made(&mut self, table: &'static str, error: &FilterError) {
        self.room.failed = Some(Instant::now());
        tracing::warn!(
            table,
            "no tables with more room could be made, and they may fill up: {error}"
        );
    }
}
