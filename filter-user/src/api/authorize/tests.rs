//! The second layer's words, without a socket: keys, addresses, the policy's part, and the answer of all.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use axum::http::HeaderMap;
use httparse::Header;

use super::address::{AddressFault, Addresses, port};
use super::key::Keys;
use crate::bindings::requests::AskedKey;
use crate::policy::model::{Authorize, Credentials, Scheme};
use crate::policy::{LoadContext, MemoryFiles, Policy, load_from};

fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(*name, value.parse().unwrap());
    }
    headers
}

/// The same as the quick way has them, in capitals here and there.
fn as_read<'l>(lines: &'l [(&'static str, &str)]) -> Vec<Header<'l>> {
    let capitals = |name: &'static str| match name {
        "x-api-key" => "X-Api-Key",
        "keyfence-client-address" => "Keyfence-CLIENT-Address",
        name => name,
    };
    let field = |(name, value): &'l (&'static str, &str)| Header {
        name: capitals(name),
        value: value.as_bytes(),
    };
    lines.iter().map(field).collect()
}

fn key(lines: &[(&'static str, &str)], may_assert: bool) -> Option<String> {
    let keys = Keys::new(&Credentials {
        header: vec!["X-Api-Key".to_owned(), "Authorization: Bearer".to_owned()],
        scheme: Scheme::Sha256,
        secret_files: Vec::new(),
        id_pattern: "^.*$".to_owned(),
        origin: None,
    });
    assert_eq!(keys.challenge(), "Bearer");
    let text = |key: Option<AskedKey<'_>>| {
        key.map(|key| match key {
            AskedKey::Secret(bytes) => format!("key {}", String::from_utf8_lossy(bytes)),
            AskedKey::Asserted(id) => format!("id {id}"),
        })
    };
    let (parsed, read) = (headers(lines), as_read(lines));
    let key = text(keys.of_request(&parsed, may_assert));
    assert_eq!(text(keys.of_request(&*read, may_assert)), key, "{lines:?}");
    key
}

#[test]
fn key_is_the_first_header_of_the_policy() {
    for lines in [
        &[("x-api-key", "secret-1")][..],
        &[("authorization", "Bearer secret-1")],
        &[("authorization", "bearer   secret-1 ")],
        &[("x-api-key", "secret-1"), ("authorization", "Bearer other")],
        &[("x-api-key", "secret-1"), ("x-api-key", "secret-1")],
        &[("authorization", "Bearer secret-1"), ("cookie", "a=b")],
    ] {
        assert_eq!(key(lines, false).as_deref(), Some("key secret-1"), "{lines:?}");
    }
}

#[test]
fn no_key_an_empty_one_and_one_header_with_two_values_are_no_key() {
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
        assert_eq!(key(lines, false), None, "{lines:?}");
    }
}

#[test]
fn asserted_id_is_taken_where_the_listener_may_assert_and_instead_of_a_key() {
    let both = &[("keyfence-credential", "key-1"), ("x-api-key", "secret-1")];
    assert_eq!(key(both, true).as_deref(), Some("id key-1"));
    assert_eq!(key(both, false).as_deref(), Some("key secret-1"));
    for lines in [
        &[("keyfence-credential", ""), ("x-api-key", "secret-1")][..],
        &[("keyfence-credential", "key-1"), ("keyfence-credential", "key-2")],
    ] {
        assert_eq!(key(lines, true), None);
    }
    assert_eq!(key(&both[1..], true).as_deref(), Some("key secret-1"));
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
    let ask = |lines: &[(&'static str, &str)]| {
        let found = own.address(&headers(lines));
        assert_eq!(own.address(&*as_read(lines)), found, "{lines:?}");
        found
    };
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
        let found = chain.address(&headers(&lines));
        assert_eq!(chain.address(&*as_read(&lines)), found, "{lines:?}");
        found.map(|address| address.to_string())
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
    let ask = |lines: &[(&'static str, &str)]| {
        let found = port(&headers(lines));
        assert_eq!(port(&*as_read(lines)), found, "{lines:?}");
        found
    };
    assert_eq!(ask(&[]), Ok(None));
    assert_eq!(ask(&[("keyfence-client-port", "40000")]), Ok(Some(40000)));
    for text in ["", "65536", "-1", "+1", "http", "80, 81"] {
        let found = ask(&[("keyfence-client-port", text)]);
        assert!(matches!(found, Err(AddressFault::NoPort(_))), "{text}: {found:?}");
    }
    let twice = [("keyfence-client-port", "1"), ("keyfence-client-port", "1")];
    assert!(matches!(ask(&twice), Err(AddressFault::Repeated(_))));
}

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
