//! A store that cannot be read, while the kernel holds what it held: that stays in force until an operator lets go of it.

use std::fs;
use std::net::IpAddr;

use keyfence_tests::harness::{Daemon, GREEDY, keyfence, output};
use serde_json::{Value, json};

use super::stage::{STRANGER4, Stage, binding};

const GREEDY4: IpAddr = IpAddr::V4(GREEDY.v4);

/// As a crash and a bad disk leave it.
fn lose(stage: &mut Stage) {
    stage.kill();
    let path = stage.site.state().join("bindings.redb");
    let length = fs::metadata(&path).expect("the store is there").len();
    fs::write(&path, vec![0x5a; length as usize]).expect("the store can be written");
}

fn start_unready(stage: &mut Stage) {
    stage.daemon = Some(Daemon::start_unready(&stage.site));
    let ready = stage.daemon().get("/readyz").expect("the daemon answers");
    assert_eq!(ready.status, 503, "{}", ready.body);
    assert!(ready.body.contains("could not be read"), "{}", ready.body);
}

/// What the kernel's table of clients and bindings holds, as the status has it.
fn owners_max(stage: &Stage) -> u64 {
    let status = stage.daemon().status();
    let tables = status["tables"].as_array().into_iter().flatten();
    let owners = tables.filter(|table| table["table"] == "OWNER_STATE");
    owners.filter_map(|table| table["capacity"].as_u64()).sum()
}

/// The bound address passes, and nobody else does.
fn assert_in_force(stage: &mut Stage, generation: u64) {
    assert_eq!(stage.passing(&[STRANGER4, GREEDY4], 9000), [true, false]);
    assert_eq!(stage.daemon().generation(), generation);
}

#[test]
fn kernel_keeps_what_a_store_held_that_cannot_be_read_until_a_reload() {
    let mut stage = Stage::new();
    stage.bind("key-1", &["10.77.0.66"]);
    let generation = stage.daemon().generation();
    lose(&mut stage);
    // Not even a start more lets go of it.
    for _ in 0..2 {
        start_unready(&mut stage);
        assert_in_force(&mut stage, generation);
        let status = stage.daemon().status().to_string();
        assert!(status.contains("keyfence reload"), "{status}");
        assert!(owners_max(&stage) > 1000, "{status}");
        let why = stage.done("GET", "/v1/why?address=10.77.0.66", &Value::Null);
        assert!(
            why["caution"]
                .as_str()
                .unwrap_or_default()
                .contains("could not be read"),
            "{why:#}"
        );
        let packet = "/v1/explain?from=10.77.0.66:4000&to=10.77.0.1:443/tcp";
        let explained = stage.ask("GET", packet, &Value::Null);
        assert_eq!(explained.status, 503, "{}", explained.body);
        assert!(explained.body.contains("\"unavailable\""), "{}", explained.body);
        let listed = output(
            keyfence()
                .arg("bindings")
                .arg("--socket")
                .arg(stage.site.socket()),
        );
        let said = String::from_utf8_lossy(&listed.stderr).into_owned();
        assert!(said.contains("could not be read"), "{said}");
        let sync = "{\"op\": \"end\", \"count\": 0}\n";
        for answer in [
            stage.ask("PUT", "/v1/bindings/key-2", &binding(&["10.77.0.99"])),
            stage.ask("DELETE", "/v1/bindings/key-1", &Value::Null),
            stage.ask("PUT", "/v1/denies/abuse", &json!({"sources": ["10.77.0.66"]})),
            stage
                .daemon()
                .ask_lines("PUT", "/v1/bindings", sync)
                .expect("it answers"),
        ] {
            assert_eq!(answer.status, 503, "{}", answer.body);
            assert!(answer.body.contains("keyfence reload"), "{}", answer.body);
        }
        assert_in_force(&mut stage, generation);
        stage.kill();
    }
    start_unready(&mut stage);
    let reloaded = stage.done("POST", "/v1/reload", &Value::Null).to_string();
    assert!(!reloaded.contains("table of owners"), "{reloaded}");
    assert_eq!(stage.passing(&[STRANGER4, GREEDY4], 9000), [false, false]);
    let why = stage.done("GET", "/v1/why?address=10.77.0.66", &Value::Null);
    assert_eq!(why["caution"], Value::Null, "{why:#}");
    stage.bind("key-1", &["10.77.0.66"]);
    assert!(stage.passes(STRANGER4));
    stage.kill();
    stage.start_again();
    assert!(stage.passes(STRANGER4));
}

/// As when its volume is not mounted yet: the whole state, or the store alone.
#[test]
fn kernel_keeps_what_a_store_held_that_is_not_there() {
    for whole in [true, false] {
        let mut stage = Stage::new();
        stage.bind("key-1", &["10.77.0.66"]);
        let generation = stage.daemon().generation();
        stage.kill();
        let (state, away) = (stage.site.state(), stage.site.folder().join("away"));
        let there = match whole {
            true => state,
            false => state.join("bindings.redb"),
        };
        fs::rename(&there, &away).expect("it is there");
        for _ in 0..2 {
            stage.daemon = Some(Daemon::start_unready(&stage.site));
            let ready = stage.daemon().get("/readyz").expect("the daemon answers");
            assert!(
                ready.status == 503 && ready.body.contains("the store of bindings is not there"),
                "{}",
                ready.body
            );
            assert_in_force(&mut stage, generation);
            stage.kill();
        }
        // It is mounted.
        match whole {
            true => fs::remove_dir_all(&there),
            false => fs::remove_file(&there),
        }
        .expect("another was made");
        fs::rename(&away, &there).expect("it is there");
        stage.start_again();
        assert_eq!(stage.passing(&[STRANGER4, GREEDY4], 9000), [true, false]);
        stage.kill();
        fs::rename(&there, &away).expect("it is there");
        stage.daemon = Some(Daemon::start_unready(&stage.site));
        stage.daemon().reload();
        assert_eq!(stage.passing(&[STRANGER4, GREEDY4], 9000), [false, false]);
        stage.bind("key-1", &["10.77.0.66"]);
        stage.kill();
        stage.start_again();
        assert!(stage.passes(STRANGER4));
    }
}

/// As by hand, or with an older state of its volume: whom it lets in may have been revoked since.
#[test]
fn store_that_was_put_back_changes_nothing_in_the_kernel_and_lets_nobody_in_until_publishers_sync() {
    for keeps_filter in [true, false] {
        let mut stage = Stage::new();
        stage.bind("revoked", &["10.77.0.66"]);
        stage.kill();
        let path = stage.site.state().join("bindings.redb");
        let older = fs::read(&path).expect("the store is there");
        stage.start_again();
        stage.unbind("revoked");
        let before = stage.done("GET", "/v1/bindings", &Value::Null);
        stage.kill();
        stage.daemon = None;
        fs::write(&path, &older).expect("the store can be written");
        if !keeps_filter {
            let mut detach = keyfence();
            detach
                .args(["detach", "--yes", "--policy"])
                .arg(stage.site.policy_file());
            let detached = output(detach.arg("--bpf-fs").arg(stage.site.bpf.path()));
            assert!(detached.status.success(), "{detached:?}");
        }
        // Where the kernel keeps what it has, not even a start more lets go of it.
        for _ in 0..1 + u32::from(keeps_filter) {
            if stage.daemon.is_some() {
                stage.kill();
            }
            stage.daemon = Some(Daemon::start_unready(&stage.site));
            let ready = stage.daemon().get("/readyz").expect("the daemon answers");
            assert!(
                ready.status == 503 && ready.body.contains("older than the audit log"),
                "{}",
                ready.body
            );
            assert_eq!(stage.passing(&[STRANGER4, GREEDY4], 9000), [false, false]);
        }
        stage.done("POST", "/v1/reload", &Value::Null);
        assert_eq!(stage.state("revoked"), "suspended");
        assert!(!stage.passes(STRANGER4));
        let after = stage.done("GET", "/v1/bindings", &Value::Null);
        assert_ne!(after["store"], before["store"], "{after:#}");
        let lines = json!({"credential": "listed", "sources": ["10.77.0.66"], "services": ["api"],
            "lease_seconds": 600});
        let lines = format!("{lines}\n{}\n", json!({"op": "end", "count": 1}));
        let synced = stage
            .daemon()
            .ask_lines("PUT", "/v1/bindings?revoke_max=1", &lines);
        let synced = synced.expect("the daemon answers");
        assert_eq!(synced.status, 200, "{}", synced.body);
        assert!(stage.passes(STRANGER4));
        stage.kill();
        stage.start_again();
        assert!(stage.passes(STRANGER4));
    }
}

#[test]
fn backup_is_put_in_force_with_a_reload_where_the_store_could_not_be_read() {
    let mut stage = Stage::new();
    stage.bind("key-1", &["10.77.0.66"]);
    let generation = stage.daemon().generation();
    let path = stage.site.folder().join("backup");
    stage.done("POST", "/v1/backup", &json!({"path": path}));
    lose(&mut stage);
    start_unready(&mut stage);
    let restored = stage.ask("POST", "/v1/restore", &json!({"path": path, "trust": true}));
    assert_eq!(restored.status, 200, "{}", restored.body);
    assert!(restored.body.contains("\"in_force\":false"), "{}", restored.body);
    let again = output(
        keyfence()
            .args(["restore", "--trust"])
            .arg(&path)
            .arg("--socket")
            .arg(stage.site.socket()),
    );
    let said = String::from_utf8_lossy(&again.stderr).into_owned();
    assert_eq!(again.status.code(), Some(6), "{said}");
    assert!(said.contains("now `keyfence reload`"), "{said}");
    assert_in_force(&mut stage, generation);
    stage.daemon().reload();
    assert_in_force(&mut stage, generation + 1);
    stage.unbind("key-1");
    assert!(!stage.passes(STRANGER4));
    stage.kill();
    stage.start_again();
    assert!(!stage.passes(STRANGER4));
}
