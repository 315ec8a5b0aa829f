//! Ways past by what is in front of the IP header.

use keyfence_tests::oracle::frames::{Carrier, Frame};

use crate::stage::{ALLOWED, CLOSED, Linux, MALFORMED, NON_IP, ONE_ADDRESS, UNLISTED, Way, try_ways, way};

const WAYS: &[Way] = &[
    way(
        "the service behind a priority tag",
        Linux::Delivers,
        |from| vec![from.udp4().frame().tag(0x8100, 0)],
        &[UNLISTED],
        &[ALLOWED],
    ),
    way(
        "the service behind two priority tags",
        Linux::Delivers,
        |from| vec![from.udp6().frame().tag(0x88a8, 0).tag(0x8100, 5 << 13)],
        &[UNLISTED],
        &[ALLOWED],
    ),
    way(
        "the service behind three priority tags",
        Linux::Delivers,
        |from| vec![tagged_thrice(from.udp4().frame())],
        &[MALFORMED],
        &[MALFORMED],
    ),
    way(
        "the service in IPv6 behind three priority tags",
        Linux::Delivers,
        |from| vec![tagged_thrice(from.udp6().frame())],
        &[MALFORMED],
        &[MALFORMED],
    ),
    way(
        "a connection behind three priority tags",
        Linux::Opens,
        |from| vec![tagged_thrice(from.syn4().frame())],
        &[MALFORMED],
        &[MALFORMED],
    ),
    // This kernel is built without VLAN_8021Q: what a host that has an interface in the VLAN does cannot be had here.
    way(
        "the service in a VLAN that the host is not in",
        Linux::Ignores,
        |from| vec![from.udp4().frame().tag(0x8100, 5)],
        &[UNLISTED],
        &[ALLOWED],
    ),
    way(
        "the service behind a tag of the type 0x9100",
        Linux::Ignores,
        |from| vec![from.udp4().frame().tag(0x9100, 0)],
        &[NON_IP],
        &[NON_IP],
    ),
    way(
        "IPv4 in LLC and SNAP",
        Linux::Ignores,
        |from| vec![Frame::snap(0x0800, &from.udp4().packet())],
        &[NON_IP],
        &[NON_IP],
    ),
    way(
        "IPv6 in LLC and SNAP",
        Linux::Ignores,
        |from| vec![Frame::snap(0x86dd, &from.udp6().packet())],
        &[NON_IP],
        &[NON_IP],
    ),
    way(
        "IPv4 that its EtherType calls IPv6",
        Linux::Ignores,
        |from| vec![from.udp4().frame().ether_type(0x86dd)],
        &[MALFORMED],
        &[MALFORMED],
    ),
    way(
        "IPv6 that its EtherType calls IPv4",
        Linux::Ignores,
        |from| vec![from.udp6().frame().ether_type(0x0800)],
        &[MALFORMED],
        &[MALFORMED],
    ),
    way(
        "the service's address in a frame to everybody",
        Linux::Delivers,
        |from| vec![from.udp4().frame().to([0xff; 6])],
        &[UNLISTED],
        &[ALLOWED],
    ),
    way(
        "the service's address in a frame to another host",
        Linux::Ignores,
        |from| vec![from.udp4().frame().to([2, 0, 0, 0, 0, 0x99])],
        &[UNLISTED],
        &[ALLOWED],
    ),
];

fn tagged_thrice(frame: Frame) -> Frame {
    frame.tag(0x88a8, 0).tag(0x8100, 0).tag(0x8100, 0)
}

#[test]
fn nothing_in_front_of_the_ip_header_hides_a_stranger() {
    try_ways(WAYS, ONE_ADDRESS, CLOSED, |_| ());
}
