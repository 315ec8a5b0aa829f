//! The file of a capture: pcapng, with what was decided of each packet as its comment.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use filter_common::capture::Counts;
use filter_common::verdict::{Reason, Verdict};
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::pcapng::blocks::interface_statistics::{InterfaceStatisticsBlock, InterfaceStatisticsOption};
use pcap_file::pcapng::blocks::section_header::{SectionHeaderBlock, SectionHeaderOption};
use pcap_file::pcapng::{PcapNgBlock, PcapNgWriter};
use pcap_file::{DataLink, Endianness};

/// What a packet's comment says: `verdict=drop reason=unlisted service=payments`, and `owner=client/acme` where one is
/// known to have paid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Comment {
    pub(super) verdict: Verdict,
    pub(super) reason: Reason,
    pub(super) service: Option<String>,
    pub(super) owner: Option<String>,
}

impl fmt::Display for Comment {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "verdict={} reason={}",
            self.verdict.name(),
            self.reason.name()
        )?;
        if let Some(service) = &self.service {
            write!(formatter, " service={service}")?;
        }
        if let Some(owner) = &self.owner {
            write!(formatter, " owner={owner}")?;
        }
        Ok(())
    }
}

/// Nanoseconds, as the power of ten that `if_tsresol` has.
const NANOSECONDS: u8 = 9;
/// `epb_flags`: inbound.
const INBOUND: u32 = 1;
const CANNOT_FAIL: &str = "a vector takes all that is written, of interfaces that were described before";

/// Grows by what is written, until it is taken.
pub(super) struct File {
    writer: PcapNgWriter<Vec<u8>>,
    /// Their numbers here, by the kernel's.
    numbers: HashMap<u32, u32>,
    interfaces: Vec<Interface>,
    snap: u32,
    began: u64,
    /// Bytes taken so far.
    taken: u64,
}

#[derive(Clone, Copy, Default)]
struct Interface {
    counts: Counts,
    delivered: u64,
}

impl File {
    /// `now` and all other times are nanoseconds since 1970.
    pub(super) fn new(what: &str, snap: u32, now: u64) -> Self {
        let application = concat!("keyfence ", env!("CARGO_PKG_VERSION"));
        let section = SectionHeaderBlock {
            endianness: Endianness::native(),
            options: vec![
                SectionHeaderOption::Comment(Cow::Owned(what.to_owned())),
                SectionHeaderOption::OS(Cow::Borrowed("Linux")),
                SectionHeaderOption::UserApplication(Cow::Borrowed(application)),
            ],
            ..SectionHeaderBlock::default()
        };
        Self {
            writer: PcapNgWriter::with_section_header(Vec::new(), section).expect(CANNOT_FAIL),
            numbers: HashMap::new(),
            interfaces: Vec::new(),
            snap,
            began: now,
            taken: 0,
        }
    }

    /// The number in this file of an interface of the kernel's, described first where it is new.
    pub(super) fn interface(&mut self, number: u32, name: impl FnOnce() -> String) -> u32 {
        if let Some(known) = self.numbers.get(&number) {
            return *known;
        }
        let block = InterfaceDescriptionBlock {
            linktype: DataLink::ETHERNET,
            snaplen: self.snap,
            options: vec![
                InterfaceDescriptionOption::IfName(Cow::Owned(name())),
                InterfaceDescriptionOption::IfTsResol(NANOSECONDS),
            ],
        };
        self.put(block);
        let here = self.interfaces.len() as u32;
        self.interfaces.push(Interface::default());
        self.numbers.insert(number, here);
        here
    }

    pub(super) fn packet(&mut self, interface: u32, time: u64, length: u32, frame: &[u8], comment: &Comment) {
        self.put(EnhancedPacketBlock {
            interface_id: interface,
            timestamp: Duration::from_nanos(time),
            original_len: length,
            data: Cow::Borrowed(frame),
            options: vec![
                EnhancedPacketOption::Comment(Cow::Owned(comment.to_string())),
                EnhancedPacketOption::Flags(INBOUND),
            ],
        });
        if let Some(interface) = self.interfaces.get_mut(interface as usize) {
            interface.delivered += 1;
        }
    }

    /// What became of the packets of an interface, by the kernel's number.
    pub(super) fn counted(&mut self, number: u32, counts: Counts) {
        let here = self.numbers.get(&number).map(|here| *here as usize);
        if let Some(interface) = here.and_then(|here| self.interfaces.get_mut(here)) {
            interface.counts = counts;
        }
    }

    /// A block of statistics for each interface, as of now; the last ones say why the capture ended.
    pub(super) fn statistics(&mut self, now: u64, ended: Option<&str>) {
        for (id, Interface { counts, delivered }) in (0..).zip(self.interfaces.clone()) {
            let Counts {
                judged,
                wanted,
                unsampled,
                over,
                lost,
            } = counts;
            let mut comment = format!("unsampled={unsampled} over-rate={over} no-room={lost}");
            if let Some(ended) = ended {
                comment = format!("ended={ended} {comment}");
            }
            self.put(InterfaceStatisticsBlock {
                interface_id: id,
                timestamp: stamp(now),
                options: vec![
                    InterfaceStatisticsOption::Comment(Cow::Owned(comment)),
                    InterfaceStatisticsOption::IsbStartTime(stamp(self.began)),
                    InterfaceStatisticsOption::IsbEndTime(stamp(now)),
                    InterfaceStatisticsOption::IsbIfRecv(judged),
                    InterfaceStatisticsOption::IsbIfDrop(over + lost),
                    InterfaceStatisticsOption::IsbFilterAccept(wanted),
                    InterfaceStatisticsOption::IsbOsDrop(lost),
                    InterfaceStatisticsOption::IsbUsrDeliv(delivered),
                ],
            });
        }
    }

    fn put<'b>(&mut self, block: impl PcapNgBlock<'b>) {
        self.writer.write_pcapng_block(block).expect(CANNOT_FAIL);
    }

    /// Bytes written so far.
    pub(super) fn written(&self) -> u64 {
        self.taken + self.writer.get_ref().len() as u64
    }

    /// What was written since it was asked last.
    pub(super) fn take(&mut self) -> Bytes {
        let bytes = std::mem::take(self.writer.get_mut());
        self.taken += bytes.len() as u64;
        bytes.into()
    }
}

/// Stamps have their upper half first in either byte order; the crate writes a number.
fn stamp(nanoseconds: u64) -> u64 {
    if cfg!(target_endian = "little") {
        nanoseconds.rotate_left(32)
    } else {
        nanoseconds
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pcap_file::pcapng::{Block, PcapNgReader};

    fn blocks(file: &mut File) -> Vec<Block<'static>> {
        let bytes = file.take();
        let mut reader = PcapNgReader::new(bytes.as_ref()).unwrap();
        std::iter::from_fn(|| reader.next_block().map(|block| block.unwrap().into_owned())).collect()
    }

    #[test]
    fn comments_name_what_is_known() {
        let mut comment = Comment {
            verdict: Verdict::Drop,
            reason: Reason::LimitGrant,
            service: Some("payments".to_owned()),
            owner: Some("binding/gateway/key-1".to_owned()),
        };
        assert_eq!(
            comment.to_string(),
            "verdict=drop reason=limit-grant service=payments owner=binding/gateway/key-1"
        );
        (comment.service, comment.owner) = (None, None);
        assert_eq!(comment.to_string(), "verdict=drop reason=limit-grant");
    }

    #[test]
    fn a_file_is_read_back_as_it_was_written() {
        let mut file = File::new("all", 96, 1_000);
        let eth0 = file.interface(7, || "eth0".to_owned());
        let eth1 = file.interface(9, || "eth1".to_owned());
        assert_eq!((eth0, eth1, file.interface(7, || unreachable!())), (0, 1, 0));
        let comment = Comment {
            verdict: Verdict::Pass,
            reason: Reason::Other,
            service: None,
            owner: None,
        };
        let time = 1_795_000_000_123_456_789;
        file.packet(eth1, time, 1_500, &[7; 95], &comment);
        let counts = Counts {
            judged: 9,
            wanted: 6,
            unsampled: 2,
            over: 2,
            lost: 1,
        };
        file.counted(9, counts);
        file.statistics(time, Some("count"));
        let read = blocks(&mut file);
        let [
            Block::InterfaceDescription(_),
            Block::InterfaceDescription(second),
            Block::EnhancedPacket(packet),
            Block::InterfaceStatistics(_),
            Block::InterfaceStatistics(counted),
        ] = read.as_slice()
        else {
            panic!("{read:?}");
        };
        assert_eq!(second.snaplen, 96);
        assert_eq!((packet.interface_id, packet.original_len), (1, 1_500));
        assert_eq!(packet.timestamp, Duration::from_nanos(time));
        assert_eq!(
            (packet.data.as_ref(), packet.options.len()),
            ([7; 95].as_slice(), 2)
        );
        assert_eq!(counted.interface_id, 1);
        let expected = [
            InterfaceStatisticsOption::IsbIfRecv(9),
            InterfaceStatisticsOption::IsbIfDrop(3),
            InterfaceStatisticsOption::IsbFilterAccept(6),
            InterfaceStatisticsOption::IsbOsDrop(1),
            InterfaceStatisticsOption::IsbUsrDeliv(1),
        ];
        assert_eq!(counted.options[3..], expected);
        let words = "ended=count unsampled=2 over-rate=2 no-room=1";
        assert_eq!(
            counted.options[0],
            InterfaceStatisticsOption::Comment(words.into())
        );
        // Nothing is written twice.
        assert!(file.take().is_empty());
    }
}
