//! The views as tables: columns, rows and their order, without a terminal.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::answer::Top;
use super::state::View;

/// One value as it is shown and sorted.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Cell {
    Text(String),
    /// Of a second.
    Rate(f64),
    Count(u64),
    /// 0 to 1: how full.
    Share(f64),
}

impl Cell {
    pub(super) fn shown(&self) -> String {
        match self {
            Cell::Text(text) => text.clone(),
            Cell::Rate(rate) => short(*rate),
            Cell::Count(count) => whole(*count),
            Cell::Share(share) => format!("{:.0} %", share * 100.0),
        }
    }

    /// Texts from a on, numbers from the greatest on, but what is left from the least on.
    fn order(&self, other: &Cell) -> Ordering {
        match (self, other) {
            (Cell::Text(one), Cell::Text(other)) => one.cmp(other),
            (Cell::Rate(one), Cell::Rate(other)) => other.total_cmp(one),
            (Cell::Count(one), Cell::Count(other)) => other.cmp(one),
            (Cell::Share(one), Cell::Share(other)) => one.total_cmp(other),
            // A column holds cells of one kind.
            _ => Ordering::Equal,
        }
    }
}

/// A number in at most five characters and its unit: `9.5`, `120`, `12.3k`, `4.0M`.
pub(super) fn short(number: f64) -> String {
    let units = [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")];
    // What would be rounded up to the next unit is of that one.
    let unit = units.into_iter().find(|(size, _)| number >= size * 0.9995);
    match unit {
        Some((size, unit)) => format!("{:.1}{unit}", number / size),
        None if number == 0.0 => "0".to_owned(),
        None if number < 9.95 => format!("{number:.1}"),
        None => format!("{number:.0}"),
    }
}

/// The same of what is counted: whole, as long as it is short.
pub(super) fn whole(count: u64) -> String {
    match count {
        0..1_000 => count.to_string(),
        _ => short(count as f64),
    }
}

pub(super) struct Column {
    pub(super) title: &'static str,
    /// Characters; `None` takes what is left.
    pub(super) width: Option<u16>,
}

const fn wide(title: &'static str) -> Column {
    Column { title, width: None }
}

const fn narrow(title: &'static str, width: u16) -> Column {
    Column {
        title,
        width: Some(width),
    }
}

const VERDICTS: &[Column] = &[
    wide("service"),
    narrow("verdict", 8),
    narrow("reason", 15),
    narrow("packets/s", 10),
    narrow("bytes/s", 10),
    narrow("packets", 10),
];
const LISTED: &[Column] = &[
    wide("owner"),
    narrow("packets/s", 10),
    narrow("bytes/s", 10),
    narrow("refused/s", 10),
    narrow("packets", 9),
    narrow("seen", 9),
];
const REFUSED: &[Column] = &[
    wide("source"),
    narrow("packets/s", 10),
    narrow("bytes/s", 9),
    narrow("packets", 9),
    narrow("reason", 15),
    narrow("service", 14),
];
const BUCKETS: &[Column] = &[
    wide("name"),
    narrow("level", 9),
    narrow("unit", 11),
    narrow("left", 9),
    narrow("burst", 9),
    narrow("left %", 8),
];

/// The columns of a view, and the one that it is sorted by until a key says otherwise.
pub(super) fn columns(view: View) -> (&'static [Column], usize) {
    match view {
        View::Overview | View::Verdicts => (VERDICTS, 3),
        View::Listed => (LISTED, 1),
        View::Refused => (REFUSED, 1),
        View::Buckets => (BUCKETS, 5),
    }
}

/// The word with most packets, and that there are others.
fn most(words: &BTreeMap<String, u64>) -> String {
    let most = words.iter().max_by_key(|(_, packets)| **packets);
    let most = most.map_or("-", |(word, _)| word.as_str());
    match words.len() {
        0 | 1 => most.to_owned(),
        more => format!("{most} +{}", more - 1),
    }
}

fn text(text: impl Into<String>) -> Cell {
    Cell::Text(text.into())
}

/// All rows of a view, as they were told.
fn told(view: View, top: &Top) -> Vec<Vec<Cell>> {
    match view {
        View::Overview | View::Verdicts => {
            let rows = top.verdicts.iter().map(|count| {
                vec![
                    text(count.service.as_deref().unwrap_or("-")),
                    text(&*count.verdict),
                    text(&*count.reason),
                    Cell::Rate(count.packets_per_second),
                    Cell::Rate(count.bytes_per_second),
                    Cell::Count(count.packets),
                ]
            });
            rows.collect()
        }
        View::Listed => {
            let rows = top.owners.iter().map(|owner| {
                // The time of day: who is shown passes now.
                let seen = owner.last_seen.as_deref().and_then(|seen| seen.get(11..19));
                vec![
                    text(&*owner.owner),
                    Cell::Rate(owner.packets_per_second),
                    Cell::Rate(owner.bytes_per_second),
                    Cell::Rate(owner.refused_per_second),
                    Cell::Count(owner.packets),
                    text(seen.unwrap_or("-")),
                ]
            });
            rows.collect()
        }
        View::Refused => {
            let rows = top.sources.iter().map(|source| {
                vec![
                    text(&*source.source),
                    Cell::Rate(source.packets_per_second),
                    Cell::Rate(source.bytes_per_second),
                    Cell::Count(source.packets),
                    text(most(&source.reasons)),
                    text(most(&source.services)),
                ]
            });
            rows.collect()
        }
        View::Buckets => {
            let rows = top.buckets.iter().map(|bucket| {
                vec![
                    text(&*bucket.name),
                    text(&*bucket.level),
                    text(&*bucket.unit),
                    Cell::Count(bucket.left),
                    Cell::Count(bucket.burst),
                    Cell::Share(bucket.left as f64 / bucket.burst.max(1) as f64),
                ]
            });
            rows.collect()
        }
    }
}

/// The rows with the filter's text in one of their texts, in the order of a column.
pub(super) fn rows(view: View, top: &Top, filter: &str, (column, turned): (usize, bool)) -> Vec<Vec<Cell>> {
    let filter = filter.to_lowercase();
    let matches = |row: &Vec<Cell>| {
        row.iter()
            .any(|cell| matches!(cell, Cell::Text(text) if text.to_lowercase().contains(&filter)))
    };
    let mut rows = told(view, top);
    rows.retain(matches);
    rows.sort_by(|one, other| {
        let order = one[column].order(&other[column]);
        if turned { order.reverse() } else { order }
    });
    rows
}
