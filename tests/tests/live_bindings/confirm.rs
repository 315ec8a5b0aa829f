//! Policies that must be confirmed: the one before comes back in the kernel, also where no daemon lives to see it, and
//! with all that was bound and unbound meanwhile.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use keyfence_tests::harness::{GREEDY, Policy, run, system, until};
use serde_json::{Value, json};

use crate::stage::{PORT, STRANGER4, Stage, policy};

/// Long enough for what is done meanwhile on a loaded machine.
const CONFIRM_SECONDS: u64 = 8;
const GREEDY4: IpAddr = IpAddr::V4(GREEDY.v4);

/// A client has left in the one, and another has come.
fn old() -> Policy {
    policy().and("[[client]]\nname = \"leaver\"\nsources = [\"10.77.0.3\"]\nservices = [\"api\"]\n")
}

fn new() -> Policy {
    policy().and("[[client]]\nname = \"guest\"\nsources = [\"10.77.0.66\"]\nservices = [\"api\"]\n")
}

/// Applies a policy for so long; when that began, and its hash.
fn apply(stage: &Stage, policy: &Policy, confirm_seconds: u64) -> (Instant, Value) {
    let text = policy.text(&stage.site.socket());
    let body = json!({
        "root": "keyfence.toml",
        "files": { "keyfence.toml": text },
        "confirm_seconds": confirm_seconds,
    });
    let began = Instant::now();
    let applied = stage.done("POST", "/v1/policy/apply", &body);
    (began, applied["hash"].clone())
}

/// Whether the new policy judges, else the old one does.
fn is_new(stage: &mut Stage) -> bool {
    match stage.passing(&[STRANGER4, GREEDY4], PORT)[..] {
        [true, false] => true,
        [false, true] => false,
        ref mixed => panic!("a mixture of both policies judges: {mixed:?}"),
    }
}

/// The new policy judges until the time is over, and the old one after it.
fn goes_back(stage: &mut Stage, began: Instant) {
    let time = Duration::from_secs(CONFIRM_SECONDS);
    let mut judged = 0;
    let back = until("the old policy is back", || {
        judged += 1;
        (!is_new(stage)).then(|| began.elapsed())
    });
    assert!(back >= time, "{back:?} after it was applied");
    assert!(judged > 1, "it was in force meanwhile");
    assert!(!is_new(stage));
}

fn generations(stage: &Stage) -> usize {
    let pinned = stage.site.bpf.list("keyfence/main").into_iter();
    pinned
        .filter(|path| path.is_dir() && path.display().to_string().contains("generation-"))
        .count()
}

/// What says in the kernel until when a policy is in force.
fn is_armed(stage: &Stage) -> bool {
    let switch = stage.site.pins("main").join("maps").join("SWITCH");
    let dumped = run(system("bpftool")
        .args(["-j", "map", "dump", "pinned"])
        .arg(switch));
    let dumped: Value = serde_json::from_str(&dumped).expect("bpftool writes JSON");
    let bytes = dumped[0]["value"].as_array().expect("a value's bytes");
    bytes[..8].iter().any(|byte| byte != "0x00")
}

#[test]
fn policy_that_nobody_confirms_goes_with_its_daemon_dead_and_bindings_stay() {
    let mut stage = Stage::with(&old());
    let [bound, revoked, wide] = [50, 51, 140].map(|host| IpAddr::from([10, 77, 0, host]));
    for address in [bound, revoked, wide] {
        stage.settle(address);
    }
    stage.bind("key-revoked", &["10.77.0.51"]);
    stage.bind("key-moved", &["10.77.0.52"]);
    let in_force = stage.daemon().status()["policy"]["hash"].clone();
    let (began, _) = apply(&stage, &new(), CONFIRM_SECONDS);
    assert!(is_new(&mut stage) && is_armed(&stage));
    assert_eq!(generations(&stage), 2);
    assert!(stage.passes(revoked));
    // Its terms are others: in the kernel it gets another number.
    let terms = json!({
        "sources": ["10.77.0.50"], "services": ["api"], "lease_seconds": 600,
        "limit": { "packets": { "rate": 1000, "burst": 1000 } },
    });
    stage.put("key-moved", &terms);
    stage.bind("key-wide", &["10.77.0.128/27"]);
    stage.unbind("key-revoked");
    assert_eq!(stage.passing(&[bound, revoked, wide], PORT), [true, false, true]);
    stage.kill();
    goes_back(&mut stage, began);
    assert_eq!(stage.passing(&[bound, revoked, wide], PORT), [true, false, true]);

    // A start finds the switch turned, and puts in force what was confirmed last.
    stage.start_again();
    let status = stage.daemon().status();
    assert_eq!(status["policy"]["hash"], in_force, "{status}");
    assert_eq!(status["policy"]["pending"], Value::Null);
    assert!(!is_new(&mut stage) && !is_armed(&stage));
    assert_eq!(generations(&stage), 1);
    assert_eq!(stage.passing(&[bound, revoked, wide], PORT), [true, false, true]);
}

#[test]
fn policy_that_nobody_confirms_goes_under_its_daemon_which_follows() {
    let mut stage = Stage::with(&old());
    let before = stage.daemon().status();
    let [single, wide] = [50, 140].map(|host| IpAddr::from([10, 77, 0, host]));
    stage.settle(single);
    stage.settle(wide);
    let (began, hash) = apply(&stage, &new(), CONFIRM_SECONDS);
    let status = stage.daemon().status();
    assert_eq!(status["policy"]["hash"], hash, "{status}");
    assert_eq!(
        status["policy"]["pending"]["base"], before["policy"]["hash"],
        "{status}"
    );
    stage.bind("key-single", &["10.77.0.50"]);
    stage.bind("key-wide", &["10.77.0.128/27"]);
    goes_back(&mut stage, began);
    until("the daemon has followed", || {
        (stage.daemon().status()["policy"]["pending"].is_null()).then_some(())
    });
    let status = stage.daemon().status();
    assert_eq!(status["policy"]["hash"], before["policy"]["hash"], "{status}");
    assert_eq!((generations(&stage), is_armed(&stage)), (1, false));
    assert_eq!(stage.passing(&[single, wide], PORT), [true, true]);
    // What comes after it is as if nothing had been.
    stage.unbind("key-single");
    stage.unbind("key-wide");
    assert_eq!(stage.passing(&[single, wide], PORT), [false, false]);
    stage.reload(&new());
    assert!(is_new(&mut stage));
    assert_eq!(generations(&stage), 1);
}

#[test]
fn confirmed_policy_stays_and_one_that_is_taken_back_goes_at_once() {
    let mut stage = Stage::with(&old());
    apply(&stage, &new(), 600);
    assert!(is_new(&mut stage) && is_armed(&stage));
    stage.done("POST", "/v1/policy/rollback", &json!({}));
    assert!(!is_new(&mut stage) && !is_armed(&stage));
    assert_eq!(generations(&stage), 1);

    let (began, _) = apply(&stage, &new(), 3);
    stage.done("POST", "/v1/policy/confirm", &json!({}));
    assert!(!is_armed(&stage));
    assert_eq!(generations(&stage), 1);
    while began.elapsed() < Duration::from_secs(4) {
        assert!(is_new(&mut stage));
    }
    stage.kill();
    assert!(is_new(&mut stage));
}

#[test]
fn tokens_used_stay_used_on_the_way_there_and_back() {
    let client = |name: &str, host: u8, burst: u32| {
        format!(
            "[[client]]\nname = \"{name}\"\nsources = [\"10.77.0.{host}\"]\nservices = [\"api\"]\n\
             limit = {{ packets = {{ rate = \"1/h\", burst = {burst} }} }}\n"
        )
    };
    let mut stage = Stage::with(
        &policy()
            .and(&client("stays", 66, 20))
            .and(&client("leaver", 3, 20)),
    );
    assert_eq!(stage.passed_of(STRANGER4, 5), 5);
    assert_eq!(stage.passed_of(GREEDY4, 5), 5);
    apply(&stage, &policy().and(&client("stays", 66, 30)), 600);
    assert_eq!(stage.passed_of(STRANGER4, 4), 4);
    assert!(!stage.passes(GREEDY4));
    stage.done("POST", "/v1/policy/rollback", &json!({}));
    assert_eq!(stage.passed_of(STRANGER4, 20), 11, "nine were used of twenty");
    assert_eq!(stage.passed_of(GREEDY4, 20), 15, "five were");
}
