//! Questions to a log: the records that match, newest last, and what they add up to.
//!
//! Reads the log and the files that it was moved to, as they are; what is no record there is passed over, since
//! `drops verify` is what tells of it.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::address::Pseudonyms;
use super::sink::siblings;
pub use super::sought::Sought;
use super::sought::{Compared, Source};

/// Records in an answer, where it is not said how many.
pub const RECORDS_DEFAULT: usize = 1_000;
pub const RECORDS_MAX: usize = 10_000;
/// Sources that are counted apart; what comes beyond is said.
const SOURCES_MAX: usize = 1 << 20;

/// What is asked.
#[derive(Clone, Debug, Default)]
pub struct Query {
    pub since: Option<Timestamp>,
    pub until: Option<Timestamp>,
    pub source: Option<Sought>,
    /// By which an address is found behind its pseudonym; who may not know it has none.
    pub pseudonyms: Option<Pseudonyms>,
    pub service: Option<String>,
    pub reason: Option<String>,
    /// Only records behind the one of this number.
    pub after: Option<u64>,
    /// The newest so many.
    pub limit: usize,
    /// The busiest so many sources.
    pub top: usize,
}

#[derive(Deserialize)]
struct Record {
    event: Event,
    #[serde(default)]
    source: Source,
    network: Network,
    keyfence: Own,
}

#[derive(Deserialize)]
struct Event {
    sequence: u64,
    start: Timestamp,
    end: Timestamp,
}

#[derive(Deserialize)]
struct Network {
    packets: u64,
    bytes: u64,
}

#[derive(Deserialize)]
struct Own {
    kind: String,
    verdict: String,
    reason: String,
    service: Option<String>,
}

impl Query {
    fn admits(&self, record: &Record) -> bool {
        let wanted = |wanted: &Option<String>, is: Option<&str>| match wanted {
            Some(wanted) => is == Some(wanted),
            None => true,
        };
        self.since.is_none_or(|since| record.event.end >= since)
            && self.until.is_none_or(|until| record.event.start <= until)
            && self.after.is_none_or(|after| record.event.sequence > after)
            && wanted(&self.service, record.keyfence.service.as_deref())
            && wanted(&self.reason, Some(&record.keyfence.reason))
    }

    /// What a person should know of an answer about a source.
    fn hint(&self, of_networks: &Sum, hidden: &Sum) -> Option<String> {
        let mut hints = Vec::new();
        if hidden.records > 0 {
            let why = match &self.source {
                Some(sought) if sought.is_one() => {
                    "compared only where their key is at hand: by the daemon for an operator, and for files with --key"
                }
                _ => "which cannot be compared with a prefix: ask for single addresses",
            };
            hints.push(format!(
                "{} packets of that time are recorded under pseudonyms, {why}.",
                hidden.packets()
            ));
        }
        if of_networks.records > 0 {
            hints.push(format!(
                "{} of the packets are recorded for a network around what was asked for, and may be of others in it.",
                of_networks.packets()
            ));
        }
        (!hints.is_empty()).then(|| hints.join(" "))
    }
}

/// What a source, or all of them, add up to.
#[derive(Default)]
struct Sum {
    records: u64,
    dropped: u64,
    observed: u64,
    bytes: u64,
    reasons: BTreeMap<String, u64>,
    services: BTreeMap<String, u64>,
    last: Option<Timestamp>,
}

impl Sum {
    fn add(&mut self, record: &Record) {
        let packets = record.network.packets;
        self.records += 1;
        self.bytes += record.network.bytes;
        match record.keyfence.verdict.as_str() {
            "observe" => self.observed += packets,
            _ => self.dropped += packets,
        }
        *self.reasons.entry(record.keyfence.reason.clone()).or_default() += packets;
        if let Some(service) = &record.keyfence.service {
            *self.services.entry(service.clone()).or_default() += packets;
        }
        self.last = self.last.max(Some(record.event.end));
    }

    fn packets(&self) -> u64 {
        self.dropped + self.observed
    }

    fn value(&self) -> Value {
        json!({
            "records": self.records,
            "packets": { "drop": self.dropped, "observe": self.observed },
            "bytes": self.bytes,
            "reasons": self.reasons,
            "services": self.services,
            "last": self.last,
        })
    }
}

/// The log at a path and the files that it was moved to, the oldest first.
pub fn files(log: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = match siblings(log) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        found => found?,
    };
    if log.try_exists()? {
        files.push(log.to_owned());
    }
    Ok(files)
}

/// The answer to a question, from files in the order of their writing.
pub fn answer(files: &[PathBuf], query: &Query) -> io::Result<Value> {
    let pseudonym = match &query.source {
        Some(sought) => sought.pseudonym(query.pseudonyms.as_ref()),
        None => None,
    };
    let mut found = Found {
        last_sequence: query.after,
        ..Found::default()
    };
    let mut line = Vec::new();
    for file in files {
        let file = File::open(file).map_err(|error| named(file, &error))?;
        if let (Some(since), Ok(written)) = (query.since, file.metadata()?.modified())
            && Timestamp::try_from(written).is_ok_and(|written| written < since)
        {
            continue;
        }
        let mut input = BufReader::with_capacity(1 << 16, file);
        loop {
            line.clear();
            if input.read_until(b'\n', &mut line)? == 0 || line.last() != Some(&b'\n') {
                break;
            }
            let Ok(record) = serde_json::from_slice::<Record>(&line) else {
                continue;
            };
            if record.keyfence.kind != "checkpoint"
                && query.admits(&record)
                && found.counts(&record, query.source.as_ref(), pseudonym.as_deref())
            {
                found.add(&record, &line, query)?;
            }
        }
    }
    Ok(found.told(query))
}

/// What was found so far.
#[derive(Default)]
struct Found {
    newest: VecDeque<Value>,
    all: Sum,
    sources: HashMap<String, Sum>,
    beyond: Sum,
    /// Of `all`: those of networks around what is sought.
    of_networks: Sum,
    /// Those under pseudonyms that cannot be compared with it.
    hidden: Sum,
    last_sequence: Option<u64>,
}

impl Found {
    /// Whether the record may be of the source that is sought.
    fn counts(&mut self, record: &Record, sought: Option<&Sought>, pseudonym: Option<&str>) -> bool {
        let Some(sought) = sought else { return true };
        match record.source.compared(sought, pseudonym) {
            Compared::Is => true,
            Compared::MayBe => {
                self.of_networks.add(record);
                true
            }
            Compared::Hidden => {
                self.hidden.add(record);
                false
            }
            Compared::Not => false,
        }
    }

    fn add(&mut self, record: &Record, line: &[u8], query: &Query) -> io::Result<()> {
        self.last_sequence = self.last_sequence.max(Some(record.event.sequence));
        self.all.add(record);
        if query.top > 0 {
            let name = record.source.name().unwrap_or_else(|| "unknown".to_owned());
            match self.sources.contains_key(&name) || self.sources.len() < SOURCES_MAX {
                true => self.sources.entry(name).or_default().add(record),
                false => self.beyond.add(record),
            }
        }
        if query.limit > 0 {
            if self.newest.len() == query.limit {
                self.newest.pop_front();
            }
            self.newest.push_back(serde_json::from_slice(line)?);
        }
        Ok(())
    }

    fn told(self, query: &Query) -> Value {
        let hint = query.hint(&self.of_networks, &self.hidden);
        let mut top: Vec<(String, Sum)> = self.sources.into_iter().collect();
        top.sort_by(|(one, a), (other, b)| b.packets().cmp(&a.packets()).then_with(|| one.cmp(other)));
        let top: Vec<Value> = top
            .into_iter()
            .take(query.top)
            .map(|(source, sum)| {
                let mut value = sum.value();
                value["source"] = source.into();
                value
            })
            .collect();
        json!({
            "schema": 1,
            "records": self.newest,
            "matched": self.all.value(),
            "top": top,
            // Packets of sources beyond those that are counted apart.
            "top_beyond": self.beyond.packets(),
            "last_sequence": self.last_sequence,
            "of_networks": self.of_networks.packets(),
            "not_compared": self.hidden.packets(),
            "hint": hint,
        })
    }
}

fn named(file: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", file.display()))
}

/// The files that a person names: a folder is none.
pub fn named_files(given: &[PathBuf]) -> io::Result<Vec<PathBuf>> {
    for file in given {
        if fs::metadata(file).map_err(|error| named(file, &error))?.is_dir() {
            return Err(io::Error::other(format!(
                "{}: is a folder; name the log's files",
                file.display()
            )));
        }
    }
    Ok(given.to_vec())
}

#[cfg(test)]
mod tests;
