//! SPEC 3.7.

use super::*;
use crate::oracle::frames::Extension;

const NAMES: &str = "3.7: protocol, destination address and destination port name at most one service";
const ELSEWHERE: &str =
    "3.7: none, but a service has that protocol and port at another address: other-address decides (other)";
const NONE: &str = "3.7: none at all: other-traffic decides (other)";
const OTHERS: &str =
    "3.7: protocols other than TCP, UDP and ICMP follow other-traffic, later fragments of them too";

const ANY: &str = r#"
[[service]]
name = "anywhere"
protocol = "tcp"
ports = [443]

[[client]]
name = "acme"
sources = ["198.51.100.0/24", "2001:db8:ac::/48"]
services = ["anywhere"]
"#;

const HOST: &str = r#"
[[service]]
name = "here"
address = "host"
protocol = ["tcp", "udp"]
ports = [443]

[[client]]
name = "acme"
sources = ["198.51.100.0/24", "2001:db8:ac::/48"]
services = ["here"]
"#;

const FAMILIES: &str = r#"
[[service]]
name = "four"
address = ["0.0.0.0/0"]
protocol = "tcp"
ports = [4444]

[[service]]
name = "six"
address = ["::/0"]
protocol = "tcp"
ports = [6666]

[[client]]
name = "all-four"
sources = ["0.0.0.0/0"]
services = ["*"]

[[client]]
name = "some-six"
sources = ["2001:db8:ac::/48"]
services = ["six"]
"#;

pub(super) fn pages() -> Vec<Page> {
    vec![
        names(
            "07-services-other-traffic",
            "pass",
            "drop",
            pass("other"),
            drop("other"),
        ),
        names(
            "07-services-other-address",
            "drop",
            "pass",
            drop("other"),
            pass("other"),
        ),
        any(),
        host(),
        families(),
    ]
}

fn names(name: &'static str, traffic: &str, address: &str, none: Expected, elsewhere: Expected) -> Page {
    let filter = format!("other-traffic = \"{traffic}\"\nother-address = \"{address}\"\n");
    let mut p = Page::new(
        name,
        "Rule 7: which service, and what is none",
        policy(&filter, ENTRIES),
    );
    let yes = allowed("payments", "acme");
    for port in [443, 8443, 8446, 8450] {
        p.add(
            format!("port {port} is the service"),
            &format!("tcp 40000 > {port}"),
            v4(LISTED, API).tcp(40000, port),
            yes,
            NAMES,
        );
        p.add(
            format!("a stranger at port {port} is unlisted"),
            &format!("tcp 40000 > {port}"),
            v4(STRANGER, API).tcp(40000, port),
            drop("unlisted").at("payments"),
            NAMES,
        );
        p.add(
            format!("port {port} at another address"),
            &format!("tcp 40000 > {port}"),
            v4(LISTED, ELSE).tcp(40000, port),
            elsewhere,
            ELSEWHERE,
        );
    }
    for port in [0, 442, 444, 8442, 8451, 65_535] {
        p.add(
            format!("port {port} is no service"),
            &format!("tcp 40000 > {port}"),
            v4(LISTED, API).tcp(40000, port),
            none,
            NONE,
        );
        p.add(
            format!("port {port} at another address is no service"),
            &format!("tcp 40000 > {port}"),
            v4(LISTED, ELSE).tcp(40000, port),
            none,
            NONE,
        );
    }
    case!(
        p,
        "the service's port as source port is no service",
        v4(STRANGER, API).tcp(443, 40000),
        none,
        NONE
    );
    case!(
        p,
        "the service's port in the other protocol is no service",
        v4(LISTED, API).udp(40000, 443),
        none,
        NONE
    );
    case!(
        p,
        "another service's port at this address",
        v4(LISTED, API).tcp(40000, 53),
        elsewhere,
        ELSEWHERE
    );
    case!(
        p,
        "another service's port and protocol at this address",
        v4(LISTED, API).udp(40000, 53),
        elsewhere,
        ELSEWHERE
    );
    case!(
        p,
        "this service's port at another service's address",
        v4(LISTED, DNS).tcp(40000, 443),
        elsewhere,
        ELSEWHERE
    );
    case!(
        p,
        "a service of both protocols by TCP",
        v4(LISTED, DNS).tcp(40000, 53),
        allowed("resolver", "branch"),
        NAMES
    );
    case!(
        p,
        "a service of both protocols by UDP",
        v4(LISTED, DNS).udp(40000, 53),
        allowed("resolver", "branch"),
        NAMES
    );
    case!(
        p,
        "the address before",
        v4(LISTED, "203.0.113.9").tcp(40000, 443),
        elsewhere,
        ELSEWHERE
    );
    case!(
        p,
        "the address after",
        v4(LISTED, "203.0.113.11").tcp(40000, 443),
        elsewhere,
        ELSEWHERE
    );
    case!(
        p,
        "the broadcast address, which the service has not",
        v4(LISTED, "255.255.255.255").tcp(40000, 443),
        elsewhere,
        ELSEWHERE
    );
    case!(
        p,
        "the first address of an IPv6 service",
        v6(LISTED6, "2001:db8::").tcp(40000, 443),
        yes,
        NAMES
    );
    case!(
        p,
        "the last address of an IPv6 service",
        v6(LISTED6, "2001:db8::ffff:ffff:ffff:ffff").tcp(40000, 443),
        yes,
        NAMES
    );
    case!(
        p,
        "the address after an IPv6 service",
        v6(LISTED6, "2001:db8:0:1::").tcp(40000, 443),
        elsewhere,
        ELSEWHERE
    );
    case!(
        p,
        "the address before an IPv6 service",
        v6(LISTED6, "2001:db7:ffff:ffff:ffff:ffff:ffff:ffff").tcp(40000, 443),
        elsewhere,
        ELSEWHERE
    );
    case!(
        p,
        "a multicast address, which the service has not",
        v6(LISTED6, "ff02::1").tcp(40000, 443),
        elsewhere,
        ELSEWHERE
    );
    case!(
        p,
        "a first fragment names its service",
        v4(LISTED, API).tcp(40000, 443).fragment(0, true),
        yes,
        NAMES
    );
    case!(
        p,
        "an atomic fragment names its service",
        v6(LISTED6, API6)
            .ext(Extension::fragment(0, false))
            .tcp(40000, 443),
        yes,
        NAMES
    );
    case!(
        p,
        "a later fragment to no service's address",
        v4(LISTED, ELSE).tcp(40000, 443).fragment(9, false),
        none,
        "3.8: where no service has address and protocol, other-traffic decides"
    );
    case!(p, "GRE", v4(LISTED, API).payload(47, vec![0; 4]), none, OTHERS);
    case!(
        p,
        "GRE to no service's address",
        v4(STRANGER, ELSE).payload(47, vec![0; 4]),
        none,
        OTHERS
    );
    case!(
        p,
        "a later fragment of GRE to no service's address",
        v4(STRANGER, ELSE).payload(47, vec![0; 4]).fragment(9, false),
        none,
        OTHERS
    );
    case!(
        p,
        "SCTP to the service's port",
        v6(STRANGER6, API6).payload(132, vec![0x9c, 0x40, 1, 0xbb, 0, 0, 0, 0, 0, 0, 0, 0]),
        none,
        OTHERS
    );
    case!(p, "no next header", v6(STRANGER6, API6), none, OTHERS);
    p
}

fn any() -> Page {
    let filter = "other-traffic = \"pass\"\nother-address = \"drop\"\n";
    let mut p = Page::new(
        "07-any-address",
        "Rule 7: a service without address is at every address",
        policy(filter, ANY),
    );
    for to in [API, ELSE, "255.255.255.255", "224.0.0.1", "127.0.0.1", "0.0.0.0"] {
        p.add(
            format!("{to} is the service's"),
            &format!("tcp 40000 > 443 to {to}"),
            v4(LISTED, to).tcp(40000, 443),
            allowed("anywhere", "acme"),
            NAMES,
        );
        p.add(
            format!("a stranger at {to} is unlisted"),
            &format!("tcp 40000 > 443 to {to}"),
            v4(STRANGER, to).tcp(40000, 443),
            drop("unlisted").at("anywhere"),
            NAMES,
        );
    }
    for to in [API6, ELSE6, "ff02::1", "fe80::1", "::1"] {
        p.add(
            format!("{to} is the service's"),
            &format!("tcp 40000 > 443 to {to}"),
            v6(LISTED6, to).tcp(40000, 443),
            allowed("anywhere", "acme"),
            NAMES,
        );
        p.add(
            format!("a stranger at {to} is unlisted"),
            &format!("tcp 40000 > 443 to {to}"),
            v6(STRANGER6, to).tcp(40000, 443),
            drop("unlisted").at("anywhere"),
            NAMES,
        );
    }
    case!(
        p,
        "another port is no service",
        v4(STRANGER, API).tcp(40000, 444),
        pass("other"),
        NONE
    );
    case!(
        p,
        "another protocol is no service",
        v4(STRANGER, API).udp(40000, 443),
        pass("other"),
        NONE
    );
    case!(
        p,
        "every later fragment is to a service's address",
        v6(STRANGER6, "ff02::1").ext(Extension::fragment(9, false)),
        drop("fragment"),
        "3.8: a later fragment whose address some service has: fragments decides"
    );
    p
}

fn host() -> Page {
    let filter = "other-traffic = \"pass\"\nother-address = \"drop\"\n";
    let hosts = [
        "203.0.113.10",
        "203.0.113.255",
        "224.0.0.251",
        "2001:db8::10",
        "ff02::fb",
    ];
    let mut p = Page::new("07-host-address", "Rule 7: address = host", policy(filter, HOST)).hosts(&hosts);
    for to in ["203.0.113.10", "203.0.113.255", "224.0.0.251"] {
        p.add(
            format!("{to} is this host's"),
            &format!("udp 40000 > 443 to {to}"),
            v4(LISTED, to).udp(40000, 443),
            allowed("here", "acme"),
            NAMES,
        );
        p.add(
            format!("a stranger at {to} is unlisted"),
            &format!("udp 40000 > 443 to {to}"),
            v4(STRANGER, to).udp(40000, 443),
            drop("unlisted").at("here"),
            NAMES,
        );
    }
    for to in ["2001:db8::10", "ff02::fb"] {
        p.add(
            format!("{to} is this host's"),
            &format!("udp 40000 > 443 to {to}"),
            v6(LISTED6, to).udp(40000, 443),
            allowed("here", "acme"),
            NAMES,
        );
        p.add(
            format!("a stranger at {to} is unlisted"),
            &format!("udp 40000 > 443 to {to}"),
            v6(STRANGER6, to).udp(40000, 443),
            drop("unlisted").at("here"),
            NAMES,
        );
    }
    case!(
        p,
        "an address that is not this host's",
        v4(LISTED, "203.0.113.11").tcp(40000, 443),
        drop("other"),
        ELSEWHERE
    );
    case!(
        p,
        "a group this host has not joined",
        v4(LISTED, "224.0.0.1").udp(40000, 443),
        drop("other"),
        ELSEWHERE
    );
    case!(
        p,
        "an IPv6 address that is not this host's",
        v6(LISTED6, "2001:db8::11").tcp(40000, 443),
        drop("other"),
        ELSEWHERE
    );
    case!(
        p,
        "another port of this host is no service",
        v4(STRANGER, API).tcp(40000, 80),
        pass("other"),
        NONE
    );
    p
}

fn families() -> Page {
    let filter = "other-traffic = \"pass\"\nother-address = \"drop\"\n";
    let mut p = Page::new(
        "07-families",
        "Rules 7 and 9: a prefix of length 0 holds its family only",
        policy(filter, FAMILIES),
    );
    case!(
        p,
        "IPv4 at the IPv4 service",
        v4(STRANGER, ELSE).tcp(1, 4444),
        allowed("four", "all-four"),
        NAMES
    );
    case!(
        p,
        "IPv6 at the IPv4 service's port is at another address",
        v6(STRANGER6, ELSE6).tcp(1, 4444),
        drop("other"),
        ELSEWHERE
    );
    case!(
        p,
        "IPv4 at the IPv6 service's port is at another address",
        v4(STRANGER, ELSE).tcp(1, 6666),
        drop("other"),
        ELSEWHERE
    );
    case!(
        p,
        "an IPv4 grant for all sources holds no IPv6 source",
        v6(STRANGER6, ELSE6).tcp(1, 6666),
        drop("unlisted").at("six"),
        "3.9: a grant matches when its prefix holds the source"
    );
    case!(
        p,
        "a listed IPv6 source at the IPv6 service",
        v6(LISTED6, ELSE6).tcp(1, 6666),
        allowed("six", "some-six"),
        NAMES
    );
    case!(
        p,
        "the unspecified IPv6 source is not 0.0.0.0/0",
        v6("::", ELSE6).tcp(1, 6666),
        drop("unlisted").at("six"),
        "3.9: a grant matches when its prefix holds the source"
    );
    case!(
        p,
        "the IPv4 source 0.0.0.0 is in 0.0.0.0/0",
        v4("0.0.0.0", ELSE).tcp(1, 4444),
        allowed("four", "all-four"),
        NAMES
    );
    p
}
