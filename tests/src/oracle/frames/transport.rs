//! TCP, UDP and ICMP headers, and the Internet checksum.

pub const FIN: u8 = 0x01;
pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const ACK: u8 = 0x10;

#[derive(Clone, Debug)]
pub struct Tcp {
    pub source: u16,
    pub destination: u16,
    pub flags: u8,
    /// In 4-byte words; None: what is true.
    pub data_offset: Option<u8>,
    /// Whole 4-byte words.
    pub options: Vec<u8>,
    pub data: Vec<u8>,
}

impl Tcp {
    pub fn new(source: u16, destination: u16) -> Tcp {
        Tcp {
            source,
            destination,
            flags: SYN,
            data_offset: None,
            options: Vec::new(),
            data: Vec::new(),
        }
    }

    pub fn bytes(&self) -> Vec<u8> {
        let words = self.data_offset.unwrap_or(5 + (self.options.len() / 4) as u8);
        let mut out = [self.source.to_be_bytes(), self.destination.to_be_bytes()].concat();
        out.extend([
            0,
            0,
            0,
            1,
            0,
            0,
            0,
            0,
            words << 4,
            self.flags,
            0xff,
            0xff,
            0,
            0,
            0,
            0,
        ]);
        out.extend(&self.options);
        out.extend(&self.data);
        out
    }
}

#[derive(Clone, Debug)]
pub struct Udp {
    pub source: u16,
    pub destination: u16,
    /// None: what is true.
    pub length: Option<u16>,
    pub data: Vec<u8>,
}

impl Udp {
    pub fn new(source: u16, destination: u16) -> Udp {
        Udp {
            source,
            destination,
            length: None,
            data: vec![0x41; 8],
        }
    }

    pub fn bytes(&self) -> Vec<u8> {
        let length = self.length.unwrap_or((8 + self.data.len()).min(65_535) as u16);
        let mut out = [self.source.to_be_bytes(), self.destination.to_be_bytes()].concat();
        out.extend(length.to_be_bytes());
        out.extend([0, 0]);
        out.extend(&self.data);
        out
    }
}

/// ICMP or ICMPv6: type, code, 4 bytes and so much data.
pub fn icmp(kind: u8, code: u8, data: usize) -> Vec<u8> {
    let mut out = vec![kind, code, 0, 0, 0, 1, 0, 1];
    out.extend(std::iter::repeat_n(0x42, data));
    out
}

/// Writes the transport checksum where there is a place for it. `addresses`: of the pseudo header, if any.
pub(super) fn fill_checksum(addresses: Option<Vec<u8>>, protocol: u8, payload: &mut [u8]) {
    let at = match protocol {
        6 => 16,
        17 => 6,
        1 | 58 => 2,
        _ => return,
    };
    if payload.len() < at + 2 {
        return;
    }
    payload[at..at + 2].fill(0);
    let pseudo = addresses.map_or(0, |addresses| {
        let length = payload.len() as u32;
        sum(&addresses) + u32::from(protocol) + (length >> 16) + (length & 0xffff)
    });
    // RFC 768: a sum of zero is sent as all ones.
    let value = match checksum(pseudo, payload) {
        0 if protocol == 17 => 0xffff,
        value => value,
    };
    payload[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

fn sum(bytes: &[u8]) -> u32 {
    bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)))
        .sum()
}

/// RFC 1071.
pub(super) fn checksum(start: u32, bytes: &[u8]) -> u16 {
    let mut total = u64::from(start) + u64::from(sum(bytes));
    while total > 0xffff {
        total = (total >> 16) + (total & 0xffff);
    }
    !(total as u16)
}
