//! The end of a replay: one JSON object, or tables for people.

use std::fmt::Write as _;
use std::time::Duration;

use comfy_table::{Cell, CellAlignment, Color, Table, presets};
use filter_common::verdict::{NO_SERVICE, Reason, Verdict};
use serde_json::{Map, Value, json};

use super::super::shell::{Shell, Tone};
use super::super::words::{count, rate, thousands, time};
use super::count::{Counts, Verdicts};
use crate::judge::Names;

const TOP_SOURCES: usize = 10;
/// A longer list of files is for `--json`.
const FILES_SHOWN_MAX: usize = 100;
const WHYS_SHOWN_MAX: usize = 30;

/// What the summary is about.
pub(super) struct About<'a> {
    pub(super) policy: &'a str,
    pub(super) hash: &'a str,
    pub(super) names: &'a Names,
    pub(super) took: Duration,
}

pub(super) fn object(counts: &Counts, about: &About<'_>) -> Value {
    let mut reasons = Map::new();
    for verdict in Verdict::ALL {
        let of =
            reasons_of(counts, verdict).map(|(reason, frames)| (reason.name().to_owned(), frames.into()));
        reasons.insert(verdict.name().to_owned(), Value::Object(of.collect()));
    }
    let services = services(counts, about.names).into_iter().map(|(name, counts)| {
        let mut service = by_verdict(&counts);
        service.insert("service".to_owned(), name.into());
        Value::Object(service)
    });
    let sources = counts
        .top_sources(TOP_SOURCES)
        .into_iter()
        .map(|(source, counts)| {
            let mut counted = by_verdict(&counts);
            counted.insert("source".to_owned(), source.to_string().into());
            Value::Object(counted)
        });
    let frames_skipped: Map<String, Value> = counts
        .frames_skipped
        .iter()
        .map(|(why, skips)| (why.clone(), skips.frames.into()))
        .collect();
    json!({
        "schema": 1,
        "summary": {
            "policy": about.policy,
            "hash": about.hash,
            "files": counts.files.len(),
            "frames": counts.frames,
            "verdicts": by_verdict(&counts.verdicts),
            "reasons": reasons,
            "services": services.collect::<Vec<_>>(),
            "skipped": { "frames": frames_skipped, "files": counts.files_skipped },
            "sources": counts.source_count(),
            "sources_beyond": counts.sources_beyond,
            "top_sources": sources.collect::<Vec<_>>(),
        }
    })
}

fn by_verdict(counts: &Verdicts) -> Map<String, Value> {
    let counted = Verdict::ALL.iter().zip(counts);
    counted
        .map(|(verdict, count)| (verdict.name().to_owned(), (*count).into()))
        .collect()
}

fn reasons_of(counts: &Counts, verdict: Verdict) -> impl Iterator<Item = (Reason, u64)> {
    let frames = counts.reasons[verdict as usize];
    Reason::ALL
        .into_iter()
        .zip(frames)
        .filter(|(_, frames)| *frames > 0)
}

/// By name, those that were asked for first; `None` is no service.
fn services(counts: &Counts, names: &Names) -> Vec<(Option<String>, Verdicts)> {
    let of = |number: &u32| counts.services.get(number).copied().unwrap_or_default();
    let mut list: Vec<_> = names
        .services()
        .map(|(number, name)| (Some(name.to_owned()), of(&number)))
        .collect();
    list.sort();
    list.push((None, of(&NO_SERVICE)));
    list
}

fn skipped_words(counts: &Counts, frames: u64) -> String {
    let files: u64 = counts.files_skipped.values().sum();
    let frames = count(frames as usize, "frame", "frames");
    match files {
        0 => frames,
        files => format!("{frames} and {}", count(files as usize, "file", "files")),
    }
}

pub(super) fn page(counts: &Counts, about: &About<'_>, shell: &Shell) -> String {
    let mut page = String::new();
    let heading = |text: &str| shell.paint(Tone::Heading, text);
    let skipped: u64 = counts.frames_skipped.values().map(|skips| skips.frames).sum();
    let judged = counts.frames - skipped;
    // Writing to a string cannot fail.
    let _ = writeln!(
        page,
        "{}: the kernel program judged {} of {} in {} ({} a second); {} skipped",
        about.policy,
        count(judged as usize, "frame", "frames"),
        count(counts.files.len(), "file", "files"),
        time(about.took),
        rate(judged, about.took),
        skipped_words(counts, skipped),
    );
    let _ = writeln!(
        page,
        "\n{}\n{}",
        heading("Verdicts"),
        show(verdicts(counts), shell)
    );
    let _ = writeln!(
        page,
        "\n{}\n{}",
        heading("Services"),
        show(services_table(counts, about.names), shell)
    );
    if counts.source_count() > 0 {
        let _ = writeln!(
            page,
            "\n{}\n{}",
            heading("Top sources"),
            show(sources(counts), shell)
        );
    }
    if counts.sources_beyond > 0 {
        let _ = writeln!(
            page,
            "  and {} of sources beyond those told apart",
            count(counts.sources_beyond as usize, "frame", "frames")
        );
    }
    if counts.files.len() > 1 && counts.files.len() <= FILES_SHOWN_MAX {
        let _ = writeln!(page, "\n{}\n{}", heading("Files"), show(files(counts), shell));
    }
    skips(&mut page, counts, &heading);
    page
}

/// What was skipped: frames by reason, with the first ones named, and each file.
fn skips(page: &mut String, counts: &Counts, heading: &dyn Fn(&str) -> String) {
    if !counts.frames_skipped.is_empty() {
        let _ = writeln!(page, "\n{}", heading("Frames skipped"));
    }
    for (why, skips) in counts.frames_skipped.iter().take(WHYS_SHOWN_MAX) {
        let first = skips
            .first
            .iter()
            .map(|(file, frame)| format!("{file} frame {frame}"));
        let first: Vec<String> = first.collect();
        let more = match skips.frames - first.len() as u64 {
            0 => String::new(),
            more => format!(" and {} more", thousands(more)),
        };
        let frames = thousands(skips.frames);
        let _ = writeln!(page, "  {frames:>8}  {why}: {}{more}", first.join(", "));
    }
    say_more(
        page,
        counts.frames_skipped.len().saturating_sub(WHYS_SHOWN_MAX),
        "reason",
    );
    let skipped = counts
        .files
        .iter()
        .filter_map(|file| Some((&file.name, file.fault.as_ref()?)));
    let skipped: Vec<_> = skipped.collect();
    if !skipped.is_empty() {
        let _ = writeln!(page, "\n{}", heading("Files skipped"));
    }
    for (file, why) in skipped.iter().take(FILES_SHOWN_MAX) {
        let _ = writeln!(page, "  {file}: {why}");
    }
    say_more(page, skipped.len().saturating_sub(FILES_SHOWN_MAX), "file");
}

fn say_more(page: &mut String, more: usize, what: &str) {
    if more > 0 {
        let more = count(more, &format!("more {what}"), &format!("more {what}s"));
        let _ = writeln!(page, "  and {more}; --json has them all");
    }
}

fn verdicts(counts: &Counts) -> Table {
    let mut table = table(&["verdict", "reason", "frames", "share"], 2);
    let judged: u64 = counts.verdicts.iter().sum();
    for verdict in Verdict::ALL {
        for (reason, frames) in reasons_of(counts, verdict) {
            let share = format!("{:.1} %", frames as f64 * 100.0 / judged.max(1) as f64);
            let verdict = Cell::new(verdict.name()).fg(colour(verdict));
            table.add_row([
                verdict,
                Cell::new(reason.name()),
                Cell::new(frames),
                Cell::new(share),
            ]);
        }
    }
    table
}

fn services_table(counts: &Counts, names: &Names) -> Table {
    let mut table = table(&["service", "passed", "dropped", "observed"], 1);
    for (name, counts) in services(counts, names) {
        row(&mut table, name.as_deref().unwrap_or("(none)"), &counts);
    }
    table
}

fn sources(counts: &Counts) -> Table {
    let mut table = table(&["source", "passed", "dropped", "observed"], 1);
    for (source, counts) in counts.top_sources(TOP_SOURCES) {
        row(&mut table, &source.to_string(), &counts);
    }
    table
}

fn files(counts: &Counts) -> Table {
    let mut table = table(&["file", "frames", "passed", "dropped", "observed", "skipped"], 1);
    for file in &counts.files {
        let mut cells = vec![Cell::new(&file.name), Cell::new(file.frames)];
        cells.extend(cells_of(&file.verdicts));
        cells.push(Cell::new(file.skipped));
        if let Some(fault) = &file.fault {
            cells.push(Cell::new(fault).fg(Color::Yellow));
        }
        table.add_row(cells);
    }
    table
}

fn row(table: &mut Table, name: &str, counts: &Verdicts) {
    let mut cells = vec![Cell::new(name)];
    cells.extend(cells_of(counts));
    table.add_row(cells);
}

fn cells_of(counts: &Verdicts) -> impl Iterator<Item = Cell> {
    Verdict::ALL
        .into_iter()
        .zip(*counts)
        .map(|(verdict, frames)| match frames {
            0 => Cell::new(0),
            frames => Cell::new(frames).fg(colour(verdict)),
        })
}

fn colour(verdict: Verdict) -> Color {
    match verdict {
        Verdict::Pass => Color::Green,
        Verdict::Drop => Color::Red,
        Verdict::Observe => Color::Yellow,
    }
}

fn table(header: &[&str], numbers_from: usize) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(header);
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((if index == 0 { 2 } else { 0 }, 2));
        if index >= numbers_from {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

fn show(mut table: Table, shell: &Shell) -> String {
    match shell.colour_output {
        true => table.enforce_styling(),
        false => table.force_no_tty(),
    };
    table.trim_fmt()
}
