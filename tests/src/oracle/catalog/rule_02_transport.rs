//! SPEC 3.2, transport headers and first fragments.

use super::*;
use crate::oracle::frames::{Extension, Tcp, Udp, icmp};

const BAD: fn() -> Expected = || drop("malformed");
const YES: fn() -> Expected = || allowed("payments", "acme");

pub(super) fn pages() -> Vec<Page> {
    vec![tcp(), udp(), icmps(), first_fragments()]
}

fn tcp() -> Page {
    let mut p = Page::new("02-tcp", "Rule 2: the TCP header", policy(OPEN, ENTRIES));
    let under = "3.2: TCP: data offset under 5";
    let past = "3.2: TCP: data offset past the packet";
    let with = |offset, options: usize| Tcp {
        data_offset: Some(offset),
        options: vec![1; options],
        ..Tcp::new(40000, 443)
    };
    for offset in 0..=4 {
        let what = format!("tcp 40000 > 443, data offset {offset}");
        p.add(
            format!("a data offset of {offset} is malformed"),
            &what,
            v4(LISTED, API).tcp_with(with(offset, 0)),
            BAD(),
            under,
        );
        p.add(
            format!("a data offset of {offset} in IPv6 is malformed"),
            &what,
            v6(LISTED6, API6).tcp_with(with(offset, 0)),
            BAD(),
            under,
        );
    }
    for offset in 5..=15u8 {
        let options = usize::from(offset - 5) * 4;
        let what = format!("tcp 40000 > 443, data offset {offset}");
        p.add(
            format!("a data offset of {offset} with its options is let in"),
            &what,
            v4(LISTED, API).tcp_with(with(offset, options)),
            YES(),
            past,
        );
        if let Some(short) = options.checked_sub(4) {
            p.add(
                format!("a data offset of {offset} past the packet is malformed"),
                &what,
                v4(LISTED, API).tcp_with(with(offset, short)),
                BAD(),
                past,
            );
        }
    }
    case!(
        p,
        "a data offset past an IPv6 packet is malformed",
        v6(LISTED6, API6).tcp_with(with(6, 0)),
        BAD(),
        past
    );
    case!(
        p,
        "a data offset that reaches into the data is let in",
        v4(LISTED, API).tcp_with(Tcp {
            data: vec![9; 40],
            ..with(15, 0)
        }),
        YES(),
        past
    );
    let cut = "3.2: a header that runs past its packet";
    for bytes in [0, 1, 4, 8, 13, 19] {
        p.add(
            format!("a TCP header of {bytes} bytes is malformed"),
            &format!("the first {bytes} bytes of tcp 40000 > 443"),
            v4(LISTED, API).tcp(40000, 443).shorten(bytes),
            BAD(),
            cut,
        );
    }
    case!(
        p,
        "a TCP header of 19 bytes in IPv6 is malformed",
        v6(LISTED6, API6).tcp(40000, 443).shorten(19),
        BAD(),
        cut
    );
    case!(
        p,
        "a TCP header of 19 bytes to no service is malformed",
        v4(STRANGER, ELSE).tcp(40000, 80).shorten(19),
        BAD(),
        cut
    );
    for (name, flags) in [
        ("no flag", 0),
        ("every flag", 0xff),
        ("SYN and FIN", 3),
        ("RST", 4),
    ] {
        let what = format!("tcp 40000 > 443, flags {flags:#04x}");
        p.add(
            format!("TCP with {name} is judged by its grant"),
            &what,
            v4(LISTED, API).tcp_with(Tcp {
                flags,
                ..Tcp::new(40000, 443)
            }),
            YES(),
            "3.9: flags are no part of a grant",
        );
        p.add(
            format!("a stranger's TCP with {name} is dropped"),
            &what,
            v4(STRANGER, API).tcp_with(Tcp {
                flags,
                ..Tcp::new(40000, 443)
            }),
            drop("unlisted").at("payments"),
            "3.9: flags are no part of a grant",
        );
    }
    p
}

fn udp() -> Page {
    let mut p = Page::new("02-udp", "Rule 2: the UDP header", policy(OPEN, ENTRIES));
    let under = "3.2: UDP: length field under 8";
    let past = "3.2: UDP: length field past the end of a packet that is not a fragment";
    let yes = allowed("resolver", "branch");
    // Eight bytes of data each.
    let with = |length| Udp {
        length: Some(length),
        ..Udp::new(40000, 53)
    };
    for length in [0, 1, 7] {
        let what = format!("udp 40000 > 53, length field {length}");
        p.add(
            format!("a UDP length of {length} is malformed"),
            &what,
            v4(LISTED, DNS).udp_with(with(length)),
            BAD(),
            under,
        );
        p.add(
            format!("a UDP length of {length} in IPv6 is malformed"),
            &what,
            v6(LISTED6, DNS6).udp_with(with(length)),
            BAD(),
            under,
        );
    }
    case!(
        p,
        "a UDP length of 8 before data is let in",
        v4(LISTED, DNS).udp_with(with(8)),
        yes,
        under
    );
    case!(
        p,
        "a UDP length of the packet's is let in",
        v4(LISTED, DNS).udp_with(with(16)),
        yes,
        past
    );
    case!(
        p,
        "a UDP length one past the packet is malformed",
        v4(LISTED, DNS).udp_with(with(17)),
        BAD(),
        past
    );
    case!(
        p,
        "the greatest UDP length is malformed",
        v4(LISTED, DNS).udp_with(with(65_535)),
        BAD(),
        past
    );
    case!(
        p,
        "a UDP length one past an IPv6 packet is malformed",
        v6(LISTED6, DNS6).udp_with(with(17)),
        BAD(),
        past
    );
    case!(
        p,
        "a UDP length of an IPv6 packet's is let in",
        v6(LISTED6, DNS6).udp_with(with(16)),
        yes,
        past
    );
    case!(
        p,
        "a UDP length past the packet to no service is malformed",
        v4(STRANGER, ELSE).udp_with(with(17)),
        BAD(),
        past
    );
    let first = "3.2: UDP: the end counts in a packet that is not a fragment";
    case!(
        p,
        "a UDP length past a first fragment is let in",
        v4(LISTED, DNS).udp_with(with(3000)).fragment(0, true),
        yes,
        first
    );
    case!(
        p,
        "a UDP length past a first fragment of IPv6 is let in",
        v6(LISTED6, DNS6)
            .ext(Extension::fragment(0, true))
            .udp_with(with(3000)),
        yes,
        first
    );
    case!(
        p,
        "a UDP length of 7 in a first fragment is malformed",
        v4(LISTED, DNS).udp_with(with(7)).fragment(0, true),
        BAD(),
        under
    );
    case!(
        p,
        "a UDP length of 0 in a first fragment of IPv6 is malformed",
        v6(LISTED6, DNS6)
            .ext(Extension::fragment(0, true))
            .udp_with(with(0)),
        BAD(),
        under
    );
    case!(
        p,
        "a UDP length past an atomic fragment is malformed",
        v6(LISTED6, DNS6)
            .ext(Extension::fragment(0, false))
            .udp_with(with(17)),
        BAD(),
        "3.2: an atomic fragment is an ordinary packet"
    );
    let cut = "3.2: a header that runs past its packet";
    for bytes in [0, 4, 7] {
        p.add(
            format!("a UDP header of {bytes} bytes is malformed"),
            &format!("the first {bytes} bytes of udp 40000 > 53"),
            v4(LISTED, DNS).udp(40000, 53).shorten(bytes),
            BAD(),
            cut,
        );
    }
    case!(
        p,
        "a UDP header of 7 bytes in IPv6 is malformed",
        v6(LISTED6, DNS6).udp(40000, 53).shorten(7),
        BAD(),
        cut
    );
    case!(
        p,
        "a UDP header alone is let in",
        v4(LISTED, DNS).udp_with(Udp {
            data: vec![],
            ..Udp::new(40000, 53)
        }),
        yes,
        cut
    );
    p
}

fn icmps() -> Page {
    let mut p = Page::new(
        "02-icmp",
        "Rule 2: ICMP and ICMPv6 headers",
        policy(OPEN, ENTRIES),
    );
    let why = "3.2: ICMP and ICMPv6: under 8 bytes";
    for bytes in [0, 1, 4, 7] {
        let what = format!("the first {bytes} bytes of an echo request");
        p.add(
            format!("ICMP of {bytes} bytes is malformed"),
            &what,
            v4(LISTED, API).icmp(8, 0).shorten(bytes),
            BAD(),
            why,
        );
        p.add(
            format!("ICMPv6 of {bytes} bytes is malformed"),
            &what,
            v6(LISTED6, API6).icmp(128, 0).shorten(bytes),
            BAD(),
            why,
        );
    }
    case!(
        p,
        "ICMP of 8 bytes passes",
        v4(LISTED, API).icmp(8, 0).shorten(8),
        pass("icmp"),
        why
    );
    case!(
        p,
        "ICMPv6 of 8 bytes passes",
        v6(LISTED6, API6).icmp(128, 0).shorten(8),
        pass("icmp"),
        why
    );
    case!(
        p,
        "a short error is malformed",
        v4(STRANGER, API).icmp(3, 4).shorten(7),
        BAD(),
        why
    );
    case!(
        p,
        "a short neighbour advertisement is malformed",
        v6("fe80::1", API6).icmp(136, 0).hop_limit(255).shorten(7),
        BAD(),
        why
    );
    p
}

fn first_fragments() -> Page {
    let mut p = Page::new(
        "02-first-fragments",
        "Rule 2: what a first fragment must hold",
        policy(OPEN, ENTRIES),
    );
    let why = "3.2: a first fragment that does not hold its whole extension chain and transport header is malformed";
    let whole = "3.2: a first fragment that holds its whole chain and header is judged";
    let first = || v6(LISTED6, API6).ext(Extension::fragment(0, true));
    for bytes in [0, 8, 16, 19] {
        p.add(
            format!("a first fragment with {bytes} bytes of TCP is malformed"),
            &format!("the first {bytes} bytes of tcp 40000 > 443, more to come"),
            v4(LISTED, API).tcp(40000, 443).shorten(bytes).fragment(0, true),
            BAD(),
            why,
        );
        p.add(
            format!("a first fragment of IPv6 with {bytes} bytes of TCP is malformed"),
            &format!("fragment header, the first {bytes} bytes of tcp 40000 > 443"),
            first().tcp(40000, 443).shorten(bytes),
            BAD(),
            why,
        );
    }
    case!(
        p,
        "a first fragment with a whole TCP header is let in",
        v4(LISTED, API).tcp(40000, 443).fragment(0, true),
        YES(),
        whole
    );
    case!(
        p,
        "a first fragment of IPv6 with a whole TCP header is let in",
        first().tcp(40000, 443),
        YES(),
        whole
    );
    case!(
        p,
        "a stranger's first fragment is unlisted",
        v4(STRANGER, API).tcp(40000, 443).fragment(0, true),
        drop("unlisted").at("payments"),
        whole
    );
    case!(
        p,
        "a first fragment without its TCP options is malformed",
        v4(LISTED, API)
            .tcp_with(Tcp {
                options: vec![1; 8],
                ..Tcp::new(40000, 443)
            })
            .shorten(24)
            .fragment(0, true),
        BAD(),
        why
    );
    case!(
        p,
        "a first fragment with its TCP options is let in",
        v4(LISTED, API)
            .tcp_with(Tcp {
                options: vec![1; 8],
                ..Tcp::new(40000, 443)
            })
            .fragment(0, true),
        YES(),
        whole
    );
    case!(
        p,
        "a first fragment with 7 bytes of UDP is malformed",
        v4(LISTED, DNS).udp(40000, 53).shorten(7).fragment(0, true),
        BAD(),
        why
    );
    case!(
        p,
        "a first fragment with 8 bytes of UDP is let in",
        v4(LISTED, DNS).udp(40000, 53).shorten(8).fragment(0, true),
        allowed("resolver", "branch"),
        whole
    );
    case!(
        p,
        "a first fragment with 7 bytes of ICMP is malformed",
        v4(LISTED, ELSE).icmp(8, 0).shorten(7).fragment(0, true),
        BAD(),
        why
    );
    case!(
        p,
        "a first fragment with 8 bytes of ICMP is judged",
        v4(LISTED, ELSE).icmp(8, 0).shorten(8).fragment(0, true),
        pass("icmp"),
        whole
    );
    case!(
        p,
        "a first fragment with 7 bytes of ICMPv6 is malformed",
        v6(LISTED6, ELSE6)
            .ext(Extension::fragment(0, true))
            .payload(58, icmp(128, 0, 0))
            .shorten(7),
        BAD(),
        why
    );
    case!(
        p,
        "a first fragment with 8 bytes of ICMPv6 is judged",
        v6(LISTED6, ELSE6)
            .ext(Extension::fragment(0, true))
            .payload(58, icmp(128, 0, 0)),
        pass("icmp"),
        whole
    );
    case!(
        p,
        "a fragment header alone that promises TCP is malformed",
        first().payload(6, vec![]),
        BAD(),
        why
    );
    case!(
        p,
        "a chain that goes on behind a first fragment is malformed",
        first().payload(60, vec![6, 0, 1, 4]),
        BAD(),
        why
    );
    case!(
        p,
        "a chain whose last header is longer than a first fragment is malformed",
        first()
            .ext(Extension::destination_options().length(4))
            .tcp(40000, 443),
        BAD(),
        why
    );
    case!(
        p,
        "a chain that ends where TCP should begin is malformed",
        first().ext(Extension::destination_options()).payload(6, vec![]),
        BAD(),
        why
    );
    case!(
        p,
        "a chain and TCP whole in a first fragment are let in",
        first().ext(Extension::destination_options()).tcp(40000, 443),
        YES(),
        whole
    );
    case!(
        p,
        "a chain and TCP around a first fragment are let in",
        v6(LISTED6, API6)
            .ext(Extension::hop_by_hop())
            .ext(Extension::routing(4, 0))
            .ext(Extension::fragment(0, true))
            .ext(Extension::authentication())
            .tcp(40000, 443),
        YES(),
        whole
    );
    let others = "3.2: of other protocols a first fragment need hold nothing";
    case!(
        p,
        "a first fragment of another protocol may be empty",
        v4(STRANGER, ELSE).payload(47, vec![]).fragment(0, true),
        pass("other"),
        others
    );
    case!(
        p,
        "a first fragment of IPv6 without next header may be empty",
        v6(STRANGER6, ELSE6).ext(Extension::fragment(0, true)),
        pass("other"),
        others
    );
    p
}
