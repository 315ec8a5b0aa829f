//! One address that as many bindings open as the kernel walks: one more is refused, and yet no policy and no start waits
//! for what was pushed.

use std::fmt::Write as _;

use filter_common::bounds::OWNERS_PER_SOURCE_MAX;
use serde_json::{Value, json};

use super::stage::{ENTRIES, STRANGER4, Stage, binding};
use keyfence_tests::harness::{Answer, Attach, Policy};

const ADDRESS: &str = "10.77.0.66";

/// `key-0` and so on, all of the stranger's address.
fn lines(count: u32) -> String {
    let mut lines = String::new();
    for number in 0..count {
        let line = json!({"op": "put", "credential": format!("key-{number}"), "sources": [ADDRESS],
            "services": ["api"], "lease_seconds": 3600});
        // Writing to a String cannot fail.
        let _ = writeln!(lines, "{line}");
    }
    lines
}

/// The same as a whole set: from this number on.
fn sync(stage: &Stage, parameters: &str, from: u32, count: u32) -> Answer {
    let mut lines = String::new();
    for number in from..from + count {
        let line = json!({"credential": format!("key-{number}"), "sources": [ADDRESS], "services": ["api"],
            "lease_seconds": 3600});
        let _ = writeln!(lines, "{line}");
    }
    let _ = writeln!(lines, "{}", json!({"op": "end", "count": count}));
    let path = format!("/v1/bindings?{parameters}");
    let answer = stage.daemon().ask_lines("PUT", &path, &lines);
    answer.expect("the daemon answers")
}

fn shown(stage: &Stage, credential: &str) -> Value {
    stage.done("GET", &format!("/v1/bindings/{credential}"), &Value::Null)
}

fn alarms(stage: &Stage) -> String {
    stage.daemon().status()["bindings"]["alarms"].to_string()
}

fn suspended(stage: &Stage) -> u64 {
    let status = stage.daemon().status();
    status["bindings"]["publishers"][0]["suspended"]
        .as_u64()
        .expect("a number")
}

#[test]
fn policies_and_starts_go_before_what_was_pushed_last() {
    let mut stage = Stage::new();
    let full = stage
        .daemon()
        .ask_lines("POST", "/v1/bindings/batch", &lines(OWNERS_PER_SOURCE_MAX));
    let full = full.expect("the daemon answers");
    assert!(full.body.contains("\"failed\":0"), "{}", full.body);
    for sources in [ADDRESS, "10.77.0.0/24"] {
        let refused = stage.ask("PUT", "/v1/bindings/more", &binding(&[sources]));
        assert_eq!(refused.status, 507, "{}", refused.body);
        assert!(refused.body.contains("table-full"), "{}", refused.body);
    }
    assert!(stage.passes(STRANGER4));

    // The operator opens the network around it: who came last gives way, and everybody can see it.
    let last = format!("key-{}", OWNERS_PER_SOURCE_MAX - 1);
    let around = "[[client]]\nname = \"office\"\nsources = [\"10.77.0.0/24\"]\nservices = [\"spare\"]\n";
    stage.reload(&Policy::new(Attach::Native, &format!("{ENTRIES}{around}")));
    let left_out = shown(&stage, &last);
    assert_eq!(left_out["state"], "suspended", "{left_out}");
    let why = left_out["suspended_because"].as_str().expect("it says why");
    assert!(why.contains("no room") && why.contains("10.77.0.66/32"), "{why}");
    assert_eq!(
        (suspended(&stage), stage.state("key-0")),
        (1, "active".to_owned())
    );
    assert!(alarms(&stage).contains("want of room"), "{}", alarms(&stage));
    assert!(stage.passes(STRANGER4));

    // There is more in the store than the kernel takes, which is no reason not to start.
    stage.kill();
    stage.start_again();
    assert_eq!(
        (suspended(&stage), stage.state(&last)),
        (1, "suspended".to_owned())
    );
    assert!(alarms(&stage).contains("want of room"), "{}", alarms(&stage));
    assert!(stage.passes(STRANGER4));

    // Written again, it is tried again: in vain first, and where there is room it has its place.
    let again = format!("/v1/bindings/{last}");
    let longer = json!({"sources": [ADDRESS], "services": ["api"], "lease_seconds": 7200});
    let refused = stage.ask("PUT", &again, &longer);
    assert_eq!(refused.status, 507, "{}", refused.body);
    assert_eq!(stage.state(&last), "suspended");
    stage.unbind("key-7");
    let put = stage.done("PUT", &again, &longer);
    assert_eq!(put["state"], "active", "{put}");
    assert_eq!(suspended(&stage), 0);

    // And the alarm goes with the next policy.
    stage.reload(&Policy::new(Attach::Native, ENTRIES));
    assert_eq!(alarms(&stage), "[]");
    assert_eq!(stage.state(&last), "active");
}

#[test]
fn dry_run_of_a_sync_tells_what_the_sync_is_told_and_one_that_makes_its_own_room_is_taken() {
    const MAX: u32 = OWNERS_PER_SOURCE_MAX;
    let mut stage = Stage::new();
    for parameters in ["dry_run=true", "dry_run=false"] {
        let refused = sync(&stage, parameters, 0, MAX + 1);
        assert_eq!(refused.status, 507, "{}", refused.body);
        assert!(
            refused.body.contains("table-full") && refused.body.contains("10.77.0.66/32"),
            "{}",
            refused.body
        );
    }
    assert!(!stage.passes(STRANGER4));
    for (parameters, from) in [
        ("dry_run=true", 0),
        ("", 0),
        ("dry_run=true", MAX),
        ("revoke_max=256", MAX),
    ] {
        let taken = sync(&stage, parameters, from, MAX);
        assert_eq!(taken.status, 200, "{parameters}: {}", taken.body);
    }
    assert_eq!(stage.state(&format!("key-{MAX}")), "active");
    assert!(stage.passes(STRANGER4));
}
