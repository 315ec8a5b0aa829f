//! A policy that does not do what it expects is not put in force, and what was in force stays.

use keyfence_tests::harness::{Attach, Daemon, Policy, Site};

const ENTRIES: &str = r#"
[[service]]
name = "web"
protocol = "tcp"
ports = [443]
address = "host"
"#;

fn policy(expected: &str) -> Policy {
    let expect = format!(
        "[[expect]]\nfrom = \"198.51.100.9:1\"\nto = \"127.0.0.1:443/tcp\"\nverdict = \"{expected}\"\n"
    );
    Policy::new(Attach::Auto, ENTRIES).and(&expect)
}

#[test]
fn a_reload_that_does_not_do_what_it_expects_changes_nothing() {
    let site = Site::new();
    let daemon = Daemon::start(&site, &policy("drop"));
    let before = daemon.generation();
    site.write(&policy("pass"));
    daemon.reload_in_vain();
    assert_eq!(daemon.generation(), before);
    let error = daemon.status()["policy"]["last_error"].to_string();
    assert!(
        error.contains("198.51.100.9:1 to 127.0.0.1:443/tcp is expected to be pass"),
        "{error}"
    );
    assert!(error.contains("drop (unlisted)"), "{error}");
    site.write(&policy("drop"));
    daemon.reload();
    assert_eq!(daemon.status()["policy"]["reload_ok"], true);
}
