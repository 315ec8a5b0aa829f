//! What `cargo xtask bench` is asked for. xtask includes this file: it tells and checks the same options, before it builds.

use std::path::PathBuf;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

#[derive(Debug, clap::Args)]
pub(crate) struct Selection {
    /// Two minutes: fewer sizes and rounds.
    #[arg(long)]
    pub(crate) quick: bool,
    /// Only these parts.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Part::ALL)]
    pub(crate) parts: Vec<Part>,
    /// Numbers of sources, such as 1k,1M.
    #[arg(long, value_delimiter = ',', value_parser = size)]
    pub(crate) sizes: Option<Vec<usize>>,
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Kind::ALL)]
    pub(crate) kinds: Vec<Kind>,
    /// Rounds of each measurement; the median counts.
    #[arg(long, value_name = "N")]
    pub(crate) rounds: Option<usize>,
    /// Write all figures there.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Write plots into this folder, as SVG.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) plots: Option<PathBuf>,
    /// Write all of it as Markdown, with the plots that are in a folder beside it.
    #[arg(long, value_name = "FILE")]
    pub(crate) document: Option<PathBuf>,
    /// Measure nothing: show the figures that --json wrote.
    #[arg(long, value_name = "FILE")]
    pub(crate) from: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// Hits and strangers in the kernel's test run.
    Judging,
    /// Features on and off, and exhausted grants.
    Features,
    /// On veth pairs, beside other filters.
    Live,
    /// Bulk loads, single updates, memory.
    Updates,
    /// The API: batches, full syncs, PUTs, authorize, a restart.
    Bindings,
}

impl Part {
    /// In the order in which they are measured.
    pub(crate) const ALL: [Part; 5] = [
        Part::Updates,
        Part::Bindings,
        Part::Judging,
        Part::Features,
        Part::Live,
    ];
}

/// What the sources are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    /// IPv4 /32s.
    HostsV4,
    /// IPv4: 70 % /32, 15 % /28 to /31, 14 % /24 to /27, 1 % /20 to /23.
    MixedV4,
    /// IPv6 /128s, each in a /48 of its own.
    HostsV6,
    /// IPv6: 40 % /128, 30 % /64, 20 % /56, 9 % /48, 1 % /40.
    MixedV6,
}

impl Kind {
    pub(crate) const ALL: [Kind; 4] = [Kind::HostsV4, Kind::MixedV4, Kind::HostsV6, Kind::MixedV6];
}

pub(crate) fn size(text: &str) -> Result<usize, String> {
    let (digits, unit) = match text.chars().last() {
        Some('k') => (&text[..text.len() - 1], 1000),
        Some('M') => (&text[..text.len() - 1], 1_000_000),
        _ => (text, 1),
    };
    let number: usize = digits
        .parse()
        .map_err(|_| format!("{text} is no number such as 100k"))?;
    let size = number.saturating_mul(unit);
    if (1..=10_000_000).contains(&size) {
        Ok(size)
    } else {
        Err("sizes go from 1 to 10M".to_owned())
    }
}
