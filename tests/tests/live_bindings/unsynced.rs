//! A disk that loses all that was not synced, at any moment: a kill alone keeps the page cache. What the daemon writes,
//! syncs and says is written down in one order; the files are built as such a disk would have them in front of an
//! answer, and what was ever acknowledged up to there is in them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use filter_user::bindings::clock::SystemClock;
use filter_user::bindings::{Bindings, Options, audit};
use keyfence_tests::harness::{Daemon, Site, run, system};
use keyfence_tests::subject;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::stage::{binding, policy};

const CLIENTS: usize = 4;
/// Of each client, before the daemon is killed.
const REQUESTS: usize = 60;
/// Moments that are looked at, the last answer among them.
const MOMENTS: usize = 24;

/// One thing that the daemon did.
enum Event {
    Write(PathBuf, usize, Vec<u8>),
    Length(PathBuf, usize),
    Synced(PathBuf),
    Made(PathBuf),
    Removed(PathBuf),
    Renamed(PathBuf, PathBuf),
    Said(Vec<u8>),
}

fn events(journal: &[u8]) -> Vec<Event> {
    let mut events = Vec::new();
    let mut rest = journal;
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let line = std::str::from_utf8(&rest[..end]).expect("paths of the test are text");
        rest = &rest[end + 1..];
        let (kind, told) = line.split_once(' ').expect("a kind and what it tells");
        let number = |text: &str| text.parse::<usize>().expect("a number");
        let mut take = |length: usize| {
            let (taken, behind) = rest.split_at(length.min(rest.len()));
            rest = behind;
            taken.to_vec()
        };
        events.push(match kind {
            "W" => {
                let mut words = told.splitn(3, ' ');
                let mut word = || words.next().expect("three words");
                let (offset, length, path) = (number(word()), number(word()), word().into());
                Event::Write(path, offset, take(length))
            }
            "T" => {
                let (length, path) = told.split_once(' ').expect("two words");
                Event::Length(path.into(), number(length))
            }
            "S" => Event::Synced(told.into()),
            "C" => Event::Made(told.into()),
            "U" => Event::Removed(told.into()),
            "R" => {
                let (from, to) = told.split_once('\t').expect("two paths");
                Event::Renamed(from.into(), to.into())
            }
            "A" => Event::Said(take(number(told))),
            other => panic!("{other} is no event"),
        });
    }
    events
}

/// What a file has, and what of it would survive.
#[derive(Clone, Default)]
struct File {
    now: Vec<u8>,
    synced: Vec<u8>,
}

/// The files by number; names now, and those that would survive: a name does once its folder was synced.
#[derive(Default)]
struct Disk {
    files: Vec<File>,
    names: BTreeMap<PathBuf, usize>,
    synced_names: BTreeMap<PathBuf, usize>,
}

impl Disk {
    fn file(&mut self, path: &Path) -> &mut File {
        let number = *self.names.entry(path.to_owned()).or_insert_with(|| {
            self.files.push(File::default());
            self.files.len() - 1
        });
        &mut self.files[number]
    }

    fn take(&mut self, event: &Event) {
        match event {
            Event::Write(path, offset, bytes) => {
                let now = &mut self.file(path).now;
                now.resize(now.len().max(offset + bytes.len()), 0);
                now[*offset..offset + bytes.len()].copy_from_slice(bytes);
            }
            Event::Length(path, length) => self.file(path).now.resize(*length, 0),
            Event::Made(path) => {
                self.names.remove(path);
                self.file(path);
            }
            Event::Removed(path) => drop(self.names.remove(path)),
            Event::Renamed(from, to) => {
                if let Some(number) = self.names.remove(from) {
                    self.names.insert(to.clone(), number);
                }
            }
            Event::Synced(path) => match self.names.get(path) {
                Some(number) => {
                    let file = &mut self.files[*number];
                    file.synced.clone_from(&file.now);
                }
                None => self.sync_folder(path),
            },
            Event::Said(_) => {}
        }
    }

    fn sync_folder(&mut self, folder: &Path) {
        let inside = |path: &Path| path.parent() == Some(folder);
        self.synced_names.retain(|path, _| !inside(path));
        let names = self.names.iter().filter(|(path, _)| inside(path));
        self.synced_names
            .extend(names.map(|(path, number)| (path.clone(), *number)));
    }

    /// The files as they would be found, below another folder.
    fn write(&self, state: &Path, to: &Path) {
        for (path, number) in &self.synced_names {
            let path = to.join(path.strip_prefix(state).expect("below the folder"));
            let folder = path.parent().expect("below the folder");
            fs::create_dir_all(folder).expect("a temporary folder can be written");
            fs::write(path, &self.files[*number].synced).expect("a temporary folder can be written");
        }
    }
}

/// What was acknowledged last of a credential: its row's version, or that it is gone.
type Acknowledged = BTreeMap<String, Option<u64>>;

/// What an answer acknowledges.
fn acknowledges(said: &[u8]) -> Option<(String, Option<u64>)> {
    let text = std::str::from_utf8(said).ok()?;
    let (_, body) = text.split_once("\r\n\r\n").unwrap_or(("", text));
    let answer: Value = serde_json::from_str(body).ok()?;
    let credential = answer["credential"].as_str()?.to_owned();
    match (&answer["changed"], &answer["removed"]) {
        (Value::Bool(true), _) => Some((credential, Some(answer["row_version"].as_u64()?))),
        (_, Value::Bool(true)) => Some((credential, None)),
        _ => None,
    }
}

/// Puts, puts again and deletes, each after the answer to the one before.
fn write(daemon: &Daemon, client: usize) {
    for at in 0..REQUESTS {
        let path = format!("/v1/bindings/key-{client}-{}", at / 3);
        let answer = match at % 6 {
            5 => daemon.ask("DELETE", &format!("{path}?row_version=9"), &Value::Null),
            _ => {
                let mut body = binding(&[&format!("10.77.{client}.{at}")]);
                body["row_version"] = json!(at % 3 + 1);
                daemon.ask("PUT", &path, &body)
            }
        };
        let answer = answer.expect("the daemon answers");
        assert!([200, 201].contains(&answer.status), "{}", answer.body);
    }
}

fn interposer(folder: &Path) -> PathBuf {
    let source = subject::folder().join("interposer/order.c");
    let library = folder.join("order.so");
    let mut compiler = system("cc");
    compiler.args(["-O1", "-shared", "-fPIC", "-Wall", "-Werror", "-o"]);
    run(compiler.arg(&library).arg(source).args(["-ldl", "-lpthread"]));
    library
}

#[test]
fn what_is_acknowledged_survives_a_disk_that_loses_all_that_is_not_synced() {
    let site = Site::new();
    site.write(&policy());
    fs::create_dir_all(site.state()).expect("a temporary folder can hold another");
    let state = site.state().canonicalize().expect("it is there");
    let journal = site.folder().join("order.log");
    let mut command = Daemon::command(&site);
    command.env("LD_PRELOAD", interposer(site.folder()));
    command.env("ORDER_FOLDER", &state).env("ORDER_LOG", &journal);
    let daemon = Daemon::start_as(&site, &mut command);
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let daemon = &daemon;
            scope.spawn(move || write(daemon, client));
        }
    });
    daemon.signal(Signal::SIGKILL);
    drop(daemon);

    let events = events(&fs::read(&journal).expect("the journal was written"));
    let answers: Vec<usize> = (0..events.len())
        .filter(|at| matches!(&events[*at], Event::Said(said) if acknowledges(said).is_some()))
        .collect();
    assert!(
        answers.len() >= CLIENTS * REQUESTS * 9 / 10,
        "{} answers were seen",
        answers.len()
    );
    let written = events
        .iter()
        .filter(|event| matches!(event, Event::Write(..)))
        .count();
    assert!(written > answers.len() / CLIENTS, "{written} writes were seen");
    let mut disk = Disk::default();
    let mut acknowledged = Acknowledged::new();
    let mut looked_at = 0;
    for (at, event) in events.iter().enumerate() {
        if let Event::Said(said) = event
            && let Some((credential, version)) = acknowledges(said)
        {
            acknowledged.insert(credential, version);
            let number = answers.partition_point(|answer| *answer < at);
            let last = number + 1 == answers.len();
            if number % (answers.len() / MOMENTS).max(1) == 0 || last {
                look(&site, &disk, &state, &acknowledged, at);
                looked_at += 1;
            }
        }
        disk.take(event);
    }
    assert!(looked_at >= MOMENTS, "{looked_at} moments were looked at");
}

/// Opens what the disk would have, and compares.
fn look(site: &Site, disk: &Disk, state: &Path, acknowledged: &Acknowledged, at: usize) {
    let folder = site.folder().join(format!("at-{at}"));
    disk.write(state, &folder);
    let text = fs::read_to_string(site.policy_file()).expect("the policy is there");
    let policy = subject::parse(&text).unwrap_or_else(|error| panic!("{error}"));
    let options = Options {
        folder: folder.clone(),
        clock: Arc::new(SystemClock::new().expect("the clocks can be read")),
        witness: None,
    };
    let opened = Bindings::open(options, Arc::new(policy));
    let (bindings, writer) = opened.unwrap_or_else(|error| panic!("event {at}: {error}"));
    let alarms = bindings.status().alarms;
    assert!(alarms.is_empty(), "event {at}: {alarms:?}");
    for (credential, version) in acknowledged {
        let found = bindings.get("gateway", credential).ok();
        let found = found.map(|binding| binding.row_version);
        match version {
            // A later write may be on the disk already, though nobody was told.
            Some(version) => assert!(
                found.is_none_or(|found| found >= Some(*version))
                    && (found.is_some() || is_deleted_later(credential)),
                "event {at}: {credential} was acknowledged with version {version}, and is {found:?}"
            ),
            None => assert_eq!(
                found, None,
                "event {at}: {credential} was acknowledged as removed"
            ),
        }
    }
    drop((bindings, writer));
    let log = folder.join("audit.jsonl");
    assert!(
        audit::verify(&log, None).is_ok(),
        "event {at}: the audit log is whole"
    );
    fs::remove_dir_all(folder).expect("it was made here");
}

/// Each second key is removed at its end.
fn is_deleted_later(credential: &str) -> bool {
    let number = credential
        .rsplit('-')
        .next()
        .and_then(|number| number.parse::<usize>().ok());
    number.expect("a key has a number") % 2 == 1
}
