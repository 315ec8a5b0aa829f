//! The drop log on a source of the test's own: exactly once in a file whatever stops it, at least once elsewhere, and
//! addresses as the policy wants them shown.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use filter_common::parse::{Address, Family};
use filter_common::records::{Ports, RecordKey, Tally};
use filter_common::verdict::{NO_OWNER, NO_SERVICE, Reason, Verdict};
use serde_json::Value;

use super::sink::test_socket;
use super::verify::Verifier;
use super::*;
use crate::policy::model::{RecordAddresses, Sink as SinkPolicy};
use crate::policy::{LoadContext, MemoryFiles};
use ends::is_whole;

mod ends;

/// One pending epoch after the other, each of the same records.
struct Fake {
    records: Vec<Record>,
    pending: Mutex<Option<Epoch>>,
    written: Mutex<([u64; 2], u64)>,
    epoch: AtomicU64,
}

impl Source for Arc<Fake> {
    fn is_new(&self) -> bool {
        self.epoch.load(Ordering::Relaxed) == 0
    }
    fn begin(&self, _: u64, _: u64, first_sequence: u64) {
        self.epoch.store(2, Ordering::Relaxed);
        self.written.lock().unwrap().1 = first_sequence;
    }
    fn pending(&self) -> Option<Epoch> {
        *self.pending.lock().unwrap()
    }
    fn end_epoch(&self, now: u64) {
        let (sums, first_sequence) = *self.written.lock().unwrap();
        *self.pending.lock().unwrap() = Some(Epoch {
            number: self.epoch.fetch_add(1, Ordering::Relaxed),
            first_sequence,
            started: now,
            ended: now,
            sums,
        });
    }
    fn quiet(&self) -> std::io::Result<()> {
        Ok(())
    }
    fn read(&self, _: u64) -> Vec<Record> {
        self.records.clone()
    }
    fn finish(&self, epoch: &Epoch, records: u64, packets: [u64; 2]) {
        let mut written = self.written.lock().unwrap();
        written.0 = [epoch.sums[0] + packets[0], epoch.sums[1] + packets[1]];
        written.1 = epoch.first_sequence + records;
        *self.pending.lock().unwrap() = None;
    }
    fn written(&self) -> ([u64; 2], u64) {
        *self.written.lock().unwrap()
    }
    fn began(&self) -> u64 {
        2
    }
    fn counters(&self) -> Result<[u64; 2], String> {
        Ok([1 << 40, 1 << 40])
    }
    fn audit_head(&self) -> AuditHead {
        AuditHead {
            line: 17,
            hash: "ab".repeat(32),
        }
    }
}

struct Nobody;

impl Naming for Nobody {
    fn service(&self, number: u32) -> Option<String> {
        Some(format!("service-{number}"))
    }
    fn owners(&self, _: &HashSet<u32>) -> HashMap<u32, String> {
        HashMap::new()
    }
    fn interface(&self, _: u32) -> Option<String> {
        Some("eth0".to_owned())
    }
}

/// Says how it was asked for owners.
#[derive(Default)]
struct Asked(Mutex<Vec<HashSet<u32>>>);

impl Naming for Asked {
    fn service(&self, _: u32) -> Option<String> {
        None
    }
    fn owners(&self, numbers: &HashSet<u32>) -> HashMap<u32, String> {
        self.0.lock().unwrap().push(numbers.clone());
        numbers
            .iter()
            .map(|number| (*number, format!("client/c{number}")))
            .collect()
    }
    fn interface(&self, _: u32) -> Option<String> {
        None
    }
}

#[test]
fn owners_of_a_batch_are_asked_for_at_once_and_not_where_there_are_none() {
    let of = |owner: u32, host: u8| match exact([10, 0, 0, host], 1) {
        Record::Exact { key, tally, ports } => Record::Exact {
            key: RecordKey { owner, ..key },
            tally,
            ports,
        },
        overflow => overflow,
    };
    let epoch = Epoch {
        number: 2,
        first_sequence: 1,
        started: 0,
        ended: 1,
        sums: [0, 0],
    };
    let names = Names::new("main", "boot");
    let asked = Asked::default();
    let batch = |records| names.batch(&epoch, records, &Veil::Full, &asked);
    batch(vec![of(NO_OWNER, 1), of(NO_OWNER, 2)]);
    assert!(asked.0.lock().unwrap().is_empty());
    let lines = batch(vec![of(7, 1), of(NO_OWNER, 2), of(8, 3), of(7, 4)]).lines;
    assert_eq!(*asked.0.lock().unwrap(), [HashSet::from([7, 8])]);
    let owner = |line: &super::line::Line| {
        let line: Value = serde_json::from_str(&line.text).unwrap();
        line["keyfence"]["owner"].as_str().map(str::to_owned)
    };
    let owners: Vec<_> = lines.iter().map(owner).collect();
    let [seven, eight] = ["client/c7", "client/c8"].map(|name| Some(name.to_owned()));
    assert_eq!(owners, [seven.clone(), None, eight, seven]);
}

fn exact(source: [u8; 4], packets: u64) -> Record {
    Record::Exact {
        key: RecordKey {
            source: Address::of_v4(u32::from_be_bytes(source)),
            destination: Address::of_v4(0xcb00_710a),
            family: Some(Family::V4),
            service: 0,
            owner: NO_OWNER,
            interface: 1,
            destination_port: 443,
            protocol: 6,
            reason: Reason::Unlisted,
            verdict: Verdict::Drop,
        },
        tally: Tally {
            packets,
            bytes: packets * 60,
        },
        ports: Ports {
            first: 5,
            last: 5,
            same: true,
            distinct_min: 1,
            tcp_flags: 2,
        },
    }
}

fn fake(records: Vec<Record>) -> Arc<Fake> {
    Arc::new(Fake {
        records,
        pending: Mutex::default(),
        written: Mutex::default(),
        epoch: AtomicU64::new(0),
    })
}

fn policy(folder: &Path, addresses: RecordAddresses, sinks: Vec<SinkPolicy>) -> Policy {
    let text = "version = 1\n[filter]\ninterfaces = [\"eth0\"]\n";
    let files = MemoryFiles::new([(PathBuf::from("p.toml"), text.as_bytes().to_vec())]);
    let at = LoadContext::at(Timestamp::UNIX_EPOCH);
    let loaded = crate::policy::load_from(&files, Path::new("p.toml"), &at);
    let mut policy = loaded.policy.expect("the policy has no faults");
    policy.records.addresses = addresses;
    policy.daemon.state = folder.to_owned();
    policy.sinks = sinks;
    policy
}

fn sink(kind: SinkType, path: PathBuf) -> SinkPolicy {
    SinkPolicy {
        kind,
        path,
        rotate_size: 1 << 20,
        keep_size: 1 << 22,
        keep_age: Duration::from_secs(86_400),
        origin: None,
    }
}

fn open(policy: &Policy, source: &Arc<Fake>) -> Records {
    let metrics = Arc::new(Metrics::new());
    let opened = Records::open(policy, Box::new(Arc::clone(source)), Box::new(Nobody), metrics);
    opened.unwrap().0
}

fn lines(log: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(log).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn log_that_was_cut_anywhere_is_completed_by_the_next_daemon() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("drops.jsonl");
    let policy = policy(
        folder.path(),
        RecordAddresses::Full,
        vec![sink(SinkType::File, log.clone())],
    );
    let source = fake(
        (1..=5)
            .map(|host| exact([10, 0, 0, host], u64::from(host)))
            .collect(),
    );
    let mut records = open(&policy, &source);
    records.write();
    records.checkpoint();
    drop(records);
    let first = std::fs::read(&log).unwrap();
    let checkpoint = lines(&log).pop().unwrap();
    assert_eq!(checkpoint["keyfence"]["audit"]["line"], 17);
    assert_eq!(checkpoint["keyfence"]["audit"]["hash"], "ab".repeat(32));
    // Kept elsewhere, its hash shows later that the log still reaches it; one that is in no line does not.
    let kept = is_whole(&log).checkpoint.unwrap();
    let seeks = |hash: &str| {
        let mut verifier = Verifier::seeking(Some(hash));
        verifier.file(&log).unwrap();
        verifier.end().is_ok()
    };
    assert!(seeks(&kept[..8]) && seeks(&kept) && !seeks("00000000"));
    let whole = std::fs::read_to_string(&log).unwrap();
    let before = &whole[..whole.trim_end().rfind('\n').unwrap() + 1];
    std::fs::write(&log, before).unwrap();
    assert!(
        is_whole(&log).unvouched == 5 && !seeks(&kept),
        "a cut tail shows by this alone"
    );
    std::fs::write(&log, &whole).unwrap();
    // The next epoch, cut after each byte, as a kill in the midst of its write leaves it.
    let mut records = open(&policy, &source);
    let before = *source.written.lock().unwrap();
    records.write();
    drop(records);
    let second = std::fs::read(&log).unwrap();
    let pending = Epoch {
        number: 3,
        first_sequence: 6,
        started: 1,
        ended: 2,
        sums: before.0,
    };
    for cut in (first.len()..=second.len()).step_by(37).chain([second.len()]) {
        std::fs::write(&log, &second[..cut]).unwrap();
        *source.written.lock().unwrap() = before;
        *source.pending.lock().unwrap() = Some(pending);
        let mut records = open(&policy, &source);
        records.write();
        records.checkpoint();
        drop(records);
        let numbers: Vec<u64> = lines(&log)
            .iter()
            .filter_map(|line| line["event"]["sequence"].as_u64())
            .collect();
        assert_eq!(numbers, (1..=10).collect::<Vec<u64>>(), "cut at {cut}");
        let verified = is_whole(&log);
        assert_eq!((verified.packets, verified.unvouched), (30, 0), "cut at {cut}");
    }
}

#[test]
fn sink_that_is_no_file_gets_every_line_and_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("log");
    let log = folder.path().join("drops.jsonl");
    let sinks = vec![
        sink(SinkType::File, log.clone()),
        sink(SinkType::Syslog, PathBuf::new()),
    ];
    let policy = policy(folder.path(), RecordAddresses::Full, sinks);
    let source = fake(vec![exact([10, 0, 0, 1], 3), exact([10, 0, 0, 2], 4)]);
    let mut records = open(&policy, &source);
    test_socket(&mut records.sinks[1], &socket);
    records.write();
    assert!(source.pending().is_some(), "nobody listens yet");
    assert_eq!(lines(&log).len(), 2, "the file does not wait");
    assert!(records.figures.failing()[0].contains("syslog-1"));
    let listener = UnixDatagram::bind(&socket).unwrap();
    records.write();
    assert_eq!(
        (source.pending(), lines(&log).len()),
        (None, 2),
        "and has nothing twice"
    );
    let mut buffer = [0; 4096];
    for host in 1..=2 {
        let length = listener.recv(&mut buffer).unwrap();
        let message = std::str::from_utf8(&buffer[..length]).unwrap();
        assert!(
            message.starts_with("<30>1 20") && message.contains(" keyfence "),
            "{message}"
        );
        let json = &message[message.find('{').unwrap()..];
        let record: Value = serde_json::from_str(json).unwrap();
        assert_eq!(record["source"]["ip"], format!("10.0.0.{host}"));
    }
}

#[test]
fn addresses_are_shown_as_the_policy_wants() {
    let shown = |addresses| {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("drops.jsonl");
        let policy = policy(folder.path(), addresses, vec![sink(SinkType::File, log.clone())]);
        let records = vec![
            exact([10, 0, 0, 1], 3),
            exact([10, 0, 0, 2], 4),
            exact([10, 0, 1, 2], 5),
        ];
        let source = fake(records);
        open(&policy, &source).write();
        open(&policy, &source).write();
        lines(&log)
    };
    let full = shown(RecordAddresses::Full);
    assert_eq!((full.len(), &full[1]["source"]["ip"]), (6, &"10.0.0.2".into()));
    let prefix = shown(RecordAddresses::Prefix);
    assert_eq!(prefix.len(), 4, "of one network is one record");
    assert_eq!(prefix[0]["source"]["ip"], "10.0.0.0");
    assert_eq!(prefix[0]["source"]["address"], "10.0.0.0/24");
    assert_eq!(prefix[0]["network"]["packets"], 7);
    assert_eq!(prefix[0]["destination"]["ip"], "203.0.113.10");
    let hmac = shown(RecordAddresses::Hmac);
    let of = |at: usize| hmac[at]["source"]["address"].as_str().unwrap().to_owned();
    assert!(hmac.iter().all(|line| line["source"]["ip"].is_null()));
    assert_eq!(
        (of(0), of(1)),
        (of(3), of(4)),
        "the same host has the same name after a restart"
    );
    assert!(of(0) != of(1) && of(0).starts_with("hmac:") && of(0).len() == 37);
}

#[test]
fn overflow_and_frames_without_a_source_say_no_more_than_is_known() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("drops.jsonl");
    let policy = policy(
        folder.path(),
        RecordAddresses::Full,
        vec![sink(SinkType::File, log.clone())],
    );
    let tally = Tally {
        packets: 9,
        bytes: 90,
    };
    let overflow = |prefix| Record::Overflow {
        prefix,
        reason: Reason::Denied,
        verdict: Verdict::Observe,
        tally,
    };
    let Record::Exact { key, ports, .. } = exact([0; 4], 1) else {
        panic!("it is exact");
    };
    let key = RecordKey {
        family: None,
        service: NO_SERVICE,
        reason: Reason::NonIp,
        protocol: 0,
        destination_port: 0,
        ..key
    };
    let bare = Ports {
        first: 0,
        last: 0,
        ..ports
    };
    let records = vec![
        Record::Exact {
            key,
            tally,
            ports: bare,
        },
        overflow(Some((Address::of_v4(0x0a0b_0000), Family::V4))),
        overflow(None),
    ];
    open(&policy, &fake(records)).write();
    let lines = lines(&log);
    for part in ["source", "destination", "rule"] {
        assert_eq!(lines[0][part], Value::Null, "{}", lines[0]);
    }
    assert_eq!(
        (&lines[0]["network"]["transport"], &lines[0]["network"]["packets"]),
        (&Value::Null, &9.into())
    );
    assert_eq!(lines[1]["keyfence"]["kind"], "overflow");
    assert_eq!(lines[1]["source"]["ip"], "10.11.0.0");
    assert_eq!(lines[1]["source"]["address"], "10.11.0.0/16");
    assert_eq!(lines[1]["event"]["action"], "observed");
    assert_eq!(lines[2]["source"], Value::Null);
    assert_eq!(lines[2]["event"]["sequence"], 3);
    assert!(lines[2]["event"]["id"].as_str().unwrap().ends_with("/2/3"));
}
