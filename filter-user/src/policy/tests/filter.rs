//! The filter: its interfaces, its words, the version, and the way back in.

use super::{BASE, NOT_CORRECTED, ROOT, load_text, told, whole};
use crate::policy::Severity::{Error, Warning};
use crate::policy::model::PassListedDrop;

fn filter(keys: &str) -> String {
    let (_, entries) = BASE.split_once("[[management]]").unwrap();
    format!("version = 1\n[filter]\n{keys}\n[[management]]{entries}")
}

fn interfaces(list: &str) -> String {
    filter(&format!("interfaces = {list}"))
}

#[test]
fn the_filter_and_its_interfaces_are_required() {
    let rest = "[filter]\ninterfaces = [\"eth0\"]\n";
    whole(
        Error,
        "missing-key",
        "«»version = 1\n",
        "add [filter]",
        NOT_CORRECTED,
    );
    assert!(load_text(&format!("version = 1\n{rest}")).policy.is_some());
    whole(
        Error,
        "missing-key",
        &filter("").replace("[filter]", "«[filter]»"),
        "add interfaces = [\"eth0\"]",
        rest,
    );
    whole(
        Error,
        "empty-list",
        &interfaces("«[]»"),
        "name at least one",
        "[\"eth0\"]",
    );
}

#[test]
fn interfaces_are_names_or_globs() {
    let fix = "write a name of at most 15 bytes, such as eth0, or a glob, such as eth*";
    for bad in ["", "eth 0", "eth/0", "eth0:1", "..", "abcdefghijklmnop", "eth[0"] {
        whole(
            Error,
            "bad-interface",
            &interfaces(&format!("[«\"{bad}\"»]")),
            fix,
            "\"eth*\"",
        );
    }
    whole(
        Error,
        "repeated",
        &interfaces("[\"eth0\", «\"eth0\"»]"),
        "remove one",
        "\"eth1\"",
    );
    let names: Vec<String> = (0..64).map(|i| format!("\"eth{i}\"")).collect();
    whole(
        Error,
        "too-many",
        &interfaces(&format!("[{}, «\"eth64\"»]", names.join(", "))),
        "write at most 64",
        "",
    );
}

#[test]
fn stacked_interfaces_are_a_fault_unless_globs() {
    let message = whole(
        Error,
        "stacked-interfaces",
        &interfaces("[«\"eth0.100\"», \"eth0\"]"),
        "name only one of the two",
        "\"eth1.100\"",
    );
    assert_eq!(
        message,
        "`eth0.100` stands on `eth0`: its packets would be judged twice"
    );
    whole(
        Error,
        "stacked-interfaces",
        &interfaces("[\"eth0\", «\"eth0.100\"»]"),
        "name only one of the two",
        "\"eth*.100\"",
    );
    whole(
        Error,
        "stacked-interfaces",
        &interfaces("[\"eth0\", «\"eth0.1\"»]"),
        "name only one of the two",
        "\"eth01\"",
    );
}

#[test]
fn words_are_closed_and_have_defaults() {
    let text = |mode: &str| filter(&format!("interfaces = [\"eth0\"]\nmode = {mode}"));
    let message = whole(
        Error,
        "unknown-word",
        &text("«\"enforced\"»"),
        "did you mean `enforce`?",
        "\"enforce\"",
    );
    assert_eq!(message, "`enforced` is no `mode`");
    whole(
        Error,
        "unknown-word",
        &text("«\"off\"»"),
        "write one of enforce, observe",
        "\"observe\"",
    );
    whole(
        Error,
        "wrong-type",
        &text("«true»"),
        "write it between quotes",
        "\"observe\"",
    );
    let loaded = load_text(&interfaces("[\"eth0\"]"));
    let filter = loaded.policy.unwrap().filter;
    assert_eq!(
        (filter.fragments, filter.ping),
        (PassListedDrop::Listed, PassListedDrop::Pass)
    );
    assert_eq!(filter.source_limit_max, 1_048_576);
    assert!(filter.source_limit_max_origin.is_none() && !filter.management_none);
}

#[test]
fn the_way_back_in_is_asked_for() {
    let start = "version = 1\n«[filter]»\ninterfaces = [\"eth0\"]\n";
    let fix = "add [[management]] with the addresses that you administer this host from";
    whole(
        Warning,
        "no-management",
        start,
        fix,
        "[filter]\nmanagement-none = true",
    );
    let drops = "version = 1\n[filter]\ninterfaces = [\"eth0\"]\nother-traffic = «\"drop\"»\n";
    let fix = "add [[management]] with the addresses that you administer this host from, or set management-none = true in [filter]";
    whole(
        Error,
        "no-management",
        drops,
        fix,
        "\"drop\"\nmanagement-none = true",
    );
    let observes = drops.replace("«\"drop\"»", "\"drop\"\nmode = \"observe\"");
    let loaded = load_text(&observes);
    assert_eq!(told(&loaded), ["policy.toml:2:1: no-management"]);
    assert_eq!(loaded.diagnostics[0].severity, Warning);
}

#[test]
fn the_version_is_1() {
    let rest = BASE.strip_prefix("version = 1\n").unwrap();
    whole(
        Error,
        "missing-key",
        &format!("«»{rest}"),
        "add version = 1",
        "version = 1\n",
    );
    let message = whole(
        Error,
        "newer-version",
        &format!("version = «2»\n{rest}"),
        "install a release that reads version 2",
        "1",
    );
    assert_eq!(
        message,
        "version 2 is newer than this release of keyfence, which reads version 1"
    );
    whole(
        Error,
        "bad-version",
        &format!("version = «0»\n{rest}"),
        "write version = 1",
        "1",
    );
    whole(
        Error,
        "wrong-type",
        &format!("version = «\"1\"»\n{rest}"),
        "write version = 1",
        "0x1",
    );
    let message = whole(
        Error,
        "repeated-key",
        &format!("version = 1\n«version»{rest}").replacen("»", "» = 1\n", 1),
        "remove one of them",
        "#",
    );
    assert_eq!(message, "`version` is written twice");
}

#[test]
fn of_a_newer_version_nothing_else_is_judged() {
    let loaded = load_text("version = 7\n[filter]\nnovel = 1\n[[novelty]]\n");
    assert_eq!(told(&loaded), ["policy.toml:1:11: newer-version"]);
}

#[test]
fn a_limit_of_connections_does_nothing_for_icmp() {
    let loaded = load_text(&filter(
        "interfaces = [\"eth0\"]\nicmp-limit = { connections = { rate = 1, burst = 1 } }",
    ));
    assert_eq!(told(&loaded), [format!("{ROOT}:4:14: connections-of-icmp")]);
}
