//! SPEC 3.5.

use super::*;
use crate::oracle::frames::Extension;

const WHY: &str = "3.5: deny entries drop (denied); deny beats every grant";

pub(super) fn pages() -> Vec<Page> {
    vec![
        deny(),
        family("05-deny-all-ipv4", "0.0.0.0/0", true),
        family("05-deny-all-ipv6", "::/0", false),
    ]
}

fn deny() -> Page {
    let mut p = Page::new("05-deny", "Rule 5: deny", policy(OPEN, ENTRIES));
    case!(
        p,
        "a denied source with a grant is denied",
        v4(DENIED, API).tcp(1, 443),
        drop("denied"),
        WHY
    );
    case!(
        p,
        "the address before it is let in",
        v4("198.51.100.65", API).tcp(1, 443),
        allowed("payments", "acme"),
        WHY
    );
    case!(
        p,
        "the address after it is let in",
        v4("198.51.100.67", API).tcp(1, 443),
        allowed("payments", "acme"),
        WHY
    );
    case!(
        p,
        "a denied IPv6 source is denied",
        v6(DENIED6, API6).tcp(1, 443),
        drop("denied"),
        WHY
    );
    case!(
        p,
        "the last of a denied prefix is denied",
        v6("2001:db8:ac:66:ffff:ffff:ffff:ffff", API6).tcp(1, 443),
        drop("denied"),
        WHY
    );
    case!(
        p,
        "the prefix after it is let in",
        v6("2001:db8:ac:67::", API6).tcp(1, 443),
        allowed("payments", "acme"),
        WHY
    );
    case!(
        p,
        "denied to no service too",
        v4(DENIED, ELSE).tcp(1, 80),
        drop("denied"),
        WHY
    );
    case!(
        p,
        "denied to ping too",
        v4(DENIED, ELSE).icmp(8, 0),
        drop("denied"),
        WHY
    );
    case!(
        p,
        "denied for errors too",
        v4(DENIED, API).icmp(3, 4),
        drop("denied"),
        WHY
    );
    case!(
        p,
        "denied for later fragments too",
        v4(DENIED, API).tcp(1, 443).fragment(9, false),
        drop("denied"),
        WHY
    );
    case!(
        p,
        "denied for later IPv6 fragments too",
        v6(DENIED6, API6).ext(Extension::fragment(9, false)).tcp(1, 443),
        drop("denied"),
        WHY
    );
    case!(
        p,
        "denied for other protocols too",
        v4(DENIED, ELSE).payload(47, vec![]),
        drop("denied"),
        WHY
    );
    case!(
        p,
        "denied behind a tag too",
        v4(DENIED, API).tcp(1, 443).frame().tag(0x8100, 5),
        drop("denied"),
        WHY
    );
    case!(
        p,
        "what is malformed is malformed",
        v4(DENIED, API).tcp(1, 443).shorten(8),
        drop("malformed"),
        "3.2 comes before 3.5"
    );
    case!(
        p,
        "the destination is not asked",
        v4(LISTED, DENIED).tcp(1, 80),
        pass("other"),
        WHY
    );
    p
}

/// A deny of one whole family is no deny of the other.
fn family(name: &'static str, prefix: &str, four: bool) -> Page {
    let entries = format!("{ENTRIES}\n[[deny]]\nname = \"all\"\nsources = [\"{prefix}\"]\n");
    let mut p = Page::new(
        name,
        "Rule 5: a prefix of length 0 holds its family only",
        policy(OPEN, &entries),
    );
    let answer = |denied: bool, other| if denied { drop("denied") } else { other };
    case!(
        p,
        "a listed IPv4 source",
        v4(LISTED, API).tcp(1, 443),
        answer(four, allowed("payments", "acme")),
        WHY
    );
    case!(
        p,
        "a listed IPv6 source",
        v6(LISTED6, API6).tcp(1, 443),
        answer(!four, allowed("payments", "acme")),
        WHY
    );
    case!(
        p,
        "IPv4 to no service",
        v4(STRANGER, ELSE).tcp(1, 80),
        answer(four, pass("other")),
        WHY
    );
    case!(
        p,
        "IPv6 to no service",
        v6(STRANGER6, ELSE6).tcp(1, 80),
        answer(!four, pass("other")),
        WHY
    );
    case!(
        p,
        "management passes in IPv4",
        v4(ADMIN, API).tcp(1, 22),
        pass("management"),
        "3.4 comes before 3.5"
    );
    case!(
        p,
        "management passes in IPv6",
        v6(ADMIN6, API6).tcp(1, 22),
        pass("management"),
        "3.4 comes before 3.5"
    );
    case!(
        p,
        "ARP passes",
        Frame::arp(),
        pass("essential"),
        "3.1 comes before 3.5"
    );
    p
}
