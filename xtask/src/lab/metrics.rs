//! Asks the daemon for its figures, as Prometheus would, over its Unix socket.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result, bail};

const PATIENCE: Duration = Duration::from_secs(3);
/// The longest answer that is read.
const ANSWER_BYTES_MAX: u64 = 16 << 20;

/// One packet counter's name in the policy's and the filter's words.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Judged {
    /// Empty where no service decided.
    pub(super) service: String,
    pub(super) verdict: String,
    pub(super) reason: String,
}

/// The daemon's counters at one time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Counters {
    /// Packets by service, verdict and reason.
    pub(super) judged: BTreeMap<Judged, u64>,
    /// Packets by interface and verdict.
    interfaces: BTreeMap<(String, String), u64>,
    /// How the filter is attached to each interface, where it is.
    pub(super) attached: BTreeMap<String, String>,
    pub(super) generation: u64,
}

impl Counters {
    pub(super) fn read(socket: &Path) -> Result<Self> {
        let (status, body) = get(socket, "/metrics")?;
        if status != 200 {
            bail!("the daemon's metrics: status {status}: {}", body.trim());
        }
        Ok(Self::parse(&body))
    }

    fn parse(page: &str) -> Self {
        let mut counters = Self::default();
        for Sample { name, labels, value } in page.lines().filter_map(sample) {
            let label = |name: &str| labels.get(name).cloned().unwrap_or_default();
            match name {
                "keyfence_packets_total" => {
                    let judged = Judged {
                        service: label("service"),
                        verdict: label("verdict"),
                        reason: label("reason"),
                    };
                    counters.judged.insert(judged, value);
                }
                "keyfence_interface_packets_total" => {
                    counters
                        .interfaces
                        .insert((label("interface"), label("verdict")), value);
                }
                "keyfence_filter_attached" if value == 1 => {
                    counters.attached.insert(label("interface"), label("mode"));
                }
                "keyfence_generation" => counters.generation = value,
                _ => {}
            }
        }
        counters
    }

    pub(super) fn packets(&self, service: &str, verdict: &str, reason: &str) -> u64 {
        let judged = Judged {
            service: service.to_owned(),
            verdict: verdict.to_owned(),
            reason: reason.to_owned(),
        };
        self.judged.get(&judged).copied().unwrap_or(0)
    }

    pub(super) fn on_interface(&self, interface: &str, verdict: &str) -> u64 {
        let key = (interface.to_owned(), verdict.to_owned());
        self.interfaces.get(&key).copied().unwrap_or(0)
    }

    /// All packets with this verdict, by the reasons' counters and by the interfaces'.
    pub(super) fn sums(&self, verdict: &str) -> (u64, u64) {
        let judged = self.judged.iter().filter(|(judged, _)| judged.verdict == verdict);
        let interfaces = self.interfaces.iter().filter(|((_, of), _)| of == verdict);
        (
            judged.map(|(_, packets)| packets).sum(),
            interfaces.map(|(_, packets)| packets).sum(),
        )
    }

    #[cfg(test)]
    pub(super) fn count(&mut self, service: &str, verdict: &str, reason: &str, packets: u64) {
        let judged = Judged {
            service: service.to_owned(),
            verdict: verdict.to_owned(),
            reason: reason.to_owned(),
        };
        self.judged.insert(judged, packets);
    }

    #[cfg(test)]
    pub(super) fn count_interface(&mut self, interface: &str, verdict: &str, packets: u64) {
        self.interfaces
            .insert((interface.to_owned(), verdict.to_owned()), packets);
    }

    /// What was counted between an earlier time and this.
    pub(super) fn since(&self, earlier: &Self) -> Self {
        let judged = self.judged.iter().map(|(judged, packets)| {
            let before = earlier.judged.get(judged).copied().unwrap_or(0);
            (judged.clone(), packets.saturating_sub(before))
        });
        let interfaces = self.interfaces.iter().map(|(key, packets)| {
            let before = earlier.interfaces.get(key).copied().unwrap_or(0);
            (key.clone(), packets.saturating_sub(before))
        });
        Self {
            judged: judged.collect(),
            interfaces: interfaces.collect(),
            attached: self.attached.clone(),
            generation: self.generation,
        }
    }
}

/// Whether the daemon says that it is ready; an error where it does not answer.
pub(super) fn is_ready(socket: &Path) -> Result<bool> {
    Ok(get(socket, "/readyz")?.0 == 200)
}

/// One request: the answer's status and body.
fn get(socket: &Path, path: &str) -> Result<(u16, String)> {
    let asking = || format!("asking the daemon at {} for {path}", socket.display());
    let exchange = || -> std::io::Result<Vec<u8>> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: keyfence\r\nConnection: close\r\n\r\n"
        )?;
        let mut answer = Vec::new();
        stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
        Ok(answer)
    };
    let answer = exchange().with_context(asking)?;
    split(&String::from_utf8_lossy(&answer)).with_context(asking)
}

/// Status and body. The daemon says its answers' lengths and closes, so that the rest is the body.
fn split(answer: &str) -> Result<(u16, String)> {
    let (head, body) = answer.split_once("\r\n\r\n").context("the answer is cut")?;
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
    Ok((status.context("the answer has no status")?, body.to_owned()))
}

struct Sample<'p> {
    name: &'p str,
    labels: BTreeMap<&'p str, String>,
    value: u64,
}

/// A line of the text format 0.0.4; none for comments and for what is no whole number.
fn sample(line: &str) -> Option<Sample<'_>> {
    let (series, value) = line.rsplit_once(' ')?;
    let value = value.parse().ok()?;
    let (name, rest) = match series.split_once('{') {
        Some((name, rest)) => (name, rest.strip_suffix('}')?),
        None => (series, ""),
    };
    Some(Sample {
        name,
        labels: labels(rest)?,
        value,
    })
}

/// `a="b",c="d"`, with `\\`, `\"` and `\n` in the values.
fn labels(mut text: &str) -> Option<BTreeMap<&str, String>> {
    let mut labels = BTreeMap::new();
    while !text.is_empty() {
        let (name, rest) = text.split_once("=\"")?;
        let mut value = String::new();
        let mut characters = rest.char_indices();
        let end = loop {
            match characters.next()? {
                (at, '"') => break at,
                (_, '\\') => value.push(match characters.next()?.1 {
                    'n' => '\n',
                    other => other,
                }),
                (_, other) => value.push(other),
            }
        };
        labels.insert(name, value);
        text = rest[end + 1..].trim_start_matches(',');
    }
    Some(labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# HELP keyfence_packets_total Packets judged.\n# TYPE keyfence_packets_total counter\n\
        keyfence_packets_total{reason=\"allowed\",service=\"web\",verdict=\"pass\"} 12\n\
        keyfence_packets_total{reason=\"other\",service=\"\",verdict=\"drop\"} 3\n\
        keyfence_interface_packets_total{interface=\"lab-client\",verdict=\"pass\"} 12\n\
        keyfence_filter_attached{interface=\"lab-client\",mode=\"native\"} 1\n\
        keyfence_filter_attached{interface=\"lab-greedy\",mode=\"native\"} 0\n\
        keyfence_http_request_duration_seconds_sum 0.25\nkeyfence_generation 2\n";

    #[test]
    fn a_page_is_read() {
        let counters = Counters::parse(PAGE);
        assert_eq!(counters.packets("web", "pass", "allowed"), 12);
        assert_eq!(counters.packets("", "drop", "other"), 3);
        assert_eq!(counters.packets("web", "drop", "unlisted"), 0);
        assert_eq!(counters.on_interface("lab-client", "pass"), 12);
        assert_eq!(counters.sums("pass"), (12, 12));
        assert_eq!(counters.sums("drop"), (3, 0));
        assert_eq!(counters.attached.len(), 1);
        assert_eq!(counters.generation, 2);
    }

    #[test]
    fn a_difference_is_of_each_counter() {
        let before = Counters::parse(PAGE);
        let now = Counters::parse(&PAGE.replace("} 12", "} 20"));
        let since = now.since(&before);
        assert_eq!(since.packets("web", "pass", "allowed"), 8);
        assert_eq!(since.packets("", "drop", "other"), 0);
        assert_eq!(since.on_interface("lab-client", "pass"), 8);
    }

    #[test]
    fn labels_may_hold_quotes_and_commas() {
        let labels = labels(r#"a="x,\"y\"",b="\\""#).unwrap();
        assert_eq!((labels["a"].as_str(), labels["b"].as_str()), ("x,\"y\"", "\\"));
        assert!(super::labels("a=\"open").is_none());
    }

    #[test]
    fn an_answer_is_split_into_status_and_body() {
        assert_eq!(
            split("HTTP/1.1 503 no\r\nA: b\r\n\r\nwhy\n").unwrap(),
            (503, "why\n".to_owned())
        );
        assert!(split("HTTP/1.1 200 OK\r\n").is_err());
    }
}
