//! Bindings over the daemon's death and over other policies: in force all the time.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use keyfence_tests::harness::{
    GREEDY, PATIENCE, Pace, Policy, SERVER, STRANGER, Sender, Sink, StopOnDrop, until,
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::stage::{ENTRIES, Stage, binding, policy};

const GREEDY4: IpAddr = IpAddr::V4(GREEDY.v4);
const STRANGER4: IpAddr = IpAddr::V4(STRANGER.v4);
const STRANGER6: IpAddr = IpAddr::V6(STRANGER.v6);
const PACKETS_PER_SECOND: u32 = 2000;
const WINDOW: u64 = 64;

/// Does something while a bound address and a stranger send; none of the bound one's is lost, none of the stranger's
/// passes.
fn under_traffic(stage: &mut Stage, bound: IpAddr, stranger: IpAddr, change: impl FnOnce(&mut Stage)) {
    const TRAFFIC: u16 = 9001;
    let to = SocketAddr::new(SERVER.v4.into(), TRAFFIC);
    let sink = Sink::open(&stage.site.server, to);
    let mut listed = Sender::open(&stage.site.outside, bound, to);
    let mut other = Sender::open(&stage.site.outside, stranger, to);
    let over = AtomicBool::new(false);
    let sent = thread::scope(|scope| {
        let stream = scope.spawn(|| {
            let mut pace = Pace::per_second(PACKETS_PER_SECOND);
            while !over.load(Ordering::Relaxed) {
                listed.send();
                other.send();
                pace.wait();
                let deadline = Instant::now() + PATIENCE;
                while listed.sent() - sink.count(bound) > WINDOW {
                    assert!(Instant::now() < deadline, "more than {WINDOW} packets are lost");
                    pace.wait();
                }
            }
            listed.sent()
        });
        let stop = StopOnDrop(&over);
        change(stage);
        drop(stop);
        stream
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    until("all of the bound address' packets arrive", || {
        (sink.count(bound) >= sent).then_some(())
    });
    assert_eq!(sink.count(bound), sent);
    assert_eq!(sink.count(stranger), 0, "a stranger's packets passed");
    assert!(sent > 100, "{sent} packets are no traffic");
}

fn for_spare(sources: &[&str]) -> Value {
    let mut body = binding(sources);
    body["services"] = json!(["api", "spare"]);
    body
}

#[test]
fn bindings_are_in_force_over_restarts_and_kills() {
    let mut stage = Stage::new();
    stage.put("key-1", &for_spare(&["10.77.0.66"]));
    under_traffic(&mut stage, STRANGER4, GREEDY4, |stage| {
        for _ in 0..3 {
            stage.kill();
            stage.start_again();
            let ended = stage.daemon.take().expect("it runs").end(Signal::SIGTERM);
            assert!(ended.success(), "{ended}");
            stage.start_again();
        }
    });
    assert!(stage.passes(STRANGER4));
    assert_eq!(stage.state("key-1"), "active");
    stage.unbind("key-1");
    assert!(!stage.passes(STRANGER4));
    stage.kill();
    stage.start_again();
    assert!(!stage.passes(STRANGER4), "what was deleted stays so");
}

#[test]
fn other_writes_and_reloads_misjudge_no_packet_of_a_binding() {
    let mut stage = Stage::new();
    stage.put("key-1", &for_spare(&["10.77.0.66"]));
    under_traffic(&mut stage, STRANGER4, GREEDY4, |stage| {
        for round in 0..30 {
            let other = format!("key-{}", 10 + round);
            let address = format!("10.78.0.{round}");
            stage.put(&other, &for_spare(&[&address]));
            // Its own, with what others name as well.
            stage.put("key-2", &for_spare(&[&address, "10.77.0.66"]));
            if round % 5 == 0 {
                stage.put("key-3", &for_spare(&["10.79.1.0/24", &address]));
                let deny = format!("[[deny]]\nname = \"d-{round}\"\nsources = [\"192.0.2.{round}\"]\n");
                stage.reload(&policy().and(&deny));
            }
            stage.unbind("key-2");
            stage.unbind(&other);
        }
    });
}

#[test]
fn policy_suspends_a_binding_and_another_resumes_it() {
    let mut stage = Stage::new();
    stage.put("key-1", &for_spare(&["10.77.0.66", "fd77::/64"]));
    stage.bind("key-2", &["10.77.0.99"]);
    assert!(stage.passes(STRANGER4) && stage.passes(STRANGER6));
    let narrower = ENTRIES.replace(
        "services = [\"api\", \"spare\", \"stream\"]",
        "services = [\"api\"]",
    );
    stage.reload(&Policy::new(keyfence_tests::harness::Attach::Native, &narrower));
    assert!(!stage.passes(STRANGER4) && !stage.passes(STRANGER6), "suspended");
    until("it is told", || {
        (stage.state("key-1") == "suspended").then_some(())
    });
    assert_eq!(stage.state("key-2"), "active");
    // Suspended it stays over a restart, and can be deleted or replaced.
    stage.kill();
    stage.start_again();
    assert!(!stage.passes(STRANGER4));
    assert_eq!(stage.state("key-1"), "suspended");
    stage.reload(&policy());
    assert!(stage.passes(STRANGER4) && stage.passes(STRANGER6), "resumed");
    assert_eq!(stage.state("key-1"), "active");
    let told = until("it is told", || {
        let told = events(&stage);
        told.contains(&"key-1 resume".to_owned()).then_some(told)
    });
    let suspended = told.iter().filter(|line| **line == "key-1 suspend");
    assert_eq!(suspended.count(), 1, "{told:?}");
}

/// Credential and event of the audit log's lines.
fn events(stage: &Stage) -> Vec<String> {
    let audit = stage.ask("GET", "/v1/audit", &Value::Null);
    assert_eq!(audit.status, 200, "{}", audit.body);
    let lines = audit
        .body
        .lines()
        .map(|line| -> Value { serde_json::from_str(line).expect("lines are JSON") });
    let told = lines.filter_map(|line| {
        Some(format!(
            "{} {}",
            line["credential"].as_str()?,
            line["what"].as_str()?
        ))
    });
    told.collect()
}

#[test]
fn writes_while_policies_change_are_in_force_under_the_last_one() {
    let mut stage = Stage::new();
    let addresses: Vec<IpAddr> = (100..130u8).map(|last| IpAddr::from([10, 77, 0, last])).collect();
    addresses.iter().for_each(|address| stage.settle(*address));
    let over = AtomicBool::new(false);
    let writes = thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut writes = 0;
            while !over.load(Ordering::Relaxed) || writes % addresses.len() != 0 {
                let address = addresses[writes % addresses.len()];
                let key = format!("key-{address}");
                let path = format!("/v1/bindings/{key}");
                // Where policies follow upon one another without a pause, a write may be told to come again.
                let taken = |method: &str, body: &Value| {
                    let answer = stage.ask(method, &path, body);
                    [200, 201].contains(&answer.status).then_some(())
                };
                until("a PUT is taken", || {
                    taken("PUT", &binding(&[&address.to_string()]))
                });
                // Half of them are gone again at the end.
                if writes % 2 == 0 {
                    until("a DELETE is taken", || taken("DELETE", &Value::Null));
                }
                writes += 1;
            }
            writes
        });
        let stop = StopOnDrop(&over);
        for round in 0..20 {
            let deny = format!("[[deny]]\nname = \"d-{round}\"\nsources = [\"192.0.2.{round}\"]\n");
            stage.reload(&policy().and(&deny));
        }
        drop(stop);
        writer
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    let wanted: Vec<bool> = (0..addresses.len()).map(|at| at % 2 == 1).collect();
    assert_eq!(stage.passing(&addresses, 9000), wanted, "after {writes} writes");
}
