//! `keyfence check` as an operator runs it: what a policy expects of itself, and what this build does not enforce.

use std::fmt::Write as _;
use std::process::Command;

use keyfence_tests::command::run;
use keyfence_tests::harness::{output, static_path};
use serde_json::json;
use tempfile::TempDir;

const POLICY: &str = r#"version = 1
[filter]
interfaces = ["eth0"]
management-none = true
[[service]]
name = "payments"
protocol = "tcp"
ports = [443]
"#;

fn folder(more: &str) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder can be made");
    std::fs::write(folder.path().join("policy.toml"), format!("{POLICY}{more}"))
        .expect("the folder can be written");
    folder
}

/// The C library would load the modules of /etc/nsswitch.conf for a name that no file has, and they crash in it.
#[test]
fn program_without_shared_libraries_looks_up_names_that_no_file_has() {
    let folder = folder(
        "[[publisher]]\nname = \"gateway\"\nuser = \"no-such-user\"\nservices = [\"payments\"]\nenvironments = [\"production\"]\n\
         [[listener]]\naddress = \"unix:/run/none.sock\"\ngroup = \"no-such-group\"\nroles = [\"publish\"]\n",
    );
    let mut check = Command::new(static_path());
    let ended = output(check.arg("check").arg(folder.path().join("policy.toml")));
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    let told = String::from_utf8_lossy(&ended.stderr);
    assert!(told.contains("no-such-group"), "{told}");
}

#[test]
fn an_expect_that_holds_is_counted_and_one_that_differs_is_an_error() {
    let expect = |verdict: &str| {
        format!(
            "[[expect]]\nfrom = \"192.0.2.3:1\"\nto = \"203.0.113.10:443/tcp\"\nverdict = \"{verdict}\"\n"
        )
    };
    let good = folder(&expect("drop"));
    let ended = run(good.path(), &["check", "policy.toml"]);
    assert_eq!(ended.exit, 0, "{ended:?}");
    assert!(ended.output.contains("1 of 1 expect holds"), "{}", ended.output);
    assert!(ended.output.contains("by the kernel program"), "{}", ended.output);
    let bad = folder(&expect("pass"));
    let ended = run(bad.path(), &["check", "policy.toml"]);
    assert_eq!(ended.exit, 3, "{ended:?}");
    assert!(ended.errors.contains("policy.toml:9"), "{}", ended.errors);
    let ended = run(bad.path(), &["check", "policy.toml", "--json"]);
    assert_eq!(ended.exit, 3);
    let object = ended.object();
    assert_eq!(object["valid"], false);
    assert_eq!(object["errors"][0]["line"], 9);
    let expected = json!({ "file": "policy.toml", "line": 9, "packet": "192.0.2.3:1 to 203.0.113.10:443/tcp",
        "expected": { "verdict": "pass", "reason": null },
        "reference": { "verdict": "drop", "reason": "unlisted" },
        "kernel": { "verdict": "drop", "reason": "unlisted" }, "holds": false });
    assert_eq!(object["expects"], json!([expected]));
}

/// What this build does not enforce is a warning of check, once, in either form.
#[test]
fn what_is_not_enforced_is_told_once() {
    let folder = folder("");
    let text = format!(
        "{POLICY}[[listener]]\naddress = \"tcp:192.0.2.1:9\"\nroles = [\"read\"]\n\
         tls = {{ certificate = \"/a\", key = \"/b\", client-ca = \"/c\" }}\n"
    );
    std::fs::write(folder.path().join("policy.toml"), text).unwrap();
    let ended = run(folder.path(), &["check", "policy.toml"]);
    assert_eq!(ended.exit, 0, "{ended:?}");
    let object = run(folder.path(), &["check", "policy.toml", "--json"]).object();
    let warnings = object["warnings"].as_array().unwrap();
    let told = warnings
        .iter()
        .filter(|warning| warning["code"] == "not-enforced")
        .count();
    assert_eq!((told, &object["warnings_not_shown"]), (1, &json!(0)), "{object}");
}

#[test]
fn a_file_that_cannot_be_read_is_no_verdict_on_a_policy_by_any_command() {
    let folder = folder("");
    for arguments in [
        &["check", "none.toml"][..],
        &["run", "--policy", "none.toml"],
        &["replay", "--policy", "none.toml", "none.pcap"],
        &[
            "explain",
            "--policy",
            "none.toml",
            "--from",
            "192.0.2.1:1",
            "--to",
            "192.0.2.2:1/tcp",
        ],
    ] {
        let ended = run(folder.path(), arguments);
        assert_eq!(ended.exit, 1, "{arguments:?}: {ended:?}");
        let said = &ended.errors;
        assert!(
            said.contains("none.toml` cannot be read"),
            "{arguments:?}: {said}"
        );
        assert!(
            !said.contains(":1:1") && !said.contains("invalid"),
            "{arguments:?}: {said}"
        );
    }
    let object = run(folder.path(), &["check", "none.toml", "--json"]).object();
    assert_eq!((&object["hash"], &object["valid"]), (&json!(null), &json!(false)));
    assert_eq!(
        (&object["errors"][0]["line"], &object["errors"][0]["column"]),
        (&json!(null), &json!(null))
    );
}

/// Without faults of its own, and yet more than the tables hold.
#[test]
fn a_policy_that_has_no_tables_is_invalid_where_it_is_too_much_by_any_command() {
    let mut clients = String::new();
    for number in 1..=257 {
        let _ = write!(
            clients,
            "[[client]]\nname = \"c{number}\"\nsources = [\"10.0.0.0/8\"]\nservices = [\"payments\"]\n"
        );
    }
    let many = folder(&clients);
    let ended = run(many.path(), &["check", "policy.toml"]);
    assert_eq!(ended.exit, 3, "{ended:?}");
    // The last one's header.
    let place = format!(
        "policy.toml:{}:1: 10.0.0.0/8 would be granted by 257 owners",
        9 + 256 * 4
    );
    assert!(ended.errors.contains(&place), "{}", ended.errors);
    let object = run(many.path(), &["check", "policy.toml", "--json"]).object();
    assert_eq!(
        (&object["valid"], &object["errors"][0]["code"]),
        (&json!(false), &json!("no-tables"))
    );
    for arguments in [
        &["replay", "--policy", "policy.toml", "none.pcap"][..],
        &[
            "explain",
            "--policy",
            "policy.toml",
            "--from",
            "10.0.0.1:1",
            "--to",
            "192.0.2.2:443/tcp",
        ],
    ] {
        let ended = run(many.path(), arguments);
        assert_eq!(ended.exit, 3, "{arguments:?}: {ended:?}");
        assert!(ended.errors.contains("257 owners"), "{}", ended.errors);
    }
    let fits = folder(&clients.replace("c257\"\nsources = [\"10.", "c257\"\nsources = [\"11."));
    let ended = run(fits.path(), &["check", "policy.toml"]);
    assert_eq!(ended.exit, 0, "{ended:?}");
}
