//! Frame bytes to headers: rules 1 and 2 of SPEC 3, and nothing else.
//!
//! Owns what is malformed. Never reads past the packet's end as its own length field gives it, so that padding
//! is no payload; never normalises. Next in the flow: `classify`.

mod ethernet;
mod ipv4;
pub mod ipv6;
pub mod transport;

/// Read-only view of one frame, whole or in several buffers.
pub trait PacketBytes {
    /// `N` bytes at `offset`, or `None` where the frame is shorter.
    fn read<const N: usize>(&self, offset: u32) -> Option<[u8; N]>;
    /// Whether the frame has at least `length` bytes.
    fn holds(&self, length: u32) -> bool;
    /// The whole frame's length; may cost more than `holds`.
    fn length(&self) -> u32;

    // Steps whose offset depends on all before them, called through here so that the kernel can verify each by
    // itself, once, and not once for every chain of headers that leads to it.

    /// `ipv6::extension`.
    fn ipv6_extension(&self, at: u32, end: u32, next: u8) -> u64 {
        ipv6::extension(self, at, end, next)
    }
    /// `transport::parse`; false is malformed.
    fn ipv6_transport(&self, at: u32, end: u32, packet: &mut Packet) -> bool {
        transport::parse(self, at, end, packet).is_some()
    }
}

impl PacketBytes for [u8] {
    fn read<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        let start = offset as usize;
        self.get(start..start.checked_add(N)?)?.try_into().ok()
    }
    fn holds(&self, length: u32) -> bool {
        self.len() >= length as usize
    }
    fn length(&self) -> u32 {
        u32::try_from(self.len()).unwrap_or(u32::MAX)
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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

/// What the rules need to know of one IP packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packet {
    /// IPv4 addresses as ::ffff:a.b.c.d; such addresses on the wire are malformed, so no two share a form.
    pub source: [u8; 16],
    pub destination: [u8; 16],
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
pub enum Frame {
    Ip,
    /// ARP, or a link-control frame (01-80-C2-00-00-0x) that is not IP.
    LinkControl,
    NonIp,
    Malformed,
}

/// Reads the headers of a frame into `packet`.
#[inline(always)]
pub fn parse<F: PacketBytes + ?Sized>(frame: &F, packet: &mut Packet) -> Frame {
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

#[inline(always)]
fn be16(high: u8, low: u8) -> u16 {
    u16::from_be_bytes([high, low])
}
