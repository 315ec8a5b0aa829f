//! A filter that somebody takes off under its daemon: it says so at once, still takes what revokes, and the next start
//! holds it.

use serde_json::{Value, json};

use super::stage::{STRANGER4, Stage, binding};
use keyfence_tests::harness::Daemon;

#[test]
fn detached_filter_is_told_at_once_and_what_revokes_is_kept_for_the_next_start() {
    let mut stage = Stage::new();
    for key in ["revoked", "kept"] {
        let put = stage.done("PUT", &format!("/v1/bindings/{key}"), &binding(&["10.77.0.66"]));
        assert_eq!(put["state"], "active", "{put}");
    }
    let ready = stage.daemon().get("/readyz").expect("the daemon answers");
    assert_eq!(ready.status, 200, "{}", ready.body);
    // By no request of the daemon's.
    let detached = Daemon::detach(&stage.site, &["--yes"]);
    assert_eq!(detached.code, Some(0), "{}", detached.log);
    let ready = stage.daemon().get("/readyz").expect("the daemon answers");
    assert_eq!(ready.status, 503);
    assert!(ready.body.contains("the filter was detached"), "{}", ready.body);
    let status = stage.daemon().status();
    assert_eq!(status["interfaces"][0]["attached"], false, "{status}");

    let refused = stage.ask("PUT", "/v1/bindings/new", &binding(&["10.77.0.66"]));
    assert_eq!(refused.status, 503, "{}", refused.body);
    assert!(
        refused.body.contains("the filter was detached"),
        "{}",
        refused.body
    );
    // Few, and so many that they are made in slices and taken back.
    for count in [2, 600] {
        let line = |at: u32| {
            let source = format!("10.77.{}.{}", 100 + at / 200, 1 + at % 200);
            json!({"credential": format!("many-{at}"), "sources": [source], "services": ["api"], "lease_seconds": 3600})
        };
        let lines = (0..count).map(line).chain([json!({"op": "end", "count": count})]);
        let lines: String = lines.map(|line| format!("{line}\n")).collect();
        let refused = stage.daemon().ask_lines("PUT", "/v1/bindings", &lines);
        let refused = refused.expect("the daemon answers");
        assert_eq!(refused.status, 503, "{}", refused.body);
    }
    assert!(!stage.daemon().log().contains("in force in part"));
    let removed = stage.done("DELETE", "/v1/bindings/revoked", &Value::Null);
    assert_eq!(removed["removed"], true, "{removed}");
    let body = json!({"sources": ["10.77.0.66"], "seconds": 3600, "reason": "a test"});
    let denied = stage.done("PUT", "/v1/denies/abuse", &body);
    for answer in [&removed, &denied] {
        let warning = answer["warning"].as_str().unwrap_or_default();
        assert!(warning.contains("every packet passes"), "{answer}");
    }

    stage.kill();
    stage.start_again();
    let gone = stage.ask("GET", "/v1/bindings/revoked", &Value::Null);
    assert_eq!(gone.status, 404, "{}", gone.body);
    assert_eq!(stage.state("kept"), "active");
    assert!(!stage.passes(STRANGER4), "the deny is in force");
    let undenied = stage.done("DELETE", "/v1/denies/abuse", &Value::Null);
    assert_eq!(
        (&undenied["removed"], &undenied["warning"]),
        (&json!(true), &Value::Null)
    );
    assert!(stage.passes(STRANGER4));
}
