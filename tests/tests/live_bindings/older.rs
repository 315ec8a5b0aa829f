//! A state folder that is older than the filter in the kernel, or another's: nothing in it tells so, and the filter does.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use keyfence_tests::harness::{Daemon, GREEDY, Site, run, system};
use serde_json::{Value, json};

use super::stage::{STRANGER4, Stage, binding, policy};

const GREEDY4: IpAddr = IpAddr::V4(GREEDY.v4);

/// Starts a daemon that must say this, and keep what the kernel holds: `bound` passes, and the other does not.
fn assert_kept(stage: &mut Stage, words: &str, generation: u64) {
    stage.daemon = Some(Daemon::start_unready(&stage.site));
    let ready = stage.daemon().get("/readyz").expect("the daemon answers");
    assert!(
        ready.status == 503 && ready.body.contains(words),
        "{}",
        ready.body
    );
    assert!(ready.body.contains("`keyfence reload`"), "{}", ready.body);
    assert_eq!(stage.passing(&[STRANGER4, GREEDY4], 9000), [false, true]);
    assert_eq!(stage.daemon().generation(), generation);
    let put = stage.ask("PUT", "/v1/bindings/revoked", &binding(&["10.77.0.66"]));
    assert_eq!(put.status, 503, "{}", put.body);
}

/// What ends the alarm: nothing passes before it is said anew.
fn answer(stage: &mut Stage) {
    stage.done("POST", "/v1/reload", &Value::Null);
    assert_eq!(stage.passing(&[STRANGER4, GREEDY4], 9000), [false, false]);
    let line =
        json!({"credential": "bound", "sources": ["10.77.0.3"], "services": ["api"], "lease_seconds": 600});
    let lines = format!("{line}\n{}\n", json!({"op": "end", "count": 1}));
    let synced = stage
        .daemon()
        .ask_lines("PUT", "/v1/bindings?revoke_max=1", &lines);
    let synced = synced.expect("the daemon answers");
    assert_eq!(synced.status, 200, "{}", synced.body);
    assert_eq!(stage.passing(&[STRANGER4, GREEDY4], 9000), [false, true]);
}

fn revision(stage: &Stage) -> u64 {
    let listed = stage.done("GET", "/v1/bindings", &Value::Null);
    listed["revision"].as_u64().expect("a number")
}

/// With a copy of its state aside that is older, in which somebody is bound who was revoked since.
fn stage_with_an_older_copy() -> (Stage, PathBuf) {
    let mut stage = Stage::new();
    stage.bind("revoked", &["10.77.0.66"]);
    stage.kill();
    let older = stage.site.copy_of_state("older");
    stage.start_again();
    stage.unbind("revoked");
    stage.bind("bound", &["10.77.0.3"]);
    assert_eq!(stage.passing(&[STRANGER4, GREEDY4], 9000), [false, true]);
    stage.site.has_told(revision(&stage), 1);
    (stage, older)
}

#[test]
fn older_store_over_a_full_kernel_changes_nothing_though_its_log_tells_nothing() {
    for whole in [false, true] {
        let (mut stage, older) = stage_with_an_older_copy();
        let (generation, known) = (stage.daemon().generation(), stage.site.told());
        stage.kill();
        let right = stage.site.copy_of_state("right");
        let put_back = |site: &Site| match whole {
            true => site.put_back(&older),
            false => {
                let store = "bindings.redb";
                fs::copy(older.join(store), site.state().join(store)).expect("it can be copied");
                fs::remove_file(site.state().join("audit.jsonl")).expect("it is there");
            }
        };
        put_back(&stage.site);
        // No start more lets go of it, nor does one tell the kernel of what it has found.
        for _ in 0..3 {
            assert_kept(&mut stage, "older than the filter in the kernel", generation);
            assert_eq!(stage.site.told(), known);
            stage.kill();
        }
        // The right one is all that it takes.
        stage.site.put_back(&right);
        stage.start_again();
        assert_eq!(stage.passing(&[STRANGER4, GREEDY4], 9000), [false, true]);
        let generation = stage.daemon().generation();
        stage.kill();

        put_back(&stage.site);
        assert_kept(&mut stage, "older than the filter in the kernel", generation);
        answer(&mut stage);
        assert_eq!(stage.state("bound"), "active");
        stage.site.has_told(revision(&stage), 1);
        stage.kill();
        stage.start_again();
        assert_eq!(stage.passing(&[STRANGER4, GREEDY4], 9000), [false, true]);
        let generation = stage.daemon().generation();
        stage.kill();
        // It is another one since.
        put_back(&stage.site);
        assert_kept(
            &mut stage,
            "is not the one that the filter in the kernel was made with",
            generation,
        );
    }
}

#[test]
fn state_folder_of_another_instance_changes_nothing_in_the_kernel() {
    let mut other = Stage::new();
    other.bind("revoked", &["10.77.0.66"]);
    other.kill();
    let mut stage = Stage::new();
    stage.bind("bound", &["10.77.0.3"]);
    stage.site.has_told(1, 1);
    let generation = stage.daemon().generation();
    stage.kill();
    stage.site.put_back(&other.site.state());
    for _ in 0..2 {
        assert_kept(
            &mut stage,
            "is not the one that the filter in the kernel was made with",
            generation,
        );
        stage.kill();
    }
    stage.daemon = Some(Daemon::start_unready(&stage.site));
    answer(&mut stage);
    stage.kill();
    stage.start_again();
}

/// The kernel is told behind each of them, or was not yet.
#[test]
fn kill_behind_a_change_a_restore_and_a_reload_raises_no_alarm() {
    let mut stage = Stage::new();
    let backup = stage.site.folder().join("backup");
    for round in 0..5 {
        stage.bind(&format!("key-{round}"), &["10.77.0.66"]);
        stage.kill();
        stage.start_again();
        assert!(stage.passes(STRANGER4), "round {round}");
        let _ = fs::remove_file(&backup);
        stage.done("POST", "/v1/backup", &json!({"path": backup}));
        for _ in 0..2 {
            stage.done("POST", "/v1/restore", &json!({"path": backup, "trust": true}));
        }
        stage.kill();
        stage.start_again();
        assert!(stage.passes(STRANGER4), "round {round}");
        let entry = format!("[[deny]]\nname = \"d\"\nsources = [\"192.0.2.{round}\"]\n");
        stage.site.write(&policy().and(&entry));
        stage.done("POST", "/v1/reload", &Value::Null);
        stage.kill();
        stage.start_again();
        assert!(stage.passes(STRANGER4), "round {round}");
    }
}

fn write_garbage(map: &Path) {
    let mut update = system("bpftool");
    update.args(["map", "update", "pinned"]).arg(map);
    let value = vec!["0x5a"; 128];
    run(update.args(["key", "0", "0", "0", "0", "value"]).args(value));
}

#[test]
fn filter_that_tells_nothing_or_nonsense_ends_no_start_and_is_told_anew() {
    let (mut stage, older) = stage_with_an_older_copy();
    stage.kill();
    for what in ["nonsense", "another map", "nothing"] {
        let witness = stage.site.witness();
        let words = match what {
            "nonsense" => {
                write_garbage(&witness);
                Some("no Keyfence wrote it")
            }
            "another map" => {
                fs::remove_file(&witness).expect("it is pinned");
                let map = stage.site.pins("main").join("maps/GENERATION");
                let mut pin = system("bpftool");
                run(pin.args(["map", "pin", "pinned"]).arg(map).arg(&witness));
                Some("cannot be read")
            }
            _ => {
                fs::remove_file(&witness).expect("it is pinned");
                None
            }
        };
        let before = fs::read_to_string(stage.site.folder().join("daemon.log")).unwrap_or_default();
        stage.start_again();
        let log = stage.daemon().log();
        let log = &log[before.len()..];
        let warned = log.contains("what the filter was told of its state folder cannot be read");
        assert_eq!(warned, words.is_some(), "{what}: {log}");
        assert!(words.is_none_or(|words| log.contains(words)), "{what}: {log}");
        assert_eq!(
            stage.passing(&[STRANGER4, GREEDY4], 9000),
            [false, true],
            "{what}"
        );
        stage.site.has_told(revision(&stage), 1);
        stage.kill();
    }
    // Told anew, it is as good as the first.
    let right = stage.site.copy_of_state("right");
    stage.site.put_back(&older);
    stage.daemon = Some(Daemon::start_unready(&stage.site));
    let ready = stage.daemon().get("/readyz").expect("the daemon answers");
    assert!(
        ready.body.contains("older than the filter in the kernel"),
        "{}",
        ready.body
    );
    stage.kill();
    stage.site.put_back(&right);
    stage.start_again();
}
