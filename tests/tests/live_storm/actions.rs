//! What happens around the filter, one thing after the other.

use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;

use keyfence_tests::harness::{
    Attach, Daemon, Policy, Site, Tiny, Traffic, keyfence, keyfence_path, next_path, run, until,
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

/// Debian's libfaketime: the daemon's wall clock is what a file says, and no other process' is.
const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";
/// A little more than the store keeps back and uses.
const DISK: &str = "160m";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Take {
    Reload,
    BrokenReload,
    Apply,
    /// With a way back that is confirmed away, taken, or left to the kernel.
    ApplyForATime,
    Bind,
    Unbind,
    Batch,
    Deny,
    Kill,
    Restart,
    /// To the other of two builds, whose tables are of another layout, and back.
    Upgrade,
    Flap,
    Interface,
    FullDisk,
    ClockJump,
}

impl Take {
    pub(crate) const ALL: [Take; 15] = [
        Take::Reload,
        Take::BrokenReload,
        Take::Apply,
        Take::ApplyForATime,
        Take::Bind,
        Take::Unbind,
        Take::Batch,
        Take::Deny,
        Take::Kill,
        Take::Restart,
        Take::Upgrade,
        Take::Flap,
        Take::Interface,
        Take::FullDisk,
        Take::ClockJump,
    ];
}

/// What a daemon holds, and what is pinned.
#[derive(Debug)]
pub(crate) struct Held {
    pins: usize,
    descriptors: usize,
    resident_kib: u64,
}

impl Held {
    pub(crate) fn is_no_more_than(&self, before: &Self) -> bool {
        // A listener's connection or a read-back may be under way; memory is the store's cache.
        self.pins <= before.pins
            && self.descriptors <= before.descriptors + 8
            && self.resident_kib <= before.resident_kib + 64 * 1024
    }
}

pub(crate) struct Storm<'s> {
    pub(super) daemon: Option<Daemon>,
    state: u64,
    /// What was acknowledged, as it must be listed.
    pub(super) bindings: BTreeMap<String, String>,
    policies: u64,
    clock: PathBuf,
    pub(crate) passed_in_gaps: u64,
    pub(crate) interfaces_made: u64,
    /// Which of the two builds runs.
    pub(super) is_next: bool,
    /// Whether the next start goes back to the first build.
    pub(super) downgrade: bool,
    disk: Tiny,
    pub(super) site: &'s Site,
}

impl<'s> Storm<'s> {
    pub(crate) fn begin(site: &'s Site, seed: u64) -> Self {
        assert!(
            fs::exists(FAKETIME).is_ok_and(|is| is),
            "{FAKETIME} is missing: install Debian's package faketime"
        );
        let disk = Tiny::mount(site.state(), DISK);
        let clock = site.folder().join("clock");
        fs::write(&clock, "+0").expect("a temporary folder can be written");
        let mut storm = Self {
            daemon: None,
            state: seed | 1,
            bindings: BTreeMap::new(),
            policies: 0,
            clock,
            passed_in_gaps: 0,
            interfaces_made: 0,
            is_next: false,
            downgrade: false,
            disk,
            site,
        };
        storm.write_policy();
        storm.start();
        storm
    }

    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state % end
    }

    pub(crate) fn any(&mut self) -> Take {
        Take::ALL[self.below(Take::ALL.len() as u64) as usize]
    }

    pub(super) fn daemon(&self) -> &Daemon {
        self.daemon.as_ref().expect("the daemon runs")
    }

    pub(super) fn kill(&mut self) {
        self.daemon.take().expect("the daemon runs").kill();
    }

    pub(super) fn start(&mut self) {
        let program = if self.is_next {
            next_path()
        } else {
            keyfence_path()
        };
        let mut command = Daemon::command_of(self.site, &program);
        if std::mem::take(&mut self.downgrade) {
            command.arg("--downgrade");
        }
        command
            .env("LD_PRELOAD", FAKETIME)
            .env("FAKETIME_TIMESTAMP_FILE", &self.clock)
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .env("FAKETIME_DONT_RESET", "1");
        self.daemon = Some(Daemon::start_as(self.site, &mut command));
    }

    /// The client is always listed for the service, and the stranger never: all else differs each time.
    pub(super) fn write_policy(&mut self) {
        use std::fmt::Write as _;
        let variant = self.policies;
        self.policies += 1;
        let mut entries = format!(
            "[[service]]\nname = \"api\"\nprotocol = \"udp\"\nports = [9000]\n\
             [[client]]\nname = \"acme\"\nsources = [\"10.77.0.2\"]\nservices = [\"api\"]\nnote = \"{variant}\"\n\
             [[publisher]]\nname = \"gateway\"\nuser = \"root\"\nservices = [\"*\"]\n\
             environments = [\"production\"]\nwidest-prefix = {{ ipv4 = 24, ipv6 = 48 }}\n",
        );
        for service in 0..self.below(4) {
            let _ = writeln!(
                entries,
                "[[service]]\nname = \"other-{service}\"\nprotocol = [\"tcp\", \"udp\"]\nports = [{}]",
                10_000 + 10 * service + variant % 10
            );
        }
        for client in 0..self.below(60) {
            let rate = 1 + self.below(1000);
            let length = 16 + self.below(17);
            let _ = writeln!(
                entries,
                "[[client]]\nname = \"other-{client}\"\nsources = [\"{}\"]\nservices = [\"*\"]\n\
                 limit = {{ packets = {{ rate = {rate}, burst = {} }} }}",
                network(
                    Ipv4Addr::new(172, 16 + (client % 16) as u8, client as u8, 0),
                    length as u8
                ),
                rate + 10
            );
        }
        for deny in 0..self.below(3) {
            let _ = writeln!(
                entries,
                "[[deny]]\nname = \"deny-{deny}\"\nsources = [\"192.0.2.{deny}\"]"
            );
        }
        self.site
            .write(&Policy::new(Attach::Auto, &entries).interface("srv*"));
    }

    pub(crate) fn take(&mut self, take: Take, traffic: &Traffic) {
        match take {
            Take::Reload => {
                self.write_policy();
                self.done("POST", "/v1/reload", &Value::Null);
            }
            Take::BrokenReload => self.broken_reload(),
            Take::Apply => drop(self.apply(None)),
            Take::ApplyForATime => self.apply_for_a_time(),
            Take::Bind => self.bind(false),
            Take::Unbind => self.unbind(),
            Take::Batch => self.batch(),
            Take::Deny => self.deny(),
            Take::Kill => {
                self.kill();
                self.start();
            }
            Take::Restart => {
                let status = self.daemon.take().expect("the daemon runs").end(Signal::SIGTERM);
                assert_eq!(status.code(), Some(0));
                self.start();
            }
            Take::Upgrade => self.upgrade(),
            Take::Flap => self.flap(traffic),
            Take::Interface => self.interface(traffic),
            Take::FullDisk => self.full_disk(),
            Take::ClockJump => {
                let hours = self.below(200) as i64 - 100;
                let text = format!("{hours:+}h");
                // In one step: the daemon may be reading it.
                let next = self.clock.with_extension("next");
                fs::write(&next, text).expect("a temporary folder can be written");
                fs::rename(&next, &self.clock).expect("a file can be renamed");
            }
        }
    }

    pub(super) fn done(&self, method: &str, path: &str, body: &Value) -> Value {
        let answer = self.daemon().ask(method, path, body).expect("the daemon answers");
        assert!(
            [200, 201].contains(&answer.status),
            "{method} {path} {body}: {} {}",
            answer.status,
            answer.body
        );
        serde_json::from_str(&answer.body).expect("answers are JSON")
    }

    fn broken_reload(&mut self) {
        let before = fs::read_to_string(self.site.policy_file()).expect("it is there");
        self.site
            .write_text(&before.replacen("services = [\"api\"]", "services = [\"gone\"]", 1));
        let answer = self.daemon().ask("POST", "/v1/reload", &Value::Null);
        assert_eq!(answer.expect("the daemon answers").status, 422);
        self.site.write_text(&before);
        self.done("POST", "/v1/reload", &Value::Null);
    }

    fn binding(&mut self) -> (String, String, Value) {
        let name = format!("key-{}", self.below(200));
        let address = Ipv4Addr::new(10, 88, self.below(4) as u8, self.below(250) as u8);
        let source = match self.below(8) {
            0 => network(address, 24),
            _ => format!("{address}/32"),
        };
        let body = json!({"sources": [source], "services": ["api"], "lease_seconds": 36_000});
        (name, source, body)
    }

    /// Whether it was taken; a full disk may refuse it.
    pub(super) fn bind(&mut self, may_be_full: bool) {
        let (name, source, body) = self.binding();
        let path = format!("/v1/bindings/{name}");
        let answer = self
            .daemon()
            .ask("PUT", &path, &body)
            .expect("the daemon answers");
        match answer.status {
            200 | 201 => drop(self.bindings.insert(name, source)),
            507 if may_be_full => {}
            status => panic!("PUT {path} {body}: {status} {}", answer.body),
        }
    }

    pub(super) fn unbind(&mut self) {
        let at = self.below(self.bindings.len().max(1) as u64) as usize;
        let Some(name) = self.bindings.keys().nth(at).cloned() else {
            return;
        };
        self.unbind_this(&name);
    }

    pub(super) fn unbind_this(&mut self, name: &str) {
        self.done("DELETE", &format!("/v1/bindings/{name}"), &Value::Null);
        self.bindings.remove(name);
    }

    pub(super) fn bind_this(&mut self, name: &str, source: &str) {
        let body = json!({"sources": [source], "services": ["api"], "lease_seconds": 36_000});
        self.done("PUT", &format!("/v1/bindings/{name}"), &body);
        self.bindings.insert(name.to_owned(), source.to_owned());
    }

    fn batch(&mut self) {
        let mut lines = String::new();
        let mut put = BTreeMap::new();
        for _ in 0..40 {
            let (name, source, mut body) = self.binding();
            body["op"] = "put".into();
            body["credential"] = name.as_str().into();
            lines += &format!("{body}\n");
            put.insert(name, source);
        }
        let answer = self.daemon().ask_lines("POST", "/v1/bindings/batch", &lines);
        let answer = answer.expect("the daemon answers");
        assert!(
            answer.status == 200 && answer.body.contains("\"failed\":0"),
            "{} {}",
            answer.status,
            answer.body
        );
        self.bindings.append(&mut put);
    }

    fn deny(&mut self) {
        let last = self.below(250);
        let path = format!("/v1/denies/storm-{}", last % 5);
        let body = json!({"sources": [format!("10.99.0.{last}")], "seconds": 600, "reason": "storm"});
        self.done("PUT", &path, &body);
    }

    fn full_disk(&mut self) {
        let filler = self.disk.fill_but(0);
        for _ in 0..20 {
            self.bind(true);
        }
        self.write_policy();
        // A reload writes a line of the audit log at least: what becomes of it is the daemon's to say.
        let answer = self.daemon().ask("POST", "/v1/reload", &Value::Null);
        let status = answer.expect("the daemon answers").status;
        assert!([200, 507].contains(&status), "{status}");
        fs::remove_file(filler).expect("it is there");
        self.until_ready();
        self.done("POST", "/v1/reload", &Value::Null);
    }

    fn until_ready(&self) {
        until("the daemon is ready", || {
            self.daemon().get("/readyz").filter(|answer| answer.status == 200)
        });
    }

    /// All is quiet: what is held from here on is held for good.
    pub(crate) fn settle(&mut self) {
        self.until_ready();
        assert_eq!(self.daemon().metric("keyfence_drift_entries"), 0.0);
    }

    pub(crate) fn held(&self) -> Held {
        let of = |what: &str| format!("/proc/{}/{what}", self.daemon().id());
        let status = fs::read_to_string(of("status")).expect("the daemon runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let resident = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok());
        let pinned = run(Command::new("find").arg(self.site.pins("main")));
        Held {
            pins: pinned.lines().count(),
            descriptors: fs::read_dir(of("fd")).expect("the daemon runs").count(),
            resident_kib: resident.expect("the kernel tells"),
        }
    }

    pub(crate) fn assert_nothing_acknowledged_is_lost(&self) {
        let page = self.done("GET", "/v1/bindings?limit=1000", &Value::Null);
        let items = page["items"].as_array().expect("a list");
        let text = |value: &Value| value.as_str().expect("text").to_owned();
        let listed: BTreeMap<String, String> = items
            .iter()
            .map(|item| (text(&item["credential"]), text(&item["sources"][0])))
            .collect();
        assert_eq!(listed, self.bindings);
        let mut verify = keyfence();
        verify
            .args(["audit", "verify"])
            .arg(self.site.state().join("audit.jsonl"));
        run(&mut verify);
    }
}

fn network(address: Ipv4Addr, length: u8) -> String {
    let mask = u32::MAX << (32 - u32::from(length));
    format!("{}/{length}", Ipv4Addr::from_bits(address.to_bits() & mask))
}
