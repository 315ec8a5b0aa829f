//! Services, clients, denies, management: their keys, references and overlaps.

use super::{BASE, fault, load_text, told, warning};
use crate::policy::model::Addresses;

fn client(keys: &str) -> String {
    format!("[[client]]\nname = \"acme\"\nservices = [\"web\"]\n{keys}\n")
}

fn service(keys: &str) -> String {
    format!("[[service]]\nname = \"b\"\naddress = [\"203.0.113.99\"]\n{keys}\n")
}

#[test]
fn unknown_keys_are_faults_with_a_suggestion() {
    let message = fault(
        "unknown-key",
        &client("sources = [\"10.0.0.1\"]\n«surce-ports» = [1]"),
        "did you mean `source-ports`?",
        "source-ports",
    );
    assert_eq!(message, "unknown key `surce-ports`");
    let known = "remove it; known here: name, sources, note, labels";
    fault(
        "unknown-key",
        "[[deny]]\nname = \"d\"\nsources = [\"10.0.0.1\"]\n«ports» = \"x\"",
        known,
        "note",
    );
    fault(
        "unknown-key",
        &client("sources = [\"10.0.0.1\"]\nlimit = { «packet» = { rate = 1, burst = 1 } }"),
        "did you mean `packets`?",
        "packets",
    );
    fault("unknown-key", "[«daemons»]\n", "did you mean `daemon`?", "daemon");
}

#[test]
fn required_keys_are_asked_for_at_the_entry() {
    fault(
        "missing-key",
        "«[[service]]»\nprotocol = \"tcp\"\nports = [80]",
        "add name = \"a-name\"",
        "[[service]]\nname = \"b\"",
    );
    fault(
        "missing-key",
        "«[[service]]»\nname = \"b\"\nports = [80]",
        "add protocol = \"tcp\"",
        "[[service]]\nprotocol = \"tcp\"",
    );
    fault(
        "missing-key",
        "«[[service]]»\nname = \"b\"\nprotocol = \"tcp\"",
        "add ports = [443]",
        "[[service]]\nports = [80]",
    );
    fault(
        "missing-key",
        "«[[client]]»\nname = \"b\"\nsources = [\"10.0.0.1\"]",
        "add services = [\"*\"]",
        "[[client]]\nservices = [\"*\"]",
    );
    let fix = "add sources = [\"198.51.100.0/24\"] or sources-file = \"…\"";
    fault(
        "missing-key",
        "«[[client]]»\nname = \"b\"\nservices = [\"web\"]",
        fix,
        "[[client]]\nsources = [\"10.0.0.1\"]",
    );
    fault(
        "missing-key",
        "«[[deny]]»\nname = \"b\"",
        "add sources = [\"198.51.100.66\"]",
        "[[deny]]\nsources = [\"10.0.0.1\"]",
    );
    fault(
        "missing-key",
        "«[[management]]»\nname = \"b\"\nprotocol = \"tcp\"\nports = [22]",
        "add sources = [\"192.0.2.0/24\"]",
        "[[management]]\nsources = [\"10.0.0.1\"]",
    );
}

#[test]
fn wrong_types_are_faults_that_say_what_to_write() {
    let message = fault(
        "wrong-type",
        &service("protocol = \"tcp\"\nports = «80»"),
        "write [80]",
        "[80]",
    );
    assert_eq!(message, "`ports` is a list, not a whole number");
    fault(
        "wrong-type",
        &client("sources = «\"10.0.0.1\"»"),
        "write [\"10.0.0.1\"]",
        "[\"10.0.0.1\"]",
    );
    fault(
        "wrong-type",
        &client("sources = [\"10.0.0.1\"]\nenabled = «\"yes\"»"),
        "write true or false, without quotes",
        "true",
    );
    fault(
        "wrong-type",
        &client("sources = [\"10.0.0.1\"]\nnote = «7»"),
        "write \"7\"",
        "\"7\"",
    );
    let labels = service("protocol = \"tcp\"\nports = [80]\nlabels = «[]»");
    fault("wrong-type", &labels, "write { ticket = \"OPS-12\" }", "{}");
}

#[test]
fn an_entry_written_as_one_table_is_a_fault_and_its_others_show_too() {
    let loaded = load_text(
        "version = 1\n[filter]\ninterfaces = [\"eth0\"]\n[service]\nname = \"a\"\nprotocol = \"tcp\"\nports = [0]\n",
    );
    assert_eq!(
        told(&loaded),
        [
            "policy.toml:2:1: no-management",
            "policy.toml:4:1: wrong-type",
            "policy.toml:7:10: port-out-of-range"
        ]
    );
    assert_eq!(loaded.diagnostics[1].fix.as_deref(), Some("write [[service]]"));
}

#[test]
fn names_have_one_form_and_stand_once() {
    let form = "write 1 to 63 of A-Z, a-z, 0-9, `.`, `_` and `-`, a letter or digit first";
    for name in ["", "-a", "a b", "ä", &"a".repeat(64)] {
        let entry = format!("[[deny]]\nname = «\"{name}\"»\nsources = [\"10.0.0.1\"]");
        fault("bad-name", &entry, form, &format!("\"{}\"", "a".repeat(63)));
    }
    let message = fault(
        "repeated-name",
        "[[deny]]\nname = \"d\"\nsources = [\"10.0.0.1\"]\n[[deny]]\nname = «\"d\"»\nsources = [\"10.0.0.2\"]",
        "give it another name",
        "\"web\"",
    );
    assert_eq!(
        message,
        "a second deny has the name `d`; the first is at policy.toml:20"
    );
}

#[test]
fn empty_lists_are_faults_where_one_is_required() {
    fault(
        "empty-list",
        &service("protocol = \"tcp\"\nports = «[]»"),
        "name at least one",
        "[80]",
    );
    fault(
        "empty-list",
        &client("sources = «[]»"),
        "name at least one",
        "[\"10.0.0.1\"]",
    );
    fault(
        "empty-list",
        "[[client]]\nname = \"a\"\nsources = [\"10.0.0.1\"]\nservices = «[]»",
        "name at least one",
        "[\"web\"]",
    );
    fault(
        "empty-list",
        "[[service]]\nname = \"b\"\nprotocol = «[]»\nports = [80]",
        "name at least one of tcp and udp",
        "[\"tcp\"]",
    );
    let fix = "name at least one, or leave it out for every address";
    fault(
        "empty-list",
        "[[service]]\nname = \"b\"\naddress = «[]»\nprotocol = \"tcp\"\nports = [80]",
        fix,
        "\"host\"",
    );
    let loaded = load_text(&format!(
        "{BASE}{}",
        client("sources = [\"10.0.0.1\"]\nsource-ports = []\ncredentials = []")
    ));
    assert!(loaded.policy.is_some());
}

#[test]
fn host_bits_are_faults_that_name_both_readings() {
    let message = fault(
        "host-bits",
        &client("sources = [\"198.51.100.0/24\", «\"10.1.2.3/24\"»]"),
        "write 10.1.2.0/24 or 10.1.2.3/32",
        "\"10.1.2.0/24\"",
    );
    assert_eq!(message, "10.1.2.3/24 has host bits set");
    let six = "write 2001:db8::/64 or 2001:db8::1/128";
    fault(
        "host-bits",
        &client("sources = [«\"2001:db8::1/64\"»]"),
        six,
        "\"2001:db8::1\"",
    );
    let mapped = "write 10.1.2.0/24 or 10.1.2.3/32";
    fault(
        "host-bits",
        &client("sources = [«\"::ffff:10.1.2.3/120\"»]"),
        mapped,
        "\"::ffff:10.1.2.0/120\"",
    );
    let address =
        "[[service]]\nname = \"b\"\naddress = [«\"203.0.113.7/30\"»]\nprotocol = \"tcp\"\nports = [80]";
    fault(
        "host-bits",
        address,
        "write 203.0.113.4/30 or 203.0.113.7/32",
        "\"203.0.113.7\"",
    );
    let fix = "write an address or a prefix, such as 192.0.2.7, 198.51.100.0/24 or 2001:db8::/48";
    fault(
        "bad-prefix",
        &client("sources = [«\"example.org\"»]"),
        fix,
        "\"10.0.0.1\"",
    );
    let host = "[[service]]\nname = \"b\"\naddress = [«\"host\"»]\nprotocol = \"tcp\"\nports = [80]";
    fault("bad-prefix", host, "write address = \"host\"", "\"203.0.113.7\"");
}

#[test]
fn prefixes_are_read_sorted_and_mapped_ones_are_ipv4() {
    let sources = "sources = [\"2001:db8::/48\", \"::ffff:192.0.2.0/120\", \"10.0.0.9\", \"10.0.0.9/32\", \"10.0.0.0/8\"]";
    let loaded = load_text(&format!("{BASE}{}", client(sources)));
    let policy = loaded.policy.unwrap();
    let prefixes: Vec<String> = policy.clients[0]
        .sources
        .iter()
        .map(|source| source.prefix.to_string())
        .collect();
    assert_eq!(
        prefixes,
        ["10.0.0.0/8", "10.0.0.9/32", "192.0.2.0/24", "2001:db8::/48"]
    );
    assert_eq!(policy.clients[0].sources[0].origin.line, 22);
    assert_eq!(policy.clients[0].origin.line, 19);
}

#[test]
fn a_services_own_prefixes_and_ports_are_merged() {
    let text = "[[service]]\nname = \"b\"\naddress = [\"10.0.0.0/8\", \"10.1.0.0/16\"]\nprotocol = [\"tcp\", \"udp\"]\nports = [80, \"81\", \"90-100\", \"95-110\"]";
    let loaded = load_text(&format!("{BASE}{text}"));
    let service = &loaded.policy.unwrap().services[2];
    assert_eq!(
        service.address,
        Addresses::Prefixes(vec!["10.0.0.0/8".parse().unwrap()])
    );
    let ports: Vec<(u16, u16)> = service
        .ports
        .iter()
        .map(|range| (range.first, range.last))
        .collect();
    assert_eq!(ports, [(80, 81), (90, 110)]);
    assert!(service.protocols.tcp && service.protocols.udp);
}

#[test]
fn backward_and_out_of_range_ports_are_faults() {
    let ports = |item: &str| service(&format!("protocol = \"tcp\"\nports = [80, {item}]"));
    fault(
        "backward-range",
        &ports("«\"8450-8443\"»"),
        "write \"8443-8450\"",
        "\"8443-8450\"",
    );
    for port in [
        "0",
        "65536",
        "-1",
        "\"0-80\"",
        "\"1-70000\"",
        "99999999999999999999999",
    ] {
        fault(
            "port-out-of-range",
            &ports(&format!("«{port}»")),
            "write 1 to 65535",
            "65535",
        );
    }
    let form = "write a port such as 443 or a range such as \"8443-8450\"";
    for port in ["\"https\"", "\"\"", "\"1-\"", "\"1-2-3\"", "\" 80\"", "\"+80\""] {
        fault("bad-port", &ports(&format!("«{port}»")), form, "\"81\"");
    }
    let source = |item: &str| client(&format!("sources = [\"10.0.0.1\"]\nsource-ports = [{item}]"));
    fault("port-out-of-range", &source("«65536»"), "write 0 to 65535", "0");
}

#[test]
fn an_entry_has_at_most_64_port_ranges() {
    let ports: Vec<String> = (0..64).map(|i| (2 * i + 1).to_string()).collect();
    let text = |extra: &str| {
        service(&format!(
            "protocol = \"tcp\"\nports = [{}{extra}]",
            ports.join(", ")
        ))
    };
    let message = fault("too-many", &text(", «300»"), "write at most 64", "");
    assert_eq!(message, "`ports` has 65 items");
}

#[test]
fn a_port_in_the_ephemeral_range_is_a_warning() {
    let fix = "choose a port outside of it, or reserve it in net.ipv4.ip_local_reserved_ports";
    warning(
        "ephemeral-port",
        &service("protocol = \"tcp\"\nports = [80, «\"30000-40000\"»]"),
        fix,
        "32767",
    );
}

#[test]
fn ends_need_an_offset_and_near_ones_are_warnings() {
    let text = |expires: &str| client(&format!("sources = [\"10.0.0.1\"]\nexpires = {expires}"));
    let far = "2027-01-31T00:00:00Z";
    fault(
        "local-date-time",
        &text("«2027-01-31T00:00:00»"),
        "write 2027-01-31T00:00:00Z if UTC is meant",
        far,
    );
    let example = "write a date and time with offset, such as 2027-01-31T00:00:00Z";
    fault("local-date-time", &text("«2027-01-31»"), example, far);
    fault(
        "wrong-type",
        &text("«\"2027-01-31T00:00:00Z\"»"),
        "write it without quotes, such as 2027-01-31T00:00:00Z",
        far,
    );
    fault(
        "out-of-bounds",
        &text("«1969-12-31T23:59:59Z»"),
        "write a date from 1970 to 9999",
        far,
    );
    for last in [
        "9999-12-31T23:59:59Z",
        "9999-12-31T23:59:59-12:00",
        "9999-12-30T00:00:00Z",
    ] {
        let loaded = load_text(&format!("{BASE}{}", text(last)));
        assert_eq!(told(&loaded), Vec::<String>::new());
        let policy = loaded.policy.unwrap();
        assert!(policy.clients[0].expires > Some("9999-12-29T23:59:59Z".parse().unwrap()));
    }
    let later = "give it a later end if it is still needed";
    let message = warning(
        "expires-soon",
        &text("«2026-06-30T23:59:59+01:00»"),
        later,
        "2026-07-01T00:00:01Z",
    );
    assert_eq!(message, "the entry ends in 29 days");
    let message = warning(
        "expired",
        &text("«2026-05-31T00:00:00Z»"),
        "remove the entry or give it a later end",
        far,
    );
    assert_eq!(message, "the entry ended at 2026-05-31T00:00:00Z");
}

#[test]
fn entries_that_are_not_enabled_are_checked_all_the_same() {
    fault(
        "host-bits",
        &client("enabled = false\nsources = [«\"10.0.0.1/8\"»]"),
        "write 10.0.0.0/8 or 10.0.0.1/32",
        "\"10.0.0.0/8\"",
    );
}

#[test]
fn notes_and_labels_are_bounded() {
    let text = |labels: &str| format!("[[deny]]\nname = \"d\"\nsources = [\"10.0.0.1\"]\n{labels}");
    let pairs = |count: usize| {
        (0..count)
            .map(|i| format!("k{i:02} = \"v\""))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let many = format!("labels = «{{ {} }}»", pairs(17));
    fault(
        "too-many",
        &text(&many),
        "write at most 16",
        &format!("{{ {} }}", pairs(16)),
    );
    let long = format!("labels = {{ a = «\"{}\"» }}", "x".repeat(257));
    fault("out-of-bounds", &text(&long), "write at most 256", "\"\"");
    fault(
        "control-character",
        &text("note = «\"a\\u001bb\"»"),
        "remove it",
        "\"a\\nb\"",
    );
    let loaded = load_text(&format!(
        "{BASE}{}",
        text("note = \"n\"\nlabels = { b = \"2\", a = \"1\" }")
    ));
    let remarks = &loaded.policy.unwrap().denies[0].remarks;
    assert_eq!(remarks.note.as_deref(), Some("n"));
    assert_eq!(
        remarks.labels,
        [("a".into(), "1".into()), ("b".into(), "2".into())]
    );
}
