//! Ways past by ICMP: what it carries, and what it calls itself.

use keyfence_tests::harness::SERVER;
use keyfence_tests::oracle::frames::{Carrier, Extension, Ipv4, Ipv6, icmp};

use crate::sender::{PORT, Sender};
use crate::stage::{CLOSED, ICMP, ICMP_PASSED, Linux, MALFORMED, ONE_ADDRESS, OTHER, Way, try_ways, way};

/// A message with the service's own packet in it.
fn carrying(kind: u8, code: u8, packet: &[u8]) -> Vec<u8> {
    [&icmp(kind, code, 0), packet].concat()
}

/// As if the service had sent it and the sender could not take it.
fn answer4(from: &Sender) -> Vec<u8> {
    Ipv4::new(SERVER.v4, from.v4).udp(PORT, from.port).packet()
}

fn answer6(from: &Sender) -> Vec<u8> {
    Ipv6::new(SERVER.v6, from.v6).udp(PORT, from.port).packet()
}

const WAYS: &[Way] = &[
    way(
        "an echo request",
        Linux::Answers,
        |from| vec![from.v4().icmp(8, 0).into()],
        &[ICMP],
        &[ICMP_PASSED],
    ),
    way(
        "an echo request with the service's packet in it",
        Linux::Answers,
        |from| {
            let message = carrying(8, 0, &from.udp4().packet());
            vec![from.v4().payload(1, message).into()]
        },
        &[ICMP],
        &[ICMP_PASSED],
    ),
    way(
        "an IPv6 echo request behind extension headers",
        Linux::Answers,
        |from| {
            let packet = from.v6().ext(Extension::hop_by_hop());
            vec![packet.ext(Extension::destination_options()).icmp(128, 0).into()]
        },
        &[ICMP],
        &[ICMP_PASSED],
    ),
    way(
        "an echo reply with the service's packet in it",
        Linux::Ignores,
        |from| {
            let message = carrying(0, 0, &from.udp4().packet());
            vec![from.v4().payload(1, message).into()]
        },
        &[ICMP_PASSED],
        &[ICMP_PASSED],
    ),
    way(
        "an error with the service's packet in it",
        Linux::Ignores,
        |from| {
            let message = carrying(3, 3, &from.udp4().packet());
            vec![from.v4().payload(1, message).into()]
        },
        &[ICMP_PASSED],
        &[ICMP_PASSED],
    ),
    way(
        "an error about the service's answer",
        Linux::Ignores,
        |from| vec![from.v4().payload(1, carrying(3, 4, &answer4(from))).into()],
        &[ICMP_PASSED],
        &[ICMP_PASSED],
    ),
    way(
        "an IPv6 error with the service's packet in it",
        Linux::Ignores,
        |from| {
            let message = carrying(1, 4, &from.udp6().packet());
            vec![from.v6().payload(58, message).into()]
        },
        &[ICMP_PASSED],
        &[ICMP_PASSED],
    ),
    way(
        "an IPv6 error about the service's answer",
        Linux::Ignores,
        |from| vec![from.v6().payload(58, carrying(2, 0, &answer6(from))).into()],
        &[ICMP_PASSED],
        &[ICMP_PASSED],
    ),
    way(
        "a redirect with the service's packet in it",
        Linux::Ignores,
        |from| vec![from.v4().payload(1, carrying(5, 1, &answer4(from))).into()],
        &[OTHER],
        &[OTHER],
    ),
    way(
        "ICMPv6 in IPv4",
        Linux::Ignores,
        |from| vec![from.v4().payload(58, icmp(128, 0, 8)).into()],
        &[OTHER],
        &[OTHER],
    ),
    way(
        "ICMP in IPv6",
        Linux::Ignores,
        |from| vec![from.v6().payload(1, icmp(8, 0, 8)).into()],
        &[OTHER],
        &[OTHER],
    ),
    way(
        "an echo request to everybody",
        Linux::Ignores,
        |from| {
            let packet = Ipv4 {
                destination: [10, 77, 0, 255].into(),
                ..from.v4().icmp(8, 0)
            };
            vec![packet.into()]
        },
        &[ICMP],
        &[ICMP_PASSED],
    ),
    way(
        "an echo request of 7 bytes",
        Linux::Ignores,
        |from| vec![from.v4().icmp(8, 0).shorten(7).into()],
        &[MALFORMED],
        &[MALFORMED],
    ),
];

#[test]
fn icmp_carries_nothing_to_the_service() {
    try_ways(WAYS, ONE_ADDRESS, CLOSED, |_| ());
}
