//! The link layer: Ethernet and up to two VLAN tags.

use super::{PacketBytes, be16};
use crate::bounds::VLAN_TAGS_MAX;

pub(super) enum Payload {
    /// IPv4 at this offset.
    Ipv4(u32),
    Ipv6(u32),
    LinkControl,
    Other,
}

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const HEADER_LENGTH: u32 = 14;
const TAG_LENGTH: u32 = 4;

/// `None` is malformed: a header that is cut, or a third tag.
#[inline(always)]
pub(super) fn parse<F: PacketBytes + ?Sized>(frame: &F) -> Option<Payload> {
    let header: [u8; 14] = frame.read(0)?;
    let mut ethertype = be16(header[12], header[13]);
    let mut at = HEADER_LENGTH;
    for _ in 0..VLAN_TAGS_MAX {
        if !is_vlan(ethertype) {
            break;
        }
        let tag: [u8; 4] = frame.read(at)?;
        ethertype = be16(tag[2], tag[3]);
        at += TAG_LENGTH;
    }
    match ethertype {
        ETHERTYPE_IPV4 => Some(Payload::Ipv4(at)),
        ETHERTYPE_IPV6 => Some(Payload::Ipv6(at)),
        ETHERTYPE_ARP => Some(Payload::LinkControl),
        // Linux would read on behind a third tag: what we do not read, we do not pass.
        _ if is_vlan(ethertype) => None,
        _ if is_link_control(&header) => Some(Payload::LinkControl),
        // 802.3 lengths (below 0x600) end here too: Linux does not deliver IP in LLC/SNAP.
        _ => Some(Payload::Other),
    }
}

#[inline(always)]
fn is_vlan(ethertype: u16) -> bool {
    ethertype == 0x8100 || ethertype == 0x88a8
}

/// The reserved group addresses of 802.1Q (spanning tree, LACP, LLDP): bridges do not forward them.
#[inline(always)]
fn is_link_control(header: &[u8; 14]) -> bool {
    header[0] == 0x01
        && header[1] == 0x80
        && header[2] == 0xc2
        && header[3] == 0
        && header[4] == 0
        && header[5] & 0xf0 == 0
}
