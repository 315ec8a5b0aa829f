//! What a replay adds up: verdicts, reasons, services, sources, files, and what was skipped.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};

use filter_common::verdict::{Judgement, Reason, Verdict};

/// Distinct sources that are told apart; frames of further ones are counted together.
const SOURCES_MAX: usize = 1 << 20;

/// Frames skipped for one reason that are named.
const SKIPS_NAMED_MAX: usize = 3;
/// Why a file that can be read gives nothing to judge.
pub(super) const NO_FRAME: &str = "no frame in it";

/// Frames by verdict, in the order of `Verdict::ALL`.
pub(super) type Verdicts = [u64; 3];

#[derive(Default)]
pub(super) struct Counts {
    /// Frames that the captures hold, judged or not.
    pub(super) frames: u64,
    pub(super) verdicts: Verdicts,
    /// By verdict and the reason's number.
    pub(super) reasons: [[u64; Reason::ALL.len()]; 3],
    /// By the service's number; `NO_SERVICE` is none.
    pub(super) services: HashMap<u32, Verdicts>,
    sources: HashMap<[u8; 16], Verdicts>,
    /// Frames of sources beyond those told apart.
    pub(super) sources_beyond: u64,
    pub(super) files: Vec<FileCount>,
    /// By why.
    pub(super) frames_skipped: BTreeMap<String, Skips>,
    pub(super) files_skipped: BTreeMap<String, u64>,
}

/// Frames that were skipped for one reason.
#[derive(Default)]
pub(super) struct Skips {
    pub(super) frames: u64,
    /// File and frame of the first ones.
    pub(super) first: Vec<(String, u64)>,
}

#[derive(Default)]
pub(super) struct FileCount {
    pub(super) name: String,
    pub(super) frames: u64,
    pub(super) verdicts: Verdicts,
    pub(super) skipped: u64,
    /// Why it, or the rest of it, was not read.
    pub(super) fault: Option<String>,
}

impl Counts {
    pub(super) fn begin(&mut self, name: &str) {
        self.files.push(FileCount {
            name: name.to_owned(),
            ..FileCount::default()
        });
    }

    pub(super) fn judged(&mut self, judgement: &Judgement, source: Option<[u8; 16]>) {
        let verdict = judgement.verdict as usize;
        self.frames += 1;
        self.verdicts[verdict] += 1;
        self.reasons[verdict][judgement.reason as usize] += 1;
        self.services.entry(judgement.service).or_default()[verdict] += 1;
        if let Some(file) = self.files.last_mut() {
            file.frames += 1;
            file.verdicts[verdict] += 1;
        }
        if let Some(source) = source {
            self.source(source, verdict);
        }
    }

    fn source(&mut self, source: [u8; 16], verdict: usize) {
        let room = self.sources.len() < SOURCES_MAX;
        match self.sources.get_mut(&source) {
            Some(counts) => counts[verdict] += 1,
            None if room => {
                let mut counts = Verdicts::default();
                counts[verdict] = 1;
                self.sources.insert(source, counts);
            }
            None => self.sources_beyond += 1,
        }
    }

    pub(super) fn frame_skipped(&mut self, number: u64, why: &str) {
        self.frames += 1;
        if !self.frames_skipped.contains_key(why) {
            self.frames_skipped.insert(why.to_owned(), Skips::default());
        }
        let skips = self.frames_skipped.get_mut(why);
        if let (Some(skips), Some(file)) = (skips, self.files.last_mut()) {
            skips.frames += 1;
            if skips.first.len() < SKIPS_NAMED_MAX {
                skips.first.push((file.name.clone(), number));
            }
            file.frames += 1;
            file.skipped += 1;
        }
    }

    pub(super) fn file_skipped(&mut self, why: &str) {
        add(&mut self.files_skipped, why);
        if let Some(file) = self.files.last_mut() {
            file.fault = Some(why.to_owned());
        }
    }

    /// Whether nothing was judged since no file could be read.
    pub(super) fn nothing_readable(&self) -> bool {
        let unreadable = |file: &FileCount| file.fault.as_deref().is_some_and(|why| why != NO_FRAME);
        self.frames == 0 && self.files.iter().all(unreadable)
    }

    pub(super) fn source_count(&self) -> usize {
        self.sources.len()
    }

    /// The sources with most frames refused, then with most frames.
    pub(super) fn top_sources(&self, how_many: usize) -> Vec<(IpAddr, Verdicts)> {
        let refused = |counts: &Verdicts| counts[Verdict::Drop as usize] + counts[Verdict::Observe as usize];
        let mut all: Vec<_> = self
            .sources
            .iter()
            .map(|(source, counts)| (*source, *counts))
            .collect();
        all.sort_unstable_by_key(|(source, counts)| {
            let total: u64 = counts.iter().sum();
            (std::cmp::Reverse((refused(counts), total)), *source)
        });
        all.truncate(how_many);
        let shown = |(source, counts)| (IpAddr::V6(Ipv6Addr::from(source)).to_canonical(), counts);
        all.into_iter().map(shown).collect()
    }
}

fn add(counts: &mut BTreeMap<String, u64>, why: &str) {
    match counts.get_mut(why) {
        Some(count) => *count += 1,
        None => drop(counts.insert(why.to_owned(), 1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use filter_common::verdict::{NO_OWNER, NO_SERVICE};

    fn judgement(verdict: Verdict, reason: Reason) -> Judgement {
        Judgement {
            verdict,
            reason,
            service: NO_SERVICE,
            owner: NO_OWNER,
            bytes: 60,
        }
    }

    #[test]
    fn top_sources_are_those_refused_most_and_then_those_seen_most() {
        let mut counts = Counts::default();
        let (pass, drop) = (
            judgement(Verdict::Pass, Reason::Other),
            judgement(Verdict::Drop, Reason::Unlisted),
        );
        let v4 = |last| std::net::Ipv4Addr::new(192, 0, 2, last).to_ipv6_mapped().octets();
        counts.begin("a.pcap");
        for _ in 0..5 {
            counts.judged(&pass, Some(v4(1)));
        }
        counts.judged(&pass, Some(v4(2)));
        counts.judged(&drop, Some(v4(3)));
        counts.judged(&drop, None);
        counts.frame_skipped(9, "under 14 bytes");
        let top: Vec<String> = counts
            .top_sources(2)
            .iter()
            .map(|(source, _)| source.to_string())
            .collect();
        assert_eq!(top, ["192.0.2.3", "192.0.2.1"]);
        assert_eq!((counts.frames, counts.verdicts), (9, [6, 2, 0]));
        assert_eq!((counts.files[0].frames, counts.files[0].skipped), (9, 1));
        assert_eq!(
            counts.frames_skipped["under 14 bytes"].first,
            [("a.pcap".to_owned(), 9)]
        );
    }

    #[test]
    fn nothing_is_readable_only_where_no_file_is() {
        let mut counts = Counts::default();
        counts.begin("none.pcap");
        counts.file_skipped("cannot be read: no such file");
        assert!(counts.nothing_readable());
        counts.begin("empty.pcap");
        counts.file_skipped(NO_FRAME);
        assert!(!counts.nothing_readable());
    }
}
