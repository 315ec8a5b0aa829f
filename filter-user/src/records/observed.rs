//! Who was observed lately: packets that passed though they would have been dropped, by their two ends.
//!
//! Read from the log's newest end, within bounds; what is left out is counted. For whoever plans to enforce.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Seek as _, SeekFrom};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use filter_common::verdict::{Reason, Verdict};
use jiff::Timestamp;
use serde::Deserialize;

use super::read::files;

/// Pairs of ends that are told apart.
const FLOWS_MAX: usize = 100_000;
/// Of the log: about a second.
const BYTES_MAX: u64 = 256 << 20;
/// What a packet's ends alone decide; the rest depends on what a packet was like.
const BY_ENDS: [Reason; 6] = [
    Reason::Unlisted,
    Reason::SourcePort,
    Reason::Ended,
    Reason::Denied,
    Reason::Other,
    Reason::Icmp,
];

/// From where to where, by which protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ends {
    pub source: IpAddr,
    pub destination: IpAddr,
    /// 0 where there are none.
    pub port: u16,
    pub protocol: u8,
}

/// What came from there to here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The lowest source port and the highest.
    pub ports: (u16, u16),
    pub packets: u64,
    pub last: Timestamp,
}

#[derive(Debug, Default)]
pub struct Observed {
    pub flows: HashMap<Ends, Seen>,
    /// Packets by reason that were observed for what they were, not for where they came from.
    pub otherwise: BTreeMap<String, u64>,
    /// Packets whose source is recorded as a network or a pseudonym only.
    pub hidden: u64,
    /// Packets of flows beyond those that are told apart.
    pub beyond: u64,
    /// Of the log within that time.
    pub bytes_unread: u64,
}

#[derive(Deserialize)]
struct Record<'a> {
    event: Event,
    #[serde(default)]
    source: Source,
    #[serde(default)]
    destination: Destination,
    #[serde(borrow)]
    network: Network<'a>,
    #[serde(borrow)]
    keyfence: Own<'a>,
}

#[derive(Deserialize)]
struct Event {
    end: Timestamp,
}

#[derive(Default, Deserialize)]
struct Source {
    ip: Option<IpAddr>,
    /// Where it is no whole address.
    address: Option<String>,
}

#[derive(Default, Deserialize)]
struct Destination {
    ip: Option<IpAddr>,
    port: Option<u16>,
}

#[derive(Deserialize)]
struct Network<'a> {
    packets: u64,
    iana_number: Option<&'a str>,
}

#[derive(Deserialize)]
struct Own<'a> {
    verdict: &'a str,
    reason: &'a str,
    source_port_first: Option<u16>,
    source_port_last: Option<u16>,
}

/// Those of a log and of the files that it was moved to.
pub fn observed(log: &Path, since: Timestamp) -> io::Result<Observed> {
    within(&files(log)?, since, BYTES_MAX)
}

/// Of files in the order of their writing.
fn within(files: &[PathBuf], since: Timestamp, bytes_max: u64) -> io::Result<Observed> {
    let mut observed = Observed::default();
    let mut left = bytes_max;
    for path in files.iter().rev() {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        let file = File::open(path).map_err(named)?;
        let about = file.metadata().map_err(named)?;
        let written = about.modified().ok().map(Timestamp::try_from);
        if matches!(written, Some(Ok(written)) if written < since) {
            continue;
        }
        let skipped = about.len().saturating_sub(left);
        left -= about.len() - skipped;
        observed.bytes_unread += skipped;
        observed.read(file, skipped, since).map_err(named)?;
    }
    Ok(observed)
}

impl Observed {
    pub fn is_empty(&self) -> bool {
        self.flows.is_empty() && self.otherwise.is_empty() && self.hidden == 0 && self.beyond == 0
    }

    fn read(&mut self, mut file: File, from: u64, since: Timestamp) -> io::Result<()> {
        file.seek(SeekFrom::Start(from))?;
        let mut input = BufReader::with_capacity(1 << 16, file);
        let mut line = Vec::new();
        if from > 0 {
            // The rest of a line that began before.
            input.read_until(b'\n', &mut line)?;
        }
        loop {
            line.clear();
            if input.read_until(b'\n', &mut line)? == 0 || line.last() != Some(&b'\n') {
                return Ok(());
            }
            // What is no record is a checkpoint, or for `drops verify` to tell of.
            if let Ok(record) = serde_json::from_slice::<Record<'_>>(&line)
                && record.keyfence.verdict == Verdict::Observe.name()
                && record.event.end >= since
            {
                self.add(&record);
            }
        }
    }

    fn add(&mut self, record: &Record<'_>) {
        let packets = record.network.packets;
        let Own { reason, .. } = record.keyfence;
        if !BY_ENDS.iter().any(|known| known.name() == reason) {
            *self.otherwise.entry(reason.to_owned()).or_default() += packets;
            return;
        }
        let protocol = record.network.iana_number.and_then(|number| number.parse().ok());
        let ends = match (&record.source, &record.destination, protocol) {
            (
                Source {
                    ip: Some(source),
                    address: None,
                },
                Destination {
                    ip: Some(destination),
                    port,
                },
                Some(protocol),
            ) => Ends {
                source: *source,
                destination: *destination,
                port: port.unwrap_or(0),
                protocol,
            },
            _ => return self.hidden += packets,
        };
        let first = record.keyfence.source_port_first.unwrap_or(0);
        let last = record.keyfence.source_port_last.unwrap_or(first);
        let seen = match self.flows.len() < FLOWS_MAX {
            true => self.flows.entry(ends).or_insert(Seen {
                ports: (first, last),
                packets: 0,
                last: record.event.end,
            }),
            false => match self.flows.get_mut(&ends) {
                Some(seen) => seen,
                None => return self.beyond += packets,
            },
        };
        seen.ports = (seen.ports.0.min(first), seen.ports.1.max(last));
        seen.packets += packets;
        seen.last = seen.last.max(record.event.end);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const LATER: &str = "2026-11-22T12:00:00Z";

    fn line(source: &str, verdict: &str, reason: &str, port: u16, end: &str) -> String {
        format!(
            "{{\"event\":{{\"sequence\":1,\"start\":\"{end}\",\"end\":\"{end}\"}},\"source\":{source},\
             \"destination\":{{\"ip\":\"203.0.113.1\",\"port\":443}},\
             \"network\":{{\"transport\":\"tcp\",\"iana_number\":\"6\",\"packets\":2,\"bytes\":80}},\
             \"keyfence\":{{\"kind\":\"record\",\"verdict\":\"{verdict}\",\"reason\":\"{reason}\",\"epoch\":1,\
             \"source_port_first\":{port},\"source_port_last\":{port}}}}}\n"
        )
    }

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn what_passed_lately_is_told_by_its_ends_and_the_rest_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("drops.jsonl");
        let one = "{\"ip\":\"192.0.2.7\"}";
        let lines = [
            line(one, "observe", "unlisted", 5000, "2026-11-20T12:00:00Z"),
            line(one, "observe", "unlisted", 5000, LATER),
            line(one, "observe", "unlisted", 4000, LATER),
            line(one, "drop", "unlisted", 1, LATER),
            line("{\"ip\":\"192.0.2.8\"}", "observe", "limit-grant", 1, LATER),
            line(
                "{\"ip\":\"192.0.2.0\",\"address\":\"192.0.2.0/24\"}",
                "observe",
                "denied",
                1,
                LATER,
            ),
            line("{\"address\":\"hmac:00\"}", "observe", "unlisted", 1, LATER),
            "{\"keyfence\":{\"kind\":\"checkpoint\"}}\n".to_owned(),
        ];
        fs::write(&path, lines.concat()).unwrap();
        let since = time("2026-11-22T00:00:00Z");
        let observed = observed(&path, since).unwrap();
        let ends = Ends {
            source: "192.0.2.7".parse().unwrap(),
            destination: "203.0.113.1".parse().unwrap(),
            port: 443,
            protocol: 6,
        };
        let seen = Seen {
            ports: (4000, 5000),
            packets: 4,
            last: time(LATER),
        };
        assert_eq!(observed.flows, HashMap::from([(ends, seen)]));
        assert_eq!(
            observed.otherwise,
            BTreeMap::from([("limit-grant".to_owned(), 2)])
        );
        assert_eq!(
            (observed.hidden, observed.beyond, observed.bytes_unread),
            (4, 0, 0)
        );
        // The newest end alone, from its first whole line on.
        let last = lines[6].len() + lines[7].len();
        let short = within(std::slice::from_ref(&path), since, last as u64 + 5).unwrap();
        assert_eq!((short.flows.len(), short.hidden), (0, 2));
        assert_eq!(short.bytes_unread as usize, lines.concat().len() - last - 5);
        assert!(
            super::observed(&folder.path().join("none"), since)
                .unwrap()
                .is_empty()
        );
    }
}
