//! pcapng (draft-ietf-opsawg-pcapng): sections, their interfaces, and the three kinds of packet blocks.

use std::io::{self, Read};

use super::capture::{ENDS_IN_RECORD, Frame, Order, RECORD_BYTES_MAX, Record, Why};
use super::input::{Input, Piece};

/// A section header block's type: the same in both byte orders.
pub(super) const MAGIC: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];

const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const ENHANCED_PACKET: u32 = 6;
/// Type, length, and the length again at the end.
const FRAMING: usize = 12;
/// Of one section; more are no capture that anybody made.
const INTERFACES_MAX: usize = 65_536;

const OPTION_END: u16 = 0;
const OPTION_RESOLUTION: u16 = 9;
const OPTION_OFFSET: u16 = 14;

/// The section being read.
#[derive(Default)]
pub(super) struct Pcapng {
    order: Option<Order>,
    interfaces: Vec<Interface>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Interface {
    link: u32,
    /// 0 is no bound.
    snap_length: u32,
    resolution: u8,
    offset_seconds: i64,
}

impl Pcapng {
    /// The next frame of this or a later section.
    pub(super) fn next<'a, R: Read>(&mut self, input: &'a mut Input<R>) -> io::Result<Record<'a>> {
        loop {
            match input.fill(12)? {
                Piece::Whole => {}
                Piece::Nothing => return Ok(Record::End),
                Piece::Part => return Ok(broken(false, "the file ends inside a block")),
            }
            let head: [u8; 12] = input.bytes(12).try_into().expect("twelve bytes");
            if head[..4] == MAGIC {
                match byte_order(&head) {
                    Some(order) => self.order = Some(order),
                    None => return Ok(broken(false, "a section without a byte order")),
                }
            }
            let Some(order) = self.order else {
                return Ok(broken(false, "no section header"));
            };
            let (kind, length) = (order.u32(&head, 0), order.u32(&head, 4) as usize);
            let is_packet = matches!(kind, PACKET | SIMPLE_PACKET | ENHANCED_PACKET);
            if length < FRAMING || length % 4 != 0 {
                return Ok(broken(
                    is_packet,
                    format!("a block of {length} bytes: damaged from here on"),
                ));
            }
            let is_read = is_packet || matches!(kind, SECTION | INTERFACE);
            if !is_read || length > RECORD_BYTES_MAX {
                match skip(input, order, length)? {
                    Some(why) => return Ok(broken(is_packet, why)),
                    None if is_packet => return Ok(unread(crate::kernel::run::TOO_LONG, None)),
                    None if is_read => return Ok(broken(false, "a header block out of all proportion")),
                    None => continue,
                }
            }
            if input.fill(length)? != Piece::Whole {
                let why = if is_packet {
                    ENDS_IN_RECORD
                } else {
                    "the file ends inside a block"
                };
                return Ok(broken(is_packet, why));
            }
            input.advance(length);
            let block = input.behind(length);
            if order.u32(block, length - 4) as usize != length {
                return Ok(broken(
                    is_packet,
                    "a block's two lengths differ: damaged from here on",
                ));
            }
            if is_packet {
                // Taken anew: a borrow that is returned must not begin before the loop goes on.
                return Ok(self.packet(order, kind, &input.behind(length)[8..length - 4]));
            }
            let body = &block[8..length - 4];
            let why = match kind {
                SECTION => self.section(order, body),
                _ => self.interface(order, body),
            };
            if let Err(why) = why {
                return Ok(Record::Broken { frame: false, why });
            }
        }
    }

    fn section(&mut self, order: Order, body: &[u8]) -> Result<(), Why> {
        if body.len() < 16 {
            return Err("a section header that is cut".into());
        }
        let (major, minor) = (order.u16(body, 4), order.u16(body, 6));
        // 1.2 was written by mistake, and is 1.0 (section 4.1).
        if major != 1 || !matches!(minor, 0 | 2) {
            return Err(format!("pcapng version {major}.{minor}: only 1.0 is read").into());
        }
        self.interfaces.clear();
        Ok(())
    }

    fn interface(&mut self, order: Order, body: &[u8]) -> Result<(), Why> {
        if body.len() < 8 {
            return Err("an interface that is cut".into());
        }
        if self.interfaces.len() >= INTERFACES_MAX {
            return Err(format!("a section with more than {INTERFACES_MAX} interfaces").into());
        }
        let mut interface = Interface {
            link: u32::from(order.u16(body, 0)),
            snap_length: order.u32(body, 4),
            resolution: 6,
            offset_seconds: 0,
        };
        let mut options = &body[8..];
        while options.len() >= 4 {
            let (code, length) = (order.u16(options, 0), usize::from(order.u16(options, 2)));
            let Some(value) = options.get(4..4 + length) else {
                break;
            };
            match (code, length) {
                (OPTION_END, _) => break,
                (OPTION_RESOLUTION, 1) => interface.resolution = value[0],
                (OPTION_OFFSET, 8) => interface.offset_seconds = seconds(order, value),
                _ => {}
            }
            options = options.get(4 + length.next_multiple_of(4)..).unwrap_or_default();
        }
        self.interfaces.push(interface);
        Ok(())
    }

    fn packet<'a>(&self, order: Order, kind: u32, body: &'a [u8]) -> Record<'a> {
        let head = match kind {
            SIMPLE_PACKET => 4,
            _ => 20,
        };
        if body.len() < head {
            return unread("a packet block that is cut", None);
        }
        let number = match kind {
            SIMPLE_PACKET => 0,
            PACKET => usize::from(order.u16(body, 0)),
            _ => order.u32(body, 0) as usize,
        };
        let Some(interface) = self.interfaces.get(number) else {
            return unread("of an interface that is not described", None);
        };
        let original = order.u32(body, head - 4);
        let (stamp, length) = if kind == SIMPLE_PACKET {
            // It does not say how much of it is padding: what the interface's snap length leaves.
            let bound = match interface.snap_length {
                0 => u32::MAX,
                bound => bound,
            };
            (None, original.min(bound))
        } else {
            let ticks = u64::from(order.u32(body, 4)) << 32 | u64::from(order.u32(body, 8));
            (Some(interface.nanoseconds(ticks)), order.u32(body, 12))
        };
        match body.get(head..head.saturating_add(length as usize)) {
            Some(bytes) => Record::Frame(Frame {
                stamp,
                link: interface.link,
                original,
                bytes,
            }),
            None => unread("longer than its block", stamp),
        }
    }
}

impl Interface {
    /// A stamp in the interface's units, 10^-n or 2^-n of a second, as nanoseconds since 1970.
    fn nanoseconds(&self, ticks: u64) -> u64 {
        let exponent = u32::from(self.resolution & 0x7f);
        let scaled = u128::from(ticks) * 1_000_000_000;
        let since = if self.resolution & 0x80 == 0 {
            10u128.checked_pow(exponent).map_or(0, |units| scaled / units)
        } else {
            scaled >> exponent
        };
        let offset = i128::from(self.offset_seconds) * 1_000_000_000;
        // Before 1970 is 1970; 2^64 nanoseconds last until 2554.
        let since = i128::try_from(since)
            .unwrap_or(i128::MAX)
            .saturating_add(offset)
            .max(0);
        u64::try_from(since).unwrap_or(u64::MAX)
    }
}

/// The byte order of a section by the word behind its length.
fn byte_order(head: &[u8; 12]) -> Option<Order> {
    [Order::Big, Order::Little]
        .into_iter()
        .find(|order| order.u32(head, 8) == 0x1a2b_3c4d)
}

/// Leaves a block out; says what is wrong with it.
fn skip<R: Read>(input: &mut Input<R>, order: Order, length: usize) -> io::Result<Option<&'static str>> {
    if !input.skip(length as u64 - 4)? || input.fill(4)? != Piece::Whole {
        return Ok(Some("the file ends inside a block"));
    }
    let again = order.u32(input.bytes(4), 0) as usize;
    input.advance(4);
    Ok((again != length).then_some("a block's two lengths differ: damaged from here on"))
}

fn seconds(order: Order, value: &[u8]) -> i64 {
    let (high, low) = match order {
        Order::Big => (order.u32(value, 0), order.u32(value, 4)),
        Order::Little => (order.u32(value, 4), order.u32(value, 0)),
    };
    (u64::from(high) << 32 | u64::from(low)).cast_signed()
}

fn broken(frame: bool, why: impl Into<Why>) -> Record<'static> {
    Record::Broken {
        frame,
        why: why.into(),
    }
}

fn unread(why: &'static str, stamp: Option<u64>) -> Record<'static> {
    Record::Unread(why.into(), stamp)
}
