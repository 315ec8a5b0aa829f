//! Ways past by the address: a socket at the wildcard address is reached by more than the service's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use keyfence_tests::harness::{INSIDE, LISTED, SERVER, Site};
use keyfence_tests::oracle::frames::{Frame, Ipv4, Ipv6};

use crate::sender::Sender;
use crate::stage::{
    ALLOWED, CLOSED, Linux, MALFORMED, ONE_ADDRESS, OPEN, OTHER, OTHER_PASSED, UNLISTED, Way, try_ways, way,
};

const ELSEWHERE: [u8; 4] = [10, 99, 0, 1];
const ELSEWHERE6: Ipv6Addr = Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, 1);
const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x77);
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// In a prefix that is routed to the host.
const ROUTED6: Ipv6Addr = Ipv6Addr::new(0xfd95, 0, 0, 0, 0, 0, 0, 0x77);

/// Of a router, which the host is, too.
const ROUTERS: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 0);

/// Addresses on another interface, one of the link, and that of all routers of the network.
fn more_addresses(site: &Site) {
    site.server
        .sysctl(&format!("net/ipv6/conf/{INSIDE}/forwarding"), "1");
    site.server.ip("addr add 10.99.0.1/32 dev lo");
    site.server.ip("addr add fd99::1/128 dev lo");
    site.server
        .ip(&format!("addr add {LINK_LOCAL}/64 dev {INSIDE} nodad"));
    // Whole prefixes, and a peer's address, which is not the host's.
    site.server.ip("addr add 10.96.0.1/24 dev lo");
    site.server.ip("route add local 10.95.0.0/24 dev lo");
    site.server.ip("-6 route add local fd95::/64 dev lo");
    site.server.ip("route add local 10.94.0.0/24 dev lo table 100");
    site.server.ip("rule add to 10.94.0.0/24 lookup 100");
    site.server
        .ip(&format!("addr add 10.93.0.1 peer 10.93.0.2/32 dev {INSIDE}"));
}

/// Destinations that reach the socket beside the service's own address.
macro_rules! destinations {
    ($stranger:expr, $listed:expr, peer $at_peer:expr) => {
        &[
            way(
                "the service's port in the network of an address of the loopback",
                Linux::Delivers,
                |from| from.udp4_to([10, 96, 0, 77]),
                &[$stranger],
                &[$listed],
            ),
            way(
                "the service's port in a prefix that is routed here",
                Linux::Delivers,
                |from| from.udp4_to([10, 95, 0, 77]),
                &[$stranger],
                &[$listed],
            ),
            way(
                "the service's port in an IPv6 prefix that is routed here",
                Linux::Delivers,
                |from| from.udp6_to(ROUTED6),
                &[$stranger],
                &[$listed],
            ),
            way(
                "the service's port in a prefix that another table routes here",
                Linux::Delivers,
                |from| from.udp4_to([10, 94, 0, 77]),
                &[$stranger],
                &[$listed],
            ),
            way(
                "the service's port at the host's own address of a pair",
                Linux::Delivers,
                |from| from.udp4_to([10, 93, 0, 1]),
                &[$stranger],
                &[$listed],
            ),
            way(
                "the service's port at the peer's address of a pair",
                Linux::Ignores,
                |from| from.udp4_to([10, 93, 0, 2]),
                &[$at_peer[0]],
                &[$at_peer[1]],
            ),
            way(
                "the service's port by broadcast",
                Linux::Delivers,
                |from| from.udp4_to([255; 4]),
                &[$stranger],
                &[$listed],
            ),
            way(
                "the service's port by the network's broadcast",
                Linux::Delivers,
                |from| from.udp4_to([10, 77, 0, 255]),
                &[$stranger],
                &[$listed],
            ),
            way(
                "the service's port by multicast",
                Linux::Delivers,
                |from| from.udp4_to([224, 0, 0, 1]),
                &[$stranger],
                &[$listed],
            ),
            way(
                "the service's port by IPv6 multicast",
                Linux::Delivers,
                |from| from.udp6_to(ALL_NODES),
                &[$stranger],
                &[$listed],
            ),
            way(
                "the service's port at an address of another interface",
                Linux::Delivers,
                |from| from.udp4_to(ELSEWHERE),
                &[$stranger],
                &[$listed],
            ),
            way(
                "the service's port at an IPv6 address of another interface",
                Linux::Delivers,
                |from| from.udp6_to(ELSEWHERE6),
                &[$stranger],
                &[$listed],
            ),
            way(
                "the service's port at the address of the link",
                Linux::Delivers,
                |from| from.udp6_to(LINK_LOCAL),
                &[$stranger],
                &[$listed],
            ),
            way(
                "the service's port at the address of all routers",
                Linux::Delivers,
                |from| from.udp6_to(ROUTERS),
                &[$stranger],
                &[$listed],
            ),
            way(
                "a connection at an address of another interface",
                Linux::Opens,
                |from| {
                    let packet = Ipv4 {
                        destination: ELSEWHERE.into(),
                        ..from.syn4()
                    };
                    vec![packet.into()]
                },
                &[$stranger],
                &[$listed],
            ),
        ]
    };
}

/// The service has one address of each family, and others are not to be had.
const CLOSED_TO_ALL: &[Way] = destinations!(OTHER, OTHER, peer [OTHER; 2]);
/// The same where others are open: to everybody.
const OPEN_TO_ALL: &[Way] = destinations!(OTHER_PASSED, OTHER_PASSED, peer [OTHER_PASSED; 2]);
/// The service has every address.
const SERVED: &[Way] = destinations!(UNLISTED, ALLOWED, peer [UNLISTED, ALLOWED]);
/// It has all of the host's, and others are open.
const SERVED_HERE: &[Way] = destinations!(UNLISTED, ALLOWED, peer [OTHER_PASSED; 2]);

#[test]
fn no_other_destination_reaches_a_wildcard_socket_where_other_addresses_are_closed() {
    try_ways(CLOSED_TO_ALL, ONE_ADDRESS, CLOSED, more_addresses);
}

#[test]
fn every_other_destination_reaches_a_wildcard_socket_where_other_addresses_are_open() {
    try_ways(OPEN_TO_ALL, ONE_ADDRESS, OPEN, more_addresses);
}

#[test]
fn only_listed_clients_reach_a_service_of_all_the_hosts_addresses() {
    try_ways(SERVED_HERE, "address = \"host\"", OPEN, more_addresses);
}

#[test]
fn only_listed_clients_reach_a_service_of_any_address() {
    try_ways(SERVED, "", OPEN, more_addresses);
}

/// Linux takes it for a broadcast.
fn from_none_to_none(from: &Sender) -> Vec<Frame> {
    let packet = Ipv4 {
        source: Ipv4Addr::UNSPECIFIED,
        destination: Ipv4Addr::UNSPECIFIED,
        ..from.udp4()
    };
    vec![packet.into()]
}

const NONE_AT_THE_HOST: &[Way] = &[way(
    "the service's port from no address to none",
    Linux::DeliversAs(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
    from_none_to_none,
    &[UNLISTED],
    &[UNLISTED],
)];

#[test]
fn a_source_without_address_does_not_reach_a_service_of_all_the_hosts_addresses() {
    try_ways(NONE_AT_THE_HOST, "address = \"host\"", OPEN, |_| ());
}

const SOURCES: &[Way] = &[
    way(
        "a listed client's IPv4 address as an IPv6 source",
        Linux::DeliversAs(IpAddr::V4(LISTED.v4)),
        |from| {
            let packet = Ipv6 {
                source: LISTED.v4.to_ipv6_mapped(),
                ..from.udp6()
            };
            vec![packet.into()]
        },
        &[MALFORMED],
        &[MALFORMED],
    ),
    way(
        "the host's IPv4 address as an IPv6 destination",
        Linux::Ignores,
        |from| from.udp6_to(SERVER.v4.to_ipv6_mapped()),
        &[MALFORMED],
        &[MALFORMED],
    ),
    way(
        "the host's own address as source",
        Linux::Ignores,
        |from| {
            let packet = Ipv4 {
                source: SERVER.v4,
                ..from.udp4()
            };
            vec![packet.into()]
        },
        &[UNLISTED],
        &[UNLISTED],
    ),
    way(
        "loopback as source",
        Linux::Ignores,
        |from| {
            let packet = Ipv4 {
                source: [127, 0, 0, 1].into(),
                ..from.udp4()
            };
            vec![packet.into()]
        },
        &[UNLISTED],
        &[UNLISTED],
    ),
    way(
        "IPv6 loopback as source",
        Linux::Ignores,
        |from| {
            let packet = Ipv6 {
                source: Ipv6Addr::LOCALHOST,
                ..from.udp6()
            };
            vec![packet.into()]
        },
        &[UNLISTED],
        &[UNLISTED],
    ),
    way(
        "the service's port from no address to none",
        Linux::DeliversAs(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        from_none_to_none,
        &[OTHER],
        &[OTHER],
    ),
    way(
        "the service's port at loopback from outside",
        Linux::Ignores,
        |from| from.udp4_to([127, 0, 0, 1]),
        &[OTHER],
        &[OTHER],
    ),
    way(
        "the service's port at IPv6 loopback from outside",
        Linux::Ignores,
        |from| from.udp6_to(Ipv6Addr::LOCALHOST),
        &[OTHER],
        &[OTHER],
    ),
];

#[test]
fn no_source_is_taken_for_another() {
    try_ways(SOURCES, ONE_ADDRESS, CLOSED, |_| ());
}
