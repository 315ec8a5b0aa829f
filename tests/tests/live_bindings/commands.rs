//! The commands about bindings and denies, each against the daemon that runs.

use std::net::IpAddr;

use keyfence_tests::harness::{STRANGER, keyfence, output, run};
use serde_json::Value;

use super::stage::Stage;

const STRANGER4: IpAddr = IpAddr::V4(STRANGER.v4);

fn command(stage: &Stage, words: &str) -> String {
    run(keyfence()
        .args(words.split(' '))
        .arg("--socket")
        .arg(stage.site.socket()))
}

#[test]
fn commands_bind_list_explain_deny_and_revoke() {
    let mut stage = Stage::new();
    let told = command(&stage, "bind key-1 --source 10.77.0.66 --service api --lease 10m");
    assert!(told.starts_with("key-1 of gateway is active until "), "{told}");
    assert!(stage.passes(STRANGER4));
    let told = command(&stage, "bindings --json --source 10.77.0.66");
    let binding: Value = serde_json::from_str(&told).expect("a line of JSON");
    assert_eq!(binding["credential"], "key-1", "{told}");
    let told = command(&stage, "why 10.77.0.66");
    assert!(
        told.contains("10.77.0.66 is listed by binding/gateway/key-1."),
        "{told}"
    );
    let told = command(&stage, "why 10.77.0.66 --json");
    let why: Value = serde_json::from_str(&told).expect("JSON");
    assert_eq!(why["grants"][0]["packets"], 1, "{why}");
    assert!(why["grants"][0]["last_seen"].is_string(), "{why}");
    let told = command(&stage, "deny 10.77.0.66 --for 10m --reason OPS-12");
    assert!(
        told.starts_with("10.77.0.66/32 is denied as cli-10.77.0.66 until "),
        "{told}"
    );
    assert!(!stage.passes(STRANGER4));
    let told = command(&stage, "why 10.77.0.66");
    assert!(told.contains("is denied by `cli-10.77.0.66`"), "{told}");
    let told = command(&stage, "undeny 10.77.0.66");
    assert_eq!(told, "cli-10.77.0.66 denies no more\n");
    assert!(stage.passes(STRANGER4));
    let told = command(&stage, "unbind key-1");
    assert!(told.starts_with("revoked, revision "), "{told}");
    assert!(!stage.passes(STRANGER4));
    assert_eq!(command(&stage, "unbind key-1"), "there was no such binding\n");
    let told = command(&stage, "why 10.77.0.66");
    assert!(told.contains("is listed nowhere"), "{told}");
}

#[test]
fn commands_say_that_the_daemon_is_not_reachable() {
    let mut stage = Stage::new();
    stage.kill();
    for words in ["bindings", "unbind key-1", "why 10.77.0.66", "undeny 10.77.0.66"] {
        let mut command = keyfence();
        command
            .args(words.split(' '))
            .arg("--socket")
            .arg(stage.site.socket());
        assert_eq!(output(&mut command).status.code(), Some(5), "{words}");
    }
}
