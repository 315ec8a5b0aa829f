//! SPEC 3.2, IPv6 extension headers.

use super::*;
use crate::oracle::frames::Extension;

const BAD: fn() -> Expected = || drop("malformed");
const YES: fn() -> Expected = || allowed("payments", "acme");

pub(super) fn pages() -> Vec<Page> {
    vec![extensions(), routing()]
}

fn repeated(extension: fn() -> Extension, count: usize) -> crate::oracle::frames::Ipv6 {
    (0..count).fold(v6(LISTED6, API6), |packet, _| packet.ext(extension()))
}

fn extensions() -> Page {
    let mut p = Page::new(
        "02-extension-headers",
        "Rule 2: IPv6 extension headers, how long and how many",
        policy(OPEN, ENTRIES),
    );
    let walked = "3.2: IPv6 extension headers walked, in any order";
    for (name, extension) in [
        ("hop-by-hop", Extension::hop_by_hop()),
        ("routing", Extension::routing(4, 0)),
        ("an atomic fragment", Extension::fragment(0, false)),
        ("authentication", Extension::authentication()),
        ("destination options", Extension::destination_options()),
        ("long destination options", Extension::options(60, 40)),
        ("the longest hop-by-hop", Extension::options(0, 140)),
    ] {
        let what = format!("tcp 40000 > 443 behind {name}");
        p.add(
            format!("behind {name} a listed source is let in"),
            &what,
            v6(LISTED6, API6).ext(extension.clone()).tcp(40000, 443),
            YES(),
            walked,
        );
        p.add(
            format!("behind {name} a stranger is dropped"),
            &what,
            v6(STRANGER6, API6).ext(extension).tcp(40000, 443),
            drop("unlisted").at("payments"),
            walked,
        );
    }
    case!(
        p,
        "hop-by-hop need not be first",
        v6(LISTED6, API6)
            .ext(Extension::destination_options())
            .ext(Extension::hop_by_hop())
            .tcp(40000, 443),
        YES(),
        walked
    );
    let units = "3.2: authentication's length counts 4-byte units, plus 2";
    let short_ah = || Extension {
        number: 51,
        bytes: vec![0; 8],
    };
    case!(
        p,
        "authentication of length 0 is 8 bytes",
        v6(LISTED6, API6).ext(short_ah()).tcp(40000, 443),
        YES(),
        units
    );
    case!(
        p,
        "authentication of length 0 before a stranger's port",
        v6(STRANGER6, API6).ext(short_ah()).tcp(40000, 443),
        drop("unlisted").at("payments"),
        units
    );
    case!(
        p,
        "authentication of length 255 past the packet is malformed",
        v6(LISTED6, API6)
            .ext(Extension::authentication().length(255))
            .tcp(40000, 443),
        BAD(),
        units
    );
    case!(
        p,
        "authentication one unit past the packet is malformed",
        v6(LISTED6, API6)
            .ext(Extension::authentication().length(10))
            .tcp(40000, 443),
        BAD(),
        units
    );
    let past = "3.2: a header named here that runs past its packet";
    case!(
        p,
        "hop-by-hop past the packet is malformed",
        v6(LISTED6, API6)
            .ext(Extension::hop_by_hop().length(200))
            .tcp(40000, 443),
        BAD(),
        past
    );
    case!(
        p,
        "hop-by-hop over the TCP header is malformed",
        v6(LISTED6, API6)
            .ext(Extension::hop_by_hop().length(2))
            .tcp(40000, 443),
        BAD(),
        past
    );
    case!(
        p,
        "destination options past the packet are malformed",
        v6(LISTED6, API6)
            .ext(Extension::destination_options().length(255))
            .tcp(40000, 443),
        BAD(),
        past
    );
    case!(
        p,
        "routing past the packet is malformed",
        v6(LISTED6, API6)
            .ext(Extension::routing(4, 0).length(9))
            .tcp(40000, 443),
        BAD(),
        past
    );
    case!(
        p,
        "a fragment header of 7 bytes is malformed",
        v6(LISTED6, API6)
            .ext(Extension::fragment(0, false))
            .payload_length(7),
        BAD(),
        past
    );
    case!(
        p,
        "a fragment header of 8 bytes alone is whole",
        v6(LISTED6, API6).ext(Extension::fragment(0, false)),
        pass("other"),
        past
    );
    case!(
        p,
        "a hop-by-hop header of 1 byte is malformed",
        v6(LISTED6, API6).ext(Extension::hop_by_hop()).payload_length(1),
        BAD(),
        past
    );
    let eight = "3.2: IPv6: more than 8 extension headers";
    for (name, extension) in [
        ("hop-by-hop headers", Extension::hop_by_hop as fn() -> Extension),
        ("destination options", Extension::destination_options),
        ("authentication headers", Extension::authentication),
        ("routing headers", || Extension::routing(4, 0)),
    ] {
        p.add(
            format!("8 {name} are let in"),
            &format!("8 {name}, tcp 40000 > 443"),
            repeated(extension, 8).tcp(40000, 443),
            YES(),
            eight,
        );
        p.add(
            format!("9 {name} are malformed"),
            &format!("9 {name}, tcp 40000 > 443"),
            repeated(extension, 9).tcp(40000, 443),
            BAD(),
            eight,
        );
    }
    case!(
        p,
        "a fragment header is one of the 8",
        repeated(Extension::destination_options, 7)
            .ext(Extension::fragment(0, false))
            .tcp(40000, 443),
        YES(),
        eight
    );
    case!(
        p,
        "a fragment header is the ninth",
        repeated(Extension::destination_options, 8)
            .ext(Extension::fragment(0, false))
            .tcp(40000, 443),
        BAD(),
        eight
    );
    case!(
        p,
        "a later fragment's header is the ninth",
        repeated(Extension::destination_options, 8)
            .ext(Extension::fragment(9, false))
            .tcp(40000, 443),
        BAD(),
        eight
    );
    case!(
        p,
        "a later fragment's header is the eighth",
        repeated(Extension::destination_options, 7)
            .ext(Extension::fragment(9, false))
            .tcp(40000, 443),
        pass("fragment"),
        eight
    );
    case!(
        p,
        "8 headers and no next header",
        repeated(Extension::destination_options, 8),
        pass("other"),
        eight
    );
    p
}

fn routing() -> Page {
    let mut p = Page::new(
        "02-routing-headers",
        "Rule 2: routing headers",
        policy(OPEN, ENTRIES),
    );
    let why = "3.2: IPv6: a routing header of type 0 or with segments left";
    let behind = |kind, left| {
        v6(LISTED6, API6)
            .ext(Extension::routing(kind, left))
            .tcp(40000, 443)
    };
    case!(
        p,
        "type 0 with nothing left is malformed",
        behind(0, 0),
        BAD(),
        why
    );
    case!(
        p,
        "type 0 with a segment left is malformed",
        behind(0, 1),
        BAD(),
        why
    );
    for kind in [2, 3, 4, 253] {
        p.add(
            format!("type {kind} with nothing left is let in"),
            &format!("routing type {kind}, 0 left, tcp 40000 > 443"),
            behind(kind, 0),
            YES(),
            why,
        );
        p.add(
            format!("type {kind} with a segment left is malformed"),
            &format!("routing type {kind}, 1 left, tcp 40000 > 443"),
            behind(kind, 1),
            BAD(),
            why,
        );
        p.add(
            format!("type {kind} with 255 left is malformed"),
            &format!("routing type {kind}, 255 left, tcp 40000 > 443"),
            behind(kind, 255),
            BAD(),
            why,
        );
    }
    case!(
        p,
        "a second routing header is asked too",
        v6(LISTED6, API6)
            .ext(Extension::routing(4, 0))
            .ext(Extension::routing(4, 1))
            .tcp(40000, 443),
        BAD(),
        why
    );
    case!(
        p,
        "a routing header behind others is asked too",
        v6(LISTED6, API6)
            .ext(Extension::hop_by_hop())
            .ext(Extension::destination_options())
            .ext(Extension::routing(0, 0))
            .tcp(40000, 443),
        BAD(),
        why
    );
    case!(
        p,
        "a routing header in a first fragment is asked too",
        v6(LISTED6, API6)
            .ext(Extension::fragment(0, true))
            .ext(Extension::routing(4, 1))
            .tcp(40000, 443),
        BAD(),
        why
    );
    case!(
        p,
        "a routing header before a later fragment is asked too",
        v6(LISTED6, API6)
            .ext(Extension::routing(4, 1))
            .ext(Extension::fragment(9, true))
            .tcp(40000, 443),
        BAD(),
        why
    );
    case!(
        p,
        "a routing header to no service is asked too",
        v6(STRANGER6, ELSE6).ext(Extension::routing(0, 0)).udp(1, 2),
        BAD(),
        why
    );
    case!(
        p,
        "a routing header before neighbour discovery is asked too",
        v6(STRANGER6, API6)
            .ext(Extension::routing(0, 0))
            .icmp(135, 0)
            .hop_limit(255),
        BAD(),
        why
    );
    case!(
        p,
        "a routing header in a later fragment is payload",
        v6(LISTED6, API6)
            .ext(Extension::fragment(9, false))
            .ext(Extension::routing(0, 1))
            .tcp(40000, 443),
        pass("fragment"),
        "3.2: later fragments end the walk"
    );
    p
}
