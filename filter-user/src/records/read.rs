//! Questions to a log: the records that match, newest last, and what they add up to.
//!
//! Reads the log and the files that it was moved to, as they are; what is no record there is passed over, since
//! `drops verify` is what tells of it.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::address::{PSEUDONYM, Pseudonyms};
use super::sink::siblings;

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

/// A source as it is asked for: a network, or the text that stands for an address in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sought {
    Net(IpNet),
    Text(String),
}

impl std::str::FromStr for Sought {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let address = text
            .parse::<IpAddr>()
            .map(|address| IpNet::from(address.to_canonical()));
        match address.or_else(|_| text.parse::<IpNet>()) {
            Ok(net) => Ok(Sought::Net(net.trunc())),
            Err(_) if text.starts_with(PSEUDONYM) => Ok(Sought::Text(text.to_owned())),
            Err(_) => Err("an address, a prefix, or a pseudonym as `hmac:…`".to_owned()),
        }
    }
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

#[derive(Default, Deserialize)]
struct Source {
    ip: Option<IpAddr>,
    address: Option<String>,
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

impl Source {
    /// As it is shown and added up.
    fn name(&self) -> Option<String> {
        let ip = || self.ip.map(|ip| ip.to_string());
        self.address.clone().or_else(ip)
    }

    /// `pseudonym` is that of the one address that is sought.
    fn compared(&self, sought: &Sought, pseudonym: Option<&str>) -> Compared {
        let equal = |is| if is { Compared::Is } else { Compared::Not };
        match (sought, self.address.as_deref()) {
            (Sought::Text(text), own) => equal(own == Some(text)),
            (Sought::Net(_), Some(own)) if own.starts_with(PSEUDONYM) => match pseudonym {
                Some(sought) => equal(own == sought),
                None => Compared::Hidden,
            },
            (Sought::Net(net), own) => {
                let own: Option<IpNet> = match own {
                    Some(address) => address.parse().ok(),
                    None => self.ip.map(IpNet::from),
                };
                match own {
                    Some(own) if net.contains(&own) => Compared::Is,
                    Some(own) if own.contains(net) => Compared::MayBe,
                    _ => Compared::Not,
                }
            }
        }
    }
}

/// A record's source beside what is sought.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Compared {
    Is,
    /// It is of a network around what is sought.
    MayBe,
    /// It is of a pseudonym that nobody here can compare.
    Hidden,
    Not,
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

    /// What the one address that is sought is called where addresses are not shown.
    fn pseudonym(&self) -> Option<String> {
        match (&self.source, &self.pseudonyms) {
            (Some(Sought::Net(net)), Some(pseudonyms)) if is_one(net) => Some(pseudonyms.of(net.addr())),
            _ => None,
        }
    }

    /// What a person should know of an answer about a source.
    fn hint(&self, of_networks: &Sum, hidden: &Sum) -> Option<String> {
        let mut hints = Vec::new();
        if hidden.records > 0 {
            let why = match &self.source {
                Some(Sought::Net(net)) if is_one(net) => {
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

fn is_one(net: &IpNet) -> bool {
    net.prefix_len() == net.max_prefix_len()
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
    let mut newest: VecDeque<Value> = VecDeque::new();
    let mut all = Sum::default();
    let mut sources: HashMap<String, Sum> = HashMap::new();
    let mut beyond = Sum::default();
    let (mut of_networks, mut hidden) = (Sum::default(), Sum::default());
    let pseudonym = query.pseudonym();
    let mut last_sequence = query.after;
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
            if record.keyfence.kind == "checkpoint" || !query.admits(&record) {
                continue;
            }
            let compared = match &query.source {
                Some(sought) => record.source.compared(sought, pseudonym.as_deref()),
                None => Compared::Is,
            };
            match compared {
                Compared::Is => {}
                Compared::MayBe => of_networks.add(&record),
                Compared::Hidden => {
                    hidden.add(&record);
                    continue;
                }
                Compared::Not => continue,
            }
            last_sequence = last_sequence.max(Some(record.event.sequence));
            all.add(&record);
            if query.top > 0 {
                let name = record.source.name().unwrap_or_else(|| "unknown".to_owned());
                match sources.contains_key(&name) || sources.len() < SOURCES_MAX {
                    true => sources.entry(name).or_default().add(&record),
                    false => beyond.add(&record),
                }
            }
            if query.limit > 0 {
                if newest.len() == query.limit {
                    newest.pop_front();
                }
                newest.push_back(serde_json::from_slice(&line)?);
            }
        }
    }
    let mut top: Vec<(String, Sum)> = sources.into_iter().collect();
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
    Ok(json!({
        "schema": 1,
        "records": newest,
        "matched": all.value(),
        "top": top,
        // Packets of sources beyond those that are counted apart.
        "top_beyond": beyond.packets(),
        "last_sequence": last_sequence,
        // Of `matched`: packets of networks around what was sought.
        "of_networks": of_networks.packets(),
        // Packets under pseudonyms that could not be compared with it.
        "not_compared": hidden.packets(),
        "hint": query.hint(&of_networks, &hidden),
    }))
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
mod tests {
    use super::*;

    fn line(sequence: u64, source: &str, reason: &str, packets: u64) -> String {
        let minute = sequence;
        let address = source.contains('/').then_some(source);
        let ip = source.split('/').next();
        let record = json!({
            "event": {
                "sequence": sequence,
                "start": format!("2026-11-22T12:{minute:02}:00Z"),
                "end": format!("2026-11-22T12:{minute:02}:10Z"),
            },
            "source": { "ip": ip, "address": address },
            "network": { "packets": packets, "bytes": packets * 60 },
            "keyfence": { "kind": "record", "verdict": "drop", "reason": reason, "service": "web" },
        });
        format!("{record}\n")
    }

    #[test]
    fn what_matches_is_found_and_added_up() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("drops.jsonl");
        let old = folder.path().join("drops.jsonl.1");
        let checkpoint = "{\"keyfence\":{\"kind\":\"checkpoint\"}}\n";
        fs::write(&old, line(1, "10.0.0.1", "unlisted", 5) + checkpoint).unwrap();
        let torn = "{\"event\":";
        let newest = [
            line(2, "10.0.0.2", "denied", 7),
            line(3, "10.0.0.1", "unlisted", 1),
            line(4, "10.0.0.0/16", "unlisted", 9),
        ];
        fs::write(&log, newest.concat() + torn).unwrap();
        let files = files(&log).unwrap();
        assert_eq!(files, [old, log]);
        let ask = |query: Query| answer(&files, &query).unwrap();
        let limit = 10;
        let all = ask(Query {
            limit,
            top: 2,
            ..Query::default()
        });
        assert_eq!(all["matched"]["packets"]["drop"], 22);
        assert_eq!(
            (&all["matched"]["records"], &all["last_sequence"]),
            (&4.into(), &4.into())
        );
        assert_eq!(all["top"][0]["source"], "10.0.0.0/16");
        assert_eq!(
            (&all["top"][1]["source"], &all["top"][1]["bytes"]),
            (&"10.0.0.2".into(), &420.into())
        );
        let found = |query: Query| {
            let answer = ask(Query { limit, ..query });
            let records = answer["records"].as_array().unwrap().iter();
            records
                .map(|record| record["event"]["sequence"].as_u64().unwrap())
                .collect::<Vec<_>>()
        };
        let source = |text: &str| Query {
            source: text.parse().ok(),
            ..Query::default()
        };
        // A network's record may be of the one who is sought.
        assert_eq!(found(source("10.0.0.1")), [1, 3, 4]);
        assert_eq!(found(source("10.0.0.0/24")), [1, 2, 3, 4]);
        assert!(found(source("192.0.2.1")).is_empty());
        let reason = Some("denied".to_owned());
        assert_eq!(
            found(Query {
                reason,
                ..Query::default()
            }),
            [2]
        );
        assert_eq!(
            found(Query {
                after: Some(2),
                ..Query::default()
            }),
            [3, 4]
        );
        let (since, until) = (
            "2026-11-22T12:02:05Z".parse().ok(),
            "2026-11-22T12:03:30Z".parse().ok(),
        );
        assert_eq!(
            found(Query {
                since,
                until,
                ..Query::default()
            }),
            [2, 3]
        );
        let one = ask(Query {
            limit: 1,
            ..Query::default()
        });
        assert_eq!(
            (
                one["records"].as_array().unwrap().len(),
                &one["records"][0]["event"]["sequence"]
            ),
            (1, &4.into())
        );
        assert!("nobody".parse::<Sought>().is_err());
        let host = ask(source("10.0.0.1"));
        assert_eq!(
            (&host["of_networks"], &host["not_compared"]),
            (&9.into(), &0.into())
        );
        let hint = host["hint"].as_str().unwrap();
        assert!(
            hint.starts_with("9 of the packets are recorded for a network around"),
            "{hint}"
        );
        assert_eq!(
            ask(source("10.0.0.0/8"))["hint"],
            Value::Null,
            "all of it is in there"
        );
    }

    #[test]
    fn address_is_found_behind_its_pseudonym_by_who_has_the_key() {
        let folder = tempfile::tempdir().unwrap();
        let (log, key) = (
            folder.path().join("drops.jsonl"),
            folder.path().join("records.key"),
        );
        fs::write(&key, [7; 32]).unwrap();
        let pseudonyms = Pseudonyms::read(&key).unwrap();
        let hidden = |sequence, host: &str, packets| {
            let record = line(sequence, host, "unlisted", packets);
            let address = format!("\"{}\"", pseudonyms.of(host.parse().unwrap()));
            let record = record.replace("\"address\":null", &format!("\"address\":{address}"));
            record.replace(&format!("\"ip\":\"{host}\""), "\"ip\":null")
        };
        let lines = [
            hidden(1, "10.0.0.1", 5),
            hidden(2, "10.0.0.2", 7),
            // Before addresses were hidden.
            line(3, "10.0.0.1", "unlisted", 2),
        ];
        fs::write(&log, lines.concat()).unwrap();
        let ask = |text: &str, pseudonyms: Option<&Pseudonyms>| {
            let query = Query {
                source: text.parse().ok(),
                pseudonyms: pseudonyms.cloned(),
                ..Query::default()
            };
            answer(std::slice::from_ref(&log), &query).unwrap()
        };
        let found = |answer: &Value| {
            (
                answer["matched"]["packets"]["drop"].clone(),
                answer["not_compared"].clone(),
            )
        };
        let known = ask("10.0.0.1", Some(&pseudonyms));
        assert_eq!(
            (found(&known), &known["hint"]),
            ((7.into(), 0.into()), &Value::Null)
        );
        assert_eq!(found(&ask("10.0.0.3", Some(&pseudonyms))), (0.into(), 0.into()));
        let own = pseudonyms.of("10.0.0.2".parse().unwrap());
        assert_eq!(found(&ask(&own, None)), (7.into(), 0.into()));
        let unknown = ask("10.0.0.1", None);
        assert_eq!(found(&unknown), (2.into(), 12.into()));
        assert!(
            unknown["hint"]
                .as_str()
                .unwrap()
                .contains("where their key is at hand")
        );
        let prefix = ask("10.0.0.0/24", Some(&pseudonyms));
        assert_eq!(found(&prefix), (2.into(), 12.into()));
        assert!(
            prefix["hint"]
                .as_str()
                .unwrap()
                .contains("cannot be compared with a prefix")
        );
    }
}
