//! The commands about bindings and denies, each against the daemon that runs.

use std::net::IpAddr;
use std::process::Stdio;

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
    assert!(
        told.contains("is denied by `cli-10.77.0.66` (operator/root, until "),
        "{told}"
    );
    assert!(told.contains(": OPS-12): its packets are dropped"), "{told}");
    let told = command(&stage, "deny --list");
    assert!(
        told.contains("cli-10.77.0.66") && told.contains("OPS-12"),
        "{told}"
    );
    let told: Value = serde_json::from_str(&command(&stage, "deny --list --json")).expect("JSON");
    assert_eq!(
        (&told["schema"], &told["items"][0]["owner"]),
        (&1.into(), &"operator/root".into())
    );
    assert!(command(&stage, "status").contains("1 deny of run time"));
    let told = command(&stage, "explain --from 10.77.0.66:40000 --to 10.77.0.1:7000/tcp");
    assert!(
        told.contains("by operator/root, until ") && told.contains("reason: OPS-12"),
        "{told}"
    );
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
fn deny_of_what_its_author_may_not_mean_is_to_be_confirmed() {
    let stage = Stage::new();
    let deny = |more: &[&str]| {
        let mut command = keyfence();
        command
            .args(["deny", "10.0.0.0/8", "--for", "1m", "--reason", "x"])
            .args(more);
        let output = output(
            command
                .arg("--socket")
                .arg(stage.site.socket())
                .stdin(Stdio::null()),
        );
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let (code, said) = deny(&[]);
    assert_eq!(code, Some(4), "{said}");
    assert!(
        said.contains("10.0.0.0/8 is a large part of all addresses") && said.contains("--yes"),
        "{said}"
    );
    assert!(command(&stage, "deny --list").starts_with("Nothing is denied"));
    assert_eq!(deny(&["--yes"]).0, Some(0));
    // A fault is told in the command's own words.
    let mut command = keyfence();
    command
        .args("bind key-1 --source 10.77.0.7/24 --service api --lease 1m --limit packets=1/x/2".split(' '));
    let output = output(command.arg("--socket").arg(stage.site.socket()));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("--source: ") && said.contains("--limit: ") && said.contains("100/m"),
        "{said}"
    );
}

#[test]
fn commands_say_that_the_daemon_is_not_reachable() {
    let mut stage = Stage::new();
    stage.kill();
    for words in [
        "bindings",
        "unbind key-1",
        "why 10.77.0.66",
        "undeny 10.77.0.66",
        "deny --list",
        "deny 10.77.0.66 --for 1m --reason x",
    ] {
        let mut command = keyfence();
        command
            .args(words.split(' '))
            .arg("--socket")
            .arg(stage.site.socket());
        assert_eq!(output(&mut command).status.code(), Some(5), "{words}");
    }
}
