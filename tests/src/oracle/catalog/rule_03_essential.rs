//! SPEC 3.3.

use super::*;
use crate::oracle::frames::Extension;

const ND: &str = "3.3: neighbour discovery (ICMPv6 133-137, code 0, hop limit 255) passes";
const MLD: &str = "3.3: multicast listener messages (130-132, 143) from a link-local source or :: pass";
const DHCP: &str = "3.3: DHCP answers (IPv4 UDP 67 to 68; IPv6 UDP 547 to 546 to a link-local address) pass";
const WHOLE: &str = "3.3: essential, each not fragmented";
const OTHER: &str = "3.6: every other type follows other-traffic (as other)";
const LOCAL: &str = "fe80::1";
const ALL_NODES: &str = "ff02::1";

pub(super) fn pages() -> Vec<Page> {
    vec![neighbours(), listeners(), dhcp()]
}

fn neighbours() -> Page {
    let mut p = Page::new(
        "03-neighbour-discovery",
        "Rule 3: neighbour discovery",
        policy(CLOSED, ENTRIES),
    );
    for kind in 133..=137 {
        p.add(
            format!("type {kind} passes"),
            &format!("ICMPv6 {kind}, hop limit 255"),
            v6(STRANGER6, API6).icmp(kind, 0).hop_limit(255),
            pass("essential"),
            ND,
        );
        p.add(
            format!("type {kind} with a hop limit of 254 is other traffic"),
            &format!("ICMPv6 {kind}, hop limit 254"),
            v6(STRANGER6, API6).icmp(kind, 0).hop_limit(254),
            drop("other"),
            OTHER,
        );
        p.add(
            format!("type {kind} with code 1 is other traffic"),
            &format!("ICMPv6 {kind}, code 1, hop limit 255"),
            v6(STRANGER6, API6).icmp(kind, 1).hop_limit(255),
            drop("other"),
            OTHER,
        );
        p.add(
            format!("type {kind} in IPv4's ICMP is other traffic"),
            &format!("ICMP {kind}"),
            v4(STRANGER, API).icmp(kind, 0),
            drop("other"),
            OTHER,
        );
    }
    case!(
        p,
        "type 138 is other traffic",
        v6(LOCAL, ALL_NODES).icmp(138, 0).hop_limit(255),
        drop("other"),
        OTHER
    );
    case!(
        p,
        "neighbour discovery from a link-local source passes",
        v6(LOCAL, ALL_NODES).icmp(134, 0).hop_limit(255),
        pass("essential"),
        ND
    );
    case!(
        p,
        "neighbour discovery from the unspecified address passes",
        v6("::", "ff02::1:ff00:10").icmp(135, 0).hop_limit(255),
        pass("essential"),
        ND
    );
    case!(
        p,
        "neighbour discovery from a denied source passes",
        v6(DENIED6, API6).icmp(135, 0).hop_limit(255),
        pass("essential"),
        "3.3 comes before 3.5"
    );
    case!(
        p,
        "neighbour discovery behind destination options passes",
        v6(LOCAL, ALL_NODES)
            .ext(Extension::destination_options())
            .icmp(135, 0)
            .hop_limit(255),
        pass("essential"),
        ND
    );
    case!(
        p,
        "neighbour discovery behind a tag passes",
        v6(LOCAL, ALL_NODES)
            .icmp(135, 0)
            .hop_limit(255)
            .frame()
            .tag(0x8100, 9),
        pass("essential"),
        ND
    );
    case!(
        p,
        "a first fragment of neighbour discovery is other traffic",
        v6(LOCAL, API6)
            .ext(Extension::fragment(0, true))
            .icmp(135, 0)
            .hop_limit(255),
        drop("other"),
        WHOLE
    );
    case!(
        p,
        "a later fragment of neighbour discovery is a fragment",
        v6(LOCAL, API6)
            .ext(Extension::fragment(2, false))
            .icmp(135, 0)
            .hop_limit(255),
        drop("fragment"),
        WHOLE
    );
    case!(
        p,
        "an atomic fragment of neighbour discovery is an ordinary packet",
        v6(LOCAL, ALL_NODES)
            .ext(Extension::fragment(0, false))
            .icmp(135, 0)
            .hop_limit(255),
        pass("essential"),
        "3.2: an atomic fragment is an ordinary packet"
    );
    p
}

fn listeners() -> Page {
    let mut p = Page::new(
        "03-multicast-listeners",
        "Rule 3: multicast listener messages",
        policy(CLOSED, ENTRIES),
    );
    for kind in [130, 131, 132, 143] {
        let what = format!("hop-by-hop, ICMPv6 {kind}, hop limit 1");
        let message = |source| {
            v6(source, "ff02::16")
                .ext(Extension::hop_by_hop())
                .icmp(kind, 0)
                .hop_limit(1)
        };
        p.add(
            format!("type {kind} from a link-local source passes"),
            &what,
            message(LOCAL),
            pass("essential"),
            MLD,
        );
        p.add(
            format!("type {kind} from the unspecified address passes"),
            &what,
            message("::"),
            pass("essential"),
            MLD,
        );
        p.add(
            format!("type {kind} from a global source is other traffic"),
            &what,
            message(STRANGER6),
            drop("other"),
            OTHER,
        );
        p.add(
            format!("type {kind} from the loopback address is other traffic"),
            &what,
            message("::1"),
            drop("other"),
            OTHER,
        );
    }
    let ranged = |source| v6(source, "ff02::16").icmp(143, 0).hop_limit(1);
    case!(
        p,
        "the last link-local source passes",
        ranged("febf:ffff::1"),
        pass("essential"),
        MLD
    );
    case!(
        p,
        "a site-local source is other traffic",
        ranged("fec0::1"),
        drop("other"),
        OTHER
    );
    case!(
        p,
        "the address before link-local is other traffic",
        ranged("fe7f:ffff::1"),
        drop("other"),
        OTHER
    );
    case!(
        p,
        "a first fragment of a listener message is other traffic",
        v6(LOCAL, "ff02::16")
            .ext(Extension::fragment(0, true))
            .icmp(143, 0),
        drop("other"),
        WHOLE
    );
    case!(
        p,
        "type 144 from a link-local source is other traffic",
        v6(LOCAL, "ff02::16").icmp(144, 0),
        drop("other"),
        OTHER
    );
    case!(
        p,
        "type 142 from a link-local source is other traffic",
        v6(LOCAL, "ff02::16").icmp(142, 0),
        drop("other"),
        OTHER
    );
    p
}

fn dhcp() -> Page {
    let mut p = Page::new("03-dhcp", "Rule 3: DHCP answers", policy(CLOSED, ENTRIES));
    let other = "3.7: no service at all: other-traffic decides";
    case!(
        p,
        "a DHCP answer to the broadcast address passes",
        v4(STRANGER, "255.255.255.255").udp(67, 68),
        pass("essential"),
        DHCP
    );
    case!(
        p,
        "a DHCP answer to an address passes",
        v4(STRANGER, API).udp(67, 68),
        pass("essential"),
        DHCP
    );
    case!(
        p,
        "a DHCP answer from a denied source passes",
        v4(DENIED, API).udp(67, 68),
        pass("essential"),
        "3.3 comes before 3.5"
    );
    case!(
        p,
        "a DHCP request is other traffic",
        v4(STRANGER, API).udp(68, 67),
        drop("other"),
        other
    );
    case!(
        p,
        "67 to 67 is other traffic",
        v4(STRANGER, API).udp(67, 67),
        drop("other"),
        other
    );
    case!(
        p,
        "67 to 69 is other traffic",
        v4(STRANGER, API).udp(67, 69),
        drop("other"),
        other
    );
    case!(
        p,
        "TCP 67 to 68 is other traffic",
        v4(STRANGER, API).tcp(67, 68),
        drop("other"),
        other
    );
    case!(
        p,
        "67 to 68 in IPv6 is other traffic",
        v6(STRANGER6, LOCAL).udp(67, 68),
        drop("other"),
        other
    );
    case!(
        p,
        "a first fragment of a DHCP answer is other traffic",
        v4(STRANGER, API).udp(67, 68).fragment(0, true),
        drop("other"),
        WHOLE
    );
    case!(
        p,
        "a DHCPv6 answer to a link-local address passes",
        v6(LOCAL, "fe80::2").udp(547, 546),
        pass("essential"),
        DHCP
    );
    case!(
        p,
        "a DHCPv6 answer from a global source to a link-local address passes",
        v6(STRANGER6, "fe80::2").udp(547, 546),
        pass("essential"),
        DHCP
    );
    case!(
        p,
        "a DHCPv6 answer to a global address is other traffic",
        v6(LOCAL, API6).udp(547, 546),
        drop("other"),
        other
    );
    case!(
        p,
        "a DHCPv6 answer to a multicast address is other traffic",
        v6(LOCAL, "ff02::1:2").udp(547, 546),
        drop("other"),
        other
    );
    case!(
        p,
        "a DHCPv6 request is other traffic",
        v6(LOCAL, "fe80::2").udp(546, 547),
        drop("other"),
        other
    );
    case!(
        p,
        "547 to 546 in IPv4 is other traffic",
        v4(STRANGER, API).udp(547, 546),
        drop("other"),
        other
    );
    case!(
        p,
        "a first fragment of a DHCPv6 answer is other traffic",
        v6(LOCAL, "fe80::2")
            .ext(Extension::fragment(0, true))
            .udp(547, 546),
        drop("other"),
        WHOLE
    );
    p
}
