//! Ways past a port filter by lengths, addresses, tunnels and ICMP.

use super::*;
use crate::oracle::frames::{Extension, Tcp, Udp, icmp};

const LISTED_ONLY: &str = "fragments = \"listed\"\nping = \"listed\"\n";
const TUNNEL: &str = "3: the outer packet is judged; 3.7: other protocols follow other-traffic";

pub(super) fn pages() -> Vec<Page> {
    vec![
        lengths(),
        addresses(),
        tunnels("bypass-tunnels", CLOSED, drop("other")),
        tunnels("bypass-tunnels-open", OPEN, pass("other")),
        icmps(),
    ]
}

fn lengths() -> Page {
    let mut p = Page::new(
        "bypass-lengths",
        "Lengths that lie, and padding",
        policy(OPEN, ENTRIES),
    );
    let bad = drop("malformed");
    let padding = "3.2: Ethernet padding is never read as payload";
    let past = "3.2: a header that runs past its packet";
    case!(
        p,
        "the port in the padding",
        v4(STRANGER, API).tcp(40000, 443).total_length(20),
        bad,
        padding
    );
    case!(
        p,
        "the port in the padding of another protocol",
        v4(STRANGER, API)
            .payload(59, Tcp::new(40000, 443).bytes())
            .total_length(20),
        pass("other"),
        padding
    );
    case!(
        p,
        "the port in IPv6's padding",
        v6(STRANGER6, API6).tcp(40000, 443).payload_length(0),
        bad,
        padding
    );
    case!(
        p,
        "another port in the padding",
        v4(STRANGER, API)
            .tcp(40000, 443)
            .frame()
            .trailer(&Tcp::new(40000, 80).bytes()),
        drop("unlisted").at("payments"),
        padding
    );
    case!(
        p,
        "a second packet in the padding",
        v4(LISTED, ELSE)
            .udp(1, 2)
            .frame()
            .trailer(&inside(&v4(STRANGER, API).tcp(40000, 443))),
        pass("other"),
        padding
    );
    case!(
        p,
        "a total length of 0",
        v4(STRANGER, API).tcp(40000, 443).total_length(0),
        bad,
        "3.2: IPv4: total length under the header"
    );
    case!(
        p,
        "a total length within the TCP header",
        v4(STRANGER, API).tcp(40000, 443).total_length(28),
        bad,
        past
    );
    case!(
        p,
        "a total length past the frame",
        v4(LISTED, API).tcp(40000, 443).total_length(1500),
        bad,
        "3.2: IPv4: total length past the frame"
    );
    case!(
        p,
        "a payload length past the frame",
        v6(LISTED6, API6).tcp(40000, 443).payload_length(1500),
        bad,
        "3.2: IPv6: payload past the frame"
    );
    case!(
        p,
        "a payload length within the TCP header",
        v6(STRANGER6, API6).tcp(40000, 443).payload_length(10),
        bad,
        past
    );
    case!(
        p,
        "a UDP length past the packet",
        v4(LISTED, DNS).udp_with(Udp {
            length: Some(100),
            ..Udp::new(40000, 53)
        }),
        bad,
        "3.2: UDP: length past its end"
    );
    case!(
        p,
        "a UDP length past the packet, within the padding",
        v4(LISTED, DNS)
            .udp_with(Udp {
                length: Some(100),
                ..Udp::new(40000, 53)
            })
            .frame()
            .pad(100, 0),
        bad,
        "3.2: UDP: length past its end"
    );
    case!(
        p,
        "a UDP length of the header alone",
        v4(STRANGER, DNS).udp_with(Udp {
            length: Some(8),
            ..Udp::new(40000, 53)
        }),
        drop("unlisted").at("resolver"),
        "3.2: UDP: length field under 8"
    );
    case!(
        p,
        "a frame cut in the Ethernet payload",
        v4(STRANGER, API).tcp(40000, 443).frame().cut(30),
        bad,
        "3.2: IPv4: header under 20 bytes, total length past the frame"
    );
    case!(
        p,
        "jumbo payload length 0 without the option",
        v6(LISTED6, API6)
            .tcp(40000, 443)
            .payload_length(0)
            .frame()
            .pad(1000, 0),
        bad,
        past
    );
    p
}

fn addresses() -> Page {
    let mut p = Page::new(
        "bypass-addresses",
        "Addresses that look like others",
        policy("other-address = \"drop\"\n", ENTRIES),
    );
    let mapped = "3.2: IPv6: source or destination in ::ffff:0:0/96";
    let exact = "3.9: a grant matches when its prefix holds the source";
    let elsewhere = "3.7: a service has that protocol and port at another address: other-address decides";
    case!(
        p,
        "an IPv4-mapped source of a listed client",
        v6("::ffff:198.51.100.7", API6).tcp(40000, 443),
        drop("malformed"),
        mapped
    );
    case!(
        p,
        "an IPv4-mapped source by UDP, which a socket shows as the IPv4 peer",
        v6("::ffff:198.51.100.7", DNS6).udp(40000, 53),
        drop("malformed"),
        mapped
    );
    case!(
        p,
        "an IPv4-mapped management source",
        v6("::ffff:192.0.2.5", API6).tcp(1, 22),
        drop("malformed"),
        mapped
    );
    case!(
        p,
        "an IPv4-mapped destination",
        v6(LISTED6, "::ffff:203.0.113.10").tcp(40000, 443),
        drop("malformed"),
        mapped
    );
    case!(
        p,
        "an IPv4-mapped source in a later fragment",
        v6("::ffff:198.51.100.7", API6)
            .ext(Extension::fragment(9, false))
            .tcp(1, 2),
        drop("malformed"),
        mapped
    );
    case!(
        p,
        "an IPv4-compatible source",
        v6("::198.51.100.7", API6).tcp(40000, 443),
        drop("unlisted").at("payments"),
        exact
    );
    case!(
        p,
        "a 6to4 source",
        v6("2002:c633:6407::1", API6).tcp(40000, 443),
        drop("unlisted").at("payments"),
        exact
    );
    case!(
        p,
        "a NAT64 source",
        v6("64:ff9b::198.51.100.7", API6).tcp(40000, 443),
        drop("unlisted").at("payments"),
        exact
    );
    case!(
        p,
        "an IPv6 source that begins with a listed IPv4 address",
        v6("c633:6407::", API6).tcp(40000, 443),
        drop("unlisted").at("payments"),
        exact
    );
    case!(
        p,
        "an IPv4 source that begins as a listed IPv6 prefix",
        v4("32.1.13.184", API).tcp(40000, 443),
        drop("unlisted").at("payments"),
        exact
    );
    case!(
        p,
        "the service's own address as source",
        v4(API, API).tcp(40000, 443),
        drop("unlisted").at("payments"),
        exact
    );
    case!(
        p,
        "loopback as source",
        v4("127.0.0.1", API).tcp(40000, 443),
        drop("unlisted").at("payments"),
        exact
    );
    case!(
        p,
        "IPv6 loopback as source",
        v6("::1", API6).tcp(40000, 443),
        drop("unlisted").at("payments"),
        exact
    );
    case!(
        p,
        "broadcast as source",
        v4("255.255.255.255", API).tcp(40000, 443),
        drop("unlisted").at("payments"),
        exact
    );
    case!(
        p,
        "no address as source",
        v4("0.0.0.0", API).tcp(40000, 443),
        drop("unlisted").at("payments"),
        exact
    );
    case!(
        p,
        "the service's port by broadcast",
        v4(STRANGER, "255.255.255.255").tcp(40000, 443),
        drop("other"),
        elsewhere
    );
    case!(
        p,
        "the service's port by multicast",
        v4(STRANGER, "224.0.0.1").udp(40000, 53),
        drop("other"),
        elsewhere
    );
    case!(
        p,
        "the service's port by IPv6 multicast",
        v6(STRANGER6, "ff02::1").udp(40000, 53),
        drop("other"),
        elsewhere
    );
    case!(
        p,
        "the service's port by a link-local address",
        v6("fe80::9", "fe80::1").tcp(40000, 443),
        drop("other"),
        elsewhere
    );
    case!(
        p,
        "the service's port by loopback from outside",
        v4(STRANGER, "127.0.0.1").tcp(40000, 443),
        drop("other"),
        elsewhere
    );
    case!(
        p,
        "the service's port by another address of this host",
        v4(LISTED, ELSE).tcp(40000, 443),
        drop("other"),
        elsewhere
    );
    p
}

fn tunnels(name: &'static str, filter: &str, other: Expected) -> Page {
    let mut p = Page::new(
        name,
        "The service's packet within another",
        policy(filter, ENTRIES),
    );
    let inner = || inside(&v4(LISTED, API).tcp(40000, 443));
    let inner6 = || inside(&v6(LISTED6, API6).tcp(40000, 443));
    let with = |front: &[u8], packet: Vec<u8>| [front, &packet].concat();
    case!(
        p,
        "IPv4 in IPv4",
        v4(STRANGER, API).payload(4, inner()),
        other,
        TUNNEL
    );
    case!(
        p,
        "IPv6 in IPv4",
        v4(STRANGER, API).payload(41, inner6()),
        other,
        TUNNEL
    );
    case!(
        p,
        "IPv4 in IPv6",
        v6(STRANGER6, API6).payload(4, inner()),
        other,
        TUNNEL
    );
    case!(
        p,
        "IPv6 in IPv6",
        v6(STRANGER6, API6).payload(41, inner6()),
        other,
        TUNNEL
    );
    case!(
        p,
        "IPv6 in IPv6 behind extension headers",
        v6(STRANGER6, API6)
            .ext(Extension::destination_options())
            .payload(41, inner6()),
        other,
        TUNNEL
    );
    case!(
        p,
        "IPv4 in GRE",
        v4(STRANGER, API).payload(47, with(&[0, 0, 8, 0], inner())),
        other,
        TUNNEL
    );
    case!(
        p,
        "Ethernet in GRE",
        v4(STRANGER, API).payload(
            47,
            with(
                &[0, 0, 0x65, 0x58],
                v4(LISTED, API).tcp(40000, 443).frame().bytes()
            )
        ),
        other,
        TUNNEL
    );
    case!(
        p,
        "IPv6 in GRE in IPv6",
        v6(STRANGER6, API6).payload(47, with(&[0, 0, 0x86, 0xdd], inner6())),
        other,
        TUNNEL
    );
    case!(
        p,
        "ESP",
        v4(STRANGER, API).payload(50, with(&[0, 0, 0, 1, 0, 0, 0, 1], inner())),
        other,
        TUNNEL
    );
    case!(
        p,
        "authentication in IPv4",
        v4(STRANGER, API).payload(51, with(&[4, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1], inner())),
        other,
        TUNNEL
    );
    case!(
        p,
        "L2TP",
        v4(STRANGER, API).payload(115, with(&[0, 0, 0, 1], inner())),
        other,
        TUNNEL
    );
    case!(
        p,
        "SCTP to the service's port",
        v4(STRANGER, API).payload(132, Tcp::new(40000, 443).bytes()),
        other,
        TUNNEL
    );
    case!(
        p,
        "DCCP to the service's port",
        v4(STRANGER, API).payload(33, Tcp::new(40000, 443).bytes()),
        other,
        TUNNEL
    );
    case!(
        p,
        "UDP-Lite to the service's port",
        v4(STRANGER, DNS).payload(136, Udp::new(40000, 53).bytes()),
        other,
        TUNNEL
    );
    case!(
        p,
        "VXLAN",
        v4(STRANGER, API).udp_with(Udp {
            data: with(
                &[8, 0, 0, 0, 0, 0, 1, 0],
                v4(LISTED, API).tcp(40000, 443).frame().bytes()
            ),
            ..Udp::new(40000, 4789)
        }),
        other,
        TUNNEL
    );
    case!(
        p,
        "Geneve",
        v6(STRANGER6, API6).udp_with(Udp {
            data: with(
                &[0, 0, 0x65, 0x58, 0, 0, 1, 0],
                v4(LISTED, API).tcp(40000, 443).frame().bytes()
            ),
            ..Udp::new(40000, 6081)
        }),
        other,
        TUNNEL
    );
    case!(
        p,
        "WireGuard",
        v4(STRANGER, API).udp(40000, 51_820),
        other,
        TUNNEL
    );
    case!(
        p,
        "Teredo",
        v4(STRANGER, API).udp_with(Udp {
            data: inner6(),
            ..Udp::new(40000, 3544)
        }),
        other,
        TUNNEL
    );
    case!(
        p,
        "a tunnel from a denied source is denied",
        v4(DENIED, API).payload(4, inner()),
        drop("denied"),
        "3.5: deny entries drop"
    );
    p
}

fn icmps() -> Page {
    let mut p = Page::new("bypass-icmp", "Smuggling by ICMP", policy(LISTED_ONLY, ENTRIES));
    let ping = "3.6: echo requests follow ping (listed)";
    let fragment = "3.8 (b): strangers must not fill the reassembly memory";
    let error = "3.6: errors and echo replies pass, whatever they carry";
    case!(
        p,
        "an echo request of a stranger",
        v4(STRANGER, API).icmp(8, 0),
        drop("icmp"),
        ping
    );
    case!(
        p,
        "an echo request with a packet in it",
        v4(STRANGER, API).payload(1, [icmp(8, 0, 0), inside(&v4(LISTED, API).tcp(1, 443))].concat()),
        drop("icmp"),
        ping
    );
    case!(
        p,
        "an IPv6 echo request of a stranger",
        v6(STRANGER6, API6).icmp(128, 0),
        drop("icmp"),
        ping
    );
    case!(
        p,
        "an echo request behind extension headers",
        v6(STRANGER6, API6)
            .ext(Extension::hop_by_hop())
            .ext(Extension::routing(4, 0))
            .icmp(128, 0),
        drop("icmp"),
        ping
    );
    case!(
        p,
        "a fragmented echo request",
        v4(STRANGER, API).icmp(8, 0).fragment(0, true),
        drop("icmp"),
        ping
    );
    case!(
        p,
        "a fragmented echo reply",
        v4(STRANGER, API).icmp(0, 0).fragment(0, true),
        drop("fragment"),
        fragment
    );
    case!(
        p,
        "the rest of a fragmented echo reply",
        v4(STRANGER, API).icmp(0, 0).fragment(3, false),
        drop("icmp"),
        "3.6: later fragments of IPv4 ICMP follow ping"
    );
    case!(
        p,
        "an error with a packet in it is an error",
        v4(STRANGER, API).payload(
            1,
            [icmp(3, 4, 0), inside(&v4(API, STRANGER).tcp(443, 1))].concat()
        ),
        pass("icmp"),
        error
    );
    case!(
        p,
        "an echo reply nobody asked for",
        v4(STRANGER, API).icmp(0, 0),
        pass("icmp"),
        error
    );
    case!(
        p,
        "ICMPv6 in IPv4 as an echo request",
        v4(STRANGER, API).payload(58, icmp(128, 0, 8)),
        pass("other"),
        "3.2: ICMPv6 in IPv4 is another protocol"
    );
    case!(
        p,
        "ICMP in IPv6 as an echo request",
        v6(STRANGER6, API6).payload(1, icmp(8, 0, 8)),
        pass("other"),
        "3.2: ICMP in IPv6 is another protocol"
    );
    case!(
        p,
        "a redirect follows other-traffic",
        v4(STRANGER, API).icmp(5, 1),
        pass("other"),
        "3.6: every other type follows other-traffic"
    );
    case!(
        p,
        "a router advertisement from off the link is no neighbour's",
        v6(STRANGER6, API6).icmp(134, 0).hop_limit(64),
        pass("other"),
        "3.6: every other type follows other-traffic"
    );
    case!(
        p,
        "ICMP of 7 bytes",
        v4(STRANGER, API).icmp(0, 0).shorten(7),
        drop("malformed"),
        "3.2: ICMP under 8 bytes"
    );
    case!(
        p,
        "a listed source may ping",
        v4(LISTED, API).icmp(8, 0),
        pass("icmp"),
        ping
    );
    p
}
