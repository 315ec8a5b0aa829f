//! Ways past by lengths that lie, and by what lies behind the packet.

use keyfence_tests::oracle::frames::{Carrier, Tcp, Udp};

use crate::sender::{Sender, unchecked};
use crate::stage::{ALLOWED, CLOSED, Linux, MALFORMED, ONE_ADDRESS, UNLISTED, Way, try_ways, way};

/// The datagram with another length in its own header.
fn said(from: &Sender, length: u16) -> Udp {
    Udp {
        length: Some(length),
        ..from.datagram()
    }
}

const OF_IP: &[Way] = &[
    way(
        "a datagram in the padding of an IPv4 header",
        Linux::Ignores,
        |from| vec![from.udp4().total_length(20).into()],
        &[MALFORMED],
        &[MALFORMED],
    ),
    way(
        "a datagram in the padding of an IPv6 header",
        Linux::Ignores,
        |from| vec![from.udp6().payload_length(0).into()],
        &[MALFORMED],
        &[MALFORMED],
    ),
    way(
        "a connection whose TCP header is half in the padding",
        Linux::Ignores,
        |from| vec![from.syn4().total_length(30).into()],
        &[MALFORMED],
        &[MALFORMED],
    ),
    way(
        "an IPv4 length that cuts the datagram",
        Linux::Ignores,
        |from| vec![unchecked(&from.udp4().total_length(31))],
        &[MALFORMED],
        &[MALFORMED],
    ),
    way(
        "an IPv6 length that cuts the datagram",
        Linux::Ignores,
        |from| vec![from.udp6().payload_length(11).into()],
        &[MALFORMED],
        &[MALFORMED],
    ),
    way(
        "an IPv4 length past the frame",
        Linux::Ignores,
        |from| vec![unchecked(&from.udp4().total_length(200))],
        &[MALFORMED],
        &[MALFORMED],
    ),
    way(
        "an IPv6 length past the frame",
        Linux::Ignores,
        |from| vec![from.udp6().payload_length(200).into()],
        &[MALFORMED],
        &[MALFORMED],
    ),
    way(
        "an IPv4 length of 0",
        Linux::Ignores,
        |from| vec![unchecked(&from.udp4().total_length(0))],
        &[MALFORMED],
        &[MALFORMED],
    ),
    way(
        "padding behind the datagram",
        Linux::Delivers,
        |from| vec![from.udp4().frame().pad(18, 0x50)],
        &[UNLISTED],
        &[ALLOWED],
    ),
    way(
        "another packet behind the datagram",
        Linux::Delivers,
        |from| vec![from.udp6().frame().trailer(&from.syn6().packet())],
        &[UNLISTED],
        &[ALLOWED],
    ),
];

#[test]
fn no_length_of_ip_moves_the_end_of_a_packet() {
    try_ways(OF_IP, ONE_ADDRESS, CLOSED, |_| ());
}

const OF_TRANSPORT: &[Way] = &[
    way(
        "a UDP length past the packet",
        Linux::Ignores,
        |from| vec![unchecked(&from.v4().udp_with(said(from, 25)))],
        &[MALFORMED],
        &[MALFORMED],
    ),
    way(
        "a UDP length past the packet and within the padding",
        Linux::Ignores,
        |from| vec![unchecked(&from.v4().udp_with(said(from, 40))).pad(32, 0)],
        &[MALFORMED],
        &[MALFORMED],
    ),
    way(
        "a UDP length before the end of the packet",
        Linux::DeliversData(b"past"),
        |from| vec![unchecked(&from.v4().udp_with(said(from, 12)))],
        &[UNLISTED],
        &[ALLOWED],
    ),
    way(
        "a UDP length of the header alone",
        Linux::DeliversData(b""),
        |from| vec![unchecked(&from.v4().udp_with(said(from, 8)))],
        &[UNLISTED],
        &[ALLOWED],
    ),
    way(
        "a UDP length under its header",
        Linux::Ignores,
        |from| vec![unchecked(&from.v4().udp_with(said(from, 7)))],
        &[MALFORMED],
        &[MALFORMED],
    ),
    way(
        "a UDP length of 0",
        Linux::Ignores,
        |from| vec![unchecked(&from.v4().udp_with(said(from, 0)))],
        &[MALFORMED],
        &[MALFORMED],
    ),
    way(
        "a UDP length of 0 in IPv6",
        Linux::Delivers,
        |from| vec![from.v6().udp_with(said(from, 0)).into()],
        &[MALFORMED],
        &[MALFORMED],
    ),
    way(
        "a TCP data offset within its header",
        Linux::Ignores,
        |from| vec![from.v4().tcp_with(with_offset(from, 4)).into()],
        &[MALFORMED],
        &[MALFORMED],
    ),
    way(
        "a TCP data offset past its packet",
        Linux::Ignores,
        |from| vec![from.v6().tcp_with(with_offset(from, 15)).into()],
        &[MALFORMED],
        &[MALFORMED],
    ),
    way(
        "a TCP data offset past its packet and within the padding",
        Linux::Ignores,
        |from| vec![from.v4().tcp_with(with_offset(from, 15)).frame().pad(40, 1)],
        &[MALFORMED],
        &[MALFORMED],
    ),
    way(
        "a connection with options",
        Linux::Opens,
        |from| {
            let syn = Tcp {
                options: vec![1; 40],
                ..from.syn()
            };
            vec![from.v4().tcp_with(syn).into()]
        },
        &[UNLISTED],
        &[ALLOWED],
    ),
    way(
        "a connection with padding behind it",
        Linux::Opens,
        |from| vec![from.syn4().frame().pad(6, 0)],
        &[UNLISTED],
        &[ALLOWED],
    ),
];

fn with_offset(from: &Sender, words: u8) -> Tcp {
    Tcp {
        data_offset: Some(words),
        ..from.syn()
    }
}

#[test]
fn no_length_of_udp_or_tcp_moves_the_end_of_a_packet() {
    try_ways(OF_TRANSPORT, ONE_ADDRESS, CLOSED, |_| ());
}
