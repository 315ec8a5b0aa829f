//! Captures as frames: pcap (either byte order, micro- or nanoseconds) and pcapng, told apart by their first bytes.
//!
//! Judges nothing. What cannot be read is a record that says so, and reading goes on where the file lets it. Not by
//! the pcap-file crate, which refuses whole files for one cut frame (an original length above the snap length).

use std::borrow::Cow;
use std::io::{self, Read};

use super::input::{Input, Piece};
use super::pcapng::Pcapng;

/// A longer record is left out without being held: no test run takes a hundredth of it.
pub(super) const RECORD_BYTES_MAX: usize = 1 << 24;
/// The link type of Ethernet (tcpdump.org, link-layer header types).
const ETHERNET: u32 = 1;
const ENDS_IN_HEADER: &str = "the file ends inside its header";
pub(super) const ENDS_IN_RECORD: &str = "the file ends inside the record";

pub(super) type Why = Cow<'static, str>;

/// One record of a capture.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Record<'a> {
    Frame(Frame<'a>),
    /// A frame that is there and cannot be had; with its stamp where it has one.
    Unread(Why, Option<u64>),
    /// Nothing behind it can be read. `frame`: a record had begun.
    Broken {
        frame: bool,
        why: Why,
    },
    End,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    /// Nanoseconds since 1970, where the record has a time.
    pub(super) stamp: Option<u64>,
    pub(super) link: u32,
    pub(super) original: u32,
    pub(super) bytes: &'a [u8],
}

impl Frame<'_> {
    /// Why no filter could judge this one.
    pub(super) fn unfit(&self) -> Option<Why> {
        if self.link != ETHERNET {
            return Some(format!("link type {} is not Ethernet", self.link).into());
        }
        if (self.bytes.len() as u64) < u64::from(self.original) {
            return Some("cut by the snap length".into());
        }
        (self.bytes.len() < crate::kernel::run::FRAME_MIN).then(|| "under 14 bytes".into())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Big,
    Little,
}

impl Order {
    pub(super) fn u16(self, bytes: &[u8], at: usize) -> u16 {
        let bytes = bytes[at..at + 2].try_into().expect("two bytes");
        match self {
            Order::Big => u16::from_be_bytes(bytes),
            Order::Little => u16::from_le_bytes(bytes),
        }
    }

    pub(super) fn u32(self, bytes: &[u8], at: usize) -> u32 {
        let bytes = bytes[at..at + 4].try_into().expect("four bytes");
        match self {
            Order::Big => u32::from_be_bytes(bytes),
            Order::Little => u32::from_le_bytes(bytes),
        }
    }
}

/// A capture being read.
pub(super) struct Capture<R> {
    input: Input<R>,
    format: Format,
}

enum Format {
    Pcap { order: Order, unit: u64, link: u32 },
    Pcapng(Pcapng),
}

impl<R: Read> Capture<R> {
    /// Reads what a capture begins with; an error is why it is none that can be read.
    pub(super) fn open(reader: R) -> Result<Self, Why> {
        let mut input = Input::new(reader);
        let fault = |error: io::Error| Why::from(super::files::cannot_be_read(&error));
        match input.fill(4).map_err(fault)? {
            Piece::Whole => {}
            Piece::Nothing => return Err("an empty file".into()),
            Piece::Part => return Err("neither pcap nor pcapng".into()),
        }
        let magic: [u8; 4] = input.bytes(4).try_into().expect("four bytes");
        if magic == super::pcapng::MAGIC {
            let format = Format::Pcapng(Pcapng::default());
            return Ok(Self { input, format });
        }
        let (order, unit) = pcap_kind(magic)?;
        if input.fill(24).map_err(fault)? != Piece::Whole {
            return Err(ENDS_IN_HEADER.into());
        }
        let header = input.bytes(24);
        let (major, minor) = (order.u16(header, 4), order.u16(header, 6));
        // The upper bits say whether a check sequence follows each frame: bytes past the packet's end.
        let link = order.u32(header, 20) & 0xffff;
        if (major, minor) != (2, 4) {
            return Err(format!("pcap version {major}.{minor}: only 2.4 is read").into());
        }
        input.advance(24);
        let format = Format::Pcap { order, unit, link };
        Ok(Self { input, format })
    }

    pub(super) fn next(&mut self) -> io::Result<Record<'_>> {
        match &mut self.format {
            Format::Pcap { order, unit, link } => pcap_record(&mut self.input, *order, *unit, *link),
            Format::Pcapng(sections) => sections.next(&mut self.input),
        }
    }

    /// Bytes read so far.
    pub(super) fn taken(&self) -> u64 {
        self.input.taken()
    }
}

/// Byte order, and nanoseconds in a unit of the stamps' fractions.
fn pcap_kind(magic: [u8; 4]) -> Result<(Order, u64), Why> {
    match magic {
        [0xa1, 0xb2, 0xc3, 0xd4] => Ok((Order::Big, 1000)),
        [0xa1, 0xb2, 0x3c, 0x4d] => Ok((Order::Big, 1)),
        [0xd4, 0xc3, 0xb2, 0xa1] => Ok((Order::Little, 1000)),
        [0x4d, 0x3c, 0xb2, 0xa1] => Ok((Order::Little, 1)),
        [0xa1, 0xb2, 0xcd, 0x34] | [0x34, 0xcd, 0xb2, 0xa1] => Err("modified pcap: not read".into()),
        [0x1f, 0x8b, ..] => Err("compressed by gzip: unpack it first".into()),
        [0x28, 0xb5, 0x2f, 0xfd] => Err("compressed by zstd: unpack it first".into()),
        _ => Err("neither pcap nor pcapng".into()),
    }
}

fn pcap_record<R: Read>(input: &mut Input<R>, order: Order, unit: u64, link: u32) -> io::Result<Record<'_>> {
    match input.fill(16)? {
        Piece::Whole => {}
        Piece::Nothing => return Ok(Record::End),
        Piece::Part => return Ok(ends_inside()),
    }
    let header = input.bytes(16);
    let seconds = u64::from(order.u32(header, 0));
    let stamp = Some(seconds * 1_000_000_000 + u64::from(order.u32(header, 4)) * unit);
    let (length, original) = (order.u32(header, 8) as usize, order.u32(header, 12));
    input.advance(16);
    if length > RECORD_BYTES_MAX {
        return Ok(match input.skip(length as u64)? {
            true => Record::Unread(crate::kernel::run::TOO_LONG.into(), stamp),
            false => ends_inside(),
        });
    }
    if input.fill(length)? != Piece::Whole {
        return Ok(ends_inside());
    }
    input.advance(length);
    Ok(Record::Frame(Frame {
        stamp,
        link,
        original,
        bytes: input.behind(length),
    }))
}

fn ends_inside() -> Record<'static> {
    Record::Broken {
        frame: true,
        why: ENDS_IN_RECORD.into(),
    }
}
