//! How many lines of a batch share a group, and how many rows are folded at once: no more than a single write can be kept
//! waiting for. One that comes beside others waits for the group under way; the first for a while also for what is
//! decided ahead of the kernel, whose groups are larger.

use std::time::{Duration, Instant};

use super::LINES_A_CHUNK;

/// A single write waits for the group under way, and then for its own: less than half of what it may be delayed by.
const GROUP: Duration = Duration::from_millis(20);
/// For so long after a single write the next is expected.
const ALONE_AFTER: Duration = Duration::from_secs(1);
/// Fewer would be commits and little else.
const LINES_MIN: usize = 64;
/// The same where nobody is known to wait.
const LINES_ALONE_MIN: usize = LINES_A_CHUNK / 4;

/// Rows of the fold at once, while nobody writes.
const FOLD_ROWS: usize = 4_096;

pub(super) struct Pace {
    lines: usize,
    lines_alone: usize,
    last_single: Option<Instant>,
}

impl Pace {
    pub(super) fn new() -> Pace {
        Pace {
            lines: LINES_A_CHUNK / 4,
            lines_alone: LINES_A_CHUNK / 2,
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
            true => self.lines_alone,
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

    /// So many groups, of so many lines in all, were begun at some time and took so long.
    pub(super) fn took(&mut self, (groups, lines): (u32, usize), begun: Instant, time: Duration) {
        let (now, least) = match self.is_alone(begun) {
            true => (&mut self.lines_alone, LINES_ALONE_MIN),
            false => (&mut self.lines, LINES_MIN),
        };
        // A short rest of a chunk says nothing.
        if groups == 0 || lines / (groups as usize) < *now / 4 * 3 {
            return;
        }
        let each = time / groups;
        if each > GROUP {
            *now = (*now / 2).max(least);
        } else if each < GROUP / 2 {
            *now = (*now * 2).min(LINES_A_CHUNK);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batch_has_larger_groups_until_somebody_else_writes() {
        let start = Instant::now();
        let mut pace = Pace::new();
        assert_eq!(pace.lines(start), LINES_A_CHUNK / 2);
        assert_eq!(pace.fold_rows(start), FOLD_ROWS);
        pace.single(start);
        assert_eq!(pace.lines(start), LINES_A_CHUNK / 4);
        assert!(pace.fold_rows(start) < FOLD_ROWS);
        assert_eq!(pace.lines(start + ALONE_AFTER), LINES_A_CHUNK / 2);
    }

    #[test]
    fn groups_are_as_large_as_they_are_quick() {
        let start = Instant::now();
        for (is_alone, least) in [(true, LINES_ALONE_MIN), (false, LINES_MIN)] {
            let mut pace = Pace::new();
            if !is_alone {
                pace.single(start);
            }
            let took = |pace: &mut Pace, ms: u64| {
                for _ in 0..20 {
                    let lines = pace.lines(start) * 3;
                    pace.took((3, lines), start, Duration::from_millis(3 * ms));
                }
                pace.lines(start)
            };
            assert_eq!(took(&mut pace, 100), least);
            pace.took((1, least / 2), start, Duration::from_millis(1));
            assert_eq!(pace.lines(start), least, "a short rest of a chunk says nothing");
            assert_eq!(took(&mut pace, 5), LINES_A_CHUNK);
            assert_eq!(took(&mut pace, 15), LINES_A_CHUNK);
        }
    }
}
