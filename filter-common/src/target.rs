//! What a packet's destination leads to: service, class of the address, management entries.
//!
//! All of it follows from address, protocol and port, and from tables that never change under a generation. Most packets
//! to a host go to few of its services, so each CPU remembers where the last ones led, in lines that nothing outgrows.

use crate::abi::{Class, service_flags};
use crate::classify;
use crate::lookup::{Port, Tables, config_flags, port_index};
use crate::parse::{Address, Fragment, Packet, Protocol};
use crate::verdict::NO_SERVICE;

/// Where packets to one destination go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Target {
    /// The management combinations that have all of protocol, port and address.
    pub management: u64,
    /// `NO_SERVICE` where there is none.
    pub service: u32,
    pub class_number: u32,
    /// The services that have the port, as a row number; 0 is none.
    pub port_row: u32,
    /// Whether the service only observes.
    pub observed: u32,
}

/// Where a packet goes, by the tables; `None` cannot happen.
#[inline(always)]
pub fn find<T: Tables>(tables: &T, packet: &Packet) -> Option<Target> {
    let config = tables.config();
    let class_number = if config.has(config_flags::ADDRESSES) {
        tables.class_number(packet)
    } else {
        0
    };
    let class = tables.class(class_number)?;
    let port = if is_ported(packet) {
        tables.port(port_index(packet.protocol, packet.destination_port))
    } else {
        Port::NONE
    };
    let mut service = NO_SERVICE;
    if port.row != 0 {
        let row = if is_udp(packet) {
            class.udp_row
        } else {
            class.tcp_row
        };
        if port.service == NO_SERVICE {
            service = tables.service_in_both(port.row, row);
        } else if classify::has(tables, row, port.service) {
            service = port.service;
        }
    }
    let observed = if service == NO_SERVICE {
        0
    } else {
        tables.service(service)?.flags & service_flags::OBSERVE
    };
    Some(Target {
        management: management(tables, packet, class, port.management),
        service,
        class_number,
        port_row: port.row,
        observed,
    })
}

#[inline(always)]
pub(crate) fn is_udp(packet: &Packet) -> bool {
    packet.protocol as u8 == Protocol::Udp as u8
}

/// Whether the packet carries ports.
#[inline(always)]
pub(crate) fn is_ported(packet: &Packet) -> bool {
    packet.fragment as u8 != Fragment::Later as u8
        && (packet.protocol as u8 == Protocol::Tcp as u8 || is_udp(packet))
}

/// What rule 4 asks of the destination. Masks name the distinct combinations of protocol, ports and address.
#[inline(always)]
fn management<T: Tables>(tables: &T, packet: &Packet, class: &Class, ports: u32) -> u64 {
    if class.management == 0 {
        return 0;
    }
    let named = match (packet.protocol, packet.fragment) {
        (Protocol::Tcp, Fragment::Later) => tables.management_ports(MANAGEMENT_TCP),
        (Protocol::Udp, Fragment::Later) => tables.management_ports(MANAGEMENT_UDP),
        // Later fragments carry no ports, and in IPv6 no protocol that counts.
        (Protocol::Unknown, _) => u64::MAX,
        (Protocol::Tcp | Protocol::Udp, _) => tables.management_ports(ports),
        _ => 0,
    };
    class.management & named
}

/// Numbers in the table of management masks: no port, then every combination of TCP and of UDP.
pub const MANAGEMENT_NO_PORT: u32 = 0;
pub const MANAGEMENT_TCP: u32 = 1;
pub const MANAGEMENT_UDP: u32 = 2;

/// How many targets a CPU remembers.
pub const REMEMBERED: usize = 64;

/// One of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Remembered {
    address: Address,
    /// 0 is none.
    key: u64,
    pub target: Target,
}

impl Remembered {
    /// What the packet found: for those behind it to the same port, if it has one.
    #[inline(always)]
    pub fn of(packet: &Packet, target: Target) -> Self {
        Self {
            address: packet.destination,
            key: key(packet) & !NO_PORTS,
            target,
        }
    }

    /// Whether a packet goes there.
    #[inline(always)]
    pub fn is_of(&self, packet: &Packet) -> bool {
        let differs = self.key ^ key(packet)
            | self.address.lower ^ packet.destination.lower
            | self.address.upper ^ packet.destination.upper;
        differs == 0
    }
}

/// Protocol and port of a packet that has them; of any other, what no key is.
#[inline(always)]
fn key(packet: &Packet) -> u64 {
    if is_ported(packet) {
        1 << 31 | (packet.protocol as u64) << 16 | packet.destination_port as u64
    } else {
        NO_PORTS
    }
}

const NO_PORTS: u64 = 1 << 32;

/// Where what is known of a packet's destination is remembered.
#[inline(always)]
pub fn place(packet: &Packet) -> usize {
    (packet.destination.lower as usize ^ packet.destination_port as usize) & (REMEMBERED - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_packet_to_the_same_address_protocol_and_port_goes_where_another_went() {
        let packet = Packet {
            destination: Address { upper: 1, lower: 2 },
            destination_port: 443,
            protocol: Protocol::Tcp,
            ..Packet::default()
        };
        let known = Remembered::of(&packet, Target::default());
        let from = Packet {
            source_port: 7,
            fragment: Fragment::First,
            ..packet
        };
        assert!(known.is_of(&packet) && known.is_of(&from));
        let address = |upper, lower| Address { upper, lower };
        for other in [
            Packet {
                destination: address(1, 3),
                ..packet
            },
            Packet {
                destination: address(0, 2),
                ..packet
            },
            Packet {
                destination_port: 444,
                ..packet
            },
            Packet {
                protocol: Protocol::Udp,
                ..packet
            },
            Packet {
                protocol: Protocol::Icmp,
                ..packet
            },
            Packet {
                fragment: Fragment::Later,
                ..packet
            },
        ] {
            assert!(!known.is_of(&other), "{other:?}");
        }
    }

    #[test]
    fn what_has_no_ports_is_never_remembered() {
        for (protocol, fragment) in [
            (Protocol::Icmp, Fragment::Whole),
            (Protocol::Other, Fragment::Whole),
            (Protocol::Unknown, Fragment::Later),
            (Protocol::Tcp, Fragment::Later),
        ] {
            let packet = Packet {
                protocol,
                fragment,
                ..Packet::default()
            };
            assert!(!Remembered::of(&packet, Target::default()).is_of(&packet));
            assert!(!Remembered::default().is_of(&packet));
        }
        let packet = Packet {
            protocol: Protocol::Tcp,
            ..Packet::default()
        };
        assert!(!Remembered::default().is_of(&packet));
    }

    #[test]
    fn every_bit_of_a_port_tells_it_from_others() {
        let to = |protocol, destination_port| Packet {
            protocol,
            destination_port,
            ..Packet::default()
        };
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            for port in [0, 443, u16::MAX] {
                let known = Remembered::of(&to(protocol, port), Target::default());
                assert!(known.is_of(&to(protocol, port)));
                for bit in 0..u16::BITS {
                    let other = port ^ 1 << bit;
                    for protocol in [Protocol::Tcp, Protocol::Udp] {
                        assert!(!known.is_of(&to(protocol, other)), "{protocol:?} {port} {other}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_place_is_one_of_those_there_are() {
        for port in 0..=u16::MAX {
            for lower in [0, u64::MAX, 0xffff_cb00_710a] {
                let packet = Packet {
                    destination: Address { upper: 0, lower },
                    destination_port: port,
                    ..Packet::default()
                };
                assert!(place(&packet) < REMEMBERED);
            }
        }
    }
}
