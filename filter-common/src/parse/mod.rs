//! Frame bytes to headers: rules 1 and 2 of SPEC 3, and nothing else.
//!
//! Owns what is malformed. Never reads past the packet's end as its own length field gives it, so that padding
//! is no payload; never normalises. Next in the flow: `classify`.

mod ethernet;
mod ipv4;
pub mod ipv6;
mod straight;
pub mod transport;

/// Read-only view of one frame, whole or in several buffers.
pub trait PacketBytes {
    /// Some bytes of the frame, known to be there.
    type Bytes<'a>: Bytes
    where
        Self: 'a;

    /// `N` bytes at `offset`, or `None` where the frame is shorter.
    fn bytes<const N: usize>(&self, offset: u32) -> Option<Self::Bytes<'_>>;
    /// `N` bytes at the frame's start, or `None` where they are not all in its first buffer.
    fn first_bytes<const N: usize>(&self) -> Option<Self::Bytes<'_>>;
    /// Whether the first buffer has at least `length` bytes.
    fn first_holds(&self, length: u32) -> bool;
    /// Whether the frame has at least `length` bytes.
    fn holds(&self, length: u32) -> bool;
    /// The whole frame's length; may cost more than `holds`.
    fn length(&self) -> u32;

    // Steps whose offset depends on all before them, called through here so that the kernel can verify each by
    // itself, once, and not once for every chain of headers that leads to it; and so that the way of most packets keeps
    // its registers.

    /// `by_layers`.
    fn by_layers(&self, packet: &mut Packet) -> Frame {
        by_layers(self, packet)
    }

    /// `ipv6::extension`.
    fn ipv6_extension(&self, at: u32, end: u32, next: u8) -> u64 {
        ipv6::extension(self, at, end, next)
    }
    /// `transport::parse`; false is malformed.
    fn ipv6_transport(&self, at: u32, end: u32, packet: &mut Packet) -> bool {
        transport::parse(self, at, end, packet).is_some()
    }
}

/// Bytes that are there: each read stays inside the number asked for. Numbers are in network order on the wire.
pub trait Bytes {
    fn u8<const AT: usize>(&self) -> u8;
    fn u16<const AT: usize>(&self) -> u16;
    fn u32<const AT: usize>(&self) -> u32;
    fn u64<const AT: usize>(&self) -> u64;
}

impl Bytes for &[u8] {
    fn u8<const AT: usize>(&self) -> u8 {
        self[AT]
    }
    fn u16<const AT: usize>(&self) -> u16 {
        self[AT..AT + 2]
            .iter()
            .fold(0, |word, byte| word << 8 | *byte as u16)
    }
    fn u32<const AT: usize>(&self) -> u32 {
        self[AT..AT + 4]
            .iter()
            .fold(0, |word, byte| word << 8 | *byte as u32)
    }
    fn u64<const AT: usize>(&self) -> u64 {
        self[AT..AT + 8]
            .iter()
            .fold(0, |word, byte| word << 8 | *byte as u64)
    }
}

impl PacketBytes for [u8] {
    type Bytes<'a> = &'a [u8];

    fn bytes<const N: usize>(&self, offset: u32) -> Option<&[u8]> {
        let start = offset as usize;
        self.get(start..start.checked_add(N)?)
    }
    fn first_bytes<const N: usize>(&self) -> Option<&[u8]> {
        self.bytes::<N>(0)
    }
    fn first_holds(&self, length: u32) -> bool {
        self.holds(length)
    }
    fn holds(&self, length: u32) -> bool {
        self.len() >= length as usize
    }
    fn length(&self) -> u32 {
        u32::try_from(self.len()).unwrap_or(u32::MAX)
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Family {
    #[default]
    V4 = 4,
    V6 = 6,
}

/// The protocols that rules tell apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Protocol {
    Tcp,
    Udp,
    /// ICMP in IPv4 or ICMPv6 in IPv6; either in the other family is `Other`.
    Icmp,
    #[default]
    Other,
    /// A later IPv6 fragment: reassembly takes the protocol of the first, whatever this one says.
    Unknown,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Fragment {
    /// No fragment, or an atomic one.
    #[default]
    Whole,
    /// Offset 0, more to come: carries the transport header.
    First,
    /// Offset above 0: carries no ports.
    Later,
}

/// An address as two numbers. IPv4 as ::ffff:a.b.c.d; such addresses on the wire are malformed, so no two share a form.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct Address {
    pub upper: u64,
    pub lower: u64,
}

impl Address {
    const MAPPED: u64 = 0xffff << 32;

    #[inline(always)]
    pub const fn of_v4(address: u32) -> Self {
        Self {
            upper: 0,
            lower: Self::MAPPED | address as u64,
        }
    }

    /// The IPv4 address, where it is one.
    #[inline(always)]
    pub const fn v4(self) -> u32 {
        self.lower as u32
    }

    #[inline(always)]
    pub const fn is_mapped(self) -> bool {
        self.upper == 0 && self.lower >> 32 == 0xffff
    }

    /// As on the wire.
    pub const fn octets(self) -> [u8; 16] {
        ((self.upper as u128) << 64 | self.lower as u128).to_be_bytes()
    }
}

/// What the rules need to know of one IP packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Packet {
    pub source: Address,
    pub destination: Address,
    /// The IP packet's length in bytes, header included.
    pub length: u32,
    pub source_port: u16,
    pub destination_port: u16,
    pub family: Family,
    pub protocol: Protocol,
    pub fragment: Fragment,
    /// The protocol's number as the packet names it.
    pub protocol_number: u8,
    pub tcp_flags: u8,
    pub icmp_type: u8,
    pub icmp_code: u8,
    /// TTL or hop limit.
    pub hop_limit: u8,
}

/// What kind of frame it is; `Ip` has filled the packet in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Frame {
    Ip = 0,
    /// ARP, or a link-control frame (01-80-C2-00-00-0x) that is not IP.
    LinkControl = 1,
    NonIp = 2,
    Malformed = 3,
}

impl Frame {
    /// What no frame is, is malformed.
    #[inline(always)]
    pub const fn from_number(number: u32) -> Self {
        match number {
            0 => Frame::Ip,
            1 => Frame::LinkControl,
            2 => Frame::NonIp,
            _ => Frame::Malformed,
        }
    }
}

/// Reads the headers of a frame into `packet`.
#[inline(always)]
pub fn parse<F: PacketBytes + ?Sized>(frame: &F, packet: &mut Packet) -> Frame {
    if straight::parse(frame, packet) {
        return Frame::Ip;
    }
    frame.by_layers(packet)
}

/// The same, layer by layer, for frames of any form. Called through `PacketBytes`.
#[inline(always)]
pub fn by_layers<F: PacketBytes + ?Sized>(frame: &F, packet: &mut Packet) -> Frame {
    *packet = Packet::default();
    match ethernet::parse(frame) {
        Some(ethernet::Payload::Ipv4(at)) => ip(ipv4::parse(frame, at, packet)),
        Some(ethernet::Payload::Ipv6(at)) => ip(ipv6::parse(frame, at, packet)),
        Some(ethernet::Payload::LinkControl) => Frame::LinkControl,
        Some(ethernet::Payload::Other) => Frame::NonIp,
        None => Frame::Malformed,
    }
}

#[inline(always)]
fn ip(parsed: Option<()>) -> Frame {
    if parsed.is_some() {
        Frame::Ip
    } else {
        Frame::Malformed
    }
}

/// Where the IP packet that starts at `at` ends in the frame, by its header's length; `None` where the frame is
/// shorter. Length 0 in a merged frame (generic mode, BIG TCP) means the frame's end.
#[inline(always)]
fn packet_end<F: PacketBytes + ?Sized>(frame: &F, at: u32, field: u16, length: u32) -> Option<u32> {
    if field == 0 && frame.holds(crate::bounds::FRAME_UNMERGED_MAX + 1) {
        return Some(frame.length());
    }
    let end = at + length;
    if frame.holds(end) { Some(end) } else { None }
}

#[cfg(test)]
mod tests {
    use super::Frame;

    #[test]
    fn a_frame_is_what_its_number_says_and_any_other_number_is_malformed() {
        for frame in [Frame::Ip, Frame::LinkControl, Frame::NonIp, Frame::Malformed] {
            assert_eq!(Frame::from_number(frame as u32), frame);
        }
        assert_eq!(Frame::from_number(4), Frame::Malformed);
        assert_eq!(Frame::from_number(u32::MAX), Frame::Malformed);
    }
}
