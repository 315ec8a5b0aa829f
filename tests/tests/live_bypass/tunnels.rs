//! Ways past by carrying the service's packet in another protocol.
//!
//! This kernel has no IPIP, SIT, GRE or IPv6 tunnel (CONFIG_NET_IPIP, IPV6_SIT, NET_IPGRE_DEMUX and IPV6_TUNNEL are
//! not set), so that of those only the host without a tunnel can be asked; VXLAN it has.

use std::net::IpAddr;

use keyfence_tests::harness::{INSIDE, LISTED, SERVER, Site};
use keyfence_tests::oracle::frames::{Carrier, Ipv4, Udp};

use crate::sender::{PORT, Sender};
use crate::stage::{CLOSED, Linux, ONE_ADDRESS, OPEN, OTHER, OTHER_PASSED, Way, try_ways, way};

const VXLAN_PORT: u16 = 4789;
const VXLAN_MAC: [u8; 6] = [2, 0, 0, 0x77, 0, 9];

/// The host is the end of a VXLAN tunnel, as container hosts are.
fn with_vxlan(site: &Site) {
    let mac = VXLAN_MAC.map(|byte| format!("{byte:02x}")).join(":");
    site.server.ip(&format!(
        "link add vx0 address {mac} type vxlan id 1 dstport {VXLAN_PORT} local {} dev {INSIDE}",
        SERVER.v4
    ));
    site.server.ip("link set vx0 up");
}

/// A listed client's packet to the service, as anybody may write it.
fn inner4(from: &Sender) -> Ipv4 {
    let packet = Ipv4::new(LISTED.v4, SERVER.v4);
    packet.udp_with(from.datagram())
}

fn with(front: &[u8], packet: &[u8]) -> Vec<u8> {
    [front, packet].concat()
}

macro_rules! tunnels {
    ($judged:expr) => {
        &[
            way(
                "the service's packet in VXLAN",
                Linux::DeliversAs(IpAddr::V4(LISTED.v4)),
                |from| {
                    let frame = inner4(from).frame().to(VXLAN_MAC).bytes();
                    let datagram = Udp {
                        data: with(&[8, 0, 0, 0, 0, 0, 1, 0], &frame),
                        ..Udp::new(from.port, VXLAN_PORT)
                    };
                    vec![from.v4().udp_with(datagram).into()]
                },
                &[$judged],
                &[$judged],
            ),
            way(
                "IPv4 in IPv4",
                Linux::Ignores,
                |from| vec![from.v4().payload(4, inner4(from).packet()).into()],
                &[$judged],
                &[$judged],
            ),
            way(
                "IPv6 in IPv4",
                Linux::Ignores,
                |from| vec![from.v4().payload(41, from.udp6().packet()).into()],
                &[$judged],
                &[$judged],
            ),
            way(
                "IPv4 in IPv6",
                Linux::Ignores,
                |from| vec![from.v6().payload(4, inner4(from).packet()).into()],
                &[$judged],
                &[$judged],
            ),
            way(
                "IPv6 in IPv6",
                Linux::Ignores,
                |from| vec![from.v6().payload(41, from.udp6().packet()).into()],
                &[$judged],
                &[$judged],
            ),
            way(
                "IPv4 in GRE",
                Linux::Ignores,
                |from| {
                    let bytes = with(&[0, 0, 8, 0], &inner4(from).packet());
                    vec![from.v4().payload(47, bytes).into()]
                },
                &[$judged],
                &[$judged],
            ),
            way(
                "IPv4 in ESP",
                Linux::Ignores,
                |from| {
                    let bytes = with(&[0, 0, 0, 1, 0, 0, 0, 1], &inner4(from).packet());
                    vec![from.v4().payload(50, bytes).into()]
                },
                &[$judged],
                &[$judged],
            ),
            way(
                "the service's port by UDP-Lite",
                Linux::Ignores,
                |from| {
                    let bytes = Udp::new(from.port, PORT).bytes();
                    vec![from.v4().payload(136, bytes).into()]
                },
                &[$judged],
                &[$judged],
            ),
            way(
                "the service's port by SCTP",
                Linux::Ignores,
                |from| vec![from.v6().payload(132, from.syn().bytes()).into()],
                &[$judged],
                &[$judged],
            ),
        ]
    };
}

const CLOSED_TO_ALL: &[Way] = tunnels!(OTHER);
/// The filter looks into no tunnel: who ends one behind it, and leaves other traffic open, is open to everybody.
const OPEN_TO_ALL: &[Way] = tunnels!(OTHER_PASSED);

#[test]
fn no_tunnel_carries_a_packet_to_the_service_where_other_traffic_is_closed() {
    try_ways(CLOSED_TO_ALL, ONE_ADDRESS, CLOSED, with_vxlan);
}

#[test]
fn a_tunnel_that_the_host_ends_carries_a_packet_where_other_traffic_is_open() {
    try_ways(OPEN_TO_ALL, ONE_ADDRESS, OPEN, with_vxlan);
}
