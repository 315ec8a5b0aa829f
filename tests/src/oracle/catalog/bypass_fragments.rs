//! Ways past a port filter by fragments.

use super::*;
use crate::oracle::frames::{Extension, Udp};

const LATER: &str = "3.8 (a): fragments = listed asks for a grant for one of these services";
const NO_PORT: &str = "3.7: not for later fragments";
const LISTED_ONLY: &str = "fragments = \"listed\"\nping = \"listed\"\n";

pub(super) fn pages() -> Vec<Page> {
    vec![fragments(), fragments6()]
}

fn fragments() -> Page {
    let mut p = Page::new("bypass-fragments", "IPv4 fragments", policy(LISTED_ONLY, ENTRIES));
    let bad = drop("malformed");
    let first = "3.2: a first fragment that does not hold its transport header";
    let theirs = || v4(STRANGER, API).tcp(40000, 443);
    case!(
        p,
        "the tiny fragment: 8 bytes of TCP",
        theirs().shorten(8).fragment(0, true),
        bad,
        first
    );
    case!(
        p,
        "the tiny fragment: ports and no flags",
        theirs().shorten(12).fragment(0, true),
        bad,
        first
    );
    case!(
        p,
        "the tiny fragment: no byte at all",
        theirs().shorten(0).fragment(0, true),
        bad,
        first
    );
    case!(
        p,
        "the tiny fragment of a listed source",
        v4(LISTED, API).tcp(40000, 443).shorten(16).fragment(0, true),
        bad,
        first
    );
    case!(
        p,
        "the tiny fragment of UDP",
        v4(STRANGER, DNS).udp(40000, 53).shorten(4).fragment(0, true),
        bad,
        first
    );
    case!(
        p,
        "overlapping at offset 1 to change the flags",
        theirs().fragment(1, false),
        bad,
        "3.2: a TCP fragment of offset 1"
    );
    case!(
        p,
        "overlapping at offset 1 of a listed source",
        v4(LISTED, API).tcp(40000, 443).fragment(1, false),
        bad,
        "3.2: a TCP fragment of offset 1"
    );
    case!(
        p,
        "overlapping at offset 2",
        theirs().fragment(2, false),
        drop("fragment"),
        LATER
    );
    case!(
        p,
        "a UDP fragment at offset 1 over the header",
        v4(STRANGER, DNS).udp(40000, 53).fragment(1, false),
        drop("fragment"),
        LATER
    );
    case!(
        p,
        "management's port in a later fragment",
        v4(STRANGER, API).tcp(40000, 22).fragment(3, false),
        drop("fragment"),
        NO_PORT
    );
    case!(
        p,
        "no service's port in a later fragment",
        v4(STRANGER, API).tcp(40000, 80).fragment(3, false),
        drop("fragment"),
        NO_PORT
    );
    case!(
        p,
        "the service's port in a later fragment to no service's address",
        v4(STRANGER, ELSE).tcp(40000, 443).fragment(3, false),
        pass("other"),
        NO_PORT
    );
    case!(
        p,
        "a first fragment of an open port, to fill reassembly",
        v4(STRANGER, API).tcp(40000, 80).fragment(0, true),
        drop("fragment"),
        "3.8 (b): strangers must not fill the reassembly memory"
    );
    case!(
        p,
        "a first fragment of ping, to fill reassembly",
        v4(STRANGER, API).icmp(0, 0).fragment(0, true),
        drop("fragment"),
        "3.8 (b): strangers must not fill the reassembly memory"
    );
    case!(
        p,
        "GRE fragments, to fill reassembly",
        v4(STRANGER, API).payload(47, vec![0; 16]).fragment(3, true),
        drop("fragment"),
        "3.8 (b): strangers must not fill the reassembly memory"
    );
    case!(
        p,
        "UDP fragments to a TCP service, to fill reassembly",
        v4(STRANGER, API).udp(1, 2).fragment(3, true),
        drop("fragment"),
        "3.8 (b): strangers must not fill the reassembly memory"
    );
    case!(
        p,
        "the last fragment past 65,535 bytes",
        theirs().fragment(0x1fff, false),
        drop("fragment"),
        LATER
    );
    case!(
        p,
        "the reserved flag on a fragment",
        theirs().reserved_flag().fragment(3, true),
        drop("fragment"),
        LATER
    );
    case!(
        p,
        "the reserved flag with offset 0",
        theirs().reserved_flag(),
        drop("unlisted").at("payments"),
        "3.2: the reserved flag is ignored"
    );
    case!(
        p,
        "a first fragment to the service",
        theirs().fragment(0, true),
        drop("unlisted").at("payments"),
        "3.7: a first fragment names its service"
    );
    case!(
        p,
        "a first fragment whose UDP length is the datagram's",
        v4(STRANGER, DNS)
            .udp_with(Udp {
                length: Some(4000),
                ..Udp::new(40000, 53)
            })
            .fragment(0, true),
        drop("unlisted").at("resolver"),
        "3.2: UDP: the end counts in a packet that is not a fragment"
    );
    case!(
        p,
        "options in a later fragment",
        theirs().options(&[1; 8]).fragment(3, true),
        drop("fragment"),
        LATER
    );
    case!(
        p,
        "a listed source's fragments go on: first",
        v4(LISTED, DNS)
            .udp_with(Udp {
                length: Some(4000),
                ..Udp::new(40000, 53)
            })
            .fragment(0, true),
        allowed("resolver", "branch"),
        "3.9"
    );
    case!(
        p,
        "a listed source's fragments go on: later",
        v4(LISTED, DNS).payload(17, vec![0; 64]).fragment(3, false),
        pass("fragment").by("branch"),
        LATER
    );
    p
}

fn fragments6() -> Page {
    let mut p = Page::new(
        "bypass-fragments-ipv6",
        "IPv6 fragments",
        policy(LISTED_ONLY, ENTRIES),
    );
    let bad = drop("malformed");
    let first = || v6(STRANGER6, API6).ext(Extension::fragment(0, true));
    let later = || v6(STRANGER6, API6).ext(Extension::fragment(3, false));
    let chain = "3.2: a first fragment that does not hold its whole extension chain and transport header";
    let unknown = "3.2: in IPv6 a later fragment's protocol is always unknown, because reassembly takes the first fragment's";
    case!(
        p,
        "the tiny fragment: 8 bytes of TCP",
        first().tcp(40000, 443).shorten(8),
        bad,
        chain
    );
    case!(
        p,
        "the tiny fragment: the chain alone",
        first().ext(Extension::destination_options()).payload(6, vec![]),
        bad,
        chain
    );
    case!(
        p,
        "the tiny fragment: half the chain",
        first().payload(60, vec![6, 0]),
        bad,
        chain
    );
    case!(
        p,
        "the chain goes on in the next fragment",
        first()
            .ext(Extension::options(60, 2).length(20))
            .payload(6, vec![0; 8]),
        bad,
        chain
    );
    case!(
        p,
        "a later fragment that calls itself ICMPv6",
        later().icmp(129, 0),
        drop("fragment"),
        unknown
    );
    case!(
        p,
        "a later fragment that calls itself no next header",
        later(),
        drop("fragment"),
        unknown
    );
    case!(
        p,
        "a later fragment that calls itself an open port",
        later().tcp(40000, 80),
        drop("fragment"),
        unknown
    );
    case!(
        p,
        "a later fragment that calls itself destination options",
        later().ext(Extension::destination_options()).tcp(40000, 80),
        drop("fragment"),
        unknown
    );
    case!(
        p,
        "a later fragment that calls itself neighbour discovery",
        v6("fe80::9", API6)
            .ext(Extension::fragment(3, false))
            .icmp(135, 0)
            .hop_limit(255),
        drop("fragment"),
        unknown
    );
    case!(
        p,
        "offset 1 over the TCP header",
        v6(STRANGER6, API6)
            .ext(Extension::fragment(1, false))
            .tcp(40000, 443),
        drop("fragment"),
        LATER
    );
    case!(
        p,
        "an atomic fragment",
        v6(STRANGER6, API6)
            .ext(Extension::fragment(0, false))
            .tcp(40000, 443),
        drop("unlisted").at("payments"),
        "3.2: an atomic fragment is an ordinary packet"
    );
    case!(
        p,
        "an atomic fragment around another",
        v6(LISTED6, API6)
            .ext(Extension::fragment(0, false))
            .ext(Extension::fragment(0, false))
            .tcp(40000, 443),
        bad,
        "3.2: a second fragment header"
    );
    case!(
        p,
        "a later fragment within an atomic one",
        v6(STRANGER6, API6)
            .ext(Extension::fragment(0, false))
            .ext(Extension::fragment(3, false))
            .tcp(40000, 443),
        bad,
        "3.2: a second fragment header"
    );
    case!(
        p,
        "a first fragment to the service",
        first().tcp(40000, 443),
        drop("unlisted").at("payments"),
        "3.7: a first fragment names its service"
    );
    case!(
        p,
        "a first fragment of an open port, to fill reassembly",
        first().tcp(40000, 80),
        drop("fragment"),
        "3.8 (b): strangers must not fill the reassembly memory"
    );
    case!(
        p,
        "a first fragment without next header, to fill reassembly",
        first(),
        drop("fragment"),
        "3.8 (b): strangers must not fill the reassembly memory"
    );
    case!(
        p,
        "a first fragment of neighbour discovery",
        first().icmp(135, 0).hop_limit(255),
        drop("fragment"),
        "3.3: essential, each not fragmented"
    );
    case!(
        p,
        "a first fragment of a DHCPv6 answer",
        v6(STRANGER6, API6)
            .ext(Extension::fragment(0, true))
            .udp(547, 546),
        drop("fragment"),
        "3.3: essential, each not fragmented"
    );
    case!(
        p,
        "fragments of a jumbogram",
        v6(STRANGER6, API6)
            .ext(Extension::hop_by_hop())
            .ext(Extension::fragment(3, true))
            .tcp(1, 443)
            .payload_length(0),
        bad,
        "3.2: a header that runs past its packet"
    );
    case!(
        p,
        "a listed source's fragments go on: first",
        v6(LISTED6, DNS6).ext(Extension::fragment(0, true)).udp_with(Udp {
            length: Some(4000),
            ..Udp::new(40000, 53)
        }),
        allowed("resolver", "branch"),
        "3.9"
    );
    case!(
        p,
        "a listed source's fragments go on: later",
        v6(LISTED6, DNS6)
            .ext(Extension::fragment(3, false))
            .payload(17, vec![0; 64]),
        pass("fragment").by("branch"),
        LATER
    );
    p
}
