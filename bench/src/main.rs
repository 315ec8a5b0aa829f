//! What a packet, an entry and an update cost, beside what else there is. Started by `cargo xtask bench`, which builds
//! the kernel's side; run it by that. Measures and tells, and judges nothing: no figure makes it fail.
#![deny(unsafe_code)]

mod beside;
mod bindings;
mod document;
mod drive;
mod figures;
mod floors;
mod frame;
mod judging;
mod live;
mod machine;
mod plots;
mod population;
mod progress;
mod scenario;
mod selection;
mod tables;
mod updates;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Parser;

use figures::Figures;
use judging::Objects;
use progress::Progress;
use selection::{Part, Selection};

#[derive(Debug, Parser)]
#[command(name = "keyfence-bench")]
struct Arguments {
    /// The kernel program of the benchmark itself.
    #[arg(long, value_name = "FILE")]
    driver: PathBuf,
    /// The filter's kernel program with the kernel's tries.
    #[arg(long, value_name = "FILE")]
    reference: PathBuf,
    #[command(flatten)]
    selection: Selection,
}

/// How long each measurement takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    pub(crate) rounds: usize,
    /// In each round, of each variant.
    pub(crate) packets: u32,
}

const SIZES: [usize; 4] = [1_000, 100_000, 1_000_000, 10_000_000];
const SIZES_QUICK: [usize; 2] = [1_000, 100_000];
/// Where other filters are compared.
const LIVE_SIZES: [usize; 2] = [1_000, 1_000_000];
const UPDATE_SIZES: [usize; 2] = [100_000, 1_000_000];
/// Pushed over the API; the last is what is to be reached.
const BINDING_SIZES: [usize; 2] = [100_000, 1_000_000];
/// Where features are compared.
const FEATURE_SIZES: [usize; 2] = [1_000, 1_000_000];
const ROUNDS: usize = 7;
const ROUNDS_QUICK: usize = 3;
/// A call of the test run costs half a millisecond: under a nanosecond of each packet.
const PACKETS: u32 = 1 << 20;
/// Two nanoseconds of each, then: the same for all that is compared.
const PACKETS_QUICK: u32 = 1 << 18;

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let selection = &arguments.selection;
    let figures = match &selection.from {
        Some(file) => serde_json::from_slice(&read(file)?)
            .with_context(|| format!("{} holds no figures of this benchmark", file.display()))?,
        None => measure(&arguments)?,
    };
    print(&figures);
    let mut plots = Vec::new();
    if let Some(folder) = &selection.plots {
        plots = plots::write(&figures, folder)?;
        eprintln!("wrote {} plots into {}", plots.len(), folder.display());
    }
    if let Some(file) = &selection.document {
        let beside = file.parent().unwrap_or(Path::new(""));
        let told = |plot: &PathBuf| Some(plot.strip_prefix(beside).ok()?.display().to_string());
        let plots: Vec<String> = plots.iter().filter_map(told).collect();
        write(file, &document::write(&figures, &plots))?;
    }
    Ok(())
}

fn write(file: &Path, text: &str) -> Result<()> {
    fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}

fn measure(arguments: &Arguments) -> Result<Figures> {
    let Selection {
        quick,
        parts,
        sizes,
        kinds,
        rounds,
        ..
    } = &arguments.selection;
    let objects = Objects {
        bench: read(&arguments.driver)?,
        reference: read(&arguments.reference)?,
    };
    let effort = Effort {
        rounds: rounds
            .unwrap_or(if *quick { ROUNDS_QUICK } else { ROUNDS })
            .max(1),
        packets: if *quick { PACKETS_QUICK } else { PACKETS },
    };
    let usual: &[usize] = if *quick { &SIZES_QUICK } else { &SIZES };
    let sizes = sizes.as_deref().unwrap_or(usual);
    let among = |some: &[usize]| -> Vec<usize> {
        let some = some.iter().filter(|size| sizes.contains(size));
        some.copied().collect()
    };
    let mut figures = Figures {
        machine: machine::describe(),
        rounds: effort.rounds,
        packets: effort.packets,
        quick: *quick,
        ..Figures::default()
    };
    let progress = Progress::start();
    for part in Part::ALL.iter().filter(|part| parts.contains(part)) {
        match part {
            Part::Updates => {
                for size in among(&UPDATE_SIZES) {
                    figures.bulk.extend(updates::bulk(size, effort, &progress)?);
                    figures.single.push(updates::single(size, &progress)?);
                    figures.beside.push(beside::run(size, &progress)?);
                    figures.daemon.push(updates::daemon(size, &progress)?);
                }
            }
            Part::Bindings => {
                for size in among(&BINDING_SIZES) {
                    figures.bindings.push(bindings::run(size, &progress)?);
                }
            }
            Part::Judging => {
                figures.judged = judging::run(&objects, kinds, sizes, effort, &progress)?;
            }
            Part::Features => {
                figures.features = judging::features(&objects, &among(&FEATURE_SIZES), effort, &progress)?;
                figures.exhausted = judging::exhausted(&objects, effort, &progress)?;
            }
            Part::Live => {
                figures.live = live::run(&objects.bench, &among(&LIVE_SIZES), effort, &progress)?;
            }
        }
        figures.machine.load_after = machine::load();
        // What is measured stays, however the next part ends.
        save(&arguments.selection, &figures)?;
    }
    progress.end();
    Ok(figures)
}

/// Writes the figures where they were asked for.
fn save(selection: &Selection, figures: &Figures) -> Result<()> {
    match &selection.json {
        Some(file) => write(file, &serde_json::to_string_pretty(figures)?),
        None => Ok(()),
    }
}

fn read(file: &Path) -> Result<Vec<u8>> {
    fs::read(file).with_context(|| format!("cannot read {}", file.display()))
}

fn print(figures: &Figures) {
    println!("{}", document::machine(figures));
    if !figures.judged.is_empty() {
        println!("\nIn the kernel's test run:\n{}", tables::judged(figures));
    }
    if !figures.features.is_empty() {
        println!("\nFeatures:\n{}", tables::features(figures));
    }
    if !figures.exhausted.is_empty() {
        println!("\n{}", tables::exhausted(figures));
    }
    if !figures.live.is_empty() {
        println!("\nLive on a veth:\n{}", tables::live(figures));
    }
    if !figures.bulk.is_empty() {
        println!("\nUpdates:\n{}", tables::updates(figures));
    }
    for bindings in &figures.bindings {
        println!(
            "\nThe API with {} bindings:\n{}",
            short(bindings.bindings),
            bindings::table(bindings)
        );
    }
    let floors = floors::of(figures);
    if !floors.is_empty() {
        println!("\nFloors:\n{}", tables::floors(&floors));
    }
}

/// 1000 as 1k.
pub(crate) fn short(number: usize) -> String {
    match number {
        // The most that a policy may have: see `Population::new`.
        9_999_999 => "10M".to_owned(),
        n if n >= 1_000_000 && n.is_multiple_of(1_000_000) => format!("{}M", n / 1_000_000),
        n if n >= 1000 && n.is_multiple_of(1000) => format!("{}k", n / 1000),
        n => n.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_arguments_are_well_formed() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_size_is_read_as_it_is_written() {
        use selection::size;
        for text in ["1k", "100k", "1M", "10M", "123"] {
            assert_eq!(size(text).map(short).as_deref(), Ok(text));
        }
        assert!(size("x").is_err() && size("11M").is_err() && size("0").is_err());
    }
}
