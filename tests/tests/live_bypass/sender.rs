//! A sender of raw packets to the service, and their pieces.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use keyfence_tests::harness::{Party, SERVER};
use keyfence_tests::oracle::frames::{Carrier, Extension, Frame, Ipv4, Ipv6, Tcp, Udp};

/// The service's.
pub(crate) const PORT: u16 = 7000;
/// No service's, and nobody listens.
pub(crate) const UNSERVED: u16 = 7999;
/// What is to be smuggled in: two units of fragments.
pub(crate) const DATA: &[u8] = b"past the filter!";

/// With a port that no other sender of the test has; fragments are identified by it, too.
pub(crate) struct Sender {
    pub(crate) v4: Ipv4Addr,
    pub(crate) v6: Ipv6Addr,
    pub(crate) port: u16,
}

impl Sender {
    pub(crate) fn new(party: Party, port: u16) -> Self {
        Self {
            v4: party.v4,
            v6: party.v6,
            port,
        }
    }

    /// Of its datagrams, one a family.
    pub(crate) fn addresses(&self) -> [SocketAddr; 2] {
        [self.v4.into(), self.v6.into()].map(|address| SocketAddr::new(address, self.port))
    }

    /// The peer, unless it is this one.
    pub(crate) fn another(&self, peer: IpAddr) -> Option<IpAddr> {
        (peer != IpAddr::V4(self.v4) && peer != IpAddr::V6(self.v6)).then_some(peer)
    }

    pub(crate) fn v4(&self) -> Ipv4 {
        Ipv4 {
            id: self.port,
            ..Ipv4::new(self.v4, SERVER.v4)
        }
    }

    pub(crate) fn v6(&self) -> Ipv6 {
        Ipv6::new(self.v6, SERVER.v6)
    }

    /// To the service.
    pub(crate) fn datagram(&self) -> Udp {
        Udp {
            data: DATA.to_vec(),
            ..Udp::new(self.port, PORT)
        }
    }

    pub(crate) fn udp4(&self) -> Ipv4 {
        self.v4().udp_with(self.datagram())
    }

    pub(crate) fn udp6(&self) -> Ipv6 {
        self.v6().udp_with(self.datagram())
    }

    /// To another address of the host, or to one of many hosts.
    pub(crate) fn udp4_to(&self, destination: [u8; 4]) -> Vec<Frame> {
        let packet = Ipv4 {
            destination: destination.into(),
            ..self.udp4()
        };
        vec![packet.into()]
    }

    pub(crate) fn udp6_to(&self, destination: Ipv6Addr) -> Vec<Frame> {
        let packet = Ipv6 {
            destination,
            ..self.udp6()
        };
        vec![packet.into()]
    }

    /// The datagram behind these extension headers.
    pub(crate) fn behind(&self, extensions: &[Extension]) -> Vec<Frame> {
        let hidden = |packet: Ipv6, extension: &Extension| packet.ext(extension.clone());
        vec![extensions.iter().fold(self.udp6(), hidden).into()]
    }

    pub(crate) fn syn(&self) -> Tcp {
        Tcp::new(self.port, PORT)
    }

    pub(crate) fn syn4(&self) -> Ipv4 {
        self.v4().tcp_with(self.syn())
    }

    pub(crate) fn syn6(&self) -> Ipv6 {
        self.v6().tcp_with(self.syn())
    }

    /// IPv6's fragment header.
    pub(crate) fn fragment(&self, offset: u16, more: bool) -> Extension {
        let mut extension = Extension::fragment(offset, more);
        extension.bytes[6..].copy_from_slice(&self.port.to_be_bytes());
        extension
    }

    /// A fragment; `offset` in units of 8 bytes.
    pub(crate) fn piece4(&self, protocol: u8, piece: &[u8], offset: u16, more: bool) -> Frame {
        let packet = self.v4().payload(protocol, piece.to_vec());
        packet.fragment(offset, more).into()
    }

    /// A fragment that names this next header.
    pub(crate) fn piece6(&self, next: u8, piece: &[u8], offset: u16, more: bool) -> Frame {
        let packet = self.v6().ext(self.fragment(offset, more));
        packet.payload(next, piece.to_vec()).into()
    }
}

/// What is behind the IP header, its checksum good.
pub(crate) fn payload4(packet: &Ipv4) -> Vec<u8> {
    packet.packet()[20..].to_vec()
}

pub(crate) fn payload6(packet: &Ipv6) -> Vec<u8> {
    packet.packet()[40..].to_vec()
}

/// UDP without a checksum, which IPv4 allows: for lengths that lie.
pub(crate) fn unchecked(packet: &Ipv4) -> Frame {
    let mut bytes = packet.packet();
    bytes[26..28].fill(0);
    Frame::new(0x0800, bytes)
}
