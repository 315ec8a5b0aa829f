//! A disk that is full: what grows is refused with the code that says which, and what shrinks is taken.

use std::fs;
use std::os::unix::fs::symlink;

use keyfence_tests::harness::{Answer, Daemon, Site, Tiny, keyfence, output, until};
use serde_json::{Value, json};

use super::stage::{binding, policy};

trait Refused {
    fn is_problem(&self, status: u16, code: &str);
}

impl Refused for Answer {
    fn is_problem(&self, status: u16, code: &str) {
        let problem: Value = serde_json::from_str(&self.body).expect("a problem is JSON");
        assert_eq!(
            (self.status, &problem["code"]),
            (status, &code.into()),
            "{problem}"
        );
    }
}

#[test]
fn audit_log_without_space_refuses_what_it_cannot_tell_of() {
    let site = Site::new();
    // One page: the start's own line fits, and a few of bindings.
    let tiny = Tiny::mount(site.folder().join("tiny"), "4096");
    fs::create_dir_all(site.state()).expect("a temporary folder can hold another");
    fs::write(tiny.path().join("audit.jsonl"), "").expect("there is a page");
    symlink(tiny.path().join("audit.jsonl"), site.state().join("audit.jsonl")).expect("a link can be made");
    let daemon = Daemon::start(&site, &policy());
    let body = binding(&["10.77.0.66"]);
    let put = |at: usize| {
        let path = format!("/v1/bindings/key-{at}");
        daemon.ask("PUT", &path, &body).expect("the daemon answers")
    };
    let refused = (0..100).find_map(|at| Some((at, put(at))).filter(|(_, answer)| answer.status != 201));
    let (at, refused) = refused.expect("a page holds no hundred lines");
    refused.is_problem(507, "audit-full");
    // Nothing of it was done.
    let shown = daemon.ask("GET", &format!("/v1/bindings/key-{at}"), &Value::Null);
    assert_eq!(shown.expect("the daemon answers").status, 404);
    assert!(daemon.metric("keyfence_store_errors_total") >= 1.0);
    assert!(daemon.metric("keyfence_bindings_alarms") >= 1.0);
    daemon.kill();
}

const MIB: u64 = 1 << 20;

/// A small disk, and a larger one on which hardly more is free than is kept back.
#[test]
fn full_disk_takes_deletes_and_renewals_alone_and_the_daemon_says_why_it_is_not_ready() {
    for (size, free) in [("40m", None), ("160m", Some(72 * MIB))] {
        let site = Site::new();
        let tiny = Tiny::mount(site.state(), size);
        let before = free.map(|free| tiny.fill_but(free));
        let daemon = Daemon::start(&site, &policy());
        let ask = |method: &str, key: &str, body: &Value| {
            let path = format!("/v1/bindings/{key}");
            daemon.ask(method, &path, body).expect("the daemon answers")
        };
        let ready = || daemon.get("/readyz").expect("the daemon answers");
        let body = binding(&["10.77.0.66"]);
        for key in ["key-1", "key-2"] {
            assert_eq!(ask("PUT", key, &body).status, 201, "{size}");
        }
        assert_eq!(ready().status, 200, "{size}: {}", ready().body);
        if let Some(before) = before {
            fs::rename(before, tiny.path().join("before")).expect("a file can be renamed");
        }
        let filler = tiny.fill_but(0);
        // What the store's file has free inside is used up first.
        let refused = (0..20_000).find_map(|at| {
            let answer = ask("PUT", &format!("more-{at}"), &body);
            (answer.status != 201).then_some(answer)
        });
        let refused = refused.expect("a full disk takes no more");
        let problem: Value = serde_json::from_str(&refused.body).expect("a problem is JSON");
        let code = problem["code"].as_str().expect("a code");
        assert_eq!(refused.status, 507, "{size}: {problem}");
        assert!(["store-full", "audit-full"].contains(&code), "{size}: {problem}");
        let why = until("it is not ready", || {
            let answer = ready();
            (answer.status == 503).then_some(answer.body)
        });
        assert!(why.contains("too little space"), "{size}: {why}");
        let status = daemon.status();
        assert_eq!(status["not_ready"], json!([why.trim_end()]), "{size}");
        let shown = output(keyfence().arg("status").arg("--socket").arg(site.socket()));
        assert_eq!(shown.status.code(), Some(6), "{size}");
        let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
        assert_eq!(shown.matches("too little space").count(), 1, "{size}: {shown}");
        let renewal = json!({"sources": ["10.77.0.66"], "services": ["api"], "lease_seconds": 7200});
        assert_eq!(ask("PUT", "key-1", &renewal).status, 200, "{size}: a renewal");
        assert_eq!(ask("DELETE", "key-2", &Value::Null).status, 200, "{size}");
        fs::remove_file(filler).expect("it is there");
        until("it is ready again", || (ready().status == 200).then_some(()));
        assert_eq!(ask("PUT", "key-3", &body).status, 201, "{size}");
        assert_eq!(daemon.status()["not_ready"], json!([]), "{size}");
        daemon.kill();
    }
}

/// After a crash, and with a store that has room for nothing more.
#[test]
fn daemon_starts_on_a_full_disk_by_what_was_kept_back() {
    let site = Site::new();
    let tiny = Tiny::mount(site.state(), "80m");
    let daemon = Daemon::start(&site, &policy());
    let put = daemon.ask("PUT", "/v1/bindings/key-1", &binding(&["10.77.0.66"]));
    assert_eq!(put.expect("the daemon answers").status, 201);
    daemon.kill();
    let filler = tiny.fill_but(0);
    let daemon = Daemon::start_unready(&site);
    let delete = daemon.ask("DELETE", "/v1/bindings/key-1", &Value::Null);
    assert_eq!(delete.expect("the daemon answers").status, 200);
    let ready = daemon.get("/readyz").expect("the daemon answers");
    assert!(
        ready.status == 503 && ready.body.contains("too little space"),
        "{}",
        ready.body
    );
    daemon.kill();
    // Nothing is kept back any more.
    fs::remove_file(filler).expect("it is there");
    fs::write(site.state().join("reserve"), "").expect("it can be emptied");
    fs::remove_file(site.state().join("bindings.redb")).expect("it is there");
    tiny.fill_but(0);
    let ended = Daemon::refused(&site, &mut Daemon::command(&site));
    assert_eq!(ended.code, Some(1), "{}", ended.log);
    for part in ["make room there", "stays in force (instance main)"] {
        assert!(ended.log.contains(part), "{}", ended.log);
    }
}

/// Something else stands where the log should be.
#[test]
fn drop_log_that_cannot_be_read_is_told_of() {
    let site = Site::new();
    let log = site.drops();
    let daemon = Daemon::start(&site, &policy());
    let ask = || {
        daemon
            .ask("GET", "/v1/drops", &Value::Null)
            .expect("the daemon answers")
    };
    assert_eq!(ask().status, 200);
    if log.exists() {
        fs::rename(&log, log.with_extension("moved")).expect("a file can be renamed");
    }
    fs::create_dir(&log).expect("its place is free");
    ask().is_problem(500, "records-unreadable");
}
