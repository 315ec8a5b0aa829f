//! SPEC 3.8, (a), (b) and (d).

use super::*;
use crate::oracle::frames::Extension;

const A: &str = "3.8 (a): a later fragment of TCP, UDP or an unknown protocol, whose address and protocol some service has: fragments decides";
const A_LISTED: &str =
    "3.8 (a): listed asks for a grant for one of these services that has not ended, source ports aside";
const A_NONE: &str = "3.8 (a): where no service has them, other-traffic decides (other)";
const B: &str = "3.8 (b): if rules 6 and 7 would pass it and its address is some service's, fragments decides; listed asks for any grant that has not ended";
const B_ELSE: &str = "3.8 (b): its address is no service's, so rules 6 and 7 decide";
const FIRST: &str = "3.8: a first fragment that names a service goes on to rule 9";
const D: &str = "3.8 (d): what (a) drops is observed only if every service considered observes; (b) goes by the filter's mode";

const SPECIAL: &str = r#"
[[client]]
name = "ported"
sources = ["198.18.0.0/24"]
source-ports = [5000]
services = ["payments"]

[[client]]
name = "over"
sources = ["198.18.1.0/24", "2001:db8:1:1::/64"]
services = ["payments"]
expires = 2026-10-01T00:00:00Z

[[client]]
name = "off"
sources = ["198.18.2.0/24"]
services = ["payments"]
enabled = false
"#;

/// Two services at one address, of which one observes.
const MIXED: &str = r#"
[[service]]
name = "watched"
address = ["203.0.113.10", "2001:db8::10"]
protocol = "tcp"
ports = [443]
mode = "observe"

[[service]]
name = "guarded"
address = ["203.0.113.10", "2001:db8::10"]
protocol = "udp"
ports = [443]
mode = "enforce"

[[service]]
name = "watched-too"
address = ["203.0.113.11", "2001:db8::11"]
protocol = ["tcp", "udp"]
ports = [443]
mode = "observe"

[[client]]
name = "acme"
sources = ["198.51.100.0/24", "2001:db8:ac::/48"]
services = ["watched"]
"#;

pub(super) fn pages() -> Vec<Page> {
    vec![
        listed(),
        listed_elsewhere(),
        dropped(),
        passed(),
        closed(),
        mixed("08-observe-service", false),
        mixed("08-observe-filter", true),
    ]
}

fn later6(source: &str, destination: &str) -> crate::oracle::frames::Ipv6 {
    v6(source, destination).ext(Extension::fragment(9, true))
}

fn listed() -> Page {
    let filter = "fragments = \"listed\"\n";
    let mut p = Page::new(
        "08-listed-later",
        "Rule 8 (a): fragments = listed",
        policy(filter, &format!("{ENTRIES}{SPECIAL}")),
    );
    let by = |owner| pass("fragment").by(owner);
    case!(
        p,
        "a listed source's later TCP fragment passes",
        v4(LISTED, API).tcp(1, 443).fragment(9, true),
        by("acme"),
        A_LISTED
    );
    case!(
        p,
        "the last fragment passes too",
        v4(LISTED, API).tcp(1, 443).fragment(9, false),
        by("acme"),
        A_LISTED
    );
    case!(
        p,
        "what looks like another port in it is payload",
        v4(LISTED, API).tcp(1, 80).fragment(9, false),
        by("acme"),
        "3.7: not for later fragments"
    );
    case!(
        p,
        "a later fragment without payload passes",
        v4(LISTED, API).payload(6, vec![]).fragment(9, false),
        by("acme"),
        A_LISTED
    );
    case!(
        p,
        "a stranger's later TCP fragment is dropped",
        v4(STRANGER, API).tcp(1, 443).fragment(9, true),
        drop("fragment"),
        A_LISTED
    );
    case!(
        p,
        "a stranger's last fragment is dropped",
        v4(STRANGER, API).tcp(1, 80).fragment(0x1fff, false),
        drop("fragment"),
        A_LISTED
    );
    case!(
        p,
        "a grant for another service lets no fragment in",
        v4(ACME, DNS).udp(1, 53).fragment(9, false),
        drop("fragment"),
        A_LISTED
    );
    case!(
        p,
        "a grant for this service does",
        v4(LISTED, DNS).udp(1, 53).fragment(9, false),
        by("branch"),
        A_LISTED
    );
    case!(
        p,
        "by TCP too",
        v4(LISTED, DNS).tcp(1, 53).fragment(9, false),
        by("branch"),
        A_LISTED
    );
    case!(
        p,
        "source ports are not asked",
        v4("198.18.0.7", API).tcp(6000, 443).fragment(9, false),
        by("ported"),
        A_LISTED
    );
    case!(
        p,
        "source ports are asked of the first fragment",
        v4("198.18.0.7", API).tcp(6000, 443).fragment(0, true),
        drop("source-port").at("payments"),
        FIRST
    );
    case!(
        p,
        "an ended grant lets no fragment in",
        v4("198.18.1.7", API).tcp(1, 443).fragment(9, false),
        drop("fragment"),
        A_LISTED
    );
    case!(
        p,
        "a client that is off lets no fragment in",
        v4("198.18.2.7", API).tcp(1, 443).fragment(9, false),
        drop("fragment"),
        A_LISTED
    );
    case!(
        p,
        "a later IPv6 fragment of a listed source passes",
        later6(LISTED6, API6).tcp(1, 443),
        by("acme"),
        A_LISTED
    );
    case!(
        p,
        "whatever protocol it names",
        later6(LISTED6, API6).udp(1, 443),
        by("acme"),
        "3.2: in IPv6 a later fragment's protocol is always unknown"
    );
    case!(
        p,
        "ICMPv6 too",
        later6(ACME6, API6).icmp(128, 0),
        by("acme"),
        "3.2: in IPv6 a later fragment's protocol is always unknown"
    );
    case!(
        p,
        "no next header too",
        later6(LISTED6, API6),
        by("acme"),
        "3.2: in IPv6 a later fragment's protocol is always unknown"
    );
    case!(
        p,
        "a later IPv6 fragment of a stranger is dropped",
        later6(STRANGER6, API6).tcp(1, 443),
        drop("fragment"),
        A_LISTED
    );
    case!(
        p,
        "as GRE too",
        later6(STRANGER6, API6).payload(47, vec![0; 8]),
        drop("fragment"),
        "3.2: in IPv6 a later fragment's protocol is always unknown"
    );
    case!(
        p,
        "a grant for another service lets no IPv6 fragment in",
        later6(ACME6, DNS6).udp(1, 53),
        drop("fragment"),
        A_LISTED
    );
    case!(
        p,
        "a grant for this service lets an IPv6 fragment in",
        later6(LISTED6, DNS6).udp(1, 53),
        by("branch"),
        A_LISTED
    );
    case!(
        p,
        "an ended grant lets no IPv6 fragment in",
        later6("2001:db8:1:1::7", API6).tcp(1, 443),
        drop("fragment"),
        A_LISTED
    );
    case!(
        p,
        "to no service's address a TCP fragment is other traffic",
        v4(STRANGER, ELSE).tcp(1, 443).fragment(9, false),
        pass("other"),
        A_NONE
    );
    case!(
        p,
        "to no service's address an IPv6 fragment is other traffic",
        later6(STRANGER6, ELSE6).tcp(1, 443),
        pass("other"),
        A_NONE
    );
    case!(
        p,
        "a first fragment of a listed source is let in",
        v4(LISTED, API).tcp(1, 443).fragment(0, true),
        allowed("payments", "acme"),
        FIRST
    );
    case!(
        p,
        "a first fragment of a stranger is unlisted",
        v4(STRANGER, API).tcp(1, 443).fragment(0, true),
        drop("unlisted").at("payments"),
        FIRST
    );
    case!(
        p,
        "a first IPv6 fragment of a listed source is let in",
        v6(LISTED6, DNS6).ext(Extension::fragment(0, true)).udp(1, 53),
        allowed("resolver", "branch"),
        FIRST
    );
    case!(
        p,
        "a first IPv6 fragment of a stranger is unlisted",
        v6(STRANGER6, DNS6).ext(Extension::fragment(0, true)).udp(1, 53),
        drop("unlisted").at("resolver"),
        FIRST
    );
    p
}

fn listed_elsewhere() -> Page {
    let filter = "fragments = \"listed\"\n";
    let mut p = Page::new(
        "08-listed-other",
        "Rule 8 (b): fragments = listed",
        policy(filter, &format!("{ENTRIES}{SPECIAL}")),
    );
    // Of LISTED's grants branch's prefix is the longer.
    let by = |owner| pass("fragment").by(owner);
    case!(
        p,
        "UDP to an address of a TCP service, listed",
        v4(LISTED, API).udp(1, 443).fragment(9, false),
        by("branch"),
        B
    );
    case!(
        p,
        "with a grant for any service",
        v4(ACME, API).udp(1, 443).fragment(9, false),
        by("acme"),
        B
    );
    case!(
        p,
        "UDP to an address of a TCP service, stranger",
        v4(STRANGER, API).udp(1, 443).fragment(9, false),
        drop("fragment"),
        B
    );
    case!(
        p,
        "a later fragment of GRE, listed",
        v4(LISTED, API).payload(47, vec![0; 8]).fragment(9, false),
        by("branch"),
        B
    );
    case!(
        p,
        "a later fragment of GRE, stranger",
        v4(STRANGER, API).payload(47, vec![0; 8]).fragment(9, false),
        drop("fragment"),
        B
    );
    case!(
        p,
        "a later fragment of GRE to no service's address",
        v4(STRANGER, ELSE).payload(47, vec![0; 8]).fragment(9, false),
        pass("other"),
        B_ELSE
    );
    case!(
        p,
        "a first fragment of GRE, stranger",
        v4(STRANGER, API).payload(47, vec![0; 8]).fragment(0, true),
        drop("fragment"),
        B
    );
    case!(
        p,
        "a first fragment of GRE, listed",
        v4(ACME, DNS).payload(47, vec![0; 8]).fragment(0, true),
        by("acme"),
        B
    );
    case!(
        p,
        "a whole packet of GRE is no fragment",
        v4(STRANGER, API).payload(47, vec![0; 8]),
        pass("other"),
        B
    );
    case!(
        p,
        "a later fragment of ICMP, listed",
        v4(LISTED, API).icmp(8, 0).fragment(9, false),
        by("branch"),
        B
    );
    case!(
        p,
        "a later fragment of ICMP, stranger",
        v4(STRANGER, API).icmp(8, 0).fragment(9, false),
        drop("fragment"),
        B
    );
    case!(
        p,
        "a later fragment of ICMP to no service's address",
        v4(STRANGER, ELSE).icmp(8, 0).fragment(9, false),
        pass("icmp"),
        B_ELSE
    );
    case!(
        p,
        "a first fragment of ping, listed",
        v4(ACME, API).icmp(8, 0).fragment(0, true),
        by("acme"),
        B
    );
    case!(
        p,
        "a first fragment of ping, stranger",
        v4(STRANGER, API).icmp(8, 0).fragment(0, true),
        drop("fragment"),
        B
    );
    case!(
        p,
        "a first fragment of an error, stranger",
        v4(STRANGER, API).icmp(3, 4).fragment(0, true),
        drop("fragment"),
        B
    );
    case!(
        p,
        "a first fragment of a timestamp request, stranger",
        v4(STRANGER, API).icmp(13, 0).fragment(0, true),
        drop("fragment"),
        B
    );
    case!(
        p,
        "a first fragment of ICMPv6, stranger",
        v6(STRANGER6, API6).ext(Extension::fragment(0, true)).icmp(128, 0),
        drop("fragment"),
        B
    );
    case!(
        p,
        "a first fragment of ICMPv6, listed",
        v6(ACME6, API6).ext(Extension::fragment(0, true)).icmp(128, 0),
        by("acme"),
        B
    );
    case!(
        p,
        "a first fragment of ping to no service's address",
        v4(STRANGER, ELSE).icmp(8, 0).fragment(0, true),
        pass("icmp"),
        B_ELSE
    );
    case!(
        p,
        "a first TCP fragment to no service's port, stranger",
        v4(STRANGER, API).tcp(1, 80).fragment(0, true),
        drop("fragment"),
        B
    );
    case!(
        p,
        "a first TCP fragment to no service's port, listed",
        v4(ACME, API).tcp(1, 80).fragment(0, true),
        by("acme"),
        B
    );
    case!(
        p,
        "a first TCP fragment to another service's port, stranger",
        v4(STRANGER, DNS).tcp(1, 443).fragment(0, true),
        drop("fragment"),
        B
    );
    case!(
        p,
        "a first TCP fragment to no service's address",
        v4(STRANGER, ELSE).tcp(1, 80).fragment(0, true),
        pass("other"),
        B_ELSE
    );
    case!(
        p,
        "a first fragment without next header, stranger",
        v6(STRANGER6, API6).ext(Extension::fragment(0, true)),
        drop("fragment"),
        B
    );
    case!(
        p,
        "source ports are not asked",
        v4("198.18.0.7", API).udp(6000, 443).fragment(0, true),
        by("ported"),
        B
    );
    case!(
        p,
        "an ended grant is none",
        v4("198.18.1.7", API).udp(1, 443).fragment(9, false),
        drop("fragment"),
        B
    );
    case!(
        p,
        "a client that is off has no grant",
        v4("198.18.2.7", API).udp(1, 443).fragment(9, false),
        drop("fragment"),
        B
    );
    case!(
        p,
        "the reserved bits of a fragment header make no fragment",
        v6(STRANGER6, API6)
            .ext(Extension {
                number: 44,
                bytes: vec![0, 0xff, 0, 6, 0, 0, 0, 1]
            })
            .tcp(1, 80),
        pass("other"),
        "3.2: an atomic fragment (offset 0, no more) is an ordinary packet"
    );
    case!(
        p,
        "an atomic fragment is no fragment",
        v6(STRANGER6, API6).ext(Extension::fragment(0, false)).tcp(1, 80),
        pass("other"),
        "3.2: an atomic fragment is an ordinary packet"
    );
    p
}

fn dropped() -> Page {
    let filter = "fragments = \"drop\"\n";
    let mut p = Page::new("08-drop", "Rule 8: fragments = drop", policy(filter, ENTRIES));
    case!(
        p,
        "a listed source's later fragment is dropped",
        v4(LISTED, API).tcp(1, 443).fragment(9, true),
        drop("fragment"),
        A
    );
    case!(
        p,
        "a listed source's later IPv6 fragment is dropped",
        later6(LISTED6, API6).tcp(1, 443),
        drop("fragment"),
        A
    );
    case!(
        p,
        "a listed source's first fragment to the service is let in",
        v4(LISTED, API).tcp(1, 443).fragment(0, true),
        allowed("payments", "acme"),
        FIRST
    );
    case!(
        p,
        "a listed source's first fragment to no service is dropped",
        v4(LISTED, API).tcp(1, 80).fragment(0, true),
        drop("fragment"),
        B
    );
    case!(
        p,
        "a listed source's fragmented ping is dropped",
        v4(LISTED, API).icmp(8, 0).fragment(0, true),
        drop("fragment"),
        B
    );
    case!(
        p,
        "a listed source's GRE fragment is dropped",
        v4(LISTED, API).payload(47, vec![]).fragment(9, true),
        drop("fragment"),
        B
    );
    case!(
        p,
        "a fragment to no service's address is other traffic",
        v4(STRANGER, ELSE).tcp(1, 443).fragment(9, true),
        pass("other"),
        A_NONE
    );
    case!(
        p,
        "a first fragment to no service's address is other traffic",
        v4(STRANGER, ELSE).udp(1, 80).fragment(0, true),
        pass("other"),
        B_ELSE
    );
    case!(
        p,
        "a fragmented ping to no service's address passes",
        v4(STRANGER, ELSE).icmp(8, 0).fragment(9, true),
        pass("icmp"),
        B_ELSE
    );
    case!(
        p,
        "an atomic fragment is no fragment",
        v6(LISTED6, API6).ext(Extension::fragment(0, false)).tcp(1, 443),
        allowed("payments", "acme"),
        "3.2: an atomic fragment is an ordinary packet"
    );
    p
}

fn passed() -> Page {
    let mut p = Page::new("08-pass", "Rule 8: fragments = pass", policy(OPEN, ENTRIES));
    case!(
        p,
        "a stranger's later fragment passes",
        v4(STRANGER, API).tcp(1, 443).fragment(9, true),
        pass("fragment"),
        A
    );
    case!(
        p,
        "a listed source's later fragment names no owner, for no grant was asked",
        v4(LISTED, API).tcp(1, 443).fragment(9, true),
        pass("fragment"),
        A
    );
    case!(
        p,
        "a stranger's later IPv6 fragment passes",
        later6(STRANGER6, API6).tcp(1, 443),
        pass("fragment"),
        A
    );
    case!(
        p,
        "a stranger's later UDP fragment to a TCP service's address passes",
        v4(STRANGER, API).udp(1, 443).fragment(9, true),
        pass("fragment"),
        B
    );
    case!(
        p,
        "a stranger's first fragment to no service's port passes",
        v4(STRANGER, API).tcp(1, 80).fragment(0, true),
        pass("fragment"),
        B
    );
    case!(
        p,
        "a stranger's fragmented ping passes",
        v4(STRANGER, API).icmp(8, 0).fragment(9, true),
        pass("fragment"),
        B
    );
    case!(
        p,
        "a stranger's GRE fragment passes",
        v4(STRANGER, API).payload(47, vec![]).fragment(9, true),
        pass("fragment"),
        B
    );
    case!(
        p,
        "a stranger's first fragment to the service is unlisted",
        v4(STRANGER, API).tcp(1, 443).fragment(0, true),
        drop("unlisted").at("payments"),
        FIRST
    );
    case!(
        p,
        "a fragment to no service's address is other traffic",
        v4(STRANGER, ELSE).tcp(1, 443).fragment(9, true),
        pass("other"),
        A_NONE
    );
    p
}

fn closed() -> Page {
    let filter =
        "other-traffic = \"drop\"\nother-address = \"drop\"\nping = \"drop\"\nfragments = \"pass\"\n";
    let mut p = Page::new(
        "08-rules-6-and-7-first",
        "Rule 8: what rules 6 and 7 drop, fragments does not let in",
        policy(filter, ENTRIES),
    );
    case!(
        p,
        "a later fragment of the service's protocol passes",
        v4(LISTED, API).tcp(1, 443).fragment(9, true),
        pass("fragment"),
        A
    );
    case!(
        p,
        "a later fragment of another protocol is other traffic",
        v4(LISTED, API).udp(1, 443).fragment(9, true),
        drop("other"),
        A_NONE
    );
    case!(
        p,
        "a later fragment to no service's address is other traffic",
        v4(LISTED, ELSE).tcp(1, 443).fragment(9, true),
        drop("other"),
        A_NONE
    );
    case!(
        p,
        "a later IPv6 fragment to no service's address is other traffic",
        later6(LISTED6, ELSE6).tcp(1, 443),
        drop("other"),
        A_NONE
    );
    case!(
        p,
        "a later fragment of GRE is other traffic",
        v4(LISTED, API).payload(47, vec![]).fragment(9, true),
        drop("other"),
        B
    );
    case!(
        p,
        "a first fragment to no service's port is other traffic",
        v4(LISTED, API).tcp(1, 80).fragment(0, true),
        drop("other"),
        B
    );
    case!(
        p,
        "a first fragment to another service's port is other traffic",
        v4(LISTED, API).udp(1, 53).fragment(0, true),
        drop("other"),
        B
    );
    case!(
        p,
        "a later fragment of ICMP follows ping",
        v4(LISTED, API).icmp(8, 0).fragment(9, true),
        drop("icmp"),
        B
    );
    case!(
        p,
        "a first fragment of ping follows ping",
        v4(LISTED, API).icmp(8, 0).fragment(0, true),
        drop("icmp"),
        B
    );
    case!(
        p,
        "a first fragment of an error passes as a fragment",
        v4(LISTED, API).icmp(3, 4).fragment(0, true),
        pass("fragment"),
        B
    );
    case!(
        p,
        "a first fragment of a redirect is other traffic",
        v4(LISTED, API).icmp(5, 0).fragment(0, true),
        drop("other"),
        B
    );
    p
}

/// Services that observe and enforce, under a filter that does the one or the other.
fn mixed(name: &'static str, filter_observes: bool) -> Page {
    let mode = if filter_observes { "observe" } else { "enforce" };
    let filter = format!("mode = \"{mode}\"\nfragments = \"listed\"\n");
    let mut p = Page::new(
        name,
        "Rule 8 (d): who decides whether a dropped fragment is observed",
        policy(&filter, MIXED),
    );
    let by_filter = if filter_observes {
        observe("fragment")
    } else {
        drop("fragment")
    };
    case!(
        p,
        "TCP goes by the one TCP service, which observes",
        v4(STRANGER, API).tcp(1, 443).fragment(9, true),
        observe("fragment"),
        D
    );
    case!(
        p,
        "UDP goes by the one UDP service, which enforces",
        v4(STRANGER, API).udp(1, 443).fragment(9, true),
        drop("fragment"),
        D
    );
    case!(
        p,
        "an unknown protocol goes by both, and one enforces",
        later6(STRANGER6, API6).tcp(1, 443),
        drop("fragment"),
        D
    );
    case!(
        p,
        "where all observe, an unknown protocol is observed",
        later6(STRANGER6, "2001:db8::11").tcp(1, 443),
        observe("fragment"),
        D
    );
    case!(
        p,
        "a later fragment of GRE goes by the filter",
        v4(STRANGER, API).payload(47, vec![]).fragment(9, true),
        by_filter,
        D
    );
    case!(
        p,
        "a later fragment of ICMP goes by the filter",
        v4(STRANGER, "203.0.113.11").icmp(8, 0).fragment(9, true),
        by_filter,
        D
    );
    case!(
        p,
        "a first fragment to no service's port goes by the filter",
        v4(STRANGER, "203.0.113.11").tcp(1, 80).fragment(0, true),
        by_filter,
        D
    );
    case!(
        p,
        "a listed source's fragment passes",
        v4(LISTED, API).tcp(1, 443).fragment(9, true),
        pass("fragment").by("acme"),
        A_LISTED
    );
    case!(
        p,
        "a grant for one of the services lets an unknown protocol in",
        later6(LISTED6, API6).tcp(1, 443),
        pass("fragment").by("acme"),
        A_LISTED
    );
    case!(
        p,
        "a grant for neither does not",
        later6(LISTED6, "2001:db8::11").tcp(1, 443),
        observe("fragment"),
        A_LISTED
    );
    case!(
        p,
        "a grant for the other service does not",
        v4(LISTED, API).udp(1, 443).fragment(9, true),
        drop("fragment"),
        A_LISTED
    );
    p
}
