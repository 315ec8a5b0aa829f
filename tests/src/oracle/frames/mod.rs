//! Builds frames, honest and lying: every length, version and flag can be set to what it should not be.
//!
//! Checksums are right where the headers are honest, so that a host takes the frames too. Judges nothing.

mod ip;
mod transport;

pub use ip::{Carrier, Extension, Ipv4, Ipv6};
pub use transport::{ACK, FIN, RST, SYN, Tcp, Udp, icmp};

const HOST: [u8; 6] = [0x02, 0, 0, 0, 0, 0x01];
const PEER: [u8; 6] = [0x02, 0, 0, 0, 0, 0x02];

/// An Ethernet frame: addresses, tags, EtherType, payload.
#[derive(Clone, Debug)]
pub struct Frame {
    pub destination: [u8; 6],
    pub source: [u8; 6],
    /// (EtherType of the tag, tag control information), outermost first.
    pub tags: Vec<(u16, u16)>,
    pub ether_type: u16,
    pub payload: Vec<u8>,
}

impl Frame {
    pub fn new(ether_type: u16, payload: impl Into<Vec<u8>>) -> Frame {
        Frame {
            destination: HOST,
            source: PEER,
            tags: Vec::new(),
            ether_type,
            payload: payload.into(),
        }
    }

    /// An ARP request (RFC 826), padded to Ethernet's least.
    pub fn arp() -> Frame {
        let mut payload = vec![0, 1, 8, 0, 6, 4, 0, 1];
        payload.extend(PEER);
        payload.extend([192, 0, 2, 9, 0, 0, 0, 0, 0, 0, 203, 0, 113, 10]);
        Frame {
            destination: [0xff; 6],
            ..Frame::new(0x0806, payload)
        }
        .pad(18, 0)
    }

    /// An 802.3 frame: the length in the EtherType's place, then LLC (IEEE 802.2) and what follows.
    pub fn llc(dsap: u8, ssap: u8, control: u8, rest: &[u8]) -> Frame {
        let payload = [&[dsap, ssap, control], rest].concat();
        Frame::new(payload.len().min(1500) as u16, payload)
    }

    /// LLC/SNAP (RFC 1042) with an EtherType of its own.
    pub fn snap(ether_type: u16, packet: &[u8]) -> Frame {
        let rest = [&[0, 0, 0][..], &ether_type.to_be_bytes(), packet].concat();
        Frame::llc(0xaa, 0xaa, 0x03, &rest)
    }

    pub fn to(self, destination: [u8; 6]) -> Frame {
        Frame { destination, ..self }
    }

    /// Adds a VLAN tag inside the tags there are.
    pub fn tag(mut self, tpid: u16, vlan: u16) -> Frame {
        self.tags.push((tpid, vlan));
        self
    }

    pub fn ether_type(self, ether_type: u16) -> Frame {
        Frame { ether_type, ..self }
    }

    /// So many bytes of `value` after the payload.
    pub fn pad(mut self, bytes: usize, value: u8) -> Frame {
        self.payload.extend(std::iter::repeat_n(value, bytes));
        self
    }

    /// These bytes after the payload.
    pub fn trailer(mut self, bytes: &[u8]) -> Frame {
        self.payload.extend(bytes);
        self
    }

    /// Takes so many bytes off the end of the payload.
    pub fn cut(mut self, bytes: usize) -> Frame {
        self.payload.truncate(self.payload.len().saturating_sub(bytes));
        self
    }

    /// Flips the bits of `mask` in byte `at` of the payload.
    pub fn flip(mut self, at: usize, mask: u8) -> Frame {
        if let Some(byte) = self.payload.get_mut(at) {
            *byte ^= mask;
        }
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut out = [self.destination, self.source].concat();
        for (tpid, control) in &self.tags {
            out.extend(tpid.to_be_bytes());
            out.extend(control.to_be_bytes());
        }
        out.extend(self.ether_type.to_be_bytes());
        out.extend(&self.payload);
        out
    }
}

#[cfg(test)]
mod tests {
    use etherparse::{NetSlice, SlicedPacket, TransportSlice};

    use super::transport::checksum;
    use super::*;

    /// Does another parser read what was built, and find its checksums right?
    #[test]
    fn what_is_built_reads_back_with_right_checksums() {
        let v4 = Ipv4::new([192, 0, 2, 1].into(), [203, 0, 113, 10].into());
        let v6 = Ipv6::new("2001:db8::1".parse().unwrap(), "2001:db8::2".parse().unwrap());
        let chained = v6
            .clone()
            .ext(Extension::hop_by_hop())
            .ext(Extension::routing(4, 0));
        let chained = chained
            .ext(Extension::authentication())
            .ext(Extension::fragment(0, false));
        let frames: [Frame; 6] = [
            v4.clone().tcp(40000, 443).frame().tag(0x88a8, 5).tag(0x8100, 6),
            v4.clone().options(&[1, 1, 1, 0]).udp(40000, 53).into(),
            v6.clone().udp(40000, 53).into(),
            chained.tcp(40000, 443).into(),
            v4.icmp(8, 0).into(),
            v6.icmp(128, 0).into(),
        ];
        for frame in frames {
            let bytes = frame.bytes();
            let sliced = SlicedPacket::from_ethernet(&bytes).unwrap();
            if let Some(NetSlice::Ipv4(v4)) = &sliced.net {
                let header = v4.header().to_header();
                assert_eq!(header.calc_header_checksum(), v4.header().header_checksum());
            }
            let (found, expected) = match (&sliced.net, &sliced.transport) {
                (Some(NetSlice::Ipv4(v4)), Some(TransportSlice::Tcp(tcp))) => (
                    tcp.checksum(),
                    tcp.to_header()
                        .calc_checksum_ipv4(&v4.header().to_header(), tcp.payload())
                        .unwrap(),
                ),
                (Some(NetSlice::Ipv4(v4)), Some(TransportSlice::Udp(udp))) => (
                    udp.checksum(),
                    udp.to_header()
                        .calc_checksum_ipv4(&v4.header().to_header(), udp.payload())
                        .unwrap(),
                ),
                (Some(NetSlice::Ipv6(v6)), Some(TransportSlice::Tcp(tcp))) => (
                    tcp.checksum(),
                    tcp.to_header()
                        .calc_checksum_ipv6(&v6.header().to_header(), tcp.payload())
                        .unwrap(),
                ),
                (Some(NetSlice::Ipv6(v6)), Some(TransportSlice::Udp(udp))) => (
                    udp.checksum(),
                    udp.to_header()
                        .calc_checksum_ipv6(&v6.header().to_header(), udp.payload())
                        .unwrap(),
                ),
                (Some(NetSlice::Ipv6(v6)), Some(TransportSlice::Icmpv6(icmp))) => {
                    assert!(icmp.is_checksum_valid(v6.header().source(), v6.header().destination()));
                    (0, 0)
                }
                (Some(NetSlice::Ipv4(_)), Some(TransportSlice::Icmpv4(icmp))) => {
                    assert_eq!(checksum(0, icmp.slice()), 0);
                    (0, 0)
                }
                other => panic!("{other:?}"),
            };
            assert_eq!(found, expected, "{frame:?}");
        }
    }

    #[test]
    fn lies_are_written_as_they_are_told() {
        let packet = Ipv4::new([192, 0, 2, 1].into(), [203, 0, 113, 10].into()).tcp(1, 2);
        let bytes = packet
            .header_words(4)
            .total_length(9)
            .version(7)
            .reserved_flag()
            .fragment(3, true)
            .packet();
        assert_eq!(
            (bytes[0], &bytes[2..4], &bytes[6..8]),
            (0x74, &[0, 9][..], &[0xa0, 3][..])
        );
        let frame = Frame::llc(0x42, 0x42, 3, &[9; 4])
            .tag(0x8100, 5)
            .cut(1)
            .trailer(&[7]);
        assert_eq!(
            frame.bytes()[12..],
            [0x81, 0, 0, 5, 0, 7, 0x42, 0x42, 3, 9, 9, 9, 7]
        );
        let options = Extension::options(60, 2);
        assert_eq!(options.bytes[..4], [0, 1, 1, 12]);
    }
}
