//! What this build does not enforce: named where written, told apart where it is a default.

use super::{BASE, load_text};
use crate::policy::{check_report_json, not_enforced};

fn found(text: &str) -> Vec<(String, Option<u32>, bool)> {
    let policy = load_text(text).policy.unwrap();
    not_enforced(&policy)
        .into_iter()
        .map(|found| (found.what, found.origin.map(|origin| origin.line), found.default))
        .collect()
}

#[test]
fn defaults_that_are_not_enforced_are_told_as_defaults() {
    let found = found(BASE);
    assert_eq!(found, [("drop records".into(), None, true)]);
}

#[test]
fn what_is_written_is_named_with_its_place() {
    let text = format!(
        "{BASE}[[client]]\nname = \"a\"\nsources = [\"10.0.0.1\"]\nservices = [\"web\"]\ncredentials = [\"key-1\"]\nlimit = {{ bytes = {{ rate = 1, burst = 1 }} }}\n\
         [[publisher]]\nname = \"p\"\nuser = \"u\"\n[daemon]\non-exit = \"detach\"\n[credentials]\n[authorize]\n[records]\n[[sink]]\n\
         [[listener]]\naddress = \"tcp:[::1]:1\"\nroles = [\"read\", \"metrics\"]\n[[listener]]\naddress = \"unix:/a\"\nroles = [\"deny\", \"read\"]\n"
    );
    let found = found(&text);
    let named: Vec<(&str, Option<u32>)> = found
        .iter()
        .map(|(what, line, _)| (what.as_str(), *line))
        .collect();
    assert_eq!(
        named,
        [("[records]", Some(32)), ("[[sink]] of type file", Some(33)),]
    );
    assert!(found.iter().all(|(_, _, default)| !default));
    let report = check_report_json(&load_text(&text));
    assert_eq!(report["valid"], true);
    let warnings = report["warnings"].as_array().unwrap();
    assert_eq!(warnings.len(), 2);
    assert_eq!(warnings[0]["code"], "not-enforced");
    assert_eq!(warnings[0]["line"], 32);
    assert_eq!(warnings[0]["message"], "this build does not enforce [records]");
}

#[test]
fn what_is_enforced_is_not_named() {
    let text = BASE.replace(
        "[\"eth0\"]\n",
        "[\"eth0\"]\nicmp-limit = { packets = { rate = 1, burst = 1 } }\n",
    );
    let found = found(&format!(
        "{text}[[deny]]\nname = \"d\"\nsources = [\"10.0.0.1\"]\n[[listener]]\naddress = \"unix:/a\"\nroles = [\"read\", \"metrics\"]\n"
    ));
    assert_eq!(found, [("drop records".into(), None, true)]);
}
