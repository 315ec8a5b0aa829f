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
    /// Characters, at least.
    pub(super) width: u16,
}

const fn column(title: &'static str, width: u16) -> Column {
    Column { title, width }
}

/// The widths of the columns that fit beside each other, a space between two: the first takes what is left, the last go
/// where there is no room.
pub(super) fn fitting(columns: &[Column], width: u16) -> Vec<u16> {
    let mut widths: Vec<u16> = columns.iter().map(|column| column.width).collect();
    let taken = |widths: &[u16]| widths.iter().sum::<u16>() + widths.len() as u16 - 1;
    while widths.len() > 1 && taken(&widths) > width {
        widths.pop();
    }
    widths[0] = (widths[0] + width.saturating_sub(taken(&widths))).min(width);
    widths
}

/// A text within so many characters; what is cut shows it.
pub(super) fn cut(text: String, width: u16) -> String {
    let width = usize::from(width);
    if text.chars().count() <= width {
        return text;
    }
    let kept = text.chars().take(width.saturating_sub(1));
    kept.chain(['…']).collect()
}

const VERDICTS: &[Column] = &[
    column("service", 20),
    column("verdict", 8),
    column("reason", 15),
    column("packets/s", 10),
    column("bytes/s", 10),
    column("packets", 10),
];
const LISTED: &[Column] = &[
    column("owner", 27),
    column("packets/s", 10),
    column("bytes/s", 10),
    column("refused/s", 10),
    column("packets", 9),
    column("seen", 9),
];
const REFUSED: &[Column] = &[
    // A whole IPv6 address.
    column("source", 39),
    column("packets/s", 10),
    column("packets", 9),
    column("reason", 15),
    column("service", 16),
    column("bytes/s", 9),
];
const BUCKETS: &[Column] = &[
    column("name", 27),
    column("level", 9),
    column("unit", 11),
    column("left", 9),
    column("burst", 9),
    column("left %", 8),
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
                    Cell::Count(source.packets),
                    text(most(&source.reasons)),
                    text(most(&source.services)),
                    Cell::Rate(source.bytes_per_second),
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
