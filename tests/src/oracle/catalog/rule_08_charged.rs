//! SPEC 3.8 (c): what a listed fragment costs.

use super::*;
use crate::oracle::frames::Extension;

const C: &str = "3.8 (c): what listed passes is charged packets and bytes, to the grants that let it through";
const ORDER: &str = "3.10: longest prefix first, then owner; the first whose own buckets pay is used";
const OWNER: &str = "3: a listed fragment's owner is the grant whose bucket paid; for limit-grant the first tried; no service is named";

const SERVICES: &str = r#"
[[service]]
name = "payments"
address = ["203.0.113.10", "2001:db8::/64"]
protocol = "tcp"
ports = [443]
limit = { packets = { rate = 1, burst = 1 } }
"#;

const PACKETS: &str = r#"
[[client]]
name = "three"
sources = ["198.51.100.0/24", "2001:db8:ac::/48"]
services = ["payments"]
limit = { packets = { rate = 1, burst = 3 } }
"#;

const BYTES: &str = r#"
[[client]]
name = "hundred"
sources = ["198.51.100.0/24"]
services = ["payments"]
limit = { bytes = { rate = 10, burst = 100 }, connections = { rate = 1, burst = 1 } }
"#;

const TWO: &str = r#"
[[client]]
name = "near"
sources = ["198.51.100.7"]
services = ["payments"]
limit = { packets = { rate = 1, burst = 1 } }

[[client]]
name = "far"
sources = ["198.51.100.0/24"]
services = ["payments"]
limit = { packets = { rate = 1, burst = 2 } }
"#;

const WATCHED: &str = r#"
[[service]]
name = "watched"
address = ["203.0.113.10"]
protocol = "tcp"
ports = [443]
mode = "observe"

[[service]]
name = "guarded"
address = ["203.0.113.11"]
protocol = "tcp"
ports = [443]

[[client]]
name = "one"
sources = ["198.51.100.0/24"]
services = ["*"]
limit = { packets = { rate = 1, burst = 1 } }
"#;

pub(super) fn pages() -> Vec<Page> {
    vec![packets(), bytes(), owners(), many(), observed()]
}

fn packets() -> Page {
    let mut p = Page::new(
        "08-charged-packets",
        "Rule 8 (c): packets",
        policy("", &format!("{SERVICES}{PACKETS}")),
    );
    let yes = pass("fragment").by("three");
    let no = drop("limit-grant").by("three");
    case!(
        p,
        "a stranger's fragments cost nobody anything",
        v4(STRANGER, API).tcp(1, 443).fragment(9, true),
        drop("fragment"),
        C
    )
    .times = 10;
    case!(
        p,
        "a later fragment costs a packet",
        v4(LISTED, API).tcp(1, 443).fragment(9, true),
        yes,
        C
    );
    case!(
        p,
        "of IPv6 too",
        v6(LISTED6, API6).ext(Extension::fragment(9, true)).tcp(1, 443),
        yes,
        C
    );
    case!(
        p,
        "of another protocol too",
        v4(LISTED, API).udp(1, 443).fragment(9, true),
        yes,
        C
    );
    case!(
        p,
        "the fourth is refused",
        v4(LISTED, API).tcp(1, 443).fragment(9, true),
        no,
        OWNER
    );
    case!(
        p,
        "a first fragment to no service is refused",
        v4(LISTED, API).tcp(1, 80).fragment(0, true),
        no,
        OWNER
    );
    case!(
        p,
        "a fragmented ping is refused",
        v4(LISTED, API).icmp(8, 0).fragment(9, true),
        no,
        OWNER
    );
    case!(
        p,
        "an ordinary packet finds the same bucket empty",
        v4(LISTED, API).tcp(1, 443),
        no.at("payments"),
        "3.10: a bucket is shared by all of its owner"
    );
    case!(
        p,
        "a fragment to no service's address pays nothing",
        v4(LISTED, ELSE).tcp(1, 443).fragment(9, true),
        pass("other"),
        C
    )
    .times = 5;
    case!(
        p,
        "after a second and a half one is let in",
        v4(LISTED, API).tcp(1, 443).fragment(9, true),
        yes,
        C
    )
    .at_ms = 1500;
    case!(
        p,
        "and no second one",
        v4(LISTED, API).tcp(1, 443).fragment(9, true),
        no,
        C
    );
    case!(
        p,
        "two fragments later",
        v4(LISTED, API).tcp(1, 443).fragment(9, true),
        yes,
        "3.8 (c): charged at source, grant and publisher level, not the service's"
    )
    .at_ms = 4000;
    case!(
        p,
        "the service's bucket is still whole",
        v4(LISTED, API).tcp(1, 443),
        allowed("payments", "three"),
        "3.8 (c): charged at source, grant and publisher level, not the service's"
    );
    p
}

fn bytes() -> Page {
    let mut p = Page::new(
        "08-charged-bytes",
        "Rule 8 (c): bytes, and no connections",
        policy("", &format!("{SERVICES}{BYTES}")),
    );
    let yes = pass("fragment").by("hundred");
    let no = drop("limit-grant").by("hundred");
    let later = || v4(LISTED, API).payload(6, vec![0; 20]).fragment(9, true);
    case!(p, "a fragment of 40 bytes costs 40", later(), yes, C);
    case!(
        p,
        "its padding costs nothing",
        later().frame().pad(20, 0),
        yes,
        "3.10: bytes are the IP packet's length"
    );
    case!(p, "a third of 40 is refused", later(), no, C);
    case!(
        p,
        "one of 20 is let in",
        v4(LISTED, API).payload(6, vec![]).fragment(9, true),
        yes,
        C
    );
    case!(
        p,
        "then the bucket is empty",
        v4(LISTED, API).payload(6, vec![]).fragment(9, true),
        no,
        C
    );
    case!(
        p,
        "after ten seconds it is full",
        v4(LISTED, API).tcp(1, 80).fragment(0, true),
        yes,
        "3.8 (c): packets and bytes, so a SYN in a fragment costs no connection"
    )
    .at_ms = 11_000;
    case!(
        p,
        "a second SYN in a fragment costs no connection either",
        v4(LISTED, API).tcp(1, 80).fragment(0, true),
        yes,
        "3.8 (c): packets and bytes, so a SYN in a fragment costs no connection"
    );
    p
}

fn owners() -> Page {
    let mut p = Page::new(
        "08-charged-owners",
        "Rule 8 (c): which of two owners pays",
        policy("", &format!("{SERVICES}{TWO}")),
    );
    let later = || v4(LISTED, API).tcp(1, 443).fragment(9, true);
    case!(
        p,
        "the longer prefix pays first",
        later(),
        pass("fragment").by("near"),
        ORDER
    );
    case!(p, "then the shorter", later(), pass("fragment").by("far"), ORDER).times = 2;
    case!(
        p,
        "then none, and the first tried is named",
        later(),
        drop("limit-grant").by("near"),
        OWNER
    );
    case!(
        p,
        "a source of the shorter alone",
        v4(ACME, API).tcp(1, 443).fragment(9, true),
        drop("limit-grant").by("far"),
        OWNER
    );
    p
}

/// Ten owners: a later fragment has no source port, so the trying begins at 0.
fn many() -> Page {
    let clients: String = (0..10)
        .map(|n| {
            format!(
                "\n[[client]]\nname = \"c{n}\"\nsources = [\"198.51.100.0/24\"]\nservices = [\"payments\"]\nlimit = {{ packets = {{ rate = 1, burst = 1 }} }}\n"
            )
        })
        .collect();
    let mut p = Page::new(
        "08-charged-many",
        "Rule 8 (c): more than eight owners",
        policy("", &format!("{SERVICES}{clients}")),
    );
    let why = "3.10: with n > 8, try eight from index (source port mod n; 0 where there is none)";
    for owner in ["c0", "c1", "c2", "c3", "c4", "c5", "c6", "c7"] {
        p.add(
            format!("{owner} pays"),
            "a later fragment whose payload begins as tcp 40003 > 443",
            v4(LISTED, API).tcp(40003, 443).fragment(9, true),
            pass("fragment").by(owner),
            why,
        );
    }
    case!(
        p,
        "the ninth is not asked",
        v4(LISTED, API).tcp(40003, 443).fragment(9, true),
        drop("limit-grant").by("c0"),
        why
    );
    case!(
        p,
        "a first fragment has a source port, and asks the ninth first",
        v4(LISTED, API).tcp(40008, 80).fragment(0, true),
        pass("fragment").by("c8"),
        why
    );
    case!(
        p,
        "a fragmented ping has none",
        v4(LISTED, API).icmp(8, 0).fragment(0, true),
        drop("limit-grant").by("c0"),
        why
    );
    p
}

fn observed() -> Page {
    let mut p = Page::new(
        "08-charged-observed",
        "Rules 8 (c) and (d): a listed fragment without budget, where services observe",
        policy("", WATCHED),
    );
    let why = "3.8 (d): what (a) drops is observed only if every service considered observes";
    case!(
        p,
        "the one packet there is",
        v4(LISTED, API).tcp(1, 443).fragment(9, true),
        pass("fragment").by("one"),
        C
    );
    case!(
        p,
        "to the service that observes",
        v4(LISTED, API).tcp(1, 443).fragment(9, true),
        observe("limit-grant").by("one"),
        why
    );
    case!(
        p,
        "to the service that enforces",
        v4(LISTED, "203.0.113.11").tcp(1, 443).fragment(9, true),
        drop("limit-grant").by("one"),
        why
    );
    case!(
        p,
        "(b) goes by the filter",
        v4(LISTED, API).udp(1, 443).fragment(9, true),
        drop("limit-grant").by("one"),
        "3.8 (d): (b) goes by the filter's mode"
    );
    p
}
