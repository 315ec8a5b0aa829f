//! SPEC 3.6.

use super::*;
use crate::oracle::frames::Extension;

const ERRORS: &str = "3.6: errors (IPv4 types 3, 11, 12; IPv6 types 1-4) and echo replies (0; 129) pass";
const PING: &str = "3.6: echo requests (8; 128) and later fragments of IPv4 ICMP follow ping";
const LISTED_PING: &str = "3.6: listed: from a source holding any grant that has not ended";
const OTHER: &str = "3.6: every other type follows other-traffic (as other)";
const LIMIT: &str = "3.6: held to the ICMP limits (limit-icmp); one bucket for errors and echo replies, a second for echo requests and ICMP fragments";

/// Sources whose grants have ended, are switched off, or ask for source ports.
const SPECIAL: &str = r#"
[[client]]
name = "over"
sources = ["198.18.0.0/24"]
services = ["payments"]
expires = 2026-10-01T00:00:00Z

[[client]]
name = "off"
sources = ["198.18.1.0/24"]
services = ["payments"]
enabled = false

[[client]]
name = "ported"
sources = ["198.18.2.0/24"]
source-ports = [5000]
services = ["payments"]
"#;

const BUDGET: &str = "[filter.icmp-limit]\npackets = { rate = 1, burst = 2 }\n";

pub(super) fn pages() -> Vec<Page> {
    vec![
        kinds("06-icmp-closed", CLOSED, drop("icmp"), drop("other")),
        kinds("06-icmp-open", OPEN, pass("icmp"), pass("other")),
        listed(),
        limit(),
        limit_after_ping(),
    ]
}

fn kinds(name: &'static str, filter: &str, ping: Expected, other: Expected) -> Page {
    let mut p = Page::new(name, "Rule 6: types of ICMP", policy(filter, ENTRIES));
    for (kind, code) in [(0, 0), (3, 0), (3, 4), (3, 255), (11, 0), (12, 0)] {
        p.add(
            format!("ICMP {kind} code {code} passes"),
            &format!("ICMP {kind}/{code} to a service's address"),
            v4(STRANGER, API).icmp(kind, code),
            pass("icmp"),
            ERRORS,
        );
    }
    for (kind, code) in [(1, 0), (1, 4), (2, 0), (3, 1), (4, 2), (129, 0)] {
        p.add(
            format!("ICMPv6 {kind} code {code} passes"),
            &format!("ICMPv6 {kind}/{code} to a service's address"),
            v6(STRANGER6, API6).icmp(kind, code),
            pass("icmp"),
            ERRORS,
        );
    }
    case!(
        p,
        "an error to no service's address passes",
        v4(STRANGER, ELSE).icmp(3, 4),
        pass("icmp"),
        ERRORS
    );
    case!(
        p,
        "an echo request follows ping",
        v4(STRANGER, API).icmp(8, 0),
        ping,
        PING
    );
    case!(
        p,
        "an echo request of a code follows ping",
        v4(STRANGER, API).icmp(8, 7),
        ping,
        PING
    );
    case!(
        p,
        "an echo request of a listed source follows ping",
        v4(LISTED, API).icmp(8, 0),
        ping,
        PING
    );
    case!(
        p,
        "an echo request to no service's address follows ping",
        v4(STRANGER, ELSE).icmp(8, 0),
        ping,
        PING
    );
    case!(
        p,
        "an IPv6 echo request follows ping",
        v6(STRANGER6, API6).icmp(128, 0),
        ping,
        PING
    );
    case!(
        p,
        "an IPv6 echo request behind extension headers follows ping",
        v6(STRANGER6, API6)
            .ext(Extension::hop_by_hop())
            .ext(Extension::fragment(0, false))
            .icmp(128, 0),
        ping,
        PING
    );
    case!(
        p,
        "a later fragment of ICMP follows ping",
        v4(STRANGER, ELSE).icmp(0, 0).fragment(9, false),
        ping,
        PING
    );
    case!(
        p,
        "a later fragment of ICMP with more to come follows ping",
        v4(STRANGER, ELSE).icmp(3, 0).fragment(1, true),
        ping,
        PING
    );
    case!(
        p,
        "a first fragment of an echo request follows ping",
        v4(STRANGER, ELSE).icmp(8, 0).fragment(0, true),
        ping,
        PING
    );
    case!(
        p,
        "a first fragment of an error passes",
        v4(STRANGER, ELSE).icmp(3, 4).fragment(0, true),
        pass("icmp"),
        ERRORS
    );
    for kind in [1, 2, 4, 5, 9, 10, 13, 15, 17, 42, 129, 255] {
        p.add(
            format!("ICMP {kind} is other traffic"),
            &format!("ICMP {kind}"),
            v4(STRANGER, API).icmp(kind, 0),
            other,
            OTHER,
        );
    }
    for kind in [0, 5, 8, 11, 100, 127, 138, 139, 144, 151, 200, 255] {
        p.add(
            format!("ICMPv6 {kind} is other traffic"),
            &format!("ICMPv6 {kind}"),
            v6(STRANGER6, API6).icmp(kind, 0),
            other,
            OTHER,
        );
    }
    case!(
        p,
        "ICMP in IPv6 is other traffic",
        v6(STRANGER6, API6).payload(1, vec![3, 0, 0, 0, 0, 0, 0, 0]),
        other,
        "3.2: ICMP in IPv6 is another protocol"
    );
    case!(
        p,
        "ICMPv6 in IPv4 is other traffic",
        v4(STRANGER, API).payload(58, vec![129, 0, 0, 0, 0, 0, 0, 0]),
        other,
        "3.2: ICMPv6 in IPv4 is another protocol"
    );
    p
}

fn listed() -> Page {
    let filter = "other-traffic = \"drop\"\nping = \"listed\"\n";
    let mut p = Page::new(
        "06-ping-listed",
        "Rule 6: ping = listed",
        policy(filter, &format!("{ENTRIES}{SPECIAL}")),
    );
    case!(
        p,
        "a listed source may ping",
        v4(LISTED, API).icmp(8, 0),
        pass("icmp"),
        LISTED_PING
    );
    case!(
        p,
        "a listed source may ping any address",
        v4(ACME, ELSE).icmp(8, 0),
        pass("icmp"),
        LISTED_PING
    );
    case!(
        p,
        "a listed IPv6 source may ping",
        v6(LISTED6, API6).icmp(128, 0),
        pass("icmp"),
        LISTED_PING
    );
    case!(
        p,
        "a stranger may not",
        v4(STRANGER, API).icmp(8, 0),
        drop("icmp"),
        LISTED_PING
    );
    case!(
        p,
        "an IPv6 stranger may not",
        v6(STRANGER6, API6).icmp(128, 0),
        drop("icmp"),
        LISTED_PING
    );
    case!(
        p,
        "management alone is no grant",
        v4(ADMIN, API).icmp(8, 0),
        drop("icmp"),
        LISTED_PING
    );
    case!(
        p,
        "an ended grant is none",
        v4("198.18.0.7", API).icmp(8, 0),
        drop("icmp"),
        LISTED_PING
    );
    case!(
        p,
        "a client that is off has no grant",
        v4("198.18.1.7", API).icmp(8, 0),
        drop("icmp"),
        LISTED_PING
    );
    case!(
        p,
        "a grant that asks for source ports is one",
        v4("198.18.2.7", API).icmp(8, 0),
        pass("icmp"),
        LISTED_PING
    );
    case!(
        p,
        "a stranger's echo reply passes",
        v4(STRANGER, API).icmp(0, 0),
        pass("icmp"),
        ERRORS
    );
    case!(
        p,
        "a listed source's later fragment of ICMP passes",
        v4(LISTED, ELSE).icmp(8, 0).fragment(9, false),
        pass("icmp"),
        PING
    );
    case!(
        p,
        "a stranger's later fragment of ICMP does not",
        v4(STRANGER, ELSE).icmp(8, 0).fragment(9, false),
        drop("icmp"),
        PING
    );
    case!(
        p,
        "a listed source's timestamp request is other traffic",
        v4(LISTED, API).icmp(13, 0),
        drop("other"),
        OTHER
    );
    p
}

fn limit() -> Page {
    let mut p = Page::new(
        "06-icmp-limit",
        "Rule 6: the two ICMP buckets, 2 packets each and 1 a second",
        policy(&format!("{OPEN}{BUDGET}"), ENTRIES),
    );
    case!(
        p,
        "two errors are the burst of the first bucket",
        v4(STRANGER, API).icmp(3, 4),
        pass("icmp"),
        LIMIT
    )
    .times = 2;
    case!(
        p,
        "a third error is refused",
        v4(STRANGER, API).icmp(11, 0),
        drop("limit-icmp"),
        LIMIT
    );
    case!(
        p,
        "an echo reply pays from the same bucket",
        v4(LISTED, API).icmp(0, 0),
        drop("limit-icmp"),
        LIMIT
    );
    case!(
        p,
        "so does ICMPv6",
        v6(LISTED6, API6).icmp(129, 0),
        drop("limit-icmp"),
        LIMIT
    );
    case!(
        p,
        "an echo request pays from the second",
        v4(STRANGER, API).icmp(8, 0),
        pass("icmp"),
        LIMIT
    );
    case!(
        p,
        "other types pay nothing",
        v4(STRANGER, API).icmp(13, 0),
        pass("other"),
        OTHER
    )
    .times = 5;
    case!(
        p,
        "neighbour discovery pays nothing",
        v6("fe80::1", API6).icmp(135, 0).hop_limit(255),
        pass("essential"),
        "3.3 comes before 3.6"
    )
    .times = 5;
    case!(
        p,
        "a later fragment of ICMP pays from the second",
        v4(STRANGER, ELSE).icmp(8, 0).fragment(9, false),
        pass("icmp"),
        LIMIT
    );
    case!(
        p,
        "an IPv6 echo request finds the second empty",
        v6(STRANGER6, API6).icmp(128, 0),
        drop("limit-icmp"),
        LIMIT
    );
    case!(
        p,
        "a first fragment of an error finds the second empty",
        v4(STRANGER, ELSE).icmp(3, 4).fragment(0, true),
        drop("limit-icmp"),
        LIMIT
    );
    case!(
        p,
        "a later fragment of ICMP finds the second empty",
        v4(STRANGER, ELSE).icmp(8, 0).fragment(9, false),
        drop("limit-icmp"),
        LIMIT
    );
    case!(
        p,
        "to a service's address too, before fragments is asked",
        v4(LISTED, API).icmp(8, 0).fragment(9, false),
        drop("limit-icmp"),
        LIMIT
    );
    case!(
        p,
        "after a second and a half an error passes",
        v4(STRANGER, API).icmp(3, 4),
        pass("icmp"),
        LIMIT
    )
    .at_ms = 1500;
    case!(
        p,
        "and no second one",
        v4(STRANGER, API).icmp(12, 0),
        drop("limit-icmp"),
        LIMIT
    );
    case!(
        p,
        "a first fragment of an echo reply pays from the second",
        v6(STRANGER6, ELSE6)
            .ext(Extension::fragment(0, true))
            .icmp(129, 0),
        pass("icmp"),
        LIMIT
    );
    case!(
        p,
        "and leaves nothing to an echo request",
        v4(LISTED, API).icmp(8, 0),
        drop("limit-icmp"),
        LIMIT
    );
    case!(
        p,
        "a service is not touched",
        v4(LISTED, API).tcp(1, 443),
        allowed("payments", "acme"),
        LIMIT
    )
    .times = 5;
    p
}

fn limit_after_ping() -> Page {
    let filter = format!("ping = \"listed\"\n{BUDGET}");
    let mut p = Page::new(
        "06-icmp-limit-after-ping",
        "Rule 6: what ping refuses pays nothing",
        policy(&filter, ENTRIES),
    );
    case!(
        p,
        "strangers are refused by ping",
        v4(STRANGER, API).icmp(8, 0),
        drop("icmp"),
        PING
    )
    .times = 10;
    case!(
        p,
        "a denied source is refused before",
        v4(DENIED, API).icmp(8, 0),
        drop("denied"),
        "3.5 comes before 3.6"
    )
    .times = 10;
    case!(
        p,
        "and a listed source finds the burst whole",
        v4(LISTED, API).icmp(8, 0),
        pass("icmp"),
        LIMIT
    )
    .times = 2;
    case!(
        p,
        "but no more than that",
        v4(LISTED, API).icmp(8, 0),
        drop("limit-icmp"),
        LIMIT
    );
    p
}
