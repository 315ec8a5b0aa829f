//! Renewals are counted a publisher and minute: a line each would bury what else happens.

use std::collections::BTreeMap;

use super::Line;

const MINUTE_MS: i64 = 60_000;

#[derive(Default)]
pub(crate) struct Renewals {
    counts: BTreeMap<String, Count>,
    minute: i64,
}

#[derive(Default)]
struct Count {
    renewals: u64,
    first: u64,
    last: u64,
}

impl Renewals {
    pub(crate) fn add(&mut self, publisher: &str, revision: u64, wall_ms: i64) {
        if self.counts.is_empty() {
            self.minute = wall_ms.div_euclid(MINUTE_MS);
        }
        let count = self.counts.entry(publisher.to_owned()).or_default();
        if count.renewals == 0 {
            count.first = revision;
        }
        count.renewals += 1;
        count.last = revision;
    }

    /// Whether a minute is over whose counts are still owed.
    pub(crate) fn is_due(&self, wall_ms: i64) -> bool {
        !self.counts.is_empty() && wall_ms.div_euclid(MINUTE_MS) != self.minute
    }

    /// A line a publisher; what was counted is forgotten when `written` is called.
    pub(crate) fn lines(&self) -> Vec<Line> {
        let line = |(publisher, count): (&String, &Count)| {
            Line::new("renewals", None)
                .with("publisher", publisher.as_str())
                .with("renewals", count.renewals)
                .with("first_revision", count.first)
                .with("last_revision", count.last)
        };
        self.counts.iter().map(line).collect()
    }

    pub(crate) fn written(&mut self) {
        self.counts.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renewals_of_a_minute_are_one_line_a_publisher() {
        let mut renewals = Renewals::default();
        for revision in 5..8 {
            renewals.add("a", revision, 60_000);
        }
        renewals.add("b", 8, 119_999);
        assert!(!renewals.is_due(119_999) && renewals.is_due(120_000));
        let lines = renewals.lines();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0].json()["renewals"], 3);
        assert_eq!(lines[0].json()["last_revision"], 7);
        renewals.written();
        assert!(!renewals.is_due(120_000));
    }
}
