//! Frames of captures that others made: pcap and pcapng, both byte orders, micro- and nanoseconds.
//!
//! Judges nothing and skips nothing: what cannot be read comes out as `Unreadable`, with why.

use std::io;
use std::path::{Path, PathBuf};

use pcap_file::pcap::PcapParser;
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::pcapng::{Block, PcapNgParser};
use pcap_file::{PcapError, TsResolution};

/// The link type of Ethernet (tcpdump.org, link-layer header types).
pub const ETHERNET: u32 = 1;
const NANOS: u128 = 1_000_000_000;
/// A pcapng file begins with a section header block.
const SECTION_HEADER: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];

/// One frame of a capture.
#[derive(Clone, Debug)]
pub struct Captured {
    pub file: PathBuf,
    /// 1 for the file's first frame.
    pub index: u64,
    pub link_type: u32,
    pub bytes: Vec<u8>,
    /// How long the frame was on the wire.
    pub original_length: u32,
    /// Nanoseconds since 1970; a block without a time has that of the frame before.
    pub time_ns: u64,
}

impl Captured {
    /// Did the capture cut the frame?
    pub fn cut(&self) -> bool {
        self.bytes.len() < self.original_length as usize
    }
}

/// Where a file, or the rest of it, could not be read.
#[derive(Clone, Debug)]
pub struct Unreadable {
    pub file: PathBuf,
    /// So many frames came before it.
    pub after: u64,
    pub why: String,
}

/// The folder of captures: `KEYFENCE_CAPTURES`, else `../shared/captures` from the repository's root. None
/// where neither is there; a folder that is named but is none is an error.
pub fn folder(root: &Path) -> Result<Option<PathBuf>, String> {
    if let Some(named) = std::env::var_os("KEYFENCE_CAPTURES") {
        let named = PathBuf::from(named);
        return match std::fs::read_dir(&named) {
            Ok(_) => Ok(Some(named)),
            Err(error) => Err(format!("KEYFENCE_CAPTURES={}: {error}", named.display())),
        };
    }
    let usual = root.join("../shared/captures");
    Ok(usual.is_dir().then_some(usual))
}

/// Every capture file under the folder, sorted by path: all but licences and notes.
pub fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let path = entry?.path();
            let is_text = path.file_name().is_some_and(|name| name == "LICENSE")
                || path.extension().is_some_and(|extension| extension == "md");
            if path.is_dir() {
                folders.push(path);
            } else if !is_text {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// All frames of all files, in order; after the last readable frame of a broken file its `Unreadable`.
pub fn all(folder: &Path) -> io::Result<impl Iterator<Item = Result<Captured, Unreadable>>> {
    Ok(files(folder)?.into_iter().flat_map(|path| {
        let (frames, broken) = read(&path);
        frames.into_iter().map(Ok).chain(broken.map(Err))
    }))
}

/// The frames of one file, and where reading ended early.
pub fn read(path: &Path) -> (Vec<Captured>, Option<Unreadable>) {
    let mut frames = Vec::new();
    let outcome = match std::fs::read(path) {
        Err(error) => Err(error.to_string()),
        Ok(bytes) if bytes.starts_with(&SECTION_HEADER) => pcapng(path, &bytes, &mut frames),
        Ok(bytes) => pcap(path, &bytes, &mut frames),
    };
    let after = frames.len() as u64;
    (
        frames,
        outcome.err().map(|why| Unreadable {
            file: path.to_owned(),
            after,
            why,
        }),
    )
}

fn pcap(path: &Path, bytes: &[u8], frames: &mut Vec<Captured>) -> Result<(), String> {
    let (mut rest, parser) = PcapParser::new(bytes).map_err(|error| why(&error))?;
    let header = parser.header();
    // The upper bits say whether a frame check sequence follows each frame.
    let link_type = u32::from(header.datalink) & 0xffff;
    let unit: u64 = if header.ts_resolution == TsResolution::NanoSecond {
        1
    } else {
        1000
    };
    while !rest.is_empty() {
        // Raw, because the checked form refuses files whose snap length is wrong, of which there are many.
        let (after, packet) = parser.next_raw_packet(rest).map_err(|error| why(&error))?;
        rest = after;
        frames.push(Captured {
            file: path.to_owned(),
            index: frames.len() as u64 + 1,
            link_type,
            bytes: packet.data.to_vec(),
            original_length: packet.orig_len,
            time_ns: u64::from(packet.ts_sec) * 1_000_000_000 + u64::from(packet.ts_frac) * unit,
        });
    }
    Ok(())
}

fn pcapng(path: &Path, bytes: &[u8], frames: &mut Vec<Captured>) -> Result<(), String> {
    let (mut rest, mut parser) = PcapNgParser::new(bytes).map_err(|error| why(&error))?;
    while !rest.is_empty() {
        let (after, block) = parser.next_block(rest).map_err(|error| why(&error))?;
        rest = after;
        let interface = |id: usize| {
            parser
                .interfaces()
                .get(id)
                .ok_or_else(|| format!("a packet of interface {id}, which is not described"))
        };
        let before = frames.last().map_or(0, |frame: &Captured| frame.time_ns);
        let (from, stamp, data, original_length) = match &block {
            // The parser gives the stamp's units as nanoseconds, whatever the interface's units are.
            Block::EnhancedPacket(packet) => {
                let stamp = u64::try_from(packet.timestamp.as_nanos()).map_err(|error| error.to_string())?;
                (
                    interface(packet.interface_id as usize)?,
                    Some(stamp),
                    &packet.data,
                    packet.original_len,
                )
            }
            Block::Packet(packet) => {
                // The two halves stand high word first in either byte order; the parser reads them as one.
                let stamp = match parser.section().endianness {
                    pcap_file::Endianness::Big => packet.timestamp,
                    pcap_file::Endianness::Little => packet.timestamp.rotate_left(32),
                };
                (
                    interface(usize::from(packet.interface_id))?,
                    Some(stamp),
                    &packet.data,
                    packet.original_len,
                )
            }
            Block::SimplePacket(packet) => (interface(0)?, None, &packet.data, packet.original_len),
            _ => continue,
        };
        let mut data = data.to_vec();
        if stamp.is_none() {
            // A simple block does not say how much of it is padding (draft-ietf-opsawg-pcapng, 4.4).
            let snap = if from.snaplen == 0 { u32::MAX } else { from.snaplen };
            data.truncate(original_length.min(snap) as usize);
        }
        frames.push(Captured {
            file: path.to_owned(),
            index: frames.len() as u64 + 1,
            link_type: u32::from(from.linktype),
            bytes: data,
            original_length,
            time_ns: stamp.map_or(before, |stamp| nanoseconds(stamp, from)),
        });
    }
    Ok(())
}

/// A stamp in the interface's units: 10^-n or 2^-n of a second, and whole seconds to add.
fn nanoseconds(stamp: u64, interface: &InterfaceDescriptionBlock<'_>) -> u64 {
    let (mut resolution, mut offset) = (6u8, 0u64);
    for option in &interface.options {
        match option {
            InterfaceDescriptionOption::IfTsResol(units) => resolution = *units,
            InterfaceDescriptionOption::IfTsOffset(seconds) => offset = *seconds,
            _ => {}
        }
    }
    let exponent = u32::from(resolution & 0x7f);
    let units = if resolution & 0x80 == 0 {
        10u128.checked_pow(exponent)
    } else {
        2u128.checked_pow(exponent)
    };
    let since = u128::from(stamp).saturating_mul(NANOS) / units.unwrap_or(u128::MAX);
    u64::try_from(since + u128::from(offset) * NANOS).unwrap_or(u64::MAX)
}

fn why(error: &PcapError) -> String {
    match error {
        PcapError::IncompleteBuffer => "the file ends within a block".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: [u8; 4] = [1, 2, 3, 4];

    fn written(name: &str, bytes: &[u8]) -> PathBuf {
        let path = std::env::temp_dir().join(format!("keyfence-captures-{}-{name}", std::process::id()));
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn one(name: &str, bytes: &[u8]) -> Captured {
        let path = written(name, bytes);
        let (frames, broken) = read(&path);
        std::fs::remove_file(path).unwrap();
        assert!(broken.is_none(), "{broken:?}");
        assert_eq!(frames.len(), 1);
        frames.into_iter().next().unwrap()
    }

    fn pcap_file(magic: u32, big: bool, original: u32) -> Vec<u8> {
        let word = |value: u32| {
            if big {
                value.to_be_bytes()
            } else {
                value.to_le_bytes()
            }
        };
        let half = |value: u16| {
            if big {
                value.to_be_bytes()
            } else {
                value.to_le_bytes()
            }
        };
        let mut out = word(magic).to_vec();
        out.extend([half(2), half(4)].concat());
        [0, 0, 65535, 1, 10, 7, 4, original]
            .iter()
            .for_each(|value| out.extend(word(*value)));
        out.extend(FRAME);
        out
    }

    #[test]
    fn pcap_of_both_byte_orders_and_units_reads_the_same() {
        for (name, big) in [("be", true), ("le", false)] {
            let micro = one(name, &pcap_file(0xa1b2_c3d4, big, 4));
            assert_eq!(
                (micro.index, micro.link_type, micro.time_ns),
                (1, ETHERNET, 10_000_007_000)
            );
            assert_eq!(micro.bytes, FRAME);
            assert!(!micro.cut());
            let nano = one(name, &pcap_file(0xa1b2_3c4d, big, 5));
            assert_eq!(nano.time_ns, 10_000_000_007);
            assert!(nano.cut(), "4 of 5 bytes");
        }
    }

    #[test]
    fn pcapng_stamps_are_in_the_units_of_their_interface() {
        // Section header, interface (with if_tsresol and if_tsoffset where given), enhanced packet.
        let file = |resolution: Option<u8>| {
            let mut out = Vec::new();
            let mut block = |kind: u32, body: &[u8]| {
                let length = u32::try_from(body.len() + 12).unwrap();
                out.extend([kind.to_le_bytes(), length.to_le_bytes()].concat());
                out.extend(body);
                out.extend(length.to_le_bytes());
            };
            block(
                0x0a0d_0d0a,
                &[[0x4d, 0x3c, 0x2b, 0x1a], [1, 0, 0, 0], [0xff; 4], [0xff; 4]].concat(),
            );
            let mut interface = vec![1, 0, 0, 0, 0, 0, 0, 0];
            if let Some(units) = resolution {
                interface.extend([
                    9, 0, 1, 0, units, 0, 0, 0, 14, 0, 8, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
                ]);
            }
            block(1, &interface);
            let words: [u32; 5] = [0, 1, 0, 4, 4];
            block(
                6,
                &[words.map(u32::to_le_bytes).concat(), FRAME.to_vec()].concat(),
            );
            out
        };
        let units = 1u64 << 32;
        assert_eq!(one("ng", &file(None)).time_ns, units * 1000);
        assert_eq!(one("ng9", &file(Some(9))).time_ns, units + 5_000_000_000);
        assert_eq!(
            one("ng2", &file(Some(0x80 | 32))).time_ns,
            1_000_000_000 + 5_000_000_000
        );
    }

    #[test]
    fn a_file_that_breaks_off_gives_its_frames_and_then_says_why() {
        let mut bytes = pcap_file(0xa1b2_c3d4, false, 4);
        bytes.extend([0; 20]);
        bytes.truncate(bytes.len() - 7);
        let path = written("broken", &bytes);
        let (frames, broken) = read(&path);
        std::fs::remove_file(path).unwrap();
        let broken = broken.unwrap();
        assert_eq!((frames.len(), broken.after), (1, 1));
        assert_eq!(broken.why, "the file ends within a block");
    }

    #[test]
    fn every_capture_is_read_or_said_to_be_unreadable() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let Some(folder) = folder(&root).unwrap() else {
            println!("captures: not given");
            return;
        };
        let (mut frames, mut cut, mut broken) = (0, 0, Vec::new());
        for item in all(&folder).unwrap() {
            match item {
                Ok(frame) => {
                    frames += 1;
                    cut += u64::from(frame.cut());
                }
                Err(unreadable) => broken.push(unreadable),
            }
        }
        println!(
            "{frames} frames, {cut} of them cut, {} files unreadable from where it says",
            broken.len()
        );
        for unreadable in &broken {
            println!(
                "{} after {}: {}",
                unreadable.file.display(),
                unreadable.after,
                unreadable.why
            );
        }
        assert!(frames > 0);
    }
}
