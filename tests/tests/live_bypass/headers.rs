//! Ways past by what lies between the IP header and the port: extension headers and options.

use keyfence_tests::oracle::frames::{Carrier, Extension, Ipv4, Ipv6};

use crate::sender::payload6;
use crate::stage::{ALLOWED, CLOSED, Linux, MALFORMED, ONE_ADDRESS, OTHER, UNLISTED, Way, try_ways, way};

/// For experiments (RFC 4727): no host knows it.
const UNKNOWN_ROUTING: u8 = 253;

const WALKED: &[Way] = &[
    way(
        "the port behind hop-by-hop options",
        Linux::Delivers,
        |from| from.behind(&[Extension::hop_by_hop()]),
        &[UNLISTED],
        &[ALLOWED],
    ),
    way(
        "the port behind hop-by-hop options that are not first",
        Linux::Ignores,
        |from| from.behind(&[Extension::destination_options(), Extension::hop_by_hop()]),
        &[UNLISTED],
        &[ALLOWED],
    ),
    way(
        "the port behind 8 headers of destination options",
        Linux::Delivers,
        |from| from.behind(&vec![Extension::destination_options(); 8]),
        &[UNLISTED],
        &[ALLOWED],
    ),
    way(
        "the port behind 12 headers of destination options",
        Linux::Delivers,
        |from| from.behind(&vec![Extension::destination_options(); 12]),
        &[MALFORMED],
        &[MALFORMED],
    ),
    way(
        "a connection behind 12 headers of destination options",
        Linux::Opens,
        |from| {
            let hidden = |packet: Ipv6, _| packet.ext(Extension::destination_options());
            vec![(0..12).fold(from.syn6(), hidden).into()]
        },
        &[MALFORMED],
        &[MALFORMED],
    ),
    way(
        "the port behind a routing header with nothing left",
        Linux::Delivers,
        |from| from.behind(&[Extension::routing(UNKNOWN_ROUTING, 0)]),
        &[UNLISTED],
        &[ALLOWED],
    ),
    way(
        "the port behind a routing header with a segment left",
        Linux::Ignores,
        |from| from.behind(&[Extension::routing(UNKNOWN_ROUTING, 1)]),
        &[MALFORMED],
        &[MALFORMED],
    ),
    way(
        "the port behind a routing header of type 0 with nothing left",
        Linux::Delivers,
        |from| from.behind(&[Extension::routing(0, 0)]),
        &[MALFORMED],
        &[MALFORMED],
    ),
    way(
        "the port behind a routing header of type 0 with a segment left",
        Linux::Ignores,
        |from| from.behind(&[Extension::routing(0, 1)]),
        &[MALFORMED],
        &[MALFORMED],
    ),
    // No association can be made here: the kernel has neither INET_AH nor INET6_AH. With one, Linux would walk on.
    way(
        "the port behind an authentication header",
        Linux::Ignores,
        |from| from.behind(&[Extension::authentication()]),
        &[UNLISTED],
        &[ALLOWED],
    ),
    way(
        "the port behind a payload length of 0 and hop-by-hop options",
        Linux::Delivers,
        |from| {
            let packet = from.udp6().ext(Extension::hop_by_hop());
            vec![packet.payload_length(0).into()]
        },
        &[MALFORMED],
        &[MALFORMED],
    ),
];

#[test]
fn no_extension_header_that_is_walked_hides_a_port() {
    try_ways(WALKED, ONE_ADDRESS, CLOSED, |_| ());
}

const NOT_WALKED: &[Way] = &[
    way(
        "the port behind a mobility header",
        Linux::Ignores,
        |from| from.behind(&[Extension::other(135)]),
        &[OTHER],
        &[OTHER],
    ),
    way(
        "the port behind a HIP header",
        Linux::Ignores,
        |from| from.behind(&[Extension::other(139)]),
        &[OTHER],
        &[OTHER],
    ),
    way(
        "the port behind a shim6 header",
        Linux::Ignores,
        |from| from.behind(&[Extension::other(140)]),
        &[OTHER],
        &[OTHER],
    ),
    way(
        "the port behind a header of experiments",
        Linux::Ignores,
        |from| from.behind(&[Extension::other(253)]),
        &[OTHER],
        &[OTHER],
    ),
    way(
        "the port behind no next header",
        Linux::Ignores,
        |from| vec![from.v6().payload(59, payload6(&from.udp6())).into()],
        &[OTHER],
        &[OTHER],
    ),
    way(
        "the port behind IPv4's authentication header",
        Linux::Ignores,
        |from| {
            let mut header = Extension::authentication().bytes;
            header[0] = 17;
            vec![
                from.v4()
                    .payload(51, [header, from.datagram().bytes()].concat())
                    .into(),
            ]
        },
        &[OTHER],
        &[OTHER],
    ),
    way(
        "the port behind hop-by-hop options in IPv4",
        Linux::Ignores,
        |from| {
            let mut header = Extension::hop_by_hop().bytes;
            header[0] = 17;
            vec![
                from.v4()
                    .payload(0, [header, from.datagram().bytes()].concat())
                    .into(),
            ]
        },
        &[OTHER],
        &[OTHER],
    ),
];

#[test]
fn what_no_host_walks_through_is_another_protocol() {
    try_ways(NOT_WALKED, ONE_ADDRESS, CLOSED, |_| ());
}

const IPV4: &[Way] = &[
    way(
        "the reserved flag",
        Linux::Delivers,
        |from| vec![from.udp4().reserved_flag().into()],
        &[UNLISTED],
        &[ALLOWED],
    ),
    way(
        "the reserved flag on a connection",
        Linux::Opens,
        |from| vec![from.syn4().reserved_flag().into()],
        &[UNLISTED],
        &[ALLOWED],
    ),
    way(
        "the port behind options of nothing",
        Linux::Delivers,
        |from| vec![from.udp4().options(&[1; 40]).into()],
        &[UNLISTED],
        &[ALLOWED],
    ),
    way(
        "the port behind a record of the route",
        Linux::Delivers,
        |from| vec![from.udp4().options(&[7, 7, 4, 0, 0, 0, 0, 0]).into()],
        &[UNLISTED],
        &[ALLOWED],
    ),
    way(
        "a loose source route by way of another host",
        Linux::Ignores,
        |from| vec![from.udp4().options(&[131, 7, 4, 10, 77, 0, 2, 0]).into()],
        &[UNLISTED],
        &[ALLOWED],
    ),
    way(
        "a strict source route that is over",
        Linux::Ignores,
        |from| vec![from.udp4().options(&[137, 7, 8, 10, 77, 0, 2, 0]).into()],
        &[UNLISTED],
        &[ALLOWED],
    ),
    way(
        "a header length of 16",
        Linux::Ignores,
        |from| vec![from.udp4().header_words(4).into()],
        &[MALFORMED],
        &[MALFORMED],
    ),
    way(
        "a port where one without options would have it",
        Linux::Ignores,
        |from| {
            // A listed port in what is options; the datagram's own is no service's.
            let [source, port] = [from.port, crate::sender::PORT].map(u16::to_be_bytes);
            let packet: Ipv4 = from.v4().options(&[source, port].concat());
            vec![packet.udp(from.port, crate::sender::UNSERVED).into()]
        },
        &[OTHER],
        &[OTHER],
    ),
];

#[test]
fn no_flag_or_option_of_ipv4_hides_a_port() {
    try_ways(IPV4, ONE_ADDRESS, CLOSED, |_| ());
}
