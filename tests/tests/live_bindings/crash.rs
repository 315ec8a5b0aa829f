//! Clients that write without a pause and a daemon that is killed at any moment: what was acknowledged is what the
//! list says and what the kernel admits, and the audit log is whole.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use keyfence_tests::harness::{Daemon, keyfence, run};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::stage::{PORT, Stage};

/// `KEYFENCE_CRASH_ROUNDS` asks for more.
const ROUNDS: u64 = 10;
const CLIENTS: u64 = 4;
const CREDENTIALS: u64 = 5;
/// The last part of the addresses that are listed and tried.
const ADDRESSES: std::ops::Range<u8> = 100..116;

/// What a client has been told of one name, and what it asked for without an answer.
#[derive(Clone, Default)]
struct Known {
    acknowledged: Option<Vec<String>>,
    unanswered: Option<Option<Vec<String>>>,
}

impl Known {
    fn agrees(&self, found: &Option<Vec<String>>) -> bool {
        self.acknowledged == *found || self.unanswered.as_ref() == Some(found)
    }
}

type Names = BTreeMap<String, Known>;

/// Xorshift: the same numbers for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }

    fn sources(&mut self) -> Vec<String> {
        if self.below(8) == 0 {
            return vec![format!("10.77.0.{}/30", 100 + 4 * self.below(4))];
        }
        let mut sources: Vec<String> = (0..=self.below(3))
            .map(|_| format!("10.77.0.{}/32", u64::from(ADDRESSES.start) + self.below(16)))
            .collect();
        sources.sort();
        sources.dedup();
        sources
    }
}

/// Writes until the daemon is gone. Bindings, and denies by the names that say so.
fn write(daemon: &Daemon, seed: u64, names: &mut Names, over: &AtomicBool) -> u64 {
    let mut random = Random(seed * 2 + 1);
    let own: Vec<String> = names.keys().cloned().collect();
    let mut written = 0;
    while !over.load(Ordering::Relaxed) {
        let name = &own[random.below(own.len() as u64) as usize];
        let is_deny = name.starts_with("deny");
        let path = match is_deny {
            true => format!("/v1/denies/{name}"),
            false => format!("/v1/bindings/{name}"),
        };
        let known = names.get_mut(name).expect("it is one of them");
        let (method, wanted) = match random.below(4) {
            0 => ("DELETE", None),
            1 if known.acknowledged.is_some() => ("PUT", known.acknowledged.clone()),
            _ => ("PUT", Some(random.sources())),
        };
        let body = match (&wanted, is_deny) {
            (None, _) => Value::Null,
            (Some(sources), true) => json!({ "sources": sources, "seconds": 600, "reason": "a test" }),
            (Some(sources), false) => {
                json!({ "sources": sources, "services": ["api"], "lease_seconds": 600 + random.below(9) })
            }
        };
        known.unanswered = Some(wanted.clone());
        let Some(answer) = daemon.ask(method, &path, &body) else {
            return written;
        };
        match answer.status {
            200 | 201 => known.acknowledged = wanted,
            503 => {}
            status => panic!("{method} {path} {body}: {status} {}", answer.body),
        }
        known.unanswered = None;
        written += 1;
    }
    written
}

/// All sources by the names of bindings and denies, as the daemon lists them.
fn listed(stage: &Stage) -> BTreeMap<String, Vec<String>> {
    let mut listed = BTreeMap::new();
    for (path, list, name) in [
        ("/v1/bindings", "items", "credential"),
        ("/v1/denies", "items", "name"),
    ] {
        let answer = stage.done("GET", path, &Value::Null);
        let items = answer[list]
            .as_array()
            .unwrap_or_else(|| panic!("{path}: {answer}"));
        for item in items {
            let sources = item["sources"].as_array().expect("a list").iter();
            let mut sources: Vec<String> = sources
                .map(|source| source.as_str().expect("a text").to_owned())
                .collect();
            sources.sort();
            listed.insert(item[name].as_str().expect("a text").to_owned(), sources);
        }
    }
    listed
}

/// What of all that is listed the kernel must admit.
fn admitted(listed: &BTreeMap<String, Vec<String>>, address: IpAddr) -> bool {
    let of = |deny: bool| {
        let all = listed
            .iter()
            .filter(move |(name, _)| name.starts_with("deny") == deny);
        let mut prefixes = all.flat_map(|(_, sources)| sources);
        prefixes.any(|prefix| {
            prefix
                .parse::<ipnet::IpNet>()
                .expect("it is a prefix")
                .contains(&address)
        })
    };
    of(false) && !of(true)
}

/// The log is whole up to the head that the daemon tells.
fn assert_audit_is_whole(stage: &Stage) {
    let log = stage.site.state().join("audit.jsonl");
    let verified = run(keyfence().args(["audit", "verify", "--json"]).arg(log));
    let verified: Value = serde_json::from_str(&verified).expect("it is JSON");
    assert_eq!(verified["whole"], true, "{verified}");
}

#[test]
fn what_is_acknowledged_is_listed_and_in_force_after_any_crash() {
    let rounds =
        std::env::var("KEYFENCE_CRASH_ROUNDS").map_or(ROUNDS, |rounds| rounds.parse().expect("a number"));
    let mut stage = Stage::new();
    let addresses: Vec<IpAddr> = ADDRESSES.map(|last| IpAddr::from([10, 77, 0, last])).collect();
    addresses.iter().for_each(|address| stage.settle(*address));
    let mut clients: Vec<Names> = (0..CLIENTS)
        .map(|client| {
            let keys = (0..CREDENTIALS).map(|key| format!("key-{client}-{key}"));
            let deny = (client == 0).then(|| "deny-0".to_owned());
            keys.chain(deny).map(|name| (name, Known::default())).collect()
        })
        .collect();
    let mut random = Random(0x5eed);
    let mut written = 0;
    for round in 0..rounds {
        let over = AtomicBool::new(false);
        let daemon = stage.daemon.take().expect("it runs");
        thread::scope(|scope| {
            let writing: Vec<_> = clients
                .iter_mut()
                .zip(0..)
                .map(|(names, client)| {
                    let (daemon, over) = (&daemon, &over);
                    scope.spawn(move || write(daemon, round * CLIENTS + client, names, over))
                })
                .collect();
            // Until any moment: nothing is waited for.
            thread::sleep(Duration::from_millis(random.below(300)));
            if random.below(2) == 0 {
                daemon.signal(Signal::SIGHUP);
                thread::sleep(Duration::from_millis(random.below(100)));
            }
            daemon.signal(Signal::SIGKILL);
            over.store(true, Ordering::Relaxed);
            for client in writing {
                written += client
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            }
        });
        drop(daemon);
        stage.start_again();
        let found = listed(&stage);
        for (name, known) in clients.iter_mut().flatten() {
            let now = found.get(name).cloned();
            assert!(
                known.agrees(&now),
                "round {round}: {name} is {now:?}, acknowledged {:?}, unanswered {:?}",
                known.acknowledged,
                known.unanswered
            );
            *known = Known {
                acknowledged: now,
                unanswered: None,
            };
        }
        let wanted: Vec<bool> = addresses
            .iter()
            .map(|address| admitted(&found, *address))
            .collect();
        assert_eq!(
            stage.passing(&addresses, PORT),
            wanted,
            "round {round}: {found:?}"
        );
        assert_audit_is_whole(&stage);
    }
    eprintln!("{rounds} rounds, {written} writes answered");
    assert!(written > rounds, "{written} writes in {rounds} rounds");
}
