//! The second layer's words, without a socket: keys, addresses, the policy's part, and the answer of all.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use axum::http::HeaderMap;

use super::address::{AddressFault, Addresses, port};
use super::key::{Keys, KeysError, is_same};
use super::rules::{Ranges, Rules};
use super::*;
use crate::policy::model::{Authorize, Credentials, Scheme};
use crate::policy::{LoadContext, MemoryFiles, Policy, load_from};

/// Of the key `secret-1`, as `printf %s secret-1 | sha256sum` has it.
const FINGERPRINT: &str = "sha256:f7e7c36e458e80e6b6a2c67d0a9ec09bd718dadd7bfa8d6bf6e7ad526e46c2f7";

fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(*name, value.parse().unwrap());
    }
    headers
}

fn credentials(scheme: Scheme) -> Credentials {
    Credentials {
        header: vec!["X-Api-Key".to_owned(), "Authorization: Bearer".to_owned()],
        scheme,
        secret_files: vec![
            ("k2".to_owned(), PathBuf::from("k2")),
            ("k1".to_owned(), PathBuf::from("k1")),
        ],
        id_pattern: "^.*$".to_owned(),
        origin: None,
    }
}

fn keys() -> Keys {
    Keys::new(&credentials(Scheme::Sha256), &[]).unwrap()
}

#[test]
fn key_is_the_first_header_of_the_policy_as_a_fingerprint() {
    let keys = keys();
    for lines in [
        &[("x-api-key", "secret-1")][..],
        &[("authorization", "Bearer secret-1")],
        &[("authorization", "bearer   secret-1 ")],
        &[("x-api-key", "secret-1"), ("authorization", "Bearer other")],
        &[("x-api-key", "secret-1"), ("x-api-key", "secret-1")],
        &[("authorization", "Bearer secret-1"), ("cookie", "a=b")],
    ] {
        assert_eq!(
            keys.of_request(&headers(lines), false),
            [FINGERPRINT],
            "{lines:?}"
        );
    }
}

#[test]
fn no_key_an_empty_one_and_one_header_with_two_values_are_no_key() {
    let keys = keys();
    for lines in [
        &[][..],
        &[("x-api-key", "")],
        &[("x-api-key", ""), ("authorization", "Bearer secret-1")],
        &[("x-api-key", "secret-1"), ("x-api-key", "secret-2")],
        &[
            ("authorization", "Bearer secret-1"),
            ("authorization", "Bearer secret-2"),
        ],
        &[("authorization", "Basic secret-1")],
        &[("authorization", "Bearersecret-1")],
        &[("authorization", "Bearer")],
        &[("authorization", "Bearer ")],
        &[("keyfence-credential", "key-1")],
    ] {
        assert_eq!(
            keys.of_request(&headers(lines), false),
            Vec::<String>::new(),
            "{lines:?}"
        );
    }
}

#[test]
fn asserted_id_is_taken_where_the_listener_may_assert_and_instead_of_a_key() {
    let keys = keys();
    let both = headers(&[("keyfence-credential", "key-1"), ("x-api-key", "secret-1")]);
    assert_eq!(keys.of_request(&both, true), ["key-1"]);
    assert_eq!(keys.of_request(&both, false), [FINGERPRINT]);
    for lines in [
        &[("keyfence-credential", ""), ("x-api-key", "secret-1")][..],
        &[("keyfence-credential", "key-1"), ("keyfence-credential", "key-2")],
    ] {
        assert_eq!(keys.of_request(&headers(lines), true), Vec::<String>::new());
    }
    assert_eq!(
        keys.of_request(&headers(&[("x-api-key", "secret-1")]), true),
        [FINGERPRINT]
    );
}

#[test]
fn keyed_fingerprints_are_made_with_each_secret_and_short_secrets_are_refused() {
    // RFC 4231, test case 6: a key longer than a block.
    let secret = vec![0xaa; 131];
    let other = b"0123456789abcdef0123456789abcdef\n".to_vec();
    let hmac = credentials(Scheme::HmacSha256);
    let keys = Keys::new(&hmac, &[secret, other.clone()]).unwrap();
    let found = keys.of_request(
        &headers(&[(
            "x-api-key",
            "Test Using Larger Than Block-Size Key - Hash Key First",
        )]),
        false,
    );
    assert_eq!(
        found[0],
        "hmac-sha256:k2:60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"
    );
    assert!(
        found[1].starts_with("hmac-sha256:k1:") && found.len() == 2,
        "{found:?}"
    );
    let short = Keys::new(&hmac, &[b"short".to_vec(), other]).err();
    assert!(
        matches!(short, Some(KeysError::Short { length: 5, .. })),
        "{short:?}"
    );
}

#[test]
fn credentials_are_the_same_only_if_each_byte_is() {
    assert!(is_same("sha256:ab", "sha256:ab"));
    assert!(!is_same("sha256:ab", "sha256:ac") && !is_same("sha256:ab", "sha256:a"));
}

fn addresses(header: &str, trusted: &[&str]) -> Addresses {
    Addresses::new(&Authorize {
        address_header: header.to_owned(),
        trusted_proxies: trusted.iter().map(|prefix| prefix.parse().unwrap()).collect(),
        reason_header: false,
        origin: None,
    })
}

#[test]
fn address_is_the_one_that_the_proxy_sets() {
    let own = addresses("Keyfence-Client-Address", &[]);
    let ask = |lines: &[(&'static str, &str)]| own.address(&headers(lines));
    for (text, expected) in [
        ("198.51.100.7", "198.51.100.7"),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("::ffff:198.51.100.7", "198.51.100.7"),
    ] {
        let found = ask(&[("keyfence-client-address", text)]);
        assert_eq!(found, Ok(expected.parse::<IpAddr>().unwrap()), "{text}");
    }
    for text in [
        "",
        "198.51.100.7:80",
        "fe80::1%eth0",
        "198.51.100.07",
        "a, b",
        "localhost",
    ] {
        let found = ask(&[("keyfence-client-address", text)]);
        assert!(
            matches!(found, Err(AddressFault::NoAddress(_))),
            "{text}: {found:?}"
        );
    }
    assert!(matches!(
        ask(&[("x-forwarded-for", "10.0.0.1")]),
        Err(AddressFault::Missing(_))
    ));
    let twice = [
        ("keyfence-client-address", "10.0.0.1"),
        ("keyfence-client-address", "10.0.0.1"),
    ];
    assert!(matches!(ask(&twice), Err(AddressFault::Repeated(_))));
}

#[test]
fn forwarded_addresses_are_read_from_the_right_past_trusted_proxies() {
    let chain = addresses("X-Forwarded-For", &["10.0.0.0/8", "2001:db8:f::/48"]);
    let ask = |lines: &[&str]| {
        let lines: Vec<_> = lines.iter().map(|line| ("x-forwarded-for", *line)).collect();
        chain.address(&headers(&lines)).map(|address| address.to_string())
    };
    let client = Ok("198.51.100.7".to_owned());
    assert_eq!(ask(&["198.51.100.7"]), client);
    assert_eq!(ask(&["198.51.100.7, 10.0.0.1,10.0.0.2"]), client);
    assert_eq!(ask(&["198.51.100.7", "10.0.0.1, 2001:db8:f::1"]), client);
    // What a client claims stands left of it, and is never read.
    assert_eq!(ask(&["203.0.113.9, 198.51.100.7, 10.0.0.1"]), client);
    assert_eq!(ask(&["<script>", "198.51.100.7"]), client);
    assert!(matches!(
        ask(&["198.51.100.7, unknown, 10.0.0.1"]),
        Err(AddressFault::NoAddress(_))
    ));
    assert!(matches!(ask(&["198.51.100.7,"]), Err(AddressFault::NoAddress(_))));
    assert!(matches!(
        ask(&["10.0.0.1, 10.0.0.2"]),
        Err(AddressFault::AllTrusted(_))
    ));
    assert!(matches!(ask(&[]), Err(AddressFault::Missing(_))));
}

#[test]
fn port_is_optional_and_must_be_one() {
    let ask = |lines: &[(&'static str, &str)]| port(&headers(lines));
    assert_eq!(ask(&[]), Ok(None));
    assert_eq!(ask(&[("keyfence-client-port", "40000")]), Ok(Some(40000)));
    for text in ["", "65536", "-1", "+1", "http", "80, 81"] {
        let found = ask(&[("keyfence-client-port", text)]);
        assert!(matches!(found, Err(AddressFault::NoPort(_))), "{text}: {found:?}");
    }
    let twice = [("keyfence-client-port", "1"), ("keyfence-client-port", "1")];
    assert!(matches!(ask(&twice), Err(AddressFault::Repeated(_))));
}

fn facts(service: bool, address: bool, port: bool, ended: bool) -> Facts {
    Facts {
        publisher: format!("{service}-{address}-{port}-{ended}"),
        service,
        address,
        port,
        ended,
    }
}

#[test]
fn any_entry_that_admits_is_enough_and_the_others_say_why_not() {
    let admits = facts(true, true, true, false);
    let reason = |entries: &[Facts]| judge("key-1", entries, false).reason;
    assert_eq!(reason(&[]), Reason::Unknown);
    let elsewhere = facts(true, false, true, false);
    let ended = facts(true, true, true, true);
    let other_port = facts(true, true, false, false);
    let other_service = facts(false, true, true, false);
    assert_eq!(reason(std::slice::from_ref(&other_service)), Reason::Denied);
    assert_eq!(
        reason(&[other_service.clone(), elsewhere.clone()]),
        Reason::Address
    );
    assert_eq!(reason(&[elsewhere.clone(), ended.clone()]), Reason::Ended);
    assert_eq!(reason(&[ended.clone(), other_port.clone()]), Reason::Address);
    let all = [other_service, elsewhere, ended, other_port, admits.clone()];
    let answer = judge("key-1", &all, false);
    assert_eq!(
        (answer.reason, answer.publisher),
        (Reason::Allowed, admits.publisher)
    );
    assert_eq!(judge("key-1", &all, true).reason, Reason::Denied);
    let unknown = judge("key-1", &[], true);
    assert_eq!(
        (unknown.reason, unknown.credential.as_str()),
        (Reason::Unknown, "")
    );
}

const POLICY: &str = r#"
version = 1
[filter]
interfaces = ["eth0"]
[[service]]
name = "payments"
protocol = "tcp"
ports = [443]
[[service]]
name = "beta"
protocol = "tcp"
ports = [444]
mode = "observe"
[[client]]
name = "acme"
sources = ["198.51.100.0/24", "2001:db8:ac::/48"]
source-ports = ["1024-65535"]
services = ["payments"]
credentials = ["key-1", "key-2"]
expires = 2027-01-31T00:00:00Z
[[client]]
name = "gone"
sources = ["0.0.0.0/0"]
services = ["*"]
credentials = ["key-1"]
enabled = false
[[deny]]
name = "abuse"
sources = ["198.51.100.66", "203.0.113.0/24"]
[[management]]
name = "ssh"
sources = ["192.0.2.0/24"]
protocol = "tcp"
ports = [22]
"#;

pub(crate) fn policy(text: &str) -> Arc<Policy> {
    let root = PathBuf::from("keyfence.toml");
    let files = MemoryFiles::new([(root.clone(), text.as_bytes().to_vec())]);
    let now = "2026-11-22T12:00:00Z".parse().unwrap();
    let loaded = load_from(&files, &root, &LoadContext::at(now));
    Arc::new(
        loaded
            .policy
            .unwrap_or_else(|| panic!("{:?}", loaded.diagnostics)),
    )
}

#[test]
fn clients_of_the_policy_answer_for_their_credentials() {
    let rules = Rules::new(policy(POLICY));
    let payments = rules.service("payments").unwrap();
    let beta = rules.service("beta").unwrap();
    assert_eq!(rules.service("nothing"), None);
    assert!(rules.observes(beta) && !rules.observes(payments));
    assert!(rules.denies("198.51.100.66".parse().unwrap()) && rules.denies("203.0.113.255".parse().unwrap()));
    assert!(!rules.denies("198.51.100.67".parse().unwrap()) && !rules.denies("2001:db8::1".parse().unwrap()));
    let now = "2026-11-22T12:00:00Z".parse().unwrap();
    let ask = |credential, service, address: &str, port, now| {
        let facts = rules.facts(credential, service, (address.parse().unwrap(), port), now);
        judge(credential, &facts, false).reason
    };
    assert_eq!(ask("key-1", payments, "198.51.100.7", None, now), Reason::Allowed);
    assert_eq!(
        ask("key-2", payments, "2001:db8:ac:1::1", Some(1024), now),
        Reason::Allowed
    );
    assert_eq!(
        ask("key-1", payments, "198.51.100.7", Some(1023), now),
        Reason::Address
    );
    assert_eq!(ask("key-1", payments, "198.51.101.7", None, now), Reason::Address);
    assert_eq!(ask("key-1", beta, "198.51.100.7", None, now), Reason::Denied);
    assert_eq!(ask("key-3", payments, "198.51.100.7", None, now), Reason::Unknown);
    let later = "2027-01-31T00:00:00Z".parse().unwrap();
    assert_eq!(ask("key-1", payments, "198.51.100.7", None, later), Reason::Ended);
}

#[test]
fn ranges_hold_what_their_prefixes_hold() {
    let prefixes = [
        "10.1.0.0/16",
        "10.0.0.0/8",
        "10.255.255.255/32",
        "11.0.0.0/32",
        "::/0",
        "::1/128",
    ];
    let ranges = Ranges::new(prefixes.iter().map(|prefix| prefix.parse().unwrap()));
    for (address, held) in [
        ("9.255.255.255", false),
        ("10.0.0.0", true),
        ("10.255.255.255", true),
        ("11.0.0.0", true),
        ("11.0.0.1", false),
        ("::ffff:10.2.3.4", true),
        ("::", true),
        ("ffff::", true),
    ] {
        assert_eq!(ranges.hold(address.parse().unwrap()), held, "{address}");
    }
    assert!(!Ranges::default().hold("10.0.0.0".parse().unwrap()));
}
