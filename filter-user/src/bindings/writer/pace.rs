//! How many lines of a batch share a group, and how many rows are folded at once: all that came while nobody else
//! writes, and beside single writes no more than these can be kept waiting for.

use std::time::{Duration, Instant};

use super::LINES_A_CHUNK;

/// A single write waits for the group under way: half of what it may be delayed by.
const GROUP: Duration = Duration::from_millis(25);
/// For so long after a single write the next is expected.
const ALONE_AFTER: Duration = Duration::from_secs(1);
/// Fewer would be commits and little else.
const LINES_MIN: usize = 64;

/// Rows of the fold at once, while nobody writes.
const FOLD_ROWS: usize = 4_096;

pub(super) struct Pace {
    lines: usize,
    last_single: Option<Instant>,
}

impl Pace {
    pub(super) fn new() -> Pace {
        Pace {
            lines: LINES_A_CHUNK / 4,
            last_single: None,
        }
    }

    pub(super) fn single(&mut self, now: Instant) {
        self.last_single = Some(now);
    }

    /// Whether nobody writes singly.
    pub(super) fn is_alone(&self, now: Instant) -> bool {
        let since = self.last_single.map(|last| now.saturating_duration_since(last));
        since.is_none_or(|since| since >= ALONE_AFTER)
    }

    /// Lines of the next group, at most.
    pub(super) fn lines(&self, now: Instant) -> usize {
        match self.is_alone(now) {
            // A whole chunk.
            true => usize::MAX,
            false => self.lines,
        }
    }

    /// Rows that are folded at once: a single write that comes meanwhile waits for them.
    pub(super) fn fold_rows(&self, now: Instant) -> usize {
        match self.is_alone(now) {
            true => FOLD_ROWS,
            false => FOLD_ROWS / 8,
        }
    }

    /// A group of so many lines took so long.
    pub(super) fn took(&mut self, lines: usize, time: Duration) {
        if lines >= self.lines && time > GROUP {
            self.lines = (self.lines / 2).max(LINES_MIN);
        } else if lines >= self.lines && time < GROUP / 2 {
            self.lines = (self.lines * 2).min(LINES_A_CHUNK);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batch_has_the_groups_for_itself_until_somebody_else_writes() {
        let start = Instant::now();
        let mut pace = Pace::new();
        assert_eq!(pace.lines(start), usize::MAX);
        assert_eq!(pace.fold_rows(start), FOLD_ROWS);
        pace.single(start);
        assert!(pace.lines(start) < LINES_A_CHUNK);
        assert!(pace.fold_rows(start) < FOLD_ROWS);
        for _ in 0..20 {
            pace.took(pace.lines(start), Duration::from_millis(100));
        }
        assert_eq!(pace.lines(start), LINES_MIN);
        // A short rest of a chunk says nothing.
        pace.took(LINES_MIN - 1, Duration::from_millis(1));
        assert_eq!(pace.lines(start), LINES_MIN);
        for _ in 0..20 {
            pace.took(pace.lines(start), Duration::from_millis(5));
        }
        assert_eq!(pace.lines(start), LINES_A_CHUNK);
        for _ in 0..20 {
            pace.took(pace.lines(start), Duration::from_millis(100));
        }
        assert_eq!(pace.lines(start + ALONE_AFTER), usize::MAX);
    }
}
