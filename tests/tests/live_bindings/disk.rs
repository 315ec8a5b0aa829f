//! A disk that is full: what grows is refused with the code that says which, and what shrinks is taken.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use keyfence_tests::harness::{Answer, Daemon, Site};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::Value;

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

/// A file system of a few pages.
struct Tiny(PathBuf);

impl Tiny {
    fn mount(path: PathBuf, size: &str) -> Self {
        fs::create_dir_all(&path).expect("a temporary folder can hold another");
        let options = format!("size={size}");
        mount(
            Some("tmpfs"),
            &path,
            Some("tmpfs"),
            MsFlags::empty(),
            Some(options.as_str()),
        )
        .unwrap_or_else(|error| panic!("{} cannot be mounted: {error}", path.display()));
        Self(path)
    }
}

impl Drop for Tiny {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

#[test]
fn audit_log_without_space_refuses_what_it_cannot_tell_of() {
    let site = Site::new();
    // One page: the start's own line fits, and a few of bindings.
    let tiny = Tiny::mount(site.folder().join("tiny"), "4096");
    fs::create_dir_all(site.state()).expect("a temporary folder can hold another");
    fs::write(tiny.0.join("audit.jsonl"), "").expect("there is a page");
    symlink(tiny.0.join("audit.jsonl"), site.state().join("audit.jsonl")).expect("a link can be made");
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
