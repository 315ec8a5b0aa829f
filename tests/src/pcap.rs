//! Captures written byte by byte for the tests: right ones, and wrong ones that no library would write.

/// Byte order and unit of a pcap file.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    pub big: bool,
    pub nanos: bool,
}

pub const KINDS: [Kind; 4] = [
    Kind {
        big: false,
        nanos: false,
    },
    Kind {
        big: false,
        nanos: true,
    },
    Kind {
        big: true,
        nanos: false,
    },
    Kind {
        big: true,
        nanos: true,
    },
];

const ETHERNET: u32 = 1;

/// A pcap file in the making.
pub struct Pcap {
    pub bytes: Vec<u8>,
    kind: Kind,
}

impl Default for Pcap {
    fn default() -> Self {
        Self::new(KINDS[0], (2, 4), ETHERNET)
    }
}

impl Pcap {
    pub fn new(kind: Kind, version: (u16, u16), link: u32) -> Self {
        let magic = if kind.nanos { 0xa1b2_3c4d } else { 0xa1b2_c3d4 };
        let mut pcap = Self {
            bytes: Vec::new(),
            kind,
        };
        pcap.u32(magic).u16(version.0).u16(version.1);
        pcap.u32(0).u32(0).u32(65_535).u32(link);
        pcap
    }

    /// A whole frame at a moment, nanoseconds since 1970.
    pub fn frame(self, at_ns: u64, frame: &[u8]) -> Self {
        self.record(at_ns, frame.len() as u32, frame.len() as u32, frame)
    }

    pub fn record(mut self, at_ns: u64, captured: u32, original: u32, bytes: &[u8]) -> Self {
        let unit = if self.kind.nanos { 1 } else { 1000 };
        self.u32((at_ns / 1_000_000_000) as u32);
        self.u32((at_ns % 1_000_000_000 / unit) as u32);
        self.u32(captured).u32(original);
        self.bytes.extend(bytes);
        self
    }

    fn u16(&mut self, value: u16) -> &mut Self {
        self.bytes.extend(if self.kind.big {
            value.to_be_bytes()
        } else {
            value.to_le_bytes()
        });
        self
    }

    fn u32(&mut self, value: u32) -> &mut Self {
        self.bytes.extend(if self.kind.big {
            value.to_be_bytes()
        } else {
            value.to_le_bytes()
        });
        self
    }
}

/// A pcapng file in the making, of one section.
pub struct Pcapng {
    pub bytes: Vec<u8>,
    big: bool,
}

impl Pcapng {
    pub fn new(big: bool, version: (u16, u16)) -> Self {
        let mut pcapng = Self {
            bytes: Vec::new(),
            big,
        };
        let mut body = pcapng.u32(0x1a2b_3c4d);
        body.extend(pcapng.u16(version.0));
        body.extend(pcapng.u16(version.1));
        body.extend([0xff; 8]);
        pcapng.block(0x0a0d_0d0a, &body);
        pcapng
    }

    /// With stamps in nanoseconds.
    pub fn interface(mut self, link: u16, snap_length: u32) -> Self {
        let mut body = self.u16(link);
        body.extend([0, 0]);
        body.extend(self.u32(snap_length));
        body.extend(self.u16(9));
        body.extend(self.u16(1));
        body.extend([9, 0, 0, 0]);
        body.extend([0; 4]);
        self.block(1, &body);
        self
    }

    pub fn enhanced(mut self, interface: u32, at_ns: u64, original: u32, bytes: &[u8]) -> Self {
        let words = [
            interface,
            (at_ns >> 32) as u32,
            at_ns as u32,
            bytes.len() as u32,
            original,
        ];
        let mut body: Vec<u8> = words.iter().flat_map(|word| self.u32(*word)).collect();
        body.extend(padded(bytes));
        self.block(6, &body);
        self
    }

    pub fn simple(mut self, original: u32, bytes: &[u8]) -> Self {
        let mut body = self.u32(original);
        body.extend(padded(bytes));
        self.block(3, &body);
        self
    }

    /// The obsolete packet block.
    pub fn packet(mut self, interface: u16, at_ns: u64, bytes: &[u8]) -> Self {
        let mut body = [self.u16(interface), self.u16(0)].concat();
        let words = [
            (at_ns >> 32) as u32,
            at_ns as u32,
            bytes.len() as u32,
            bytes.len() as u32,
        ];
        body.extend(words.iter().flat_map(|word| self.u32(*word)));
        body.extend(padded(bytes));
        self.block(2, &body);
        self
    }

    /// A block of a kind that nobody knows.
    pub fn unknown(mut self) -> Self {
        self.block(0x0bad_f00d, &[1; 40]);
        self
    }

    fn block(&mut self, kind: u32, body: &[u8]) {
        let length = body.len() as u32 + 12;
        self.bytes.extend(self.u32(kind));
        self.bytes.extend(self.u32(length));
        self.bytes.extend(body);
        self.bytes.extend(self.u32(length));
    }

    fn u16(&self, value: u16) -> Vec<u8> {
        if self.big {
            value.to_be_bytes().to_vec()
        } else {
            value.to_le_bytes().to_vec()
        }
    }

    fn u32(&self, value: u32) -> Vec<u8> {
        if self.big {
            value.to_be_bytes().to_vec()
        } else {
            value.to_le_bytes().to_vec()
        }
    }
}

fn padded(bytes: &[u8]) -> Vec<u8> {
    let mut padded = bytes.to_vec();
    padded.resize(bytes.len().next_multiple_of(4), 0);
    padded
}

/// An IPv4 TCP segment in Ethernet, `length` bytes of frame in all (its IP packet as long as it can say).
pub fn tcp(from: [u8; 4], to: [u8; 4], port: u16, length: usize) -> Vec<u8> {
    const HEADERS: usize = 14 + 20 + 20;
    let total = (length.max(HEADERS) - 14).min(65_535) as u16;
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
    let [high, low] = total.to_be_bytes();
    frame.extend([0x45, 0, high, low, 0, 0, 0, 0, 64, 6, 0, 0]);
    frame.extend(from);
    frame.extend(to);
    frame.extend(40_000u16.to_be_bytes());
    frame.extend(port.to_be_bytes());
    frame.extend([0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0]);
    frame.resize(length.max(HEADERS), 0);
    frame
}
