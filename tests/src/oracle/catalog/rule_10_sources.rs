//! Rule 10's first level: the source's own buckets.

use super::*;
use crate::oracle::frames::{Extension, SYN, Tcp};

const ENTRIES_OF_TWO: &str = r#"
[[service]]
name = "payments"
address = ["203.0.113.10", "2001:db8::/64"]
protocol = "tcp"
ports = [443]

[[client]]
name = "acme"
sources = ["198.51.100.0/24", "2001:db8:ac::/48"]
services = ["payments"]
limit = { packets = { rate = 1, burst = 5 } }
"#;

pub(super) fn pages() -> Vec<Page> {
    vec![packets(), ipv6(), lookalikes(), levels(), fragments()]
}

const ORDER: &str = "3.10: in this order: the source's own, the grant's, its publisher's, the service's";

fn packets() -> Page {
    let mut p = Page::new(
        "10-source-packets",
        "Rule 10: one bucket for each listed source address, asked before the grant's",
        policy(
            "source-limit = { packets = { rate = 1, burst = 2 } }\n",
            ENTRIES_OF_TWO,
        ),
    );
    let refused = drop("limit-source").at("payments");
    let from = |source| v4(source, API).tcp(40000, 443);
    case!(
        p,
        "a stranger has no bucket to spend",
        from(STRANGER),
        drop("unlisted").at("payments"),
        "2: one bucket for each listed source address"
    )
    .times = 5;
    case!(
        p,
        "a source spends its own",
        from(LISTED),
        allowed("payments", "acme"),
        ORDER
    )
    .times = 2;
    case!(
        p,
        "its third packet is refused, and costs the grant nothing",
        from(LISTED),
        refused,
        ORDER
    )
    .times = 20;
    case!(
        p,
        "another source has a bucket of its own",
        from(ACME),
        allowed("payments", "acme"),
        ORDER
    )
    .times = 2;
    case!(
        p,
        "a third source has the grant's last packet",
        from("198.51.100.9"),
        allowed("payments", "acme"),
        ORDER
    );
    case!(
        p,
        "after that its grant refuses it, and its own packet stays taken",
        from("198.51.100.9"),
        drop("limit-grant").at("payments").by("acme"),
        "3.10: what is taken stays taken"
    );
    case!(
        p,
        "so that its own bucket refuses next",
        from("198.51.100.9"),
        refused,
        "3.10: what is taken stays taken"
    );
    case!(
        p,
        "after a second there is one again",
        from(LISTED),
        allowed("payments", "acme"),
        ORDER
    )
    .at_ms = 1100;
    p
}

fn ipv6() -> Page {
    let mut p = Page::new(
        "10-source-ipv6",
        "Rule 10: one bucket for each /64 of IPv6",
        policy(
            "source-limit = { packets = { rate = 1, burst = 1 } }\n",
            ENTRIES_OF_TWO,
        ),
    );
    let why = "2: one bucket for each listed source address (IPv6: each /64)";
    let from = |source| v6(source, API6).tcp(40000, 443);
    case!(
        p,
        "the first of a /64 passes",
        from("2001:db8:ac:1::7"),
        allowed("payments", "acme"),
        why
    );
    case!(
        p,
        "another address of the same /64 has the same bucket",
        from("2001:db8:ac:1:ffff::8"),
        drop("limit-source").at("payments"),
        why
    );
    case!(
        p,
        "the next /64 has its own",
        from("2001:db8:ac:2::7"),
        allowed("payments", "acme"),
        why
    );
    p
}

/// Addresses whose numbers meet in a shorter form of them.
fn lookalikes() -> Page {
    let mut p = Page::new(
        "10-source-lookalikes",
        "Rule 10: no source spends the bucket of one that only looks like it",
        policy(
            "source-limit = { packets = { rate = 1, burst = 1 } }\n",
            &ENTRIES_OF_TWO
                .replace(
                    "\"198.51.100.0/24\", \"2001:db8:ac::/48\"",
                    "\"0.0.0.0/0\", \"::/0\"",
                )
                .replace("burst = 5", "burst = 20"),
        ),
    );
    let why = "2: one bucket for each listed source address (IPv6: each /64)";
    let fours = ["198.51.100.7", "0.0.0.0", "255.255.255.255"];
    let sixes = [
        "0:0:c633:6407::1",
        "0:ffff:c633:6407::1",
        "::7",
        "ffff:ffff:ffff:ffff::7",
    ];
    for (time, expected) in [
        ("has its own", allowed("payments", "acme")),
        ("has it once", drop("limit-source").at("payments")),
    ] {
        for source in fours {
            let name = format!("{source} {time}");
            case!(p, &name, v4(source, API).tcp(40000, 443), expected, why);
        }
        for source in sixes {
            let name = format!("the /64 of {source} {time}");
            case!(p, &name, v6(source, API6).tcp(40000, 443), expected, why);
        }
    }
    p
}

fn levels() -> Page {
    let limits =
        "source-limit = { bytes = { rate = 10, burst = 100 }, connections = { rate = 1, burst = 1 } }\n";
    let mut p = Page::new(
        "10-source-levels",
        "Rule 10: a source's bytes and connections have buckets of their own",
        policy(limits, ENTRIES_OF_TWO),
    );
    let why = "3.10: at each level packets, then bytes, then connections; what is taken stays taken";
    let refused = drop("limit-source").at("payments");
    let send = |flags| {
        v4(LISTED, API).tcp_with(Tcp {
            flags,
            ..Tcp::new(40000, 443)
        })
    };
    case!(
        p,
        "one connection of 40 bytes",
        send(SYN),
        allowed("payments", "acme"),
        why
    );
    case!(
        p,
        "a second connection is refused, and its 40 bytes are taken",
        send(SYN),
        refused,
        why
    );
    case!(
        p,
        "no bytes are left for a third packet",
        send(0x10),
        refused,
        why
    );
    p
}

fn fragments() -> Page {
    let mut p = Page::new(
        "10-source-fragments",
        "Rules 8 (c) and 10: listed fragments are charged to the source as well",
        policy(
            "source-limit = { packets = { rate = 1, burst = 2 } }\n",
            ENTRIES_OF_TWO,
        ),
    );
    let why = "3.8 (c): what listed passes is charged packets and bytes at source, grant and publisher level";
    let later = || v4(LISTED, API).tcp(40000, 443).fragment(9, true);
    case!(
        p,
        "two later fragments pass",
        later(),
        pass("fragment").by("acme"),
        why
    )
    .times = 2;
    case!(
        p,
        "the third is the source's third packet",
        later(),
        drop("limit-source"),
        why
    );
    case!(
        p,
        "of IPv6 too",
        v6(LISTED6, API6)
            .ext(Extension::fragment(9, true))
            .tcp(40000, 443),
        pass("fragment").by("acme"),
        why
    )
    .times = 2;
    p
}
