//! Policies that must be confirmed, over other interfaces than the one before has, and their daemon killed at many
//! moments: before, at and after the deadline, and while they are confirmed. One policy judges, all that is its own is
//! filtered, and what was acknowledged stays.

use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use keyfence_tests::harness::{
    Attach, Daemon, GREEDY, INSIDE, LISTED, Policy, SERVER, STRANGER, Sender, Sink, Site, Tiny, run, system,
    until,
};
use serde_json::{Value, json};

const PORT: u16 = 9000;
const CONFIRM: Duration = Duration::from_secs(1);
/// Two of the kernel's ticks, and as much again for a machine that is busy.
const TICKS: Duration = Duration::from_millis(40);
const MARKER: IpAddr = IpAddr::V4(LISTED.v4);
const OF_OLD: IpAddr = IpAddr::V4(GREEDY.v4);
const OF_NEW: IpAddr = IpAddr::V4(STRANGER.v4);

/// A client of both, and one that only this one has; on these interfaces.
fn policy(own: IpAddr, interfaces: &[&str]) -> Policy {
    let entries = format!(
        "[[service]]\nname = \"api\"\nprotocol = \"udp\"\nports = [{PORT}]\n\
         [[client]]\nname = \"marker\"\nsources = [\"{MARKER}\"]\nservices = [\"api\"]\n\
         [[client]]\nname = \"own\"\nsources = [\"{own}\"]\nservices = [\"api\"]\n"
    );
    Policy::new(Attach::Native, &entries).interface(&interfaces.join("\", \""))
}

fn old() -> Policy {
    policy(OF_OLD, &[INSIDE, "gone0"])
}

fn new() -> Policy {
    policy(OF_NEW, &[INSIDE, "come0"])
}

struct Scene {
    sink: Sink,
    senders: [Sender; 3],
    site: Site,
}

impl Scene {
    fn open() -> Self {
        let site = Site::new();
        for name in ["gone", "come"] {
            site.server
                .ip(&format!("link add {name}0 type veth peer name {name}1"));
        }
        let to = SocketAddr::new(SERVER.v4.into(), PORT);
        let sender = |source| Sender::open(&site.outside, source, to);
        Self {
            sink: Sink::open(&site.server, to),
            senders: [sender(OF_OLD), sender(OF_NEW), sender(MARKER)],
            site,
        }
    }

    /// Whether the new policy judges, else the old one does.
    fn is_new(&mut self) -> bool {
        // The kernel may turn back between two packets: then another look is of one policy.
        until("one policy judges", || {
            let before = [OF_OLD, OF_NEW, MARKER].map(|source| self.sink.count(source));
            self.senders.iter_mut().for_each(Sender::send);
            until("the marker arrives", || {
                (self.sink.count(MARKER) > before[2]).then_some(())
            });
            let passed = [OF_OLD, OF_NEW].map(|source| self.sink.count(source));
            match (passed[0] > before[0], passed[1] > before[1]) {
                (false, true) => Some(true),
                (true, false) => Some(false),
                _ => None,
            }
        })
    }

    fn filtered(&self) -> Vec<&'static str> {
        let is = |name: &&str| {
            self.site
                .server
                .ip(&format!("link show dev {name}"))
                .contains("xdp")
        };
        [INSIDE, "gone0", "come0"].into_iter().filter(is).collect()
    }

    /// All there is is one policy's: what judges, what is filtered, what is pinned, what is told.
    fn assert_one(&mut self, daemon: &Daemon, policies: [&Value; 2]) -> bool {
        let is_new = self.is_new();
        let status = daemon.status();
        assert_eq!(
            &status["policy"]["hash"],
            policies[usize::from(is_new)],
            "{status}"
        );
        assert_eq!(status["policy"]["pending"], Value::Null, "{status}");
        let filtered = if is_new {
            [INSIDE, "come0"]
        } else {
            [INSIDE, "gone0"]
        };
        assert_eq!(self.filtered(), filtered);
        let pinned = self.site.bpf.list("keyfence/main").into_iter();
        let pinned =
            pinned.filter(|path| path.is_dir() && path.display().to_string().contains("generation-"));
        assert_eq!(pinned.count(), 1);
        assert!(!self.is_armed());
        is_new
    }

    fn is_armed(&self) -> bool {
        let switch = self.site.pins("main").join("maps").join("SWITCH");
        let dumped = run(system("bpftool")
            .args(["-j", "map", "dump", "pinned"])
            .arg(switch));
        let dumped: Value = serde_json::from_str(&dumped).expect("bpftool writes JSON");
        let bytes = dumped[0]["value"].as_array().expect("a value's bytes");
        bytes[..8].iter().any(|byte| byte != "0x00")
    }

    /// The old policy is in force, confirmed, under a daemon; its hash.
    fn begin(&mut self, daemon: Daemon) -> (Daemon, Value) {
        self.site.write(&old());
        daemon
            .ask("POST", "/v1/policy/rollback", &Value::Null)
            .expect("the daemon answers");
        daemon
            .ask("POST", "/v1/reload", &Value::Null)
            .expect("the daemon answers");
        let status = daemon.status();
        assert!(!self.is_new(), "{status}");
        (daemon, status["policy"]["hash"].clone())
    }

    fn body(&self) -> Value {
        json!({
            "root": "keyfence.toml",
            "files": { "keyfence.toml": new().text(&self.site.socket()) },
            "confirm_seconds": CONFIRM.as_secs(),
        })
    }
}

fn sleep_until(moment: Instant) {
    thread::sleep(moment.saturating_duration_since(Instant::now()));
}

/// Its hash, once it is in force.
fn apply(daemon: &Daemon, body: &Value) -> Value {
    let answer = daemon
        .ask("POST", "/v1/policy/apply", body)
        .expect("the daemon answers");
    assert_eq!(answer.status, 200, "{}", answer.body);
    let applied: Value = serde_json::from_str(&answer.body).expect("it is JSON");
    applied["hash"].clone()
}

#[test]
fn daemon_killed_at_any_moment_before_and_after_the_deadline_leaves_the_old_policy() {
    let mut scene = Scene::open();
    scene.site.write(&old());
    let mut daemon = Daemon::start_again(&scene.site);
    const ROUNDS: u32 = 12;
    for round in 0..ROUNDS {
        let (running, in_force) = scene.begin(daemon);
        let body = scene.body();
        let began = Instant::now();
        let hash = apply(&running, &body);
        let applied = Instant::now();
        assert!(scene.is_new() || began.elapsed() >= CONFIRM);
        // Most of them around the deadline.
        let at = match round % 4 {
            0 => CONFIRM * (round / 4) / (ROUNDS / 4),
            1 => CONFIRM - Duration::from_millis(u64::from(round)),
            2 => CONFIRM + Duration::from_millis(u64::from(round)),
            _ => CONFIRM + Duration::from_millis(10 * u64::from(round)),
        };
        sleep_until(applied + at);
        running.kill();
        // With the daemon dead: its time is over two ticks after the deadline, which is no later than this.
        sleep_until(applied + CONFIRM + TICKS);
        assert!(!scene.is_new(), "round {round}: killed after {at:?}");
        daemon = Daemon::start_again(&scene.site);
        assert!(!scene.assert_one(&daemon, [&in_force, &hash]), "round {round}");
    }
}

#[test]
fn daemon_killed_at_any_moment_of_a_confirm_leaves_one_policy_and_what_it_has_acknowledged() {
    let mut scene = Scene::open();
    scene.site.write(&old());
    let mut daemon = Daemon::start_again(&scene.site);
    let (mut kept, mut went) = (0, 0);
    const ROUNDS: u32 = 14;
    for round in 0..ROUNDS {
        let (running, in_force) = scene.begin(daemon);
        let hash = apply(&running, &scene.body());
        let applied = Instant::now();
        let id = running.id();
        let acknowledged = thread::scope(|scope| {
            let confirming = scope.spawn(|| {
                let answer = running.ask("POST", "/v1/policy/confirm", &Value::Null);
                answer.is_some_and(|answer| answer.status == 200)
            });
            thread::sleep(Duration::from_millis(3) * round);
            let id = nix::unistd::Pid::from_raw(i32::try_from(id).expect("process ids are small"));
            nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGKILL).expect("the daemon runs");
            confirming.join().expect("it only asks")
        });
        running.kill();
        sleep_until(applied + CONFIRM + TICKS);
        let left = scene.is_new();
        assert!(
            left || !acknowledged,
            "round {round}: what was confirmed has gone"
        );
        daemon = Daemon::start_again(&scene.site);
        let is_new = scene.assert_one(&daemon, [&in_force, &hash]);
        assert!(
            is_new || !acknowledged,
            "round {round}: what was confirmed has gone"
        );
        match is_new {
            true => kept += 1,
            false => went += 1,
        }
    }
    println!("confirmed in time {kept}, not {went}");
}

#[test]
fn confirmation_that_the_disk_does_not_take_is_refused_and_the_time_goes_on() {
    let mut scene = Scene::open();
    let disk = Tiny::mount(scene.site.state(), "40m");
    scene.site.write(&old());
    let daemon = Daemon::start_again(&scene.site);
    let (daemon, in_force) = scene.begin(daemon);
    let refused = |daemon: &Daemon| {
        let answer = daemon.ask("POST", "/v1/policy/confirm", &Value::Null);
        let answer = answer.expect("the daemon answers");
        let problem: Value = serde_json::from_str(&answer.body).expect("a problem is JSON");
        assert_eq!(
            (answer.status, &problem["code"]),
            (507, &"store-full".into()),
            "{problem}"
        );
    };
    let mut body = scene.body();
    body["confirm_seconds"] = 3.into();
    let hash = apply(&daemon, &body);
    let filler = disk.fill_but(0);
    refused(&daemon);
    assert_eq!(daemon.status()["policy"]["pending"]["hash"], hash);
    assert!(scene.is_new());
    until("the one before is back", || {
        daemon.status()["policy"]["pending"].is_null().then_some(())
    });
    assert!(!scene.assert_one(&daemon, [&in_force, &hash]));
    std::fs::remove_file(filler).expect("it is there");

    body["confirm_seconds"] = 600.into();
    apply(&daemon, &body);
    let filler = disk.fill_but(0);
    refused(&daemon);
    std::fs::remove_file(filler).expect("it is there");
    let answer = daemon.ask("POST", "/v1/policy/confirm", &Value::Null);
    assert_eq!(answer.expect("the daemon answers").status, 200);
    assert!(scene.assert_one(&daemon, [&in_force, &hash]));
    daemon.kill();
    let daemon = Daemon::start_again(&scene.site);
    assert!(
        scene.assert_one(&daemon, [&in_force, &hash]),
        "what was confirmed is kept"
    );
    daemon.kill();
}
