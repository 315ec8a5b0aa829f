//! Known frames run through the program in force: what it judges wrongly is an alarm until it is mended, and neither a
//! counter nor a bucket moves.

use std::path::Path;
use std::time::{Duration, Instant};

use filter_common::verdict::{Reason, Verdict};
use keyfence_tests::harness::{Attach, Daemon, PATIENCE, Policy, Site, run, system};
use serde_json::{Value, json};

const ENTRIES: &str = r#"
[[service]]
name = "api"
protocol = "udp"
ports = [9000]
address = "host"
[[client]]
name = "acme"
sources = ["10.77.0.2", "fd77::2", "10.90.0.0/16"]
services = ["api"]
limit = { packets = { rate = 1, burst = 1 } }
[[deny]]
name = "abuse"
sources = ["198.51.100.66"]
[[management]]
name = "ssh"
sources = ["192.0.2.0/24"]
protocol = "tcp"
ports = [22]
[[publisher]]
name = "gateway"
user = "root"
services = ["api"]
environments = ["production"]
widest-prefix = { ipv4 = 8, ipv6 = 8 }
"#;

fn bpftool(map: &Path, command: &str, rest: &[&str]) {
    let mut bpftool = system("bpftool");
    bpftool.args(["map", command, "pinned"]).arg(map).args(rest);
    run(&mut bpftool);
}

/// The canary in status, once a round has ended that the test waits for. A round comes every ten seconds.
fn canary(daemon: &Daemon, wanted: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + 5 * PATIENCE;
    loop {
        let canary = daemon.status()["canary"].clone();
        if !canary["checked_at"].is_null() && wanted(&canary) {
            return canary;
        }
        assert!(Instant::now() < deadline, "{canary}\n{}", daemon.log());
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn differing(canary: &Value) -> Vec<&str> {
    let all = canary["differing"].as_array().expect("a list");
    all.iter()
        .map(|what| what.as_str().expect("a sentence"))
        .collect()
}

#[test]
fn tables_and_programs_that_judge_wrongly_are_an_alarm_until_they_are_mended() {
    let site = Site::new();
    let daemon = Daemon::start(&site, &Policy::new(Attach::Native, ENTRIES));
    let sung = canary(&daemon, |_| true);
    assert_eq!(differing(&sung), [""; 0]);
    assert!(sung["frames"].as_u64() >= Some(6), "{sung}");
    assert_eq!(daemon.metric("keyfence_canary_differing_frames"), 0.0);
    let counters = site.counters();
    for (verdict, reason) in [
        (Verdict::Drop, Reason::Unlisted),
        (Verdict::Pass, Reason::Allowed),
    ] {
        assert_eq!(counters.packets("api", verdict, reason), 0, "nothing is counted");
    }

    // The client's owner, of another service.
    let tables = site
        .pins("main")
        .join(format!("generation-{}", daemon.generation()));
    let owner = ["key", "hex", "01", "00", "00", "00", "value", "hex"];
    let value = ["ff"; 32];
    bpftool(
        &tables.join("OWNERS"),
        "update",
        &[&owner[..], &value[..]].concat(),
    );
    let sung = canary(&daemon, |sung| !differing(sung).is_empty());
    assert_eq!(
        differing(&sung),
        ["client acme (10.77.0.2) to service api is drop (unlisted) and should be pass (allowed)"]
    );
    assert_eq!(daemon.metric("keyfence_canary_differing_frames"), 1.0);
    let ready = daemon.get("/readyz").expect("it answers");
    assert!(
        ready.status == 503 && ready.body.contains("judges known packets wrongly"),
        "{}",
        ready.body
    );
    assert!(daemon.log().contains("judges known packets wrongly"));
    daemon.reload();
    let sung = canary(&daemon, |_| true);
    assert_eq!(differing(&sung), [""; 0]);

    // Packets go nowhere.
    let slot = site.pins("main").join("maps").join("GENERATION");
    bpftool(&slot, "delete", &["key", "hex", "00", "00", "00", "00"]);
    let sung = canary(&daemon, |sung| !differing(sung).is_empty());
    let all = differing(&sung);
    assert_eq!(all.len() as u64, sung["frames"].as_u64().expect("a number"));
    assert!(
        all[0].contains("packets go to no judge of this daemon"),
        "{all:?}"
    );
    daemon.reload();
    canary(&daemon, |sung| differing(sung).is_empty());
}

#[test]
fn binding_that_lists_the_stranger_is_no_alarm() {
    let site = Site::new();
    let daemon = Daemon::start(&site, &Policy::new(Attach::Native, ENTRIES));
    let first = canary(&daemon, |_| true)["checked_at"].clone();
    for (key, source) in [("wide-4", "0.0.0.0/8"), ("wide-6", "100::/8")] {
        let body = json!({"sources": [source], "services": ["api"], "lease_seconds": 600});
        let answer = daemon.ask("PUT", &format!("/v1/bindings/{key}"), &body);
        let answer = answer.expect("it answers");
        assert_eq!(answer.status, 201, "{}", answer.body);
    }
    // The next two: one may have been under way.
    let second = canary(&daemon, |sung| sung["checked_at"] != first)["checked_at"].clone();
    let sung = canary(&daemon, |sung| {
        sung["checked_at"] != first && sung["checked_at"] != second
    });
    assert_eq!(differing(&sung), [""; 0]);
}
