//! Publishers, and what is read at start only: listeners, credentials, authorize, records, sinks, daemon.

use std::time::Duration;

use super::{BASE, NOT_CORRECTED, fault, load_text, told, warning};
use crate::policy::model::{Limits, ListenerAddress, Policy, PublisherIdentity, Role, ServiceSet, SinkType};

/// One that may open something, unless `keys` say what.
fn publisher(keys: &str) -> String {
    let opens = match keys.contains("services") {
        true => "",
        false => "services = [\"web\"]\nenvironments = [\"production\"]\n",
    };
    format!("[[publisher]]\nname = \"gateway\"\n{keys}\n{opens}")
}

fn listener(keys: &str) -> String {
    format!("[[listener]]\n{keys}\n")
}

#[track_caller]
fn policy(entries: &str) -> Policy {
    let loaded = load_text(&format!("{BASE}{entries}"));
    assert_eq!(told(&loaded), Vec::<String>::new());
    loaded.policy.unwrap()
}

#[test]
fn a_publisher_has_exactly_one_identity() {
    fault(
        "identity",
        "«[[publisher]]»\nname = \"a\"",
        "add exactly one of them",
        "[[publisher]]\nuser = \"a\"",
    );
    let fix = "write exactly one of user, group, socket and certificate";
    fault(
        "identity",
        &publisher("user = \"a\"\ngroup = «\"b\"»"),
        fix,
        NOT_CORRECTED,
    );
    let exactly = "write exactly one of uri, dns and email";
    fault(
        "identity",
        &publisher("certificate = «{}»"),
        exactly,
        "{ dns = \"a.example\" }",
    );
    fault(
        "identity",
        &publisher("certificate = «{ uri = \"a\", dns = \"b\" }»"),
        exactly,
        "{ email = \"a@b\" }",
    );
    fault(
        "bad-account",
        &publisher("user = «\"a b\"»"),
        "write the name of a Unix account, such as www-data",
        "\"33\"",
    );
    let second = format!(
        "{}[[publisher]]\nname = \"b\"\nuser = «\"a\"»",
        publisher("user = \"a\"")
    );
    let message = fault("repeated", &second, "remove or change one", "\"b\"");
    assert_eq!(
        message,
        "a second publisher has `user a`; the first is at policy.toml:21"
    );
    let of = |keys: &str| policy(&publisher(keys)).publishers[0].identity.clone();
    assert_eq!(
        of("user = \"www-data\""),
        PublisherIdentity::User("www-data".into())
    );
    assert_eq!(of("group = \"1000\""), PublisherIdentity::Group("1000".into()));
    let certificate = PublisherIdentity::Certificate {
        kind: "uri".into(),
        value: "spiffe://a/b".into(),
    };
    assert_eq!(of("certificate = { uri = \"spiffe://a/b\" }"), certificate);
}

#[test]
fn a_publishers_socket_is_a_listeners() {
    let listeners = listener("address = \"unix:/run/a.sock\"")
        + &listener("address = \"unix:/run/b.sock\"\nroles = [\"read\"]");
    let text = |socket: &str| format!("{listeners}{}", publisher(&format!("socket = {socket}")));
    fault(
        "unknown-listener",
        &text("«\"unix:/run/aa.sock\"»"),
        "did you mean `unix:/run/a.sock`?",
        "\"unix:/run/a.sock\"",
    );
    fault(
        "unknown-listener",
        &text("«\"unix:/run/b.sock\"»"),
        "add publish to its roles",
        "\"unix:/run/a.sock\"",
    );
    let fix = "write \"unix:/…\", the address of a listener";
    fault(
        "bad-address",
        &text("«\"/run/a.sock\"»"),
        fix,
        "\"unix:/run/a.sock\"",
    );
}

#[test]
fn a_publisher_that_may_open_nothing_is_a_warning() {
    let text = |keys: &str| format!("[[publisher]]\nuser = \"a\"\nname = «\"a\"»\n{keys}\n");
    for (keys, fix, message) in [
        (
            "environments = [\"production\"]",
            "write services = [\"…\"], or [\"*\"] for all of its environments",
            "it has no services",
        ),
        (
            "services = [\"web\"]",
            "write environments = [\"production\"]",
            "it has no environments",
        ),
        (
            "services = [\"*\"]\nenvironments = [\"sandbox\"]",
            "write environments = [\"production\"]",
            "none of its services is of one of its environments",
        ),
    ] {
        let found = warning("publisher-opens-nothing", &text(keys), fix, NOT_CORRECTED);
        assert_eq!(found, format!("the publisher may open nothing: {message}"));
    }
    policy(&publisher("user = \"a\""));
    policy(&publisher(
        "user = \"a\"\nservices = [\"*\"]\nenvironments = [\"sandbox\", \"production\"]",
    ));
}

#[test]
fn a_publisher_has_bounds_and_defaults() {
    let publisher_of = |keys: &str| {
        policy(&publisher(&format!("user = \"a\"\n{keys}")))
            .publishers
            .remove(0)
    };
    let bare = load_text(&format!("{BASE}[[publisher]]\nname = \"a\"\nuser = \"a\"\n"));
    let default = bare.policy.unwrap().publishers.remove(0);
    assert_eq!(default.services, ServiceSet::Some(Vec::new()));
    assert_eq!(default.environments, Vec::<String>::new());
    assert_eq!((default.bindings_max, default.sources_max), (100_000, 256));
    assert_eq!((default.widest_ipv4, default.widest_ipv6), (32, 64));
    assert_eq!(default.lease_max, Some(Duration::from_secs(86_400)));
    assert_eq!(
        (default.lease_hold, default.revoke_max_percent),
        (Duration::ZERO, 10.0)
    );
    assert_eq!(
        (default.limit_default, default.limit_max, default.limit),
        Default::default()
    );
    assert_eq!(default.requests, None);
    let written = publisher_of(
        "lease-max = \"none\"\nrevoke-max = \"0.5%\"\nwidest-prefix = { ipv4 = 24 }\nservices = [\"*\"]\nenvironments = [\"production\"]",
    );
    assert_eq!((written.lease_max, written.revoke_max_percent), (None, 0.5));
    assert_eq!(
        (written.widest_ipv4, written.widest_ipv6, written.services),
        (24, 64, ServiceSet::All)
    );
    let text = |keys: &str| publisher(&format!("user = \"a\"\n{keys}"));
    fault(
        "out-of-bounds",
        &text("bindings-max = «0»"),
        "write 1 to 10000000",
        "\"1M\"",
    );
    fault(
        "out-of-bounds",
        &text("widest-prefix = { ipv4 = «33» }"),
        "write 0 to 32",
        "32",
    );
    fault(
        "out-of-bounds",
        &text("lease-max = «\"500ms\"»"),
        "write 1s to 3650d",
        "\"1s\"",
    );
    fault(
        "wrong-type",
        &text("lease-hold = «30»"),
        "write \"30s\"",
        "\"30s\"",
    );
    let duration = "write text such as \"90s\" or \"1h30m\"; units are ms, s, m, h, d";
    fault(
        "bad-duration",
        &text("lease-max = «\"day\"»"),
        duration,
        "\"none\"",
    );
    fault(
        "bad-duration",
        &text("lease-max = «\"2hours\"»"),
        "did you mean `h`?",
        "\"2h\"",
    );
    fault(
        "bad-duration",
        &text("lease-max = «\"30m1h\"»"),
        "write d, h, m, s, ms in this order, each once",
        "\"1h30m\"",
    );
    let percent = "write text such as \"10%\", from 0% to 100%";
    fault(
        "out-of-bounds",
        &text("revoke-max = «\"101%\"»"),
        percent,
        "\"100%\"",
    );
    fault("bad-quantity", &text("revoke-max = «\"10\"»"), percent, "\"10%\"");
    fault("wrong-type", &text("revoke-max = «10»"), percent, "\"0%\"");
    fault(
        "unknown-service",
        &text("services = [«\"wb\"»]"),
        "did you mean `web`?",
        "\"web\"",
    );
}

#[test]
fn listeners_without_any_written_are_the_two_of_the_defaults() {
    let listeners = policy("").listeners;
    assert_eq!(
        listeners[0].address,
        ListenerAddress::Unix("/run/keyfence/api.sock".into())
    );
    assert_eq!(
        listeners[0].roles,
        [
            Role::Publish,
            Role::Authorize,
            Role::Read,
            Role::Operate,
            Role::Deny
        ]
    );
    assert_eq!(
        (listeners[0].mode, listeners[0].group.as_str()),
        (0o660, "keyfence")
    );
    assert_eq!(
        listeners[1].address,
        ListenerAddress::Tcp("127.0.0.1:9469".parse().unwrap())
    );
    assert_eq!(listeners[1].roles, [Role::Metrics]);
    assert!(
        listeners
            .iter()
            .all(|listener| listener.origin.is_none() && !listener.roles_written)
    );
    let written = policy(&listener(
        "address = \"unix:/run/a.sock\"\nmode = \"0600\"\ngroup = \"www\"",
    ))
    .listeners;
    assert_eq!(
        (written.len(), written[0].mode, written[0].group_written),
        (1, 0o600, true)
    );
}

#[test]
fn listeners_have_addresses_and_stand_once() {
    let fix = "write \"unix:/…\" (a path of at most 107 bytes), \"tcp:127.0.0.1:9469\" or \"tcp:[::1]:9469\"";
    let long = format!("unix:/{}", "a".repeat(107));
    for bad in [
        "/run/a.sock",
        "unix:a.sock",
        "unix:/",
        "tcp:localhost:80",
        "tcp:127.0.0.1",
        "tcp:127.0.0.1:0",
        &long,
    ] {
        fault(
            "bad-address",
            &listener(&format!("address = «\"{bad}\"»")),
            fix,
            "\"tcp:[::1]:9469\"",
        );
    }
    let twice = listener("address = \"unix:/run/a.sock\"") + &listener("address = «\"unix:/run/a.sock\"»");
    let message = fault("repeated", &twice, "remove or change one", "\"unix:/run/b.sock\"");
    assert_eq!(
        message,
        "a second listener has `unix:/run/a.sock`; the first is at policy.toml:20"
    );
}

#[test]
fn plain_tcp_is_loopback_and_reads_only() {
    let fix = "listen at 127.0.0.1 or [::1], or add tls";
    fault(
        "plain-tcp",
        &listener("address = «\"tcp:0.0.0.0:9469\"»\nroles = [\"metrics\"]"),
        fix,
        "\"tcp:127.0.0.2:9469\"",
    );
    let roles = |role: &str| {
        listener(&format!(
            "address = \"tcp:127.0.0.1:9469\"\nroles = «[\"read\", \"{role}\"]»"
        ))
    };
    for role in ["publish", "operate", "deny"] {
        fault(
            "plain-tcp",
            &roles(role),
            "remove it, add tls, or listen at a Unix socket",
            "[\"read\", \"authorize\", \"metrics\"]",
        );
    }
    let tls = |ca: &str| {
        let tls = format!("tls = {{ certificate = \"/a.crt\", key = \"/a.key\"{ca} }}");
        listener(&format!(
            "address = \"tcp:203.0.113.1:8443\"\nroles = «[\"publish\"]»\n{tls}"
        ))
    };
    fault(
        "plain-tcp",
        &tls(""),
        "add client-ca to tls, or remove the role",
        "[\"authorize\"]",
    );
    let with_ca = tls(", client-ca = \"/ca.crt\"").replace(['«', '»'], "");
    assert_eq!(
        policy(&with_ca).listeners[0].tls.as_ref().unwrap().client_ca,
        Some("/ca.crt".into())
    );
}

#[test]
fn keys_of_the_other_kind_of_listener_are_faults() {
    let unix = "address = \"unix:/run/a.sock\"\ntls = «{ certificate = \"/a\", key = \"/b\" }»";
    fault("key-without-effect", &listener(unix), "remove it", NOT_CORRECTED);
    fault(
        "key-without-effect",
        &listener("address = \"tcp:[::1]:1\"\nmode = «\"0600\"»"),
        "remove it",
        NOT_CORRECTED,
    );
    let mode = |mode: &str| listener(&format!("address = \"unix:/run/a.sock\"\nmode = {mode}"));
    let fix = "write text of octal digits, such as \"0660\"";
    for bad in ["\"0888\"", "\"77\"", "\"1777\"", "\"\""] {
        fault("bad-mode", &mode(&format!("«{bad}»")), fix, "\"0600\"");
    }
    fault("wrong-type", &mode("«660»"), fix, "\"660\"");
    let roles = |roles: &str| listener(&format!("address = \"unix:/run/a.sock\"\nroles = {roles}"));
    fault(
        "unknown-word",
        &roles("[«\"metric\"»]"),
        "did you mean `metrics`?",
        "\"metrics\"",
    );
    fault(
        "repeated",
        &roles("[\"read\", «\"read\"»]"),
        "remove one",
        "\"deny\"",
    );
    fault("empty-list", &roles("«[]»"), "name at least one", "[\"read\"]");
}

#[test]
fn credentials_have_headers_secrets_and_a_pattern() {
    let text = |keys: &str| format!("[credentials]\n{keys}\n");
    let fix = "write \"X-Api-Key\" or \"Authorization: Bearer\"";
    fault(
        "bad-header",
        &text("header = [«\"X Api Key\"»]"),
        fix,
        "\"Authorization: Bearer\"",
    );
    let secret = "add secret-files = [{ id = \"k1\", file = \"/…\" }]";
    fault(
        "missing-key",
        &text("scheme = «\"hmac-sha256\"»"),
        secret,
        "\"hmac-sha256\"\nsecret-files = [{ id = \"k1\", file = \"/k1\" }]",
    );
    let files = |second: &str| {
        text(&format!(
            "secret-files = [{{ id = \"k1\", file = \"/k1\" }}, {second}]"
        ))
    };
    fault(
        "repeated",
        &files("{ id = «\"k1\"», file = \"/k2\" }"),
        "remove one",
        "\"k2\"",
    );
    fault(
        "bad-path",
        &files("{ id = \"k2\", file = «\"k2\"» }"),
        "write a path that begins with /",
        "\"/k2\"",
    );
    let message = fault(
        "bad-pattern",
        &text("id-pattern = «\"^[a\"»"),
        "correct it",
        "\"^[a-z]+$\"",
    );
    assert!(
        message.starts_with("`id-pattern` is no regular expression: "),
        "{message}"
    );
    assert!(
        load_text(&format!("{BASE}{}", text("id-pattern = \"(a{1000}){1000}\"")))
            .policy
            .is_none()
    );
    let default = policy("").credentials;
    assert_eq!(default.header, ["X-Api-Key", "Authorization: Bearer"]);
    assert_eq!(default.id_pattern, "^[A-Za-z0-9][A-Za-z0-9._@:-]{0,127}$");
    assert!(default.origin.is_none() && policy(&text("")).credentials.origin.is_some());
}

#[test]
fn forwarded_addresses_need_trusted_proxies() {
    let text = |keys: &str| format!("[authorize]\n{keys}\n");
    let fix = "add trusted-proxies = [\"192.0.2.1\"]";
    fault(
        "missing-key",
        &text("address-header = «\"x-forwarded-for\"»"),
        fix,
        "\"X-Forwarded-For\"\ntrusted-proxies = [\"10.0.0.0/8\"]",
    );
    fault(
        "host-bits",
        &text("trusted-proxies = [«\"10.0.0.1/8\"»]"),
        "write 10.0.0.0/8 or 10.0.0.1/32",
        "\"10.0.0.1\"",
    );
    assert_eq!(policy("").authorize.address_header, "Keyfence-Client-Address");
}

#[test]
fn records_and_sinks_have_bounds_and_defaults() {
    let records = |keys: &str| format!("[records]\n{keys}\n");
    fault(
        "out-of-bounds",
        &records("interval = «\"2h\"»"),
        "write 1s to 1h",
        "\"1m\"",
    );
    fault(
        "unknown-word",
        &records("addresses = «\"none\"»"),
        "write one of full, prefix, hmac",
        "\"hmac\"",
    );
    let sink = |keys: &str| format!("[[sink]]\n{keys}\n");
    fault(
        "unknown-word",
        &sink("type = «\"files\"»"),
        "did you mean `file`?",
        "\"file\"",
    );
    fault(
        "bad-path",
        &sink("path = «\"drops.jsonl\"»"),
        "write a path that begins with /",
        "\"/drops.jsonl\"",
    );
    fault(
        "out-of-bounds",
        &sink("rotate-size = \"2MB\"\nkeep-size = «\"1MB\"»"),
        "write at least what rotate-size is",
        "\"2MB\"",
    );
    fault(
        "key-without-effect",
        &sink("type = \"journald\"\npath = «\"/a\"»"),
        "remove it",
        NOT_CORRECTED,
    );
    fault(
        "repeated",
        &format!("{}{}", sink("path = \"/a\""), sink("path = «\"/a\"»")),
        "remove or change one",
        "\"/b\"",
    );
    let default = policy("");
    assert_eq!(
        (
            default.sinks.len(),
            default.sinks[0].kind,
            default.sinks[0].rotate_size
        ),
        (1, SinkType::File, 100_000_000)
    );
    assert_eq!(
        (default.sinks[0].keep_size, default.sinks[0].keep_age),
        (2_000_000_000, Duration::from_secs(90 * 86_400))
    );
    assert!(!default.records.written && default.sinks[0].origin.is_none());
    let written = policy(&sink("type = \"stdout\""));
    assert!(written.records.written && written.records.origin.is_none() && written.sinks[0].origin.is_some());
}

#[test]
fn the_daemon_has_an_instance_a_state_and_operators() {
    let text = |keys: &str| format!("[daemon]\n{keys}\n");
    fault(
        "bad-path",
        &text("state = «\"state\"»"),
        "write a path that begins with /",
        "\"/state\"",
    );
    let fix = "write a user such as root, or a group such as @wheel";
    fault(
        "bad-account",
        &text("operators = [\"root\", «\"@\"»]"),
        fix,
        "\"@wheel\"",
    );
    fault(
        "repeated",
        &text("operators = [\"root\", «\"root\"»]"),
        "remove one",
        "\"@wheel\"",
    );
    fault(
        "unknown-word",
        &text("on-exit = «\"stay\"»"),
        "write one of keep, detach",
        "\"detach\"",
    );
    let daemon = policy("").daemon;
    assert_eq!((daemon.instance.as_str(), daemon.operators.len()), ("main", 1));
    assert_eq!(daemon.state.to_str(), Some("/var/lib/keyfence"));
    assert_eq!(Limits::default().packets, None);
}
