//! SPEC 3.2, the IPv6 header, and what is not walked.

use super::*;
use crate::oracle::frames::{Extension, Tcp};

const BAD: fn() -> Expected = || drop("malformed");
const YES: fn() -> Expected = || allowed("payments", "acme");

pub(super) fn pages() -> Vec<Page> {
    vec![ipv6(), fragment_headers(), not_walked()]
}

fn ipv6() -> Page {
    let mut p = Page::new("02-ipv6", "Rule 2: the IPv6 header", policy(OPEN, ENTRIES));
    let ours = || v6(LISTED6, API6).tcp(40000, 443);
    let version = "3.2: IPv6: version not 6";
    for number in [0, 4, 5, 7, 15] {
        p.add(
            format!("IPv6 of version {number} is malformed"),
            &format!("tcp 40000 > 443, version {number}"),
            ours().version(number),
            BAD(),
            version,
        );
    }
    case!(
        p,
        "IPv4 under IPv6's EtherType is malformed",
        v4(LISTED, API)
            .tcp(40000, 443)
            .frame()
            .ether_type(0x86dd)
            .pad(20, 0),
        BAD(),
        version
    );
    case!(p, "IPv6 of version 6 is let in", ours(), YES(), version);
    let past = "3.2: IPv6: payload past the frame";
    case!(
        p,
        "a payload one past the frame is malformed",
        ours().payload_length(21),
        BAD(),
        past
    );
    case!(
        p,
        "the greatest payload in a short frame is malformed",
        ours().payload_length(65_535),
        BAD(),
        past
    );
    case!(
        p,
        "a payload that ends with the frame is let in",
        ours().payload_length(20),
        YES(),
        past
    );
    case!(
        p,
        "a payload cut behind a tag is malformed",
        ours().frame().tag(0x8100, 5).cut(4),
        BAD(),
        past
    );
    let mapped = "3.2: IPv6: source or destination in ::ffff:0:0/96";
    case!(
        p,
        "an IPv4-mapped source is malformed",
        v6("::ffff:198.51.100.7", API6).tcp(40000, 443),
        BAD(),
        mapped
    );
    case!(
        p,
        "an IPv4-mapped destination is malformed",
        v6(LISTED6, "::ffff:203.0.113.10").tcp(40000, 443),
        BAD(),
        mapped
    );
    case!(
        p,
        "the first IPv4-mapped address is malformed",
        v6("::ffff:0:0", API6).tcp(40000, 443),
        BAD(),
        mapped
    );
    case!(
        p,
        "the last IPv4-mapped address is malformed",
        v6(LISTED6, "::ffff:ffff:ffff").tcp(40000, 80),
        BAD(),
        mapped
    );
    case!(
        p,
        "an IPv4-mapped source of neighbour discovery is malformed",
        v6("::ffff:198.51.100.7", "ff02::1").icmp(135, 0).hop_limit(255),
        BAD(),
        mapped
    );
    case!(
        p,
        "the address before the mapped ones is a stranger",
        v6("::fffe:ffff:ffff", API6).tcp(40000, 443),
        drop("unlisted").at("payments"),
        mapped
    );
    case!(
        p,
        "the address after the mapped ones is a stranger",
        v6("::1:0:0:0", API6).tcp(40000, 443),
        drop("unlisted").at("payments"),
        mapped
    );
    case!(
        p,
        "an IPv4-compatible source is a stranger",
        v6("::198.51.100.7", API6).tcp(40000, 443),
        drop("unlisted").at("payments"),
        mapped
    );
    case!(
        p,
        "an IPv4-translated source is a stranger",
        v6("::ffff:0:198.51.100.7", API6).tcp(40000, 443),
        drop("unlisted").at("payments"),
        mapped
    );
    case!(
        p,
        "an IPv4-translated destination is no service",
        v6(LISTED6, "64:ff9b::203.0.113.10").tcp(40000, 80),
        pass("other"),
        mapped
    );
    p
}

fn fragment_headers() -> Page {
    let mut p = Page::new(
        "02-fragment-headers",
        "Rule 2: IPv6 fragment headers",
        policy(OPEN, ENTRIES),
    );
    let second = "3.2: IPv6: a second fragment header";
    let atomic = || Extension::fragment(0, false);
    let first = || Extension::fragment(0, true);
    let ours = || v6(LISTED6, API6);
    case!(
        p,
        "two atomic fragment headers are malformed",
        ours().ext(atomic()).ext(atomic()).tcp(40000, 443),
        BAD(),
        second
    );
    case!(
        p,
        "a first fragment in an atomic one is malformed",
        ours().ext(atomic()).ext(first()).tcp(40000, 443),
        BAD(),
        second
    );
    case!(
        p,
        "an atomic fragment in a first one is malformed",
        ours().ext(first()).ext(atomic()).tcp(40000, 443),
        BAD(),
        second
    );
    case!(
        p,
        "a later fragment in an atomic one is malformed",
        ours()
            .ext(atomic())
            .ext(Extension::fragment(9, false))
            .tcp(40000, 443),
        BAD(),
        second
    );
    case!(
        p,
        "a second fragment header behind others is malformed",
        ours()
            .ext(atomic())
            .ext(Extension::destination_options())
            .ext(Extension::hop_by_hop())
            .ext(atomic())
            .tcp(40000, 443),
        BAD(),
        second
    );
    let later = "3.2: later fragments (offset above 0) end the walk";
    case!(
        p,
        "a fragment header in a later fragment is payload",
        ours()
            .ext(Extension::fragment(9, false))
            .ext(atomic())
            .tcp(40000, 443),
        pass("fragment"),
        later
    );
    case!(
        p,
        "nine headers in a later fragment are payload",
        (0..9).fold(ours().ext(Extension::fragment(9, false)), |packet, _| packet
            .ext(Extension::hop_by_hop())),
        pass("fragment"),
        later
    );
    case!(
        p,
        "a header past the packet in a later fragment is payload",
        ours()
            .ext(Extension::fragment(9, false))
            .ext(Extension::hop_by_hop().length(255)),
        pass("fragment"),
        later
    );
    case!(
        p,
        "a later fragment without payload is one",
        ours().ext(Extension::fragment(9, false)),
        pass("fragment"),
        later
    );
    case!(
        p,
        "the reserved bits of a fragment header are no offset",
        ours()
            .ext(Extension {
                number: 44,
                bytes: vec![0, 0xff, 0, 6, 0, 0, 0, 1]
            })
            .tcp(40000, 443),
        YES(),
        "3.2: an atomic fragment (offset 0, no more) is an ordinary packet"
    );
    case!(
        p,
        "the greatest offset is a later fragment",
        ours().ext(Extension::fragment(0x1fff, true)).tcp(40000, 443),
        pass("fragment"),
        later
    );
    let ordinary = "3.2: an atomic fragment (offset 0, no more) is an ordinary packet";
    case!(
        p,
        "an atomic fragment to a service is let in",
        ours().ext(atomic()).tcp(40000, 443),
        YES(),
        ordinary
    );
    case!(
        p,
        "a stranger's atomic fragment is unlisted",
        v6(STRANGER6, API6).ext(atomic()).tcp(40000, 443),
        drop("unlisted").at("payments"),
        ordinary
    );
    case!(
        p,
        "an atomic fragment of another port is other traffic",
        v6(STRANGER6, API6).ext(atomic()).tcp(40000, 80),
        pass("other"),
        ordinary
    );
    p
}

fn not_walked() -> Page {
    let mut p = Page::new(
        "02-other-protocols",
        "Rule 2: protocols whose headers are not looked at",
        policy(OPEN, ENTRIES),
    );
    let other = "3.2: the headers of other protocols are not looked at";
    let tcp = || Tcp::new(40000, 443).bytes();
    for number in [2, 4, 41, 47, 50, 59, 88, 115, 132, 135, 139, 140, 253, 255] {
        let what = format!("protocol {number}, its payload a TCP header to port 443");
        p.add(
            format!("protocol {number} in IPv4 is another protocol"),
            &what,
            v4(STRANGER, API).payload(number, tcp()),
            pass("other"),
            other,
        );
        p.add(
            format!("next header {number} in IPv6 is another protocol"),
            &what,
            v6(STRANGER6, API6).payload(number, tcp()),
            pass("other"),
            other,
        );
    }
    for number in [4, 47, 132] {
        p.add(
            format!("protocol {number} needs no header"),
            &format!("protocol {number} with no payload"),
            v4(STRANGER, API).payload(number, vec![]),
            pass("other"),
            other,
        );
    }
    let families = "3.2: ICMP in IPv6 and ICMPv6 in IPv4 are other protocols";
    case!(
        p,
        "ICMP in IPv6 is another protocol",
        v6(STRANGER6, API6).payload(1, vec![8, 0, 0, 0, 0, 0, 0, 0]),
        pass("other"),
        families
    );
    case!(
        p,
        "ICMP in IPv6 is not looked at",
        v6(STRANGER6, API6).payload(1, vec![8]),
        pass("other"),
        families
    );
    case!(
        p,
        "ICMPv6 in IPv4 is another protocol",
        v4(STRANGER, API).payload(58, vec![128, 0, 0, 0, 0, 0, 0, 0]),
        pass("other"),
        families
    );
    case!(
        p,
        "ICMPv6 in IPv4 is not looked at",
        v4(STRANGER, API).payload(58, vec![135]),
        pass("other"),
        families
    );
    for number in [0, 43, 44, 51, 60] {
        let payload = [&[6, 0, 0, 0, 0, 0, 0, 0][..], &tcp()].concat();
        p.add(
            format!("extension header {number} in IPv4 is another protocol"),
            &format!("protocol {number}, then TCP to port 443"),
            v4(LISTED, API).payload(number, payload),
            pass("other"),
            "3.2: extension headers are walked in IPv6 only",
        );
    }
    case!(
        p,
        "TCP behind mobility is not looked for",
        v6(STRANGER6, API6).ext(Extension::other(135)).tcp(40000, 443),
        pass("other"),
        other
    );
    case!(
        p,
        "a fragment header behind mobility is not looked for",
        v6(STRANGER6, API6)
            .ext(Extension::other(135))
            .ext(Extension::fragment(9, true))
            .tcp(40000, 443),
        pass("other"),
        other
    );
    p
}
