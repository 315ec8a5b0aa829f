//! What a generator says of itself: numbers by name, a line each time; printed on one side, read on the other.

use std::{collections::BTreeMap, fmt};

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::lab) struct Report(BTreeMap<String, u64>);

impl Report {
    pub(super) fn of<const N: usize>(numbers: [(&str, u64); N]) -> Self {
        Self(
            numbers
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect(),
        )
    }

    /// What cannot be read counts as not said.
    pub(in crate::lab) fn parse(line: &str) -> Self {
        let pairs = line.split_whitespace().filter_map(|pair| pair.split_once('='));
        let numbers = pairs.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)));
        Self(numbers.collect())
    }

    /// The number of this name; 0 where none was said yet.
    pub(in crate::lab) fn number(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    /// What was done between an earlier report and this.
    pub(in crate::lab) fn since(&self, earlier: &Self) -> Self {
        let grown = self
            .0
            .iter()
            .map(|(name, value)| (name.clone(), value.saturating_sub(earlier.number(name))));
        Self(grown.collect())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (name, value)) in self.0.iter().enumerate() {
            let space = if at == 0 { "" } else { " " };
            write!(f, "{space}{name}={value}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_is_read_again() {
        let report = Report::of([("sent", 42), ("answered", 7)]);
        assert_eq!(Report::parse(&report.to_string()), report);
        assert_eq!(Report::parse("sent=many =3 x").number("sent"), 0);
    }

    #[test]
    fn a_difference_never_goes_below_zero() {
        let (before, now) = (
            Report::of([("sent", 10), ("lost", 3)]),
            Report::of([("sent", 25), ("lost", 0)]),
        );
        assert_eq!(now.since(&before), Report::of([("sent", 15), ("lost", 0)]));
    }
}
