//! Ways past by fragments: reassembly must meet nothing of a stranger's.
//!
//! All else is open here, so that a fragment is dropped for what it is.

use keyfence_tests::oracle::frames::{Carrier, Extension, Udp, icmp};

use crate::sender::{Sender, UNSERVED, payload4, payload6};
use crate::stage::{
    ALLOWED, FRAGMENT, FRAGMENT_PASSED, ICMP, Linux, MALFORMED, ONE_ADDRESS, OPEN, UNLISTED, Way, try_ways,
    way,
};

const TCP: u8 = 6;
const UDP: u8 = 17;
const GRE: u8 = 47;
const ICMPV6: u8 = 58;
const NO_NEXT: u8 = 59;
const DESTINATION_OPTIONS: u8 = 60;

/// A datagram to a port that is no service's, as long as that to the service.
fn unserved(from: &Sender) -> Vec<u8> {
    let datagram = Udp {
        destination: UNSERVED,
        ..from.datagram()
    };
    payload4(&from.v4().udp_with(datagram))
}

const IPV4: &[Way] = &[
    way(
        "a datagram in two fragments",
        Linux::Delivers,
        |from| {
            let whole = payload4(&from.udp4());
            vec![
                from.piece4(UDP, &whole[..16], 0, true),
                from.piece4(UDP, &whole[16..], 2, false),
            ]
        },
        &[UNLISTED, FRAGMENT],
        &[ALLOWED, FRAGMENT_PASSED],
    ),
    way(
        "a datagram whose last fragment comes first",
        Linux::Delivers,
        |from| {
            let whole = payload4(&from.udp4());
            vec![
                from.piece4(UDP, &whole[16..], 2, false),
                from.piece4(UDP, &whole[..16], 0, true),
            ]
        },
        &[FRAGMENT, UNLISTED],
        &[FRAGMENT_PASSED, ALLOWED],
    ),
    way(
        "a first fragment that holds the UDP header alone",
        Linux::Delivers,
        |from| {
            let whole = payload4(&from.udp4());
            vec![
                from.piece4(UDP, &whole[..8], 0, true),
                from.piece4(UDP, &whole[8..], 1, false),
            ]
        },
        &[UNLISTED, FRAGMENT],
        &[ALLOWED, FRAGMENT_PASSED],
    ),
    way(
        "a tiny first fragment of TCP, its flags at offset 1",
        Linux::Opens,
        |from| {
            let whole = payload4(&from.syn4());
            vec![
                from.piece4(TCP, &whole[..8], 0, true),
                from.piece4(TCP, &whole[8..], 1, false),
            ]
        },
        &[MALFORMED, MALFORMED],
        &[MALFORMED, MALFORMED],
    ),
    way(
        "a tiny first fragment of TCP that holds its flags and not all of it",
        Linux::Opens,
        |from| {
            let whole = payload4(&from.syn4());
            vec![
                from.piece4(TCP, &whole[..16], 0, true),
                from.piece4(TCP, &whole[16..], 2, false),
            ]
        },
        &[MALFORMED, FRAGMENT],
        &[MALFORMED, FRAGMENT_PASSED],
    ),
    way(
        "TCP flags overwritten at offset 1",
        Linux::Ignores,
        |from| {
            let whole = [payload4(&from.syn4()), vec![0; 4]].concat();
            vec![
                from.piece4(TCP, &whole, 0, true),
                from.piece4(TCP, &whole[8..], 1, false),
            ]
        },
        &[UNLISTED, MALFORMED],
        &[ALLOWED, MALFORMED],
    ),
    way(
        "data overwritten by an overlapping fragment",
        Linux::Ignores,
        |from| {
            let whole = payload4(&from.udp4());
            vec![
                from.piece4(UDP, &whole[..16], 0, true),
                from.piece4(UDP, &whole[8..], 1, false),
            ]
        },
        &[UNLISTED, FRAGMENT],
        &[ALLOWED, FRAGMENT_PASSED],
    ),
    way(
        "the service's port overwritten by a second first fragment",
        Linux::Delivers,
        |from| {
            let (whole, other) = (payload4(&from.udp4()), unserved(from));
            vec![
                from.piece4(UDP, &whole[..16], 0, true),
                from.piece4(UDP, &other[..16], 0, true),
                from.piece4(UDP, &whole[16..], 2, false),
            ]
        },
        &[UNLISTED, FRAGMENT, FRAGMENT],
        &[ALLOWED, FRAGMENT_PASSED, FRAGMENT_PASSED],
    ),
    way(
        "an open port overwritten by the service's first fragment",
        Linux::Ignores,
        |from| {
            let (whole, other) = (payload4(&from.udp4()), unserved(from));
            vec![
                from.piece4(UDP, &other[..16], 0, true),
                from.piece4(UDP, &whole[..16], 0, true),
                from.piece4(UDP, &other[16..], 2, false),
            ]
        },
        &[FRAGMENT, UNLISTED, FRAGMENT],
        &[FRAGMENT_PASSED, ALLOWED, FRAGMENT_PASSED],
    ),
    way(
        "a later fragment that nothing comes before",
        Linux::Keeps,
        |from| vec![from.piece4(UDP, &[0; 64], 185, false)],
        &[FRAGMENT],
        &[FRAGMENT_PASSED],
    ),
    way(
        "a later fragment of another protocol",
        Linux::Keeps,
        |from| vec![from.piece4(GRE, &[0; 64], 3, true)],
        &[FRAGMENT],
        &[FRAGMENT_PASSED],
    ),
    way(
        "a first fragment to an open port",
        Linux::Keeps,
        |from| vec![from.piece4(UDP, &unserved(from)[..16], 0, true)],
        &[FRAGMENT],
        &[FRAGMENT_PASSED],
    ),
    way(
        "an echo request in fragments",
        Linux::Answers,
        |from| {
            let whole = payload4(&from.v4().payload(1, icmp(8, 0, 16)));
            vec![
                from.piece4(1, &whole[..8], 0, true),
                from.piece4(1, &whole[8..], 1, false),
            ]
        },
        &[ICMP, ICMP],
        &[FRAGMENT_PASSED, FRAGMENT_PASSED],
    ),
];

#[test]
fn no_fragment_of_ipv4_carries_a_strangers_packet() {
    try_ways(IPV4, ONE_ADDRESS, OPEN, |_| ());
}

const IPV6: &[Way] = &[
    way(
        "an IPv6 datagram in two fragments",
        Linux::Delivers,
        |from| parted(from, UDP),
        &[UNLISTED, FRAGMENT],
        &[ALLOWED, FRAGMENT_PASSED],
    ),
    way(
        "a later fragment that calls itself no next header",
        Linux::Delivers,
        |from| parted(from, NO_NEXT),
        &[UNLISTED, FRAGMENT],
        &[ALLOWED, FRAGMENT_PASSED],
    ),
    way(
        "a later fragment that calls itself ICMPv6",
        Linux::Delivers,
        |from| parted(from, ICMPV6),
        &[UNLISTED, FRAGMENT],
        &[ALLOWED, FRAGMENT_PASSED],
    ),
    way(
        "a later fragment that calls itself destination options",
        Linux::Delivers,
        |from| parted(from, DESTINATION_OPTIONS),
        &[UNLISTED, FRAGMENT],
        &[ALLOWED, FRAGMENT_PASSED],
    ),
    way(
        "a tiny first fragment of TCP in IPv6",
        Linux::Ignores,
        |from| {
            let whole = payload6(&from.syn6());
            vec![
                from.piece6(TCP, &whole[..8], 0, true),
                from.piece6(TCP, &whole[8..], 1, false),
            ]
        },
        &[MALFORMED, FRAGMENT],
        &[MALFORMED, FRAGMENT_PASSED],
    ),
    way(
        "a chain of headers that goes on in the next fragment",
        Linux::Ignores,
        |from| {
            let mut chain = Extension::options(DESTINATION_OPTIONS, 2).bytes;
            chain[0] = UDP;
            let whole = [chain, payload6(&from.udp6())].concat();
            vec![
                from.piece6(DESTINATION_OPTIONS, &whole[..8], 0, true),
                from.piece6(DESTINATION_OPTIONS, &whole[8..], 1, false),
            ]
        },
        &[MALFORMED, FRAGMENT],
        &[MALFORMED, FRAGMENT_PASSED],
    ),
    way(
        "IPv6 data overwritten by an overlapping fragment",
        Linux::Ignores,
        |from| {
            let whole = payload6(&from.udp6());
            vec![
                from.piece6(UDP, &whole[..16], 0, true),
                from.piece6(UDP, &whole[8..], 1, false),
            ]
        },
        &[UNLISTED, FRAGMENT],
        &[ALLOWED, FRAGMENT_PASSED],
    ),
    way(
        "a datagram in an atomic fragment",
        Linux::Delivers,
        |from| from.behind(&[from.fragment(0, false)]),
        &[UNLISTED],
        &[ALLOWED],
    ),
    way(
        "a connection in an atomic fragment",
        Linux::Opens,
        |from| {
            let packet = from.v6().ext(from.fragment(0, false));
            vec![packet.tcp_with(from.syn()).into()]
        },
        &[UNLISTED],
        &[ALLOWED],
    ),
    way(
        "an atomic fragment in an atomic fragment",
        Linux::Ignores,
        |from| from.behind(&[from.fragment(0, false), from.fragment(0, false)]),
        &[MALFORMED],
        &[MALFORMED],
    ),
    way(
        "a later fragment in IPv6 that nothing comes before",
        Linux::Keeps,
        |from| vec![from.piece6(NO_NEXT, &[0; 64], 185, false)],
        &[FRAGMENT],
        &[FRAGMENT_PASSED],
    ),
    way(
        "a later fragment in IPv6 behind a hop-by-hop header",
        Linux::Keeps,
        |from| {
            let packet = from.v6().ext(Extension::hop_by_hop()).ext(from.fragment(9, true));
            vec![packet.payload(UDP, vec![0; 64]).into()]
        },
        &[FRAGMENT],
        &[FRAGMENT_PASSED],
    ),
];

/// Two fragments, the later of which names this next header.
fn parted(from: &Sender, next: u8) -> Vec<keyfence_tests::oracle::frames::Frame> {
    let whole = payload6(&from.udp6());
    vec![
        from.piece6(UDP, &whole[..16], 0, true),
        from.piece6(next, &whole[16..], 2, false),
    ]
}

#[test]
fn no_fragment_of_ipv6_carries_a_strangers_packet() {
    try_ways(IPV6, ONE_ADDRESS, OPEN, |_| ());
}
