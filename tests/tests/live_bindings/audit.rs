//! The audit log's lines about the daemon itself, and a log that was cut behind its back.

use std::fs;

use keyfence_tests::harness::{Policy, keyfence, output, run, until};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::stage::{Stage, policy};

fn lines(stage: &Stage) -> Vec<Value> {
    let audit = stage.ask("GET", "/v1/audit", &Value::Null);
    assert_eq!(audit.status, 200, "{}", audit.body);
    let lines = audit.body.lines();
    lines
        .map(|line| serde_json::from_str(line).expect("lines are JSON"))
        .collect()
}

fn with_deny(number: u8) -> Policy {
    policy().and(&format!(
        "[[deny]]\nname = \"d-{number}\"\nsources = [\"192.0.2.{number}\"]\n"
    ))
}

#[test]
fn start_and_each_policy_in_force_are_told_with_by_whom_and_the_hashes() {
    let stage = Stage::new();
    let status = stage.daemon().status();
    let first = &lines(&stage)[0];
    assert_eq!((&first["line"], &first["what"]), (&1.into(), &"start".into()));
    for (member, expected) in [
        ("version", &status["version"]),
        ("policy", &status["policy"]["hash"]),
        ("generation", &status["generation"]),
    ] {
        assert_eq!(&first[member], expected, "{first}");
        assert!(!expected.is_null(), "{status}");
    }
    assert!(first["actor"].is_null() && first["time"].is_string(), "{first}");
    let told_of = |number: u8, apply: &dyn Fn()| {
        let before = stage.daemon().status();
        stage.site.write(&with_deny(number));
        apply();
        let line = until("the line is there", || {
            lines(&stage).into_iter().nth(usize::from(number))
        });
        let after = stage.daemon().status();
        assert_eq!(line["what"], "apply", "{line}");
        assert_eq!(line["before"], before["policy"]["hash"], "{line}");
        assert_eq!(line["after"], after["policy"]["hash"], "{line}");
        assert_eq!(line["generation"], after["generation"], "{line}");
        assert_ne!(line["before"], line["after"]);
        line
    };
    let line = told_of(1, &|| stage.daemon().signal(Signal::SIGHUP));
    assert_eq!((&line["by"], &line["actor"]), (&"SIGHUP".into(), &Value::Null));
    let reload = || {
        run(keyfence().arg("reload").arg("--socket").arg(stage.site.socket()));
    };
    let line = told_of(2, &reload);
    assert_eq!(line["by"], "reload");
    let actor = &line["actor"];
    assert_eq!(
        (&actor["kind"], &actor["name"]),
        (&"operator".into(), &"root".into())
    );
    assert_eq!((&actor["uid"], &actor["user"]), (&0.into(), &"root".into()));
    assert!(actor["pid"].as_u64() > Some(1), "{line}");
    // The same policy again is no change of what is in force.
    reload();
    assert_eq!(lines(&stage).len(), 3);
}

#[test]
fn log_that_was_cut_is_an_alarm_and_never_verifies_by_itself_again() {
    let mut stage = Stage::new();
    for key in ["key-1", "key-2"] {
        stage.bind(key, &["10.77.0.66"]);
    }
    let daemon = stage.daemon.take().expect("it runs");
    let head = daemon.status()["bindings"]["audit"].clone();
    daemon.end(Signal::SIGTERM);
    let path = stage.site.state().join("audit.jsonl");
    let verify = |arguments: &[&str]| {
        let mut command = keyfence();
        command
            .args(["audit", "verify", "--json"])
            .arg(&path)
            .args(arguments);
        let shown = output(&mut command);
        let object: Value = serde_json::from_slice(&shown.stdout).expect("an object");
        (shown.status.code(), object)
    };
    assert_eq!(verify(&[]).0, Some(0));
    let text = fs::read_to_string(&path).expect("the log is there");
    let whole: Vec<&str> = text.split_inclusive('\n').collect();
    fs::write(&path, whole[..whole.len() - 1].concat()).expect("it can be written");
    stage.start_again();
    let status = stage.daemon().status();
    let alarm = status["bindings"]["alarms"][0].as_str().expect("an alarm");
    assert!(alarm.contains(head["hash"].as_str().expect("a hash")), "{alarm}");
    assert!(stage.daemon().metric("keyfence_bindings_alarms") >= 1.0);
    assert!(stage.daemon().log().contains("the audit log was cut"));
    assert_eq!(status["not_ready"], json!([]), "what it filters by is whole");
    let (code, object) = verify(&[]);
    assert_eq!((code, &object["whole"]), (Some(6), &false.into()), "{object}");
    let now = status["bindings"]["audit"]["hash"].as_str().expect("a hash");
    assert_eq!(verify(&["--head", now]).0, Some(0));
    assert_eq!(
        verify(&["--head", head["hash"].as_str().expect("a hash")]).0,
        Some(6)
    );
}
