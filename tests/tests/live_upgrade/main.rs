//! From one build to the next, whose tables, store and policies are of other formats, and back: nothing is open or shut
//! in between, and what is kept is kept.

mod gateway;
mod moments;

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::thread;

use keyfence_tests::harness::{
    Attach, Counts, Daemon, Ended, GREEDY, Policy, SERVER, Sender, Site, StopOnDrop, Traffic, keyfence,
    keyfence_path, next_path, output, run, until,
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

const GREEDY4: IpAddr = IpAddr::V4(GREEDY.v4);
/// Nothing comes back within a test.
const BURST: u64 = 60;

fn policy(variant: u32) -> Policy {
    let entries = format!(
        "[[service]]\nname = \"api\"\nprotocol = \"udp\"\nports = [9000]\n\
         [[client]]\nname = \"acme\"\nsources = [\"10.77.0.2\"]\nservices = [\"api\"]\n\
         [[client]]\nname = \"slow\"\nsources = [\"10.77.0.3\"]\nservices = [\"api\"]\nnote = \"{variant}\"\n\
         limit = {{ packets = {{ rate = \"1/h\", burst = {BURST} }} }}\n\
         [[publisher]]\nname = \"gateway\"\nuser = \"root\"\nservices = [\"*\"]\n\
         environments = [\"production\"]\n"
    );
    Policy::new(Attach::Native, &entries)
}

/// All that is kept, and all that is pinned.
#[derive(PartialEq)]
struct Kept {
    files: BTreeMap<PathBuf, Vec<u8>>,
    pins: Vec<PathBuf>,
    maps: Vec<(PathBuf, u64)>,
}

fn kept(site: &Site) -> Kept {
    let mut files = BTreeMap::new();
    let mut folders = vec![site.state()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("it is there").flatten() {
            match entry.path() {
                path if path.is_dir() => folders.push(path),
                path => drop(files.insert(path.clone(), fs::read(&path).expect("it is there"))),
            }
        }
    }
    Kept {
        files,
        pins: site.bpf.list("keyfence"),
        maps: site.map_ids(),
    }
}

fn layout(program: &Path) -> u64 {
    let mut command = std::process::Command::new(program);
    let said = run(command.args(["version", "--json"]));
    let said: Value = serde_json::from_str(&said).expect("it is JSON");
    said["layout_version"].as_u64().expect("a number")
}

fn bind(daemon: &Daemon, name: &str) {
    let body = json!({"sources": ["10.88.0.1"], "services": ["api"], "lease_seconds": 36_000});
    let answer = daemon.ask("PUT", &format!("/v1/bindings/{name}"), &body);
    assert_eq!(answer.map(|answer| answer.status), Some(201));
}

fn bound(daemon: &Daemon) -> Vec<String> {
    let page = daemon.get("/v1/bindings?limit=1000").expect("the daemon answers");
    let page: Value = serde_json::from_str(&page.body).expect("it is JSON");
    let items = page["items"].as_array().expect("a list").iter();
    items
        .map(|item| item["credential"].as_str().expect("a text").to_owned())
        .collect()
}

/// What the log has said since.
fn said(daemon: &Daemon, since: usize) -> String {
    daemon.log().get(since..).unwrap_or_default().to_owned()
}

/// Some packets of whom a limit holds: how many have come through so far.
fn use_up(slow: &mut Sender, traffic: &Traffic, packets: u64) -> u64 {
    let before = traffic.sink.count(GREEDY4);
    (0..packets).for_each(|_| slow.send());
    until("the slow client's packets arrive", || {
        (traffic.sink.count(GREEDY4) >= before + packets).then_some(())
    });
    traffic.sink.count(GREEDY4)
}

/// Starts the older build, which refuses, until all is done that it says; each time nothing is changed.
fn go_back(site: &Site) -> Daemon {
    let (mut said, mut arguments) = (Vec::new(), Vec::new());
    loop {
        let before = kept(site);
        let ended = Daemon::refused(site, Daemon::command(site).args(&arguments));
        assert_eq!(ended.code, Some(1), "{}", ended.log);
        assert!(
            kept(site) == before,
            "a start that is refused changes nothing: {}",
            ended.log
        );
        if ended.log.contains("keyfence run --downgrade") {
            said.push("layout");
            arguments.push("--downgrade");
            continue;
        }
        run(&mut Daemon::way_back(&ended));
        if !ended.log.contains("bindings.redb") {
            said.push("policies");
            continue;
        }
        assert_eq!(said, ["policies", "layout"]);
        return Daemon::start_with(site, &arguments);
    }
}

/// To the next build, which keeps what it finds.
fn upgrade(site: &Site, daemon: Daemon, round: u32) -> Daemon {
    let (generation, counts) = (daemon.generation(), site.counters());
    let log = daemon.log().len();
    match round {
        0 => drop(daemon.end(Signal::SIGTERM)),
        _ => daemon.kill(),
    }
    let daemon = Daemon::start_as(site, &mut Daemon::command_of(site, &next_path()));
    let told = said(&daemon, log);
    assert!(told.contains("has given way"), "{told}");
    assert!(told.contains("the sources' own buckets are full"), "{told}");
    assert!(!told.contains("counters start"), "{told}");
    assert!(daemon.generation() > generation);
    assert_one_filter(site, &counts);
    assert_eq!(bound(&daemon), ["key-kept"]);
    daemon
}

/// Under the next build as under any; then to the older one, which has what was before.
fn work_and_go_back(site: &Site, daemon: Daemon, round: u32) -> Daemon {
    bind(&daemon, "key-next");
    site.write(&policy(round + 1));
    daemon.reload();
    daemon.kill();
    let daemon = Daemon::start_as(site, &mut Daemon::command_of(site, &next_path()));
    let counts = site.counters();
    assert_eq!(daemon.end(Signal::SIGTERM).code(), Some(0));
    let daemon = go_back(site);
    assert_one_filter(site, &counts);
    assert_eq!(bound(&daemon), ["key-kept"], "as it was before");
    assert_eq!(daemon.status()["policy"]["file_differs"], true);
    // The newer one's are the operator's to remove.
    for newer in ["bindings.redb.newer", "policy.newer"] {
        let path = site.state().join(newer);
        assert!(path.exists(), "{newer}");
        run(std::process::Command::new("rm").arg("-r").arg(path));
    }
    daemon
}

#[test]
fn upgrade_and_the_way_back_misjudge_no_packet_and_keep_what_can_be_kept() {
    let site = Site::new();
    let (this, next) = (keyfence_path(), next_path());
    assert!(layout(&next) > layout(&this));
    let daemon = Daemon::start(&site, &policy(0));
    bind(&daemon, "key-kept");
    let traffic = Traffic::open(&site);
    let to = SocketAddr::new(SERVER.v4.into(), Traffic::PORT);
    let mut slow = Sender::open(&site.outside, GREEDY4, to);
    let (sent, daemon) = thread::scope(|scope| {
        let mut daemon = daemon;
        let senders = scope.spawn(|| traffic.run(&site));
        let stop = StopOnDrop(&traffic.over);
        for round in 0..3 {
            use_up(&mut slow, &traffic, 5);
            daemon = upgrade(&site, daemon, round);
            use_up(&mut slow, &traffic, 5);
            daemon = work_and_go_back(&site, daemon, round);
        }
        assert_eq!(use_up(&mut slow, &traffic, 20), 50, "of the burst of {BURST}");
        (0..30).for_each(|_| slow.send());
        drop(stop);
        let sent = senders.join();
        (
            sent.unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            daemon,
        )
    });
    println!("{sent:?}");
    traffic.assert_none_misjudged(&site, &sent);
    assert_eq!(traffic.sink.count(GREEDY4), BURST, "tokens used stay used");
    let counts = site.counters();
    use filter_common::verdict::{Reason, Verdict};
    assert_eq!(
        counts.packets("api", Verdict::Drop, Reason::Unlisted),
        sent.strangers
    );
    assert_eq!(counts.packets("api", Verdict::Drop, Reason::LimitGrant), 20);
    assert_eq!(
        counts.packets("api", Verdict::Pass, Reason::Allowed),
        sent.listed + BURST
    );
    assert_eq!(daemon.end(Signal::SIGTERM).code(), Some(0));
    // Each drop is in one record, whoever has written it.
    let verified = output(keyfence().args(["drops", "verify"]).arg(site.drops()));
    assert!(
        verified.status.success(),
        "{}",
        String::from_utf8_lossy(&verified.stdout)
    );
}

/// No counter has fallen, and nothing is left of the one before.
fn assert_one_filter(site: &Site, before: &Counts) {
    assert_eq!(site.counters().fallen_since(before), []);
    let folders = fs::read_dir(site.bpf.path().join("keyfence")).expect("it is there");
    let names: Vec<String> = folders
        .flatten()
        .map(|entry| entry.file_name().into_string().expect("a name"))
        .collect();
    assert_eq!(names, ["main"]);
}

/// What the filter was told goes on with the one that takes its place.
#[test]
fn state_folder_that_is_older_than_the_filter_is_noticed_by_an_upgrade_and_after_it() {
    let site = Site::new();
    let next = || Daemon::command_of(&site, &next_path());
    let daemon = Daemon::start(&site, &policy(0));
    bind(&daemon, "key-1");
    daemon.kill();
    let older = site.copy_of_state("older");
    let daemon = Daemon::start_again(&site);
    bind(&daemon, "key-2");
    site.has_told(2, 1);
    daemon.kill();
    let right = site.copy_of_state("right");

    site.put_back(&older);
    let before = (site.map_ids(), site.told());
    let Ended { code, log } = Daemon::refused(&site, &mut next());
    assert_eq!(code, Some(1), "{log}");
    for words in [
        "older than the filter in the kernel",
        "stays in force (instance main)",
    ] {
        assert!(log.contains(words), "{log}");
    }
    assert_eq!((site.map_ids(), site.told()), before);

    site.put_back(&right);
    let daemon = Daemon::start_as(&site, &mut next());
    assert_eq!(bound(&daemon), ["key-1", "key-2"]);
    daemon.kill();
    assert!(site.told() >= before.1);
    site.put_back(&older);
    let daemon = Daemon::start_unready_as(&site, &mut next());
    let ready = daemon.get("/readyz").expect("the daemon answers");
    assert!(
        ready.status == 503 && ready.body.contains("older than the filter in the kernel"),
        "{}",
        ready.body
    );
}

#[test]
fn older_build_shows_what_newer_pins_are_and_takes_them_off() {
    let site = Site::new();
    site.write(&policy(0));
    let daemon = Daemon::start_as(&site, &mut Daemon::command_of(&site, &next_path()));
    daemon.kill();
    let mut doctor = site.server.command(keyfence_path());
    doctor
        .args(["doctor", "--json", "--policy"])
        .arg(site.policy_file());
    let said = output(doctor.arg("--bpf-fs").arg(site.bpf.path()));
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.contains("layout-other"), "{said}");
    let Ended { code, log } = Daemon::detach(&site, &["--yes"]);
    assert_eq!(code, Some(0), "{log}");
    assert!(site.bpf.list("keyfence").is_empty());
}
