//! Whether a log is as it was written: each line follows from the ones before, and each checkpoint vouches for them.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::Path;

use serde::Deserialize;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::ledger::hex;

/// What a whole log holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verified {
    pub records: u64,
    pub checkpoints: u64,
    /// Of the records.
    pub packets: u64,
    pub first: Option<u64>,
    pub last: Option<u64>,
    /// Records behind the last checkpoint: in order, and vouched for by nothing yet.
    pub unvouched: u64,
    /// What a crash left of a last line.
    pub torn_bytes: u64,
    /// SHA-256 of the last checkpoint's line: kept elsewhere, it shows later that nothing up to it was cut off.
    pub checkpoint: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// Where, and what.
    #[error("line {line}: {why}")]
    Broken { line: u64, why: String },
}

#[derive(Deserialize)]
struct Line {
    #[serde(default)]
    event: Event,
    #[serde(default)]
    network: Network,
    keyfence: Own,
}

#[derive(Default, Deserialize)]
struct Event {
    #[serde(default)]
    id: String,
    sequence: Option<u64>,
}

#[derive(Default, Deserialize)]
struct Network {
    #[serde(default)]
    packets: u64,
}

#[derive(Deserialize)]
struct Own {
    kind: String,
    #[serde(default)]
    verdict: String,
    sums: Option<Packets>,
    #[serde(default)]
    began: u64,
    counters: Option<Packets>,
    first: Option<u64>,
    last: Option<u64>,
    #[serde(default)]
    sha256: String,
    previous: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
struct Packets {
    drop: u64,
    observe: u64,
}

/// When a file's first line was written, and its sequence; `None` where it is no line of a log.
pub fn begins(path: &Path) -> Option<(jiff::Timestamp, Option<u64>)> {
    #[derive(Deserialize)]
    struct First {
        #[serde(rename = "@timestamp")]
        timestamp: jiff::Timestamp,
        #[serde(default)]
        event: Event,
    }
    let mut line = String::new();
    BufReader::new(File::open(path).ok()?).read_line(&mut line).ok()?;
    let first: First = serde_json::from_str(&line).ok()?;
    Some((first.timestamp, first.event.sequence))
}

/// Since the last checkpoint.
#[derive(Default)]
struct Stretch {
    hash: Sha256,
    first: Option<u64>,
    last: Option<u64>,
    records: u64,
    packets: Packets,
}

/// Goes on from file to file, in the order of their writing.
#[derive(Default)]
pub struct Verifier {
    verified: Verified,
    life: Option<String>,
    last_sequence: Option<u64>,
    /// The last checkpoints of the files before: a log that was left and taken up again follows its own.
    chain: HashSet<String>,
    /// The beginning of a checkpoint's hash that must be there, and whether it was.
    sought: Option<(String, bool)>,
}

impl Verifier {
    /// One that wants a checkpoint which was told earlier: digits that the SHA-256 of its line begins with.
    pub fn seeking(checkpoint: Option<&str>) -> Self {
        Self {
            sought: checkpoint.map(|hash| (hash.to_owned(), false)),
            ..Self::default()
        }
    }

    pub fn file(&mut self, path: &Path) -> Result<(), VerifyError> {
        let mut input = BufReader::new(File::open(path)?);
        let mut stretch = Stretch::default();
        let mut previous: Option<String> = None;
        let mut is_first = true;
        let mut last = None;
        let mut sums: Option<(u64, Packets)> = None;
        let mut number = 0;
        let mut line = Vec::new();
        loop {
            line.clear();
            if input.read_until(b'\n', &mut line)? == 0 {
                break;
            }
            number += 1;
            if line.last() != Some(&b'\n') {
                self.verified.torn_bytes += line.len() as u64;
                break;
            }
            let broken = |why: String| VerifyError::Broken { line: number, why };
            let read: Line = serde_json::from_slice(&line)
                .map_err(|error| broken(format!("no line of a drop log: {error}")))?;
            if read.keyfence.kind == "checkpoint" {
                checked(&stretch, &read.keyfence, previous.as_deref(), sums).map_err(broken)?;
                if let (None, Some(told)) = (&previous, &read.keyfence.previous)
                    && !self.chain.is_empty()
                    && !self.chain.contains(told)
                {
                    return Err(broken(
                        "the checkpoint follows another one than the file before ends with: lines were cut off there, or \
                         a file between them is missing"
                            .to_owned(),
                    ));
                }
                let own = hex(&Sha256::digest(&line));
                if let Some((sought, found)) = &mut self.sought {
                    *found |= own.starts_with(&*sought);
                }
                self.verified.checkpoint = Some(own.clone());
                previous = Some(own);
                sums = read.keyfence.sums.map(|sums| (read.keyfence.began, sums));
                stretch = Stretch::default();
                self.verified.checkpoints += 1;
            } else {
                self.record(&read, is_first, &mut stretch).map_err(broken)?;
                is_first = false;
                last = read.event.sequence;
                stretch.hash.update(&line);
            }
        }
        if let (Some(last), Some(told)) = (last, super::sink::rotated_behind(path))
            && (last < told || stretch.records > 0)
        {
            return Err(VerifyError::Broken {
                line: number,
                why: format!(
                    "its name says that it was rotated behind record {told}, which puts a checkpoint there: its end was cut off"
                ),
            });
        }
        self.chain.extend(previous);
        self.verified.unvouched += stretch.records;
        Ok(())
    }

    /// What the files held; `Err` is the checkpoint that is in none of them.
    pub fn end(self) -> Result<Verified, String> {
        match self.sought {
            Some((sought, false)) => Err(sought),
            _ => Ok(self.verified),
        }
    }

    fn record(&mut self, line: &Line, is_first: bool, stretch: &mut Stretch) -> Result<(), String> {
        let Some(sequence) = line.event.sequence else {
            return Err("a record without a sequence".to_owned());
        };
        let life = life(&line.event.id, sequence)?;
        let same_life = self.life.as_deref() == Some(life);
        if let Some(last) = self.last_sequence {
            // After a boot the log's end may not have been there to go on from.
            let follows = sequence == last + 1 || !same_life && sequence == 1;
            if !follows && is_first && sequence > last {
                return Err(format!(
                    "it begins with record {sequence}, and the file before ends with record {last}: what is between is missing, \
                     or in a file that is not named"
                ));
            }
            if !follows {
                return Err(format!(
                    "record {sequence} stands behind record {last}: lines are missing, or out of order"
                ));
            }
        }
        if !same_life {
            self.life = Some(life.to_owned());
        }
        self.last_sequence = Some(sequence);
        stretch.first.get_or_insert(sequence);
        stretch.last = Some(sequence);
        stretch.records += 1;
        match line.keyfence.verdict.as_str() {
            "drop" => stretch.packets.drop += line.network.packets,
            "observe" => stretch.packets.observe += line.network.packets,
            other => return Err(format!("{other:?} is no verdict of a record")),
        }
        self.verified.records += 1;
        self.verified.packets += line.network.packets;
        self.verified.first.get_or_insert(sequence);
        self.verified.last = Some(sequence);
        Ok(())
    }
}

/// The instance and boot of an id, which ends in its sequence.
fn life(id: &str, sequence: u64) -> Result<&str, String> {
    let mut parts = id.rsplitn(3, '/');
    let (own, _epoch, life) = (parts.next(), parts.next(), parts.next());
    match life {
        Some(life) if own == Some(sequence.to_string().as_str()) => Ok(life),
        _ => Err(format!("the id {id:?} is not that of record {sequence}")),
    }
}

fn checked(
    stretch: &Stretch,
    told: &Own,
    previous: Option<&str>,
    before: Option<(u64, Packets)>,
) -> Result<(), String> {
    let found = hex(&stretch.hash.clone().finalize());
    if told.sha256 != found {
        return Err(
            "the checkpoint's hash is not that of the lines before it: one was changed, removed or added"
                .to_owned(),
        );
    }
    if (told.first, told.last) != (stretch.first, stretch.last) {
        return Err("the checkpoint is about other records than those before it".to_owned());
    }
    if let Some(previous) = previous
        && told.previous.as_deref() != Some(previous)
    {
        return Err(
            "the checkpoint follows another one than stands before it: one was changed or removed".to_owned(),
        );
    }
    let Some(sums) = told.sums else {
        return Err("a checkpoint without sums".to_owned());
    };
    // New tables of the kernel's count from nothing.
    if let Some((_, before)) = before.filter(|(began, _)| *began == told.began) {
        let wanted = Packets {
            drop: before.drop + stretch.packets.drop,
            observe: before.observe + stretch.packets.observe,
        };
        if sums != wanted {
            return Err("the checkpoint's sums are not those of the records before it".to_owned());
        }
    }
    if let Some(counters) = told.counters
        && (counters.drop < sums.drop || counters.observe < sums.observe)
    {
        return Err("the checkpoint's sums are higher than the kernel's counters".to_owned());
    }
    Ok(())
}
