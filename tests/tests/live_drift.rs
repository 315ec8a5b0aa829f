//! Tables that another program has changed: the read-back finds it, status and metric tell of it.

use std::path::Path;
use std::time::{Duration, Instant};

use keyfence_tests::harness::{Attach, Daemon, PATIENCE, Policy, Site, keyfence, output, run, system};
use serde_json::Value;

const ENTRIES: &str = r#"
[[service]]
name = "api"
protocol = "udp"
ports = [9000]
[[client]]
name = "acme"
sources = ["10.77.0.2", "fd77::2", "10.90.0.0/16"]
services = ["api"]
"#;

const OWNER: [&str; 8] = ["key", "hex", "01", "00", "00", "00", "value", "hex"];
const SPOILT: [&str; 32] = ["ff"; 32];

fn bpftool(map: &Path, command: &str, rest: &[&str]) {
    let mut bpftool = system("bpftool");
    bpftool.args(["map", command, "pinned"]).arg(map).args(rest);
    run(&mut bpftool);
}

/// The drift in status, once a read-back of the generation in force has found so many entries.
fn drift(daemon: &Daemon, entries: u64) -> Value {
    let deadline = Instant::now() + 3 * PATIENCE;
    loop {
        let status = daemon.status();
        let drift = status["drift"].clone();
        if drift["entries"] == entries && drift["generation"] == status["generation"] {
            assert!(!drift["checked_at"].is_null(), "{drift}");
            return drift;
        }
        // A read-back comes every few seconds, and takes as long.
        assert!(Instant::now() < deadline, "not {entries} but {drift}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn status_exit(site: &Site) -> Option<i32> {
    let mut command = keyfence();
    command.args(["status", "--socket"]).arg(site.socket());
    output(&mut command).status.code()
}

/// Writes into the tables in force what nobody said.
fn spoil(site: &Site, daemon: &Daemon) {
    let generation = format!("generation-{}", daemon.generation());
    let tables = site.pins("main").join(generation);
    bpftool(
        &tables.join("OWNERS"),
        "update",
        &[&OWNER[..], &SPOILT[..]].concat(),
    );
}

#[test]
fn entries_that_another_program_changed_are_told_of_until_they_are_written_anew() {
    let site = Site::new();
    let daemon = Daemon::start(&site, &Policy::new(Attach::Native, ENTRIES));
    drift(&daemon, 0);
    assert_eq!(daemon.metric("keyfence_drift_entries"), 0.0);
    assert_eq!(status_exit(&site), Some(0));

    spoil(&site, &daemon);
    let found = drift(&daemon, 1);
    assert_eq!(found["tables"][0]["table"], "OWNERS", "{found}");
    assert_eq!(daemon.metric("keyfence_drift_entries"), 1.0);
    assert_eq!(status_exit(&site), Some(6));
    let ready = daemon.get("/readyz").expect("it answers");
    assert!(
        ready.status == 503 && ready.body.contains("1 of OWNERS"),
        "{}",
        ready.body
    );
    assert!(daemon.log().contains("another program has changed them"));

    daemon.reload();
    assert_eq!(status_exit(&site), Some(0));
    drift(&daemon, 0);
    assert_eq!(daemon.metric("keyfence_drift_entries"), 0.0);
}

#[test]
fn generations_that_follow_each_other_faster_than_a_read_back_are_read_back_all_the_same() {
    let site = Site::new();
    let daemon = Daemon::start(&site, &Policy::new(Attach::Native, ENTRIES));
    let until = |found: &dyn Fn(&Value) -> bool, with_each: &dyn Fn()| {
        let deadline = Instant::now() + 3 * PATIENCE;
        loop {
            daemon.reload();
            with_each();
            let status = daemon.status();
            if found(&status["drift"]) {
                assert!(
                    status["drift"]["generation"].as_u64() < status["generation"].as_u64(),
                    "{status}"
                );
                return status;
            }
            assert!(Instant::now() < deadline, "{}", status["drift"]);
        }
    };
    let clean = until(&|drift| !drift["checked_at"].is_null(), &|| ());
    assert_eq!(clean["drift"]["entries"], 0, "{}", clean["drift"]);

    let spoil = || spoil(&site, &daemon);
    let found = until(&|drift| drift["entries"] != 0, &spoil);
    assert_eq!(
        found["drift"]["tables"][0]["table"], "OWNERS",
        "{}",
        found["drift"]
    );
    assert!(daemon.log().contains("a new generation has taken their place"));
    daemon.reload();
    assert_eq!(status_exit(&site), Some(0), "what was found is mended");
}

#[test]
fn packets_that_go_to_no_judge_of_ours_are_told_of() {
    let site = Site::new();
    let daemon = Daemon::start(&site, &Policy::new(Attach::Native, ENTRIES));
    let slot = site.pins("main").join("maps").join("GENERATION");
    bpftool(&slot, "delete", &["key", "hex", "00", "00", "00", "00"]);
    let found = drift(&daemon, 1);
    assert_eq!(found["tables"][0]["table"], "GENERATION", "{found}");
    daemon.reload();
    drift(&daemon, 0);
}
