//! Ways past a port filter by what lies between the link layer and the port.

use super::*;
use crate::oracle::frames::{Extension, Ipv6, Tcp, Udp};

const WALKED: &str = "3.2: IPv6 extension headers are walked, in any order";
const EIGHT: &str = "3.2: more than 8 extension headers are malformed";
const NOT_WALKED: &str =
    "3.2: the headers of other protocols are not looked at, and 3.7: they follow other-traffic";

pub(super) fn pages() -> Vec<Page> {
    vec![orders(), counts(), chains(), options(), tags(), link_layer()]
}

/// Every order of the four headers that are no fragment.
fn orders() -> Page {
    let mut p = Page::new(
        "bypass-extension-orders",
        "Hiding the port behind extension headers in every order",
        policy(CLOSED, ENTRIES),
    );
    type Named = (&'static str, fn() -> Extension);
    let all: [Named; 5] = [
        ("hop", Extension::hop_by_hop),
        ("route", || Extension::routing(4, 0)),
        ("auth", Extension::authentication),
        ("dest", Extension::destination_options),
        ("atomic", || Extension::fragment(0, false)),
    ];
    let mut orders: Vec<Vec<usize>> = vec![vec![]];
    for _ in 0..all.len() {
        let longer = |order: &Vec<usize>| {
            let order = order.clone();
            (0..all.len())
                .filter(|n| !order.contains(n))
                .map(|n| [&order[..], &[n]].concat())
                .collect::<Vec<_>>()
        };
        orders = orders.iter().flat_map(longer).collect();
    }
    for order in orders {
        let names: Vec<&str> = order.iter().map(|n| all[*n].0).collect();
        let names = names.join(", ");
        let hidden = |packet: Ipv6| {
            order
                .iter()
                .fold(packet, |packet, n| packet.ext(all[*n].1()))
                .tcp(40000, 443)
        };
        let what = format!("{names}, tcp 40000 > 443");
        p.add(
            format!("a stranger behind {names}"),
            &what,
            hidden(v6(STRANGER6, API6)),
            drop("unlisted").at("payments"),
            WALKED,
        );
        p.add(
            format!("a listed source behind {names}"),
            &what,
            hidden(v6(LISTED6, API6)),
            allowed("payments", "acme"),
            WALKED,
        );
    }
    p
}

/// Each header once to nine times.
fn counts() -> Page {
    let mut p = Page::new(
        "bypass-extension-counts",
        "Hiding the port behind many extension headers",
        policy(OPEN, ENTRIES),
    );
    for (name, extension) in [
        ("hop-by-hop", Extension::hop_by_hop as fn() -> Extension),
        ("routing", || Extension::routing(4, 0)),
        ("authentication", Extension::authentication),
        ("destination options", Extension::destination_options),
    ] {
        for count in 1..=12 {
            let hidden = (0..count)
                .fold(v6(STRANGER6, API6), |packet, _| packet.ext(extension()))
                .tcp(40000, 443);
            let answer = if count <= 8 {
                drop("unlisted").at("payments")
            } else {
                drop("malformed")
            };
            p.add(
                format!("a stranger behind {count} times {name}"),
                &format!("{count} times {name}, tcp 40000 > 443"),
                hidden,
                answer,
                EIGHT,
            );
        }
    }
    p
}

fn chains() -> Page {
    let mut p = Page::new(
        "bypass-extension-chains",
        "Chains that lie, break off, or end in something else",
        policy(CLOSED, ENTRIES),
    );
    let bad = drop("malformed");
    let ours = || v6(LISTED6, API6);
    let theirs = || v6(STRANGER6, API6);
    let past = "3.2: a header that runs past its packet";
    case!(
        p,
        "routing type 0 around the filter",
        theirs().ext(Extension::routing(0, 1)).tcp(40000, 443),
        bad,
        "3.2: a routing header of type 0 or with segments left"
    );
    case!(
        p,
        "routing type 0 with nothing left",
        ours().ext(Extension::routing(0, 0)).tcp(40000, 443),
        bad,
        "3.2: a routing header of type 0 or with segments left"
    );
    case!(
        p,
        "segment routing on to another host",
        ours().ext(Extension::routing(4, 1)).tcp(40000, 443),
        bad,
        "3.2: a routing header of type 0 or with segments left"
    );
    case!(
        p,
        "home address routing on",
        ours().ext(Extension::routing(2, 1)).tcp(40000, 443),
        bad,
        "3.2: a routing header of type 0 or with segments left"
    );
    case!(
        p,
        "a header whose length jumps over the port",
        theirs()
            .ext(Extension::destination_options().length(1))
            .tcp_with(Tcp {
                data: vec![0; 40],
                ..Tcp::new(40000, 443)
            }),
        bad,
        "3.2: what stands where TCP should is read as TCP: a data offset under 5"
    );
    case!(
        p,
        "a header whose length jumps to another port",
        theirs()
            .ext(Extension::destination_options().length(1))
            .payload(6, [vec![0; 8], Tcp::new(40000, 443).bytes()].concat()),
        drop("unlisted").at("payments"),
        WALKED
    );
    case!(
        p,
        "a length that jumps past the packet",
        theirs().ext(Extension::hop_by_hop().length(255)).tcp(40000, 443),
        bad,
        past
    );
    case!(
        p,
        "authentication read in units of 8 would show another port",
        theirs()
            .ext(Extension {
                number: 51,
                bytes: vec![0, 2, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0]
            })
            .tcp(40000, 443),
        drop("unlisted").at("payments"),
        "3.2: authentication's length counts 4-byte units, plus 2"
    );
    case!(
        p,
        "authentication without an association",
        theirs().ext(Extension::authentication()).tcp(40000, 443),
        drop("unlisted").at("payments"),
        WALKED
    );
    case!(
        p,
        "hop-by-hop not first",
        theirs()
            .ext(Extension::destination_options())
            .ext(Extension::hop_by_hop())
            .tcp(40000, 443),
        drop("unlisted").at("payments"),
        WALKED
    );
    case!(
        p,
        "hop-by-hop twice",
        theirs()
            .ext(Extension::hop_by_hop())
            .ext(Extension::hop_by_hop())
            .tcp(40000, 443),
        drop("unlisted").at("payments"),
        WALKED
    );
    case!(
        p,
        "the jumbo option with payload length 0",
        ours()
            .ext(Extension {
                number: 0,
                bytes: vec![0, 0, 0xc2, 4, 0, 0, 0, 28]
            })
            .tcp(40000, 443)
            .payload_length(0),
        bad,
        past
    );
    case!(
        p,
        "the jumbo option with an honest length",
        theirs()
            .ext(Extension {
                number: 0,
                bytes: vec![0, 0, 0xc2, 4, 0, 0, 0, 28]
            })
            .tcp(40000, 443),
        drop("unlisted").at("payments"),
        "3: packets are never normalised: options are not read"
    );
    case!(
        p,
        "a router alert",
        theirs()
            .ext(Extension {
                number: 0,
                bytes: vec![0, 0, 5, 2, 0, 0, 1, 0]
            })
            .tcp(40000, 443),
        drop("unlisted").at("payments"),
        WALKED
    );
    case!(
        p,
        "options that are garbage",
        theirs()
            .ext(Extension {
                number: 60,
                bytes: vec![0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]
            })
            .tcp(40000, 443),
        drop("unlisted").at("payments"),
        "3: packets are never normalised: options are not read"
    );
    for (name, number) in [
        ("mobility", 135),
        ("HIP", 139),
        ("shim6", 140),
        ("an experiment", 253),
        ("another experiment", 254),
    ] {
        p.add(
            format!("the port behind {name}"),
            &format!("next header {number}, then tcp 40000 > 443"),
            ours().ext(Extension::other(number)).tcp(40000, 443),
            drop("other"),
            NOT_WALKED,
        );
    }
    case!(
        p,
        "the port behind no next header",
        ours().payload(59, Tcp::new(40000, 443).bytes()),
        drop("other"),
        NOT_WALKED
    );
    case!(
        p,
        "no next header behind extension headers",
        ours()
            .ext(Extension::hop_by_hop())
            .ext(Extension::destination_options()),
        drop("other"),
        NOT_WALKED
    );
    case!(
        p,
        "the port behind ESP",
        ours().payload(50, [vec![0; 8], Tcp::new(40000, 443).bytes()].concat()),
        drop("other"),
        NOT_WALKED
    );
    case!(
        p,
        "ESP behind an atomic fragment",
        ours().ext(Extension::fragment(0, false)).payload(50, vec![0; 16]),
        drop("other"),
        NOT_WALKED
    );
    case!(
        p,
        "a chain that ends within a header",
        ours().ext(Extension::hop_by_hop()).payload(60, vec![6]),
        bad,
        past
    );
    case!(
        p,
        "a chain that ends where the next header should be",
        ours().payload(0, vec![]),
        bad,
        past
    );
    case!(
        p,
        "TCP by its number in IPv4's extension header",
        v4(LISTED, API).payload(
            60,
            [vec![6, 0, 1, 4, 0, 0, 0, 0], Tcp::new(40000, 443).bytes()].concat()
        ),
        drop("other"),
        "3.2: extension headers are walked in IPv6 only"
    );
    case!(
        p,
        "authentication in IPv4",
        v4(LISTED, API).payload(
            51,
            [
                vec![6, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1],
                Tcp::new(40000, 443).bytes()
            ]
            .concat()
        ),
        drop("other"),
        "3.2: extension headers are walked in IPv6 only"
    );
    p
}

fn options() -> Page {
    let mut p = Page::new(
        "bypass-options",
        "IPv4 and TCP options that move or disguise the port",
        policy(CLOSED, ENTRIES),
    );
    let moved = "3.2: the transport header is where the IPv4 header length says";
    let theirs = || v4(STRANGER, API);
    case!(
        p,
        "options where a filter of fixed headers reads another port",
        theirs().options(&[1, 1, 0, 22]).tcp(40000, 443),
        drop("unlisted").at("payments"),
        moved
    );
    case!(
        p,
        "options of 40 bytes",
        theirs().options(&[1; 40]).tcp(40000, 443),
        drop("unlisted").at("payments"),
        moved
    );
    case!(
        p,
        "options that are a TCP header to management",
        theirs().options(&Tcp::new(40000, 22).bytes()).tcp(40000, 443),
        drop("unlisted").at("payments"),
        moved
    );
    case!(
        p,
        "options of garbage",
        theirs().options(&[0xff; 8]).tcp(40000, 443),
        drop("unlisted").at("payments"),
        moved
    );
    case!(
        p,
        "an end of options before the port",
        theirs().options(&[0; 8]).tcp(40000, 443),
        drop("unlisted").at("payments"),
        moved
    );
    case!(
        p,
        "a loose source route through the service's address",
        theirs().options(&[131, 7, 4, 203, 0, 113, 53, 0]).tcp(40000, 443),
        drop("unlisted").at("payments"),
        "3.7: the destination address is the header's"
    );
    case!(
        p,
        "a strict source route from a listed source",
        v4(LISTED, ELSE)
            .options(&[137, 7, 4, 203, 0, 113, 10, 0])
            .tcp(40000, 443),
        drop("other"),
        "3.7: the destination address is the header's"
    );
    case!(
        p,
        "a record route",
        theirs().options(&[7, 7, 4, 0, 0, 0, 0, 0]).tcp(40000, 443),
        drop("unlisted").at("payments"),
        moved
    );
    case!(
        p,
        "a header length under 20 bytes",
        theirs().header_words(4).tcp(40000, 443),
        drop("malformed"),
        "3.2: IPv4: header under 20 bytes"
    );
    case!(
        p,
        "a header length that takes the TCP header for options",
        theirs().header_words(10).tcp(40000, 443),
        drop("malformed"),
        "3.2: a header that runs past its packet"
    );
    case!(
        p,
        "a header length that shows another port in the data",
        theirs().header_words(10).tcp_with(Tcp {
            data: Tcp::new(40000, 443).bytes(),
            ..Tcp::new(40000, 22)
        }),
        drop("unlisted").at("payments"),
        moved
    );
    case!(
        p,
        "a listed source with options",
        v4(LISTED, API).options(&[1; 40]).tcp(40000, 443),
        allowed("payments", "acme"),
        moved
    );
    case!(
        p,
        "TCP without room for its options",
        theirs().tcp_with(Tcp {
            data_offset: Some(15),
            ..Tcp::new(40000, 443)
        }),
        drop("malformed"),
        "3.2: TCP: data offset past the packet"
    );
    case!(
        p,
        "TCP with a data offset of 0",
        theirs().tcp_with(Tcp {
            data_offset: Some(0),
            ..Tcp::new(40000, 443)
        }),
        drop("malformed"),
        "3.2: TCP: data offset under 5"
    );
    case!(
        p,
        "UDP of length 0",
        v4(LISTED, DNS).udp_with(Udp {
            length: Some(0),
            ..Udp::new(40000, 53)
        }),
        drop("malformed"),
        "3.2: UDP: length field under 8"
    );
    case!(
        p,
        "UDP of length 0 in IPv6, which Linux takes",
        v6(LISTED6, DNS6).udp_with(Udp {
            length: Some(0),
            ..Udp::new(40000, 53)
        }),
        drop("malformed"),
        "3.2: UDP: length field under 8"
    );
    p
}

fn tags() -> Page {
    let mut p = Page::new(
        "bypass-vlan",
        "Hiding the packet behind tags",
        policy(CLOSED, ENTRIES),
    );
    let two = "3.1: up to two VLAN tags are skipped";
    let theirs = || v4(STRANGER, API).tcp(40000, 443).frame();
    let no = drop("unlisted").at("payments");
    case!(p, "one tag", theirs().tag(0x8100, 5), no, two);
    case!(p, "a priority tag", theirs().tag(0x8100, 0), no, two);
    case!(p, "QinQ", theirs().tag(0x88a8, 5).tag(0x8100, 6), no, two);
    case!(
        p,
        "QinQ by 802.1Q alone",
        theirs().tag(0x8100, 5).tag(0x8100, 6),
        no,
        two
    );
    case!(
        p,
        "two priority tags",
        theirs().tag(0x8100, 0).tag(0x8100, 0),
        no,
        two
    );
    case!(
        p,
        "three priority tags, which Linux delivers",
        theirs().tag(0x8100, 0).tag(0x8100, 0).tag(0x8100, 0),
        drop("malformed"),
        "3.1: a third tag is malformed"
    );
    case!(
        p,
        "three tags of a listed source",
        v4(LISTED, API)
            .tcp(40000, 443)
            .frame()
            .tag(0x88a8, 1)
            .tag(0x88a8, 2)
            .tag(0x8100, 3),
        drop("malformed"),
        "3.1: a third tag is malformed"
    );
    case!(
        p,
        "ten tags",
        (0..10).fold(theirs(), |frame, n| frame.tag(0x8100, n)),
        drop("malformed"),
        "3.1: a third tag is malformed"
    );
    case!(
        p,
        "a 0x9100 tag",
        theirs().tag(0x9100, 5),
        drop("non-ip"),
        "3.1: 0x9100 is neither tag nor IP"
    );
    case!(
        p,
        "a 0x9200 tag",
        theirs().tag(0x9200, 5),
        drop("non-ip"),
        "3.1: 0x9200 is neither tag nor IP"
    );
    case!(
        p,
        "a 0x9100 tag within a tag",
        theirs().tag(0x8100, 5).tag(0x9100, 6),
        drop("non-ip"),
        "3.1: 0x9100 is neither tag nor IP"
    );
    case!(
        p,
        "IPv6 behind two tags",
        v6(STRANGER6, API6)
            .tcp(40000, 443)
            .frame()
            .tag(0x88a8, 5)
            .tag(0x8100, 6),
        no,
        two
    );
    case!(
        p,
        "a later fragment behind two tags",
        v4(STRANGER, API)
            .tcp(1, 443)
            .fragment(9, true)
            .frame()
            .tag(0x88a8, 5)
            .tag(0x8100, 6),
        drop("fragment"),
        two
    );
    case!(
        p,
        "a cut tag",
        Frame::new(0x8100, vec![0x45, 0, 0]),
        drop("malformed"),
        "3.1: a cut tag is malformed"
    );
    p
}

fn link_layer() -> Page {
    let mut p = Page::new(
        "bypass-link-layer",
        "IP that does not say so in its EtherType",
        policy(CLOSED, ENTRIES),
    );
    let non_ip = "3.1: what is neither IPv4 nor IPv6 by its EtherType follows non-ip";
    let packet = || inside(&v4(LISTED, API).tcp(40000, 443));
    case!(
        p,
        "IPv4 in LLC/SNAP",
        Frame::snap(0x0800, &packet()),
        drop("non-ip"),
        non_ip
    );
    case!(
        p,
        "IPv6 in LLC/SNAP",
        Frame::snap(0x86dd, &inside(&v6(LISTED6, API6).tcp(40000, 443))),
        drop("non-ip"),
        non_ip
    );
    case!(
        p,
        "IPv4 in LLC/SNAP behind a tag",
        Frame::snap(0x0800, &packet()).tag(0x8100, 5),
        drop("non-ip"),
        non_ip
    );
    case!(
        p,
        "IPv4 in LLC by its own SAP",
        Frame::llc(0x06, 0x06, 3, &packet()),
        drop("non-ip"),
        non_ip
    );
    case!(
        p,
        "IPv4 in PPPoE",
        Frame::new(0x8864, [0x11, 0, 0, 1, 0, 42, 0, 0x21]).trailer(&packet()),
        drop("non-ip"),
        non_ip
    );
    case!(
        p,
        "IPv4 in MPLS",
        Frame::new(0x8847, [0, 1, 1, 64]).trailer(&packet()),
        drop("non-ip"),
        non_ip
    );
    case!(
        p,
        "IPv4 in a loopback frame",
        Frame::new(0x9000, packet()),
        drop("non-ip"),
        non_ip
    );
    case!(
        p,
        "IPv4 that calls itself ARP is ARP, which no service reads",
        Frame::new(0x0806, packet()),
        pass("essential"),
        "3.1: ARP passes"
    );
    case!(
        p,
        "IPv4 under IPv6's EtherType",
        Frame::new(0x86dd, packet()),
        drop("malformed"),
        "3.2: IPv6: version not 6"
    );
    case!(
        p,
        "IPv6 under IPv4's EtherType",
        Frame::new(0x0800, inside(&v6(LISTED6, API6).tcp(40000, 443))),
        drop("malformed"),
        "3.2: IPv4: version not 4"
    );
    case!(
        p,
        "to a multicast Ethernet address",
        v4(STRANGER, API)
            .tcp(40000, 443)
            .frame()
            .to([0x01, 0, 0x5e, 0, 0, 1]),
        drop("unlisted").at("payments"),
        "3: the Ethernet address is not asked"
    );
    case!(
        p,
        "to the broadcast Ethernet address",
        v4(STRANGER, API).tcp(40000, 443).frame().to([0xff; 6]),
        drop("unlisted").at("payments"),
        "3: the Ethernet address is not asked"
    );
    case!(
        p,
        "to link control's address",
        v4(STRANGER, API)
            .tcp(40000, 443)
            .frame()
            .to([0x01, 0x80, 0xc2, 0, 0, 0x0e]),
        drop("unlisted").at("payments"),
        "3.1: frames that are not IP to 01-80-C2-00-00-0x"
    );
    p
}
