//! The vectors as captures, for judges that read captures: `keyfence replay`, on this kernel and on others.
//!
//! Writes policies and pcap files, and holds what the judge printed to the vectors. Judges nothing itself.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pcap_file::pcap::{PcapHeader, PcapPacket, PcapWriter};
use pcap_file::{DataLink, TsResolution};
use serde::Deserialize;

use crate::oracle::vectors::{Case, VectorFile, files};
use crate::subject::folder;

/// The kernel's test run takes no frame this long: replay says so and judges the next.
const TEST_RUN_LONGEST: usize = 60_000;
/// Holds the longest frame of the vectors.
const SNAP_LENGTH: u32 = 1 << 18;
/// The policy of a group, in its folder.
pub const POLICY: &str = "policy.toml";
/// What `address = "host"` stands for, an address a line.
pub const HOST_ADDRESSES: &str = "host-addresses";

/// Vector files of one policy: one load of the program judges them all, each with full buckets.
pub struct Group {
    /// The first file's stem.
    pub name: String,
    pub policy: String,
    pub host_addresses: Vec<IpAddr>,
    pub files: Vec<Vectors>,
}

pub struct Vectors {
    pub stem: String,
    pub cases: Vec<Case>,
}

impl Vectors {
    /// Each frame's case, in order: a case of many `times` is as many frames.
    pub fn frames(&self) -> impl Iterator<Item = &Case> {
        let times = |case: &Case| usize::try_from(case.times.max(1)).expect("a case fits in memory");
        self.cases
            .iter()
            .flat_map(move |case| std::iter::repeat_n(case, times(case)))
    }
}

/// All vectors, in order of the groups' first files.
pub fn groups() -> Result<Vec<Group>, String> {
    let mut groups: Vec<Group> = Vec::new();
    for path in files(&folder().join("vectors")).map_err(|error| error.to_string())? {
        let VectorFile {
            policy,
            host_addresses,
            cases,
            ..
        } = VectorFile::read(&path)?;
        let stem = path
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let vectors = Vectors { stem, cases };
        let same = |group: &&mut Group| group.policy == policy && group.host_addresses == host_addresses;
        match groups.iter_mut().find(same) {
            Some(group) => group.files.push(vectors),
            None => groups.push(Group {
                name: vectors.stem.clone(),
                policy,
                host_addresses,
                files: vec![vectors],
            }),
        }
    }
    Ok(groups)
}

impl Group {
    /// Writes the policy, the host's addresses and a capture a file.
    pub fn write(&self, folder: &Path) -> Result<(), String> {
        let fault = |error: &dyn std::fmt::Display| format!("{}: {error}", folder.display());
        fs::create_dir_all(folder).map_err(|error| fault(&error))?;
        let addresses: String = self
            .host_addresses
            .iter()
            .map(|address| format!("{address}\n"))
            .collect();
        fs::write(folder.join(POLICY), &self.policy).map_err(|error| fault(&error))?;
        fs::write(folder.join(HOST_ADDRESSES), addresses).map_err(|error| fault(&error))?;
        for file in &self.files {
            write_capture(file, &folder.join(format!("{}.pcap", file.stem)))?;
        }
        Ok(())
    }

    /// The captures in the folder, in the vectors' order.
    pub fn captures(&self) -> Vec<PathBuf> {
        self.files
            .iter()
            .map(|file| format!("{}.pcap", file.stem).into())
            .collect()
    }
}

fn write_capture(file: &Vectors, path: &Path) -> Result<(), String> {
    let fault = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let header = PcapHeader {
        snaplen: SNAP_LENGTH,
        datalink: DataLink::ETHERNET,
        ts_resolution: TsResolution::NanoSecond,
        ..PcapHeader::default()
    };
    let output = BufWriter::new(File::create(path).map_err(|error| fault(&error))?);
    let mut writer = PcapWriter::with_header(output, header).map_err(|error| fault(&error))?;
    for case in file.frames() {
        let bytes = case.bytes()?;
        let length = u32::try_from(bytes.len()).map_err(|error| fault(&error))?;
        let packet = PcapPacket::new(Duration::from_nanos(case.now_ns()), length, &bytes);
        writer.write_packet(&packet).map_err(|error| fault(&error))?;
    }
    writer.into_writer().flush().map_err(|error| fault(&error))
}

/// One line of `keyfence replay --json`.
#[derive(Debug, Deserialize)]
struct Answer {
    #[serde(default)]
    file: Option<PathBuf>,
    #[serde(default)]
    frame: Option<usize>,
    #[serde(default)]
    verdict: Option<String>,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    service: Option<String>,
    #[serde(default)]
    owner: Option<String>,
    #[serde(default)]
    skipped: Option<String>,
    #[serde(default)]
    summary: Option<serde::de::IgnoredAny>,
}

/// What became of all vectors.
#[derive(Debug, Default)]
pub struct Comparison {
    pub files: usize,
    /// Judged.
    pub frames: usize,
    /// Longer than the kernel's test run takes.
    pub too_long: usize,
    pub disagreements: Vec<String>,
}

impl Comparison {
    /// Holds what replay printed for a group to its vectors.
    pub fn add(&mut self, group: &Group, lines: &str) {
        let mut answers = BTreeMap::new();
        let mut summaries = 0;
        for line in lines.lines() {
            match serde_json::from_str::<Answer>(line) {
                Ok(answer) if answer.summary.is_some() => summaries += 1,
                Ok(answer) => {
                    let file = answer
                        .file
                        .as_deref()
                        .and_then(Path::file_stem)
                        .unwrap_or_default();
                    let key = (file.to_string_lossy().into_owned(), answer.frame);
                    if let Some(second) = answers.insert(key, answer) {
                        self.disagreements
                            .push(format!("{}: two answers: {second:?}", group.name));
                    }
                }
                Err(error) => self
                    .disagreements
                    .push(format!("{}: {error}: {line}", group.name)),
            }
        }
        if summaries != 1 {
            self.disagreements
                .push(format!("{}: {summaries} summaries", group.name));
        }
        for file in &group.files {
            self.files += 1;
            for (at, case) in file.frames().enumerate() {
                let answer = answers.remove(&(file.stem.clone(), Some(at + 1)));
                self.frame(
                    &format!("{}, frame {}: {}", file.stem, at + 1, case.name),
                    case,
                    answer,
                );
            }
        }
        let surplus = answers
            .values()
            .map(|answer| format!("{}: no such frame: {answer:?}", group.name));
        self.disagreements.extend(surplus);
    }

    fn frame(&mut self, name: &str, case: &Case, answer: Option<Answer>) {
        let Some(answer) = answer else {
            self.disagreements.push(format!("{name}: no answer"));
            return;
        };
        if case.frame.len() / 2 + case.zeros > TEST_RUN_LONGEST && answer.skipped.is_some() {
            self.too_long += 1;
            return;
        }
        self.frames += 1;
        let agrees = answer.verdict.as_deref() == Some(case.verdict.as_str())
            && answer.reason.as_deref() == Some(case.reason.as_str())
            && answer.service.as_deref().unwrap_or("") == case.service
            && answer.owner.as_deref().unwrap_or("") == case.owner;
        if !agrees {
            let Case {
                verdict,
                reason,
                service,
                owner,
                why,
                ..
            } = case;
            self.disagreements.push(format!(
                "{name}: {answer:?}, not {verdict} {reason} {service:?} {owner:?} ({why})"
            ));
        }
    }
}

impl std::fmt::Display for Comparison {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} vector files, {} frames, {} too long for the kernel's test run, {} disagreements",
            self.files,
            self.frames,
            self.too_long,
            self.disagreements.len()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group() -> Group {
        let case = |name: &str, times: u64, verdict: &str| Case {
            name: name.to_owned(),
            what: String::new(),
            why: String::new(),
            frame: "00".repeat(60),
            zeros: 0,
            times,
            at_ms: 0,
            verdict: verdict.to_owned(),
            reason: "other".to_owned(),
            service: String::new(),
            owner: String::new(),
        };
        let cases = vec![case("first", 2, "pass"), case("second", 1, "drop")];
        Group {
            name: "a".to_owned(),
            policy: String::new(),
            host_addresses: Vec::new(),
            files: vec![Vectors {
                stem: "a".to_owned(),
                cases,
            }],
        }
    }

    fn line(frame: u32, verdict: &str) -> String {
        format!(
            r#"{{"file":"a.pcap","frame":{frame},"verdict":"{verdict}","reason":"other","service":null,"owner":null}}"#
        )
    }

    fn compared(lines: &[String]) -> Comparison {
        let mut comparison = Comparison::default();
        comparison.add(&group(), &lines.join("\n"));
        comparison
    }

    #[test]
    fn each_frame_is_held_to_its_case() {
        let summary = r#"{"schema":1,"summary":{}}"#.to_owned();
        let right = [line(1, "pass"), line(2, "pass"), line(3, "drop"), summary.clone()];
        let comparison = compared(&right);
        assert!(comparison.disagreements.is_empty(), "{comparison:?}");
        assert_eq!((comparison.files, comparison.frames), (1, 3));
        let wrong = [line(1, "pass"), line(2, "drop"), line(3, "drop"), summary];
        assert_eq!(compared(&wrong).disagreements.len(), 1);
    }

    #[test]
    fn a_missing_frame_a_surplus_one_and_a_missing_summary_are_disagreements() {
        let missing = compared(&[line(1, "pass"), line(2, "pass"), r#"{"summary":{}}"#.to_owned()]);
        assert_eq!(missing.disagreements.len(), 1, "{missing:?}");
        let surplus = compared(&[line(1, "pass"), line(2, "pass"), line(3, "drop"), line(4, "pass")]);
        assert_eq!(surplus.disagreements.len(), 2, "{surplus:?}");
    }
}
