//! The figures as tables on the terminal.

use comfy_table::presets::ASCII_MARKDOWN;
use comfy_table::{CellAlignment, Table};

use crate::figures::{Beside, Figures, Percentiles, Traffic, Variant};
use crate::floors::Floor;
use crate::live::peers::Peer;
use crate::short;

fn table(heads: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(ASCII_MARKDOWN).set_header(heads);
    table
}

fn right(table: &mut Table, first: usize) {
    for column in table.column_iter_mut().skip(first) {
        column.set_cell_alignment(CellAlignment::Right);
    }
}

/// A cost: whole nanoseconds from 100 on.
pub(crate) fn ns(value: f64) -> String {
    if value < 100.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.0}")
    }
}

/// A packet in the test run: gross, and how many times faster than with the kernel's trie; without records of what is
/// dropped, and with them.
pub(crate) fn judged(figures: &Figures) -> Table {
    let mut out = table(&[
        "sources",
        "of",
        "packet",
        "bare",
        "driver",
        "parse",
        "Keyfence",
        "(rounds)",
        "LPM_TRIE",
        "ratio",
        "records: Keyfence",
        "records: LPM_TRIE",
        "records: ratio",
    ]);
    for cell in figures
        .judged
        .iter()
        .filter(|cell| cell.variant == Variant::Keyfence)
    {
        let of = |variant| figures.ns(cell.kind, cell.owners, cell.sources, cell.traffic, variant);
        let shown = |variant| of(variant).map_or_else(|| "-".to_owned(), ns);
        let ratio = |trie, ours| match (of(trie), of(ours)) {
            (Some(trie), Some(ours)) => format!("{:.1}", trie / ours),
            _ => "-".to_owned(),
        };
        out.add_row([
            format!("{} {}", short(cell.sources), cell.kind.name()),
            cell.owners.name().to_owned(),
            cell.traffic.name().to_owned(),
            shown(Variant::Bare),
            shown(Variant::Empty),
            shown(Variant::Parse),
            ns(cell.ns.median),
            format!("{}-{}", ns(cell.ns.low), ns(cell.ns.high)),
            shown(Variant::Trie),
            ratio(Variant::Trie, Variant::Keyfence),
            shown(Variant::Recorded),
            shown(Variant::TrieRecorded),
            ratio(Variant::TrieRecorded, Variant::Recorded),
        ]);
    }
    right(&mut out, 3);
    out
}

/// The features on and off.
pub(crate) fn features(figures: &Figures) -> Table {
    let mut out = table(&["sources", "policy", "hit", "stranger", "one of 1,024 strangers"]);
    for cell in figures
        .features
        .iter()
        .filter(|cell| cell.traffic == Traffic::Hit)
    {
        let of = |traffic| {
            let found = figures.feature(cell.sources, cell.feature, traffic);
            found.map_or_else(|| "-".to_owned(), ns)
        };
        out.add_row([
            short(cell.sources),
            cell.feature.name().to_owned(),
            of(Traffic::Hit),
            of(Traffic::Stranger),
            of(Traffic::FewStrangers),
        ]);
    }
    right(&mut out, 2);
    out
}

pub(crate) fn exhausted(figures: &Figures) -> Table {
    let mut out = table(&["owners of one source, all exhausted but the last", "hit"]);
    for cell in &figures.exhausted {
        out.add_row([cell.owners.to_string(), ns(cell.ns.median)]);
    }
    right(&mut out, 1);
    out
}

/// Live, beside the empty drop.
pub(crate) fn live(figures: &Figures) -> Table {
    let mut out = table(&[
        "sources",
        "filter",
        "packet",
        "ns",
        "(rounds)",
        "of an empty XDP drop",
    ]);
    for cell in &figures.live {
        let floor = figures.live(cell.sources, Peer::XdpDrop, Traffic::Stranger);
        out.add_row([
            short(cell.sources),
            cell.peer.name().to_owned(),
            cell.traffic.name().to_owned(),
            ns(cell.ns.median),
            format!("{}-{}", ns(cell.ns.low), ns(cell.ns.high)),
            floor.map_or_else(
                || "-".to_owned(),
                |floor| format!("{:.2}", cell.ns.median / floor),
            ),
        ]);
    }
    right(&mut out, 3);
    out
}

/// Loads, single updates and memory, a line each.
pub(crate) fn updates(figures: &Figures) -> Table {
    let mut out = table(&["what", "figure"]);
    let mut row = |what: String, figure: String| {
        out.add_row([what, figure]);
    };
    for bulk in &figures.bulk {
        let of = format!("{} sources, {}", short(bulk.sources), bulk.owners.name());
        row(
            format!("{of}: compile + load + swap"),
            format!(
                "{:.0} + {:.0} + {:.1} = {:.0} ms",
                bulk.compile_ms.median, bulk.load_ms.median, bulk.swap_ms.median, bulk.whole_ms.median
            ),
        );
        row(
            format!("{of}: kernel memory a source"),
            format!("{:.1} bytes", bulk.kernel_bytes_a_source),
        );
    }
    for single in &figures.single {
        let wider = single.wider.iter();
        let wider = wider.map(|wider| (wider.what.as_str(), wider.put_us, wider.remove_us));
        for (of, put, removed) in [("a binding", single.put_us, single.remove_us)]
            .into_iter()
            .chain(wider)
        {
            for (what, spent) in [("put", put), ("removed", removed)] {
                row(
                    format!(
                        "{of} {what} beside {}: half, 99 %, all within",
                        short(single.bindings)
                    ),
                    format!("{:.0}, {:.0}, {:.0} us", spent.half, spent.of_99, spent.most),
                );
            }
        }
    }
    for beside in &figures.beside {
        beside_reloads(beside)
            .into_iter()
            .for_each(|(what, figure)| row(what, figure));
    }
    for daemon in &figures.daemon {
        let of = format!("daemon, {} sources of a file", short(daemon.sources));
        row(
            format!("{of}: its own memory a source, started and reloaded"),
            format!(
                "{:.0}, {:.0} bytes",
                daemon.bytes_a_source, daemon.bytes_a_source_after_reload
            ),
        );
        row(
            format!("{of}: read, checked and in force again"),
            format!("{:.0} ms", daemon.reload_ms),
        );
    }
    right(&mut out, 1);
    out
}

fn beside_reloads(beside: &Beside) -> Vec<(String, String)> {
    let of = format!("beside reloads of {} sources", short(beside.sources));
    let spent = [
        (format!("a binding put {of}"), &beside.put_us),
        (format!("a binding removed {of}"), &beside.remove_us),
        (
            "a packet's test run, nothing else going on".to_owned(),
            &beside.packet_alone_us,
        ),
        (
            "a packet's test run beside single changes".to_owned(),
            &beside.packet_beside_changes_us,
        ),
        (
            format!("a packet's test run {of} and single changes"),
            &beside.packet_beside_reloads_us,
        ),
    ];
    let within = |spent: &Percentiles| format!("{:.0}, {:.0}, {:.0} us", spent.half, spent.of_99, spent.most);
    let spent = spent.map(|(what, spent)| (format!("{what}: half, 99 %, all within"), within(spent)));
    let reload = (
        format!(
            "a reload of {} sources, {} changes beside five",
            short(beside.sources),
            beside.changes
        ),
        format!("{:.0} ms", beside.reload_ms.median),
    );
    spent.into_iter().chain([reload]).collect()
}

/// Each floor, and what was found.
pub(crate) fn floors(floors: &[Floor]) -> Table {
    let mut out = table(&["what", "at least", "found", "from", ""]);
    for floor in floors {
        out.add_row([
            floor.what.clone(),
            floor.wanted(),
            floor.found(),
            floor.from.clone(),
            if floor.is_met() { "reached" } else { "**short**" }.to_owned(),
        ]);
    }
    out
}
