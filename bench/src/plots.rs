//! The figures as plots: cost against the number of sources, and the filters side by side. SVG, no font needed.

use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};
use plotters::prelude::*;

use crate::figures::{Figures, Traffic, Variant};
use crate::scenario::{Feature, Owners};
use crate::selection::Kind;
use crate::short;

const SIZE: (u32, u32) = (760, 420);
const BAR: f64 = 0.7;
const BAR_PIXELS: u32 = 30;

/// Writes those that there are figures for, and answers their files.
pub(crate) fn write(figures: &Figures, folder: &Path) -> Result<Vec<PathBuf>> {
    std::fs::create_dir_all(folder)?;
    let mut files = Vec::new();
    for kind in Kind::ALL {
        let file = folder.join(format!("judging-{}.svg", file_name(kind)));
        if judging(figures, kind, &file)? {
            files.push(file);
        }
    }
    for size in sizes(figures.features.iter().map(|cell| cell.sources)) {
        let file = folder.join(format!("records-{}.svg", short(size)));
        records(figures, size, &file)?;
        files.push(file);
    }
    for size in sizes(figures.live.iter().map(|cell| cell.sources)) {
        let file = folder.join(format!("live-{}.svg", short(size)));
        live(figures, size, &file)?;
        files.push(file);
    }
    Ok(files)
}

fn sizes(cells: impl Iterator<Item = usize>) -> Vec<usize> {
    let mut sizes: Vec<usize> = cells.collect();
    sizes.dedup();
    sizes
}

fn file_name(kind: Kind) -> &'static str {
    match kind {
        Kind::HostsV4 => "ipv4",
        Kind::MixedV4 => "ipv4-mixed",
        Kind::HostsV6 => "ipv6",
        Kind::MixedV6 => "ipv6-mixed",
    }
}

type Line = (&'static str, RGBColor, Vec<(f64, f64)>);

fn judging(figures: &Figures, kind: Kind, file: &Path) -> Result<bool> {
    let line = |name, colour, traffic, variant| -> Line {
        let cells = figures.judged.iter().filter(|cell| {
            (cell.kind, cell.owners, cell.traffic, cell.variant) == (kind, Owners::Client, traffic, variant)
        });
        let mut points: Vec<(f64, f64)> = cells.map(|cell| (cell.sources as f64, cell.ns.median)).collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        (name, colour, points)
    };
    let lines = [
        line(
            "LPM_TRIE, hit",
            RGBColor(190, 40, 40),
            Traffic::Hit,
            Variant::Trie,
        ),
        line(
            "LPM_TRIE, stranger",
            RGBColor(230, 140, 110),
            Traffic::Stranger,
            Variant::Trie,
        ),
        line(
            "Keyfence, hit",
            RGBColor(20, 80, 160),
            Traffic::Hit,
            Variant::Keyfence,
        ),
        line(
            "Keyfence, stranger",
            RGBColor(100, 170, 220),
            Traffic::Stranger,
            Variant::Keyfence,
        ),
        line(
            "Keyfence, stranger, records (a flood)",
            RGBColor(120, 60, 160),
            Traffic::Stranger,
            Variant::Recorded,
        ),
        line(
            "Keyfence, one of 1,024 strangers, records",
            RGBColor(190, 140, 210),
            Traffic::FewStrangers,
            Variant::Recorded,
        ),
        line(
            "an empty program",
            RGBColor(130, 130, 130),
            Traffic::Stranger,
            Variant::Empty,
        ),
    ];
    let all = || lines.iter().flat_map(|(_, _, points)| points);
    let largest = all().map(|(sources, _)| *sources).fold(0.0, f64::max);
    let smallest = all().map(|(sources, _)| *sources).fold(f64::INFINITY, f64::min);
    if largest <= smallest {
        return Ok(false);
    }
    let most = all().map(|(_, ns)| *ns).fold(0.0, f64::max);
    let title = format!("{}: CPU time a packet in the kernel's test run", kind.name());
    draw_lines(file, &title, (smallest..largest, most), &lines).map_err(plain)?;
    Ok(true)
}

fn draw_lines(
    file: &Path,
    title: &str,
    (sources, most): (std::ops::Range<f64>, f64),
    lines: &[Line],
) -> Result<(), Box<dyn std::error::Error>> {
    let area = SVGBackend::new(file, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 16))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(60)
        .build_cartesian_2d(sources.log_scale(), (10.0..most * 1.3).log_scale())?;
    chart
        .configure_mesh()
        .x_desc("sources")
        .y_desc("ns")
        .x_label_formatter(&|sources| thousands(*sources))
        .y_label_formatter(&|ns| format!("{ns:.0}"))
        .light_line_style(WHITE)
        .draw()?;
    for (name, colour, points) in lines {
        let style = colour.stroke_width(2);
        chart
            .draw_series(LineSeries::new(points.iter().copied(), style))?
            .label(*name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
        chart.draw_series(points.iter().map(|point| Circle::new(*point, 3, colour.filled())))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    area.present()?;
    Ok(())
}

/// What records of drops cost: off and on, while each source has a line, and in a flood.
fn records(figures: &Figures, sources: usize, file: &Path) -> Result<()> {
    let mut bars = Vec::new();
    for traffic in [Traffic::FewStrangers, Traffic::Stranger] {
        for (feature, records) in [(Feature::Whole, "off"), (Feature::Records, "on")] {
            if let Some(ns) = figures.feature(sources, feature, traffic) {
                let is_on = feature == Feature::Records;
                bars.push((format!("{}, records {records}", traffic.name()), ns, is_on));
            }
        }
    }
    let title = format!(
        "Records of drops, {} sources: CPU time a packet in the kernel's test run",
        short(sources)
    );
    draw_bars(file, &title, &bars).map_err(plain)
}

fn live(figures: &Figures, sources: usize, file: &Path) -> Result<()> {
    let bars: Vec<(String, f64, bool)> = figures
        .live
        .iter()
        .filter(|cell| cell.sources == sources)
        .map(|cell| {
            let name = cell.peer.name();
            let is_ours = name.starts_with("Keyfence");
            (
                format!("{name}: {}", cell.traffic.name()),
                cell.ns.median,
                is_ours,
            )
        })
        .collect();
    let title = format!(
        "Live on a veth, {} sources: CPU time a packet, sending included",
        short(sources)
    );
    draw_bars(file, &title, &bars).map_err(plain)
}

fn draw_bars(
    file: &Path,
    title: &str,
    bars: &[(String, f64, bool)],
) -> Result<(), Box<dyn std::error::Error>> {
    let height = 80 + BAR_PIXELS * bars.len() as u32;
    let area = SVGBackend::new(file, (SIZE.0, height)).into_drawing_area();
    area.fill(&WHITE)?;
    let most = bars.iter().map(|(_, ns, _)| *ns).fold(0.0, f64::max);
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 16))
        .margin(12)
        .x_label_area_size(30)
        .build_cartesian_2d(-most * 0.62..most * 1.1, 0.0..bars.len() as f64)?;
    let label = ("sans-serif", 13).into_font();
    for (at, (name, ns, is_ours)) in bars.iter().enumerate() {
        let bottom = (bars.len() - at) as f64 - BAR;
        let colour = if *is_ours {
            RGBColor(20, 80, 160)
        } else {
            RGBColor(150, 150, 150)
        };
        let bar = Rectangle::new([(0.0, bottom), (*ns, bottom + BAR)], colour.filled());
        chart.draw_series([bar])?;
        let text = |words: String, x| Text::new(words, (x, bottom + BAR * 0.8), label.clone());
        chart.draw_series([text(name.clone(), -most * 0.61)])?;
        chart.draw_series([text(format!("{ns:.0}"), ns + most * 0.01)])?;
    }
    area.present()?;
    Ok(())
}

/// Of an axis that goes by powers of ten.
fn thousands(sources: f64) -> String {
    match sources {
        sources if sources >= 1e6 => format!("{:.0}M", sources / 1e6),
        sources => format!("{:.0}k", sources / 1e3),
    }
}

/// The plot library's errors are tied to the file's name.
fn plain(error: Box<dyn std::error::Error>) -> anyhow::Error {
    anyhow!("a plot cannot be written: {error}")
}
