//! The daemon's answer as blocks: written whole ones only, so that a capture that is cut is still a file, and counted.

use std::io::{self, Write};

use pcap_file::PcapError;
use pcap_file::pcapng::blocks::interface_statistics::{InterfaceStatisticsBlock, InterfaceStatisticsOption};
use pcap_file::pcapng::{Block, PcapNgParser};

/// What came of a capture, over all interfaces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    /// Of the file.
    pub(super) bytes: u64,
    pub(super) delivered: u64,
    pub(super) judged: u64,
    pub(super) wanted: u64,
    /// Not taken, of whatever reason but sampling.
    pub(super) dropped: u64,
    pub(super) lost: u64,
    pub(super) unsampled: u64,
    pub(super) ended: Option<String>,
}

impl Totals {
    pub(super) fn unsampled(&self) -> u64 {
        self.unsampled
    }

    pub(super) fn over(&self) -> u64 {
        self.dropped.saturating_sub(self.lost)
    }
}

pub(super) struct Blocks<W> {
    output: W,
    parser: Option<PcapNgParser>,
    /// Of a block that is not whole yet.
    held: Vec<u8>,
    written: u64,
    delivered: u64,
    /// The last statistics of each interface.
    interfaces: Vec<Totals>,
}

impl<W: Write> Blocks<W> {
    pub(super) fn new(output: W) -> Self {
        Self {
            output,
            parser: None,
            held: Vec::new(),
            written: 0,
            delivered: 0,
            interfaces: Vec::new(),
        }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.held.extend_from_slice(bytes);
        let held = std::mem::take(&mut self.held);
        let mut rest = held.as_slice();
        let mut whole = 0;
        loop {
            match self.next(rest) {
                Ok(left) => {
                    whole += rest.len() - left.len();
                    rest = left;
                }
                Err(PcapError::IncompleteBuffer) => break,
                Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
            }
        }
        self.held = rest.to_vec();
        self.output.write_all(&held[..whole])?;
        self.written += whole as u64;
        // Whoever watches by a pipe sees each packet as it comes.
        self.output.flush()
    }

    fn next<'b>(&mut self, bytes: &'b [u8]) -> Result<&'b [u8], PcapError> {
        let Some(parser) = &mut self.parser else {
            let (rest, parser) = PcapNgParser::new(bytes)?;
            self.parser = Some(parser);
            return Ok(rest);
        };
        let (rest, block) = parser.next_block(bytes)?;
        match block {
            Block::EnhancedPacket(_) => self.delivered += 1,
            Block::InterfaceStatistics(block) => {
                let at = block.interface_id as usize;
                // As many as were described before.
                if at < parser.interfaces().len() {
                    self.interfaces
                        .resize(parser.interfaces().len(), Totals::default());
                    self.interfaces[at] = of(&block);
                }
            }
            _ => {}
        }
        Ok(rest)
    }

    pub(super) fn totals(&self) -> Totals {
        let start = Totals {
            bytes: self.written,
            delivered: self.delivered,
            ..Totals::default()
        };
        self.interfaces.iter().fold(start, |sum, of| Totals {
            judged: sum.judged + of.judged,
            wanted: sum.wanted + of.wanted,
            dropped: sum.dropped + of.dropped,
            lost: sum.lost + of.lost,
            unsampled: sum.unsampled + of.unsampled,
            ended: sum.ended.or_else(|| of.ended.clone()),
            ..sum
        })
    }
}

/// docs/CAPTURE.md tells what each means.
fn of(block: &InterfaceStatisticsBlock<'_>) -> Totals {
    let mut totals = Totals::default();
    for option in &block.options {
        match option {
            InterfaceStatisticsOption::Comment(words) => {
                for (name, value) in words.split(' ').filter_map(|word| word.split_once('=')) {
                    match name {
                        "ended" => totals.ended = Some(value.to_owned()),
                        "unsampled" => totals.unsampled = value.parse().unwrap_or(0),
                        _ => {}
                    }
                }
            }
            InterfaceStatisticsOption::IsbIfRecv(number) => totals.judged = *number,
            InterfaceStatisticsOption::IsbIfDrop(number) => totals.dropped = *number,
            InterfaceStatisticsOption::IsbFilterAccept(number) => totals.wanted = *number,
            InterfaceStatisticsOption::IsbOsDrop(number) => totals.lost = *number,
            _ => {}
        }
    }
    totals
}
