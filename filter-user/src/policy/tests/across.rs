//! What entries say about one another: references, overlaps, covers; expectations and credentials.

use super::{BASE, fault, load_text, told, warning};
use crate::policy::model::ServiceSet;

fn client(keys: &str) -> String {
    format!("[[client]]\nname = \"acme\"\nservices = [\"web\"]\n{keys}\n")
}

#[test]
fn unknown_services_are_faults_with_a_suggestion() {
    let text = |name: &str| {
        format!("[[client]]\nname = \"a\"\nsources = [\"10.0.0.1\"]\nservices = [\"dns\", {name}]")
    };
    let message = fault(
        "unknown-service",
        &text("«\"wbe\"»"),
        "did you mean `web`?",
        "\"web\"",
    );
    assert_eq!(message, "there is no service `wbe`");
    let fix = "add a [[service]] with this name, or name another: web, dns";
    fault("unknown-service", &text("«\"payments\"»"), fix, "\"web\"");
    fault("repeated", &text("«\"dns\"»"), "remove one", "\"web\"");
    fault(
        "repeated",
        &text("«\"*\"»"),
        "write [\"*\"], or only names",
        "\"web\"",
    );
    let all = load_text(&format!(
        "{BASE}{}",
        "[[client]]\nname = \"a\"\nsources = [\"10.0.0.1\"]\nservices = [\"*\"]"
    ));
    assert_eq!(all.policy.unwrap().clients[0].services, ServiceSet::All);
}

#[test]
fn a_policy_has_at_most_1024_services() {
    let one = |i: usize| {
        format!(
            "[[service]]\nname = \"s{i}\"\nprotocol = \"udp\"\nports = [{}]\n",
            1000 + i
        )
    };
    let text: String = (0..1022).map(one).collect();
    assert!(load_text(&format!("{BASE}{text}")).policy.is_some());
    let more = load_text(&format!("{BASE}{text}{}", one(1022)));
    assert_eq!(
        told(&more),
        [format!("policy.toml:{}:8: too-many", 18 + 1022 * 4 + 2)]
    );
}

#[test]
fn services_that_overlap_are_faults() {
    let other = |address: &str, protocol: &str, ports: &str| {
        format!("[[service]]\nname = \"b\"\n{address}protocol = {protocol}\nports = [{ports}]")
    };
    let fix = "give one of them other ports, protocols or addresses, or make them one service";
    let message = fault(
        "service-overlap",
        &other("address = [\"203.0.113.0/24\"]\n", "\"tcp\"", "80, «\"400-500\"»"),
        fix,
        "444",
    );
    assert_eq!(
        message,
        "service `b` overlaps with service `web` at policy.toml:10: tcp port 443 at 203.0.113.10/32"
    );
    let message = fault(
        "service-overlap",
        &other("", "[\"tcp\", \"udp\"]", "«443»"),
        fix,
        "444",
    );
    assert_eq!(
        message,
        "service `b` overlaps with service `web` at policy.toml:10: tcp port 443 at 203.0.113.10/32"
    );
    fault(
        "service-overlap",
        &other(
            "address = [\"2001:db8::/32\", \"203.0.113.10\"]\n",
            "\"udp\"",
            "«53»",
        ),
        fix,
        "54",
    );
    let host = other("address = \"host\"\n", "\"tcp\"", "8080");
    let twice = host.replace("\"b\"", "\"c\"");
    let message = fault(
        "service-overlap",
        &format!("{host}\n{}", twice.replace("8080", "«8080»")),
        fix,
        "8081",
    );
    assert!(
        message.ends_with("tcp port 8080 at this host's addresses"),
        "{message}"
    );
    let any = twice
        .replace("address = \"host\"\n", "")
        .replace("8080", "«8080»");
    fault("service-overlap", &format!("{host}\n{any}"), fix, "8081");
}

#[test]
fn services_that_differ_in_one_way_do_not_overlap() {
    for other in [
        "address = [\"203.0.113.11\"]\nprotocol = \"tcp\"\nports = [443]",
        "address = [\"203.0.113.10\"]\nprotocol = \"udp\"\nports = [443]",
        "address = [\"203.0.113.10\"]\nprotocol = \"tcp\"\nports = [\"444-500\"]",
        "address = [\"2001:db8::/32\"]\nprotocol = \"tcp\"\nports = [443]",
        "address = \"host\"\nprotocol = \"tcp\"\nports = [444]",
        "address = \"host\"\nprotocol = \"udp\"\nports = [443]",
    ] {
        let loaded = load_text(&format!("{BASE}[[service]]\nname = \"b\"\n{other}"));
        assert_eq!(told(&loaded), Vec::<String>::new(), "{other}");
    }
}

/// What the host's addresses are is not known here.
#[test]
fn a_service_of_the_host_may_overlap_with_one_of_written_addresses() {
    let host = "[[service]]\nname = \"b\"\naddress = \"host\"\nprotocol = \"tcp\"\nports = [«443»]";
    let fix = "there a reload is refused, and a start leaves the address to the one that names it: give one of them other \
               ports, or addresses instead of \"host\"";
    let message = warning("service-may-overlap", host, fix, "444");
    assert_eq!(
        message,
        "service `b` overlaps with service `web` at policy.toml:10 on a host with an address in 203.0.113.10/32: \
         tcp port 443"
    );
}

#[test]
fn a_source_that_another_entry_covers_is_a_warning() {
    let wide = client("sources = [\"10.0.0.0/8\"]");
    let text = |keys: &str| format!("{wide}[[client]]\nname = \"b\"\nservices = [\"web\"]\n{keys}");
    let fix = "remove it, unless a limit of its own is meant";
    let message = warning(
        "covered-source",
        &text("sources = [«\"10.1.2.3\"»]"),
        fix,
        "\"11.0.0.0/8\"",
    );
    assert_eq!(
        message,
        "10.1.2.3/32 is already covered by 10.0.0.0/8 of client `acme` at policy.toml:20"
    );
    warning(
        "covered-source",
        &text("sources = [«\"10.0.0.0/8\"»]"),
        fix,
        "\"11.0.0.0/8\"",
    );
    let deny = "[[deny]]\nname = \"a\"\nsources = [\"2001:db8::/32\"]\n[[deny]]\nname = \"b\"\nsources = [«\"2001:db8:1::/48\"»]";
    warning("covered-source", deny, fix, "\"2001:db9::/32\"");
    let management =
        "[[management]]\nname = \"m\"\nsources = [«\"192.0.2.7\"»]\nprotocol = \"tcp\"\nports = [22]";
    warning("covered-source", management, fix, "\"192.0.3.7\"");
}

#[test]
fn a_source_is_not_covered_by_an_entry_that_admits_less() {
    for wide in [
        "services = [\"dns\"]",
        "services = [\"web\"]\nsource-ports = [\"1024-65535\"]",
        "services = [\"web\"]\nenabled = false",
        "services = [\"web\"]\nexpires = 2027-01-31T00:00:00Z",
    ] {
        let text = format!(
            "[[client]]\nname = \"a\"\nsources = [\"10.0.0.0/8\"]\n{wide}\n{}",
            client("sources = [\"10.1.2.3\"]")
        );
        assert_eq!(
            told(&load_text(&format!("{BASE}{text}"))),
            Vec::<String>::new(),
            "{wide}"
        );
    }
    let credential = format!(
        "{}{}",
        client("sources = [\"10.0.0.0/8\"]"),
        client("sources = [\"10.0.0.1\"]\ncredentials = [\"key-1\"]").replace("acme", "b")
    );
    assert_eq!(
        told(&load_text(&format!("{BASE}{credential}"))),
        Vec::<String>::new()
    );
}

#[test]
fn what_looks_like_a_key_is_refused_and_never_shown() {
    let keys = [
        "sk_live_abcdefgh12345678",
        "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
        "AKIAIOSFODNN7EXAMPLE",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl",
    ];
    for key in keys {
        let loaded = load_text(&format!(
            "{BASE}{}",
            client(&format!("sources = [\"10.0.0.1\"]\ncredentials = [\"{key}\"]"))
        ));
        assert_eq!(told(&loaded), ["policy.toml:23:16: secret-key"]);
        assert_eq!(loaded.diagnostics[0].span.len(), key.len() + 2);
        let all = format!(
            "{loaded:?}{}",
            crate::policy::render(&loaded, crate::policy::Colour::Never)
        );
        assert!(!all.contains(key), "{all}");
    }
}

#[test]
fn credentials_are_ids_or_fingerprints() {
    let text = |credential: &str| client(&format!("sources = [\"10.0.0.1\"]\ncredentials = [{credential}]"));
    let digest = "0123456789abcdef".repeat(4);
    let fingerprint = "write sha256: or hmac-sha256:KEYID: and 64 lower-case hex digits";
    let id = "write the key's id, sha256: or hmac-sha256:KEYID: and 64 lower-case hex digits";
    for (written, fix) in [
        ("sha256:abc".to_owned(), fingerprint),
        (format!("sha256:{}", digest.to_uppercase()), fingerprint),
        (format!("hmac-sha256:{digest}"), fingerprint),
        ("-key".to_owned(), id),
    ] {
        let loaded = load_text(&format!("{BASE}{}", text(&format!("\"{written}\""))));
        assert_eq!(told(&loaded), ["policy.toml:23:16: bad-credential"], "{written}");
        assert_eq!(loaded.diagnostics[0].fix.as_deref(), Some(fix));
        assert!(!loaded.files[0].text.contains(&written));
    }
    for good in [
        "key-1".to_owned(),
        format!("sha256:{digest}"),
        format!("hmac-sha256:k2:{digest}"),
        "app:7@x".to_owned(),
    ] {
        assert!(
            load_text(&format!("{BASE}{}", text(&format!("\"{good}\""))))
                .policy
                .is_some(),
            "{good}"
        );
    }
}

#[test]
fn expectations_are_read_and_their_faults_told() {
    let text = |from: &str, to: &str, verdict: &str| {
        format!("[[expect]]\nfrom = {from}\nto = {to}\nverdict = {verdict}\n")
    };
    let (from, to, pass) = ("\"198.51.100.7:40000\"", "\"203.0.113.10:443/tcp\"", "\"pass\"");
    let source = "write 198.51.100.7:40000, [2001:db8::1]:40000 or the address alone";
    fault("bad-expect", &text("«\"198.51.100.7:\"»", to, pass), source, from);
    let destination = "write 203.0.113.10:443/tcp, [2001:db8::1]:443/udp or 203.0.113.10/icmp";
    for bad in [
        "\"203.0.113.10:443\"",
        "\"203.0.113.10/tcp\"",
        "\"203.0.113.10:1/icmp\"",
        "\"x:1/tcp\"",
        "\"1.2.3.4:1/sctp\"",
    ] {
        fault(
            "bad-expect",
            &text(from, &format!("«{bad}»"), pass),
            destination,
            to,
        );
    }
    fault(
        "bad-expect",
        &text(from, "«\"[2001:db8::1]:443/tcp\"»", pass),
        "write two IPv4 or two IPv6 addresses",
        to,
    );
    fault(
        "unknown-word",
        &text(from, to, "«\"passed\"»"),
        "did you mean `pass`?",
        pass,
    );
    let reason = format!("{}reason = «\"allow\"»", text(from, to, pass));
    fault("unknown-word", &reason, "did you mean `allowed`?", "\"allowed\"");
    let reason = format!("{}reason = «\"allowed\"»", text(from, to, "\"drop\""));
    let reasons = "write one of other, non-ip, icmp, fragment, malformed, denied, unlisted, source-port, ended, limit-source, \
                   limit-grant, limit-publisher, limit-service, limit-icmp, internal";
    fault("unknown-word", &reason, reasons, "\"unlisted\"");
    for (from, to) in [
        ("\"2001:db8::1\"", "\"[2001:db8::1]:443/tcp\""),
        ("\"[2001:db8::1]:1\"", "\"2001:db8::1/icmp\""),
        ("\"10.0.0.1\"", "\"[::ffff:203.0.113.10]:443/udp\""),
    ] {
        let loaded = load_text(&format!("{BASE}{}", text(from, to, pass)));
        assert_eq!(told(&loaded), Vec::<String>::new());
        assert_eq!(loaded.policy.unwrap().expects.len(), 1);
    }
}

#[test]
fn no_message_and_no_excerpt_shows_a_key() {
    let key = "ghp_16C7e42F292c6912E7710c838347Ae178B4a";
    for keys in [
        format!("credentials = \"{key}\""),
        format!("credential = [\"{key}\"]"),
        format!("expires = \"{key}\""),
        format!("note = 7 # {key}"),
        format!("enabled = \"{key}\"\n[[{key}"),
        format!("{key} = 1"),
    ] {
        let loaded = load_text(&format!(
            "{BASE}{}",
            client(&format!("sources = [\"10.0.0.1\"]\n{keys}"))
        ));
        assert!(loaded.errors > 0, "{keys}");
        let shown = format!(
            "{loaded:?}{}",
            crate::policy::render(&loaded, crate::policy::Colour::Never)
        );
        assert!(!shown.contains("16C7e42F292c6912E7710c838347Ae178B4a"), "{shown}");
    }
}
