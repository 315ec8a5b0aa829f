//! What this build does not enforce: named where it is written.

use super::{BASE, load_text};
use crate::policy::{check_report_json, not_enforced};

fn found(text: &str) -> Vec<(String, u32)> {
    let policy = load_text(text).policy.unwrap();
    not_enforced(&policy)
        .into_iter()
        .map(|found| (found.what, found.origin.line))
        .collect()
}

#[test]
fn what_is_written_is_named_with_its_place() {
    let text = format!(
        "{BASE}[records]\n[[sink]]\n[[listener]]\naddress = \"tcp:192.0.2.1:1\"\nroles = [\"read\"]\n\
         tls = {{ certificate = \"/a\", key = \"/b\", client-ca = \"/c\" }}\n"
    );
    let line = text.lines().position(|line| line == "[[listener]]").unwrap() as u32 + 1;
    assert_eq!(
        found(&text),
        [("tls of listener `tcp:192.0.2.1:1`".to_owned(), line)]
    );
    let report = check_report_json(&load_text(&text));
    assert_eq!(report["valid"], true);
    let warnings = report["warnings"].as_array().unwrap();
    assert_eq!(warnings.len(), 1);
    assert_eq!(warnings[0]["code"], "not-enforced");
    assert_eq!(warnings[0]["line"], line);
    assert_eq!(
        warnings[0]["message"],
        "this build does not enforce tls of listener `tcp:192.0.2.1:1`"
    );
}

#[test]
fn what_is_enforced_is_not_named() {
    let text = BASE.replace(
        "[\"eth0\"]\n",
        "[\"eth0\"]\nicmp-limit = { packets = { rate = 1, burst = 1 } }\n",
    );
    let found = found(&format!(
        "{text}[[deny]]\nname = \"d\"\nsources = [\"10.0.0.1\"]\n[[listener]]\naddress = \"unix:/a\"\nroles = [\"read\", \"metrics\"]\n\
         [records]\naddresses = \"hmac\"\n[[sink]]\ntype = \"journald\"\n"
    ));
    assert_eq!(found, []);
}
