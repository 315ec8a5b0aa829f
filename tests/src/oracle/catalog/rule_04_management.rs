//! SPEC 3.4.

use super::*;
use crate::oracle::frames::Extension;

const WHY: &str =
    "3.4: management entries (source, protocol, destination port, and address where given) pass";
const LATER: &str = "3.4: so does a later fragment from such a source to such an address with that protocol or an unknown one";
const CONSOLE: &str = "100.64.1.5";
const CONSOLE6: &str = "2001:db8:c0::5";

const MORE: &str = r#"
[[management]]
name = "console"
sources = ["100.64.1.0/24", "2001:db8:c0::/48"]
address = ["203.0.113.10", "2001:db8::10"]
protocol = "udp"
ports = ["8000-8010"]
"#;

const DENIED_TOO: &str = r#"
[[service]]
name = "narrow"
address = ["203.0.113.11"]
protocol = "tcp"
ports = [9000]
limit = { packets = { rate = 1, burst = 1 } }

[[management]]
name = "probe"
sources = ["192.0.2.0/24"]
protocol = "tcp"
ports = [9000]

[[deny]]
name = "too-wide"
sources = ["192.0.2.0/24", "2001:db8:ad::/48"]
"#;

pub(super) fn pages() -> Vec<Page> {
    vec![ports(), later(), first()]
}

fn ports() -> Page {
    let mut p = Page::new(
        "04-management",
        "Rule 4: management by source, protocol, port and address",
        policy(CLOSED, &format!("{ENTRIES}{MORE}")),
    );
    case!(
        p,
        "management's port passes",
        v4(ADMIN, API).tcp(50000, 22),
        pass("management"),
        WHY
    );
    case!(
        p,
        "management's port passes at any address, where none is given",
        v4(ADMIN, ELSE).tcp(50000, 22),
        pass("management"),
        WHY
    );
    case!(
        p,
        "management's port passes in IPv6",
        v6(ADMIN6, ELSE6).tcp(50000, 22),
        pass("management"),
        WHY
    );
    case!(
        p,
        "another source is other traffic",
        v4(STRANGER, API).tcp(50000, 22),
        drop("other"),
        WHY
    );
    case!(
        p,
        "a listed source is not management",
        v4(LISTED, API).tcp(50000, 22),
        drop("other"),
        WHY
    );
    case!(
        p,
        "another port is other traffic",
        v4(ADMIN, API).tcp(50000, 23),
        drop("other"),
        WHY
    );
    case!(
        p,
        "management's port as the source port is other traffic",
        v4(ADMIN, API).tcp(22, 50000),
        drop("other"),
        WHY
    );
    case!(
        p,
        "another protocol is other traffic",
        v4(ADMIN, API).udp(50000, 22),
        drop("other"),
        WHY
    );
    case!(
        p,
        "management at a service's port is unlisted",
        v4(ADMIN, API).tcp(50000, 443),
        drop("unlisted").at("payments"),
        WHY
    );
    case!(
        p,
        "the first port of a range passes",
        v4(CONSOLE, API).udp(1, 8000),
        pass("management"),
        WHY
    );
    case!(
        p,
        "the last port of a range passes",
        v4(CONSOLE, API).udp(1, 8010),
        pass("management"),
        WHY
    );
    case!(
        p,
        "the port before a range is other traffic",
        v4(CONSOLE, API).udp(1, 7999),
        drop("other"),
        WHY
    );
    case!(
        p,
        "the port after a range is other traffic",
        v4(CONSOLE, API).udp(1, 8011),
        drop("other"),
        WHY
    );
    case!(
        p,
        "at an address that is not given it is other traffic",
        v4(CONSOLE, ELSE).udp(1, 8000),
        drop("other"),
        WHY
    );
    case!(
        p,
        "at the address given it passes in IPv6",
        v6(CONSOLE6, API6).udp(1, 8000),
        pass("management"),
        WHY
    );
    case!(
        p,
        "at the next IPv6 address it is other traffic",
        v6(CONSOLE6, "2001:db8::11").udp(1, 8000),
        drop("other"),
        WHY
    );
    case!(
        p,
        "the sources of one entry do not fit the ports of another",
        v4(CONSOLE, API).tcp(1, 22),
        drop("other"),
        WHY
    );
    case!(
        p,
        "an atomic fragment to management passes",
        v6(ADMIN6, API6).ext(Extension::fragment(0, false)).tcp(1, 22),
        pass("management"),
        "3.2: an atomic fragment is an ordinary packet"
    );
    case!(
        p,
        "a first fragment to management passes",
        v4(ADMIN, API).tcp(1, 22).fragment(0, true),
        pass("management"),
        WHY
    );
    case!(
        p,
        "a first fragment to another port is other traffic",
        v4(ADMIN, ELSE).tcp(1, 23).fragment(0, true),
        drop("other"),
        WHY
    );
    case!(
        p,
        "a ping from management follows ping",
        v4(ADMIN, API).icmp(8, 0),
        drop("icmp"),
        WHY
    );
    p
}

fn later() -> Page {
    let mut p = Page::new(
        "04-management-fragments",
        "Rule 4: later fragments to management",
        policy(CLOSED, &format!("{ENTRIES}{MORE}")),
    );
    case!(
        p,
        "a later fragment of management's protocol passes",
        v4(ADMIN, API).tcp(1, 443).fragment(9, false),
        pass("management"),
        LATER
    );
    case!(
        p,
        "a later fragment to any address passes, where none is given",
        v4(ADMIN, ELSE).tcp(1, 2).fragment(9, true),
        pass("management"),
        LATER
    );
    case!(
        p,
        "a later fragment of another protocol is other traffic",
        v4(ADMIN, API).udp(1, 22).fragment(9, false),
        drop("other"),
        LATER
    );
    case!(
        p,
        "a later fragment of another source is a fragment",
        v4(STRANGER, API).tcp(1, 22).fragment(9, false),
        drop("fragment"),
        LATER
    );
    case!(
        p,
        "a later fragment of ICMP follows ping",
        v4(ADMIN, API).icmp(8, 0).fragment(9, false),
        drop("icmp"),
        LATER
    );
    case!(
        p,
        "a later fragment of GRE is other traffic",
        v4(ADMIN, API).payload(47, vec![0; 8]).fragment(9, false),
        drop("other"),
        LATER
    );
    case!(
        p,
        "a later fragment of IPv6 is of an unknown protocol and passes",
        v6(ADMIN6, API6).ext(Extension::fragment(9, false)).tcp(1, 22),
        pass("management"),
        LATER
    );
    case!(
        p,
        "a later fragment of IPv6 passes whatever it says it is",
        v6(ADMIN6, API6).ext(Extension::fragment(9, false)).icmp(128, 0),
        pass("management"),
        LATER
    );
    case!(
        p,
        "a later fragment of another IPv6 source is a fragment",
        v6(STRANGER6, API6).ext(Extension::fragment(9, false)).tcp(1, 22),
        drop("fragment"),
        LATER
    );
    case!(
        p,
        "a later fragment to the address given passes",
        v4(CONSOLE, API).udp(1, 2).fragment(9, false),
        pass("management"),
        LATER
    );
    case!(
        p,
        "a later fragment to another address is other traffic",
        v4(CONSOLE, ELSE).udp(1, 8000).fragment(9, false),
        drop("other"),
        LATER
    );
    case!(
        p,
        "a later fragment of IPv6 to the address given passes",
        v6(CONSOLE6, API6).ext(Extension::fragment(9, false)).udp(1, 2),
        pass("management"),
        LATER
    );
    case!(
        p,
        "a later fragment of IPv6 to another address is a fragment",
        v6(CONSOLE6, "2001:db8::11")
            .ext(Extension::fragment(9, false))
            .udp(1, 8000),
        drop("fragment"),
        LATER
    );
    case!(
        p,
        "a TCP fragment of offset 1 is malformed, from management too",
        v4(ADMIN, API).tcp(1, 22).fragment(1, false),
        drop("malformed"),
        "2: only what 3.2 calls malformed is dropped"
    );
    p
}

fn first() -> Page {
    let mut p = Page::new(
        "04-management-first",
        "Rule 4: before deny, and without limits",
        policy(CLOSED, &format!("{ENTRIES}{DENIED_TOO}")),
    );
    let before = "3.4 comes before 3.5";
    case!(
        p,
        "a denied source passes to management",
        v4(ADMIN, API).tcp(1, 22),
        pass("management"),
        before
    );
    case!(
        p,
        "a denied source passes to management in IPv6",
        v6(ADMIN6, API6).tcp(1, 22),
        pass("management"),
        before
    );
    case!(
        p,
        "a denied source's later fragment passes to management",
        v4(ADMIN, API).tcp(1, 22).fragment(9, false),
        pass("management"),
        before
    );
    case!(
        p,
        "a denied source is denied elsewhere",
        v4(ADMIN, API).tcp(1, 443),
        drop("denied"),
        before
    );
    case!(
        p,
        "a denied source's other fragments are denied",
        v4(ADMIN, API).udp(1, 22).fragment(9, false),
        drop("denied"),
        before
    );
    case!(
        p,
        "malformed comes before management",
        v4(ADMIN, API).tcp(1, 22).shorten(19),
        drop("malformed"),
        "3.2 comes before 3.4"
    );
    case!(
        p,
        "management at a service's port has no limit",
        v4(ADMIN, "203.0.113.11").tcp(1, 9000),
        pass("management"),
        "3.4: pass, without limits"
    )
    .times = 50;
    case!(
        p,
        "and no grant is asked of it",
        v4(STRANGER, "203.0.113.11").tcp(1, 9000),
        drop("unlisted").at("narrow"),
        WHY
    );
    p
}
