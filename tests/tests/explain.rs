//! `keyfence explain` and `[[expect]]` as an operator runs them, and the rules read aloud against the reference and the
//! kernel program on every vector.

use filter_user::judge::both::Both;
use keyfence_tests::command::{run, run_without_rights};
use keyfence_tests::oracle::vectors::{VectorFile, files};
use keyfence_tests::subject;
use serde_json::{Value, json};
use tempfile::TempDir;

const POLICY: &str = r#"version = 1
[filter]
interfaces = ["eth0"]
ping = "listed"
other-traffic = "drop"
[[service]]
name = "payments"
protocol = "tcp"
ports = [443]
address = "203.0.113.0/24"
[[client]]
name = "acme"
sources = ["198.51.100.0/24"]
sources-file = "acme.txt"
services = ["payments"]
limit = { packets = { rate = 1, burst = 1 } }
note = "OPS-12"
labels = { ticket = "OPS-12" }
[[client]]
name = "narrow"
sources = ["192.0.2.1"]
services = ["payments"]
source-ports = [1024]
limit = { bytes = { rate = 1, burst = 39 } }
[[client]]
name = "old"
sources = ["192.0.2.2"]
services = ["payments"]
expires = 2001-01-01T00:00:00Z
[[deny]]
name = "abuse"
sources = ["198.51.100.66"]
[[management]]
name = "ssh"
sources = ["192.0.2.9"]
protocol = "tcp"
ports = [22]
"#;

fn folder(more: &str) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder can be made");
    std::fs::write(folder.path().join("policy.toml"), format!("{POLICY}{more}"))
        .expect("the folder can be written");
    std::fs::write(
        folder.path().join("acme.txt"),
        "# theirs\n\n198.51.100.128/25\n2001:db8::/32\n",
    )
    .expect("the folder can be written");
    folder
}

fn explain(folder: &TempDir, arguments: &[&str]) -> Value {
    let words = ["explain", "--policy", "policy.toml", "--json"];
    let ended = run(folder.path(), &[&words, arguments].concat());
    assert_eq!(ended.exit, 0, "{ended:?}");
    let object = ended.object();
    assert_eq!((&object["schema"], &object["agree"]), (&json!(1), &json!(true)));
    assert_eq!(object["kernel"], object["reference"], "asked as root: {object}");
    object
}

/// From, to, verdict, reason, and the rule that decides.
const WAYS: [(&str, &str, &str, &str, &str); 12] = [
    (
        "198.51.100.7:40000",
        "203.0.113.10:443/tcp",
        "pass",
        "allowed",
        "3.10 limits",
    ),
    (
        "198.51.100.66:40000",
        "203.0.113.10:443/tcp",
        "drop",
        "denied",
        "3.5 deny",
    ),
    (
        "192.0.2.9:40000",
        "192.0.2.10:22/tcp",
        "pass",
        "management",
        "3.4 management",
    ),
    (
        "192.0.2.3:40000",
        "203.0.113.10:443/tcp",
        "drop",
        "unlisted",
        "3.9 grants",
    ),
    (
        "192.0.2.2:40000",
        "203.0.113.10:443/tcp",
        "drop",
        "ended",
        "3.9 grants",
    ),
    (
        "192.0.2.1:40000",
        "203.0.113.10:443/tcp",
        "drop",
        "source-port",
        "3.9 grants",
    ),
    (
        "192.0.2.1:1024",
        "203.0.113.10:443/tcp",
        "drop",
        "limit-grant",
        "3.10 limits",
    ),
    (
        "192.0.2.3:40000",
        "192.0.2.10:443/tcp",
        "pass",
        "other",
        "3.7 service",
    ),
    (
        "192.0.2.3:40000",
        "203.0.113.10:443/udp",
        "drop",
        "other",
        "3.7 service",
    ),
    ("192.0.2.3", "203.0.113.10/icmp", "drop", "icmp", "3.6 icmp"),
    (
        "[2001:db8::1]",
        "[2001:db8:1::1]:0/icmp",
        "pass",
        "icmp",
        "3.6 icmp",
    ),
    (
        "0.0.0.0:67",
        "255.255.255.255:68/udp",
        "pass",
        "essential",
        "3.3 essential",
    ),
];

#[test]
fn each_way_to_be_judged_is_explained() {
    let folder = folder("");
    for (from, to, verdict, reason, rule) in WAYS {
        let object = explain(&folder, &["--from", from, "--to", to]);
        assert_eq!(
            (&object["verdict"], &object["reason"]),
            (&json!(verdict), &json!(reason)),
            "{from} {to}"
        );
        let rules = object["rules"].as_array().unwrap();
        assert_eq!(rules.len(), 11);
        let answer = rules.iter().find(|step| step["rule"] == rule).unwrap();
        let decides = ["yes", "refused", "paid"]
            .map(Value::from)
            .contains(&answer["answer"]);
        assert!(decides, "{from} {to}: {answer}");
    }
}

#[test]
fn the_entry_that_matched_is_named_with_file_and_line() {
    let folder = folder("");
    let object = explain(
        &folder,
        &["--from", "198.51.100.200:1", "--to", "203.0.113.10:443/tcp"],
    );
    assert_eq!(object["from"], "198.51.100.200:1");
    assert_eq!(object["to"], "203.0.113.10:443/tcp");
    assert_eq!(object["owner"], "client/acme");
    let client = json!({ "name": "acme", "file": "policy.toml", "line": 11, "note": "OPS-12",
        "labels": { "ticket": "OPS-12" },
        "source": { "prefix": "198.51.100.128/25", "file": "acme.txt", "line": 3 } });
    assert_eq!(object["matched"]["client"], client);
    assert_eq!(object["matched"]["service"]["line"], 6);
    assert_eq!(object["matched"]["deny"], Value::Null);
    let denied = explain(
        &folder,
        &["--from", "198.51.100.66", "--to", "203.0.113.10:443/tcp"],
    );
    assert_eq!(denied["matched"]["deny"]["source"]["line"], 32);
    let page = run(
        folder.path(),
        &[
            "explain",
            "--policy",
            "policy.toml",
            "--from",
            "198.51.100.200:1",
            "--to",
            "203.0.113.10:443/tcp",
        ],
    );
    for part in [
        "acme.txt:3",
        "policy.toml:11",
        "OPS-12",
        "packets 1 of 1 (+1/s)",
        "kernel program  pass, reason allowed",
    ] {
        assert!(page.output.contains(part), "{part} is not in\n{}", page.output);
    }
}

#[test]
fn no_token_is_taken() {
    let folder = folder("");
    for _ in 0..3 {
        let object = explain(
            &folder,
            &["--from", "198.51.100.7:40000", "--to", "203.0.113.10:443/tcp"],
        );
        assert_eq!(object["reason"], "allowed");
    }
}

#[test]
fn frames_are_explained_as_they_are() {
    let folder = folder("");
    let arp = format!("ffffffffffff0200000000010806{}", "00".repeat(28));
    let object = explain(&folder, &["--frame", &arp]);
    assert_eq!(
        (&object["reason"], &object["from"]),
        (&json!("essential"), &Value::Null)
    );
    let cut = explain(
        &folder,
        &["--frame", "02 00 00 00 00 01 02:00:00:00:00:02 0800 45"],
    );
    assert_eq!(cut["reason"], "malformed");
    // Under 14 bytes the reference alone can be asked.
    let short = run(
        folder.path(),
        &["explain", "--policy", "policy.toml", "--json", "--frame", "0200"],
    );
    assert_eq!(short.exit, 0, "{short:?}");
    assert_eq!(short.object()["kernel"], Value::Null);
    assert!(
        short.object()["kernel_not_asked"]
            .as_str()
            .unwrap()
            .contains("14 bytes")
    );
    let other = explain(&folder, &["--frame", &arp, "--interface", "eth9"]);
    assert_eq!(
        (&other["interface"], &other["filtered"]),
        (&json!("eth9"), &json!(false))
    );
}

#[test]
fn what_cannot_be_understood_is_wrong_usage() {
    let folder = folder("");
    for words in [
        &["--from", "198.51.100.7:1", "--to", "[2001:db8::1]:443/tcp"][..],
        &["--from", "198.51.100.7:1", "--to", "203.0.113.10:443"],
        &["--frame", "abc"],
        &["--from", "198.51.100.7:1"],
    ] {
        let ended = run(
            folder.path(),
            &[&["explain", "--policy", "policy.toml"], words].concat(),
        );
        assert_eq!(ended.exit, 2, "{words:?}: {ended:?}");
    }
}

#[test]
fn without_rights_the_reference_alone_is_asked_and_that_is_said() {
    let folder =
        folder("[[expect]]\nfrom = \"192.0.2.3:1\"\nto = \"203.0.113.10:443/tcp\"\nverdict = \"drop\"\n");
    let words = [
        "explain",
        "--policy",
        "policy.toml",
        "--json",
        "--from",
        "198.51.100.7:1",
        "--to",
        "203.0.113.10:443/tcp",
    ];
    let ended = run_without_rights(folder.path(), &words);
    assert_eq!(ended.exit, 0, "{ended:?}");
    let object = ended.object();
    assert_eq!(
        (&object["reason"], &object["kernel"]),
        (&json!("allowed"), &Value::Null)
    );
    assert!(object["kernel_not_asked"].as_str().unwrap().contains("CAP_BPF"));
    let check = run_without_rights(folder.path(), &["check", "policy.toml"]);
    assert_eq!(check.exit, 0, "{check:?}");
    assert!(
        check.output.contains("the kernel program was not asked"),
        "{}",
        check.output
    );
}

#[test]
fn the_rules_read_aloud_come_to_what_the_reference_and_the_kernel_say() {
    let now = jiff::Timestamp::from_second(1_795_305_600).unwrap();
    let (mut frames, mut faults) = (0u32, Vec::new());
    for path in files(&subject::folder().join("vectors")).expect("the vectors are in the repository") {
        let file = VectorFile::read(&path).unwrap_or_else(|error| panic!("{error}"));
        let policy =
            subject::parse(&file.policy).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mut both = Both::new(&policy, now).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert_eq!(both.kernel_missing(), None, "these tests need root");
        for case in &file.cases {
            let frame = case.bytes().unwrap_or_else(|error| panic!("{error}"));
            let answers = both
                .ask(&frame)
                .unwrap_or_else(|error| panic!("{}: {error}", case.name));
            let (reading, ..) = both.read(&frame);
            let reference = &answers.reference;
            frames += 1;
            let same = reading.verdict == reference.verdict
                && reading.reason == reference.reason
                && reading.service.as_deref() == both.names.service(reference)
                && reading.owner.as_deref() == both.names.owner(reference);
            if !same || !answers.agree() {
                faults.push(format!(
                    "{}: {}: {reading:?} {reference:?}",
                    path.display(),
                    case.name
                ));
            }
        }
    }
    println!("explained: {frames} frames, {} faults", faults.len());
    assert!(
        frames > 1_000 && faults.is_empty(),
        "{} faults:\n{}",
        faults.len(),
        faults.join("\n")
    );
}
