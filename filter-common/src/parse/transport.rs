//! TCP, UDP, ICMP and ICMPv6: the header that names ports or a type.

use super::{Bytes as _, Family, Fragment, Packet, PacketBytes, Protocol};

/// Reads the transport header at `at` of a packet that ends at `end`; `None` is malformed.
#[inline(always)]
pub fn parse<F: PacketBytes + ?Sized>(frame: &F, at: u32, end: u32, packet: &mut Packet) -> Option<()> {
    packet.protocol = protocol(packet.family, packet.protocol_number);
    match packet.protocol {
        Protocol::Tcp => tcp(frame, at, end, packet),
        Protocol::Udp => udp(frame, at, end, packet),
        Protocol::Icmp => icmp(frame, at, end, packet),
        Protocol::Other | Protocol::Unknown => Some(()),
    }
}

/// ICMP in IPv6 and ICMPv6 in IPv4 are other protocols.
#[inline(always)]
pub(super) fn protocol(family: Family, number: u8) -> Protocol {
    match (number, family) {
        (6, _) => Protocol::Tcp,
        (17, _) => Protocol::Udp,
        (1, Family::V4) | (58, Family::V6) => Protocol::Icmp,
        _ => Protocol::Other,
    }
}

#[inline(always)]
fn tcp<F: PacketBytes + ?Sized>(frame: &F, at: u32, end: u32, packet: &mut Packet) -> Option<()> {
    if at + 20 > end {
        return None;
    }
    let header = frame.bytes::<14>(at)?;
    let length = (header.u8::<12>() >> 4) as u32 * 4;
    if length < 20 || at + length > end {
        return None;
    }
    packet.source_port = header.u16::<0>();
    packet.destination_port = header.u16::<2>();
    packet.tcp_flags = header.u8::<13>();
    Some(())
}

#[inline(always)]
fn udp<F: PacketBytes + ?Sized>(frame: &F, at: u32, end: u32, packet: &mut Packet) -> Option<()> {
    if at + 8 > end {
        return None;
    }
    let header = frame.bytes::<8>(at)?;
    let length = header.u16::<4>() as u32;
    // A first fragment names the whole datagram's length, which it does not hold.
    if length < 8 || (packet.fragment as u8 == Fragment::Whole as u8 && at + length > end) {
        return None;
    }
    packet.source_port = header.u16::<0>();
    packet.destination_port = header.u16::<2>();
    Some(())
}

#[inline(always)]
fn icmp<F: PacketBytes + ?Sized>(frame: &F, at: u32, end: u32, packet: &mut Packet) -> Option<()> {
    if at + 8 > end {
        return None;
    }
    let header = frame.bytes::<2>(at)?;
    packet.icmp_type = header.u8::<0>();
    packet.icmp_code = header.u8::<1>();
    Some(())
}
