//! Any bytes as a frame: the parser never panics, and says nothing of bytes that are not there.
#![no_main]

use std::hint::black_box;

use filter_common::parse::{Fragment, Frame, Packet, Protocol, parse};
use keyfence_fuzz::seeds;
use libfuzzer_sys::fuzz_target;

/// Ethernet and two tags.
const LINK_MIN: usize = 14;

fuzz_target!(
    init: seeds::write(|| {
        let vectors = seeds::vector_frames().into_iter().map(|(_, frame)| frame);
        vectors.chain(seeds::captured_frames()).collect()
    }),
    |frame: &[u8]| {
        let mut packet = Packet::default();
        if black_box(parse(frame, &mut packet)) != Frame::Ip {
            return;
        }
        let length = packet.length as usize;
        assert!(length >= 20 && LINK_MIN + length <= frame.len(), "{packet:?}");
        let has_ports = matches!(packet.protocol, Protocol::Tcp | Protocol::Udp) && packet.fragment != Fragment::Later;
        assert!(has_ports || (packet.source_port, packet.destination_port) == (0, 0), "{packet:?}");
        // What stands behind the packet's end is padding: it changes nothing.
        let mut padded = Packet::default();
        let longer = [frame, &[0xff; 32]].concat();
        assert!(parse(longer.as_slice(), &mut padded) == Frame::Ip || frame.len() > 60_000, "{packet:?}");
        assert!(padded == packet || frame.len() > 60_000, "{packet:?} {padded:?}");
    }
);
