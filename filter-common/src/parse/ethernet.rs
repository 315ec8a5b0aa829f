//! The link layer: Ethernet and up to two VLAN tags.

use super::{Bytes, PacketBytes};
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
    let header = frame.bytes::<14>(0)?;
    let mut ethertype = header.u16::<12>();
    let mut at = HEADER_LENGTH;
    for _ in 0..VLAN_TAGS_MAX {
        if !is_vlan(ethertype) {
            break;
        }
        ethertype = frame.bytes::<4>(at)?.u16::<2>();
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
fn is_link_control<B: Bytes>(header: &B) -> bool {
    header.u32::<0>() == 0x0180_c200 && header.u16::<4>() & 0xfff0 == 0
}
