//! IPv4, IPv6 and its extension headers.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::Frame;
use super::transport::{Tcp, Udp, checksum, fill_checksum, icmp};

#[derive(Clone, Debug)]
pub struct Ipv4 {
    pub source: Ipv4Addr,
    pub destination: Ipv4Addr,
    pub version: u8,
    /// In 4-byte words; None: what is true.
    pub header_words: Option<u8>,
    /// None: what is true.
    pub total_length: Option<u16>,
    pub id: u16,
    pub reserved: bool,
    pub dont_fragment: bool,
    pub more: bool,
    /// In 8-byte units.
    pub offset: u16,
    pub ttl: u8,
    pub protocol: u8,
    /// Whole 4-byte words.
    pub options: Vec<u8>,
    pub payload: Vec<u8>,
}

#[derive(Clone, Debug)]
pub struct Ipv6 {
    pub source: Ipv6Addr,
    pub destination: Ipv6Addr,
    pub version: u8,
    /// None: what is true.
    pub payload_length: Option<u16>,
    pub hop_limit: u8,
    pub extensions: Vec<Extension>,
    /// The next header after the extension headers.
    pub protocol: u8,
    pub payload: Vec<u8>,
}

/// An IPv6 extension header; its first byte is filled in with the next header.
#[derive(Clone, Debug)]
pub struct Extension {
    pub number: u8,
    pub bytes: Vec<u8>,
}

impl Extension {
    /// Any header of the common form, so many 8-byte units long, its options padding.
    pub fn options(number: u8, units: u8) -> Extension {
        let mut bytes = vec![0; usize::from(units) * 8];
        let filled = bytes.len() - 4;
        bytes[1] = units - 1;
        // PadN (RFC 8200, 4.2) up to 255 bytes; what is left stays Pad1.
        bytes[2] = 1;
        bytes[3] = filled.min(255) as u8;
        Extension { number, bytes }
    }

    pub fn hop_by_hop() -> Extension {
        Extension::options(0, 1)
    }

    pub fn destination_options() -> Extension {
        Extension::options(60, 1)
    }

    pub fn routing(kind: u8, segments_left: u8) -> Extension {
        Extension {
            number: 43,
            bytes: vec![0, 0, kind, segments_left, 0, 0, 0, 0],
        }
    }

    /// `offset` in 8-byte units.
    pub fn fragment(offset: u16, more: bool) -> Extension {
        let word = (offset << 3 | u16::from(more)).to_be_bytes();
        Extension {
            number: 44,
            bytes: vec![0, 0, word[0], word[1], 0, 0, 0, 7],
        }
    }

    /// 24 bytes: the fixed 12 and a check value of 12 (RFC 4302).
    pub fn authentication() -> Extension {
        let mut bytes = vec![0; 24];
        bytes[1] = 4;
        bytes[7] = 1;
        bytes[11] = 1;
        Extension { number: 51, bytes }
    }

    /// Mobility 135, HIP 139, shim6 140: of the common form, but not walked.
    pub fn other(number: u8) -> Extension {
        Extension::options(number, 1)
    }

    /// Lets the length byte say something else.
    pub fn length(mut self, value: u8) -> Extension {
        self.bytes[1] = value;
        self
    }
}

/// What both families can carry; `Ipv4` and `Ipv6` differ only in their headers.
pub trait Carrier: Sized + Into<Frame> {
    fn payload(self, protocol: u8, bytes: Vec<u8>) -> Self;
    /// Lets the payload end after so many bytes.
    fn shorten(self, bytes: usize) -> Self;
    /// The IP packet alone.
    fn packet(&self) -> Vec<u8>;

    fn tcp(self, source: u16, destination: u16) -> Self {
        self.payload(6, Tcp::new(source, destination).bytes())
    }
    fn tcp_with(self, tcp: Tcp) -> Self {
        self.payload(6, tcp.bytes())
    }
    fn udp(self, source: u16, destination: u16) -> Self {
        self.payload(17, Udp::new(source, destination).bytes())
    }
    fn udp_with(self, udp: Udp) -> Self {
        self.payload(17, udp.bytes())
    }
    fn frame(self) -> Frame {
        self.into()
    }
}

impl Ipv4 {
    pub fn new(source: Ipv4Addr, destination: Ipv4Addr) -> Ipv4 {
        Ipv4 {
            source,
            destination,
            version: 4,
            header_words: None,
            total_length: None,
            id: 7,
            reserved: false,
            dont_fragment: false,
            more: false,
            offset: 0,
            ttl: 64,
            protocol: 59,
            options: Vec::new(),
            payload: Vec::new(),
        }
    }

    pub fn icmp(self, kind: u8, code: u8) -> Ipv4 {
        self.payload(1, icmp(kind, code, 8))
    }

    /// `offset` in 8-byte units.
    pub fn fragment(self, offset: u16, more: bool) -> Ipv4 {
        Ipv4 { offset, more, ..self }
    }

    pub fn total_length(self, total_length: u16) -> Ipv4 {
        Ipv4 {
            total_length: Some(total_length),
            ..self
        }
    }

    pub fn header_words(self, words: u8) -> Ipv4 {
        Ipv4 {
            header_words: Some(words),
            ..self
        }
    }

    pub fn version(self, version: u8) -> Ipv4 {
        Ipv4 { version, ..self }
    }

    pub fn options(self, options: &[u8]) -> Ipv4 {
        Ipv4 {
            options: options.to_vec(),
            ..self
        }
    }

    pub fn reserved_flag(self) -> Ipv4 {
        Ipv4 {
            reserved: true,
            ..self
        }
    }
}

impl Carrier for Ipv4 {
    fn payload(self, protocol: u8, payload: Vec<u8>) -> Ipv4 {
        Ipv4 {
            protocol,
            payload,
            ..self
        }
    }

    fn shorten(mut self, bytes: usize) -> Ipv4 {
        self.payload.truncate(bytes);
        self
    }

    fn packet(&self) -> Vec<u8> {
        let header = 20 + self.options.len();
        let words = self.header_words.unwrap_or((header / 4) as u8);
        let total = self
            .total_length
            .unwrap_or((header + self.payload.len()).min(65_535) as u16);
        let flags =
            u16::from(self.reserved) << 15 | u16::from(self.dont_fragment) << 14 | u16::from(self.more) << 13;
        let mut out = vec![self.version << 4 | words & 0x0f, 0];
        out.extend(total.to_be_bytes());
        out.extend(self.id.to_be_bytes());
        out.extend((flags | self.offset & 0x1fff).to_be_bytes());
        out.extend([self.ttl, self.protocol, 0, 0]);
        out.extend(self.source.octets());
        out.extend(self.destination.octets());
        out.extend(&self.options);
        let sum = checksum(0, &out);
        out[10..12].copy_from_slice(&sum.to_be_bytes());
        let mut payload = self.payload.clone();
        if !self.more && self.offset == 0 {
            let pseudo =
                (self.protocol != 1).then(|| [self.source.octets(), self.destination.octets()].concat());
            fill_checksum(pseudo, self.protocol, &mut payload);
        }
        out.extend(payload);
        out
    }
}

impl From<Ipv4> for Frame {
    fn from(packet: Ipv4) -> Frame {
        Frame::new(0x0800, packet.packet())
    }
}

impl Ipv6 {
    pub fn new(source: Ipv6Addr, destination: Ipv6Addr) -> Ipv6 {
        Ipv6 {
            source,
            destination,
            version: 6,
            payload_length: None,
            hop_limit: 64,
            extensions: Vec::new(),
            protocol: 59,
            payload: Vec::new(),
        }
    }

    pub fn icmp(self, kind: u8, code: u8) -> Ipv6 {
        self.payload(58, icmp(kind, code, 8))
    }

    /// Adds an extension header after those there are.
    pub fn ext(mut self, extension: Extension) -> Ipv6 {
        self.extensions.push(extension);
        self
    }

    pub fn hop_limit(self, hop_limit: u8) -> Ipv6 {
        Ipv6 { hop_limit, ..self }
    }

    pub fn payload_length(self, payload_length: u16) -> Ipv6 {
        Ipv6 {
            payload_length: Some(payload_length),
            ..self
        }
    }

    pub fn version(self, version: u8) -> Ipv6 {
        Ipv6 { version, ..self }
    }
}

impl Carrier for Ipv6 {
    fn payload(self, protocol: u8, payload: Vec<u8>) -> Ipv6 {
        Ipv6 {
            protocol,
            payload,
            ..self
        }
    }

    fn shorten(mut self, bytes: usize) -> Ipv6 {
        self.payload.truncate(bytes);
        self
    }

    fn packet(&self) -> Vec<u8> {
        let next = self
            .extensions
            .iter()
            .skip(1)
            .map(|e| e.number)
            .chain([self.protocol]);
        let mut chain = Vec::new();
        for (extension, next) in self.extensions.iter().zip(next) {
            let start = chain.len();
            chain.extend(&extension.bytes);
            if let Some(first) = chain.get_mut(start) {
                *first = next;
            }
        }
        let length = (chain.len() + self.payload.len()).min(65_535) as u16;
        let mut out = vec![self.version << 4, 0, 0, 0];
        out.extend(self.payload_length.unwrap_or(length).to_be_bytes());
        out.push(
            self.extensions
                .first()
                .map_or(self.protocol, |extension| extension.number),
        );
        out.push(self.hop_limit);
        out.extend(self.source.octets());
        out.extend(self.destination.octets());
        let whole = |e: &Extension| e.number != 44 || e.bytes[2..4] == [0, 0];
        let mut payload = self.payload.clone();
        if self.extensions.iter().all(whole) {
            let pseudo = [self.source.octets(), self.destination.octets()].concat();
            fill_checksum(Some(pseudo), self.protocol, &mut payload);
        }
        out.extend(chain);
        out.extend(payload);
        out
    }
}

impl From<Ipv6> for Frame {
    fn from(packet: Ipv6) -> Frame {
        Frame::new(0x86dd, packet.packet())
    }
}
